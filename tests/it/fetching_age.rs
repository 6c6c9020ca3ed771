//! Keys that follow their issuer: how long they count, and what makes them go.

use std::time::Duration;

use harness::{
    Answer, DISCOVERY, Database, Issuer, Row, Session, Web, first_line, set_of, sql_text,
    token_with, wait_until,
};
use serde_json::json;

use crate::fetching::{following, key, may_hang, pass, set, timed, token};

#[test]
fn old_keys_are_fetched_again_without_anybody_waiting() {
    let (old, new) = (key("old"), key("new"));
    let (db, web, mut admin) = following(&[&old]);
    let mut sessions: Vec<_> = (0..4).map(|_| db.app()).collect();
    for app in &mut sessions {
        app.present(&token(&web, &old, "alice"));
        app.assert_user("alice");
    }
    pass(&mut admin, 599);
    let mut app = db.app();
    app.present(&token(&web, &old, "alice"));
    assert_eq!(web.requests("/jwks"), 1, "not yet");
    let _alone = may_hang();
    let slowly = set(&[old.jwk(), new.jwk()]).after(Duration::from_secs(1));
    web.serve("/jwks", slowly);
    // As long as a process takes to start, on a machine that has other things to do as well.
    let is_short = |waited: &Duration| *waited < Duration::from_millis(100);
    let mut rounds = 0;
    loop {
        rounds += 1;
        pass(&mut admin, 3601);
        let longest = std::thread::scope(|scope| {
            let asked: Vec<_> = sessions
                .iter_mut()
                .map(|session| {
                    scope.spawn(|| {
                        let mut longest = Duration::ZERO;
                        for _ in 0..5 {
                            longest = longest.max(timed(|| session.assert_user("alice")).1);
                        }
                        longest
                    })
                })
                .collect();
            let longest = asked.into_iter().map(|one| one.join().unwrap());
            longest.max().unwrap()
        });
        assert!(longest < Duration::from_millis(700), "{longest:?}");
        wait_until("the keys are fetched, once", || {
            web.requests("/jwks") == 1 + rounds
        });
        let row = "SELECT jsonb_array_length(jwks->'keys'), failures, next_at > clock_timestamp()
            FROM auth.provider_keys";
        wait_until("the keys are stored", || admin.rows(row) == ["2|0|t"]);
        if is_short(&longest) {
            break;
        }
        assert!(rounds < 5, "{longest:?}");
    }
    app.present(&token(&web, &new, "bob"));
    app.assert_user("bob");
    assert_eq!(web.requests("/jwks"), 1 + rounds);
}

#[test]
fn whatever_uses_old_keys_has_them_fetched() {
    let old = key("old");
    let (db, web, mut admin) = following(&[&old]);
    admin.run("UPDATE auth.providers SET default_role = 'authenticated'");
    let mut app = db.connect(&db.login_role(), "");
    let alice = sql_text(&token(&web, &old, "alice"));
    app.run(&format!("SELECT auth.verify({alice})"));
    for (requests, sql) in [
        format!("SELECT auth.verify({alice})"),
        format!("SELECT auth.jwt_session_init({alice})"),
        format!("SELECT auth.jwt_session_init({alice}, true)"),
        "SELECT auth.user_id()".to_owned(),
        format!("SELECT auth.login({alice})"),
    ]
    .iter()
    .enumerate()
    {
        pass(&mut admin, 601);
        app.run(sql);
        wait_until("the keys are fetched", || {
            web.requests("/jwks") == requests + 2
        });
        wait_until("the keys are stored", || {
            admin.text("SELECT next_at > clock_timestamp() FROM auth.provider_keys") == "t"
        });
    }
}

