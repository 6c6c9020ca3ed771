//! JSON Web Tokens: the compact form, key sets, algorithms, the rules for claims, and the reasons
//! for a rejection.
//!
//! Nothing here knows Postgres, reads a clock or keeps state: the trusted keys and the time are
//! arguments. So a rule can be read, fuzzed, timed and tested by itself.
//!
//! Two functions carry the security of the whole extension:
//! [`verify`] accepts a token, and `Key::fits` (in `key_set.rs`) says which keys may be asked.

mod claims;
mod compact;
mod header;
pub mod json;
mod key_set;
mod provider;
mod rejection;
mod signature;
mod verify;

pub use claims::Claims;
pub use header::Header;
pub use key_set::{Key, KeySet, KeySetError, MAX_KEY_SET_BYTES};
pub use provider::{Provider, ProviderError, ProviderRow, RoleRules};
pub use rejection::{Near, Rejected, Rejection, RoleFault, Stage, quoted};
pub use verify::{Clock, MAX_KEYS_TRIED, MAX_TOKEN_BYTES, Token, TrustedKeys, verify};
