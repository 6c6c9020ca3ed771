//! The URLs that are asked, read strictly: what two parsers could read as two hosts is none.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ureq::http::Uri;

use crate::error::shortened;

/// More than any issuer's; a request line has to fit into the buffer for it.
const MAX_URL_BYTES: usize = 2048;

/// An `https` or `http` URL.
#[derive(Debug, Clone)]
pub(crate) struct Url {
    pub https: bool,
    pub host: Host,
    pub port: u16,
    /// As it was written.
    pub text: String,
    /// The same, for the HTTP library.
    pub uri: Uri,
}

/// The host in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name in lower case, with its trailing dot if it was written with one.
    Name(String),
    Ip(IpAddr),
}

impl Host {
    /// Whether the URL itself says that it means this machine, whatever a name server says.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Ip(ip) => ip.is_loopback(),
        }
    }

    /// An IP address, in brackets or not, or a name.
    ///
    /// Numbers that are no address (`2130706433`, `0x7f.1`, `127.1`) are neither: the system's resolver would
    /// take them for one.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let ip: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Ip(ip.into()));
        }
        if let Ok(ip) = text.parse() {
            return Some(Self::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        is_name(name).then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Ip(ip) => write!(formatter, "{ip}"),
        }
    }
}

/// Whether this is a host name, without a trailing dot.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(is_label) && !number
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, to be put after the URL: "is too long".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        // A URL is printed in errors: this also keeps line breaks out of them.
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("contains white space, control characters or letters outside of ASCII");
        }
        if text.len() > MAX_URL_BYTES {
            return Err("is too long");
        }
        if text.contains('\\') {
            return Err("contains a backslash");
        }
        if text.contains('#') {
            return Err("has a fragment");
        }
        let (scheme, rest) = text.split_once("://").ok_or("is neither https nor http")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("is neither https nor http"),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        // A user name can make one host look like another.
        if authority.contains('@') {
            return Err("has a user name");
        }
        let no_host = "has neither a host name nor an IP address as its host";
        // The colons of an IPv6 address do not begin a port.
        let end = match authority.find(']') {
            Some(bracket) => bracket + 1,
            None if authority.starts_with('[') => return Err(no_host),
            None => 0,
        };
        let (host, port) = match authority.get(end..).and_then(|rest| rest.find(':')) {
            Some(colon) => authority
                .split_at_checked(end + colon)
                .unwrap_or((authority, "")),
            None => (authority, ""),
        };
        if host.is_empty() {
            return Err("has no host");
        }
        let written = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port: u16 = digits.parse().map_err(|_| "has an invalid port")?;
                Some(port)
            }
            Some(_) => return Err("has an invalid port"),
            None => None,
        };
        if written == Some(0) {
            return Err("has an invalid port");
        }
        // An IPv6 address without brackets has colons, and so is none here.
        let parsed = Host::parse(host).ok_or(no_host)?;
        let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
        // The library asks whom it reads, so both must read the same.
        if uri.host() != Some(host) || uri.port_u16() != written {
            return Err("is not a URL");
        }
        Ok(Self {
            https,
            host: parsed,
            port: written.unwrap_or(if https { 443 } else { 80 }),
            text: text.to_owned(),
            uri,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&shortened(&self.text, 120))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_every_other_parser_reads_it() {
        for (text, https, host, port) in [
            ("https://id.example.com/jwks", true, "id.example.com", 443),
            ("HTTPS://ID.Example.COM", true, "id.example.com", 443),
            ("HTTP://LOCALHOST", false, "localhost", 80),
            ("https://localhost./", true, "localhost.", 443),
            (
                "https://id.example.com:8443?a=b@c:d/[e]",
                true,
                "id.example.com",
                8443,
            ),
            ("https://id_1-2.example/%20", true, "id_1-2.example", 443),
            ("http://127.0.0.9:1/j", false, "127.0.0.9", 1),
            ("http://[::1]:65535/j", false, "::1", 65535),
            ("https://[::ffff:10.0.0.1]/", true, "::ffff:10.0.0.1", 443),
            ("https://[2001:DB8::A]", true, "2001:db8::a", 443),
            (
                "https://xn--bcher-kva.example/",
                true,
                "xn--bcher-kva.example",
                443,
            ),
            ("https://1.example.1a/", true, "1.example.1a", 443),
        ] {
            let url = Url::parse(text).unwrap_or_else(|what| panic!("{text} {what}"));
            let found = (url.https, url.host.to_string(), url.port);
            assert_eq!(found, (https, host.to_owned(), port), "{text}");
            assert_eq!(url.text, text);
        }
    }

    #[test]
    fn what_could_be_read_as_another_host_is_no_url() {
        let scheme = "is neither https nor http";
        let host = "has neither a host name nor an IP address as its host";
        let port = "has an invalid port";
        let space = "contains white space, control characters or letters outside of ASCII";
        for (text, expected) in [
            ("", scheme),
            ("id.example.com", scheme),
            ("//localhost", scheme),
            ("http:localhost", scheme),
            ("ftp://localhost/", scheme),
            ("file:///etc/passwd", scheme),
            ("httpsx://a/", scheme),
            ("javascript:https://a/", scheme),
            ("https://", "has no host"),
            ("https:///path", "has no host"),
            ("https://:443/", "has no host"),
            ("https://a@b", "has a user name"),
            ("https://a:b@c/", "has a user name"),
            ("https://@b/", "has a user name"),
            ("http://localhost@evil.example/", "has a user name"),
            ("https://evil.example\\@localhost/", "contains a backslash"),
            ("https:\\\\localhost", "contains a backslash"),
            ("https://a/#b", "has a fragment"),
            ("https://a#@b/", "has a fragment"),
            ("https://a b/", space),
            ("https://a/\tb", space),
            (" https://a/", space),
            ("https://a/\r\nHost: b", space),
            ("https://a/\0", space),
            ("https://b\u{fc}cher.example/", space),
            ("https://\u{2488}example/", space),
            ("http://0x7f.1/", host),
            ("https://2130706433/", host),
            ("https://0x7f000001/", host),
            ("https://0x/", host),
            ("https://127.1/", host),
            ("https://0177.0.0.1/", host),
            ("https://127.0.0.1./", host),
            ("https://256.0.0.1/", host),
            ("https://a.b.1/", host),
            ("https://a..b/", host),
            ("https://.a/", host),
            ("https://a../", host),
            ("https://./", host),
            ("https://a%2eb/", host),
            ("https://a,b/", host),
            ("https://*.a/", host),
            ("https://a;b/", host),
            ("https://[::1/", host),
            ("https://[::1]x/", host),
            ("https://x[::1]/", host),
            ("https://[]/", host),
            ("https://[127.0.0.1]/", host),
            ("https://[fe80::1%25eth0]/", host),
            ("https://[fe80::1%eth0]/", host),
            ("https://[v1.a]/", host),
            ("https://::1/", "has no host"),
            ("https://fe80::1/", port),
            ("https://a:/", port),
            ("https://a:0/", port),
            ("https://a:65536/", port),
            ("https://a:+1/", port),
            ("https://a:1:2/", port),
            ("https://[::1]:x/", port),
        ] {
            assert_eq!(
                Url::parse(text).map(|url| url.text),
                Err(expected),
                "{text:?}"
            );
        }
        let long = |length: usize| format!("https://a/{}", "x".repeat(length - 10));
        assert!(Url::parse(&long(MAX_URL_BYTES)).is_ok());
        assert_eq!(
            Url::parse(&long(MAX_URL_BYTES + 1)).err(),
            Some("is too long")
        );
        assert!(Url::parse(&format!("https://{}.example/", "a".repeat(64))).is_err());
        assert!(Url::parse(&format!("https://{}a/", "a.".repeat(127))).is_err());
    }

    #[test]
    fn only_what_says_so_itself_is_this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost", true),
            ("127.0.0.1", true),
            ("127.255.0.9", true),
            ("[::1]", true),
            ("::1", true),
            ("[::ffff:127.0.0.1]", false),
            ("localhost.", false),
            ("a.localhost", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("0.0.0.0", false),
            ("[::]", false),
            ("10.0.0.1", false),
        ] {
            let found = Host::parse(host).map(|host| host.is_loopback());
            assert_eq!(found, Some(expected), "{host}");
        }
    }
}