#[test]
fn an_answer_may_move_the_interval_within_reason() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    admin.run("SET pg_session_jwt.fetch_interval = '20min'");
    for (cache_control, expected) in [
        (None, "00:20:00"),
        (Some("public, max-age=60"), "00:05:00"),
        (Some("max-age=1200, must-revalidate"), "00:20:00"),
        (Some("max-age=1799"), "00:29:59"),
        (Some("max-age=86400"), "01:00:00"),
        (Some("no-store"), "00:05:00"),
        (Some("max-age=nonsense"), "00:20:00"),
    ] {
        let answer = set(&[good.jwk()]);
        let answer = match cache_control {
            Some(value) => answer.with_header("Cache-Control", value),
            None => answer,
        };
        web.serve("/jwks", answer);
        admin.run("SELECT auth.refresh()");
        assert_eq!(
            admin.rows("SELECT next_at - checked_at FROM auth.provider_keys"),
            [expected],
            "{cache_control:?}"
        );
    }
    db.administrator_sets("pg_session_jwt.fetch_interval", "45s");
    web.serve("/jwks", set(&[good.jwk()]));
    pass(&mut admin, 10_000);
    db.app().present(&token(&web, &good, "alice"));
    wait_until("the keys are fetched", || {
        admin.rows("SELECT next_at - checked_at FROM auth.provider_keys") == ["00:00:45"]
    });
}

/// An issuer that is down, with keys that go stale a second from now; and a session of alice's.
fn nearly_stale() -> (Database, Web, Session, Session, Issuer) {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    db.administrator_sets("pg_session_jwt.fetch_stale", "60s");
    let mut app = db.app();
    app.present(&token(&web, &good, "alice"));
    pass(&mut admin, 58);
    app.assert_user("alice");
    (db, web, admin, app, good)
}

#[test]
fn keys_that_are_stale_do_not_count_for_anybody() {
    let (db, web, mut admin, mut app, good) = nearly_stale();
    web.serve(DISCOVERY, Answer::Status(503));
    let alice = token(&web, &good, "alice");
    let mut other = db.app();
    other.present(&alice);
    other.assert_user("alice");
    // By the clock alone: no row has changed.
    wait_until("the keys are stale", || {
        app.try_value("SELECT auth.user_id()") != Ok(Some("alice".into()))
    });
    let facts = "the issuer's keys do not count any more: they were fetched 60 s ago";
    for session in [&mut app, &mut other] {
        let refusal = session.user_refused();
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        assert!(refusal.detail.contains(facts), "{refusal:?}");
        let hint = "Keys are not fetched again within the next ";
        assert!(refusal.hint.starts_with(hint), "{refusal:?}");
        let problem = session.text("SELECT problem FROM auth.status()");
        assert!(problem.contains(facts), "{problem}");
        let refusal = session.refused(&format!("SELECT auth.verify({})", sql_text(&alice)));
        assert!(refusal.detail.contains(facts), "{refusal:?}");
        session
            .rejected(&alice)
            .assert_stage("key", first_line::NO_KEY_FITS);
    }
    assert_eq!(web.requests(DISCOVERY), 2, "one attempt after the first");
    // They are kept, but do not count.
    assert_eq!(
        admin.rows("SELECT jwks IS NULL, failures FROM auth.provider_keys"),
        ["f|1"]
    );
    // When the issuer is back, so are they.
    web.serve_issuer(&[&good]);
    pass(&mut admin, 31);
    app.assert_user("alice");
    other.assert_user("alice");
    assert_eq!(web.requests(DISCOVERY), 3);
}

#[test]
fn stale_keys_of_a_healthy_issuer_are_fetched_by_who_needs_them() {
    let (_db, web, _admin, mut app, _good) = nearly_stale();
    std::thread::sleep(Duration::from_millis(2200));
    app.assert_user("alice");
    assert_eq!(web.requests("/jwks"), 2);
}

