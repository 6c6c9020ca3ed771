//! Somebody who signs tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, rsa};
use serde_json::{Value, json};

/// A signing key, and what its owner publishes about it.
pub struct Issuer {
    key: Key,
    jwk: Value,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static str, EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Secret(Vec<u8>),
}

impl Issuer {
    /// EdDSA with a new key.
    pub fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let x = b64(key.public_key().as_ref());
        Self {
            key: Key::Ed25519(key),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
        }
    }

    /// ES256 with a new key.
    pub fn es256() -> Self {
        Self::ecdsa("ES256")
    }

    /// ES384 with a new key.
    pub fn es384() -> Self {
        Self::ecdsa("ES384")
    }

    fn ecdsa(alg: &'static str) -> Self {
        let (kind, curve) = match alg {
            "ES256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        };
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        // An uncompressed point: 4, x, y.
        let point = key.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(point.len() / 2);
        let jwk = json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)});
        Self {
            key: Key::Ecdsa(alg, key),
            jwk,
        }
    }

    /// RS256; ring makes no RSA keys, so this one is committed.
    pub fn rs256() -> Self {
        Self::rsa(include_bytes!("../fixtures/rsa-2048-a.pk8"))
    }

    /// RS256 with another committed key.
    pub fn other_rs256() -> Self {
        Self::rsa(include_bytes!("../fixtures/rsa-2048-b.pk8"))
    }

    fn rsa(pkcs8: &[u8]) -> Self {
        let key = RsaKeyPair::from_pkcs8(pkcs8).unwrap();
        let public: rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
        let jwk = json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e)});
        Self {
            key: Key::Rsa(Box::new(key)),
            jwk,
        }
    }

    /// HS256 with a new secret of 32 bytes.
    pub fn hs256() -> Self {
        let secret: [u8; 32] = ring::rand::generate(&SystemRandom::new()).unwrap().expose();
        Self::secret(&secret)
    }

    /// HS256 with this secret.
    pub fn secret(secret: &[u8]) -> Self {
        Self {
            key: Key::Secret(secret.to_vec()),
            jwk: json!({"kty": "oct", "k": b64(secret)}),
        }
    }

    /// The same key, published with a `kid`; its tokens carry the `kid` too.
    pub fn with_kid(self, kid: &str) -> Self {
        self.with("kid", kid)
    }

    /// The same key, published with one more member.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.jwk[member] = value.into();
        self
    }

    /// The `alg` of its tokens.
    pub fn alg(&self) -> &'static str {
        match &self.key {
            Key::Ed25519(_) => "EdDSA",
            Key::Ecdsa(alg, _) => alg,
            Key::Rsa(_) => "RS256",
            Key::Secret(_) => "HS256",
        }
    }

    /// What it publishes: a public JWK, or for HS256 the secret.
    pub fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// A token with these claims and nothing unusual about it.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(self.header().to_string(), claims.to_string())
    }

    /// A token for `sub` that expires in an hour.
    pub fn token_for(&self, sub: &str) -> String {
        self.token(&json!({"sub": sub, "exp": now() + 3600}))
    }

    /// The header of its tokens.
    pub fn header(&self) -> Value {
        match self.jwk.get("kid") {
            Some(kid) => json!({"alg": self.alg(), "kid": kid}),
            None => json!({"alg": self.alg()}),
        }
    }

    /// A correctly signed token around any header and payload, JSON or not.
    pub fn sign(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.sign_parts(&b64(header.as_ref()), &b64(payload.as_ref()))
    }

    /// A correctly signed token around any text for the first two parts, base64url or not.
    pub fn sign_parts(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        let signature = b64(&self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Key::Ecdsa(_, key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Key::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message)
                .as_ref()
                .to_vec(),
        }
    }
}

/// The JWK Set of several keys, as text.
pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// base64url without padding.
pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a base64url text.
pub fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The time in whole seconds since 1970.
pub fn now() -> i64 {
    let elapsed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(elapsed.as_secs()).unwrap()
}
