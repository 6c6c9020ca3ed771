//! Values from and to Postgres.

#![allow(unsafe_code, reason = "values are pointers of Postgres")]

use std::ffi::{CStr, CString, c_char};
use std::panic::UnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, PgTryBuilder, direct_function_call_as_datum};

use crate::error::Error;
use crate::memory;

/// Runs one of Postgres's own conversions; its complaint about the input is returned as a value.
///
/// Only for functions that allocate nothing but memory: an ERROR caught without a subtransaction leaves
/// any other resource as it was at that moment.
fn attempt<T>(conversion: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    PgTryBuilder::new(|| Ok(conversion()))
        .catch_others(|error| match &error {
            CaughtError::PostgresError(report) if is_about_data(report.sql_error_code()) => {
                Err(report.message().to_owned())
            }
            _ => error.rethrow(),
        })
        .execute()
}

/// SQLSTATE class 22 (data exception), 54 (program limit exceeded), or 0A (feature not supported: a
/// conversion that this server encoding lacks).
fn is_about_data(code: PgSqlErrorCode) -> bool {
    // MAKE_SQLSTATE (src/include/utils/elog.h) keeps the class in the low twelve bits.
    const CLASS: i32 = 0xfff;
    [
        PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
    ]
    .iter()
    .any(|class| *class as i32 & CLASS == code as i32 & CLASS)
}

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// What was accepted has no zero byte: a token is base64url, and JSON allows none.
pub(crate) fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// A text in the server encoding.
pub(crate) fn to_server(text: &str) -> Result<CString, String> {
    let text = CString::new(text).map_err(|_| "a text contains U+0000".to_owned())?;
    if is_utf8() {
        return Ok(text);
    }
    let length = length(text.as_bytes())?;
    // SAFETY: the pointer and the length are of one string; the result is that same string, or a new
    // one that ends with NUL.
    attempt(move || unsafe {
        let converted = pg_sys::pg_any_to_server(text.as_ptr(), length, UTF8);
        CStr::from_ptr(converted).to_owned()
    })
}

/// Whether the server encoding is UTF-8. A Rust string is valid there: Rust's rules are at least as
/// strict as Postgres's.
pub(crate) fn is_utf8() -> bool {
    // SAFETY: reads a global.
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}

/// A text from the server encoding, without NUL.
///
/// # Errors
/// The message of Postgres or Rust about a text that is not valid in its encoding.
pub(crate) fn from_server(bytes: Vec<u8>) -> Result<String, String> {
    let text = CString::new(bytes).map_err(|_| "a text contains a zero byte".to_owned())?;
    let text = if is_utf8() {
        text
    } else {
        let length = length(text.as_bytes())?;
        // SAFETY: as in to_server.
        attempt(move || unsafe {
            let converted = pg_sys::pg_server_to_any(text.as_ptr(), length, UTF8);
            CStr::from_ptr(converted).to_owned()
        })?
    };
    String::from_utf8(text.into_bytes()).map_err(|_| "not valid UTF-8".to_owned())
}

fn length<T>(items: &[T]) -> Result<i32, String> {
    i32::try_from(items.len()).map_err(|_| "too long".to_owned())
}

/// A `text`, palloc'd.
///
/// # Errors
/// [`Error::Unrepresentable`] for a character that the server encoding lacks.
pub(crate) fn text(text: &str) -> Result<Option<Datum>, Error> {
    let bytes = to_server(text).map_err(Error::Unrepresentable)?;
    // A text has the same layout as a bytea.
    Ok(bytes.to_bytes().into_datum())
}

/// A `name`, palloc'd; truncated where Postgres would truncate it.
///
/// # Errors
/// As [`text`].
pub(crate) fn name(text: &str) -> Result<Option<Datum>, Error> {
    input(pg_sys::namein, text)
        .map(Some)
        .map_err(Error::Unrepresentable)
}

/// A `text[]`, palloc'd.
///
/// # Errors
/// As [`text`].
pub(crate) fn text_array(texts: &[impl AsRef<str>]) -> Result<Option<Datum>, Error> {
    let mut elements = Vec::with_capacity(texts.len());
    for element in texts {
        elements.extend(text(element.as_ref())?);
    }
    let length = length(&elements).map_err(Error::Unrepresentable)?;
    // SAFETY: the count is right, and the elements are of a variable-length type, aligned to int.
    let array = unsafe {
        pg_sys::construct_array(
            elements.as_mut_ptr(),
            length,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        )
    };
    Ok(Some(Datum::from(array)))
}

/// A `uuid`, palloc'd, by the rules of uuid's own input function; `None` if the text is not one.
pub(crate) fn uuid(text: &str) -> Option<Datum> {
    input(pg_sys::uuid_in, text).ok()
}

/// A `jsonb`, palloc'd.
///
/// # Errors
/// The message of Postgres about JSON that jsonb, or the server encoding, cannot represent.
pub(crate) fn jsonb(json: &str) -> Result<Datum, String> {
    input(pg_sys::jsonb_in, json)
}

/// A `timestamptz` from seconds since the epoch; `None` if out of range.
pub(crate) fn timestamptz(seconds: f64) -> Option<Datum> {
    // SAFETY: float8_timestamptz is the SQL function to_timestamp(double precision).
    attempt(move || unsafe {
        direct_function_call_as_datum(pg_sys::float8_timestamptz, &[seconds.into_datum()])
    })
    .ok()
    .flatten()
}

