//! Room in memory, asked for before work begins.
//!
//! A Rust allocation that fails aborts the process, and Postgres then restarts every other one too. So
//! whatever a role can make this library do begins with a question that can be answered with no: is there
//! as much as this will take at most? The input's size is limited, so that there is such a number.

use std::ffi::{c_int, c_void};

use pgrx::pg_sys;

use crate::error::{self, Error};

/// What a call takes at most beside what [`room_to_read`] asks for, in bytes.
pub(crate) const ROOM: usize = 4 << 20;

/// The longest claims in a parameter, and the longest `request.headers`, in bytes.
pub(crate) const MAX_CLAIMS_BYTES: usize = 256 * 1024;

/// Asks for room to read a JSON text, keep it and make a jsonb of it.
///
/// Of `{},`, three bytes, Postgres makes room for four pairs before it knows that there is none: a chunk of 512
/// (pushJsonbValueScalar, src/backend/utils/adt/jsonb_util.c), and its state and place in the array take 160 more.
/// Ours is a value of 32, and twice as much while the array grows.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn room_to_read(bytes: usize) -> Result<(), Error> {
    const PER_BYTE: usize = 320;
    room(bytes.saturating_mul(PER_BYTE))
}

/// Asks for so many bytes.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn room(bytes: usize) -> Result<(), Error> {
    if is_there(bytes) {
        Ok(())
    } else {
        Err(Error::OutOfMemory)
    }
}

/// [`room`], for where no Rust value may be in the way of an ERROR: in front of any guard.
///
/// # Safety
/// As for [`error::out_of_memory`].
#[inline]
pub(crate) unsafe fn ask_for(bytes: usize) {
    if !is_there(bytes) {
        // SAFETY: the caller's promise.
        unsafe { error::out_of_memory() }
    }
}

#[inline]
fn is_there(bytes: usize) -> bool {
    const HUGE: c_int = pg_sys::MCXT_ALLOC_HUGE as c_int;
    const NO_OOM: c_int = pg_sys::MCXT_ALLOC_NO_OOM as c_int;
    unsafe extern "C-unwind" {
        // Declared here because pgrx's own declarations guard against an ERROR, which costs more than
        // the calls.
        fn MemoryContextAllocExtended(
            context: pg_sys::MemoryContext,
            size: usize,
            flags: c_int,
        ) -> *mut c_void;
        fn pfree(memory: *mut c_void);
    }
    // SAFETY: with NO_OOM there is no ERROR but for a size beyond MaxAllocHugeSize (mcxt.c), and null for
    // what cannot be had. An AllocSet, which TopMemoryContext is, gets a block of its own from malloc and
    // gives it back; nothing touches it, so it costs address space alone.
    unsafe {
        let bytes = bytes.min(isize::MAX as usize / 2);
        let memory = MemoryContextAllocExtended(pg_sys::TopMemoryContext, bytes, HUGE | NO_OOM);
        if memory.is_null() {
            return false;
        }
        pfree(memory);
    }
    true
}

/// The allocator of GUC values: malloc up to Postgres 15, a memory context since.
pub(crate) mod of_gucs {
    use std::ffi::c_void;

    #[cfg(feature = "pg15")]
    pub unsafe fn allocate(bytes: usize) -> *mut c_void {
        unsafe extern "C" {
            fn malloc(bytes: usize) -> *mut c_void;
        }
        // SAFETY: any size will do.
        unsafe { malloc(bytes) }
    }

    #[cfg(feature = "pg15")]
    pub unsafe fn free(memory: *mut c_void) {
        unsafe extern "C" {
            fn free(memory: *mut c_void);
        }
        // SAFETY: the caller gives what malloc gave.
        unsafe { free(memory) }
    }

    #[cfg(not(feature = "pg15"))]
    pub unsafe fn allocate(bytes: usize) -> *mut c_void {
        // SAFETY: below ERROR it returns null when there is no memory.
        unsafe { pgrx::pg_sys::guc_malloc(pgrx::pg_sys::LOG as i32, bytes) }
    }

    #[cfg(not(feature = "pg15"))]
    pub unsafe fn free(memory: *mut c_void) {
        // SAFETY: the caller gives what guc_malloc gave.
        unsafe { pgrx::pg_sys::guc_free(memory) }
    }
}
