//! Whom this session trusts, the claims in force, and the caches that make asking cheap.
//!
//! Everything here is derived from the parameters in `guc` and the table in `providers`, and may be
//! forgotten at any time.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use pg_session_jwt_jose::{
    Clock, KeySet, MAX_KEY_SET_BYTES, MAX_TOKEN_BYTES, Provider, Rejected, Rejection, RoleFault,
    RoleRules, Stage, Token, TrustedKeys, json, verify,
};
use pgrx::pg_sys::{self, Datum};
use serde_json::{Map, Value};

use crate::datum::{self, LazyJsonb};
use crate::error::{self, Error};
use crate::guc::{self, Presentation, Progress};
use crate::memory::{self, MAX_CLAIMS_BYTES};
use crate::providers;

/// Where trust comes from. Exactly one source is in force.
enum Source {
    /// `pg_session_jwt.claims`: no token is asked for.
    Claims(Vec<u8>),
    /// The providers registered in this database: a token is believed when a key of its issuer's
    /// provider signed it.
    Providers,
    /// The session's keys: a token is believed when one of them signed it.
    SessionKeys,
    /// `request.jwt.claims`: PostgREST has verified a token.
    RequestClaims(Vec<u8>),
    /// None: nobody is anybody.
    None,
}

impl Source {
    const CLAIMS: &str = "pg_session_jwt.claims";
    const PROVIDERS: &str = "auth.providers";
    const SESSION_KEYS: &str = "pg_session_jwt.jwk";
    const REQUEST_CLAIMS: &str = "request.jwt.claims";
    const NONE: &str = "none";

    /// **The rule that says whom to trust**: the first source that exists, and no other.
    fn in_force() -> Result<Self, Error> {
        // 1. Set by a superuser, or by whom a superuser lets.
        if let Some(claims) = guc::claims() {
            return Ok(Self::Claims(claims));
        }
        match Keys::trusted()? {
            // 2. While a provider is there, enabled or not, nothing that a client brings is trusted.
            Keys::Providers(_) => Ok(Self::Providers),
            // 3.
            Keys::Session => Ok(Self::SessionKeys),
            Keys::None => Ok(match guc::request_claims() {
                // 4. Anybody can set them.
                Some(claims) => Self::RequestClaims(claims),
                // 5.
                None => Self::None,
            }),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Claims(_) => Self::CLAIMS,
            Self::Providers => Self::PROVIDERS,
            Self::SessionKeys => Self::SESSION_KEYS,
            Self::RequestClaims(_) => Self::REQUEST_CLAIMS,
            Self::None => Self::NONE,
        }
    }
}

/// The keys that tokens are verified with.
enum Keys {
    /// Those of the registered providers.
    Providers(Rc<[Provider]>),
    /// Those that the connection started with or was given by auth.init(jwks).
    Session,
    /// There are none.
    None,
}

impl Keys {
    /// **The rule that says whose keys count**: the database's own before those of the connection.
    fn trusted() -> Result<Self, Error> {
        Ok(match providers::registered()? {
            Some(providers) => Self::Providers(providers),
            None if guc::has_jwk() => Self::Session,
            None => Self::None,
        })
    }
}

/// Who somebody is, as far as SQL can ask.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The name of the source in force.
    pub source: &'static str,
    /// The claims, read.
    pub members: Map<String, Value>,
    /// The token behind the claims, where the source has tokens; its claims are in `members`.
    pub token: Option<Token>,
    /// How the token names a database role.
    pub roles: Rc<RoleRules>,
    /// Why what the source holds is nobody's claims.
    fault: Option<String>,
    jsonb: Option<LazyJsonb>,
}

impl Identity {
    fn nobody(source: &'static str) -> Self {
        Self {
            source,
            members: Map::new(),
            token: None,
            roles: Rc::default(),
            fault: None,
            jsonb: None,
        }
    }

    fn from_token(mut token: Token, keys: &Keys) -> Result<Self, Rejected> {
        let not_representable = |why| Rejected {
            reason: Rejection::NotRepresentable(why),
            providers: token.provider.iter().cloned().collect(),
        };
        let json = std::mem::take(&mut token.claims.json);
        let members = std::mem::take(&mut token.claims.members);
        let jsonb = Some(LazyJsonb::new(json, &members).map_err(not_representable)?);
        let (source, provider) = match keys {
            Keys::Providers(all) => {
                let provider = all
                    .iter()
                    .find(|one| Some(&one.name) == token.provider.as_ref());
                (Source::PROVIDERS, provider)
            }
            Keys::Session | Keys::None => (Source::SESSION_KEYS, None),
        };
        Ok(Self {
            members,
            token: Some(token),
            roles: provider.map_or_else(Rc::default, |provider| Rc::clone(&provider.roles)),
            jsonb,
            ..Self::nobody(source)
        })
    }

