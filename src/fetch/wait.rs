//! Waiting, which is the caller's.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There is something to read, or the other side has closed.
    Readable,
    /// Something can be written, or a connection has been made or refused.
    Writable,
}

/// Waits for a descriptor, while the process goes on answering its signals.
///
/// An implementation may unwind: nothing here catches a panic, and no lock is held meanwhile.
pub trait Wait: Debug + Send + Sync {
    /// Returns as soon as `event` has come. Too early does no harm: it is asked again.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at `until`; what else keeps it from waiting.
    fn wait(&self, fd: BorrowedFd<'_>, event: Event, until: Instant) -> io::Result<()>;
}
