//! What happened to the parameters before the library was loaded, and while.
//!
//! Until then each is a placeholder: a text that anyone may set, in the startup packet too. Defining a
//! parameter (`define_custom_variable`, src/backend/utils/misc/guc.c) gives it the placeholder's values,
//! each by its own right; one that is refused is a WARNING, and what it stood in the place of is lost.

use std::ffi::{CStr, CString, c_char, c_int};

use pgrx::pg_sys::{self, GucContext as Context, GucSource as Source};
use pgrx::{GucContext, GucFlags, GucRegistry};

use super::value::{Text, text};
use crate::error::{Error, Report, SetBy};

/// See [`refused_parameter`]. A parameter itself, for parallel workers to receive it.
static REFUSED: Text = Text::new(None);

/// GUC_ALLOW_IN_PARALLEL (src/include/utils/guc.h). The bindings lack it where they were made from the
/// headers of an older minor version.
#[cfg(feature = "pg15")]
const ALLOW_IN_PARALLEL: c_int = 0x40_0000;
#[cfg(not(feature = "pg15"))]
const ALLOW_IN_PARALLEL: c_int = 0x8000;

/// Runs `define`, which cannot end half-way: whoever is in a position to make it fail, or to cancel it,
/// would have a session in which some parameters have their values and others have lost them. A parallel
/// worker, which loads the library anew, would not even agree on which.
///
/// # Safety
/// To be called from `_PG_init` alone, which has no destructors.
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
        // A cancel or a time-out waits until all is done (HOLD_INTERRUPTS, src/include/miscadmin.h).
        pg_sys::InterruptHoldoffCount += 1;
        crate::error::guarded(|| {
            define();
            Ok(())
        });
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::ExitOnAnyError = exit_on_any_error;
    }
}

/// Whether this minor version knows [`ALLOW_IN_PARALLEL`], without which no placeholder's value can be
/// given to a parameter in parallel mode.
fn can_define_in_parallel_mode() -> bool {
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

/// Defines the parameter that says which values were refused; before all others.
pub(super) fn define_refused(name: &'static CStr, flags: GucFlags) {
    GucRegistry::define_string_guc(
        name,
        c"A parameter that was set in vain before the library was loaded: no identity is given.",
        c"Set by the library alone.",
        &REFUSED,
        GucContext::Backend,
        flags | GucFlags::NO_RESET_ALL | GucFlags::DISALLOW_IN_FILE,
    );
}

/// The flag that lets a parameter be defined in parallel mode; none outside of it.
pub(super) fn flags() -> GucFlags {
    // SAFETY: reads the state of the transaction.
    if unsafe { pg_sys::IsInParallelMode() } {
        GucFlags::from_bits_retain(ALLOW_IN_PARALLEL)
    } else {
        GucFlags::default()
    }
}

/// Takes the flag back: from now on SET is refused in parallel mode, as for any other parameter.
pub(super) fn close_to_parallel_mode(names: &[&CStr]) {
    for name in names {
        if let Some(option) = option(name) {
            // SAFETY: the backend's own record of a parameter, which stays as long as the backend.
            unsafe { (*option).flags &= !ALLOW_IN_PARALLEL };
        }
    }
}

/// The record of a parameter or placeholder.
fn option(name: &CStr) -> Option<*mut pg_sys::config_generic> {
    // SAFETY: find_option neither makes a placeholder nor raises, as asked.
    #[cfg(not(feature = "pg15"))]
    let option = unsafe { pg_sys::find_option(name.as_ptr(), false, true, 0) };
    // Static in Postgres 15, whose array of all records is not.
    // SAFETY: so many pointers to records, each with a name.
    #[cfg(feature = "pg15")]
    let option = unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or(0);
        std::slice::from_raw_parts(pg_sys::get_guc_variables(), count)
            .iter()
            .copied()
            .find(|option| CStr::from_ptr((**option).name) == name)
            .unwrap_or(std::ptr::null_mut())
    };
    (!option.is_null()).then_some(option)
}

/// A value of a parameter, with what entitles it.
struct Value {
    text: CString,
    context: Context::Type,
    source: Source::Type,
    role: pg_sys::Oid,
}

