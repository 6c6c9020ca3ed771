//! Running other programs: loudly, quietly, or for their output.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::problem::{Context, Problem, Result};

/// One line before each step that a person has to wait for.
pub fn say(line: impl AsRef<str>) {
    println!("\n==> {}", line.as_ref());
}

/// A line of explanation under a step.
pub fn note(line: impl AsRef<str>) {
    println!("    {}", line.as_ref());
}

/// The command as one could type it.
pub fn show(command: &Command) -> String {
    let mut words = vec![quote(&command.get_program().to_string_lossy())];
    words.extend(
        command
            .get_args()
            .map(|word| quote(&word.to_string_lossy())),
    );
    words.join(" ")
}

/// `word`, quoted for a POSIX shell where it has to be.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs the command with its output going where ours goes.
pub fn loud(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Problem::new(format!("{what}: {error}")).command(show(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(Problem::new(format!("{what} failed ({status})"))
            .command(show(command))
            .advice("what it printed above says why"))
    }
}

/// Runs the command with its output going into `log`, of which the end is shown if it fails.
pub fn quiet(command: &mut Command, what: &str, log: &Path) -> Result<()> {
    let file = File::create(log).context(|| format!("cannot write {}", log.display()))?;
    let copy = file
        .try_clone()
        .context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .status()
        .map_err(|error| Problem::new(format!("{what}: {error}")).command(show(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(Problem::new(format!("{what} failed ({status})"))
        .command(show(command))
        .details(tail(log, 30))
        .advice(format!("{} has everything that it printed", log.display())))
}

/// Runs the command and returns what it wrote to its standard output, trimmed.
pub fn output(command: &mut Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Problem::new(format!("{what}: {error}")).command(show(command)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(Problem::new(format!("{what} failed ({})", output.status))
            .command(show(command))
            .details(String::from_utf8_lossy(&output.stderr)))
    }
}

/// Runs a script that says on its standard error what it does and, in the last line there, why it
/// failed; returns what it wrote to its standard output, trimmed.
pub fn narrated(command: &mut Command, what: &str) -> Result<String> {
    let shown = show(command);
    let failed = |error| Problem::new(format!("{what}: {error}")).command(&shown);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut last = String::new();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|pipe| BufReader::new(pipe).split(b'\n'))
    {
        last = String::from_utf8_lossy(&line.map_err(failed)?).into_owned();
        note(&last);
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    if last.is_empty() {
        last = format!("{what} failed ({})", output.status);
    }
    Err(Problem::new(last).command(shown))
}

/// Whether the command can be run at all and ends with success; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The last lines of a file; nothing when it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        let mut command = Command::new("psql");
        command.args(["-c", "SELECT 'it''s'", "-X", ""]);
        assert_eq!(
            show(&command),
            r#"psql -c 'SELECT '\''it'\'''\''s'\''' -X ''"#
        );
    }
}
