//! clippy. The extension compiles only with a Postgres at hand, which is why this is a command.

use crate::machine::Machine;
use crate::postgres;
use crate::problem::Result;
use crate::shell::{self, say};

/// Runs clippy on the whole workspace.
pub fn run() -> Result<()> {
    let mut machine = Machine::look()?;
    machine.build_tools()?;
    let major = postgres::default_major(&machine)?;
    let postgres = postgres::private(&machine, major)?;
    say("clippy (2 minutes the first time)");
    let mut clippy = postgres.cargo(&machine)?;
    clippy.args(["clippy", "--workspace", "--all-targets", "--features"]);
    clippy.arg(format!(
        "pg_session_jwt/{} pg_session_jwt/pg_test",
        postgres.label()
    ));
    clippy.args(["--", "-D", "warnings"]);
    shell::loud(&mut clippy, "clippy")
}
