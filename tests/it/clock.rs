//! Tokens that expire, and tokens for the future.

use harness::{ACCESSORS, Database, Issuer, Session, first_line, now, sql_text};
use serde_json::json;

fn sleep(app: &mut Session, seconds: f64) {
    app.run(&format!("SELECT pg_sleep({seconds})"));
}

/// No tolerance, so that seconds suffice.
fn strict_database() -> Database {
    let db = Database::with_todos();
    db.administrator_sets("pg_session_jwt.clock_skew", "0");
    db
}

#[test]
fn a_token_that_expires_while_the_session_lives_ends_the_identity() {
    let (db, issuer) = (strict_database(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("PREPARE who AS SELECT auth.user_id()");
    app.present(&issuer.token(&json!({"sub": "alice", "exp": now() + 3})));
    app.assert_user("alice");
    assert_eq!(app.rows("EXECUTE who"), ["alice"]);
    assert_eq!(app.tasks(), ["write", "sleep"]);
    sleep(&mut app, 3.1);
    let statements = [
        "EXECUTE who",
        "SELECT * FROM todos",
        "INSERT INTO todos (task) VALUES ('late')",
        "UPDATE todos SET task = 'late'",
        "DELETE FROM todos",
    ];
    for sql in ACCESSORS.into_iter().chain(statements) {
        println!("{sql}");
        app.refused(sql).assert_stage("time", first_line::EXPIRED);
    }
    let problem = app.text("SELECT problem FROM auth.status()");
    assert!(problem.contains("expired"), "{problem}");
    app.run("SELECT auth.logout()");
    app.assert_nobody();
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");
}

#[test]
fn within_one_transaction_too_a_token_expires() {
    let (db, issuer) = (strict_database(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    app.present(&issuer.token(&json!({"sub": "alice", "exp": now() + 2})));
    app.assert_user("alice");
    sleep(&mut app, 2.1);
    app.refused("SELECT auth.user_id()")
        .assert_stage("time", first_line::EXPIRED);
}

#[test]
fn each_statement_of_one_query_string_meets_the_clock() {
    let (db, issuer) = (strict_database(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(&json!({"sub": "alice", "exp": now() + 2})));
    app.refused("SELECT auth.user_id(); SELECT pg_sleep(2.1); SELECT auth.user_id()")
        .assert_stage("time", first_line::EXPIRED);
}

#[test]
fn a_cursor_opened_in_time_ends_when_the_token_does() {
    let (db, issuer) = (strict_database(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(&json!({"sub": "alice", "exp": now() + 2})));
    app.run("BEGIN");
    app.run("DECLARE c CURSOR FOR SELECT auth.user_id() FROM generate_series(1, 9)");
    assert_eq!(app.rows("FETCH 2 FROM c"), ["alice", "alice"]);
    sleep(&mut app, 2.1);
    app.refused("FETCH 1 FROM c")
        .assert_stage("time", first_line::EXPIRED);
}

#[test]
fn a_token_kept_for_later_is_refused_before_its_time_and_good_after_it() {
    let (db, issuer) = (strict_database(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    for claim in ["nbf", "iat"] {
        let mut claims = json!({"sub": "alice"});
        claims[claim] = json!(now() + 2);
        let token = issuer.token(&claims);
        app.rejected(&token).assert_stage("time", first_line::EARLY);
        app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&token)));
        app.refused("SELECT auth.user_id()")
            .assert_stage("time", first_line::EARLY);
        sleep(&mut app, 2.1);
        app.assert_user("alice");
    }
}

/// A statement can take a moment, so the two sides are two seconds from the edge at most.
#[test]
fn clock_skew_is_granted_up_to_its_edge_and_not_beyond() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    for skew in [60, 0, 10] {
        if skew != 60 {
            db.administrator_sets("pg_session_jwt.clock_skew", &skew.to_string());
        }
        let mut app = db.app_with_key(&issuer);
        app.assert_nobody();
        assert_eq!(
            app.text("SHOW pg_session_jwt.clock_skew")
                .trim_end_matches("min"),
            match skew {
                60 => "1",
                0 => "0",
                _ => "10s",
            }
        );
        // `now >= exp + skew` is expired.
        app.rejected(&issuer.token(&json!({"exp": now() - skew})))
            .assert_stage("time", first_line::EXPIRED);
        app.present(&issuer.token(&json!({"exp": now() - skew + 2})));
        app.rejected(&issuer.token(&json!({"exp": now() - skew - 1})))
            .assert_stage("time", first_line::EXPIRED);
        // `now < nbf - skew` is early, and so is `iat`.
        for claim in ["nbf", "iat"] {
            let token =
                |time: i64| issuer.sign(r#"{"alg":"EdDSA"}"#, format!("{{\"{claim}\":{time}}}"));
            app.present(&token(now() + skew));
            app.rejected(&token(now() + skew + 2))
                .assert_stage("time", first_line::EARLY);
        }
    }
}

#[test]
fn fractions_of_seconds_count() {
    let (db, issuer) = (strict_database(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let time = app.text("SELECT extract(epoch FROM clock_timestamp()) + 0.5");
    let token = issuer.sign(
        r#"{"alg":"EdDSA"}"#,
        format!(r#"{{"sub":"alice","exp":{time}}}"#),
    );
    app.present(&token);
    sleep(&mut app, 0.6);
    app.rejected(&token)
        .assert_stage("time", first_line::EXPIRED);
}

#[test]
fn times_beyond_any_calendar_are_numbers_all_the_same() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let sign = |payload: &str| issuer.sign(r#"{"alg":"EdDSA"}"#, payload);
    app.present(&sign(
        r#"{"sub":"alice","exp":1e300,"iat":-1e300,"nbf":-1e300}"#,
    ));
    app.assert_user("alice");
    assert_eq!(app.rows("SELECT subject FROM auth.status()"), ["alice"]);
    app.present(&sign(r#"{"sub":"alice","exp":99999999999999999999999999}"#));
    app.run("SELECT * FROM auth.status()");
    for expired in ["0", "-0.0", "-1", "-1e300", "1e-300"] {
        app.rejected(&sign(&format!(r#"{{"exp":{expired}}}"#)))
            .assert_stage("time", first_line::EXPIRED);
    }
    for early in ["1e300", "99999999999"] {
        app.rejected(&sign(&format!(r#"{{"nbf":{early}}}"#)))
            .assert_stage("time", first_line::EARLY);
    }
}

#[test]
fn a_change_of_clock_skew_counts_at_once() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut session = db.superuser();
    session.run(&format!(
        "SELECT auth.init({})",
        sql_text(&issuer.jwk().to_string())
    ));
    session.present(&issuer.token(&json!({"sub": "alice", "exp": now() - 10})));
    session.assert_user("alice");
    session.run("SET pg_session_jwt.clock_skew = '5s'");
    session
        .refused("SELECT auth.user_id()")
        .assert_stage("time", first_line::EXPIRED);
    session.run("SET pg_session_jwt.clock_skew = '1min'");
    session.assert_user("alice");
}

#[test]
fn claims_without_a_token_know_no_clock() {
    let db = Database::new();
    let mut app = db.app();
    app.run(r#"SET request.jwt.claims = '{"sub":"alice","exp":1,"nbf":99999999999}'"#);
    app.assert_user("alice");
}
