//! Keys that follow their issuer: a token needs a key that is not there, and the next moment it is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::{
    Answer, CURRENT, DISCOVERY, Database, Issuer, Session, Web, first_line, jwks, sql_text,
    token_with, wait_until,
};
use serde_json::{Value, json};

/// The HINT for who has waited.
pub(crate) const STILL: &str = "The issuer's keys are being fetched: try again in a moment.";

/// A database that follows an issuer on this machine, whose keys are these.
pub(crate) fn following(keys: &[&Issuer]) -> (Database, Web, Session) {
    let (db, web) = (Database::new(), Web::http());
    web.serve_issuer(keys);
    let mut admin = db.superuser();
    admin.run(&follow(&web));
    (db, web, admin)
}

/// The statement of every guide: a name and an issuer.
pub(crate) fn follow(web: &Web) -> String {
    format!(
        "INSERT INTO auth.providers (name, issuer) VALUES ('web', {})",
        sql_text(&web.url())
    )
}

/// A token of the web's issuer.
pub(crate) fn token(web: &Web, key: &Issuer, sub: &str) -> String {
    token_with(key, sub, &json!({"iss": web.url()}))
}

/// As if so many seconds had passed since the last attempt.
pub(crate) fn pass(admin: &mut Session, seconds: u32) {
    admin.run(&format!(
        "UPDATE auth.provider_keys SET fetched_at = fetched_at - interval '{seconds} s',
            checked_at = checked_at - interval '{seconds} s', next_at = next_at - interval '{seconds} s'"
    ));
}

/// An ES256 key with this name.
pub(crate) fn key(kid: &str) -> Issuer {
    Issuer::es256().with_kid(kid)
}

/// A key set.
pub(crate) fn set(keys: &[Value]) -> Answer {
    Answer::Ok {
        body: jwks(keys),
        headers: Vec::new(),
    }
}

/// 200 and this text.
pub(crate) fn body(text: &str) -> Answer {
    Answer::Ok {
        body: text.into(),
        headers: Vec::new(),
    }
}

/// How long this takes.
pub(crate) fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = body();
    (result, began.elapsed())
}

/// Who makes servers hang, holds this: only four workers fetch at a time on the server under test.
pub(crate) fn may_hang() -> MutexGuard<'static, ()> {
    static HANGING: Mutex<()> = Mutex::new(());
    HANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_name_and_an_issuer_are_enough() {
    let key = Issuer::es256().with_kid("key-1");
    let (db, web, mut admin) = following(&[&key]);
    let mut app = db.app();
    assert_eq!(web.requests("/jwks"), 0, "nobody has needed them yet");
    app.present(&token(&web, &key, "alice"));
    app.assert_user("alice");
    assert_eq!(web.requests("/jwks"), 1);
    assert_eq!(
        admin.rows(
            "SELECT provider, url, jsonb_array_length(jwks->'keys'), fetched_at = checked_at,
                next_at - checked_at, failures, error, ignored FROM auth.provider_keys"
        ),
        [format!(
            "web|{}/.well-known/openid-configuration|1|t|00:10:00|0|NULL|NULL",
            web.url()
        )]
    );
    // Other connections need no request.
    let mut other = db.app();
    other.present(&token(&web, &key, "bob"));
    other.assert_user("bob");
    assert_eq!(web.requests("/jwks"), 1);
}

#[test]
fn a_rotation_is_noticed_by_the_first_token_of_the_new_key() {
    let (first, second) = (
        Issuer::es256().with_kid("key-2"),
        Issuer::ed25519().with_kid("key-3"),
    );
    let (db, web, mut admin) = following(&[&first]);
    let (mut app, mut idle) = (db.app(), db.app());
    idle.present(&token(&web, &first, "idle"));
    web.serve_issuer(&[&second]);
    pass(&mut admin, 31);
    app.present(&token(&web, &second, "alice"));
    app.assert_user("alice");
    assert_eq!(web.requests("/jwks"), 2);
    // The removed key is gone everywhere.
    idle.user_refused()
        .assert_stage("key", first_line::NO_KEY_FITS);
}

