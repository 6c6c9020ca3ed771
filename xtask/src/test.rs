//! `cargo xtask test`: every test, on one or more versions of Postgres.

use std::fs;
use std::time::Instant;

use crate::cli::{Step, TestOptions};
use crate::cluster::{Cluster, Kept};
use crate::machine::Machine;
use crate::postgres::{self, Postgres};
use crate::problem::{Context, Problem, Result};
use crate::shell::{self, note, say};
use crate::{goldens, readme};

/// The library in the server has debug assertions, but is not so slow that signatures dominate every
/// test; the harness of `cargo pgrx test` is not worth optimising. Less debug information: a third
/// less to wait.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_DEV_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_DEV_DEBUG", "line-tables-only"),
    ("CARGO_PROFILE_TEST_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_TEST_DEBUG", "line-tables-only"),
];

/// Runs what the options ask for; stops at the first failure.
pub fn run(options: &TestOptions) -> Result<()> {
    let mut machine = Machine::look()?;
    machine.build_tools()?;
    let majors = match &options.pg[..] {
        [] => vec![postgres::default_major(&machine)?],
        some => some.to_vec(),
    };
    // All of them first: what cannot be had is better known now than in ten minutes.
    let mut versions = Vec::new();
    let mut absent = Vec::new();
    for major in majors {
        let optional = options.pg.contains(&major) && !options.must.contains(&major);
        match postgres::private(&machine, major) {
            Ok(postgres) => versions.push(postgres),
            Err(problem) if optional => {
                let reason = problem.what();
                note(format!("so Postgres {major} is not tested"));
                absent.push(format!(
                    "Postgres {major}: not tested (it cannot be had here: {reason})"
                ));
            }
            Err(problem) => return Err(problem),
        }
    }
    if versions.is_empty() {
        return Err(Problem::new("no Postgres can be had here").details(absent.join("\n")));
    }

    let mut run = Run {
        machine: &machine,
        options,
        lines: Vec::new(),
    };
    let outcome = run.all(&versions);
    println!();
    for line in run.lines.iter().chain(&absent) {
        println!("{line}");
    }
    outcome
}

/// A run, and its summary so far.
struct Run<'a> {
    machine: &'a Machine,
    options: &'a TestOptions,
    lines: Vec<String>,
}

