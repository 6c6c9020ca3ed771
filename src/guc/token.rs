//! `pg_session_jwt.jwt`: the token, in an envelope that records its progress.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering::Relaxed};

use pg_session_jwt_jose::MAX_TOKEN_BYTES;
use pgrx::{GucContext, GucFlags, GucRegistry, pg_sys};

use super::foreign;
use super::keys::jwk_came_with_connection;
use super::value::{Text, assign_text, set, set_by_statement, text};
use super::{loading, names};
use crate::error::{self, Error, guarded};
use crate::memory;

static JWT: Text = Text::new(None);
static LAST_ID: AtomicI64 = AtomicI64::new(i64::MIN);
static HAS_LAST_ID: AtomicBool = AtomicBool::new(false);
/// The progress of the token that is being set, as a byte; 0 when it is not known yet.
static JUDGED: AtomicU8 = AtomicU8::new(0);
/// Set by `session`, which is above this module; see [`check_jwt`].
static JUDGE: OnceLock<Judge> = OnceLock::new();

/// Counts the id of a token that is being presented; false if the token is not accepted or its id does
/// not increase. Called wherever a parameter can be set, so also outside transactions.
pub(crate) type Judge = fn(&[u8]) -> Result<bool, Error>;

/// The token in `pg_session_jwt.jwt`.
///
/// Internally, the parameter's value is an envelope: one byte of progress, then the token. The byte
/// travels with the value: a ROLLBACK that restores an accepted token also restores that it was
/// accepted, so it is not taken for a replay, and a parallel worker knows what its leader knows. SQL
/// never sees the envelope (the show hook) and cannot make one (the check hook).
pub(crate) struct Presentation {
    pub token: Vec<u8>,
    pub progress: Progress,
}

/// What has been done with a token.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its id has been counted, so it is not a replay. Where ids did not matter when it was accepted,
    /// this is still to do.
    pub counted: bool,
    /// It has been in force.
    pub used: bool,
}

impl Progress {
    /// Never 0.
    fn byte(self) -> u8 {
        b'0' + u8::from(self.counted) + 2 * u8::from(self.used)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let bits = byte.checked_sub(b'0').filter(|bits| *bits < 4)?;
        Some(Self {
            counted: bits & 1 != 0,
            used: bits & 2 != 0,
        })
    }
}

impl Presentation {
    /// The token in force, if there is one.
    pub fn current() -> Option<Self> {
        let value = text(&JWT, 1 + MAX_TOKEN_BYTES)?;
        let (&mark, token) = value.split_first()?;
        Some(Self {
            token: token.to_vec(),
            progress: Progress::from_byte(mark)?,
        })
    }

    /// Records the progress of the token in force.
    pub fn note(progress: Progress) {
        // SAFETY: a non-empty value is an envelope, in memory that check_jwt allocated; a backend has
        // one thread.
        unsafe {
            let value = (*JWT.as_ptr()).cast::<u8>();
            if !value.is_null() && *value != 0 {
                *value = progress.byte();
            }
        }
    }
}

/// Whether this process knows which token ids the connection has accepted. A parallel worker does not:
/// it has only what its leader sent.
pub(crate) fn knows_ids() -> bool {
    // SAFETY: a plain read of a global.
    unsafe { pg_sys::ParallelWorkerNumber < 0 }
}

/// The highest token id that this connection has accepted, if any.
pub(crate) fn last_id() -> Option<i64> {
    HAS_LAST_ID.load(Relaxed).then(|| LAST_ID.load(Relaxed))
}

/// Records an accepted token id.
pub(crate) fn accept_id(id: i64) {
    LAST_ID.fetch_max(id, Relaxed);
    HAS_LAST_ID.store(true, Relaxed);
}

/// SET pg_session_jwt.jwt (SET LOCAL with `is_local`) for a token that has been accepted.
pub(crate) fn set_jwt(token: &CStr, is_local: bool, progress: Progress) {
    /// Resets it, also when an ERROR unwinds.
    struct Judged;
    impl Drop for Judged {
        fn drop(&mut self) {
            JUDGED.store(0, Relaxed);
        }
    }
    let _judged = Judged;
    JUDGED.store(progress.byte(), Relaxed);
    if is_local && passes_on_set_local() {
        set_by_statement(names::JWT, token);
    } else {
        set(names::JWT, token.as_ptr(), is_local);
    }
}

