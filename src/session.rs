//! Whom this session trusts, the claims in force, and the caches that make asking cheap.
//!
//! Everything here is derived from the parameters in `guc`. The one thing that could not be: nothing.

use std::cell::{OnceCell, RefCell};
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use pg_session_jwt_jose::{Clock, KeySet, Rejection, Token, TrustedKeys, json, verify};
use pgrx::pg_sys;
use serde_json::Value;

use crate::datum::{self, KeptJsonb};
use crate::error::{self, Error};
use crate::guc::{self, Presentation};

/// Where trust comes from. Exactly one source is in force.
enum Source {
    /// `pg_session_jwt.claims`: no token is asked for.
    Claims(Vec<u8>),
    /// Keys: a token is believed when one of them signed it.
    SessionKeys,
    /// `request.jwt.claims`: PostgREST has verified a token.
    RequestClaims(Vec<u8>),
    /// None: nobody is anybody.
    None,
}

impl Source {
    const CLAIMS: &str = "pg_session_jwt.claims";
    const SESSION_KEYS: &str = "pg_session_jwt.jwk";
    const REQUEST_CLAIMS: &str = "request.jwt.claims";
    const NONE: &str = "none";

    /// **The rule that says whom to trust**: the first source that exists, and no other.
    fn in_force() -> Self {
        // 1. Set by a superuser, or by whom a superuser lets.
        if let Some(claims) = guc::claims() {
            return Self::Claims(claims);
        }
        // 2. The providers registered in this database: their place is here, above all that a
        //    client brings.
        // 3. The keys that this connection started with or was given by auth.init(jwks).
        if guc::jwk().is_some() {
            return Self::SessionKeys;
        }
        // 4. Claims that PostgREST has verified; anybody can set them.
        if let Some(claims) = guc::request_claims() {
            return Self::RequestClaims(claims);
        }
        // 5.
        Self::None
    }
}

/// Who somebody is, as far as SQL can ask.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The name of the source in force.
    pub source: &'static str,
    /// The claims as JSON text; `None` when there is no identity.
    json: Option<String>,
    /// `sub`.
    subject: Subject,
    /// The token behind the claims, where the source has tokens.
    pub token: Option<Token>,
    jsonb: OnceCell<KeptJsonb>,
}

#[derive(Debug)]
enum Subject {
    Absent,
    Text(String),
    NotText,
}

impl Identity {
    fn nobody(source: &'static str) -> Self {
        Self {
            source,
            json: None,
            subject: Subject::Absent,
            token: None,
            jsonb: OnceCell::new(),
        }
    }

    fn from_token(source: &'static str, token: Token) -> Self {
        let subject = token
            .claims
            .subject
            .clone()
            .map_or(Subject::Absent, Subject::Text);
        let json = Some(token.claims.json.clone());
        Self {
            source,
            json,
            subject,
            token: Some(token),
            jsonb: OnceCell::new(),
        }
    }

    /// Claims that a parameter holds, in the server encoding.
    fn from_parameter(name: &'static str, value: Vec<u8>) -> Result<Self, Error> {
        let wrong = |detail: String| Error::Parameter { name, detail };
        let json = datum::from_server(value).map_err(wrong)?;
        let parsed = json::parse(json.as_bytes(), json::MAX_DEPTH);
        let Value::Object(members) =
            parsed.map_err(|fault| wrong(format!("not usable JSON: {fault}")))?
        else {
            return Err(wrong("not a JSON object".into()));
        };
        let subject = match members.get("sub") {
            None | Some(Value::Null) => Subject::Absent,
            Some(Value::String(text)) => Subject::Text(text.clone()),
            Some(_) => Subject::NotText,
        };
        Ok(Self {
            source: name,
            json: Some(json),
            subject,
            token: None,
            jsonb: OnceCell::new(),
        })
    }

    /// `sub`.
    ///
    /// # Errors
    /// When it is there and not a string; a token's always is.
    pub fn subject(&self) -> Result<Option<&str>, Error> {
        match &self.subject {
            Subject::Absent => Ok(None),
            Subject::Text(text) => Ok(Some(text)),
            Subject::NotText => Err(Error::Parameter {
                name: self.source,
                detail: "\"sub\" is not a string".into(),
            }),
        }
    }