#[test]
fn made_up_key_ids_cost_one_request_in_half_a_minute() {
    let key = Issuer::es256().with_kid("key-4");
    let (db, web, _admin) = following(&[&key]);
    let mut app = db.app();
    app.present(&token(&web, &key, "alice"));
    let began = Instant::now();
    for _ in 0..20 {
        let refusal = app.rejected(&token(&web, &Issuer::es256().with_kid("key-5"), "mallory"));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        assert!(refusal.hint.contains("not fetched again"), "{refusal:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits");
    assert_eq!(web.requests("/jwks"), 1);
}

#[test]
fn twenty_sessions_with_one_new_key_cost_one_request() {
    let (db, web, mut admin) = following(&[&key("key-0")]);
    let mut sessions: Vec<_> = (0..20).map(|_| db.app()).collect();
    // Some come just as another one's worker has written.
    for round in 1..=5 {
        let new = key(&format!("key-{round}"));
        web.serve_issuer(&[&new]);
        pass(&mut admin, 31);
        std::thread::scope(|scope| {
            for session in &mut sessions {
                let token = token(&web, &new, "many");
                scope.spawn(move || {
                    session.present(&token);
                    session.assert_user("many");
                });
            }
        });
        assert_eq!(web.requests("/jwks"), round);
    }
}

#[test]
fn an_issuer_that_hangs_holds_nobody_up() {
    let key = Issuer::es256().with_kid("key-8");
    let (db, web, mut admin) = following(&[&key]);
    let _alone = may_hang();
    web.serve(DISCOVERY, Answer::Hang);
    let mut app = db.app();
    let began = Instant::now();
    let refusal = app.rejected(&token(&web, &key, "alice"));
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    assert!(refusal.hint.contains("are being fetched"), "{refusal:?}");
    let waited = began.elapsed();
    assert!((1000..2500).contains(&waited.as_millis()), "{waited:?}");
    wait_until("the failure is recorded", || {
        admin.rows("SELECT failures, jwks FROM auth.provider_keys") == ["1|NULL"]
    });
    let error = admin.text("SELECT error FROM auth.provider_keys");
    assert!(error.contains("no complete answer within 5 s"), "{error}");
}

#[test]
fn rows_from_before_the_update_do_not_begin_to_follow_by_themselves() {
    let key = Issuer::es256().with_kid("key");
    let (db, web) = (Database::without_extension(), Web::http());
    web.serve_issuer(&[&key]);
    let mut admin = db.superuser();
    admin.install_left_by("1.0.1");
    // In its catalog, nothing is followed.
    admin
        .refused(&follow(&web))
        .assert("22023", "invalid provider \"web\"");
    admin.run(&format!(
        "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('web', {0}, {0} || '/jwks')",
        sql_text(&web.url())
    ));
    let mut app = db.app();
    let token = token(&web, &key, "alice");
    app.rejected(&token)
        .assert_stage("key", first_line::NO_KEY_FITS);
    admin.update_to(CURRENT);
    let refusal = app.rejected(&token);
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    assert_eq!(
        refusal.hint,
        "Keys are not fetched from \"127.0.0.1\": a superuser may add this host to \
         pg_session_jwt.fetch_hosts, or write the provider's row."
    );
    assert_eq!(web.requests("/jwks"), 0);
    admin.run("UPDATE auth.providers SET audience = NULL WHERE name = 'web'");
    app.present(&token);
    assert_eq!(web.requests("/jwks"), 1);
    // Back and forth, nothing is lost.
    for version in ["0.5.0", CURRENT] {
        admin.update_to(version);
        app.present(&token);
    }
    app.present(&token);
    assert_eq!(web.requests("/jwks"), 1);
}

#[test]
fn made_up_key_ids_from_many_sessions_cost_one_request() {
    let key_8 = key("key-8");
    let (db, web, mut admin) = following(&[&key_8]);
    db.app().present(&token(&web, &key_8, "alice"));
    pass(&mut admin, 31);
    let sessions: Vec<_> = (0..10).map(|_| db.app()).collect();
    std::thread::scope(|scope| {
        for (number, mut session) in sessions.into_iter().enumerate() {
            let web = &web;
            scope.spawn(move || {
                for turn in 0..5 {
                    let made_up = key(&format!("made-up-{number}-{turn}"));
                    session
                        .rejected(&token(web, &made_up, "mallory"))
                        .assert_stage("key", first_line::NO_KEY_FITS);
                }
            });
        }
    });
    assert_eq!(web.requests("/jwks"), 2);
    assert_eq!(web.requests(DISCOVERY), 2);
}

#[test]
fn only_a_token_that_needs_a_key_costs_a_request() {
    let key_9 = key("key-9");
    let (db, web, mut admin) = following(&[&key_9]);
    let mut app = db.app();
    app.present(&token(&web, &key_9, "alice"));
    pass(&mut admin, 31);
    // Its key is known, and did not sign it.
    let forged = token(&web, &key("key-9"), "mallory");
    app.rejected(&forged)
        .assert_stage("signature", first_line::SIGNATURE);
    // Nobody publishes a secret.
    let secret = Issuer::hs256().with_kid("key-10");
    let refusal = app.rejected(&token(&web, &secret, "mallory"));
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    // Nobody is told what to ask.
    let unknown = json!({"iss": format!("{}/other", web.url())});
    app.rejected(&token_with(&key("key-11"), "mallory", &unknown))
        .assert_stage("key", first_line::ISSUER);
    let no_issuer = token_with(&key("key-11"), "mallory", &json!({"iss": null}));
    app.rejected(&no_issuer)
        .assert_stage("key", first_line::ISSUER);
    // Faults of earlier stages.
    let new = key("key-12");
    let good = token(&web, &new, "mallory");
    let mut parts: Vec<_> = good.split('.').collect();
    parts[2] = "AA=";
    app.rejected(&parts.join("."))
        .assert_stage("structure", first_line::SIGNATURE_ENCODING);
    app.rejected(&format!("{good}.x"))
        .assert_stage("structure", first_line::ENCODING);
    let payload = json!({"iss": web.url(), "sub": "mallory"}).to_string();
    let header = json!({"alg": "ES256", "kid": "key-12", "crit": ["x"]}).to_string();
    app.rejected(&new.sign(header, &payload))
        .assert_stage("structure", first_line::ENCODING);
    let header = json!({"alg": "none", "kid": "key-12"}).to_string();
    app.rejected(&new.sign(header, &payload))
        .assert_stage("header", first_line::HEADER);
    // A provider that does not count.
    admin.run("UPDATE auth.providers SET enabled = false");
    let refusal = app.rejected(&good);
    refusal.assert_stage("key", first_line::ISSUER);
    assert!(refusal.hint.contains("disabled"), "{refusal:?}");
    admin.run("UPDATE auth.providers SET enabled = true, algorithms = '{RS256}'");
    app.rejected(&good)
        .assert_stage("key", first_line::NO_KEY_FITS);
    assert_eq!(web.requests("/jwks"), 1);
    assert_eq!(web.requests(DISCOVERY), 1);
    // Known to the database, but not to this provider: that is one.
    admin.run("UPDATE auth.providers SET algorithms = NULL");
    app.rejected(&good)
        .assert_stage("key", first_line::NO_KEY_FITS);
    assert_eq!(web.requests("/jwks"), 2);
}

#[test]
fn after_a_failure_nothing_is_asked_before_it_is_due() {
    let key_13 = key("key-13");
    let (db, web, mut admin) = following(&[&key_13]);
    web.serve(DISCOVERY, Answer::Status(503));
    let mut app = db.app();
    let good = token(&web, &key_13, "alice");
    for (failures, seconds) in [30, 60, 120, 240, 480, 900, 900].into_iter().enumerate() {
        app.rejected(&good)
            .assert_stage("key", first_line::NO_KEY_FITS);
        assert_eq!(web.requests(DISCOVERY), failures + 1);
        let row = "SELECT failures, extract(epoch FROM next_at - checked_at)::int, jwks, fetched_at
            FROM auth.provider_keys";
        let expected = format!("{}|{seconds}|NULL|NULL", failures + 1);
        assert_eq!(admin.rows(row), [expected]);
        // Not yet.
        pass(&mut admin, seconds - 5);
        let refusal = app.rejected(&good);
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        let facts = "the attempt to fetch the issuer's keys failed";
        assert!(refusal.detail.contains(facts), "{refusal:?}");
        let hint = "Keys are not fetched again within the next ";
        assert!(refusal.hint.starts_with(hint), "{refusal:?}");
        assert_eq!(web.requests(DISCOVERY), failures + 1);
        pass(&mut admin, 6);
    }
    // The outage is over.
    web.serve_issuer(&[&key_13]);
    app.present(&good);
    app.assert_user("alice");
    assert_eq!(
        admin.rows("SELECT failures, error, next_at - checked_at FROM auth.provider_keys"),
        ["0|NULL|00:10:00"]
    );
}
