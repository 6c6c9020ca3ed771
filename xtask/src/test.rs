//! `cargo xtask test`: every test, on one or more versions of Postgres.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use harness::{Cluster, Kept};
use xshell::cmd;

use crate::clients;
use crate::machine::Machine;
use crate::postgres::{self, Postgres};
use crate::shell::{note, say};
use crate::{Major, SUPPORTED};

/// Options of the command.
#[derive(Args)]
pub struct Options {
    /// Which Postgres: 15, 16, 17, 18, a list like 16,18, or all; default: the one found. With all, one that
    /// cannot be had on this machine is not tested, and named at the end
    #[arg(long, value_delimiter = ',')]
    pg: Vec<Versions>,
    /// With --pg all: fail if this one cannot be had (a list is fine)
    #[arg(long, value_delimiter = ',')]
    must: Vec<Major>,
    /// Run only this step (a list is fine)
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// Run the tests with real clients, as --only clients does. They need Node 20 and packages of npm and PyPI, so
    /// they run only when they are asked for
    #[arg(long)]
    clients: bool,
    /// Rewrite tests/pg_regress/expected with what the goldens printed
    #[arg(long)]
    bless: bool,
    /// After --: arguments for the tests over connections, for instance a test's name; or with --clients, names of
    /// clients
    #[arg(last = true)]
    rest: Vec<String>,
}

/// `--pg`
#[derive(Debug, Clone, Copy)]
enum Versions {
    All,
    One(u16),
}

impl FromStr for Versions {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            one => Ok(Self::One(one.parse::<Major>()?.0)),
        }
    }
}

/// A step, as `--only` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Unit tests of the pure crates
    Unit,
    /// `cargo pgrx test`: tests inside the server
    Pgrx,
    /// tests/pg_regress
    Goldens,
    /// tests/it: tests over real connections, and the SQL in README and docs
    Connections,
    /// tests/clients: drivers and libraries for Node, Python and Rust, and examples/todo in Chromium, through PgBouncer
    Clients,
}

/// The library in the server has debug assertions, but is not so slow that signatures dominate every
/// test; the harness of `cargo pgrx test` is not worth optimising. Less debug information: a third
/// less to wait.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_DEV_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_DEV_DEBUG", "line-tables-only"),
    ("CARGO_PROFILE_TEST_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_TEST_DEBUG", "line-tables-only"),
];

impl Options {
    fn wants(&self, step: Step) -> bool {
        match step {
            Step::Clients if self.clients => true,
            Step::Clients => self.only.contains(&step),
            _ if self.only.is_empty() => !self.clients,
            _ => self.only.contains(&step),
        }
    }

    /// The majors to test, in order, each with whether its absence is an error; none: the one found.
    fn majors(&self) -> Vec<(u16, bool)> {
        let asked = self.pg.iter().flat_map(|versions| match versions {
            Versions::All => SUPPORTED.map(|major| (major, false)).to_vec(),
            Versions::One(major) => vec![(*major, true)],
        });
        let must = self.must.iter().map(|major| (major.0, true));
        let mut majors: Vec<(u16, bool)> = Vec::new();
        for (major, must) in asked.chain(must) {
            match majors.iter_mut().find(|(known, _)| *known == major) {
                Some((_, known)) => *known |= must,
                None => majors.push((major, must)),
            }
        }
        majors
    }
}

/// Runs what the options ask for; stops at the first failure.
pub fn run(options: &Options) -> Result<()> {
    let mut machine = Machine::look()?;
    machine.build_tools()?;
    let majors = match options.majors() {
        none if none.is_empty() => vec![(postgres::default_major(&machine)?, true)],
        some => some,
    };
    // All of them first: what cannot be had is better known now than in ten minutes.
    let mut versions = Vec::new();
    let mut absent = Vec::new();
    for (major, must) in majors {
        match postgres::private(&machine, major) {
            Ok(postgres) => versions.push(postgres),
            Err(error) if must => return Err(error),
            Err(error) => {
                note(format!("so Postgres {major} is not tested"));
                absent.push(format!(
                    "Postgres {major}: not tested (it cannot be had here: {error})"
                ));
            }
        }
    }
    ensure!(
        !versions.is_empty(),
        "no Postgres can be had here:\n{}",
        absent.join("\n")
    );

    let tools = if options.wants(Step::Clients) {
        Some(clients::Tools::get(&machine)?)
    } else {
        None
    };

    let mut run = Run {
        machine: &machine,
        options,
        tools,
        versions: &versions,
        lines: Vec::new(),
    };
    let outcome = run.all();
    println!();
    for line in run.lines.iter().chain(&absent) {
        println!("{line}");
    }
    outcome
}