    /// All claims; `None` when there is no identity.
    ///
    /// # Errors
    /// For claims that this database cannot hold.
    pub fn claims(&self) -> Result<Option<&KeptJsonb>, Error> {
        let Some(json) = &self.json else {
            return Ok(None);
        };
        if let Some(jsonb) = self.jsonb.get() {
            return Ok(Some(jsonb));
        }
        let jsonb = KeptJsonb::new(json).map_err(|why| match self.token {
            Some(_) => Error::Rejected(Rejection::NotRepresentable(why)),
            None => Error::Parameter {
                name: self.source,
                detail: why,
            },
        })?;
        Ok(Some(self.jsonb.get_or_init(|| jsonb)))
    }

    fn check_time(&self, clock: Clock) -> Result<(), Rejection> {
        self.token
            .as_ref()
            .map_or(Ok(()), |token| token.claims.check_time(clock))
    }
}

/// What has been derived and need not be again. All of it may be dropped at any time.
struct Caches {
    /// The session's keys, with the [`guc::jwk_epoch`] they were read at.
    keys: Option<(u64, Rc<KeySet>)>,
    /// Tokens that those keys signed, the latest last. Their times are checked at each use.
    tokens: Vec<(Box<[u8]>, Rc<Identity>)>,
    /// The identity in force, with the [`guc::epoch`] it was derived at.
    identity: Option<(u64, Rc<Identity>)>,
    /// The last `request.jwt.claims` seen.
    request_claims: Option<(Vec<u8>, Rc<Identity>)>,
}

/// A pooled connection serves a few users in turn; each kept token costs up to 50 kB.
const TOKENS_KEPT: usize = 8;

thread_local! {
    // Never dropped: at process exit Postgres's memory is not ours to free.
    static CACHES: ManuallyDrop<RefCell<Caches>> = const {
        ManuallyDrop::new(RefCell::new(Caches {
            keys: None,
            tokens: Vec::new(),
            identity: None,
            request_claims: None,
        }))
    };
}

/// The statement (by its start time) in which the identity was last checked against the clock.
static CHECKED_IN: AtomicI64 = AtomicI64::new(i64::MIN);

/// What a value derived from the identity may be kept under: it holds while the stamp is the same.
/// `None` when the identity has to be asked for: in a new statement, and where it may not be kept.
#[inline]
pub(crate) fn stamp() -> Option<u64> {
    (CHECKED_IN.load(Relaxed) == statement_start()).then(guc::epoch)
}

#[inline]
fn statement_start() -> i64 {
    unsafe extern "C" {
        /// `src/backend/access/transam/xact.c`: returns a static variable, cannot fail. Declared here
        /// because pgrx's own declaration guards against a longjmp, which costs more than the call.
        #[link_name = "GetCurrentStatementStartTimestamp"]
        safe fn get_current_statement_start_timestamp() -> i64;
    }
    get_current_statement_start_timestamp()
}

/// The time that tokens are measured by.
fn clock() -> Clock {
    /// 1970-01-01 to 2000-01-01, where Postgres's timestamps begin.
    const POSTGRES_EPOCH_SECONDS: f64 = 946_684_800.0;
    // A parallel worker must not find expired what its leader found valid when the query began.
    // SAFETY: plain reads.
    let microseconds = unsafe {
        if pg_sys::ParallelWorkerNumber >= 0 {
            statement_start()
        } else {
            pg_sys::GetCurrentTimestamp()
        }
    };
    #[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
    let now = microseconds as f64 / 1e6 + POSTGRES_EPOCH_SECONDS;
    Clock {
        now,
        skew: guc::clock_skew(),
    }
}

