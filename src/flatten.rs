//! Policies of the form `(SELECT expression)`, planned as the expression itself.
//!
//! To Postgres, a sub-select that names a column of the row is a query of its own for each row, and no condition of an
//! index. Drizzle generates policies of this form.
//!
//! Only policies are changed (`securityQuals` of a query, after the rewriter has put them there), and of them only
//! what can neither fail nor depend on when and how often it is computed, so that no answer changes.

#![allow(unsafe_code, reason = "the planner's trees")]

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pgrx::pg_guard;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::pg_sys::{self, List, Node, NodeTag, ParamListInfo, PlannedStmt, Query};

use crate::guc;

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
            pgrx_extern_c_guard(|| find_policies(query.cast(), std::ptr::null_mut()));
        }
        let next = NEXT.load(Relaxed);
        if next.is_null() {
            standard_planner(query, text, options, parameters)
        } else {
            std::mem::transmute::<*mut c_void, Planner>(next)(query, text, options, parameters)
        }
    }
}

/// Changes the policies of a query and of those within it. False, to go on.
#[pg_guard]
unsafe extern "C-unwind" fn find_policies(node: *mut Node, context: *mut c_void) -> bool {
    // SAFETY: a node of a query tree, which is this statement's own copy.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ != NodeTag::T_Query {
            return pg_sys::expression_tree_walker(node, Some(find_policies), context);
        }
        let query = node.cast::<Query>();
        for table in items((*query).rtable) {
            let table = (*table).cast::<pg_sys::RangeTblEntry>();
            for policy in items((*table).securityQuals) {
                *policy = flattened(*policy);
            }
        }
        pg_sys::query_tree_walker(query, Some(find_policies), context, 0)
    }
}

/// The places of a list.
///
/// # Safety
/// Null, or a list of nodes that stays as long while it is used.
unsafe fn items<'a>(list: *mut List) -> impl Iterator<Item = &'a mut *mut Node> {
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

/// A policy's condition: sub-selects that are it, or one side of an AND, OR or NOT in it, become their expression.
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
                    if pg_sys::contain_vars_of_level(expression, 1)
                        && is_safe(expression, Columns::Allowed)
                        && can_be_split(expression) =>
                {
                    let expression = pg_sys::copyObjectImpl(expression.cast()).cast();
                    pg_sys::IncrementVarSublevelsUp(expression, -1, 1);
                    expression
                }
                _ => condition,
            },
            _ => condition,
        }
    }
}

/// Whether Postgres can plan each part of an AND, OR or NOT by itself. As a part of a policy's condition that names no
/// column, it fails for `x = x` ("cannot cope with variable-free clause", 15 to 18), also where that comes about only when
/// expressions are simplified.
unsafe fn can_be_split(expression: *mut Node) -> bool {
    // SAFETY: as in `is_safe`.
    unsafe {
        let is = |node: *mut Node, tag| (*node).type_ == tag;
        match (*expression).type_ {
            NodeTag::T_BoolExpr => {
                let mut parts = items((*expression.cast::<pg_sys::BoolExpr>()).args);
                parts.all(|part| can_be_split(*part))
            }
            _ if pg_sys::contain_vars_of_level(expression, 1) => true,
            NodeTag::T_NullTest | NodeTag::T_BooleanTest | NodeTag::T_FuncExpr => true,
            NodeTag::T_OpExpr => {
                let mut sides = items((*expression.cast::<pg_sys::OpExpr>()).args);
                sides.any(|side| is(*side, NodeTag::T_Const))
            }
            _ => false,
        }
    }
}

/// The expression of a `(SELECT expression)` that has nothing else.
unsafe fn selected(link: *mut pg_sys::SubLink) -> Option<*mut Node> {
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

/// Whether an expression may name columns of the row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    Allowed,
    Refused,
}

