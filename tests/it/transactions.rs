//! A token is transactional as any parameter is.

use harness::{Database, Issuer, first_line, sql_text};
use serde_json::json;

#[test]
fn a_token_for_the_transaction_ends_with_it() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let alice = sql_text(&issuer.token_for("alice"));
    for present in [
        format!("SELECT auth.jwt_session_init({alice}, true)"),
        format!("SET LOCAL pg_session_jwt.jwt = {alice}"),
        format!("SELECT set_config('pg_session_jwt.jwt', {alice}, true)"),
    ] {
        for end in ["COMMIT", "ROLLBACK"] {
            println!("{present}; {end}");
            app.run("BEGIN");
            app.run(&present);
            app.assert_user("alice");
            assert_eq!(app.tasks(), ["write", "sleep"]);
            app.run(end);
            app.assert_nobody();
            assert_eq!(app.tasks(), [""; 0]);
        }
    }
    // Outside a transaction it lasts one statement.
    app.run(&format!("SELECT auth.jwt_session_init({alice}, true)"));
    app.assert_nobody();
}

#[test]
fn a_token_for_the_session_outlives_the_transaction() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let alice = sql_text(&issuer.token_for("alice"));
    for present in [
        format!("SELECT auth.jwt_session_init({alice})"),
        format!("SELECT auth.jwt_session_init({alice}, false)"),
        format!("SET pg_session_jwt.jwt = {alice}"),
        format!("SELECT set_config('pg_session_jwt.jwt', {alice}, false)"),
    ] {
        app.run("BEGIN");
        app.run(&present);
        app.run("COMMIT");
        app.assert_user("alice");
        app.run("SELECT auth.logout()");
        app.assert_nobody();
    }
}

#[test]
fn is_local_null_is_not_local_or_refused_but_never_silently_nothing() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let alice = sql_text(&issuer.token_for("alice"));
    let sql = format!("SELECT auth.jwt_session_init({alice}, NULL)");
    if app.try_run(&sql).is_ok() {
        app.assert_user("alice");
    }
}

#[test]
fn a_local_token_covers_the_sessions_and_gives_it_back() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    let bob = sql_text(&issuer.token_for("bob"));
    for end in ["COMMIT", "ROLLBACK"] {
        app.run("BEGIN");
        app.run(&format!("SELECT auth.jwt_session_init({bob}, true)"));
        app.assert_user("bob");
        app.run(end);
        app.assert_user("alice");
    }
}

#[test]
fn a_rolled_back_token_gives_back_the_one_before() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    app.present(&issuer.token_for("bob"));
    app.run("ROLLBACK");
    app.assert_nobody();

    app.present(&issuer.token_for("alice"));
    app.run("BEGIN");
    app.present(&issuer.token_for("bob"));
    assert_eq!(app.tasks(), ["read"]);
    app.run("ROLLBACK");
    app.assert_user("alice");
    assert_eq!(app.tasks(), ["write", "sleep"]);
}

#[test]
fn savepoints_give_back_the_token_before() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    app.present(&issuer.token_for("alice"));
    app.run("SAVEPOINT a");
    app.present(&issuer.token_for("bob"));
    app.run("SAVEPOINT b");
    app.run(&format!(
        "SET LOCAL pg_session_jwt.jwt = {}",
        sql_text(&issuer.token_for("carol"))
    ));
    app.assert_user("carol");
    app.run("ROLLBACK TO b");
    app.assert_user("bob");
    app.run("SELECT auth.logout()");
    app.assert_nobody();
    app.run("ROLLBACK TO b");
    app.assert_user("bob");
    app.run("RELEASE b");
    app.assert_user("bob");
    app.run("ROLLBACK TO a");
    app.assert_user("alice");
    app.run("COMMIT");
    app.assert_user("alice");
}

#[test]
fn under_the_replay_rule_a_rollback_still_gives_back_the_token_before() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let token = |jti: i32, sub: &str| issuer.token(&json!({"jti": jti, "sub": sub}));
    let mut app = db.app_with_key(&issuer);
    app.present(&token(1, "alice"));
    app.run("BEGIN");
    app.present(&token(2, "bob"));
    app.run("SAVEPOINT s");
    app.present(&token(3, "carol"));
    app.assert_user("carol");
    app.run("ROLLBACK TO s");
    app.assert_user("bob");
    app.run("ROLLBACK");
    app.assert_user("alice");
    // By the parameter too, and after many statements.
    app.run("BEGIN");
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(4, "bob"))
    ));
    app.assert_user("bob");
    app.run("ROLLBACK");
    for _ in 0..3 {
        app.assert_user("alice");
    }
}

#[test]
fn a_rollback_does_not_make_a_used_token_usable_again() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let token = |jti: i32, sub: &str| issuer.token(&json!({"jti": jti, "sub": sub}));
    let replayed = |refusal: harness::Refusal| {
        refusal.assert_stage("policy", first_line::REPLAY);
    };
    let mut app = db.app_with_key(&issuer);
    app.present(&token(1, "alice"));
    let second = token(2, "bob");
    app.run("BEGIN");
    app.present(&second);
    app.run("SAVEPOINT s");
    app.run("ROLLBACK TO s");
    app.assert_user("bob");
    app.run("ROLLBACK");
    app.assert_user("alice");
    replayed(app.rejected(&second));
    app.assert_user("alice");
    app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&second)));
    replayed(app.refused("SELECT auth.user_id()"));
    app.run("BEGIN");
    app.run(&format!(
        "SET LOCAL pg_session_jwt.jwt = {}",
        sql_text(&second)
    ));
    replayed(app.refused("SELECT auth.session()"));
    app.run("ROLLBACK");
    app.run("RESET pg_session_jwt.jwt");
    app.present(&token(3, "carol"));
    app.assert_user("carol");
}

