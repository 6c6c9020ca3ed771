//! Tables, read as catalogs are: without SPI, which would need the caller's privileges and use its
//! transaction's snapshot.

#![allow(unsafe_code, reason = "relations and tuples")]

use std::ffi::{CStr, c_char};
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
    /// The text in its column `name`, if it has one.
    pub name: Option<Vec<u8>>,
    /// By the current transaction, or one of its live subtransactions.
    pub is_written_here: bool,
}

/// The rows of a table that have `value`, or NULL, in a text column, as they are committed now. By an index
/// on that column, if there is one ([`index_on`]).
///
/// Not by SPI: that would need the caller's privileges, and use its transaction's snapshot, which in
/// REPEATABLE READ is the past.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn rows(
    table: pg_sys::Oid,
    column: &CStr,
    value: Option<&[u8]>,
) -> Result<Vec<Row>, Error> {
    // SAFETY: the relation is open; each tuple is copied before the next is fetched.
    let read = |relation| unsafe {
        let Some(column) = column_of(relation, column, &[pg_sys::TEXTOID, pg_sys::VARCHAROID])
        else {
            return Ok(Vec::new());
        };
        let mut key = equal(column, value);
        let mut scan = Scan::begin(relation, Some(column), Some(&mut key));
        let mut rows = Ok(Vec::new());
        while let Ok(found) = &mut rows
            && let Some(tuple) = scan.next()
        {
            if text(tuple, column, (*relation).rd_att) == value {
                match read_row(tuple, (*relation).rd_att) {
                    Ok(row) => found.push(row),
                    Err(error) => rows = Err(error),
                }
            }
        }
        scan.end();
        rows
    };
    // What is allocated on the way goes at once: many issuers may be looked up in one statement. After an
    // ERROR it goes with the caller's: what is still open then refers to it.
    let mut scratch = ManuallyDrop::new(PgMemoryContexts::new("pg_session_jwt rows"));
    // SAFETY: nothing that is returned was allocated by Postgres.
    let rows = unsafe { scratch.switch_to(|_| with_table(table, read)) };
    drop(ManuallyDrop::into_inner(scratch));
    rows.unwrap_or_else(|| Ok(Vec::new()))
}

/// Whether a table has a row. By the index on the column, if there is one: past many deleted rows it is
/// quicker, since a scan of it skips what an earlier one found dead.
pub(crate) fn has_row(table: pg_sys::Oid, column: &CStr) -> bool {
    // SAFETY: the relation is open.
    let has = with_table(table, |relation| unsafe {
        let column = column_of(relation, column, &[pg_sys::TEXTOID, pg_sys::VARCHAROID]);
        let mut scan = Scan::begin(relation, column, None);
        let has = scan.next().is_some();
        scan.end();
        has
    });
    has.unwrap_or(false)
}

/// The texts in a column of the first rows, at most `limit`, of those that have true in `flag`.
pub(crate) fn first_texts(
    table: pg_sys::Oid,
    column: &CStr,
    flag: &CStr,
    limit: usize,
) -> Vec<Vec<u8>> {
    // SAFETY: as in `rows`.
    let texts = with_table(table, |relation| unsafe {
        let column = column_of(relation, column, &[pg_sys::TEXTOID, pg_sys::VARCHAROID])?;
        let flag = column_of(relation, flag, &[pg_sys::BOOLOID])?;
        let mut scan = Scan::begin(relation, Some(column), None);
        let mut texts = Vec::new();
        for _ in 0..limit {
            let Some(tuple) = scan.next() else { break };
            let (flag, is_null) = attribute(tuple, flag, (*relation).rd_att);
            if bool::from_datum(flag, is_null) == Some(true) {
                let text: Option<&[u8]> = text(tuple, column, (*relation).rd_att);
                texts.extend(text.map(<[u8]>::to_vec));
            }
        }
        scan.end();
        Some(texts)
    });
    texts.flatten().unwrap_or_default()
}

