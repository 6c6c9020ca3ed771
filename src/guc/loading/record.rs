//! The backend's own record of a parameter or placeholder.

use std::ffi::{CStr, c_int};

use pgrx::{GucFlags, pg_sys};

/// GUC_ALLOW_IN_PARALLEL (src/include/utils/guc.h). The bindings lack it where they were made from the
/// headers of an older minor version.
#[cfg(feature = "pg15")]
const ALLOW_IN_PARALLEL: c_int = 0x40_0000;
#[cfg(not(feature = "pg15"))]
const ALLOW_IN_PARALLEL: c_int = 0x8000;

/// Whether this minor version knows [`ALLOW_IN_PARALLEL`], without which no placeholder's value can be
/// given to a parameter in parallel mode.
pub(super) fn can_define_in_parallel_mode() -> bool {
    // SAFETY: a parameter that is always there; its text is read at once.
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

/// The flag that lets a parameter be defined in parallel mode; none outside of it.
pub(in crate::guc) fn flags() -> GucFlags {
    // SAFETY: reads the state of the transaction.
    if unsafe { pg_sys::IsInParallelMode() } {
        GucFlags::from_bits_retain(ALLOW_IN_PARALLEL)
    } else {
        GucFlags::default()
    }
}

/// Takes the flag back: from now on SET is refused in parallel mode, as for any other parameter.
pub(in crate::guc) fn close_to_parallel_mode(names: &[&CStr]) {
    for name in names {
        if let Some(option) = option(name) {
            // SAFETY: the backend's own record of a parameter, which stays as long as the backend.
            unsafe { (*option).flags &= !ALLOW_IN_PARALLEL };
        }
    }
}

/// The record of a parameter or placeholder; on Postgres 15 it is searched for among all.
pub(in crate::guc) fn option(name: &CStr) -> Option<*mut pg_sys::config_generic> {
    // SAFETY: find_option neither makes a placeholder nor raises, as asked.
    #[cfg(not(feature = "pg15"))]
    let option = unsafe { pg_sys::find_option(name.as_ptr(), false, true, 0) };
    // Static in Postgres 15, whose array of all records is not. Names have no case (guc_name_compare), and a
    // placeholder keeps the one that it was set with.
    // SAFETY: so many pointers to records, each with a name.
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

/// Says, until postgresql.conf is read again, what is so: the file has a value for the parameter
/// (ProcessConfigFileInternal, guc.c).
pub(super) fn note_in_file(name: &CStr) {
    if let Some(option) = option(name) {
        // SAFETY: the record of the parameter that has just been defined.
        unsafe { (*option).status |= pg_sys::GUC_IS_IN_FILE as c_int };
    }
}

/// Whether postgresql.conf, as this process has read it last, has a value for the parameter.
///
/// # Safety
/// Null, or the record of a parameter, which stays as long as the process.
pub(in crate::guc) unsafe fn is_in_file(option: *const pg_sys::config_generic) -> bool {
    // SAFETY: the caller's promise.
    unsafe { option.as_ref() }
        .is_some_and(|option| option.status as u32 & pg_sys::GUC_IS_IN_FILE != 0)
}
