//! What the triggers of `auth.providers` do.

#![allow(unsafe_code, reason = "invalidation messages and a lock")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem::ManuallyDrop;

use pg_session_jwt_fetch::{Source, SourceError};
use pg_session_jwt_jose::{Provider, ProviderError, quoted};
use pgrx::pg_sys::{self, Oid};

use super::ISSUER;
use super::following::Following;
use super::row::{self, Address};
use crate::datum;
use crate::error::{self, Error};
use crate::table;

/// An entry of a btree has at most a third of a page.
const MAX_ISSUER_BYTES: usize = 2048;

/// Issuers of which rows have been written, and may not have been checked yet.
struct Written {
    /// The transaction that has written them.
    by: u64,
    issuers: BTreeSet<Option<String>>,
}

thread_local! {
    // Never dropped, like the caches in `session`.
    static WRITTEN: ManuallyDrop<RefCell<Written>> = const {
        ManuallyDrop::new(RefCell::new(Written { by: 0, issuers: BTreeSet::new() }))
    };
}

/// **The rule that says whether a superuser wrote a row**: where keys may be fetched for it depends on that.
/// One who changes it without touching the address leaves it as it is, unless he is a superuser. A row that a
/// superuser restores, or receives by logical replication, stays whose it was.
///
/// # Errors
/// [`Error::Provider`], [`Error::OutOfMemory`]
pub(crate) fn written_by_superuser(new: &str, old: Option<&str>) -> Result<Option<bool>, Error> {
    let new = row::address(new)?;
    // SAFETY: a plain read of the session's state.
    let is_superuser = unsafe { pg_sys::superuser() };
    let Some(said) = new.written_by_superuser else {
        return Ok(None);
    };
    Ok(Some(match old {
        None => is_superuser && said,
        Some(_) if is_superuser => said || !is_replica(),
        Some(old) => {
            let old = row::address(old)?;
            old.written_by_superuser == Some(true)
                && (old.issuer, old.jwks_url) == (new.issuer, new.jwks_url)
        }
    }))
}

/// Whether rows are those that logical replication brings, or are written as if they were.
pub(crate) fn is_replica() -> bool {
    // SAFETY: a plain read of the session's state.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// Checks a row that is about to be written, and remembers its issuer for [`check_apart`]. `old` is the row that it
/// takes the place of.
///
/// # Errors
/// [`Error::Provider`].
pub(crate) fn check_row(json: &str, old: Option<&str>) -> Result<(), Error> {
    let (provider, following) = row::read(json, None)?;
    check_address(&provider, row::address(json)?, following, old)?;
    let issuer = provider.issuer().map(str::to_owned);
    if issuer.as_ref().is_some_and(|i| i.len() > MAX_ISSUER_BYTES) {
        return Err(Error::Provider(ProviderError {
            name: provider.name,
            detail: format!("the issuer is longer than {MAX_ISSUER_BYTES} bytes"),
            hint: "It must be the \"iss\" of the issuer's tokens, byte for byte.",
        }));
    }
    let whose = format!("of provider {}", quoted(&provider.name));
    error::warn_of_ignored_keys(&whose, provider.ignored_keys());
    if provider.is_enabled() {
        // SAFETY: a row is being written, so the transaction needs an id anyway.
        let by = unsafe { pg_sys::GetTopFullTransactionId() }.value;
        WRITTEN.with(|written| {
            let mut written = written.borrow_mut();
            // A transaction that failed, or whose statements fire no trigger, leaves some behind.
            if written.by != by {
                written.issuers.clear();
                written.by = by;
            }
            written.issuers.insert(issuer);
        });
    }
    Ok(())
}

/// Checks the address of keys, and warns if they will not be fetched.
fn check_address(
    provider: &Provider,
    address: Address,
    following: Option<Following>,
    old: Option<&str>,
) -> Result<(), Error> {
    // In a catalog of before 1.1.0 it is not used, but has been checked as well.
    let of_url = address.jwks_url.as_deref();
    let of_url = of_url.and_then(|url| Source::of(None, Some(url)).err());
    let of_row = following
        .as_ref()
        .and_then(|following| following.fault().cloned());
    if let Some(SourceError { detail, hint }) = of_url.or(of_row) {
        return Err(Error::Provider(ProviderError {
            name: provider.name.clone(),
            detail,
            hint,
        }));
    }
    let was_superusers = match old {
        Some(old) => row::address(old)?.written_by_superuser == Some(true),
        None => true,
    };
    if let Some(host) = following.as_ref().and_then(Following::host)
        && address.written_by_superuser == Some(true)
        && !was_superusers
    {
        let name = quoted(&provider.name);
        error::warn(
            &format!("provider {name} is a superuser's from now on"),
            &format!("Keys are fetched for it from {}.", quoted(host)),
            "Check its issuer and jwks_url: requests go there now.",
        );
    }
    let obstacle = following.and_then(|following| {
        let why = following.obstacle_for_writer()?;
        Some(following.standing(Some(why)))
    });
    if let Some(standing) = obstacle {
        let name = quoted(&provider.name);
        error::warn(
            &format!("keys of provider {name} are not fetched"),
            "Only a superuser may have keys fetched from any host.",
            &standing.hint(),
        );
    }
    Ok(())
}

/// Notifies every backend that rows of the table change, once the transaction commits; and this one,
/// once the command is done or undone.
pub(crate) fn changed(table: Oid) {
    // SAFETY: the table exists: its trigger is running.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}

/// Checks that no token could belong to two rows of which this transaction has written one, among the
/// issuers that it has written since the last check. Rows that came otherwise, by logical replication, do
/// not prevent a correction from being written.
///
/// # Errors
/// [`Error::Provider`].
pub(crate) fn check_apart(table: Oid) -> Result<(), Error> {
    // SAFETY: an object lock that no SQL of an ordinary role takes. It is held until the transaction
    // ends, so of two writers one sees what the other has committed.
    unsafe {
        pg_sys::LockDatabaseObject(
            pg_sys::RelationRelationId,
            table,
            0,
            pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
        );
        // What the statement wrote is visible from the next command on.
        pg_sys::CommandCounterIncrement();
    }
    let issuers = WRITTEN.with(|written| std::mem::take(&mut written.borrow_mut().issuers));
    for issuer in issuers {
        check_apart_of(table, issuer.as_deref())?;
    }
    Ok(())
}

fn check_apart_of(table: Oid, issuer: Option<&str>) -> Result<(), Error> {
    let value = issuer.map(datum::to_server).transpose();
    let value = value.map_err(Error::Unrepresentable)?;
    let found = table::rows(table, ISSUER, value.as_ref().map(|value| value.to_bytes()))?;
    if found.len() < 2 {
        return Ok(());
    }
    let mut rows = Vec::new();
    for row in found {
        let json = row.json.map_err(Error::Unrepresentable);
        match json.and_then(|json| row::provider(&json)) {
            Ok(provider) => rows.push((provider, row.is_written_here)),
            Err(error) if row.is_written_here => return Err(error),
            Err(_) => {}
        }
    }
    for (index, (one, one_is_new)) in rows.iter().enumerate() {
        for (other, other_is_new) in rows.iter().take(index) {
            // The error names a row that was written.
            if *one_is_new {
                one.check_apart(other)?;
            } else if *other_is_new {
                other.check_apart(one)?;
            }
        }
    }
    Ok(())
}
