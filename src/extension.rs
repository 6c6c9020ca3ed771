//! The extension's tables, found by its own record of them, whatever is renamed or moved.

use std::ffi::CStr;

use pgrx::pg_sys::Oid;

use crate::guc;
use crate::table;

const EXTENSION: &CStr = c"pg_session_jwt";

/// `auth.providers`: the first table in the extension's record of its configuration tables. `None` before ALTER
/// EXTENSION … UPDATE.
pub(crate) fn providers() -> Option<Oid> {
    table::extension_config(EXTENSION).first().copied()
}

/// `auth.provider_keys`: the extension's table of this name beside that of providers. `None` before 1.1.0.
pub(crate) fn keys_beside(providers: Oid) -> Option<Oid> {
    table::sibling(providers, c"provider_keys", EXTENSION)
}

/// Both of them.
pub(crate) fn tables() -> Option<(Oid, Oid)> {
    let table = providers()?;
    Some((table, keys_beside(table)?))
}

/// Whether a table still belongs to a superuser: otherwise its owner can write into it whatever he likes.
pub(crate) fn is_superusers(table: Oid) -> bool {
    table::owner(table).is_some_and(guc::is_superuser_role)
}
