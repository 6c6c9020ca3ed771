//! Neon's proxy, as it has always used this extension: an Ed25519 key made for the connection, and a
//! token with the next id before each request.

use harness::{APP_USER, Database, Issuer, Session, first_line, now, option, sql_text, token_with};
use serde_json::json;

/// What the proxy sends when a connection goes back to its pool.
const RETURN_TO_POOL: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; \
    DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES;";

/// The proxy's startup option: JSON without a space in it.
fn connect(db: &Database, proxy: &Issuer) -> Session {
    let jwk = proxy.jwk().to_string();
    assert!(!jwk.contains(' '));
    db.connect(APP_USER, &format!("-c pg_session_jwt.jwk={jwk}"))
}

fn token(proxy: &Issuer, jti: i64, sub: &str) -> String {
    let claims = json!({"sub": sub, "jti": jti, "nbf": now() - 30, "exp": now() + 300});
    proxy.sign(r#"{"alg":"EdDSA"}"#, claims.to_string())
}

#[test]
fn the_proxys_sequence_works_unchanged() {
    let (db, proxy) = (Database::with_todos(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    connection.run("select auth.init();");
    for jti in 1..=6 {
        let user = if jti % 2 == 0 { "bob" } else { "alice" };
        let jwt = token(&proxy, jti, user);
        connection.run(&format!("select auth.jwt_session_init('{jwt}')"));
        assert_eq!(
            connection.tasks(),
            if user == "bob" {
                vec!["read"]
            } else {
                vec!["write", "sleep"]
            }
        );
        if jti % 3 == 0 {
            // A request that leaves a mess.
            connection.run("BEGIN; DECLARE c CURSOR FOR SELECT 1; PREPARE p AS SELECT 1; LISTEN x");
            connection.run("CREATE TEMP TABLE t (a int); SELECT pg_advisory_lock(7)");
            connection.refused("SELECT 1 / 0");
        }
        connection.run(RETURN_TO_POOL);
        connection.assert_nobody();
        assert_eq!(connection.tasks(), [""; 0]);
    }
    // Another pooled request initialises again; the key is still there.
    connection.run("select auth.init();");
    connection.run(&format!(
        "select auth.jwt_session_init('{}')",
        token(&proxy, 7, "alice")
    ));
    connection.assert_user("alice");
}

#[test]
fn it_works_over_the_extended_protocol() {
    let (db, proxy) = (Database::with_todos(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    connection
        .client
        .execute("select auth.init()", &[])
        .unwrap();
    let present = connection
        .client
        .prepare("select auth.jwt_session_init($1)")
        .unwrap();
    let who = connection.client.prepare("select auth.user_id()").unwrap();
    for jti in 1..=20_i64 {
        let user = format!("user-{jti}");
        let jwt = token(&proxy, jti, &user);
        connection.client.execute(&present, &[&jwt]).unwrap();
        let row = connection.client.query_one(&who, &[]).unwrap();
        assert_eq!(row.get::<_, Option<String>>(0), Some(user));
    }
    let replayed = token(&proxy, 20, "bob");
    let error = connection
        .client
        .execute(&present, &[&replayed])
        .unwrap_err();
    harness::Refusal::from_error(&error).assert_stage("policy", first_line::REPLAY);
    let row = connection.client.query_one(&who, &[]).unwrap();
    assert_eq!(row.get::<_, Option<String>>(0), Some("user-20".into()));
}

#[test]
fn a_token_id_that_is_not_higher_is_a_replay() {
    let (db, proxy) = (Database::new(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    connection.run("select auth.init()");
    connection.present(&token(&proxy, 5, "alice"));
    for jti in [5, 4, 1, 0, -1, i64::MIN] {
        connection
            .rejected(&token(&proxy, jti, "bob"))
            .assert_stage("policy", first_line::REPLAY);
        connection.assert_user("alice");
    }
    connection.present(&token(&proxy, 6, "bob"));
    connection.present(&token(&proxy, i64::MAX, "carol"));
    connection
        .rejected(&token(&proxy, i64::MAX, "bob"))
        .assert_stage("policy", first_line::REPLAY);
    connection.assert_user("carol");
}

#[test]
fn what_a_provider_vouched_for_is_no_exception_once_the_connections_key_counts_again() {
    let (db, proxy) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    let token = |jti: i64, sub: &str| token_with(&proxy, sub, &json!({"jti": jti}));
    for set in [
        "SELECT auth.jwt_session_init($token)",
        "SET pg_session_jwt.jwt = $token",
    ] {
        let set = |jti, sub| set.replace("$token", &sql_text(&token(jti, sub)));
        let mut connection = connect(&db, &proxy);
        connection.run("select auth.init()");
        connection.present(&token(7, "alice"));
        admin.register(&[&proxy]);
        // Ids are the rule of the connection's key alone.
        connection.run(&set(5, "bob"));
        connection.assert_user("bob");
        admin.run("DELETE FROM auth.providers");
        connection
            .refused("SELECT auth.user_id()")
            .assert_stage("policy", first_line::REPLAY);

        admin.register(&[&proxy]);
        connection.run(&set(9, "carol"));
        connection.assert_user("carol");
        admin.run("DELETE FROM auth.providers");
        connection.assert_user("carol");
        connection.assert_user("carol");
        connection
            .rejected(&token(9, "carol"))
            .assert_stage("policy", first_line::REPLAY);
    }
}

#[test]
fn neither_the_pools_reset_nor_discard_all_makes_an_old_token_good_again() {
    let (db, proxy) = (Database::new(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    let used = token(&proxy, 1, "alice");
    connection.present(&used);
    for forget in [
        RETURN_TO_POOL,
        "DISCARD ALL",
        "RESET ALL",
        "SELECT auth.logout()",
        "RESET pg_session_jwt.jwt",
    ] {
        connection.run(forget);
        connection.assert_nobody();
        connection
            .rejected(&used)
            .assert_stage("policy", first_line::REPLAY);
        connection.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&used)));
        connection
            .refused("SELECT auth.user_id()")
            .assert_stage("policy", first_line::REPLAY);
        connection.run("RESET pg_session_jwt.jwt");
    }
    // On a new connection, here with the same key, the ids start again.
    connect(&db, &proxy).present(&used);
}

#[test]
fn setting_the_parameter_is_subject_to_the_rule_as_well() {
    let (db, proxy) = (Database::new(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    let mut set = |jti: i64| {
        let jwt = token(&proxy, jti, "alice");
        connection.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&jwt)));
        connection.try_value("SELECT auth.user_id()")
    };
    assert_eq!(set(2).unwrap().as_deref(), Some("alice"));
    set(2)
        .unwrap_err()
        .assert_stage("policy", first_line::REPLAY);
    set(1)
        .unwrap_err()
        .assert_stage("policy", first_line::REPLAY);
    assert_eq!(set(3).unwrap().as_deref(), Some("alice"));
}

#[test]
fn a_token_that_was_rejected_uses_up_no_id() {
    let (db, proxy, stranger) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    connection.present(&token(&proxy, 1, "alice"));
    connection.rejected(&token(&stranger, 100, "bob"));
    connection.rejected(&proxy.sign(r#"{"alg":"EdDSA"}"#, r#"{"jti":200,"exp":1}"#));
    connection.present(&token(&proxy, 2, "alice"));
}

#[test]
fn a_token_id_that_is_no_integer_is_not_subject_to_the_rule() {
    let (db, proxy) = (Database::new(), Issuer::ed25519());
    let mut connection = connect(&db, &proxy);
    connection.present(&token(&proxy, 5, "alice"));
    for jti in [r#""1""#, r#""a-uuid""#, "1.5", "null", "[1]", "true"] {
        let jwt = proxy.sign(
            r#"{"alg":"EdDSA"}"#,
            format!(r#"{{"sub":"bob","jti":{jti}}}"#),
        );
        for _ in 0..2 {
            connection.present(&jwt);
            connection.assert_user("bob");
        }
    }
    let without = proxy.sign(r#"{"alg":"EdDSA"}"#, r#"{"sub":"carol"}"#);
    connection.present(&without);
    connection.present(&without);
    connection
        .rejected(&token(&proxy, 5, "bob"))
        .assert_stage("policy", first_line::REPLAY);
}

#[test]
fn the_rule_is_for_keys_that_came_with_the_connection() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut session = db.superuser();
    session.run(&format!(
        "SELECT auth.init({})",
        sql_text(&issuer.jwk().to_string())
    ));
    for jti in [5, 5, 4] {
        session.present(&token(&issuer, jti, "alice"));
        session.assert_user("alice");
    }
}

#[test]
fn a_key_with_spaces_comes_through_when_they_are_escaped() {
    let (db, proxy) = (Database::new(), Issuer::ed25519());
    let jwk = format!("{:#}", proxy.jwk()).replace('\n', " ");
    assert!(jwk.contains(' '));
    let mut connection = db.connect(APP_USER, &option("pg_session_jwt.jwk", &jwk));
    connection.run("select auth.init()");
    connection.present(&token(&proxy, 1, "alice"));
    connection.assert_user("alice");
}
