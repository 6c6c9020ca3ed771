//! Statements that are timed. What one took is what its client waited: client and server are on one machine,
//! and a statement here runs for milliseconds.

use std::time::Instant;

use anyhow::{Result, ensure};
use harness::Session;

/// A connection whose statements are timed.
pub trait Timed {
    /// Runs a statement that must answer `expected`; the nanoseconds that it took. (An accessor that
    /// finds no identity is fast, and worth nothing.)
    fn time(&mut self, sql: &str, expected: &str) -> Result<f64>;
}

impl Timed for Session {
    fn time(&mut self, sql: &str, expected: &str) -> Result<f64> {
        let started = Instant::now();
        let answer = self.rows(sql).join("\n");
        let nanoseconds = started.elapsed().as_secs_f64() * 1e9;
        ensure!(
            answer == expected,
            "a statement of the benchmark answers {answer:?} instead of {expected:?}: {sql:.400}"
        );
        Ok(nanoseconds)
    }
}
