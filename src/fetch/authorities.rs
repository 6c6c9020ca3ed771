//! The certificate authorities that an https server's certificate may be from.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::tls::{Certificate, RootCerts};

use crate::FetchError;
use crate::error::quoted;

/// Read when the first https URL is asked, for both requests.
#[derive(Debug)]
pub(crate) struct Authorities<'a> {
    /// `Some`: the certificates in this file, instead of the operating system's.
    pub ca_file: Option<&'a str>,
    read: OnceCell<Arc<Vec<Certificate<'static>>>>,
}

impl<'a> Authorities<'a> {
    pub fn new(ca_file: Option<&'a str>) -> Self {
        let read = OnceCell::new();
        Self { ca_file, read }
    }

    pub fn get(&self) -> Result<RootCerts, FetchError> {
        if let Some(known) = self.read.get() {
            return Ok(RootCerts::Specific(Arc::clone(known)));
        }
        let found = match self.ca_file {
            Some(file) => of_file(file)?,
            None => of_system()?,
        };
        let found = found.into_iter();
        let found = Arc::new(
            found
                .map(|one| Certificate::from_der(&one).to_owned())
                .collect(),
        );
        Ok(RootCerts::Specific(Arc::clone(
            self.read.get_or_init(|| found),
        )))
    }
}

fn of_file(file: &str) -> Result<Vec<CertificateDer<'static>>, FetchError> {
    let wrong =
        |what: String| FetchError::failed(format!("fetch_ca_file {}: {what}", quoted(file)));
    let text = read(file).map_err(|error| wrong(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    // The library would ignore one that cannot be read.
    let mut store = RootCertStore::empty();
    for (number, one) in (1..).zip(&found) {
        let added = store.add(one.clone());
        added.map_err(|error| wrong(format!("certificate {number} cannot be used: {error}")))?;
    }
    Ok(found)
}

/// The file's bytes: of a file that ends, without waiting for anybody.
fn read(file: &str) -> io::Result<Vec<u8>> {
    const MOST: u64 = 4 << 20;
    let about = fs::metadata(file)?;
    if !about.is_file() || about.len() > MOST {
        return Err(io::Error::other("not a file of at most 4 MB"));
    }
    let mut text = Vec::new();
    File::open(file)?.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

fn of_system() -> Result<Vec<CertificateDer<'static>>, FetchError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = match found.errors.first() {
            Some(error) => format!(": {error}"),
            None => String::new(),
        };
        return Err(FetchError::failed(format!(
            "this system has no certificate authorities (the package ca-certificates), and \
             fetch_ca_file is not set{why}"
        )));
    }
    Ok(found.certs)
}
