//! From a row to a key set.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::header;

use crate::authorities::Authorities;
use crate::deadline::Deadline;
use crate::request::{self, Answer};
use crate::url::Url;
use crate::{FetchError, Hosts, Permission, Source, Wait};
use crate::{discovery, freshness};

/// All that is needed to fetch the keys of a row: a worker does so before it connects to a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The row's `issuer`.
    pub issuer: Option<String>,
    /// The row's `jwks_url`.
    pub jwks_url: Option<String>,
    /// Who wrote the row.
    pub written_by_superuser: bool,
    /// `pg_session_jwt.fetch_hosts`, as it is set.
    pub hosts: String,
    /// `pg_session_jwt.fetch_ca_file`; `None`: the operating system's certificate authorities.
    pub ca_file: Option<String>,
}

/// A key set, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it was, after discovery.
    pub url: String,
    /// At most [`crate::MAX_BODY_BYTES`]; nothing has been read of it.
    pub body: Vec<u8>,
    /// What `Cache-Control` says, if it says it.
    pub max_age: Option<Duration>,
}

/// Fetches the key set of a row, within [`crate::MOST_TOGETHER`].
///
/// # Errors
/// [`FetchError`]: one sentence for an administrator.
pub fn fetch(order: &Order, wait: Arc<dyn Wait>) -> Result<Fetched, FetchError> {
    let deadline = Deadline::new(wait);
    let source = Source::of(order.issuer.as_deref(), order.jwks_url.as_deref())?;
    let permission = Permission {
        written_by_superuser: order.written_by_superuser,
        hosts: Hosts::parse(&order.hosts).map_err(FetchError::Hosts)?,
    };
    let authorities = Authorities::new(order.ca_file.as_deref());
    let get = |url: &Url| -> Result<Answer, FetchError> {
        let reach = permission.reach(&source.url, url)?;
        request::get(url, reach, &authorities, &deadline)
    };

    let url = match source.issuer() {
        None => source.url.clone(),
        Some(issuer) => {
            let document = get(&source.url)?;
            discovery::jwks_uri(&document.body, &source.url, issuer)?
        }
    };
    let answer = get(&url)?;
    let directives = answer.headers.get_all(header::CACHE_CONTROL).into_iter();
    let max_age = freshness::max_age(directives.filter_map(|value| value.to_str().ok()));
    Ok(Fetched {
        url: url.text,
        body: answer.body,
        max_age,
    })
}
