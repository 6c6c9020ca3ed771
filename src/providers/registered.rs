//! The table of providers, as the rule that accepts a token asks for it.

use std::cell::RefCell;

use pg_session_jwt_jose::{NoAttempt, Provider, Providers, Rows, Standing};

use super::{fetching, look_up};
use crate::error::Error;

/// The table, for verifying a token.
#[derive(Default)]
pub(crate) struct Registered {
    /// Why keys that were asked for last were not fetched.
    why: RefCell<Option<NoAttempt>>,
}

impl Providers<Error> for Registered {
    fn of_issuer(&self, issuer: Option<&str>) -> Result<Rows, Error> {
        look_up::of_issuer(issuer)
    }

    fn some_issuers(&self) -> Result<Vec<String>, Error> {
        Ok(look_up::some_issuers())
    }

    fn fetch(&self, provider: &Provider) -> Result<(), Error> {
        self.why.replace(fetching::fetch_missing(provider)?);
        Ok(())
    }

    fn standing(&self, provider: &Provider) -> Option<Standing> {
        let following = look_up::following(provider).ok()??;
        Some(following.standing(self.why.take()))
    }
}
