//! A provider: an issuer whose keys a database trusts, and what it requires of tokens beyond a valid
//! signature.

use std::rc::Rc;

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::claims::{Claims, Clock};
use crate::header::{self, Claimed, Header};
use crate::key::{self, Key};
use crate::key_set::{KeySet, KeySetError};
use crate::quoted::quoted;
use crate::rejection::{Misfit, Near, Rejection, Standing};
use crate::role::RoleRules;
use crate::words;

/// A row of `auth.providers`, from JSON.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the columns' comments are in the database")]
pub struct ProviderRow {
    pub name: String,
    pub issuer: Option<String>,
    pub jwks: Option<Value>,
    pub jwks_url: Option<String>,
    pub audience: Option<Vec<String>>,
    pub authorized_parties: Option<Vec<String>>,
    pub algorithms: Option<Vec<String>>,
    pub required_claims: Vec<String>,
    pub role_claim: Vec<String>,
    pub allowed_roles: Vec<String>,
    pub default_role: Option<String>,
    pub enabled: bool,
    /// `None` in a catalog of before 1.1.0, whose rows have no keys but their own.
    #[serde(default)]
    pub written_by_superuser: Option<bool>,
    /// Read only to check that it is there: when Postgres finds a NULL, its error quotes the row, keys
    /// included.
    pub created_at: String,
    pub updated_at: String,
}

/// An issuer whose keys are trusted.
#[derive(Debug)]
pub struct Provider {
    /// The primary key of the table; names the provider in errors.
    pub name: String,
    /// `iss`, compared byte for byte (RFC 7519 section 4.1.1); `None` for tokens without one.
    issuer: Option<String>,
    enabled: bool,
    /// Those in the row.
    keys: Option<KeySet>,
    /// Whether it has, beside them, those that its issuer publishes.
    follows: bool,
    /// Those that were fetched last.
    fetched: Option<Fetched>,
    /// `None`: all that the keys support.
    algorithms: Option<Vec<Algorithm>>,
    audience: Option<Vec<String>>,
    authorized_parties: Option<Vec<String>>,
    required_claims: Vec<String>,
    /// Which database role a token names.
    pub roles: Rc<RoleRules>,
}

/// The keys that an issuer has published.
#[derive(Debug)]
pub struct Fetched {
    /// The keys.
    pub keys: KeySet,
    /// When they were published still, in seconds since the epoch.
    pub at: f64,
}

/// What is wrong with a row or between two rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// The provider's name.
    pub name: String,
    /// The facts; never key material.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

impl Provider {
    /// Reads a row.
    ///
    /// # Errors
    /// [`ProviderError`], with a detail and a hint for the writer of the row.
    pub fn new(row: ProviderRow) -> Result<Self, ProviderError> {
        let name = row.name;
        let wrong = |detail: String, hint| ProviderError {
            name: name.clone(),
            detail,
            hint,
        };
        if name.is_empty() {
            return Err(wrong(
                "the name is empty".into(),
                "Give the provider a name.",
            ));
        }
        if row.issuer.as_deref() == Some("") {
            return Err(wrong(
                "the issuer is empty".into(),
                "For tokens without \"iss\", use NULL.",
            ));
        }
        let follows = row.written_by_superuser.is_some()
            && (row.jwks_url.is_some() || row.jwks.is_none() && row.issuer.is_some());
        if row.jwks.is_none() && row.jwks_url.is_none() && !follows {
            return Err(wrong(
                "the provider has no keys".into(),
                "Put the issuer's JWK Set into jwks.",
            ));
        }
        for (column, list) in [
            ("audience", &row.audience),
            ("authorized_parties", &row.authorized_parties),
        ] {
            if list.as_ref().is_some_and(Vec::is_empty) {
                return Err(wrong(
                    format!("{column} is empty: it would accept no token"),
                    "To accept any, use NULL.",
                ));
            }
        }
        let algorithms = match row.algorithms {
            None => None,
            Some(names) => {
                let read = |name: &String| header::algorithm(name).ok_or_else(|| name.clone());
                let read: Result<Vec<_>, _> = names.iter().map(read).collect();
                Some(read.map_err(|name| {
                    wrong(
                        format!("algorithm {} is not supported", quoted(&name)),
                        words::ALGORITHMS,
                    )
                })?)
            }
        };
        let keys =
            match row.jwks {
                None => None,
                Some(jwks) => Some(KeySet::parse(jwks.to_string().as_bytes()).map_err(
                    |KeySetError { detail, hint }| wrong(format!("jwks: {detail}"), hint),
                )?),
            };
        for role in row.allowed_roles.iter().chain(&row.default_role) {
            if role == "none" || role.is_empty() {
                return Err(wrong(
                    format!("{} is not the name of a role", quoted(role)),
                    "SET ROLE none would give the token the connecting user's privileges.",
                ));
            }
        }
        if row.role_claim.is_empty() {
            return Err(wrong(
                "role_claim is empty".into(),
                "Give the path of a claim, such as '{role}'.",
            ));
        }
        let provider = Self {
            name: name.clone(),
            issuer: row.issuer,
            enabled: row.enabled,
            keys,
            follows,
            fetched: None,
            algorithms,
            audience: row.audience,
            authorized_parties: row.authorized_parties,
            required_claims: row.required_claims,
            roles: Rc::new(RoleRules {
                claim: row.role_claim,
                allowed: row.allowed_roles,
                default: row.default_role,
            }),
        };
        if provider.keys.is_some() && !provider.allows_any_of(provider.keys.iter()) {
            return Err(wrong(
                "no usable key: no key in jwks supports any of the algorithms".into(),
                "Leave algorithms NULL to allow all that the keys support.",
            ));
        }
        Ok(provider)
    }

