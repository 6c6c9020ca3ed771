//! Keys that follow their issuer: whatever the server does, the last good keys stay, and the row says why.

use std::time::{Duration, Instant};

use harness::{
    Answer, Certificate, DISCOVERY, Database, Issuer, Session, Web, b64, first_line, sql_text,
    token_with, wait_until,
};
use serde_json::{Value, json};

use crate::fetching::{body, follow, following, key, may_hang, pass, set, timed, token};

/// What a server does, and what is said about it. `{}` stands for the address of the key set, or of the discovery
/// document.
struct Fault {
    name: &'static str,
    /// In place of the discovery document; otherwise of the key set.
    discovery: bool,
    answer: Answer,
    error: &'static str,
}

fn at_jwks(name: &'static str, answer: Answer, error: &'static str) -> Fault {
    Fault {
        name,
        discovery: false,
        answer,
        error,
    }
}

fn at_discovery(name: &'static str, document: Value, error: &'static str) -> Fault {
    Fault {
        name,
        discovery: true,
        answer: Answer::json(&document),
        error,
    }
}

fn redirect(to: &str) -> Answer {
    Answer::Redirect(to.into())
}

/// Those that are known at once.
fn faults(web: &Web, good: &Issuer) -> Vec<Fault> {
    let mut private = good.jwk();
    private["d"] = b64(&[7; 32]).into();
    let secret = Issuer::hs256().with_kid("secret").jwk();
    let uri =
        |name: &str, uri: &str| json!({"issuer": format!("{}/{name}", web.url()), "jwks_uri": uri});
    let to_elsewhere = "answered 302, a redirect to";
    vec![
        at_jwks(
            "redirect-loopback",
            redirect(&format!("{}/good/jwks", web.url())),
            to_elsewhere,
        ),
        at_jwks(
            "redirect-metadata",
            redirect("http://169.254.169.254/latest"),
            to_elsewhere,
        ),
        at_jwks(
            "redirect-host",
            redirect("https://other.example/jwks"),
            to_elsewhere,
        ),
        at_jwks(
            "moved",
            Answer::Raw(b"HTTP/1.1 308 x\r\nLocation: /good/jwks\r\n\r\n".into()),
            "{} answered 308, a redirect to \"/good/jwks\", which is not followed",
        ),
        at_jwks(
            "endless",
            Answer::Endless,
            "{} answered with more than 262144 bytes",
        ),
        at_jwks(
            "header",
            Answer::HugeHeader,
            "{} answered with headers of more than 16384 bytes",
        ),
        at_jwks(
            "gzip",
            Answer::Gzip,
            "{} answered with the content encoding \"gzip\", which was not asked for",
        ),
        at_jwks(
            "truncated",
            body("{\"keys\":[{\"kty\":\"EC\""),
            "{}: not usable JSON",
        ),
        at_jwks(
            "short",
            Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"keys\":[".into()),
            "127.0.0.1 closed the connection without a complete answer",
        ),
        at_jwks(
            "html",
            body("<!DOCTYPE html><html>sign in</html>"),
            "{}: not usable JSON",
        ),
        at_jwks("empty-body", body(""), "{}: not usable JSON"),
        at_jwks("not-found", Answer::Status(404), "{} answered 404"),
        at_jwks("unavailable", Answer::Status(503), "{} answered 503"),
        at_jwks("no-content", Answer::Status(204), "{} answered 204"),
        at_jwks(
            "close",
            Answer::Close,
            "127.0.0.1 closed the connection without a complete answer",
        ),
        at_jwks(
            "not-http",
            Answer::Raw(b"SSH-2.0-OpenSSH\r\n".into()),
            "{} did not answer in HTTP",
        ),
        at_jwks(
            "secret",
            set(&[secret]),
            "{}: no usable key: key 1 (\"secret\"): a secret that is published is none",
        ),
        at_jwks("empty", set(&[]), "{}: no usable key: the set is empty"),
        at_jwks(
            "private",
            set(&[private]),
            "{}: no usable key: key 1 (\"good\"): it is a private key (it has \"d\")",
        ),
        at_jwks("list", body("[]"), "{}: "),
        at_jwks(
            "discovery",
            Answer::json(&uri("discovery", "https://id.example/jwks")),
            "{}: ",
        ),
        at_discovery(
            "other-issuer",
            json!({"issuer": "https://other.example", "jwks_uri": "https://other.example/jwks"}),
            "{}",
        ),
        at_discovery(
            "issuer-slash",
            json!({"issuer": format!("{}/issuer-slash/", web.url()), "jwks_uri": format!("{}/good/jwks", web.url())}),
            "{}",
        ),
        at_discovery(
            "no-uri",
            json!({"issuer": format!("{}/no-uri", web.url())}),
            "{}",
        ),
        at_discovery(
            "metadata",
            uri("metadata", "http://169.254.169.254/jwks"),
            "http://169.254.169.254/jwks is neither https nor loopback",
        ),
        at_discovery(
            "private-host",
            uri("private-host", "https://10.0.0.1/jwks"),
            "10.0.0.1 is not a public address",
        ),
        at_discovery(
            "private-v6",
            uri("private-v6", "https://[fd00::1]/jwks"),
            "fd00::1 is not a public address",
        ),
        at_discovery(
            "mapped",
            uri("mapped", "https://[::ffff:169.254.169.254]/jwks"),
            "is not a public address",
        ),
        at_discovery(
            "http-host",
            uri("http-host", "http://id.example/jwks"),
            "http://id.example/jwks is neither https nor loopback",
        ),
        at_discovery("file", uri("file", "file:///etc/passwd"), "{}"),
    ]
}

