//! This machine: who we are on it, where our cache is, and how missing programs get here.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::problem::{Context, Problem, Result};
use crate::shell::{self, note, say};

/// The cargo-pgrx that goes with the `pgrx` in Cargo.toml; the two must be equal.
const CARGO_PGRX: &str = "0.18.1";

/// What building the extension takes: a program, and the package of Debian and Ubuntu that has it.
const BUILD_PROGRAMS: [(&str, &str); 4] = [
    ("cc", "build-essential"),
    ("make", "make"),
    ("pkg-config", "pkg-config"),
    ("clang", "clang"),
];

/// What we know about the machine.
pub struct Machine {
    /// We are root: packages can be installed, but Postgres refuses to run as us.
    pub root: bool,
    /// We are not root and sudo asks no password.
    pub sudo: bool,
    /// Private copies of Postgres, cargo-pgrx, logs. See [`cache_dir`].
    pub cache: PathBuf,
    /// The workspace.
    pub workspace: PathBuf,
    /// The cargo-pgrx to use, once [`Machine::build_tools`] has found or installed it.
    cargo_pgrx: Option<PathBuf>,
}

/// The user that Postgres runs as when we are root.
pub struct Account {
    /// Its name.
    pub name: &'static str,
    uid: u32,
    gid: u32,
}

impl Machine {
    /// Looks around, and makes the cache directory.
    pub fn look() -> Result<Self> {
        let root = shell::output(Command::new("id").arg("-u"), "asking who we are")? == "0";
        let sudo = !root && shell::succeeds(Command::new("sudo").args(["-n", "true"]));
        let cache = cache_dir(root)?;
        fs::create_dir_all(cache.join("logs"))
            .context(|| format!("cannot make the cache directory {}", cache.display()))?;
        // Set by `cargo run`; the value from compile time is for a binary that is run by itself.
        let manifest = std::env::var("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let workspace = Path::new(&manifest)
            .parent()
            .unwrap_or(Path::new("."))
            .to_owned();
        Ok(Self {
            root,
            sudo,
            cache,
            workspace,
            cargo_pgrx: None,
        })
    }

    /// Where the output of a quiet step goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.cache.join("logs").join(format!("{name}.log"))
    }

