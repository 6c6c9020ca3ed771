//! What tests, benchmarks and the demo share. A test starts with a [`Database`] of its own, opens
//! [`Session`]s on it as an unprivileged role, has an [`Issuer`] sign tokens, and reads a
//! [`Refusal`] where the server said no. A [`Cluster`] is a server for those that cannot share one.
//!
//! `cargo xtask test` starts the server under test and says where it is, in environment variables.

mod cluster;
mod database;
mod issuer;
mod pooler;
mod provider;
mod refusal;
mod session;
mod versions;
mod web;

pub use cluster::{Account, Cluster, Kept, Programs, free_port};
pub use database::{APP_USER, Database, pg_major, server_log, setting, sharedir};
pub use issuer::{Issuer, b64, jwks, now, unb64};
pub use pooler::{PgBouncer, UNTIL_WE_END};
pub use provider::{ISS, Row, set_of, token, token_with};
pub use refusal::{Refusal, first_line};
pub use session::{Session, backend_memory_kib, option, sql_text};
pub use versions::CURRENT;
pub use web::{Answer, Certificate, DISCOVERY, Web};

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

/// Waits until `done`, for ten seconds at most.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("this never came: {what}");
}
