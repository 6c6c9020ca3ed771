//! Policies of the form `(SELECT expression)`, planned as the expression itself.
//!
//! To Postgres, a sub-select that names a column of the row is a query of its own for each row, and no condition of an
//! index. Drizzle generates policies of this form.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `safe` | the rule that says what may be computed elsewhere than it was written |
//! | `tree` | the planner's trees |
//!
//! Only policies are changed (`securityQuals` of a query, after the rewriter has put them there), and of them only
//! what can neither fail nor depend on when and how often it is computed, so that no answer changes.

#![allow(unsafe_code, reason = "the planner's trees")]

mod safe;
mod tree;

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pgrx::pg_sys::{self, Node, NodeTag, ParamListInfo, PlannedStmt, Query};

use crate::guc;
use safe::{Columns, can_be_split, is_safe};
use tree::{items, raw, selected};

type Planner = unsafe extern "C-unwind" fn(
    *mut Query,
    *const c_char,
    c_int,
    ParamListInfo,
) -> *mut PlannedStmt;

static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Installs the hook.
pub(crate) fn define() {
    // SAFETY: the hook stays, as the library does; if there is another, it is called next. Plans that were made
    // before are made again.
    unsafe {
        if let Some(next) = pg_sys::planner_hook {
            NEXT.store(next as *mut c_void, Relaxed);
        }
        pg_sys::planner_hook = Some(planner);
        if !pg_sys::process_shared_preload_libraries_in_progress {
            pg_sys::ResetPlanCache();
        }
    }
}

/// The planner's own errors pass through as they are: pgrx's binding would take their CONTEXT away and add the frames of
/// Rust.
unsafe extern "C-unwind" fn planner(
    query: *mut Query,
    text: *const c_char,
    options: c_int,
    parameters: ParamListInfo,
) -> *mut PlannedStmt {
    unsafe extern "C-unwind" {
        fn standard_planner(
            query: *mut Query,
            text: *const c_char,
            options: c_int,
            parameters: ParamListInfo,
        ) -> *mut PlannedStmt;
    }
    // SAFETY: called by Postgres; null or the previous hook. No frame here has a destructor.
    unsafe {
        if (*query).hasRowSecurity && guc::flatten_policies() {
            of_query(query);
        }
        let next = NEXT.load(Relaxed);
        if next.is_null() {
            standard_planner(query, text, options, parameters)
        } else {
            std::mem::transmute::<*mut c_void, Planner>(next)(query, text, options, parameters)
        }
    }
}

/// Changes the policies of a query and of those within it.
///
/// # Safety
/// A query, which is this statement's own copy.
unsafe fn of_query(query: *mut Query) {
    // SAFETY: the parts of a query (src/include/nodes/parsenodes.h).
    unsafe {
        raw::check_stack_depth();
        for table in items((*query).rtable) {
            let table = (*table).cast::<pg_sys::RangeTblEntry>();
            if !(*table).securityQuals.is_null() && !tree::computes_columns((*table).relid) {
                for policy in items((*table).securityQuals) {
                    *policy = flattened(*policy);
                }
            }
            if !(*table).subquery.is_null() {
                of_query((*table).subquery);
            }
        }
        for table in items((*query).cteList) {
            let table = (*table).cast::<pg_sys::CommonTableExpr>();
            let _ = of_node((*table).ctequery, std::ptr::null_mut());
        }
        if (*query).hasSubLinks {
            let ours = pg_sys::QTW_IGNORE_RT_SUBQUERIES | pg_sys::QTW_IGNORE_CTE_SUBQUERIES;
            raw::query_tree_walker(query, of_node, std::ptr::null_mut(), ours as c_int);
        }
    }
}

/// The same for the queries in an expression. False, to go on.
unsafe extern "C-unwind" fn of_node(node: *mut Node, context: *mut c_void) -> bool {
    // SAFETY: null, or a node of this statement's own copy.
    unsafe {
        match node.as_ref().map(|node| node.type_) {
            None => false,
            Some(NodeTag::T_Query) => {
                of_query(node.cast());
                false
            }
            Some(_) => raw::expression_tree_walker(node, of_node, context),
        }
    }
}

/// A policy's condition: sub-selects that are it, or one side of an AND, OR or NOT in it, become their expression.
///
/// # Safety
/// As for [`of_query`].
unsafe fn flattened(condition: *mut Node) -> *mut Node {
    // SAFETY: a node, and its parts, of the type that its tag says.
    unsafe {
        match condition.as_ref().map(|node| node.type_) {
            Some(NodeTag::T_BoolExpr) => {
                for part in items((*condition.cast::<pg_sys::BoolExpr>()).args) {
                    *part = flattened(*part);
                }
                condition
            }
            Some(NodeTag::T_SubLink) => match selected(condition.cast()) {
                // Without a column, it is computed once for the whole query: better than the bare expression.
                Some(expression)
                    if raw::contain_vars_of_level(expression, 1)
                        && is_safe(expression, Columns::Allowed)
                        && can_be_split(expression) =>
                {
                    let expression = raw::copyObjectImpl(expression.cast()).cast();
                    raw::IncrementVarSublevelsUp(expression, -1, 1);
                    expression
                }
                _ => condition,
            },
            _ => condition,
        }
    }
}
