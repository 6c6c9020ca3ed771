//! Presenting, verifying, counting and caching tokens.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use pg_session_jwt_jose::{
    Clock, MAX_TOKEN_BYTES, Rejected, Rejection, Stage, TrustedKeys, verify,
};
use serde_json::Map;

use super::clock;
use super::identity::{self, Identity};
use super::trust::{Keys, Source, enter, session_keys};
use crate::datum;
use crate::error::{self, Error};
use crate::guc::{self, Presentation, Progress};
use crate::memory;
use crate::providers;
use crate::shared;

/// Verifies a token that is, or is about to be, in force: key, clock and policy, and replay, unless its
/// id has been counted. Updates the progress in `presented`.
pub(super) fn accept(presented: &mut Presentation, keys: &Keys) -> Result<Rc<Identity>, Error> {
    let identity = verified(&presented.token, keys)?;
    if !presented.progress.counted
        && let Some(jti) = replay_id(&identity)
    {
        count(jti).map_err(Rejected::from)?;
        presented.progress.counted = true;
    }
    presented.progress.used = true;
    Ok(identity)
}

/// Counts a token id, which must be greater than all that were counted before.
fn count(jti: i64) -> Result<(), Rejection> {
    let last = guc::last_id();
    if !guc::knows_ids() || last.is_some_and(|last| jti <= last) {
        return Err(Rejection::Replayed { jti, last });
    }
    guc::accept_id(jti);
    Ok(())
}

/// The token's id, if it must increase: an integer, under a key that came with the connection.
fn replay_id(identity: &Identity) -> Option<i64> {
    let startup_key = identity.source == Source::SessionKeys && guc::jwk_came_with_connection();
    let token = identity.token.as_ref()?;
    token.claims.integer_id.filter(|_| startup_key)
}

/// Counts the id of a token that is being presented under a startup key, if the token is valid.
/// `check_jwt` in `guc` says why this early. There may be no transaction, so no catalog is read: if a
/// provider is registered, the token will be rejected anyway.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn judge(token: &[u8]) -> Result<bool, Error> {
    let keys = match session_keys() {
        Ok(Some(keys)) => keys,
        Err(Error::OutOfMemory) => return Err(Error::OutOfMemory),
        Ok(None) | Err(_) => return Ok(false),
    };
    memory::room_to_verify(token)?;
    let accepted = verify::<Rejected>(
        token,
        TrustedKeys::Set(&keys),
        clock::now(),
        shared::memory_at_hand(),
    );
    Ok(accepted.is_ok_and(|accepted| {
        let id = accepted.token.claims.integer_id;
        id.is_none_or(|jti| count(jti).is_ok())
    }))
}

/// Tokens that trusted keys signed. Their times are checked at each use.
struct Kept {
    /// Oldest first.
    tokens: Vec<(Box<[u8]>, Rc<Identity>)>,
    /// The [`guc::jwk_epoch`] that they belong to.
    epoch: u64,
}

/// A pooled connection serves a few users in turn; each cached token costs up to 50 kB.
const TOKENS_KEPT: usize = 8;

thread_local! {
    // Never dropped: at process exit Postgres's memory is not ours to free.
    static KEPT: ManuallyDrop<RefCell<Kept>> = const {
        ManuallyDrop::new(RefCell::new(Kept { tokens: Vec::new(), epoch: 0 }))
    };
}

/// Verifies a token against the trusted keys and the clock. Caches verified tokens; this does not put
/// them in force.
fn verified(token: &[u8], keys: &Keys) -> Result<Rc<Identity>, Error> {
    let now = clock::now();
    if let Some(identity) = kept(token, keys, now)? {
        identity.check_time(now)?;
        return Ok(identity);
    }
    let (of_session, registered);
    let trusted = match keys {
        Keys::Providers => {
            registered = providers::Registered::default();
            TrustedKeys::Providers(&registered)
        }
        Keys::Session => {
            of_session = session_keys()?;
            of_session
                .as_deref()
                .map_or(TrustedKeys::None, TrustedKeys::Set)
        }
        Keys::None => TrustedKeys::None,
    };
    memory::room_to_verify(token)?;
    let accepted = verify::<Error>(token, trusted, now, shared::memory())?;
    let identity = Rc::new(Identity::from_token(accepted, keys.source())?);
    KEPT.with(|kept| {
        let tokens = &mut kept.borrow_mut().tokens;
        // It may have been signed by a key that has changed since.
        tokens.retain(|(text, _)| !is_same(text, token));
        if tokens.len() == TOKENS_KEPT {
            tokens.remove(0);
        }
        tokens.push((token.into(), Rc::clone(&identity)));
    });
    Ok(identity)
}

