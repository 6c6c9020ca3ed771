//! One name for what issuers name differently: the organization that a user acts for, and what the user
//! may do there. Pure: verified claims in, answers out; no Postgres, no state.
//!
//! The answers come from claims that the issuer or the application's operator controls, never from
//! `user_metadata`: Supabase lets users edit that themselves
//! (<https://supabase.github.io/splinter/0015_rls_references_user_metadata>).
//!
//! A claim of the wrong JSON type counts as absent, and so does an empty string.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::clerk_permissions::Masks;

type Claims = Map<String, Value>;

/// The organization's id, in the issuer's own form.
pub fn org_id(claims: &Claims) -> Option<&str> {
    match Shape::of(claims) {
        Shape::ClerkV1 | Shape::WorkOs | Shape::Auth0 => text(claims, "org_id"),
        Shape::ClerkV2 | Shape::NeonAuth => text(object(claims, "o")?, "id"),
        // Where an operator stores it: only the server writes app_metadata.
        Shape::Supabase => text(object(claims, "app_metadata")?, "org_id"),
    }
}

/// The user's role in the organization, without Clerk's `org:`. Not the database role.
pub fn org_role(claims: &Claims) -> Option<&str> {
    match Shape::of(claims) {
        Shape::ClerkV1 => without_prefix(text(claims, "org_role")?),
        // Clerk writes it without the prefix; a template may have put it back.
        Shape::ClerkV2 => without_prefix(text(object(claims, "o")?, "rol")?),
        Shape::NeonAuth => text(object(claims, "o")?, "role"),
        Shape::WorkOs => workos_role(claims),
        // `role` is the database role:
        // https://supabase.com/docs/guides/auth/jwt-fields,
        // https://supabase.com/docs/guides/auth/third-party/auth0
        Shape::Auth0 | Shape::Supabase => None,
    }
}

/// The organization's name as used in URLs.
pub fn org_slug(claims: &Claims) -> Option<&str> {
    match Shape::of(claims) {
        Shape::ClerkV1 => text(claims, "org_slug"),
        Shape::ClerkV2 => text(object(claims, "o")?, "slg"),
        Shape::NeonAuth => text(object(claims, "o")?, "slug"),
        // Auth0's unique name, not its display name:
        // https://auth0.com/docs/manage-users/organizations/configure-organizations/use-org-name-authentication-api
        Shape::Auth0 => text(claims, "org_name"),
        Shape::WorkOs | Shape::Supabase => None,
    }
}

/// What the user may do, as the issuer's dashboard writes it. None if the token says nothing about
/// permissions, an empty list if it says that there are none.
pub fn permissions(claims: &Claims) -> Option<Vec<Cow<'_, str>>> {
    Some(match stated(claims)? {
        Stated::List(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(Cow::Borrowed)
            .collect(),
        Stated::Words(words) => words.split_ascii_whitespace().map(Cow::Borrowed).collect(),
        Stated::Masks(masks) => masks
            .granted()
            .map(|(feature, name)| Cow::Owned(format!("org:{feature}:{name}")))
            .collect(),
    })
}

/// The maximum memory in bytes for [`permissions`] and an array made of them.
///
/// Clerk's permissions can be far longer than the claims: each repeats the name of its feature.
pub fn size_of_permissions(claims: &Claims) -> usize {
    const EACH: usize = 256;
    match stated(claims) {
        Some(Stated::Masks(masks)) => masks
            .granted()
            .map(|(feature, name)| EACH + 3 * (feature.len() + name.len()))
            .sum(),
        Some(Stated::List(list)) => EACH * list.len(),
        Some(Stated::Words(words)) => EACH * words.split_ascii_whitespace().count(),
        None => 0,
    }
}

/// Whether `permission`, written as [`permissions`] writes it, is among them.
pub fn has_permission(claims: &Claims, permission: &str) -> bool {
    match stated(claims) {
        None => false,
        Some(Stated::List(list)) => list.iter().any(|item| item.as_str() == Some(permission)),
        Some(Stated::Words(words)) => words
            .split_ascii_whitespace()
            .any(|item| item == permission),
        // Compared in parts, so that no other permission is built.
        Some(Stated::Masks(masks)) => permission
            .strip_prefix("org:")
            .and_then(|rest| rest.split_once(':'))
            .is_some_and(|asked| masks.granted().any(|granted| granted == asked)),
    }
}

