//! The parameters (`pg_session_jwt.*`) and their hooks.
//!
//! All that decides who somebody is lives in parameters, because Postgres already does the hard part
//! for them: SET LOCAL ends, ROLLBACK restores, parallel workers receive them, DISCARD ALL forgets.
//! What is derived from them elsewhere is a cache, and [`epoch`] says when it is stale.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, Ordering::Relaxed};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_guard, pg_sys};

use pg_session_jwt_jose::KeySet;

type Text = GucSetting<Option<CString>>;

static JWK: Text = Text::new(None);
static JWT: Text = Text::new(None);
static CLAIMS: Text = Text::new(None);
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
static REFUSED: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

/// A number that is another one after any parameter was assigned. Never 0.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// The same for `pg_session_jwt.jwk` alone.
pub(crate) fn jwk_epoch() -> u64 {
    JWK_EPOCH.load(Relaxed)
}

/// The name of a superuser's parameter that somebody else tried to set before this library was
/// loaded, if there is one.
///
/// Until a library is loaded its parameters are placeholders that anyone may set, in the startup
/// packet too; the attempt takes the place of the administrator's value from postgresql.conf or
/// ALTER DATABASE, is refused when the library is loaded, and what remains is the built-in default.
/// `request_claims = never` would be undone that way, so such a session gets no identity at all.
/// (With shared_preload_libraries, Postgres refuses the connection or the SET itself.)
pub(crate) fn refused_parameter() -> Option<&'static str> {
    let name = REFUSED.load(Relaxed);
    // SAFETY: only ever set to the names in `define`, which are 'static.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default())
}

/// `pg_session_jwt.jwk`: the session's keys as they were given.
pub(crate) fn jwk() -> Option<Vec<u8>> {
    text(&JWK)
}

/// Whether the keys came in the startup packet: then they are a proxy's, made for this connection,
/// and token ids must increase.
pub(crate) fn jwk_came_with_connection() -> bool {
    JWK_CAME_WITH_CONNECTION.load(Relaxed)
}

/// `pg_session_jwt.claims`.
pub(crate) fn claims() -> Option<Vec<u8>> {
    text(&CLAIMS)
}

/// `request.jwt.claims`, where `pg_session_jwt.request_claims` lets it count.
///
/// It is PostgREST's parameter, so it stays a placeholder without hooks: ask each time.
pub(crate) fn request_claims() -> Option<Vec<u8>> {
    if REQUEST_CLAIMS.get() == RequestClaims::Never {
        return None;
    }
    // SAFETY: the string belongs to the GUC machinery and is copied before anything can change it.
    unsafe {
        copied(pg_sys::GetConfigOption(
            c"request.jwt.claims".as_ptr(),
            true,
            false,
        ))
    }
}

/// `pg_session_jwt.clock_skew` in seconds.
pub(crate) fn clock_skew() -> f64 {
    CLOCK_SKEW.get().into()
}

/// `pg_session_jwt.audit_log`.
pub(crate) fn audit_log() -> bool {
    AUDIT_LOG.get()
}

fn text(setting: &Text) -> Option<Vec<u8>> {
    // SAFETY: Postgres keeps a valid C string, or null, in the variable; it is copied at once.
    unsafe { copied(*setting.as_ptr()) }
}

/// # Safety
/// Null, or a C string that stays as it is during the call.
unsafe fn copied(value: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise.
    (!value.is_null())
        .then(|| unsafe { CStr::from_ptr(value) }.to_bytes().to_vec())
        .filter(|v| !v.is_empty())
}