/// Forgets the token, for the session or (`is_local`) the transaction.
pub(crate) fn clear_jwt(is_local: bool) {
    let passes_on = passes_on_set_local();
    // Also where it is forgotten for longer: what was passed on lasts until the transaction ends.
    if passes_on {
        set_by_statement(names::JWT, c"");
    }
    if !is_local || !passes_on {
        set(names::JWT, c"".as_ptr(), is_local);
    }
}

/// Whether Citus passes SET LOCAL on to the nodes that a transaction reaches. It does so with the statement, not with
/// what a function does.
fn passes_on_set_local() -> bool {
    foreign(c"citus.propagate_set_commands").is_some_and(|value| value == b"local")
}

/// Defines the parameter.
pub(super) fn define(flags: GucFlags, judge: Judge) {
    let _ = JUDGE.set(judge);
    // SAFETY: the hooks raise an ERROR only from frames without destructors.
    loading::define_presented(names::JWT, is_presented, 1, |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"The user's JSON Web Token.",
            c"Verified at first use. Never shown.",
            &JWT,
            GucContext::Userset,
            flags,
            Some(check_jwt),
            Some(assign_text),
            Some(show_jwt),
        );
    });
}

/// Whether a token from this source counts: not one that ALTER ROLE … SET has stored. A role may do that
/// to itself, and everyone who shares the role would become that user whenever a token is forgotten.
fn is_presented(source: pg_sys::GucSource::Type) -> bool {
    let stored = pg_sys::GucSource::PGC_S_GLOBAL..=pg_sys::GucSource::PGC_S_DATABASE_USER;
    !stored.contains(&source)
}

/// Puts the token into its envelope ([`Presentation`]).
///
/// Under a startup key, the token's id is counted here and not at first use, which may happen only in a
/// parallel worker: that could not notify the leader of the id that it has accepted.
unsafe extern "C-unwind" fn check_jwt(
    newval: *mut *mut c_char,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: `*newval` is null or a C string of GUC's allocator, which a check hook may replace with
    // another (src/backend/utils/misc/README, "GUC Check Hooks"). A starting worker gets the leader's
    // envelope as it is.
    unsafe {
        let token = *newval;
        if token.is_null() || *token == 0 || pg_sys::InitializingParallelWorker {
            return true;
        }
        if !is_presented(source) {
            *token = 0;
            return true;
        }
        let text = CStr::from_ptr(token);
        // ALTER ROLE … SET only tests the value.
        let is_tried = source == pg_sys::GucSource::PGC_S_TEST;
        let progress = match Progress::from_byte(JUDGED.load(Relaxed)) {
            Some(judged) => judged,
            None => Progress {
                counted: !is_tried && jwk_came_with_connection() && {
                    memory::ask_for(memory::ROOM);
                    guarded(|| {
                        JUDGE
                            .get()
                            .map_or(Ok(false), |judge| judge(text.to_bytes()))
                    })
                },
                used: false,
            },
        };
        let bytes = text.to_bytes_with_nul();
        let envelope = memory::of_gucs::allocate(1 + bytes.len()).cast::<u8>();
        if envelope.is_null() {
            // Not `false`: while the library is being loaded, that would lose the token with only a
            // WARNING.
            error::out_of_memory();
        }
        *envelope = progress.byte();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), envelope.add(1), bytes.len());
        memory::of_gucs::free(token.cast());
        *newval = envelope.cast();
        true
    }
}

unsafe extern "C-unwind" fn show_jwt() -> *const c_char {
    // SAFETY: null or a C string.
    let empty = unsafe { (*JWT.as_ptr()).is_null() || **JWT.as_ptr() == 0 };
    if empty {
        c"".as_ptr()
    } else {
        c"(hidden)".as_ptr()
    }
}
