//! Sets of JSON Web Keys (RFC 7517 section 5): the keys in a text.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use crate::header::Header;
use crate::json;
use crate::key::{Key, Unusable};
use crate::quoted::quoted;

/// The longest text of keys that is read, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

/// The usable keys of a JWK or a JWK Set. There is at least one.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// What is wrong with a text that should contain keys.
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
    /// Keys that this extension cannot use (another `kty` or `crv`, `use` other than `sig`, an `alg`
    /// that is not one of the twelve) are ignored, as RFC 7517 section 5 asks. A key of a supported kind
    /// must be valid.
    ///
    /// # Errors
    /// [`KeySetError`] for a text that is not JSON, a malformed or weak key, a private key, two keys
    /// with one `kid`, a set that mixes secrets with public keys, and a set with no usable key.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        const FORM: &str = "Give a JWK or a JWK Set: {\"keys\": [...]}.";
        if text.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError {
                detail: format!("the text is longer than {MAX_KEY_SET_BYTES} bytes"),
                hint: "Remove the keys that sign no tokens.",
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
        let mut ignored = Vec::new();
        for (index, jwk) in members.into_iter().enumerate() {
            match Key::read(jwk) {
                Ok(key) => keys.push(key),
                Err(Unusable::NotForUs(why)) => ignored.push(format!("key {}: {why}", index + 1)),
                Err(Unusable::Wrong { why, hint }) => {
                    return Err(KeySetError {
                        detail: format!("key {}: {why}", index + 1),
                        hint,
                    });
                }
            }
        }
        let set = Self(keys);
        set.check(&ignored)?;
        Ok(set)
    }

    /// What must hold between the keys of one set.
    fn check(&self, ignored: &[String]) -> Result<(), KeySetError> {
        let wrong = |detail, hint| Err(KeySetError { detail, hint });
        if self.0.is_empty() {
            let why = match ignored {
                [] => "the set is empty".into(),
                reasons => reasons.join("; "),
            };
            return wrong(
                format!("no usable key: {why}"),
                "Usable keys are signature keys: RSA, EC (P-256 or P-384), OKP (Ed25519) or oct.",
            );
        }
        for (index, key) in self.0.iter().enumerate() {
            if key.id.is_some() && self.0.iter().take(index).any(|other| other.id == key.id) {
                return wrong(
                    format!(
                        "two keys have the \"kid\" {}",
                        quoted(key.id.as_deref().unwrap_or(""))
                    ),
                    "Give each key a \"kid\" of its own.",
                );
            }
        }
        // Everyone knows a public key: if it were taken for a secret, anyone could sign.
        if self.0.iter().any(Key::is_secret) && !self.0.iter().all(Key::is_secret) {
            return wrong(
                "the set mixes secret (oct) and public keys".into(),
                "Keep shared secrets and public keys in separate sets.",
            );
        }
        Ok(())
    }

    /// The keys that may verify a token with this header, in the order of the set.
    pub(crate) fn fitting<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.fits(header))
    }

    /// The algorithms that the keys of the set support.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.0.iter().flat_map(|key| key.algorithms.iter().copied())
    }

    /// The keys, for messages: at most eight, without key material.
    pub(crate) fn summary(&self) -> String {
        let mut names: Vec<_> = self.0.iter().take(8).map(ToString::to_string).collect();
        if self.0.len() > names.len() {
            names.push(format!("{} more", self.0.len() - names.len()));
        }
        names.join(", ")
    }

    /// A JSON array of the `kty`, `kid` and `alg` of each key, in ASCII: what may be shown of a set.
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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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
    fn keys_for_something_else_are_ignored() {
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
            (rsa(1024, ""), "key 1: the RSA key has 1024 bits"),
            (rsa(2047, ""), "key 1: the RSA key has 2047 bits"),
            (rsa(8193, ""), "key 1: the RSA key has 8193 bits"),
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
                "key 1: the secret has 31 bytes, but at least 32",
            ),
            (
                oct(47, r#","alg":"HS384""#),
                "key 1: the secret has 47 bytes, but at least 48",
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
                "key 1: \"x\" and \"y\" are not a point on the curve",
            ),
            (
                ec([0xff; 32]),
                "key 1: \"x\" and \"y\" are not a point on the curve",
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
