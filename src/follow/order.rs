//! What a session hands to its worker, in a segment of shared memory.

#![allow(unsafe_code, reason = "shared memory and background workers")]

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::time::Duration;

use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use super::worker;

/// All that a worker needs to know before it connects to the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The database whose provider it is, by its OID.
    pub database: u32,
    /// The provider's name.
    pub provider: String,
    /// What to fetch.
    pub request: pg_session_jwt_fetch::Order,
    /// [`pg_session_jwt_fetch::Source::url`] of the row.
    pub url: String,
    /// `pg_session_jwt.fetch_interval`
    pub interval: Duration,
    /// How many attempts have failed since the last one that succeeded.
    pub failures: u32,
}

/// The segment begins with it; the order follows, as JSON.
#[repr(C)]
struct Head {
    /// Not 0: the worker has what it needs.
    taken: AtomicU32,
    length: u32,
}

/// An order that a worker is to be started for.
pub(super) struct Placed {
    segment: *mut pg_sys::dsm_segment,
    worker: Started,
}

/// A worker that has been started, or will be.
pub(super) struct Started(*mut pg_sys::BackgroundWorkerHandle);

impl Started {
    /// `None` if there is no place for it (`max_worker_processes`).
    pub fn new(mut worker: pg_sys::BackgroundWorker) -> Option<Self> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the postmaster copies the record, and sets this process's latch when the worker starts and ends.
        unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle)
                .then_some(Self(handle))
        }
    }

    /// Whether it has ended, or will never start.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle of a worker that was registered.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &raw mut pid) };
        matches!(
            status,
            pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
        )
    }

    /// Leaves it to itself.
    pub fn close(self) {
        // SAFETY: the handle is palloc'd.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}

/// Starts a worker. `None` if there is no place for one.
///
/// On an ERROR, the segment goes with the resource owner.
pub(super) fn place(order: &Order) -> Option<Placed> {
    let text = serde_json::to_vec(order).ok()?;
    let length = u32::try_from(text.len()).ok()?;
    // SAFETY: the segment is as large as what is written to it, and this process's alone until the worker
    // is registered. Its address is aligned to a page.
    unsafe {
        let segment = pg_sys::dsm_create(
            size_of::<Head>() + text.len(),
            pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32,
        );
        if segment.is_null() {
            return None;
        }
        let head = pg_sys::dsm_segment_address(segment).cast::<Head>();
        let taken = AtomicU32::new(0);
        head.write(Head { taken, length });
        std::ptr::copy_nonoverlapping(text.as_ptr(), head.add(1).cast(), text.len());

        let mut worker = new_worker(c"pg_session_jwt keys", worker::FUNCTION);
        worker.bgw_main_arg = pg_sys::Datum::from(pg_sys::dsm_segment_handle(segment));
        match Started::new(worker) {
            Some(worker) => Some(Placed { segment, worker }),
            None => {
                pg_sys::dsm_detach(segment);
                None
            }
        }
    }
}

impl Placed {
    /// Whether the worker goes on by itself.
    pub fn is_taken(&self) -> bool {
        // SAFETY: mapped until `close`.
        unsafe {
            (*pg_sys::dsm_segment_address(self.segment).cast::<Head>())
                .taken
                .load(Acquire)
                != 0
        }
    }

    /// Whether the worker has ended, or will never start.
    pub fn has_ended(&self) -> bool {
        self.worker.has_ended()
    }

    /// Leaves the worker to itself.
    pub fn close(self) {
        // SAFETY: it is mapped.
        unsafe { pg_sys::dsm_detach(self.segment) };
        self.worker.close();
    }
}

/// In the worker: an order that it has been started for.
pub(super) struct Received {
    segment: *mut pg_sys::dsm_segment,
    /// The order.
    pub order: Order,
}

/// `None` if the session is gone, and its order with it.
///
/// # Safety
/// `argument` is the worker's main argument.
pub(super) unsafe fn receive(argument: pg_sys::Datum) -> Option<Received> {
    // SAFETY: null if the segment is gone; otherwise `place` has written it.
    unsafe {
        #[expect(clippy::cast_possible_truncation, reason = "a handle of 32 bits")]
        let segment = pg_sys::dsm_attach(argument.value() as u32);
        if segment.is_null() {
            return None;
        }
        let head = pg_sys::dsm_segment_address(segment).cast::<Head>();
        let length = usize::try_from((*head).length).ok()?;
        let text = std::slice::from_raw_parts(head.add(1).cast::<u8>(), length);
        Some(Received {
            segment,
            order: serde_json::from_slice(text).ok()?,
        })
    }
}

impl Received {
    /// Tells the session that it may go.
    pub fn take(self) -> Order {
        // SAFETY: mapped until it is detached.
        unsafe {
            let head = pg_sys::dsm_segment_address(self.segment).cast::<Head>();
            (*head).taken.store(1, Release);
            pg_sys::dsm_detach(self.segment);
        }
        self.order
    }
}

/// A worker of this library that never restarts.
pub(crate) fn new_worker(name: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
            as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        ..Default::default()
    };
    let texts: [(&mut [c_char], &CStr); 4] = [
        (&mut worker.bgw_name, name),
        (&mut worker.bgw_type, name),
        (&mut worker.bgw_library_name, c"$libdir/pg_session_jwt"),
        (&mut worker.bgw_function_name, function),
    ];
    for (place, text) in texts {
        for (to, from) in place.iter_mut().zip(text.to_bytes_with_nul()) {
            *to = from.cast_signed();
        }
    }
    worker
}
