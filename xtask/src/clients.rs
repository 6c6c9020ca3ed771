//! tests/clients: drivers and libraries as applications use them, through PgBouncer, with tokens of a real
//! OpenID provider.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Cluster, PgBouncer, sql_text};
use serde_json::Value;

use crate::machine::{Machine, find_program, has_program};
use crate::node;
use crate::postgres::Postgres;
use crate::shell::{logged, note, say};
use crate::todo::{self, Example};

/// What a client is written in, which is also its folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Node,
    Python,
    Rust,
    Java,
    /// Node, with psql and Python, on the pages of docs/guides.
    Guides,
    /// Node, and Chromium on examples/todo.
    Browser,
}

/// A client: its file, which also names its database, and what it is.
type Client = (&'static str, Language, &'static str);

const CLIENTS: [Client; 11] = [
    ("node-postgres", Language::Node, "node-postgres"),
    ("postgres-js", Language::Node, "postgres.js"),
    ("kysely", Language::Node, "Kysely"),
    ("drizzle", Language::Node, "drizzle-orm/neon"),
    ("psycopg3", Language::Python, "psycopg 3"),
    ("sqlalchemy2", Language::Python, "SQLAlchemy"),
    ("rust-postgres", Language::Rust, "the Rust crate postgres"),
    ("jdbc", Language::Java, "JDBC"),
    (
        "bulk",
        Language::Node,
        "5,000 interleaved requests of 20 users",
    ),
    ("guides", Language::Guides, "the code in docs/guides"),
    ("todo", Language::Browser, "examples/todo in Chromium"),
];

/// Fewer connections to the server than there are clients.
const POOLING: &str = "pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 200\n\
    ignore_startup_parameters = extra_float_digits"; // which JDBC sends

/// What the clients need beside Postgres.
pub struct Tools {
    folder: PathBuf,
    python: PathBuf,
    pgbouncer: PathBuf,
    /// The driver, where there is a Java to run it.
    jdbc: Option<PathBuf>,
    /// The browser, where it can be had.
    chromium: Option<PathBuf>,
}

impl Tools {
    /// Installs what is missing.
    pub fn get(machine: &Machine) -> Result<Self> {
        let folder = machine.workspace.join("tests/clients");
        let _lock = machine.lock("clients")?;
        node::packages(machine, "tests/clients")?;
        let chromium = node::chromium(machine)?;
        todo::packages(machine)?;
        Ok(Self {
            python: python(machine, &folder.join("python"))?,
            pgbouncer: pgbouncer(machine)?,
            jdbc: jdbc(machine)?,
            chromium,
            folder,
        })
    }
}

