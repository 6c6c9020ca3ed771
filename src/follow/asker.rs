//! The session: starts a worker, and waits for it.

use std::time::{Duration, Instant};

use pgrx::pg_sys::{self, Oid};

use super::latch;
use super::lock::{Lock, Until};
use super::order::{self, Order, Placed, Started};
use crate::error::Error;

/// What came of [`fetch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A worker has come and gone; what it could, it has written.
    Done,
    /// It is not wanted any more.
    NotDue,
    /// This session's worker is at work.
    Started,
    /// Another one's is.
    Underway,
    /// As many as may be are at work.
    NoPlace,
    /// The server has no background worker left.
    NoWorker,
}

/// So long a worker may take to start. Until it has, another session could start a second one.
const START: Duration = Duration::from_millis(200);

/// Has keys fetched, and waits for that until `until`. `is_due` is asked once no other session can interfere.
///
/// # Errors
/// What `is_due` fails with.
pub(crate) fn fetch(
    order: &Order,
    until: Instant,
    is_due: impl FnOnce() -> Result<bool, Error>,
) -> Result<Outcome, Error> {
    alone(order, is_due, |placed| {
        while !placed.has_ended() {
            if Instant::now() >= until {
                return hand_over(placed);
            }
            latch::wait(until);
        }
        match placed.is_taken() {
            true => Outcome::Done,
            // Others were quicker to take the last place.
            false => Outcome::NoPlace,
        }
    })
}

/// Has keys fetched, and does not wait for them.
///
/// # Errors
/// What `is_due` fails with.
pub(crate) fn start(
    order: &Order,
    is_due: impl FnOnce() -> Result<bool, Error>,
) -> Result<Outcome, Error> {
    alone(order, is_due, hand_over)
}

/// Waits until the worker has its order, which goes with what this session knows of it.
fn hand_over(placed: &Placed) -> Outcome {
    /// Taking it wakes nobody.
    const LOOK: Duration = Duration::from_millis(1);
    let until = Instant::now() + START;
    while !placed.is_taken() {
        if placed.has_ended() {
            return Outcome::NoPlace;
        }
        if Instant::now() >= until {
            return Outcome::NoWorker;
        }
        latch::wait(Instant::now() + LOOK);
    }
    Outcome::Started
}

/// Starts a worker, and waits for its end until `until`.
pub(crate) fn run(worker: pg_sys::BackgroundWorker, until: Instant) {
    if let Some(worker) = Started::new(worker) {
        while !worker.has_ended() && Instant::now() < until {
            latch::wait(until);
        }
        worker.close();
    }
}

/// Waits a moment for what another session does.
pub(crate) fn pause() {
    const MOMENT: Duration = Duration::from_millis(10);
    latch::wait(Instant::now() + MOMENT);
}

/// **The rule that says that there is one fetch at a time**: of all sessions, the one with the lock starts a
/// worker, if none is at work. After an ERROR the lock goes with the transaction.
fn alone(
    order: &Order,
    is_due: impl FnOnce() -> Result<bool, Error>,
    wait: impl FnOnce(&Placed) -> Outcome,
) -> Result<Outcome, Error> {
    let database = Oid::from(order.database);
    let asking = Lock::asking(database, &order.provider);
    if !asking.try_take(Until::TransactionEnd) {
        return Ok(Outcome::Underway);
    }
    let outcome = if !Lock::fetching(database, &order.provider).is_free() {
        Ok(Outcome::Underway)
    } else if !is_due()? {
        Ok(Outcome::NotDue)
    } else if !Lock::is_place_free(database) {
        Ok(Outcome::NoPlace)
    } else {
        Ok(match order::place(order) {
            None => Outcome::NoWorker,
            Some(placed) => {
                let outcome = wait(&placed);
                placed.close();
                outcome
            }
        })
    };
    asking.release(Until::TransactionEnd);
    outcome
}
