//! Servers that one test has to itself, where the shared one will not do: replicas, and what concerns
//! the roles of a whole cluster.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Session, setting};

/// $1: the programs' directory, $2: a directory of its own, $3: its port, $4: more settings, $5: the
/// port of the server to be a replica of, or nothing. It stops the server and removes the directory
/// when its standard input ends, which it does however the test does.
const KEEPER: &str = r#"
bin=$1 dir=$2 data=$2/data log=$2/server.log
trap '' PIPE
gone() { "$bin/pg_ctl" stop -s -w -m immediate -D "$data" >/dev/null 2>&1; cd / && rm -rf "$dir"; }
trap gone EXIT
if [ -n "$5" ]; then
    "$bin/pg_basebackup" -D "$data" -h 127.0.0.1 -p "$5" -U postgres -R -c fast >"$log" 2>&1
else
    "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$log" 2>&1
fi || { tail -5 "$log"; exit 1; }
printf '%s\n' "$4" >>"$data/postgresql.conf"
"$bin/pg_ctl" start -s -w -t 60 -D "$data" -l "$log" >>"$log" 2>&1 || { tail -5 "$log"; exit 1; }
echo ready
read -r _
"#;

/// A server that goes when the value does.
pub struct Cluster {
    keeper: Child,
    directory: PathBuf,
    port: u16,
}

impl Cluster {
    /// A new one, with more settings than every test server has.
    pub fn start(settings: &str) -> Self {
        Self::make(settings, None)
    }

    /// A hot standby of this one.
    pub fn replica(&self) -> Self {
        Self::make("", Some(self.port))
    }

    fn make(settings: &str, primary: Option<u16>) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Short, for the socket's sake.
        let directory = PathBuf::from(format!("/tmp/jwt_t{}_{number}", std::process::id()));
        std::fs::create_dir(&directory).expect("a new directory");
        // Postgres refuses to run as root: like the shared server, then.
        let account = std::fs::metadata(setting("PG_LOG")).expect("PG_LOG is there");
        let own = std::fs::metadata("/proc/self")
            .expect("a Linux /proc")
            .uid();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a free port").port();
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper", &setting("PG_BIN")]);
        command.arg(&directory).arg(port.to_string());
        command.arg(format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             fsync = off\nlog_min_messages = debug1\ntimezone = 'UTC'\nshared_buffers = 16MB\n{settings}\n",
            directory.display()
        ));
        command.arg(primary.map(|port| port.to_string()).unwrap_or_default());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if own != account.uid() {
            chown(&directory, Some(account.uid()), Some(account.gid())).expect("root may do that");
            command
                .uid(account.uid())
                .gid(account.gid())
                .env("HOME", "/");
        }
        // As in many a container: with it, pgrx by itself would put the frames of Rust into DETAIL.
        command.env("RUST_BACKTRACE", "full");
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().expect("sh");
        let mut answer = BufReader::new(keeper.stdout.take().unwrap());
        let mut said = String::new();
        while answer.read_line(&mut said).is_ok_and(|bytes| bytes > 0) {
            if said.ends_with("ready\n") {
                return Self {
                    keeper,
                    directory,
                    port,
                };
            }
        }
        let _ = keeper.wait();
        panic!("no server: {said}");
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.join("server.log")).expect("a log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Adds lines to postgresql.conf, of which the last for a parameter counts, and has the server read it.
    pub fn reload(&self, lines: &str) {
        let file = self.directory.join("data/postgresql.conf");
        let mut text = std::fs::read_to_string(&file).expect("a configuration");
        text.push_str(lines);
        text.push('\n');
        self.configure(&text);
    }

    /// Takes the lines that contain `text` out of postgresql.conf, and has the server read it.
    pub fn reload_without(&self, text: &str) {
        let file = self.directory.join("data/postgresql.conf");
        let before = std::fs::read_to_string(&file).expect("a configuration");
        let after: Vec<_> = before.lines().filter(|line| !line.contains(text)).collect();
        self.configure(&after.join("\n"));
    }

    fn configure(&self, text: &str) {
        // Written in place, so that it stays the server's own file.
        let file = self.directory.join("data/postgresql.conf");
        std::fs::write(file, text.to_owned() + "\n").expect("a configuration");
        let loaded = |session: &mut Session| session.text("SELECT pg_conf_load_time()");
        let mut admin = self.connect("postgres", "postgres");
        let before = loaded(&mut admin);
        admin.run("SELECT pg_reload_conf()");
        // A new connection has what the postmaster had when it began.
        for _ in 0..1000 {
            if loaded(&mut self.connect("postgres", "postgres")) != before {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the configuration was never read again");
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

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
