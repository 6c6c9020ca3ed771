//! `request.jwt.claims` and its older siblings as parameters of ours, where `pg_session_jwt.request_claims` is
//! `verified`: their show hooks decide what is read, and what is written has no effect.
//!
//! Defined only where they are wanted, since a parameter that is defined and was never set reads as an empty text
//! where a placeholder reads as NULL.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pgrx::{GucContext, GucFlags, GucRegistry, PgSqlErrorCode, pg_sys};

use super::value::Text;
use super::{REQUEST_CLAIMS, RequestClaims, loading, names};

/// How many there are.
pub(crate) const VIEWS: usize = 4;

/// In the order in which Postgres lists them.
const NAMES: [&CStr; VIEWS] = [
    c"request.jwt.claim.email",
    c"request.jwt.claim.role",
    c"request.jwt.claim.sub",
    c"request.jwt.claims",
];

/// What SQL wrote into each.
static WRITTEN: [Text; VIEWS] = [const { Text::new(None) }; VIEWS];

/// How many have been defined in this process.
static DEFINED: AtomicUsize = AtomicUsize::new(0);

/// A show hook.
pub(crate) type Show = unsafe extern "C-unwind" fn() -> *const c_char;

/// Whether reading them shows the identity in force. Where the parameter that says so was refused a value, it may
/// have lost the administrator's.
pub(crate) fn request_claims_are_verified() -> bool {
    REQUEST_CLAIMS.get() == RequestClaims::Verified || loading::is_refused(names::REQUEST_CLAIMS)
}

/// Whether they are wanted and not yet defined.
#[inline]
pub(crate) fn lacks_views() -> bool {
    DEFINED.load(Relaxed) < VIEWS && request_claims_are_verified()
}

/// Defines one more, before the others in the order of names, which nobody has a reason to read.
#[cfg(feature = "pg15")]
pub(crate) fn define_before_views(show: Show) {
    static NOTHING: Text = Text::new(None);
    if DEFINED.load(Relaxed) == 0 {
        // SAFETY: `show` raises no ERROR.
        unsafe {
            GucRegistry::define_string_guc_with_hooks(
                c"request.jwt.claim",
                c"Comes before request.jwt.claim.email in lists of parameters.",
                c"",
                &NOTHING,
                GucContext::Internal,
                GucFlags::NO_SHOW_ALL,
                None,
                None,
                Some(show),
            );
        }
    }
}

/// Defines them, each with its show hook. A placeholder of the name is replaced, with all its values.
pub(crate) fn define_views(shows: [Show; VIEWS]) {
    let flags = GucFlags::NO_SHOW_ALL | loading::flags();
    let undefined = DEFINED.load(Relaxed);
    for ((name, written), show) in NAMES.iter().zip(&WRITTEN).zip(shows).skip(undefined) {
        // SAFETY: the hooks raise an ERROR only from frames without destructors.
        unsafe {
            GucRegistry::define_string_guc_with_hooks(
                name,
                c"Claims of the verified identity.",
                c"What is written into it has no effect, as pg_session_jwt.request_claims is \"verified\".",
                written,
                GucContext::Userset,
                flags,
                Some(check),
                None,
                Some(show),
            );
        }
        DEFINED.fetch_add(1, Relaxed);
    }
    loading::close_to_parallel_mode(&NAMES);
}

/// What SQL wrote into one of them: what it shows once the setting is no longer `verified`.
pub(crate) fn written(view: usize) -> *const c_char {
    // SAFETY: Postgres keeps a valid C string, or null, in the variable.
    let written = WRITTEN.get(view).map(|text| unsafe { *text.as_ptr() });
    match written {
        Some(text) if !text.is_null() => text,
        _ => c"".as_ptr(),
    }
}

/// ALTER ROLE, ALTER DATABASE and CREATE FUNCTION … SET try a value. They refuse a placeholder to everybody but a
/// superuser, and so does this: in another database of the server it might count.
unsafe extern "C-unwind" fn check(
    _: *mut *mut c_char,
    _: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: a value is tried within a transaction; the text is palloc'd, as the caller wants it
    // (call_string_check_hook, guc.c).
    unsafe {
        let may = source != pg_sys::GucSource::PGC_S_TEST || pg_sys::superuser();
        if !may {
            pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32);
            let why = c"Only a superuser can store a value of this parameter.";
            pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(why.as_ptr());
        }
        may
    }
}