/// Who the session's user is, now.
///
/// # Errors
/// For a token in force that is not accepted (any more), and for keys or claims that are wrong.
pub(crate) fn identity() -> Result<Rc<Identity>, Error> {
    CHECKED_IN.store(i64::MIN, Relaxed);
    refuse_if_tampered()?;
    let known = CACHES.with(|caches| caches.borrow().identity.clone());
    let identity = match known {
        Some((epoch, identity)) if epoch == guc::epoch() => {
            identity.check_time(clock()).inspect_err(audit)?;
            identity
        }
        _ => derive()?,
    };
    // request.jwt.claims can change without a word: nothing may be kept that depends on them.
    if !matches!(identity.source, Source::REQUEST_CLAIMS | Source::NONE) {
        let kept = Some((guc::epoch(), Rc::clone(&identity)));
        CACHES.with(|caches| caches.borrow_mut().identity = kept);
        CHECKED_IN.store(statement_start(), Relaxed);
    }
    Ok(identity)
}

fn derive() -> Result<Rc<Identity>, Error> {
    let presented = Presentation::current();
    match (Source::in_force(), presented) {
        (Source::Claims(claims), _) => {
            Identity::from_parameter(Source::CLAIMS, claims).map(Rc::new)
        }
        // Also where no source has keys: then it is an error to present a token.
        (_, Some(presented)) => {
            let identity = accept(&presented)?;
            if !presented.accepted {
                let id = replay_id(&identity);
                Presentation::accept_current(id);
                announce(&identity);
            }
            Ok(identity)
        }
        (Source::SessionKeys, None) => Ok(Rc::new(Identity::nobody(Source::SESSION_KEYS))),
        (Source::RequestClaims(claims), None) => from_request(claims),
        (Source::None, None) => Ok(Rc::new(Identity::nobody(Source::NONE))),
    }
}

fn from_request(claims: Vec<u8>) -> Result<Rc<Identity>, Error> {
    let known = CACHES.with(|caches| caches.borrow().request_claims.clone());
    if let Some((text, identity)) = known
        && text == claims
    {
        return Ok(identity);
    }
    let identity = Rc::new(Identity::from_parameter(
        Source::REQUEST_CLAIMS,
        claims.clone(),
    )?);
    CACHES.with(|caches| {
        caches.borrow_mut().request_claims = Some((claims, Rc::clone(&identity)));
    });
    Ok(identity)
}

/// Verifies a token that is, or would be, in force: by signature and clock, and for replay.
fn accept(presented: &Presentation) -> Result<Rc<Identity>, Error> {
    let identity = verified(&presented.token)?;
    match replay_id(&identity) {
        Some(jti) if !presented.accepted && jti <= presented.last_id => {
            let rejection = Rejection::Replayed {
                jti,
                last: presented.last_id,
            };
            audit(&rejection);
            Err(rejection.into())
        }
        _ => Ok(identity),
    }
}

/// The token's id, where the rule holds that ids must increase: under a key that came with the
/// connection, for integers.
fn replay_id(identity: &Identity) -> Option<i64> {
    let token = identity.token.as_ref()?;
    token
        .claims
        .integer_id
        .filter(|_| guc::jwk_came_with_connection())
}

/// Verifies a token against the trusted keys and the clock. Keeps what it has verified, but nothing
/// of who is who.
fn verified(token: &[u8]) -> Result<Rc<Identity>, Error> {
    let keys = trusted_keys()?;
    let known = CACHES.with(|caches| {
        let caches = caches.borrow();
        caches
            .tokens
            .iter()
            .find(|(text, _)| **text == *token)
            .map(|(_, id)| Rc::clone(id))
    });
    if let Some(identity) = known {
        identity.check_time(clock()).inspect_err(audit)?;
        return Ok(identity);
    }
    let trusted = keys.as_deref().map_or(TrustedKeys::None, TrustedKeys::Set);
    let accepted = verify(token, trusted, clock()).inspect_err(audit)?;
    let identity = Rc::new(Identity::from_token(Source::SESSION_KEYS, accepted));
    CACHES.with(|caches| {
        let tokens = &mut caches.borrow_mut().tokens;
        if tokens.len() == TOKENS_KEPT {
            tokens.remove(0);
        }
        tokens.push((token.into(), Rc::clone(&identity)));
    });
    Ok(identity)
}