/// Runs the clients whose names contain one of these texts; all, if there is none. What was run, for the summary.
pub fn run(
    machine: &Machine,
    tools: &Tools,
    postgres: &Postgres,
    cluster: &Cluster,
    only: &[String],
) -> Result<String> {
    let wanted =
        |(name, ..): &Client| only.is_empty() || only.iter().any(|part| name.contains(part));
    let clients: Vec<Client> = CLIENTS.into_iter().filter(wanted).collect();
    let names = CLIENTS.map(|(name, ..)| name).join(", ");
    ensure!(!clients.is_empty(), "the clients are: {names}");

    let issuers = Issuers::start(machine, &tools.folder)?;
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run("CREATE ROLE web LOGIN NOINHERIT");
    for (name, language, _) in &clients {
        let database = name.replace('-', "_");
        admin.run(&format!("CREATE DATABASE {database}"));
        // How busy this machine is shall not decide what is accepted.
        admin.run(&format!(
            "ALTER DATABASE {database} SET pg_session_jwt.fetch_wait = '10 s'"
        ));
        if matches!(language, Language::Browser | Language::Guides) {
            continue; // the example's own schema.sql makes what it needs, and so do the pages
        }
        issuers.register(cluster, &database);
        let mut admin = cluster.connect(&database, "postgres");
        admin.run("SELECT auth.create_roles(); GRANT anonymous, authenticated TO web");
        admin.run(&fs::read_to_string(tools.folder.join("admin.sql"))?);
        if *name != "drizzle" {
            admin.run(&fs::read_to_string(tools.folder.join("setup.sql"))?);
        }
    }
    let programs = postgres.programs(machine)?;
    let pooler = PgBouncer::start(
        &tools.pgbouncer,
        &programs,
        cluster.port(),
        &["web", "todo_app", "app"],
        POOLING,
    )?;

    let mut absent = Vec::new();
    for (name, language, what) in clients {
        let url = |role, port| {
            format!(
                "postgres://{role}@127.0.0.1:{port}/{}",
                name.replace('-', "_")
            )
        };
        say(format!(
            "Postgres {}, through PgBouncer: {what} (seconds)",
            postgres.major
        ));
        let role = match language {
            Language::Browser => "todo_app",
            Language::Guides => "app",
            _ => "web",
        };
        let mut running = None; // runs while its client does
        let client = match language {
            Language::Node => {
                let file = tools.folder.join(format!("node/{name}.mjs"));
                let node = machine.settled("node");
                node.args(["--test", "--test-reporter=spec"]).arg(file)
            }
            Language::Guides => {
                let file = tools.folder.join(format!("node/{name}.mjs"));
                let node = machine.settled("node");
                let node = node.args(["--test", "--test-reporter=spec"]).arg(file);
                node.env("PSQL", postgres.bin.join("psql"))
                    .env("PYTHON", &tools.python)
            }
            Language::Python => {
                let file = tools.folder.join(format!("python/{name}.py"));
                let python = machine.settled(&tools.python);
                python.arg("-B").arg(file).arg("--verbose")
            }
            Language::Rust => {
                let test = machine.cargo();
                let test = test.args(["test", "-p", "pg_session_jwt_clients"]);
                test.args(["--", "--test-threads=1"])
            }
            Language::Java => {
                let Some(driver) = &tools.jdbc else {
                    note(
                        "not run: it needs a JDK, 17 or later, on the PATH, and Debian's package of the driver",
                    );
                    absent.push("JDBC");
                    continue;
                };
                let java = machine.settled("java").arg("-cp").arg(driver);
                java.arg(tools.folder.join("java/Jdbc.java"))
            }
            Language::Browser => {
                let Some(chromium) = &tools.chromium else {
                    note("not run: it needs Chromium, and apt has none here");
                    absent.push("a browser");
                    continue;
                };
                let url = url(role, pooler.port());
                let log = machine.log("todo");
                let file = fs::File::create(&log)?.into();
                let example = Example::start(machine, postgres, cluster, &url, name, file)?;
                let page = &running.insert(example).page;
                let file = tools.folder.join(format!("node/{name}.mjs"));
                let node = machine.settled("node");
                let node = node.args(["--test", "--test-reporter=spec"]).arg(file);
                node.env("TODO_PAGE", page)
                    .env("TODO_LOG", log)
                    .env("CHROMIUM", chromium)
            }
        };
        let client = client
            .env("DATABASE_URL", url(role, pooler.port()))
            .env("ADMIN_URL", url("postgres", cluster.port()))
            .env("ISSUERS", &issuers.control);
        client.run().with_context(|| {
            let kept = machine.log(&format!("server-{}", postgres.label()));
            let _ = fs::copy(cluster.log_file(), &kept);
            let _ = fs::write(machine.log("pgbouncer"), pooler.log());
            format!(
                "the server's log is in {}, PgBouncer's beside it",
                kept.display()
            )
        })?;
    }
    Ok(match absent.as_slice() {
        [] => "clients".to_owned(),
        some => format!("clients without {}", some.join(" and ")),
    })
}

/// tests/clients/issuers.mjs, running. It ends with its standard input, which only we hold.
struct Issuers {
    process: Child,
    control: String,
    about: Value,
}

