//! This machine: who we are on it, where our cache is, and how missing programs get here.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use harness::{Account, Cluster};
use xshell::{Cmd, Shell, cmd};

use crate::postgres::Postgres;
use crate::shell::{logged, say};

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
    /// Runs programs in the workspace.
    pub sh: Shell,
    /// We are root: packages can be installed, but Postgres refuses to run as us.
    pub root: bool,
    /// We are not root and sudo asks no password.
    pub sudo: bool,
    /// Private copies of Postgres, cargo-pgrx, logs. See [`cache_dir`].
    pub cache: PathBuf,
    /// The workspace.
    pub workspace: PathBuf,
    /// The cargo-pgrx to use, once [`Machine::build_tools`] has found or installed it.
    cargo_pgrx: PathBuf,
}

impl Machine {
    /// Looks around, and makes the cache directory.
    pub fn look() -> Result<Self> {
        let sh = Shell::new()?;
        let root = cmd!(sh, "id -u").quiet().read()? == "0";
        let sudo = !root && succeeds(cmd!(sh, "sudo -n true"));
        let cache = cache_dir(root)?;
        fs::create_dir_all(cache.join("logs"))
            .with_context(|| format!("cannot make the cache directory {}", cache.display()))?;
        // Set by `cargo run`; the value from compile time is for a binary that is run by itself.
        let manifest = std::env::var("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let workspace = Path::new(&manifest).join("..").canonicalize()?;
        sh.change_dir(&workspace);
        Ok(Self {
            sh,
            root,
            sudo,
            cache,
            workspace,
            cargo_pgrx: PathBuf::new(),
        })
    }

    /// Where the output of a quiet step goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.cache.join("logs").join(format!("{name}.log"))
    }

