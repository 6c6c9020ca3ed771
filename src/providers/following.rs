//! Where the keys of a provider that follows its issuer stand, and when they may be fetched.

#![allow(unsafe_code, reason = "what kind of process this is")]

use pg_session_jwt_fetch::{
    Hosts, Order as Request, Permission, Refused, Source, SourceError, schedule,
};
use pg_session_jwt_jose::{Attempt, Fetched, KeySet, NoAttempt, Standing};
use pgrx::pg_sys;
use serde::Deserialize;
use serde_json::Value;

use crate::datum;
use crate::error::Error;
use crate::extension;
use crate::follow::Order;
use crate::guc;
use crate::memory;

/// A row of `auth.provider_keys`.
#[derive(Debug, Deserialize)]
struct Row {
    issuer: Option<String>,
    url: String,
    jwks: Option<Value>,
    fetched_at: Option<String>,
    checked_at: String,
    next_at: String,
    failures: u32,
    error: Option<String>,
}

/// What is known of the keys of a provider that follows its issuer.
#[derive(Debug)]
pub(super) struct Following {
    issuer: Option<String>,
    jwks_url: Option<String>,
    written_by_superuser: bool,
    source: Result<Source, SourceError>,
    /// The last attempt to fetch them, if it was at the address that the row has now.
    pub last: Option<Last>,
}

/// An attempt to fetch keys. Times in seconds since the epoch.
#[derive(Debug, PartialEq)]
pub(super) struct Last {
    /// When there was a success.
    fetched_at: Option<f64>,
    checked_at: f64,
    next_at: f64,
    failures: u32,
    pub error: Option<String>,
    /// How many keys there are.
    pub keys: usize,
}

impl Following {
    /// What the row of a provider says about its keys.
    pub fn new(issuer: Option<&str>, jwks_url: Option<&str>, written_by_superuser: bool) -> Self {
        Self {
            source: Source::of(issuer, jwks_url),
            issuer: issuer.map(str::to_owned),
            jwks_url: jwks_url.map(str::to_owned),
            written_by_superuser,
            last: None,
        }
    }

    /// **The rule that says which fetched keys count**: those that were fetched for the issuer and from the address
    /// that the provider's row has now, and are usable. (How long they do, `Provider::keys` says.)
    pub fn with(mut self, row: Option<&str>) -> Result<(Self, Option<Fetched>), Error> {
        let url = self.source.as_ref().map_or("", Source::url);
        if let Some(text) = row {
            memory::room_to_read(text.len())?;
        }
        let row = row.and_then(|text| serde_json::from_str::<Row>(text).ok());
        let is_same = |row: &Row| row.url == url && row.issuer == self.issuer;
        let Some(row) = row.filter(is_same) else {
            return Ok((self, None));
        };
        let seconds = |time: &String| datum::seconds_since_epoch(time);
        let fetched_at = row.fetched_at.as_ref().and_then(seconds);
        let published = row
            .jwks
            .and_then(|jwks| KeySet::published(jwks.to_string().as_bytes()).ok());
        let fetched = published.zip(fetched_at).map(|(published, at)| Fetched {
            keys: published.keys,
            at,
        });
        self.last = Some(Last {
            fetched_at,
            checked_at: seconds(&row.checked_at).unwrap_or(f64::MAX),
            next_at: seconds(&row.next_at).unwrap_or(f64::MAX),
            failures: row.failures,
            error: row.error,
            keys: fetched.as_ref().map_or(0, |fetched| fetched.keys.count()),
        });
        Ok((self, fetched))
    }

    /// For who writes the row: what keeps its keys from being fetched.
    pub fn obstacle_for_writer(&self) -> Option<NoAttempt> {
        let Ok(source) = &self.source else {
            return Some(NoAttempt::NoAddress);
        };
        let hosts = Hosts::parse(&guc::fetch_hosts()).unwrap_or_default();
        let permission = Permission {
            written_by_superuser: self.is_superusers(),
            hosts,
        };
        match permission.allows(source) {
            Ok(()) => None,
            Err(Refused::HostNotAllowed { host }) => Some(NoAttempt::NotAllowed { host }),
            Err(_) => Some(NoAttempt::NoAddress),
        }
    }

    /// The host that is asked first.
    pub fn host(&self) -> Option<&str> {
        self.source.as_ref().ok().map(Source::host)
    }

    /// Whether a superuser wrote the row, as long as that can be believed.
    fn is_superusers(&self) -> bool {
        self.written_by_superuser && extension::providers().is_some_and(extension::is_superusers)
    }

    /// What is wrong with the address.
    pub fn fault(&self) -> Option<&SourceError> {
        self.source.as_ref().err()
    }

    /// What keeps its keys from being fetched here.
    pub fn obstacle(&self) -> Option<NoAttempt> {
        // SAFETY: plain reads of the process's state.
        let (is_worker, is_standby) = unsafe {
            (
                pg_sys::ParallelWorkerNumber >= 0,
                pg_sys::RecoveryInProgress(),
            )
        };
        if is_worker {
            Some(NoAttempt::ParallelWorker)
        } else if is_standby {
            Some(NoAttempt::Standby)
        } else {
            self.obstacle_for_writer()
        }
    }

    /// **The rule that says when a missing key may be asked for**: not within 30 s of the last attempt, and
    /// after failures not before the next one is due. Seconds since the epoch.
    pub fn may_ask_from(&self) -> f64 {
        match self.last_in_the_past() {
            None => f64::MIN,
            Some(last) if last.failures > 0 => last.next_at,
            Some(last) => last.checked_at + schedule::COOL_DOWN.as_secs_f64(),
        }
    }

    /// When the keys are to be fetched again, though none is missing.
    pub fn due_from(&self) -> f64 {
        self.last_in_the_past()
            .map_or(f64::MIN, |last| last.next_at)
    }

    /// The last attempt, unless the clock has been set back since: then nobody could wait for what is to follow.
    fn last_in_the_past(&self) -> Option<&Last> {
        const TOLERANCE: f64 = 60.0;
        let last = self.last.as_ref();
        last.filter(|last| last.checked_at < now() + TOLERANCE)
    }

    pub fn order(&self, provider: &str) -> Order {
        let of_same_address = self.last.as_ref();
        Order {
            // SAFETY: reads a global.
            database: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            provider: provider.to_owned(),
            request: Request {
                issuer: self.issuer.clone(),
                jwks_url: self.jwks_url.clone(),
                written_by_superuser: self.is_superusers(),
                hosts: guc::fetch_hosts(),
                ca_file: guc::fetch_ca_file(),
            },
            url: self.source.as_ref().map_or("", Source::url).to_owned(),
            interval: guc::fetch_interval(),
            failures: of_same_address.map_or(0, |last| last.failures),
        }
    }

    /// For messages.
    pub fn standing(&self, why: Option<NoAttempt>) -> Standing {
        let now = now();
        let last = match &self.last {
            None => Attempt::None,
            Some(last) => match last.fetched_at {
                Some(at) if now >= at + guc::fetch_stale() => Attempt::Stale {
                    fetched_seconds_ago: now - at,
                },
                Some(at) if last.failures == 0 => Attempt::Fetched {
                    seconds_ago: now - at,
                },
                at => Attempt::Failed {
                    seconds_ago: now - last.checked_at,
                    fetched_seconds_ago: at.map(|at| now - at),
                },
            },
        };
        Standing { last, why }
    }
}

/// Seconds since the epoch.
pub(super) fn now() -> f64 {
    // SAFETY: reads the clock.
    datum::seconds(unsafe { pg_sys::GetCurrentTimestamp() })
}
