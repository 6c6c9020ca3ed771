//! The rule that accepts a token.

use std::rc::Rc;

use serde_json::{Map, Value};

use crate::claims::{self, Claims, Clock};
use crate::compact::Compact;
use crate::found_good::Shared;
use crate::header::{Claimed, Header};
use crate::json::{self, Fault};
use crate::key::Key;
use crate::key_set::KeySet;
use crate::provider::{self, Provider, Providers, Rows};
use crate::rejection::{Rejected, Rejection};

/// At most this many keys are tried: each costs a signature verification.
pub const MAX_KEYS_TRIED: usize = 8;

/// The keys that count. `E` is what a look-up of providers fails with.
pub enum TrustedKeys<'a, E = Rejected> {
    /// None: every token is rejected.
    None,
    /// Those of one set, for any issuer.
    Set(&'a KeySet),
    /// Those of providers, each for its own issuer.
    Providers(&'a dyn Providers<E>),
}

// Not derived: what a look-up fails with need not be copied.
impl<E> Copy for TrustedKeys<'_, E> {}
impl<E> Clone for TrustedKeys<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

/// The provider whose key signed a token.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The provider.
    pub provider: Rc<Provider>,
    /// All of its issuer, as they were then: a change of any may concern the token.
    rows: Rows,
    /// When the key was fetched, if it was.
    fetched_at: Option<f64>,
}

impl Signer {
    /// Whether these are the very rows that the token was verified with, and its key still counts.
    #[must_use]
    pub fn is_among(&self, rows: &Rows, clock: Clock) -> bool {
        Rc::ptr_eq(&self.rows, rows) && self.is_fresh(clock)
    }

    /// Whether its key still counts, as far as time is concerned.
    #[must_use]
    pub fn is_fresh(&self, clock: Clock) -> bool {
        self.fetched_at.is_none_or(|at| clock.is_fresh(at))
    }
}

/// What later rules need to know about an accepted token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// How it was signed.
    pub header: Header,
    /// The registered claims.
    pub claims: Claims,
    /// The name of the provider whose key signed it, if there are providers.
    pub provider: Option<String>,
}

/// The result of [`verify`].
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Who signed what, how, and for how long.
    pub token: Token,
    /// All claims.
    pub members: Map<String, Value>,
    /// The same, as the issuer wrote it: a JSON object with unique names and without U+0000.
    pub json: String,
    /// The provider whose key signed it, if there are providers.
    pub signer: Option<Signer>,
}

/// **The rule that accepts a token**: structure, header, key, signature, payload, time, policy, in
/// this order. (RFC 7515 section 5.2, RFC 7519 section 7.2, RFC 8725 section 3.) Where `shared` remembers that a
/// key has made the signature, that is not computed again.
///
/// # Errors
/// The [`Rejection`] of the first stage that fails, or what the look-up of providers fails with.
pub fn verify<E: From<Rejection> + From<Rejected>>(
    token: &[u8],
    trusted: TrustedKeys<E>,
    clock: Clock,
    shared: Option<Shared>,
) -> Result<Accepted, E> {
    let compact = Compact::parse(token)?;
    let members = Header::members(&compact.header)?;
    let payload = read_payload(&compact.payload)?;
    let header = Header::from_members(&members)?;
    let signer = check_signature(&compact, &header, &payload, trusted, clock, shared)?;
    let provider = signer.as_ref().map(|signer| &signer.provider);
    let name = provider.map(|provider| provider.name.clone());
    let of_provider = |reason| Rejected {
        reason,
        providers: name.iter().cloned().collect(),
    };
    let (members, json) = check_payload(payload, compact.payload).map_err(of_provider)?;
    let claims = Claims::from_members(&members).map_err(of_provider)?;
    claims.check_time(clock).map_err(of_provider)?;
    provider
        .map_or(Ok(()), |provider| provider.check_policy(&claims, &members))
        .map_err(of_provider)?;
    Ok(Accepted {
        token: Token {
            header,
            claims,
            provider: name,
        },
        members,
        json,
        signer,
    })
}