/// Which issuer's claim names a token uses. Every function above asks this first, so that no answer
/// combines claims of two shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// <https://clerk.com/docs/guides/sessions/session-tokens>, tab "Version 1".
    ClerkV1,
    /// The same page, tab "Version 2".
    ClerkV2,
    /// <https://workos.com/docs/reference/authkit/session-tokens>
    WorkOs,
    /// <https://auth0.com/docs/manage-users/organizations/using-tokens>, and every token that fits none
    /// of the others: its claim names are OAuth's own (`scope`, RFC 8693 section 4.2).
    Auth0,
    /// <https://neon.com/docs/auth/guides/plugins/jwt>
    NeonAuth,
    /// <https://supabase.com/docs/guides/auth/jwt-fields>
    Supabase,
}

impl Shape {
    /// **The rule that says which issuer's claim names count**, by the claims alone: an issuer may have
    /// any address (custom domains), and tokens are signed, so only the author of a template or a hook
    /// could confuse it.
    fn of(claims: &Claims) -> Self {
        let has = |name| text(claims, name).is_some();
        let starts = |name, prefix| text(claims, name).is_some_and(|text| text.starts_with(prefix));

        // First what the issuer's documentation says is always there: templates and hooks may add claims
        // with another issuer's names, but do not remove it.
        if claims.get("v").and_then(Value::as_f64) == Some(2.0) {
            return Self::ClerkV2;
        }
        if has("aal") && has("session_id") {
            return Self::Supabase;
        }
        if starts("sid", "sess_") {
            return Self::ClerkV1;
        }
        if starts("sid", "session_") || text(claims, "iss").is_some_and(is_workos) {
            return Self::WorkOs;
        }
        // Users are "connection|id", applications "id@clients":
        // https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles
        if text(claims, "sub").is_some_and(|sub| sub.contains('|') || sub.ends_with("@clients")) {
            return Self::Auth0;
        }

        // Then, for tokens from templates and from issuers that resemble one of these, the claims that
        // only one of them has.
        if let Some(o) = object(claims, "o") {
            // Templates leave `v` out (<https://clerk.com/docs/guides/sessions/jwt-templates>); only
            // Clerk uses the short names.
            let clerks = ["rol", "slg", "per", "fpm"];
            if clerks.iter().any(|name| o.contains_key(*name)) {
                Self::ClerkV2
            } else {
                Self::NeonAuth
            }
        } else if has("org_role") || has("org_slug") || list(claims, "org_permissions").is_some() {
            Self::ClerkV1
        } else if object(claims, "app_metadata").is_some() {
            Self::Supabase
        } else if ["scope", "scp", "azp", "client_id", "gty", "org_name"]
            .into_iter()
            .any(|name| has(name) || list(claims, name).is_some())
        {
            Self::Auth0
        } else if has("org_id") && (has("role") || claims.contains_key("user_role")) {
            Self::WorkOs
        } else {
            Self::Auth0
        }
    }
}

/// `https://api.workos.com` and below: <https://supabase.com/docs/guides/auth/third-party/workos>.
fn is_workos(issuer: &str) -> bool {
    issuer
        .strip_prefix("https://api.workos.com")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// WorkOS's `role` is the role in the organization, unless a JWT template has made it the database role:
/// <https://workos.com/docs/integrations/supabase-authkit>.
fn workos_role(claims: &Claims) -> Option<&str> {
    /// The database roles that templates name: ours, PostgREST's and Supabase's.
    const DATABASE_ROLES: [&str; 4] = ["authenticated", "anonymous", "anon", "service_role"];

    // A role only comes with an organization: https://workos.com/docs/authkit/sessions. Without one, a
    // template has set the claim.
    text(claims, "org_id")?;
    // Whatever its value, its presence shows that `role` has been moved. A user without a membership has
    // null.
    if claims.contains_key("user_role") {
        return text(claims, "user_role");
    }
    let role = text(claims, "role")?;
    // A template may overwrite `role` and move nothing; then `roles` still has the membership's.
    let moved = DATABASE_ROLES.contains(&role)
        || list(claims, "roles")
            .is_some_and(|roles| !roles.iter().any(|item| item.as_str() == Some(role)));
    (!moved).then_some(role)
}

fn masks<'a>(claims: &'a Claims, o: &'a Claims) -> Masks<'a> {
    Masks::new(
        text(claims, "fea").unwrap_or_default(),
        text(o, "per").unwrap_or_default(),
        text(o, "fpm").unwrap_or_default(),
    )
}

/// Permissions as the token states them.
enum Stated<'a> {
    List(&'a [Value]),
    /// Separated by spaces (RFC 6749 section 3.3).
    Words(&'a str),
    Masks(Masks<'a>),
}

fn stated(claims: &Claims) -> Option<Stated<'_>> {
    match Shape::of(claims) {
        Shape::ClerkV1 => list(claims, "org_permissions").map(Stated::List),
        // Without an active organization, Clerk's own libraries return no list either, rather than an
        // empty one.
        Shape::ClerkV2 => object(claims, "o").map(|o| Stated::Masks(masks(claims, o))),
        Shape::WorkOs => list(claims, "permissions").map(Stated::List),
        // `permissions` is there where the API adds them to its tokens; `scope` is then only what
        // the application asked for:
        // https://auth0.com/docs/get-started/apis/enable-role-based-access-control-for-apis
        // Okta, Entra and Hydra write `scp` for it, and Duende and others a list of either.
        Shape::Auth0 => list(claims, "permissions")
            .map(Stated::List)
            .or_else(|| words(claims, "scope"))
            .or_else(|| words(claims, "scp")),
        Shape::NeonAuth | Shape::Supabase => None,
    }
}

/// A list, or words in a text.
fn words<'a>(claims: &'a Claims, name: &str) -> Option<Stated<'a>> {
    match claims.get(name)? {
        Value::Array(items) => Some(Stated::List(items)),
        Value::String(text) => Some(Stated::Words(text)),
        _ => None,
    }
}

