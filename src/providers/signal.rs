//! The tables of providers and of their fetched keys, and the signal that rows have changed.

#![allow(unsafe_code, reason = "invalidation messages")]

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Oid};

use crate::extension;
use crate::guc;
use crate::table;

static NUMBER: AtomicU64 = AtomicU64::new(1);
/// Whether this backend is notified when rows change. Not if the notifying trigger is off, or fires only
/// in some sessions, as ALTER TABLE … ENABLE TRIGGER and pg_restore --disable-triggers leave it.
static NOTIFIED: AtomicBool = AtomicBool::new(true);
/// The table that is listened to; 0 while there is none, and any relation may become it.
static TABLE: AtomicU32 = AtomicU32::new(0);
/// The table of fetched keys; 0 while there is none.
static KEYS: AtomicU32 = AtomicU32::new(0);

/// The trigger of both tables that notifies (sql/auth.sql).
const NOTIFIER: &CStr = c"check_provider";

/// Starts listening.
pub(crate) fn define() {
    // SAFETY: the callback only sets numbers; it stays registered for the life of the process, as the
    // library stays loaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(invalidate), pg_sys::Datum::null());
    }
}

/// `src/backend/utils/cache/inval.c`: called for a relation that may have changed, or with 0 for all of
/// them. It may be called at any point, so it reads no table.
#[pg_guard]
unsafe extern "C-unwind" fn invalidate(_argument: pg_sys::Datum, relation: Oid) {
    let (table, relation) = (TABLE.load(Relaxed), relation.to_u32());
    if table == 0 || relation == 0 || table == relation || KEYS.load(Relaxed) == relation {
        changed();
    }
}

fn changed() {
    NUMBER.fetch_add(1, Relaxed);
    guc::changed();
}

/// Receives what other backends have committed. To be called at the start of each statement: Postgres
/// itself listens only when it locks a table, which a statement need not do.
pub(crate) fn listen() {
    // SAFETY: allowed wherever a lock on a table may be taken.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    if !NOTIFIED.load(Relaxed) {
        changed();
    }
}

/// A number that changes whenever rows may have changed. To be read before the rows: what is read later is
/// at least as new.
pub(super) fn number() -> u64 {
    NUMBER.load(Relaxed)
}

/// Finds the table, and listens to it from then on.
pub(super) fn find_table() -> Option<Oid> {
    let table = extension::providers();
    let keys = table.and_then(extension::keys_beside);
    TABLE.store(table.map_or(0, Oid::to_u32), Relaxed);
    KEYS.store(keys.map_or(0, Oid::to_u32), Relaxed);
    let is_notified = |table| table::has_always_trigger(table, NOTIFIER);
    NOTIFIED.store(table.into_iter().chain(keys).all(is_notified), Relaxed);
    table
}

/// The table that is listened to.
pub(super) fn table() -> Option<Oid> {
    Some(Oid::from(TABLE.load(Relaxed))).filter(|table| *table != Oid::INVALID)
}

/// The table of fetched keys.
pub(super) fn keys_table() -> Option<Oid> {
    Some(Oid::from(KEYS.load(Relaxed))).filter(|table| *table != Oid::INVALID)
}