    /// Claims that a parameter holds, in the server encoding.
    fn from_parameter(name: &'static str, value: Vec<u8>) -> Result<Self, Error> {
        let wrong = |detail: String| Error::Parameter { name, detail };
        if value.len() > MAX_CLAIMS_BYTES {
            return Err(wrong(format!("longer than {MAX_CLAIMS_BYTES} bytes")));
        }
        memory::room_to_read(value.len())?;
        let json = datum::from_server(value).map_err(wrong)?;
        let parsed = json::parse(json.as_bytes(), json::MAX_DEPTH);
        match parsed.map_err(|fault| wrong(format!("not usable JSON: {fault}")))? {
            Value::Object(members) => Ok(Self {
                jsonb: Some(LazyJsonb::new(json, &members).map_err(wrong)?),
                members,
                ..Self::nobody(name)
            }),
            _ => Err(wrong("not a JSON object".into())),
        }
    }

    /// `sub`.
    ///
    /// # Errors
    /// When it is there and not a string; a token's always is.
    pub fn subject(&self) -> Result<Option<&str>, Error> {
        match self.members.get("sub") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::Parameter {
                name: self.source,
                detail: "\"sub\" is not a string".into(),
            }),
        }
    }

    /// All claims, as a jsonb to read during the call in hand; `None` when there is no identity.
    pub fn claims(&self) -> Option<Result<Datum, Error>> {
        let jsonb = self.jsonb.as_ref()?;
        Some(jsonb.datum().map_err(Error::Unrepresentable))
    }

    /// The name of the provider whose token it is.
    pub fn provider(&self) -> Option<&str> {
        self.token.as_ref()?.provider.as_deref()
    }

    fn rejected(&self, reason: Rejection) -> Rejected {
        Rejected {
            reason,
            providers: self.provider().map(str::to_owned).into_iter().collect(),
        }
    }

    fn check_time(&self) -> Result<(), Error> {
        let checked = self
            .token
            .as_ref()
            .map(|token| token.claims.check_time(clock()));
        checked
            .unwrap_or(Ok(()))
            .map_err(|reason| self.rejected(reason).into())
    }
}

/// What has been derived and need not be again. All of it may be dropped at any time.
struct Caches {
    /// The session's keys, with the [`guc::jwk_epoch`] they were read at.
    session_keys: Option<(u64, Rc<KeySet>)>,
    /// Tokens that trusted keys signed, the latest last. Their times are checked at each use.
    tokens: Vec<(Box<[u8]>, Rc<Identity>)>,
    /// The [`guc::jwk_epoch`] and the [`providers::epoch`] that `tokens` are of.
    tokens_of: (u64, u64),
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
            session_keys: None,
            tokens: Vec::new(),
            tokens_of: (0, 0),
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
    audited(in_force())
}

/// What comes before any answer that hangs on whom to trust.
fn enter() -> Result<(), Error> {
    providers::listen();
    match guc::refused_parameter() {
        Some((by, name)) => Err(Error::RefusedParameter { by, name }),
        None => Ok(()),
    }
}

fn in_force() -> Result<Rc<Identity>, Error> {
    enter()?;
    // Taken before: what changes in the meantime counts as a change.
    let epoch = guc::epoch();
    let known = CACHES.with(|caches| caches.borrow().identity.clone());
    let identity = match known {
        Some((derived_at, identity)) if derived_at == epoch => {
            identity.check_time()?;
            identity
        }
        _ => derive()?,
    };
    // request.jwt.claims can change without a word: nothing may be kept that depends on them.
    if !matches!(identity.source, Source::REQUEST_CLAIMS | Source::NONE) {
        let kept = Some((epoch, Rc::clone(&identity)));
        CACHES.with(|caches| caches.borrow_mut().identity = kept);
        if epoch == guc::epoch() {
            CHECKED_IN.store(statement_start(), Relaxed);
        }
    }
    Ok(identity)
}

fn derive() -> Result<Rc<Identity>, Error> {
    match (Source::in_force()?, Presentation::current()) {
        (Source::Claims(claims), _) => {
            Identity::from_parameter(Source::CLAIMS, claims).map(Rc::new)
        }
        // Also where no source has keys: then it is an error to present a token.
        (_, Some(mut presented)) => {
            let before = presented.progress;
            let identity = accept(&mut presented)?;
            if presented.progress != before {
                Presentation::note(presented.progress);
            }
            if !before.used {
                announce(&identity);
            }
            Ok(identity)
        }
        (Source::RequestClaims(claims), None) => from_request(claims),
        (source, None) => Ok(Rc::new(Identity::nobody(source.name()))),
    }
}

