//! Waiting while the process answers its signals.

#![allow(unsafe_code, reason = "the process's latch")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use pg_session_jwt_fetch::{Event, Wait};
use pgrx::pg_sys;

/// Waits for a signal or until `until`, and acts on what has come: a cancel or a time-out raises an ERROR,
/// which unwinds.
pub(super) fn wait(until: Instant) {
    wait_for(None, until);
}

/// Waits until `until`, whatever signals come.
pub(crate) fn wait_until(until: Instant) {
    while Instant::now() < until {
        wait(until);
    }
}

/// Like [`wait`], for a descriptor as well. Whether its event has come.
fn wait_for(socket: Option<(BorrowedFd, u32)>, until: Instant) -> bool {
    let (descriptor, event) = socket.map_or((pg_sys::PGINVALID_SOCKET, 0), |(fd, event)| {
        (fd.as_raw_fd(), event)
    });
    let left = until.saturating_duration_since(Instant::now());
    let left = left.max(Duration::from_millis(1)).as_millis();
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH | event;
    // SAFETY: the process's own latch, and an open socket or none.
    let came = unsafe {
        let came = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            descriptor,
            i64::try_from(left).unwrap_or(i64::MAX),
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        came
    };
    pgrx::check_for_interrupts!();
    came.cast_unsigned() & event != 0
}

/// For [`pg_session_jwt_fetch::fetch`].
#[derive(Debug)]
pub(super) struct Latch;

impl Wait for Latch {
    fn wait(&self, fd: BorrowedFd<'_>, event: Event, until: Instant) -> io::Result<()> {
        let event = match event {
            Event::Readable => pg_sys::WL_SOCKET_READABLE,
            Event::Writable => pg_sys::WL_SOCKET_WRITEABLE,
        };
        loop {
            if wait_for(Some((fd, event)), until) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