/// A run, and its summary so far.
struct Run<'a> {
    machine: &'a Machine,
    options: &'a Options,
    /// Of the clients, if they are wanted.
    tools: Option<clients::Tools>,
    versions: &'a [Postgres],
    lines: Vec<String>,
}

impl Run<'_> {
    fn wants(&self, step: Step) -> bool {
        self.options.wants(step)
    }

    fn all(&mut self) -> Result<()> {
        if self.wants(Step::Unit) {
            self.timed("Unit tests", Self::unit)?;
        }
        for postgres in self.versions {
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
    fn timed(&mut self, name: &str, part: impl FnOnce(&Self) -> Result<String>) -> Result<()> {
        let started = Instant::now();
        let outcome = part(self);
        let seconds = started.elapsed().as_secs();
        self.lines.push(match &outcome {
            Ok(parts) => format!("{name}: passed in {seconds} s ({parts})"),
            Err(_) => format!("{name}: FAILED after {seconds} s"),
        });
        outcome.map(|_| ())
    }

    fn unit(&self) -> Result<String> {
        say("Unit tests of the pure code (1 minute the first time)");
        let test = self.machine.cargo();
        let packages = ["pg_session_jwt_jose", "pg_session_jwt_fetch", "xtask"];
        test.arg("test")
            .args(packages.iter().flat_map(|package| ["-p", package]))
            .run()?;
        Ok("jose, fetch, xtask".into())
    }

    fn version(&self, postgres: &Postgres) -> Result<String> {
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
        if ![Step::Goldens, Step::Connections, Step::Clients]
            .into_iter()
            .any(|step| self.wants(step))
        {
            return Ok(parts.join(", "));
        }
        say(format!(
            "Postgres {major}: building and installing the extension (up to a minute)"
        ));
        install(self.machine, postgres)?;
        let cluster = Cluster::of(&postgres.programs(self.machine)?, "")?;
        note(format!(
            "a throwaway server is up on port {}",
            cluster.port()
        ));
        if self.wants(Step::Goldens) {
            say(format!("Postgres {major}: goldens (seconds)"));
            if self.goldens(postgres, &cluster)? {
                parts.push("goldens".to_owned());
            }
        }
        if self.wants(Step::Connections) {
            say(format!(
                "Postgres {major}: tests over real connections (3 minutes)"
            ));
            self.connections(postgres, &cluster)?;
            parts.push("connections".to_owned());
        }
        if let Some(tools) = &self.tools {
            parts.push(clients::run(
                self.machine,
                tools,
                postgres,
                &cluster,
                &self.options.rest,
            )?);
        }
        Ok(parts.join(", "))
    }

    /// `cargo pgrx test`: functions marked `#[pg_test]`.
    fn pgrx(&self, postgres: &Postgres) -> Result<()> {
        let directory = Kept::directory(&postgres.programs(self.machine)?)?;
        let mut test = postgres.cargo_pgrx(self.machine)?.envs(PROFILE);
        test = test.args(["test", &postgres.label(), "--pgdata"]);
        test = test.arg(directory.path().join("data"));
        if let Some((name, _)) = self.machine.account()? {
            test = test.args(["--runas", name]);
        }
        Ok(test.run()?)
    }

    /// tests/pg_regress: SQL as a user of psql writes it, and what psql prints for it. False: not run.
    fn goldens(&self, postgres: &Postgres, cluster: &Cluster) -> Result<bool> {
        let pg_regress = postgres.modules.join("pgxs/src/test/regress/pg_regress");
        if !pg_regress.is_file() {
            note(format!(
                "skipped: this Postgres has no {}",
                pg_regress.display()
            ));
            return Ok(false);
        }
        let folder = self.machine.workspace.join("tests/pg_regress");
        let output = self.machine.target().join("goldens").join(postgres.label());
        self.machine.sh.create_dir(&output)?;
        let scripts = self.machine.sh.read_dir(folder.join("sql"))?;
        let names = scripts.iter().filter_map(|path| path.file_stem());
        let (port, bin) = (cluster.port().to_string(), &postgres.bin);
        let goldens = cmd!(
            self.machine.sh,
            "{pg_regress} --host=127.0.0.1 --port={port} --user=postgres"
        );
        let goldens = goldens
            .args(["--dbname=goldens", "--load-extension=pg_session_jwt"])
            .arg(format!("--bindir={}", bin.display()))
            .arg(format!("--inputdir={}", folder.display()))
            .arg(format!("--outputdir={}", output.display()))
            .args(names);
        if goldens.quiet().run().is_ok() {
            return Ok(true);
        }
        if self.options.bless {
            for result in self.machine.sh.read_dir(output.join("results"))? {
                self.machine.sh.copy_file(result, folder.join("expected"))?;
            }
            note("tests/pg_regress/expected is rewritten: look at the difference");
            return Ok(true);
        }
        print!("{}", fs::read_to_string(output.join("regression.diffs"))?);
        bail!(
            "goldens differ; when the outputs are right: cargo xtask test --pg {} --only goldens --bless",
            postgres.major
        )
    }

    /// tests/it, against our server.
    fn connections(&self, postgres: &Postgres, cluster: &Cluster) -> Result<()> {
        let mut test = self.machine.cargo();
        test = test.args(["test", "-p", "pg_session_jwt_it"]);
        if !self.options.rest.is_empty() {
            test = test.arg("--").args(&self.options.rest);
        }
        // pg_upgrade goes from the one to the other.
        if let (18, Some(old)) = (
            postgres.major,
            self.versions.iter().find(|old| old.major == 16),
        ) {
            test = test.env("PG_OLD_BIN", &old.bin);
        }
        let outcome = test
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PG_MAJOR", postgres.major.to_string())
            .env("PG_BIN", &postgres.bin)
            .env("PG_SHAREDIR", &postgres.share)
            .env("PG_LOG", cluster.log_file())
            .run();
        outcome.with_context(|| {
            let kept = self.machine.log(&format!("server-{}", postgres.label()));
            let _ = fs::copy(cluster.log_file(), &kept);
            format!("the server's log is in {}", kept.display())
        })
    }
}

/// Installs the extension, without its `#[pg_test]` functions, into a private copy.
fn install(machine: &Machine, postgres: &Postgres) -> Result<()> {
    // What other commits have installed must not take part in this one's tests.
    let folder = postgres.share.join("extension");
    let ours = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("pg_session_jwt"))
    };
    for file in machine
        .sh
        .read_dir(&folder)?
        .iter()
        .filter(|path| ours(path))
    {
        machine.sh.remove_path(file)?;
    }
    let install = postgres.cargo_pgrx(machine)?.envs(PROFILE);
    let install = install.args([
        "install",
        "--no-default-features",
        "--features",
        &postgres.label(),
    ]);
    install.arg("--pg-config").arg(&postgres.pg_config).run()?;
    ensure!(
        folder.join("pg_session_jwt.control").is_file(),
        "nothing was installed in {}",
        folder.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(line: &str) -> Options {
        Line::parse_from(line.split(' ')).options
    }

    #[test]
    fn what_is_asked_for_by_number_must_be_there() {
        let all = |must| SUPPORTED.map(|major| (major, must == major)).to_vec();
        for (line, expected) in [
            ("test", vec![]),
            ("test --pg 16", vec![(16, true)]),
            ("test --pg=pg16,18", vec![(16, true), (18, true)]),
            ("test --pg 16 --pg 15", vec![(16, true), (15, true)]),
            ("test --pg all", all(0)),
            ("test --pg all --must 15", all(15)),
            ("test --must 18", vec![(18, true)]),
        ] {
            assert_eq!(parsed(line).majors(), expected, "{line}");
        }
    }

    #[test]
    fn real_clients_run_only_when_they_are_asked_for() {
        let steps = |line: &str| {
            let options = parsed(line);
            let all = Step::value_variants().iter().copied();
            all.filter(|step| options.wants(*step)).collect::<Vec<_>>()
        };
        let usual = [Step::Unit, Step::Pgrx, Step::Goldens, Step::Connections];
        assert_eq!(steps("test"), usual);
        assert_eq!(steps("test --clients"), [Step::Clients]);
        assert_eq!(steps("test --only clients"), [Step::Clients]);
        assert_eq!(steps("test --only unit"), [Step::Unit]);
        let both = [Step::Unit, Step::Clients];
        assert_eq!(steps("test --only unit --clients"), both);
    }

    #[test]
    fn the_rest_goes_through_untouched() {
        let options = parsed("test --bless --only unit,goldens -- replay --pg x");
        assert!(options.bless);
        assert_eq!(options.only, [Step::Unit, Step::Goldens]);
        assert_eq!(options.rest, ["replay", "--pg", "x"]);
    }
}
