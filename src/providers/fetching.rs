//! Has keys fetched: for a token that needs one, when they have become old, and when an administrator asks.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use pg_session_jwt_fetch::schedule;
use pg_session_jwt_jose::{NoAttempt, Provider};

use super::following::{Following, Last, now};
use super::look_up;
use super::{ISSUER, signal};
use crate::datum;
use crate::error::Error;
use crate::follow::{self, Outcome};
use crate::guc;
use crate::table;

/// A worker was started for this session, and has not written.
struct InVain {
    provider: String,
    /// The [`signal::number`] then. What changes later may have been in its way.
    number: u64,
    at: Instant,
    has_ended: bool,
}

thread_local! {
    // Never dropped, like the caches in `session`.
    static IN_VAIN: ManuallyDrop<RefCell<Vec<InVain>>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// The one for this provider, as long as another worker would fare no better.
fn in_vain<T>(provider: &Provider, body: impl FnOnce(&mut InVain) -> T) -> Option<T> {
    IN_VAIN.with(|known| {
        let mut known = known.borrow_mut();
        let number = signal::number();
        known.retain(|one| one.number == number && one.at.elapsed() < schedule::COOL_DOWN);
        let found = known.iter_mut().find(|one| one.provider == provider.name);
        found.map(body)
    })
}

/// Whether a worker for this provider has ended without having written: it may have waited for a lock that this
/// session itself holds.
fn was_in_vain(provider: &Provider) -> bool {
    in_vain(provider, |one| one.has_ended).unwrap_or(false)
}

/// To be asked while no worker is at work.
fn turns_out_in_vain(provider: &Provider) -> bool {
    in_vain(provider, |one| one.has_ended = true).is_some()
}

/// Has the keys of a provider fetched, since a token needs one that is not there; waits for that as long as
/// `pg_session_jwt.fetch_wait` says. `None`: they have been, so that it is worth looking again.
///
/// # Errors
/// If it is cancelled, and if a row cannot be read.
pub(super) fn fetch_missing(provider: &Provider) -> Result<Option<NoAttempt>, Error> {
    let until = Instant::now() + guc::fetch_wait();
    let Some(before) = look_up::following(provider)? else {
        return Ok(Some(NoAttempt::NoAddress));
    };
    loop {
        let Some(following) = look_up::following(provider)? else {
            return Ok(None);
        };
        if following.last != before.last {
            return Ok(None);
        }
        if let Some(obstacle) = following.obstacle() {
            return Ok(Some(obstacle));
        }
        let seconds_left = following.may_ask_from() - now();
        if seconds_left > 0.0 {
            return Ok(Some(NoAttempt::CoolingDown { seconds_left }));
        }
        if was_in_vain(provider) {
            return Ok(Some(NoAttempt::StillFetching));
        }
        let is_due = || {
            signal::listen();
            if turns_out_in_vain(provider) {
                return Ok(false);
            }
            let following = look_up::following(provider)?;
            Ok(following.is_some_and(|following| following.may_ask_from() <= now()))
        };
        let outcome = follow::fetch(&following.order(&provider.name), until, is_due)?;
        signal::listen();
        let number = signal::number();
        if matches!(outcome, Outcome::Done | Outcome::Started) && is_unchanged(provider, &before)? {
            let one = InVain {
                provider: provider.name.clone(),
                number,
                at: Instant::now(),
                has_ended: outcome == Outcome::Done,
            };
            IN_VAIN.with(|known| known.borrow_mut().push(one));
        }
        if Instant::now() >= until {
            return Ok(match outcome {
                _ if !is_unchanged(provider, &before)? => None,
                Outcome::NoPlace => Some(NoAttempt::NoPlace),
                Outcome::NoWorker => Some(NoAttempt::NoWorker),
                _ => Some(NoAttempt::StillFetching),
            });
        }
        if matches!(
            outcome,
            Outcome::Underway | Outcome::NoPlace | Outcome::NoWorker
        ) {
            follow::pause();
            signal::listen();
        }
    }
}

fn is_unchanged(provider: &Provider, before: &Following) -> Result<bool, Error> {
    let following = look_up::following(provider)?;
    Ok(following.is_some_and(|following| following.last == before.last))
}

/// Has the keys of a provider fetched if they have become old, and does not wait for them. Returns when to ask
/// again, in seconds since the epoch.
///
/// # Errors
/// As [`fetch_missing`].
pub(crate) fn keep_fresh(provider: &Provider) -> Result<f64, Error> {
    const A_MOMENT: f64 = 5.0;
    let Some(following) = look_up::following(provider)? else {
        return Ok(f64::MAX);
    };
    if following.obstacle().is_some() {
        return Ok(now() + A_MOMENT);
    }
    if now() < following.due_from() {
        return Ok(following.due_from());
    }
    if !was_in_vain(provider) {
        start(provider, &following)?;
    }
    Ok(now() + A_MOMENT)
}

/// Has keys fetched that are due, and does not wait for it.
fn start(provider: &Provider, following: &Following) -> Result<Outcome, Error> {
    follow::start(&following.order(&provider.name), || {
        signal::listen();
        let following = look_up::following(provider)?;
        Ok(following.is_some_and(|following| following.due_from() <= now()))
    })
}

/// The same for a provider by its name, for who has the time: waits until `until` for a place.
///
/// # Errors
/// As [`fetch_missing`].
pub(crate) fn keep_fresh_by_name(
    name: &str,
    issuer: Option<&str>,
    until: Instant,
) -> Result<(), Error> {
    signal::listen();
    if !look_up::registered() {
        return Ok(());
    }
    let rows = look_up::of_issuer(issuer)?;
    let Some(provider) = rows.iter().find(|row| row.name == name) else {
        return Ok(());
    };
    while let Some(following) = look_up::following(provider)?
        && following.obstacle().is_none()
        && Instant::now() < until
        && matches!(
            start(provider, &following)?,
            Outcome::NoPlace | Outcome::NoWorker
        )
    {
        follow::pause();
    }
    Ok(())
}

/// What `auth.refresh()` says of a provider.
pub(crate) struct Refreshed {
    /// Its name.
    pub provider: String,
    /// How many keys count; or why there was no success.
    pub keys: Result<usize, String>,
}

/// Has the keys of a provider fetched now, and waits for that.
///
/// # Errors
/// As [`fetch_missing`].
fn refresh_one(provider: &Provider) -> Result<Refreshed, Error> {
    /// Longer than a worker works.
    const MOST: Duration = Duration::from_secs(15);
    let refreshed = |keys| Refreshed {
        provider: provider.name.clone(),
        keys,
    };
    let until = Instant::now() + MOST;
    let Some(before) = look_up::following(provider)? else {
        let why =
            "the provider does not follow its issuer: jwks has its keys, and it has no jwks_url";
        return Ok(refreshed(Err(why.into())));
    };
    if let Some(obstacle) = before.obstacle() {
        return Ok(refreshed(Err(before.standing(Some(obstacle)).hint())));
    }
    loop {
        let outcome = follow::fetch(&before.order(&provider.name), until, || Ok(true))?;
        signal::listen();
        let last = look_up::following(provider)?;
        let last = last.as_ref().and_then(|following| following.last.as_ref());
        // What another session had fetched meanwhile may have begun before this call.
        if outcome == Outcome::Done {
            let last = last.filter(|last| Some(*last) != before.last.as_ref());
            return Ok(refreshed(match last {
                Some(Last {
                    error: None, keys, ..
                }) => Ok(*keys),
                Some(Last {
                    error: Some(why), ..
                }) => Err(why.clone()),
                None => Err(
                    "nothing was written: commit the provider's row first, or see the server log"
                        .into(),
                ),
            }));
        }
        if Instant::now() >= until {
            let why = match outcome {
                Outcome::NoPlace => NoAttempt::NoPlace,
                Outcome::NoWorker => NoAttempt::NoWorker,
                _ => NoAttempt::StillFetching,
            };
            return Ok(refreshed(Err(before.standing(Some(why)).hint())));
        }
        follow::pause();
    }
}

/// Has the keys of a provider fetched now; `None`: of all that are enabled and follow their issuer. They are
/// waited for one after the other.
///
/// # Errors
/// [`Error::NoProvider`], and if it is cancelled.
pub(crate) fn refresh(name: Option<&str>) -> Result<Vec<Refreshed>, Error> {
    signal::listen();
    if !look_up::registered() {
        return name.map_or(Ok(Vec::new()), |name| Err(Error::NoProvider(name.into())));
    }
    let issuers = match (signal::table(), name) {
        (None, _) => Vec::new(),
        (Some(table), Some(name)) => {
            let value = datum::to_server(name).map_err(Error::Unrepresentable)?;
            table::texts_where(table, ISSUER, c"name", value.to_bytes())
        }
        (Some(table), None) => table::distinct_texts(table, ISSUER),
    };
    let mut all = Vec::new();
    for issuer in issuers {
        let issuer = issuer.map(datum::from_server).transpose();
        let rows = look_up::of_issuer(issuer.map_err(Error::Unrepresentable)?.as_deref())?;
        for row in rows.iter() {
            let is_meant = match name {
                Some(name) => row.name == name,
                None => row.is_enabled() && row.follows(),
            };
            if is_meant {
                all.push(refresh_one(row)?);
            }
        }
    }
    match name {
        Some(name) if all.is_empty() => Err(Error::NoProvider(name.into())),
        _ => Ok(all),
    }
}
