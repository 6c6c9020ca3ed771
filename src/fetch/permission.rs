//! **The rule that says where a request may go.**
//!
//! Whoever writes a row of `auth.providers` makes the database's host send requests. So what is asked is an
//! administrator's to allow, and a name that anyone can point anywhere must not lead into the network behind
//! the host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::shortened;
use crate::url::Url;
use crate::{Hosts, Source};

/// What is known about a row before anything is asked.
#[derive(Debug, Clone)]
pub struct Permission {
    /// Only a superuser may send requests to hosts that `fetch_hosts` does not name.
    pub written_by_superuser: bool,
    /// `pg_session_jwt.fetch_hosts`.
    pub hosts: Hosts,
}

/// Which addresses a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Any,
    Public,
    Loopback,
}

impl Permission {
    /// **The rule that says where a request may go.** Asked before every request: `asked` is the row's own URL
    /// (`row`), or the `jwks_uri` that its discovery document names.
    pub(crate) fn reach(&self, row: &Url, asked: &Url) -> Result<Reach, Refused> {
        let on_loopback = asked.host.is_loopback();
        let named = self.hosts.name(&asked.host);
        if !asked.https && !on_loopback {
            return Err(Refused::NotHttps(asked.to_string()));
        }
        if !named && !self.written_by_superuser {
            return Err(Refused::HostNotAllowed {
                host: asked.host.to_string(),
            });
        }
        // A document from elsewhere does not lead back to this machine.
        let own_choice = on_loopback && row.host.is_loopback();
        Ok(match (asked.https, named, own_choice) {
            (true, true, _) => Reach::Any,
            (false, true, _) | (_, false, true) => Reach::Loopback,
            (_, false, false) => Reach::Public,
        })
    }

    /// Whether this row's own URL may be asked, as far as it can be said without resolving its host.
    ///
    /// # Errors
    /// [`Refused`], with what forbids it.
    pub fn allows(&self, source: &Source) -> Result<(), Refused> {
        self.reach(&source.url, &source.url).map(drop)
    }
}

impl Reach {
    /// The second half of the rule: asked of every address that a host resolves to.
    pub fn includes(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Public => is_public(ip),
            Self::Loopback => ip.to_canonical().is_loopback(),
        }
    }
}

