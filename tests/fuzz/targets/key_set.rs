//! `KeySet::parse` with any text, and with sets that look like one.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{KEYS, algorithm, object, value};
use pg_session_jwt_jose::{
    Clock, KeySet, KeySetError, MAX_KEY_SET_BYTES, Rejected, TrustedKeys, verify,
};
use serde_json::{Map, Value, json};

fuzz_target!(|data: &[u8]| {
    check(data);
    let _ = structured(&mut Unstructured::new(data));
});

fn structured(u: &mut Unstructured) -> Result<()> {
    let mut keys = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        keys.push(match u.int_in_range(0..=5)? {
            0 => value(u, 2)?,
            1 => Value::Object(object(u, 2)?),
            // A good key with members changed, added, taken away or spelled otherwise.
            _ => {
                let mut key = u.choose(&KEYS)?.jwk.clone();
                let members = key.as_object_mut().expect("a key");
                let name = *u.choose(&["kty", "crv", "x", "y", "n", "e", "k", "alg", "kid"])?;
                match (
                    u.int_in_range(0..=4)?,
                    members.get(name).and_then(Value::as_str),
                ) {
                    (0, _) => drop(members.remove(name)),
                    (1, Some(text)) => {
                        let text = text.replace('-', "+").replace('_', "/");
                        members.insert(
                            name.into(),
                            format!("{text}{}", u.choose(&["", "=", "=="])?).into(),
                        );
                    }
                    (2, Some(text)) => {
                        let end = text.len().saturating_sub(u.int_in_range(0..=3)?);
                        let text = format!("{}{}", u.choose(&["", "AA", "AAAA"])?, &text[..end]);
                        members.insert(name.into(), text.into());
                    }
                    _ => {}
                }
                if u.ratio(1, 2)? {
                    members.extend(object(u, 1)?);
                }
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
    let (parsed, again) = (KeySet::parse(text), KeySet::parse(text));
    let (set, again) = match (&parsed, &again) {
        (Ok(set), Ok(again)) => (set, again),
        (parsed, again) => {
            assert_eq!(parsed.as_ref().err(), again.as_ref().err());
            check_error(parsed.as_ref().expect_err("one of two"), text);
            return;
        }
    };
    assert!(text.len() <= MAX_KEY_SET_BYTES);
    assert_eq!(set.public_members(), again.public_members());
    assert_eq!(set.ignored(), again.ignored());

    let json: Value = serde_json::from_slice(text).expect("what was read is JSON");
    let keys = match json.get("keys").and_then(Value::as_array) {
        Some(keys) => &keys[..],
        None => std::slice::from_ref(&json),
    };
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"] {
        let is_private = |key: &Value| key.get(name).is_some_and(|member| !member.is_null());
        assert!(!keys.iter().any(is_private), "a private key is an error");
    }

    // What a set is made of does not depend on who else is in it.
    let shown = members(set);
    assert!(!shown.is_empty(), "a set has a usable key");
    if keys.len() <= 16 {
        let mut alone = Vec::new();
        for key in keys {
            let found = KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes());
            if let Ok(found) = found {
                assert_eq!(found.ignored(), None);
                check_key(key, &members(&found));
                alone.extend(members(&found));
            }
        }
        assert_eq!(alone, shown);
        assert_eq!(set.ignored().is_some(), shown.len() < keys.len());
    }
    check_shown(
        &[
            set.public_members(),
            format!("{set:?}"),
            set.ignored().unwrap_or_default(),
        ],
        &json,
    );

    // Whatever is in it, it can be asked.
    let clock = Clock {
        now: 0.0,
        skew: 0.0,
        stale: 0.0,
    };
    for known in KEYS.iter().take(4) {
        let _ = verify::<Rejected>(
            known.tokens[0].as_bytes(),
            TrustedKeys::Set(set),
            clock,
            None,
        );
    }
}

fn check_error(error: &KeySetError, text: &[u8]) {
    assert!(!error.detail.is_empty() && !error.hint.is_empty());
    let json = serde_json::from_slice(text).unwrap_or_default();
    check_shown(std::slice::from_ref(&error.detail), &json);
}

/// What may be shown of each key.
fn members(set: &KeySet) -> Vec<Map<String, Value>> {
    let shown: Vec<Map<String, Value>> = serde_json::from_str(&set.public_members()).expect("JSON");
    let may_be = |name: &String| ["kty", "kid", "alg"].contains(&name.as_str());
    assert!(shown.iter().all(|key| key.keys().all(may_be)));
    shown
}

/// A key that is used has what its type asks for, and is for signatures (RFC 7517 section 4).
fn check_key(key: &Value, shown: &[Map<String, Value>]) {
    let [shown] = shown else {
        panic!("one key is one key")
    };
    assert_eq!(shown.get("kty"), key.get("kty"));
    let text = |name: &str| key.get(name).filter(|value| !value.is_null());
    assert_eq!(shown.get("kid"), text("kid"));
    assert_eq!(shown.contains_key("alg"), text("alg").is_some());
    assert!(text("use").is_none_or(|purpose| purpose == "sig"));
    let operations = text("key_ops").map(|list| list.as_array().expect("an array"));
    assert!(operations.is_none_or(|list| list.is_empty() || list.contains(&json!("verify"))));

    // Four characters are three bytes.
    let bytes = |name: &str| {
        let text = key[name].as_str().expect("a string");
        let text = text.trim_end_matches('=');
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_+/".contains(&byte))
        );
        text.len() * 3 / 4
    };
    let alg = text("alg").map(|alg| algorithm(alg.as_str().expect("a string")));
    let is_one_of = |algorithms: &[&str]| alg.is_none_or(|alg| algorithms.contains(&alg));
    match (key["kty"].as_str(), key["crv"].as_str()) {
        (Some("RSA"), _) => {
            assert!(bytes("n") >= 256 && bytes("e") >= 1);
            assert!(is_one_of(&[
                "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"
            ]));
        }
        (Some("EC"), Some("P-256")) => assert!(is_one_of(&["ES256"])),
        (Some("EC"), Some("P-384")) => assert!(is_one_of(&["ES384"])),
        (Some("OKP"), Some("Ed25519")) => assert!(bytes("x") == 32 && is_one_of(&["EdDSA"])),
        (Some("oct"), _) => {
            let least = [("HS384", 48), ("HS512", 64)];
            let least = least
                .iter()
                .find(|(name, _)| Some(*name) == alg)
                .map_or(32, |(_, least)| *least);
            assert!(bytes("k") >= least && is_one_of(&["HS256", "HS384", "HS512"]));
        }
        other => panic!("{other:?} is not supported"),
    }
}

