//! `verify` with any token, most of them well signed, and any keys and policy: what is accepted keeps the rules.

#![no_main]

use std::rc::Rc;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{ISSUERS, KEYS, Made, algorithm, b64, is_same_key, unb64};
use pg_session_jwt_jose::{
    Accepted, Clock, KeySet, MAX_KEYS_TRIED, MAX_TOKEN_BYTES, Provider, Providers, Rejected,
    Rejection, Rows, Stage, TrustedKeys, json, verify,
};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

/// Providers without a table.
struct All(Vec<Rc<Provider>>);

impl Providers<Rejected> for All {
    fn of_issuer(&self, issuer: Option<&str>) -> std::result::Result<Rows, Rejected> {
        let all = self.0.iter();
        Ok(all.filter(|row| row.issuer() == issuer).cloned().collect())
    }

    fn some_issuers(&self) -> std::result::Result<Vec<String>, Rejected> {
        let all = self.0.iter().filter(|row| row.is_enabled());
        Ok(all
            .filter_map(|row| row.issuer().map(str::to_owned))
            .collect())
    }
}

fn run(u: &mut Unstructured) -> Result<()> {
    let clock = clock(u)?;
    // The first byte says which, so that a small input has keys for all.
    let rows = match u.arbitrary::<u8>()? {
        b'P' => (0..u.int_in_range(1..=3)?)
            .map(|index| row(u, index))
            .collect::<Result<Vec<_>>>()?,
        _ => Vec::new(),
    };
    let keys = match u.arbitrary::<u8>()? {
        b'K' => keys(u)?,
        _ => signers(),
    };
    let made = Made::arbitrary(u, clock.now)?;

    let none = verify::<Rejected>(&made.token, TrustedKeys::None, clock, None)
        .expect_err("no key is trusted");
    check_rejection(&none, &made.token);

    if let Ok(set) = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()) {
        let trusted = TrustedKeys::Set(&set);
        let result = verify::<Rejected>(&made.token, trusted, clock, None);
        let told = |result: &std::result::Result<Accepted, Rejected>| {
            let accepted = result
                .as_ref()
                .map(|one| (one.token.clone(), one.json.clone()));
            accepted.map_err(Clone::clone)
        };
        let again = verify::<Rejected>(&made.token, trusted, clock, None);
        assert_eq!(
            told(&again),
            told(&result),
            "what is remembered changes nothing"
        );
        match &result {
            Ok(accepted) => {
                assert_eq!(accepted.token.provider, None);
                check_accepted(accepted, &made, clock, &keys);
            }
            Err(rejected) => {
                check_rejection(rejected, &made.token);
                check_stages(rejected, &none);
                check_signature_was_bad(rejected, &made, &keys);
            }
        }
    }

    let read = |row: &Value| serde_json::from_value(row.clone()).expect("a row");
    let providers = rows.iter().filter_map(|row| Provider::new(read(row)).ok());
    let all = All(providers.map(Rc::new).collect());
    let providers = &all.0;
    if providers.is_empty() {
        return Ok(());
    }
    match verify(&made.token, TrustedKeys::Providers(&all), clock, None) {
        Ok(accepted) => {
            let row = rows
                .iter()
                .find(|row| row["name"].as_str() == accepted.token.provider.as_deref());
            let row = row.expect("one of the providers");
            check_accepted(
                &accepted,
                &made,
                clock,
                row["jwks"]["keys"].as_array().expect("keys"),
            );
            check_policy(&accepted, row);
        }
        Err(rejected) => {
            check_rejection(&rejected, &made.token);
            check_stages(&rejected, &none);
            let mut pairs = providers.iter().enumerate().flat_map(|(index, one)| {
                providers[..index]
                    .iter()
                    .map(move |other| one.check_apart(other))
            });
            if matches!(rejected.reason, Rejection::SeveralProviders) {
                assert!(
                    pairs.any(|apart| apart.is_err()),
                    "no token belongs to two rows that are apart"
                );
            }
        }
    }
    Ok(())
}

fn clock(u: &mut Unstructured) -> Result<Clock> {
    // Within the life of the vectors' tokens, and of the RFCs'; then any.
    Ok(match u.int_in_range(0..=3)? {
        0 => Clock {
            now: 1_893_456_000.0,
            skew: 60.0,
            stale: 0.0,
        },
        1 => Clock {
            now: 1_300_819_379.0,
            skew: 0.0,
            stale: 0.0,
        },
        2 => Clock {
            now: u.int_in_range(0..=4_102_444_800_i64)? as f64,
            skew: u.int_in_range(0..=86_400)?.into(),
            stale: 0.0,
        },
        _ => {
            let now: f64 = u.arbitrary()?;
            Clock {
                now: if now.is_finite() { now } else { 0.0 },
                skew: 0.0,
                stale: 0.0,
            }
        }
    })
}

/// The keys that sign here.
fn signers() -> Vec<Value> {
    let mut keys: Vec<_> = KEYS.iter().take(2).map(|key| key.jwk.clone()).collect();
    keys[1]["kid"] = json!("a");
    keys
}

