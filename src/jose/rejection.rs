//! Why a token was rejected: one value for each reason, with the stage it belongs to.

use jsonwebtoken::Algorithm;

use crate::json::Fault;

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
    /// What the owner of the trusted keys requires beyond that.
    Policy,
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

/// What a text looks like that is not a JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// As it stands in an Authorization header.
    Bearer,
    /// With quotes around it.
    Quoted,
    /// With white space or a line end around it.
    Blank,
    /// Five parts: a JWE (RFC 7516 section 7.1).
    Encrypted,
    /// No dots.
    Opaque,
}

/// Why a token was rejected. What a message quotes from a token is escaped and truncated
/// ([`quoted`](crate::quoted)).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum Rejection {
    /// No token was given where one is required.
    Missing,
    TooLong {
        /// in bytes
        limit: usize,
    },
    NotThreeParts {
        found: usize,
        looks: Option<Looks>,
    },
    NotBase64Url(Part, Option<Looks>),
    HeaderNotObject(Option<Fault>),
    HeaderExtension(&'static str),
    /// Checked before the signature is verified, so that no two readers can differ about what was
    /// signed.
    PayloadDuplicateMember(String),

    NoAlgorithm,
    UnknownAlgorithm(String),
    NotAJwt(String),
    HeaderMemberNotString(&'static str),

    /// No keys are trusted.
    NoTrustedKeys,
    /// No enabled provider has this `iss`.
    UnknownIssuer {
        issuer: Option<String>,
        near: Option<Near>,
    },
    NoKeyFits {
        algorithm: Algorithm,
        key_id: Option<String>,
        /// The session's keys; a provider's are not shown.
        trusted: Option<String>,
        /// What keeps a trusted key from fitting, if it is worth telling.
        misfit: Option<Misfit>,
        /// If the provider follows its issuer.
        standing: Option<Box<Standing>>,
    },
    /// More than one provider has a matching key.
    SeveralProviders,

    BadSignature {
        algorithm: Algorithm,
        tried: usize,
        fitting: usize,
        /// Whether the header has a `nonce`.
        nonce: bool,
    },

    PayloadNotObject(Option<Fault>),
    ClaimType {
        name: &'static str,
        expected: &'static str,
    },
    /// The claims are JSON, but this database cannot store them.
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

    /// With the token's `aud`.
    Audience(Vec<String>),
    /// With the token's `azp`, or `client_id` where it has none: the claim and its value.
    AuthorizedParty(Option<(&'static str, String)>),
    MissingClaim(String),
    /// The role that the token names, or none.
    Role {
        named: Option<String>,
        why: RoleFault,
    },

    /// `jti` did not increase.
    Replayed {
        jti: i64,
        /// The highest accepted before, if known.
        last: Option<i64>,
    },
}

/// A provider that was probably meant by an unknown issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Near {
    /// It has this issuer but is disabled.
    Disabled(String),
    /// Its issuer differs only by a trailing slash.
    Slash(String),
    /// Its issuer differs only in what is before `://`.
    Scheme(String),
    /// Its issuer is at the same host. Its name is not for everyone who makes up an issuer.
    Host,
    /// Its issuer has the same path at another host.
    Path,
    /// Its issuer is for the same tenant of Entra, whose versions 1 and 2 differ.
    Tenant,
}

/// What keeps a key from fitting a token that it looks made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It is a secret that is too short for the algorithm.
    ShortSecret,
    /// It has a member `issuer`, which is not the token's.
    OtherIssuer,
}

/// Where the keys of a provider stand that follows its issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What became of the last attempt.
    pub last: Attempt,
    /// Why there was no attempt just now.
    pub why: Option<NoAttempt>,
}

/// An attempt to fetch keys.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "times are in seconds, as the fields are named")]
pub enum Attempt {
    /// There was none.
    None,
    /// The keys are those that the issuer published so long ago.
    Fetched { seconds_ago: f64 },
    /// It failed.
    Failed {
        seconds_ago: f64,
        /// The keys that count are of so long ago.
        fetched_seconds_ago: Option<f64>,
    },
    /// The last good ones are so old that they do not count any more.
    Stale { fetched_seconds_ago: f64 },
}

/// Why keys are not fetched for a token.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum NoAttempt {
    /// They are being fetched, and it takes longer than a statement waits.
    StillFetching,
    /// There was an attempt a moment ago.
    CoolingDown { seconds_left: f64 },
    /// Nobody who may decide it has allowed requests to this host.
    NotAllowed { host: String },
    /// The issuer is no address.
    NoAddress,
    /// A standby does not fetch.
    Standby,
    /// A parallel worker does not.
    ParallelWorker,
    /// As many keys as may be are being fetched.
    NoPlace,
    /// There is no background worker left.
    NoWorker,
}

/// Why a token may not assume the database role that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleFault {
    /// The claim is absent or not a string, and there is no default.
    Absent,
    /// It is not in `allowed_roles`.
    NotAllowed,
    /// It is a superuser, whatever the list says.
    Superuser,
}

/// A rejection, and the providers that the token could belong to, once known.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Why.
    pub reason: Rejection,
    /// The providers' names: one, or all that have the token's issuer if none of them has a key for it.
    pub providers: Vec<String>,
}

impl From<Rejection> for Rejected {
    fn from(reason: Rejection) -> Self {
        Self {
            reason,
            providers: Vec::new(),
        }
    }
}

impl Rejection {
    /// The stage that failed.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Missing
            | Self::TooLong { .. }
            | Self::NotThreeParts { .. }
            | Self::NotBase64Url(..)
            | Self::HeaderNotObject(_)
            | Self::HeaderExtension(_)
            | Self::PayloadDuplicateMember(_) => Stage::Structure,
            Self::NoAlgorithm
            | Self::UnknownAlgorithm(_)
            | Self::NotAJwt(_)
            | Self::HeaderMemberNotString(_) => Stage::Header,
            Self::NoTrustedKeys
            | Self::UnknownIssuer { .. }
            | Self::NoKeyFits { .. }
            | Self::SeveralProviders => Stage::Key,
            Self::BadSignature { .. } => Stage::Signature,
            Self::PayloadNotObject(_) | Self::ClaimType { .. } | Self::NotRepresentable(_) => {
                Stage::Payload
            }
            Self::Expired { .. } | Self::NotYetValid { .. } | Self::IssuedInFuture { .. } => {
                Stage::Time
            }
            Self::Audience(_)
            | Self::AuthorizedParty(_)
            | Self::MissingClaim(_)
            | Self::Role { .. }
            | Self::Replayed { .. } => Stage::Policy,
        }
    }
}
