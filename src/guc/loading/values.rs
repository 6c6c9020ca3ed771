//! The values of a placeholder, each with its privileges.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys::{self, GucContext as Context, GucSource as Source};

use super::record::option;

/// A value of a parameter, with its privileges.
pub(super) struct Value {
    pub text: CString,
    pub context: Context::Type,
    pub source: Source::Type,
    pub role: pg_sys::Oid,
}

/// All values of a placeholder or of a text parameter.
#[derive(Default)]
pub(super) struct Values {
    /// The RESET value.
    pub reset: Option<Value>,
    /// The one in force.
    pub current: Option<Value>,
    /// Those that the end of a (sub)transaction or of a function would restore.
    pub stacked: Vec<Value>,
}

impl Values {
    pub fn of(name: &CStr) -> Self {
        let value = |text: *const c_char, context, source, role| {
            (!text.is_null()).then(|| Value {
                // SAFETY: a C string that belongs to the record, copied at once.
                text: unsafe { CStr::from_ptr(text) }.to_owned(),
                context,
                source,
                role,
            })
        };
        let Some(option) = option(name) else {
            return Self::default();
        };
        // SAFETY: a placeholder is a text as well (guc.c, add_placeholder_variable). GucStack:
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

    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.reset.iter().chain(&self.current).chain(&self.stacked)
    }
}
