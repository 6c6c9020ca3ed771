//! One JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037 section 2): what it consists of, and which
//! tokens it may verify.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::agreement::{self, ECDH_P256, ECDH_P384};
use serde_json::{Map, Value};

use crate::header::Header;
use crate::quoted::quoted;
use crate::signature::{self, FoundGood};

/// RSA moduli in bits: shorter ones are breakable (RFC 7518 section 3.3), longer ones take long to
/// verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// With the length of the hash in bytes, the minimum for a secret (RFC 7518 section 3.2).
const HMAC: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];

/// One key that can verify signatures.
pub struct Key {
    /// `kid`.
    pub id: Option<String>,
    /// `kty`, and `crv` if the type has curves.
    key_type: &'static str,
    /// `alg`, if the key names its one algorithm.
    declared: Option<Algorithm>,
    /// The algorithms that `kty`, `crv`, `alg`, `use`, `key_ops` and the length allow.
    pub(crate) algorithms: Vec<Algorithm>,
    material: DecodingKey,
    found_good: FoundGood,
}

impl Key {
    /// Reads a JWK.
    ///
    /// # Errors
    /// [`Unusable`], if it is for another use or invalid.
    pub(crate) fn read(jwk: &Map<String, Value>) -> Result<Self, Unusable> {
        let jwk = Jwk(jwk);
        let kty = jwk
            .text("kty")?
            .ok_or_else(|| wrong("\"kty\" is missing"))?;
        jwk.check_purpose()?;
        let declared = jwk.algorithm()?;
        let Material {
            key_type,
            mut algorithms,
            key,
        } = match kty {
            "RSA" => rsa(&jwk)?,
            "EC" => ec(&jwk)?,
            "OKP" => okp(&jwk)?,
            "oct" => oct(&jwk, declared)?,
            other => {
                return Err(NotForUs(format!(
                    "\"kty\" {} is not supported",
                    quoted(other)
                )));
            }
        };
        if let Some(one) = declared {
            algorithms.retain(|&algorithm| algorithm == one);
            if algorithms.is_empty() {
                return Err(NotForUs(format!(
                    "\"alg\" \"{one:?}\" does not belong to the key type {key_type}"
                )));
            }
        }
        Ok(Self {
            id: jwk.text("kid")?.map(str::to_owned),
            key_type,
            declared,
            algorithms,
            material: key,
            found_good: FoundGood::default(),
        })
    }

    /// **The rule that says which keys may verify a token.** The key's own type and declarations decide
    /// which algorithms it supports, never the token (RFC 8725 section 3.1); key ids must be equal if
    /// both sides have one.
    pub(crate) fn fits(&self, header: &Header) -> bool {
        let same_id = match (&self.id, &header.key_id) {
            (Some(key), Some(token)) => key == token,
            (None, _) | (_, None) => true,
        };
        same_id && self.algorithms.contains(&header.algorithm)
    }

    /// Whether `signature` is this key's signature of `signed`.
    pub(crate) fn verifies(&self, signed: &[u8], signature: &[u8], algorithm: Algorithm) -> bool {
        let verify = || signature::verify(signature, signed, &self.material, algorithm);
        // An HMAC is computed as fast as a digest.
        if self.is_secret() {
            verify()
        } else {
            self.found_good.or_if(signed, signature, verify)
        }
    }

    /// Whether it is a shared secret.
    pub(crate) fn is_secret(&self) -> bool {
        self.key_type == "oct"
    }

    /// `kty`, `kid` and `alg`: what may be shown to anyone.
    pub(crate) fn public_members(&self) -> Value {
        let mut members = Map::new();
        let kty = self.key_type.split(' ').next().unwrap_or_default();
        members.insert("kty".into(), kty.into());
        if let Some(id) = &self.id {
            members.insert("kid".into(), id.as_str().into());
        }
        if let Some(algorithm) = self.declared {
            members.insert("alg".into(), format!("{algorithm:?}").into());
        }
        Value::Object(members)
    }
}

