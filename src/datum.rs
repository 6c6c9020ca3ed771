//! Values from and to Postgres.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::panic::UnwindSafe;
use std::ptr::NonNull;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, PgTryBuilder, direct_function_call_as_datum};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::memory;

/// Runs a conversion of Postgres's own; what it says when it does not like its input comes back as a
/// value.
///
/// Only for functions that take nothing but memory: an ERROR caught without a subtransaction leaves
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
/// conversion that this server encoding does not have).
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

/// A text in the server encoding.
pub(crate) fn to_server(text: &str) -> Result<CString, String> {
    let text = CString::new(text).map_err(|_| "a text contains U+0000".to_owned())?;
    if is_utf8() {
        return Ok(text);
    }
    // SAFETY: the pointer and the length are of one string; the result is that same string, or a new
    // one that ends with NUL.
    attempt(move || unsafe {
        let length = text.as_bytes().len();
        let converted = pg_sys::pg_any_to_server(text.as_ptr(), length as i32, UTF8);
        CStr::from_ptr(converted).to_owned()
    })
}

/// What Rust holds is UTF-8 already, by rules that are no laxer than Postgres's.
fn is_utf8() -> bool {
    // SAFETY: reads a global.
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}

/// A text from the server encoding; no NUL is in it.
///
/// # Errors
/// What Postgres or Rust says of a text that is not valid in its encoding.
pub(crate) fn from_server(bytes: Vec<u8>) -> Result<String, String> {
    let text = CString::new(bytes).map_err(|_| "a text contains a zero byte".to_owned())?;
    let text = if is_utf8() {
        text
    } else {
        // SAFETY: as in to_server.
        attempt(move || unsafe {
            let length = text.as_bytes().len();
            let converted = pg_sys::pg_server_to_any(text.as_ptr(), length as i32, UTF8);
            CStr::from_ptr(converted).to_owned()
        })?
    };
    String::from_utf8(text.into_bytes()).map_err(|_| "not valid UTF-8".to_owned())
}

/// A `text`, palloc'd.
///
/// # Errors
/// [`Error::Unrepresentable`] for a character that the server encoding lacks.
pub(crate) fn text(text: &str) -> Result<Option<Datum>, Error> {
    let bytes = to_server(text).map_err(Error::Unrepresentable)?;
    // A text is laid out as a bytea is.
    Ok(bytes.to_bytes().into_datum())
}

/// A `name`, palloc'd; cut short where Postgres would cut it.
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
    // SAFETY: as many elements as said, of a type of variable length, aligned to int.
    let array = unsafe {
        pg_sys::construct_array(
            elements.as_mut_ptr(),
            elements.len() as i32,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        )
    };
    Ok(Some(Datum::from(array)))
}

/// A `uuid`, palloc'd, by the rules of uuid's own input function; `None` where it is not one.
pub(crate) fn uuid(text: &str) -> Option<Datum> {
    input(pg_sys::uuid_in, text).ok()
}

/// A `jsonb`, palloc'd.
///
/// # Errors
/// What Postgres says of JSON that jsonb, or the server encoding, cannot hold.
pub(crate) fn jsonb(json: &str) -> Result<Datum, String> {
    input(pg_sys::jsonb_in, json)
}

/// A `timestamptz` from seconds since the epoch; `None` where it is out of range.
pub(crate) fn timestamptz(seconds: f64) -> Option<Datum> {
    // SAFETY: float8_timestamptz is the SQL function to_timestamp(double precision).
    attempt(move || unsafe {
        direct_function_call_as_datum(pg_sys::float8_timestamptz, &[seconds.into_datum()])
    })
    .ok()
    .flatten()
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
    // SAFETY: jsonb's own operators read their arguments and return memory of their own.
    unsafe { direct_function_call_as_datum(operator, &[Some(jsonb), argument]) }
}

/// Whether a jsonb is an object.
pub(crate) fn is_json_object(jsonb: Datum) -> bool {
    // SAFETY: jsonb_typeof returns a text, laid out as a bytea.
    let name: Option<&[u8]> =
        unsafe { pgrx::direct_function_call(pg_sys::jsonb_typeof, &[Some(jsonb)]) };
    name == Some(b"object")
}

/// [`uuid`] from a `text` that one of jsonb's operators gave.
pub(crate) fn uuid_from_text(text: Datum) -> Option<Datum> {
    // SAFETY: a palloc'd text, laid out as a bytea.
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

/// Runs `body` with an open table; `None` where it is missing. An ERROR within leaves the table to the
/// resource owner.
fn with_table<T>(table: pg_sys::Oid, body: impl FnOnce(pg_sys::Relation) -> T) -> Option<T> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: null for what is missing, and what was opened is closed. No caller keeps a pointer into it.
    unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return None;
        }
        let result = body(relation);
        pg_sys::relation_close(relation, lock);
        Some(result)
    }
}

/// A row of a table.
pub(crate) struct Row {
    /// row_to_json()
    pub json: Result<String, String>,
    /// By the transaction in hand, or one of its live subtransactions.
    pub is_written_here: bool,
}