#[test]
fn a_removed_key_is_gone_from_every_session_after_a_refresh() {
    let (removed, stays) = (key("removed"), key("stays"));
    let (db, web, mut admin) = following(&[&removed, &stays]);
    db.superuser().run(
        "CREATE TABLE notes (user_id text); INSERT INTO notes VALUES ('alice'), ('bob');
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON notes USING (auth.user_id() = user_id);
         GRANT SELECT ON notes TO PUBLIC",
    );
    let (mut gone, mut in_transaction, mut stayer) = (db.app(), db.app(), db.app());
    for (session, key, user) in [
        (&mut gone, &removed, "alice"),
        (&mut in_transaction, &removed, "alice"),
        (&mut stayer, &stays, "bob"),
    ] {
        session.present(&token(&web, key, user));
        session.assert_user(user);
    }
    in_transaction.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(in_transaction.rows("TABLE notes"), ["alice"]);
    web.serve_issuer(&[&stays]);
    assert_eq!(admin.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
    for session in [&mut gone, &mut in_transaction] {
        session
            .refused("TABLE notes")
            .assert_stage("key", first_line::NO_KEY_FITS);
    }
    assert_eq!(stayer.rows("TABLE notes"), ["bob"]);
    stayer.assert_user("bob");
}

#[test]
fn keys_of_another_address_are_gone_at_once() {
    let (first, second) = (key("first"), key("second"));
    let (db, web, mut admin) = following(&[&first]);
    let mut app = db.app();
    let alice = token(&web, &first, "alice");
    app.present(&alice);
    // Another URL, whose server is down.
    let other = format!("{}/other", web.url());
    admin.run(&format!(
        "UPDATE auth.providers SET jwks_url = {}",
        sql_text(&other)
    ));
    let refusal = app.user_refused();
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    let facts = "the attempt to fetch the issuer's keys failed 0 s ago";
    assert!(refusal.detail.contains(facts), "{refusal:?}");
    assert_eq!(web.requests("/other"), 1, "it is asked at once");
    assert_eq!(
        admin.rows("SELECT url, jwks, fetched_at, failures, error FROM auth.provider_keys"),
        [format!("{other}|NULL|NULL|1|{other} answered 404")]
    );
    // And back: the old ones are not there any more.
    admin.run("UPDATE auth.providers SET jwks_url = NULL");
    app.assert_user("alice");
    assert_eq!(web.requests("/jwks"), 2);
    // Undone, nothing has happened.
    admin.run(&format!(
        "BEGIN; UPDATE auth.providers SET jwks_url = {}; ROLLBACK",
        sql_text(&other)
    ));
    app.assert_user("alice");
    // Another issuer: his tokens alone, and not with the keys of the first.
    let web_2 = Web::http();
    web_2.serve_issuer(&[&second]);
    admin.run(&format!(
        "UPDATE auth.providers SET issuer = {}",
        sql_text(&web_2.url())
    ));
    app.user_refused().assert_stage("key", first_line::ISSUER);
    app.rejected(&token(&web_2, &first, "mallory"))
        .assert_stage("key", first_line::NO_KEY_FITS);
    pass(&mut admin, 31);
    app.present(&token(&web_2, &second, "bob"));
    app.assert_user("bob");
    assert_eq!(web.requests("/jwks"), 2);
}

#[test]
fn the_keys_of_a_provider_that_is_gone_are_gone() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let mut app = db.app();
    let alice = token(&web, &good, "alice");
    let providers = "SELECT provider FROM auth.provider_keys ORDER BY 1";
    let other = "INSERT INTO auth.providers (name, issuer, jwks_url) SELECT 'other', issuer || '/other', issuer || '/jwks' FROM auth.providers";
    let insert = crate::fetching::follow(&web);
    for change in [
        "DELETE FROM auth.providers WHERE name = 'web'",
        "UPDATE auth.providers SET name = 'renamed' WHERE name = 'web'",
        "TRUNCATE auth.providers",
        "DELETE FROM auth.providers",
        "SET session_replication_role = replica; DELETE FROM auth.providers WHERE name = 'web'; RESET session_replication_role",
    ] {
        admin.run(other);
        app.present(&alice);
        admin.run("SELECT auth.refresh()");
        assert_eq!(admin.rows(providers), ["other", "web"], "{change}");
        admin.run(&format!("BEGIN; {change}; ROLLBACK"));
        assert_eq!(admin.rows(providers), ["other", "web"], "{change}");
        admin.run(change);
        let all = !change.contains("'web'");
        let left = admin.rows(providers);
        assert_eq!(left, if all { vec![] } else { vec!["other"] }, "{change}");
        if change.contains("renamed") {
            // It is another provider now, with keys of its own.
            app.assert_user("alice");
            assert_eq!(admin.rows(providers), ["other", "renamed"]);
        } else if all {
            app.user_refused().assert_stage("key", first_line::NO_KEY);
        } else {
            app.user_refused().assert_stage("key", first_line::ISSUER);
        }
        admin.run("DELETE FROM auth.providers");
        assert_eq!(admin.rows(providers), Vec::<String>::new());
        admin.run(&insert);
    }
}