/// For messages: `RSA "my-kid"`. Never key material.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key_type)?;
        if let Some(algorithm) = self.declared {
            write!(f, " for {algorithm:?}")?;
        }
        match &self.id {
            Some(id) => write!(f, " {}", quoted(id)),
            None => f.write_str(" without \"kid\""),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a key cannot be used.
pub(crate) enum Unusable {
    /// A key for another use, valid as far as we can tell.
    NotForUs(String),
    /// A key that should not be used, or lacks what its type requires.
    Wrong { why: String, hint: &'static str },
}

use Unusable::NotForUs;

fn wrong(why: impl Into<String>) -> Unusable {
    Unusable::Wrong {
        why: why.into(),
        hint: "Copy the key as the issuer publishes it.",
    }
}

/// The members of a key.
struct Jwk<'a>(&'a Map<String, Value>);

impl<'a> Jwk<'a> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, Unusable> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(format!("\"{name}\" is not a string"))),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, Unusable> {
        let text = self.text(name)?;
        let text = text.ok_or_else(|| wrong(format!("\"{name}\" is missing")))?;
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| wrong(format!("\"{name}\" is not base64url without padding")))
    }

    /// Whether it is published for verifying signatures: `d`, `use` and `key_ops`.
    fn check_purpose(&self) -> Result<(), Unusable> {
        if self.0.contains_key("d") {
            return Err(Unusable::Wrong {
                why: "it is a private key (it has \"d\")".into(),
                hint: "Give only the public key. A private key that has been shared is compromised: rotate it.",
            });
        }
        if self.text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(NotForUs("\"use\" is not \"sig\"".into()));
        }
        match self.0.get("key_ops") {
            None => Ok(()),
            Some(Value::Array(operations)) if operations.iter().any(|op| op == "verify") => Ok(()),
            Some(Value::Array(_)) => Err(NotForUs("\"key_ops\" lacks \"verify\"".into())),
            Some(_) => Err(wrong("\"key_ops\" is not an array")),
        }
    }

    /// `alg`
    fn algorithm(&self) -> Result<Option<Algorithm>, Unusable> {
        let Some(name) = self.text("alg")? else {
            return Ok(None);
        };
        match name.parse() {
            Ok(algorithm) => Ok(Some(algorithm)),
            Err(_) => Err(NotForUs(format!(
                "\"alg\" {} is not supported",
                quoted(name)
            ))),
        }
    }

    /// `crv`
    fn curve(&self) -> Result<&'a str, Unusable> {
        Ok(self.text("crv")?.unwrap_or_default())
    }
}