/// Reads the payload. A duplicate member is a matter of structure and rejected at once; any other fault
/// is reported only once the signature has been verified.
fn read_payload(payload: &[u8]) -> Result<Result<Value, Fault>, Rejection> {
    match json::parse(payload, json::MAX_DEPTH) {
        Err(Fault::DuplicateMember(name)) => Err(Rejection::PayloadDuplicateMember(name)),
        read => Ok(read),
    }
}

/// Stages key and signature: tries in turn the keys that are trusted for the token's issuer and fit its
/// header. Returns the provider that the key belongs to.
fn check_signature<E: From<Rejection> + From<Rejected>>(
    compact: &Compact,
    header: &Header,
    payload: &Result<Value, Fault>,
    trusted: TrustedKeys<E>,
    clock: Clock,
    shared: Option<Shared>,
) -> Result<Option<Signer>, E> {
    // Not verified yet, which is harmless: a token that names another issuer is tried with that issuer's
    // keys.
    let text = |name| payload.as_ref().ok()?.get(name)?.as_str();
    let claimed = Claimed {
        issuer: text("iss"),
        tenant: text("tid"),
        is_unreadable: !matches!(payload, Ok(Value::Object(_))),
    };
    let rows;
    let fitting = match trusted {
        TrustedKeys::None => return Err(Rejection::NoTrustedKeys.into()),
        TrustedKeys::Set(keys) => {
            let fitting = keys.fitting(header, claimed).map(|key| Fitting {
                key,
                provider: None,
                fetched_at: None,
            });
            let fitting: Vec<_> = fitting.collect();
            if fitting.is_empty() {
                return Err(Rejection::NoKeyFits {
                    algorithm: header.algorithm,
                    key_id: header.key_id.clone(),
                    trusted: Some(keys.summary()),
                    misfit: keys.misfit(header),
                    standing: None,
                }
                .into());
            }
            rows = Rows::default();
            fitting
        }
        TrustedKeys::Providers(providers) => {
            // A faulty payload does not say whose token it is: it is reported as what it is.
            let issuer = match payload {
                Ok(Value::Object(members)) => claims::issuer(members)?,
                Ok(_) => return Err(Rejection::PayloadNotObject(None).into()),
                Err(fault) => return Err(Rejection::PayloadNotObject(Some(fault.clone())).into()),
            };
            rows = of_issuer_with_key(providers, issuer, header, claimed, clock)?;
            let fitting: Vec<_> = Fitting::of(&rows, issuer, header, claimed, clock).collect();
            // Such rows are refused when they are written, but not when they arrive by logical
            // replication, which fires no statement-level triggers.
            let mut claimants: Vec<_> = fitting.iter().filter_map(|one| one.provider).collect();
            claimants.dedup_by_key(|row| Rc::as_ptr(row));
            if claimants.len() > 1 {
                return Err(E::from(Rejected {
                    reason: Rejection::SeveralProviders,
                    providers: claimants.iter().map(|row| row.name.clone()).collect(),
                }));
            }
            fitting
        }
    };
    let algorithm = header.algorithm;
    let verifies = |one: &&Fitting| {
        one.key
            .verifies(compact.signed, &compact.signature, algorithm, shared)
    };
    match fitting.iter().take(MAX_KEYS_TRIED).find(verifies) {
        Some(one) => Ok(one.provider.map(|provider| Signer {
            provider: Rc::clone(provider),
            rows: Rc::clone(&rows),
            fetched_at: one.fetched_at,
        })),
        None => Err(E::from(Rejected {
            reason: Rejection::BadSignature {
                algorithm,
                tried: fitting.len().min(MAX_KEYS_TRIED),
                fitting: fitting.len(),
                nonce: header.has_nonce,
            },
            // They all belong to one provider, or to none.
            providers: fitting
                .iter()
                .take(1)
                .flat_map(|one| one.provider.map(|row| row.name.clone()))
                .collect(),
        })),
    }
}