/// **The rule that says what may be computed elsewhere than it was written**: what cannot fail, for any value. Then it
/// does not matter when the planner computes it, or before which other condition.
unsafe fn is_safe(node: *mut Node, columns: Columns) -> bool {
    // SAFETY: a node, and its parts, of the type that its tag says (src/include/nodes/primnodes.h).
    unsafe {
        let all_safe = |list: *mut List| items(list).all(|item| is_safe(*item, columns));
        let Some(tag) = node.as_ref().map(|node| node.type_) else {
            return true;
        };
        match tag {
            NodeTag::T_Var => columns == Columns::Allowed,
            NodeTag::T_Const | NodeTag::T_CaseTestExpr => true,
            NodeTag::T_RelabelType => {
                is_safe((*node.cast::<pg_sys::RelabelType>()).arg.cast(), columns)
            }
            NodeTag::T_FuncExpr => {
                let call = &*node.cast::<pg_sys::FuncExpr>();
                let no_columns = |item: &mut *mut Node| is_safe(*item, Columns::Refused);
                !call.funcretset
                    && match kind(call.funcid) {
                        Kind::NeverFails => all_safe(call.args),
                        // With a column as its argument it could fail for one row and not for another.
                        Kind::Ours => items(call.args).all(no_columns),
                        Kind::Other => false,
                    }
            }
            NodeTag::T_OpExpr | NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                let operator = &*node.cast::<pg_sys::OpExpr>();
                !operator.opretset
                    && kind(pg_sys::get_opcode(operator.opno)) == Kind::NeverFails
                    && all_safe(operator.args)
            }
            NodeTag::T_ScalarArrayOpExpr => {
                let operator = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                kind(pg_sys::get_opcode(operator.opno)) == Kind::NeverFails
                    && all_safe(operator.args)
            }
            NodeTag::T_BoolExpr => all_safe((*node.cast::<pg_sys::BoolExpr>()).args),
            NodeTag::T_CoalesceExpr => all_safe((*node.cast::<pg_sys::CoalesceExpr>()).args),
            NodeTag::T_NullTest => is_safe((*node.cast::<pg_sys::NullTest>()).arg.cast(), columns),
            NodeTag::T_BooleanTest => {
                is_safe((*node.cast::<pg_sys::BooleanTest>()).arg.cast(), columns)
            }
            NodeTag::T_CaseExpr => {
                let case = &*node.cast::<pg_sys::CaseExpr>();
                is_safe(case.arg.cast(), columns)
                    && all_safe(case.args)
                    && is_safe(case.defresult.cast(), columns)
            }
            NodeTag::T_CaseWhen => {
                let when = &*node.cast::<pg_sys::CaseWhen>();
                is_safe(when.expr.cast(), columns) && is_safe(when.result.cast(), columns)
            }
            // (SELECT auth.user_id()) within, which is computed once for the whole query.
            NodeTag::T_SubLink => selected(node.cast())
                .is_some_and(|expression| is_safe(expression, Columns::Refused)),
            _ => false,
        }
    }
}

/// What is known about a function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It answers for any argument, and always the same: an immutable one of Postgres's own that is marked leakproof, or
    /// that reads a member of a jsonb.
    NeverFails,
    /// One of ours, which fails only as the bare call does: if the token is not accepted.
    Ours,
    Other,
}

unsafe fn kind(function: pg_sys::Oid) -> Kind {
    /// pg_language.dat
    const C_LANGUAGE: u32 = 13;
    const READS_JSONB: [u32; 4] = [
        pg_sys::F_JSONB_OBJECT_FIELD,
        pg_sys::F_JSONB_OBJECT_FIELD_TEXT,
        pg_sys::F_JSONB_EXTRACT_PATH,
        pg_sys::F_JSONB_EXTRACT_PATH_TEXT,
    ];
    // SAFETY: a look-up in a catalog, whose rows have this layout at their beginning.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as c_int;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if row.is_null() {
            return Kind::Other;
        }
        let found = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>();
        let is = |volatility| u32::from(found.provolatile.cast_unsigned()) == u32::from(volatility);
        // Only a superuser can make functions in C.
        let is_ours = found.prolang.to_u32() == C_LANGUAGE
            && found.pronamespace == pg_sys::get_namespace_oid(c"auth".as_ptr(), true)
            && is(pg_sys::PROVOLATILE_STABLE);
        let never_fails = function.to_u32() < pg_sys::FirstNormalObjectId
            && is(pg_sys::PROVOLATILE_IMMUTABLE)
            && (found.proleakproof || READS_JSONB.contains(&function.to_u32()));
        pg_sys::ReleaseSysCache(row);
        match (is_ours, never_fails) {
            (true, _) => Kind::Ours,
            (_, true) => Kind::NeverFails,
            _ => Kind::Other,
        }
    }
}
