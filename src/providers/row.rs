//! A row of `auth.providers`, read.

use pg_session_jwt_jose::{Provider, ProviderError, ProviderRow};
use serde_json::Value;

use crate::error::Error;
use crate::memory;

/// The provider that a row describes.
///
/// # Errors
/// [`Error::Provider`], [`Error::OutOfMemory`]
pub(super) fn provider(json: &str) -> Result<Provider, Error> {
    Ok(Provider::new(parse(json)?)?)
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
