//! What the targets share: JSON that looks like tokens and keys, two keys that sign, and the tokens of
//! `tests/vectors`, whose keys sign nothing here.
//!
//! Random bytes never pass a signature, so the targets sign what the fuzzer makes up. The keys exist here alone.

use std::sync::LazyLock;

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Signer {
    Hmac(hmac::Algorithm),
    Ed25519,
    /// An attacker's, who takes the Ed25519 public key for a secret (RFC 8725 section 2.1).
    PublicKeyAsSecret,
}

impl Signer {
    pub fn arbitrary(u: &mut Unstructured) -> Result<Self> {
        Ok(match u.int_in_range(0..=4)? {
            0 => Self::Hmac(hmac::HMAC_SHA256),
            1 => Self::Hmac(hmac::HMAC_SHA384),
            2 => Self::Hmac(hmac::HMAC_SHA512),
            3 => Self::PublicKeyAsSecret,
            _ => Self::Ed25519,
        })
    }

    /// Its key, as others get it.
    pub fn jwk(self) -> Value {
        match self {
            Self::Hmac(_) => json!({"kty": "oct", "k": b64(&SECRET)}),
            Self::Ed25519 | Self::PublicKeyAsSecret => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(PAIR.public_key().as_ref())})
            }
        }
    }

    /// The `alg` of its tokens.
    pub fn alg(self) -> &'static str {
        match self {
            Self::Hmac(hash) if hash == hmac::HMAC_SHA256 => "HS256",
            Self::Hmac(hash) if hash == hmac::HMAC_SHA384 => "HS384",
            Self::Hmac(_) => "HS512",
            Self::PublicKeyAsSecret => "HS256",
            Self::Ed25519 => "EdDSA",
        }
    }

    /// A correctly signed token around any two parts.
    pub fn token(self, header: &[u8], payload: &[u8]) -> String {
        let message = format!("{}.{}", b64(header), b64(payload));
        let tag = |hash, secret: &[u8]| {
            let tag = hmac::sign(&hmac::Key::new(hash, secret), message.as_bytes());
            tag.as_ref().to_vec()
        };
        let signature = match self {
            Self::Hmac(hash) => tag(hash, &SECRET),
            Self::PublicKeyAsSecret => tag(hmac::HMAC_SHA256, PAIR.public_key().as_ref()),
            Self::Ed25519 => PAIR.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", b64(&signature))
    }
}

/// A token, and who made it.
pub struct Made {
    pub token: Vec<u8>,
    /// The key that verifies it and its `alg`; `None` if no key does: an attacker made it, or it was changed after
    /// it was signed.
    pub by: Option<(Value, String)>,
}

impl Made {
    /// Of text that the fuzzer writes, of members that it chooses, or of `tests/vectors`. Nearly always signed.
    ///
    /// The letters come first, so that a file of the corpus says what it is.
    pub fn arbitrary(u: &mut Unstructured, now: f64) -> Result<Self> {
        let made = match u.arbitrary::<u8>()? {
            // The whole token.
            b'R' => {
                let token = u.bytes(u.len())?.to_vec();
                let known = KEYS.iter().find(|key| {
                    key.tokens
                        .first()
                        .is_some_and(|known| *known.as_bytes() == *token)
                });
                let by = known.map(|key| (key.jwk.clone(), key.alg.clone()));
                return Ok(Self { token, by });
            }
            // The header to the end of the line, then the payload.
            b'T' => {
                let signer = Signer::arbitrary(u)?;
                let text = u.bytes(u.len())?;
                let line = text
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .unwrap_or(text.len());
                let (header, payload) = text.split_at(line);
                return Ok(Self::signed(
                    signer,
                    header,
                    payload.get(1..).unwrap_or_default(),
                ));
            }
            // Of another library, by any of the twelve algorithms. The first is good, the others are tampered with.
            b'V' => {
                let key = u.choose(&KEYS)?;
                let index = if u.ratio(1, 2)? {
                    0
                } else {
                    u.choose_index(key.tokens.len().max(1))?
                };
                let by = (index == 0).then(|| (key.jwk.clone(), key.alg.clone()));
                let token = key.tokens.get(index).map_or("", String::as_str);
                Self {
                    token: token.into(),
                    by,
                }
            }
            _ => {
                let signer = Signer::arbitrary(u)?;
                let mut header = if u.ratio(1, 2)? {
                    Map::new()
                } else {
                    object(u, 2)?
                };
                if u.ratio(9, 10)? {
                    header.insert("alg".into(), signer.alg().into());
                }
                let mut payload = if u.ratio(1, 2)? {
                    Map::new()
                } else {
                    object(u, 3)?
                };
                for name in ["exp", "nbf", "iat"] {
                    if u.ratio(1, 4)? {
                        let seconds =
                            u.choose(&[-60.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 60.0])?;
                        payload.insert(name.into(), json!(now + seconds));
                    }
                }
                if u.ratio(1, 2)? {
                    payload.insert("iss".into(), (*u.choose(&ISSUERS)?).into());
                }
                // What keys and policies ask for.
                for name in ["aud", "azp", "client_id", "tid"] {
                    if u.ratio(1, 2)? {
                        payload.insert(
                            name.into(),
                            u.choose(&[json!("a"), json!("t"), Value::Null])?.clone(),
                        );
                    }
                }
                if u.ratio(1, 4)? {
                    header.insert("kid".into(), (*u.choose(&["a", "b", ""])?).into());
                }
                let mut payload = text(&payload);
                if u.ratio(1, 16)? {
                    let name = u.choose(&["sub", "iss", "exp", "aud"])?;
                    payload.splice(1..1, format!("\"{name}\":null,\"{name}\":{{}},").bytes());
                    payload = String::from_utf8(payload)
                        .expect("JSON")
                        .replace(",}", "}")
                        .into();
                }
                Self::signed(signer, &text(&header), &payload)
            }
        };
        if u.ratio(3, 4)? || made.token.is_empty() {
            return Ok(made);
        }
        let (original, mut token) = (made.token, String::new());
        let at = u.choose_index(original.len())?;
        token.push_str(&String::from_utf8_lossy(&original));
        token.replace_range(
            at..=at,
            u.choose(&["", ".", "=", "A", "B", "_", "-", "+", "Bearer ", "\n"])?,
        );
        let by = made.by.filter(|_| token.as_bytes() == original);
        Ok(Self {
            token: token.into(),
            by,
        })
    }

