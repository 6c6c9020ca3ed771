//! The boundary: the one place that hands a report to Postgres.

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
    /// Jumps out of the caller and of its callers up to Postgres: none of those frames may hold a
    /// value whose destructor matters. `call.rs` calls it as the last thing of a C function.
    pub unsafe fn raise(self) -> ! {
        let [message, detail, hint] =
            [&self.message, &self.detail, &self.hint].map(|text| pstring(text));
        let sqlstate = self.sqlstate;
        drop(self);
        // CONTEXT is given up: where PL/pgSQL runs a statement with the token in it, or portals show
        // their parameters, it would tell the client, and any handler in between, the token.
        // SAFETY: the strings are palloc'd, so nothing is lost when errfinish jumps; whoever catches
        // the ERROR restores the stack (PG_TRY, src/include/utils/elog.h).
        unsafe {
            pg_sys::error_context_stack = std::ptr::null_mut();
            emit(PgLogLevel::ERROR as c_int, sqlstate, message, detail, hint)
        };
        unreachable!("errfinish() does not return from an ERROR")
    }
}

/// Runs what Postgres has called: an ERROR that is raised within, or a panic, is raised once all frames of
/// `body` are gone, and like an [`Error`] without CONTEXT and STATEMENT, which may hold the token.
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

/// Where a report says that it comes from.
const FILE: &CStr = c"pg_session_jwt/src/error/raise.rs";
const FUNCTION: &CStr = c"emit";

static NEXT_HOOK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Keeps the statement out of the log also where a parallel worker has raised the report: its leader raises it
/// anew, and what [`emit`] asks for does not travel.
pub(crate) fn hide_what_workers_raise() {
    // SAFETY: a hook is called by this thread alone, and stays for the life of the process, as the library
    // does. There may be one already, which is called next.
    unsafe {
        if let Some(next) = pg_sys::emit_log_hook {
            NEXT_HOOK.store(next as *mut c_void, Relaxed);
        }
        pg_sys::emit_log_hook = Some(hide_statement);
    }
}

unsafe extern "C-unwind" fn hide_statement(report: *mut pg_sys::ErrorData) {
    let next = NEXT_HOOK.load(Relaxed);
    // SAFETY: a report that is being logged (EmitErrorReport, src/backend/utils/error/elog.c); its texts are
    // null or C strings. The pointer is null or the function that stood here before.
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
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    let none = std::ptr::null();
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::error_context_stack = std::ptr::null_mut();
        emit(
            PgLogLevel::ERROR as c_int,
            code,
            OUT_OF_MEMORY.as_ptr(),
            c"pg_session_jwt reserves a few megabytes before it begins.".as_ptr(),
            none,
        );
    }
    unreachable!("errfinish() does not return from an ERROR")
}

/// A WARNING to the client.
pub(crate) fn warn(message: &str, hint: &str) {
    let code = PgSqlErrorCode::ERRCODE_WARNING;
    tell(PgLogLevel::WARNING, code, message, hint);
}

/// Reports something that is no error. A cancel that Postgres notices meanwhile comes back as a panic,
/// like any ERROR of a function of Postgres's.
pub(super) fn tell(level: PgLogLevel, code: PgSqlErrorCode, message: &str, hint: &str) {
    let (level, message, hint) = (level as c_int, pstring(message), pstring(hint));
    // SAFETY: C strings, or null; within the boundary there is nothing with a destructor.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| emit(level, code, message, std::ptr::null(), hint));
    }
}

/// A palloc'd C string; null for an empty one, and where there is no memory.
fn pstring(text: &str) -> *const c_char {
    unsafe extern "C-unwind" {
        fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
    }
    if text.is_empty() {
        return std::ptr::null();
    }
    // A NUL byte cannot be in there (messages quote with escapes); were it, the text ends before it.
    let text = text.split('\0').next().unwrap_or_default();
    // SAFETY: with NO_OOM there is no ERROR, for which this is no place. The memory is as large as what is
    // copied, and the copy ends with NUL.
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

/// ereport(), with the statement and the context kept out of the server log: they may hold the token.
///
/// pgrx's own report cannot do that, and its bindings leave these functions out.
///
/// # Safety
/// Null or C strings. At ERROR and above it does not return (see [`Report::raise`]).
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
    // SAFETY: the order of calls that the ereport() macro has (src/include/utils/elog.h).
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
