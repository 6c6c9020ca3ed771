//! The texts of a rejection: the line that applications match on, the facts, and what the reader can do.

use std::fmt;

use crate::json::Fault;
use crate::key::{HMAC, SECRET_AS_TYPED, is_hmac};
use crate::quoted::quoted;
use crate::rejection::{
    Attempt, Looks, Misfit, Near, NoAttempt, Part, Rejected, Rejection, RoleFault, Stage, Standing,
};

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

impl Rejected {
    /// The facts, beginning with the stage; never the token.
    #[must_use]
    pub fn detail(&self) -> String {
        let detail = self.reason.detail();
        match self.providers.as_slice() {
            [] => detail,
            [name] => format!("{detail} (provider {})", quoted(name)),
            names => format!("{detail} (providers {})", list(names)),
        }
    }
}

impl Rejection {
    /// The first line of the error. Applications match on these: they never change.
    pub fn message(&self) -> &'static str {
        match self {
            Self::NotBase64Url(Part::Signature, _) => "invalid JWT signature encoding",
            Self::NoTrustedKeys => "no key to verify the token with",
            Self::UnknownIssuer { .. } => "unknown JWT issuer",
            Self::SeveralProviders => "JWT could belong to several providers",
            Self::Audience(_) => "JWT audience is not accepted",
            Self::AuthorizedParty(_) => "JWT authorized party is not accepted",
            Self::MissingClaim(_) => "JWT lacks a required claim",
            Self::Role { .. } => "JWT role is not accepted",
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

    /// The facts alone.
    pub fn facts(&self) -> String {
        match self {
            Self::Missing => "there is no token".into(),
            Self::TooLong { limit } => format!("the token is longer than {limit} bytes"),
            Self::NotThreeParts { found, .. } => {
                format!("a JWT has 3 parts separated by dots, this one has {found}")
            }
            Self::NotBase64Url(part, _) => {
                let part = match part {
                    Part::Header => "first",
                    Part::Payload => "second",
                    Part::Signature => "third",
                };
                format!("the {part} part is not base64url without padding")
            }
            Self::HeaderNotObject(None) => "the header is not a JSON object".into(),
            Self::HeaderNotObject(Some(Fault::TooDeep(limit))) => {
                format!("the header is nested more than {limit} levels deep")
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
            Self::NotAJwt(typ) => format!("\"typ\" {} is not the type of a JWT", quoted(typ)),
            Self::HeaderMemberNotString(name) => format!("\"{name}\" is not a string"),
            Self::NoTrustedKeys => {
                "neither this database nor this connection trusts any key".into()
            }
            Self::UnknownIssuer {
                issuer: Some(issuer),
                ..
            } => {
                format!("no enabled provider has the issuer {}", quoted(issuer))
            }
            Self::UnknownIssuer { issuer: None, .. } => {
                "no enabled provider accepts tokens without \"iss\"".into()
            }
            Self::NoKeyFits {
                algorithm,
                key_id,
                trusted,
                standing,
                ..
            } => {
                let key_id = match key_id {
                    Some(id) => format!("\"kid\" {}", quoted(id)),
                    None => "no \"kid\"".into(),
                };
                let token = format!("the token has \"alg\" \"{algorithm:?}\" and {key_id}");
                match (trusted, standing) {
                    (Some(keys), _) => format!("{token}; trusted keys: {keys}"),
                    (None, Some(standing)) => format!("{token}; {}", standing.last),
                    (None, None) => token,
                }
            }
            Self::SeveralProviders => "more than one provider has a matching key".into(),
            Self::BadSignature {
                algorithm,
                tried,
                fitting,
                ..
            } => match (tried, fitting) {
                (_, 1) => format!(
                    "the {algorithm:?} signature does not verify with the only matching key"
                ),
                (tried, fitting) if tried < fitting => format!(
                    "the {algorithm:?} signature does not verify with any of the first {tried} of {fitting} matching keys"
                ),
                _ => format!(
                    "the {algorithm:?} signature does not verify with any of the {fitting} matching keys"
                ),
            },
            Self::PayloadNotObject(None) => "not a JSON object".into(),
            Self::PayloadNotObject(Some(fault)) => format!("not usable JSON: {fault}"),
            Self::ClaimType { name, expected } => format!("\"{name}\" is not {expected}"),
            Self::NotRepresentable(why) => format!("this database cannot store the claims: {why}"),
            Self::Expired { exp, now, skew } => {
                format!(
                    "\"exp\" {exp} + clock skew {skew} s has passed: the current time is {}",
                    now.floor()
                )
            }
            Self::NotYetValid { nbf, now, skew } => {
                format!(
                    "\"nbf\" {nbf} - clock skew {skew} s is after the current time {}",
                    now.floor()
                )
            }
            Self::IssuedInFuture { iat, now, skew } => {
                format!(
                    "\"iat\" {iat} - clock skew {skew} s is after the current time {}",
                    now.floor()
                )
            }
            Self::Audience(names) if names.is_empty() => "the token has no \"aud\"".into(),
            Self::Audience(names) => format!("\"aud\" is {}", list(names)),
            Self::AuthorizedParty(None) => "the token has neither \"azp\" nor \"client_id\"".into(),
            Self::AuthorizedParty(Some((claim, party))) => {
                format!("\"{claim}\" is {}", quoted(party))
            }
            Self::MissingClaim(name) => format!("the token has no {}", quoted(name)),
            Self::Role { named, why } => match (named, why) {
                (None, _) => "the token names no role".into(),
                (Some(name), RoleFault::Superuser) => {
                    format!(
                        "role {} is a superuser, which no token may assume",
                        quoted(name)
                    )
                }
                (Some(name), _) => format!("role {} is not in allowed_roles", quoted(name)),
            },
            Self::Replayed {
                jti,
                last: Some(last),
            } => {
                format!(
                    "\"jti\" {jti} is not greater than {last}, which this connection has accepted"
                )
            }
            Self::Replayed { jti, last: None } => {
                format!("\"jti\" {jti} was not accepted when the token was presented")
            }
        }
    }

    /// What the reader of the error can do, if anything.
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::UnknownIssuer {
                near: Some(near), ..
            } => {
                return Some(match near {
                    Near::Disabled(name) => {
                        format!("The matching provider {} is disabled.", quoted(name))
                    }
                    Near::Slash(name) => format!(
                        "The issuer of provider {} differs only by a trailing slash.",
                        quoted(name)
                    ),
                    Near::Scheme(name) => {
                        format!(
                            "The issuer of provider {} differs only in its scheme.",
                            quoted(name)
                        )
                    }
                    Near::Host => "A provider with an issuer at the same host is registered: its issuer must equal \"iss\" byte for byte.".into(),
                    Near::Path => "A provider with this issuer at another host is registered: its issuer must equal \"iss\" byte for byte.".into(),
                    Near::Tenant => "The issuers of Entra's access tokens of version 1 and 2 differ: register this one too, or set requestedAccessTokenVersion in the application's manifest.".into(),
                });
            }
            Self::NoKeyFits {
                algorithm,
                misfit: Some(Misfit::ShortSecret),
                ..
            } => {
                let least = HMAC.iter().find(|(one, _)| one == algorithm);
                let least = least.map_or(0, |(_, least)| *least);
                return Some(format!(
                    "{algorithm:?} needs a secret of at least {least} bytes; the one that is trusted is shorter."
                ));
            }
            Self::MissingClaim(name) => {
                return Some(format!(
                    "The provider's required_claims decides which claims a token must have; {} is one of them.",
                    quoted(name)
                ));
            }
            Self::NotThreeParts {
                looks: Some(looks), ..
            }
            | Self::NotBase64Url(_, Some(looks)) => match looks {
                Looks::Bearer => "Present the token alone, without \"Bearer\".",
                Looks::Quoted => "Present the token alone, without the quotes around it.",
                Looks::Blank => {
                    "Present the token alone, without white space or a line end around it."
                }
                Looks::Encrypted => {
                    "Five parts are an encrypted token, which only its audience can read: ask the issuer for an access token for your API."
                }
                Looks::Opaque => {
                    "This is an opaque token or an API key: ask the issuer for a JWT, usually by naming your API as the audience."
                }
            },
            Self::BadSignature { nonce: true, .. } => {
                "A \"nonce\" in the header is a sign of a token for Microsoft Graph, which nobody else can verify: ask for a token for your own API."
            }
            Self::BadSignature { tried, fitting, .. } if tried < fitting => {
                "Give the keys a \"kid\", so that a token says which one signed it."
            }
            Self::BadSignature { algorithm, .. } if is_hmac(*algorithm) => SECRET_AS_TYPED,
            Self::Missing => "To forget a token, call auth.logout().",
            Self::NoTrustedKeys => {
                "Register a provider in auth.providers, or give the connection its keys in pg_session_jwt.jwk."
            }
            Self::UnknownIssuer { .. } => "Register a provider for it in auth.providers.",
            Self::NoKeyFits {
                misfit: Some(Misfit::OtherIssuer),
                ..
            } => {
                "A key that would fit is for another issuer, as its member \"issuer\" says: register the keys of the token's own. Entra's for tokens of version 1 are at https://login.microsoftonline.com/<tenant>/discovery/keys."
            }
            Self::NoKeyFits {
                standing: Some(standing),
                ..
            } => return Some(standing.hint()),
            Self::NoKeyFits { .. } => {
                "If the issuer has rotated its keys, add the new ones from its JWK Set."
            }
            Self::SeveralProviders => APART,
            Self::UnknownAlgorithm(name) if !name.eq_ignore_ascii_case("none") => ALGORITHMS,
            Self::Expired { .. } => "Get a new token from the issuer.",
            Self::NotYetValid { .. } | Self::IssuedInFuture { .. } => {
                "Compare the issuer's clock with this server's."
            }
            Self::AuthorizedParty(_) => {
                "The provider's authorized_parties lists the applications whose tokens it accepts."
            }
            Self::Audience(_) => "The provider's audience lists the audiences that it accepts.",
            Self::Role { .. } => {
                "The provider's role_claim, allowed_roles and default_role decide which role its tokens get."
            }
            Self::Replayed { .. } => "Sign a new token with a higher \"jti\".",
            _ => return None,
        };
        Some(fixed.into())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None => f.write_str("the issuer's keys have not been fetched yet"),
            Self::Fetched { seconds_ago } => {
                write!(
                    f,
                    "the issuer's keys were fetched {} ago",
                    span(seconds_ago)
                )
            }
            Self::Failed {
                seconds_ago,
                fetched_seconds_ago: None,
            } => write!(
                f,
                "the attempt to fetch the issuer's keys failed {} ago",
                span(seconds_ago)
            ),
            Self::Failed {
                seconds_ago,
                fetched_seconds_ago: Some(fetched),
            } => write!(
                f,
                "the issuer's keys were fetched {} ago, and the last attempt failed {} ago",
                span(fetched),
                span(seconds_ago)
            ),
            Self::Stale {
                fetched_seconds_ago,
            } => write!(
                f,
                "the issuer's keys do not count any more: they were fetched {} ago",
                span(fetched_seconds_ago)
            ),
        }
    }
}