/// Pins `jwks` as the session's keys. Outlives RESET ALL and DISCARD ALL; a rollback undoes it.
pub(crate) fn pin_jwk(jwks: &CStr) {
    // SAFETY: both are C strings; an ERROR unwinds through pgrx's guard.
    unsafe {
        pg_sys::SetConfigOption(
            c"pg_session_jwt.jwk".as_ptr(),
            jwks.as_ptr(),
            pg_sys::GucContext::PGC_BACKEND,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// What SET pg_session_jwt.jwt (SET LOCAL with `is_local`) would do. An empty token is none.
pub(crate) fn set_jwt(token: &CStr, is_local: bool) {
    let action = if is_local {
        pg_sys::GucAction::GUC_ACTION_LOCAL
    } else {
        pg_sys::GucAction::GUC_ACTION_SET
    };
    // SAFETY: both are C strings; an ERROR unwinds through pgrx's guard.
    unsafe {
        pg_sys::set_config_option(
            c"pg_session_jwt.jwt".as_ptr(),
            token.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// A token as it stands in `pg_session_jwt.jwt`.
///
/// Inside, the parameter's value is an envelope: one byte, `P` for presented or `A` for accepted, 16
/// hexadecimal digits for the highest token id accepted when it was presented, and the token. Being
/// part of the value, both travel with it: a ROLLBACK that gives back an accepted token gives back
/// that it was accepted, so it is not taken for a replay, and a parallel worker judges as its leader
/// would. SQL never sees the envelope (the show hook) and cannot make one (the check hook).
pub(crate) struct Presentation {
    pub token: Vec<u8>,
    pub accepted: bool,
    /// The highest token id accepted before this token was presented; `i64::MIN` for none.
    pub last_id: i64,
}

const ENVELOPE_BYTES: usize = 17;
const PRESENTED: u8 = b'P';
const ACCEPTED: u8 = b'A';

impl Presentation {
    /// The token in force, if there is one.
    pub fn current() -> Option<Self> {
        let value = text(&JWT)?;
        let (head, token) = value.split_at_checked(ENVELOPE_BYTES)?;
        let digits = std::str::from_utf8(&head[1..]).ok()?;
        let last_id = u64::from_str_radix(digits, 16).ok()?.cast_signed();
        Some(Self {
            token: token.to_vec(),
            accepted: head[0] == ACCEPTED,
            last_id,
        })
    }

    /// Notes that the token in force has been accepted under `id`, if it has one that counts.
    pub fn accept_current(id: Option<i64>) {
        // SAFETY: a non-null value is an envelope, which has a first byte; it lives in memory that
        // check_jwt allocated, and a backend has one thread.
        unsafe {
            let value = *JWT.as_ptr();
            if !value.is_null() && *value.cast::<u8>() == PRESENTED {
                *value.cast::<u8>() = ACCEPTED;
            }
        }
        if let Some(id) = id {
            LAST_ID.fetch_max(id, Relaxed);
        }
    }
}

/// The highest token id that this connection has accepted; `i64::MIN` for none.
pub(crate) fn last_id() -> i64 {
    // SAFETY: plain reads of globals.
    if unsafe { pg_sys::ParallelWorkerNumber } >= 0 {
        // A worker has only what its leader sent; a token that is new there (a SET clause of a
        // function) cannot be told from a replay.
        return i64::MAX;
    }
    LAST_ID.load(Relaxed)
}

/// Defines the parameters and reserves their prefix.
pub(crate) fn define() {
    let hidden = GucFlags::NO_SHOW_ALL;
    // pg_settings.reset_val bypasses show hooks: NO_SHOW_ALL keeps the two secrets out of that view.
    // SAFETY (all three): the hooks cannot panic, or are guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_session_jwt.jwk",
            c"Keys that this connection trusts: a JSON Web Key or a JSON Web Key Set.",
            c"Set at connection start, or once by auth.init(jwks). Shown are kty, kid and alg.",
            &JWK,
            GucContext::Backend,
            hidden | GucFlags::NO_RESET_ALL,
            Some(check_jwk),
            Some(assign_jwk),
            Some(show_jwk),
        );
        GucRegistry::define_string_guc_with_hooks(
            c"pg_session_jwt.jwt",
            c"The JSON Web Token of the user.",
            c"Verified at its first use. Never shown.",
            &JWT,
            GucContext::Userset,
            hidden,
            Some(check_jwt),
            Some(assign_text),
            Some(show_jwt),
        );
    }
    define_superusers(c"pg_session_jwt.claims", |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"Claims that count without a token: a JSON object.",
            c"For testing policies, and for middleware that verifies tokens itself. Wins over a token.",
            &CLAIMS,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(assign_text),
            None,
        );
    });
    define_superusers(c"pg_session_jwt.request_claims", |name| unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            name,
            c"Whether request.jwt.claims counts when no key is configured.",
            c"Anybody can set request.jwt.claims: \"never\" unless PostgREST alone can connect.",
            &REQUEST_CLAIMS,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(assign_number),
            None,
        );
    });
    define_superusers(c"pg_session_jwt.clock_skew", |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"Tolerance for the clocks of issuers, applied to exp, nbf and iat.",
            c"",
            &CLOCK_SKEW,
            0,
            86_400,
            GucContext::Suset,
            GucFlags::UNIT_S,
            None,
            Some(assign_number),
            None,
        );
    });
    define_superusers(c"pg_session_jwt.audit_log", |name| unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            c"Logs each token that is accepted or rejected.",
            c"One line each in the server log: subject, audience, issuer and key id, or the reason.",
            &AUDIT_LOG,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(assign_flag),
            None,
        );
    });
    // SAFETY: a C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_session_jwt".as_ptr()) };
}