/// The rows of a table, as they are committed now.
///
/// Not by SPI: that would ask for the caller's privileges, and see what its transaction's snapshot
/// sees, which in REPEATABLE READ is the past.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn rows(table: pg_sys::Oid) -> Result<Vec<Row>, Error> {
    // SAFETY: systable_beginscan without an index reads any heap (genam.c); without a snapshot it
    // takes a fresh one, as for catalogs, also in a parallel worker. Each tuple is copied before the
    // next is fetched. An ERROR between leaves the scan to the resource owner.
    let rows = with_table(table, |relation| unsafe {
        let mut rows = Vec::new();
        let null = std::ptr::null_mut();
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, null, 0, null.cast());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let json = tuple_as_json(tuple, (*relation).rd_att);
            // Beside the next row, what becomes of this one.
            let length = json.as_ref().map_or(0, String::len);
            let room = memory::room_to_read(length).and_then(|()| memory::room(memory::ROOM));
            if let Err(error) = room {
                pg_sys::systable_endscan(scan);
                return Err(error);
            }
            let written_by = (*(*tuple).t_data).t_choice.t_heap.t_xmin;
            rows.push(Row {
                json,
                is_written_here: pg_sys::TransactionIdIsCurrentTransactionId(written_by),
            });
        }
        pg_sys::systable_endscan(scan);
        Ok(rows)
    });
    rows.unwrap_or_else(|| Ok(Vec::new()))
}

/// The tables that pg_extension_config_dump() has recorded for an extension, in that order; none where it is
/// not installed.
pub(crate) fn extension_config(extension: &CStr) -> Vec<pg_sys::Oid> {
    // SAFETY: a look-up in a catalog by its index (as in get_extension_oid, src/backend/commands/extension.c).
    // `extconfig` is an oid[] without NULLs, or NULL; it is copied before the scan ends.
    let tables = with_table(pg_sys::ExtensionRelationId, |relation| unsafe {
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &raw mut key,
            pg_sys::Anum_pg_extension_extname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_NAMEEQ.into(),
            Datum::from(extension.as_ptr()),
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::ExtensionNameIndexId.into(),
            true,
            std::ptr::null_mut(),
            1,
            &raw mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let mut tables = None;
        if !tuple.is_null() {
            let mut is_null = true;
            let value = pg_sys::heap_getattr(
                tuple,
                pg_sys::Anum_pg_extension_extconfig as i32,
                (*relation).rd_att,
                &mut is_null,
            );
            tables = Vec::<pg_sys::Oid>::from_datum(value, is_null);
        }
        pg_sys::systable_endscan(scan);
        tables
    });
    tables.flatten().unwrap_or_default()
}

/// Whether a table has a trigger of this name that fires in every session (ENABLE ALWAYS).
pub(crate) fn has_always_trigger(table: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: the relation's triggers, an array with C strings, stay while it is open.
    let has = with_table(table, |relation| unsafe {
        let triggers = match (*relation).trigdesc.as_ref() {
            Some(all) => std::slice::from_raw_parts(all.triggers, all.numtriggers as usize),
            None => &[],
        };
        triggers.iter().any(|trigger| {
            CStr::from_ptr(trigger.tgname) == name
                && trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
        })
    });
    has.unwrap_or(false)
}

/// row_to_json() of a tuple.
///
/// # Safety
/// The tuple is of the row type, and its lock is held.
pub(crate) unsafe fn tuple_as_json(
    tuple: pg_sys::HeapTuple,
    row_type: pg_sys::TupleDesc,
) -> Result<String, String> {
    // SAFETY: the copy is a composite value, and row_to_json returns a text, laid out as a bytea.
    let json: Option<&[u8]> = unsafe {
        let row = pg_sys::heap_copy_tuple_as_datum(tuple, row_type);
        pgrx::direct_function_call(pg_sys::row_to_json, &[Some(row)])
    };
    from_server(json.unwrap_or_default().to_vec())
}

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
    /// As [`jsonb`]: a text that jsonb cannot hold is refused here, and not at its first use.
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
            is_utf8() && lazy.text.len() <= SMALL && !members.values().any(has_fraction);
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
        let value = jsonb(json)?;
        // SAFETY: jsonb_in gives a plain varlena of its own in the current context.
        unsafe {
            let copy = copy_varlena(value, pg_sys::TopMemoryContext);
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

/// A copy of `size` bytes behind a pointer, in `context`.
///
/// # Safety
/// `value` points to so many bytes; `context` is valid.
pub(crate) unsafe fn copy_bytes(
    value: Datum,
    size: usize,
    context: pg_sys::MemoryContext,
) -> Datum {
    // SAFETY: the caller's promise, and fresh memory does not overlap.
    unsafe {
        let copy = pg_sys::MemoryContextAlloc(context, size).cast::<u8>();
        std::ptr::copy_nonoverlapping(value.cast_mut_ptr::<u8>(), copy, size);
        Datum::from(copy)
    }
}
