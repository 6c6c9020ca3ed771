//! Everything that can go wrong, as one value.

use pg_session_jwt_jose::{KeySetError, ProviderError, Rejected};

use super::report::Report;

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
