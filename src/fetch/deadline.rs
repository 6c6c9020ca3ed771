//! How long the parts may take.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Event, FetchError, Wait};

/// For the system to resolve a host name.
pub const MOST_TO_RESOLVE: Duration = Duration::from_secs(2);
/// For a connection to be made, to whichever of the host's addresses.
pub const MOST_TO_CONNECT: Duration = Duration::from_secs(2);
/// For all: the discovery document and the key set.
pub const MOST_TOGETHER: Duration = Duration::from_secs(5);

/// How to wait, and until when at the latest.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    wait: Arc<dyn Wait>,
    end: Instant,
}

/// Why waiting ended without the event.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// The part has had its time.
    PartTimedOut,
    /// All have had theirs.
    TimedOut,
    Failed(io::Error),
}

impl Deadline {
    pub fn new(wait: Arc<dyn Wait>) -> Self {
        let end = Instant::now() + MOST_TOGETHER;
        Self { wait, end }
    }

    pub fn end(&self) -> Instant {
        self.end
    }

    /// Waits, for a part that has until `until`.
    pub fn wait(
        &self,
        fd: BorrowedFd<'_>,
        event: Event,
        until: Instant,
    ) -> Result<(), Interrupted> {
        let late = || {
            let now = Instant::now();
            if now >= self.end {
                Some(Interrupted::TimedOut)
            } else if now >= until {
                Some(Interrupted::PartTimedOut)
            } else {
                None
            }
        };
        // A server that always has another byte ready must not go on for ever.
        if let Some(late) = late() {
            return Err(late);
        }
        match self.wait.wait(fd, event, until.min(self.end)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                // A clock that is coarser than ours may be a little early.
                Err(late().unwrap_or(if until < self.end {
                    Interrupted::PartTimedOut
                } else {
                    Interrupted::TimedOut
                }))
            }
            Err(error) => Err(Interrupted::Failed(error)),
        }
    }
}

impl Interrupted {
    /// In words; `part` is what takes place if it is only the part that has had its time.
    pub fn explain(self, host: &str, part: impl FnOnce() -> String) -> FetchError {
        FetchError::failed(match self {
            Self::PartTimedOut => part(),
            Self::TimedOut => {
                let seconds = MOST_TOGETHER.as_secs();
                format!("{host} gave no complete answer within {seconds} s")
            }
            Self::Failed(error) => format!("waiting for {host} failed: {error}"),
        })
    }
}
