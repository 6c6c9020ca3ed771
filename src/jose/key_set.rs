//! JSON Web Keys and sets of them (RFC 7517, RFC 7518 section 6, RFC 8037 section 2): which keys a
//! text holds, and which of them may verify a token.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::agreement::{self, ECDH_P256, ECDH_P384};
use serde_json::{Map, Value};

use crate::header::Header;
use crate::json;
use crate::rejection::quoted;
use crate::signature::{self, FoundGood};

/// RSA moduli in bits: below is breakable (RFC 7518 section 3.3), above takes long to verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The longest text that is read for keys, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// With the length of the hash in bytes, which is the least that a secret may have (RFC 7518
/// section 3.2).
const HMAC: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];

/// One key that can verify signatures.
pub struct Key {
    /// `kid`.
    pub id: Option<String>,
    /// `kty`, and `crv` where the type has curves.
    key_type: &'static str,
    /// `alg`, where the key names the one algorithm it is for.
    declared: Option<Algorithm>,
    /// The algorithms that `kty`, `crv`, `alg`, `use`, `key_ops` and the length allow.
    algorithms: Vec<Algorithm>,
    material: DecodingKey,
    found_good: FoundGood,
}

impl Key {
    /// **The rule that says which keys may verify a token.** The key's own type and declarations
    /// decide which algorithms it does, never the token (RFC 8725 section 3.1); key ids must be
    /// equal where both sides have one.
    pub(crate) fn fits(&self, header: &Header) -> bool {
        let same_id = match (&self.id, &header.key_id) {
            (Some(key), Some(token)) => key == token,
            (None, _) | (_, None) => true,
        };
        same_id && self.algorithms.contains(&header.algorithm)
    }

    /// Whether `signature`, in base64url, is this key's for `signed`.
    pub(crate) fn verifies(&self, signed: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        let verify = || signature::verify(signature, signed, &self.material, algorithm);
        // An HMAC is computed as fast as a digest.
        if self.is_secret() {
            verify()
        } else {
            self.found_good.or_if(signed, signature, verify)
        }
    }

    fn is_secret(&self) -> bool {
        self.key_type == "oct"
    }

