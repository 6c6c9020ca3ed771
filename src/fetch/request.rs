//! One request, and what its answer may be.

use std::io;
use std::sync::Arc;

use ureq::config::Config;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::unversioned::transport::{Connector as _, RustlsConnector};
use ureq::{Agent, Body};

use crate::FetchError;
use crate::authorities::Authorities;
use crate::connect::Connect;
use crate::deadline::Deadline;
use crate::error::quoted;
use crate::permission::Reach;
use crate::resolve::Resolve;
use crate::url::Url;

/// The largest answer that is read.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// The largest headers that are read.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Asks for `url`, within `reach`.
pub(crate) fn get(
    url: &Url,
    reach: Reach,
    authorities: &Authorities<'_>,
    deadline: &Deadline,
) -> Result<Answer, FetchError> {
    let resolver = Resolve {
        url: url.clone(),
        reach,
        deadline: deadline.clone(),
    };
    let connector = ().chain(Connect {
        host: url.host.to_string(),
        deadline: deadline.clone(),
    });
    let connector = connector.chain(RustlsConnector::default());
    let agent = Agent::with_parts(config(url, authorities)?, connector, resolver);
    let explain = |error| explained(error, url, authorities);
    let response = agent.get(url.uri.clone()).call().map_err(explain)?;
    check_head(&response, url)?;
    let (parts, mut body) = response.into_parts();
    let limit = u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX);
    let body = body
        .with_config()
        .limit(limit)
        .read_to_vec()
        .map_err(explain)?;
    Ok(Answer {
        headers: parts.headers,
        body,
    })
}

fn config(url: &Url, authorities: &Authorities<'_>) -> Result<Config, FetchError> {
    let mut config = Config::builder()
        .accept("application/json, application/jwk-set+json")
        .accept_encoding("identity")
        .user_agent(concat!("pg_session_jwt/", env!("CARGO_PKG_VERSION")))
        // Statuses are ours to judge: a redirect would lead past the rule.
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(MAX_HEADER_BYTES)
        // What connects is this process, not the one that HTTPS_PROXY names.
        .proxy(None);
    if url.https {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(ring)
            .root_certs(authorities.get()?);
        config = config.tls_config(tls.build());
    }
    Ok(config.build())
}

fn check_head(response: &Response<Body>, url: &Url) -> Result<(), FetchError> {
    let status = response.status();
    let text = |name| {
        let value = response.headers().get(name)?;
        Some(quoted(&String::from_utf8_lossy(value.as_bytes())))
    };
    if status.is_redirection()
        && let Some(location) = text(header::LOCATION)
    {
        return Err(FetchError::failed(format!(
            "{url} answered {}, a redirect to {location}, which is not followed",
            status.as_u16()
        )));
    }
    if status != 200 {
        return Err(FetchError::failed(format!(
            "{url} answered {}",
            status.as_u16()
        )));
    }
    let encodings = response.headers().get_all(header::CONTENT_ENCODING);
    if encodings
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        let encoding = text(header::CONTENT_ENCODING).unwrap_or_default();
        return Err(FetchError::failed(format!(
            "{url} answered with the content encoding {encoding}, which was not asked for"
        )));
    }
    Ok(())
}

/// The library's error in our words.
fn explained(error: ureq::Error, url: &Url, authorities: &Authorities<'_>) -> FetchError {
    let host = &url.host;
    let sentence = match error {
        ureq::Error::Other(inner) => match inner.downcast::<FetchError>() {
            Ok(ours) => return *ours,
            Err(other) => format!("{url} cannot be read: {other}"),
        },
        ureq::Error::LargeResponseHeader(..) => {
            format!("{url} answered with headers of more than {MAX_HEADER_BYTES} bytes")
        }
        ureq::Error::BodyExceedsLimit(_) => {
            format!("{url} answered with more than {MAX_BODY_BYTES} bytes")
        }
        ureq::Error::Protocol(error) => format!("{url} did not answer in HTTP: {error}"),
        ureq::Error::Rustls(error) => tls(&error, url, authorities),
        ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => tls(error, url, authorities),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("{host} closed the connection without a complete answer")
            }
            None => format!("the connection to {host} broke: {error}"),
        },
        other => format!("{url} cannot be read: {other}"),
    };
    FetchError::Failed(sentence)
}

fn tls(error: &rustls::Error, url: &Url, authorities: &Authorities<'_>) -> String {
    use rustls::CertificateError as Fault;
    let host = &url.host;
    let why = match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            // A bad signature: an authority of the same name, with another key.
            Fault::UnknownIssuer | Fault::BadSignature => match authorities.ca_file {
                Some(_) => "it is not from a certificate authority in fetch_ca_file".to_owned(),
                None => "it is not from a certificate authority of this system".to_owned(),
            },
            Fault::Expired | Fault::ExpiredContext { .. } => "it has expired".to_owned(),
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
                "it is not yet valid".to_owned()
            }
            Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
                "it is for another name".to_owned()
            }
            other => other.to_string(),
        },
        other => return format!("no TLS connection to {host}: {other}"),
    };
    format!("the certificate of {host} is not trusted: {why}")
}