/// Known keys, with other members that say which tokens they are for.
fn keys(u: &mut Unstructured) -> Result<Vec<Value>> {
    if u.ratio(1, 3)? {
        return Ok(signers());
    }
    let mut keys = Vec::new();
    let most = if u.ratio(1, 8)? { 10 } else { 3 };
    for _ in 0..u.int_in_range(1..=most)? {
        let mut key = u.choose(&KEYS)?.jwk.clone();
        for (name, values) in [
            ("kid", json!(["a", "b", "", "t", null])),
            (
                "alg",
                json!([
                    "HS256", "HS512", "EdDSA", "Ed25519", "RS256", "PS512", "none", null
                ]),
            ),
            ("use", json!(["sig", "enc", null])),
            ("key_ops", json!([["verify"], ["sign"], [], null])),
            (
                "issuer",
                json!([
                    "https://i",
                    "https://login/{tenantid}/v2.0",
                    "{tenantid}",
                    null
                ]),
            ),
        ] {
            if u.ratio(1, 4)? {
                key[name] = u.choose(values.as_array().expect("an array"))?.clone();
            }
        }
        keys.push(key);
    }
    Ok(keys)
}

fn row(u: &mut Unstructured, index: usize) -> Result<Value> {
    let mut some = |values: Value| -> Result<Value> {
        let values = values.as_array().expect("an array");
        Ok(if u.ratio(1, 2)? {
            Value::Null
        } else {
            u.choose(values)?.clone()
        })
    };
    let mut row = json!({
        "name": format!("p{index}"),
        "issuer": some(json!(ISSUERS))?,
        "audience": some(json!([["a"], ["a", "b"], ["t"]]))?,
        "authorized_parties": some(json!([["a"], ["t", ""]]))?,
        "algorithms": some(json!([["HS256"], ["EdDSA"], ["Ed25519", "HS512"], ["RS256", "ES256"]]))?,
        "jwks_url": null, "role_claim": ["role"], "allowed_roles": [], "default_role": null,
        "created_at": "", "updated_at": ""
    });
    row["required_claims"] = json!(u.choose(&[&[][..], &["exp"], &["sub", "iss"], &[""]])?);
    row["enabled"] = json!(u.ratio(7, 8)?);
    row["jwks"] = json!({ "keys": keys(u)? });
    Ok(row)
}

