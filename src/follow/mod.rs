//! Keys that follow their issuer: a background worker fetches them, for the session that needs them.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `asker` | the session: starts a worker, and waits for it |
//! | `order` | what a session hands to its worker |
//! | `worker` | the worker: fetches first, and connects to the database afterwards |
//! | `store` | what it writes into `auth.provider_keys` |
//! | `lock` | who does what, agreed between sessions and workers |
//! | `latch` | waiting while the process answers its signals |
//!
//! A session does not fetch by itself: it would hold its snapshot, and with it VACUUM, and a ROLLBACK would
//! undo what it wrote. A worker that has not connected to a database does not keep DROP DATABASE waiting.

mod asker;
mod latch;
mod lock;
mod order;
mod store;
mod worker;

pub(crate) use asker::{Outcome, fetch, pause, run, start};
pub(crate) use latch::wait_until;
pub(crate) use order::{Order, new_worker};
pub(crate) use store::{Due, connect, due, in_transaction};
pub(crate) use worker::begin;
