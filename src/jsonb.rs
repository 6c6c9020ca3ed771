//! Claims as a jsonb that is made on demand and outlives transactions.

#![allow(unsafe_code, reason = "a value in memory of Postgres")]

use std::cell::OnceCell;
use std::ptr::NonNull;

use pgrx::pg_sys::{self, Datum, JsonbIteratorToken as Token, JsonbParseState, JsonbValue};
use serde_json::{Map, Value};

use crate::datum;

/// The jsonb of a JSON object, once it has been asked for: most policies never ask.
#[derive(Debug)]
pub(crate) struct LazyJsonb(OnceCell<KeptJsonb>);

impl LazyJsonb {
    /// From a text that [`json::parse`] has read as `members`.
    ///
    /// # Errors
    /// As [`datum::jsonb`]: a text that jsonb cannot represent is refused here, not at first use.
    ///
    /// [`json::parse`]: pg_session_jwt_jose::json::parse
    pub fn new(text: &str, members: &Map<String, Value>) -> Result<Self, String> {
        /// jsonb's own limits (numbers of about 2^14 digits, strings of 2^28 bytes) are far higher.
        const SMALL: usize = 1 << 16;
        let surely_fits = datum::is_utf8() && text.len() <= SMALL && members.values().all(is_plain);
        if surely_fits {
            return Ok(Self(OnceCell::new()));
        }
        let made = KeptJsonb::copy(datum::jsonb(text)?)?;
        Ok(Self(OnceCell::from(made)))
    }

    /// The jsonb, valid during the current call: copy it to keep it longer. `members` are those that it was made with.
    ///
    /// # Errors
    /// Only when out of memory: [`LazyJsonb::new`] has checked the text.
    pub fn datum(&self, members: &Map<String, Value>) -> Result<Datum, String> {
        let kept = match self.0.get() {
            Some(kept) => kept,
            None => {
                let made = KeptJsonb::copy(of_plain(members))?;
                self.0.get_or_init(|| made)
            }
        };
        Ok(Datum::from(kept.0.as_ptr()))
    }
}

/// Whether jsonb has it just as it is. Of a number with a fraction or an exponent, only the text says what `numeric`
/// makes of it.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64(),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Object(members) => members.values().all(is_plain),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// What jsonb_in() would make of the text, in half of its time: the text has been read already.
fn of_plain(members: &Map<String, Value>) -> Datum {
    // SAFETY: nothing within the boundary has a destructor, and the members outlive it; the result is palloc'd.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let mut state = std::ptr::null_mut();
            let object = push_object(&raw mut state, members);
            Datum::from(raw::JsonbValueToJsonb(object))
        })
    }
}

/// Without pgrx's guard, which would cost more than these calls.
mod raw {
    use super::{JsonbParseState, JsonbValue, Token, pg_sys};

    unsafe extern "C-unwind" {
        pub fn pushJsonbValue(
            state: *mut *mut JsonbParseState,
            token: Token::Type,
            value: *mut JsonbValue,
        ) -> *mut JsonbValue;
        pub fn JsonbValueToJsonb(value: *mut JsonbValue) -> *mut pg_sys::Jsonb;
        pub fn int64_to_numeric(value: i64) -> pg_sys::Numeric;
    }
}

/// # Safety
/// A state of pushJsonbValue (src/backend/utils/adt/jsonb_util.c), within a boundary.
unsafe fn push_object(
    state: *mut *mut JsonbParseState,
    members: &Map<String, Value>,
) -> *mut JsonbValue {
    // SAFETY: the caller's promise; a key and its value follow each other.
    unsafe {
        raw::pushJsonbValue(state, Token::WJB_BEGIN_OBJECT, std::ptr::null_mut());
        for (name, value) in members {
            let mut name = text(name);
            raw::pushJsonbValue(state, Token::WJB_KEY, &raw mut name);
            push(state, Token::WJB_VALUE, value);
        }
        raw::pushJsonbValue(state, Token::WJB_END_OBJECT, std::ptr::null_mut())
    }
}

/// A value of an object, or an element of an array.
///
/// # Safety
/// As for [`push_object`].
unsafe fn push(state: *mut *mut JsonbParseState, token: Token::Type, value: &Value) {
    let mut scalar = JsonbValue {
        type_: pg_sys::jbvType::jbvNull,
        val: pg_sys::JsonbValue__bindgen_ty_1 { boolean: false },
    };
    // SAFETY: the caller's promise.
    unsafe {
        match value {
            Value::Null => {}
            Value::Bool(value) => {
                scalar.type_ = pg_sys::jbvType::jbvBool;
                scalar.val.boolean = *value;
            }
            Value::Number(number) => {
                scalar.type_ = pg_sys::jbvType::jbvNumeric;
                scalar.val.numeric = raw::int64_to_numeric(number.as_i64().unwrap_or_default());
            }
            Value::String(value) => scalar = text(value),
            Value::Array(items) => {
                raw::pushJsonbValue(state, Token::WJB_BEGIN_ARRAY, std::ptr::null_mut());
                for item in items {
                    push(state, Token::WJB_ELEM, item);
                }
                raw::pushJsonbValue(state, Token::WJB_END_ARRAY, std::ptr::null_mut());
                return;
            }
            Value::Object(members) => {
                push_object(state, members);
                return;
            }
        }
        raw::pushJsonbValue(state, token, &raw mut scalar);
    }
}

/// It points to the text, and is good for as long.
fn text(text: &str) -> JsonbValue {
    JsonbValue {
        type_: pg_sys::jbvType::jbvString,
        val: pg_sys::JsonbValue__bindgen_ty_1 {
            string: pg_sys::JsonbValue__bindgen_ty_1__bindgen_ty_1 {
                // At most 64 KiB.
                len: i32::try_from(text.len()).unwrap_or(0),
                val: text.as_ptr().cast_mut().cast(),
            },
        },
    }
}

/// A jsonb that outlives transactions.
#[derive(Debug)]
struct KeptJsonb(NonNull<pg_sys::varlena>);

impl KeptJsonb {
    /// Of a plain, palloc'd one, which is freed.
    fn copy(value: Datum) -> Result<Self, String> {
        // SAFETY: a plain varlena in the current context.
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
        // SAFETY: palloc'd by `copy`, and this is its only owner.
        unsafe { pg_sys::pfree(self.0.as_ptr().cast()) };
    }
}
