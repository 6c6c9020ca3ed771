//! Tables, read as catalogs are: without SPI, which would need the caller's privileges and use its
//! transaction's snapshot.

use std::ffi::CStr;
use std::mem::ManuallyDrop;

use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum, PgMemoryContexts};

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

/// The rows of a table that have `value`, or NULL, in a text column, as they are committed now. By an index
/// on that column, if there is one ([`index_on`]).
///
/// Not by SPI: that would ask for the caller's privileges, and see what its transaction's snapshot
/// sees, which in REPEATABLE READ is the past.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn rows(
    table: pg_sys::Oid,
    column: &CStr,
    value: Option<&[u8]>,
) -> Result<Vec<Row>, Error> {
    // SAFETY: systable_beginscan reads any heap, by any of its indexes (genam.c); without a snapshot it
    // takes a fresh one, as for catalogs, also in a parallel worker. Each tuple is copied before the
    // next is fetched. An ERROR in between leaves the scan to the resource owner.
    let read = |relation| unsafe {
        let Some(column) = text_column(relation, column) else {
            return Ok(Vec::new());
        };
        let mut key = equal(column, value);
        let index = index_on(relation, column);
        let by_index = index != pg_sys::InvalidOid;
        let null = std::ptr::null_mut();
        // Without the index there is no key: a heap scan takes none for NULL.
        let keys = i32::from(by_index);
        let scan = pg_sys::systable_beginscan(relation, index, by_index, null, keys, &raw mut key);
        let mut rows = Ok(Vec::new());
        while let Ok(found) = &mut rows {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let mut is_null = true;
            let own = pg_sys::heap_getattr(tuple, column.into(), (*relation).rd_att, &mut is_null);
            // A text has the same layout as a bytea.
            if <&[u8]>::from_datum(own, is_null) == value {
                match read_row(tuple, (*relation).rd_att) {
                    Ok(row) => found.push(row),
                    Err(error) => rows = Err(error),
                }
            }
        }
        pg_sys::systable_endscan(scan);
        rows
    };
    // What is allocated on the way goes at once: many issuers may be looked up in one statement.
    // After an ERROR it goes with the caller's: what is still open then refers to it.
    let mut scratch = ManuallyDrop::new(PgMemoryContexts::new("pg_session_jwt rows"));
    // SAFETY: nothing that is returned was allocated by Postgres.
    let rows = unsafe { scratch.switch_to(|_| with_table(table, read)) };
    drop(ManuallyDrop::into_inner(scratch));
    rows.unwrap_or_else(|| Ok(Vec::new()))
}

/// Whether a table has a row. By the index on the column, if there is one: it is quicker past many deleted
/// rows, since the next scan skips what this one finds dead.
pub(crate) fn has_row(table: pg_sys::Oid, column: &CStr) -> bool {
    // SAFETY: as in `rows`.
    let has = with_table(table, |relation| unsafe {
        let column = text_column(relation, column);
        let index = column.map_or(pg_sys::InvalidOid, |column| index_on(relation, column));
        let by_index = index != pg_sys::InvalidOid;
        let null = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(relation, index, by_index, null, 0, null.cast());
        let has = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        has
    });
    has.unwrap_or(false)
}

/// # Safety
/// The tuple is of the row type, and its lock is held.
unsafe fn read_row(tuple: pg_sys::HeapTuple, row_type: pg_sys::TupleDesc) -> Result<Row, Error> {
    // The row's length is known only afterwards.
    memory::room(4 * memory::ROOM)?;
    // SAFETY: the caller's promise.
    let (json, written_by) = unsafe {
        let json = tuple_as_json(tuple, row_type);
        (json, (*(*tuple).t_data).t_choice.t_heap.t_xmin)
    };
    // For the next row, and for parsing this one.
    memory::room_to_read(json.as_ref().map_or(0, String::len))?;
    memory::room(memory::ROOM)?;
    Ok(Row {
        json,
        // SAFETY: any number will do.
        is_written_here: unsafe { pg_sys::TransactionIdIsCurrentTransactionId(written_by) },
    })
}

/// The number of a column of this name; `None` if there is none, or it is not a text.
///
/// # Safety
/// The relation is open.
unsafe fn text_column(relation: pg_sys::Relation, name: &CStr) -> Option<i16> {
    // SAFETY: the row type is valid while the relation is open.
    unsafe {
        let number = pg_sys::SPI_fnumber((*relation).rd_att, name.as_ptr());
        let is_text = number > 0
            && matches!(
                pg_sys::SPI_gettypeid((*relation).rd_att, number),
                pg_sys::TEXTOID | pg_sys::VARCHAROID
            );
        i16::try_from(number).ok().filter(|_| is_text)
    }
}

/// The index that finds all rows by a text column: valid, a btree in byte order with that column first, and
/// without a condition. InvalidOid if there is none, or it must not be used now.
///
/// Not by its name, which may change. An index that must not be used yet by older snapshots
/// (`indcheckxmin`) may be by a fresh one.
///
/// # Safety
/// The relation is open, and locked until the index is used.
unsafe fn index_on(relation: pg_sys::Relation, column: i16) -> pg_sys::Oid {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: the list is a copy; an index in it is there as long as its table is locked, and has at least
    // one column.
    unsafe {
        if pg_sys::IgnoreSystemIndexes {
            return pg_sys::InvalidOid;
        }
        let list = pg_sys::RelationGetIndexList(relation);
        let count = if list.is_null() { 0 } else { (*list).length };
        let mut indexes = (0..count).map(|number| pg_sys::list_nth_oid(list, number));
        let fits = |&oid: &pg_sys::Oid| {
            let index = pg_sys::index_open(oid, lock);
            let record = &*(*index).rd_index;
            let indpred = pg_sys::Anum_pg_index_indpred as i32;
            let null = std::ptr::null_mut();
            let fits = record.indisvalid
                && *record.indkey.values.as_ptr() == column
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && *(*index).rd_opfamily == pg_sys::TEXT_BTREE_FAM_OID
                && *(*index).rd_indcollation == pg_sys::C_COLLATION_OID
                && pg_sys::heap_attisnull((*index).rd_indextuple, indpred, null)
                && !pg_sys::ReindexIsProcessingIndex(oid);
            pg_sys::index_close(index, lock);
            fits
        };
        indexes.find(fits).unwrap_or(pg_sys::InvalidOid)
    }
}

/// The condition that a text column has this value, or is NULL.
fn equal(column: i16, value: Option<&[u8]>) -> pg_sys::ScanKeyData {
    let (flags, strategy, procedure) = match value {
        Some(_) => (0, pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ),
        None => (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL, 0, 0),
    };
    let mut key = pg_sys::ScanKeyData::default();
    // SAFETY: the function is looked up by its number; the value is copied, as a text.
    unsafe {
        pg_sys::ScanKeyEntryInitialize(
            &raw mut key,
            flags as i32,
            column,
            strategy as u16,
            pg_sys::InvalidOid,
            pg_sys::C_COLLATION_OID,
            procedure.into(),
            value
                .and_then(IntoDatum::into_datum)
                .unwrap_or(Datum::null()),
        );
    }
    key
}

/// The tables that pg_extension_config_dump() has recorded for an extension, in order; none if it is not
/// installed.
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
    // SAFETY: the relation's array of triggers, with their C strings, lives while it is open.
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
