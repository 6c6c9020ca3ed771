//! The parameters (`pg_session_jwt.*`) and their hooks.
//!
//! Everything that decides who the user is lives in parameters, because Postgres already does the hard
//! part for them: SET LOCAL ends, ROLLBACK restores, parallel workers receive them, DISCARD ALL forgets.
//! Whatever is derived from them is a cache, and [`epoch`] says when it is stale.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `keys` | `pg_session_jwt.jwk` |
//! | `token` | `pg_session_jwt.jwt`, and the accepted token ids |
//! | `fetch` | `pg_session_jwt.fetch_*` |
//! | `request` | `request.jwt.claims` and its like as parameters of ours |
//! | `loading` | what happened to the parameters before and while the library was loaded |
//! | `names` | the names of the parameters |
//! | `value` | copying and setting values, and the number that changes with them |

#![allow(unsafe_code, reason = "records and hooks of GUC")]

mod fetch;
mod keys;
mod loading;
mod names;
mod request;
mod token;
mod value;

use std::ffi::{CStr, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_sys};

use crate::memory::MAX_CLAIMS_BYTES;
use loading::define_guarded;
use token::Judge;
use value::{Text, assign_text, copied, set, text};

pub(crate) use fetch::{fetch_ca_file, fetch_hosts, fetch_interval, fetch_stale, fetch_wait};
pub(crate) use keys::{has_jwk, jwk, jwk_came_with_connection, jwk_epoch, jwk_is_in_file, pin_jwk};
pub(crate) use loading::{completely, refused_parameter};
#[cfg(feature = "pg15")]
pub(crate) use request::define_before_views;
pub(crate) use request::{
    Show, VIEWS, define_views, lacks_views, request_claims_are_verified, written,
};
pub(crate) use token::{Presentation, Progress, accept_id, clear_jwt, knows_ids, last_id, set_jwt};
pub(crate) use value::{changed, epoch};

static CLAIMS: Text = Text::new(None);
static REQUEST_CLAIMS: GucSetting<RequestClaims> =
    GucSetting::<RequestClaims>::new(RequestClaims::Fallback);
static CLOCK_SKEW: GucSetting<i32> = GucSetting::<i32>::new(60);
static SIGNATURE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(2048);
static FLATTEN_POLICIES: GucSetting<bool> = GucSetting::<bool>::new(true);
static AUDIT_LOG: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Values of `pg_session_jwt.request_claims`.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
enum RequestClaims {
    #[name = c"fallback"]
    Fallback,
    #[name = c"never"]
    Never,
    #[name = c"verified"]
    Verified,
}

/// `pg_session_jwt.claims`.
pub(crate) fn claims() -> Option<Vec<u8>> {
    text(&CLAIMS, MAX_CLAIMS_BYTES)
}

/// `request.jwt.claims`, where `pg_session_jwt.request_claims` allows it.
///
/// It is PostgREST's parameter, so it stays a placeholder without hooks and must be read each time.
pub(crate) fn request_claims() -> Option<Vec<u8>> {
    if REQUEST_CLAIMS.get() != RequestClaims::Fallback {
        return None;
    }
    foreign(c"request.jwt.claims")
}

/// The setting with which `request.jwt.claims` does not count, whatever it is now.
fn without_fallback() -> &'static CStr {
    match REQUEST_CLAIMS.get() {
        RequestClaims::Verified => c"verified",
        RequestClaims::Fallback | RequestClaims::Never => c"never",
    }
}

/// `request.headers`: also PostgREST's, and a placeholder.
pub(crate) fn request_headers() -> Option<Vec<u8>> {
    foreign(c"request.headers")
}

/// The value of a foreign parameter; `None` when it is empty or unknown.
fn foreign(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: the string belongs to the GUC machinery and is copied before anything can change it.
    let value = unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        copied(value, MAX_CLAIMS_BYTES)
    };
    value.filter(|value| !value.is_empty())
}

/// `pg_session_jwt.clock_skew` in seconds.
pub(crate) fn clock_skew() -> f64 {
    CLOCK_SKEW.get().into()
}

/// `pg_session_jwt.audit_log`.
pub(crate) fn audit_log() -> bool {
    AUDIT_LOG.get()
}

/// `pg_session_jwt.flatten_policies`.
pub(crate) fn flatten_policies() -> bool {
    FLATTEN_POLICIES.get()
}

