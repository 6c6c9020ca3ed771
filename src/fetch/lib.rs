//! Fetching an issuer's key set over HTTP(S): where a request may go, what it may cost, and when to ask again.
//!
//! Nothing here knows Postgres or keeps anything between two calls. How the caller's process waits is an
//! argument ([`Wait`]), so that it answers its signals meanwhile.
//!
//! One function carries the security: [`Permission`]'s `reach` (in `permission.rs`) says where a request may
//! go. What the answer is worth, `jose` says.

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

mod authorities;
mod connect;
mod deadline;
mod discovery;
mod error;
mod freshness;
mod hosts;
mod order;
mod permission;
mod request;
mod resolve;
pub mod schedule;
mod source;
#[cfg(test)]
mod tests;
mod url;
mod wait;

pub use deadline::{MOST_TO_CONNECT, MOST_TO_RESOLVE, MOST_TOGETHER};
pub use error::FetchError;
pub use hosts::Hosts;
pub use order::{Fetched, Order, fetch};
pub use permission::{Permission, Refused};
pub use request::{MAX_BODY_BYTES, MAX_HEADER_BYTES};
pub use source::{Source, SourceError};
pub use wait::{Event, Wait};