/// All values of a placeholder, or of a parameter that is a text: the one to RESET to, the one in force, and
/// those that the end of a (sub)transaction or of a function would give back.
fn values(name: &CStr) -> Vec<Value> {
    let mut values = Vec::new();
    let mut add = |text: *const c_char, context, source, role| {
        if !text.is_null() {
            values.push(Value {
                // SAFETY: a C string of the record's, copied at once.
                text: unsafe { CStr::from_ptr(text) }.to_owned(),
                context,
                source,
                role,
            });
        }
    };
    let Some(option) = option(name) else {
        return values;
    };
    // SAFETY: a placeholder is a text too (guc.c, add_placeholder_variable). GucStack:
    // src/include/utils/guc_tables.h.
    unsafe {
        if (*option).vartype != pg_sys::config_type::PGC_STRING {
            return values;
        }
        let general = &*option;
        let string = &*option.cast::<pg_sys::config_string>();
        add(
            string.reset_val,
            general.reset_scontext,
            general.reset_source,
            general.reset_srole,
        );
        add(
            *string.variable,
            general.scontext,
            general.source,
            general.srole,
        );
        let mut stack = general.stack;
        while let Some(entry) = stack.as_ref() {
            let (prior, masked) = (entry.prior.val.stringval, entry.masked.val.stringval);
            add(prior, entry.scontext, entry.source, entry.srole);
            if entry.state == pg_sys::GucStackState::GUC_SET_LOCAL {
                let (context, role) = (entry.masked_scontext, entry.masked_srole);
                add(masked, context, Source::PGC_S_SESSION, role);
            }
            stack = entry.prev;
        }
    }
    values
}

/// Defines a parameter that not everybody may set, and judges each value of its placeholder by itself.
/// With one that was refused, whoever set it, the session is given no identity.
pub(super) fn define_guarded(name: &'static CStr, define: impl FnOnce(&'static CStr)) {
    let given = values(name);
    define(name);
    let mut all_accepted = true;
    for value in &given {
        if is_refused(name, value) {
            all_accepted = false;
            refuse(name, value);
        } else if is_ignored(name, value) {
            apply(name, value);
        }
    }
    if all_accepted {
        end_if_lost(name, &given, |_| true, 0);
    }
}

