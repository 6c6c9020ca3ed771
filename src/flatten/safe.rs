//! What may be computed elsewhere than it was written.

use std::ffi::c_int;

use pgrx::pg_sys::{self, List, Node, NodeTag, Oid};

use super::tree::{items, raw, selected};

/// Whether an expression may name columns of the row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    Allowed,
    Refused,
}

/// **The rule that says what may be computed elsewhere than it was written**: what cannot fail, for any value. Then it
/// does not matter when the planner computes it, or before which other condition.
pub(super) unsafe fn is_safe(node: *mut Node, columns: Columns) -> bool {
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
                    && match kind(call.funcid, call.inputcollid) {
                        Kind::NeverFails => all_safe(call.args),
                        // With a column as its argument it could fail for one row and not for another.
                        Kind::Ours => items(call.args).all(no_columns),
                        Kind::Other => false,
                    }
            }
            NodeTag::T_OpExpr | NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                let operator = &*node.cast::<pg_sys::OpExpr>();
                !operator.opretset
                    && operator_never_fails(operator.opno, operator.inputcollid)
                    && all_safe(operator.args)
            }
            NodeTag::T_ScalarArrayOpExpr => {
                let operator = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                operator_never_fails(operator.opno, operator.inputcollid) && all_safe(operator.args)
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

/// Whether it is one of Postgres's own: the negator and the selectivity of another are somebody else's functions.
unsafe fn operator_never_fails(operator: Oid, collation: Oid) -> bool {
    // SAFETY: a look-up in a catalog.
    unsafe {
        operator.to_u32() < pg_sys::FirstNormalObjectId
            && kind(raw::get_opcode(operator), collation) == Kind::NeverFails
    }
}

/// What is known about a function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It answers for any argument, and always the same.
    NeverFails,
    /// One of ours, which fails only as the bare call does: if the token is not accepted.
    Ours,
    Other,
}

/// What is known about a function that is called with this collation.
unsafe fn kind(function: Oid, collation: Oid) -> Kind {
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
        let row = raw::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if row.is_null() {
            return Kind::Other;
        }
        let found = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>();
        let is = |volatility| u32::from(found.provolatile.cast_unsigned()) == u32::from(volatility);
        // Only a superuser can make functions in C.
        let is_ours = found.prolang.to_u32() == C_LANGUAGE
            && found.pronamespace == raw::get_namespace_oid(c"auth".as_ptr(), true)
            && is(pg_sys::PROVOLATILE_STABLE);
        let is_postgres =
            function.to_u32() < pg_sys::FirstNormalObjectId && is(pg_sys::PROVOLATILE_IMMUTABLE);
        let is_leakproof = found.proleakproof;
        raw::ReleaseSysCache(row);
        let never_fails = is_postgres
            && (READS_JSONB.contains(&function.to_u32())
                || (is_leakproof && compares_or_casts(function, collation)));
        match (is_ours, never_fails) {
            (true, _) => Kind::Ours,
            (_, true) => Kind::NeverFails,
            _ => Kind::Other,
        }
    }
}

/// Whether a leakproof function compares two values of plain types, or makes one of another: leakproof alone does not
/// mean that it never fails. (Circles overflow, md5() may be switched off.)
unsafe fn compares_or_casts(function: Oid, collation: Oid) -> bool {
    const TEXTS: [Oid; 4] = [
        pg_sys::TEXTOID,
        pg_sys::VARCHAROID,
        pg_sys::BPCHAROID,
        pg_sys::NAMEOID,
    ];
    const OTHERS: [Oid; 13] = [
        pg_sys::BOOLOID,
        pg_sys::CHAROID,
        pg_sys::INT2OID,
        pg_sys::INT4OID,
        pg_sys::INT8OID,
        pg_sys::OIDOID,
        pg_sys::FLOAT4OID,
        pg_sys::FLOAT8OID,
        pg_sys::UUIDOID,
        pg_sys::DATEOID,
        pg_sys::TIMEOID,
        pg_sys::TIMESTAMPOID,
        pg_sys::TIMESTAMPTZOID,
    ];
    // SAFETY: look-ups in catalogs; the types are as many as it says.
    unsafe {
        let (mut types, mut count) = (std::ptr::null_mut(), 0);
        let result = raw::get_func_signature(function, &raw mut types, &raw mut count);
        let types = std::slice::from_raw_parts(types, usize::try_from(count).unwrap_or(0));
        let is_plain = |of_type: &Oid| TEXTS.contains(of_type) || OTHERS.contains(of_type);
        let compares = types.len() == 2 && result == pg_sys::BOOLOID;
        // Not to text: md5() is such a function.
        let casts = types.len() == 1 && (OTHERS.contains(&result) || result == pg_sys::NAMEOID);
        // Without one, or with one that has equal texts of different bytes, texts may not compare.
        let is_sensitive = compares && types.iter().any(|of_type| TEXTS.contains(of_type));
        let has_collation =
            || collation != pg_sys::InvalidOid && raw::get_collation_isdeterministic(collation);
        (compares || casts) && types.iter().all(is_plain) && (!is_sensitive || has_collation())
    }
}

/// Whether Postgres can plan each part of an AND, OR or NOT by itself. As a part of a policy's condition that names no
/// column, it fails for `x = x` ("cannot cope with variable-free clause", 15 to 18), also where that comes about only when
/// expressions are simplified.
pub(super) unsafe fn can_be_split(expression: *mut Node) -> bool {
    // SAFETY: as in `is_safe`.
    unsafe {
        let is = |node: *mut Node, tag| (*node).type_ == tag;
        match (*expression).type_ {
            NodeTag::T_BoolExpr => {
                let mut parts = items((*expression.cast::<pg_sys::BoolExpr>()).args);
                parts.all(|part| can_be_split(*part))
            }
            _ if raw::contain_vars_of_level(expression, 1) => true,
            NodeTag::T_NullTest | NodeTag::T_BooleanTest | NodeTag::T_FuncExpr => true,
            NodeTag::T_OpExpr => {
                let mut sides = items((*expression.cast::<pg_sys::OpExpr>()).args);
                sides.any(|side| is(*side, NodeTag::T_Const))
            }
            _ => false,
        }
    }
}
