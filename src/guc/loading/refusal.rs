//! Which values were refused, recorded for the whole session.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, GucContext as Context, GucSource as Source};
use pgrx::{GucContext, GucFlags, GucRegistry};

use super::record::{is_in_file, option};
use super::values::Value;
use crate::error::SetBy;
use crate::guc::names;
use crate::guc::value::{Text, text};

/// See [`refused_parameter`]. It is a parameter so that parallel workers receive it.
static REFUSED: Text = Text::new(None);

/// Defines the parameter that records which values were refused; before all others.
pub(in crate::guc) fn define_refused(flags: GucFlags) {
    GucRegistry::define_string_guc(
        names::REFUSED_PARAMETER,
        c"Parameters with a refused value from before the library was loaded: the session has no identity.",
        c"Set only by the library.",
        &REFUSED,
        GucContext::Backend,
        flags | GucFlags::NO_RESET_ALL | GucFlags::DISALLOW_IN_FILE,
    );
}

/// Records that a value was refused.
pub(super) fn refuse(name: &CStr, value: &Value) {
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

/// A refused value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    by: SetBy,
    name: String,
}

impl Refusal {
    /// All that were recorded in `pg_session_jwt.refused_parameter`: a letter and a name each.
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
        // SAFETY: C strings. PGC_S_OVERRIDE makes it the RESET value, which no ROLLBACK undoes.
        unsafe {
            pg_sys::SetConfigOption(
                names::REFUSED_PARAMETER.as_ptr(),
                note.as_ptr(),
                Context::PGC_BACKEND,
                Source::PGC_S_OVERRIDE,
            );
        }
    }

    /// Whether a wrong value in postgresql.conf has since been corrected or removed, and the file
    /// reloaded. A parallel worker cannot know: it has its leader's values, which may be older.
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

/// A parameter whose value was refused when the library was loaded, and who set it.
///
/// The refused value may have replaced the administrator's: that would undo `request_claims = never`, so
/// such a session gets no identity at all. (With shared_preload_libraries, Postgres refuses the
/// connection or the SET itself.)
pub(crate) fn refused_parameter() -> Option<(SetBy, String)> {
    let refusals = refused();
    refusals
        .into_iter()
        .next()
        .map(|refusal| (refusal.by, refusal.name))
}

/// Whether it was this one.
pub(in crate::guc) fn is_refused(name: &CStr) -> bool {
    let refusals = refused();
    refusals
        .iter()
        .any(|refusal| refusal.name.as_bytes() == name.to_bytes())
}

/// All that were refused and are not mended.
fn refused() -> Vec<Refusal> {
    // SAFETY: a plain read of the variable.
    if unsafe { (*REFUSED.as_ptr()).is_null() } {
        return Vec::new();
    }
    let mut refusals = Refusal::all();
    let noted = refusals.len();
    refusals.retain(|refusal| !refusal.is_mended());
    // SAFETY: reads the state of the transaction.
    if refusals.len() < noted && !unsafe { pg_sys::IsInParallelMode() } {
        Refusal::note(&refusals);
    }
    refusals
}

fn set_by(source: Source::Type) -> SetBy {
    match source {
        ..=Source::PGC_S_ARGV => SetBy::File,
        Source::PGC_S_GLOBAL..=Source::PGC_S_DATABASE_USER => SetBy::Catalog,
        _ => SetBy::Client,
    }
}
