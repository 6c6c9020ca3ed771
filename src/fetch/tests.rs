//! Whole requests, to a server that answers well or badly.

use std::io;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Answer, Certificate, DISCOVERY, Issuer, Web};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::{Event, FetchError, Fetched, MAX_BODY_BYTES, Order, Refused, Wait, fetch};

/// Waits as a process does that has no signals to answer.
#[derive(Debug)]
pub(crate) struct Poll;

impl Wait for Poll {
    fn wait(&self, fd: BorrowedFd<'_>, event: Event, until: Instant) -> io::Result<()> {
        let flags = match event {
            Event::Readable => PollFlags::POLLIN,
            Event::Writable => PollFlags::POLLOUT,
        };
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap();
        match poll(&mut [PollFd::new(fd, flags)], timeout)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

/// A superuser's row with this `jwks_url`.
fn at(url: &str) -> Order {
    Order {
        issuer: None,
        jwks_url: Some(url.to_owned()),
        written_by_superuser: true,
        hosts: String::new(),
        ca_file: None,
    }
}

/// A superuser's row with this issuer.
fn of_issuer(web: &Web) -> Order {
    Order {
        issuer: Some(web.url()),
        jwks_url: None,
        ..at("")
    }
}

/// The same, trusting the authority of this server only.
fn trusting(web: &Web, order: Order) -> Order {
    let ca_file = web.ca_file().to_str().map(str::to_owned);
    Order { ca_file, ..order }
}

fn get(order: &Order) -> Result<Fetched, FetchError> {
    fetch(order, Arc::new(Poll))
}

/// What goes wrong, in words that are fit for a log, within the time that a fetch may take.
#[track_caller]
fn error_of(order: &Order) -> String {
    let started = Instant::now();
    let error = get(order).expect_err("an error").to_string();
    assert!(started.elapsed() < Duration::from_millis(5500), "{error}");
    assert!(error.len() <= 300, "{error}");
    let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    assert!(error.bytes().all(visible), "{error}");
    error
}

fn keys() -> Value {
    json!({"keys": [Issuer::ed25519().with_kid("a").jwk()]})
}

#[test]
fn a_key_set_is_fetched_as_it_is() {
    let (web, keys) = (Web::http(), keys());
    let answer = Answer::json(&keys).with_header("Cache-Control", "public, max-age=600");
    web.serve("/jwks?a=b", answer);
    let url = format!("{}/jwks?a=b", web.url());
    let fetched = get(&at(&url)).unwrap();
    assert_eq!(fetched.url, url);
    assert_eq!(fetched.body, keys.to_string().into_bytes());
    assert_eq!(fetched.max_age, Some(Duration::from_secs(600)));

    let heads = web.heads();
    let [head] = heads.as_slice() else {
        panic!("{heads:?}");
    };
    let mut lines: Vec<_> = head
        .trim_end()
        .split("\r\n")
        .map(str::to_lowercase)
        .collect();
    lines[1..].sort();
    let expected = [
        "get /jwks?a=b http/1.1".to_owned(),
        "accept-encoding: identity".to_owned(),
        "accept: application/json, application/jwk-set+json".to_owned(),
        format!("host: 127.0.0.1:{}", web.port()),
        format!("user-agent: pg_session_jwt/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_issuer_leads_to_its_keys() {
    let issuers = [Issuer::rs256(), Issuer::es256(), Issuer::ed25519()];
    let web = Web::https();
    web.serve_issuer(&issuers.each_ref());
    let fetched = get(&trusting(&web, of_issuer(&web))).unwrap();
    assert_eq!(fetched.url, format!("{}/jwks", web.url()));
    assert_eq!(fetched.max_age, None);
    let set: Value = serde_json::from_slice(&fetched.body).unwrap();
    assert_eq!(set, json!({"keys": issuers.map(|issuer| issuer.jwk())}));
    assert_eq!((web.requests(DISCOVERY), web.requests("/jwks")), (1, 1));
}

#[test]
fn this_machine_is_reached_by_name_and_over_ipv6() {
    let web = Web::http();
    web.serve("/jwks", Answer::json(&keys()));
    let url = format!("HTTP://LocalHost:{}/jwks", web.port());
    assert_eq!(get(&at(&url)).unwrap().url, url);

    let web = Web::https();
    web.serve("/jwks", Answer::json(&keys()));
    let url = format!("https://localhost:{}/jwks", web.port());
    assert_eq!(get(&trusting(&web, at(&url))).unwrap().url, url);

    let Some(web) = Web::http_v6() else { return };
    web.serve("/jwks", Answer::json(&keys()));
    let url = format!("http://[::1]:{}/jwks", web.port());
    assert_eq!(get(&at(&url)).unwrap().url, url);
}

#[test]
fn only_a_whole_answer_of_200_counts() {
    let raw = |text: &str| Answer::Raw(text.as_bytes().to_vec());
    let closed = "127.0.0.1 closed the connection without a complete answer";
    for (answer, expected) in [
        (Answer::Status(503), "URL answered 503"),
        (Answer::Status(500), "URL answered 500"),
        (Answer::Status(404), "URL answered 404"),
        (Answer::Status(401), "URL answered 401"),
        (Answer::Status(304), "URL answered 304"),
        (Answer::Status(300), "URL answered 300"),
        (Answer::Status(206), "URL answered 206"),
        (Answer::Status(204), "URL answered 204"),
        (Answer::Status(201), "URL answered 201"),
        (
            Answer::Redirect("/other".to_owned()),
            "URL answered 302, a redirect to \"/other\", which is not followed",
        ),
        (
            Answer::Redirect(format!("http://\u{e9}\"{}", "x".repeat(5000))),
            "URL answered 302, a redirect to \"http://\\u{e9}\\\"xxx",
        ),
        (Answer::Endless, "URL answered with more than 262144 bytes"),
        (
            Answer::HugeHeader,
            "URL answered with headers of more than 16384 bytes",
        ),
        (
            Answer::Gzip,
            "URL answered with the content encoding \"gzip\", which was not asked for",
        ),
        (
            raw("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: br\r\n\r\n{}"),
            "URL answered with the content encoding \"identity\", which was not asked for",
        ),
        (Answer::Close, closed),
        (raw(""), closed),
        (raw("HTTP/1.1 200 OK\r\nContent-Le"), closed),
        (
            raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
            closed,
        ),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}"),
            closed,
        ),
        (raw(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(10)), closed),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n"),
            "URL did not answer in HTTP: ",
        ),
        (
            raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
            "URL did not answer in HTTP: ",
        ),
        (
            raw("SSH-2.0-OpenSSH_9.2\r\n"),
            "URL did not answer in HTTP: ",
        ),
        (
            raw("HTTP/1.1 302 Found\r\nLocation: /\u{1b}[31m\r\n\r\n"),
            "URL did not answer in HTTP: ",
        ),
        (raw("{\"keys\": []}"), "URL did not answer in HTTP: "),
        (
            raw(&format!(
                "HTTP/1.1 200 OK\r\n{}\r\n",
                "A: b\r\n".repeat(1000)
            )),
            "URL did not answer in HTTP: ",
        ),
    ] {
        let web = Web::http();
        web.serve("/jwks", answer.clone());
        let url = format!("{}/jwks", web.url());
        let error = error_of(&at(&url));
        let expected = expected.replace("URL", &url);
        assert!(error.starts_with(&expected), "{answer:?}: {error}");
        assert_eq!(web.heads().len(), 1, "a redirect is not followed");
    }
}

#[test]
fn an_answer_may_have_256_kib_and_no_more() {
    let web = Web::http();
    let url = format!("{}/jwks", web.url());
    let body = |length| Answer::Ok {
        body: "x".repeat(length),
        headers: Vec::new(),
    };
    web.serve("/jwks", body(MAX_BODY_BYTES));
    assert_eq!(get(&at(&url)).unwrap().body.len(), MAX_BODY_BYTES);
    web.serve("/jwks", body(MAX_BODY_BYTES + 1));
    let expected = format!("{url} answered with more than 262144 bytes");
    assert_eq!(error_of(&at(&url)), expected);
    web.serve("/jwks", body(0));
    assert_eq!(get(&at(&url)).unwrap().body, b"");
}

/// Takes until the deadline, and not longer.
#[track_caller]
fn takes_all_the_time(order: &Order) {
    let started = Instant::now();
    let error = error_of(order);
    assert_eq!(error, "127.0.0.1 gave no complete answer within 5 s");
    assert!(started.elapsed() >= Duration::from_secs(5));
}

#[test]
fn a_server_that_never_answers_is_left_after_five_seconds() {
    let web = Web::http();
    web.serve("/jwks", Answer::Hang);
    takes_all_the_time(&at(&format!("{}/jwks", web.url())));
}

#[test]
fn a_server_that_always_has_another_byte_is_left_after_five_seconds() {
    let web = Web::https();
    web.serve("/jwks", Answer::Drip);
    takes_all_the_time(&trusting(&web, at(&format!("{}/jwks", web.url()))));
}

#[test]
fn a_server_that_does_not_speak_tls_is_left_after_five_seconds() {
    let web = Web::https();
    web.serve("/", Answer::Silent);
    takes_all_the_time(&trusting(&web, at(&format!("{}/jwks", web.url()))));
}

#[test]
fn document_and_keys_have_one_deadline() {
    let web = Web::http();
    web.serve_issuer(&[]);
    let document = json!({"issuer": web.url(), "jwks_uri": format!("{}/jwks", web.url())});
    let slow = Duration::from_millis(2600);
    web.serve(DISCOVERY, Answer::json(&document).after(slow));
    web.serve("/jwks", Answer::json(&keys()).after(slow));
    takes_all_the_time(&of_issuer(&web));
    assert_eq!(web.requests("/jwks"), 1);
}

#[test]
fn a_certificate_must_be_good() {
    for (certificate, expected) in [
        (Certificate::Expired, "it has expired"),
        (Certificate::OtherName, "it is for another name"),
        (
            Certificate::ForeignAuthority,
            "it is not from a certificate authority in fetch_ca_file",
        ),
    ] {
        let web = Web::https_with(certificate);
        web.serve_issuer(&[]);
        let error = error_of(&trusting(&web, of_issuer(&web)));
        let expected = format!("the certificate of 127.0.0.1 is not trusted: {expected}");
        assert_eq!(error, expected);
        assert_eq!(web.heads(), [""; 0], "nothing is asked before");
    }
}

#[test]
fn tls_is_spoken_or_there_is_no_answer() {
    let (plain, other) = (Web::http(), Web::https());
    plain.serve("/jwks", Answer::json(&keys()));
    let url = format!("https://127.0.0.1:{}/jwks", plain.port());
    let error = error_of(&trusting(&other, at(&url)));
    let expected = "no TLS connection to 127.0.0.1: ";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_named() {
    let web = Web::https();
    let beside = |name: &str, text: &str| {
        let file = web.ca_file().with_file_name(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (file, expected) in [
        ("/nowhere/ca.pem".to_owned(), "No such file or directory"),
        (beside("empty.pem", ""), "no certificate in it"),
        (beside("text.pem", "no PEM"), "no certificate in it"),
        (
            beside("broken.pem", "-----BEGIN CERTIFICATE-----\n!"),
            "not PEM: ",
        ),
        (beside("bad.pem", empty), "certificate 1 cannot be used: "),
    ] {
        let order = Order {
            ca_file: Some(file.clone()),
            ..at(&format!("{}/jwks", web.url()))
        };
        let expected = format!("fetch_ca_file \"{file}\": {expected}");
        let error = error_of(&order);
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_port_that_nobody_listens_on_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let started = Instant::now();
    let error = error_of(&at(&format!("http://{address}/")));
    let expected = format!("cannot connect to 127.0.0.1 ({address}): Connection refused");
    assert!(error.starts_with(&expected), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn nothing_is_asked_that_is_not_allowed() {
    /// Who waits here has asked somebody.
    #[derive(Debug)]
    struct Never;
    impl Wait for Never {
        fn wait(&self, _: BorrowedFd<'_>, _: Event, _: Instant) -> io::Result<()> {
            panic!("nothing was to be asked");
        }
    }
    let refused = |order: &Order| fetch(order, Arc::new(Never)).unwrap_err();
    let web = Web::http();
    web.serve("/jwks", Answer::json(&keys()));
    let url = format!("{}/jwks", web.url());
    let by_owner = Order {
        written_by_superuser: false,
        ..at(&url)
    };
    let host = "127.0.0.1".to_owned();
    let expected = FetchError::Refused(Refused::HostNotAllowed { host });
    assert_eq!(refused(&by_owner), expected);
    for (order, expected) in [
        (
            at("https://10.0.0.5/jwks"),
            "10.0.0.5 is not a public address",
        ),
        (
            at("https://[::ffff:10.0.0.5]/jwks"),
            "::ffff:10.0.0.5 is not a public address",
        ),
        (
            at("http://id.example/jwks"),
            "jwks_url \"http://id.example/jwks\" is neither https nor loopback",
        ),
        (
            Order {
                hosts: "*".to_owned(),
                ..at(&url)
            },
            "fetch_hosts: \"*\" is not a host name (without scheme, port and path), a pattern such \
             as *.example.com, or an IP address",
        ),
    ] {
        assert_eq!(refused(&order).to_string(), expected);
    }
    assert_eq!(web.requests("/jwks"), 0);
    let named = Order {
        hosts: "127.0.0.1".to_owned(),
        ..by_owner
    };
    assert_eq!(get(&named).unwrap().url, url);
}

#[test]
fn a_document_leads_only_where_the_row_itself_may_go() {
    let web = Web::http();
    let by_owner = Order {
        written_by_superuser: false,
        hosts: "127.0.0.1, *.example.com".to_owned(),
        ..of_issuer(&web)
    };
    for (order, jwks_uri, expected) in [
        (
            of_issuer(&web),
            "http://10.0.0.5/jwks",
            "http://10.0.0.5/jwks is neither https nor loopback",
        ),
        (
            of_issuer(&web),
            "https://169.254.169.254/latest",
            "169.254.169.254 is not a public address",
        ),
        (
            by_owner.clone(),
            "http://localhost/jwks",
            "localhost is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row",
        ),
        (
            by_owner,
            "https://keys.example.org/",
            "keys.example.org is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row",
        ),
    ] {
        let document = json!({"issuer": web.url(), "jwks_uri": jwks_uri});
        web.serve(DISCOVERY, Answer::json(&document));
        assert_eq!(error_of(&order), expected);
    }
}

#[test]
fn a_document_from_elsewhere_does_not_lead_to_this_machine() {
    if Web::http_v6().is_none() {
        return;
    }
    let web = Web::https();
    // The same server by a name that does not say so, as a host that `fetch_hosts` names may resolve to it.
    let issuer = format!("https://[::ffff:127.0.0.1]:{}", web.port());
    let order = Order {
        issuer: Some(issuer.clone()),
        hosts: "::ffff:127.0.0.1".to_owned(),
        ..trusting(&web, of_issuer(&web))
    };
    web.serve("/jwks", Answer::json(&keys()));
    let says = |base: &str| {
        let document = json!({"issuer": issuer, "jwks_uri": format!("{base}/jwks")});
        web.serve(DISCOVERY, Answer::json(&document));
    };
    says(&issuer);
    assert_eq!(get(&order).unwrap().url, format!("{issuer}/jwks"));
    says(&web.url());
    assert_eq!(error_of(&order), "127.0.0.1 is not a public address");
}

#[test]
fn another_issuers_document_is_none() {
    let web = Web::http();
    let document =
        json!({"issuer": "https://id.example", "jwks_uri": format!("{}/jwks", web.url())});
    web.serve(DISCOVERY, Answer::json(&document));
    web.serve("/jwks", Answer::json(&keys()));
    let url = web.url();
    let expected = format!(
        "the discovery document {url}{DISCOVERY} is of the issuer \"https://id.example\", not \"{url}\""
    );
    assert_eq!(error_of(&of_issuer(&web)), expected);
    assert_eq!(web.requests("/jwks"), 0);
}

#[test]
fn an_interrupt_goes_through_wherever_it_comes() {
    /// Unwinds as Postgres's interrupts do, at the nth time.
    #[derive(Debug)]
    struct Interrupted(AtomicUsize);
    impl Wait for Interrupted {
        fn wait(&self, fd: BorrowedFd<'_>, event: Event, until: Instant) -> io::Result<()> {
            if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
                resume_unwind(Box::new("canceled"));
            }
            Poll.wait(fd, event, until)
        }
    }
    let web = Web::https();
    web.serve_issuer(&[]);
    let order = trusting(&web, of_issuer(&web));
    let run = |after| {
        let wait = Arc::new(Interrupted(AtomicUsize::new(after)));
        catch_unwind(AssertUnwindSafe(|| fetch(&order, wait)))
    };
    let unwound = (0..1000).take_while(|after| match run(*after) {
        Err(payload) => {
            assert_eq!(payload.downcast_ref(), Some(&"canceled"));
            true
        }
        Ok(fetched) => {
            fetched.unwrap();
            false
        }
    });
    let unwound = unwound.count();
    assert!((10..1000).contains(&unwound), "{unwound}");
}

#[test]
fn waking_too_early_does_no_harm() {
    /// Has something else to do now and then.
    #[derive(Debug)]
    struct Early(AtomicUsize);
    impl Wait for Early {
        fn wait(&self, fd: BorrowedFd<'_>, event: Event, until: Instant) -> io::Result<()> {
            if self.0.fetch_add(1, Ordering::Relaxed) % 4 < 3 {
                return Ok(());
            }
            Poll.wait(fd, event, until)
        }
    }
    let web = Web::https();
    let pause = Duration::from_millis(100);
    let document = json!({"issuer": web.url(), "jwks_uri": format!("{}/jwks", web.url())});
    web.serve(DISCOVERY, Answer::json(&document).after(pause));
    web.serve("/jwks", Answer::json(&keys()).after(pause));
    let wait = Arc::new(Early(AtomicUsize::new(0)));
    fetch(&trusting(&web, of_issuer(&web)), wait).unwrap();
}

#[test]
fn what_keeps_a_process_from_waiting_is_an_error() {
    #[derive(Debug)]
    struct Broken;
    impl Wait for Broken {
        fn wait(&self, _: BorrowedFd<'_>, _: Event, _: Instant) -> io::Result<()> {
            Err(io::Error::other("no epoll"))
        }
    }
    let web = Web::http();
    let error = fetch(&at(&web.url()), Arc::new(Broken)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("cannot connect to 127.0.0.1 (") && error.ends_with("): no epoll"),
        "{error}"
    );
}

#[test]
fn no_answer_is_a_panic() {
    let web = Web::http();
    let url = format!("{}/jwks", web.url());
    let good: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"key\r\n6\r\ns\":[]}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 302 Found\r\nLocation: /x\r\nConnection: close\r\n\r\n",
    ];
    let pieces: [&[u8]; 8] = [
        b"\r\n",
        b"\0",
        b"\xff",
        b"18446744073709551616",
        b"-1",
        b"HTTP/1.1 101 \r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\n",
    ];
    // Always the same numbers.
    let mut state = 1u64;
    let mut below = |limit: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % limit
    };
    for _ in 0..1500 {
        let mut bytes = good[below(3)].to_vec();
        for _ in 0..=below(3) {
            let place = below(bytes.len() + 1);
            match below(4) {
                0 => bytes.truncate(place),
                1 if place < bytes.len() => bytes[place] = below(256) as u8,
                2 if place < bytes.len() => drop(bytes.remove(place)),
                _ => drop(bytes.splice(place..place, pieces[below(8)].iter().copied())),
            }
        }
        web.serve("/jwks", Answer::Raw(bytes.clone()));
        let outcome = catch_unwind(|| get(&at(&url)));
        assert!(outcome.is_ok(), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

/// For the test below, in a process of its own: the environment is the whole process's.
#[test]
#[ignore = "run by another test"]
#[allow(clippy::print_stdout, reason = "for that test")]
fn fetches_what_the_environment_names() {
    let url = std::env::var("FETCH_URL").unwrap();
    match get(&at(&url)) {
        Ok(fetched) => println!("fetched {}", fetched.url),
        Err(error) => println!("error: {error}"),
    }
}

#[test]
fn the_systems_authorities_count_and_a_proxy_does_not() {
    let web = Web::https();
    web.serve("/jwks", Answer::json(&keys()));
    let url = format!("{}/jwks", web.url());
    let run = |authorities: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture"]);
        command.arg("tests::fetches_what_the_environment_names");
        for proxy in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
            command.env(proxy, "http://127.0.0.1:1");
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
        command.env_remove("SSL_CERT_DIR").env("FETCH_URL", &url);
        command.env("SSL_CERT_FILE", authorities);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = run(web.ca_file().to_str().unwrap());
    assert!(said.contains(&format!("fetched {url}\n")), "{said}");
    let foreign = Web::https();
    let said = run(foreign.ca_file().to_str().unwrap());
    let expected = "error: the certificate of 127.0.0.1 is not trusted: it is not from a certificate \
                    authority of this system\n";
    assert!(said.contains(expected), "{said}");
    let said = run("/nowhere");
    let expected = "error: this system has no certificate authorities";
    assert!(said.contains(expected), "{said}");
}
