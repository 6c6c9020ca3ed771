//! clippy. The extension compiles only with a Postgres at hand, which is why this is a command.

use anyhow::Result;

use crate::machine::Machine;
use crate::postgres;
use crate::shell::say;

/// Runs clippy on the whole workspace.
pub fn run() -> Result<()> {
    let mut machine = Machine::look()?;
    machine.build_tools()?;
    let major = postgres::default_major(&machine)?;
    let postgres = postgres::private(&machine, major)?;
    let label = postgres.label();
    say("clippy (2 minutes the first time)");
    let clippy = postgres.cargo(&machine)?;
    let clippy = clippy.args(["clippy", "--workspace", "--all-targets", "--features"]);
    let clippy = clippy.arg(format!("pg_session_jwt/{label} pg_session_jwt/pg_test"));
    Ok(clippy.args(["--", "-D", "warnings"]).run()?)
}