    /// The `iss` of its tokens; `None`: they have none.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whether it is enabled, and for tokens with this `iss`.
    pub(crate) fn is_for(&self, issuer: Option<&str>) -> bool {
        self.enabled && self.issuer.as_deref() == issuer
    }

    /// Whether it counts at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether no token could belong to either of two providers, which it could if both are enabled and
    /// have the same issuer and an algorithm in common. (Key ids do not distinguish them: a token may
    /// have none.)
    ///
    /// # Errors
    /// [`ProviderError`] if a token could.
    pub fn check_apart(&self, other: &Self) -> Result<(), ProviderError> {
        if !self.enabled || !other.enabled || self.issuer != other.issuer {
            return Ok(());
        }
        let may_be_shared = |one: &Algorithm| self.may_verify(*one) && other.may_verify(*one);
        let shared = header::ALGORITHMS.into_iter().find(may_be_shared);
        shared.map_or(Ok(()), |algorithm| {
            Err(ProviderError {
                name: self.name.clone(),
                detail: format!(
                    "provider {} has the same issuer, and a token with \"alg\" \"{algorithm:?}\" could belong to either",
                    quoted(&other.name)
                ),
                hint: words::APART,
            })
        })
    }

    /// Whether it has, or may come to have, a key for an algorithm. Which keys an issuer will publish is
    /// unknown; secrets are not published.
    fn may_verify(&self, algorithm: Algorithm) -> bool {
        let has = |keys: &KeySet| keys.algorithms().any(|one| one == algorithm);
        self.allows(algorithm)
            && (self.keys.as_ref().is_some_and(has) || self.follows && !key::is_hmac(algorithm))
    }