/// A key that may verify a token.
struct Fitting<'a> {
    key: &'a Key,
    /// Whose key it is.
    provider: Option<&'a Rc<Provider>>,
    /// When it was fetched, if it was.
    fetched_at: Option<f64>,
}

impl<'a> Fitting<'a> {
    /// Those of the issuer's enabled providers.
    fn of(
        rows: &'a Rows,
        issuer: Option<&'a str>,
        header: &'a Header,
        claimed: Claimed<'a>,
        clock: Clock,
    ) -> impl Iterator<Item = Self> {
        let enabled = rows.iter().filter(move |row| row.is_for(issuer));
        enabled.flat_map(move |row| {
            let fitting = row.fitting(header, claimed, clock);
            fitting.map(move |(key, fetched_at)| Self {
                key,
                provider: Some(row),
                fetched_at,
            })
        })
    }
}

/// The providers with this issuer, of which at least one has a key that fits the token. If none has, and one
/// follows its issuer, its keys are fetched first.
///
/// # Errors
/// [`Rejection::UnknownIssuer`] and [`Rejection::NoKeyFits`]
fn of_issuer_with_key<E: From<Rejection> + From<Rejected>>(
    providers: &dyn Providers<E>,
    issuer: Option<&str>,
    header: &Header,
    claimed: Claimed,
    clock: Clock,
) -> Result<Rows, E> {
    let fits = |rows: &Rows| {
        let mut fitting = Fitting::of(rows, issuer, header, claimed, clock);
        fitting.next().is_some()
    };
    let mut rows = provider::of_issuer(providers, issuer)?;
    if fits(&rows) {
        return Ok(rows);
    }
    let lacks_key = |row: &&Rc<Provider>| row.is_for(issuer) && row.lacks_key_for(header, clock);
    // Of several, the token does not say whose it is.
    let mut lacking: Vec<_> = rows.iter().filter(lacks_key).map(Rc::clone).collect();
    let lacking = lacking.pop().filter(|_| lacking.is_empty());
    if let Some(row) = &lacking {
        providers.fetch(row)?;
        // Even if there was nothing to do: another session may have had them fetched since the rows were read.
        rows = provider::of_issuer(providers, issuer)?;
        if fits(&rows) {
            return Ok(rows);
        }
    }
    let enabled: Vec<_> = rows.iter().filter(|row| row.is_for(issuer)).collect();
    Err(E::from(Rejected {
        reason: Rejection::NoKeyFits {
            algorithm: header.algorithm,
            key_id: header.key_id.clone(),
            trusted: None,
            misfit: enabled.iter().find_map(|row| row.misfit(header, clock)),
            standing: lacking
                .and_then(|row| providers.standing(&row))
                .map(Box::new),
        },
        providers: enabled.iter().map(|row| row.name.clone()).collect(),
    }))
}

/// Stage payload: a JSON object, and its text.
fn check_payload(
    payload: Result<Value, Fault>,
    text: Vec<u8>,
) -> Result<(Map<String, Value>, String), Rejection> {
    match payload {
        Ok(Value::Object(members)) => {
            let text = String::from_utf8(text).map_err(|_| {
                Rejection::PayloadNotObject(Some(Fault::Syntax("not UTF-8".into())))
            })?;
            Ok((members, text))
        }
        Ok(_) => Err(Rejection::PayloadNotObject(None)),
        Err(fault) => Err(Rejection::PayloadNotObject(Some(fault))),
    }
}

#[cfg(test)]
mod tests {
    use super::verify as verify_with_provider;
    use super::*;
    use crate::rejection::Stage;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::Deserialize;

    /// Tokens made by other libraries in other languages, in `tests/vectors`.
    #[derive(Deserialize)]
    struct Vector {
        library: String,
        alg: String,
        jwk: Value,
        token: String,
        claims: Value,
        tampered: Vec<Tampered>,
    }

    #[derive(Deserialize)]
    struct Tampered {
        how: String,
        token: String,
    }

