//! Everything that can go wrong, as one value, and the one place that turns it into a report to
//! Postgres.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pg_session_jwt_jose::{Claims, KeySetError, ProviderError, Rejected, Token, quoted};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, pg_sys};

/// Why a function of this extension fails.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Error {
    /// A token that is not accepted.
    Rejected(Rejected),
    /// One that is not accepted while the connection's own key does not count.
    OwnKeyIgnored(Rejected),
    /// Keys that cannot be used.
    KeySet(KeySetError),
    /// A row of `auth.providers` that cannot be.
    Provider(ProviderError),
    /// Claims in a parameter that are not what they should be.
    Parameter { name: &'static str, detail: String },
    /// `auth.init(jwks)` with other keys than the connection has.
    Pinned,
    /// A client's keys, where the database has providers.
    ProvidersRule,
    /// A trigger function of `auth.providers` on another table.
    NotTheProvidersTable,
    /// See [`crate::guc::refused_parameter`].
    RefusedParameter { by: SetBy, name: String },
    /// A SQL function that is declared to return something else than its body does.
    DeclaredOtherwise,
    /// The library cannot be loaded at this moment.
    ParallelLoad,
    /// An argument that may not be NULL, by name.
    NullArgument(&'static str),
    /// There is not as much memory as the work may take.
    OutOfMemory,
    /// The value of this parameter could not be copied while the library was loaded.
    Lost(String),
    /// postgresql.conf has keys that this connection began without.
    LaterKeys,
    /// What Postgres, or a panic, has raised below.
    Raised(Report),
    /// A value that the database encoding lacks.
    Unrepresentable(String),
}

/// Who set a value that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// The client: startup packet, SET, or a function's SET.
    Client,
    /// postgresql.conf.
    File,
    /// ALTER DATABASE or ALTER ROLE.
    Catalog,
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

impl From<KeySetError> for Error {
    fn from(error: KeySetError) -> Self {
        Self::KeySet(error)
    }
}

impl Error {
    /// Message and detail in one sentence.
    pub fn sentence(self) -> String {
        let Report {
            message, detail, ..
        } = self.into();
        if detail.is_empty() {
            message
        } else {
            format!("{message} ({detail})")
        }
    }
}

/// What to know on a connection with a key of its own, where there are providers.
pub(crate) const OWN_KEY_IGNORED: &str = "The key in pg_session_jwt.jwk does not count on this connection: while auth.providers has a row, the providers there are trusted and nothing that a client brings.";

/// What Postgres is told: SQLSTATE, primary message, DETAIL, HINT.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    sqlstate: PgSqlErrorCode,
    message: String,
    detail: String,
    hint: String,
}

impl From<Error> for Report {
    fn from(error: Error) -> Self {
        use PgSqlErrorCode as Code;
        match error {
            Error::Rejected(rejected) => Self {
                sqlstate: Code::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
                message: rejected.reason.message().into(),
                detail: rejected.detail(),
                hint: rejected.reason.hint().unwrap_or_default(),
            },
            Error::OwnKeyIgnored(rejected) => {
                let report = Self::from(Error::Rejected(rejected));
                Self {
                    hint: [&report.hint, OWN_KEY_IGNORED].join(" ").trim().into(),
                    ..report
                }
            }
            Error::Provider(ProviderError { name, detail, hint }) => Self {
                sqlstate: Code::ERRCODE_INVALID_PARAMETER_VALUE,
                message: format!("invalid provider {}", quoted(&name)),
                detail,
                hint: hint.into(),
            },
            Error::ProvidersRule => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "keys of a connection are not trusted while a provider is registered".into(),
                detail: "This database trusts the providers in auth.providers, and nothing that a client brings.".into(),
                hint: "Connect without pg_session_jwt.jwk, or register its issuer in auth.providers.".into(),
            },
            Error::NotTheProvidersTable => Self {
                sqlstate: Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                message: "this trigger function is for auth.providers".into(),
                detail: String::new(),
                hint: String::new(),
            },
            Error::KeySet(KeySetError { detail, hint }) => Self {
                sqlstate: Code::ERRCODE_INVALID_PARAMETER_VALUE,
                message: "invalid JSON Web Key Set".into(),
                detail,
                hint: hint.into(),
            },
            Error::Parameter { name, detail } => Self {
                sqlstate: Code::ERRCODE_INVALID_PARAMETER_VALUE,
                message: format!("invalid value for parameter \"{name}\""),
                detail,
                hint: String::new(),
            },
            Error::Pinned => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "session keys are already pinned".into(),
                detail: "This connection trusts other keys than those given.".into(),
                hint: "Keys stay as long as the connection: open another one.".into(),
            },
            Error::RefusedParameter { by, name } => Self::refused_parameter(by, &name),
            Error::DeclaredOtherwise => Self {
                sqlstate: Code::ERRCODE_INVALID_FUNCTION_DEFINITION,
                message: "the function is declared with another return type than it has".into(),
                detail: String::new(),
                hint: "Drop it, and bring the extension up to date with ALTER EXTENSION pg_session_jwt UPDATE.".into(),
            },
            Error::ParallelLoad => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "pg_session_jwt cannot be loaded within a parallel query".into(),
                detail: "This minor version of Postgres cannot give the parameters their values there.".into(),
                hint: "Call auth.init() first in each connection, add pg_session_jwt to session_preload_libraries, or update Postgres.".into(),
            },
            Error::NullArgument(name) => Self {
                sqlstate: Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                message: format!("{name} must not be null"),
                detail: String::new(),
                hint: String::new(),
            },
            Error::OutOfMemory => Self {
                sqlstate: Code::ERRCODE_OUT_OF_MEMORY,
                message: OUT_OF_MEMORY.to_string_lossy().into_owned(),
                detail: "There is not enough memory to read the token, claims or keys.".into(),
                hint: String::new(),
            },
            Error::Lost(name) => Self {
                sqlstate: Code::ERRCODE_OUT_OF_MEMORY,
                message: OUT_OF_MEMORY.to_string_lossy().into_owned(),
                detail: format!("A value of parameter \"{name}\" could not be copied while the library was loaded."),
                hint: String::new(),
            },
            Error::LaterKeys => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "pg_session_jwt.jwk was set in postgresql.conf after this connection began".into(),
                detail: "Keys belong to a connection from its start, so this one has none and trusts nothing less.".into(),
                hint: "Open another connection.".into(),
            },
            Error::Raised(report) => report,
            Error::Unrepresentable(detail) => Self {
                sqlstate: Code::ERRCODE_UNTRANSLATABLE_CHARACTER,
                message: "the value cannot be represented in the database encoding".into(),
                detail,
                hint: String::new(),
            },
        }
    }
}

