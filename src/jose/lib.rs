//! JSON Web Tokens: the compact form, key sets, algorithms, the rules for claims, and the reasons
//! for a rejection.
//!
//! Nothing here knows Postgres or reads a clock: the trusted keys and the time are arguments. So each
//! rule can be read, fuzzed, timed and tested by itself.
//!
//! Two functions carry the security of the whole extension: [`verify`] accepts a token, and `Key::fits`
//! (in `key.rs`) says which keys may verify it.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        reason = "a test may panic"
    )
)]

mod claims;
mod clerk_permissions;
mod compact;
mod found_good;
mod header;
pub mod json;
mod jwk;
mod key;
mod key_set;
pub mod organization;
mod provider;
mod quoted;
mod rejection;
mod role;
mod signature;
mod verify;
mod words;

pub use claims::{Claims, Clock, subject};
pub use compact::MAX_TOKEN_BYTES;
pub use found_good::Shared;
pub use header::Header;
pub use key::Key;
pub use key_set::{KeySet, KeySetError, MAX_KEY_SET_BYTES, Published};
pub use provider::{Fetched, Provider, ProviderError, ProviderRow, Providers, Rows};
pub use quoted::quoted;
pub use rejection::{
    Attempt, Looks, Near, NoAttempt, Rejected, Rejection, RoleFault, Stage, Standing,
};
pub use role::RoleRules;
pub use verify::{Accepted, MAX_KEYS_TRIED, Signer, Token, TrustedKeys, verify};
