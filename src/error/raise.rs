//! The boundary: the one place that gives a report to Postgres.

#![allow(unsafe_code, reason = "ereport() and its jump")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::report::{OUT_OF_MEMORY, Report};
use super::value::Error;

impl Report {
    /// Raises the report as an ERROR.
    ///
    /// # Safety
    /// Jumps over the caller and its callers up to Postgres: none of those frames may hold a value whose
    /// destructor matters. `call.rs` calls it as the last thing of a C function.
    pub unsafe fn raise(self) -> ! {
        let [message, detail, hint] =
            [&self.message, &self.detail, &self.hint].map(|text| pstring(text));
        let sqlstate = self.sqlstate;
        drop(self);
        // SAFETY: the strings are palloc'd, so nothing is lost when errfinish jumps.
        unsafe { emit_error(sqlstate, message, detail, hint) }
    }
}

/// Runs what Postgres has called. An ERROR or a panic within is raised again once all frames of `body`
/// are gone, without CONTEXT and STATEMENT, which may hold the token.
///
/// # Safety
/// As for [`Report::raise`].
pub(crate) unsafe fn guarded<T>(body: impl FnOnce() -> Result<T, Error>) -> T {
    let result = PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|caught| Err(Error::Raised(caught.into())))
        .execute();
    match result {
        Ok(value) => value,
        // SAFETY: the caller's promise; nothing else here has a destructor.
        Err(error) => unsafe { Report::from(error).raise() },
    }
}

/// The source location in a report.
const FILE: &CStr = c"pg_session_jwt/src/error/raise.rs";
const FUNCTION: &CStr = c"emit";

static NEXT_HOOK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Keeps the statement out of the log also where a parallel worker has raised the report: its leader
/// raises it again, without the flags that [`emit`] has set.
pub(crate) fn hide_what_workers_raise() {
    // SAFETY: only this thread calls the hook, which stays for the life of the process, as the library
    // does. If there is one already, it is called next.
    unsafe {
        if let Some(next) = pg_sys::emit_log_hook {
            NEXT_HOOK.store(next as *mut c_void, Relaxed);
        }
        pg_sys::emit_log_hook = Some(hide_statement);
    }
}

unsafe extern "C-unwind" fn hide_statement(report: *mut pg_sys::ErrorData) {
    let next = NEXT_HOOK.load(Relaxed);
    // SAFETY: a report that is being logged (EmitErrorReport, src/backend/utils/error/elog.c); its texts
    // are null or C strings. The pointer is null or the previous hook.
    unsafe {
        let (file, function) = ((*report).filename, (*report).funcname);
        if !file.is_null()
            && !function.is_null()
            && CStr::from_ptr(function) == FUNCTION
            && FILE.to_bytes().ends_with(CStr::from_ptr(file).to_bytes())
        {
            (*report).hide_stmt = true;
            (*report).hide_ctx = true;
        }
        if !next.is_null() {
            type Hook = unsafe extern "C-unwind" fn(*mut pg_sys::ErrorData);
            std::mem::transmute::<*mut c_void, Hook>(next)(report);
        }
    }
}

/// Raises SQLSTATE 53200 without an allocation of ours.
///
/// # Safety
/// As for [`Report::raise`].
#[cold]
pub(crate) unsafe fn out_of_memory() -> ! {
    // SAFETY: the caller's promise, and C strings.
    unsafe {
        emit_error(
            PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            OUT_OF_MEMORY.as_ptr(),
            c"pg_session_jwt reserves a few megabytes before it begins.".as_ptr(),
            std::ptr::null(),
        )
    }
}

/// A WARNING to the client.
pub(crate) fn warn(message: &str, detail: &str, hint: &str) {
    let code = PgSqlErrorCode::ERRCODE_WARNING;
    send(PgLogLevel::WARNING, code, [message, detail, hint]);
}

