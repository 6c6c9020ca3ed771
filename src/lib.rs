//! pg_session_jwt: JSON Web Tokens verified inside the Postgres backend, for row-level security.
//!
//! Data flows one way: `sql` → `call` → `session` → (`guc`, `providers` → `follow` → `fetch`) → `jose`.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `sql` | the SQL functions, a few lines each; their definitions are in `sql/auth.sql` |
//! | `call` | the frame around each of them: arguments, errors, and the value kept at a call site |
//! | `session` | which source to trust, the claims in force, the caches |
//! | `guc` | the parameters and their hooks |
//! | `providers` | the rows of `auth.providers` that a backend uses, and what makes them stale |
//! | `follow` | the background worker that fetches keys, and how a session has it started |
//! | `launcher` | a worker that has keys fetched by the clock, where the library is preloaded |
//! | `shared` | the memory in which all backends remember good signatures |
//! | `flatten` | policies of the form `(SELECT …)`, planned like bare calls |
//! | `request` | `request.jwt.claims` and its like, showing the identity in force |
//! | `datum` | values from and to Postgres |
//! | `jsonb` | the claims as a jsonb, made on demand |
//! | `extension` | the extension's own tables, wherever they are |
//! | `table` | tables, read as catalogs are |
//! | `error` | errors, their reports to Postgres, and the audit log |
//! | `memory` | memory, reserved before work begins |
//! | `pg_session_jwt_fetch` | the crate in `src/fetch`: an issuer's keys over HTTP(S), without Postgres |
//! | `pg_session_jwt_jose` | the crate in `src/jose`: tokens, keys and rules, without Postgres |

mod call;
mod datum;
mod error;
mod extension;
mod flatten;
mod follow;
mod guc;
mod jsonb;
mod launcher;
mod memory;
mod providers;
mod request;
mod session;
mod shared;
mod sql;
mod table;

#[cfg(any(test, feature = "pg_test"))]
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test may panic, and its attribute exports C functions"
)]
mod tests;

pgrx::pg_module_magic!(name, version);

// Not IF NOT EXISTS: these functions do not belong in a schema auth that another role owns.
pgrx::extension_sql!("CREATE SCHEMA auth;", name = "schema", bootstrap);
pgrx::extension_sql_file!("../sql/auth.sql", name = "auth", finalize);

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a Datum holds 8 bytes by value, and so do the counters here: 64 bits are needed");

/// Runs when the library is loaded into a process: at the first call in a session, or earlier.
///
/// # Safety
/// For Postgres to call.
#[unsafe(no_mangle)]
#[allow(unsafe_code, non_snake_case, reason = "Postgres calls it by this name")]
pub unsafe extern "C-unwind" fn _PG_init() {
    // SAFETY: called by Postgres (src/backend/utils/fmgr/dfmgr.c).
    unsafe {
        guc::completely(|| {
            guc::define(session::judge);
            providers::define();
            launcher::define();
            shared::define();
            flatten::define();
            request::define();
            error::hide_what_workers_raise();
        });
    }
}

/// Needed by `cargo pgrx test`.
#[cfg(test)]
pub mod pg_test {
    /// Runs once before the tests.
    pub fn setup(_options: Vec<&str>) {}

    /// Lines for postgresql.conf.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
