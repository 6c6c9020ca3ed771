//! Tables, read as catalogs are: without SPI, which would need the caller's privileges and use its
//! transaction's snapshot.

#![allow(unsafe_code, reason = "relations and tuples")]

use std::ffi::{CStr, c_char};

use pgrx::FromDatum;
use pgrx::pg_sys::{self, Datum};

use crate::datum;
use crate::error::Error;
use crate::memory;

/// Runs `body` with an open table; `None` where it is missing. An ERROR within leaves the table to the
/// resource owner.
fn with_table<T>(table: pg_sys::Oid, body: impl FnOnce(pg_sys::Relation) -> T) -> Option<T> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: null if the table is missing, and what was opened is closed. No caller keeps a pointer
    // into it.
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
    /// By the current transaction, or one of its live subtransactions.
    pub is_written_here: bool,
}

/// The rows of a table, as committed now.
///
/// Not by SPI: that would need the caller's privileges and use its transaction's snapshot, which in
/// REPEATABLE READ is out of date.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn rows(table: pg_sys::Oid) -> Result<Vec<Row>, Error> {
    // SAFETY: systable_beginscan without an index reads any heap (genam.c); without a snapshot it takes
    // a new one, as for catalogs, also in a parallel worker. Each tuple is copied before the next is
    // fetched. An ERROR meanwhile leaves the scan to the resource owner.
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
            // The length of the JSON is not known yet.
            if let Err(error) = memory::room(4 * memory::ROOM) {
                pg_sys::systable_endscan(scan);
                return Err(error);
            }
            let json = tuple_as_json(tuple, (*relation).rd_att);
            // For what is made of this row, while the next one is read.
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

/// The tables that pg_extension_config_dump() has recorded for an extension, in order; none if it is not
/// installed.
pub(crate) fn extension_config(extension: &CStr) -> Vec<pg_sys::Oid> {
    // SAFETY: a look-up in a catalog by its index (as in get_extension_oid, src/backend/commands/extension.c).
    // `extconfig` is an oid[] without NULLs, or NULL; it is copied before the scan ends.
    let tables = with_table(pg_sys::ExtensionRelationId, |relation| unsafe {
        #[expect(clippy::cast_possible_truncation, reason = "two small constants of C")]
        let (column, strategy) = (
            pg_sys::Anum_pg_extension_extname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
        );
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &raw mut key,
            column,
            strategy,
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
    // SAFETY: the relation's array of triggers, with their C strings, lives while it is open.
    let has = with_table(table, |relation| unsafe {
        let triggers = match (*relation).trigdesc.as_ref() {
            Some(all) => {
                let count = usize::try_from(all.numtriggers).unwrap_or(0);
                std::slice::from_raw_parts(all.triggers, count)
            }
            None => &[],
        };
        triggers.iter().any(|trigger| {
            CStr::from_ptr(trigger.tgname) == name
                && trigger.tgenabled == pg_sys::TRIGGER_FIRES_ALWAYS as c_char
        })
    });
    has.unwrap_or(false)
}

/// row_to_json() of a tuple.
///
/// # Safety
/// The tuple has this row type, and its lock is held.
pub(crate) unsafe fn tuple_as_json(
    tuple: pg_sys::HeapTuple,
    row_type: pg_sys::TupleDesc,
) -> Result<String, String> {
    // SAFETY: the copy is a composite value, and row_to_json returns a text, which has the same layout
    // as a bytea.
    let json: Option<&[u8]> = unsafe {
        let row = pg_sys::heap_copy_tuple_as_datum(tuple, row_type);
        pgrx::direct_function_call(pg_sys::row_to_json, &[Some(row)])
    };
    datum::from_server(json.unwrap_or_default().to_vec())
}