/// Defines a parameter of the superuser and notices when a placeholder's value was refused: defining
/// assigns the default, and then each value that was accepted.
fn define_superusers(name: &'static CStr, define: impl FnOnce(&'static CStr)) {
    // SAFETY: a C string; nothing is kept of the result but whether there is one.
    let placeholder = unsafe { !pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() };
    let before = epoch();
    define(name);
    if placeholder && epoch() == before + 1 {
        REFUSED.store(name.as_ptr().cast_mut(), Relaxed);
    }
}

unsafe extern "C-unwind" fn assign_text(_: *const c_char, _: *mut c_void) {
    EPOCH.fetch_add(1, Relaxed);
}

unsafe extern "C-unwind" fn assign_number(_: i32, _: *mut c_void) {
    EPOCH.fetch_add(1, Relaxed);
}

unsafe extern "C-unwind" fn assign_flag(_: bool, _: *mut c_void) {
    EPOCH.fetch_add(1, Relaxed);
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
            *extra = memory::allocate(1);
            return !(*extra).is_null();
        }
    }
    true
}

unsafe extern "C-unwind" fn assign_jwk(_: *const c_char, extra: *mut c_void) {
    JWK_CAME_WITH_CONNECTION.store(!extra.is_null(), Relaxed);
    JWK_EPOCH.fetch_add(1, Relaxed);
    EPOCH.fetch_add(1, Relaxed);
}

#[pg_guard]
unsafe extern "C-unwind" fn show_jwk() -> *const c_char {
    let shown = match jwk().map(|jwk| KeySet::parse(&jwk)) {
        None => String::new(),
        Some(Ok(keys)) => keys.public_members(),
        Some(Err(_)) => "(invalid)".into(),
    };
    let shown = CString::new(shown).unwrap_or_default();
    // SAFETY: copied into the current memory context; callers of a show hook copy at once.
    unsafe { pg_sys::pstrdup(shown.as_ptr()) }
}

/// Puts the token into its envelope ([`Presentation`]).
unsafe extern "C-unwind" fn check_jwt(
    newval: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: `*newval` is null or a C string of GUC's allocator, which a check hook may replace by
    // another such (src/backend/utils/misc/README, "GUC Check Hooks"). A worker that starts gets the
    // leader's envelope as it is.
    unsafe {
        let token = *newval;
        if token.is_null() || *token == 0 || pg_sys::InitializingParallelWorker {
            return true;
        }
        let bytes = CStr::from_ptr(token).to_bytes_with_nul();
        let envelope = memory::allocate(ENVELOPE_BYTES + bytes.len()).cast::<u8>();
        if envelope.is_null() {
            return false;
        }
        let mut last_id = last_id().cast_unsigned();
        *envelope = PRESENTED;
        for place in (1..ENVELOPE_BYTES).rev() {
            *envelope.add(place) = b"0123456789abcdef"[(last_id & 15) as usize];
            last_id >>= 4;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), envelope.add(ENVELOPE_BYTES), bytes.len());
        memory::free(token.cast());
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

/// The allocator of GUC values: malloc up to Postgres 15, a memory context since.
mod memory {
    use std::ffi::c_void;

    #[cfg(feature = "pg15")]
    pub unsafe fn allocate(bytes: usize) -> *mut c_void {
        unsafe extern "C" {
            fn malloc(bytes: usize) -> *mut c_void;
        }
        // SAFETY: any size will do.
        unsafe { malloc(bytes) }
    }

    #[cfg(feature = "pg15")]
    pub unsafe fn free(memory: *mut c_void) {
        unsafe extern "C" {
            fn free(memory: *mut c_void);
        }
        // SAFETY: the caller gives what malloc gave.
        unsafe { free(memory) }
    }

    #[cfg(not(feature = "pg15"))]
    pub unsafe fn allocate(bytes: usize) -> *mut c_void {
        // SAFETY: below ERROR it returns null when there is no memory.
        unsafe { pgrx::pg_sys::guc_malloc(pgrx::pg_sys::LOG as i32, bytes) }
    }

    #[cfg(not(feature = "pg15"))]
    pub unsafe fn free(memory: *mut c_void) {
        // SAFETY: the caller gives what guc_malloc gave.
        unsafe { pgrx::pg_sys::guc_free(memory) }
    }
}
