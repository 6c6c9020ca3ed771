//! The audit log.

use pg_session_jwt_jose::{Claims, Rejected, Token, quoted};
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::raise::tell;

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
