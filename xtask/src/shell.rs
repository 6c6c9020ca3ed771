//! What a person reads while other programs run, and where the output of those goes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use xshell::Cmd;

/// One line before each step that a person has to wait for.
pub fn say(line: impl AsRef<str>) {
    println!("\n==> {}", line.as_ref());
}

/// A line of explanation under a step.
pub fn note(line: impl AsRef<str>) {
    println!("    {}", line.as_ref());
}

/// Runs a command with all that it prints in a log, of which an error has the end.
pub fn logged(command: Cmd<'_>, log: &Path) -> Result<()> {
    let shown = command.to_string();
    let mut command = Command::from(command);
    command.stdin(Stdio::null());
    logged_as(command, &shown, log)
}

/// Likewise, with the standard input that it has.
pub fn logged_as(mut command: Command, shown: &str, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(file.try_clone()?);
    let status = command.stderr(file).status();
    if !status.with_context(|| shown.to_owned())?.success() {
        let end = tail(log, 30);
        bail!("failed: {shown}\n{end}\n{} has all of it", log.display());
    }
    Ok(())
}

/// Runs a script that says on its standard error what it does and, in the last line there, why it failed;
/// what it wrote to its standard output.
pub fn narrated(command: Cmd<'_>) -> Result<String> {
    let shown = command.to_string();
    let mut command = Command::from(command);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| shown.clone())?;
    let mut last = shown;
    for line in BufReader::new(child.stderr.take().context("no pipe")?).lines() {
        last = line?;
        note(&last);
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(last);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The last lines of a file; nothing when it cannot be read.
fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
