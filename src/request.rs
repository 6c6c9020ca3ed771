//! `request.jwt.claims` and the older `request.jwt.claim.sub`, `.role` and `.email` show the claims of the identity in
//! force, where `pg_session_jwt.request_claims` is `verified`. Policies that read them need not change, and nobody can
//! forge what they read.

#![allow(unsafe_code, reason = "hooks of Postgres")]

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};

use pgrx::{IntoDatum, pg_sys};

use crate::error::{self, Error};
use crate::guc::{self, Show, VIEWS};
use crate::session;
use crate::{datum, memory};

/// In the order of [`guc::define_views`].
const SHOWS: [Show; VIEWS] = [show_email, show_role, show_sub, show_claims];
/// The position of `request.jwt.claims`.
const CLAIMS: usize = 3;
/// The claims that the others show.
const ONE: [&str; CLAIMS] = ["email", "role", "sub"];

/// Whether the postmaster has loaded the library. Otherwise a process may read these parameters that has not: a
/// background worker or a walsender.
static PRELOADED: AtomicBool = AtomicBool::new(false);
static NEXT_ACCESS: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static NEXT_ANALYZE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type AnalyzeHook = unsafe extern "C-unwind" fn(
    *mut pg_sys::ParseState,
    *mut pg_sys::Query,
    *mut pg_sys::JumbleState,
);
type AccessHook = unsafe extern "C-unwind" fn(
    pg_sys::ObjectAccessType::Type,
    pg_sys::Oid,
    pg_sys::Oid,
    c_int,
    *mut c_void,
);

/// Sees to it that the parameters are ours before any SQL can read them.
pub(crate) fn define() {
    // SAFETY: callback and hooks stay, as the library does; if there are other hooks, they are called next.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end_of_transaction), std::ptr::null_mut());
        if let Some(next) = pg_sys::object_access_hook {
            NEXT_ACCESS.store(next as *mut c_void, Relaxed);
        }
        pg_sys::object_access_hook = Some(before_function);
        if let Some(next) = pg_sys::post_parse_analyze_hook {
            NEXT_ANALYZE.store(next as *mut c_void, Relaxed);
        }
        pg_sys::post_parse_analyze_hook = Some(before_statement);
        if pg_sys::process_shared_preload_libraries_in_progress {
            // Not here: what postgresql.conf says, a database may say otherwise.
            PRELOADED.store(true, Relaxed);
        } else if guc::lacks_views() {
            define_views();
        }
    }
}

/// Why the parameters can be forged although the setting is `verified`.
pub(crate) fn weakness() -> Option<&'static str> {
    (guc::request_claims_are_verified() && !PRELOADED.load(Relaxed)).then_some(
        "request.jwt.claims can be forged: pg_session_jwt.request_claims is \"verified\", but pg_session_jwt is not in shared_preload_libraries.",
    )
}

/// A process that starts ends a transaction before any SQL runs in it (InitPostgres, src/backend/utils/init/postinit.c),
/// and a parallel worker one more once it has its leader's parameters (ParallelWorkerMain,
/// src/backend/access/transam/parallel.c).
unsafe extern "C-unwind" fn at_end_of_transaction(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
        // SAFETY: called by Postgres, with no Rust frame above.
        unsafe { define_if_wanted() }
    }
}

/// The setting can change in the life of a process, by a reload for instance. Here a statement passes that comes in as a
/// text, a SHOW and a FETCH from an older cursor among them.
unsafe extern "C-unwind" fn before_statement(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: called by Postgres, with no Rust frame above; null or the previous hook.
    unsafe {
        define_if_wanted();
        let next = NEXT_ANALYZE.load(Relaxed);
        if !next.is_null() {
            std::mem::transmute::<*mut c_void, AnalyzeHook>(next)(state, query, jumble);
        }
    }
}

/// And here current_setting() passes, as each function does that SQL calls (InvokeFunctionExecuteHook,
/// src/include/catalog/objectaccess.h): in a statement that was prepared before, or one that is called without SQL.
unsafe extern "C-unwind" fn before_function(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: c_int,
    argument: *mut c_void,
) {
    // SAFETY: called by Postgres, with no Rust frame above; null or the previous hook.
    unsafe {
        if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE {
            define_if_wanted();
        }
        let next = NEXT_ACCESS.load(Relaxed);
        if !next.is_null() {
            let next = std::mem::transmute::<*mut c_void, AccessHook>(next);
            next(access, class, object, sub_object, argument);
        }
    }
}

/// # Safety
/// As for [`error::guarded`].
#[inline]
unsafe fn define_if_wanted() {
    if guc::lacks_views() {
        // SAFETY: the caller's promise.
        unsafe {
            memory::ask_for(memory::ROOM);
            error::guarded(|| {
                define_views();
                Ok(())
            });
        }
    }
}

fn define_views() {
    #[cfg(feature = "pg15")]
    guc::define_before_views(listed::begin);
    guc::define_views(SHOWS);
}