    fn allows_any_of<'a>(&self, mut sets: impl Iterator<Item = &'a KeySet>) -> bool {
        sets.any(|keys| keys.algorithms().any(|one| self.allows(one)))
    }

    fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms
            .as_ref()
            .is_none_or(|list| list.contains(&algorithm))
    }

    /// Whether its keys follow what its issuer publishes.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// The same provider with the keys that its issuer has published.
    #[must_use]
    pub fn with(self, fetched: Option<Fetched>) -> Self {
        Self {
            fetched: fetched.filter(|_| self.follows),
            ..self
        }
    }

    /// **The rule that says which keys of a provider count**: those in its row, and those that were fetched,
    /// until they are stale. The latter with the time at which they were.
    fn keys(&self, clock: Clock) -> impl Iterator<Item = (&KeySet, Option<f64>)> {
        let fetched = self.fetched.iter();
        let fetched = fetched.filter(move |fetched| clock.is_fresh(fetched.at));
        let fetched = fetched.map(|fetched| (&fetched.keys, Some(fetched.at)));
        self.keys.iter().map(|keys| (keys, None)).chain(fetched)
    }

    /// The keys that may verify a token with this header, each with the time at which it was fetched.
    pub(crate) fn fitting<'a>(
        &'a self,
        header: &'a Header,
        claimed: Claimed<'a>,
        clock: Clock,
    ) -> impl Iterator<Item = (&'a Key, Option<f64>)> {
        let keys = self.keys(clock).filter(|_| self.allows(header.algorithm));
        keys.flat_map(move |(keys, at)| keys.fitting(header, claimed).map(move |key| (key, at)))
    }

    /// **The rule that says for which tokens keys are worth fetching**: for one that none of the keys fits,
    /// unless it names a key that is known.
    pub(crate) fn lacks_key_for(&self, header: &Header, clock: Clock) -> bool {
        let has_fetched = self.keys(clock).any(|(_, at)| at.is_some());
        let is_known = |id: &String| self.keys(clock).any(|(keys, _)| keys.has(id));
        self.follows
            && self.allows(header.algorithm)
            && !key::is_hmac(header.algorithm)
            && (!has_fetched || !header.key_id.as_ref().is_some_and(is_known))
    }

    /// For messages: what keeps its keys from fitting a token that none of them fits.
    pub(crate) fn misfit(&self, header: &Header, clock: Clock) -> Option<Misfit> {
        let keys = self.keys(clock).filter(|_| self.allows(header.algorithm));
        keys.filter_map(|(keys, _)| keys.misfit(header)).next()
    }

    /// The keys of its set that cannot be used, for messages. `None` if all can.
    #[must_use]
    pub fn ignored_keys(&self) -> Option<String> {
        self.keys.as_ref().and_then(KeySet::ignored)
    }

    /// Stage policy.
    pub(crate) fn check_policy(
        &self,
        claims: &Claims,
        members: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        if let Some(accepted) = &self.audience
            && !claims.audience.iter().any(|name| accepted.contains(name))
        {
            return Err(Rejection::Audience(claims.audience.clone()));
        }
        if let Some(accepted) = &self.authorized_parties {
            // Access tokens name the application in `client_id` (RFC 9068 section 2.2), which counts
            // where there is no `azp`, whatever its type.
            let claim = ["azp", "client_id"]
                .into_iter()
                .find(|name| members.get(*name).is_some_and(|value| !value.is_null()));
            let party = claim.and_then(|name| Some((name, members[name].as_str()?)));
            if !party.is_some_and(|(_, party)| accepted.iter().any(|name| name == party)) {
                let party = party.map(|(claim, party)| (claim, party.to_owned()));
                return Err(Rejection::AuthorizedParty(party));
            }
        }
        let is_missing = |name: &&String| members.get(*name).is_none_or(Value::is_null);
        match self.required_claims.iter().find(is_missing) {
            Some(name) => Err(Rejection::MissingClaim(name.clone())),
            None => Ok(()),
        }
    }
}

/// All providers of an issuer, enabled or not.
pub type Rows = Rc<[Rc<Provider>]>;

/// Where providers are looked up: there may be a hundred thousand.
pub trait Providers<E> {
    /// Those with this issuer; `None`: those for tokens without `iss`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn of_issuer(&self, issuer: Option<&str>) -> Result<Rows, E>;

    /// The issuers of a few enabled ones, to compare an unknown issuer with.
    ///
    /// # Errors
    /// If they cannot be read.
    fn some_issuers(&self) -> Result<Vec<String>, E>;

    /// Sees to it that an issuer's keys are fetched, if that is possible now.
    ///
    /// # Errors
    /// If it is interrupted.
    fn fetch(&self, _provider: &Provider) -> Result<(), E> {
        Ok(())
    }

    /// Where the keys of a provider that follows its issuer stand, for messages.
    fn standing(&self, _provider: &Provider) -> Option<Standing> {
        None
    }
}

/// The providers with this issuer, at least one of which is enabled.
///
/// # Errors
/// [`Rejection::UnknownIssuer`], with the provider that was probably meant.
pub(crate) fn of_issuer<E: From<Rejection>>(
    providers: &dyn Providers<E>,
    issuer: Option<&str>,
) -> Result<Rows, E> {
    let rows = providers.of_issuer(issuer)?;
    if rows.iter().any(|row| row.is_for(issuer)) {
        return Ok(rows);
    }
    let near = match (rows.first(), issuer) {
        (Some(disabled), _) => Some(Near::Disabled(disabled.name.clone())),
        (None, Some(issuer)) => near(providers, issuer)?,
        (None, None) => None,
    };
    Err(E::from(Rejection::UnknownIssuer {
        issuer: issuer.map(str::to_owned),
        near,
    }))
}