/// What is shown is short, in ASCII and without key material, unless the set itself has it elsewhere, too.
fn check_shown(shown: &[String], json: &Value) {
    let mut materials = Vec::new();
    let mut texts = Vec::new();
    collect(json, "", &mut materials, &mut texts);
    for text in shown {
        assert!(
            text.is_ascii() && !text.contains(char::is_control),
            "{text}"
        );
        for material in &materials {
            let elsewhere = texts
                .iter()
                .filter(|other| other.contains(material))
                .count()
                > 1;
            assert!(elsewhere || !text.contains(material), "{text}");
        }
    }
}

/// Secrets and private parts that are long enough to be told from other texts, and all texts.
fn collect<'a>(
    value: &'a Value,
    name: &str,
    materials: &mut Vec<&'a str>,
    texts: &mut Vec<&'a str>,
) {
    match value {
        Value::String(text) => {
            texts.push(text);
            // Base64 has no blanks: a text with some may be one of our own.
            if text.len() >= 24
                && !text.contains(' ')
                && ["k", "d", "p", "q", "dp", "dq", "qi", "priv"].contains(&name)
            {
                materials.push(text);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect(item, "", materials, texts)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            texts.push(name);
            collect(value, name, materials, texts);
        }),
        _ => {}
    }
}
