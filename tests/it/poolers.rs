//! Applications behind a pooler: one connection serves many users in turn.

use harness::{Database, Issuer, first_line, sql_text, token_with};
use serde_json::json;

#[test]
fn a_token_set_for_the_transaction_and_queries_after_it_are_all_an_application_needs() {
    let (db, issuer) = (Database::with_todos(), Issuer::rs256());
    let mut app = db.app_with_key(&issuer);
    let set = app
        .client
        .prepare("SELECT set_config('pg_session_jwt.jwt', $1, true)")
        .unwrap();
    let tasks = app
        .client
        .prepare("SELECT task FROM todos ORDER BY id")
        .unwrap();
    for round in 0..20 {
        let (user, expected) = match round % 3 {
            0 => ("alice", vec!["write", "sleep"]),
            1 => ("bob", vec!["read"]),
            _ => ("carol", vec![]),
        };
        let mut transaction = app.client.transaction().unwrap();
        transaction
            .query_one(&set, &[&issuer.token_for(user)])
            .unwrap();
        let rows = transaction.query(&tasks, &[]).unwrap();
        let seen: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, expected, "{user}");
        if round % 2 == 0 {
            transaction.commit().unwrap();
        } else {
            transaction.rollback().unwrap();
        }
        let rows = app.client.query(&tasks, &[]).unwrap();
        assert!(rows.is_empty(), "between transactions it is nobody");
    }
}

#[test]
fn the_same_token_serves_many_transactions() {
    let (db, issuer) = (Database::with_todos(), Issuer::es256());
    let mut app = db.app_with_key(&issuer);
    let token = sql_text(&issuer.token(&json!({"sub": "alice", "jti": "an-id-of-the-issuer"})));
    for _ in 0..10 {
        app.run("BEGIN");
        app.run(&format!("SELECT auth.jwt_session_init({token}, true)"));
        assert_eq!(app.tasks(), ["write", "sleep"]);
        app.run("COMMIT");
        app.assert_nobody();
    }
}

#[test]
fn a_portal_opened_in_a_transaction_reads_on_as_its_user() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let tasks = app
        .client
        .prepare("SELECT task, auth.user_id() FROM todos ORDER BY id")
        .unwrap();
    for user in ["alice", "bob", "alice"] {
        let mut transaction = app.client.transaction().unwrap();
        let token = issuer.token_for(user);
        transaction
            .execute("SELECT auth.jwt_session_init($1, true)", &[&token])
            .unwrap();
        let portal = transaction.bind(&tasks, &[]).unwrap();
        let mut seen = 0;
        loop {
            let rows = transaction.query_portal(&portal, 1).unwrap();
            let Some(row) = rows.first() else { break };
            assert_eq!(row.get::<_, &str>(1), user);
            seen += 1;
        }
        assert_eq!(seen, if user == "alice" { 2 } else { 1 });
        transaction.commit().unwrap();
    }
}

#[test]
fn discard_all_forgets_the_token_and_keeps_the_keys() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let init = format!("SELECT auth.init({})", sql_text(&issuer.jwk().to_string()));
    let mut pinned = db.superuser();
    pinned.run(&init);
    for mut session in [db.app_with_key(&issuer), pinned] {
        for forget in [
            "DISCARD ALL",
            "RESET ALL",
            "RESET pg_session_jwt.jwt",
            "SET pg_session_jwt.jwt = ''",
            "SET pg_session_jwt.jwt TO DEFAULT",
            "SELECT auth.logout()",
        ] {
            println!("{forget}");
            session.present(&issuer.token_for("alice"));
            session.assert_user("alice");
            session.run(forget);
            session.assert_nobody();
            session
                .rejected(&Issuer::ed25519().token_for("alice"))
                .assert_stage("signature", first_line::SIGNATURE);
        }
    }
}

#[test]
fn an_aborted_transaction_does_not_hand_its_user_on() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    app.run(&format!(
        "SET LOCAL pg_session_jwt.jwt = {}",
        sql_text(&issuer.token_for("alice"))
    ));
    app.assert_user("alice");
    app.refused("SELECT 1 / 0");
    app.refused("SELECT auth.user_id()").assert(
        "25P02",
        "current transaction is aborted, commands ignored until end of transaction block",
    );
    app.run("ROLLBACK");
    app.assert_nobody();
}

#[test]
fn a_token_given_in_the_startup_options_is_there_from_the_first_statement_on() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let key = harness::option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let token = harness::option("pg_session_jwt.jwt", &issuer.token_for("alice"));
    let mut app = db.connect(harness::APP_USER, &format!("{key} {token}"));
    assert_eq!(app.tasks(), ["write", "sleep"]);
    app.run("SELECT auth.logout()");
    app.assert_nobody();
}

#[test]
fn one_connection_can_alternate_among_more_users_than_any_cache_holds() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let tokens: Vec<String> = (0..40)
        .map(|i| issuer.token_for(&format!("user-{i}")))
        .collect();
    for _ in 0..3 {
        for (i, token) in tokens.iter().enumerate() {
            app.present(token);
            app.assert_user(&format!("user-{i}"));
        }
    }
}

/// PgBouncer's server_reset_query is DISCARD ALL; others use RESET ALL.
#[test]
fn reset_all_forgets_the_token_and_keeps_the_role() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let login = db.login_role();
    db.superuser().register(&[&issuer]);
    let alice = sql_text(&token_with(
        &issuer,
        "alice",
        &json!({"role": "authenticated"}),
    ));
    for (reset, role) in [
        ("RESET ALL", "authenticated"),
        ("RESET ALL; RESET ROLE", login.as_str()),
        ("DISCARD ALL", login.as_str()),
        ("SELECT auth.logout()", login.as_str()),
    ] {
        let mut app = db.connect(&login, "");
        app.run(&format!("SELECT auth.login({alice}, false)"));
        assert_eq!(app.tasks(), ["write", "sleep"]);
        app.run(reset);
        app.assert_nobody();
        assert_eq!(app.text("SELECT current_user"), role, "{reset}");
    }
}

#[test]
fn a_token_and_the_rows_for_it_are_two_statements() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let alice = sql_text(&issuer.token_for("alice"));
    for present in [
        format!("auth.jwt_session_init({alice}, true)"),
        format!("set_config('pg_session_jwt.jwt', {alice}, true)"),
    ] {
        app.run("BEGIN");
        let sql = format!("SELECT {present}, task FROM todos");
        assert_eq!(app.rows(&sql), [""; 0]);
        // The policy let no row through for which it would have been presented.
        app.assert_nobody();
        app.run(&format!("SELECT {present}"));
        assert_eq!(app.tasks(), ["write", "sleep"]);
        app.run("COMMIT");
    }
}
