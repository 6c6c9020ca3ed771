//! `auth.status()` says why `auth.user_id()` is what it is, and never raises.

use harness::{APP_USER, Database, Issuer, now, option, sql_text};
use serde_json::json;

#[test]
fn a_token_in_force_is_described() {
    let db = Database::new();
    let issuer = Issuer::es256().with_kid("2024");
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(&json!({
        "sub": "alice", "iss": "https://issuer.example", "role": "reader", "iat": 1_700_000_000,
        "exp": 4_102_444_800_i64,
    })));
    app.run("SET TimeZone = 'UTC'");
    assert_eq!(
        app.rows("SELECT * FROM auth.status()"),
        [
            "pg_session_jwt.jwk|NULL|https://issuer.example|2024|ES256|alice|reader|\
          2023-11-14 22:13:20+00|2100-01-01 00:00:00+00|NULL"
        ]
    );
}

#[test]
fn there_is_always_one_row_and_a_problem_where_nobody_is_anybody() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let key = issuer.jwk().to_string();
    let mut no_source = db.app();
    no_source.assert_nobody();
    let mut no_token = db.app_with_key(&issuer);
    no_token.assert_nobody();
    let with_token = |token: &str| {
        let mut app = db.app_with_key(&issuer);
        app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(token)));
        app
    };
    let mut request = db.app();
    request.run(r#"SET request.jwt.claims = '{"role":"x"}'"#);
    let mut malformed_request = db.app();
    malformed_request.run("SET request.jwt.claims = '['");
    let mut number = db.app();
    number.run(r#"SET request.jwt.claims = '{"sub":7.5}'"#);
    let mut no_key = db.app();
    no_key.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&issuer.token_for("alice"))
    ));
    let refused = option("pg_session_jwt.claims", "{}") + " " + &option("pg_session_jwt.jwk", &key);

    for (what, mut app, source) in [
        ("no source", no_source, "none"),
        ("no token", no_token, "pg_session_jwt.jwk"),
        (
            "no sub",
            with_token(&issuer.token(&json!({"role": "x"}))),
            "pg_session_jwt.jwk",
        ),
        (
            "expired",
            with_token(&issuer.token(&json!({"sub": "alice", "exp": now() - 100}))),
            "pg_session_jwt.jwk",
        ),
        (
            "forged",
            with_token(&Issuer::ed25519().token_for("alice")),
            "pg_session_jwt.jwk",
        ),
        (
            "no token at all",
            with_token("nonsense"),
            "pg_session_jwt.jwk",
        ),
        ("malformed key", db.app_with_jwk("{"), "pg_session_jwt.jwk"),
        ("claims without sub", request, "request.jwt.claims"),
        ("malformed claims", malformed_request, "request.jwt.claims"),
        ("sub is a number", number, "request.jwt.claims"),
        ("no key", no_key, "none"),
        (
            "refused parameter",
            db.connect(APP_USER, &refused),
            "pg_session_jwt.jwk",
        ),
    ] {
        println!("{what}");
        let rows = app.rows("SELECT source, subject, problem FROM auth.status()");
        assert_eq!(rows.len(), 1);
        let columns: Vec<&str> = rows[0].splitn(3, '|').collect();
        assert_eq!(&columns[..2], [source, "NULL"]);
        assert!(columns[2].len() > 10, "problem: {}", columns[2]);
        // One sentence.
        assert!(!columns[2].contains('\n'));
    }
}

#[test]
fn an_identity_has_no_problem() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut token = db.app_with_key(&issuer);
    token.present(&issuer.token_for("alice"));
    let mut request = db.app();
    request.run(r#"SET request.jwt.claims = '{"sub":"alice"}'"#);
    let mut claims = db.superuser();
    claims.run(r#"SET pg_session_jwt.claims = '{"sub":"alice","role":"r"}'"#);
    for (mut session, source) in [
        (token, "pg_session_jwt.jwk"),
        (request, "request.jwt.claims"),
        (claims, "pg_session_jwt.claims"),
    ] {
        assert_eq!(
            session.rows("SELECT source, subject, problem FROM auth.status()"),
            [format!("{source}|alice|NULL")]
        );
    }
}

#[test]
fn it_can_be_called_from_a_select_list_and_joined() {
    let db = Database::new();
    let mut app = db.app();
    app.run("SELECT (auth.status()).*");
    app.run("SELECT auth.status()");
    assert_eq!(
        app.text("SELECT count(*) FROM generate_series(1, 3), auth.status() AS s WHERE s.problem IS NOT NULL"),
        "3"
    );
}