/// `pg_session_jwt.signature_memory` in bytes.
pub(crate) fn signature_memory() -> usize {
    usize::try_from(SIGNATURE_MEMORY.get()).unwrap_or(0) * 1024
}

/// SET ROLE (SET LOCAL ROLE with `is_local`), by Postgres's own rules: the session user must be a
/// member, and it is refused within a SECURITY DEFINER function.
pub(crate) fn set_role(name: &CStr, is_local: bool) {
    set(c"role", name.as_ptr(), is_local);
}

/// RESET ROLE.
pub(crate) fn reset_role() {
    set(c"role", std::ptr::null(), false);
}

/// Whether a role of this name exists.
pub(crate) fn role_exists(name: &CStr) -> bool {
    // SAFETY: a catalog look-up by a C string.
    unsafe { pg_sys::get_role_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// Whether a role of this name exists and is a superuser.
pub(crate) fn is_superuser(name: &CStr) -> bool {
    // SAFETY: catalog look-ups; an invalid Oid is not a superuser.
    unsafe { pg_sys::superuser_arg(pg_sys::get_role_oid(name.as_ptr(), true)) }
}

/// The same for a role by its number.
pub(crate) fn is_superuser_role(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Defines the parameters and reserves their prefix.
pub(crate) fn define(judge: Judge) {
    // pg_settings.reset_val bypasses show hooks: NO_SHOW_ALL keeps the two secrets out of that view.
    let loading = loading::flags();
    let hidden = GucFlags::NO_SHOW_ALL | loading;
    loading::define_refused(hidden);
    keys::define(hidden);
    token::define(hidden, judge);
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::CLAIMS, |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"Claims that are trusted without a token: a JSON object.",
            c"For testing policies, and for middleware that verifies tokens itself. Takes precedence over a token.",
            &CLAIMS,
            GucContext::Suset,
            loading,
            None,
            Some(assign_text),
            None,
        );
    });
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::REQUEST_CLAIMS, |name| unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            name,
            c"Whether request.jwt.claims is trusted when no key is configured, or shows the verified claims.",
            c"Any user can set request.jwt.claims: choose \"never\" or \"verified\" unless only PostgREST can connect.",
            &REQUEST_CLAIMS,
            GucContext::Suset,
            // Any user can RESET ALL, which would undo what a superuser has SET in the session.
            GucFlags::NO_RESET_ALL | loading,
            None,
            Some(assign_number),
            None,
        );
    });
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::CLOCK_SKEW, |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"Tolerance for issuers' clocks, applied to exp, nbf and iat.",
            c"",
            &CLOCK_SKEW,
            0,
            86_400,
            GucContext::Suset,
            GucFlags::UNIT_S | loading,
            None,
            Some(assign_number),
            None,
        );
    });
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::AUDIT_LOG, |name| unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            c"Logs each token that is accepted or rejected.",
            c"Writes one line per token to the server log: subject, audience, issuer and key id, or the reason.",
            &AUDIT_LOG,
            GucContext::Suset,
            loading,
            None,
            Some(assign_flag),
            None,
        );
    });
    // SAFETY: reads a global.
    let at_start = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    // SAFETY: there are no hooks.
    define_guarded(names::SIGNATURE_MEMORY, |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"Memory in which all connections remember tokens whose signature was good.",
            c"0 for none: then each connection remembers its own.",
            &SIGNATURE_MEMORY,
            0,
            1024 * 1024,
            // The postmaster makes it at start. Without it, the first connection does.
            if at_start {
                GucContext::Postmaster
            } else {
                GucContext::Sighup
            },
            GucFlags::UNIT_KB | loading,
            None,
            None,
            None,
        );
    });
    GucRegistry::define_bool_guc(
        names::FLATTEN_POLICIES,
        c"Plans policies of the form (SELECT expression) as the expression itself.",
        c"Only where it can change no answer. An index on the column can be used then.",
        &FLATTEN_POLICIES,
        GucContext::Userset,
        loading,
    );
    fetch::define(loading);
    loading::close_to_parallel_mode(&names::ALL);
    // SAFETY: a C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_session_jwt".as_ptr()) };
}

unsafe extern "C-unwind" fn assign_number(_: i32, _: *mut c_void) {
    changed();
}

unsafe extern "C-unwind" fn assign_flag(_: bool, _: *mut c_void) {
    changed();
}
