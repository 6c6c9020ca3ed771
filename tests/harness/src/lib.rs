//! What the tests over real connections share. A test starts with a [`Database`] of its own, opens
//! [`Session`]s on it as an unprivileged role, has an [`Issuer`] sign tokens, and reads a
//! [`Refusal`] where the server said no.
//!
//! `cargo xtask test` starts the server and tells the tests where it is.

mod cluster;
mod issuer;
mod provider;
mod refusal;
mod server;
mod versions;

pub use cluster::Cluster;
pub use issuer::{Issuer, b64, jwks, now, unb64};
pub use provider::{ISS, Row, set_of, token, token_with};
pub use refusal::{Refusal, first_line};
pub use server::{
    APP_USER, Database, Session, backend_memory_kib, option, pg_major, server_log, setting,
    sharedir, sql_text,
};
pub use versions::CURRENT;

/// The tokens that other libraries signed: `vectors/tokens.json`.
pub fn tokens_of_other_libraries() -> Vec<serde_json::Value> {
    parse_array(include_str!("../../vectors/tokens.json"))
}

/// The examples of RFC 7515 and RFC 8037: `vectors/rfc.json`.
pub fn rfc_examples() -> Vec<serde_json::Value> {
    parse_array(include_str!("../../vectors/rfc.json"))
}

/// Claims as issuers document them, and what they say of organisations: `vectors/identity.json`.
pub fn documented_claims() -> Vec<serde_json::Value> {
    parse_array(include_str!("../../vectors/identity.json"))
}

/// A call of each accessor of claims.
pub const ACCESSORS: [&str; 10] = [
    "SELECT auth.user_id()",
    "SELECT auth.uid()",
    "SELECT auth.role()",
    "SELECT auth.email()",
    "SELECT auth.claim('sub')",
    "SELECT auth.claim('o', 'id')",
    "SELECT auth.jwt()",
    "SELECT auth.session()",
    "SELECT auth.organization()",
    "SELECT auth.organization_id()",
];

fn parse_array(text: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(text).expect("the committed vectors are a JSON array")
}