#[test]
fn an_error_inside_jwt_session_init_leaves_the_identity_that_was_there() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    for token in [
        "".to_owned(),
        "a.b.c".to_owned(),
        attacker.token_for("bob"),
        issuer.token(&json!({"sub": "bob", "exp": 1})),
        issuer.token(&json!({"sub": [1]})),
    ] {
        app.rejected(&token);
        app.assert_user("alice");
        app.run("BEGIN");
        app.run("SAVEPOINT s");
        app.rejected(&token);
        app.run("ROLLBACK TO s");
        app.assert_user("alice");
        app.run("COMMIT");
        app.assert_user("alice");
        assert_eq!(app.tasks(), ["write", "sleep"]);
    }
}

#[test]
fn logging_out_is_transactional_too() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("SELECT auth.logout()");
    app.present(&issuer.token_for("alice"));
    app.run("BEGIN");
    app.run("SELECT auth.logout()");
    app.assert_nobody();
    app.run("ROLLBACK");
    app.assert_user("alice");

    app.run("BEGIN");
    app.run(&format!(
        "SELECT auth.jwt_session_init({}, true)",
        sql_text(&issuer.token_for("bob"))
    ));
    app.run("SELECT auth.logout()");
    app.assert_nobody();
    app.run("COMMIT");
    app.assert_nobody();
}

#[test]
fn keys_pinned_in_a_transaction_that_rolled_back_are_not_pinned() {
    let (db, issuer, other) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut session = db.superuser();
    let init =
        |issuer: &Issuer| format!("SELECT auth.init({})", sql_text(&issuer.jwk().to_string()));
    session.run("BEGIN");
    session.run(&init(&issuer));
    session.present(&issuer.token_for("alice"));
    session.assert_user("alice");
    session.run("ROLLBACK");
    session.assert_nobody();
    session
        .rejected(&issuer.token_for("alice"))
        .assert_stage("key", first_line::NO_KEY);
    session.run(&init(&other));
    session
        .rejected(&issuer.token_for("alice"))
        .assert_stage("signature", first_line::SIGNATURE);
    session.present(&other.token_for("bob"));
    session.assert_user("bob");
}

#[test]
fn many_savepoints_and_exceptions_keep_identity_and_stack_in_step() {
    let (db, issuer) = (Database::new(), Issuer::hs256());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    app.run(&format!(
        "DO $$ BEGIN
             FOR i IN 1..2000 LOOP
                 BEGIN
                     PERFORM auth.jwt_session_init({bob}, i % 2 = 0);
                     ASSERT auth.user_id() = 'bob';
                     IF i % 3 = 0 THEN PERFORM auth.logout(); END IF;
                     RAISE SQLSTATE 'AB123';
                 EXCEPTION WHEN SQLSTATE 'AB123' THEN
                     ASSERT auth.user_id() = 'alice';
                 END;
             END LOOP;
         END $$",
        bob = sql_text(&issuer.token_for("bob"))
    ));
    app.assert_user("alice");
}

#[test]
fn a_token_may_be_presented_in_a_read_only_transaction() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN READ ONLY");
    app.run(&format!(
        "SELECT auth.jwt_session_init({}, true)",
        sql_text(&issuer.token_for("alice"))
    ));
    assert_eq!(app.tasks(), ["write", "sleep"]);
    app.run("SELECT auth.logout()");
    app.run("COMMIT");
}

#[test]
fn a_token_that_changes_within_a_statement_counts_from_there_on() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let tokens = ["alice", "bob", "carol"].map(|user| sql_text(&issuer.token_for(user)));
    let rows = app.rows(&format!(
        "SELECT length(set_config('pg_session_jwt.jwt', token, false)), auth.user_id(),
                auth.claim('sub'), auth.jwt() ->> 'sub'
         FROM unnest(ARRAY[{}]) AS token",
        tokens.join(", ")
    ));
    assert_eq!(
        rows,
        [
            "8|alice|alice|alice",
            "8|bob|bob|bob",
            "8|carol|carol|carol"
        ]
    );
    // More identities through one call site than it could keep.
    app.run(&format!(
        "CREATE TEMP TABLE seen AS
             SELECT i, length(set_config('pg_session_jwt.jwt', (ARRAY[{}])[i % 3 + 1], false)),
                    auth.user_id() AS u, auth.session() AS s
             FROM generate_series(1, 1000) AS i",
        tokens.join(", ")
    ));
    assert_eq!(
        app.text(
            "SELECT count(*) FROM seen
             WHERE u = (ARRAY['alice', 'bob', 'carol'])[i % 3 + 1] AND s ->> 'sub' = u"
        ),
        "1000"
    );
}