/// What holds of an accepted token, read again by other means.
fn check_accepted(accepted: &Accepted, made: &Made, clock: Clock, trusted: &[Value]) {
    let token = std::str::from_utf8(&made.token).expect("base64url and dots");
    assert!(token.len() <= MAX_TOKEN_BYTES);
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    for part in &parts {
        let decoded = unb64(part).expect("base64url");
        assert_eq!(b64(&decoded), *part, "one token has one spelling");
    }

    let header: Value = serde_json::from_slice(&unb64(parts[0]).expect("base64url")).expect("JSON");
    assert!(header.get("crit").is_none() && header.get("b64").is_none());
    let typ = header.get("typ").filter(|typ| !typ.is_null());
    assert!(typ.is_none_or(|typ| {
        let typ = typ.as_str().expect("a string").to_ascii_lowercase();
        ["jwt", "at+jwt", "jose"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
    }));
    let alg = algorithm(header["alg"].as_str().expect("a string"));
    assert_eq!(format!("{:?}", accepted.token.header.algorithm), alg);
    assert_eq!(
        accepted.token.header.key_id.as_deref(),
        header["kid"].as_str()
    );

    let (signer, made_by) = made.by.as_ref().expect("a changed token, or an attacker's");
    assert_eq!(algorithm(made_by), alg, "signed by another algorithm");
    let claims = Value::Object(accepted.members.clone());
    let fits = |key: &&Value| is_same_key(key, signer) && may_verify(key, alg, &header, &claims);
    assert!(
        trusted.iter().any(|key| fits(&key)),
        "no trusted key is for it"
    );

    let text = accepted.json.as_bytes();
    assert_eq!(text, unb64(parts[1]).expect("base64url"));
    assert_eq!(serde_json::from_slice::<Value>(text).expect("JSON"), claims);
    assert_eq!(json::parse(text, json::MAX_DEPTH).as_ref(), Ok(&claims));
    assert_eq!(colons(text), count(&claims), "two members of one name");
    assert!(!has_nul(&claims), "U+0000");

    let Clock { now, skew, .. } = clock;
    for name in ["exp", "nbf", "iat"] {
        let claim = claims
            .get(name)
            .filter(|claim| !claim.is_null() || name == "exp");
        let Some(claim) = claim else { continue };
        let time = claim.as_f64().expect("a number");
        assert!(
            if name == "exp" {
                now < time + skew
            } else {
                now >= time - skew
            },
            "{name}"
        );
    }
    let wider = Clock {
        skew: skew + 1000.0,
        ..clock
    };
    assert_eq!(
        accepted.token.claims.check_time(wider),
        Ok(()),
        "more tolerance rejects nothing more"
    );
    let strings = |claim: &Value| {
        claim
            .as_array()
            .is_none_or(|items| items.iter().all(Value::is_string))
    };
    let aud = &claims["aud"];
    assert!(aud.is_null() || aud.is_string() || aud.is_array() && strings(aud));
    assert!(claims["iss"].is_null() || claims["iss"].is_string());
    assert!(
        claims["sub"].is_null()
            || claims["sub"].is_string()
            || claims["sub"].is_i64()
            || claims["sub"].is_u64()
    );
}

/// Whether this key is for tokens like this (RFC 7517 section 4, and Entra's `issuer`).
fn may_verify(key: &Value, alg: &str, header: &Value, claims: &Value) -> bool {
    let issuer = key["issuer"].as_str().map(|issuer| {
        let tenant = claims["tid"].as_str().unwrap_or_default();
        match issuer.contains("{tenantid}") && tenant.is_empty() {
            true => None,
            false => Some(issuer.replacen("{tenantid}", tenant, 1)),
        }
    });
    key["alg"]
        .as_str()
        .is_none_or(|name| algorithm(name) == alg)
        && key["use"].as_str().is_none_or(|purpose| purpose == "sig")
        && key["key_ops"]
            .as_array()
            .is_none_or(|list| list.is_empty() || list.contains(&json!("verify")))
        && (key["kid"].is_null() || header["kid"].is_null() || key["kid"] == header["kid"])
        && issuer
            .is_none_or(|issuer| issuer.is_some() && claims["iss"].as_str() == issuer.as_deref())
}

/// What a provider asks for beyond its keys.
fn check_policy(accepted: &Accepted, row: &Value) {
    let claims = &accepted.members;
    let get = |name: &str| claims.get(name).filter(|value| !value.is_null());
    assert_eq!(row["enabled"], true);
    assert_eq!(row["issuer"].as_str(), get("iss").and_then(Value::as_str));
    let has = |column: &str, value: &Value| {
        row[column]
            .as_array()
            .is_none_or(|list| list.contains(value))
    };
    let algorithms = row["algorithms"].as_array();
    let alg = format!("{:?}", accepted.token.header.algorithm);
    assert!(algorithms.is_none_or(|list| {
        list.iter()
            .any(|one| algorithm(one.as_str().expect("a name")) == alg)
    }));
    if !row["audience"].is_null() {
        let aud = get("aud").expect("an audience is asked for");
        let names = aud
            .as_array()
            .map_or(std::slice::from_ref(aud), Vec::as_slice);
        assert!(names.iter().any(|name| has("audience", name)));
    }
    if !row["authorized_parties"].is_null() {
        let party = get("azp")
            .or_else(|| get("client_id"))
            .expect("a party is asked for");
        assert!(has("authorized_parties", party));
    }
    for name in row["required_claims"].as_array().expect("an array") {
        assert!(get(name.as_str().expect("a name")).is_some(), "{name}");
    }
}

/// What a rejection says is short, in ASCII, begins with the stage and does not hold the token.
fn check_rejection(rejected: &Rejected, token: &[u8]) {
    let detail = rejected.detail();
    assert!(detail.starts_with(&format!("{}: ", rejected.reason.stage())));
    assert!(!rejected.reason.message().is_empty());
    for text in [detail, rejected.reason.hint().unwrap_or_default()] {
        assert!(
            text.is_ascii() && !text.contains(char::is_control),
            "{text}"
        );
        assert!(text.len() < 16 * 1024);
        let token = String::from_utf8_lossy(token);
        assert!(
            token.len() < 80 || !text.contains(&*token),
            "it holds the token"
        );
    }
}

/// The keys change nothing about the stages before them.
fn check_stages(rejected: &Rejected, without_keys: &Rejected) {
    let [with, without] = [rejected, without_keys].map(|rejected| rejected.reason.stage());
    assert!(without <= Stage::Key);
    assert_eq!(with < Stage::Key, without < Stage::Key);
    if with < Stage::Key {
        assert_eq!(rejected, without_keys);
    }
}

/// A good signature by a key of the set is found.
fn check_signature_was_bad(rejected: &Rejected, made: &Made, trusted: &[Value]) {
    let Rejection::BadSignature { algorithm: alg, .. } = &rejected.reason else {
        return;
    };
    let (Some((signer, made_by)), true) = (&made.by, trusted.len() <= MAX_KEYS_TRIED) else {
        return;
    };
    let parts: Vec<_> = made.token.split(|byte| *byte == b'.').collect();
    let json = |part: &[u8]| {
        let bytes =
            unb64(std::str::from_utf8(part).expect("it has passed")).expect("it has passed");
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let (header, claims): (Value, Value) = (json(parts[0]), json(parts[1]));
    let alg = format!("{alg:?}");
    let fits = |key: &&Value| is_same_key(key, signer) && may_verify(key, &alg, &header, &claims);
    assert!(
        algorithm(made_by) != alg || !trusted.iter().any(|key| fits(&key)),
        "the signature was good"
    );
}

/// The members of all objects, in a value.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.len() + members.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Whether a name or a text has U+0000.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// The same as [`count`], of JSON: each has a colon outside of strings.
fn colons(text: &[u8]) -> usize {
    let (mut found, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b':' if !in_string => found += 1,
            _ => {}
        }
    }
    found
}
