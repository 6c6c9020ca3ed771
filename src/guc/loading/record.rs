//! The backend's own record of a parameter or placeholder.

use std::ffi::{CStr, c_int};

use pgrx::{GucFlags, pg_sys};

/// GUC_ALLOW_IN_PARALLEL (src/include/utils/guc.h). The bindings lack it if they were made from the
/// headers of an older minor version.
#[cfg(feature = "pg15")]
const ALLOW_IN_PARALLEL: c_int = 0x40_0000;
#[cfg(not(feature = "pg15"))]
const ALLOW_IN_PARALLEL: c_int = 0x8000;

/// Whether this minor version has [`ALLOW_IN_PARALLEL`], without which a parameter cannot get its
/// placeholder's value in parallel mode.
pub(super) fn can_define_in_parallel_mode() -> bool {
    // SAFETY: this parameter always exists; its text is read at once.
    let version = unsafe {
        CStr::from_ptr(pg_sys::GetConfigOption(
            c"server_version_num".as_ptr(),
            false,
            false,
        ))
    };
    let version: u32 = version
        .to_str()
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    match version / 10_000 {
        15 => version >= 150_009,
        16 => version >= 160_005,
        17 => version >= 170_001,
        major => major > 17,
    }
}

/// The flag with which a parameter can be defined in parallel mode; none outside of it.
pub(in crate::guc) fn flags() -> GucFlags {
    // SAFETY: reads the state of the transaction.
    if unsafe { pg_sys::IsInParallelMode() } {
        GucFlags::from_bits_retain(ALLOW_IN_PARALLEL)
    } else {
        GucFlags::default()
    }
}

/// Removes the flag: from now on, SET is refused in parallel mode, as for any other parameter.
pub(in crate::guc) fn close_to_parallel_mode(names: &[&CStr]) {
    for name in names {
        if let Some(option) = option(name) {
            // SAFETY: the backend's own record of a parameter, which lives as long as the backend.
            unsafe { (*option).flags &= !ALLOW_IN_PARALLEL };
        }
    }
}

/// The record of a parameter or placeholder. Postgres 15 searches all of them for it.
pub(in crate::guc) fn option(name: &CStr) -> Option<*mut pg_sys::config_generic> {
    // SAFETY: with these arguments, find_option neither makes a placeholder nor raises.
    #[cfg(not(feature = "pg15"))]
    let option = unsafe { pg_sys::find_option(name.as_ptr(), false, true, 0) };
    // find_option is static in Postgres 15, the array of all records is not. Names are compared without
    // case (guc_name_compare), and a placeholder keeps the case in which it was set.
    // SAFETY: an array of that many pointers to records, each with a name.
    #[cfg(feature = "pg15")]
    let option = unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or(0);
        std::slice::from_raw_parts(pg_sys::get_guc_variables(), count)
            .iter()
            .copied()
            .find(|option| {
                let other = CStr::from_ptr((**option).name).to_bytes();
                other.eq_ignore_ascii_case(name.to_bytes())
            })
            .unwrap_or(std::ptr::null_mut())
    };
    (!option.is_null()).then_some(option)
}

/// Marks the parameter as set in postgresql.conf, as the next reload of the file would
/// (ProcessConfigFileInternal, guc.c).
pub(super) fn note_in_file(name: &CStr) {
    if let Some(option) = option(name) {
        // SAFETY: the record of the parameter that has just been defined.
        unsafe { (*option).status |= pg_sys::GUC_IS_IN_FILE as c_int };
    }
}

/// Whether postgresql.conf had a value for the parameter when this process last read it.
///
/// # Safety
/// Null, or the record of a parameter, which lives as long as the process.
pub(in crate::guc) unsafe fn is_in_file(option: *const pg_sys::config_generic) -> bool {
    // SAFETY: the caller's promise.
    unsafe { option.as_ref() }
        .is_some_and(|option| option.status & pg_sys::GUC_IS_IN_FILE as c_int != 0)
}
