//! Copying and setting the values of parameters, and the number that changes with them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgrx::{GucSetting, pg_sys};

pub(super) type Text = GucSetting<Option<CString>>;

// A backend has one thread: the atomics only avoid `static mut`, and relaxed loads cost what plain ones
// do.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// A number that changes whenever a parameter is assigned or a provider changes. Never 0.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// Changes [`epoch`].
pub(crate) fn changed() {
    EPOCH.fetch_add(1, Relaxed);
}

/// The assign hook of a plain text parameter.
pub(super) unsafe extern "C-unwind" fn assign_text(_: *const c_char, _: *mut c_void) {
    changed();
}

/// The value, copied; `None` for an empty one.
pub(super) fn text(setting: &Text, most: usize) -> Option<Vec<u8>> {
    // SAFETY: Postgres keeps a valid C string, or null, in the variable; it is copied at once.
    unsafe { copied(*setting.as_ptr(), most) }.filter(|value| !value.is_empty())
}

/// At most one byte more than `most`: a value has up to a gigabyte, and the reader refuses it by its
/// length.
///
/// # Safety
/// Null, or a C string that stays as it is during the call.
pub(super) unsafe fn copied(value: *const c_char, most: usize) -> Option<Vec<u8>> {
    if value.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    Some(value.get(..=most).unwrap_or(value).to_vec())
}

/// SET with the privileges of an ordinary user; RESET where the value is null.
pub(super) fn set(name: &CStr, value: *const c_char, is_local: bool) {
    let action = if is_local {
        pg_sys::GucAction::GUC_ACTION_LOCAL
    } else {
        pg_sys::GucAction::GUC_ACTION_SET
    };
    // SAFETY: C strings, or null for the value; an ERROR unwinds through pgrx's guard.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value,
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// SET LOCAL, as a statement of its own within the current one.
pub(super) fn set_by_statement(name: &CStr, value: &CStr) {
    // SAFETY: C strings; an ERROR unwinds through pgrx's guard, and ends the connection to SPI with the
    // (sub)transaction (AtEOSubXact_SPI, src/backend/executor/spi.c).
    unsafe {
        let literal = CStr::from_ptr(pg_sys::quote_literal_cstr(value.as_ptr()));
        let statement = [
            b"SET LOCAL ",
            name.to_bytes(),
            b" = ",
            literal.to_bytes(),
            b"\0",
        ]
        .concat();
        pg_sys::SPI_connect();
        pg_sys::SPI_execute(statement.as_ptr().cast(), false, 0);
        pg_sys::SPI_finish();
    }
}
