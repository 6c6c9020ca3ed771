//! `pg_session_jwt.jwk`: the keys that a connection brings.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};

use pg_session_jwt_jose::{KeySet, MAX_KEY_SET_BYTES};
use pgrx::{GucContext, GucFlags, GucRegistry, pg_sys};

use super::value::{Text, changed, copied};
use super::{loading, names};
use crate::error::{self, guarded};
use crate::memory;

static JWK: Text = Text::new(None);
/// Kept, since it is looked at in each row where nothing is trusted but `request.jwt.claims`.
static RECORD: AtomicPtr<pg_sys::config_generic> = AtomicPtr::new(std::ptr::null_mut());
static EPOCH: AtomicU64 = AtomicU64::new(1);
static CAME_WITH_CONNECTION: AtomicBool = AtomicBool::new(false);

/// A number that is another one after the keys were assigned. Never 0.
pub(crate) fn jwk_epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// `pg_session_jwt.jwk`: the session's keys as they were given.
///
/// An empty text is keys too, that nobody can use: were it none, a client could put it in the place of
/// the keys in postgresql.conf, and be believed on `request.jwt.claims`.
pub(crate) fn jwk() -> Option<Vec<u8>> {
    // SAFETY: Postgres keeps a valid C string, or null, in the variable; it is copied at once.
    unsafe { copied(*JWK.as_ptr(), MAX_KEY_SET_BYTES) }
}

/// Whether there are any such keys.
pub(crate) fn has_jwk() -> bool {
    // SAFETY: a plain read of the variable.
    !unsafe { *JWK.as_ptr() }.is_null()
}

/// Whether postgresql.conf has keys, as this process has read it last. A connection that began before them has
/// none of them: then it must not fall to a source that is trusted less.
pub(crate) fn jwk_is_in_file() -> bool {
    // SAFETY: null, or what `define` has put there.
    unsafe { loading::is_in_file(RECORD.load(Relaxed)) }
}

/// Whether the keys came in the startup packet: then they are a proxy's, made for this connection,
/// and token ids must increase.
pub(crate) fn jwk_came_with_connection() -> bool {
    CAME_WITH_CONNECTION.load(Relaxed)
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
            names::REQUEST_CLAIMS.as_ptr(),
            c"never".as_ptr(),
            Context::PGC_SUSET,
            Source::PGC_S_OVERRIDE,
        );
        pg_sys::SetConfigOption(
            names::JWK.as_ptr(),
            jwks.as_ptr(),
            Context::PGC_BACKEND,
            Source::PGC_S_SESSION,
        );
    }
}

/// Defines the parameter.
pub(super) fn define(flags: GucFlags) {
    // SAFETY: the hooks raise an ERROR from frames without destructors alone.
    loading::define_guarded(names::JWK, |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"Keys that this connection trusts: a JSON Web Key or a JSON Web Key Set.",
            c"Set at connection start, or once by auth.init(jwks). Only kty, kid and alg are shown.",
            &JWK,
            GucContext::Backend,
            flags | GucFlags::NO_RESET_ALL,
            Some(check_jwk),
            Some(assign_jwk),
            Some(show_jwk),
        );
    });
    if let Some(record) = loading::option(names::JWK) {
        RECORD.store(record, Relaxed);
    }
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
    CAME_WITH_CONNECTION.store(!extra.is_null(), Relaxed);
    EPOCH.fetch_add(1, Relaxed);
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
