//! Parallel workers answer as their leader would.

use harness::{APP_USER, Database, Issuer, Session, first_line, option, pg_major, sql_text};
use serde_json::json;

/// Two workers for any table, and the leader only gathers.
fn only_workers(app: &mut Session) {
    app.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;
         SET parallel_leader_participation = off",
    );
}

/// A table large enough for real workers, whose owners are alice and bob in turn.
fn database_with_large_table() -> Database {
    let db = Database::with_todos();
    db.superuser().run(
        "INSERT INTO todos (user_id, task)
             SELECT CASE WHEN i % 4 = 0 THEN 'bob' ELSE 'alice' END, i::text
             FROM generate_series(1, 100000) AS i;
         ANALYZE todos;",
    );
    db
}

/// Tries until the server had workers to spare: other tests want some too.
#[track_caller]
fn assert_workers_run(app: &mut Session, sql: &str) {
    for _ in 0..50 {
        let plan = app
            .rows(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}"))
            .join("\n");
        assert!(plan.contains("Workers Planned"), "no parallel plan: {plan}");
        if !plan.contains("Workers Launched: 0") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("no worker was ever launched");
}

#[test]
fn workers_obey_the_policies_of_the_leaders_token() {
    let (db, issuer) = (database_with_large_table(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    only_workers(&mut app);
    let count = "SELECT count(*) FROM todos WHERE length(task) > 0";
    for (user, rows) in [("alice", "75002"), ("bob", "25001"), ("carol", "0")] {
        app.present(&issuer.token_for(user));
        assert_workers_run(&mut app, count);
        assert_eq!(app.text(count), rows);
        assert_eq!(
            app.rows("SELECT DISTINCT auth.user_id() FROM (SELECT FROM todos OFFSET 0) AS t"),
            if rows == "0" { vec![] } else { vec![user] }
        );
    }
    app.run("SELECT auth.logout()");
    assert_eq!(app.text(count), "0");
}

#[test]
fn every_accessor_answers_the_same_in_a_worker() {
    let (db, issuer) = (database_with_large_table(), Issuer::rs256());
    db.superuser()
        .run("ALTER TABLE todos DISABLE ROW LEVEL SECURITY");
    let mut app = db.app_with_key(&issuer);
    let id = "0188a1b2-0000-7000-8000-000000000001";
    app.present(&issuer.token(&json!({
        "sub": id, "role": "reader", "email": "a@example.com", "o": {"id": id, "rol": "admin"},
    })));
    let columns = "auth.user_id(), auth.uid(), auth.role(), auth.email(), auth.claim('email'),
        auth.claim('o', 'rol'), auth.jwt(), auth.session(), auth.organization(),
        auth.organization_id()";
    let leader = app.rows(&format!("SELECT {columns}"));
    only_workers(&mut app);
    let in_workers = format!("SELECT DISTINCT {columns} FROM todos");
    assert_workers_run(&mut app, &format!("SELECT {columns} FROM todos"));
    assert_eq!(app.rows(&in_workers), leader);
}

#[test]
fn debug_parallel_query_changes_no_answer() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let parameter = if pg_major() >= 16 {
        "debug_parallel_query"
    } else {
        "force_parallel_mode"
    };
    for mode in ["on", "regress"] {
        let mut app = db.app_with_key(&issuer);
        app.run(&format!("SET {parameter} = {mode}"));
        app.assert_nobody();
        app.present(&issuer.token(&json!({"sub": "alice", "jti": 1})));
        app.assert_user("alice");
        assert_eq!(app.tasks(), ["write", "sleep"]);
        assert_eq!(
            app.rows("SELECT subject, source FROM auth.status()"),
            ["alice|pg_session_jwt.jwk"]
        );
        let bob = sql_text(&issuer.token(&json!({"sub": "bob"})));
        assert_eq!(
            app.text(&format!("SELECT auth.verify({bob}) ->> 'sub'")),
            "bob"
        );
        app.run("BEGIN");
        app.present(&issuer.token(&json!({"sub": "bob", "jti": 2})));
        app.assert_user("bob");
        app.run("ROLLBACK");
        app.assert_user("alice");
        app.run("SELECT auth.logout()");
        app.assert_nobody();
        let forged = Issuer::ed25519().token_for("bob");
        app.rejected(&forged)
            .assert_stage("signature", first_line::SIGNATURE);
        app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&forged)));
        app.refused("SELECT auth.user_id()")
            .assert_stage("signature", first_line::SIGNATURE);
        app.run("RESET pg_session_jwt.jwt");
        app.run("SELECT auth.init()");
    }
}

