//! PgBouncer in front of a server, for as long as its value lives.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cluster::free_port;
use crate::{Kept, Programs};

/// Runs what it is given until its standard input ends: a pipe that only we hold, so it goes when we do. For `sh -c`,
/// which keeps no end of the other's output open.
pub const UNTIL_WE_END: &str = r#""$@" & pid=$!; exec >&-; read -r _; kill "$pid"; wait"#;

/// A PgBouncer. It may be connected to as anybody whom it was told of.
pub struct PgBouncer {
    port: u16,
    process: Child,
    kept: Kept,
}

impl PgBouncer {
    /// `program` in front of the server on this port, for these roles, with more settings.
    pub fn start(
        program: &Path,
        programs: &Programs,
        server: u16,
        roles: &[&str],
        settings: &str,
    ) -> Result<Self> {
        let kept = Kept::directory(programs)?;
        let (directory, port) = (kept.path(), free_port()?);
        let shown = directory.display();
        let users: String = roles
            .iter()
            .map(|role| format!("\"{role}\" \"\"\n"))
            .collect();
        fs::write(directory.join("users"), users)?;
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {shown}/users\nlogfile = {shown}/pgbouncer.log\n{settings}\n"
        );
        fs::write(directory.join("pgbouncer.ini"), ini)?;
        // It refuses to run as root, as Postgres does.
        let mut command = programs.run_as_account("sh");
        command.args(["-c", UNTIL_WE_END, "keeper"]).arg(program);
        command.args(["--quiet", "pgbouncer.ini"]);
        command.current_dir(directory).process_group(0);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("starting PgBouncer")?;
        let pooler = Self {
            port,
            process,
            kept,
        };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(pooler);
            }
            sleep(Duration::from_millis(10));
        }
        bail!("PgBouncer did not start:\n{}", pooler.log())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.kept.path().join("pgbouncer.log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