/// An enabled provider with a similar issuer: its other spellings are looked up, and a few issuers
/// compared.
fn near<E>(providers: &dyn Providers<E>, issuer: &str) -> Result<Option<Near>, E> {
    let named = |spelling: &str| -> Result<Option<String>, E> {
        let rows = providers.of_issuer(Some(spelling))?;
        let enabled = rows.iter().find(|row| row.enabled);
        Ok(enabled.map(|row| row.name.clone()))
    };
    let (scheme, rest) = issuer.split_once("://").unwrap_or(("", issuer));
    let other_end = match issuer.strip_suffix('/') {
        Some(bare) => bare.to_owned(),
        None => format!("{issuer}/"),
    };
    if let Some(name) = named(&other_end)? {
        return Ok(Some(Near::Slash(name)));
    }
    for other in ["https", "http", ""]
        .into_iter()
        .filter(|other| *other != scheme)
    {
        let colon = if other.is_empty() { "" } else { "://" };
        if let Some(name) = named(&format!("{other}{colon}{rest}"))? {
            return Ok(Some(Near::Scheme(name)));
        }
    }
    let some = providers.some_issuers()?;
    Ok(some.iter().find_map(|trusted| resembles(trusted, issuer)))
}

fn resembles(trusted: &str, issuer: &str) -> Option<Near> {
    let [(host, path), (other_host, other_path)] = [trusted, issuer].map(|issuer| {
        let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
        rest.split_once('/').unwrap_or((rest, ""))
    });
    // Entra's tenants are GUIDs.
    let tenant = |path: &'_ str| path.get(..36).map(str::to_owned);
    if !host.is_empty() && host == other_host {
        Some(Near::Host)
    } else if !bare(path).is_empty() && bare(path) == bare(other_path) {
        Some(Near::Path)
    } else if tenant(path).is_some() && tenant(path) == tenant(other_path) {
        Some(Near::Tenant)
    } else {
        None
    }
}

