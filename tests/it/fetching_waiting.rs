//! Keys that follow their issuer: how long somebody waits, and for what.

use std::time::Duration;

use harness::{Answer, DISCOVERY, Database, Web, first_line, sql_text, wait_until};

use crate::fetching::{STILL, follow, following, key, may_hang, pass, timed, token};

#[test]
fn who_holds_what_the_worker_needs_is_told_in_time_and_costs_no_flood() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let mut other = db.superuser();
    let mut app = db.app();
    let alice = token(&web, &good, "alice");
    let present = format!("SELECT auth.jwt_session_init({})", sql_text(&alice));
    for lock in [
        "LOCK TABLE auth.providers IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE auth.provider_keys IN SHARE MODE",
    ] {
        pass(&mut admin, 100_000);
        admin.run("DELETE FROM auth.provider_keys");
        let before = web.requests("/jwks");
        let mut session = db.superuser();
        session.run(&format!("BEGIN; {lock}"));
        let (_, took) = timed(|| {
            for _ in 0..4 {
                session.run("SAVEPOINT a");
                let (refusal, waited) = timed(|| session.refused(&present));
                refusal.assert_stage("key", first_line::NO_KEY_FITS);
                assert_eq!(refusal.hint, STILL);
                assert!(waited < Duration::from_secs(2), "{waited:?}");
                session.run("ROLLBACK TO a");
            }
        });
        session.run("COMMIT");
        let requests = web.requests("/jwks") - before;
        assert!(requests <= 2, "{lock}: {requests} requests in {took:?}");
        wait_until("it is as before", || db.app().try_run(&present).is_ok());
    }
    // By another session, which lets it go in time.
    pass(&mut admin, 100_000);
    admin.run("DELETE FROM auth.provider_keys");
    other.run("BEGIN; LOCK TABLE auth.provider_keys IN EXCLUSIVE MODE");
    std::thread::scope(|scope| {
        scope.spawn(|| app.present(&alice));
        std::thread::sleep(Duration::from_millis(400));
        other.run("COMMIT");
    });
    app.assert_user("alice");
}

#[test]
fn a_row_that_is_not_committed_yet_is_not_followed_and_then_it_is() {
    let good = key("good");
    let (db, web) = (Database::new(), Web::http());
    web.serve_issuer(&[&good]);
    let mut admin = db.superuser();
    let present = format!(
        "SELECT auth.jwt_session_init({})",
        sql_text(&token(&web, &good, "alice"))
    );
    admin.run(&format!("BEGIN; {}; SAVEPOINT a", follow(&web)));
    let (refusal, waited) = timed(|| admin.refused(&present));
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    admin.run("ROLLBACK TO a; COMMIT");
    admin.run(&present);
    admin.assert_user("alice");
}

#[test]
fn a_cancel_during_the_wait_is_obeyed_at_once() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let _alone = may_hang();
    web.serve(DISCOVERY, Answer::Hang);
    let mut app = db.app();
    let alice = token(&web, &good, "alice");
    app.run("SET statement_timeout = '200ms'");
    let (refusal, waited) = timed(|| app.rejected(&alice));
    refusal.assert("57014", "canceling statement due to statement timeout");
    refusal.assert_shows_no_token();
    assert!((150..600).contains(&waited.as_millis()), "{waited:?}");
    app.run("RESET statement_timeout");
    // Caught, where that is possible, nothing is left.
    app.run("SET statement_timeout = '200ms'");
    let present = format!("SELECT auth.jwt_session_init({})", sql_text(&alice));
    app.run(&format!(
        "DO $$ BEGIN PERFORM auth.jwt_session_init({}); EXCEPTION WHEN query_canceled THEN END $$",
        sql_text(&alice)
    ));
    app.run("RESET statement_timeout");
    let pid = app.pid();
    assert_eq!(
        admin.text(&format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND pid = {pid}"
        )),
        "0"
    );
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let (code, waited) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| timed(|| app.client.simple_query(&present).unwrap_err()));
            std::thread::sleep(Duration::from_millis(200));
            admin.run(&format!("SELECT {function}({pid})"));
            let (error, waited) = asked.join().unwrap();
            (error.code().map(|code| code.code().to_owned()), waited)
        });
        // Of a terminated one the driver may see no more than that it is gone.
        let expected = match function {
            "pg_cancel_backend" => "57014",
            _ => "57P01",
        };
        assert_eq!(code.as_deref().unwrap_or("57P01"), expected);
        assert!((150..700).contains(&waited.as_millis()), "{waited:?}");
    }
    assert_eq!(web.requests(DISCOVERY), 1);
}

#[test]
fn without_waiting_the_keys_are_there_for_the_next_statement() {
    let good = key("good");
    let (db, web, _admin) = following(&[&good]);
    for wait in ["0", "1ms"] {
        db.superuser().run("DELETE FROM auth.provider_keys");
        db.administrator_sets("pg_session_jwt.fetch_wait", wait);
        let mut app = db.app();
        let alice = token(&web, &good, "alice");
        let present = format!("SELECT auth.jwt_session_init({})", sql_text(&alice));
        // Unless the worker is quicker than the session that looks whether it has begun.
        if let Err(refusal) = app.try_run(&present) {
            assert_eq!(refusal.hint, STILL);
        }
        wait_until("the keys are there", || app.try_run(&present).is_ok());
    }
    assert_eq!(web.requests("/jwks"), 2);
}

#[test]
fn two_databases_with_the_same_provider_fetch_each_for_itself() {
    let good = key("good");
    let (one, web, _admin) = following(&[&good]);
    let two = Database::new();
    two.superuser().run(&follow(&web));
    let alice = token(&web, &good, "alice");
    std::thread::scope(|scope| {
        for db in [&one, &two] {
            let alice = &alice;
            scope.spawn(move || {
                let mut app = db.app();
                app.present(alice);
                app.assert_user("alice");
            });
        }
    });
    assert_eq!(web.requests("/jwks"), 2);
    one.superuser().run("DELETE FROM auth.providers");
    two.app().present(&alice);
}
