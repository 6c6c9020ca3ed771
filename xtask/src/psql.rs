//! One psql session fed with snippets of SQL, and what it answered to each.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::problem::{Context, Result};
use crate::shell;

/// Some SQL to run in a session.
pub struct Snippet<'a> {
    /// Statements, as one would paste them.
    pub sql: &'a str,
    /// End the session at an error, as `ON_ERROR_STOP` does.
    pub stop: bool,
}

/// What psql said to a snippet.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Results and messages together, in order.
    pub text: String,
    /// Of the last error; `00000` when there was none; `None` when psql ended here.
    pub sqlstate: Option<String>,
}

/// Begins the line that ends a snippet's answer. Nothing that psql prints by itself looks like it.
const END: &str = "--xtask-end--";

/// Runs the snippets in one session. There are as many answers as snippets, or fewer: then the
/// session ended in the last of them.
pub fn session(psql: &mut Command, snippets: &[Snippet]) -> Result<Vec<Answer>> {
    let mut input = String::new();
    for snippet in snippets {
        input += &format!(
            "\\set ON_ERROR_STOP {}\n\\set LAST_ERROR_SQLSTATE 00000\n{}\n\\echo {END} :LAST_ERROR_SQLSTATE\n",
            u8::from(snippet.stop),
            snippet.sql.trim_end(),
        );
    }
    let shown = shell::show(psql);
    let failed = || format!("running {shown}");
    // One pipe for both streams keeps their order; psql flushes one before it writes to the other.
    let (mut reader, writer) = std::io::pipe().context(failed)?;
    psql.stdin(Stdio::piped());
    psql.stdout(writer.try_clone().context(failed)?)
        .stderr(writer);
    let mut child = psql.spawn().context(failed)?;
    // Ours must be closed, or the pipe never ends.
    psql.stdout(Stdio::null()).stderr(Stdio::null());
    let mut stdin = child.stdin.take();
    let mut bytes = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // psql may have ended already, at an error; its answer says so.
            let _ = stdin
                .as_mut()
                .map(|stdin| stdin.write_all(input.as_bytes()));
        });
        reader.read_to_end(&mut bytes)
    })
    .context(failed)?;
    child.wait().context(failed)?;
    Ok(split(&String::from_utf8_lossy(&bytes)))
}

fn split(output: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut text = String::new();
    for line in output.lines() {
        match line.strip_prefix(END) {
            Some(sqlstate) => answers.push(Answer {
                text: std::mem::take(&mut text),
                sqlstate: Some(sqlstate.trim().to_owned()),
            }),
            None => text += &format!("{line}\n"),
        }
    }
    if !text.is_empty() {
        answers.push(Answer {
            text,
            sqlstate: None,
        });
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_for_each_snippet() {
        let answers =
            split("BEGIN\n--xtask-end-- 00000\nERROR:  no\n--xtask-end-- 42501\nFATAL: x\n");
        let seen: Vec<_> = answers
            .iter()
            .map(|a| (a.text.as_str(), a.sqlstate.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("BEGIN\n", Some("00000")),
                ("ERROR:  no\n", Some("42501")),
                ("FATAL: x\n", None)
            ]
        );
    }
}