impl Run<'_> {
    fn wants(&self, step: Step) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&step)
    }

    fn all(&mut self, versions: &[Postgres]) -> Result<()> {
        if self.wants(Step::Unit) {
            self.timed("Unit tests", Self::unit)?;
        }
        for postgres in versions {
            // `.ci/run` looks for these words.
            let assertions = if postgres.assertions {
                " with assertions"
            } else {
                ""
            };
            let name = format!("Postgres {}{assertions}", postgres.version);
            self.timed(&name, |run| run.version(postgres))?;
        }
        Ok(())
    }

    /// Runs a part, and adds its line to the summary.
    fn timed(&mut self, name: &str, part: impl FnOnce(&Self) -> Result<Vec<String>>) -> Result<()> {
        let started = Instant::now();
        let outcome = part(self);
        let seconds = started.elapsed().as_secs();
        self.lines.push(match &outcome {
            Ok(parts) => format!("{name}: passed in {seconds} s ({})", parts.join(", ")),
            Err(_) => format!("{name}: FAILED after {seconds} s"),
        });
        outcome.map(|_| ())
    }

    fn unit(&self) -> Result<Vec<String>> {
        say("Unit tests of the pure code (1 minute the first time)");
        let mut test = self.machine.cargo();
        test.args(["test", "-p", "pg_session_jwt_jose", "-p", "xtask"]);
        shell::loud(&mut test, "the unit tests")?;
        Ok(vec!["jose".into(), "xtask".into()])
    }

    fn version(&self, postgres: &Postgres) -> Result<Vec<String>> {
        let major = postgres.major;
        let mut parts = Vec::new();
        // Another run would replace the library under our running server.
        let _lock = self.machine.lock(&postgres.label())?;
        if self.wants(Step::Pgrx) {
            say(format!(
                "Postgres {major}: tests inside the server (3 minutes the first time, then seconds)"
            ));
            self.pgrx(postgres)?;
            parts.push("inside the server".to_owned());
        }
        let rest = [Step::Goldens, Step::Connections, Step::Readme];
        if !rest.iter().any(|&step| self.wants(step)) {
            return Ok(parts);
        }
        say(format!(
            "Postgres {major}: building and installing the extension (up to a minute)"
        ));
        install(self.machine, postgres)?;
        let cluster = Cluster::start(self.machine, postgres)?;
        note(format!("a throwaway server is up on port {}", cluster.port));

        if self.wants(Step::Goldens) {
            say(format!("Postgres {major}: goldens (seconds)"));
            match goldens::run(self.machine, postgres, &cluster, self.options.bless)? {
                Some(count) => parts.push(format!("{count} goldens")),
                None => note("skipped: there are none in tests/pg_regress/sql"),
            }
        }
        if self.wants(Step::Connections) {
            say(format!(
                "Postgres {major}: tests over real connections (up to a minute)"
            ));
            self.connections(postgres, &cluster)?;
            parts.push("connections".to_owned());
        }
        if self.wants(Step::Readme) {
            say(format!("Postgres {major}: the README's SQL (seconds)"));
            match fs::read_to_string(self.machine.workspace.join("README.md")) {
                Ok(text) => parts.push(format!("{} README blocks", readme::run(&cluster, &text)?)),
                Err(_) => note("skipped: there is no README.md"),
            }
        }
        Ok(parts)
    }

    /// `cargo pgrx test`: functions marked `#[pg_test]`.
    fn pgrx(&self, postgres: &Postgres) -> Result<()> {
        let directory = Kept::directory(self.machine, postgres)?;
        let mut test = postgres.cargo_pgrx(self.machine)?;
        test.envs(PROFILE).arg("test").arg(postgres.label());
        test.arg("--pgdata").arg(directory.path().join("data"));
        if let Some(account) = self.machine.account()? {
            test.args(["--runas", account.name]);
        }
        shell::loud(&mut test, "`cargo pgrx test`")
    }

    /// The crate in tests/, against our server.
    fn connections(&self, postgres: &Postgres, cluster: &Cluster) -> Result<()> {
        let mut test = self.machine.cargo();
        // All that fails at once: that is often what says why.
        test.args(["test", "-p", "pg_session_jwt_it", "--no-fail-fast"]);
        if !self.options.rest.is_empty() {
            test.arg("--").args(&self.options.rest);
        }
        test.env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port.to_string());
        test.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        test.env("PG_MAJOR", postgres.major.to_string());
        test.env("PG_BIN", &postgres.bin)
            .env("PG_SHAREDIR", &postgres.share);
        test.env("PG_LOG", cluster.log());
        let outcome = shell::loud(&mut test, "the tests over real connections");
        outcome.map_err(|problem| {
            let kept = self.machine.log(&format!("server-{}", postgres.label()));
            match fs::copy(cluster.log(), &kept) {
                Ok(_) => problem.advice(format!("the server's log is in {}", kept.display())),
                Err(_) => problem,
            }
        })
    }
}

/// Installs the extension, without its `#[pg_test]` functions, into a private copy.
fn install(machine: &Machine, postgres: &Postgres) -> Result<()> {
    // What other commits have installed must not take part in this one's tests.
    let folder = postgres.share.join("extension");
    for entry in fs::read_dir(&folder)
        .context(|| format!("no {}", folder.display()))?
        .flatten()
    {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("pg_session_jwt")
        {
            fs::remove_file(entry.path())
                .context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    let mut install = postgres.cargo_pgrx(machine)?;
    install.envs(PROFILE).arg("install");
    install.arg("--pg-config").arg(&postgres.pg_config);
    install.args(["--no-default-features", "--features", &postgres.label()]);
    shell::loud(&mut install, "building and installing the extension")?;
    if !folder.join("pg_session_jwt.control").is_file() {
        return Err(Problem::new(format!(
            "nothing was installed in {}",
            folder.display()
        )));
    }
    Ok(())
}
