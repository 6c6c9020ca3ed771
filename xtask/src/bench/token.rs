//! Keys of four algorithms, and tokens of any length.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{hmac, rsa};
use serde_json::{Map, Value, json};

use crate::problem::{Problem, Result};

/// Who issues the tokens that public keys verify.
pub const ISSUER: &str = "https://b.test";
/// Who issues the others: a set of keys does not mix the two kinds.
pub const SECRET_ISSUER: &str = "https://hs.b.test";

/// A key that signs.
enum Private {
    Rsa(rsa::KeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Secret(Vec<u8>),
}

/// A key, and what tokens call it.
pub struct Key {
    /// The `alg` of its tokens.
    pub algorithm: &'static str,
    id: &'static str,
    private: Private,
    random: SystemRandom,
}

fn broken(what: &str) -> impl Fn() -> Problem {
    let what = format!("cannot make the benchmark's {what} key");
    move || Problem::new(what.clone())
}

impl Key {
    fn new(algorithm: &'static str, id: &'static str, private: Private) -> Self {
        Self {
            algorithm,
            id,
            private,
            random: SystemRandom::new(),
        }
    }

    /// RS256, 2048 bits: one of the demo's, as ring makes none.
    pub fn rsa() -> Result<Self> {
        let pkcs8 = include_bytes!("../demo/DEMO-ONLY-key-a.pk8");
        let pair = rsa::KeyPair::from_pkcs8(pkcs8).map_err(|_| broken("RSA")())?;
        Ok(Self::new("RS256", "rs", Private::Rsa(pair)))
    }

    /// ES256.
    pub fn ec() -> Result<Self> {
        let failed = broken("EC");
        let random = SystemRandom::new();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| failed())?;
        let pair =
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| failed())?;
        Ok(Self::new("ES256", "es", Private::Ec(pair)))
    }

    /// EdDSA.
    pub fn ed() -> Result<Self> {
        let failed = broken("Ed25519");
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| failed())?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| failed())?;
        Ok(Self::new("EdDSA", "ed", Private::Ed(pair)))
    }

    /// HS256.
    pub fn secret() -> Result<Self> {
        let bytes: [u8; 32] = ring::rand::generate(&SystemRandom::new())
            .map_err(|_| broken("HMAC")())?
            .expose();
        Ok(Self::new("HS256", "hs", Private::Secret(bytes.into())))
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &'static str {
        match self.private {
            Private::Secret(_) => SECRET_ISSUER,
            _ => ISSUER,
        }
    }

    /// What verifies, as it stands in a JWK Set.
    fn public(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.private {
            Private::Rsa(pair) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
            }
            Private::Ec(pair) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Private::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            Private::Secret(bytes) => json!({"kty": "oct", "k": encode(bytes)}),
        };
        jwk["alg"] = self.algorithm.into();
        jwk["kid"] = self.id.into();
        jwk
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| Problem::new("cannot sign a token of the benchmark");
        Ok(match &self.private {
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding = &signature::RSA_PKCS1_SHA256;
                pair.sign(padding, &self.random, message, &mut signature)
                    .map_err(failed)?;
                signature
            }
            Private::Ec(pair) => {
                let signature = pair.sign(&self.random, message).map_err(failed)?;
                signature.as_ref().to_vec()
            }
            Private::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Private::Secret(bytes) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
                hmac::sign(&key, message).as_ref().to_vec()
            }
        })
    }

    /// A token with these claims, of at most `length` bytes (a byte or two short of it, where
    /// base64 has no such length) or of as many as the claims need.
    pub fn token(&self, mut claims: Map<String, Value>, length: usize) -> Result<Token> {
        let header = json!({"alg": self.algorithm, "kid": self.id}).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        let signature_length = match &self.private {
            Private::Rsa(pair) => pair.public().modulus_len(),
            Private::Secret(_) => 32,
            _ => 64,
        };
        let around = header.len() + 2 + (signature_length * 4).div_ceil(3);
        fill(&mut claims, length.saturating_sub(around) * 3 / 4);
        let claims = Value::Object(claims).to_string();
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(&claims));
        let signature = self.sign(signed.as_bytes())?;
        Ok(Token {
            text: format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature)),
            claims,
            signed,
            signature,
        })
    }

    /// What the extension cannot do without: ring's verification of these tokens, the keys at hand
    /// in the form in which ring takes them. Nanoseconds for each.
    pub fn verify_all(&self, tokens: &[Token]) -> Result<f64> {
        match &self.private {
            Private::Rsa(pair) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                let padding = &signature::RSA_PKCS1_2048_8192_SHA256;
                time(tokens, |token| {
                    let message = token.signed.as_bytes();
                    parts.verify(padding, message, &token.signature).is_ok()
                })
            }
            Private::Ec(pair) => {
                let algorithm = &signature::ECDSA_P256_SHA256_FIXED;
                let key = signature::UnparsedPublicKey::new(algorithm, pair.public_key());
                time(tokens, |token| {
                    key.verify(token.signed.as_bytes(), &token.signature)
                        .is_ok()
                })
            }
            Private::Ed(pair) => {
                let key = signature::UnparsedPublicKey::new(&signature::ED25519, pair.public_key());
                time(tokens, |token| {
                    key.verify(token.signed.as_bytes(), &token.signature)
                        .is_ok()
                })
            }
            Private::Secret(bytes) => time(tokens, |token| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
                hmac::verify(&key, token.signed.as_bytes(), &token.signature).is_ok()
            }),
        }
    }
}

fn time(tokens: &[Token], verify: impl Fn(&Token) -> bool) -> Result<f64> {
    let started = std::time::Instant::now();
    let all = tokens
        .iter()
        .all(|token| std::hint::black_box(verify(token)));
    let nanoseconds = started.elapsed().as_secs_f64() * 1e9;
    if !all {
        return Err(Problem::new("ring refuses a token that it has signed"));
    }
    #[allow(clippy::cast_precision_loss)]
    Ok(nanoseconds / tokens.len() as f64)
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

/// The organisation of this user.
pub fn organisation(number: usize) -> String {
    format!("o_{:03}", number % 1000)
}

/// The claims of this user: a day is left.
pub fn claims(key: &Key, number: usize) -> Map<String, Value> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let claims = json!({
        "iss": key.issuer(),
        "sub": subject(number),
        "exp": now + 86_400,
        "org_id": organisation(number),
        "permissions": ["a:b"],
    });
    match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    }
}

/// The JWK Set of these keys.
pub fn key_set(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.public()).collect();
    json!({ "keys": keys }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_length_asked_for() {
        for key in [
            Key::ed().unwrap(),
            Key::ec().unwrap(),
            Key::secret().unwrap(),
        ] {
            for length in [300, 1024, 8192] {
                let token = key.token(claims(&key, 7), length).unwrap();
                let has = token.text.len();
                assert!(
                    (length - 2..=length).contains(&has),
                    "{has} of {length}, {}",
                    key.algorithm
                );
            }
        }
        let key = Key::rsa().unwrap();
        let has = key.token(claims(&key, 7), 1024).unwrap().text.len();
        assert!((1022..=1024).contains(&has), "{has}");
    }

    #[test]
    fn ring_verifies_what_it_signed() {
        for key in [
            Key::rsa().unwrap(),
            Key::ec().unwrap(),
            Key::ed().unwrap(),
            Key::secret().unwrap(),
        ] {
            let mut token = key.token(claims(&key, 7), 700).unwrap();
            assert!(key.verify_all(std::slice::from_ref(&token)).is_ok());
            token.signed.push('x');
            assert!(key.verify_all(&[token]).is_err(), "{}", key.algorithm);
        }
    }
}
