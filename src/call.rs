//! The frame around every SQL function: its arguments, its errors, and for accessors the value kept at
//! the call site, so that a row costs what a constant costs.

#![allow(unsafe_code, reason = "the fmgr interface")]

use std::ffi::CStr;

use pgrx::FromDatum;
use pgrx::pg_sys::{self, Datum};

use crate::datum;
use crate::error::{self, Error};
use crate::memory;
use crate::session::{self, Identity};
use crate::table;

/// What a body returns: a value, or SQL NULL.
pub(crate) type Answer = Result<Option<Datum>, Error>;

/// A call of a SQL function.
pub(crate) struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// The bytes of a text argument, detoasted; `None` for SQL NULL.
    ///
    /// Not a `&str`: in a database that is not UTF-8, a text need not be one.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        // SAFETY: the function's SQL definition says that this argument is a text, which has the same
        // layout as a bytea; a detoasted copy lives as long as the call.
        self.argument(index)
            .and_then(|value| unsafe { FromDatum::from_datum(value, false) })
    }

    /// A boolean argument; `None` for SQL NULL.
    pub fn bool(&self, index: usize) -> Option<bool> {
        self.argument(index).map(|value| value.value() != 0)
    }

    /// An argument as it is; `None` for SQL NULL.
    pub fn argument(&self, index: usize) -> Option<Datum> {
        // SAFETY: Postgres allocates `nargs` arguments after the struct (src/include/fmgr.h).
        let arguments = unsafe {
            let info = &*self.0;
            info.args.as_slice(usize::try_from(info.nargs).unwrap_or(0))
        };
        arguments
            .get(index)
            .filter(|argument| !argument.isnull)
            .map(|argument| argument.value)
    }

    /// The type that the function was declared to return, as a row type.
    pub fn row_type(&self) -> pg_sys::TupleDesc {
        let mut row_type = std::ptr::null_mut();
        // SAFETY: reads the catalog entry of the function being called.
        unsafe {
            pg_sys::get_call_result_type(self.0, std::ptr::null_mut(), &mut row_type);
            pg_sys::BlessTupleDesc(row_type)
        }
    }

    /// Checks that the function is declared to return what its body returns: otherwise the caller would
    /// take one kind of value for another.
    fn check_declared(&self, returns: pg_sys::Oid) -> Result<(), Error> {
        // SAFETY: valid during the call; a look-up in the catalog.
        let declared = unsafe {
            let Some(info) = (*self.0).flinfo.as_ref() else {
                return Ok(());
            };
            pg_sys::get_func_rettype(info.fn_oid)
        };
        (declared == returns)
            .then_some(())
            .ok_or(Error::DeclaredOtherwise)
    }

    /// Begins the result of a function that returns rows.
    pub fn rows(&self) -> Rows {
        // SAFETY: raises an ERROR if the caller cannot take a set (src/backend/utils/fmgr/funcapi.c).
        unsafe {
            pg_sys::InitMaterializedSRF(self.0, 0);
            Rows((*self.0).resultinfo.cast())
        }
    }

    /// The event of a trigger that fires BEFORE each row, or else AFTER each statement. `None` if the
    /// function was not called by such a trigger.
    pub fn trigger(&self, before_each_row: bool) -> Option<Trigger<'_>> {
        const BEFORE_ROW: u32 = pg_sys::TRIGGER_EVENT_BEFORE | pg_sys::TRIGGER_EVENT_ROW;
        const AFTER_STATEMENT: u32 = pg_sys::TRIGGER_EVENT_AFTER;
        // SAFETY: `context` is null or a node whose tag says what it is (src/include/commands/trigger.h,
        // CALLED_AS_TRIGGER); a TriggerData is valid during the call.
        unsafe {
            let context = (*self.0).context;
            let is_trigger =
                !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData;
            if !is_trigger {
                return None;
            }
            let trigger = &*context.cast::<pg_sys::TriggerData>();
            let when = pg_sys::TRIGGER_EVENT_TIMINGMASK | pg_sys::TRIGGER_EVENT_ROW;
            let wanted = if before_each_row {
                BEFORE_ROW
            } else {
                AFTER_STATEMENT
            };
            (trigger.tg_event & when == wanted).then_some(Trigger(trigger))
        }
    }

    /// Whether the arguments are the same at each call from this call site: none, or constants.
    ///
    /// get_fn_expr_arg_stable() does not help: it counts parameters as stable, and a PL/pgSQL expression
    /// keeps its call site while the variables behind its parameters change.
    fn arguments_are_constant(&self) -> bool {
        // SAFETY: `flinfo` is valid during the call; `fn_expr`, where it is a FuncExpr, holds the
        // planned argument expressions.
        unsafe {
            if (*self.0).nargs == 0 {
                return true;
            }
            let expression = (*(*self.0).flinfo).fn_expr;
            if expression.is_null() || (*expression).type_ != pg_sys::NodeTag::T_FuncExpr {
                return false;
            }
            let arguments = (*expression.cast::<pg_sys::FuncExpr>()).args;
            !arguments.is_null()
                && (0..(*arguments).length).all(|index| {
                    let node = pg_sys::list_nth(arguments, index).cast::<pg_sys::Node>();
                    (*node).type_ == pg_sys::NodeTag::T_Const
                })
        }
    }

    /// The call site's memory of its last value; null if it can have none.
    fn site(&self) -> *mut CallSite {
        // SAFETY: `fn_extra` is null or was set here: it belongs to the called function
        // (src/include/fmgr.h), and each of our C functions is called through its own FmgrInfo.
        unsafe {
            let Some(info) = (*self.0).flinfo.as_mut() else {
                return std::ptr::null_mut();
            };
            if info.fn_extra.is_null()
                && self.arguments_are_constant()
                && !outlives_its_statement(info.fn_mcxt)
            {
                let zeroed = pg_sys::MemoryContextAllocZero(info.fn_mcxt, size_of::<CallSite>());
                info.fn_extra = zeroed;
            }
            info.fn_extra.cast()
        }
    }
}

