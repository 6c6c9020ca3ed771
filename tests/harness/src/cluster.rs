//! Throwaway servers that go away with us, however we end.
//!
//! Each lives in a directory that a small shell script, the keeper, looks after. The keeper waits for
//! the end of its standard input: a pipe that only we hold. Whether we finish, fail, panic, are
//! interrupted or killed, the pipe closes, and the keeper stops the server and removes the directory.
//! No signal handler is needed, and none can be missed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::{Session, setting};

/// $1: the programs' directory, $2: the directory to look after, $3: what to start there: `server`, `nothing`
/// (somebody else starts one under `data`), or the port of the server to be a replica of. Says `ready`
/// when all is up.
const KEEPER: &str = r#"
bin=$1 dir=$2 data=$2/data log=$2/server.log
# We may be gone before `ready` is said; that must not end the keeper.
trap '' PIPE
gone() {
    for pid in "$data"/postmaster.pid "$data"/*/postmaster.pid; do
        [ ! -f "$pid" ] || "$bin/pg_ctl" stop -s -w -m immediate -D "${pid%/postmaster.pid}"
    done >/dev/null 2>&1
    cd / && rm -rf "$dir"
}
trap gone EXIT
case $3 in
    nothing) ;;
    server) "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$log" 2>&1 ;;
    *) "$bin/pg_basebackup" -D "$data" -h 127.0.0.1 -p "$3" -U postgres -R -c fast >"$log" 2>&1 ;;
esac || { tail -30 "$log"; exit 1; }
if [ "$3" != nothing ]; then
    cat "$dir/settings" >>"$data/postgresql.conf"
    "$bin/pg_ctl" start -s -w -t 60 -D "$data" -l "$log" >>"$log" 2>&1 || { tail -30 "$log"; exit 1; }
fi
echo ready
read -r word
[ "$word" != keep ] || trap - EXIT
"#;

/// What every throwaway server is set to.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
logging_collector = off
log_min_messages = debug1
log_line_prefix = '%m [%p] '
max_worker_processes = 16
wal_level = replica
fsync = off
shared_buffers = 64MB
timezone = 'UTC'
";

/// The programs of a Postgres, and the user that they run as.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The directory of initdb, pg_ctl and the rest.
    pub bin: PathBuf,
    /// `None`: they run as us.
    pub account: Option<Account>,
}

/// A user of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl Programs {
    /// Those of the server under test, in PG_BIN. Postgres refuses to run as root: then as the owner of that
    /// server's log.
    pub fn under_test() -> Self {
        let log = fs::metadata(setting("PG_LOG")).expect("PG_LOG is there");
        let own = fs::metadata("/proc/self").expect("a Linux /proc").uid();
        let (uid, gid) = (log.uid(), log.gid());
        Self {
            bin: setting("PG_BIN").into(),
            account: (own != uid).then_some(Account { uid, gid }),
        }
    }

    /// One of them.
    pub fn command(&self, name: &str) -> Command {
        self.run_as_account(self.bin.join(name))
    }

    /// Another program, run by the same user and without our PG variables, which are for other servers.
    pub(crate) fn run_as_account(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if let Some(Account { uid, gid }) = self.account {
            command.uid(uid).gid(gid).env("HOME", "/");
        }
        command.current_dir("/");
        command
    }

    /// A new directory that belongs to the user of the programs. Its name is short: the path of a socket may
    /// not exceed 107 bytes.
    fn new_directory(&self) -> Result<PathBuf> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let mut parent = std::env::temp_dir();
        // The temporary directory of root may be closed to other users.
        if self.account.is_some() || parent.as_os_str().len() > 60 {
            parent = "/tmp".into();
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("pgjwt-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if let Some(Account { uid, gid }) = self.account {
            chown(&path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give away {}", path.display()))?;
        }
        Ok(path)
    }
}

/// A directory with a keeper.
pub struct Kept {
    programs: Programs,
    keeper: Child,
    directory: PathBuf,
}

impl Kept {
    /// A new directory, for a server that somebody else starts under its `data`.
    pub fn directory(programs: &Programs) -> Result<Self> {
        Self::start(programs, programs.new_directory()?, "nothing")
    }

    fn start(programs: &Programs, directory: PathBuf, task: &str) -> Result<Self> {
        let mut command = programs.run_as_account("sh");
        command.args(["-c", KEEPER, "keeper"]);
        command.arg(&programs.bin).arg(&directory).arg(task);
        // As in many a container: with it, pgrx by itself would put the frames of Rust into DETAIL.
        command.env("RUST_BACKTRACE", "full");
        // A group of its own: Ctrl-C in the terminal is for us, and the keeper tidies up after us.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut keeper = command.spawn().context("starting a server")?;
        let mut answer = BufReader::new(keeper.stdout.take().context("no answer")?);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        if line == "ready\n" {
            return Ok(Self {
                programs: programs.clone(),
                keeper,
                directory,
            });
        }
        answer.read_to_string(&mut line)?;
        keeper.wait()?;
        bail!(
            "the server of {} did not start:\n{line}",
            programs.bin.display()
        )
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A port that nothing listens on just now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = [output.stdout, output.stderr].concat();
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// A server that goes when the value does.
pub struct Cluster {
    kept: Kept,
    port: u16,
}

impl Cluster {
    /// A new one for a test that cannot share the server under test, with more settings.
    pub fn start(settings: &str) -> Self {
        Self::of(&Programs::under_test(), settings).expect("a server")
    }

    /// A new one of any Postgres, with more settings, which win over ours.
    pub fn of(programs: &Programs, settings: &str) -> Result<Self> {
        Self::make(programs, settings, "server")
    }

    /// A hot standby of this one.
    pub fn replica(&self) -> Self {
        let programs = Programs::under_test();
        Self::make(&programs, "", &self.port.to_string()).expect("a replica")
    }

    /// A server of `programs` with the databases of this one, which is stopped, brought over by pg_upgrade.
    pub fn upgraded(self, programs: &Programs, initdb: &[&str]) -> Result<Self> {
        let old_programs = &self.kept.programs;
        let (old, kept) = (self.directory().join("data"), Kept::directory(programs)?);
        let (new, port) = (kept.path().join("data"), free_port()?);
        run(old_programs
            .command("pg_ctl")
            .args(["stop", "-w", "-m", "fast", "-D"])
            .arg(&old))?;
        run(programs
            .command("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"])
            .args(initdb)
            .arg("-D")
            .arg(&new))?;
        run(programs
            .command("pg_upgrade")
            .args(["-U", "postgres", "-b"])
            .arg(&old_programs.bin)
            .arg("-B")
            .arg(&programs.bin)
            .arg("-d")
            .arg(&old)
            .arg("-D")
            .arg(&new)
            .arg("-s")
            .arg(kept.path())
            .current_dir(kept.path()))?;
        let options = format!("-p {port} -h 127.0.0.1 -k {}", kept.path().display());
        run(programs
            .command("pg_ctl")
            .args(["start", "-s", "-w", "-o", &options, "-l"])
            .arg(kept.path().join("server.log"))
            .arg("-D")
            .arg(&new))?;
        Ok(Self { kept, port })
    }

    fn make(programs: &Programs, settings: &str, task: &str) -> Result<Self> {
        let directory = programs.new_directory()?;
        let port = free_port()?;
        let text = format!(
            "{SETTINGS}{settings}\nport = {port}\nunix_socket_directories = '{}'\n",
            directory.display()
        );
        fs::write(directory.join("settings"), text)?;
        let kept = Kept::start(programs, directory, task)?;
        Ok(Self { kept, port })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its own directory: `data`, `server.log`, sockets, and what a caller wants to lay beside them.
    pub fn directory(&self) -> &Path {
        self.kept.path()
    }

    /// The file that it logs to.
    pub fn log_file(&self) -> PathBuf {
        self.directory().join("server.log")
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).expect("a log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Leaves the server up after us.
    pub fn keep(mut self) -> Result<()> {
        if let Some(stdin) = &mut self.kept.keeper.stdin {
            stdin
                .write_all(b"keep\n")
                .context("cannot keep the server")?;
        }
        Ok(())
    }

    /// Stops it as `pg_ctl stop -m fast` does, and starts it again.
    pub fn restart(&self) {
        let mut pg_ctl = self.kept.programs.command("pg_ctl");
        pg_ctl.args(["restart", "-s", "-w", "-m", "fast", "-l"]);
        pg_ctl.arg(self.log_file()).arg("-D");
        run(pg_ctl.arg(self.directory().join("data"))).expect("a server that starts again");
    }

    /// Adds lines to postgresql.conf, of which the last for a parameter counts, and has the server read it.
    pub fn reload(&self, lines: &str) {
        self.configure(|text| format!("{text}\n{lines}\n"));
    }

    /// Takes the lines that contain `text` out of postgresql.conf, and has the server read it.
    pub fn reload_without(&self, text: &str) {
        self.configure(|before| {
            let after = before.lines().filter(|line| !line.contains(text));
            after.collect::<Vec<_>>().join("\n") + "\n"
        });
    }

    fn configure(&self, change: impl FnOnce(&str) -> String) {
        // Written in place, so that it stays the server's own file.
        let file = self.directory().join("data/postgresql.conf");
        let text = fs::read_to_string(&file).expect("a configuration");
        fs::write(file, change(&text)).expect("a configuration");
        let loaded = |session: &mut Session| session.text("SELECT pg_conf_load_time()");
        let mut admin = self.connect("postgres", "postgres");
        let before = loaded(&mut admin);
        admin.run("SELECT pg_reload_conf()");
        // A new connection has what the postmaster had when it began.
        crate::wait_until("the configuration is read again", || {
            loaded(&mut self.connect("postgres", "postgres")) != before
        });
    }

    /// A connection.
    pub fn connect(&self, database: &str, role: &str) -> Session {
        self.connect_with(database, role, "")
    }

    /// A connection with startup options.
    pub fn connect_with(&self, database: &str, role: &str, options: &str) -> Session {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port);
        Session::open(config.user(role).dbname(database).options(options))
    }
}
