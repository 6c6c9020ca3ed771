//! Everything that can go wrong, as one value, and the one place that turns it into a report to
//! Postgres.

use std::ffi::{CStr, c_char, c_int};

use pg_session_jwt_jose::{Claims, KeySetError, ProviderError, Rejected, Token, quoted};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

/// Why a function of this extension fails.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Error {
    /// A token that is not accepted.
    Rejected(Rejected),
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
    /// Something named auth.providers that is not the extension's.
    ForeignTable,
    /// See [`crate::guc::refused_parameter`].
    RefusedParameter(String),
    /// A value that the database encoding lacks.
    Unrepresentable(String),
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

/// What Postgres is told: SQLSTATE, primary message, DETAIL, HINT.
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
                hint: "Connect without pg_session_jwt.jwk, or disable the providers.".into(),
            },
            Error::ForeignTable => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "auth.providers is not the table of the extension pg_session_jwt".into(),
                detail: "Whom to trust cannot be told.".into(),
                hint: "Rename it, and bring the extension up to date with ALTER EXTENSION pg_session_jwt UPDATE.".into(),
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
            Error::RefusedParameter(name) => Self {
                sqlstate: Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                message: format!("permission denied to set parameter \"{name}\""),
                detail: "It was set in this session without the privilege, before the library was loaded; the value that an administrator may have given it is lost to this session.".into(),
                hint: "Open another connection that does not set it.".into(),
            },
            Error::Unrepresentable(detail) => Self {
                sqlstate: Code::ERRCODE_UNTRANSLATABLE_CHARACTER,
                message: "the value cannot be represented in the database encoding".into(),
                detail,
                hint: String::new(),
            },
        }
    }
}

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
    let none = std::ptr::null();
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    // SAFETY: below ERROR, emit returns. LOG_SERVER_ONLY is not an option: the manual promises LOG.
    unsafe { emit(PgLogLevel::LOG as c_int, code, pstring(line), none, none) };
}

/// A palloc'd C string; null for an empty one.
fn pstring(text: &str) -> *const c_char {
    if text.is_empty() {
        return std::ptr::null();
    }
    // A NUL byte cannot be in there (messages quote with escapes); were it, the text ends before it.
    let bytes: Vec<u8> = text
        .bytes()
        .take_while(|&byte| byte != 0)
        .chain([0])
        .collect();
    // SAFETY: the memory is as large as what is copied, and the copy ends with NUL.
    unsafe {
        let copy = pg_sys::palloc(bytes.len()).cast::<c_char>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), copy, bytes.len());
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
    const FILE: &str = concat!(file!(), "\0");
    // SAFETY: the order of calls that the ereport() macro has (src/include/utils/elog.h).
    unsafe {
        if errstart(level, std::ptr::null()) {
            errcode(sqlstate as c_int);
            errmsg_internal(TEXT.as_ptr(), message);
            if !detail.is_null() {
                errdetail_internal(TEXT.as_ptr(), detail);
            }
            if !hint.is_null() {
                errhint(TEXT.as_ptr(), hint);
            }
            errhidestmt(true);
            errhidecontext(true);
            errfinish(FILE.as_ptr().cast(), line!() as c_int, c"emit".as_ptr());
        }
    }
}