/// A WARNING for whoever writes a set of keys of which some cannot be used.
pub(crate) fn warn_of_ignored_keys(whose: &str, ignored: Option<String>) {
    if let Some(ignored) = ignored {
        let hint = "The other keys count. Tokens that these keys signed are rejected.";
        warn(&format!("keys {whose} are ignored"), &ignored, hint);
    }
}

/// Reports something that is not an error. A cancel that Postgres notices meanwhile comes back as a
/// panic, like any ERROR of a Postgres function.
pub(super) fn send(level: PgLogLevel, code: PgSqlErrorCode, texts: [&str; 3]) {
    let (level, [message, detail, hint]) = (level as c_int, texts.map(pstring));
    // SAFETY: C strings, or null; nothing within the boundary has a destructor.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| emit(level, code, message, detail, hint));
    }
}

/// A palloc'd C string; null for an empty text, and when out of memory.
fn pstring(text: &str) -> *const c_char {
    unsafe extern "C-unwind" {
        fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
    }
    if text.is_empty() {
        return std::ptr::null();
    }
    // There is no NUL byte (messages quote with escapes); if there were one, the text would end before
    // it.
    let text = text.split('\0').next().unwrap_or_default();
    // SAFETY: with NO_OOM there is no ERROR, which must not happen here. The memory is as large as what
    // is copied, and the copy ends with NUL.
    unsafe {
        let copy = palloc_extended(text.len() + 1, pg_sys::MCXT_ALLOC_NO_OOM as c_int);
        let copy = copy.cast::<c_char>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), copy, text.len());
            *copy.add(text.len()) = 0;
        }
        copy
    }
}

/// [`emit`] at ERROR, without CONTEXT: where PL/pgSQL runs a statement with the token in it, or portals
/// show their parameters, that would reveal the token to the client and to any handler in between.
///
/// # Safety
/// As for [`Report::raise`]; null or C strings.
unsafe fn emit_error(
    sqlstate: PgSqlErrorCode,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
) -> ! {
    // SAFETY: the caller's promise; the handler that catches the ERROR restores the stack (PG_TRY,
    // src/include/utils/elog.h).
    unsafe {
        pg_sys::error_context_stack = std::ptr::null_mut();
        emit(PgLogLevel::ERROR as c_int, sqlstate, message, detail, hint);
    }
    #[expect(
        clippy::unreachable,
        reason = "errfinish() does not return from an ERROR"
    )]
    {
        unreachable!("errfinish() does not return from an ERROR")
    }
}

/// ereport() that keeps the statement and the context out of the server log: they may hold the token.
///
/// pgrx's own report cannot do that, and its bindings lack these functions.
///
/// # Safety
/// Null or C strings. At ERROR and above, it does not return (see [`Report::raise`]).
unsafe fn emit(
    level: c_int,
    sqlstate: PgSqlErrorCode,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
) {
    unsafe extern "C-unwind" {
        fn errstart(level: c_int, domain: *const c_char) -> bool;
        fn errcode(sqlstate: c_int) -> c_int;
        fn errmsg_internal(format: *const c_char, ...) -> c_int;
        fn errdetail_internal(format: *const c_char, ...) -> c_int;
        fn errhint(format: *const c_char, ...) -> c_int;
        fn errhidestmt(hide: bool) -> c_int;
        fn errhidecontext(hide: bool) -> c_int;
        fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    }
    const TEXT: &CStr = c"%s";
    // SAFETY: the calls are in the order of the ereport() macro (src/include/utils/elog.h).
    unsafe {
        if errstart(level, std::ptr::null()) {
            errcode(sqlstate as c_int);
            if message.is_null() {
                errmsg_internal(OUT_OF_MEMORY.as_ptr());
            } else {
                errmsg_internal(TEXT.as_ptr(), message);
            }
            if !detail.is_null() {
                errdetail_internal(TEXT.as_ptr(), detail);
            }
            if !hint.is_null() {
                errhint(TEXT.as_ptr(), hint);
            }
            errhidestmt(true);
            errhidecontext(true);
            errfinish(FILE.as_ptr(), line!() as c_int, FUNCTION.as_ptr());
        }
    }
}
