//! `cargo xtask`: the commands that a person types, on a machine with nothing but Rust.
//!
//! Each command finds or installs what it needs (see [`machine`] and [`postgres`]), says what it is
//! doing before anything that takes long, and runs again within seconds once that is done.

mod bench;
mod clients;
mod demo;
mod lint;
mod machine;
mod node;
mod postgres;
mod shell;
mod test;
mod todo;

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Parser;

/// The majors that the extension supports.
pub const SUPPORTED: [u16; 4] = [15, 16, 17, 18];

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Install a release build into the Postgres found on this machine, start a throwaway cluster on a free
    /// port, and play examples/sql/todo.sql: row-level security that obeys session tokens. Or, with --todo, serve
    /// examples/todo: the same in a browser, with users who sign in
    Demo(demo::Options),
    /// Run every test but those with real clients (--clients), against private copies of Postgres; the system's own
    /// is not touched
    Test(test::Options),
    /// Measure what a row, a token and a transaction cost, with a release build in a private copy of
    /// Postgres; prints tables in Markdown. Takes about 10 minutes; nothing else should run meanwhile
    Bench(bench::Options),
    /// clippy on everything, warnings as errors
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Lint => lint::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What failed and why, without the backtrace that anyhow would add.
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A supported major on the command line: `16` or `pg16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Major(pub u16);

impl FromStr for Major {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim_start_matches("pg").parse() {
            Ok(major) if SUPPORTED.contains(&major) => Ok(Self(major)),
            _ => bail!("the supported versions of Postgres are 15, 16, 17 and 18"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Command as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn misuse_is_refused() {
        for line in [
            "test --pg 14",
            "test --pg",
            "test --must all",
            "test --only x",
            "demo --pg all",
            "demo --todo --keep",
            "bench --pg 15,16",
            "bench --rounds 0",
            "bench --only pgrx",
            "deploy",
        ] {
            let words = std::iter::once("xtask").chain(line.split(' '));
            assert!(Command::try_parse_from(words).is_err(), "{line}");
        }
    }
}
