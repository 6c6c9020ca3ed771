//! A jsonb that is made when somebody asks for it, and outlives transactions.

use std::cell::OnceCell;
use std::ptr::NonNull;

use pgrx::pg_sys::{self, Datum};
use serde_json::{Map, Value};

use crate::datum;

/// A JSON text, and the jsonb of it from when somebody first asks: most policies never do.
#[derive(Debug)]
pub(crate) struct LazyJsonb {
    text: String,
    jsonb: OnceCell<KeptJsonb>,
}

impl LazyJsonb {
    /// Of a text that [`json::parse`] has read as `members`.
    ///
    /// # Errors
    /// As [`datum::jsonb`]: a text that jsonb cannot hold is refused here, and not at its first use.
    ///
    /// [`json::parse`]: pg_session_jwt_jose::json::parse
    pub fn new(text: String, members: &Map<String, Value>) -> Result<Self, String> {
        /// jsonb's own limits (numbers of some 2^14 digits, strings of 2^28 bytes) lie far beyond.
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

    /// The jsonb, to read during the call in hand: whoever keeps it longer copies it.
    ///
    /// # Errors
    /// None but for want of memory: [`LazyJsonb::new`] took the text.
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

/// Whether a number in it is not a whole one of 64 bits, and may have an exponent that `numeric` lacks.
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
        // SAFETY: jsonb_in gives a plain varlena of its own in the current context.
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