/// Whether an address is one of the public internet's (the IANA special-purpose address registries).
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !matches!(
        ip.octets(),
        // this network; private; loopback; multicast, reserved, broadcast
        [0 | 10 | 127 | 224.., ..]
            // between a provider and its customers
            | [100, 64..=127, ..]
            // link-local, where clouds keep their metadata
            | [169, 254, ..]
            // private
            | [172, 16..=31, ..]
            | [192, 168, ..]
            // protocol assignments, documentation, 6to4 relays
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            // benchmarking
            | [198, 18 | 19, ..]
            // documentation
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

/// Only global unicast addresses; NAT64, unique local, link-local, multicast and loopback lie outside of it.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // protocol assignments such as Teredo; documentation; 6to4; documentation
        [0x2001, ..=0x01ff | 0x0db8, ..] | [0x2002, ..] | [0x3fff, ..=0x0fff, ..] => false,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

/// What the rule forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// `fetch_hosts` does not name the host, and the row is no superuser's.
    HostNotAllowed {
        /// As `fetch_hosts` would name it.
        host: String,
    },
    /// The URL is `http`, and not of this machine.
    NotHttps(String),
    /// An address that the host resolves to.
    Address {
        /// As the URL has it.
        host: String,
        /// One that is not allowed.
        address: IpAddr,
        /// Only addresses of this machine were.
        only_loopback: bool,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNotAllowed { host } => write!(
                formatter,
                "{} is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row",
                shortened(host, 120)
            ),
            Self::NotHttps(url) => write!(formatter, "{url} is neither https nor loopback"),
            Self::Address {
                host,
                address,
                only_loopback,
            } => {
                let kind = if *only_loopback { "loopback" } else { "public" };
                let host = shortened(host, 120);
                if address.to_string() == host {
                    write!(formatter, "{address} is not a {kind} address")
                } else {
                    write!(
                        formatter,
                        "{host} resolves to {address}, which is not a {kind} address"
                    )
                }
            }
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(superuser: bool, hosts: &str, row: &str, asked: &str) -> Result<Reach, Refused> {
        let permission = Permission {
            written_by_superuser: superuser,
            hosts: Hosts::parse(hosts).unwrap(),
        };
        permission.reach(&Url::parse(row).unwrap(), &Url::parse(asked).unwrap())
    }

    #[test]
    fn only_an_administrator_says_where_a_request_may_go() {
        let (public, local, v6) = (
            "https://id.example/",
            "http://localhost:1/",
            "http://[::1]/",
        );
        let other = "https://keys.example/";
        let both = "id.example, localhost, 127.0.0.1";
        let not_allowed = |host: &str| Err(Refused::HostNotAllowed { host: host.into() });
        for (superuser, hosts, row, asked, expected) in [
            // A superuser's row: the public internet.
            (true, "", public, public, Ok(Reach::Public)),
            (true, "", public, other, Ok(Reach::Public)),
            (
                true,
                "",
                "https://10.0.0.1/",
                "https://10.0.0.1/",
                Ok(Reach::Public),
            ),
            // Or this machine, where the row itself says so.
            (true, "", local, local, Ok(Reach::Loopback)),
            (true, "", local, v6, Ok(Reach::Loopback)),
            (
                true,
                "",
                "https://127.0.0.1/",
                "https://127.0.0.1/",
                Ok(Reach::Loopback),
            ),
            (true, "", local, other, Ok(Reach::Public)),
            // A document from elsewhere does not lead to this machine.
            (true, "", public, "https://localhost/", Ok(Reach::Public)),
            (true, "", public, v6, Ok(Reach::Public)),
            (
                true,
                "",
                "https://localhost./",
                "https://localhost./",
                Ok(Reach::Public),
            ),
            // Whoever wrote the row: what an administrator names.
            (false, both, public, public, Ok(Reach::Any)),
            (true, both, public, public, Ok(Reach::Any)),
            (false, both, public, "https://127.0.0.1/", Ok(Reach::Any)),
            (true, both, public, other, Ok(Reach::Public)),
            // Unprotected only within this machine, whatever resolves to what.
            (false, both, local, local, Ok(Reach::Loopback)),
            (true, both, public, local, Ok(Reach::Loopback)),
            // And nothing else.
            (false, "", public, public, not_allowed("id.example")),
            (false, "", local, local, not_allowed("localhost")),
            (false, both, public, other, not_allowed("keys.example")),
            (false, both, local, v6, not_allowed("::1")),
            (
                false,
                "*.id.example",
                public,
                public,
                not_allowed("id.example"),
            ),
            (false, both, other, public, Ok(Reach::Any)),
        ] {
            let found = reach(superuser, hosts, row, asked);
            assert_eq!(found, expected, "{superuser} {hosts:?} {row} {asked}");
        }
        for (superuser, hosts) in [(true, ""), (true, "id.example"), (false, "id.example")] {
            let asked = "http://id.example/jwks";
            let expected = Err(Refused::NotHttps(asked.into()));
            assert_eq!(reach(superuser, hosts, local, asked), expected);
        }
    }

    #[test]
    fn the_row_alone_already_says_whether_its_host_is_allowed() {
        let source = Source::of(Some("https://id.example"), None).unwrap();
        let mut permission = Permission {
            written_by_superuser: false,
            hosts: Hosts::default(),
        };
        let refused = permission.allows(&source).unwrap_err().to_string();
        let expected =
            "id.example is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row";
        assert_eq!(refused, expected);
        permission.hosts = Hosts::parse("*.example, id.example.org").unwrap_or_default();
        assert!(permission.allows(&source).is_err());
        permission.hosts = Hosts::parse("id.example").unwrap();
        assert_eq!(permission.allows(&source), Ok(()));
        permission.hosts = Hosts::default();
        permission.written_by_superuser = true;
        assert_eq!(permission.allows(&source), Ok(()));
    }

    #[test]
    fn an_address_is_public_or_it_is_not() {
        for (ip, public) in [
            ("1.1.1.1", true),
            ("9.255.255.255", true),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("126.255.255.255", true),
            ("128.0.0.0", true),
            ("169.253.255.255", true),
            ("169.255.0.0", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("192.0.1.0", true),
            ("192.88.98.255", true),
            ("192.88.100.0", true),
            ("192.167.255.255", true),
            ("192.169.0.0", true),
            ("198.17.255.255", true),
            ("198.20.0.0", true),
            ("198.51.101.0", true),
            ("203.0.112.255", true),
            ("223.255.255.255", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.0", false),
            ("10.255.255.255", false),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("169.254.169.254", false),
            ("172.16.0.0", false),
            ("172.31.255.255", false),
            ("192.0.0.1", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.0.0", false),
            ("192.168.255.255", false),
            ("198.18.0.0", false),
            ("198.19.255.255", false),
            ("198.51.100.1", false),
            ("203.0.113.1", false),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1", true),
            ("2001:200::1", true),
            ("2001:4860:4860::8888", true),
            ("2003::1", true),
            ("3fff:1000::1", true),
            ("::ffff:1.1.1.1", true),
            ("::", false),
            ("::1", false),
            ("::1.1.1.1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:0:1.1.1.1", false),
            ("64:ff9b::1.1.1.1", false),
            ("64:ff9b:1::1", false),
            ("100::1", false),
            ("1fff:ffff::1", false),
            ("2001::1", false),
            ("2001:1ff:ffff::1", false),
            ("2001:db8::1", false),
            ("2002:0a00:1::1", false),
            ("3fff:fff:ffff::1", false),
            ("4000::1", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            let address: IpAddr = ip.parse().unwrap();
            assert_eq!(Reach::Public.includes(address), public, "{ip}");
            assert!(Reach::Any.includes(address));
            let loopback = ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"];
            assert_eq!(
                Reach::Loopback.includes(address),
                loopback.contains(&ip),
                "{ip}"
            );
        }
    }
}
