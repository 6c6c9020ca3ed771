//! examples/todo: its database and its server, for `cargo xtask demo --todo` and for the test in a browser.

use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use harness::{Cluster, UNTIL_WE_END, free_port};

use crate::machine::Machine;
use crate::node;
use crate::postgres::Postgres;
use crate::shell::logged_as;

/// The folder.
const NAME: &str = "examples/todo";

/// Node, and the packages of the example.
pub fn packages(machine: &Machine) -> Result<()> {
    node::packages(machine, NAME)
}

/// The example, running.
pub struct Example {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where its page is.
    pub page: String,
}

impl Example {
    /// Plays schema.sql in an empty database, and starts the server, which gets to that database by `url`, and
    /// whose messages go to `log`.
    pub fn start(
        machine: &Machine,
        postgres: &Postgres,
        cluster: &Cluster,
        url: &str,
        database: &str,
        log: Stdio,
    ) -> Result<Self> {
        let folder = machine.workspace.join(NAME);
        let (port, issuer_port) = (free_port()?, free_port()?);
        let mut psql = postgres.psql(machine, cluster, database)?;
        psql.args(["-v", &format!("issuer=http://127.0.0.1:{issuer_port}")]);
        psql.stdin(std::fs::File::open(folder.join("schema.sql"))?);
        logged_as(
            psql,
            "psql < examples/todo/schema.sql",
            &machine.log("todo-schema"),
        )?;

        let mut server = Command::new("sh");
        server.args(["-c", UNTIL_WE_END, "keeper", "node"]);
        server.arg(folder.join("server.mjs"));
        server.env("DATABASE_URL", url);
        server.env("PORT", port.to_string());
        server.env("ISSUER_PORT", issuer_port.to_string());
        // A group of its own: Ctrl-C in the terminal is for us, and it ends after us.
        server.process_group(0);
        server
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut process = server.spawn().context("starting the example's server")?;
        let stdout = process.stdout.take().context("no pipe")?;
        let mut example = Self {
            process,
            lines: BufReader::new(stdout).lines(),
            page: String::new(),
        };
        while let Some(line) = example.lines.next().transpose()? {
            if let Some(page) = line.strip_prefix("The page is at ") {
                page.clone_into(&mut example.page);
                return Ok(example);
            }
        }
        bail!("the server of {NAME} did not start")
    }

    /// Prints what it prints, for as long as it runs.
    pub fn follow(mut self) -> Result<()> {
        while let Some(line) = self.lines.next().transpose()? {
            println!("{line}");
        }
        bail!("the server of {NAME} has ended")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
