//! The texts of an [`Error`]: a reason → an error report.

use pg_session_jwt_jose::{KeySetError, ProviderError, quoted};
use pgrx::PgSqlErrorCode;

use super::report::{OUT_OF_MEMORY, Report};
use super::value::{Error, SetBy};

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

/// For a connection with a key of its own in a database that has providers.
pub(crate) const OWN_KEY_IGNORED: &str = "The key in pg_session_jwt.jwk is ignored on this connection: while auth.providers has a row, only its providers are trusted.";

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
                detail: "This database trusts only the providers in auth.providers.".into(),
                hint: "Connect without pg_session_jwt.jwk, or register its issuer in auth.providers.".into(),
            },
            Error::NotTheWorker => Self {
                sqlstate: Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                message: "permission denied for table provider_keys".into(),
                detail: "Its rows are written by the background worker that fetches keys.".into(),
                hint: "To trust other keys, put them into auth.providers.".into(),
            },
            Error::NoProvider(name) => Self {
                sqlstate: Code::ERRCODE_UNDEFINED_OBJECT,
                message: format!("provider {} does not exist", quoted(&name)),
                detail: String::new(),
                hint: String::new(),
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
                detail: "This connection already trusts different keys.".into(),
                hint: "A connection's keys cannot be replaced: open another connection.".into(),
            },
            Error::RefusedParameter { by, name } => Self::refused_parameter(by, &name),
            Error::DeclaredOtherwise => Self {
                sqlstate: Code::ERRCODE_INVALID_FUNCTION_DEFINITION,
                message: "the function is declared with another return type than it has".into(),
                detail: String::new(),
                hint: "Drop it, and run ALTER EXTENSION pg_session_jwt UPDATE.".into(),
            },
            Error::ParallelLoad => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "pg_session_jwt cannot be loaded within a parallel query".into(),
                detail: "This minor version of Postgres cannot set the parameters there.".into(),
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
                detail: format!("A value of parameter \"{name}\" could not be copied while the library was being loaded."),
                hint: String::new(),
            },
            Error::LaterKeys => Self {
                sqlstate: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "pg_session_jwt.jwk was set in postgresql.conf after this connection began".into(),
                detail: "A connection gets its keys when it starts. This one has none, and does not fall back to a less trusted source.".into(),
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

impl Report {
    fn refused_parameter(by: SetBy, name: &str) -> Self {
        let lost = "a value from an administrator may have been lost";
        let (sqlstate, message, detail, hint) = match by {
            SetBy::Client => (
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied to set parameter \"{name}\""),
                format!("It was set in this session before the library was loaded, without the privilege or to an invalid value; {lost}."),
                "Open another connection that does not set it.",
            ),
            SetBy::File => (
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"{name}\""),
                "The value in postgresql.conf is invalid, so this session has no identity.".into(),
                "Correct it in postgresql.conf and reload the configuration.",
            ),
            SetBy::Catalog => (
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"{name}\""),
                "The value set by ALTER DATABASE or ALTER ROLE is not accepted, so this session has no identity.".into(),
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
}
