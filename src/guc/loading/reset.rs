//! A RESET that defining the parameter would undo.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys::{self, GucContext as Context, GucSource as Source};

use super::record::option;

/// A RESET, in the current transaction, of a placeholder that had a value before.
///
/// Postgres gives each value of a placeholder to the parameter with the value's own source, and treats
/// one of a lower source as overridden. The value that RESET restored is one of those: the RESET would
/// be undone.
pub(super) struct Reset {
    state: pg_sys::GucStackState::Type,
    nest_level: c_int,
}

impl Reset {
    /// The one in force now. Those below it on the stack are changed so that Postgres repeats them: no
    /// value, set by the session.
    pub fn of(name: &CStr) -> Option<Self> {
        let option = option(name)?;
        // SAFETY: the record of a placeholder and its stack, which live as long as the transaction.
        unsafe {
            if (*option).flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int == 0 {
                return None;
            }
            let top = (*option).stack.as_ref()?;
            let mut stack = (*option).stack;
            while let Some(entry) = stack.as_mut() {
                // The last entry holds what was in force before the transaction.
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

    /// Repeats it on the parameter, as `reapply_stacked_values` (guc.c) repeats a SET.
    pub fn again(&self, name: &CStr) {
        let Some(option) = option(name) else {
            return;
        };
        // SAFETY: C strings, and the record of the parameter. A new stack entry gets the nesting level
        // of the placeholder's.
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
