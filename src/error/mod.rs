//! Everything that can go wrong, and how it is reported to Postgres.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `value` | everything that can go wrong, as one value |
//! | `words` | its texts: SQLSTATE, primary message, DETAIL, HINT |
//! | `report` | the report of an error that Postgres gets |
//! | `raise` | the boundary that catches and raises errors, and keeps tokens out of the log |
//! | `audit` | `pg_session_jwt.audit_log` |

mod audit;
mod raise;
mod report;
mod value;
mod words;

pub(crate) use audit::{log, log_accepted, log_rejected};
pub(crate) use raise::{
    guarded, hide_what_workers_raise, out_of_memory, warn, warn_of_ignored_keys,
};
pub(crate) use report::Report;
pub(crate) use value::{Error, SetBy};
pub(crate) use words::OWN_KEY_IGNORED;
