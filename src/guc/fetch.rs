//! `pg_session_jwt.fetch_*`: how keys follow their issuer.

use std::ffi::{CString, c_char, c_int, c_void};
use std::time::Duration;

use pg_session_jwt_fetch::Hosts;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

use super::loading::define_guarded;
use super::value::{Text, assign_text, text};
use super::{assign_number, names};

static WAIT: GucSetting<i32> = GucSetting::<i32>::new(1000);
static INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(600);
static STALE: GucSetting<i32> = GucSetting::<i32>::new(86_400);
static CA_FILE: Text = Text::new(None);
static HOSTS: Text = Text::new(None);

/// The limit for a text here, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// `pg_session_jwt.fetch_wait`
pub(crate) fn fetch_wait() -> Duration {
    Duration::from_millis(WAIT.get().unsigned_abs().into())
}

/// `pg_session_jwt.fetch_interval`
pub(crate) fn fetch_interval() -> Duration {
    Duration::from_secs(INTERVAL.get().unsigned_abs().into())
}

/// `pg_session_jwt.fetch_stale`, in seconds.
pub(crate) fn fetch_stale() -> f64 {
    STALE.get().into()
}

/// `pg_session_jwt.fetch_ca_file`
pub(crate) fn fetch_ca_file() -> Option<String> {
    read(&CA_FILE)
}

/// `pg_session_jwt.fetch_hosts`
pub(crate) fn fetch_hosts() -> String {
    read(&HOSTS).unwrap_or_default()
}

fn read(setting: &Text) -> Option<String> {
    String::from_utf8(text(setting, MAX_BYTES)?).ok()
}

/// Defines the parameters.
pub(super) fn define(flags: GucFlags) {
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::FETCH_WAIT, |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"How long a statement waits for the keys that its token needs.",
            c"",
            &WAIT,
            0,
            60_000,
            GucContext::Suset,
            GucFlags::UNIT_MS | flags,
            None,
            Some(assign_number),
            None,
        );
    });
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::FETCH_INTERVAL, |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"How old fetched keys get before they are fetched again.",
            c"An issuer's max-age takes its place, between 5 minutes and 1 hour.",
            &INTERVAL,
            30,
            86_400,
            GucContext::Suset,
            GucFlags::UNIT_S | flags,
            None,
            Some(assign_number),
            None,
        );
    });
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::FETCH_STALE, |name| unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            c"How long the last good keys count if their issuer cannot be reached.",
            c"",
            &STALE,
            60,
            c_int::MAX / 1000,
            GucContext::Suset,
            GucFlags::UNIT_S | flags,
            None,
            Some(assign_number),
            None,
        );
    });
    // SAFETY: the hook raises no ERROR.
    define_guarded(names::FETCH_CA_FILE, |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"A file with the certificates (PEM) of the authorities that issuers' certificates are checked with.",
            c"An empty string uses those of the operating system.",
            &CA_FILE,
            GucContext::Suset,
            flags,
            None,
            Some(assign_text),
            None,
        );
    });
    // SAFETY: the hooks raise no ERROR.
    define_guarded(names::FETCH_HOSTS, |name| unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            c"Hosts that keys may be fetched from, whoever registered the provider and wherever they are.",
            c"A comma-separated list of names and patterns like *.example.com. Other hosts must be public, and their provider registered by a superuser.",
            &HOSTS,
            GucContext::Suset,
            flags,
            Some(check_hosts),
            Some(assign_text),
            None,
        );
    });
}

unsafe extern "C-unwind" fn check_hosts(
    value: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: called by Postgres with a place that holds null or a C string.
    let value = unsafe { super::copied(*value, MAX_BYTES) }.unwrap_or_default();
    let problem = match String::from_utf8(value) {
        Ok(text) if text.len() <= MAX_BYTES => Hosts::parse(&text).err(),
        Ok(_) => Some(format!("longer than {MAX_BYTES} bytes")),
        Err(_) => Some("not UTF-8".into()),
    };
    let Some(problem) = problem else {
        return true;
    };
    let detail = CString::new(problem).unwrap_or_default();
    // SAFETY: Postgres reports the text and leaves it to its memory context (GUC_check_errdetail).
    unsafe { pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(detail.as_ptr()) };
    false
}
