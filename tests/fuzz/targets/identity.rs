//! Organizations, permissions and database roles of any claims, and of each issuer's with some of them changed.

#![no_main]

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{CLAIMS, object};
use pg_session_jwt_jose::{RoleRules, organization, subject};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    // The text of a payload, as well as a choice of members.
    if let Ok(claims) = serde_json::from_slice(data) {
        check(&claims, "a", Map::new());
    }
    let _ = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured) -> Result<()> {
    let mut claims = if u.ratio(1, 2)? {
        u.choose(&CLAIMS)?.clone()
    } else {
        Map::new()
    };
    if u.ratio(1, 4)? && !claims.is_empty() {
        let name = claims.keys().nth(u.choose_index(claims.len())?).cloned();
        claims.remove(&name.unwrap_or_default());
    }
    for (name, value) in object(u, 3)? {
        // Into the objects that matter, rather than instead of them.
        match (claims.get_mut(&name), value) {
            (Some(Value::Object(inside)), Value::Object(more)) => inside.extend(more),
            (_, value) => {
                claims.insert(name, value);
            }
        }
    }
    if u.ratio(1, 4)? {
        clerk(u, &mut claims)?;
    }
    let edited = object(u, 2)?;
    check_role(u, &claims)?;
    check(&claims, u.arbitrary()?, edited);
    Ok(())
}

/// Clerk's permissions: three lists that belong together.
fn clerk(u: &mut Unstructured, claims: &mut Map<String, Value>) -> Result<()> {
    let mut list = |words: &[&str]| {
        let count = u.int_in_range(0..=5)?;
        let words = (0..count).map(|_| u.choose(words).copied());
        Ok(words.collect::<Result<Vec<_>>>()?.join(","))
    };
    let features = list(&["o:a", "u:b", "uo:c", "o:", " o:d", "o:a:b", "x"])?;
    let names = list(&["read", "c:d", "", " write ", "a"])?;
    let masks = list(&[
        "1",
        "3",
        "0",
        "",
        "-1",
        " 2",
        "18446744073709551617",
        "99999999999999999999",
    ])?;
    claims.insert("v".into(), 2.into());
    claims.insert("fea".into(), features.into());
    let o = [
        ("id", "org_1".into()),
        ("per", names.into()),
        ("fpm", masks.into()),
    ];
    claims.insert(
        "o".into(),
        Value::Object(
            o.map(|(name, value): (_, Value)| (name.into(), value))
                .into_iter()
                .collect(),
        ),
    );
    Ok(())
}

fn check(claims: &Map<String, Value>, asked: &str, edited: Map<String, Value>) {
    let first = Answers::of(claims);
    let Answers {
        id,
        role,
        slug,
        permissions,
    } = &first;

    let mut without = claims.clone();
    without.remove("user_metadata");
    let written = texts(&without);
    for answer in [id, role, slug].into_iter().flatten() {
        assert!(!answer.is_empty());
        let prefixed = format!("org:{answer}");
        assert!(
            written.contains(answer.as_str()) || written.contains(&*prefixed),
            "{answer}: made up"
        );
    }
    check_database_role(claims, role.as_deref());
    // The only claims left that could say so are WorkOS's, and a template may have put them there.
    if role.is_some() && !claims.contains_key("o") && !claims.contains_key("org_role") {
        assert!(id.is_some(), "a role in no organization");
    }

    let text = Value::Object(claims.clone()).to_string();
    let bytes: usize = permissions.iter().flatten().map(String::len).sum();
    assert!(bytes <= organization::size_of_permissions(claims) + text.len());
    // A digit of a mask has less than four bits; any other permission has a byte of its own.
    assert!(permissions.iter().flatten().count() <= 4 * text.len());

    let has = |name: &str| organization::has_permission(claims, name);
    let listed = |name: &str| permissions.iter().flatten().any(|one| one == name);
    for name in permissions.iter().flatten().take(64) {
        assert!(has(name), "{name}");
        let inner = name.strip_prefix("org:").unwrap_or(name);
        for like in [
            inner,
            name.trim(),
            &format!("{name}:"),
            &format!("org:{name}"),
            &name.to_uppercase(),
        ] {
            assert_eq!(has(like), listed(like), "{like}");
        }
    }
    for name in [asked, "", "org:", "org::", "a", "org:a:b"] {
        assert_eq!(has(name), listed(name), "{name}");
    }

    // An integer is its decimal text.
    if let Ok(subject) = subject(claims) {
        let sub = claims.get("sub").filter(|sub| !sub.is_null());
        let expected = sub.map(|sub| sub.as_str().map_or_else(|| sub.to_string(), str::to_owned));
        assert_eq!(subject.as_deref(), expected.as_deref());
    }

    // What users edit themselves changes nothing.
    assert_eq!(Answers::of(&without), first);
    without.insert("user_metadata".into(), Value::Object(edited));
    assert_eq!(Answers::of(&without), first);
}