/// Clerk's version 1 writes roles as `org:admin`.
fn without_prefix(role: &str) -> Option<&str> {
    let role = role.strip_prefix("org:").unwrap_or(role);
    (!role.is_empty()).then_some(role)
}

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    let text = claims.get(name)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

fn list<'a>(claims: &'a Claims, name: &str) -> Option<&'a [Value]> {
    claims.get(name)?.as_array().map(Vec::as_slice)
}

fn object<'a>(claims: &'a Claims, name: &str) -> Option<&'a Claims> {
    claims.get(name)?.as_object()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().expect("an object").clone()
    }

    /// Permissions as owned text, for comparison with JSON.
    fn permitted(value: Value) -> Option<Vec<String>> {
        let claims = claims(value);
        let permissions = permissions(&claims)?;
        Some(permissions.into_iter().map(Cow::into_owned).collect())
    }

    fn clerk_v2(fea: Value, per: Value, fpm: Value) -> Value {
        json!({"v": 2, "fea": fea, "o": {"id": "org_1", "rol": "admin", "per": per, "fpm": fpm}})
    }

    /// What Clerk's three claims grant; the result is always a list.
    fn decoded(fea: &str, per: &str, fpm: &str) -> Vec<String> {
        permitted(clerk_v2(json!(fea), json!(per), json!(fpm))).expect("a list")
    }

    fn issuers() -> Vec<Value> {
        serde_json::from_str(include_str!("../../tests/vectors/identity.json")).expect("valid")
    }

    #[test]
    fn each_issuers_documented_tokens_give_the_same_four_answers() {
        for vector in issuers() {
            let name = &vector["name"];
            assert!(vector["source"].is_string(), "{name}: no source");
            let claims = claims(vector["claims"].clone());
            let found = json!({
                "org_id": org_id(&claims),
                "org_role": org_role(&claims),
                "org_slug": org_slug(&claims),
                "permissions": permissions(&claims),
            });
            assert_eq!(found, vector["expected"], "{name}");
        }
    }

    #[test]
    fn has_permission_agrees_with_the_list() {
        for vector in issuers() {
            let name = &vector["name"];
            let claims = claims(vector["claims"].clone());
            for permission in permissions(&claims).unwrap_or_default() {
                assert!(has_permission(&claims, &permission), "{name}: {permission}");
            }
            for absent in ["", "org", "org:", "org::", ":", "org:dashboard", "no:such"] {
                assert!(!has_permission(&claims, absent), "{name}: {absent}");
            }
        }
    }

    #[test]
    fn claims_of_the_wrong_type_are_as_if_absent() {
        let wrong = [
            json!(null),
            json!(true),
            json!(-7),
            json!(2.5),
            json!(""),
            json!([1, null, {}]),
            json!({"id": 7, "rol": [], "role": {}, "slg": null, "slug": false, "per": 1, "fpm": []}),
        ];
        let names = [
            "v",
            "o",
            "fea",
            "org_id",
            "org_role",
            "org_slug",
            "org_permissions",
            "org_name",
            "role",
            "roles",
            "user_role",
            "permissions",
            "scope",
            "app_metadata",
            "aal",
            "sid",
            "session_id",
            "iss",
            "sub",
        ];
        for vector in issuers() {
            let original = claims(vector["claims"].clone());
            for name in names {
                for value in &wrong {
                    let mut changed = original.clone();
                    changed.insert(name.into(), value.clone());
                    assert_ne!(org_id(&changed), Some(""));
                    assert_ne!(org_role(&changed), Some(""));
                    assert_ne!(org_slug(&changed), Some(""));
                    has_permission(&changed, "org:a:b");
                    permissions(&changed);
                }
            }
        }
        for value in wrong {
            let all: Claims = names
                .iter()
                .map(|name| ((*name).to_owned(), value.clone()))
                .collect();
            assert_eq!(org_id(&all), None, "{value}");
            assert_eq!(org_role(&all), None, "{value}");
            assert_eq!(org_slug(&all), None, "{value}");
            assert!(permissions(&all).unwrap_or_default().is_empty(), "{value}");
        }
    }

    #[test]
    fn what_users_edit_themselves_changes_nothing() {
        let edited = json!({
            "v": 2, "aal": "aal2", "session_id": "x", "iss": "https://api.workos.com",
            "org_id": "theirs", "org_role": "org:admin", "org_slug": "theirs", "role": "admin",
            "user_role": "admin", "permissions": ["all"], "scope": "all",
            "app_metadata": {"org_id": "theirs"}, "o": {"id": "theirs", "role": "admin"},
        });
        for vector in issuers() {
            let mut claims = claims(vector["claims"].clone());
            claims.insert("user_metadata".into(), edited.clone());
            assert_eq!(org_id(&claims), vector["expected"]["org_id"].as_str());
            assert_eq!(org_role(&claims), vector["expected"]["org_role"].as_str());
            assert_eq!(org_slug(&claims), vector["expected"]["org_slug"].as_str());
            assert_eq!(
                json!(permissions(&claims)),
                vector["expected"]["permissions"]
            );
        }
    }

    #[test]
    fn a_database_role_never_comes_out_as_the_organizations() {
        for vector in issuers() {
            let mut claims = claims(vector["claims"].clone());
            for role in ["authenticated", "anonymous", "anon", "service_role"] {
                claims.insert("role".into(), json!(role));
                assert_ne!(org_role(&claims), Some(role), "{}", vector["name"]);
            }
        }
        // Nor one of another name, where another claim says that `role` is not WorkOS's.
        for others in [
            json!({"user_role": null}),
            json!({"user_role": 7}),
            json!({"roles": ["member"]}),
            json!({"sub": "auth0|1"}),
            json!({"aal": "aal1", "session_id": "s"}),
        ] {
            let mut claims = claims(others);
            claims.insert("org_id".into(), json!("org_1"));
            claims.insert("role".into(), json!("app_admin"));
            assert_eq!(org_role(&claims), None, "{claims:?}");
        }
    }

    #[test]
    fn a_supabase_token_stays_one_whatever_its_hook_adds() {
        let token = claims(json!({
            "aal": "aal1", "session_id": "5f0e", "role": "authenticated",
            "app_metadata": {"org_id": "acme"},
            "user_role": "moderator", "org_id": "other", "org_role": "org:admin",
            "org_slug": "other", "permissions": ["all"], "scope": "all",
            "o": {"id": "other", "role": "owner"},
        }));
        assert_eq!(org_id(&token), Some("acme"));
        assert_eq!(org_role(&token), None);
        assert_eq!(org_slug(&token), None);
        assert_eq!(permissions(&token), None);
    }

    #[test]
    fn a_clerk_token_says_nothing_in_the_other_versions_words() {
        let v2 = claims(json!({
            "v": 2, "sid": "sess_1", "org_id": "org_1", "org_role": "org:admin",
            "org_slug": "acme", "org_permissions": ["org:a:b"], "permissions": ["c"],
        }));
        assert_eq!(org_id(&v2), None);
        assert_eq!(org_role(&v2), None);
        assert_eq!(org_slug(&v2), None);
        assert_eq!(permissions(&v2), None);

        let v1 = claims(json!({
            "sid": "sess_1", "o": {"id": "org_2", "role": "owner"}, "permissions": ["c"],
        }));
        assert_eq!(org_id(&v1), None);
        assert_eq!(org_role(&v1), None);
        assert_eq!(permissions(&v1), None);
    }

    #[test]
    fn clerks_short_names_are_clerks_with_or_without_the_version() {
        let role = |version, o| {
            let token = claims(json!({"v": version, "o": o}));
            org_role(&token).map(str::to_owned)
        };
        let both = json!({"rol": "admin", "role": "owner"});
        for version in [json!(2), json!(2.0), json!("2"), json!(null)] {
            assert_eq!(role(version, both.clone()).as_deref(), Some("admin"));
        }
        assert_eq!(role(json!(2), json!({"role": "owner"})), None);
        assert_eq!(
            role(json!("2"), json!({"role": "owner"})).as_deref(),
            Some("owner")
        );
    }

    #[test]
    fn a_role_loses_clerks_prefix_once() {
        for (written, role) in [
            ("org:admin", Some("admin")),
            ("admin", Some("admin")),
            ("org:org:admin", Some("org:admin")),
            ("org:", None),
        ] {
            let v1 = claims(json!({"org_role": written}));
            assert_eq!(org_role(&v1), role);
            let v2 = claims(json!({"v": 2, "o": {"rol": written}}));
            assert_eq!(org_role(&v2), role);
        }
    }

    #[test]
    fn an_address_that_only_begins_like_workos_is_not_workos() {
        assert!(is_workos("https://api.workos.com"));
        assert!(is_workos("https://api.workos.com/user_management/client_1"));
        assert!(!is_workos("https://api.workos.com.example.org/"));
        assert!(!is_workos("http://api.workos.com/"));
    }

    #[test]
    fn auth0_permissions_win_over_scope_even_when_there_are_none() {
        let none = json!({"sub": "auth0|1", "permissions": [], "scope": "read:a"});
        assert_eq!(permitted(none), Some(vec![]));
        let wrong = json!({"sub": "auth0|1", "permissions": "read:b", "scope": "read:a"});
        assert_eq!(permitted(wrong), Some(vec!["read:a".to_owned()]));
        let spaces = json!({"sub": "auth0|1", "scope": "  read:a\t openid  "});
        assert_eq!(
            permitted(spaces),
            Some(vec!["read:a".to_owned(), "openid".to_owned()])
        );
        assert_eq!(
            permitted(json!({"sub": "00u1", "scp": ["a", 7, "b"], "org_id": "o", "role": "r"})),
            Some(vec!["a".into(), "b".into()])
        );
        for (claims, expected) in [
            (json!({"scp": "a b"}), Some(vec!["a", "b"])),
            (json!({"scope": ["a"], "scp": "b"}), Some(vec!["a"])),
            (json!({"scope": null, "scp": "b"}), Some(vec!["b"])),
            (json!({"scope": 7, "scp": {}}), None),
        ] {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(permitted(claims.clone()), expected, "{claims}");
        }
        assert_eq!(
            permitted(json!({"sub": "auth0|1", "scope": ""})),
            Some(vec![])
        );
        assert_eq!(permitted(json!({"sub": "auth0|1"})), None);
    }

    #[test]
    fn what_is_no_text_in_a_list_of_permissions_is_left_out() {
        let mixed =
            json!({"org_id": "org_1", "role": "member", "permissions": ["a", 1, null, "b"]});
        assert_eq!(permitted(mixed), Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn an_issuer_without_permissions_gives_null_and_denies() {
        let neon = json!({"o": {"id": "org-123", "role": "owner"}, "permissions": ["all"]});
        assert_eq!(permitted(neon.clone()), None);
        assert!(!has_permission(&claims(neon), "all"));
        assert_eq!(permitted(json!({})), None);
    }

    #[test]
    fn features_of_users_grant_nothing_but_keep_their_position() {
        let found = decoded(
            "u:profile,o:leads,uo:teams,ou:mail",
            "read,manage",
            "3,1,2,3",
        );
        let expected = [
            "org:leads:read",
            "org:teams:manage",
            "org:mail:read",
            "org:mail:manage",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_documented_scopes_count() {
        for fea in [
            "x:a", "a", ":a", "o:", "o", "O:a", "oo:a", "foo:a", "o:a:b", "", ",",
        ] {
            assert_eq!(decoded(fea, "read", "1,1"), [""; 0], "{fea}");
        }
    }

    #[test]
    fn white_space_around_names_and_masks_is_ignored() {
        let found = decoded(" o:a , o:b ", " read , manage ", " 1 , 2 ");
        assert_eq!(found, ["org:a:read", "org:b:manage"]);
    }

    #[test]
    fn fewer_masks_than_features_leave_the_last_without_permissions() {
        assert_eq!(
            decoded("o:a,o:b,o:c", "read", "1,1"),
            ["org:a:read", "org:b:read"]
        );
    }

    #[test]
    fn more_masks_than_features_are_ignored() {
        assert_eq!(decoded("o:a", "read", "1,1,1"), ["org:a:read"]);
    }

    #[test]
    fn bits_beyond_the_names_are_ignored() {
        assert_eq!(decoded("o:a", "read", "255"), ["org:a:read"]);
        // Also those within a word of which the names use a part.
        assert_eq!(decoded("o:a", "read,,x", "7"), ["org:a:read", "org:a:x"]);
    }

    #[test]
    fn garbage_for_a_mask_costs_only_its_own_feature() {
        for garbage in [
            "",
            "-1",
            "+1",
            "0x1",
            "1.0",
            "1e3",
            "one",
            "١",
            "１",
            "1 1",
            "-9223372036854775808",
        ] {
            let found = decoded("o:a,o:b,o:c", "read", &format!("1,{garbage},1"));
            assert_eq!(found, ["org:a:read", "org:c:read"], "{garbage}");
        }
        assert_eq!(decoded("o:a", "read", "0"), [""; 0]);
        assert_eq!(decoded("o:a", "read", "0001"), ["org:a:read"]);
    }

    #[test]
    fn nothing_is_granted_without_names_masks_or_features() {
        for (fea, per, fpm) in [
            (json!(null), json!("read"), json!("1")),
            (json!("o:a"), json!(null), json!("1")),
            (json!("o:a"), json!("read"), json!(null)),
            (json!("o:a"), json!(""), json!("1")),
            (json!("o:a"), json!("read"), json!("")),
            (json!(["o:a"]), json!(["read"]), json!(["1"])),
            (json!("o:a"), json!("read"), json!(1)),
        ] {
            assert_eq!(permitted(clerk_v2(fea, per, fpm)), Some(vec![]));
        }
    }

    #[test]
    fn masks_may_be_wider_than_any_integer() {
        let names: Vec<String> = (0..200).map(|index| format!("p{index}")).collect();
        for (mask, bits) in [
            // 2^63 + 1
            ("9223372036854775809", &[0, 63][..]),
            // 2^64 - 1 + 2^64
            ("36893488147419103231", &(0..65).collect::<Vec<_>>()[..]),
            // 2^72 + 1
            ("4722366482869645213697", &[0, 72]),
            // 2^128 + 2^127
            ("510423550381407695195061911147652317184", &[127, 128]),
            // 2^199
            (
                "803469022129495137770981046170581301261101496891396417650688",
                &[199],
            ),
            // 2^200 + 2: the first of them has no name
            (
                "1606938044258990275541962092341162602522202993782792835301378",
                &[1],
            ),
        ] {
            let expected: Vec<String> = bits.iter().map(|bit| format!("org:a:p{bit}")).collect();
            assert_eq!(decoded("o:a", &names.join(","), mask), expected, "{mask}");
        }
    }

    #[test]
    fn long_lists_take_no_more_than_their_length() {
        // A megabyte of claims: features times names would be ten thousand million.
        let many = 100_000;
        let token = claims(clerk_v2(
            json!(vec!["o:f"; many].join(",")),
            json!(vec!["p"; many].join(",")),
            json!(vec!["3"; many].join(",")),
        ));
        let wide = claims(clerk_v2(
            json!("o:f"),
            json!(vec!["p"; many].join(",")),
            json!("9".repeat(many / 10)),
        ));
        let start = Instant::now();
        assert_eq!(permissions(&token).map(|list| list.len()), Some(2 * many));
        assert!(!has_permission(&token, "org:f:q"));
        assert!(has_permission(&wide, "org:f:p"));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_permission_is_compared_in_all_its_parts() {
        let token = claims(clerk_v2(json!("o:a"), json!("b,c:d"), json!("3")));
        assert!(has_permission(&token, "org:a:b"));
        assert!(has_permission(&token, "org:a:c:d"));
        for other in [
            "a:b", "org:a", "org:a:", "org:a:bb", "org:aa:b", "ORG:a:b", "org:a:b ",
        ] {
            assert!(!has_permission(&token, other), "{other}");
        }
    }
}
