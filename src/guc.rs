//! The parameters (`pg_session_jwt.*`) and their hooks.
//!
//! All that decides who somebody is lives in parameters, because Postgres already does the hard part
//! for them: SET LOCAL ends, ROLLBACK restores, parallel workers receive them, DISCARD ALL forgets.
//! What is derived from them elsewhere is a cache, and [`epoch`] says when it is stale.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_sys};

use pg_session_jwt_jose::{KeySet, MAX_KEY_SET_BYTES, MAX_TOKEN_BYTES};

use crate::error::{self, Error, guarded};
use crate::memory::{self, MAX_CLAIMS_BYTES};

mod loading;

use loading::define_guarded;
pub(crate) use loading::{SetBy, completely, refused_parameter};

type Text = GucSetting<Option<CString>>;

static JWK: Text = Text::new(None);
static JWT: Text = Text::new(None);
static CLAIMS: Text = Text::new(None);
/// See [`refused_parameter`]. A parameter itself, for parallel workers to receive it.
static REFUSED: Text = Text::new(None);
static REQUEST_CLAIMS: GucSetting<RequestClaims> =
    GucSetting::<RequestClaims>::new(RequestClaims::Fallback);
static CLOCK_SKEW: GucSetting<i32> = GucSetting::<i32>::new(60);
static AUDIT_LOG: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Values of `pg_session_jwt.request_claims`.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
enum RequestClaims {
    #[name = c"fallback"]
    Fallback,
    #[name = c"never"]
    Never,
}

// A backend has one thread; the atomics are there to need no `static mut`, and relaxed loads cost
// what plain ones do.
static EPOCH: AtomicU64 = AtomicU64::new(1);
static JWK_EPOCH: AtomicU64 = AtomicU64::new(1);
static JWK_CAME_WITH_CONNECTION: AtomicBool = AtomicBool::new(false);
static LAST_ID: AtomicI64 = AtomicI64::new(i64::MIN);
static HAS_LAST_ID: AtomicBool = AtomicBool::new(false);
/// How far the token that is being set has come, as a byte; 0 when that is to be found out.
static JUDGED: AtomicU8 = AtomicU8::new(0);
/// Whether the id of a token counts; an error where that cannot be found out.
type Judge = fn(&[u8]) -> Result<bool, Error>;
/// Given by `session`, which lies above this module; see `check_jwt`.
static JUDGE: OnceLock<Judge> = OnceLock::new();

/// A number that is another one after any parameter was assigned, or a provider changed. Never 0.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// The same as [`epoch`], for `pg_session_jwt.jwk` alone.
pub(crate) fn jwk_epoch() -> u64 {
    JWK_EPOCH.load(Relaxed)
}

/// All names, the hidden one included.
const NAMES: [&CStr; 7] = [
    c"pg_session_jwt.refused_parameter",
    c"pg_session_jwt.jwk",
    c"pg_session_jwt.jwt",
    c"pg_session_jwt.claims",
    c"pg_session_jwt.request_claims",
    c"pg_session_jwt.clock_skew",
    c"pg_session_jwt.audit_log",
];

/// Says that something which [`epoch`] stands for has changed.
pub(crate) fn changed() {
    EPOCH.fetch_add(1, Relaxed);
}

/// `pg_session_jwt.jwk`: the session's keys as they were given.
///
/// An empty text is keys too, that nobody can use: were it none, a client could put it in the place of
/// the keys in postgresql.conf, and be believed on `request.jwt.claims`.
pub(crate) fn jwk() -> Option<Vec<u8>> {
    // SAFETY: as in `text`.
    unsafe { copied(*JWK.as_ptr(), MAX_KEY_SET_BYTES) }
}

/// Whether there are any such keys.
pub(crate) fn has_jwk() -> bool {
    // SAFETY: a plain read of the variable.
    !unsafe { *JWK.as_ptr() }.is_null()
}

/// Whether the keys came in the startup packet: then they are a proxy's, made for this connection,
/// and token ids must increase.
pub(crate) fn jwk_came_with_connection() -> bool {
    JWK_CAME_WITH_CONNECTION.load(Relaxed)
}

/// `pg_session_jwt.claims`.
pub(crate) fn claims() -> Option<Vec<u8>> {
    text(&CLAIMS, MAX_CLAIMS_BYTES)
}