/// Postgres 15 calls all show hooks for `pg_settings`, also of parameters that the view leaves out, one after the other
/// in the order of names (show_all_settings, src/backend/utils/misc/guc.c). There, none of ours may raise an ERROR.
#[cfg(feature = "pg15")]
mod listed {
    use std::ffi::c_char;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::{STAMP, VIEWS};

    /// The view whose turn it is; none when it is as many as there are.
    static NEXT: AtomicUsize = AtomicUsize::new(VIEWS);

    /// The show hook of the parameter before them.
    pub unsafe extern "C-unwind" fn begin() -> *const c_char {
        NEXT.store(0, Relaxed);
        STAMP.store(0, Relaxed);
        c"".as_ptr()
    }

    /// Whether this is its turn. Who reads the parameter before them first, and then them, reads nobody's claims
    /// instead of an ERROR.
    pub fn is_turn_of(view: usize) -> bool {
        let is_turn = NEXT.load(Relaxed) == view;
        NEXT.store(if is_turn { view + 1 } else { VIEWS }, Relaxed);
        is_turn
    }
}

#[cfg(not(feature = "pg15"))]
mod listed {
    pub fn is_turn_of(_: usize) -> bool {
        false
    }
}

/// What the four show, and while which [`session::stamp`].
struct Shown(RefCell<[CString; VIEWS]>);

thread_local! {
    // Never dropped: at process exit Postgres's memory is not ours to free.
    static SHOWN: ManuallyDrop<Shown> = ManuallyDrop::new(Shown(RefCell::default()));
}

/// Where the texts are.
static TEXTS: [AtomicPtr<c_char>; VIEWS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; VIEWS];
/// 0 is never a stamp.
static STAMP: AtomicU64 = AtomicU64::new(0);

unsafe extern "C-unwind" fn show_email() -> *const c_char {
    show(0)
}
unsafe extern "C-unwind" fn show_role() -> *const c_char {
    show(1)
}
unsafe extern "C-unwind" fn show_sub() -> *const c_char {
    show(2)
}
unsafe extern "C-unwind" fn show_claims() -> *const c_char {
    show(CLAIMS)
}

/// The text, valid until the next call: Postgres copies it at once (ShowGUCOption, src/backend/utils/misc/guc.c).
#[inline]
fn show(view: usize) -> *const c_char {
    match TEXTS.get(view) {
        Some(text) if session::stamp() == Some(STAMP.load(Relaxed)) => text.load(Relaxed),
        // SAFETY: called by Postgres; this frame and those above have no destructors.
        _ => unsafe { compute(view) },
    }
}

/// # Safety
/// As for [`error::guarded`].
#[cold]
unsafe fn compute(view: usize) -> *const c_char {
    let is_listed = listed::is_turn_of(view);
    if !guc::request_claims_are_verified() {
        return guc::written(view);
    }
    // SAFETY: reads the state of the process. The walsender of a physical replica has no database, and nobody is
    // anybody there.
    unsafe {
        if !pg_sys::IsTransactionState() || pg_sys::MyDatabaseId == pg_sys::InvalidOid {
            return of_nobody(view);
        }
        memory::ask_for(memory::ROOM);
    }
    // SAFETY: the caller's promise.
    unsafe {
        error::guarded(|| {
            STAMP.store(0, Relaxed);
            let texts = match texts() {
                Err(_) if is_listed => return Ok(of_nobody(view)),
                texts => texts?,
            };
            SHOWN.with(|shown| {
                let mut shown = shown.0.borrow_mut();
                *shown = texts;
                for (place, text) in TEXTS.iter().zip(shown.iter()) {
                    place.store(text.as_ptr().cast_mut(), Relaxed);
                }
            });
            STAMP.store(session::stamp().unwrap_or(0), Relaxed);
            Ok(TEXTS
                .get(view)
                .map_or(of_nobody(view), |text| text.load(Relaxed)))
        })
    }
}

/// What is shown where there is no identity.
fn of_nobody(view: usize) -> *const c_char {
    if view == CLAIMS {
        c"{}".as_ptr()
    } else {
        c"".as_ptr()
    }
}

/// All claims as `auth.jwt()` has them, and single ones as `auth.claim()` gives them.
///
/// # Errors
/// As `auth.user_id()`
fn texts() -> Result<[CString; VIEWS], Error> {
    let identity = session::identity()?;
    identity.subject()?;
    let mut texts: [CString; VIEWS] = Default::default();
    let Some(claims) = identity.claims().transpose()? else {
        texts[CLAIMS] = c"{}".to_owned();
        return Ok(texts);
    };
    for (text, name) in texts.iter_mut().zip(ONE) {
        let value =
            datum::jsonb_operator(pg_sys::jsonb_object_field_text, claims, name.into_datum());
        *text = value.map_or(Ok(CString::default()), datum::c_text)?;
    }
    texts[CLAIMS] = datum::jsonb_text(claims)?;
    Ok(texts)
}
