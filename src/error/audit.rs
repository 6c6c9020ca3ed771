//! The audit log.

use pg_session_jwt_jose::{Claims, Rejected, Token, quoted};
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::raise::send;

/// `pg_session_jwt.audit_log`: one line for a token that is now in force.
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

/// `pg_session_jwt.audit_log`: one line for a rejected token.
pub(crate) fn log_rejected(rejected: &Rejected) {
    log(&format!(
        "pg_session_jwt: token rejected: {} ({})",
        rejected.reason.message(),
        rejected.detail()
    ));
}

/// A line in the server log.
pub(crate) fn log(line: &str) {
    // Not LOG_SERVER_ONLY: the manual promises LOG.
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    send(PgLogLevel::LOG, code, [line, "", ""]);
}