    /// `kty`, `kid` and `alg`: what may be shown to anybody.
    fn public_members(&self) -> Value {
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

/// For people: `RSA "my-kid"`. Never key material.
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

/// The usable keys of a JWK or a JWK Set. There is at least one.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// What is wrong with a text that should hold keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySetError {
    /// The facts; never key material.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

impl KeySet {
    /// Reads a JWK or a JWK Set.
    ///
    /// Keys that this extension has no use for (another `kty` or `crv`, `use` other than `sig`, an
    /// `alg` that is not one of the twelve) are passed over, as RFC 7517 section 5 asks. A key of a
    /// kind that is supported must be sound.
    ///
    /// # Errors
    /// [`KeySetError`] for a text that is not JSON, a malformed or weak key, a private key, two keys
    /// of one `kid`, a set that mixes secrets with public keys, and a set with no usable key.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        const FORM: &str = "Give a JWK, or a JWK Set: {\"keys\": [...]}.";
        if text.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError {
                detail: format!("the text is longer than {MAX_KEY_SET_BYTES} bytes"),
                hint: "Leave out the keys that no token is signed with.",
            });
        }
        let value = json::parse(text, json::MAX_DEPTH).map_err(|fault| KeySetError {
            detail: format!("not usable JSON: {fault}"),
            hint: FORM,
        })?;
        let malformed = |detail: &str| KeySetError {
            detail: detail.into(),
            hint: FORM,
        };
        let Value::Object(object) = value else {
            return Err(malformed("not a JSON object"));
        };
        let members = match object.get("keys") {
            None => std::slice::from_ref(&object).iter().collect(),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| {
                    item.as_object()
                        .ok_or_else(|| malformed("a key is not a JSON object"))
                })
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err(malformed("\"keys\" is not an array")),
        };
        let mut keys = Vec::new();
        let mut passed_over = Vec::new();
        for (index, jwk) in members.into_iter().enumerate() {
            match read_key(jwk) {
                Ok(key) => keys.push(key),
                Err(Unusable::NotForUs(why)) => {
                    passed_over.push(format!("key {}: {why}", index + 1))
                }
                Err(Unusable::Wrong { why, hint }) => {
                    return Err(KeySetError {
                        detail: format!("key {}: {why}", index + 1),
                        hint,
                    });
                }
            }
        }
        let set = Self(keys);
        set.check(&passed_over)?;
        Ok(set)
    }

    /// What must hold between the keys of one set.
    fn check(&self, passed_over: &[String]) -> Result<(), KeySetError> {
        let wrong = |detail, hint| Err(KeySetError { detail, hint });
        if self.0.is_empty() {
            let why = match passed_over {
                [] => "the set is empty".into(),
                reasons => reasons.join("; "),
            };
            return wrong(
                format!("no usable key: {why}"),
                "Usable are signature keys: RSA, EC on P-256 or P-384, OKP on Ed25519, and oct.",
            );
        }
        for (index, key) in self.0.iter().enumerate() {
            if key.id.is_some() && self.0[..index].iter().any(|other| other.id == key.id) {
                return wrong(
                    format!(
                        "two keys have the \"kid\" {}",
                        quoted(key.id.as_deref().unwrap_or(""))
                    ),
                    "A key id names one key.",
                );
            }
        }
        // A public key is known to all; were it taken for a secret, anybody could sign.
        if self.0.iter().any(Key::is_secret) && !self.0.iter().all(Key::is_secret) {
            return wrong(
                "the set mixes secret (oct) and public keys".into(),
                "Keep shared secrets and public keys in sets of their own.",
            );
        }
        Ok(())
    }

    /// The keys that may verify a token of this header, in the order of the set.
    pub(crate) fn fitting<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.fits(header))
    }

    /// The algorithms that some key of the set does.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.0.iter().flat_map(|key| key.algorithms.iter().copied())
    }

    /// The keys for a person's eyes: at most eight, without material.
    pub(crate) fn summary(&self) -> String {
        let mut names: Vec<_> = self.0.iter().take(8).map(ToString::to_string).collect();
        if self.0.len() > names.len() {
            names.push(format!("{} more", self.0.len() - names.len()));
        }
        names.join(", ")
    }

    /// A JSON array of `kty`, `kid` and `alg` of each key: what may be shown of a set, in ASCII.
    pub fn public_members(&self) -> String {
        let json = Value::Array(self.0.iter().map(Key::public_members).collect()).to_string();
        let ascii = |c: char, units: &mut [u16; 2]| {
            c.encode_utf16(units)
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<String>()
        };
        let escape = |c: char| {
            if c.is_ascii() {
                c.into()
            } else {
                ascii(c, &mut [0; 2])
            }
        };
        json.chars().map(escape).collect::<String>()
    }
}

