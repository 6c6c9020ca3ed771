//! This backend's snapshot of `auth.providers`, and what makes it stale.
//!
//! Postgres notifies every backend, also on standbys, when a table's relcache entry may have changed;
//! the triggers of `auth.providers` send that signal when rows change. So a backend reads the table once
//! and then only listens, at the start of each statement.

#![allow(unsafe_code, reason = "invalidation messages and a lock")]

use std::cell::RefCell;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use pg_session_jwt_jose::{Provider, ProviderError, ProviderRow, quoted};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Oid};
use serde_json::Value;

use crate::error::{self, Error};
use crate::guc;
use crate::memory;
use crate::table;

/// The snapshot. Empty if the table is missing, as before ALTER EXTENSION … UPDATE.
type Snapshot = Rc<[Provider]>;

thread_local! {
    // Never dropped, like the caches in `session`.
    static SNAPSHOT: ManuallyDrop<RefCell<Option<Snapshot>>> =
        const { ManuallyDrop::new(RefCell::new(None)) };
}

static STALE: AtomicBool = AtomicBool::new(true);
/// Whether this backend is notified when rows change. Not if the notifying trigger is off, or fires only
/// in some sessions, as ALTER TABLE … ENABLE TRIGGER and pg_restore --disable-triggers leave it.
static NOTIFIED: AtomicBool = AtomicBool::new(true);
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// The table that was read for the snapshot; 0 while there is none, and any relation may become it.
static TABLE: AtomicU32 = AtomicU32::new(0);

/// The trigger that notifies (sql/auth.sql).
const NOTIFIER: &CStr = c"check_provider";

/// Starts listening.
pub(crate) fn define() {
    // SAFETY: the callback only sets flags; it stays registered for the life of the process, as the
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
    if table == 0 || relation == 0 || table == relation {
        forget();
    }
}

/// Makes the next look-up read the table.
fn forget() {
    STALE.store(true, Relaxed);
    guc::changed();
}

/// Receives what other backends have committed. To be called at the start of each statement: Postgres
/// itself listens only when it locks a table, which a statement need not do.
pub(crate) fn listen() {
    // SAFETY: allowed wherever a lock on a table may be taken.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    if !NOTIFIED.load(Relaxed) {
        forget();
    }
}

/// A number that changes with the snapshot.
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// The providers, enabled or not; `None` if there are none.
///
/// # Errors
/// If a row cannot be read, which the table's triggers should have prevented.
pub(crate) fn registered() -> Result<Option<Snapshot>, Error> {
    /// A read that fails or is cancelled leaves the snapshot stale.
    struct Unread;
    impl Drop for Unread {
        fn drop(&mut self) {
            STALE.store(true, Relaxed);
        }
    }
    // Cleared first: a change during the read sets it again.
    if STALE.swap(false, Relaxed) {
        let unread = Unread;
        let read = read()?;
        std::mem::forget(unread);
        EPOCH.fetch_add(1, Relaxed);
        SNAPSHOT.with(|snapshot| *snapshot.borrow_mut() = Some(read));
    }
    let snapshot = SNAPSHOT.with(|snapshot| snapshot.borrow().clone());
    Ok(snapshot.filter(|providers| !providers.is_empty()))
}

fn read() -> Result<Snapshot, Error> {
    let Some(table) = table() else {
        TABLE.store(0, Relaxed);
        NOTIFIED.store(true, Relaxed);
        return Ok(Rc::new([]));
    };
    TABLE.store(table.to_u32(), Relaxed);
    NOTIFIED.store(table::has_always_trigger(table, NOTIFIER), Relaxed);
    table::rows(table)?.iter().map(provider).collect()
}

/// The provider that a row describes.
fn provider(row: &table::Row) -> Result<Provider, Error> {
    let json = row
        .json
        .as_ref()
        .map_err(|why| Error::Unrepresentable(why.clone()))?;
    Ok(Provider::new(parse(json)?)?)
}

/// `auth.providers`: the first table in the extension's own record of its configuration tables, which
/// stays the same whatever is renamed or moved. `None` before ALTER EXTENSION … UPDATE.
fn table() -> Option<Oid> {
    table::extension_config(c"pg_session_jwt").first().copied()
}

fn parse(json: &str) -> Result<ProviderRow, Error> {
    memory::room_to_read(json.len())?;
    let wrong = |name: &str, detail: String, hint| {
        Error::Provider(ProviderError {
            name: name.into(),
            detail,
            hint,
        })
    };
    let row: Value = serde_json::from_str(json).map_err(|why| {
        wrong(
            "",
            format!("jwks is not usable JSON: {why}"),
            "Copy the keys as the issuer publishes them.",
        )
    })?;
    let name = row.get("name").and_then(Value::as_str);
    let name = name.unwrap_or_default().to_owned();
    serde_json::from_value(row).map_err(|_| {
        wrong(
            &name,
            "an array contains a NULL or another array, or a required column is NULL".into(),
            "Arrays in auth.providers have one dimension; \\d auth.providers shows which columns may be NULL.",
        )
    })
}

/// Checks a row that is about to be written.
///
/// # Errors
/// [`Error::Provider`].
pub(crate) fn check_row(json: &str) -> Result<(), Error> {
    let provider = Provider::new(parse(json)?)?;
    let whose = format!("of provider {}", quoted(&provider.name));
    error::warn_of_ignored_keys(&whose, provider.ignored_keys());
    Ok(())
}

/// Whether `relation` is the table: the trigger functions may have been attached to another.
pub(crate) fn is_table(relation: Oid) -> bool {
    table() == Some(relation)
}

/// Notifies every backend that rows of the table have changed, when the transaction commits; and this
/// one, when the command ends or is rolled back.
pub(crate) fn changed(table: Oid) {
    // SAFETY: the table exists: its trigger is running.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}

/// Checks that no row written by this transaction can claim a token that another row can claim too. Rows
/// from elsewhere, such as logical replication, do not prevent a correction.
///
/// # Errors
/// [`Error::Provider`].
pub(crate) fn check_apart(table: Oid) -> Result<(), Error> {
    // SAFETY: an object lock that no SQL of an ordinary role takes. It is held until the transaction
    // ends, so of two writers, the second sees what the first has committed.
    unsafe {
        pg_sys::LockDatabaseObject(
            pg_sys::RelationRelationId,
            table,
            0,
            pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
        );
        // What the statement wrote becomes visible with the next command.
        pg_sys::CommandCounterIncrement();
    }
    let mut rows = Vec::new();
    for row in table::rows(table)? {
        match provider(&row) {
            Ok(provider) => rows.push((provider, row.is_written_here)),
            Err(error) if row.is_written_here => return Err(error),
            Err(_) => {}
        }
    }
    for (index, (one, one_is_new)) in rows.iter().enumerate() {
        for (other, other_is_new) in rows.iter().take(index) {
            if *one_is_new || *other_is_new {
                one.check_apart(other)?;
            }
        }
    }
    Ok(())
}
