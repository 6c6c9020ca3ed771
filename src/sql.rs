//! The SQL functions. Their definitions, grants and comments are in `sql/auth.sql`.
//!
//! Not `#[pg_extern]`, for three reasons: it costs 15 to 20 ns a row, where a constant is the aim; its
//! errors leave the statement, and the token in it, in the log; and version 0.5.0's symbols would
//! change.

#![allow(unsafe_code, reason = "symbols that Postgres calls")]

use pg_session_jwt_jose::organization;
use pgrx::IntoDatum;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};

use crate::call::{self, Answer, Call, Row};
use crate::datum;
use crate::error::Error;
use crate::extension;
use crate::memory::{self, MAX_CLAIMS_BYTES};
use crate::providers::{self, Refreshed};
use crate::request;
use crate::session::{self, Identity};

/// Exports C functions under their SQL symbols, `<name>_wrapper`, with the records that say how to call
/// them (`PG_FUNCTION_INFO_V1`, src/include/fmgr.h).
macro_rules! export {
    ($($frame:ident $name:ident $(: $returns:ident)? = $body:expr;)*) => {$(
        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name), "_wrapper"))]
            extern "C" fn info() -> &'static pg_sys::Pg_finfo_record {
                const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }

            #[unsafe(export_name = concat!(stringify!($name), "_wrapper"))]
            unsafe extern "C-unwind" fn wrapper(fcinfo: FunctionCallInfo) -> Datum {
                // SAFETY: called by Postgres, as sql/auth.sql declares the function.
                unsafe { call::$frame(fcinfo, $(pg_sys::$returns,)? $body) }
            }
        };
    )*};
}

// The symbols without an argument in their name are those of version 0.5.0, whose definitions must
// keep working with this library.
export! {
    function init = |_| session::check_keys().map(void);
    function init_jwks = init_jwks;
    function jwt_session_init = jwt_session_init;
    function jwt_session_init_local = jwt_session_init_local;
    function verify = verify;
    function logout = logout;
    function status = status;
    function login = login;
    function pre_request = pre_request;
    function refresh = refresh;
    function check_provider = check_provider;
    function providers_written = providers_written;
    accessor session: JSONBOID = claims;
    accessor jwt: JSONBOID = claims;
    accessor user_id: TEXTOID = user_id;
    accessor uid: UUIDOID = uid;
    accessor role: TEXTOID = |id, _| claim(id, b"role");
    accessor email: TEXTOID = |id, _| claim(id, b"email");
    accessor claim: TEXTOID = claim_by_name;
    accessor claim_path: TEXTOID = claim_by_path;
    accessor organization: JSONBOID = organization;
    accessor organization_id: UUIDOID = organization_id;
    accessor org_id: TEXTOID = |id, _| text(organization::org_id(&id.members));
    accessor org_role: TEXTOID = |id, _| text(organization::org_role(&id.members));
    accessor org_slug: TEXTOID = |id, _| text(organization::org_slug(&id.members));
    accessor permissions: TEXTARRAYOID = permissions;
    accessor has_permission: BOOLOID = has_permission;
}

/// The value of a function that returns void.
fn void(_: ()) -> Option<Datum> {
    Some(Datum::null())
}

fn init_jwks(call: &Call) -> Answer {
    session::pin_keys(call.bytes(0).unwrap_or_default()).map(void)
}

fn jwt_session_init(call: &Call) -> Answer {
    session::present(call.bytes(0), false).map(void)
}

fn jwt_session_init_local(call: &Call) -> Answer {
    session::present(call.bytes(0), is_local(call)?).map(void)
}

/// The second argument: whether the token ends with the transaction.
fn is_local(call: &Call) -> Result<bool, Error> {
    call.bool(1).ok_or(Error::NullArgument("is_local"))
}

fn logout(_: &Call) -> Answer {
    session::logout();
    Ok(void(()))
}

fn login(call: &Call) -> Answer {
    let role = session::login(call.bytes(0), is_local(call)?)?;
    datum::name(&role)
}

fn refresh(call: &Call) -> Answer {
    let name = call.bytes(0).map(<[u8]>::to_vec).map(datum::from_server);
    let name = name.transpose().map_err(Error::Unrepresentable)?;
    let refreshed = session::refresh(name.as_deref())?;
    let mut rows = call.rows();
    for Refreshed { provider, keys } in refreshed {
        let (keys, error) = match keys {
            Ok(count) => (i32::try_from(count).unwrap_or(i32::MAX).into_datum(), None),
            Err(why) => (None, datum::text(&why)?),
        };
        rows.add([datum::text(&provider)?, keys, error]);
    }
    Ok(None)
}

fn pre_request(_: &Call) -> Answer {
    session::present_authorization_header().map(void)
}

/// BEFORE each row of `auth.providers` or `auth.provider_keys`: notifies the other backends, and checks what is
/// written into the former.
fn check_provider(call: &Call) -> Answer {
    let trigger = call.trigger(true).ok_or(Error::NotTheProvidersTable)?;
    let is_providers = extension::providers() == Some(trigger.table());
    if !is_providers && extension::tables().is_none_or(|(_, keys)| keys != trigger.table()) {
        return Err(Error::NotTheProvidersTable);
    }
    providers::changed(trigger.table());
    if !is_providers && !trigger.is_by_owner_or_superuser() {
        return Err(Error::NotTheWorker);
    }
    let (old, Some(new)) = (trigger.old_row(), trigger.new_row()) else {
        return Ok(trigger.old_row().map(Row::datum));
    };
    if !is_providers {
        // Each database fetches for itself: FOR ALL TABLES would bring rows that are there already.
        let is_wanted = !providers::is_replica();
        return Ok(is_wanted.then(|| new.datum()).or(Some(Datum::null())));
    }
    let is_update = old.is_some();
    let json = |row: Row| row.as_json().map_err(Error::Unrepresentable);
    let old = old.map(json).transpose()?;
    let by_superuser = providers::written_by_superuser(&json(new)?, old.as_deref())?;
    let row = new.with(&[
        (c"updated_at", is_update.then(datum::transaction_time)),
        (c"written_by_superuser", by_superuser.map(Datum::from)),
    ]);
    providers::check_row(&json(row)?, old.as_deref())?;
    Ok(Some(row.datum()))
}

