//! `KeySet::parse` with any text, and with sets that look like one.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{Signer, key_set, object, value};
use pg_session_jwt_jose::{Clock, KeySet, Rejected, TrustedKeys, verify};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    check(data);
    let _ = structured(&mut Unstructured::new(data));
});

fn structured(u: &mut Unstructured) -> Result<()> {
    let good: Value = serde_json::from_str(&key_set()).expect("JSON");
    let mut keys = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        keys.push(match u.int_in_range(0..=3)? {
            0 => value(u, 2)?,
            1 => Value::Object(object(u, 2)?),
            // A good key with a member changed, added or taken away.
            _ => {
                let mut key = u.choose(good["keys"].as_array().expect("keys"))?.clone();
                let members = key.as_object_mut().expect("a key");
                if u.arbitrary()? {
                    let name = u.choose(&["kty", "crv", "x", "y", "n", "e", "k"])?;
                    members.remove(*name);
                }
                members.extend(object(u, 1)?);
                key
            }
        });
    }
    check(json!({ "keys": keys }).to_string().as_bytes());
    if let [key, ..] = &keys[..] {
        check(key.to_string().as_bytes());
    }
    Ok(())
}

fn check(text: &[u8]) {
    let parsed = KeySet::parse(text);
    let again = KeySet::parse(text);
    let (Ok(set), Ok(again)) = (&parsed, &again) else {
        assert_eq!(parsed.err(), again.err());
        return;
    };
    assert_eq!(set.public_members(), again.public_members());
    assert_eq!(set.ignored(), again.ignored());
    let shown = set.public_members();
    assert!(shown.is_ascii());
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let shown = shown.as_array().expect("an array");
    assert!(!shown.is_empty(), "a set has a usable key");
    for key in shown {
        let members = key.as_object().expect("an object");
        assert!(
            members
                .keys()
                .all(|name| ["kty", "kid", "alg"].contains(&name.as_str()))
        );
    }
    let json: Value = serde_json::from_slice(text).expect("what was read is JSON");
    let keys = match json.get("keys").and_then(Value::as_array) {
        Some(keys) => &keys[..],
        None => std::slice::from_ref(&json),
    };
    assert!(shown.len() <= keys.len());
    let is_private = |key: &Value| key.get("d").is_some_and(|d| !d.is_null());
    assert!(!keys.iter().any(is_private), "a private key is an error");
    // Whatever is in it, it can be asked.
    let token = Signer::Ed25519.token(br#"{"alg":"EdDSA"}"#, br#"{"sub":"a"}"#);
    let clock = Clock {
        now: 0.0,
        skew: 0.0,
    };
    let _ = verify::<Rejected>(token.as_bytes(), TrustedKeys::Set(set), clock);
}
