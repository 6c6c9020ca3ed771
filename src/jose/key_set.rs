//! Sets of JSON Web Keys (RFC 7517 section 5): the keys in a text.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::header::{Claimed, Header};
use crate::json;
use crate::jwk::{Jwk, Unusable};
use crate::key::Key;
use crate::quoted::quoted;
use crate::rejection::Misfit;

/// The longest text of keys that is read, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

/// The usable keys of a JWK or a JWK Set. There is at least one.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    ignored: Vec<String>,
}

/// What an issuer publishes at a URL.
#[derive(Debug)]
pub struct Published {
    /// The keys that count.
    pub keys: KeySet,
    /// The same, as the issuer wrote them: a JWK Set.
    pub jwks: Value,
}

/// Who gives the keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Somebody who configures them, and can correct them.
    Administrator,
    /// Everybody can read them: they hold no secret.
    Url,
}

/// What is wrong with a text that should contain keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySetError {
    /// The facts; never key material.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

fn wrong<T>(detail: impl Into<String>, hint: &'static str) -> Result<T, KeySetError> {
    Err(KeySetError {
        detail: detail.into(),
        hint,
    })
}

impl KeySet {
    /// Reads a JWK or a JWK Set.
    ///
    /// A key that cannot be used does not keep the others from counting, as RFC 7517 section 5 asks:
    /// [`KeySet::ignored`] names it.
    ///
    /// # Errors
    /// [`KeySetError`] for a text that is not a JWK or a JWK Set, a private key, and a set with no usable key.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        Self::read(text, From::Administrator).map(|(set, _)| set)
    }

    /// Reads what a URL has answered. A secret or a private key that anybody can read does not count: it is
    /// ignored like others that cannot be used.
    ///
    /// # Errors
    /// [`KeySetError`] for a text that is not a JWK or a JWK Set, and a set with no usable key.
    pub fn published(text: &[u8]) -> Result<Published, KeySetError> {
        let (keys, items) = Self::read(text, From::Url)?;
        let jwks = Map::from_iter([("keys".to_owned(), Value::Array(items))]);
        Ok(Published {
            keys,
            jwks: Value::Object(jwks),
        })
    }

    /// The usable keys, and what they were read from.
    fn read(text: &[u8], from: From) -> Result<(Self, Vec<Value>), KeySetError> {
        if text.len() > MAX_KEY_SET_BYTES {
            return wrong(
                format!("the text is longer than {MAX_KEY_SET_BYTES} bytes"),
                "Remove the keys that sign no tokens.",
            );
        }
        if text.trim_ascii_start().starts_with(PEM) {
            return wrong("the text is PEM", FROM_PEM);
        }
        let value = match json::parse(text, json::MAX_DEPTH) {
            Ok(value) => value,
            Err(fault) => return wrong(format!("not usable JSON: {fault}"), FORM),
        };
        let mut set = Self {
            keys: Vec::new(),
            ignored: Vec::new(),
        };
        let (mut used, mut hint) = (Vec::new(), None);
        for (index, item) in items(&value)?.iter().enumerate() {
            let jwk = item.as_object();
            let id = jwk.and_then(|jwk| jwk.get("kid")).and_then(Value::as_str);
            let number = index + 1;
            let name = id.map_or(format!("key {number}"), |id| {
                format!("key {number} ({})", quoted(id))
            });
            match jwk.map(read) {
                None => set.ignored.push(format!("{name}: not a JSON object")),
                Some(Ok(key)) if from == From::Url && key.is_secret() => {
                    let why = "a secret that is published is none";
                    set.ignored.push(format!("{name}: {why}"));
                }
                Some(Ok(key)) => {
                    set.keys.push(key);
                    used.push(item.clone());
                }
                Some(Err(NotRead::Ignored(unusable))) => {
                    set.ignored.push(format!("{name}: {}", unusable.why));
                    hint = hint.or(unusable.hint);
                }
                Some(Err(NotRead::Private(member))) if from == From::Url => {
                    let why = format!("it is a private key (it has \"{member}\")");
                    set.ignored.push(format!("{name}: {why}"));
                }
                Some(Err(NotRead::Private(member))) => {
                    return wrong(
                        format!("{name}: it is a private key (it has \"{member}\")"),
                        "Give only the public key. A private key that has been shared is compromised: rotate it.",
                    );
                }
            }
        }
        if set.keys.is_empty() {
            return match set.ignored() {
                None => wrong(
                    "no usable key: the set is empty",
                    "An issuer of HS256 tokens publishes no key: give the shared secret as a key with \"kty\" \"oct\".",
                ),
                Some(reasons) => wrong(format!("no usable key: {reasons}"), hint.unwrap_or(USABLE)),
            };
        }
        Ok((set, used))
    }

    /// The number of usable keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The keys that cannot be used, each with the reason.
    #[must_use]
    pub fn ignored_keys(&self) -> &[String] {
        &self.ignored
    }

    /// Whether one of the keys has this `kid`.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The keys that cannot be used and why, for messages: at most eight. `None` if all can be used.
    #[must_use]
    pub fn ignored(&self) -> Option<String> {
        let more = self.ignored.len().saturating_sub(8);
        let mut reasons = self.ignored.get(..8).unwrap_or(&self.ignored).join("; ");
        if more > 0 {
            reasons += &format!("; {more} more");
        }
        (!self.ignored.is_empty()).then_some(reasons)
    }

    /// The keys that may verify a token with this header and these claims, in the order of the set.
    pub(crate) fn fitting<'a>(
        &'a self,
        header: &'a Header,
        claimed: Claimed<'a>,
    ) -> impl Iterator<Item = &'a Key> {
        self.keys
            .iter()
            .filter(move |key| key.fits(header, claimed))
    }

    /// For messages: what keeps its keys from fitting a token that none of them fits.
    pub(crate) fn misfit(&self, header: &Header) -> Option<Misfit> {
        self.keys.iter().find_map(|key| key.misfit(header))
    }

    /// The algorithms that the keys of the set support.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.keys
            .iter()
            .flat_map(|key| key.algorithms.iter().copied())
    }

    /// The keys, for messages: at most eight, without key material.
    pub(crate) fn summary(&self) -> String {
        let mut names: Vec<_> = self.keys.iter().take(8).map(ToString::to_string).collect();
        if self.keys.len() > names.len() {
            names.push(format!("{} more", self.keys.len() - names.len()));
        }
        names.join(", ")
    }

    /// A JSON array of the `kty`, `kid` and `alg` of each key, in printable ASCII: what may be shown of a set.
    pub fn public_members(&self) -> String {
        let json = Value::Array(self.keys.iter().map(Key::public_members).collect()).to_string();
        let ascii = |c: char, units: &mut [u16; 2]| {
            c.encode_utf16(units)
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<String>()
        };
        let escape = |c: char| {
            if c.is_ascii() && !c.is_control() {
                c.into()
            } else {
                ascii(c, &mut [0; 2])
            }
        };
        json.chars().map(escape).collect::<String>()
    }
}

