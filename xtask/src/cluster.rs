//! Throwaway clusters that go away with us, however we end.
//!
//! Each lives in a directory that a small shell script, the keeper, looks after. The keeper waits
//! for the end of its standard input: a pipe that only we hold. Whether we finish, fail, panic, are
//! interrupted or killed, the pipe closes, and the keeper stops what runs in the directory and
//! removes it. No signal handler is needed, and none can be missed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::machine::{Machine, remove};
use crate::postgres::Postgres;
use crate::problem::{Context, Problem, Result};
use crate::shell;

/// $1: the programs' directory, $2: the directory to look after, $3: `serve`, to make a cluster there
/// first. Says `ready` when all is up.
const KEEPER: &str = r#"
bin=$1 dir=$2 log=$2/server.log
# We may be gone before `ready` is said; that must not end the keeper.
trap '' PIPE
if [ "$3" = serve ]; then
    "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$log" 2>&1 &&
    cat "$dir/settings" >>"$dir/data/postgresql.conf" &&
    "$bin/pg_ctl" start -s -w -t 60 -D "$dir/data" -l "$log" >>"$log" 2>&1 || exit 1
fi
echo ready
read -r word
[ "$word" = keep ] && exit 0
for pid in "$dir"/data/postmaster.pid "$dir"/data/*/postmaster.pid; do
    [ -f "$pid" ] || continue
    data=${pid%/postmaster.pid}
    "$bin/pg_ctl" stop -s -w -t 30 -m fast -D "$data" || "$bin/pg_ctl" stop -s -m immediate -D "$data"
done >/dev/null 2>&1
cd / && rm -rf "$dir"
"#;

/// What every throwaway cluster is set to.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
logging_collector = off
log_min_messages = debug1
log_error_verbosity = default
log_line_prefix = '%m [%p] '
max_connections = 100
max_worker_processes = 16
max_parallel_workers = 8
wal_level = replica
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 64MB
timezone = 'UTC'
";

/// A directory with a keeper.
pub struct Kept {
    keeper: Option<Child>,
    directory: PathBuf,
}

impl Kept {
    /// A new directory, for clusters that somebody else starts under its `data`.
    pub fn directory(machine: &Machine, postgres: &Postgres) -> Result<Self> {
        let directory = machine.temp_dir()?;
        Self::start(machine, postgres, directory, "wait")
    }

    fn start(
        machine: &Machine,
        postgres: &Postgres,
        directory: PathBuf,
        task: &str,
    ) -> Result<Self> {
        let mut command = machine.as_account("sh")?;
        command
            .args(["-c", KEEPER, "keeper"])
            .arg(&postgres.bin)
            .arg(&directory)
            .arg(task);
        forget_postgres_variables(&mut command);
        // As in many a container: with it, pgrx by itself would put the frames of Rust into the DETAIL of
        // errors.
        command.env("RUST_BACKTRACE", "full");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // A group of its own: Ctrl-C in the terminal is for us, and the keeper tidies up after us.
        command.process_group(0);
        let mut keeper = command
            .spawn()
            .map_err(|error| Problem::new(format!("starting a server: {error}")))?;
        let mut answer = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut answer);
        }
        let kept = Self {
            keeper: Some(keeper),
            directory,
        };
        if answer.trim() == "ready" {
            return Ok(kept);
        }
        let data = kept.directory.join("data");
        let log = shell::tail(&kept.directory.join("server.log"), 30);
        remove(&kept.directory);
        Err(Problem::new(format!(
            "a Postgres {} server did not start",
            postgres.major
        ))
        .command(format!(
            "{} -D {}",
            postgres.program("postgres").display(),
            data.display()
        ))
        .details(log))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// A running server.
pub struct Cluster {
    kept: Kept,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    psql: PathBuf,
}

impl Cluster {
    /// Makes a cluster of this Postgres and starts it on a free port.
    pub fn start(machine: &Machine, postgres: &Postgres) -> Result<Self> {
        Self::start_with(machine, postgres, "")
    }

    /// Likewise, with more lines for postgresql.conf, which win over ours.
    pub fn start_with(machine: &Machine, postgres: &Postgres, settings: &str) -> Result<Self> {
        // Between our finding a port and the server's taking it somebody else may.
        let mut last = None;
        for _ in 0..3 {
            match Self::try_start(machine, postgres, settings) {
                Ok(cluster) => return Ok(cluster),
                Err(problem) => last = Some(problem),
            }
        }
        Err(last.unwrap_or_else(|| Problem::new("the server did not start")))
    }

    fn try_start(machine: &Machine, postgres: &Postgres, more: &str) -> Result<Self> {
        let directory = machine.temp_dir()?;
        let port = free_port()?;
        let settings = directory.join("settings");
        let text = format!(
            "{SETTINGS}{more}\nport = {port}\nunix_socket_directories = '{}'\n",
            directory.display()
        );
        fs::write(&settings, text).context(|| format!("cannot write {}", settings.display()))?;
        let kept = Kept::start(machine, postgres, directory, "serve")?;
        Ok(Self {
            kept,
            port,
            psql: postgres.program("psql"),
        })
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.directory().join("server.log")
    }

    /// The cluster's own directory: sockets, log, and what a caller wants to lay beside them.
    pub fn directory(&self) -> &Path {
        self.kept.path()
    }

    /// This cluster's psql, which reads no startup file, connected as `user` to `database`.
    pub fn psql(&self, user: &str, database: &str) -> Command {
        let mut command = Command::new(&self.psql);
        forget_postgres_variables(&mut command);
        command.args(["-X", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-U", user, "-d", database]);
        command
    }

    /// Runs SQL as the superuser.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.psql("postgres", database);
        command.args(["-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        shell::output(&mut command, "setting up a database")
    }

    /// Leaves the server up after us. Returns the line that stops it and removes its directory.
    pub fn keep(mut self, machine: &Machine, postgres: &Postgres) -> Result<String> {
        if let Some(mut keeper) = self.kept.keeper.take() {
            if let Some(mut stdin) = keeper.stdin.take() {
                stdin
                    .write_all(b"keep\n")
                    .context(|| "cannot keep the server".to_owned())?;
            }
            let _ = keeper.wait();
        }
        let mut stop = machine.as_account(postgres.program("pg_ctl"))?;
        stop.args(["stop", "-m", "fast", "-D"])
            .arg(self.directory().join("data"));
        let directory = shell::quote(&self.directory().display().to_string());
        Ok(format!("{} && rm -rf {directory}", shell::show(&stop)))
    }
}

/// A port that nothing listens on just now.
fn free_port() -> Result<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .context(|| "no free port".to_owned())
}

/// PGHOST, PGOPTIONS and the like of whoever typed the command are not meant for our server.
pub fn forget_postgres_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}