/// Registers an issuer below the web's address, and serves it well.
fn serve_well(admin: &mut Session, web: &Web, name: &str, good: &Issuer) {
    let issuer = format!("{}/{name}", web.url());
    let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/jwks")});
    web.serve(&format!("/{name}{DISCOVERY}"), Answer::json(&document));
    web.serve(&format!("/{name}/jwks"), set(&[good.jwk()]));
    admin.run(&format!(
        "INSERT INTO auth.providers (name, issuer) VALUES ('{name}', {})",
        sql_text(&issuer)
    ));
}

/// A token of such an issuer.
fn token_of(web: &Web, name: &str, key: &Issuer, sub: &str) -> String {
    token_with(key, sub, &json!({"iss": format!("{}/{name}", web.url())}))
}

const GOOD_ROW: &str = "SELECT jwks, fetched_at, ignored FROM auth.provider_keys WHERE provider = ";

#[test]
fn whatever_a_server_answers_the_last_good_keys_stay() {
    let (db, web, good) = (Database::new(), Web::http(), key("good"));
    let (mut admin, mut app) = (db.superuser(), db.app());
    let faults = faults(&web, &good);
    for fault in &faults {
        serve_well(&mut admin, &web, fault.name, &good);
        app.present(&token_of(&web, fault.name, &good, "alice"));
    }
    pass(&mut admin, 31);
    for Fault {
        name,
        discovery,
        answer,
        error,
    } in faults
    {
        let path = match discovery {
            true => format!("/{name}{DISCOVERY}"),
            false => format!("/{name}/jwks"),
        };
        web.serve(&path, answer);
        let (jwks, document) = (
            web.requests(&format!("/{name}/jwks")),
            format!("/{name}{DISCOVERY}"),
        );
        let row = format!("{GOOD_ROW}'{name}'");
        let before = admin.rows(&row);
        let unknown = token_of(&web, name, &key("unknown"), "mallory");
        let (refusal, waited) = timed(|| app.rejected(&unknown));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        for fact in [
            "the issuer's keys were fetched ",
            " s ago, and the last attempt failed ",
        ] {
            assert!(refusal.detail.contains(fact), "{name}: {refusal:?}");
        }
        assert_eq!(
            refusal.hint, "auth.provider_keys shows why the issuer's keys could not be fetched.",
            "{name}"
        );
        assert!(waited < Duration::from_secs(2), "{name}: {waited:?}");
        assert_eq!(web.requests(&document), 2, "{name}");
        assert_eq!(
            web.requests(&format!("/{name}/jwks")),
            jwks + usize::from(!discovery),
            "{name}"
        );
        // The old keys count.
        assert_eq!(admin.rows(&row), before, "{name}");
        app.present(&token_of(&web, name, &good, "alice"));
        app.assert_user("alice");
        let why = admin.rows(&format!(
            "SELECT error, failures, next_at - checked_at, clock_timestamp() - checked_at < interval '5 s'
             FROM auth.provider_keys WHERE provider = '{name}'"
        ));
        let why = &why[0];
        let expected = error.replace("{}", &format!("{}{path}", web.url()));
        assert!(why.contains(&expected), "{name}: {expected}\n{why}");
        assert!(why.ends_with("|1|00:00:30|t"), "{name}: {why}");
    }
    assert_eq!(web.requests("/good/jwks"), 0, "nothing is followed");
}