/// Whether a call site with this `fn_mcxt` lives for more than one statement, so that it may not keep
/// what must be checked against the clock in each.
///
/// A query's call sites end with the query. PL/pgSQL keeps those of its "simple expressions" until the
/// transaction or the DO block ends (src/pl/plpgsql/src/pl_exec.c, plpgsql_create_econtext;
/// pl_handler.c, plpgsql_inline_handler): in an executor state directly below TopTransactionContext, or
/// below SPI's context for the procedure. Such a call reads the clock; a row of a query does not.
///
/// # Safety
/// `context` is valid.
unsafe fn outlives_its_statement(context: pg_sys::MemoryContext) -> bool {
    // SAFETY: the caller's promise; a context's name is a C string.
    unsafe {
        let parent = (*context).parent;
        let in_worker = pg_sys::ParallelWorkerNumber >= 0;
        (parent == pg_sys::TopTransactionContext && !in_worker)
            || (!parent.is_null() && CStr::from_ptr((*parent).name) == c"SPI Proc")
    }
}

/// A trigger's event.
pub(crate) struct Trigger<'a>(&'a pg_sys::TriggerData);

impl Trigger<'_> {
    /// The table.
    pub fn table(&self) -> pg_sys::Oid {
        // SAFETY: open during the call.
        unsafe { (*self.0.tg_relation).rd_id }
    }

    /// Whether who writes is the owner of the table, or a superuser.
    pub fn is_by_owner_or_superuser(&self) -> bool {
        // SAFETY: open during the call; plain reads of the session's state.
        unsafe {
            let owner = (*(*self.0.tg_relation).rd_rel).relowner;
            pg_sys::superuser() || pg_sys::GetUserId() == owner
        }
    }

    /// The row as it was, for a row-level UPDATE or DELETE.
    pub fn old_row(&self) -> Option<Row<'_>> {
        let is_insert = self.event() == pg_sys::TRIGGER_EVENT_INSERT;
        (!is_insert).then_some(Row(self.0.tg_trigtuple, self.0))
    }

    /// The row as it will be, for a row-level INSERT or UPDATE.
    pub fn new_row(&self) -> Option<Row<'_>> {
        match self.event() {
            pg_sys::TRIGGER_EVENT_INSERT => Some(Row(self.0.tg_trigtuple, self.0)),
            pg_sys::TRIGGER_EVENT_UPDATE => Some(Row(self.0.tg_newtuple, self.0)),
            _ => None,
        }
    }

    fn event(&self) -> u32 {
        self.0.tg_event & pg_sys::TRIGGER_EVENT_OPMASK
    }
}

/// A row of the table that a trigger is for. It is not null, has the table's row type, and lives as long as the
/// call.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a>(pg_sys::HeapTuple, &'a pg_sys::TriggerData);

impl Row<'_> {
    /// row_to_json()
    pub fn as_json(self) -> Result<String, String> {
        // SAFETY: a tuple of the table, which is open and locked during the call.
        unsafe { table::tuple_as_json(self.0, self.row_type()) }
    }

    /// What a BEFORE trigger returns.
    pub fn datum(self) -> Datum {
        Datum::from(self.0)
    }

    /// The row with other values, which are passed by value; where there is none, or no such column, the column
    /// stays as it is.
    pub fn with(self, values: &[(&CStr, Option<Datum>)]) -> Self {
        let mut row = self;
        for (column, value) in values {
            // SAFETY: a tuple of the table, whose row type gives the number of the column; the result is palloc'd.
            unsafe {
                let mut number = pg_sys::SPI_fnumber(self.row_type(), column.as_ptr());
                if let (Some(mut value), true) = (*value, number > 0) {
                    let (number, value, mut is_null) = (&raw mut number, &raw mut value, false);
                    row.0 = pg_sys::heap_modify_tuple_by_cols(
                        row.0,
                        self.row_type(),
                        1,
                        number,
                        value,
                        &raw mut is_null,
                    );
                }
            }
        }
        row
    }

    fn row_type(self) -> pg_sys::TupleDesc {
        // SAFETY: open during the call.
        unsafe { (*self.1.tg_relation).rd_att }
    }
}

