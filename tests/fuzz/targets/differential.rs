//! What `verify` accepts, jsonwebtoken's own `decode` accepts too, with the same claims: another verifier, with
//! another library's cryptography.
//!
//! Its reading of times, audience and issuer is switched off: that is compared with the clock of `verify` in the
//! target of that name. It does not know the name `Ed25519`, and wants members of a header that we do not read to
//! have the types of RFC 7515: the headers here have neither.

#![no_main]

use arbitrary::{Result, Unstructured};
use jsonwebtoken::{Algorithm, Validation, decode};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{Signer, key_set, object, value};
use pg_session_jwt_jose::{Clock, KeySet, Rejected, TrustedKeys, verify};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured) -> Result<()> {
    let signer = Signer::arbitrary(u)?;
    let mut header = json!({ "alg": signer.alg() });
    if u.arbitrary()? {
        header["kid"] = json!("a");
    }
    if u.arbitrary()? {
        header["typ"] = json!("JWT");
    }
    if u.arbitrary()? {
        header["other"] = value(u, 2)?;
    }
    let payload = if u.ratio(9, 10)? {
        Value::Object(object(u, 3)?).to_string()
    } else {
        u.arbitrary()?
    };
    let mut token = signer.token(header.to_string().as_bytes(), payload.as_bytes());
    if u.arbitrary()? {
        let at = u.choose_index(token.len())?;
        token.replace_range(at..=at, u.choose(&["", ".", "=", "A", "B", "_", "-", "+"])?);
    }
    let set = KeySet::parse(key_set().as_bytes()).expect("sound");
    let clock = Clock {
        now: 2e9,
        skew: 86_400.0,
    };
    let Ok(ours) = verify::<Rejected>(token.as_bytes(), TrustedKeys::Set(&set), clock) else {
        return Ok(());
    };
    let algorithm: Algorithm = signer.alg().parse().expect("known");
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let theirs = decode::<Value>(&token, &signer.decoding_key(), &validation);
    let theirs = theirs.unwrap_or_else(|why| panic!("only we accept it: {why}: {token}"));
    assert_eq!(Value::Object(ours.members), theirs.claims);
    Ok(())
}