fn bare(issuer: &str) -> &str {
    issuer.strip_suffix('/').unwrap_or(issuer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One provider alone.
    impl<E> Providers<E> for Rc<Provider> {
        fn of_issuer(&self, issuer: Option<&str>) -> Result<Rows, E> {
            let one = std::iter::once(self);
            Ok(one.filter(|row| row.issuer() == issuer).cloned().collect())
        }

        fn some_issuers(&self) -> Result<Vec<String>, E> {
            let one = std::iter::once(self).filter(|row| row.enabled);
            Ok(one.filter_map(|row| row.issuer.clone()).collect())
        }
    }
    use serde_json::json;

    const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn okp() -> Value {
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": KEY, "kid": "a"}]})
    }

    fn oct() -> Value {
        json!({"kty": "oct", "k": KEY})
    }

    fn provider(changes: Value) -> Result<Provider, ProviderError> {
        let mut row = json!({
            "name": "clerk", "issuer": "https://i", "jwks": okp(), "jwks_url": null, "audience": null,
            "authorized_parties": null, "algorithms": null, "required_claims": ["exp"],
            "role_claim": ["role"], "allowed_roles": ["authenticated"], "default_role": null,
            "enabled": true, "created_at": "then", "updated_at": "now"
        });
        for (name, value) in changes.as_object().expect("changes") {
            row[name] = value.clone();
        }
        Provider::new(serde_json::from_value(row).expect("a row"))
    }

    #[test]
    fn a_row_that_cannot_work_is_refused_with_what_to_do() {
        for (changes, detail) in [
            (json!({"name": ""}), "the name is empty"),
            (json!({"issuer": ""}), "the issuer is empty"),
            (json!({"jwks": null}), "the provider has no keys"),
            (json!({"jwks": {"keys": []}}), "jwks: no usable key"),
            (json!({"jwks": "text"}), "jwks: not a JSON object"),
            (
                json!({"jwks": {"kty": "oct", "k": "AA"}}),
                "jwks: no usable key: key 1: the secret has 1 bytes",
            ),
            (
                json!({"algorithms": ["none"]}),
                "algorithm \"none\" is not supported",
            ),
            (
                json!({"algorithms": ["RS256"]}),
                "no usable key: no key in jwks supports",
            ),
            (
                json!({"algorithms": []}),
                "no usable key: no key in jwks supports",
            ),
            (
                json!({"allowed_roles": ["none"]}),
                "\"none\" is not the name of a role",
            ),
            (
                json!({"default_role": "none"}),
                "\"none\" is not the name of a role",
            ),
            (
                json!({"audience": []}),
                "audience is empty: it would accept no token",
            ),
            (json!({"role_claim": []}), "role_claim is empty"),
        ] {
            let error = provider(changes.clone()).expect_err(&changes.to_string());
            assert!(error.detail.starts_with(detail), "{changes}: {error:?}");
            assert!(!error.hint.is_empty());
        }
        assert!(provider(json!({"jwks": null, "jwks_url": "https://i/jwks"})).is_ok());
    }

    #[test]
    fn two_rows_of_one_issuer_must_not_both_fit_a_token() {
        let first = provider(json!({})).expect("sound");
        for (changes, apart) in [
            (json!({}), false),
            (json!({"enabled": false}), true),
            (json!({"issuer": "https://other"}), true),
            (json!({"issuer": null}), true),
            (json!({"jwks": oct()}), true),
            (json!({"jwks": null, "jwks_url": "https://i/j"}), true),
        ] {
            let other = provider(changes.clone()).expect("sound");
            assert_eq!(first.check_apart(&other).is_ok(), apart, "{changes}");
            assert_eq!(other.check_apart(&first).is_ok(), apart, "{changes}");
        }
    }

    #[test]
    fn an_issuer_that_only_looks_like_one_is_told_so() {
        let of = |issuer: Option<&str>, changes: Value| {
            let one = Rc::new(provider(changes).expect("sound"));
            of_issuer::<Rejection>(&one, issuer).map(|found| found.len())
        };
        let near = |result| match result {
            Err(Rejection::UnknownIssuer { near, .. }) => near,
            other => panic!("{other:?}"),
        };
        let name = || "clerk".to_owned();
        assert_eq!(of(Some("https://i"), json!({})), Ok(1));
        assert_eq!(
            near(of(Some("https://i/"), json!({}))),
            Some(Near::Slash(name()))
        );
        assert_eq!(
            near(of(Some("http://i"), json!({}))),
            Some(Near::Scheme(name()))
        );
        assert_eq!(near(of(Some("i"), json!({}))), Some(Near::Scheme(name())));
        assert_eq!(near(of(Some("https://I"), json!({}))), None);
        let tenant = "11111111-2222-3333-4444-555555555555";
        for (registered, presented, expected) in [
            (
                "https://api.workos.com",
                "https://api.workos.com/user_management/client_1",
                Some(Near::Host),
            ),
            (
                "https://id.example/realms/a",
                "https://id.example/realms/b",
                Some(Near::Host),
            ),
            (
                "https://id.example/realms/a",
                "http://keycloak:8080/realms/a",
                Some(Near::Path),
            ),
            (
                "https://id.example/realms/a",
                "http://keycloak:8080/realms/b",
                None,
            ),
            ("https://one.example", "https://two.example", None),
            ("https://one.example/", "https://two.example/", None),
            (
                &format!("https://login.microsoftonline.com/{tenant}/v2.0"),
                &format!("https://sts.windows.net/{tenant}/"),
                Some(Near::Tenant),
            ),
        ] {
            let found = of(Some(presented), json!({ "issuer": registered }));
            assert_eq!(near(found), expected, "{presented}");
        }
        assert_eq!(near(of(None, json!({}))), None);
        assert_eq!(of(None, json!({"issuer": null})), Ok(1));
        let disabled = json!({"enabled": false});
        assert_eq!(
            near(of(Some("https://i"), disabled)),
            Some(Near::Disabled(name()))
        );
    }

    #[test]
    fn policy_asks_for_audience_party_and_claims() {
        let check = |changes: Value, json: Value| {
            let members = json.as_object().expect("an object");
            let claims = Claims::from_members(members).expect("well typed");
            let provider = provider(changes).expect("sound");
            provider.check_policy(&claims, members)
        };
        let audience = json!({"audience": ["a", "b"], "required_claims": []});
        assert!(check(audience.clone(), json!({"aud": "b"})).is_ok());
        assert!(check(audience.clone(), json!({"aud": ["x", "a"]})).is_ok());
        for json in [
            json!({"aud": "c"}),
            json!({"aud": []}),
            json!({}),
            json!({"aud": "A"}),
        ] {
            assert!(matches!(
                check(audience.clone(), json),
                Err(Rejection::Audience(_))
            ));
        }
        let party = json!({"authorized_parties": ["https://app"], "required_claims": []});
        assert!(check(party.clone(), json!({"azp": "https://app"})).is_ok());
        for json in [
            json!({"azp": "https://evil"}),
            json!({}),
            json!({"azp": ["https://app"]}),
        ] {
            assert!(matches!(
                check(party.clone(), json),
                Err(Rejection::AuthorizedParty(_))
            ));
        }
        assert_eq!(
            check(json!({}), json!({})),
            Err(Rejection::MissingClaim("exp".into()))
        );
        let claim = json!({"required_claims": ["sid"]});
        assert!(check(claim.clone(), json!({"sid": ""})).is_ok());
        assert!(check(claim, json!({"sid": null})).is_err());
    }
}