#[test]
fn a_worker_knows_the_keys_and_claims_of_every_source() {
    let (db, issuer) = (database_with_large_table(), Issuer::ed25519());
    let count = "SELECT count(*) FROM todos WHERE length(task) > 0";

    // pinned by auth.init(jwks)
    let mut session = db.superuser();
    session.run(&format!(
        "SELECT auth.init({})",
        sql_text(&issuer.jwk().to_string())
    ));
    session.present(&issuer.token_for("bob"));
    session.run("SET ROLE app_user");
    only_workers(&mut session);
    assert_workers_run(&mut session, count);
    assert_eq!(session.text(count), "25001");

    // request.jwt.claims
    let mut app = db.app();
    app.run(r#"SET request.jwt.claims = '{"sub":"bob"}'"#);
    only_workers(&mut app);
    assert_workers_run(&mut app, count);
    assert_eq!(app.text(count), "25001");

    // pg_session_jwt.claims
    let mut session = db.superuser();
    session.run(r#"SET pg_session_jwt.claims = '{"sub":"bob"}'"#);
    session.run("SET ROLE app_user");
    only_workers(&mut session);
    assert_workers_run(&mut session, count);
    assert_eq!(session.text(count), "25001");

    // none
    let mut app = db.app();
    only_workers(&mut app);
    assert_eq!(app.text(count), "0");
}

#[test]
fn a_token_replayed_where_only_workers_see_it_is_refused() {
    let (db, issuer) = (database_with_large_table(), Issuer::ed25519());
    db.superuser()
        .run("ALTER TABLE todos DISABLE ROW LEVEL SECURITY");
    let token =
        |jti: i32| sql_text(&issuer.token(&json!({"jti": jti, "sub": format!("user-{jti}")})));
    let mut app = db.app_with_key(&issuer);
    only_workers(&mut app);
    let users = "SELECT DISTINCT u FROM (SELECT auth.user_id() AS u FROM todos) AS t";
    let plan = app
        .rows(&format!("EXPLAIN (VERBOSE, COSTS OFF) {users}"))
        .join("\n");
    assert!(plan.contains("Workers Planned"), "{plan}");

    // Accepted by the leader, replayed to the workers.
    app.run(&format!("SELECT auth.jwt_session_init({})", token(5)));
    assert_eq!(app.rows(users), ["user-5"]);
    for jti in [4, 5] {
        app.run(&format!("SET pg_session_jwt.jwt = {}", token(jti)));
        app.refused(users)
            .assert_stage("policy", first_line::REPLAY);
    }

    // First seen by workers, replayed to workers and to the leader.
    app.run(&format!("SET pg_session_jwt.jwt = {}", token(7)));
    assert_eq!(app.rows(users), ["user-7"]);
    assert_eq!(app.rows(users), ["user-7"]);
    for jti in [6, 7] {
        app.run(&format!("SET pg_session_jwt.jwt = {}", token(jti)));
        app.refused(users)
            .assert_stage("policy", first_line::REPLAY);
        app.refused("SELECT auth.user_id()")
            .assert_stage("policy", first_line::REPLAY);
    }
    app.run(&format!("SET pg_session_jwt.jwt = {}", token(8)));
    assert_eq!(app.rows(users), ["user-8"]);
    app.assert_user("user-8");
    assert_eq!(app.rows(users), ["user-8"]);
}

/// The refusal belongs to the session, so to its workers as well.
#[test]
fn a_refused_parameter_ends_all_identity_where_only_workers_look() {
    let db = database_with_large_table();
    let mut superuser = db.superuser();
    superuser.run(
        "ALTER TABLE todos DISABLE ROW LEVEL SECURITY;
         CREATE TABLE secrets AS SELECT i AS id FROM generate_series(1, 100000) AS i;
         ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
         CREATE POLICY bobs ON secrets USING (auth.user_id() || id LIKE 'bob%');
         GRANT SELECT ON secrets TO PUBLIC;
         ANALYZE secrets;",
    );
    db.administrator_sets("pg_session_jwt.request_claims", "never");
    let fallback = option("pg_session_jwt.request_claims", "fallback");
    let claims = option("request.jwt.claims", r#"{"sub":"bob"}"#);
    let mut app = db.connect(APP_USER, &format!("{fallback} {claims}"));
    only_workers(&mut app);
    let message = "permission denied to set parameter \"pg_session_jwt.request_claims\"";
    for _ in 0..2 {
        app.refused("SELECT DISTINCT u FROM (SELECT auth.user_id() AS u FROM todos) AS t")
            .assert("42501", message);
        app.refused("SELECT count(*) FROM secrets")
            .assert("42501", message);
    }
}