/// Seconds since the epoch, from a timestamptz.
pub(crate) fn seconds(microseconds: pg_sys::TimestampTz) -> f64 {
    /// 1970-01-01 to 2000-01-01, where Postgres's timestamps begin.
    const POSTGRES_EPOCH_SECONDS: f64 = 946_684_800.0;
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 microseconds are 285 years"
    )]
    let seconds = microseconds as f64 / 1e6;
    seconds + POSTGRES_EPOCH_SECONDS
}

/// The same from a timestamptz in JSON, which is in ISO 8601.
pub(crate) fn seconds_since_epoch(time: &str) -> Option<f64> {
    let text = CString::new(time).ok()?;
    // SAFETY: an input function of three arguments; the C string lives until after the call.
    let value = attempt(move || unsafe {
        let arguments = [
            Some(Datum::from(text.as_ptr())),
            pg_sys::InvalidOid.into_datum(),
            (-1).into_datum(),
        ];
        direct_function_call_as_datum(pg_sys::timestamptz_in, &arguments)
    });
    let microseconds = value.ok().flatten()?.value();
    Some(seconds(microseconds.cast_signed() as pg_sys::TimestampTz))
}

/// The transaction's time: a timestamptz.
pub(crate) fn transaction_time() -> Datum {
    // SAFETY: reads the state of the transaction.
    Datum::from(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
}

fn input(
    function: unsafe fn(pg_sys::FunctionCallInfo) -> Datum,
    text: &str,
) -> Result<Datum, String> {
    let text = to_server(text)?;
    // SAFETY: an input function of one argument, a C string that lives until after the call.
    let value = attempt(move || unsafe {
        direct_function_call_as_datum(function, &[Some(Datum::from(text.as_ptr()))])
    })?;
    value.ok_or_else(|| "no value".to_owned())
}

/// `jsonb operator argument`: palloc'd, `None` for SQL NULL.
pub(crate) fn jsonb_operator(
    operator: unsafe fn(pg_sys::FunctionCallInfo) -> Datum,
    jsonb: Datum,
    argument: Option<Datum>,
) -> Option<Datum> {
    // SAFETY: jsonb's own operators read their arguments and return newly allocated memory.
    unsafe { direct_function_call_as_datum(operator, &[Some(jsonb), argument]) }
}

/// The text of a jsonb.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn jsonb_text(jsonb: Datum) -> Result<CString, Error> {
    // SAFETY: an output function of one argument, a jsonb; the result is a palloc'd C string.
    unsafe {
        let text = direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(jsonb)]);
        own(text.map_or(c"".as_ptr(), |text| text.cast_mut_ptr()))
    }
}

/// A `text`.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn c_text(text: Datum) -> Result<CString, Error> {
    // SAFETY: a text; the result is a palloc'd C string.
    unsafe { own(pg_sys::text_to_cstring(text.cast_mut_ptr())) }
}

/// # Safety
/// A palloc'd C string.
unsafe fn own(text: *const c_char) -> Result<CString, Error> {
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    memory::room(text.count_bytes())?;
    Ok(text.to_owned())
}

/// Whether a jsonb is an object.
pub(crate) fn is_json_object(jsonb: Datum) -> bool {
    // SAFETY: jsonb_typeof returns a text, which has the same layout as a bytea.
    let name: Option<&[u8]> =
        unsafe { pgrx::direct_function_call(pg_sys::jsonb_typeof, &[Some(jsonb)]) };
    name == Some(b"object")
}

/// [`uuid`] from a `text` that one of jsonb's operators returned.
pub(crate) fn uuid_from_text(text: Datum) -> Option<Datum> {
    // SAFETY: a palloc'd text, which has the same layout as a bytea.
    let bytes: &[u8] = unsafe { FromDatum::from_datum(text, false)? };
    uuid(std::str::from_utf8(bytes).ok()?)
}

/// A row, palloc'd. The row type must have `N` columns of the values' types.
pub(crate) fn row<const N: usize>(
    row_type: pg_sys::TupleDesc,
    values: [Option<Datum>; N],
) -> Datum {
    let mut nulls = values.map(|value| value.is_none());
    let mut values = values.map(|value| value.unwrap_or_else(Datum::null));
    // SAFETY: the arrays are as long as the row type has columns (sql/auth.sql), and the row type is
    // blessed.
    unsafe {
        let tuple = pg_sys::heap_form_tuple(row_type, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// A copy of a varlena in `context`.
///
/// # Safety
/// `value` points to a varlena that is not toasted; `context` is valid.
pub(crate) unsafe fn copy_varlena(value: Datum, context: pg_sys::MemoryContext) -> Datum {
    // SAFETY: the caller's promise.
    unsafe {
        let size = pgrx::varlena::varsize_any(value.cast_mut_ptr());
        copy_bytes(value, size, context)
    }
}

/// A copy of the `size` bytes at a pointer, in `context`.
///
/// # Safety
/// `value` points to that many bytes; `context` is valid.
pub(crate) unsafe fn copy_bytes(
    value: Datum,
    size: usize,
    context: pg_sys::MemoryContext,
) -> Datum {
    // SAFETY: the caller's promise, and new memory does not overlap.
    unsafe {
        let copy = pg_sys::MemoryContextAlloc(context, size).cast::<u8>();
        std::ptr::copy_nonoverlapping(value.cast_mut_ptr::<u8>(), copy, size);
        Datum::from(copy)
    }
}
