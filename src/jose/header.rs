//! What a token says before its signature is checked: the JOSE header (RFC 7515 section 4), from which the
//! algorithm and the key id are taken, never a key; and whose token it claims to be.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::json;
use crate::rejection::Rejection;

/// A header nests at most this deep; real ones are flat.
pub(crate) const MAX_HEADER_DEPTH: usize = 8;

/// Media types that say "this is a JWT" (RFC 7519 section 5.1, RFC 9068 section 2.1). RFC 7515 section
/// 4.1.9 allows omitting `application/`, and media types are compared without case.
///
/// `JOSE` says no more than that the token is in the compact form (RFC 7515 section 4.1.9).
const JWT_TYPES: [&str; 3] = ["jwt", "at+jwt", "jose"];

/// How a token was signed, according to its header.
///
/// `jwk`, `jku`, `x5u` and `x5c` are not read: a token that brings its own key proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg` (RFC 7515 section 4.1.1).
    pub algorithm: Algorithm,
    /// `kid` (RFC 7515 section 4.1.4).
    pub key_id: Option<String>,
    /// Whether there is a `nonce`: Microsoft Graph's tokens have one, and nobody else can verify them.
    pub(crate) has_nonce: bool,
}

/// Whose token it claims to be. Nothing depends on it but which keys are tried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Claimed<'a> {
    /// `iss`
    pub issuer: Option<&'a str>,
    /// Entra's `tid`.
    pub tenant: Option<&'a str>,
    /// The payload is no JSON object, so that it does not say. The token is rejected for that, after its signature:
    /// any issuer's key may verify it.
    pub is_unreadable: bool,
}

impl Claimed<'_> {
    /// Whether the token claims to be by `issuer`, in which Entra writes `{tenantid}` for the token's own tenant
    /// (<https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens#validate-the-signing-key-issuer>).
    pub fn is_by(&self, issuer: &str) -> bool {
        const TENANT: &str = "{tenantid}";
        if self.is_unreadable {
            return true;
        }
        let Some(claimed) = self.issuer else {
            return false;
        };
        match (issuer.split_once(TENANT), self.tenant) {
            (None, _) => claimed == issuer,
            (Some(_), None | Some("")) => false,
            (Some((before, after)), Some(tenant)) => claimed
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|between| between == tenant),
        }
    }
}

/// Those that are accepted (RFC 7518 section 3.1, RFC 8037 section 3.1).
pub(crate) const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
];

/// The algorithm of this name: one of the twelve, or `Ed25519`, which RFC 9864 names what RFC 8037 called
/// `EdDSA`.
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        other => other.parse().ok(),
    }
}

impl Header {
    /// Stage header, for what [`Header::members`] has read.
    pub(crate) fn from_members(members: &Map<String, Value>) -> Result<Self, Rejection> {
        let algorithm = match members.get("alg") {
            None => return Err(Rejection::NoAlgorithm),
            Some(Value::String(name)) => {
                algorithm(name).ok_or_else(|| Rejection::UnknownAlgorithm(name.clone()))?
            }
            Some(_) => return Err(Rejection::HeaderMemberNotString("alg")),
        };
        match members.get("typ") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if names_a_jwt(name) => {}
            Some(Value::String(name)) => return Err(Rejection::NotAJwt(name.clone())),
            Some(_) => return Err(Rejection::HeaderMemberNotString("typ")),
        }
        let key_id = match members.get("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Rejection::HeaderMemberNotString("kid")),
        };
        Ok(Self {
            algorithm,
            key_id,
            has_nonce: members.contains_key("nonce"),
        })
    }

    /// Stage structure: the header as a JSON object that asks for nothing beyond RFC 7515.
    pub(crate) fn members(text: &[u8]) -> Result<Map<String, Value>, Rejection> {
        let members = match json::parse(text, MAX_HEADER_DEPTH) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(Rejection::HeaderNotObject(None)),
            Err(fault) => return Err(Rejection::HeaderNotObject(Some(fault))),
        };
        // RFC 7515 section 4.1.11: an unimplemented `crit` is a rejection, and we implement none. RFC
        // 7797's `b64` changes what is signed, and RFC 7519 forbids it for a JWT.
        for extension in ["crit", "b64"] {
            if members.contains_key(extension) {
                return Err(Rejection::HeaderExtension(extension));
            }
        }
        Ok(members)
    }
}