    /// Examples of RFC 7515 and RFC 8037.
    #[derive(Deserialize)]
    struct Example {
        source: String,
        jwk: Value,
        token: String,
        outcome: String,
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_str(include_str!("../../tests/vectors/tokens.json"))
            .expect("valid vectors")
    }

    fn key_set(jwk: &Value) -> KeySet {
        KeySet::parse(jwk.to_string().as_bytes()).expect("a sound key")
    }

    /// [`super::verify`] without the provider's name.
    fn verify(token: &[u8], trusted: TrustedKeys, clock: Clock) -> Result<Accepted, Rejection> {
        verify_with_provider(token, trusted, clock, None).map_err(|rejected| rejected.reason)
    }

    fn at(now: f64) -> Clock {
        Clock {
            now,
            skew: 60.0,
            stale: 86_400.0,
        }
    }

    const IN_2030: f64 = 1_893_456_000.0;

    #[test]
    fn tokens_of_other_libraries_are_accepted_and_their_tampered_twins_are_not() {
        let mut algorithms = std::collections::BTreeSet::new();
        for Vector {
            library,
            alg,
            jwk,
            token,
            claims,
            tampered,
        } in vectors()
        {
            let keys = key_set(&jwk);
            let verify =
                |token: &str| verify(token.as_bytes(), TrustedKeys::Set(&keys), at(IN_2030));
            let accepted = verify(&token).unwrap_or_else(|why| panic!("{library} {alg}: {why:?}"));
            let read: Value = serde_json::from_str(&accepted.json).expect("JSON");
            assert_eq!(read, claims, "{library} {alg}");
            for Tampered { how, token } in tampered {
                let rejection = verify(&token).expect_err(&how);
                assert!(
                    matches!(
                        rejection,
                        Rejection::BadSignature { .. } | Rejection::NoKeyFits { .. }
                    ),
                    "{library} {alg} {how}: {rejection:?}"
                );
            }
            algorithms.insert((library, alg));
        }
        assert_eq!(algorithms.len(), 24, "two libraries, twelve algorithms");
    }