/// The texts in a column, NULL among them, without repetition.
pub(crate) fn distinct_texts(table: pg_sys::Oid, column: &CStr) -> Vec<Option<Vec<u8>>> {
    let mut texts = texts_of(table, column, None);
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// The texts in a column of the rows that have `value` in the text column `of`.
pub(crate) fn texts_where(
    table: pg_sys::Oid,
    column: &CStr,
    of: &CStr,
    value: &[u8],
) -> Vec<Option<Vec<u8>>> {
    texts_of(table, column, Some((of, value)))
}

fn texts_of(
    table: pg_sys::Oid,
    column: &CStr,
    condition: Option<(&CStr, &[u8])>,
) -> Vec<Option<Vec<u8>>> {
    // SAFETY: as in `rows`.
    let texts = with_table(table, |relation| unsafe {
        let column = column_of(relation, column, &[pg_sys::TEXTOID])?;
        let condition = match condition {
            Some((of, value)) => Some((column_of(relation, of, &[pg_sys::TEXTOID])?, value)),
            None => None,
        };
        let mut scan = Scan::begin(relation, None, None);
        let mut texts = Vec::new();
        while let Some(tuple) = scan.next() {
            let row_type = (*relation).rd_att;
            if condition.is_none_or(|(of, value)| text(tuple, of, row_type) == Some(value)) {
                texts.push(text(tuple, column, row_type).map(<[u8]>::to_vec));
            }
        }
        scan.end();
        Some(texts)
    });
    texts.flatten().unwrap_or_default()
}

/// A scan of a table as catalogs are scanned: with a fresh snapshot, also in a parallel worker. An ERROR
/// leaves it to the resource owner.
struct Scan(pg_sys::SysScanDesc);

impl Scan {
    /// By the index on a text column, if there is one: of the rows that fulfil the condition on it, or of
    /// all in its order. Otherwise of all: a heap scan has no condition for NULL.
    ///
    /// # Safety
    /// The relation stays open, and the condition where it is, until the end of the scan.
    unsafe fn begin(
        relation: pg_sys::Relation,
        column: Option<i16>,
        condition: Option<&mut pg_sys::ScanKeyData>,
    ) -> Self {
        let no_snapshot = std::ptr::null_mut();
        // SAFETY: systable_beginscan reads any heap, by any of its indexes (genam.c).
        unsafe {
            let index = column.and_then(|column| index_on(relation, column));
            let condition = condition.filter(|_| index.is_some());
            let count = i32::from(condition.is_some());
            let condition = condition.map_or(std::ptr::null_mut(), std::ptr::from_mut);
            Self(pg_sys::systable_beginscan(
                relation,
                index.unwrap_or(pg_sys::InvalidOid),
                index.is_some(),
                no_snapshot,
                count,
                condition,
            ))
        }
    }

    /// The next tuple, valid until the one after it is asked for.
    fn next(&mut self) -> Option<pg_sys::HeapTuple> {
        // SAFETY: the scan has begun and not ended.
        let tuple = unsafe { pg_sys::systable_getnext(self.0) };
        (!tuple.is_null()).then_some(tuple)
    }

    fn end(self) {
        // SAFETY: the scan has begun and not ended.
        unsafe { pg_sys::systable_endscan(self.0) }
    }
}

/// A value of a tuple, and whether it is NULL.
///
/// # Safety
/// The tuple is of the row type, which has the column.
unsafe fn attribute(
    tuple: pg_sys::HeapTuple,
    column: i16,
    row_type: pg_sys::TupleDesc,
) -> (Datum, bool) {
    let mut is_null = true;
    // SAFETY: the caller's promise.
    let value = unsafe { pg_sys::heap_getattr(tuple, column.into(), row_type, &mut is_null) };
    (value, is_null)
}

/// A text of a tuple, valid as long as the tuple.
///
/// # Safety
/// As for [`attribute`]; the column is a text.
unsafe fn text<'a>(
    tuple: pg_sys::HeapTuple,
    column: i16,
    row_type: pg_sys::TupleDesc,
) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise; a text has the same layout as a bytea.
    unsafe {
        let (value, is_null) = attribute(tuple, column, row_type);
        FromDatum::from_datum(value, is_null)
    }
}

/// # Safety
/// The tuple is of the row type, and its lock is held.
unsafe fn read_row(tuple: pg_sys::HeapTuple, row_type: pg_sys::TupleDesc) -> Result<Row, Error> {
    // The row's length is known only afterwards.
    memory::room(4 * memory::ROOM)?;
    // SAFETY: the caller's promise.
    let (json, name, written_by) = unsafe {
        let json = tuple_as_json(tuple, row_type);
        let name = pg_sys::SPI_fnumber(row_type, c"name".as_ptr());
        let is_text = name > 0 && pg_sys::SPI_gettypeid(row_type, name) == pg_sys::TEXTOID;
        let name = i16::try_from(name).ok().filter(|_| is_text);
        let name = name.and_then(|name| text(tuple, name, row_type).map(<[u8]>::to_vec));
        (json, name, (*(*tuple).t_data).t_choice.t_heap.t_xmin)
    };
    // For the next row, and for parsing this one.
    memory::room_to_read(json.as_ref().map_or(0, String::len))?;
    memory::room(memory::ROOM)?;
    Ok(Row {
        json,
        name,
        // SAFETY: any number will do.
        is_written_here: unsafe { pg_sys::TransactionIdIsCurrentTransactionId(written_by) },
    })
}