    /// Holds `name` for this process: two runs at once must not build or use the same private copy.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.cache.join(format!("{name}.lock"));
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            say(format!(
                "Waiting for another `cargo xtask` that is using {name}"
            ));
        }
        file.lock()?;
        Ok(file)
    }

    /// The user that Postgres shall run as, and its name; `None` when it runs as us.
    ///
    /// As root that is `postgres`, which Debian's packages make, or else `nobody`.
    pub fn account(&self) -> Result<Option<(&'static str, Account)>> {
        if !self.root {
            return Ok(None);
        }
        let id = |flag: &str, name: &str| {
            let id = cmd!(self.sh, "id {flag} {name}").quiet().ignore_stderr();
            id.read().ok()?.parse().ok()
        };
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| {
                let (uid, gid) = (id("-u", name)?, id("-g", name)?);
                Some(Some((name, Account { uid, gid })))
            })
            .context(
                "Postgres refuses to run as root, and there is no user to run it as: create a user \
                 `postgres`, or run this as an ordinary user",
            )
    }

    /// The line that stops a server that we leave up, and removes its directory.
    pub fn stop_command(&self, postgres: &Postgres, cluster: &Cluster) -> Result<String> {
        let directory = cluster.directory().display();
        let pg_ctl = postgres.bin.join("pg_ctl");
        let stop = format!("{} stop -m fast -D {directory}/data", pg_ctl.display());
        let stop = match self.account()? {
            None => stop,
            Some((name, _)) => {
                format!("setpriv --reuid={name} --regid={name} --clear-groups {stop}")
            }
        };
        Ok(format!("cd / && {stop} && rm -rf {directory}"))
    }

    /// Whether we may write into this directory.
    pub fn may_write(&self, directory: &Path) -> bool {
        succeeds(cmd!(self.sh, "test -w {directory}"))
    }

    /// Sees to it that these Debian packages are there, or says what to type.
    pub fn packages(&self, packages: &[&str]) -> Result<()> {
        if !has_program("dpkg-query") {
            // Not Debian and not Ubuntu: we cannot know what things are called here, and whatever
            // is missing will say so itself.
            return Ok(());
        }
        let installed = |package: &&str| {
            cmd!(self.sh, "dpkg-query -W -f")
                .args(["${db:Status-Abbrev}", package])
                .quiet()
                .ignore_stderr()
                .read()
                .is_ok_and(|status| status.starts_with("ii"))
        };
        let missing: Vec<&str> = packages
            .iter()
            .copied()
            .filter(|name| !installed(name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join(" ");
        let by_hand = format!(
            "type: sudo apt-get update && sudo apt-get install --yes --no-install-recommends {list}"
        );
        if !self.root && !self.sudo {
            bail!("these packages are missing: {list}; {by_hand}");
        }
        say(format!("Installing with apt (1 to 3 minutes): {list}"));
        let install = ["install", "--yes", "--no-install-recommends"];
        self.apt_get(["update"])
            .and_then(|()| self.apt_get(install.into_iter().chain(missing)))
            .context(by_hand)
    }

    /// `apt-get` with the rights to install.
    fn apt_get<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let apt_get = if self.root {
            cmd!(self.sh, "env")
        } else {
            cmd!(self.sh, "sudo -n env")
        };
        let apt_get = apt_get.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        logged(apt_get.args(arguments), &self.log("apt-get"))
    }

    /// Whether apt could install this package here.
    pub fn apt_offers(&self, package: &str) -> bool {
        self.apt_version(package).is_some()
    }

    /// The major version of this package that apt could install here, 0 if it is not a number.
    pub fn apt_version(&self, package: &str) -> Option<u32> {
        let candidate = || {
            let policy = cmd!(self.sh, "apt-cache policy {package}").env("LC_ALL", "C");
            let text = policy.quiet().ignore_stderr().read().ok()?;
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
            (line != "(none)").then(|| leading_number(line))
        };
        // A fresh image comes without package lists, and then offers nothing at all.
        let has_lists = || {
            let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten();
            let mut names = lists.flatten().map(|entry| entry.file_name());
            names.any(|name| name.to_string_lossy().contains("_Packages"))
        };
        if (self.root || self.sudo)
            && has_program("apt-get")
            && candidate().is_none()
            && !has_lists()
        {
            say("Fetching the package lists (10 seconds)");
            let _ = self.apt_get(["update"]);
        }
        candidate()
    }

    /// Compiler, libclang and cargo-pgrx: what building the extension takes.
    pub fn build_tools(&mut self) -> Result<()> {
        let missing = |(program, _): &(&str, &str)| !has_program(program);
        let mut wanted: Vec<&str> = BUILD_PROGRAMS
            .into_iter()
            .filter(missing)
            .map(|(_, p)| p)
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
        let theirs = std::env::var_os("CARGO_HOME").map_or_else(
            || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        self.cargo_pgrx = ours.join("bin/cargo-pgrx");
        for found in [self.cargo_pgrx.clone(), theirs.join("bin/cargo-pgrx")] {
            let version = cmd!(self.sh, "{found} pgrx --version")
                .quiet()
                .ignore_stderr();
            if version.read().is_ok_and(|text| text.ends_with(CARGO_PGRX)) {
                self.cargo_pgrx = found;
                return Ok(());
            }
        }
        say(format!(
            "Building cargo-pgrx {CARGO_PGRX} (about 3 minutes, once)"
        ));
        let install =
            self.cargo()
                .args(["install", "--locked", "--quiet", "--version", CARGO_PGRX]);
        Ok(install.arg("--root").arg(ours).arg("cargo-pgrx").run()?)
    }

    /// cargo, in the workspace, without what `cargo run` told *us* about ourselves: some build
    /// scripts (ring's) watch those variables and would build everything anew each time.
    pub fn cargo(&self) -> Cmd<'_> {
        self.settled(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// `cargo pgrx`, likewise, at the version that fits.
    pub fn cargo_pgrx(&self) -> Cmd<'_> {
        // The test framework calls cargo-pgrx again, and shall find the same one.
        let mut command = self.settled(&self.cargo_pgrx).arg("pgrx");
        command = command.env("CARGO_PGRX", &self.cargo_pgrx);
        if std::env::var_os("USER").is_none() {
            // The test framework connects as this user and panics when it is not told the name.
            let name = cmd!(self.sh, "id -un").quiet().read();
            command = command.env("USER", name.unwrap_or_default());
        }
        command
    }

    /// A program, likewise: without what is ours, and without PG variables, which are for other servers.
    pub fn settled(&self, program: impl AsRef<OsStr>) -> Cmd<'_> {
        let program = program.as_ref();
        let mut command = cmd!(self.sh, "{program}").quiet();
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
                command = command.env_remove(&name);
            }
        }
        command
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
        _ if root => Ok("/var/cache/pg_session_jwt".into()),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: set HOME to a directory of yours"),
    }
}

/// Whether any user may pass through this directory, and through those above it.
fn open_to_all(path: &Path) -> bool {
    path.ancestors().all(|part| match fs::metadata(part) {
        Ok(about) => about.mode() & 0o001 != 0,
        Err(_) => true, // not there yet: what we make is open
    })
}

/// Whether a program of this name is on the PATH.
pub fn has_program(name: &str) -> bool {
    find_program(name).is_some()
}

/// The program of this name on the PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).map(|directory| directory.join(name));
    places.into_iter().find(|place| place.is_file())
}

/// `20` of `20.19.2+dfsg-1` and of `2:20.1`, whose part before the colon is Debian's own.
fn leading_number(version: &str) -> u32 {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let end = version.find(|c: char| !c.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().unwrap_or(0)
}

fn succeeds(command: Cmd<'_>) -> bool {
    command
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_version_of_debian_begins_with_the_major() {
        for (version, major) in [("20.19.2+dfsg-1", 20), ("1:18", 18), ("unknown", 0)] {
            assert_eq!(leading_number(version), major, "{version}");
        }
    }

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