enum Unusable {
    /// A sound key, as far as we can tell, for something else.
    NotForUs(String),
    /// A key that nobody should use, or that does not hold what its type asks for.
    Wrong { why: String, hint: &'static str },
}

use Unusable::NotForUs;

fn wrong(why: impl Into<String>) -> Unusable {
    Unusable::Wrong {
        why: why.into(),
        hint: "Copy the key as the issuer publishes it.",
    }
}

fn read_key(jwk: &Map<String, Value>) -> Result<Key, Unusable> {
    let text = |name: &str| match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong(format!("\"{name}\" is not a string"))),
    };
    let kty = text("kty")?.ok_or_else(|| wrong("\"kty\" is missing"))?;
    if jwk.contains_key("d") {
        return Err(Unusable::Wrong {
            why: "it is a private key (it has \"d\")".into(),
            hint: "Give the public key alone, and replace this one: a private key that has been shown is spent.",
        });
    }
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(NotForUs("\"use\" is not \"sig\"".into()));
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|op| op == "verify") => {}
        Some(Value::Array(_)) => return Err(NotForUs("\"key_ops\" lacks \"verify\"".into())),
        Some(_) => return Err(wrong("\"key_ops\" is not an array")),
    }
    let declared = match text("alg")? {
        None => None,
        Some(name) => match name.parse::<Algorithm>() {
            Ok(algorithm) => Some(algorithm),
            Err(_) => {
                return Err(NotForUs(format!(
                    "\"alg\" {} is not supported",
                    quoted(name)
                )));
            }
        },
    };
    let bytes = |name: &str| {
        let text = text(name)?.ok_or_else(|| wrong(format!("\"{name}\" is missing")))?;
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| wrong(format!("\"{name}\" is not base64url without padding")))
    };
    let curve = text("crv")?.unwrap_or_default();
    let (key_type, mut algorithms, material) = match (kty, curve) {
        ("RSA", _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            check_rsa(&n, &e)?;
            (
                "RSA",
                RSA.to_vec(),
                DecodingKey::from_rsa_raw_components(&n, &e),
            )
        }
        ("EC", "P-256") => {
            let point = point(bytes("x")?, bytes("y")?, 32, &ECDH_P256)?;
            (
                "EC P-256",
                vec![Algorithm::ES256],
                DecodingKey::from_ec_der(&point),
            )
        }
        ("EC", "P-384") => {
            let point = point(bytes("x")?, bytes("y")?, 48, &ECDH_P384)?;
            (
                "EC P-384",
                vec![Algorithm::ES384],
                DecodingKey::from_ec_der(&point),
            )
        }
        ("OKP", "Ed25519") => {
            let x = bytes("x")?;
            if x.len() != 32 {
                return Err(wrong(format!("\"x\" has {} bytes, not 32", x.len())));
            }
            if has_small_order(&x) {
                return Err(wrong(
                    "\"x\" is a point of small order: anybody can sign for it",
                ));
            }
            (
                "OKP Ed25519",
                vec![Algorithm::EdDSA],
                DecodingKey::from_ed_der(&x),
            )
        }
        ("oct", _) => {
            let secret = bytes("k")?;
            let algorithms = hmac_algorithms(secret.len(), declared)?;
            ("oct", algorithms, DecodingKey::from_secret(&secret))
        }
        ("EC" | "OKP", other) => {
            return Err(NotForUs(format!(
                "\"crv\" {} is not supported",
                quoted(other)
            )));
        }
        (other, _) => {
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
                "\"alg\" \"{one:?}\" is not one of a {key_type} key"
            )));
        }
    }
    let id = text("kid")?.map(str::to_owned);
    Ok(Key {
        id,
        key_type,
        declared,
        algorithms,
        material,
        found_good: FoundGood::default(),
    })
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), Unusable> {
    if n.first() == Some(&0) || e.first() == Some(&0) {
        // RFC 7518 section 6.3.1.1. ring would take each signature for a bad one.
        return Err(wrong(
            "\"n\" or \"e\" begins with a zero byte, which RFC 7518 forbids",
        ));
    }
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(Unusable::Wrong {
            why: format!("an RSA key of {bits} bits"),
            hint: "RSA keys have 2048 to 8192 bits.",
        });
    }
    // What ring takes: odd, from 3 up to 33 bits. Anything else would make every signature bad.
    let odd = e.last().is_some_and(|byte| byte % 2 == 1);
    let small = e.len() <= 4 || (e.len() == 5 && e[0] <= 1);
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
        return Err(wrong("\"x\" and \"y\" are not a point of the curve"));
    }
    Ok(point)
}