/// The number of a column of this name; `None` if there is none, or it has none of these types.
///
/// # Safety
/// The relation is open.
unsafe fn column_of(relation: pg_sys::Relation, name: &CStr, types: &[pg_sys::Oid]) -> Option<i16> {
    // SAFETY: the row type is valid while the relation is open.
    unsafe {
        let row_type = (*relation).rd_att;
        let number = pg_sys::SPI_fnumber(row_type, name.as_ptr());
        let fits = number > 0 && types.contains(&pg_sys::SPI_gettypeid(row_type, number));
        i16::try_from(number).ok().filter(|_| fits)
    }
}

/// The index that finds all rows by a text column: valid, a btree in byte order with that column first, and
/// without a condition.
///
/// Not by its name, which may change. One that older snapshots must not use yet (`indcheckxmin`) is good
/// for a fresh one.
///
/// # Safety
/// The relation is open, and locked until the index is used.
unsafe fn index_on(relation: pg_sys::Relation, column: i16) -> Option<pg_sys::Oid> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: the list is a copy; an index in it is there as long as its table is locked, and has at least
    // one column.
    unsafe {
        if pg_sys::IgnoreSystemIndexes {
            return None;
        }
        let list = pg_sys::RelationGetIndexList(relation);
        let count = list.as_ref().map_or(0, |list| list.length);
        let mut indexes = (0..count).map(|number| pg_sys::list_nth_oid(list, number));
        indexes.find(|&oid| {
            let index = pg_sys::index_open(oid, lock);
            let record = &*(*index).rd_index;
            let condition = pg_sys::Anum_pg_index_indpred as i32;
            let fits = record.indisvalid
                && *record.indkey.values.as_ptr() == column
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && *(*index).rd_opfamily == pg_sys::TEXT_BTREE_FAM_OID
                && *(*index).rd_indcollation == pg_sys::C_COLLATION_OID
                && pg_sys::heap_attisnull((*index).rd_indextuple, condition, std::ptr::null_mut())
                && !pg_sys::ReindexIsProcessingIndex(oid);
            pg_sys::index_close(index, lock);
            fits
        })
    }
}

/// The condition that a text column has this value, or is NULL.
fn equal(column: i16, value: Option<&[u8]>) -> pg_sys::ScanKeyData {
    #[expect(clippy::cast_possible_truncation, reason = "a small constant of C")]
    let equal = pg_sys::BTEqualStrategyNumber as u16;
    let (flags, strategy, procedure) = match value {
        Some(_) => (0, equal, pg_sys::F_TEXTEQ),
        None => (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL, 0, 0),
    };
    let mut key = pg_sys::ScanKeyData::default();
    // SAFETY: the function is looked up by its number; the value is copied, as a text.
    unsafe {
        pg_sys::ScanKeyEntryInitialize(
            &raw mut key,
            flags as i32,
            column,
            strategy,
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

/// The owner of a table.
pub(crate) fn owner(table: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the relation is open.
    with_table(table, |relation| unsafe { (*(*relation).rd_rel).relowner })
}

/// The table of this name in the schema of another one, if it belongs to the extension.
pub(crate) fn sibling(table: pg_sys::Oid, name: &CStr, extension: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: look-ups in catalogs; invalid numbers are found nowhere.
    unsafe {
        let oid = pg_sys::get_relname_relid(name.as_ptr(), pg_sys::get_rel_namespace(table));
        let extension = pg_sys::get_extension_oid(extension.as_ptr(), true);
        let member_of = pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, oid);
        // A view, for instance, has no rows to scan.
        let is_table = pg_sys::get_rel_relkind(oid) == pg_sys::RELKIND_RELATION as c_char;
        let is_ours = is_table && member_of == extension;
        is_ours.then_some(oid)
    }
}

/// The databases that can be connected to, without templates. For a process without a database too.
pub(crate) fn databases() -> Vec<pg_sys::Oid> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let mut databases = Vec::new();
    // SAFETY: as in get_database_list (src/backend/postmaster/autovacuum.c). A row begins with this record
    // (GETSTRUCT, src/include/access/htup_details.h).
    unsafe {
        // Whether the relation is there, nobody can look up without a database.
        let relation = pg_sys::relation_open(pg_sys::DatabaseRelationId, lock);
        let mut scan = Scan::begin(relation, None, None);
        while let Some(tuple) = scan.next() {
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if row.datallowconn && !row.datistemplate {
                databases.push(row.oid);
            }
        }
        scan.end();
        pg_sys::relation_close(relation, lock);
    }
    databases
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