fn from_request(claims: Vec<u8>) -> Result<Rc<Identity>, Error> {
    let known = CACHES.with(|caches| caches.borrow().request_claims.clone());
    if let Some((text, identity)) = known
        && text == claims
    {
        return Ok(identity);
    }
    let identity = match Identity::from_parameter(Source::REQUEST_CLAIMS, claims.clone()) {
        Ok(identity) => identity,
        // Not an error in every policy: anybody can set them, and so be nobody.
        Err(Error::Parameter { detail, .. }) => Identity {
            fault: Some(detail),
            ..Identity::nobody(Source::REQUEST_CLAIMS)
        },
        Err(other) => return Err(other),
    };
    let identity = Rc::new(identity);
    CACHES.with(|caches| {
        caches.borrow_mut().request_claims = Some((claims, Rc::clone(&identity)));
    });
    Ok(identity)
}

/// Verifies a token that is, or is about to be, in force: by key, clock and policy, and for replay, unless
/// its id has been counted. Notes in `presented` how far it has come thereby.
fn accept(presented: &mut Presentation) -> Result<Rc<Identity>, Error> {
    let identity = verified(&presented.token)?;
    if !presented.progress.counted
        && let Some(jti) = replay_id(&identity)
    {
        count(jti).map_err(Rejected::from)?;
        presented.progress.counted = true;
    }
    presented.progress.used = true;
    Ok(identity)
}

/// Counts a token id, which must be above all that were counted before.
fn count(jti: i64) -> Result<(), Rejection> {
    let last = guc::last_id();
    if !guc::knows_ids() || last.is_some_and(|last| jti <= last) {
        return Err(Rejection::Replayed { jti, last });
    }
    guc::accept_id(jti);
    Ok(())
}

/// Counts the id of a token that is being presented under a startup key, if it is sound. For why so
/// early, see `check_jwt` in `guc`. There need not be a transaction, so no catalog is read: where a
/// provider is registered the token will not be believed anyhow.
///
/// # Errors
/// [`Error::OutOfMemory`]
pub(crate) fn judge(token: &[u8]) -> Result<bool, Error> {
    let keys = match read_session_keys() {
        Ok(Some(keys)) => keys,
        Err(Error::OutOfMemory) => return Err(Error::OutOfMemory),
        Ok(None) | Err(_) => return Ok(false),
    };
    memory::room_to_read(token.len().min(MAX_TOKEN_BYTES))?;
    let accepted = verify(token, TrustedKeys::Set(&keys), clock());
    Ok(accepted.is_ok_and(|token| {
        let id = token.claims.integer_id;
        id.is_none_or(|jti| count(jti).is_ok())
    }))
}

/// The token's id, where the rule holds that ids must increase: under a key that came with the
/// connection, for integers.
fn replay_id(identity: &Identity) -> Option<i64> {
    let startup_key = identity.source == Source::SESSION_KEYS && guc::jwk_came_with_connection();
    identity
        .token
        .as_ref()?
        .claims
        .integer_id
        .filter(|_| startup_key)
}

/// Verifies a token against the trusted keys and the clock. Keeps what it has verified, but nothing
/// of who is who.
fn verified(token: &[u8]) -> Result<Rc<Identity>, Error> {
    let keys = Keys::trusted()?;
    let known = CACHES.with(|caches| {
        let mut caches = caches.borrow_mut();
        let of = (guc::jwk_epoch(), providers::epoch());
        if caches.tokens_of != of {
            caches.tokens.clear();
            caches.tokens_of = of;
        }
        caches
            .tokens
            .iter()
            .find(|(text, _)| **text == *token)
            .map(|(_, id)| Rc::clone(id))
    });
    if let Some(identity) = known {
        identity.check_time()?;
        return Ok(identity);
    }
    let session_keys;
    let trusted = match &keys {
        Keys::Providers(providers) => TrustedKeys::Providers(providers),
        Keys::Session => {
            session_keys = read_session_keys()?;
            session_keys
                .as_deref()
                .map_or(TrustedKeys::None, TrustedKeys::Set)
        }
        Keys::None => TrustedKeys::None,
    };
    memory::room_to_read(token.len())?;
    let token_accepted = verify(token, trusted, clock())?;
    let identity = Rc::new(Identity::from_token(token_accepted, &keys)?);
    CACHES.with(|caches| {
        let tokens = &mut caches.borrow_mut().tokens;
        if tokens.len() == TOKENS_KEPT {
            tokens.remove(0);
        }
        tokens.push((token.into(), Rc::clone(&identity)));
    });
    Ok(identity)
}

