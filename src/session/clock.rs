//! The time by which tokens are judged, and the statement in which that was last done.

#![allow(unsafe_code, reason = "the clock of Postgres")]

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use pg_session_jwt_jose::Clock;
use pgrx::pg_sys;

use crate::datum;
use crate::guc;

/// The statement, by its start time, in which the identity was last checked against the clock.
static CHECKED_IN: AtomicI64 = AtomicI64::new(i64::MIN);

/// Whether the identity in force has been checked in the current statement.
#[inline]
pub(super) fn is_checked() -> bool {
    CHECKED_IN.load(Relaxed) == statement_start()
}

/// Records that it has been checked.
pub(super) fn checked() {
    CHECKED_IN.store(statement_start(), Relaxed);
}

/// Records that it must be checked.
pub(super) fn unchecked() {
    CHECKED_IN.store(i64::MIN, Relaxed);
}

#[inline]
fn statement_start() -> i64 {
    unsafe extern "C" {
        /// `src/backend/access/transam/xact.c`: returns a static variable, cannot fail. Declared here
        /// because pgrx's own declaration guards against a longjmp, which costs more than the call.
        #[link_name = "GetCurrentStatementStartTimestamp"]
        safe fn get_current_statement_start_timestamp() -> i64;
    }
    get_current_statement_start_timestamp()
}

/// The time, with the administrator's tolerance.
pub(super) fn now() -> Clock {
    // A parallel worker must not reject as expired what its leader accepted when the query began.
    // SAFETY: plain reads.
    let microseconds = unsafe {
        if pg_sys::ParallelWorkerNumber >= 0 {
            statement_start()
        } else {
            pg_sys::GetCurrentTimestamp()
        }
    };
    Clock {
        now: datum::seconds(microseconds),
        skew: guc::clock_skew(),
        stale: guc::fetch_stale(),
    }
}