    #[test]
    fn a_token_is_rejected_under_the_key_of_another_algorithm() {
        let vectors = vectors();
        for token in &vectors {
            for key in vectors.iter().filter(|key| key.alg != token.alg) {
                let keys = key_set(&key.jwk);
                let result = verify(token.token.as_bytes(), TrustedKeys::Set(&keys), at(IN_2030));
                assert!(
                    matches!(result, Err(Rejection::NoKeyFits { .. })),
                    "{} under {}: {result:?}",
                    token.alg,
                    key.alg
                );
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfcs() {
        let examples: Vec<Example> =
            serde_json::from_str(include_str!("../../tests/vectors/rfc.json")).expect("valid");
        assert!(examples.len() >= 6);
        for Example {
            source,
            jwk,
            token,
            outcome,
        } in examples
        {
            // The keys of the examples that must fail before the key stage are not usable here.
            let keys = KeySet::parse(jwk.to_string().as_bytes()).ok();
            let trusted = keys.as_ref().map_or(TrustedKeys::None, TrustedKeys::Set);
            let then = verify(token.as_bytes(), trusted, at(1_300_819_379.0));
            let now = verify(token.as_bytes(), trusted, at(IN_2030));
            let rejection = now.expect_err(&source);
            match outcome.as_str() {
                "expired" => {
                    let claims = then
                        .unwrap_or_else(|why| panic!("{source}: {why:?}"))
                        .token
                        .claims;
                    assert_eq!(claims.issuer.as_deref(), Some("joe"), "{source}");
                    assert!(matches!(rejection, Rejection::Expired { .. }), "{source}");
                }
                "header" => assert_eq!(rejection.stage(), Stage::Header, "{source}"),
                // A valid signature over something that is not a claims set.
                "payload" => assert_eq!(rejection.stage(), Stage::Payload, "{source}"),
                other => panic!("{source}: {other}"),
            }
        }
    }

    #[test]
    fn stages_run_in_order_and_the_first_to_fail_is_reported() {
        use base64::Engine as _;
        let b64 = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let secret = [7; 32];
        let keys = key_set(&serde_json::json!({
            "kty": "oct", "k": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret)
        }));
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let stage = |header: &str, payload: &str, sign: bool, trusted: TrustedKeys| {
            let signed = format!("{}.{}", b64(header), b64(payload));
            let tag = ring::hmac::sign(&hmac, signed.as_bytes());
            let tag = if sign { tag.as_ref() } else { &[0; 32] };
            let tag = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag);
            let token = format!("{signed}.{tag}");
            verify(token.as_bytes(), trusted, at(IN_2030)).map_err(|why| why.stage())
        };
        let set = TrustedKeys::Set(&keys);
        let expired_and_more = r#"{"exp":1,"sub":true}"#;
        for (header, payload, sign, trusted, expected) in [
            (
                r#"{"crit":[]}"#,
                "",
                false,
                TrustedKeys::None,
                Stage::Structure,
            ),
            (
                "{}",
                r#"{"a":1,"a":1}"#,
                false,
                TrustedKeys::None,
                Stage::Structure,
            ),
            ("{}", "", false, TrustedKeys::None, Stage::Header),
            (
                r#"{"alg":"RS256"}"#,
                r#"{"a":1,"a":1}"#,
                false,
                set,
                Stage::Structure,
            ),
            (
                r#"{"alg":"HS256"}"#,
                expired_and_more,
                true,
                TrustedKeys::None,
                Stage::Key,
            ),
            (
                r#"{"alg":"RS256"}"#,
                expired_and_more,
                false,
                set,
                Stage::Key,
            ),
            (r#"{"alg":"HS256"}"#, "", false, set, Stage::Signature),
            (
                r#"{"alg":"HS256"}"#,
                expired_and_more,
                false,
                set,
                Stage::Signature,
            ),
            (
                r#"{"alg":"HS256"}"#,
                expired_and_more,
                true,
                set,
                Stage::Payload,
            ),
            (r#"{"alg":"HS256"}"#, "", true, set, Stage::Payload),
            (
                r#"{"alg":"HS256"}"#,
                r#"{"exp":1e400}"#,
                true,
                set,
                Stage::Payload,
            ),
            (
                r#"{"alg":"HS256"}"#,
                r#"{"a":"\u0000"}"#,
                true,
                set,
                Stage::Payload,
            ),
            (r#"{"alg":"HS256"}"#, r#"{"exp":1}"#, true, set, Stage::Time),
        ] {
            assert_eq!(
                stage(header, payload, sign, trusted).err(),
                Some(expected),
                "{header} {payload}"
            );
        }
        assert!(stage(r#"{"alg":"HS256"}"#, "{}", true, set).is_ok());
    }

    /// Signatures that are one change away from a good one: `tests/vectors/negatives.json`.
    #[derive(Deserialize)]
    struct Negatives {
        alg: String,
        jwk: Value,
        message: String,
        signatures: Vec<Candidate>,
    }

    #[derive(Deserialize)]
    struct Candidate {
        how: String,
        signature: String,
    }

    #[test]
    fn a_signature_that_was_changed_in_any_way_is_bad() {
        let families: Vec<Negatives> =
            serde_json::from_str(include_str!("../../tests/vectors/negatives.json"))
                .expect("valid vectors");
        assert_eq!(families.len(), 12);
        for family in families {
            let keys = key_set(&family.jwk);
            for Candidate { how, signature } in family.signatures {
                let token = format!("{}.{signature}", family.message);
                let outcome = verify(token.as_bytes(), TrustedKeys::Set(&keys), at(IN_2030));
                // ECDSA's other `s` is a signature of the same key for the same text (SEC 1 section
                // 4.1.4): no one gains a token that was not signed, and nothing here counts signatures.
                let is_good = how.starts_with("good") || how.starts_with("malleable");
                match outcome {
                    Ok(_) => assert!(is_good, "{}: {how}", family.alg),
                    Err(reason) => {
                        assert!(!is_good, "{}: {how}: {reason:?}", family.alg);
                        assert_eq!(reason.stage(), Stage::Signature, "{}: {how}", family.alg);
                    }
                }
            }
        }
    }

    /// Sets of keys and tokens for them: `tests/vectors/key_sets.json`.
    #[derive(Deserialize)]
    struct Keys {
        what: String,
        keys: Value,
        ignored: Option<String>,
        good: Vec<Good>,
        bad: Vec<Bad>,
    }

    #[derive(Deserialize)]
    struct Good {
        token: String,
        sub: Option<String>,
    }

    #[derive(Deserialize)]
    struct Bad {
        token: String,
        stage: String,
        how: String,
    }

    /// Among the bad ones: each encoding of each public key as an HMAC's secret, in mixed sets too.
    #[test]
    fn keys_are_read_in_every_spelling_and_none_verifies_what_it_may_not() {
        let sets: Vec<Keys> =
            serde_json::from_str(include_str!("../../tests/vectors/key_sets.json")).expect("valid");
        for set in sets {
            let keys = key_set(&serde_json::json!({ "keys": set.keys }));
            assert_eq!(keys.ignored(), set.ignored, "{}", set.what);
            let verify =
                |token: &str| verify(token.as_bytes(), TrustedKeys::Set(&keys), at(IN_2030));
            for Good { token, sub } in set.good {
                let accepted = verify(&token).unwrap_or_else(|why| panic!("{}: {why:?}", set.what));
                assert_eq!(accepted.token.claims.subject, sub, "{}", set.what);
            }
            for Bad { token, stage, how } in set.bad {
                let why = verify(&token).expect_err(&how);
                assert_eq!(why.stage().to_string(), stage, "{}: {how}", set.what);
            }
        }
    }

    /// A token of these claims, HS256 with a secret of sevens.
    fn signed(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
        let signature = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn provider(issuer: Option<&str>, key: &str) -> Provider {
        let k = URL_SAFE_NO_PAD.encode([7; 32]);
        let jwks: Value = serde_json::from_str(&key.replace("K", &k)).expect("a key");
        let row = serde_json::json!({
            "name": "p", "issuer": issuer, "jwks": jwks, "jwks_url": null, "audience": null,
            "authorized_parties": null, "algorithms": null, "required_claims": [],
            "role_claim": ["role"], "allowed_roles": [], "default_role": null,
            "enabled": true, "created_at": "then", "updated_at": "now"
        });
        Provider::new(serde_json::from_value(row).expect("a row")).expect("sound")
    }

    #[test]
    fn a_fault_in_the_payload_is_no_unknown_issuer() {
        let key = r#"{"kty":"oct","k":"K"}"#;
        for issuer in [Some("https://i"), None] {
            let providers = Rc::new(provider(issuer, key));
            let stage = |claims: &str| {
                let token = signed(claims);
                let trusted = TrustedKeys::Providers(&providers);
                let rejected = verify(token.as_bytes(), trusted, at(IN_2030)).err();
                rejected.map(|reason| reason.stage())
            };
            for claims in [
                r#"{"iss":"https://i","a":"\u0000"}"#,
                r#"{"iss":"https://i","a":"\ud800"}"#,
                r#"{"iss":"https://i","a":1e400}"#,
                r#"{"iss":["https://i"]}"#,
                r#"{"iss":7}"#,
                r#"[]"#,
                r#""#,
            ] {
                assert_eq!(stage(claims), Some(Stage::Payload), "{issuer:?} {claims}");
            }
            let without = if issuer.is_none() {
                None
            } else {
                Some(Stage::Key)
            };
            assert_eq!((stage("{}"), stage(r#"{"iss":null}"#)), (without, without));
        }
    }

    #[test]
    fn a_key_that_names_its_issuer_verifies_that_issuers_tokens_only() {
        let entra = "https://login.microsoftonline.com/{tenantid}/v2.0";
        let key = format!(r#"{{"kty":"oct","k":"K","issuer":"{entra}"}}"#);
        let iss = entra.replace("{tenantid}", "t");
        let set = key.replace('K', &URL_SAFE_NO_PAD.encode([7; 32]));
        let set = KeySet::parse(set.as_bytes()).expect("a key");
        let providers = Rc::new(provider(Some(&iss), &key));
        for trusted in [TrustedKeys::Set(&set), TrustedKeys::Providers(&providers)] {
            let accepts =
                |claims: String| verify(signed(&claims).as_bytes(), trusted, at(IN_2030)).is_ok();
            assert!(accepts(format!(r#"{{"iss":"{iss}","tid":"t"}}"#)));
            for claims in [
                format!(r#"{{"iss":"{iss}","tid":"u"}}"#),
                format!(r#"{{"iss":"{iss}"}}"#),
                format!(r#"{{"iss":"{iss}","tid":["t"]}}"#),
                format!(r#"{{"iss":"{entra}","tid":"{{tenantid}}x"}}"#),
                r#"{"tid":"t"}"#.to_owned(),
            ] {
                assert!(!accepts(claims.clone()), "{claims}");
            }
            // It does not say whose it is, and is reported as what it is.
            for claims in [r#"{"iss":"\u0000"}"#, "[]"] {
                let rejection = verify(signed(claims).as_bytes(), trusted, at(IN_2030));
                let rejection = rejection.expect_err(claims);
                assert!(
                    matches!(rejection, Rejection::PayloadNotObject(_)),
                    "{rejection:?}"
                );
            }
        }
    }

    /// A provider that follows its issuer, and what it has been asked.
    struct Followed {
        rows: std::cell::RefCell<Rows>,
        /// What a fetch brings.
        next: Option<Rows>,
        fetches: std::cell::Cell<usize>,
    }

    impl Providers<Rejected> for Followed {
        fn of_issuer(&self, issuer: Option<&str>) -> Result<Rows, Rejected> {
            let rows = Rc::clone(&self.rows.borrow());
            Ok(rows
                .iter()
                .filter(|row| row.issuer() == issuer)
                .cloned()
                .collect())
        }

        fn some_issuers(&self) -> Result<Vec<String>, Rejected> {
            Ok(Vec::new())
        }

        fn fetch(&self, _: &Provider) -> Result<(), Rejected> {
            self.fetches.set(self.fetches.get() + 1);
            if let Some(next) = &self.next {
                self.rows.replace(Rc::clone(next));
            }
            Ok(())
        }
    }

    /// The provider of `https://i` with the keys of these names, fetched at `at`; `None`: never.
    fn followed(keys: Option<(&[&Vector], f64)>) -> Rows {
        let row = serde_json::json!({
            "name": "followed", "issuer": "https://i", "jwks": null, "jwks_url": null, "audience": null,
            "authorized_parties": null, "algorithms": null, "required_claims": [], "role_claim": ["role"],
            "allowed_roles": [], "default_role": null, "enabled": true, "written_by_superuser": true,
            "created_at": "then", "updated_at": "now"
        });
        let provider =
            Provider::new(serde_json::from_value(row).expect("a row")).expect("a provider");
        assert!(provider.follows());
        let fetched = keys.map(|(keys, at)| {
            let keys: Vec<_> = keys.iter().map(|vector| &vector.jwk).collect();
            let set = serde_json::json!({ "keys": keys });
            let published = KeySet::published(set.to_string().as_bytes()).expect("a set");
            crate::Fetched {
                keys: published.keys,
                at,
            }
        });
        Rc::from([Rc::new(provider.with(fetched))])
    }

    #[test]
    fn keys_are_fetched_for_a_token_that_names_another_and_for_no_other() {
        let vectors = vectors();
        let of = |alg: &str| vectors.iter().find(|vector| vector.alg == alg).expect(alg);
        let (rs, es) = (of("RS256"), of("ES256"));
        // Such a header and any payload: it does not come to the signature.
        let token = |header: Value, iss: &str| {
            let payload = serde_json::json!({"iss": iss});
            let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.AAAA", part(header), part(payload))
        };
        let kid = |vector: &Vector| vector.jwk["kid"].clone();
        let ours = "https://i";
        for (known, header, iss, fetches) in [
            (None, serde_json::json!({"alg": "RS256"}), ours, 1),
            (
                None,
                serde_json::json!({"alg": "RS256", "kid": "new"}),
                ours,
                1,
            ),
            (
                Some(rs),
                serde_json::json!({"alg": "RS256", "kid": "new"}),
                ours,
                1,
            ),
            (Some(rs), serde_json::json!({"alg": "ES256"}), ours, 1),
            // What is published holds no secret.
            (
                None,
                serde_json::json!({"alg": "HS256", "kid": "new"}),
                ours,
                0,
            ),
            // The key is known, and not for this.
            (
                Some(rs),
                serde_json::json!({"alg": "ES256", "kid": kid(rs)}),
                ours,
                0,
            ),
            // A bad signature.
            (
                Some(rs),
                serde_json::json!({"alg": "RS256", "kid": kid(rs)}),
                ours,
                0,
            ),
            (Some(rs), serde_json::json!({"alg": "RS256"}), ours, 0),
            (
                None,
                serde_json::json!({"alg": "RS256", "kid": "new"}),
                "https://other",
                0,
            ),
            (
                None,
                serde_json::json!({"alg": "RS256", "typ": "dpop+jwt"}),
                ours,
                0,
            ),
        ] {
            let known = known.map(|vector| [vector]);
            let providers = Followed {
                rows: followed(known.as_ref().map(|keys| (&keys[..], 0.0))).into(),
                next: None,
                fetches: 0.into(),
            };
            let token = token(header.clone(), iss);
            let rejected = verify(
                token.as_bytes(),
                TrustedKeys::Providers(&providers),
                at(0.0),
            );
            assert!(rejected.is_err());
            assert_eq!(providers.fetches.get(), fetches, "{header} {iss}");
        }
        // What comes is looked at once.
        let providers = Followed {
            rows: followed(None).into(),
            next: Some(followed(Some((&[es], 0.0)))),
            fetches: 0.into(),
        };
        let rejection = verify(
            token(serde_json::json!({"alg": "ES256", "kid": kid(es)}), ours).as_bytes(),
            TrustedKeys::Providers(&providers),
            at(0.0),
        );
        assert!(
            matches!(rejection, Err(Rejection::BadSignature { .. })),
            "{rejection:?}"
        );
        assert_eq!(providers.fetches.get(), 1);
    }

    #[test]
    fn fetched_keys_count_until_they_are_stale_and_not_a_moment_longer() {
        let rs = vectors().into_iter().find(|vector| vector.alg == "RS256");
        let rs = rs.expect("a vector");
        let rows = followed(Some((&[&rs], 1000.0)));
        let members = Header::members(br#"{"alg":"RS256"}"#).expect("a header");
        let header = Header::from_members(&members).expect("a header");
        let row = &rows[0];
        let counts = |now| {
            row.fitting(&header, Claimed::default(), at(now))
                .next()
                .is_some()
        };
        assert!(counts(1000.0) && counts(87_399.9));
        assert!(!counts(87_400.0));
        // Then they are worth fetching again.
        assert!(row.lacks_key_for(&header, at(87_400.0)));
    }

    #[test]
    fn at_most_eight_keys_that_fit_are_tried() {
        let token = "eyJhbGciOiJFZERTQSJ9.e30.AA";
        let key = |n: u8| {
            use base64::Engine as _;
            let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([n; 32]);
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": x})
        };
        let keys = key_set(&serde_json::json!({"keys": (2..11).map(key).collect::<Vec<_>>()}));
        let rejection =
            verify(token.as_bytes(), TrustedKeys::Set(&keys), at(0.0)).expect_err("forged");
        assert_eq!(
            rejection.detail(),
            "signature: the EdDSA signature does not verify with any of the first 8 of 9 matching keys"
        );
    }
}