/// `request.jwt.claims`, where `pg_session_jwt.request_claims` lets it count.
///
/// It is PostgREST's parameter, so it stays a placeholder without hooks: ask each time.
pub(crate) fn request_claims() -> Option<Vec<u8>> {
    if REQUEST_CLAIMS.get() == RequestClaims::Never {
        return None;
    }
    foreign(c"request.jwt.claims")
}

/// `request.headers`: PostgREST's, a placeholder too.
pub(crate) fn request_headers() -> Option<Vec<u8>> {
    foreign(c"request.headers")
}

/// The value of a parameter that is not ours; `None` when it is empty or unknown.
fn foreign(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: the string belongs to the GUC machinery and is copied before anything can change it.
    let value = unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        copied(value, MAX_CLAIMS_BYTES)
    };
    value.filter(|value| !value.is_empty())
}

/// `pg_session_jwt.clock_skew` in seconds.
pub(crate) fn clock_skew() -> f64 {
    CLOCK_SKEW.get().into()
}

/// `pg_session_jwt.audit_log`.
pub(crate) fn audit_log() -> bool {
    AUDIT_LOG.get()
}

fn text(setting: &Text, most: usize) -> Option<Vec<u8>> {
    // SAFETY: Postgres keeps a valid C string, or null, in the variable; it is copied at once.
    unsafe { copied(*setting.as_ptr(), most) }.filter(|value| !value.is_empty())
}

/// At most one byte more than `most`: a value has up to a gigabyte, and who reads it refuses it by its
/// length.
///
/// # Safety
/// Null, or a C string that stays as it is during the call.
unsafe fn copied(value: *const c_char, most: usize) -> Option<Vec<u8>> {
    if value.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    Some(value[..value.len().min(most + 1)].to_vec())
}

/// Pins `jwks` as the session's keys. Outlives RESET ALL and DISCARD ALL; a ROLLBACK undoes it.
///
/// What no ROLLBACK undoes is that `request.jwt.claims` counts no more in this connection: a client that
/// can provoke one would be believed on claims that it sets itself.
pub(crate) fn pin_jwk(jwks: &CStr) {
    use pg_sys::{GucContext as Context, GucSource as Source};
    // SAFETY: C strings; an ERROR unwinds through pgrx's guard. A value with PGC_S_OVERRIDE becomes the
    // one to RESET to, beyond transactions (guc.c, set_config_option: makeDefault).
    unsafe {
        pg_sys::SetConfigOption(
            c"pg_session_jwt.request_claims".as_ptr(),
            c"never".as_ptr(),
            Context::PGC_SUSET,
            Source::PGC_S_OVERRIDE,
        );
        pg_sys::SetConfigOption(
            c"pg_session_jwt.jwk".as_ptr(),
            jwks.as_ptr(),
            Context::PGC_BACKEND,
            Source::PGC_S_SESSION,
        );
    }
}

/// What SET pg_session_jwt.jwt (SET LOCAL with `is_local`) would do, for a token that has been accepted.
pub(crate) fn set_jwt(token: &CStr, is_local: bool, progress: Progress) {
    /// Taken back also when an ERROR unwinds.
    struct Judged;
    impl Drop for Judged {
        fn drop(&mut self) {
            JUDGED.store(0, Relaxed);
        }
    }
    let _judged = Judged;
    JUDGED.store(progress.byte(), Relaxed);
    set(c"pg_session_jwt.jwt", token.as_ptr(), is_local);
}

/// Forgets the token, for the session or (`is_local`) the transaction.
pub(crate) fn clear_jwt(is_local: bool) {
    set(c"pg_session_jwt.jwt", c"".as_ptr(), is_local);
}

