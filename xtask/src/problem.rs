//! What went wrong, said so that the reader knows what to do next.

use std::fmt;

/// A failure to show to the person who typed the command.
#[derive(Debug)]
pub struct Problem {
    what: String,
    command: Option<String>,
    details: Option<String>,
    advice: Option<String>,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// `what` failed, as a sentence without a full stop.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            command: None,
            details: None,
            advice: None,
        }
    }

    /// The command that failed, as one would type it.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// What the failing thing itself said.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        let details = details.into();
        self.details = (!details.trim().is_empty()).then_some(details);
        self
    }

    /// Another way failed before this one.
    pub fn after(mut self, earlier: Problem) -> Self {
        self.what = format!("{}; {}", earlier.what, self.what);
        self
    }

    /// What failed, in one line and without the details.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What the reader can do about it.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(command) = &self.command {
            write!(f, "\n  command: {command}")?;
        }
        if let Some(details) = &self.details {
            write!(f, "\n  it said:")?;
            for line in details.trim_end().lines() {
                write!(f, "\n    {line}")?;
            }
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n  to do:   {advice}")?;
        }
        Ok(())
    }
}

/// Gives an I/O error the sentence that says what was being done.
pub trait Context<T> {
    /// Turns an error into a [`Problem`] that begins with `what`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Problem::new(format!("{}: {error}", what())))
    }
}