fn names_a_jwt(typ: &str) -> bool {
    let name = typ.to_ascii_lowercase();
    JWT_TYPES.contains(&name.strip_prefix("application/").unwrap_or(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Fault;

    fn parse(header: &str) -> Result<Header, Rejection> {
        Header::members(header.as_bytes()).and_then(|members| Header::from_members(&members))
    }

    fn rejection(header: &str) -> Rejection {
        parse(header).expect_err(header)
    }

    #[test]
    fn the_algorithm_is_one_of_twelve_spelt_exactly() {
        for name in [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
            "HS256", "HS384", "HS512",
        ] {
            let header = parse(&format!(r#"{{"alg":"{name}"}}"#)).expect(name);
            assert_eq!(format!("{:?}", header.algorithm), name);
        }
        for name in [
            "none", "None", "NONE", "nOnE", "", "rs256", "ES512", "ES256K", "RS256 ",
        ] {
            assert_eq!(
                rejection(&format!(r#"{{"alg":"{name}"}}"#)),
                Rejection::UnknownAlgorithm(name.into())
            );
        }
        assert_eq!(rejection("{}"), Rejection::NoAlgorithm);
        assert_eq!(
            rejection(r#"{"alg":["RS256"]}"#),
            Rejection::HeaderMemberNotString("alg")
        );
    }

    #[test]
    fn ed25519_is_eddsa_and_null_is_absent() {
        let header = parse(r#"{"alg":"Ed25519","kid":null,"typ":null}"#).expect("fine");
        assert_eq!((header.algorithm, header.key_id), (Algorithm::EdDSA, None));
        assert!(parse(r#"{"alg":null}"#).is_err());
    }

    #[test]
    fn a_key_for_one_issuer_is_for_its_own_tenants_only() {
        let by = |issuer, tenant, key| {
            let claimed = Claimed {
                issuer,
                tenant,
                is_unreadable: false,
            };
            claimed.is_by(key)
        };
        let entra = "https://login/{tenantid}/v2.0";
        assert!(by(Some("https://login/t/v2.0"), Some("t"), entra));
        assert!(by(Some("https://i"), None, "https://i"));
        for (issuer, tenant, key) in [
            (Some("https://login/t/v2.0"), Some("u"), entra),
            (Some("https://login/t/v2.0"), None, entra),
            (Some("https://login//v2.0"), Some(""), entra),
            (Some("https://login/v2.0"), Some("t"), entra),
            (Some("https://login/t"), Some("t"), entra),
            (None, Some("t"), entra),
            (Some("https://i/"), None, "https://i"),
            (None, None, ""),
        ] {
            assert!(!by(issuer, tenant, key), "{issuer:?} {tenant:?} {key}");
        }
    }

    #[test]
    fn a_token_made_for_another_use_is_not_a_jwt() {
        for typ in [
            "JWT",
            "jwt",
            "at+jwt",
            "AT+JWT",
            "application/jwt",
            "application/at+jwt",
            "JOSE",
        ] {
            let header = format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#);
            assert!(parse(&header).is_ok(), "{typ}");
        }
        for typ in [
            "",
            "JOSE+JSON",
            "dpop+jwt",
            "logout+jwt",
            "secevent+jwt",
            "application/json",
            "text/jwt",
        ] {
            let header = format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#);
            assert_eq!(rejection(&header), Rejection::NotAJwt(typ.into()));
        }
        assert_eq!(
            rejection(r#"{"alg":"RS256","typ":1}"#),
            Rejection::HeaderMemberNotString("typ")
        );
    }

    #[test]
    fn extensions_that_change_the_meaning_are_refused_before_anything_else() {
        for (header, name) in [
            (r#"{"alg":"none","crit":[]}"#, "crit"),
            (r#"{"crit":null}"#, "crit"),
            (r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, "crit"),
            (r#"{"alg":"RS256","b64":true}"#, "b64"),
        ] {
            assert_eq!(rejection(header), Rejection::HeaderExtension(name));
        }
    }

    #[test]
    fn a_header_is_a_flat_object_of_unique_names() {
        assert_eq!(rejection("[]"), Rejection::HeaderNotObject(None));
        assert_eq!(
            rejection(r#"{"alg":"RS256","alg":"none"}"#),
            Rejection::HeaderNotObject(Some(Fault::DuplicateMember("alg".into())))
        );
        let nested = |depth: usize| {
            let inner = depth - 1;
            format!(
                r#"{{"alg":"RS256","x":{}{}}}"#,
                "[".repeat(inner),
                "]".repeat(inner)
            )
        };
        assert!(parse(&nested(8)).is_ok());
        assert_eq!(
            rejection(&nested(9)),
            Rejection::HeaderNotObject(Some(Fault::TooDeep(MAX_HEADER_DEPTH)))
        );
    }
}