#[test]
fn the_extension_may_be_moved_and_its_keys_follow() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    db.app().present(&token(&web, &good, "alice"));
    admin.run(
        "ALTER SCHEMA auth RENAME TO moved; GRANT USAGE ON SCHEMA moved TO PUBLIC;
         ALTER TABLE moved.providers RENAME TO issuers",
    );
    let second = key("second");
    web.serve_issuer(&[&second]);
    admin.run("UPDATE moved.provider_keys SET checked_at = checked_at - interval '31 s'");
    let mut app = db.app();
    let bob = sql_text(&token(&web, &second, "bob"));
    app.run(&format!("SELECT moved.jwt_session_init({bob})"));
    assert_eq!(app.text("SELECT moved.user_id()"), "bob");
    admin.run("UPDATE moved.issuers SET name = 'renamed'");
    assert_eq!(app.text("SELECT moved.user_id()"), "bob");
    let providers = "SELECT provider FROM moved.provider_keys";
    assert_eq!(admin.rows(providers), ["renamed"]);
    admin.run("DELETE FROM moved.issuers");
    assert_eq!(admin.rows(providers), Vec::<String>::new());
}

#[test]
fn a_row_with_keys_and_an_address_trusts_both_and_one_with_keys_alone_asks_nobody() {
    let (own, published, later) = (key("own"), key("published"), key("later"));
    let (db, web, mut admin) = following(&[&published]);
    let mut app = db.app();
    admin.run(&format!(
        "UPDATE auth.providers SET jwks = {}, jwks_url = {}",
        set_of(&[&own]),
        sql_text(&format!("{}/jwks", web.url()))
    ));
    app.present(&token(&web, &own, "alice"));
    app.assert_user("alice");
    wait_until("the others are fetched", || web.requests("/jwks") == 1);
    for (key, user) in [(&published, "bob"), (&own, "alice"), (&published, "bob")] {
        app.present(&token(&web, key, user));
        app.assert_user(user);
    }
    assert_eq!(web.requests("/jwks"), 1);
    // An outage takes nothing of either.
    web.serve("/jwks", Answer::Status(500));
    pass(&mut admin, 86_400);
    app.present(&token(&web, &own, "alice"));
    app.assert_user("alice");
    app.rejected(&token(&web, &published, "bob"))
        .assert_stage("key", first_line::NO_KEY_FITS);
    assert_eq!(web.requests("/jwks"), 2);

    // The administrator's alone.
    admin.run("UPDATE auth.providers SET jwks_url = NULL");
    web.serve_issuer(&[&published, &later]);
    pass(&mut admin, 100_000);
    app.present(&token(&web, &own, "alice"));
    app.assert_user("alice");
    for key in [&published, &later] {
        let refusal = app.rejected(&token(&web, key, "bob"));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        let hint = "If the issuer has rotated its keys, add the new ones from its JWK Set.";
        assert_eq!(refusal.hint, hint);
    }
    assert_eq!((web.requests("/jwks"), web.requests(DISCOVERY)), (2, 0));
}

#[test]
fn of_two_providers_of_one_issuer_the_one_that_could_have_the_key_is_asked() {
    let (ec, ed) = (key("ec"), Issuer::ed25519().with_kid("ed"));
    let (db, web) = (Database::new(), Web::http());
    let mut admin = db.superuser();
    for (name, alg, issuer) in [("a", "ES256", &ec), ("b", "EdDSA", &ed)] {
        web.serve(&format!("/{name}"), set(&[issuer.jwk()]));
        admin.run(
            &Row::new(name, &web.url(), &[])
                .with("jwks", "NULL")
                .with("jwks_url", &sql_text(&format!("{}/{name}", web.url())))
                .with("algorithms", &format!("'{{{alg}}}'"))
                .insert(),
        );
    }
    let mut app = db.app();
    app.present(&token(&web, &ed, "ed"));
    assert_eq!((web.requests("/a"), web.requests("/b")), (0, 1));
    app.present(&token(&web, &ec, "ec"));
    assert_eq!((web.requests("/a"), web.requests("/b")), (1, 1));
    // Tokens without an issuer.
    let none = key("none");
    web.serve("/none", set(&[none.jwk()]));
    admin.run(&format!(
        "INSERT INTO auth.providers (name, jwks_url) VALUES ('none', {})",
        sql_text(&format!("{}/none", web.url()))
    ));
    app.present(&token_with(&none, "nobody's", &json!({"iss": null})));
    app.assert_user("nobody's");
}
