//! Memory, reserved before work begins.
//!
//! A Rust allocation that fails aborts the process, and Postgres then restarts all others. So everything
//! that a role can make this library do first asks for as much memory as it may need at most, a question
//! that may be answered with no. The input's size is limited, so there is such a number.

#![allow(unsafe_code, reason = "allocators of Postgres")]

use std::ffi::{c_int, c_void};

use pg_session_jwt_jose::MAX_TOKEN_BYTES;
use pgrx::pg_sys;

use crate::error::{self, Error};

/// What a call needs at most, apart from what [`room_to_read`] asks for, in bytes. With what one
/// [`SHORT_TOKEN`] needs.
pub(crate) const ROOM: usize = (4 << 20) + SHORT_TOKEN * PER_BYTE;

/// A token of this many bytes is read in the room that each call asks for: to ask twice would cost a tenth of
/// what a token costs that has been verified before.
const SHORT_TOKEN: usize = 4096;

/// The limit for claims in a parameter and for `request.headers`, in bytes.
pub(crate) const MAX_CLAIMS_BYTES: usize = 256 * 1024;

/// What it takes at most to read a JSON text, keep it and convert it to jsonb, per byte.
///
/// For `{},`, three bytes, Postgres allocates four pairs before it knows that there are none: a chunk of
/// 512 bytes (pushJsonbValueScalar, src/backend/utils/adt/jsonb_util.c), and 160 more for its state and
/// place in the array. Our own value takes 32, and twice as much while the array grows.
const PER_BYTE: usize = 320;

/// Asks for room to read a JSON text, keep it and convert it to jsonb.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn room_to_read(bytes: usize) -> Result<(), Error> {
    room(bytes.saturating_mul(PER_BYTE))
}

/// The same for a token that is longer than those which a call has room for; it reads one.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn room_to_verify(token: &[u8]) -> Result<(), Error> {
    match token.len().min(MAX_TOKEN_BYTES) {
        0..=SHORT_TOKEN => Ok(()),
        long => room_to_read(long),
    }
}

/// Asks for this many bytes.
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

/// [`room`], for use before any guard, where an ERROR must not jump over Rust values.
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
    // SAFETY: with NO_OOM there is an ERROR only for a size beyond MaxAllocHugeSize (mcxt.c), and null
    // if there is not enough memory. TopMemoryContext, an AllocSet, gets a separate block from malloc
    // and returns it; nothing touches the block, so it costs only address space.
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
        // SAFETY: any size is valid.
        unsafe { malloc(bytes) }
    }

    #[cfg(feature = "pg15")]
    pub unsafe fn free(memory: *mut c_void) {
        unsafe extern "C" {
            fn free(memory: *mut c_void);
        }
        // SAFETY: the caller passes what malloc returned.
        unsafe { free(memory) }
    }

    #[cfg(not(feature = "pg15"))]
    pub unsafe fn allocate(bytes: usize) -> *mut c_void {
        // SAFETY: below ERROR, it returns null when out of memory.
        unsafe { pgrx::pg_sys::guc_malloc(pgrx::pg_sys::LOG as i32, bytes) }
    }

    #[cfg(not(feature = "pg15"))]
    pub unsafe fn free(memory: *mut c_void) {
        // SAFETY: the caller passes what guc_malloc returned.
        unsafe { pgrx::pg_sys::guc_free(memory) }
    }
}
