//! The worker that has keys fetched by the clock, though nobody asks. It is there where the library is in
//! `shared_preload_libraries`.
//!
//! Once a minute it starts a short-lived worker in each database, one after the other, which orders what is due.
//! It is connected to no database itself, and that worker not for long: neither holds up DROP DATABASE.

#![allow(unsafe_code, reason = "the life of background workers")]

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys::{self, Oid};

use crate::error::{self, Error};
use crate::follow::{self, Due};
use crate::providers;
use crate::table;

/// Between two rounds.
const REST: Duration = Duration::from_secs(60);
/// A worker in a database gets so long. DROP DATABASE gives up after 5 s (CountOtherDBBackends,
/// src/backend/storage/ipc/procarray.c).
const TURN: Duration = Duration::from_secs(2);

const NAME: &CStr = c"pg_session_jwt launcher";

/// Registers it, if this is the postmaster that loads its libraries.
pub(crate) fn define() {
    // SAFETY: plain reads of globals; the postmaster copies the record. Too many workers are a line in its log.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade {
            let mut worker = follow::new_worker(NAME, c"pg_session_jwt_launch");
            worker.bgw_restart_time = i32::try_from(REST.as_secs()).unwrap_or(i32::MAX);
            pg_sys::RegisterBackgroundWorker(&raw mut worker);
        }
    }
}

/// The launcher. For Postgres to call, in a process of its own.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_session_jwt_launch(_argument: pg_sys::Datum) {
    // SAFETY: this frame has no destructors.
    unsafe { error::guarded(launch) }
}

fn launch() -> Result<(), Error> {
    follow::begin();
    // SAFETY: once in the life of the worker. Without a database, only the shared catalogs can be read.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
    loop {
        let until = Instant::now() + REST;
        for database in follow::in_transaction(table::databases) {
            let mut worker = follow::new_worker(NAME, c"pg_session_jwt_look");
            worker.bgw_main_arg = pg_sys::Datum::from(database);
            follow::run(worker, Instant::now() + 2 * TURN);
        }
        follow::wait_until(until);
    }
}

/// The worker in one database. For Postgres to call, in a process of its own.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_session_jwt_look(database: pg_sys::Datum) {
    // SAFETY: this frame has no destructors.
    unsafe { error::guarded(|| look(database)) }
}

fn look(database: pg_sys::Datum) -> Result<(), Error> {
    follow::begin();
    #[expect(clippy::cast_possible_truncation, reason = "an OID")]
    follow::connect(Oid::from(database.value() as u32));
    let until = Instant::now() + TURN;
    let due = follow::due();
    follow::in_transaction(|| {
        for Due { provider, issuer } in due {
            providers::keep_fresh_by_name(&provider, issuer.as_deref(), until)?;
        }
        Ok(())
    })
}
