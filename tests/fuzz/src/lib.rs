//! What the targets share: JSON that looks like tokens and keys, and two keys that sign.
//!
//! Random bytes never pass a signature, so the targets sign what the fuzzer makes up. The keys exist here alone.

use arbitrary::{Result, Unstructured};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, Value, json};

const SECRET: [u8; 64] = [7; 64];
const SEED: [u8; 32] = [9; 32];

/// Names that mean something in a header, a payload or a key, and values that do.
const NAMES: [&str; 62] = [
    "alg",
    "typ",
    "kid",
    "crit",
    "b64",
    "nonce",
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "azp",
    "client_id",
    "tid",
    "role",
    "roles",
    "scope",
    "scp",
    "permissions",
    "org_id",
    "org_role",
    "org_slug",
    "org_name",
    "org_permissions",
    "o",
    "id",
    "rol",
    "slg",
    "per",
    "fpm",
    "fea",
    "v",
    "sid",
    "session_id",
    "aal",
    "app_metadata",
    "user_metadata",
    "user_role",
    "slug",
    "kty",
    "crv",
    "x",
    "y",
    "n",
    "e",
    "k",
    "d",
    "use",
    "key_ops",
    "x5c",
    "issuer",
    "keys",
    "p",
    "q",
    "dp",
    "dq",
    "qi",
    "oth",
    "jwks_uri",
    "",
];
const TEXTS: [&str; 44] = [
    "HS256",
    "HS384",
    "HS512",
    "EdDSA",
    "Ed25519",
    "RS256",
    "ES256",
    "none",
    "JWT",
    "at+jwt",
    "JOSE",
    "sig",
    "enc",
    "verify",
    "RSA",
    "EC",
    "OKP",
    "oct",
    "P-256",
    "P-384",
    "P-521",
    "Ed25519",
    "X25519",
    "AQAB",
    "AA",
    "AA==",
    "https://i",
    "https://login/{tenantid}/v2.0",
    "https://login/t/v2.0",
    "t",
    "a",
    "org:admin",
    "o:a,u:b",
    "1,2,3",
    "-1",
    "0",
    "1",
    "sess_1",
    "session_1",
    "auth0|1",
    "authenticated",
    "anon",
    "a b c",
    "",
];

/// A JSON value.
pub fn value(u: &mut Unstructured, depth: usize) -> Result<Value> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => Value::Bool(u.arbitrary()?),
        2 => json!(u.arbitrary::<i64>()?),
        3 => json!(u.int_in_range(-2..=4_102_444_800_i64)?),
        4 => json!(u.arbitrary::<f64>()?),
        5 => json!(u.arbitrary::<String>()?),
        6 | 7 if depth > 0 => {
            let count = u.int_in_range(0..=4)?;
            let items = (0..count).map(|_| value(u, depth - 1));
            Value::Array(items.collect::<Result<_>>()?)
        }
        8 if depth > 0 => Value::Object(object(u, depth - 1)?),
        _ => json!(*u.choose(&TEXTS)?),
    })
}

/// A JSON object.
pub fn object(u: &mut Unstructured, depth: usize) -> Result<Map<String, Value>> {
    let mut members = Map::new();
    for _ in 0..u.int_in_range(0..=6)? {
        let name = if u.ratio(9, 10)? {
            (*u.choose(&NAMES)?).to_owned()
        } else {
            u.arbitrary()?
        };
        members.insert(name, value(u, depth)?);
    }
    Ok(members)
}

/// A key that signs.
#[derive(Debug, Clone, Copy)]
pub enum Signer {
    Hmac(hmac::Algorithm),
    Ed25519,
}

impl Signer {
    pub fn arbitrary(u: &mut Unstructured) -> Result<Self> {
        Ok(match u.int_in_range(0..=3)? {
            0 => Self::Hmac(hmac::HMAC_SHA256),
            1 => Self::Hmac(hmac::HMAC_SHA384),
            2 => Self::Hmac(hmac::HMAC_SHA512),
            _ => Self::Ed25519,
        })
    }

    /// The `alg` of its tokens.
    pub fn alg(self) -> &'static str {
        match self {
            Self::Hmac(hash) if hash == hmac::HMAC_SHA256 => "HS256",
            Self::Hmac(hash) if hash == hmac::HMAC_SHA384 => "HS384",
            Self::Hmac(_) => "HS512",
            Self::Ed25519 => "EdDSA",
        }
    }

    /// The same key for jsonwebtoken.
    pub fn decoding_key(self) -> jsonwebtoken::DecodingKey {
        match self {
            Self::Hmac(_) => jsonwebtoken::DecodingKey::from_secret(&SECRET),
            Self::Ed25519 => jsonwebtoken::DecodingKey::from_ed_der(pair().public_key().as_ref()),
        }
    }

    /// A correctly signed token around any two parts.
    pub fn token(self, header: &[u8], payload: &[u8]) -> String {
        let message = format!("{}.{}", b64(header), b64(payload));
        let signature = match self {
            Self::Hmac(hash) => hmac::sign(&hmac::Key::new(hash, &SECRET), message.as_bytes())
                .as_ref()
                .to_vec(),
            Self::Ed25519 => pair().sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", b64(&signature))
    }
}

/// A set of both keys, and two that sign nothing here: RFC 7515 appendices A.2.1 and A.3.1.
pub fn key_set() -> String {
    json!({"keys": [
        {"kty": "oct", "k": b64(&SECRET)},
        {"kty": "OKP", "crv": "Ed25519", "x": b64(pair().public_key().as_ref()), "kid": "a"},
        {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
         "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
        {"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}
    ]})
    .to_string()
}

pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn unb64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SEED).expect("any seed will do")
}
