//! The memory in which all backends remember signatures that were found good ([`Shared`]).
//!
//! The postmaster makes it where the library is in `shared_preload_libraries`. Elsewhere the first backend that
//! verifies a token does, from Postgres 17 on; before, each backend remembers its own.

#![allow(unsafe_code, reason = "shared memory")]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use pg_session_jwt_jose::Shared;
use pgrx::{pg_guard, pg_sys};

use crate::guc;

/// Where it is; null if there is none. Not a OnceLock: after a crash the postmaster makes it anew.
static MEMORY: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// How many words it has.
static WORDS: AtomicUsize = AtomicUsize::new(0);

static NEXT_REQUEST: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static NEXT_STARTUP: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
type Hook = unsafe extern "C-unwind" fn();

/// Has the postmaster make it, if this is the postmaster that loads its libraries.
pub(crate) fn define() {
    // SAFETY: the hooks stay, as the library does; if there are others, they are called first.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            if let Some(next) = pg_sys::shmem_request_hook {
                NEXT_REQUEST.store(next as *mut c_void, Relaxed);
            }
            if let Some(next) = pg_sys::shmem_startup_hook {
                NEXT_STARTUP.store(next as *mut c_void, Relaxed);
            }
            pg_sys::shmem_request_hook = Some(request);
            pg_sys::shmem_startup_hook = Some(startup);
        }
    }
}

/// What all backends remember; `None` if they share nothing.
pub(crate) fn memory() -> Option<Shared> {
    if MEMORY.load(Relaxed).is_null() {
        attach();
    }
    memory_at_hand()
}

/// The same where nothing can be attached, for want of a transaction.
pub(crate) fn memory_at_hand() -> Option<Shared> {
    let memory = MEMORY.load(Relaxed);
    if memory.is_null() {
        return None;
    }
    // SAFETY: memory of that many words, which stays mapped for the life of the process. All processes access it
    // as atomics only.
    Shared::new(unsafe { std::slice::from_raw_parts(memory, WORDS.load(Relaxed)) })
}

/// The size in bytes: whole words.
fn size() -> usize {
    guc::signature_memory() & !(size_of::<AtomicU64>() - 1)
}

/// # Safety
/// Memory of [`size`] bytes, aligned to words, for the life of the process.
unsafe fn give(memory: *mut c_void) {
    WORDS.store(size() / size_of::<AtomicU64>(), Relaxed);
    MEMORY.store(memory.cast(), Relaxed);
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster (process_shmem_requests, src/backend/utils/init/miscinit.c).
    unsafe {
        next(&NEXT_REQUEST);
        if size() > 0 {
            pg_sys::RequestAddinShmemSpace(size());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    const NAME: &CStr = c"pg_session_jwt signatures";
    // SAFETY: called by the postmaster (CreateSharedMemoryAndSemaphores, src/backend/storage/ipc/ipci.c); the memory is
    // as large as asked for, and aligned to a cache line.
    unsafe {
        next(&NEXT_STARTUP);
        if size() > 0 {
            let mut found = false;
            let memory = pg_sys::ShmemInitStruct(NAME.as_ptr(), size(), &raw mut found);
            if !found {
                std::ptr::write_bytes(memory.cast::<u8>(), 0, size());
            }
            give(memory.cast());
        }
    }
}

/// # Safety
/// Of this type, or null.
unsafe fn next(hook: &AtomicPtr<c_void>) {
    let hook = hook.load(Relaxed);
    if !hook.is_null() {
        // SAFETY: the caller's promise.
        unsafe { std::mem::transmute::<*mut c_void, Hook>(hook)() }
    }
}

#[cfg(any(feature = "pg15", feature = "pg16"))]
fn attach() {}

/// Attaches to it, or makes it, once. If that fails, this process remembers its own.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn attach() {
    use std::ffi::CString;
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::AtomicBool;

    use pgrx::PgTryBuilder;

    static TRIED: AtomicBool = AtomicBool::new(false);
    if TRIED.swap(true, Relaxed) || size() == 0 {
        return;
    }
    #[pg_guard]
    unsafe extern "C-unwind" fn init(memory: *mut c_void) {
        // SAFETY: new memory of this size (GetNamedDSMSegment).
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 0, size()) };
    }
    // Under one name there is one size.
    let name = CString::new(format!("pg_session_jwt signatures {}", size())).unwrap_or_default();
    // SAFETY: reads and sets a global, which is set back below. Without an owner, nothing ends with the transaction.
    let owner = unsafe {
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentResourceOwner = std::ptr::null_mut();
        owner
    };
    let memory = PgTryBuilder::new(AssertUnwindSafe(|| {
        let mut found = false;
        // SAFETY: a C string; the segment stays attached for the life of the process.
        unsafe { pg_sys::GetNamedDSMSegment(name.as_ptr(), size(), Some(init), &raw mut found) }
    }))
    .catch_others(|_| {
        // SAFETY: it may have failed between two locks of the registry; no caller holds one (AbortTransaction,
        // src/backend/access/transam/xact.c, does the same).
        unsafe { pg_sys::LWLockReleaseAll() };
        std::ptr::null_mut()
    })
    .execute();
    // SAFETY: see above; memory of this size, or null.
    unsafe {
        pg_sys::CurrentResourceOwner = owner;
        if !memory.is_null() {
            give(memory);
        }
    }
}