    fn signed(signer: Signer, header: &[u8], payload: &[u8]) -> Self {
        let by = (signer != Signer::PublicKeyAsSecret).then(|| (signer.jwk(), signer.alg().into()));
        Self {
            token: signer.token(header, payload).into(),
            by,
        }
    }
}

/// Issuers of tokens and of providers.
pub const ISSUERS: [&str; 5] = [
    "https://i",
    "https://i/",
    "https://login/t/v2.0",
    "https://pyjwt.example",
    "joe",
];

fn text(members: &Map<String, Value>) -> Vec<u8> {
    Value::Object(members.clone()).to_string().into()
}

/// A key that verifies, and tokens for it: the first is good.
pub struct Known {
    pub jwk: Value,
    pub alg: String,
    pub tokens: Vec<String>,
}

/// The public keys of both signers and of `tests/vectors`, which have all twelve algorithms.
pub static KEYS: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let vectors = [
        include_str!("../../vectors/tokens.json"),
        include_str!("../../vectors/rfc.json"),
    ];
    let vectors = vectors
        .into_iter()
        .flat_map(|text| serde_json::from_str::<Vec<Value>>(text).expect("valid vectors"));
    // Two examples of RFC 7515 have no key that is supported.
    let vectors = vectors.filter(|vector| vector["outcome"] != "header");
    let string = |value: &Value| value.as_str().expect("a string").to_owned();
    let vectors = vectors.map(|vector| Known {
        jwk: vector["jwk"].clone(),
        alg: string(&vector["alg"]),
        tokens: std::iter::once(&vector)
            .chain(vector["tampered"].as_array().into_iter().flatten())
            .map(|one| string(&one["token"]))
            .collect(),
    });
    let own = [Signer::Hmac(hmac::HMAC_SHA256), Signer::Ed25519].map(|signer| Known {
        jwk: signer.jwk(),
        alg: signer.alg().into(),
        tokens: vec![signer.token(
            text(&Map::from_iter([("alg".into(), signer.alg().into())])).as_slice(),
            b"{}",
        )],
    });
    own.into_iter().chain(vectors).collect()
});

/// The claims of each issuer's documented tokens.
pub static CLAIMS: LazyLock<Vec<Map<String, Value>>> = LazyLock::new(|| {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../../vectors/identity.json")).expect("valid vectors");
    let claims = |vector: &Value| vector["claims"].as_object().expect("an object").clone();
    vectors.iter().map(claims).collect()
});

/// Whether two JWKs are the same key, whatever else they say of it.
pub fn is_same_key(one: &Value, other: &Value) -> bool {
    ["kty", "crv", "n", "e", "x", "y", "k"]
        .into_iter()
        .all(|name| one.get(name) == other.get(name))
}

/// Both names of one algorithm (RFC 9864).
pub fn algorithm(name: &str) -> &str {
    if name == "Ed25519" { "EdDSA" } else { name }
}

pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn unb64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

static PAIR: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&SEED).expect("any seed will do"));
