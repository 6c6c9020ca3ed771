//! A row of `auth.providers`, read.

use pg_session_jwt_jose::{Provider, ProviderError, ProviderRow};
use serde::Deserialize;
use serde_json::Value;

use super::following::Following;
use crate::error::Error;
use crate::memory;

/// The provider that a row describes, and what there is to know of its issuer's keys, if it follows them.
/// `keys` is its row of `auth.provider_keys`.
///
/// # Errors
/// [`Error::Provider`], [`Error::OutOfMemory`]
pub(super) fn read(json: &str, keys: Option<&str>) -> Result<(Provider, Option<Following>), Error> {
    let row = parse(json)?;
    let by_superuser = row.written_by_superuser == Some(true);
    let following = Following::new(row.issuer.as_deref(), row.jwks_url.as_deref(), by_superuser);
    let provider = Provider::new(row)?;
    if !provider.follows() {
        return Ok((provider, None));
    }
    let (following, fetched) = following.with(keys)?;
    Ok((provider.with(fetched), Some(following)))
}

/// The provider that a row describes, without the keys that were fetched for it.
///
/// # Errors
/// As [`read`].
pub(super) fn provider(json: &str) -> Result<Provider, Error> {
    read(json, None).map(|(provider, _)| provider)
}

/// What says where keys are fetched from.
#[derive(Deserialize)]
pub(super) struct Address {
    pub issuer: Option<String>,
    pub jwks_url: Option<String>,
    /// `None` in a catalog of before 1.1.0.
    pub written_by_superuser: Option<bool>,
}

/// The address in a row.
///
/// # Errors
/// As [`read`].
pub(super) fn address(json: &str) -> Result<Address, Error> {
    memory::room_to_read(json.len())?;
    serde_json::from_str(json).map_err(|_| {
        Error::Provider(ProviderError {
            name: String::new(),
            detail: "the row is not usable JSON".into(),
            hint: "Copy the keys as the issuer publishes them.",
        })
    })
}

fn parse(json: &str) -> Result<ProviderRow, Error> {
    memory::room_to_read(json.len())?;
    let wrong = |name: &str, detail: String, hint| {
        Error::Provider(ProviderError {
            name: name.into(),
            detail,
            hint,
        })
    };
    let row: Value = serde_json::from_str(json).map_err(|why| {
        wrong(
            "",
            format!("jwks is not usable JSON: {why}"),
            "Copy the keys as the issuer publishes them.",
        )
    })?;
    let name = row.get("name").and_then(Value::as_str);
    let name = name.unwrap_or_default().to_owned();
    serde_json::from_value(row).map_err(|_| {
        wrong(
            &name,
            "an array contains a NULL or another array, or a required column is NULL".into(),
            "Arrays in auth.providers have one dimension; \\d auth.providers shows which columns may be NULL.",
        )
    })
}
