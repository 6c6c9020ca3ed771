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
/// Cached, since each row reads it where only `request.jwt.claims` is trusted.
static RECORD: AtomicPtr<pg_sys::config_generic> = AtomicPtr::new(std::ptr::null_mut());
static EPOCH: AtomicU64 = AtomicU64::new(1);
static CAME_WITH_CONNECTION: AtomicBool = AtomicBool::new(false);

/// A number that changes whenever the keys are assigned. Never 0.
pub(crate) fn jwk_epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// `pg_session_jwt.jwk`: the session's keys as given.
///
/// An empty text counts as keys that verify nothing: otherwise a client could replace the keys in
/// postgresql.conf with it and be trusted on `request.jwt.claims`.
pub(crate) fn jwk() -> Option<Vec<u8>> {
    // SAFETY: Postgres keeps a valid C string, or null, in the variable; it is copied at once.
    unsafe { copied(*JWK.as_ptr(), MAX_KEY_SET_BYTES) }
}

/// Whether there are any, an empty text included.
pub(crate) fn has_jwk() -> bool {
    // SAFETY: a plain read of the variable.
    !unsafe { *JWK.as_ptr() }.is_null()
}

/// Whether postgresql.conf had keys when this process last read it. A connection that began before does
/// not have them, and must not fall back to a less trusted source.
pub(crate) fn jwk_is_in_file() -> bool {
    // SAFETY: null, or the record that `define` stored.
    unsafe { loading::is_in_file(RECORD.load(Relaxed)) }
}

/// Whether the keys came in the startup packet: then a proxy made them for this connection, and token
/// ids must increase.
pub(crate) fn jwk_came_with_connection() -> bool {
    CAME_WITH_CONNECTION.load(Relaxed)
}

/// Pins `jwks` as the session's keys. Outlives RESET ALL and DISCARD ALL; a ROLLBACK undoes it.
///
/// No ROLLBACK makes this connection trust `request.jwt.claims` again: a client that can provoke one
/// would be trusted on claims that it sets itself.
pub(crate) fn pin_jwk(jwks: &CStr) {
    use pg_sys::{GucContext as Context, GucSource as Source};
    // SAFETY: C strings; an ERROR unwinds through pgrx's guard. A value with PGC_S_OVERRIDE becomes the
    // RESET value, outside transactions (guc.c, set_config_option: makeDefault).
    unsafe {
        pg_sys::SetConfigOption(
            names::REQUEST_CLAIMS.as_ptr(),
            super::without_fallback().as_ptr(),
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
    // SAFETY: the hooks raise an ERROR only from frames without destructors.
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

/// Never refuses: dropping a key with a warning would leave the connection to a less trusted source. A
/// malformed key is an error wherever it is used. `extra` is set where the key came in the startup
/// packet.
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
                // Not `false`: while the library is being loaded, that would lose the keys with only a
                // WARNING.
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
    // SAFETY: called by Postgres, with no Rust frame above.
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
