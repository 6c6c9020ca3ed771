//! Where a row's keys are.

use crate::error::quoted;
use crate::url::{Host, Url};

/// Where a row's keys are: its `jwks_url`, or its issuer's discovery document.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) url: Url,
    host: String,
    issuer: Option<String>,
}

/// Why a row does not say where its keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// The facts.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

/// For an issuer that has no discovery document.
const GIVE_KEYS: &str =
    "Put the address of the issuer's key set into jwks_url, or the key set itself into jwks.";

impl Source {
    /// Of a row with these columns. `jwks_url` comes first.
    ///
    /// # Errors
    /// [`SourceError`], with a detail and a hint for the writer of the row.
    pub fn of(issuer: Option<&str>, jwks_url: Option<&str>) -> Result<Self, SourceError> {
        match (jwks_url, issuer) {
            (Some(url), _) => Self::at(url),
            (None, Some(issuer)) => Self::discovered(issuer),
            (None, None) => Err(SourceError {
                detail: "the provider has neither jwks_url nor an issuer to ask for its keys"
                    .to_owned(),
                hint: GIVE_KEYS,
            }),
        }
    }

    fn at(text: &str) -> Result<Self, SourceError> {
        let wrong = |what: &str, hint| SourceError {
            detail: format!("jwks_url {} {what}", quoted(text)),
            hint,
        };
        let url = Url::parse(text).map_err(|what| {
            wrong(
                what,
                "Use an https URL such as https://id.example.com/jwks.",
            )
        })?;
        if !is_protected(&url) {
            let hint =
                "Use https: anyone who can change the response in transit could choose the keys.";
            return Err(wrong("is neither https nor loopback", hint));
        }
        Ok(Self::new(url, None))
    }

    /// OpenID Connect Discovery 1.0, section 4.
    fn discovered(issuer: &str) -> Result<Self, SourceError> {
        let wrong = |what: &str| SourceError {
            detail: format!(
                "the issuer {} {what}, so it has no discovery document",
                quoted(issuer)
            ),
            hint: GIVE_KEYS,
        };
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        if base.contains('?') {
            return Err(wrong("has a query"));
        }
        Url::parse(issuer).map_err(wrong)?;
        let url = Url::parse(&format!("{base}/.well-known/openid-configuration")).map_err(wrong)?;
        if !is_protected(&url) {
            return Err(wrong("is neither https nor loopback"));
        }
        Ok(Self::new(url, Some(issuer.to_owned())))
    }

    fn new(url: Url, issuer: Option<String>) -> Self {
        let host = match &url.host {
            Host::Name(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            Host::Ip(ip) => ip.to_string(),
        };
        Self { url, host, issuer }
    }

    /// What is asked first.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url.text
    }

    /// The host of that URL as `fetch_hosts` would name it: lower case, no brackets, no trailing dot.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `Some`: the URL is that of a discovery document, whose `issuer` must be this, byte for byte.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }
}

/// Whether nobody on the way can change the answer.
fn is_protected(url: &Url) -> bool {
    url.https || url.host.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(issuer: Option<&str>, url: Option<&str>) -> Result<(String, Option<String>), String> {
        match Source::of(issuer, url) {
            Ok(source) => Ok((source.url().into(), source.issuer().map(str::to_owned))),
            Err(error) => {
                assert!(error.hint.ends_with('.'));
                Err(error.detail)
            }
        }
    }

    #[test]
    fn a_row_says_where_its_keys_are() {
        let url = "https://keys.example.com/jwks?a=b";
        for issuer in [None, Some("https://id.example.com"), Some("no URL")] {
            assert_eq!(of(issuer, Some(url)), Ok((url.to_owned(), None)));
        }
        for (issuer, document) in [
            (
                "https://a.example",
                "https://a.example/.well-known/openid-configuration",
            ),
            (
                "https://a.example/",
                "https://a.example/.well-known/openid-configuration",
            ),
            (
                "https://a.example/r/b",
                "https://a.example/r/b/.well-known/openid-configuration",
            ),
            (
                "https://a.example/r/",
                "https://a.example/r/.well-known/openid-configuration",
            ),
            (
                "https://a.example//",
                "https://a.example//.well-known/openid-configuration",
            ),
            (
                "https://a.example:8443",
                "https://a.example:8443/.well-known/openid-configuration",
            ),
            (
                "http://localhost:1",
                "http://localhost:1/.well-known/openid-configuration",
            ),
            (
                "http://[::1]:1/",
                "http://[::1]:1/.well-known/openid-configuration",
            ),
        ] {
            let expected = (document.to_owned(), Some(issuer.to_owned()));
            assert_eq!(of(Some(issuer), None), Ok(expected), "{issuer}");
        }
    }

    #[test]
    fn a_row_that_does_not_say_it_is_told_so() {
        for (issuer, url, expected) in [
            (
                None,
                None,
                "the provider has neither jwks_url nor an issuer to ask for its keys",
            ),
            (
                None,
                Some("http://a.example/"),
                "jwks_url \"http://a.example/\" is neither https nor loopback",
            ),
            (
                None,
                Some("https://a@b"),
                "jwks_url \"https://a@b\" has a user name",
            ),
            (
                None,
                Some("http://localhost.:1/"),
                "jwks_url \"http://localhost.:1/\" is neither https nor loopback",
            ),
            (
                None,
                Some("http://[::ffff:127.0.0.1]/"),
                "jwks_url \"http://[::ffff:127.0.0.1]/\" is neither https nor loopback",
            ),
            (
                None,
                Some("https://a\n"),
                "jwks_url \"https://a\\n\" contains white space, control characters or letters \
                 outside of ASCII",
            ),
            (
                Some("accounts.example"),
                None,
                "the issuer \"accounts.example\" is neither https nor http, so it has no discovery \
                 document",
            ),
            (
                Some("http://a.example"),
                None,
                "the issuer \"http://a.example\" is neither https nor loopback, so it has no \
                 discovery document",
            ),
            (
                Some("https://a?b"),
                None,
                "the issuer \"https://a?b\" has a query, so it has no discovery document",
            ),
            (
                Some("https://a/?b/"),
                None,
                "the issuer \"https://a/?b/\" has a query, so it has no discovery document",
            ),
            (
                Some("https://a/#b"),
                None,
                "the issuer \"https://a/#b\" has a fragment, so it has no discovery document",
            ),
            (
                Some("https://"),
                None,
                "the issuer \"https://\" has no host, so it has no discovery document",
            ),
            (
                Some(""),
                None,
                "the issuer \"\" is neither https nor http, so it has no discovery document",
            ),
        ] {
            assert_eq!(of(issuer, url), Err(expected.to_owned()));
        }
    }

    #[test]
    fn the_host_is_what_an_administrator_writes_into_fetch_hosts() {
        for (url, host) in [
            ("https://ID.example.com:8443/jwks", "id.example.com"),
            ("https://id.example.com./jwks", "id.example.com"),
            ("https://[::1]:1/", "::1"),
        ] {
            let source = Source::of(None, Some(url)).unwrap();
            assert_eq!(source.host(), host);
            assert!(crate::Hosts::parse(host).unwrap().names(source.host()));
        }
    }
}
