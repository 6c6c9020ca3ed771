//! Locks by which sessions and workers agree who fetches.
//!
//! They are of the type LOCKTAG_USERLOCK (src/include/storage/lock.h), which no SQL takes, and show as
//! `userlock` in pg_locks. Nobody waits for one.

#![allow(unsafe_code, reason = "the lock manager")]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use pgrx::pg_sys;

/// So many workers fetch at a time, in all databases: parallel query needs the same slots
/// (`max_worker_processes`, 8 unless it is set).
const WORKERS: u32 = 4;
/// So many of them for one database, whose slow issuers are not to keep the others waiting.
const WORKERS_OF_DATABASE: u32 = 3;

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// What a lock is about.
pub(super) struct Lock(pg_sys::LOCKTAG);

/// How long a lock is held, unless it is released.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    TransactionEnd,
    ProcessEnd,
}

impl Lock {
    /// A session sees to it that this provider's keys are fetched.
    pub fn asking(database: pg_sys::Oid, provider: &str) -> Self {
        Self::new(database, 1, number_of(provider))
    }

    /// A worker fetches this provider's keys.
    pub fn fetching(database: pg_sys::Oid, provider: &str) -> Self {
        Self::new(database, 2, number_of(provider))
    }

    /// The places for workers: one of its database's and one of all are needed.
    fn places(database: pg_sys::Oid) -> [Vec<Self>; 2] {
        let places = |database, count: u32| {
            let numbers = (0..count).map(u64::from);
            numbers
                .map(|number| Self::new(database, 3, number))
                .collect()
        };
        [
            places(database, WORKERS_OF_DATABASE),
            places(pg_sys::InvalidOid, WORKERS),
        ]
    }

    /// Whether there is a place for one more worker.
    pub fn is_place_free(database: pg_sys::Oid) -> bool {
        let mut places = Self::places(database).into_iter();
        places.all(|places| places.iter().any(Self::is_free))
    }

    /// Takes a place for as long as this process lives. False if none is free; then it is to end.
    pub fn take_place(database: pg_sys::Oid) -> bool {
        let take = |place: &Self| place.try_take(Until::ProcessEnd);
        let mut places = Self::places(database).into_iter();
        places.all(|places| places.iter().any(take))
    }

    fn new(database: pg_sys::Oid, purpose: u16, number: u64) -> Self {
        // The halves of the number.
        #[expect(clippy::cast_possible_truncation, reason = "that is the lower half")]
        let (high, low) = ((number >> 32) as u32, number as u32);
        Self(pg_sys::LOCKTAG {
            locktag_field1: database.to_u32(),
            locktag_field2: high,
            locktag_field3: low,
            locktag_field4: purpose,
            #[expect(clippy::cast_possible_truncation, reason = "two small constants of C")]
            locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
            // Not the method of advisory locks, whose session locks pg_advisory_unlock_all() releases.
            #[expect(clippy::cast_possible_truncation, reason = "two small constants of C")]
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        })
    }

    /// Takes the lock, if nobody has it.
    pub fn try_take(&self, until: Until) -> bool {
        // SAFETY: the tag is copied. Without waiting there is no deadlock; an ERROR (out of shared memory)
        // unwinds.
        let result = unsafe {
            pg_sys::LockAcquire(&raw const self.0, MODE, until == Until::ProcessEnd, true)
        };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    /// Gives it back.
    pub fn release(&self, until: Until) {
        // SAFETY: the tag is copied; what is not held is a WARNING.
        unsafe { pg_sys::LockRelease(&raw const self.0, MODE, until == Until::ProcessEnd) };
    }

    /// Whether nobody has it.
    pub fn is_free(&self) -> bool {
        let free = self.try_take(Until::TransactionEnd);
        if free {
            self.release(Until::TransactionEnd);
        }
        free
    }
}

/// Two names with the same number would only wait for each other.
fn number_of(provider: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    provider.hash(&mut hasher);
    hasher.finish()
}

/// For a process that has not connected to a database, and so leaves its locks to nobody: releases them when
/// it ends, however it ends.
pub(super) fn release_at_exit() {
    unsafe extern "C-unwind" fn release(_: i32, _: pg_sys::Datum) {
        // SAFETY: walks over this process's own locks. (LockReleaseAll is for who has a virtual transaction id.)
        #[expect(clippy::cast_possible_truncation, reason = "a small constant of C")]
        unsafe {
            pg_sys::LockReleaseSession(pg_sys::DEFAULT_LOCKMETHOD as u16);
        }
    }
    // SAFETY: the function stays, as the library does.
    unsafe { pg_sys::before_shmem_exit(Some(release), pg_sys::Datum::null()) };
}
