//! The report of an error that Postgres gets.

use std::ffi::CStr;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::CaughtError;

pub(super) const OUT_OF_MEMORY: &CStr = c"out of memory";

/// SQLSTATE, primary message, DETAIL and HINT.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(super) sqlstate: PgSqlErrorCode,
    pub(super) message: String,
    pub(super) detail: String,
    pub(super) hint: String,
}

impl From<CaughtError> for Report {
    /// What was raised, without the Rust frames that pgrx adds where RUST_BACKTRACE is set.
    fn from(caught: CaughtError) -> Self {
        match caught {
            CaughtError::PostgresError(raised) | CaughtError::ErrorReport(raised) => Self {
                sqlstate: raised.sql_error_code(),
                message: raised.message().to_owned(),
                detail: raised.detail().unwrap_or_default().to_owned(),
                hint: raised.hint().unwrap_or_default().to_owned(),
            },
            // The panic's message may quote the input that caused it.
            CaughtError::RustPanic { ereport, .. } => Self {
                sqlstate: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                message: "internal error of pg_session_jwt".into(),
                detail: format!(
                    "at {}:{}",
                    ereport.file().rsplit('/').next().unwrap_or_default(),
                    ereport.line_number()
                ),
                hint: "Report this as a bug.".into(),
            },
        }
    }
}
