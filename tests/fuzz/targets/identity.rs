//! Organizations, permissions and database roles of any claims.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::object;
use pg_session_jwt_jose::{RoleRules, organization, subject};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured) -> Result<()> {
    let mut claims = object(u, 3)?;
    let asked: String = u.arbitrary()?;
    let answers = |claims: &_| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let permissions = organization::permissions(claims);
        (
            owned(organization::org_id(claims)),
            owned(organization::org_role(claims)),
            owned(organization::org_slug(claims)),
            permissions.map(|list| {
                list.into_iter()
                    .map(|name| name.into_owned())
                    .collect::<Vec<_>>()
            }),
        )
    };
    let first = answers(&claims);
    let (id, role, slug, permissions) = &first;
    for text in [id, role, slug].into_iter().flatten() {
        assert!(!text.is_empty());
    }
    let bytes: usize = permissions.iter().flatten().map(String::len).sum();
    let length = Value::Object(claims.clone()).to_string().len();
    assert!(bytes <= organization::size_of_permissions(&claims) + length);
    for name in permissions.iter().flatten() {
        assert!(organization::has_permission(&claims, name), "{name}");
    }
    let listed = permissions.iter().flatten().any(|name| *name == asked);
    assert_eq!(
        organization::has_permission(&claims, &asked),
        listed,
        "{asked}"
    );
    let _ = subject(&claims);

    let mut step = || Ok((*u.choose(&["role", "roles", "0", "-1", "o", ""])?).to_owned());
    let claim = (0..2).map(|_| step()).collect::<Result<_>>()?;
    let rules = RoleRules {
        claim,
        allowed: vec!["authenticated".into(), "a".into()],
        default: u.arbitrary::<bool>()?.then(|| "anon".into()),
    };
    let (_, role) = rules.role(&claims);
    assert!(role.is_none_or(|role| {
        rules.allowed.iter().any(|allowed| allowed == role)
            || rules.default.as_deref() == Some(role)
    }));

    // What users edit themselves changes nothing.
    claims.insert("user_metadata".into(), Value::Object(object(u, 2)?));
    assert_eq!(answers(&claims), first);
    Ok(())
}
