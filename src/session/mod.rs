//! Who the session's user is, and the caches that make asking cheap.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `trust` | which source to trust, and which keys |
//! | `accept` | presenting, verifying, counting and caching tokens |
//! | `login` | database roles |
//! | `identity` | the identity that SQL can ask about |
//! | `clock` | the time by which tokens are judged |
//!
//! Everything here is derived from the parameters in `guc` and the table in `providers`, and may be
//! forgotten at any time.

mod accept;
mod clock;
mod identity;
mod login;
mod trust;

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

pub(crate) use accept::{judge, present, present_authorization_header, verify_only};
pub(crate) use identity::Identity;
pub(crate) use login::{login, logout};
pub(crate) use trust::{Source, check_keys, pin_keys};

use crate::error::{self, Error};
use crate::guc::{self, Presentation};
use crate::providers::{self, Refreshed};
use trust::{Keys, Trust};

/// What need not be derived again. All of it may be dropped at any time.
struct Caches {
    /// The identity in force, with the [`guc::epoch`] it was derived at.
    identity: Option<(u64, Rc<Identity>)>,
    /// The last `request.jwt.claims` seen.
    request_claims: Option<(Vec<u8>, Rc<Identity>)>,
}

thread_local! {
    // Never dropped: at process exit Postgres's memory is not ours to free.
    static CACHES: ManuallyDrop<RefCell<Caches>> = const {
        ManuallyDrop::new(RefCell::new(Caches { identity: None, request_claims: None }))
    };
}

/// A value derived from the identity is valid while the stamp stays the same. `None` when the identity
/// must be asked for: in a new statement, and where it may not be cached.
#[inline]
pub(crate) fn stamp() -> Option<u64> {
    clock::is_checked().then(guc::epoch)
}

/// Who the session's user is, now.
///
/// # Errors
/// If the token in force is not accepted (any more), and if keys or claims are invalid.
pub(crate) fn identity() -> Result<Rc<Identity>, Error> {
    clock::unchecked();
    accept::audited(in_force())
}

fn in_force() -> Result<Rc<Identity>, Error> {
    trust::enter()?;
    // Read first: a change in the meantime must count as one.
    let epoch = guc::epoch();
    let known = CACHES.with(|caches| caches.borrow().identity.clone());
    let now = clock::now();
    let identity = match known {
        Some((derived_at, identity)) if derived_at == epoch && identity.is_fresh(now) => {
            identity.check_time(now)?;
            identity
        }
        _ => derive()?,
    };
    identity.keep_keys_fresh(now)?;
    // request.jwt.claims can change without notice: nothing that depends on them may be cached.
    let may_change = match identity.source {
        Source::RequestClaims => true,
        Source::None => !guc::request_claims_are_verified(),
        Source::Claims | Source::Providers | Source::SessionKeys => false,
    };
    if !may_change {
        let kept = Some((epoch, Rc::clone(&identity)));
        CACHES.with(|caches| caches.borrow_mut().identity = kept);
        if epoch == guc::epoch() {
            clock::checked();
        }
    }
    Ok(identity)
}

fn derive() -> Result<Rc<Identity>, Error> {
    let trust = Trust::in_force()?;
    let source = trust.source();
    match (trust, Presentation::current()) {
        (Trust::Claims(claims), _) => Identity::from_parameter(source, claims).map(Rc::new),
        (trust, Some(presented)) => from_token(presented, &trust.keys()),
        (Trust::RequestClaims(claims), None) => from_request(claims),
        (Trust::Keys(_) | Trust::Nothing, None) => Ok(Rc::new(Identity::nobody(source))),
    }
}

fn from_token(mut presented: Presentation, keys: &Keys) -> Result<Rc<Identity>, Error> {
    let before = presented.progress;
    let identity = accept::accept(&mut presented, keys)?;
    if presented.progress != before {
        Presentation::note(presented.progress);
    }
    if !before.used {
        accept::announce(&identity);
    }
    Ok(identity)
}

fn from_request(claims: Vec<u8>) -> Result<Rc<Identity>, Error> {
    let known = CACHES.with(|caches| caches.borrow().request_claims.clone());
    if let Some((text, identity)) = known
        && text == claims
    {
        return Ok(identity);
    }
    let source = Source::RequestClaims;
    let identity = match Identity::from_parameter(source, claims.clone()) {
        Ok(identity) => identity,
        // Not an error in every policy: any user can set them, and then has no identity.
        Err(Error::Parameter { detail, .. }) => Identity::nobody_because(source, detail),
        Err(other) => return Err(other),
    };
    let identity = Rc::new(identity);
    CACHES.with(|caches| {
        caches.borrow_mut().request_claims = Some((claims, Rc::clone(&identity)));
    });
    Ok(identity)
}

/// Has the keys of a provider fetched now, or those of all that follow their issuer.
///
/// # Errors
/// As [`providers::refresh`], and in a session in which a parameter was refused: where to ask, and whom to believe,
/// would not be what the administrator has set.
pub(crate) fn refresh(provider: Option<&str>) -> Result<Vec<Refreshed>, Error> {
    trust::enter()?;
    providers::refresh(provider)
}

/// One sentence on why there is no `sub`, for an identity derived without an error.
pub(crate) fn problem(identity: &Identity) -> Option<String> {
    let absent = "No token has been presented to this session, or it was forgotten.";
    Some(match (identity.subject(), identity.source) {
        (Ok(Some(_)), _) => return None,
        (Err(error), _) => error.sentence(),
        _ if identity.claims().is_some() => "The claims have no \"sub\".".into(),
        (_, Source::SessionKeys) => match trust::session_keys() {
            Err(error) => error.sentence(),
            Ok(_) => absent.into(),
        },
        (_, Source::Providers) if guc::has_jwk() => {
            format!("{absent} {}", error::OWN_KEY_IGNORED)
        }
        (_, Source::Providers) => absent.into(),
        (_, source) => match &identity.fault {
            Some(fault) => format!("{} is ignored: {fault}.", source.name()),
            None => "Nothing is trusted here: no provider is registered, the connection has no keys, and no claims are set.".into(),
        },
    })
}

/// The source in force; if it cannot be determined, the one that prevents it.
pub(crate) fn source() -> Source {
    match Trust::in_force() {
        Ok(trust) => trust.source(),
        Err(Error::LaterKeys) => Source::SessionKeys,
        Err(_) => Source::Providers,
    }
}