impl Issuers {
    fn start(machine: &Machine, folder: &Path) -> Result<Self> {
        let log = machine.log("issuers");
        let mut process = Command::new("node")
            .arg(folder.join("issuers.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("starting the OpenID provider")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let about: Value = serde_json::from_str(&line)
            .with_context(|| format!("the OpenID provider did not start: {}", log.display()))?;
        let control = about["control"].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            process,
            control,
            about,
        })
    }

    /// As a database's administrator does it: keys that follow for the one, and pinned ones for the other.
    fn register(&self, cluster: &Cluster, database: &str) {
        let text = |value: &Value| sql_text(value.as_str().unwrap_or_default());
        let mut admin = cluster.connect(database, "postgres");
        admin.run("CREATE EXTENSION pg_session_jwt");
        admin.run(&format!(
            "INSERT INTO auth.providers (name, issuer, audience, default_role)
             VALUES ('oidc', {}, '{{app}}', 'authenticated')",
            text(&self.about["oidc"])
        ));
        admin.run(&format!(
            "INSERT INTO auth.providers (name, issuer, audience, jwks) VALUES ('own', {}, '{{app}}', {})",
            text(&self.about["own"]["issuer"]),
            sql_text(&self.about["own"]["jwk"].to_string())
        ));
    }
}

impl Drop for Issuers {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The Python of a virtual environment with what requirements.txt has.
fn python(machine: &Machine, folder: &Path) -> Result<PathBuf> {
    let can = |code: &str| {
        let python = machine.settled("python3").args(["-c", code]);
        let python = python.ignore_stdout().ignore_stderr();
        has_program("python3") && python.run().is_ok()
    };
    if !can("import ensurepip, venv") {
        machine.packages(&["python3", "python3-venv"])?;
    }
    ensure!(
        can("import sys; assert sys.version_info >= (3, 10)"),
        "the tests with real clients need Python 3.10 or later"
    );
    let venv = machine.cache.join("clients-venv");
    let python = venv.join("bin/python");
    let requirements = folder.join("requirements.txt");
    let stamp = venv.join("installed");
    let version = machine.settled("python3").arg("--version").read()?;
    let wanted = format!("{version}\n{}", fs::read_to_string(&requirements)?);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    say("Installing psycopg and SQLAlchemy with pip (20 seconds)");
    machine.sh.remove_path(&venv)?;
    let make = machine.settled("python3").args(["-m", "venv"]).arg(&venv);
    logged(make, &machine.log("venv"))?;
    let install = machine.settled(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    logged(install.arg(requirements), &machine.log("pip"))?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

/// PgBouncer, from Debian's package unless there is one.
fn pgbouncer(machine: &Machine) -> Result<PathBuf> {
    if find_pgbouncer().is_none() {
        note("(the package also starts a PgBouncer of its own, on port 6432, which is not ours)");
        machine.packages(&["pgbouncer"])?;
    }
    find_pgbouncer().context("PgBouncer is missing")
}

/// PgBouncer, if this machine has it.
pub fn find_pgbouncer() -> Option<PathBuf> {
    // Debian's is where only root looks.
    let debian = PathBuf::from("/usr/sbin/pgbouncer");
    find_program("pgbouncer").or_else(|| debian.is_file().then_some(debian))
}

/// The driver, from Debian's package. `None`: this machine has no Java that compiles what it runs. It would be the
/// largest thing to install by far.
fn jdbc(machine: &Machine) -> Result<Option<PathBuf>> {
    let java = |argument: &str| {
        let java = machine.settled("java").arg(argument).ignore_stderr();
        has_program("java").then(|| java.read().unwrap_or_default())
    };
    // `openjdk 17.0.15 2025-04-15`
    let version = java("--version").and_then(|text| {
        let number = text.split([' ', '.']).nth(1)?;
        number.parse::<u32>().ok()
    });
    let compiles = java("--list-modules").is_some_and(|text| text.contains("jdk.compiler@"));
    if version.is_none_or(|it| it < 17) || !compiles {
        return Ok(None);
    }
    machine.packages(&["libpostgresql-jdbc-java"])?;
    let driver = PathBuf::from("/usr/share/java/postgresql.jar");
    Ok(driver.is_file().then_some(driver))
}
