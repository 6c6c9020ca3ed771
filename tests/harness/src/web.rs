//! A web server that answers as a test says, well or badly.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{Issuer, jwks};

/// What a path answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200, with this body and these headers beside the usual ones.
    Ok {
        /// Of type application/json, whatever it is.
        body: String,
        /// Names and values.
        headers: Vec<(String, String)>,
    },
    /// This status, and a short body.
    Status(u16),
    /// 302, to this address.
    Redirect(String),
    /// Takes the request, and never answers.
    Hang,
    /// As long as one path has this, all connections are accepted and nothing is read or said: no TLS.
    Silent,
    /// 200, and then a byte every 100 ms, for ever.
    Drip,
    /// 200 and 100 MB.
    Endless,
    /// 200 and a header of 10 MB.
    HugeHeader,
    /// 200 and a compressed body, asked for or not.
    Gzip,
    /// These bytes.
    Raw(Vec<u8>),
    /// Takes the request, and closes the connection.
    Close,
    /// Answers so after a while.
    Delay(Duration, Box<Answer>),
}

impl Answer {
    /// 200 and this document.
    pub fn json(document: &Value) -> Self {
        Self::Ok {
            body: document.to_string(),
            headers: Vec::new(),
        }
    }

    /// The same with one more header, if it is [`Answer::Ok`].
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Ok { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same after a while.
    pub fn after(self, while_: Duration) -> Self {
        Self::Delay(while_, Box::new(self))
    }
}

/// What an https server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// For localhost, 127.0.0.1, ::1 and ::ffff:127.0.0.1, from the authority in [`Web::ca_file`].
    Good,
    /// The same, but its time was over in 2020.
    Expired,
    /// The same, but for other.example.
    OtherName,
    /// The same, but from an authority that is not in the file, though it has the name of the one that is.
    ForeignAuthority,
}

/// A server. It stops with its value.
pub struct Web {
    address: SocketAddr,
    state: Arc<State>,
    tls: Option<Tls>,
}

/// What its threads share.
struct State {
    stopped: AtomicBool,
    served: Mutex<Served>,
}

#[derive(Default)]
struct Served {
    answers: HashMap<String, Answer>,
    /// A path and the whole head, request by request.
    heads: Vec<(String, String)>,
}

/// What an https server needs.
struct Tls {
    config: Arc<ServerConfig>,
    directory: PathBuf,
    ca_file: PathBuf,
}

impl Web {
    /// http on 127.0.0.1.
    pub fn http() -> Self {
        Self::start("127.0.0.1:0", None)
    }

    /// http on `[::1]`. `None`: this machine has no IPv6.
    pub fn http_v6() -> Option<Self> {
        TcpListener::bind("[::1]:0").ok()?;
        Some(Self::start("[::1]:0", None))
    }

    /// https on 127.0.0.1, with a certificate that is good for whoever trusts [`Web::ca_file`].
    pub fn https() -> Self {
        Self::https_with(Certificate::Good)
    }

    /// https on 127.0.0.1, with this certificate.
    pub fn https_with(certificate: Certificate) -> Self {
        Self::start("127.0.0.1:0", Some(Tls::new(certificate)))
    }

    fn start(address: &str, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let state = Arc::new(State {
            stopped: AtomicBool::new(false),
            served: Mutex::default(),
        });
        let web = Self {
            address: listener.local_addr().expect("an address"),
            state: Arc::clone(&state),
            tls,
        };
        let config = web.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        thread::spawn(move || {
            for connection in listener.incoming() {
                if state.stopped() {
                    break;
                }
                let (state, config) = (Arc::clone(&state), config.clone());
                // A client that goes away is what many a test is about.
                thread::spawn(move || connection.and_then(|stream| state.talk(stream, config)));
            }
        });
        web
    }

    /// `http://127.0.0.1:12345`: what paths are put after. An issuer's name, too.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A PEM file with the authority that an https server's certificate is from. Every user may read it.
    pub fn ca_file(&self) -> &Path {
        &self.tls.as_ref().expect("https").ca_file
    }

    /// From now on, `path` answers so. What has no answer is 404.
    pub fn serve(&self, path: &str, answer: Answer) {
        let mut served = self.state.served();
        served.answers.insert(path.to_owned(), answer);
    }

    /// Serves a discovery document, whose issuer is [`Web::url`], and at `/jwks` the public keys of these.
    pub fn serve_issuer(&self, issuers: &[&Issuer]) {
        let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
        for key in &keys {
            assert_ne!(key["kty"], "oct", "a secret is not published");
        }
        let url = self.url();
        let document = json!({"issuer": url, "jwks_uri": format!("{url}/jwks")});
        self.serve(DISCOVERY, Answer::json(&document));
        let body = jwks(&keys);
        let headers = Vec::new();
        self.serve("/jwks", Answer::Ok { body, headers });
    }

