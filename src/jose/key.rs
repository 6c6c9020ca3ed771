//! One JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037 section 2): what it consists of, and which
//! tokens it may verify.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey};
use ring::agreement::{ECDH_P256, ECDH_P384};
use serde_json::{Map, Value};

use crate::found_good::{FoundGood, Shared};
use crate::header::{Claimed, Header};
use crate::jwk::{Jwk, Unusable, unusable};
use crate::quoted::quoted;
use crate::rejection::Misfit;
use crate::signature;

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
pub(crate) const HMAC: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];

/// Whether an algorithm's keys are secrets that both sides have (RFC 7518 section 3.2).
pub(crate) fn is_hmac(algorithm: Algorithm) -> bool {
    HMAC.iter().any(|(one, _)| *one == algorithm)
}

/// One key that can verify signatures.
pub struct Key {
    /// `kid`.
    pub id: Option<String>,
    /// `kty`, and `crv` if the type has curves.
    key_type: &'static str,
    /// `alg`, if the key names its one algorithm.
    declared: Option<Algorithm>,
    /// `issuer`, if the key is for the tokens of one issuer only.
    issuer: Option<String>,
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
    pub(crate) fn read(jwk: &Jwk) -> Result<Self, Unusable> {
        let kty = jwk.required("kty")?;
        jwk.check_purpose()?;
        let declared = jwk.algorithm()?;
        let Material {
            key_type,
            mut algorithms,
            key,
        } = match kty {
            "RSA" => rsa(jwk)?,
            "EC" => ec(jwk)?,
            "OKP" => okp(jwk)?,
            "oct" => oct(jwk, declared)?,
            other => {
                return Err(unusable(format!(
                    "\"kty\" {} is not supported",
                    quoted(other)
                )));
            }
        };
        if let Some(one) = declared {
            algorithms.retain(|&algorithm| algorithm == one);
            if algorithms.is_empty() {
                return Err(unusable(format!(
                    "\"alg\" \"{one:?}\" does not belong to the key type {key_type}"
                )));
            }
        }
        Ok(Self {
            id: jwk.text("kid")?.map(str::to_owned),
            key_type,
            declared,
            issuer: jwk.text("issuer")?.map(str::to_owned),
            algorithms,
            found_good: FoundGood::of(&key),
            material: key,
        })
    }

    /// **The rule that says which keys may verify a token.** The key's own type and declarations
    /// decide its algorithms, never the token (RFC 8725 section 3.1); key ids must be equal if both
    /// sides have one; a key that names its issuer is for that issuer's tokens only.
    pub(crate) fn fits(&self, header: &Header, claimed: Claimed) -> bool {
        let same_issuer = self
            .issuer
            .as_ref()
            .is_none_or(|issuer| claimed.is_by(issuer));
        same_issuer && self.fits_any_issuers(header)
    }

    fn fits_any_issuers(&self, header: &Header) -> bool {
        let same_id = match (&self.id, &header.key_id) {
            (Some(key), Some(token)) => key == token,
            (None, _) | (_, None) => true,
        };
        same_id && self.algorithms.contains(&header.algorithm)
    }

    /// For messages: what keeps it from fitting a token that it does not fit.
    pub(crate) fn misfit(&self, header: &Header) -> Option<Misfit> {
        if self.is_too_short_for(header.algorithm) {
            Some(Misfit::ShortSecret)
        } else if self.fits_any_issuers(header) {
            Some(Misfit::OtherIssuer)
        } else {
            None
        }
    }

    /// Whether it is a secret that is too short for this algorithm.
    fn is_too_short_for(&self, algorithm: Algorithm) -> bool {
        is_hmac(algorithm)
            && self.is_secret()
            && self.declared.is_none()
            && !self.algorithms.contains(&algorithm)
    }