/// Why a key is not in the set.
enum NotRead {
    Ignored(Unusable),
    Private(&'static str),
}

fn read(members: &Map<String, Value>) -> Result<Key, NotRead> {
    // Whatever else is wrong with it: it should not be here.
    if let Some(member) = Jwk(members).private_member() {
        return Err(NotRead::Private(member));
    }
    Key::read(&Jwk(members)).map_err(NotRead::Ignored)
}

const FORM: &str = "Give a JWK or a JWK Set: {\"keys\": [...]}.";
const USABLE: &str =
    "Usable keys are signature keys: RSA, EC (P-256 or P-384), OKP (Ed25519) or oct.";
const PEM: &[u8] = b"-----BEGIN ";
const FROM_PEM: &str = "Give the key as a JWK: most issuers publish a JWK Set at the \"jwks_uri\" of their discovery document.";

/// The keys of a set, or the one key that the text is.
///
/// # Errors
/// [`KeySetError`] for what is no key set at all: it says what it is instead, and what to give.
fn items(value: &Value) -> Result<&[Value], KeySetError> {
    let object = match value {
        Value::Object(object) => object,
        Value::Array(_) => {
            return wrong(
                "not a JSON object but an array",
                "Put the array into an object: {\"keys\": [...]}.",
            );
        }
        Value::String(text) if text.trim_start().as_bytes().starts_with(PEM) => {
            return wrong("not a JSON object but PEM in a string", FROM_PEM);
        }
        Value::String(text) if text.trim_start().starts_with("http") => {
            return wrong(
                "not a JSON object but a URL",
                "Give the JWK Set itself: what the URL answers.",
            );
        }
        Value::String(text) if text.trim_start().starts_with('{') => {
            return wrong(
                "not a JSON object but JSON in a string",
                "Give the object itself, without quotes around it.",
            );
        }
        _ => return wrong("not a JSON object", FORM),
    };
    match object.get("keys") {
        Some(Value::Array(items)) => return Ok(items),
        Some(Value::Null) | None => {}
        Some(_) => return wrong("\"keys\" is not an array", FORM),
    }
    if object.contains_key("kty") {
        return Ok(std::slice::from_ref(value));
    }
    if let Some(url) = object.get("jwks_uri") {
        let url = quoted(url.as_str().unwrap_or_default());
        return wrong(
            format!("it is a discovery document, not a key set; its \"jwks_uri\" is {url}"),
            "Give the JWK Set that its \"jwks_uri\" answers.",
        );
    }
    let mut members = object.values().filter_map(Value::as_str);
    if members.any(|text| text.as_bytes().starts_with(PEM)) {
        return wrong(
            "it is a map of certificates, not a key set",
            "Firebase serves a JWK Set at https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com, Google at https://www.googleapis.com/oauth2/v3/certs.",
        );
    }
    wrong("it has neither \"keys\" nor \"kty\"", FORM)
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
            .fitting(&header, Claimed::default())
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

    /// Keys that cannot be used, and why.
    fn unusable() -> Vec<(String, &'static str)> {
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
        let point = "\"x\" and \"y\" are not a point on the curve";
        let exponent = "\"e\" is not a usable RSA exponent";
        vec![
            ("1".into(), "not a JSON object"),
            ("null".into(), "not a JSON object"),
            ("[]".into(), "not a JSON object"),
            (okp(r#","use":"enc""#), "\"use\" is not \"sig\""),
            (okp(r#","use":1"#), "\"use\" is not a string"),
            (
                okp(r#","key_ops":["sign"]"#),
                "\"key_ops\" lacks \"verify\"",
            ),
            (okp(r#","key_ops":"verify""#), "\"key_ops\" is not an array"),
            (okp(r#","kid":7"#), "\"kid\" is not a string"),
            (okp(r#","issuer":7"#), "\"issuer\" is not a string"),
            (
                okp(r#","alg":"RS256""#),
                "\"alg\" \"RS256\" does not belong",
            ),
            (
                okp(r#","alg":"Ed448""#),
                "\"alg\" \"Ed448\" is not supported",
            ),
            (
                rsa(2048, r#","alg":"RSA-OAEP""#),
                "\"alg\" \"RSA-OAEP\" is not supported",
            ),
            (
                r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.into(),
                "\"crv\" \"P-521\" is not supported",
            ),
            (
                r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#.into(),
                "\"crv\" \"secp256k1\"",
            ),
            (
                r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.into(),
                "\"crv\" \"X25519\"",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed448","x":"AA"}"#.into(),
                "\"crv\" \"Ed448\"",
            ),
            (
                r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#.into(),
                "\"alg\" \"ML-DSA-44\"",
            ),
            (
                r#"{"kty":"AKP","pub":"AA"}"#.into(),
                "\"kty\" \"AKP\" is not supported",
            ),
            (
                r#"{"x5c":["AA"]}"#.into(),
                "\"kty\" is missing (certificates",
            ),
            (
                r#"{"kty":"RSA","x5c":["AA"]}"#.into(),
                "\"n\" is missing (certificates",
            ),
            (r#"{"kty":"RSA","e":"AQAB"}"#.into(), "\"n\" is missing"),
            (
                r#"{"kty":"RSA","n":null,"e":"AQAB"}"#.into(),
                "\"n\" is missing",
            ),
            (
                r#"{"kty":"RSA","n":1,"e":"AQAB"}"#.into(),
                "\"n\" is not a string",
            ),
            (
                r#"{"kty":"RSA","n":"a","e":"AQAB"}"#.into(),
                "\"n\" is not base64url",
            ),
            (
                r#"{"kty":"EC","crv":"P-256","x":"AA"}"#.into(),
                "\"y\" is missing",
            ),
            (
                r#"{"kty":"EC","x":"AA","y":"AA"}"#.into(),
                "\"crv\" is missing",
            ),
            (r#"{"kty":"oct"}"#.into(), "\"k\" is missing"),
            (rsa(1024, ""), "the RSA key has 1024 bits"),
            (rsa(2047, ""), "the RSA key has 2047 bits"),
            (rsa(8193, ""), "the RSA key has 8193 bits"),
            (
                rsa(1024, "").replace("\"n\":\"", &format!("\"n\":\"{}", "AAAA".repeat(60))),
                "the RSA key has 1024 bits",
            ),
            (
                rsa(2048, "")
                    .replace("/w\"", "/g\"")
                    .replace("_w\"", "_g\""),
                "\"n\" is not an RSA modulus",
            ),
            (rsa(2048, "").replace("AQAB", "AQAC"), exponent),
            (rsa(2048, "").replace("AQAB", "AQ"), exponent),
            (rsa(2048, "").replace("AQAB", ""), exponent),
            (rsa(2048, "").replace("AQAB", "AAAA"), exponent),
            (oct(31, ""), "the secret has 31 bytes, but at least 32"),
            (
                oct(47, r#","alg":"HS384""#),
                "the secret has 47 bytes, but at least 48",
            ),
            (
                r#"{"kty":"oct","k":"a secret!"}"#.into(),
                "\"k\" is not base64url",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.into(),
                "\"x\" has 1 bytes, not 32",
            ),
            (okp_of([0; 32]), "\"x\" is a point of small order"),
            (okp_of(identity), "\"x\" is a point of small order"),
            (ec([0; 32]), point),
            (ec([0xff; 32]), point),
            (
                r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.into(),
                point,
            ),
        ]
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_and_the_others_count() {
        for (bad, why) in unusable() {
            let alone = error(&set(std::slice::from_ref(&bad)));
            let expected = format!("no usable key: key 1: {why}");
            assert!(alone.detail.starts_with(&expected), "{bad}: {alone:?}");
            assert!(
                !alone.hint.contains("opy"),
                "it may well be as it is published: {alone:?}"
            );
            let both = set(&[bad.clone(), okp("")]);
            assert_eq!(fits(&both, r#"{"alg":"EdDSA"}"#), 1, "{bad}");
            let ignored = KeySet::parse(both.as_bytes()).expect("a set").ignored();
            let expected = format!("key 1: {why}");
            assert!(
                ignored.is_some_and(|text| text.starts_with(&expected)),
                "{bad}"
            );
        }
        assert_eq!(
            KeySet::parse(okp("").as_bytes()).expect("a key").ignored(),
            None
        );
        let many: Vec<_> = (0..10).map(|_| "1".to_owned()).chain([okp("")]).collect();
        let ignored = KeySet::parse(set(&many).as_bytes())
            .expect("a set")
            .ignored();
        assert!(ignored.is_some_and(|text| text.ends_with("key 8: not a JSON object; 2 more")));
    }

    #[test]
    fn a_key_is_read_in_every_spelling_that_can_mean_only_one() {
        let eddsa = r#"{"alg":"EdDSA","kid":"a"}"#;
        for more in [
            r#","use":null,"alg":null,"kid":null,"key_ops":null,"d":null,"x5c":null,"issuer":null"#,
            r#","key_ops":[]"#,
            r#","key_ops":["sign","verify"],"use":"sig","alg":"EdDSA","kid":"a""#,
            r#","alg":"Ed25519""#,
        ] {
            assert_eq!(fits(&okp(more), eddsa), 1, "{more}");
        }
        // A sign byte, as Java's BigInteger writes it, and zeros that were left out.
        let (x, y) = (
            "fyNYMN0976ci7xqiSdag3buk-ZCwgXU4kz9XNkBlNUI",
            "hW2ojTNfH7Jbi8--CJUo3OCbH3y5n91g-IMA9MLMbTU",
        );
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let padded = URL_SAFE_NO_PAD.encode([vec![0], bytes(x)].concat());
        let ec = |x: &str| format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
        let es256 = r#"{"alg":"ES256"}"#;
        for x in [
            x.to_owned(),
            padded,
            format!("{x}="),
            x.replace('-', "+").replace('_', "/"),
        ] {
            assert_eq!(fits(&ec(&x), es256), 1, "{x}");
        }
        let n = "\"n\":\"";
        assert_eq!(
            fits(
                &rsa(2048, "").replace(n, "\"n\":\"AAAA"),
                r#"{"alg":"RS256"}"#
            ),
            1
        );
        assert_eq!(
            fits(
                &rsa(2048, "").replace("AQAB", "AAEAAQ=="),
                r#"{"alg":"RS256"}"#
            ),
            1
        );
    }

    #[test]
    fn keys_may_share_an_id_and_secrets_a_set_with_public_keys() {
        let a = r#","kid":"a""#;
        let keys = set(&[okp(a), rsa(2048, a), rsa(2048, a), oct(32, a), okp(a)]);
        for (alg, count) in [
            ("EdDSA", 2),
            ("RS256", 2),
            ("HS256", 1),
            ("ES256", 0),
            ("HS512", 0),
        ] {
            let header = format!(r#"{{"alg":"{alg}","kid":"a"}}"#);
            assert_eq!(fits(&keys, &header), count, "{alg}");
        }
    }

    #[test]
    fn a_private_key_is_an_error_whatever_else_is_in_the_set() {
        for (bad, member) in [
            (okp(r#","d":"AA""#), "d"),
            (rsa(2048, r#","use":"enc","d":"AA""#), "d"),
            (rsa(2048, r#","p":"AA""#), "p"),
            (rsa(1024, r#","qi":"AA""#), "qi"),
            (r#"{"kty":"AKP","priv":"AA"}"#.into(), "priv"),
            (r#"{"d":7}"#.into(), "d"),
        ] {
            let found = error(&set(&[okp(""), bad.clone()]));
            let detail = format!("key 2: it is a private key (it has \"{member}\")");
            assert_eq!(found.detail, detail, "{bad}");
            assert!(found.hint.contains("rotate it"));
        }
    }

    #[test]
    fn what_is_no_key_set_is_called_what_it_is() {
        for (text, detail, hint) in [
            ("", "not usable JSON", FORM),
            ("7", "not a JSON object", FORM),
            ("[]", "not a JSON object but an array", "Put the array"),
            (r#"{"keys":{}}"#, "\"keys\" is not an array", FORM),
            (
                r#"{"keys":[]}"#,
                "no usable key: the set is empty",
                "An issuer of HS256",
            ),
            (r#"{"k":"AA"}"#, "it has neither", FORM),
            (r#"{"keys":null}"#, "it has neither", FORM),
            (
                r#"{"kty":"oct","kty":"RSA"}"#,
                "not usable JSON: member \"kty\" appears twice",
                FORM,
            ),
            (
                "-----BEGIN PUBLIC KEY-----\nAA",
                "the text is PEM",
                FROM_PEM,
            ),
            (
                r#""-----BEGIN CERTIFICATE-----""#,
                "not a JSON object but PEM",
                FROM_PEM,
            ),
            (
                r#""https://i/jwks""#,
                "not a JSON object but a URL",
                "Give the JWK Set itself",
            ),
            (
                r#""{\"keys\":[]}""#,
                "not a JSON object but JSON in a string",
                "Give the object",
            ),
            (
                r#"{"issuer":"https://i","jwks_uri":"https://i/jwks"}"#,
                "it is a discovery document, not a key set; its \"jwks_uri\" is \"https://i/jwks\"",
                "Give the JWK Set that",
            ),
            (
                r#"{"a1":"-----BEGIN CERTIFICATE-----\n","b2":"-----BEGIN CERTIFICATE-----\n"}"#,
                "it is a map of certificates",
                "Firebase serves a JWK Set at https://",
            ),
        ] {
            let found = error(text);
            assert!(found.detail.starts_with(detail), "{text}: {found:?}");
            assert!(found.hint.starts_with(hint), "{text}: {found:?}");
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
        assert!(format!("{keys:?}").contains(r#"[oct for HS256 "\u{fc}"]"#));
    }

    #[test]
    fn a_secret_or_a_private_key_that_is_published_does_not_count() {
        let (secret, private) = (
            oct(32, r#","kid":"s""#),
            r#"{"kty":"EC","d":"AA","kid":"p"}"#,
        );
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","note":"kept"}}"#);
        let set = format!(r#"{{"keys":[{secret},{private},{good}],"other":1}}"#);
        let Published { keys, jwks } = KeySet::published(set.as_bytes()).expect("a good key");
        assert_eq!(keys.count(), 1);
        assert_eq!(
            keys.ignored_keys(),
            [
                "key 1 (\"s\"): a secret that is published is none",
                "key 2 (\"p\"): it is a private key (it has \"d\")"
            ]
        );
        let wanted: Value = serde_json::from_str(&format!(r#"{{"keys":[{good}]}}"#)).expect("JSON");
        assert_eq!(jwks, wanted);
        // Both are an error, or a secret, where an administrator writes them.
        assert!(error(&set).detail.contains("private key"));
        assert_eq!(
            KeySet::parse(secret.as_bytes()).expect("a secret").count(),
            1
        );
        let alone = KeySet::published(format!(r#"{{"keys":[{secret}]}}"#).as_bytes());
        let alone = alone.expect_err("nothing is left");
        assert_eq!(
            alone.detail,
            "no usable key: key 1 (\"s\"): a secret that is published is none"
        );
    }
}