    /// Holds `name` for this process: two runs at once must not build or use the same private copy.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.cache.join(format!("{name}.lock"));
        let file = File::create(&path).context(|| format!("cannot write {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            say(format!(
                "Waiting for another `cargo xtask` that is using {name}"
            ));
        }
        file.lock()
            .context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// The user that Postgres shall run as; `None` when it runs as us.
    ///
    /// As root that is `postgres`, which Debian's packages make, or else `nobody`.
    pub fn account(&self) -> Result<Option<Account>> {
        if !self.root {
            return Ok(None);
        }
        let id = |flag: &str, name: &str| {
            shell::output(Command::new("id").args([flag, name]), "looking up a user")
                .ok()
                .and_then(|text| text.parse().ok())
        };
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id("-u", name), id("-g", name)) {
                return Ok(Some(Account { name, uid, gid }));
            }
        }
        Err(
            Problem::new("Postgres refuses to run as root, and there is no user to run it as")
                .advice("create a user `postgres`, or run this as an ordinary user"),
        )
    }

    /// A command that runs as the user that Postgres runs as.
    pub fn as_account(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = match self.account()? {
            None => Command::new(program),
            Some(account) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={}", account.uid));
                command.arg(format!("--regid={}", account.gid));
                command
                    .args(["--clear-groups", "--"])
                    .arg(program)
                    .env("HOME", "/");
                command
            }
        };
        command.current_dir("/");
        Ok(command)
    }

    /// A new directory under the system's temporary one that belongs to the user that Postgres
    /// runs as. The name is short: a socket's path may not exceed 107 bytes.
    pub fn temp_dir(&self) -> Result<PathBuf> {
        let mut parent = std::env::temp_dir();
        // As root TMPDIR may be a place for root alone; or simply a long one.
        if (self.root && !open_to_all(&parent)) || parent.as_os_str().len() > 60 {
            parent = PathBuf::from("/tmp");
        }
        let account = self.account()?;
        for number in 0.. {
            let path = parent.join(format!("pgjwt-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.context(|| format!("cannot make {}", path.display()))?,
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .context(|| format!("cannot set the mode of {}", path.display()))?;
            if let Some(account) = &account {
                std::os::unix::fs::chown(&path, Some(account.uid), Some(account.gid))
                    .context(|| format!("cannot give away {}", path.display()))?;
            }
            return Ok(path);
        }
        unreachable!("the numbers do not run out")
    }

    /// Sees to it that these Debian packages are there, or says what to type.
    pub fn packages(&self, packages: &[&str]) -> Result<()> {
        if !has_program("dpkg-query") {
            // Not Debian and not Ubuntu: we cannot know what things are called here, and whatever
            // is missing will say so itself.
            return Ok(());
        }
        let missing: Vec<&str> = packages
            .iter()
            .copied()
            .filter(|package| !installed(package))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join(" ");
        let typed = format!(
            "sudo apt-get update && sudo apt-get install --yes --no-install-recommends {list}"
        );
        if !self.root && !self.sudo {
            return Err(
                Problem::new(format!("these packages are missing: {list}")).advice(format!(
                    "type this, then run the command again:\n             {typed}"
                )),
            );
        }
        say(format!("Installing with apt (1 to 3 minutes): {list}"));
        let failed = |problem: Problem| problem.advice(format!("try by hand: {typed}"));
        let log = self.log("apt-update");
        shell::quiet(self.apt_get().arg("update"), "apt-get update", &log).map_err(failed)?;
        let mut install = self.apt_get();
        install
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing);
        shell::quiet(&mut install, "apt-get install", &self.log("apt-install")).map_err(failed)
    }

    /// `apt-get` with the rights to install.
    fn apt_get(&self) -> Command {
        let mut command = if self.root {
            Command::new("env")
        } else {
            let mut command = Command::new("sudo");
            command.args(["-n", "env"]);
            command
        };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    }

    /// Whether apt could install this package here.
    pub fn apt_offers(&self, package: &str) -> bool {
        let ask = || {
            shell::output(
                Command::new("apt-cache").args(["policy", package]),
                "asking apt",
            )
            .is_ok_and(|text| {
                text.lines().any(|line| {
                    line.trim()
                        .strip_prefix("Candidate:")
                        .is_some_and(|v| v.trim() != "(none)")
                })
            })
        };
        // A fresh image comes without package lists, and then offers nothing at all.
        if !ask() && (self.root || self.sudo) && has_program("apt-get") && !apt_has_lists() {
            say("Fetching the package lists (10 seconds)");
            let _ = shell::quiet(
                self.apt_get().arg("update"),
                "apt-get update",
                &self.log("apt-update"),
            );
        }
        ask()
    }

    /// Compiler, libclang and cargo-pgrx: what building the extension takes.
    pub fn build_tools(&mut self) -> Result<()> {
        let mut wanted: Vec<&str> = BUILD_PROGRAMS
            .into_iter()
            .filter(|(program, _)| !has_program(program))
            .map(|(_, package)| package)
            .collect();
        // The bindings to Postgres are made with libclang and clang's own headers.
        if std::env::var_os("LIBCLANG_PATH").is_none() {
            wanted.push("libclang-dev");
        }
        // `cargo pgrx test` becomes another user with sudo, also when it is root already.
        if self.root && !has_program("sudo") {
            wanted.push("sudo");
        }
        self.packages(&wanted)?;
        // One that is on the machine already will do if it is the right one. Otherwise ours goes
        // into the cache, where it is in nobody's way who needs another version for another project.
        let ours = self.cache.join(format!("cargo-pgrx-{CARGO_PGRX}"));
        let candidates = [
            ours.join("bin/cargo-pgrx"),
            cargo_home().join("bin/cargo-pgrx"),
        ];
        let fits = |path: &PathBuf| {
            shell::output(
                Command::new(path).args(["pgrx", "--version"]),
                "asking cargo-pgrx",
            )
            .is_ok_and(|text| text.split_whitespace().last() == Some(CARGO_PGRX))
        };
        if let Some(found) = candidates.into_iter().find(fits) {
            self.cargo_pgrx = Some(found);
            return Ok(());
        }
        say(format!(
            "Building cargo-pgrx {CARGO_PGRX} (about 3 minutes, once)"
        ));
        let mut install = self.cargo();
        install.args([
            "install",
            "cargo-pgrx",
            "--version",
            CARGO_PGRX,
            "--locked",
            "--quiet",
        ]);
        install.arg("--root").arg(&ours);
        shell::loud(&mut install, "building cargo-pgrx")?;
        self.cargo_pgrx = Some(ours.join("bin/cargo-pgrx"));
        Ok(())
    }

    /// cargo, in the workspace, without what `cargo run` told *us* about ourselves: some build
    /// scripts (ring's) watch those variables and would build everything anew each time.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        self.settle(&mut command);
        command
    }

    /// `cargo pgrx`, likewise, at the version that fits.
    pub fn cargo_pgrx(&self) -> Command {
        let program = self
            .cargo_pgrx
            .clone()
            .unwrap_or_else(|| "cargo-pgrx".into());
        let mut command = Command::new(&program);
        self.settle(&mut command);
        // The test framework calls cargo-pgrx again, and shall find the same one.
        command.env("CARGO_PGRX", &program).arg("pgrx");
        if std::env::var_os("USER").is_none() {
            // The test framework connects as this user and panics when it is not told the name.
            let name = shell::output(Command::new("id").arg("-un"), "asking who we are");
            command.env("USER", name.unwrap_or_default());
        }
        command
    }

    fn settle(&self, command: &mut Command) {
        command.current_dir(&self.workspace);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let ours = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
                "PG",
            ];
            if ours.iter().any(|prefix| text.starts_with(prefix)) || text == "OUT_DIR" {
                command.env_remove(name);
            }
        }
    }

    /// Cargo's target directory for what does not depend on Postgres.
    pub fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(path) => self.workspace.join(path),
            None => self.workspace.join("target"),
        }
    }

    /// Cargo's target directory for what does: one for all versions, since cargo keeps what it built
    /// for one feature beside what it built for another, and half of it is the same for all. A
    /// directory apart from the usual one, so that builds by hand, with another `pg_config`, do not
    /// make these start over.
    pub fn pgrx_target(&self) -> PathBuf {
        self.target().join("pgrx")
    }
}