#[derive(Debug, PartialEq)]
struct Answers {
    id: Option<String>,
    role: Option<String>,
    slug: Option<String>,
    permissions: Option<Vec<String>>,
}

impl Answers {
    fn of(claims: &Map<String, Value>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let list = organization::permissions(claims);
        Self {
            id: owned(organization::org_id(claims)),
            role: owned(organization::org_role(claims)),
            slug: owned(organization::org_slug(claims)),
            permissions: list.map(|list| list.into_iter().map(|name| name.into_owned()).collect()),
        }
    }
}

/// `role` with the name of a database role is never the role in an organization.
fn check_database_role(claims: &Map<String, Value>, role: Option<&str>) {
    let Some(role) =
        role.filter(|role| ["authenticated", "anonymous", "anon", "service_role"].contains(role))
    else {
        return;
    };
    let o = claims.get("o").unwrap_or(&Value::Null);
    let others = [
        claims.get("org_role"),
        claims.get("user_role"),
        o.get("rol"),
        o.get("role"),
    ];
    let mut others = others.into_iter().flatten().filter_map(Value::as_str);
    assert!(
        others.any(|other| other.strip_prefix("org:").unwrap_or(other) == role),
        "{role}"
    );
}

/// The database role is one that the rules allow and that the claim names, or the default.
fn check_role(u: &mut Unstructured, claims: &Map<String, Value>) -> Result<()> {
    let steps = [
        "role",
        "roles",
        "app_metadata",
        "o",
        "0",
        "-1",
        "-9223372036854775808",
        "+1",
        "",
    ];
    let mut step = || Ok((*u.choose(&steps)?).to_owned());
    let claim = [step(), step(), step()]
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let length = u.int_in_range(1..=claim.len())?;
    let rules = RoleRules {
        claim: claim[..length].to_vec(),
        allowed: vec!["authenticated".into(), "a".into(), "admin".into()],
        default: u.arbitrary::<bool>()?.then(|| "anon".into()),
    };
    let (named, role) = rules.role(claims);
    match role {
        None => assert_eq!(rules.default, None),
        Some(role) if rules.allowed.iter().any(|allowed| allowed == role) => {
            assert_eq!(named.as_deref(), Some(role));
            let written = Value::Object(claims.clone());
            assert!(
                texts(written.as_object().expect("an object")).contains(role),
                "{role}: made up"
            );
        }
        Some(role) => assert_eq!(rules.default.as_deref(), Some(role)),
    }
    Ok(())
}

/// All texts of claims at any depth, names included, as a whole and by words and commas.
fn texts(claims: &Map<String, Value>) -> BTreeSet<&str> {
    fn add<'a>(value: &'a Value, texts: &mut BTreeSet<&'a str>) {
        match value {
            Value::String(text) => {
                texts.insert(text);
            }
            Value::Array(items) => items.iter().for_each(|item| add(item, texts)),
            Value::Object(members) => members.iter().for_each(|(name, value)| {
                texts.insert(name);
                add(value, texts);
            }),
            _ => {}
        }
    }
    let mut texts = BTreeSet::new();
    for (name, value) in claims {
        texts.insert(name.as_str());
        add(value, &mut texts);
    }
    texts
}