impl From<CaughtError> for Report {
    /// What was raised, without what pgrx adds to it: the frames of Rust, where RUST_BACKTRACE is set.
    fn from(caught: CaughtError) -> Self {
        match caught {
            CaughtError::PostgresError(raised) | CaughtError::ErrorReport(raised) => Self {
                sqlstate: raised.sql_error_code(),
                message: raised.message().to_owned(),
                detail: raised.detail().unwrap_or_default().to_owned(),
                hint: raised.hint().unwrap_or_default().to_owned(),
            },
            // Its own words may quote what it choked on.
            CaughtError::RustPanic { ereport, .. } => Self {
                sqlstate: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                message: "internal error of pg_session_jwt".into(),
                detail: format!(
                    "at {}:{}",
                    ereport.file().rsplit('/').next().unwrap_or_default(),
                    ereport.line_number()
                ),
                hint: "Please report it.".into(),
            },
        }
    }
}

impl Report {
    fn refused_parameter(by: SetBy, name: &str) -> Self {
        let lost = "the value that an administrator may have given it is lost to this session";
        let (sqlstate, message, detail, hint) = match by {
            SetBy::Client => (
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied to set parameter \"{name}\""),
                format!("It was set in this session without the privilege, or to a value that it does not take, before the library was loaded; {lost}."),
                "Open another connection that does not set it.",
            ),
            SetBy::File => (
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"{name}\""),
                "The value in postgresql.conf is not one that it takes, so no identity is given.".into(),
                "Correct it in postgresql.conf and reload the configuration.",
            ),
            SetBy::Catalog => (
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"{name}\""),
                "ALTER DATABASE or ALTER ROLE has set it to a value that it does not take there, so no identity is given.".into(),
                "RESET it there, and open another connection.",
            ),
        };
        Self {
            sqlstate,
            message,
            detail,
            hint: hint.into(),
        }
    }

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
const FILE: &CStr = c"pg_session_jwt/src/error.rs";
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

const OUT_OF_MEMORY: &CStr = c"out of memory";

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
            c"pg_session_jwt asks for a few megabytes before it begins.".as_ptr(),
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
fn tell(level: PgLogLevel, code: PgSqlErrorCode, message: &str, hint: &str) {
    let (level, message, hint) = (level as c_int, pstring(message), pstring(hint));
    // SAFETY: C strings, or null; within the boundary there is nothing with a destructor.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| emit(level, code, message, std::ptr::null(), hint));
    }
}

/// `pg_session_jwt.audit_log`: one line for a token that counts from now on.
pub(crate) fn log_accepted(token: &Token) {
    let or_none = |text: &Option<String>| text.as_deref().map_or("none".into(), quoted);
    let Claims {
        issuer,
        subject,
        audience,
        ..
    } = &token.claims;
    let audience = match audience.as_slice() {
        [] => "none".into(),
        names => names
            .iter()
            .map(|name| quoted(name))
            .collect::<Vec<_>>()
            .join(", "),
    };
    log(&format!(
        "pg_session_jwt: token accepted: subject {}, audience {audience}, issuer {}, key id {}",
        or_none(subject),
        or_none(issuer),
        or_none(&token.header.key_id),
    ));
}

/// `pg_session_jwt.audit_log`: one line for a token that is rejected.
pub(crate) fn log_rejected(rejected: &Rejected) {
    log(&format!(
        "pg_session_jwt: token rejected: {} ({})",
        rejected.reason.message(),
        rejected.detail()
    ));
}

fn log(line: &str) {
    // LOG_SERVER_ONLY is not an option: the manual promises LOG.
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    tell(PgLogLevel::LOG, code, line, "");
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