/// Whether anybody can sign for this Ed25519 key: it is a point of small order, which RFC 8032 section
/// 5.1.7 leaves to the verifier. These are all the encodings, but for the sign in the top bit.
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
            why: format!("a secret of {length} bytes, where at least {least} are needed"),
            hint: "A secret must be at least as long as the hash: 32 bytes for HS256, 48 for HS384, 64 for HS512.",
        });
    }
    let long_enough = HMAC.iter().filter(|(_, hash)| length >= *hash);
    Ok(long_enough.map(|(algorithm, _)| *algorithm).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> KeySetError {
        KeySet::parse(text.as_bytes()).expect_err(text)
    }

    fn fits(set: &str, header: &str) -> usize {
        let members = Header::members(header.as_bytes()).expect(header);
        let header = Header::from_members(&members).expect("a supported algorithm");
        KeySet::parse(set.as_bytes())
            .expect(set)
            .fitting(&header)
            .count()
    }

    fn oct(length: usize, more: &str) -> String {
        let secret = URL_SAFE_NO_PAD.encode(vec![7; length]);
        format!(r#"{{"kty":"oct","k":"{secret}"{more}}}"#)
    }

    fn rsa(bits: usize, more: &str) -> String {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] >>= n.len() * 8 - bits;
        format!(
            r#"{{"kty":"RSA","n":"{}","e":"AQAB"{more}}}"#,
            URL_SAFE_NO_PAD.encode(n)
        )
    }

    fn okp(more: &str) -> String {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"{more}}}"#,
            URL_SAFE_NO_PAD.encode([9; 32])
        )
    }

    fn set(keys: &[String]) -> String {
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    #[test]
    fn a_key_verifies_the_algorithms_of_its_own_type_only() {
        let header = |alg: &str| format!(r#"{{"alg":"{alg}"}}"#);
        for (key, yes, no) in [
            (
                rsa(2048, ""),
                "RS256 RS384 RS512 PS256 PS384 PS512",
                "HS256 ES256 EdDSA",
            ),
            (rsa(2048, r#","alg":"PS256""#), "PS256", "RS256 PS384"),
            (okp(""), "EdDSA", "ES256 HS256 RS256"),
            (oct(32, ""), "HS256", "HS384 HS512 RS256"),
            (oct(48, ""), "HS256 HS384", "HS512"),
            (oct(64, r#","alg":"HS512""#), "HS512", "HS256"),
        ] {
            yes.split(' ')
                .for_each(|alg| assert_eq!(fits(&key, &header(alg)), 1, "{key} {alg}"));
            no.split(' ')
                .for_each(|alg| assert_eq!(fits(&key, &header(alg)), 0, "{key} {alg}"));
        }
    }

    #[test]
    fn key_ids_must_be_equal_where_both_sides_have_one() {
        let keys = set(&[okp(r#","kid":"a""#), okp(r#","kid":"b""#), okp("")]);
        for (kid, count) in [(r#","kid":"a""#, 2), (r#","kid":"A""#, 1), ("", 3)] {
            assert_eq!(
                fits(&keys, &format!(r#"{{"alg":"EdDSA"{kid}}}"#)),
                count,
                "{kid}"
            );
        }
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        let others = [
            okp(r#","use":"enc""#),
            okp(r#","key_ops":["sign"]"#),
            rsa(2048, r#","alg":"RSA-OAEP""#),
            r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.into(),
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#.into(),
            r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.into(),
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#.into(),
        ];
        for other in &others {
            assert!(
                error(other).detail.starts_with("no usable key: key 1: "),
                "{other}"
            );
        }
        let mut all = others.to_vec();
        all.push(okp(r#","use":"sig","key_ops":["verify"],"alg":"EdDSA""#));
        assert_eq!(fits(&set(&all), r#"{"alg":"EdDSA"}"#), 1);
    }

    #[test]
    fn what_nobody_should_trust_is_an_error_that_says_why() {
        let okp_of = |x: [u8; 32]| {
            let x = URL_SAFE_NO_PAD.encode(x);
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)
        };
        let ec = |x: [u8; 32]| {
            let x = URL_SAFE_NO_PAD.encode(x);
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#)
        };
        let mut identity = [0; 32];
        (identity[0], identity[31]) = (1, 0x80);
        for (text, detail) in [
            ("".into(), "not usable JSON"),
            ("[]".into(), "not a JSON object"),
            (r#"{"keys":{}}"#.into(), "\"keys\" is not an array"),
            (r#"{"keys":[1]}"#.into(), "a key is not a JSON object"),
            (r#"{"keys":[]}"#.into(), "no usable key: the set is empty"),
            (r#"{"k":"AA"}"#.into(), "key 1: \"kty\" is missing"),
            (
                r#"{"kty":"oct","kty":"RSA"}"#.into(),
                "not usable JSON: member \"kty\" appears twice",
            ),
            (okp(r#","d":"AA""#), "key 1: it is a private key"),
            (
                set(&[okp(""), rsa(2048, r#","use":"enc","d":"AA""#)]),
                "key 2: it is a private key",
            ),
            (rsa(1024, ""), "key 1: an RSA key of 1024 bits"),
            (rsa(2047, ""), "key 1: an RSA key of 2047 bits"),
            (rsa(8193, ""), "key 1: an RSA key of 8193 bits"),
            (
                rsa(2048, "").replace("AQAB", "AQAC"),
                "key 1: \"e\" is not a usable RSA exponent",
            ),
            (
                rsa(2048, "").replace("AQAB", "AQ"),
                "key 1: \"e\" is not a usable RSA exponent",
            ),
            (
                rsa(2048, "").replace("AQAB", ""),
                "key 1: \"e\" is not a usable RSA exponent",
            ),
            (
                rsa(2048, "").replace("\"n\":\"", "\"n\":\"AA"),
                "key 1: \"n\"",
            ),
            (
                oct(31, ""),
                "key 1: a secret of 31 bytes, where at least 32",
            ),
            (
                oct(47, r#","alg":"HS384""#),
                "key 1: a secret of 47 bytes, where at least 48",
            ),
            (
                r#"{"kty":"RSA","e":"AQAB"}"#.into(),
                "key 1: \"n\" is missing",
            ),
            (
                r#"{"kty":"RSA","n":"a=","e":"AQAB"}"#.into(),
                "key 1: \"n\" is not base64url",
            ),
            (
                r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.into(),
                "key 1: \"x\" and \"y\" must",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.into(),
                "key 1: \"x\" has 1 bytes, not 32",
            ),
            (okp_of([0; 32]), "key 1: \"x\" is a point of small order"),
            (okp_of(identity), "key 1: \"x\" is a point of small order"),
            (
                ec([0; 32]),
                "key 1: \"x\" and \"y\" are not a point of the curve",
            ),
            (
                ec([0xff; 32]),
                "key 1: \"x\" and \"y\" are not a point of the curve",
            ),
            (okp(r#","kid":7"#), "key 1: \"kid\" is not a string"),
            (
                set(&[okp(r#","kid":"a""#), rsa(2048, r#","kid":"a""#)]),
                "two keys have the \"kid\" \"a\"",
            ),
            (
                set(&[okp(""), oct(32, "")]),
                "the set mixes secret (oct) and public keys",
            ),
        ] {
            let found = error(&text);
            assert!(found.detail.starts_with(detail), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_shown_of_a_set_holds_no_material() {
        let keys =
            KeySet::parse(oct(32, r#","kid":"\u00fc","alg":"HS256""#).as_bytes()).expect("sound");
        assert_eq!(
            keys.public_members(),
            r#"[{"alg":"HS256","kid":"\u00fc","kty":"oct"}]"#
        );
        assert_eq!(format!("{keys:?}"), r#"KeySet([oct for HS256 "\u{fc}"])"#);
    }
}