/// The session's keys: `None` when there are none.
fn read_session_keys() -> Result<Option<Rc<KeySet>>, Error> {
    let epoch = guc::jwk_epoch();
    let known = CACHES.with(|caches| caches.borrow().session_keys.clone());
    if let Some((read_at, keys)) = known
        && read_at == epoch
    {
        return Ok(Some(keys));
    }
    let Some(jwk) = guc::jwk() else {
        return Ok(None);
    };
    memory::room_to_read(jwk.len())?;
    let keys = Rc::new(KeySet::parse(&jwk)?);
    CACHES.with(|caches| caches.borrow_mut().session_keys = Some((epoch, Rc::clone(&keys))));
    Ok(Some(keys))
}

/// Checks the startup key, if there is one. A WARNING where there is nothing that could verify a token: a
/// pooler that drops startup options is noticed that way.
///
/// # Errors
/// [`Error::KeySet`], and [`Error::ProvidersRule`] where the database trusts its providers only.
pub(crate) fn check_keys() -> Result<(), Error> {
    enter()?;
    match Keys::trusted()? {
        Keys::Providers(_) if guc::has_jwk() => Err(Error::ProvidersRule),
        Keys::Providers(_) => Ok(()),
        Keys::Session => read_session_keys().map(|_| ()),
        Keys::None => {
            error::warn(
                "this connection has no key to verify a token with, and no provider is registered",
                "If it should have brought pg_session_jwt.jwk in its startup options, a pooler may have dropped them.",
            );
            Ok(())
        }
    }
}

/// Pins the keys of this connection.
///
/// # Errors
/// [`Error::KeySet`] for keys that cannot be used, [`Error::Pinned`] where there are others,
/// [`Error::ProvidersRule`] where the database trusts its providers only.
pub(crate) fn pin_keys(jwks: &[u8]) -> Result<(), Error> {
    enter()?;
    if let Keys::Providers(_) = Keys::trusted()? {
        return Err(Error::ProvidersRule);
    }
    memory::room_to_read(jwks.len().min(MAX_KEY_SET_BYTES))?;
    match guc::jwk() {
        Some(pinned) if pinned == jwks => read_session_keys().map(|_| ()),
        Some(_) => Err(Error::Pinned),
        None => {
            KeySet::parse(jwks)?;
            guc::pin_jwk(&c_string(jwks));
            Ok(())
        }
    }
}

/// Verifies a token and puts it in force, for the session or (`is_local`) the transaction.
///
/// # Errors
/// When it is not accepted; then all stays as it was.
pub(crate) fn present(token: Option<&[u8]>, is_local: bool) -> Result<(), Error> {
    let (presented, identity) = examine(token)?;
    put_in_force(&presented, &identity, is_local);
    Ok(())
}

/// The same, and assumes the database role that the token names; no token is the role `anonymous`.
/// Returns the role.
///
/// # Errors
/// When the token is not accepted or names no role that it may have, and Postgres's own for SET ROLE.
pub(crate) fn login(token: Option<&[u8]>, is_local: bool) -> Result<String, Error> {
    const ANONYMOUS: &str = "anonymous";
    if token.is_none_or(<[u8]>::is_empty) {
        guc::set_role(&c_string(ANONYMOUS.as_bytes()), is_local);
        guc::clear_jwt(is_local);
        return Ok(ANONYMOUS.into());
    }
    let (presented, identity) = examine(token)?;
    let role = audited(role_of(&identity).map_err(|reason| identity.rejected(reason).into()))?;
    guc::set_role(
        &datum::to_server(&role).map_err(Error::Unrepresentable)?,
        is_local,
    );
    put_in_force(&presented, &identity, is_local);
    Ok(role)
}

/// **The rule that says which database role a token gets.** Whether the session may take it on is for
/// SET ROLE to say.
fn role_of(identity: &Identity) -> Result<String, Rejection> {
    let (named, role) = identity.roles.role(&identity.members);
    let refuse = |why| Rejection::Role {
        named: named.map(str::to_owned),
        why,
    };
    let role = match (role, named) {
        (Some(role), _) => role.to_owned(),
        (None, None) => return Err(refuse(RoleFault::Absent)),
        (None, Some(_)) => return Err(refuse(RoleFault::NotAllowed)),
    };
    if datum::to_server(&role).is_ok_and(|name| guc::is_superuser(&name)) {
        return Err(Rejection::Role {
            named: Some(role),
            why: RoleFault::Superuser,
        });
    }
    Ok(role)
}

