//! One psql session that is talked to statement by statement, and timed.
//!
//! [`crate::psql::session`] hands psql everything at once; a benchmark wants to do something else
//! between two statements. What a statement took is what psql's `\timing` says: client and server are
//! on one machine, and a statement here runs for milliseconds.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::process::{Child, Stdio};

use crate::cluster::Cluster;
use crate::problem::{Context, Problem, Result};

/// Ends the answer to a statement.
const END: &str = "--xtask-end--";

/// A psql, and the backend behind it.
pub struct Backend {
    psql: Child,
    answers: BufReader<PipeReader>,
}

impl Backend {
    /// Connects as `user` to `database`.
    pub fn open(cluster: &Cluster, user: &str, database: &str) -> Result<Self> {
        let failed = || "starting psql".to_owned();
        let mut command = cluster.psql(user, database);
        command.args(["-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command.env("LC_ALL", "C");
        let (reader, writer) = std::io::pipe().context(failed)?;
        command.stdin(Stdio::piped());
        command.stdout(writer.try_clone().context(failed)?);
        command.stderr(writer);
        let psql = command.spawn().context(failed)?;
        // And with it our end of the pipe, which shall end when psql does.
        drop(command);
        let mut backend = Self {
            psql,
            answers: BufReader::new(reader),
        };
        backend.ask("\\timing on\nSELECT 1")?;
        Ok(backend)
    }

    /// Runs SQL, and returns what it printed and the nanoseconds that its last statement took.
    fn ask(&mut self, sql: &str) -> Result<(String, f64)> {
        if let Some(stdin) = &mut self.psql.stdin {
            // psql may have ended already, at an error; its answer says so.
            let _ = writeln!(stdin, "{sql};\n\\echo {END}").and_then(|()| stdin.flush());
        }
        let (mut text, mut nanoseconds, mut line) = (String::new(), f64::NAN, String::new());
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line);
            if read.context(|| "reading from psql".to_owned())? == 0 {
                return Err(Problem::new("a statement of the benchmark failed")
                    .command(shortened(sql))
                    .details(text));
            }
            let line = line.trim_end();
            if line == END {
                return Ok((text.trim_end().to_owned(), nanoseconds));
            }
            match milliseconds(line) {
                Some(time) => nanoseconds = time * 1e6,
                None => text += &format!("{line}\n"),
            }
        }
    }

    /// Runs SQL; what it printed.
    pub fn run(&mut self, sql: &str) -> Result<String> {
        self.ask(sql).map(|(text, _)| text)
    }

    /// Runs a statement that must print `expected`; the nanoseconds that it took. (An accessor that
    /// finds no identity is fast, and worth nothing.)
    pub fn time(&mut self, sql: &str, expected: &str) -> Result<f64> {
        let (text, nanoseconds) = self.ask(sql)?;
        if text != expected {
            return Err(Problem::new(
                "a statement of the benchmark has another answer than it should",
            )
            .command(shortened(sql))
            .details(format!("{text}\nexpected: {expected}")));
        }
        Ok(nanoseconds)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.psql.stdin.take());
        let _ = self.psql.wait();
    }
}

/// The milliseconds in psql's `Time: 1234.567 ms (00:01.235)`.
fn milliseconds(line: &str) -> Option<f64> {
    let (number, _) = line.strip_prefix("Time: ")?.split_once(" ms")?;
    number.parse().ok()
}

fn shortened(sql: &str) -> String {
    let mut text: String = sql.chars().take(400).collect();
    if text.len() < sql.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psql_says_how_long_it_took() {
        assert_eq!(milliseconds("Time: 0.283 ms"), Some(0.283));
        assert_eq!(
            milliseconds("Time: 1234.567 ms (00:01.235)"),
            Some(1234.567)
        );
        assert_eq!(milliseconds("1000"), None);
    }
}