/// The rows that a set-returning function returns, all at once.
pub(crate) struct Rows(*mut pg_sys::ReturnSetInfo);

impl Rows {
    /// Adds one. It must have as many columns as the function's result, of their types.
    pub fn add<const N: usize>(&mut self, values: [Option<Datum>; N]) {
        let mut nulls = values.map(|value| value.is_none());
        let mut values = values.map(|value| value.unwrap_or_else(Datum::null));
        // SAFETY: InitMaterializedSRF has set both; the values are copied.
        unsafe {
            pg_sys::tuplestore_putvalues(
                (*self.0).setResult,
                (*self.0).setDesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

/// What an accessor keeps in `fn_extra`: its value, for as long as the inputs stay the same.
///
/// The value is a copy in `fn_mcxt`, so it lives as long as the calling expression, longer than Postgres
/// keeps an expression's result. It is never freed or changed before; a new value gets new memory.
#[repr(C)]
struct CallSite {
    /// [`session::stamp`] when the value was computed; 0, which is never a stamp, if there is no value.
    stamp: u64,
    value: Datum,
    is_null: bool,
    /// How many values have been kept here.
    kept: u8,
}

/// A call site that sees more identities than this stops keeping them: `fn_mcxt` can live as long as a
/// transaction.
const MAX_KEPT: u8 = 8;

/// A copy of a value in `context`; the catalog gives the length for its type.
///
/// # Safety
/// The value has this type and is not toasted; the context is valid.
unsafe fn keep(value: Datum, of_type: pg_sys::Oid, context: pg_sys::MemoryContext) -> Datum {
    let (mut length, mut by_value) = (0, false);
    // SAFETY: a catalog look-up, and the caller's promise.
    unsafe {
        pg_sys::get_typlenbyval(of_type, &raw mut length, &raw mut by_value);
        match usize::try_from(length) {
            _ if by_value => value,
            Ok(length) => datum::copy_bytes(value, length, context),
            // -1: a varlena (src/include/catalog/pg_type.h).
            Err(_) => datum::copy_varlena(value, context),
        }
    }
}

/// Runs the body of a SQL function. Only here does an [`Error`] become an ERROR.
///
/// # Safety
/// `fcinfo` is from Postgres's call of the C function, which does nothing but make this call.
pub(crate) unsafe fn function(
    fcinfo: pg_sys::FunctionCallInfo,
    body: impl FnOnce(&Call) -> Answer,
) -> Datum {
    // SAFETY: this frame and those above have no destructors.
    let answer = unsafe {
        memory::ask_for(memory::ROOM);
        error::guarded(|| body(&Call(fcinfo)))
    };
    answer.unwrap_or_else(|| {
        // SAFETY: valid during the call.
        unsafe { (*fcinfo).isnull = true };
        Datum::null()
    })
}

/// Runs an accessor: returns the value kept at the call site if nothing has changed, else runs `compute`
/// and keeps the result, which has the type that it `returns`.
///
/// # Safety
/// As [`function`].
#[inline]
pub(crate) unsafe fn accessor(
    fcinfo: pg_sys::FunctionCallInfo,
    returns: pg_sys::Oid,
    compute: fn(&Identity, &Call) -> Answer,
) -> Datum {
    // SAFETY: the pointers are valid during the call; for `fn_extra` see `Call::site`.
    unsafe {
        if let Some(info) = (*fcinfo).flinfo.as_ref()
            && let Some(site) = info.fn_extra.cast::<CallSite>().as_ref()
            && Some(site.stamp) == session::stamp()
        {
            (*fcinfo).isnull = site.is_null;
            return site.value;
        }
        compute_and_keep(fcinfo, returns, compute)
    }
}

/// # Safety
/// As [`accessor`].
#[cold]
unsafe fn compute_and_keep(
    fcinfo: pg_sys::FunctionCallInfo,
    returns: pg_sys::Oid,
    compute: fn(&Identity, &Call) -> Answer,
) -> Datum {
    let body = |call: &Call| {
        call.check_declared(returns)?;
        let identity = session::identity()?;
        let Some(stamp) = session::stamp() else {
            return compute(&identity, call);
        };
        // SAFETY: null, or memory of this call site only, which the functions called below do not touch:
        // none of them calls SQL.
        let Some(site) = (unsafe { call.site().as_mut() }) else {
            return compute(&identity, call);
        };
        // If only the statement has changed, the value is still valid.
        if site.stamp != stamp {
            let answer = compute(&identity, call)?;
            if site.kept == MAX_KEPT {
                return Ok(answer);
            }
            site.kept += 1;
            site.is_null = answer.is_none();
            site.value = match answer {
                None => Datum::null(),
                // SAFETY: a call site has an flinfo, whose memory context lives as long as it does.
                Some(value) => unsafe { keep(value, returns, (*(*fcinfo).flinfo).fn_mcxt) },
            };
            site.stamp = stamp;
        }
        Ok((!site.is_null).then_some(site.value))
    };
    // SAFETY: the caller's promise.
    unsafe { function(fcinfo, body) }
}