/// What a key consists of, by its type.
struct Material {
    key_type: &'static str,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// RFC 7518 section 6.3.1
fn rsa(jwk: &Jwk) -> Result<Material, Unusable> {
    let (n, e) = (jwk.bytes("n")?, jwk.bytes("e")?);
    check_rsa(&n, &e)?;
    Ok(Material {
        key_type: "RSA",
        algorithms: RSA.to_vec(),
        key: DecodingKey::from_rsa_raw_components(&n, &e),
    })
}

/// RFC 7518 section 6.2.1
fn ec(jwk: &Jwk) -> Result<Material, Unusable> {
    let (key_type, algorithm, length, curve) = match jwk.curve()? {
        "P-256" => ("EC P-256", Algorithm::ES256, 32, &ECDH_P256),
        "P-384" => ("EC P-384", Algorithm::ES384, 48, &ECDH_P384),
        other => return Err(other_curve(other)),
    };
    let point = point(jwk.bytes("x")?, jwk.bytes("y")?, length, curve)?;
    Ok(Material {
        key_type,
        algorithms: vec![algorithm],
        key: DecodingKey::from_ec_der(&point),
    })
}

/// RFC 8037 section 2
fn okp(jwk: &Jwk) -> Result<Material, Unusable> {
    let curve = jwk.curve()?;
    if curve != "Ed25519" {
        return Err(other_curve(curve));
    }
    let x = jwk.bytes("x")?;
    if x.len() != 32 {
        return Err(wrong(format!("\"x\" has {} bytes, not 32", x.len())));
    }
    if has_small_order(&x) {
        return Err(wrong(
            "\"x\" is a point of small order: anyone can forge its signatures",
        ));
    }
    Ok(Material {
        key_type: "OKP Ed25519",
        algorithms: vec![Algorithm::EdDSA],
        key: DecodingKey::from_ed_der(&x),
    })
}

/// RFC 7518 section 6.4
fn oct(jwk: &Jwk, declared: Option<Algorithm>) -> Result<Material, Unusable> {
    let secret = jwk.bytes("k")?;
    Ok(Material {
        key_type: "oct",
        algorithms: hmac_algorithms(secret.len(), declared)?,
        key: DecodingKey::from_secret(&secret),
    })
}

fn other_curve(name: &str) -> Unusable {
    NotForUs(format!("\"crv\" {} is not supported", quoted(name)))
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), Unusable> {
    if n.first() == Some(&0) || e.first() == Some(&0) {
        // RFC 7518 section 6.3.1.1. ring would reject every signature.
        return Err(wrong(
            "\"n\" or \"e\" begins with a zero byte, which RFC 7518 forbids",
        ));
    }
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(Unusable::Wrong {
            why: format!("the RSA key has {bits} bits"),
            hint: "Use an RSA key of 2048 to 8192 bits.",
        });
    }
    // What ring accepts: odd, from 3 up to 33 bits. With anything else, it would reject every signature.
    let odd = e.last().is_some_and(|byte| byte % 2 == 1);
    let small = e.len() <= 4 || matches!(e, [0..=1, _, _, _, _]);
    if !odd || !small || e == [1] {
        return Err(wrong("\"e\" is not a usable RSA exponent"));
    }
    Ok(())
}

/// SEC 1 section 2.3.3, uncompressed.
fn point(
    x: Vec<u8>,
    y: Vec<u8>,
    length: usize,
    curve: &'static agreement::Algorithm,
) -> Result<Vec<u8>, Unusable> {
    if x.len() != length || y.len() != length {
        return Err(wrong(format!(
            "\"x\" and \"y\" must have {length} bytes each"
        )));
    }
    let point = [vec![0x04], x, y].concat();
    if !crate::signature::is_on_curve(curve, &point) {
        return Err(wrong("\"x\" and \"y\" are not a point on the curve"));
    }
    Ok(point)
}

/// Whether anyone can forge signatures for this Ed25519 key: it is a point of small order, a check that
/// RFC 8032 section 5.1.7 leaves to the verifier. These are all the encodings, apart from the sign in
/// the top bit.
fn has_small_order(x: &[u8]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
        *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
    ];
    // y = 0, 1, p - 1, p and p + 1, where p = 2^255 - 19, little endian.
    let others = [
        (0, 0, 0),
        (1, 0, 0),
        (0xec, 0xff, 0x7f),
        (0xed, 0xff, 0x7f),
        (0xee, 0xff, 0x7f),
    ]
    .map(|(first, middle, last)| {
        let mut y = [middle; 32];
        (y[0], y[31]) = (first, last);
        y
    });
    let mut unsigned = x.to_vec();
    if let Some(last) = unsigned.last_mut() {
        *last &= 0x7f;
    }
    others.iter().chain(&ORDER_8).any(|weak| *weak == *unsigned)
}

fn hmac_algorithms(length: usize, declared: Option<Algorithm>) -> Result<Vec<Algorithm>, Unusable> {
    let least = HMAC
        .iter()
        .find(|(algorithm, _)| Some(*algorithm) == declared)
        .map_or(32, |a| a.1);
    if length < least {
        return Err(Unusable::Wrong {
            why: format!("the secret has {length} bytes, but at least {least} are required"),
            hint: "A secret must be at least as long as the hash: 32 bytes for HS256, 48 for HS384, 64 for HS512.",
        });
    }
    let long_enough = HMAC.iter().filter(|(_, hash)| length >= *hash);
    Ok(long_enough.map(|(algorithm, _)| *algorithm).collect())
}
