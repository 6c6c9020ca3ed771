//! What a worker writes into `auth.provider_keys`.

#![allow(unsafe_code, reason = "the session of a background worker")]

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pg_session_jwt_fetch::schedule;
use pg_session_jwt_jose::quoted;
use pgrx::Spi;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum};

use super::order::Order;
use crate::datum;
use crate::error::Error;
use crate::extension;
use crate::table;

/// What came of fetching.
pub(super) struct Attempt {
    /// The usable keys, as a JWK Set, and those that are ignored; or why there are none.
    pub keys: Result<(String, Vec<String>), String>,
    /// When to try again.
    pub next_in: Duration,
}

/// What ALTER DATABASE may have set, and what must not matter here. A worker waits for a lock, since nothing else keeps
/// the next one from asking the issuer again; whoever holds it is in the same database, which so cannot be dropped.
/// Losing what was written in a crash costs one more request; waiting for a standby that is gone would never end.
const SETTINGS: [(&CStr, &CStr); 7] = [
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"session_replication_role", c"origin"),
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"lock_timeout", c"10s"),
    (c"synchronous_commit", c"off"),
    (c"application_name", c"pg_session_jwt"),
];

/// Connects to the database, as the superuser that owns it all. It ends this process if the database is gone.
pub(crate) fn connect(database: pg_sys::Oid) {
    // SAFETY: once in the life of the worker; C strings.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        for (name, value) in SETTINGS {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Runs `body` in a transaction of its own.
pub(crate) fn in_transaction<T>(body: impl FnOnce() -> T) -> T {
    // An ERROR ends the worker, so nobody sees what it has left half-done.
    let body = AssertUnwindSafe(body);
    BackgroundWorker::transaction(AssertUnwindSafe(move || {
        let AssertUnwindSafe(body) = body;
        body()
    }))
}

/// Runs `body` with the names of the tables of providers and of their keys, as they can stand in SQL, and with
/// the privileges of their owner; not at all where the extension is not installed.
///
/// The owner of a database may have dropped the extension and put tables of his own there. What he attached to
/// those would run here, so it runs as he could run it himself (as in REFRESH MATERIALIZED VIEW,
/// src/backend/commands/matview.c).
fn with_tables(body: impl FnOnce(&str, &str)) {
    in_transaction(|| {
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let Some((table, keys)) = extension::tables() else {
            return;
        };
        // SAFETY: plain look-ups. Once they are locked, neither can be dropped, renamed or given away.
        unsafe {
            pg_sys::LockRelationOid(table, lock);
            pg_sys::LockRelationOid(keys, lock);
            if extension::tables() != Some((table, keys)) {
                return;
            }
            let [of_table, of_keys] = [table, keys].map(|oid| owner_and_name(oid));
            let (Some((owner, table)), Some((other, keys))) = (of_table, of_keys) else {
                return;
            };
            if owner != other {
                return;
            }
            let (mut user, mut context) = (pg_sys::InvalidOid, 0);
            pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
            let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            let settings = pg_sys::NewGUCNestLevel();
            pg_sys::SetUserIdAndSecContext(owner, context | restricted);
            body(&table, &keys);
            // What his code has set goes as well.
            pg_sys::AtEOXact_GUC(false, settings);
            pg_sys::SetUserIdAndSecContext(user, context);
        }
    });
}

/// # Safety
/// In a transaction; the table is locked.
unsafe fn owner_and_name(table: pg_sys::Oid) -> Option<(pg_sys::Oid, String)> {
    // SAFETY: catalog look-ups; the names are palloc'd C strings, or null.
    unsafe {
        let names = [
            pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table)),
            pg_sys::get_rel_name(table),
        ];
        if names.iter().any(|name| name.is_null()) {
            return None;
        }
        let [schema, name] =
            names.map(|name| CStr::from_ptr(pg_sys::quote_identifier(name)).to_string_lossy());
        Some((table::owner(table)?, format!("{schema}.{name}")))
    }
}

/// A provider whose keys are due, and its issuer.
pub(crate) struct Due {
    pub provider: String,
    pub issuer: Option<String>,
}

/// The providers whose keys are due, the first ones first.
pub(crate) fn due() -> Vec<Due> {
    /// More than can be fetched in one turn.
    const MOST: i64 = 1000;
    let mut due = Vec::new();
    with_tables(|table, keys| {
        // As the bytes that they are: the encoding is the database's.
        let sql = format!(
            "SELECT convert_to(p.name, getdatabaseencoding()), convert_to(p.issuer, getdatabaseencoding())
            FROM {keys} k JOIN {table} p ON p.name = k.provider
            WHERE k.next_at <= clock_timestamp() AND p.enabled ORDER BY k.next_at LIMIT {MOST}"
        );
        let read = Spi::connect(|client| -> Result<(), pgrx::spi::Error> {
            for row in client.select(&sql, None, &[])? {
                let text = |bytes: Option<Vec<u8>>| bytes.map(datum::from_server).transpose();
                if let (Ok(Some(provider)), Ok(issuer)) = (text(row.get(1)?), text(row.get(2)?)) {
                    due.push(Due { provider, issuer });
                }
            }
            Ok(())
        });
        if let Err(why) = read {
            log_spi(&why);
        }
    });
    due
}

