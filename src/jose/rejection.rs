//! Why a token was rejected: one value for each reason, with the stage it belongs to, the line that
//! applications match on, the facts, and what the reader can do.

use std::fmt;

use jsonwebtoken::Algorithm;

use crate::header::MAX_HEADER_DEPTH;
use crate::json::Fault;
use crate::verify::{MAX_KEYS_TRIED, MAX_TOKEN_BYTES};

/// A step of verification. They run in this order and the first that fails is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The compact form and the JSON in it.
    Structure,
    /// `alg` and `typ`.
    Header,
    /// A key that may verify it.
    Key,
    /// The signature.
    Signature,
    /// The types of the registered claims.
    Payload,
    /// `exp`, `nbf`, `iat` against the clock.
    Time,
    /// What the one who trusts the keys asks for beyond that.
    Policy,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Structure => "structure",
            Self::Header => "header",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Payload => "payload",
            Self::Time => "time",
            Self::Policy => "policy",
        })
    }
}

/// One of the three parts of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Header,
    /// The second.
    Payload,
    /// The third.
    Signature,
}

/// Why a token was rejected. What it quotes of a token is escaped and cut short ([`quoted`]).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // each variant's fields are named for what they hold
pub enum Rejection {
    /// No token at all was given where one is wanted.
    Missing,
    TooLong {
        bytes: usize,
    },
    NotThreeParts {
        found: usize,
    },
    NotBase64Url(Part),
    HeaderNotObject(Option<Fault>),
    HeaderExtension(&'static str),
    /// The payload is read for this before the signature is verified, so that no two readers can
    /// differ about what was signed.
    PayloadDuplicateMember(String),

    NoAlgorithm,
    UnknownAlgorithm(String),
    NotAJwt(String),
    HeaderMemberNotString(&'static str),

    /// Nobody has said which keys to trust.
    NoTrustedKeys,
    NoKeyFits {
        algorithm: Algorithm,
        key_id: Option<String>,
        trusted: String,
    },

    BadSignature {
        algorithm: Algorithm,
        fitting: usize,
    },

    PayloadNotObject(Option<Fault>),
    ClaimType {
        name: &'static str,
        expected: &'static str,
    },
    /// The claims are JSON, but not JSON that this database can hold.
    NotRepresentable(String),

    /// Times in seconds since the epoch (RFC 7519 NumericDate).
    Expired {
        exp: f64,
        now: f64,
        skew: f64,
    },
    NotYetValid {
        nbf: f64,
        now: f64,
        skew: f64,
    },
    IssuedInFuture {
        iat: f64,
        now: f64,
        skew: f64,
    },

    /// `jti` did not increase.
    Replayed {
        jti: i64,
        last: i64,
    },
}

impl Rejection {
    /// The stage that failed.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Missing
            | Self::TooLong { .. }
            | Self::NotThreeParts { .. }
            | Self::NotBase64Url(_)
            | Self::HeaderNotObject(_)
            | Self::HeaderExtension(_)
            | Self::PayloadDuplicateMember(_) => Stage::Structure,
            Self::NoAlgorithm
            | Self::UnknownAlgorithm(_)
            | Self::NotAJwt(_)
            | Self::HeaderMemberNotString(_) => Stage::Header,
            Self::NoTrustedKeys | Self::NoKeyFits { .. } => Stage::Key,
            Self::BadSignature { .. } => Stage::Signature,
            Self::PayloadNotObject(_) | Self::ClaimType { .. } | Self::NotRepresentable(_) => {
                Stage::Payload
            }
            Self::Expired { .. } | Self::NotYetValid { .. } | Self::IssuedInFuture { .. } => {
                Stage::Time
            }
            Self::Replayed { .. } => Stage::Policy,
        }
    }

