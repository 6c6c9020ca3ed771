//! `pg_session_jwt.fetch_hosts`: the hosts that an administrator allows.

use std::net::IpAddr;

use crate::error::quoted;
use crate::url::Host;

/// Host names, patterns such as `*.example.com`, and IP addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// Lower case, without a trailing dot.
    Name(String),
    /// What a name must end with: `.example.com`.
    Below(String),
    Ip(IpAddr),
}

impl Hosts {
    /// Reads a comma-separated list, which may be empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let entries = text.split(',').map(|entry| Entry::parse(entry.trim()));
        entries.collect::<Result<_, _>>().map(Self)
    }

    /// Whether this host, as a URL has it, is one of them.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        Host::parse(host).is_some_and(|host| self.name(&host))
    }

    pub(crate) fn name(&self, host: &Host) -> bool {
        self.0.iter().any(|entry| match (entry, host) {
            (Entry::Ip(entry), Host::Ip(ip)) => entry == ip,
            (Entry::Name(entry), Host::Name(name)) => entry == without_dot(name),
            (Entry::Below(end), Host::Name(name)) => without_dot(name)
                .strip_suffix(end)
                .is_some_and(|before| !before.is_empty()),
            _ => false,
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an entry of the list is empty".to_owned());
        }
        let pattern = text.strip_prefix("*.");
        match (pattern, Host::parse(pattern.unwrap_or(text))) {
            (None, Some(Host::Ip(ip))) => Ok(Self::Ip(ip)),
            (None, Some(Host::Name(name))) => Ok(Self::Name(without_dot(&name).to_owned())),
            (Some(_), Some(Host::Name(name))) if without_dot(&name).contains('.') => {
                Ok(Self::Below(format!(".{}", without_dot(&name))))
            }
            (Some(_), Some(Host::Name(_))) => Err(format!(
                "{} would allow a whole top-level domain",
                quoted(text)
            )),
            _ => Err(format!(
                "{} is not a host name (without scheme, port and path), a pattern such as \
                 *.example.com, or an IP address",
                quoted(text)
            )),
        }
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_by_name_by_pattern_or_by_address() {
        let list = "id.example.com, *.clerk.accounts.dev ,Keys.Example.ORG.,10.0.0.1,[fd00::1],::1";
        let hosts = Hosts::parse(list).unwrap();
        for (host, expected) in [
            ("id.example.com", true),
            ("ID.EXAMPLE.com.", true),
            ("keys.example.org", true),
            ("a.clerk.accounts.dev", true),
            ("a.b.clerk.accounts.dev.", true),
            ("A.Clerk.Accounts.Dev", true),
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("[fd00:0::1]", true),
            ("[::1]", true),
            ("clerk.accounts.dev", false),
            (".clerk.accounts.dev", false),
            ("evilclerk.accounts.dev", false),
            ("a.clerk.accounts.dev.evil.example", false),
            ("x.id.example.com", false),
            ("id.example.comx", false),
            ("example.com", false),
            ("10.0.0.10", false),
            ("::ffff:10.0.0.1", false),
            ("167772161", false),
            ("*.clerk.accounts.dev", false),
            ("", false),
        ] {
            assert_eq!(hosts.names(host), expected, "{host}");
        }
        for empty in ["", " ", "\n"] {
            assert!(!Hosts::parse(empty).unwrap().names("id.example.com"));
        }
    }

    #[test]
    fn what_names_no_host_is_an_error() {
        let is_not = |entry: &str| {
            format!(
                "\"{entry}\" is not a host name (without scheme, port and path), a pattern such as \
                 *.example.com, or an IP address"
            )
        };
        for entry in [
            "*",
            "*.",
            "*.*",
            "*.*.example.com",
            "a.*.example.com",
            "a*.example.com",
            "*example.com",
            "**.example.com",
            "*.10.0.0.1",
            "*.[::1]",
            "https://id.example.com",
            "id.example.com:443",
            "id.example.com/jwks",
            "10.0.0.0/8",
            "user@id.example.com",
            "2130706433",
            "a b",
            "b\u{fc}cher.example",
        ] {
            let shown = entry.escape_default().to_string();
            assert_eq!(Hosts::parse(entry), Err(is_not(&shown)), "{entry}");
        }
        for entry in ["*.com", "*.localhost", "*.com."] {
            let expected = format!("\"{entry}\" would allow a whole top-level domain");
            assert_eq!(Hosts::parse(entry), Err(expected));
        }
        for list in ["a.example,,b.example", ",", "a.example,"] {
            assert_eq!(
                Hosts::parse(list),
                Err("an entry of the list is empty".to_owned())
            );
        }
    }
}