fn log_spi(why: &pgrx::spi::Error) {
    crate::error::log(&format!("pg_session_jwt: auth.provider_keys: {why}"));
}

/// Writes what came of fetching, if the row still asks for it. A failure leaves the keys that there are,
/// unless they are of another URL.
pub(super) fn store(order: &Order, attempt: Attempt) {
    with_tables(|table, keys| {
        let sql = format!(
            "INSERT INTO {keys} AS k
                (provider, issuer, url, jwks, fetched_at, checked_at, next_at, failures, error, ignored)
            SELECT name, issuer, $4, $5, CASE WHEN $6 IS NULL THEN now END, now,
                now + make_interval(secs => $7), CASE WHEN $6 IS NULL THEN 0 ELSE 1 END, $6, $8
            FROM {table}, clock_timestamp() now
            WHERE name = $1 AND issuer IS NOT DISTINCT FROM $2 AND jwks_url IS NOT DISTINCT FROM $3
            ON CONFLICT (provider) DO UPDATE SET
                issuer = excluded.issuer,
                url = excluded.url,
                jwks = CASE WHEN excluded.error IS NULL OR (k.url, k.issuer) IS DISTINCT FROM (excluded.url, excluded.issuer)
                    THEN excluded.jwks ELSE k.jwks END,
                fetched_at = CASE WHEN excluded.error IS NULL OR (k.url, k.issuer) IS DISTINCT FROM (excluded.url, excluded.issuer)
                    THEN excluded.fetched_at ELSE k.fetched_at END,
                ignored = CASE WHEN excluded.error IS NULL OR (k.url, k.issuer) IS DISTINCT FROM (excluded.url, excluded.issuer)
                    THEN excluded.ignored ELSE k.ignored END,
                checked_at = excluded.checked_at,
                next_at = excluded.next_at,
                failures = CASE WHEN excluded.error IS NULL THEN 0
                    WHEN (k.url, k.issuer) IS DISTINCT FROM (excluded.url, excluded.issuer) THEN 1 ELSE k.failures + 1 END,
                error = excluded.error"
        );
        // A text that the database's encoding lacks is in no row.
        let Ok(arguments) = arguments(order, attempt) else {
            return;
        };
        let stored = Spi::connect_mut(|client| client.update(&sql, None, &arguments).map(drop));
        if let Err(why) = stored {
            log_spi(&why);
        }
    });
}

/// The arguments of that statement, in the encoding of the database. Keys that it cannot represent are a failure
/// like others.
fn arguments<'a>(order: &Order, attempt: Attempt) -> Result<[DatumWithOid<'a>; 8], Error> {
    let request = &order.request;
    let text = |text: Option<&str>| text.map_or(Ok(None), datum::text);
    let keys = attempt.keys.and_then(|(jwks, ignored)| {
        let jwks = datum::jsonb(&jwks);
        let jwks =
            jwks.map_err(|why| format!("this database cannot store the keys: {}", quoted(&why)))?;
        Ok((jwks, ignored))
    });
    let (jwks, ignored, error, next_in) = match keys {
        Ok((jwks, ignored)) => (Some(jwks), ignored, None, attempt.next_in),
        Err(error) => {
            let next_in = schedule::after_failures(order.failures.saturating_add(1));
            (None, Vec::new(), Some(error), next_in)
        }
    };
    let ignored = match ignored.as_slice() {
        [] => None,
        some => datum::text_array(some)?,
    };
    let seconds = next_in.as_secs_f64();
    // SAFETY: of the types that they are given.
    unsafe {
        let argument = |datum: Option<Datum>, oid| DatumWithOid::new(datum, oid);
        Ok([
            argument(datum::text(&order.provider)?, pg_sys::TEXTOID),
            argument(text(request.issuer.as_deref())?, pg_sys::TEXTOID),
            argument(text(request.jwks_url.as_deref())?, pg_sys::TEXTOID),
            argument(datum::text(&order.url)?, pg_sys::TEXTOID),
            argument(jwks, pg_sys::JSONBOID),
            argument(text(error.as_deref())?, pg_sys::TEXTOID),
            seconds.into(),
            argument(ignored, pg_sys::TEXTARRAYOID),
        ])
    }
}
