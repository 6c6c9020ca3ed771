//! Everything that can go wrong, as one value.

use pg_session_jwt_jose::{KeySetError, ProviderError, Rejected, Rejection};

use super::report::Report;

/// Why a function of this extension fails.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Error {
    /// A token that was rejected.
    Rejected(Rejected),
    /// One that was rejected while the connection's own key is ignored.
    OwnKeyIgnored(Rejected),
    /// Keys that cannot be used.
    KeySet(KeySetError),
    /// An invalid row of `auth.providers`.
    Provider(ProviderError),
    /// A parameter whose value is not valid claims.
    Parameter { name: &'static str, detail: String },
    /// `auth.init(jwks)` with keys other than the connection's.
    Pinned,
    /// A client's keys in a database that has providers.
    ProvidersRule,
    /// A change of `auth.provider_keys` by someone else than the worker or a superuser.
    NotTheWorker,
    /// A provider of this name that is not there.
    NoProvider(String),
    /// A trigger function of `auth.providers` on another table.
    NotTheProvidersTable,
    /// See [`crate::guc::refused_parameter`].
    RefusedParameter { by: SetBy, name: String },
    /// A SQL function that is declared with another return type than its body has.
    DeclaredOtherwise,
    /// The library cannot be loaded in a parallel query.
    ParallelLoad,
    /// An argument that may not be NULL, by name.
    NullArgument(&'static str),
    /// There is less memory than the work may need.
    OutOfMemory,
    /// The value of this parameter could not be copied while the library was being loaded.
    Lost(String),
    /// postgresql.conf has keys that were not there when this connection began.
    LaterKeys,
    /// An ERROR from Postgres, or a panic.
    Raised(Report),
    /// A value that the database encoding cannot represent.
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

impl From<Rejection> for Error {
    fn from(reason: Rejection) -> Self {
        Self::Rejected(reason.into())
    }
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