fn examine(token: Option<&[u8]>) -> Result<(Presentation, Rc<Identity>), Error> {
    enter()?;
    let missing = || Error::from(Rejected::from(Rejection::Missing));
    audited(token.ok_or_else(missing).and_then(|token| {
        let mut presented = Presentation {
            // One byte more than a token may have is refused like any other that is too long.
            token: token[..token.len().min(MAX_TOKEN_BYTES + 1)].to_vec(),
            progress: Progress::default(),
        };
        let identity = accept(&mut presented)?;
        Ok((presented, identity))
    }))
}

fn put_in_force(presented: &Presentation, identity: &Identity, is_local: bool) {
    guc::set_jwt(&c_string(&presented.token), is_local, presented.progress);
    announce(identity);
}

/// Presents the token of PostgREST's Authorization header (RFC 6750 section 2.1) for the transaction;
/// none where the header has none.
///
/// # Errors
/// As [`present`], and when `request.headers` is not a JSON object.
pub(crate) fn present_authorization_header() -> Result<(), Error> {
    const HEADERS: &str = "request.headers";
    let headers = match guc::request_headers() {
        Some(headers) => Identity::from_parameter(HEADERS, headers)?.members,
        None => Map::new(),
    };
    let value = headers
        .get("authorization")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match value.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            present(Some(token.trim().as_bytes()), true)
        }
        _ => {
            guc::clear_jwt(true);
            Ok(())
        }
    }
}

/// Verifies a token and puts nothing in force. It may be one that was used before.
///
/// # Errors
/// When it is not accepted.
pub(crate) fn verify_only(token: &[u8]) -> Result<Rc<Identity>, Error> {
    enter()?;
    audited(verified(token))
}

/// Forgets the token, and the role.
pub(crate) fn forget() {
    guc::clear_jwt(false);
    guc::reset_role();
}

fn announce(identity: &Identity) {
    if guc::audit_log()
        && let Some(token) = &identity.token
    {
        error::log_accepted(token);
    }
}

/// Notes a rejection in the audit log, and on a connection with keys of its own says where these stand.
fn audited<T>(result: Result<T, Error>) -> Result<T, Error> {
    let Err(Error::Rejected(rejected)) = result else {
        return result;
    };
    if guc::audit_log() {
        error::log_rejected(&rejected);
    }
    let is_about_keys = matches!(rejected.reason.stage(), Stage::Key | Stage::Signature);
    Err(if is_about_keys && own_key_is_ignored() {
        Error::OwnKeyIgnored(rejected)
    } else {
        Error::Rejected(rejected)
    })
}

/// Whether the connection has keys that do not count, since the database trusts its providers alone.
fn own_key_is_ignored() -> bool {
    guc::has_jwk() && matches!(Keys::trusted(), Ok(Keys::Providers(_)))
}

/// What was accepted has no zero byte in it: a token is base64url, and JSON allows none.
fn c_string(bytes: &[u8]) -> std::ffi::CString {
    std::ffi::CString::new(bytes).unwrap_or_default()
}

/// One sentence on why there is no `sub`, for an identity that was derived without an error.
pub(crate) fn problem(identity: &Identity) -> Option<String> {
    let absent = "No token has been presented to this session, or it was forgotten.";
    Some(match (identity.subject(), identity.source) {
        (Ok(Some(_)), _) => return None,
        (Err(error), _) => error.sentence(),
        _ if identity.jsonb.is_some() => "The claims have no \"sub\".".into(),
        (_, Source::SESSION_KEYS) => match read_session_keys() {
            Err(error) => error.sentence(),
            Ok(_) => absent.into(),
        },
        (_, Source::PROVIDERS) if own_key_is_ignored() => {
            format!("{absent} {}", error::OWN_KEY_IGNORED)
        }
        (_, Source::PROVIDERS) => absent.into(),
        _ => match &identity.fault {
            Some(fault) => format!("{} does not count: {fault}.", identity.source),
            None => "Nothing is trusted here: no provider is registered, the connection has no keys, and no claims are set.".into(),
        },
    })
}

/// The name of the source in force.
pub(crate) fn source_name() -> &'static str {
    Source::in_force().map_or(Source::PROVIDERS, |source| source.name())
}