/// Tokens of one issuer have their beginning in common: their ends are compared first.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.last_chunk::<16>() == other.last_chunk::<16>() && one == other
}

/// The identity of a token that was verified before, with the keys that are trusted now.
fn kept(token: &[u8], keys: &Keys, now: Clock) -> Result<Option<Rc<Identity>>, Error> {
    let identity = KEPT.with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.epoch != guc::jwk_epoch() {
            kept.tokens.clear();
            kept.epoch = guc::jwk_epoch();
        }
        let known = kept.tokens.iter().find(|(text, _)| is_same(text, token));
        known.map(|(_, identity)| Rc::clone(identity))
    });
    let Some(identity) = identity.filter(|identity| identity.source == keys.source()) else {
        return Ok(None);
    };
    let is_current = match &identity.signer {
        Some(signer) => signer.is_among(&providers::of_issuer(signer.provider.issuer())?, now),
        None => true,
    };
    Ok(is_current.then_some(identity))
}

/// Verifies a token and puts it in force, for the session or (`is_local`) the transaction.
///
/// # Errors
/// If it is not accepted; then nothing changes.
pub(crate) fn present(token: Option<&[u8]>, is_local: bool) -> Result<(), Error> {
    let (presented, identity) = examine(token)?;
    put_in_force(&presented, &identity, is_local);
    Ok(())
}

/// Verifies a token that is about to be put in force.
pub(super) fn examine(token: Option<&[u8]>) -> Result<(Presentation, Rc<Identity>), Error> {
    enter()?;
    let missing = || Error::from(Rejection::Missing);
    audited(token.ok_or_else(missing).and_then(|token| {
        let mut presented = Presentation {
            // One byte over the limit is enough for it to be refused as too long.
            token: token.get(..=MAX_TOKEN_BYTES).unwrap_or(token).to_vec(),
            progress: Progress::default(),
        };
        let identity = accept(&mut presented, &Keys::trusted()?)?;
        identity.keep_keys_fresh(clock::now())?;
        Ok((presented, identity))
    }))
}

pub(super) fn put_in_force(presented: &Presentation, identity: &Identity, is_local: bool) {
    guc::set_jwt(
        &datum::c_string(&presented.token),
        is_local,
        presented.progress,
    );
    announce(identity);
}

/// Presents the token in PostgREST's Authorization header (RFC 6750 section 2.1) for the transaction;
/// none if the header has none.
///
/// # Errors
/// As [`present`], and if `request.headers` is not a JSON object.
pub(crate) fn present_authorization_header() -> Result<(), Error> {
    let headers = match guc::request_headers() {
        Some(headers) => identity::read_parameter("request.headers", headers)?.1,
        None => Map::new(),
    };
    let value = headers
        .get("authorization")
        .and_then(|value| value.as_str())
        .unwrap_or_default();
    match value.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            present(Some(token.trim().as_bytes()), true)
        }
        _ => {
            guc::clear_jwt(true);
            Ok(())
        }
    }
}

/// Verifies a token without putting it in force. It may have been used before.
///
/// # Errors
/// If it is not accepted.
pub(crate) fn verify_only(token: &[u8]) -> Result<Rc<Identity>, Error> {
    enter()?;
    let identity = audited(Keys::trusted().and_then(|keys| verified(token, &keys)))?;
    identity.keep_keys_fresh(clock::now())?;
    Ok(identity)
}

/// Writes to the audit log that a token is now in force.
pub(super) fn announce(identity: &Identity) {
    if guc::audit_log()
        && let Some(token) = &identity.token
    {
        error::log_accepted(token);
    }
}

/// Writes a rejection to the audit log, and adds to the error that the connection's own keys are
/// ignored, if they are.
pub(super) fn audited<T>(result: Result<T, Error>) -> Result<T, Error> {
    let Err(Error::Rejected(rejected)) = result else {
        return result;
    };
    if guc::audit_log() {
        error::log_rejected(&rejected);
    }
    let is_about_keys = matches!(rejected.reason.stage(), Stage::Key | Stage::Signature);
    let ignored = || Keys::trusted().is_ok_and(|keys| keys.ignores_session_keys());
    Err(if is_about_keys && ignored() {
        Error::OwnKeyIgnored(rejected)
    } else {
        Error::Rejected(rejected)
    })
}
