//! The identity that SQL can ask about.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use pg_session_jwt_jose::{
    self as jose, Accepted, Clock, Rejected, Rejection, RoleRules, Signer, Token, json,
};
use pgrx::pg_sys::Datum;
use serde_json::{Map, Value};

use super::trust::Source;
use crate::datum;
use crate::error::Error;
use crate::jsonb::LazyJsonb;
use crate::memory::{self, MAX_CLAIMS_BYTES};
use crate::providers;

/// A user's identity, or none.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The source in force.
    pub source: Source,
    /// The claims, parsed.
    pub members: Map<String, Value>,
    /// The token behind the claims, if the source has tokens.
    pub token: Option<Token>,
    /// The provider whose key signed it, if the source is the providers.
    pub(super) signer: Option<Signer>,
    /// How the token names a database role.
    pub roles: Rc<RoleRules>,
    /// Why the source's value is not valid claims.
    pub(super) fault: Option<String>,
    jsonb: Option<LazyJsonb>,
    /// When to look whether the signer's keys have become old, in seconds since the epoch.
    look_at_keys_at: Cell<f64>,
}

impl Identity {
    pub(super) fn nobody(source: Source) -> Self {
        Self {
            source,
            members: Map::new(),
            token: None,
            signer: None,
            roles: Rc::default(),
            fault: None,
            jsonb: None,
            look_at_keys_at: Cell::new(f64::MIN),
        }
    }

    /// No identity, because the source's value is not valid claims.
    pub(super) fn nobody_because(source: Source, fault: String) -> Self {
        Self {
            fault: Some(fault),
            ..Self::nobody(source)
        }
    }

    /// From a token that a key of this source signed.
    pub(super) fn from_token(accepted: Accepted, source: Source) -> Result<Self, Rejected> {
        let Accepted {
            token,
            members,
            json,
            signer,
        } = accepted;
        let jsonb = LazyJsonb::new(&json, &members).map_err(|why| Rejected {
            reason: Rejection::NotRepresentable(why),
            providers: token.provider.iter().cloned().collect(),
        })?;
        let roles = signer
            .as_ref()
            .map(|signer| Rc::clone(&signer.provider.roles));
        Ok(Self {
            members,
            roles: roles.unwrap_or_default(),
            token: Some(token),
            signer,
            jsonb: Some(jsonb),
            ..Self::nobody(source)
        })
    }

    /// From claims in a parameter, in the server encoding.
    pub(super) fn from_parameter(source: Source, value: Vec<u8>) -> Result<Self, Error> {
        let (json, members) = read_parameter(source.name(), value)?;
        let wrong = |detail| Error::Parameter {
            name: source.name(),
            detail,
        };
        Ok(Self {
            jsonb: Some(LazyJsonb::new(&json, &members).map_err(wrong)?),
            members,
            ..Self::nobody(source)
        })
    }

    /// `sub`.
    ///
    /// # Errors
    /// If it is neither a string nor an integer; a token's always is.
    pub fn subject(&self) -> Result<Option<Cow<'_, str>>, Error> {
        jose::subject(&self.members).map_err(|reason| Error::Parameter {
            name: self.source.name(),
            detail: reason.facts(),
        })
    }

    /// All claims, as a jsonb valid during the current call; `None` if there is no identity.
    pub fn claims(&self) -> Option<Result<Datum, Error>> {
        let jsonb = self.jsonb.as_ref()?;
        Some(jsonb.datum(&self.members).map_err(Error::Unrepresentable))
    }

    /// The name of the provider that the token belongs to.
    pub fn provider(&self) -> Option<&str> {
        self.token.as_ref()?.provider.as_deref()
    }

    pub(super) fn rejected(&self, reason: Rejection) -> Rejected {
        Rejected {
            reason,
            providers: self.provider().map(str::to_owned).into_iter().collect(),
        }
    }

    /// Whether the key that signed the token still counts, as far as time is concerned.
    pub(super) fn is_fresh(&self, now: Clock) -> bool {
        self.signer
            .as_ref()
            .is_none_or(|signer| signer.is_fresh(now))
    }

    /// If the signer follows its issuer and its keys have become old, has them fetched, without waiting for it.
    pub(super) fn keep_keys_fresh(&self, now: Clock) -> Result<(), Error> {
        if let Some(signer) = &self.signer
            && now.now >= self.look_at_keys_at.get()
        {
            let at = match signer.provider.follows() {
                true => providers::keep_fresh(&signer.provider)?,
                false => f64::MAX,
            };
            self.look_at_keys_at.set(at);
        }
        Ok(())
    }

    pub(super) fn check_time(&self, now: Clock) -> Result<(), Error> {
        let checked = self
            .token
            .as_ref()
            .map_or(Ok(()), |token| token.claims.check_time(now));
        checked.map_err(|reason| self.rejected(reason).into())
    }
}

/// The JSON object in a parameter, in the server encoding: its text and its members.
///
/// # Errors
/// [`Error::Parameter`] if it is not one.
pub(super) fn read_parameter(
    name: &'static str,
    value: Vec<u8>,
) -> Result<(String, Map<String, Value>), Error> {
    let wrong = |detail: String| Error::Parameter { name, detail };
    if value.len() > MAX_CLAIMS_BYTES {
        return Err(wrong(format!("longer than {MAX_CLAIMS_BYTES} bytes")));
    }
    memory::room_to_read(value.len())?;
    let json = datum::from_server(value).map_err(wrong)?;
    let parsed = json::parse(json.as_bytes(), json::MAX_DEPTH);
    match parsed.map_err(|fault| wrong(format!("not usable JSON: {fault}")))? {
        Value::Object(members) => Ok((json, members)),
        _ => Err(wrong("not a JSON object".into())),
    }
}