/// SET by an ordinary user; RESET where the value is null.
fn set(name: &CStr, value: *const c_char, is_local: bool) {
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

/// SET ROLE (SET LOCAL ROLE with `is_local`), with Postgres's own rules: the session user must be a
/// member, and not within a SECURITY DEFINER function.
pub(crate) fn set_role(name: &CStr, is_local: bool) {
    set(c"role", name.as_ptr(), is_local);
}

/// RESET ROLE.
pub(crate) fn reset_role() {
    set(c"role", std::ptr::null(), false);
}

/// Whether a role of this name exists and is a superuser.
pub(crate) fn is_superuser(name: &CStr) -> bool {
    // SAFETY: catalog look-ups; an invalid Oid is no superuser.
    unsafe { pg_sys::superuser_arg(pg_sys::get_role_oid(name.as_ptr(), true)) }
}

/// A token as it stands in `pg_session_jwt.jwt`.
///
/// Inside, the parameter's value is an envelope: one byte that says how far the token has come, and the
/// token. Being part of the value, the byte travels with it: a ROLLBACK that gives back an accepted
/// token gives back that it was accepted, so it is not taken for a replay, and a parallel worker knows
/// what its leader knows. SQL never sees the envelope (the show hook) and cannot make one (the check
/// hook).
pub(crate) struct Presentation {
    pub token: Vec<u8>,
    pub progress: Progress,
}

/// How far a token has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its id has been counted: it is no replay. One accepted where ids do not count may have to be yet.
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

    /// Notes how far the token in force has come.
    pub fn note(progress: Progress) {
        // SAFETY: a value that is not empty is an envelope, in memory that check_jwt allocated; a
        // backend has one thread.
        unsafe {
            let value = (*JWT.as_ptr()).cast::<u8>();
            if !value.is_null() && *value != 0 {
                *value = progress.byte();
            }
        }
    }
}

/// Whether this process knows which token ids the connection has accepted. A parallel worker does not: it
/// has only what its leader sent it.
pub(crate) fn knows_ids() -> bool {
    // SAFETY: a plain read of a global.
    unsafe { pg_sys::ParallelWorkerNumber < 0 }
}

/// The highest token id that this connection has accepted, if it has accepted one.
pub(crate) fn last_id() -> Option<i64> {
    HAS_LAST_ID.load(Relaxed).then(|| LAST_ID.load(Relaxed))
}

/// Notes a token id that has been accepted.
pub(crate) fn accept_id(id: i64) {
    LAST_ID.fetch_max(id, Relaxed);
    HAS_LAST_ID.store(true, Relaxed);
}

/// Defines the parameters and reserves their prefix. `judge` says whether the id of a token that is
/// being presented counts; it is called wherever a parameter can be set, so also outside transactions.
pub(crate) fn define(judge: Judge) {
    let _ = JUDGE.set(judge);
    // pg_settings.reset_val bypasses show hooks: NO_SHOW_ALL keeps the two secrets out of that view.
    let loading = loading::flags();
    let hidden = GucFlags::NO_SHOW_ALL | loading;
    GucRegistry::define_string_guc(
        c"pg_session_jwt.refused_parameter",
        c"A parameter that was set in vain before the library was loaded: no identity is given.",
        c"Set by the library alone.",
        &REFUSED,
        GucContext::Backend,
        hidden | GucFlags::NO_RESET_ALL | GucFlags::DISALLOW_IN_FILE,
    );
    // SAFETY (of all that follow): the hooks raise an ERROR from frames without destructors alone.
    define_guarded(c"pg_session_jwt.jwk", |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"Keys that this connection trusts: a JSON Web Key or a JSON Web Key Set.",
            c"Set at connection start, or once by auth.init(jwks). Shown are kty, kid and alg.",
            &JWK,
            GucContext::Backend,
            hidden | GucFlags::NO_RESET_ALL,
            Some(check_jwk),
            Some(assign_jwk),
            Some(show_jwk),
        );
    });
    loading::define_presented(c"pg_session_jwt.jwt", is_presented, 1, |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"The JSON Web Token of the user.",
            c"Verified at its first use. Never shown.",
            &JWT,
            GucContext::Userset,
            hidden,
            Some(check_jwt),
            Some(assign_text),
            Some(show_jwt),
        );
    });
    define_guarded(c"pg_session_jwt.claims", |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"Claims that count without a token: a JSON object.",
            c"For testing policies, and for middleware that verifies tokens itself. Wins over a token.",
            &CLAIMS,
            GucContext::Suset,
            loading,
            None,
            Some(assign_text),
            None,
        );
    });
    define_guarded(c"pg_session_jwt.request_claims", |name| unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            name,
            c"Whether request.jwt.claims counts when no key is configured.",
            c"Anybody can set request.jwt.claims: \"never\" unless PostgREST alone can connect.",
            &REQUEST_CLAIMS,
            GucContext::Suset,
            loading,
            None,
            Some(assign_number),
            None,
        );
    });
    define_guarded(c"pg_session_jwt.clock_skew", |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"Tolerance for the clocks of issuers, applied to exp, nbf and iat.",
            c"",
            &CLOCK_SKEW,
            0,
            86_400,
            GucContext::Suset,
            GucFlags::UNIT_S | loading,
            None,
            Some(assign_number),
            None,
        );
    });
    define_guarded(c"pg_session_jwt.audit_log", |name| unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            c"Logs each token that is accepted or rejected.",
            c"One line each in the server log: subject, audience, issuer and key id, or the reason.",
            &AUDIT_LOG,
            GucContext::Suset,
            loading,
            None,
            Some(assign_flag),
            None,
        );
    });
    loading::close_to_parallel_mode();
    // SAFETY: a C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_session_jwt".as_ptr()) };
}

