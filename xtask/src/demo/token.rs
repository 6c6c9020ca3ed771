//! Session tokens and key sets, shaped like Clerk's.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rsa::{KeyPair, PublicKeyComponents};
use serde_json::{Value, json};

use crate::problem::{Problem, Result};

/// Who issues the demo's tokens.
pub const ISSUER: &str = "https://todo-demo-00.clerk.accounts.dev";

/// A private key and the name that tokens and key sets have for it.
pub struct Key {
    /// The `kid`.
    pub id: &'static str,
    pair: KeyPair,
}

impl Key {
    /// Reads a key from its PKCS#8 bytes.
    pub fn new(id: &'static str, pkcs8: &[u8]) -> Result<Self> {
        let pair = KeyPair::from_pkcs8(pkcs8)
            .map_err(|error| Problem::new(format!("the demo's key {id} is broken: {error}")))?;
        Ok(Self { id, pair })
    }

    /// The public half, as it stands in a JWK Set.
    fn public(&self) -> Value {
        let parts = PublicKeyComponents::<Vec<u8>>::from(self.pair.public());
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(parts.n), "e": URL_SAFE_NO_PAD.encode(parts.e),
        })
    }

    /// A session token of `subject`, issued at `issued` and good for `lifetime` seconds.
    pub fn token(&self, subject: &str, issued: i64, lifetime: i64) -> Result<String> {
        // https://clerk.com/docs/guides/sessions/session-tokens, version 2.
        let header =
            json!({"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": self.id, "typ": "JWT"});
        let claims = json!({
            "azp": "http://localhost:3000",
            "exp": issued + lifetime,
            "fva": [0, -1],
            "iat": issued,
            "iss": ISSUER,
            "jti": "6f0e4b1d2a9c7e5f8b3d",
            "nbf": issued - 10,
            "sid": "sess_2demo0000000000000000000000",
            "sts": "active",
            "sub": subject,
            "v": 2,
        });
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.pair
            .sign(
                &ring::signature::RSA_PKCS1_SHA256,
                &random,
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|error| Problem::new(format!("cannot sign a token: {error}")))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The JWK Set of these keys.
pub fn key_set(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>() }).to_string()
}

/// `-c name=value` as libpq's `options` wants it: a backslash before each space and backslash.
pub fn startup_option(name: &str, value: &str) -> String {
    let mut option = format!("-c {name}=");
    for c in value.chars() {
        if c == '\\' || c.is_ascii_whitespace() {
            option.push('\\');
        }
        option.push(c);
    }
    option
}

/// A token as the demo shows it: enough to tell it from another.
pub fn shortened(token: &str) -> String {
    match (
        token.get(..10),
        token.len().checked_sub(4).and_then(|at| token.get(at..)),
    ) {
        (Some(head), Some(tail)) if token.len() > 20 => format!("{head}…{tail}"),
        _ => token.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("ins_test", include_bytes!("DEMO-ONLY-key-a.pk8")).unwrap()
    }

    #[test]
    fn a_token_verifies_with_the_published_key() {
        let key = key();
        let token = key.token("user_x", 1_700_000_000, 60).unwrap();
        let set: Value = serde_json::from_str(&key_set(&[&key])).unwrap();
        let part = |value: &Value| URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap();
        let (n, e) = (part(&set["keys"][0]["n"]), part(&set["keys"][0]["e"]));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        ring::signature::RsaPublicKeyComponents { n: &n, e: &e }
            .verify(
                &ring::signature::RSA_PKCS1_2048_8192_SHA256,
                signed.as_bytes(),
                &URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
            .unwrap();
        let claims = URL_SAFE_NO_PAD
            .decode(signed.split_once('.').unwrap().1)
            .unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            (&claims["sub"], &claims["exp"]),
            (&json!("user_x"), &json!(1_700_000_060))
        );
    }

    #[test]
    fn options_are_escaped_as_libpq_wants() {
        assert_eq!(
            startup_option("a.b", r#"{"x": "\n"}"#),
            r#"-c a.b={"x":\ "\\n"}"#
        );
    }

    #[test]
    fn a_shortened_token_is_no_token() {
        assert_eq!(
            shortened("eyJhbGciOiJSUzI1NiJ9.eyJ.sig-1234"),
            "eyJhbGciOi…1234"
        );
    }
}
