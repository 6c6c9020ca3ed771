//! What happened to the parameters before and while the library was loaded.
//!
//! Before that, each is a placeholder: a text that anyone may set, also in the startup packet. Defining
//! a parameter (`define_custom_variable`, src/backend/utils/misc/guc.c) gives it the placeholder's
//! values, each with its own privileges; a refused value is a WARNING, and the value that it had
//! replaced is lost.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `record` | the backend's own record of a parameter |
//! | `values` | the values of a placeholder |
//! | `reset` | a RESET that defining the parameter would undo |
//! | `refusal` | which values were refused, recorded for the whole session |

mod record;
mod refusal;
mod reset;
mod values;

use std::ffi::{CStr, c_int};

use pgrx::pg_sys::{self, GucContext as Context, GucSource as Source};

use crate::error::{Error, Report};
use record::{can_define_in_parallel_mode, note_in_file};
use refusal::refuse;
use reset::Reset;
use values::{Value, Values};

pub(super) use record::{close_to_parallel_mode, flags, is_in_file, option};
pub(crate) use refusal::refused_parameter;
pub(super) use refusal::{define_refused, is_refused};

/// Runs `define` so that it cannot end half-way: a user who could make it fail, or cancel it, would have
/// a session in which some parameters have lost their values. A parallel worker, which loads the library
/// again, might have lost others.
///
/// # Safety
/// To be called only from `_PG_init`, which has no destructors.
pub(crate) unsafe fn completely(define: fn()) {
    // SAFETY: plain reads and writes of globals of the backend; an ERROR from the report, before
    // anything is defined, leaves nothing behind.
    unsafe {
        crate::memory::ask_for(crate::memory::ROOM);
        if pg_sys::IsInParallelMode() && !can_define_in_parallel_mode() {
            Report::from(Error::ParallelLoad).raise();
        }
        // An ERROR, which a panic becomes too, ends the session (errstart, src/backend/utils/error/elog.c).
        let exit_on_any_error = pg_sys::ExitOnAnyError;
        pg_sys::ExitOnAnyError = true;
        // A cancel or a timeout waits until all is done (HOLD_INTERRUPTS, src/include/miscadmin.h).
        pg_sys::InterruptHoldoffCount += 1;
        crate::error::guarded(|| {
            define();
            Ok(())
        });
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::ExitOnAnyError = exit_on_any_error;
    }
}

/// Defines a parameter that not everyone may set, and judges each value of its placeholder by itself. If
/// one was refused, no matter who set it, the session has no identity.
pub(super) fn define_guarded(name: &'static CStr, define: impl FnOnce(&'static CStr)) {
    let reset = Reset::of(name);
    let given = Values::of(name);
    define(name);
    let mut all_accepted = true;
    for value in given.all() {
        if refuses(name, value) {
            all_accepted = false;
            refuse(name, value);
        } else if is_ignored(name, value) {
            apply(name, value);
        }
        if value.source == Source::PGC_S_FILE {
            note_in_file(name);
        }
    }
    if let Some(reset) = reset {
        reset.again(name);
    }
    if all_accepted {
        end_if_lost(name, &given, |_| true, 0);
    }
}

/// Defines `pg_session_jwt.jwt`, which everyone may set. Its check hook puts `envelope` bytes before a
/// value from a source that it `takes`, and empties any other.
pub(super) fn define_presented(
    name: &'static CStr,
    takes: fn(Source::Type) -> bool,
    envelope: usize,
    define: impl FnOnce(&'static CStr),
) {
    let reset = Reset::of(name);
    let given = Values::of(name);
    define(name);
    if let Some(reset) = reset {
        reset.again(name);
    }
    end_if_lost(name, &given, takes, envelope);
}

/// Ends the session if a text that Postgres accepted has not arrived: there was no memory to copy it,
/// which is only a WARNING (guc_strdup in guc.c).
fn end_if_lost(name: &CStr, given: &Values, takes: fn(Source::Type) -> bool, envelope: usize) {
    // SAFETY: reads a global. In a starting worker, the leader's values have not arrived yet.
    let is_text = option(name).is_some_and(|option| unsafe {
        (*option).vartype == pg_sys::config_type::PGC_STRING && !pg_sys::InitializingParallelWorker
    });
    if !is_text {
        return;
    }
    fn expected(value: &Value, takes: fn(Source::Type) -> bool) -> &[u8] {
        match takes(value.source) {
            true => value.text.to_bytes(),
            false => b"",
        }
    }
    let given_text = |value: &Option<Value>| {
        let text = value
            .as_ref()
            .map_or(&b""[..], |value| expected(value, takes));
        text.to_vec()
    };
    let bare = |value: &Value| {
        let text = value.text.to_bytes().get(envelope..);
        text.unwrap_or_default().to_vec()
    };
    let arrived = Values::of(name);
    let arrived_text = |value: &Option<Value>| value.as_ref().map_or(Vec::new(), bare);
    // The position on the stack may differ: a value that changes nothing adds no entry.
    let is_there = |value: &Value| {
        arrived
            .all()
            .any(|other| bare(other) == expected(value, takes))
    };
    if given_text(&given.reset) != arrived_text(&arrived.reset)
        || given_text(&given.current) != arrived_text(&arrived.current)
        || !given.stacked.iter().all(is_there)
    {
        let name = name.to_string_lossy().into_owned();
        // SAFETY: ends the process.
        unsafe { Report::from(Error::Lost(name)).raise() }
    }
}

/// Whether Postgres refuses a value. Asks as `define_custom_variable` does, but changes nothing.
fn refuses(name: &CStr, value: &Value) -> bool {
    let debug = pgrx::PgLogLevel::DEBUG5 as c_int;
    // SAFETY: C strings.
    let answer = unsafe {
        pg_sys::set_config_option_ext(
            name.as_ptr(),
            value.text.as_ptr(),
            value.context,
            value.source,
            value.role,
            pg_sys::GucAction::GUC_ACTION_SET,
            false,
            debug,
            false,
        )
    };
    answer == 0
}

/// Whether Postgres ignores a value silently: postgresql.conf sets a parameter of connection start, and
/// the postmaster has reloaded the file since it started. Then the placeholder's context is SIGHUP, with
/// which a backend accepts no such value, although this is a start.
fn is_ignored(name: &CStr, value: &Value) -> bool {
    // SAFETY: the record of the parameter that has just been defined.
    let is_of_start =
        option(name).is_some_and(|option| unsafe { (*option).context == Context::PGC_BACKEND });
    is_of_start && value.context == Context::PGC_SIGHUP
}

/// Gives a value to the parameter with the privileges of connection start.
fn apply(name: &CStr, value: &Value) {
    // SAFETY: C strings.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.text.as_ptr(),
            Context::PGC_BACKEND,
            value.source,
        );
    }
}
