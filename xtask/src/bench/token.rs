//! Keys of four algorithms, and tokens of any length.

use anyhow::{Result, ensure};
use harness::{Issuer, b64, now, unb64};
use ring::rsa::PublicKeyComponents;
use ring::{hmac, signature};
use serde_json::{Map, Value, json};

/// Who issues the tokens that public keys verify.
pub const ISSUER: &str = "https://b.test";
/// Who issues the others: a set of keys does not mix the two kinds.
pub const SECRET_ISSUER: &str = "https://hs.b.test";

/// A key that signs, and the `iss` of its tokens.
pub struct Key {
    issuer: Issuer,
    /// `iss`
    pub iss: &'static str,
}

/// A token and its parts.
pub struct Token {
    /// As it is presented.
    pub text: String,
    /// Its payload.
    pub claims: String,
    signed: String,
    signature: Vec<u8>,
}

/// RS256 with 2048 bits, ES256, EdDSA, HS256.
pub fn keys() -> [Key; 4] {
    [
        (Issuer::rs256(), ISSUER),
        (Issuer::es256(), ISSUER),
        (Issuer::ed25519(), ISSUER),
        (Issuer::hs256(), SECRET_ISSUER),
    ]
    .map(|(issuer, iss)| {
        let algorithm = issuer.alg();
        let issuer = issuer.with_kid(algorithm).with("alg", algorithm);
        Key { issuer, iss }
    })
}

impl Key {
    /// The `alg` of its tokens.
    pub fn algorithm(&self) -> &'static str {
        self.issuer.alg()
    }

    /// A token with these claims, of at most `length` bytes (a byte or two short of it, where
    /// base64 has no such length) or of as many as the claims need.
    pub fn token(&self, mut claims: Map<String, Value>, length: usize) -> Token {
        let header = b64(self.issuer.header().to_string().as_bytes());
        let signature_length = match self.algorithm() {
            "RS256" => 256,
            "HS256" => 32,
            _ => 64_usize,
        };
        let around = header.len() + 2 + (signature_length * 4).div_ceil(3);
        fill(&mut claims, length.saturating_sub(around) * 3 / 4);
        let claims = Value::Object(claims).to_string();
        let text = self.issuer.sign_parts(&header, &b64(claims.as_bytes()));
        let (signed, signature) = text.rsplit_once('.').unwrap_or_default();
        Token {
            signed: signed.to_owned(),
            signature: unb64(signature),
            text,
            claims,
        }
    }

    /// What the extension cannot do without: ring's verification of these tokens, the keys at hand
    /// in the form in which ring takes them. Nanoseconds for each.
    pub fn verify_all(&self, tokens: &[Token]) -> Result<f64> {
        let jwk = self.issuer.jwk();
        let member = |name: &str| unb64(jwk[name].as_str().unwrap_or_default());
        let unparsed = |algorithm, key: Vec<u8>| {
            let key = signature::UnparsedPublicKey::new(algorithm, key);
            time(tokens, move |message, signature| {
                key.verify(message, signature).is_ok()
            })
        };
        match self.algorithm() {
            "RS256" => {
                let (n, e) = (member("n"), member("e"));
                let (key, padding) = (
                    PublicKeyComponents { n, e },
                    &signature::RSA_PKCS1_2048_8192_SHA256,
                );
                time(tokens, |message, signature| {
                    key.verify(padding, message, signature).is_ok()
                })
            }
            // An uncompressed point: 4, x, y.
            "ES256" => unparsed(
                &signature::ECDSA_P256_SHA256_FIXED,
                [vec![4], member("x"), member("y")].concat(),
            ),
            "EdDSA" => unparsed(&signature::ED25519, member("x")),
            _ => {
                let secret = member("k");
                time(tokens, |message, signature| {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
                    hmac::verify(&key, message, signature).is_ok()
                })
            }
        }
    }
}

fn time(tokens: &[Token], verify: impl Fn(&[u8], &[u8]) -> bool) -> Result<f64> {
    let started = std::time::Instant::now();
    let all = tokens
        .iter()
        .all(|token| std::hint::black_box(verify(token.signed.as_bytes(), &token.signature)));
    let nanoseconds = started.elapsed().as_secs_f64() * 1e9;
    ensure!(all, "ring refuses a token that it has signed");
    #[allow(clippy::cast_precision_loss)]
    Ok(nanoseconds / tokens.len() as f64)
}

/// Adds members until the object has `length` bytes: first some of usual size, then a remainder.
fn fill(claims: &mut Map<String, Value>, length: usize) {
    let size = |claims: &Map<String, Value>| Value::Object(claims.clone()).to_string().len();
    let mut has = size(claims);
    // `,"claim_000":"…"`
    let usual = 55;
    let mut number = 0;
    while has + 2 * usual <= length {
        claims.insert(format!("claim_{number:03}"), "x".repeat(usual - 15).into());
        has += usual;
        number += 1;
    }
    // `,"p":""`
    if let Some(rest) = length.checked_sub(has + 7) {
        claims.insert("p".into(), "x".repeat(rest).into());
    }
}

/// The user of this number: `sub`, and the value of the columns.
pub fn subject(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// The organization of this user.
pub fn organization(number: usize) -> String {
    format!("o_{:03}", number % 1000)
}

/// The claims of this user: a day is left.
pub fn claims(key: &Key, number: usize) -> Map<String, Value> {
    let claims = json!({
        "iss": key.iss,
        "sub": subject(number),
        "exp": now() + 86_400,
        "org_id": organization(number),
        "permissions": ["a:b"],
    });
    match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    }
}

/// The JWK Set of these keys.
pub fn key_set(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.issuer.jwk()).collect();
    harness::jwks(&keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_length_asked_for() {
        for key in keys() {
            for length in [1024, 8192] {
                let has = key.token(claims(&key, 7), length).text.len();
                assert!(
                    (length - 2..=length).contains(&has),
                    "{has} of {length}, {}",
                    key.algorithm()
                );
            }
        }
    }

    #[test]
    fn ring_verifies_what_it_signed() {
        for key in keys() {
            let mut token = key.token(claims(&key, 7), 700);
            assert!(key.verify_all(std::slice::from_ref(&token)).is_ok());
            token.signed.push('x');
            assert!(key.verify_all(&[token]).is_err(), "{}", key.algorithm());
        }
    }
}