/// `${XDG_CACHE_HOME:-$HOME/.cache}/pg_session_jwt`.
///
/// Postgres runs from there, and when we are root it runs as another user, who has no way into a
/// home directory of mode 700 (root's is). Then it is /var/cache/pg_session_jwt instead.
fn cache_dir(root: bool) -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    match base {
        Some(base) if !root || open_to_all(&base) => Ok(base.join("pg_session_jwt")),
        _ if root => Ok(PathBuf::from("/var/cache/pg_session_jwt")),
        _ => Err(Problem::new("neither XDG_CACHE_HOME nor HOME is set")
            .advice("set HOME to a directory of yours")),
    }
}

/// Whether any user may pass through this directory, and through those above it.
fn open_to_all(path: &Path) -> bool {
    path.ancestors().all(|part| match fs::metadata(part) {
        Ok(about) => about.mode() & 0o001 != 0,
        Err(_) => true, // not there yet: what we make is open
    })
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .unwrap_or_default()
}

fn installed(package: &str) -> bool {
    shell::output(
        Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}", package]),
        "asking dpkg",
    )
    .is_ok_and(|status| status.starts_with("ii"))
}

fn apt_has_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

/// Whether a program of this name is on the PATH.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
    })
}

/// The number of cores, for make.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, Into::into)
}

/// Removes a directory and whatever is in it; that it stays is worth no more than a line.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        note(format!("could not remove {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_is_not_open_to_all() {
        let path = std::env::temp_dir().join(format!("xtask-open-{}", std::process::id()));
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!open_to_all(&path.join("inner")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            open_to_all(&path.join("inner/new")),
            open_to_all(&std::env::temp_dir())
        );
        fs::remove_dir_all(&path).unwrap();
    }
}