/// The keys that tokens are verified with, whichever source is in force: `None` when there are none.
fn trusted_keys() -> Result<Option<Rc<KeySet>>, Error> {
    let epoch = guc::jwk_epoch();
    let known = CACHES.with(|caches| caches.borrow().keys.clone());
    if let Some((read_at, keys)) = known
        && read_at == epoch
    {
        return Ok(Some(keys));
    }
    CACHES.with(|caches| caches.borrow_mut().tokens.clear());
    let Some(jwk) = guc::jwk() else {
        return Ok(None);
    };
    let keys = Rc::new(KeySet::parse(&jwk)?);
    CACHES.with(|caches| caches.borrow_mut().keys = Some((epoch, Rc::clone(&keys))));
    Ok(Some(keys))
}

/// Checks the startup key, if there is one.
///
/// # Errors
/// [`Error::KeySet`].
pub(crate) fn check_keys() -> Result<(), Error> {
    refuse_if_tampered()?;
    trusted_keys().map(|_| ())
}

fn refuse_if_tampered() -> Result<(), Error> {
    guc::refused_parameter().map_or(Ok(()), |name| Err(Error::RefusedParameter(name)))
}

/// Pins the keys of this connection.
///
/// # Errors
/// [`Error::KeySet`] for keys that cannot be used, [`Error::Pinned`] where there are others.
pub(crate) fn pin_keys(jwks: &[u8]) -> Result<(), Error> {
    match guc::jwk() {
        Some(pinned) if pinned == jwks => trusted_keys().map(|_| ()),
        Some(_) => Err(Error::Pinned),
        None => {
            KeySet::parse(jwks)?;
            let jwks = c_string(jwks);
            guc::pin_jwk(&jwks);
            Ok(())
        }
    }
}

/// Verifies a token and puts it in force, for the session or (`is_local`) the transaction.
///
/// # Errors
/// When it is not accepted; then all stays as it was.
pub(crate) fn present(token: Option<&[u8]>, is_local: bool) -> Result<(), Error> {
    refuse_if_tampered()?;
    let token = token.ok_or(Rejection::Missing).inspect_err(audit)?.to_vec();
    let presented = Presentation {
        token,
        accepted: false,
        last_id: guc::last_id(),
    };
    let identity = accept(&presented)?;
    guc::set_jwt(&c_string(&presented.token), is_local);
    Presentation::accept_current(replay_id(&identity));
    announce(&identity);
    Ok(())
}

/// Verifies a token and puts nothing in force. It may be one that was used before.
///
/// # Errors
/// When it is not accepted.
pub(crate) fn verify_only(token: &[u8]) -> Result<Rc<Identity>, Error> {
    refuse_if_tampered()?;
    verified(token)
}

/// Forgets the token.
pub(crate) fn forget() {
    guc::set_jwt(c"", false);
}

fn announce(identity: &Identity) {
    if guc::audit_log()
        && let Some(token) = &identity.token
    {
        error::log_accepted(token);
    }
}

fn audit(rejection: &Rejection) {
    if guc::audit_log() {
        error::log_rejected(rejection);
    }
}

/// What was accepted has no zero byte in it: a token is base64url, and JSON allows none.
fn c_string(bytes: &[u8]) -> std::ffi::CString {
    std::ffi::CString::new(bytes).unwrap_or_default()
}

/// One sentence on why there is no `sub`, for an identity that was derived without an error.
pub(crate) fn problem(identity: &Identity) -> Option<&'static str> {
    match (
        identity.subject().ok().flatten(),
        identity.source,
        &identity.json,
    ) {
        (Some(_), ..) => None,
        (None, _, Some(_)) => Some("The claims have no \"sub\" that is a string."),
        (None, Source::SESSION_KEYS, None) => {
            Some("No token has been presented to this session, or it was forgotten.")
        }
        (None, ..) => Some(
            "Nothing is trusted here: no provider is registered, the connection has no keys, and no claims are set.",
        ),
    }
}

/// The name of the source in force.
pub(crate) fn source_name() -> &'static str {
    match Source::in_force() {
        Source::Claims(_) => Source::CLAIMS,
        Source::SessionKeys => Source::SESSION_KEYS,
        Source::RequestClaims(_) => Source::REQUEST_CLAIMS,
        Source::None => Source::NONE,
    }
}
