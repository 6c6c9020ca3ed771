//! What the server said when it refused a statement.

/// The first lines with which a token is rejected, by name, as the contract fixes them.
pub mod first_line {
    /// structure
    pub const ENCODING: &str = "invalid JWT encoding";
    /// structure, in the third part
    pub const SIGNATURE_ENCODING: &str = "invalid JWT signature encoding";
    /// header
    pub const HEADER: &str = "invalid JWT header";
    /// key
    pub const NO_KEY_FITS: &str = "no key fits the JWT";
    /// key, when nothing at all could verify a token
    pub const NO_KEY: &str = "no key to verify the token with";
    /// key, when no provider that is enabled has the token's issuer
    pub const ISSUER: &str = "unknown JWT issuer";
    /// signature
    pub const SIGNATURE: &str = "invalid JWT signature";
    /// payload
    pub const PAYLOAD: &str = "invalid JWT payload";
    /// time
    pub const EARLY: &str = "Token used before it is ready";
    /// time
    pub const EXPIRED: &str = "Token used after it has expired";
    /// policy
    pub const AUDIENCE: &str = "JWT audience is not accepted";
    /// policy
    pub const PARTY: &str = "JWT authorized party is not accepted";
    /// policy
    pub const LACKS: &str = "JWT lacks a required claim";
    /// policy
    pub const ROLE: &str = "JWT role is not accepted";
    /// policy
    pub const REPLAY: &str = "Token ID must be strictly monotonically increasing.";
}

/// An ERROR from the server; or a notice or a warning, see [`Session::said`](crate::Session::said).
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// SQLSTATE
    pub sqlstate: String,
    /// the first line
    pub message: String,
    /// DETAIL, empty when there is none
    pub detail: String,
    /// HINT, empty when there is none
    pub hint: String,
}

impl Refusal {
    /// What is in a driver's error. Panics when the connection broke instead: no test here means
    /// to lose its backend.
    pub fn from_error(error: &postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            panic!("the server did not answer with an ERROR: {error:?}");
        };
        Self::from_db(db)
    }

    /// The same of a notice or a warning.
    pub(crate) fn from_db(db: &postgres::error::DbError) -> Self {
        Self {
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().unwrap_or_default().to_owned(),
            hint: db.hint().unwrap_or_default().to_owned(),
        }
    }

    /// A token was rejected at `stage` with `message` as the first line: SQLSTATE 28000, the DETAIL
    /// begins with the stage, and no part of a token is in the text.
    #[track_caller]
    pub fn assert_stage(&self, stage: &str, message: &str) {
        self.assert("28000", message);
        assert!(
            self.detail.starts_with(&format!("{stage}: ")),
            "DETAIL should begin with «{stage}: »: {self:?}"
        );
        self.assert_shows_no_token();
    }

    /// The SQLSTATE and the first line.
    #[track_caller]
    pub fn assert(&self, sqlstate: &str, message: &str) {
        assert_eq!(
            (self.sqlstate.as_str(), self.message.as_str()),
            (sqlstate, message),
            "{self:?}"
        );
    }

    /// `eyJ` is how every part that holds a JSON object begins in base64url.
    #[track_caller]
    pub fn assert_shows_no_token(&self) {
        for text in [&self.message, &self.detail, &self.hint] {
            assert!(!text.contains("eyJ"), "a token is in the message: {self:?}");
        }
    }
}