unsafe extern "C-unwind" fn assign_text(_: *const c_char, _: *mut c_void) {
    changed();
}

unsafe extern "C-unwind" fn assign_number(_: i32, _: *mut c_void) {
    changed();
}

unsafe extern "C-unwind" fn assign_flag(_: bool, _: *mut c_void) {
    changed();
}

/// Never refuses: a key that is dropped with a warning would leave the connection to a source that
/// is trusted less. A malformed one is an error wherever it would be used. Passes on, as `extra`,
/// whether the key came in the startup packet.
unsafe extern "C-unwind" fn check_jwk(
    _: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    if source == pg_sys::GucSource::PGC_S_CLIENT {
        // SAFETY: GUC frees `extra` as it frees values: memory of its own allocator.
        unsafe {
            *extra = memory::of_gucs::allocate(1);
            if (*extra).is_null() {
                // Not `false`: while the library is loaded that would lose the keys with a mere WARNING.
                error::out_of_memory();
            }
        }
    }
    true
}

unsafe extern "C-unwind" fn assign_jwk(_: *const c_char, extra: *mut c_void) {
    JWK_CAME_WITH_CONNECTION.store(!extra.is_null(), Relaxed);
    JWK_EPOCH.fetch_add(1, Relaxed);
    changed();
}

unsafe extern "C-unwind" fn show_jwk() -> *const c_char {
    // SAFETY: called by Postgres, with no frame of ours above.
    unsafe {
        memory::ask_for(memory::ROOM);
        guarded(|| {
            let shown = match jwk() {
                None => String::new(),
                Some(jwk) => {
                    memory::room_to_read(jwk.len())?;
                    KeySet::parse(&jwk).map_or("(invalid)".into(), |keys| keys.public_members())
                }
            };
            let shown = CString::new(shown).unwrap_or_default();
            // Copied into the current memory context; callers of a show hook copy at once.
            Ok(pg_sys::pstrdup(shown.as_ptr()))
        })
    }
}

/// Whether a token from this source counts: not one that ALTER ROLE … SET has stored, which a role may do to
/// itself, for whoever shares the role would be that user whenever a token is forgotten.
fn is_presented(source: pg_sys::GucSource::Type) -> bool {
    let stored = pg_sys::GucSource::PGC_S_GLOBAL..=pg_sys::GucSource::PGC_S_DATABASE_USER;
    !stored.contains(&source)
}

/// Puts the token into its envelope ([`Presentation`]).
///
/// Under a startup key the token's id is counted here, at once, and not at its first use, which may be
/// in a parallel worker only: the worker could not tell the leader which id it has accepted.
unsafe extern "C-unwind" fn check_jwt(
    newval: *mut *mut c_char,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: `*newval` is null or a C string of GUC's allocator, which a check hook may replace by
    // another such (src/backend/utils/misc/README, "GUC Check Hooks"). A worker that starts gets the
    // leader's envelope as it is.
    unsafe {
        let token = *newval;
        if token.is_null() || *token == 0 || pg_sys::InitializingParallelWorker {
            return true;
        }
        if !is_presented(source) {
            *token = 0;
            return true;
        }
        let bytes = CStr::from_ptr(token).to_bytes_with_nul();
        // ALTER ROLE … SET only tries the value.
        let is_tried = source == pg_sys::GucSource::PGC_S_TEST;
        let progress = match Progress::from_byte(JUDGED.load(Relaxed)) {
            Some(judged) => judged,
            None => Progress {
                counted: !is_tried && jwk_came_with_connection() && {
                    memory::ask_for(memory::ROOM);
                    guarded(|| {
                        JUDGE
                            .get()
                            .map_or(Ok(false), |judge| judge(&bytes[..bytes.len() - 1]))
                    })
                },
                used: false,
            },
        };
        let envelope = memory::of_gucs::allocate(1 + bytes.len()).cast::<u8>();
        if envelope.is_null() {
            // Not `false`: while the library is loaded that would lose the token with a mere WARNING.
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
