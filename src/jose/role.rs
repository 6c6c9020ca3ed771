//! Which database role a token names.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// How a token names a database role.
#[derive(Debug, Clone)]
pub struct RoleRules {
    /// The path of the claim, as `auth.claim` takes it: an index, which counts from the end if it is negative,
    /// selects from an array.
    pub claim: Vec<String>,
    /// The roles that it may name.
    pub allowed: Vec<String>,
    /// The role if the claim is absent or names another; `None`: refuse.
    pub default: Option<String>,
}

impl Default for RoleRules {
    /// The rules for tokens without a provider.
    fn default() -> Self {
        Self {
            claim: vec!["role".into()],
            allowed: vec!["authenticated".into()],
            default: None,
        }
    }
}

impl RoleRules {
    /// What the claims name, and the role that they get.
    ///
    /// A claim that is an array (Keycloak, Cognito), or an object of which the keys count (Zitadel), names the
    /// first of the allowed roles that is in it.
    #[must_use]
    pub fn role<'a>(
        &'a self,
        claims: &'a Map<String, Value>,
    ) -> (Option<Cow<'a, str>>, Option<&'a str>) {
        let mut path = self.claim.iter();
        let first = path.next().and_then(|name| claims.get(name));
        let claim = path.fold(first, |value, name| element(value?, name));
        let first_in = |has: &dyn Fn(&str) -> bool| self.allowed.iter().find(|role| has(role));
        let (named, allowed) = match claim {
            Some(Value::String(name)) => {
                let allowed = first_in(&|role| role == name);
                (Some(Cow::Borrowed(name.as_str())), allowed)
            }
            Some(Value::Array(items)) => {
                let names = || items.iter().filter_map(Value::as_str);
                let allowed = first_in(&|role| names().any(|name| name == role));
                (one_of(names(), allowed), allowed)
            }
            Some(Value::Object(members)) => {
                let names = members.keys().map(String::as_str);
                let allowed = first_in(&|role| members.contains_key(role));
                (one_of(names, allowed), allowed)
            }
            _ => (None, None),
        };
        let role = allowed.or(self.default.as_ref());
        (named, role.map(String::as_str))
    }
}

/// The member of an object, or the item of an array.
fn element<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Array(items) = value else {
        return value.get(name);
    };
    match name.parse::<isize>().ok()? {
        back @ ..0 => items.get(items.len().checked_add_signed(back)?),
        index => items.get(index.unsigned_abs()),
    }
}

/// Of several names the allowed one; or, for the message that none is, a few of them.
fn one_of<'a>(
    names: impl Iterator<Item = &'a str>,
    allowed: Option<&'a String>,
) -> Option<Cow<'a, str>> {
    if let Some(allowed) = allowed {
        return Some(Cow::Borrowed(allowed));
    }
    let few: Vec<_> = names.take(8).collect();
    (!few.is_empty()).then(|| Cow::Owned(few.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The role that a token of these claims gets.
    fn role(path: &[&str], allowed: &[&str], claims: Value) -> Option<String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let rules = RoleRules {
            claim: owned(path),
            allowed: owned(allowed),
            default: None,
        };
        let claims = claims.as_object().expect("claims");
        rules.role(claims).1.map(str::to_owned)
    }

    #[test]
    fn a_list_of_roles_gives_the_first_that_is_allowed() {
        let keycloak = json!({"realm_access": {"roles": ["offline_access", "editor", "admin"]}});
        let path = ["realm_access", "roles"];
        assert_eq!(
            role(&path, &["admin", "editor"], keycloak.clone()).as_deref(),
            Some("admin")
        );
        assert_eq!(role(&path, &["reader"], keycloak.clone()), None);
        for (index, expected) in [("0", None), ("1", Some("editor")), ("-2", Some("editor"))] {
            let path = [path[0], path[1], index];
            let got = role(&path, &["admin", "editor"], keycloak.clone());
            assert_eq!(got.as_deref(), expected, "{index}");
        }
        for index in ["3", "-4", "x", "1.0", "99999999999999999999", ""] {
            let path = [path[0], path[1], index];
            assert_eq!(role(&path, &["editor"], keycloak.clone()), None, "{index}");
        }
    }

    #[test]
    fn the_keys_of_an_object_are_roles() {
        let zitadel = json!({"urn:zitadel:iam:org:project:roles": {"writer": {"1": "acme"}}});
        let path = ["urn:zitadel:iam:org:project:roles"];
        assert_eq!(
            role(&path, &["reader", "writer"], zitadel.clone()).as_deref(),
            Some("writer")
        );
        // What is below a key is not a role.
        assert_eq!(role(&path, &["acme", "1"], zitadel), None);
    }

    #[test]
    fn what_is_no_text_names_no_role() {
        for value in [
            json!(1),
            json!(null),
            json!(true),
            json!([1, null, ["writer"]]),
            json!([]),
            json!({}),
        ] {
            assert_eq!(
                role(&["role"], &["writer"], json!({ "role": value })),
                None,
                "{value}"
            );
        }
    }
}