#[test]
fn a_server_that_answers_slowly_or_never_holds_nobody_up() {
    let _alone = may_hang();
    let (db, web, good) = (Database::new(), Web::http(), key("good"));
    let mut admin = db.superuser();
    let names = ["hang", "drip"];
    for name in names {
        serve_well(&mut admin, &web, name, &good);
        db.app().present(&token_of(&web, name, &good, "alice"));
    }
    pass(&mut admin, 31);
    web.serve("/hang/jwks", Answer::Hang);
    web.serve("/drip/jwks", Answer::Drip);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for name in names {
            let (db, web, good) = (&db, &web, &good);
            scope.spawn(move || {
                let mut app = db.app();
                let unknown = token_of(web, name, &key("unknown"), "mallory");
                for _ in 0..2 {
                    let (refusal, waited) = timed(|| app.rejected(&unknown));
                    refusal.assert_stage("key", first_line::NO_KEY_FITS);
                    let hint = "The issuer's keys are being fetched: try again in a moment.";
                    assert_eq!(refusal.hint, hint, "{name}");
                    let waited = waited.as_millis();
                    assert!((1000..2000).contains(&waited), "{name}: {waited} ms");
                }
                // Who needs no other key does not wait.
                let ((), waited) = timed(|| {
                    app.present(&token_of(web, name, good, "alice"));
                    app.assert_user("alice");
                });
                assert!(waited < Duration::from_millis(500), "{name}: {waited:?}");
            });
        }
    });
    wait_until("the failures are recorded", || {
        admin.text("SELECT sum(failures) FROM auth.provider_keys") == "2"
    });
    let took = began.elapsed();
    assert!((5..8).contains(&took.as_secs()), "{took:?}");
    for name in names {
        assert_eq!(web.requests(&format!("/{name}/jwks")), 2, "{name}");
        let error = "SELECT error FROM auth.provider_keys WHERE provider = ";
        let error = admin.text(&format!("{error}'{name}'"));
        assert_eq!(error, "127.0.0.1 gave no complete answer within 5 s");
        db.app().present(&token_of(&web, name, &good, "alice"));
    }
}

#[test]
fn nothing_that_listens_is_a_failure_like_others() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let mut app = db.app();
    let (alice, mallory) = (
        token(&web, &good, "alice"),
        token(&web, &key("unknown"), "mallory"),
    );
    app.present(&alice);
    pass(&mut admin, 31);
    drop(web);
    std::thread::sleep(Duration::from_millis(50));
    let refusal = app.rejected(&mallory);
    assert!(
        refusal.detail.contains("the last attempt failed"),
        "{refusal:?}"
    );
    let error = admin.text("SELECT error FROM auth.provider_keys");
    assert!(
        error.contains("127.0.0.1") && error.contains("refused"),
        "{error}"
    );
    app.assert_user("alice");
}

#[test]
fn a_certificate_must_be_good_for_the_host_and_from_a_trusted_authority() {
    let good = key("good");
    let db = Database::new();
    let mut admin = db.superuser();
    for (certificate, error) in [
        (Certificate::Good, None),
        (Certificate::Expired, Some("it has expired")),
        (Certificate::OtherName, Some("it is for another name")),
        (
            Certificate::ForeignAuthority,
            Some("it is not from a certificate authority in fetch_ca_file"),
        ),
    ] {
        let web = Web::https_with(certificate);
        web.serve_issuer(&[&good]);
        admin.run("DELETE FROM auth.providers");
        admin.run(&follow(&web));
        let file = web.ca_file().display().to_string();
        db.administrator_sets("pg_session_jwt.fetch_ca_file", &file);
        let mut app = db.app();
        let alice = token(&web, &good, "alice");
        match error {
            None => {
                app.present(&alice);
                app.assert_user("alice");
                // The operating system does not know this authority.
                admin.run("RESET pg_session_jwt.fetch_ca_file");
                let row = admin.rows("SELECT provider, keys, error FROM auth.refresh('web')");
                assert_eq!(
                    row,
                    [
                        "web|NULL|the certificate of 127.0.0.1 is not trusted: it is not from a certificate authority of this system"
                    ]
                );
                for bad in ["/nowhere/ca.pem", "/etc/passwd"] {
                    admin.run(&format!("SET pg_session_jwt.fetch_ca_file = '{bad}'"));
                    let row = admin.rows("SELECT keys, error FROM auth.refresh('web')");
                    assert!(row[0].contains(bad), "{row:?}");
                    assert!(!row[0].contains("root:"), "{row:?}");
                }
                app.assert_user("alice");
            }
            Some(error) => {
                let refusal = app.rejected(&alice);
                refusal.assert_stage("key", first_line::NO_KEY_FITS);
                let facts = "the attempt to fetch the issuer's keys failed 0 s ago";
                assert!(refusal.detail.contains(facts), "{refusal:?}");
                assert_eq!(
                    admin.rows("SELECT jwks, error FROM auth.provider_keys"),
                    [format!(
                        "NULL|the certificate of 127.0.0.1 is not trusted: {error}"
                    )]
                );
                assert!(web.heads().is_empty(), "nothing is asked");
            }
        }
    }
}
