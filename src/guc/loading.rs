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

/// The record of a parameter or placeholder; on Postgres 15 it is searched for among all.
pub(super) fn option(name: &CStr) -> Option<*mut pg_sys::config_generic> {
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

/// A value of a parameter, with what entitles it.
struct Value {
    text: CString,
    context: Context::Type,
    source: Source::Type,
    role: pg_sys::Oid,
}

/// All values of a placeholder, or of a parameter that is a text.
#[derive(Default)]
struct Values {
    /// The one to RESET to.
    reset: Option<Value>,
    /// The one in force.
    current: Option<Value>,
    /// Those that the end of a (sub)transaction or of a function would give back.
    stacked: Vec<Value>,
}

impl Values {
    fn of(name: &CStr) -> Self {
        let value = |text: *const c_char, context, source, role| {
            // SAFETY: null or a C string of the record's, copied at once.
            (!text.is_null()).then(|| Value {
                text: unsafe { CStr::from_ptr(text) }.to_owned(),
                context,
                source,
                role,
            })
        };
        let Some(option) = option(name) else {
            return Self::default();
        };
        // SAFETY: a placeholder is a text too (guc.c, add_placeholder_variable). GucStack:
        // src/include/utils/guc_tables.h.
        unsafe {
            let of = &*option;
            if of.vartype != pg_sys::config_type::PGC_STRING {
                return Self::default();
            }
            let string = &*option.cast::<pg_sys::config_string>();
            let reset = string.reset_val;
            let mut values = Self {
                reset: value(reset, of.reset_scontext, of.reset_source, of.reset_srole),
                current: value(*string.variable, of.scontext, of.source, of.srole),
                stacked: Vec::new(),
            };
            let mut stack = of.stack;
            while let Some(entry) = stack.as_ref() {
                let prior = entry.prior.val.stringval;
                let prior = value(prior, entry.scontext, entry.source, entry.srole);
                values.stacked.extend(prior);
                if entry.state == pg_sys::GucStackState::GUC_SET_LOCAL {
                    let masked = entry.masked.val.stringval;
                    let (context, role) = (entry.masked_scontext, entry.masked_srole);
                    let masked = value(masked, context, Source::PGC_S_SESSION, role);
                    values.stacked.extend(masked);
                }
                stack = entry.prev;
            }
            values
        }
    }

    fn all(&self) -> impl Iterator<Item = &Value> {
        self.reset.iter().chain(&self.current).chain(&self.stacked)
    }
}

/// A RESET in a transaction that has yet to end, of a placeholder that had a value before.
///
/// Postgres gives each value of a placeholder to the parameter by the value's own source, and takes one of a
/// lower source for overridden. The value that RESET gives back is one of those: the RESET would be undone.
struct Reset {
    state: pg_sys::GucStackState::Type,
    nest_level: c_int,
}

impl Reset {
    /// One that is in force now. Those below it on the stack are made such that Postgres does them again:
    /// without a value, by the session.
    fn of(name: &CStr) -> Option<Self> {
        let option = option(name)?;
        // SAFETY: the record of a placeholder and its stack, which live as long as the transaction.
        unsafe {
            if (*option).flags as u32 & pg_sys::GUC_CUSTOM_PLACEHOLDER == 0 {
                return None;
            }
            let top = (*option).stack.as_ref()?;
            let mut stack = (*option).stack;
            while let Some(entry) = stack.as_mut() {
                // The last entry has what was in force before the transaction.
                if !entry.prev.is_null() && entry.source < Source::PGC_S_SESSION {
                    entry.prior.val.stringval = std::ptr::null_mut();
                    entry.source = Source::PGC_S_SESSION;
                }
                stack = entry.prev;
            }
            ((*option).source < Source::PGC_S_SESSION).then_some(Self {
                state: top.state,
                nest_level: top.nest_level,
            })
        }
    }

    /// Does it again, with the parameter, as `reapply_stacked_values` (guc.c) does a SET.
    fn again(&self, name: &CStr) {
        let Some(option) = option(name) else {
            return;
        };
        // SAFETY: C strings, and the record of the parameter. A stack entry that was made belongs where the
        // placeholder's was.
        unsafe {
            let before = (*option).stack;
            let context = match (*option).context {
                Context::PGC_BACKEND => Context::PGC_BACKEND,
                _ => Context::PGC_SUSET,
            };
            let action = match self.state {
                pg_sys::GucStackState::GUC_SAVE => pg_sys::GucAction::GUC_ACTION_SAVE,
                pg_sys::GucStackState::GUC_SET => pg_sys::GucAction::GUC_ACTION_SET,
                _ => pg_sys::GucAction::GUC_ACTION_LOCAL,
            };
            let (none, session) = (std::ptr::null(), Source::PGC_S_SESSION);
            pg_sys::set_config_option(
                name.as_ptr(),
                none,
                context,
                session,
                action,
                true,
                0,
                false,
            );
            let after = (*option).stack;
            if after != before
                && let Some(entry) = after.as_mut()
            {
                entry.nest_level = self.nest_level;
            }
        }
    }
}

/// Defines a parameter that not everybody may set, and judges each value of its placeholder by itself.
/// With one that was refused, whoever set it, the session is given no identity.
pub(super) fn define_guarded(name: &'static CStr, define: impl FnOnce(&'static CStr)) {
    let reset = Reset::of(name);
    let given = Values::of(name);
    define(name);
    let mut all_accepted = true;
    for value in given.all() {
        if is_refused(name, value) {
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

/// Defines `pg_session_jwt.jwt`, which everybody may set. Its check hook puts `envelope` bytes in front of a
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

/// Ends the session where a text that Postgres accepts has not arrived: there was no memory to copy it,
/// which is a mere WARNING (guc_strdup in guc.c).
fn end_if_lost(name: &CStr, given: &Values, takes: fn(Source::Type) -> bool, envelope: usize) {
    // SAFETY: reads a global. The leader's values are yet to come in such a worker.
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
    // Where an entry stands on the stack may differ: what changes nothing makes none.
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

/// Says, until postgresql.conf is read again, what is so: the file has a value for the parameter
/// (ProcessConfigFileInternal, guc.c).
fn note_in_file(name: &CStr) {
    if let Some(option) = option(name) {
        // SAFETY: the record of the parameter that has just been defined.
        unsafe { (*option).status |= pg_sys::GUC_IS_IN_FILE as c_int };
    }
}

/// Whether postgresql.conf, as this process has read it last, has a value for the parameter.
///
/// # Safety
/// Null, or the record of a parameter, which stays as long as the process.
pub(super) unsafe fn is_in_file(option: *const pg_sys::config_generic) -> bool {
    // SAFETY: the caller's promise.
    unsafe { option.as_ref() }
        .is_some_and(|option| option.status as u32 & pg_sys::GUC_IS_IN_FILE != 0)
}

/// Notes that a value was refused.
fn refuse(name: &CStr, value: &Value) {
    let by = set_by(value.source);
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
        // SAFETY: a global, and the record of a parameter.
        unsafe {
            self.by == SetBy::File
                && pg_sys::ParallelWorkerNumber < 0
                && option(&name).is_some_and(|option| {
                    !is_in_file(option) || (*option).reset_source == Source::PGC_S_FILE
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