    /// The first line of the error. Applications match on these: they never change.
    pub fn message(&self) -> &'static str {
        match self {
            Self::NotBase64Url(Part::Signature) => "invalid JWT signature encoding",
            Self::NoTrustedKeys => "no key to verify the token with",
            Self::Expired { .. } => "Token used after it has expired",
            Self::NotYetValid { .. } | Self::IssuedInFuture { .. } => {
                "Token used before it is ready"
            }
            Self::Replayed { .. } => "Token ID must be strictly monotonically increasing.",
            other => match other.stage() {
                Stage::Structure => "invalid JWT encoding",
                Stage::Header => "invalid JWT header",
                Stage::Key => "no key fits the JWT",
                Stage::Signature => "invalid JWT signature",
                Stage::Payload => "invalid JWT payload",
                Stage::Time | Stage::Policy => "JWT not accepted",
            },
        }
    }

    /// The facts, beginning with the stage; never the token.
    pub fn detail(&self) -> String {
        format!("{}: {}", self.stage(), self.facts())
    }

    fn facts(&self) -> String {
        match self {
            Self::Missing => "there is no token".into(),
            Self::TooLong { bytes } => {
                format!("the token has {bytes} bytes, more than {MAX_TOKEN_BYTES}")
            }
            Self::NotThreeParts { found } => {
                format!("a JWT has 3 parts with dots between, this has {found}")
            }
            Self::NotBase64Url(part) => {
                let part = match part {
                    Part::Header => "first",
                    Part::Payload => "second",
                    Part::Signature => "third",
                };
                format!("the {part} part is not base64url without padding")
            }
            Self::HeaderNotObject(None) => "the header is not a JSON object".into(),
            Self::HeaderNotObject(Some(Fault::TooDeep(_))) => {
                format!("the header is nested deeper than {MAX_HEADER_DEPTH}")
            }
            Self::HeaderNotObject(Some(fault)) => format!("in the header: {fault}"),
            Self::HeaderExtension(name) => {
                format!("the header uses \"{name}\", which is not supported")
            }
            Self::PayloadDuplicateMember(name) => {
                format!("in the payload: member {} appears twice", quoted(name))
            }
            Self::NoAlgorithm => "\"alg\" is missing".into(),
            Self::UnknownAlgorithm(name) => format!("\"alg\" {} is not accepted", quoted(name)),
            Self::NotAJwt(typ) => format!("\"typ\" {} is not a JWT", quoted(typ)),
            Self::HeaderMemberNotString(name) => format!("\"{name}\" is not a string"),
            Self::NoTrustedKeys => {
                "neither this database nor this connection trusts any key".into()
            }
            Self::NoKeyFits {
                algorithm,
                key_id,
                trusted,
            } => {
                let key_id = match key_id {
                    Some(id) => format!("\"kid\" {}", quoted(id)),
                    None => "no \"kid\"".into(),
                };
                format!(
                    "the token has \"alg\" \"{algorithm:?}\" and {key_id}; trusted keys: {trusted}"
                )
            }
            Self::BadSignature { algorithm, fitting } if *fitting > MAX_KEYS_TRIED => format!(
                "no {algorithm:?} signature by any of the first {MAX_KEYS_TRIED} of the {fitting} keys that fit"
            ),
            Self::BadSignature {
                algorithm,
                fitting: 1,
            } => {
                format!("no {algorithm:?} signature by the one key that fits")
            }
            Self::BadSignature { algorithm, fitting } => {
                format!("no {algorithm:?} signature by any of the {fitting} keys that fit")
            }
            Self::PayloadNotObject(None) => "not a JSON object".into(),
            Self::PayloadNotObject(Some(fault)) => format!("not usable JSON: {fault}"),
            Self::ClaimType { name, expected } => format!("\"{name}\" is not {expected}"),
            Self::NotRepresentable(why) => format!("this database cannot hold the claims: {why}"),
            Self::Expired { exp, now, skew } => {
                format!(
                    "\"exp\" {exp} + clock skew {skew} s has passed: it is {}",
                    now.floor()
                )
            }
            Self::NotYetValid { nbf, now, skew } => {
                format!(
                    "\"nbf\" {nbf} - clock skew {skew} s has not come: it is {}",
                    now.floor()
                )
            }
            Self::IssuedInFuture { iat, now, skew } => {
                format!(
                    "\"iat\" {iat} - clock skew {skew} s has not come: it is {}",
                    now.floor()
                )
            }
            Self::Replayed { jti, last } => {
                format!("\"jti\" {jti} is not above {last}, which this connection has accepted")
            }
        }
    }

    /// What the reader of the error can do, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("To forget a token, call auth.logout()."),
            Self::NoTrustedKeys => Some(
                "Register a provider in auth.providers, or give the connection its keys in pg_session_jwt.jwk.",
            ),
            Self::NoKeyFits { .. } => {
                Some("If the issuer has rotated its keys, add the new ones from its JWK Set.")
            }
            Self::UnknownAlgorithm(name) if !name.eq_ignore_ascii_case("none") => Some(
                "Accepted are RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384 and HS512.",
            ),
            Self::Expired { .. } => Some("Get a fresh token from the issuer and present it."),
            Self::NotYetValid { .. } | Self::IssuedInFuture { .. } => {
                Some("Compare the clocks of the issuer and of this server.")
            }
            Self::Replayed { .. } => Some("Sign a new token with a higher \"jti\"."),
            _ => None,
        }
    }
}

/// A text from outside, fit for a message: in quotes, ASCII, escaped, at most 64 characters.
///
/// Escaping keeps line ends out of the log and bytes that the server encoding lacks out of the
/// protocol.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 64;
    let shown: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_default)
        .collect();
    let more = if text.chars().nth(MOST).is_some() {
        "..."
    } else {
        ""
    };
    format!("\"{shown}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_can_neither_forge_a_log_line_nor_flood_it() {
        assert_eq!(quoted("a\nLOG:  b\u{e9}\""), r#""a\nLOG:  b\u{e9}\"""#);
        assert_eq!(quoted(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
        assert_eq!(
            quoted(&"x".repeat(65)),
            format!("\"{}...\"", "x".repeat(64))
        );
    }
}
