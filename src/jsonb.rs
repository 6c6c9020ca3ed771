//! A jsonb that is made on demand and outlives transactions.

#![allow(unsafe_code, reason = "a value in memory of Postgres")]

use std::cell::OnceCell;
use std::ptr::NonNull;

use pgrx::pg_sys::{self, Datum};
use serde_json::{Map, Value};

use crate::datum;

/// A JSON text, and its jsonb once it has been asked for: most policies never ask.
#[derive(Debug)]
pub(crate) struct LazyJsonb {
    text: String,
    jsonb: OnceCell<KeptJsonb>,
}

impl LazyJsonb {
    /// From a text that [`json::parse`] has read as `members`.
    ///
    /// # Errors
    /// As [`datum::jsonb`]: a text that jsonb cannot represent is refused here, not at first use.
    ///
    /// [`json::parse`]: pg_session_jwt_jose::json::parse
    pub fn new(text: String, members: &Map<String, Value>) -> Result<Self, String> {
        /// jsonb's own limits (numbers of about 2^14 digits, strings of 2^28 bytes) are far higher.
        const SMALL: usize = 1 << 16;
        let lazy = Self {
            jsonb: OnceCell::new(),
            text,
        };
        let surely_fits =
            datum::is_utf8() && lazy.text.len() <= SMALL && !members.values().any(has_fraction);
        if !surely_fits {
            lazy.datum()?;
        }
        Ok(lazy)
    }

    /// The jsonb, valid during the current call: copy it to keep it longer.
    ///
    /// # Errors
    /// Only when out of memory: [`LazyJsonb::new`] has checked the text.
    pub fn datum(&self) -> Result<Datum, String> {
        let kept = match self.jsonb.get() {
            Some(kept) => kept,
            None => {
                let made = KeptJsonb::new(&self.text)?;
                self.jsonb.get_or_init(|| made)
            }
        };
        Ok(Datum::from(kept.0.as_ptr()))
    }
}

/// Whether it contains a number that is not a 64-bit integer: its exponent may be beyond `numeric`.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// A jsonb that outlives transactions.
#[derive(Debug)]
struct KeptJsonb(NonNull<pg_sys::varlena>);

impl KeptJsonb {
    fn new(json: &str) -> Result<Self, String> {
        let value = datum::jsonb(json)?;
        // SAFETY: jsonb_in returns a new plain varlena in the current context.
        unsafe {
            let copy = datum::copy_varlena(value, pg_sys::TopMemoryContext);
            pg_sys::pfree(value.cast_mut_ptr());
            NonNull::new(copy.cast_mut_ptr())
                .map(Self)
                .ok_or_else(|| "no value".to_owned())
        }
    }
}

impl Drop for KeptJsonb {
    fn drop(&mut self) {
        // SAFETY: palloc'd by `new`, and this is its only owner.
        unsafe { pg_sys::pfree(self.0.as_ptr().cast()) };
    }
}
