//! The members of one JSON Web Key (RFC 7517 section 4), as issuers really spell them.
//!
//! A key set comes from a party that is trusted, so any spelling that can mean only one key is read: a member
//! that is null is absent, base64 may have padding and either alphabet, a number may have leading zeros.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::header;
use crate::quoted::quoted;

/// Members that only a private key has (RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037 section 2, and `priv` of
/// AKP keys). A symmetric key's `k` is a secret that both sides have.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

/// Why a key cannot be used.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// The facts; never key material.
    pub why: String,
    /// What to do, if there is something.
    pub hint: Option<&'static str>,
}

/// A key that cannot be used, without advice.
pub(crate) fn unusable(why: impl Into<String>) -> Unusable {
    Unusable {
        why: why.into(),
        hint: None,
    }
}

/// The members of a key.
pub(crate) struct Jwk<'a>(pub &'a Map<String, Value>);

impl<'a> Jwk<'a> {
    /// A member; null is absent.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A member that must be a string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Unusable> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(unusable(format!("\"{name}\" is not a string"))),
        }
    }

    /// A member that must be there.
    pub fn required(&self, name: &str) -> Result<&'a str, Unusable> {
        let missing = || match self.get("x5c") {
            Some(_) => unusable(format!(
                "\"{name}\" is missing (certificates in \"x5c\" are not read)"
            )),
            None => unusable(format!("\"{name}\" is missing")),
        };
        self.text(name)?.ok_or_else(missing)
    }

    /// A required member of base64url (RFC 7515 section 2).
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Unusable> {
        let text = self.required(name)?;
        let decode = |alphabet: &Alphabet| {
            let config = GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent);
            GeneralPurpose::new(alphabet, config).decode(text)
        };
        decode(&URL_SAFE)
            .or_else(|_| decode(&STANDARD))
            .map_err(|_| unusable(format!("\"{name}\" is not base64url")))
    }

    /// A required number, big endian, without leading zeros (RFC 7518 section 2, Base64urlUInt).
    pub fn number(&self, name: &str) -> Result<Vec<u8>, Unusable> {
        let mut bytes = self.bytes(name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.drain(..zeros);
        Ok(bytes)
    }

    /// Whether it has a private part.
    pub fn private_member(&self) -> Option<&'static str> {
        PRIVATE.into_iter().find(|name| self.get(name).is_some())
    }

    /// Whether it is published for verifying signatures: `use` and `key_ops`.
    pub fn check_purpose(&self) -> Result<(), Unusable> {
        if self.text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(unusable("\"use\" is not \"sig\""));
        }
        match self.get("key_ops") {
            None => Ok(()),
            Some(Value::Array(operations)) => {
                let verifies = operations.is_empty() || operations.iter().any(|op| op == "verify");
                verifies
                    .then_some(())
                    .ok_or_else(|| unusable("\"key_ops\" lacks \"verify\""))
            }
            Some(_) => Err(unusable("\"key_ops\" is not an array")),
        }
    }

    /// `alg`
    pub fn algorithm(&self) -> Result<Option<Algorithm>, Unusable> {
        let unsupported = |name| unusable(format!("\"alg\" {} is not supported", quoted(name)));
        self.text("alg")?
            .map(|name| header::algorithm(name).ok_or_else(|| unsupported(name)))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwk(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn base64_is_read_in_every_spelling_of_the_same_bytes() {
        let bytes = [0xfb, 0xff, 0xbf, 0x01];
        for text in ["-_-_AQ", "-_-_AQ==", "+/+/AQ", "+/+/AQ=="] {
            let key = jwk(json!({ "n": text }));
            assert_eq!(Jwk(&key).bytes("n").expect(text), bytes, "{text}");
        }
        for text in ["-_+/AQ", "-_-_AR", "-_-_A", "-_-_AQ===", "-_ -_AQ", "é"] {
            let key = jwk(json!({ "n": text }));
            assert!(Jwk(&key).bytes("n").is_err(), "{text}");
        }
    }

    #[test]
    fn null_is_absent_in_every_member() {
        let key = jwk(json!({
            "d": null, "p": null, "priv": null, "use": null, "key_ops": null, "alg": null, "kid": null
        }));
        let key = Jwk(&key);
        assert_eq!(key.private_member(), None);
        assert!(key.check_purpose().is_ok());
        assert!(key.algorithm().is_ok_and(|algorithm| algorithm.is_none()));
        assert!(key.text("kid").is_ok_and(|id| id.is_none()));
    }
}
