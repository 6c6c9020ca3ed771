//! What `verify` accepts, jsonwebtoken's own `decode` accepts too, with the same claims: another verifier, with
//! another library's cryptography. And what it accepts, `verify` rejects only for a rule that it lacks.
//!
//! Where the two may differ is written down here, each with its reason; anything else is a finding.

#![no_main]

use arbitrary::{Result, Unstructured};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation, decode, get_current_timestamp};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{KEYS, Made, unb64};
use pg_session_jwt_jose::json::Fault;
use pg_session_jwt_jose::{Clock, KeySet, Rejected, Rejection, TrustedKeys, verify};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured) -> Result<()> {
    // It reads the computer's clock. In half of the cases ours is the same, else times are not compared.
    let same_clock = u.arbitrary()?;
    let started = get_current_timestamp();
    let now = if same_clock {
        started as f64
    } else {
        1_893_456_000.0
    };
    let other = u.choose(&KEYS)?;
    let use_other = u.ratio(1, 8)?;
    let made = Made::arbitrary(u, now)?;
    let jwk = match &made.by {
        Some((jwk, _)) if !use_other => jwk,
        _ => &other.jwk,
    };

    let set = KeySet::parse(jwk.to_string().as_bytes()).expect("sound");
    let clock = Clock {
        now,
        skew: 0.0,
        stale: 0.0,
    };
    let ours = verify::<Rejected>(&made.token, TrustedKeys::Set(&set), clock, None);

    let header = part(&made.token, 0);
    let Some(algorithm) = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(|alg| alg.parse().ok())
    else {
        // It does not know `Ed25519`, the name that RFC 9864 gives to `EdDSA`.
        assert!(ours.is_err() || header["alg"] == "Ed25519");
        return Ok(());
    };
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_aud = false;
    validation.validate_exp = same_clock;
    validation.validate_nbf = same_clock;
    validation.leeway = 0;
    let key: Jwk = serde_json::from_value(jwk.clone()).expect("a key");
    let key = DecodingKey::from_jwk(&key).expect("a key");
    let theirs = decode::<Map<String, Value>>(&made.token, &key, &validation);
    if same_clock && get_current_timestamp() != started {
        return Ok(());
    }
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours.members, theirs.claims),
        (Ok(ours), Err(why)) => assert!(
            !types_are_theirs(&header) || (same_clock && !times_are_theirs(&ours.members)),
            "only we accept it: {why}: {}",
            String::from_utf8_lossy(&made.token)
        ),
        (Err(why), Ok(_)) => assert!(
            is_a_rule_of_ours(&why.reason),
            "only we reject it: {why:?}: {}",
            String::from_utf8_lossy(&made.token)
        ),
        (Err(_), Err(_)) => {}
    }
    Ok(())
}

/// It wants the members of a header to have the types of RFC 7515 sections 4.1.2 to 4.1.10 and RFC 7516, also those
/// that we do not read: we take nothing from them, so they cannot mislead.
fn types_are_theirs(header: &Map<String, Value>) -> bool {
    header
        .iter()
        .filter(|(_, value)| !value.is_null())
        .all(|(name, value)| match name.as_str() {
            "typ" | "cty" | "jku" | "kid" | "x5u" | "x5t" | "x5t#S256" | "enc" | "zip" | "url"
            | "nonce" => value.is_string(),
            "x5c" => value
                .as_array()
                .is_some_and(|list| list.iter().all(Value::is_string)),
            "jwk" => serde_json::from_value::<Jwk>(value.clone()).is_ok(),
            _ => true,
        })
}

/// It takes times from 0 to 2^64 for valid, and `nbf` null for malformed: we read every NumericDate (RFC 7519 section
/// 2), and null as absent.
fn times_are_theirs(claims: &Map<String, Value>) -> bool {
    let valid = |time: &Value| {
        let number = time.as_f64().unwrap_or(-1.0);
        time.is_u64() || (0.0..u64::MAX as f64).contains(&number)
    };
    ["exp", "nbf"]
        .into_iter()
        .all(|name| claims.get(name).is_none_or(valid))
}

/// The rules that it lacks. Not among them: the compact form, JSON's syntax, the algorithm and the signature.
fn is_a_rule_of_ours(why: &Rejection) -> bool {
    match why {
        Rejection::TooLong { .. }
        | Rejection::HeaderExtension(_)
        | Rejection::PayloadDuplicateMember(_)
        | Rejection::NotAJwt(_)
        | Rejection::NoKeyFits { .. }
        | Rejection::ClaimType { .. }
        | Rejection::Expired { .. }
        | Rejection::NotYetValid { .. }
        | Rejection::IssuedInFuture { .. }
        | Rejection::PayloadNotObject(Some(Fault::NulCharacter)) => true,
        Rejection::HeaderNotObject(Some(fault)) => !matches!(fault, Fault::Syntax(_)),
        _ => false,
    }
}

/// A part of a token, if it is a JSON object.
fn part(token: &[u8], index: usize) -> Map<String, Value> {
    let part = token
        .split(|byte| *byte == b'.')
        .nth(index)
        .unwrap_or_default();
    let text = std::str::from_utf8(part)
        .ok()
        .and_then(unb64)
        .unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
