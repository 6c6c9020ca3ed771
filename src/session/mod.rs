//! Who the session's user is, now, and the caches that make asking cheap.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `trust` | whom to trust, and with which keys |
//! | `accept` | tokens: presented, verified, counted, kept |
//! | `login` | database roles |
//! | `identity` | who somebody is, as far as SQL can ask |
//! | `clock` | the time that tokens are measured by |
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
use trust::{Keys, Trust};

/// What has been derived and need not be again. All of it may be dropped at any time.
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

/// What a value derived from the identity may be kept under: it holds while the stamp is the same.
/// `None` when the identity has to be asked for: in a new statement, and where it may not be kept.
#[inline]
pub(crate) fn stamp() -> Option<u64> {
    clock::is_checked().then(guc::epoch)
}

/// Who the session's user is, now.
///
/// # Errors
/// For a token in force that is not accepted (any more), and for keys or claims that are wrong.
pub(crate) fn identity() -> Result<Rc<Identity>, Error> {
    clock::unchecked();
    accept::audited(in_force())
}

fn in_force() -> Result<Rc<Identity>, Error> {
    trust::enter()?;
    // Taken before: what changes in the meantime counts as a change.
    let epoch = guc::epoch();
    let known = CACHES.with(|caches| caches.borrow().identity.clone());
    let identity = match known {
        Some((derived_at, identity)) if derived_at == epoch => {
            identity.check_time(clock::now())?;
            identity
        }
        _ => derive()?,
    };
    // request.jwt.claims can change without a word: nothing may be kept that depends on them.
    if !matches!(identity.source, Source::RequestClaims | Source::None) {
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
        // Not an error in every policy: anybody can set them, and so be nobody.
        Err(Error::Parameter { detail, .. }) => Identity::nobody_because(source, detail),
        Err(other) => return Err(other),
    };
    let identity = Rc::new(identity);
    CACHES.with(|caches| {
        caches.borrow_mut().request_claims = Some((claims, Rc::clone(&identity)));
    });
    Ok(identity)
}

/// One sentence on why there is no `sub`, for an identity that was derived without an error.
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

/// The source in force; where that cannot be found out, the one that is in the way.
pub(crate) fn source() -> Source {
    match Trust::in_force() {
        Ok(trust) => trust.source(),
        Err(Error::LaterKeys) => Source::SessionKeys,
        Err(_) => Source::Providers,
    }
}