/// Defines `pg_session_jwt.jwt`, which everybody may set. Its check hook puts `envelope` bytes in front of a
/// value from a source that it `takes`, and empties any other.
pub(super) fn define_presented(
    name: &'static CStr,
    takes: fn(Source::Type) -> bool,
    envelope: usize,
    define: impl FnOnce(&'static CStr),
) {
    let given = values(name);
    define(name);
    end_if_lost(name, &given, takes, envelope);
}

/// Ends the session where a text that Postgres accepts has not arrived: there was no memory to copy it,
/// which is a mere WARNING (guc_strdup in guc.c).
fn end_if_lost(name: &CStr, given: &[Value], takes: fn(Source::Type) -> bool, envelope: usize) {
    // SAFETY: reads a global. The leader's values are yet to come in such a worker.
    let is_text = option(name).is_some_and(|option| unsafe {
        (*option).vartype == pg_sys::config_type::PGC_STRING && !pg_sys::InitializingParallelWorker
    });
    if !is_text {
        return;
    }
    let arrived = values(name);
    let is_same = |(given, arrived): (&Value, &Value)| {
        let expected = match takes(given.source) {
            true => given.text.to_bytes(),
            false => b"",
        };
        arrived.text.to_bytes().get(envelope..).unwrap_or_default() == expected
    };
    if given.len() != arrived.len() || !given.iter().zip(&arrived).all(is_same) {
        // SAFETY: ends the process.
        unsafe { crate::error::out_of_memory() }
    }
}

/// Whether Postgres refuses a value: asks as `define_custom_variable` does, but changes nothing.
fn is_refused(name: &CStr, value: &Value) -> bool {
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

/// Whether Postgres passes over a value without a word: a parameter of connection start stands in
/// postgresql.conf, and the postmaster has read the file again since its own start. Then the placeholder's
/// context says SIGHUP, with which a backend takes no such value, although this is a start.
fn is_ignored(name: &CStr, value: &Value) -> bool {
    // SAFETY: the record of the parameter that has just been defined.
    let is_of_start =
        option(name).is_some_and(|option| unsafe { (*option).context == Context::PGC_BACKEND });
    is_of_start && value.context == Context::PGC_SIGHUP
}

/// Gives a value to the parameter by the right that it had at the start.
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

fn set_by(source: Source::Type) -> SetBy {
    match source {
        ..=Source::PGC_S_ARGV => SetBy::File,
        Source::PGC_S_GLOBAL..=Source::PGC_S_DATABASE_USER => SetBy::Catalog,
        _ => SetBy::Client,
    }
}

/// Notes that a value was refused.
fn refuse(name: &CStr, value: &Value) {
    let by = set_by(value.source);
    if by == SetBy::File
        && let Some(option) = option(name)
    {
        // SAFETY: the record of the parameter that has just been defined. The bit says, until postgresql.conf
        // is read again, what is so: the file has a value for it (ProcessConfigFileInternal, guc.c).
        unsafe { (*option).status |= pg_sys::GUC_IS_IN_FILE as c_int };
    }
    let refusal = Refusal {
        by,
        name: name.to_string_lossy().into_owned(),
    };
    let mut refusals = Refusal::all();
    if !refusals.contains(&refusal) {
        refusals.push(refusal);
        Refusal::note(&refusals);
    }
}

/// That a value of a parameter was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    by: SetBy,
    name: String,
}

impl Refusal {
    /// All that were noted, in `pg_session_jwt.refused_parameter`: a letter and a name each. A parameter
    /// itself, for parallel workers to receive it.
    fn all() -> Vec<Self> {
        let note = text(&REFUSED, 4096).unwrap_or_default();
        let words = note.split(|&byte| byte == b' ');
        words
            .filter_map(<[u8]>::split_first)
            .map(|(letter, name)| Self {
                by: match letter {
                    b'f' => SetBy::File,
                    b'd' => SetBy::Catalog,
                    _ => SetBy::Client,
                },
                name: String::from_utf8_lossy(name).into_owned(),
            })
            .collect()
    }

    fn note(refusals: &[Self]) {
        let words = refusals.iter().map(|Self { by, name }| match by {
            SetBy::Client => format!("c{name}"),
            SetBy::File => format!("f{name}"),
            SetBy::Catalog => format!("d{name}"),
        });
        let note = CString::new(words.collect::<Vec<_>>().join(" ")).unwrap_or_default();
        // SAFETY: C strings. PGC_S_OVERRIDE makes it the value to RESET to, which no ROLLBACK undoes.
        unsafe {
            pg_sys::SetConfigOption(
                c"pg_session_jwt.refused_parameter".as_ptr(),
                note.as_ptr(),
                Context::PGC_BACKEND,
                Source::PGC_S_OVERRIDE,
            );
        }
    }

    /// Whether a wrong value in postgresql.conf has been corrected or taken out since, and the file read
    /// again. A parallel worker cannot know: it has its leader's values, which may be older.
    fn is_mended(&self) -> bool {
        let name = CString::new(self.name.as_str()).unwrap_or_default();
        // SAFETY: a global, and as in `refuse`.
        unsafe {
            self.by == SetBy::File
                && pg_sys::ParallelWorkerNumber < 0
                && option(&name).is_some_and(|option| {
                    let is_in_file = (*option).status as u32 & pg_sys::GUC_IS_IN_FILE != 0;
                    !is_in_file || (*option).reset_source == Source::PGC_S_FILE
                })
        }
    }
}

/// A parameter of which a value was refused when the library was loaded, and who set it.
///
/// The refused value may have taken the place of the administrator's: `request_claims = never` would be
/// undone that way, so such a session gets no identity at all. (With shared_preload_libraries, Postgres
/// refuses the connection or the SET itself.)
pub(crate) fn refused_parameter() -> Option<(SetBy, String)> {
    // SAFETY: a plain read of the variable.
    if unsafe { (*REFUSED.as_ptr()).is_null() } {
        return None;
    }
    let mut refusals = Refusal::all();
    let noted = refusals.len();
    refusals.retain(|refusal| !refusal.is_mended());
    // SAFETY: reads the state of the transaction.
    if refusals.len() < noted && !unsafe { pg_sys::IsInParallelMode() } {
        Refusal::note(&refusals);
    }
    refusals
        .into_iter()
        .next()
        .map(|refusal| (refusal.by, refusal.name))
}
