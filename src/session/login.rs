//! Database roles.

use pg_session_jwt_jose::{Rejection, RoleFault};

use super::accept::{audited, examine, put_in_force};
use super::identity::Identity;
use crate::datum;
use crate::error::Error;
use crate::guc;

/// Verifies a token, puts it in force and assumes the database role that it names; no token is the role
/// `anonymous`, or `anon`, Supabase's name, where only that one exists. Returns the role.
///
/// # Errors
/// If the token is not accepted or names no allowed role, and Postgres's own errors for SET ROLE.
pub(crate) fn login(token: Option<&[u8]>, is_local: bool) -> Result<String, Error> {
    if token.is_none_or(<[u8]>::is_empty) {
        let [anonymous, anon] = [c"anonymous", c"anon"];
        let only_anon = !guc::role_exists(anonymous) && guc::role_exists(anon);
        let role = if only_anon { anon } else { anonymous };
        guc::set_role(role, is_local);
        guc::clear_jwt(is_local);
        return Ok(role.to_string_lossy().into_owned());
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

/// **The rule that says which database role a token gets.** SET ROLE decides whether the session may
/// assume it.
fn role_of(identity: &Identity) -> Result<String, Rejection> {
    let (named, role) = identity.roles.role(&identity.members);
    let refuse = |why| Rejection::Role {
        named: named.as_deref().map(str::to_owned),
        why,
    };
    let role = match (role, &named) {
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

/// Forgets the token and the role.
pub(crate) fn logout() {
    guc::clear_jwt(false);
    guc::reset_role();
}