/// AFTER each statement on `auth.providers`.
fn providers_written(call: &Call) -> Answer {
    let trigger = call
        .trigger(false)
        .filter(|trigger| extension::providers() == Some(trigger.table()));
    let trigger = trigger.ok_or(Error::NotTheProvidersTable)?;
    providers::check_apart(trigger.table())?;
    Ok(Some(Datum::null()))
}

fn verify(call: &Call) -> Answer {
    let identity = session::verify_only(call.bytes(0).unwrap_or_default())?;
    claims(&identity, call)
}

fn claims(identity: &Identity, _: &Call) -> Answer {
    match identity.claims() {
        // SAFETY: a plain jsonb; the copy belongs to the caller.
        Some(jsonb) => Ok(Some(unsafe {
            datum::copy_varlena(jsonb?, pg_sys::CurrentMemoryContext)
        })),
        None => Ok(datum::jsonb("null").ok()),
    }
}

fn user_id(identity: &Identity, _: &Call) -> Answer {
    text(identity.subject()?.as_deref())
}

fn text(value: Option<&str>) -> Answer {
    value.map_or(Ok(None), datum::text)
}

fn permissions(identity: &Identity, _: &Call) -> Answer {
    memory::room(organization::size_of_permissions(&identity.members))?;
    organization::permissions(&identity.members).map_or(Ok(None), |list| datum::text_array(&list))
}

fn has_permission(identity: &Identity, call: &Call) -> Answer {
    // A name longer than any claims is not among them.
    let name = call.bytes(0).filter(|name| name.len() <= MAX_CLAIMS_BYTES);
    let name = name.map(<[u8]>::to_vec).map(datum::from_server);
    let has =
        matches!(name, Some(Ok(name)) if organization::has_permission(&identity.members, &name));
    Ok(Some(Datum::from(has)))
}

fn uid(identity: &Identity, _: &Call) -> Answer {
    let subject = identity.subject().ok().flatten();
    Ok(subject.as_deref().and_then(datum::uuid))
}

fn claim(identity: &Identity, name: &[u8]) -> Answer {
    claim_with(identity, pg_sys::jsonb_object_field_text, name.into_datum())
}

fn claim_by_name(identity: &Identity, call: &Call) -> Answer {
    call.bytes(0).map_or(Ok(None), |name| claim(identity, name))
}

fn claim_by_path(identity: &Identity, call: &Call) -> Answer {
    claim_with(identity, pg_sys::jsonb_extract_path_text, call.argument(0))
}

/// `claims -> argument` by one of jsonb's own operators, so that `auth.claim('x')` equals `auth.jwt()
/// ->> 'x'`.
fn claim_with(
    identity: &Identity,
    operator: unsafe fn(FunctionCallInfo) -> Datum,
    argument: Option<Datum>,
) -> Answer {
    let (Some(claims), Some(_)) = (identity.claims(), argument) else {
        return Ok(None);
    };
    Ok(datum::jsonb_operator(operator, claims?, argument))
}

fn organization(identity: &Identity, _: &Call) -> Answer {
    let o = claim_with(
        identity,
        pg_sys::jsonb_object_field,
        b"o".as_slice().into_datum(),
    )?;
    Ok(o.filter(|&value| datum::is_json_object(value)))
}

fn organization_id(identity: &Identity, call: &Call) -> Answer {
    let Some(o) = organization(identity, call)? else {
        return Ok(None);
    };
    let id = b"id".as_slice().into_datum();
    let id = datum::jsonb_operator(pg_sys::jsonb_object_field_text, o, id);
    Ok(id.and_then(datum::uuid_from_text))
}

/// One row on who the user is and why. It never raises: an error is shown in the last column.
fn status(call: &Call) -> Answer {
    let identity = session::identity();
    let problem = match &identity {
        Ok(identity) => session::problem(identity),
        Err(error) => Some(error.clone().sentence()),
    };
    let problems = [problem.as_deref(), request::weakness()];
    let problem = problems.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let identity = identity.ok();
    let identity = identity.as_deref();
    let token = identity.and_then(|identity| identity.token.as_ref());
    let text = |value: Option<&str>| value.and_then(|value| datum::text(value).ok().flatten());
    let time = |value: Option<f64>| value.and_then(datum::timestamptz);
    let subject = identity.and_then(|identity| identity.subject().ok().flatten());
    let role = identity.and_then(|identity| identity.roles.role(&identity.members).0);
    let source = identity.map_or_else(session::source, |identity| identity.source);
    Ok(Some(datum::row(
        call.row_type(),
        [
            text(Some(source.name())),
            text(identity.and_then(Identity::provider)),
            text(token.and_then(|token| token.claims.issuer.as_deref())),
            text(token.and_then(|token| token.header.key_id.as_deref())),
            text(
                token
                    .map(|token| format!("{:?}", token.header.algorithm))
                    .as_deref(),
            ),
            text(subject.as_deref()),
            text(role.as_deref()),
            time(token.and_then(|token| token.claims.issued_at)),
            time(token.and_then(|token| token.claims.expires_at)),
            text(Some(problem.as_str()).filter(|problem| !problem.is_empty())),
        ],
    )))
}
