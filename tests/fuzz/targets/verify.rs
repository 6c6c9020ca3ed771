//! `verify` with any token, most of them well signed: what is accepted keeps the rules.

#![no_main]

use std::rc::Rc;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pg_session_jwt_fuzz::{Signer, b64, key_set, object, unb64, value};
use pg_session_jwt_jose::{
    Clock, KeySet, MAX_TOKEN_BYTES, Provider, Providers, Rejected, Rows, TrustedKeys, json, verify,
};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

/// One provider alone.
struct One(Rc<Provider>);

impl Providers<Rejected> for One {
    fn of_issuer(&self, issuer: Option<&str>) -> std::result::Result<Rows, Rejected> {
        let one = std::iter::once(&self.0);
        Ok(one.filter(|row| row.issuer() == issuer).cloned().collect())
    }

    fn some_issuers(&self) -> std::result::Result<Vec<String>, Rejected> {
        Ok(self.0.issuer().map(str::to_owned).into_iter().collect())
    }
}

fn run(u: &mut Unstructured) -> Result<()> {
    let signer = Signer::arbitrary(u)?;
    let now = u.int_in_range(0..=4_102_444_800_i64)? as f64;
    let skew = u.int_in_range(0..=86_400)?.into();
    let clock = Clock { now, skew };
    let mut header = object(u, 2)?;
    if u.ratio(9, 10)? {
        header.insert("alg".into(), signer.alg().into());
    }
    let payload = match u.int_in_range(0..=9)? {
        0 => u.bytes(u.len().min(64))?.to_vec(),
        1 => value(u, 3)?.to_string().into_bytes(),
        _ => Value::Object(object(u, 3)?).to_string().into_bytes(),
    };
    let mut token = signer.token(Value::Object(header).to_string().as_bytes(), &payload);
    if u.ratio(1, 8)? {
        let at = u.choose_index(token.len())?;
        token.replace_range(at..=at, u.choose(&["", ".", "=", "A", "Bearer ", "\n"])?);
    }
    let row = json!({
        "name": "p", "issuer": if u.arbitrary()? { json!("https://i") } else { Value::Null },
        "jwks": serde_json::from_str::<Value>(&key_set()).expect("JSON"), "jwks_url": null,
        "audience": if u.ratio(1, 4)? { json!(["a"]) } else { Value::Null },
        "authorized_parties": if u.ratio(1, 4)? { json!(["a"]) } else { Value::Null },
        "algorithms": null, "required_claims": if u.arbitrary()? { json!(["exp"]) } else { json!([]) },
        "role_claim": ["role"], "allowed_roles": [], "default_role": null, "enabled": true,
        "created_at": "", "updated_at": ""
    });
    let row = serde_json::from_value(row).expect("a row");
    let providers = One(Rc::new(Provider::new(row).expect("sound")));
    let set = KeySet::parse(key_set().as_bytes()).expect("sound");
    assert!(verify::<Rejected>(token.as_bytes(), TrustedKeys::None, clock).is_err());
    let by_set = verify::<Rejected>(token.as_bytes(), TrustedKeys::Set(&set), clock);
    let by_provider = verify(token.as_bytes(), TrustedKeys::Providers(&providers), clock);
    if let Err(rejected) = &by_set {
        let stage = format!("{}: ", rejected.reason.stage());
        assert!(rejected.detail().starts_with(&stage));
        let _ = rejected.reason.hint();
    }
    let Ok(accepted) = by_set else {
        assert!(
            by_provider.is_err(),
            "a provider asks for more than its keys do"
        );
        return Ok(());
    };
    let again = verify::<Rejected>(token.as_bytes(), TrustedKeys::Set(&set), clock);
    let again = again.expect("accepted before");
    assert_eq!(
        (&again.token, &again.members, &again.json),
        (&accepted.token, &accepted.members, &accepted.json)
    );
    assert!(token.len() <= MAX_TOKEN_BYTES);
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    for part in &parts {
        let decoded = unb64(part).expect("base64url");
        assert_eq!(b64(&decoded), *part, "one token has one spelling");
    }
    let header: Value = serde_json::from_slice(&unb64(parts[0]).expect("base64url")).expect("JSON");
    assert_eq!(header["alg"], signer.alg(), "signed by another algorithm");
    assert!(header.get("crit").is_none() && header.get("b64").is_none());
    let text = accepted.json.as_bytes();
    assert_eq!(text, unb64(parts[1]).expect("base64url"));
    let members = Value::Object(accepted.members.clone());
    assert_eq!(json::parse(text, json::MAX_DEPTH), Ok(members));
    let claims = &accepted.token.claims;
    assert!(claims.expires_at.is_none_or(|exp| now < exp + skew));
    assert!(claims.not_before.is_none_or(|nbf| now >= nbf - skew));
    if let Ok(accepted) = by_provider {
        assert_eq!(accepted.token.provider.as_deref(), Some("p"));
    }
    Ok(())
}
