//! Which source to trust, and which keys.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use pg_session_jwt_jose::{KeySet, MAX_KEY_SET_BYTES};

use crate::datum;
use crate::error::{self, Error};
use crate::guc;
use crate::memory;
use crate::providers;

/// Where an identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `pg_session_jwt.claims`
    Claims,
    /// `auth.providers`
    Providers,
    /// `pg_session_jwt.jwk`
    SessionKeys,
    /// `request.jwt.claims`
    RequestClaims,
    /// No source.
    None,
}

impl Source {
    /// As `auth.status()` and errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claims => "pg_session_jwt.claims",
            Self::Providers => "auth.providers",
            Self::SessionKeys => "pg_session_jwt.jwk",
            Self::RequestClaims => "request.jwt.claims",
            Self::None => "none",
        }
    }
}

/// Runs before any answer that depends on which source is trusted.
pub(super) fn enter() -> Result<(), Error> {
    providers::listen();
    match guc::refused_parameter() {
        Some((by, name)) => Err(Error::RefusedParameter { by, name }),
        None => Ok(()),
    }
}

/// What is trusted. Exactly one source is in force.
pub(super) enum Trust {
    /// Claims set by a superuser, or by a role that a superuser allows to: no token is needed.
    Claims(Vec<u8>),
    /// A token is accepted if one of these keys signed it.
    Keys(Keys),
    /// Claims that PostgREST has verified, and that any user can set.
    RequestClaims(Vec<u8>),
    /// Nothing: no user has an identity.
    Nothing,
}

impl Trust {
    /// **The rule that says which source to trust**: the first one that exists, and no other.
    pub fn in_force() -> Result<Self, Error> {
        if let Some(claims) = guc::claims() {
            return Ok(Self::Claims(claims));
        }
        match Keys::trusted()? {
            Keys::None => Ok(guc::request_claims().map_or(Self::Nothing, Self::RequestClaims)),
            keys => Ok(Self::Keys(keys)),
        }
    }

    /// The keys to verify a presented token with. If the source has none, presenting a token is an
    /// error.
    pub fn keys(self) -> Keys {
        match self {
            Self::Keys(keys) => keys,
            Self::Claims(_) | Self::RequestClaims(_) | Self::Nothing => Keys::None,
        }
    }

    pub fn source(&self) -> Source {
        match self {
            Self::Claims(_) => Source::Claims,
            Self::Keys(keys) => keys.source(),
            Self::RequestClaims(_) => Source::RequestClaims,
            Self::Nothing => Source::None,
        }
    }
}

/// The keys that tokens are verified with.
pub(super) enum Keys {
    /// The keys of the providers registered in this database, each for its own issuer.
    Providers,
    /// The keys that the connection started with, or that auth.init(jwks) pinned.
    Session,
    /// No keys.
    None,
}

impl Keys {
    /// **The rule that says which keys count**: the database's, while it has a provider, enabled or not;
    /// otherwise the connection's.
    pub fn trusted() -> Result<Self, Error> {
        if providers::registered() {
            Ok(Self::Providers)
        } else if guc::has_jwk() {
            Ok(Self::Session)
        } else if guc::jwk_is_in_file() {
            Err(Error::LaterKeys)
        } else {
            Ok(Self::None)
        }
    }

    pub fn source(&self) -> Source {
        match self {
            Self::Providers => Source::Providers,
            Self::Session => Source::SessionKeys,
            Self::None => Source::None,
        }
    }

    /// Whether the connection has keys of its own that are ignored.
    pub fn ignores_session_keys(&self) -> bool {
        matches!(self, Self::Providers) && guc::has_jwk()
    }
}

/// The session's keys, with the [`guc::jwk_epoch`] at which they were read.
type ReadKeys = (u64, Rc<KeySet>);

thread_local! {
    // Never dropped: at process exit Postgres's memory is not ours to free.
    static SESSION_KEYS: ManuallyDrop<RefCell<Option<ReadKeys>>> =
        const { ManuallyDrop::new(RefCell::new(None)) };
}

/// The session's keys; `None` if there are none.
///
/// # Errors
/// [`Error::KeySet`] for keys that cannot be used.
pub(super) fn session_keys() -> Result<Option<Rc<KeySet>>, Error> {
    let epoch = guc::jwk_epoch();
    let known = SESSION_KEYS.with(|keys| keys.borrow().clone());
    if let Some((read_at, keys)) = known
        && read_at == epoch
    {
        return Ok(Some(keys));
    }
    let Some(jwk) = guc::jwk() else {
        return Ok(None);
    };
    memory::room_to_read(jwk.len())?;
    let keys = Rc::new(KeySet::parse(&jwk)?);
    SESSION_KEYS.with(|known| *known.borrow_mut() = Some((epoch, Rc::clone(&keys))));
    Ok(Some(keys))
}

/// Checks the startup key, if there is one. Warns if there is nothing that could verify a token: that
/// reveals a pooler that drops startup options.
///
/// # Errors
/// [`Error::KeySet`], and [`Error::ProvidersRule`] if the database trusts only its providers.
pub(crate) fn check_keys() -> Result<(), Error> {
    enter()?;
    match Keys::trusted()? {
        keys @ Keys::Providers if keys.ignores_session_keys() => Err(Error::ProvidersRule),
        Keys::Providers => Ok(()),
        Keys::Session => {
            let keys = session_keys()?;
            let ignored = keys.and_then(|keys| keys.ignored());
            error::warn_of_ignored_keys("of this connection", ignored);
            Ok(())
        }
        Keys::None => {
            error::warn(
                "this connection has no key to verify a token with, and no provider is registered",
                "",
                "If its startup options set pg_session_jwt.jwk, a pooler may have dropped them.",
            );
            Ok(())
        }
    }
}

/// Pins the keys of this connection.
///
/// # Errors
/// [`Error::KeySet`] for keys that cannot be used, [`Error::Pinned`] if there are others,
/// [`Error::ProvidersRule`] if the database trusts only its providers.
pub(crate) fn pin_keys(jwks: &[u8]) -> Result<(), Error> {
    enter()?;
    if let Keys::Providers = Keys::trusted()? {
        return Err(Error::ProvidersRule);
    }
    memory::room_to_read(jwks.len().min(MAX_KEY_SET_BYTES))?;
    match guc::jwk() {
        Some(pinned) if pinned == jwks => session_keys().map(|_| ()),
        Some(_) => Err(Error::Pinned),
        None => {
            let ignored = KeySet::parse(jwks)?.ignored();
            error::warn_of_ignored_keys("of this connection", ignored);
            guc::pin_jwk(&datum::c_string(jwks));
            Ok(())
        }
    }
}
