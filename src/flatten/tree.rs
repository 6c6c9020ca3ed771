//! The planner's trees.

use std::ffi::{c_int, c_void};

use pgrx::pg_sys::{self, List, Node, NodeTag, Oid, Query};

/// Functions of Postgres without pgrx's guard. An ERROR passes through as it is: a guard would take its CONTEXT away, add
/// the frames of Rust where RUST_BACKTRACE is set, and use up the stack where it is called at each level of a tree. No
/// frame of this module has a destructor, so that the jump loses nothing.
pub(super) mod raw {
    use super::{Node, Oid, Query, c_int, c_void, pg_sys};

    type Walker = unsafe extern "C-unwind" fn(*mut Node, *mut c_void) -> bool;

    unsafe extern "C-unwind" {
        pub safe fn check_stack_depth();
        #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
        pub fn query_tree_walker(
            query: *mut Query,
            walker: Walker,
            context: *mut c_void,
            flags: c_int,
        ) -> bool;
        #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
        pub fn expression_tree_walker(
            node: *mut Node,
            walker: Walker,
            context: *mut c_void,
        ) -> bool;
        pub fn contain_vars_of_level(node: *mut Node, levels_up: c_int) -> bool;
        pub fn copyObjectImpl(from: *const c_void) -> *mut c_void;
        pub fn IncrementVarSublevelsUp(node: *mut Node, by: c_int, from: c_int);
        pub fn SearchSysCache1(cache: c_int, key: pg_sys::Datum) -> pg_sys::HeapTuple;
        pub fn ReleaseSysCache(row: pg_sys::HeapTuple);
        pub fn get_opcode(operator: Oid) -> Oid;
        pub fn get_namespace_oid(name: *const std::ffi::c_char, missing_ok: bool) -> Oid;
        pub fn get_func_signature(function: Oid, types: *mut *mut Oid, count: *mut c_int) -> Oid;
        pub fn get_collation_isdeterministic(collation: Oid) -> bool;
        #[cfg(feature = "pg18")]
        pub fn relation_open(relation: Oid, lock: c_int) -> pg_sys::Relation;
        #[cfg(feature = "pg18")]
        pub fn relation_close(relation: pg_sys::Relation, lock: c_int);
    }
}

/// Whether a table has columns that are computed when they are read. Such a column stands for its expression, which the
/// planner puts in its place later, and which may fail.
///
/// # Safety
/// A table of the query, which is locked.
#[cfg(feature = "pg18")]
pub(super) unsafe fn computes_columns(table: Oid) -> bool {
    // SAFETY: the caller's promise; `constr` is null or part of the row type.
    unsafe {
        let relation = raw::relation_open(table, 0);
        let constraints = (*(*relation).rd_att).constr.as_ref();
        let computes = constraints.is_some_and(|it| it.has_generated_virtual);
        raw::relation_close(relation, 0);
        computes
    }
}

/// Before Postgres 18, there are none.
#[cfg(not(feature = "pg18"))]
pub(super) unsafe fn computes_columns(_: Oid) -> bool {
    false
}

/// The places of a list.
///
/// # Safety
/// Null, or a list of nodes that stays as long while it is used.
pub(super) unsafe fn items<'a>(list: *mut List) -> impl Iterator<Item = &'a mut *mut Node> {
    // SAFETY: the caller's promise.
    let cells = unsafe {
        match list.as_ref() {
            None => &mut [],
            Some(list) => {
                let length = usize::try_from(list.length).unwrap_or(0);
                std::slice::from_raw_parts_mut(list.elements.cast::<*mut Node>(), length)
            }
        }
    };
    cells.iter_mut()
}

/// The expression of a `(SELECT expression)` that has nothing else.
pub(super) unsafe fn selected(link: *mut pg_sys::SubLink) -> Option<*mut Node> {
    // SAFETY: the parts of a query (src/include/nodes/parsenodes.h).
    unsafe {
        let link = &*link;
        let query = link.subselect.cast::<Query>().as_ref()?;
        let from = query.jointree.as_ref()?;
        let is_bare = link.subLinkType == pg_sys::SubLinkType::EXPR_SUBLINK
            && link.testexpr.is_null()
            && query.type_ == NodeTag::T_Query
            && query.commandType == pg_sys::CmdType::CMD_SELECT
            && !(query.hasAggs || query.hasWindowFuncs || query.hasTargetSRFs)
            && !(query.hasDistinctOn || query.hasModifyingCTE || query.hasForUpdate)
            && from.quals.is_null()
            && [
                query.rtable,
                query.cteList,
                from.fromlist,
                query.groupClause,
                query.groupingSets,
                query.windowClause,
                query.distinctClause,
                query.sortClause,
                query.rowMarks,
            ]
            .into_iter()
            .all(|list| list.is_null())
            && [
                query.utilityStmt,
                query.havingQual,
                query.limitOffset,
                query.limitCount,
                query.setOperations,
            ]
            .into_iter()
            .all(|node| node.is_null());
        let mut targets = items(query.targetList);
        let target = (*targets.next()?).cast::<pg_sys::TargetEntry>();
        let is_one = targets.next().is_none() && !(*target).resjunk;
        (is_bare && is_one).then(|| (*target).expr.cast())
    }
}
