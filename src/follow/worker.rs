//! The worker: fetches first, and connects to the database afterwards.

#![allow(unsafe_code, reason = "the life of a background worker")]

use std::ffi::CStr;
use std::sync::Arc;

use pg_session_jwt_fetch::schedule;
use pg_session_jwt_jose::{KeySet, Published, quoted};
use pgrx::pg_sys;

use super::latch::Latch;
use super::lock::{self, Lock, Until};
use super::order::{self, Order, Received};
use super::store::{self, Attempt};
use crate::error;

/// The symbol of [`pg_session_jwt_fetch_keys`].
pub(super) const FUNCTION: &CStr = c"pg_session_jwt_fetch_keys";

/// What a background worker of ours begins with: it ends when it is told to, wherever it waits.
pub(crate) fn begin() {
    unsafe extern "C-unwind" {
        #[cfg_attr(feature = "pg18", link_name = "pqsignal_be")]
        fn pqsignal(signal: i32, handler: unsafe extern "C-unwind" fn(i32));
        fn die(signal: i32);
    }
    const SIGTERM: i32 = 15;
    lock::release_at_exit();
    // SAFETY: as each background worker does (src/test/modules/worker_spi).
    unsafe {
        pqsignal(SIGTERM, die);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Fetches the keys of one provider. For Postgres to call, in a process of its own.
///
/// # Safety
/// `argument` is the worker's main argument ([`order::place`]).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_session_jwt_fetch_keys(argument: pg_sys::Datum) {
    // SAFETY: the caller's promise; this frame has no destructors.
    unsafe {
        error::guarded(|| {
            begin();
            if let Some(received) = order::receive(argument) {
                fetch_keys(received);
            }
            Ok(())
        });
    }
}

fn fetch_keys(received: Received) {
    let database = pg_sys::Oid::from(received.order.database);
    let is_first = Lock::fetching(database, &received.order.provider).try_take(Until::ProcessEnd);
    if !is_first || !Lock::take_place(database) {
        return;
    }
    let order = received.take();
    let attempt = attempt(&order);
    if let Err(why) = &attempt.keys {
        error::log(&format!(
            "pg_session_jwt: keys of provider {} could not be fetched: {why}",
            quoted(&order.provider)
        ));
    }
    store::connect(database);
    store::store(&order, attempt);
}

/// Fetches the keys, and reads them.
fn attempt(order: &Order) -> Attempt {
    let fetched = pg_session_jwt_fetch::fetch(&order.request, Arc::new(Latch));
    let mut max_age = None;
    let keys = fetched.map_err(|why| why.to_string()).and_then(|fetched| {
        max_age = fetched.max_age;
        let read = KeySet::published(&fetched.body);
        let read = read.map_err(|why| format!("{}: {}", fetched.url, why.detail))?;
        let Published { keys, jwks } = read;
        Ok((jwks.to_string(), keys.ignored_keys().to_vec()))
    });
    let next_in = match &keys {
        Ok(_) => schedule::after_success(order.interval, max_age),
        Err(_) => schedule::after_failures(order.failures.saturating_add(1)),
    };
    Attempt { keys, next_in }
}