/// A time in words: whole seconds, minutes or hours.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let (count, unit) = match seconds {
        _ if seconds < 120.0 => (seconds, "s"),
        _ if seconds < 7200.0 => (seconds / 60.0, "min"),
        _ => (seconds / 3600.0, "h"),
    };
    format!("{} {unit}", count.floor())
}

impl Standing {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> String {
        let fixed = match &self.why {
            Some(NoAttempt::StillFetching) => {
                "The issuer's keys are being fetched: try again in a moment."
            }
            Some(NoAttempt::CoolingDown { seconds_left }) => {
                return format!(
                    "Keys are not fetched again within the next {}. auth.provider_keys shows what came of the last attempt.",
                    span(seconds_left.ceil())
                );
            }
            Some(NoAttempt::NotAllowed { host }) => {
                return format!(
                    "Keys are not fetched from {}: a superuser may add this host to pg_session_jwt.fetch_hosts, or write the provider's row.",
                    quoted(host)
                );
            }
            Some(NoAttempt::NoAddress) => {
                "The issuer is no address that keys could be fetched from: give the provider a jwks_url, or its keys in jwks."
            }
            Some(NoAttempt::Standby) => {
                "A standby does not fetch keys: they come from the primary, once a token has been presented there or auth.refresh() been called."
            }
            Some(NoAttempt::ParallelWorker) => {
                "Keys are not fetched in a parallel worker: present the token in a statement of its own."
            }
            Some(NoAttempt::NoPlace) => {
                "As many keys as may be are being fetched already: try again in a moment."
            }
            Some(NoAttempt::NoWorker) => {
                "No background worker is free to fetch the issuer's keys: max_worker_processes must be greater than max_parallel_workers."
            }
            None => match self.last {
                Attempt::Fetched { .. } => {
                    "The issuer does not publish the key of this token: compare its \"kid\" with the issuer's key set."
                }
                _ => "auth.provider_keys shows why the issuer's keys could not be fetched.",
            },
        };
        fixed.into()
    }
}

/// What to do about two providers that could claim the same token.
pub(crate) const APART: &str =
    "Put the keys into one row, set algorithms so that they differ, or disable one.";

pub(crate) const ALGORITHMS: &str = "Supported algorithms are RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA (Ed25519), HS256, HS384 and HS512.";

/// A list of untrusted texts, at most eight.
fn list(texts: &[String]) -> String {
    texts
        .iter()
        .take(8)
        .map(|text| quoted(text))
        .collect::<Vec<_>>()
        .join(", ")
}
