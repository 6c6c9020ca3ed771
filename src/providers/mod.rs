//! The providers that this backend uses, out of however many there are in `auth.providers`.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `look_up` | whether there is a provider, those of an issuer, and the cache of them |
//! | `registered` | the table, as the rule that accepts a token asks for it |
//! | `fetching` | having keys fetched |
//! | `following` | where the keys of a provider that follows its issuer stand |
//! | `signal` | the signal that rows have changed |
//! | `row` | a row, read |
//! | `write` | what the table's triggers check, and the signal they send |
//!
//! Postgres notifies every backend, also on standbys, when a table's relcache entry may have changed;
//! the triggers of `auth.providers` send that signal when rows change. So a backend reads the rows of an
//! issuer once, by an index, and then only listens, at the start of each statement. After a signal it
//! reads again what it uses, when it uses it.

mod fetching;
mod following;
mod look_up;
mod registered;
mod row;
mod signal;
mod write;

pub(crate) use fetching::{Refreshed, keep_fresh, keep_fresh_by_name, refresh};
pub(crate) use look_up::{of_issuer, registered};
pub(crate) use registered::Registered;
pub(crate) use signal::{define, listen};
pub(crate) use write::{changed, check_apart, check_row, is_replica, written_by_superuser};

use std::ffi::CStr;

/// The column that rows are looked up by.
const ISSUER: &CStr = c"issuer";
