//! `cargo xtask demo`: examples/sql/todo.sql, played by psql in a throwaway cluster; or examples/todo, served.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use harness::Cluster;
use xshell::cmd;

use crate::Major;
use crate::machine::Machine;
use crate::postgres::{self, Postgres};
use crate::shell::{note, say};
use crate::todo::{self, Example};

/// Options of the command.
#[derive(Args)]
pub struct Options {
    /// Serve examples/todo, a page whose users sign in, until Ctrl-C. Needs Node 20
    #[arg(long, conflicts_with = "keep")]
    todo: bool,
    /// Leave the server up, and say how to open psql on it and how to stop it
    #[arg(long)]
    keep: bool,
    /// Use this version of Postgres (15 to 18)
    #[arg(long)]
    pg: Option<Major>,
}

/// Builds, installs, starts and plays.
pub fn run(options: &Options) -> Result<()> {
    let mut machine = Machine::look()?;
    if options.todo {
        // It is here within seconds, or is missing.
        todo::packages(&machine)?;
    }
    machine.build_tools()?;
    let postgres = choose(&machine, options.pg)?;
    // Into a private copy the tests install as well, which must not happen under our server.
    let private = postgres.pg_config.starts_with(&machine.cache);
    let _lock = private
        .then(|| machine.lock(&postgres.label()))
        .transpose()?;
    install(&machine, &postgres)?;
    say(format!(
        "Starting a throwaway Postgres {} on a free port (3 seconds)",
        postgres.major
    ));
    let cluster = Cluster::of(&postgres.programs(&machine)?, "")?;
    let psql = psql(&postgres, &cluster, "postgres");
    cluster
        .connect("postgres", "postgres")
        .run("CREATE DATABASE todo");
    if options.todo {
        return serve(&machine, &postgres, &cluster, &psql);
    }
    say("examples/sql/todo.sql, as psql plays it");
    play(&machine, &postgres, &cluster)?;
    say("Every answer was the expected one");
    if options.keep {
        note("The server stays up. To stop it and remove it:");
        println!("      {}", machine.stop_command(&postgres, &cluster)?);
        note("To open psql on it:");
        cluster.keep()?;
    } else {
        note("The server is gone. `cargo xtask demo --keep` leaves it up, and ends with the line");
        note("that opens psql on it. For this one that was:");
    }
    println!("      {psql} todo");
    Ok(())
}

/// examples/todo, until Ctrl-C. The cluster and the example's server end with us, however we do.
fn serve(machine: &Machine, postgres: &Postgres, cluster: &Cluster, psql: &str) -> Result<()> {
    let url = format!("postgres://todo_app@127.0.0.1:{}/todo", cluster.port());
    let example = Example::start(machine, postgres, cluster, &url, "todo", Stdio::inherit())?;
    say(format!("{}  is the page: open it", example.page));
    note(
        "Sign in as Alice in one window and as Bob in a private one. The database, as its owner sees it:",
    );
    println!("      {psql} todo");
    note("Ctrl-C ends it, and leaves nothing behind.");
    example.follow()
}

fn psql(postgres: &Postgres, cluster: &Cluster, user: &str) -> String {
    let psql = postgres.bin.join("psql");
    let port = cluster.port();
    format!("{} -h 127.0.0.1 -p {port} -U {user}", psql.display())
}

/// Plays the script, showing what psql prints, and compares that with the expected output.
fn play(machine: &Machine, postgres: &Postgres, cluster: &Cluster) -> Result<()> {
    let folder = machine.workspace.join("examples/sql");
    let mut psql = postgres.psql(machine, cluster, "todo")?;
    psql.arg("-a");
    // One pipe for both streams keeps their order.
    let (reader, writer) = std::io::pipe()?;
    psql.stdin(fs::File::open(folder.join("todo.sql"))?);
    psql.stdout(writer.try_clone()?).stderr(writer);
    let mut child = psql.spawn().context("starting psql")?;
    // Ours must be closed, or the pipe never ends.
    psql.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut printed = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        println!("{line}");
        printed += &line;
        printed.push('\n');
    }
    child.wait()?;
    let expected = folder.join("todo.out");
    if fs::read_to_string(&expected).unwrap_or_default() == printed {
        return Ok(());
    }
    let got = machine.target().join("todo.out");
    fs::write(&got, printed)?;
    cmd!(machine.sh, "diff -U3 {expected} {got}")
        .quiet()
        .ignore_status()
        .run()?;
    bail!(
        "the answers differ from examples/sql/todo.out; they are in {}",
        got.display()
    )
}

/// The Postgres to install into: the system's if we may, otherwise a private copy.
fn choose(machine: &Machine, wanted: Option<Major>) -> Result<Postgres> {
    match postgres::system(machine, wanted.map(|major| major.0))? {
        Some(postgres) if machine.sudo || machine.may_write(&postgres.modules) => Ok(postgres),
        Some(postgres) => {
            note(format!(
                "Installing into {} takes root or sudo: a private copy is used instead.",
                postgres.modules.display()
            ));
            postgres::private(machine, postgres.major)
        }
        // Neither installed nor offered by apt.
        None => postgres::private(machine, wanted.map_or(16, |major| major.0)),
    }
}

/// Installs a release build.
pub fn install(machine: &Machine, postgres: &Postgres) -> Result<()> {
    say(format!(
        "Building a release and installing it into {} (5 minutes the first time, then seconds)",
        postgres.modules.display()
    ));
    let (pg_config, label) = (&postgres.pg_config, postgres.label());
    let mut install = postgres.cargo_pgrx(machine)?;
    install = install.args(["install", "--release", "--no-default-features"]);
    install = install.arg("--pg-config").arg(pg_config);
    install = install.args(["--features", &label]);
    if !machine.may_write(&postgres.modules) {
        install = install.arg("--sudo");
    }
    Ok(install.run()?)
}