    /// Whether `signature` is this key's signature of `signed`.
    pub(crate) fn verifies(
        &self,
        signed: &[u8],
        signature: &[u8],
        algorithm: Algorithm,
        shared: Option<Shared>,
    ) -> bool {
        let verify = || signature::verify(signature, signed, &self.material, algorithm);
        // An HMAC is computed as fast as a digest.
        if self.is_secret() {
            verify()
        } else {
            self.found_good.or_if(shared, signed, signature, verify)
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

/// What a key consists of, by its type.
struct Material {
    key_type: &'static str,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// RFC 7518 section 6.3.1
fn rsa(jwk: &Jwk) -> Result<Material, Unusable> {
    let (n, e) = (jwk.number("n")?, jwk.number("e")?);
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(Unusable {
            why: format!("the RSA key has {bits} bits"),
            hint: Some("Use an RSA key of 2048 to 8192 bits."),
        });
    }
    // What ring accepts; with anything else it would reject every signature.
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if !is_odd(&n) {
        return Err(unusable("\"n\" is not an RSA modulus: it is even"));
    }
    // From 3 up to 33 bits.
    let small = e.len() <= 4 || matches!(e[..], [0..=1, _, _, _, _]);
    if !is_odd(&e) || !small || e == [1] {
        return Err(unusable("\"e\" is not a usable RSA exponent"));
    }
    Ok(Material {
        key_type: "RSA",
        algorithms: RSA.to_vec(),
        key: DecodingKey::from_rsa_raw_components(&n, &e),
    })
}

/// RFC 7518 section 6.2.1
fn ec(jwk: &Jwk) -> Result<Material, Unusable> {
    let (key_type, algorithm, length, curve) = match jwk.required("crv")? {
        "P-256" => ("EC P-256", Algorithm::ES256, 32_usize, &ECDH_P256),
        "P-384" => ("EC P-384", Algorithm::ES384, 48, &ECDH_P384),
        other => return Err(other_curve(other)),
    };
    // SEC 1 section 2.3.3, uncompressed. Coordinates have the curve's length, whatever zeros they came with.
    let mut point = vec![0x04];
    for name in ["x", "y"] {
        let coordinate = jwk.number(name)?;
        let Some(zeros) = length.checked_sub(coordinate.len()) else {
            return Err(unusable(format!("\"{name}\" has more than {length} bytes")));
        };
        point.resize(point.len() + zeros, 0);
        point.extend(coordinate);
    }
    if !signature::is_on_curve(curve, &point) {
        return Err(unusable("\"x\" and \"y\" are not a point on the curve"));
    }
    Ok(Material {
        key_type,
        algorithms: vec![algorithm],
        key: DecodingKey::from_ec_der(&point),
    })
}

/// RFC 8037 section 2
fn okp(jwk: &Jwk) -> Result<Material, Unusable> {
    let curve = jwk.required("crv")?;
    if curve != "Ed25519" {
        return Err(other_curve(curve));
    }
    let x = jwk.bytes("x")?;
    if x.len() != 32 {
        return Err(unusable(format!("\"x\" has {} bytes, not 32", x.len())));
    }
    if has_small_order(&x) {
        return Err(unusable(
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
    let secret = jwk.bytes("k").map_err(|unusable| Unusable {
        hint: Some(SECRET_AS_TYPED),
        ..unusable
    })?;
    let declared = HMAC.iter().find(|(one, _)| Some(*one) == declared);
    let least = declared.map_or(32, |(_, least)| *least);
    if secret.len() < least {
        return Err(Unusable {
            why: format!(
                "the secret has {} bytes, but at least {least} are required",
                secret.len()
            ),
            hint: Some(SECRET_TOO_SHORT),
        });
    }
    let long_enough = HMAC.iter().filter(|(_, least)| secret.len() >= *least);
    Ok(Material {
        key_type: "oct",
        algorithms: long_enough.map(|(algorithm, _)| *algorithm).collect(),
        key: DecodingKey::from_secret(&secret),
    })
}

/// What to do about a secret that was not encoded.
pub(crate) const SECRET_AS_TYPED: &str = "\"k\" is the base64url of the secret's bytes. In SQL: \
    translate(encode(convert_to('the secret', 'UTF8'), 'base64'), E'+/=\\n', '-_').";

const SECRET_TOO_SHORT: &str = "A secret must be at least as long as the hash: 32 bytes for HS256, 48 for HS384, \
    64 for HS512. \"k\" is the base64url of its bytes, not the secret as it is typed.";

fn other_curve(name: &str) -> Unusable {
    unusable(format!("\"crv\" {} is not supported", quoted(name)))
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