    /// How often `path` has been asked.
    pub fn requests(&self, path: &str) -> usize {
        let served = self.state.served();
        served.heads.iter().filter(|(at, _)| at == path).count()
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        let served = self.state.served();
        served.heads.iter().map(|(_, head)| head.clone()).collect()
    }
}

/// Where an issuer's discovery document is.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

impl Drop for Web {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Release);
        // It wakes the thread that accepts connections, which then closes the port.
        let _ = TcpStream::connect(self.address);
    }
}

impl Tls {
    fn new(kind: Certificate) -> Self {
        let (good, foreign) = (authority(), authority());
        let names = match kind {
            Certificate::OtherName => vec!["other.example".to_owned()],
            _ => ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1"]
                .map(str::to_owned)
                .to_vec(),
        };
        let mut params = CertificateParams::new(names).expect("names");
        if kind == Certificate::Expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let signer = match kind {
            Certificate::ForeignAuthority => &foreign,
            _ => &good,
        };
        let certificate = params.signed_by(&key, signer).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .expect("a certificate and its key");

        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Not the temporary directory of root, which may be closed to the user of a server.
        let directory = PathBuf::from(format!("/tmp/pgjwt-web-{}-{number}", std::process::id()));
        let ca_file = directory.join("ca.pem");
        fs::create_dir(&directory).expect("a directory");
        fs::write(&ca_file, good.pem()).expect("a file");
        for (path, mode) in [(&directory, 0o755), (&ca_file, 0o644)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
        }
        Self {
            config: Arc::new(config),
            directory,
            ca_file,
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "a test's authority");
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority")
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl State {
    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection has one request.
    fn talk(&self, socket: TcpStream, config: Option<Arc<ServerConfig>>) -> io::Result<()> {
        // What a client writes or reads slowly must not outlive us for long.
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.set_write_timeout(Some(Duration::from_secs(10)))?;
        socket.set_nodelay(true)?;
        let silent = |answer: &Answer| matches!(answer, Answer::Silent);
        if self.served().answers.values().any(silent) {
            self.hold(&socket);
            return Ok(());
        }
        let beneath = socket.try_clone()?;
        let mut stream: Box<dyn Stream> = match config {
            Some(config) => {
                let connection = ServerConnection::new(config).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, socket))
            }
            None => Box::new(socket),
        };
        let Some(head) = read_head(&mut *stream)? else {
            return self.answer(Answer::Status(400), &mut *stream, &beneath);
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = {
            let mut served = self.served();
            served.heads.push((path.clone(), head));
            served.answers.get(&path).cloned()
        };
        self.answer(
            answer.unwrap_or(Answer::Status(404)),
            &mut *stream,
            &beneath,
        )
    }

    fn answer(
        &self,
        answer: Answer,
        stream: &mut dyn Stream,
        beneath: &TcpStream,
    ) -> io::Result<()> {
        match answer {
            Answer::Ok { body, headers } => {
                let mut head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
                    body.len()
                );
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                let answer = format!("{head}Connection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes())?;
            }
            Answer::Status(code) => write!(
                stream,
                "HTTP/1.1 {code} As Told\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry"
            )?,
            Answer::Redirect(location) => write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            )?,
            Answer::Hang | Answer::Silent => self.hold(beneath),
            Answer::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
                while !self.stopped() {
                    stream.write_all(b" ")?;
                    stream.flush()?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Answer::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                self.write_much(stream, 100)?;
            }
            Answer::HugeHeader => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Much: ")?;
                self.write_much(stream, 10)?;
                stream.write_all(b"\r\nContent-Length: 2\r\n\r\n{}")?;
            }
            Answer::Gzip => {
                // {"keys":[]}
                const PACKED: [u8; 31] = [
                    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 202, 78, 173, 44, 86, 178, 138, 142,
                    173, 5, 0, 239, 103, 136, 42, 11, 0, 0, 0,
                ];
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                    PACKED.len()
                )?;
                stream.write_all(&PACKED)?;
            }
            Answer::Raw(bytes) => stream.write_all(&bytes)?,
            Answer::Close => {}
            Answer::Delay(time, answer) => {
                thread::sleep(time);
                return self.answer(*answer, stream, beneath);
            }
        }
        stream.flush()
    }

    /// Until the client closes the connection, or we stop.
    fn hold(&self, socket: &TcpStream) {
        let _ = socket.set_nonblocking(true);
        let mut buffer = [0];
        // What waits to be read stays there, so a client that has spoken and gone is not noticed.
        while !self.stopped() && !matches!(socket.peek(&mut buffer), Ok(0)) {
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn write_much(&self, stream: &mut dyn Stream, megabytes: usize) -> io::Result<()> {
        let part = [b'a'; 10_000];
        for _ in 0..megabytes * 100 {
            if self.stopped() {
                break;
            }
            stream.write_all(&part)?;
        }
        Ok(())
    }
}

/// Up to the empty line. `None`: what begins is not a request, but TLS perhaps.
fn read_head(stream: &mut dyn Stream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if !head[0].is_ascii_uppercase() {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
