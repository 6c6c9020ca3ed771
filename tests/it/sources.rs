//! Exactly one source of trust is in force: the first that exists.

use harness::{APP_USER, Database, Issuer, Session, first_line, option, setting, sql_text};

const BOB: &str = r#"{"sub":"bob"}"#;

fn source(session: &mut Session) -> String {
    session.text("SELECT source FROM auth.status()")
}

#[test]
fn without_any_source_everybody_is_nobody() {
    let db = Database::with_todos();
    let mut app = db.app();
    app.assert_nobody();
    assert_eq!(source(&mut app), "none");
    assert_eq!(app.tasks(), [""; 0]);
    assert_eq!(app.text("SELECT auth.session()"), "null");
    app.refused("INSERT INTO todos (user_id, task) VALUES ('bob', 'x')");
    app.run("SELECT auth.init()");
    app.run("SELECT auth.logout()");
    app.assert_nobody();
}

#[test]
fn postgrests_claims_count_where_no_key_is_configured() {
    let db = Database::with_todos();
    let mut app = db.app();
    app.run("BEGIN");
    app.run(&format!(
        "SELECT set_config('request.jwt.claims', {}, true)",
        sql_text(BOB)
    ));
    app.assert_user("bob");
    assert_eq!(source(&mut app), "request.jwt.claims");
    assert_eq!(app.tasks(), ["read"]);
    // A change counts at once, and in the same statement.
    app.run(r#"SET LOCAL request.jwt.claims = '{"sub":"alice","role":"x"}'"#);
    app.assert_user("alice");
    assert_eq!(app.text("SELECT auth.role()"), "x");
    app.run("COMMIT");
    app.assert_nobody();
    assert_eq!(source(&mut app), "none");
    app.run("SET request.jwt.claims = ''");
    app.assert_nobody();
}

#[test]
fn a_change_of_postgrests_claims_counts_in_the_very_statement() {
    let db = Database::new();
    let mut app = db.app();
    app.run(
        r#"DO $$ BEGIN
            FOR i IN 1..20 LOOP
                PERFORM set_config('request.jwt.claims', format('{"sub":"user-%s"}', i), true);
                ASSERT auth.user_id() = 'user-' || i;
                ASSERT auth.claim('sub') = 'user-' || i;
                PERFORM set_config('request.jwt.claims', '', true);
                ASSERT auth.user_id() IS NULL;
            END LOOP;
        END $$"#,
    );
}

#[test]
fn postgrests_claims_never_count_where_the_superuser_says_so() {
    let db = Database::with_todos();
    db.administrator_sets("pg_session_jwt.request_claims", "never");
    let mut app = db.app();
    app.run(&format!("SET request.jwt.claims = {}", sql_text(BOB)));
    app.assert_nobody();
    assert_eq!(source(&mut app), "none");
    assert_eq!(app.tasks(), [""; 0]);

    let mut session = db.superuser();
    session.run(&format!("SET request.jwt.claims = {}", sql_text(BOB)));
    session.run("SET pg_session_jwt.request_claims = fallback");
    session.assert_user("bob");
    session.run("SET pg_session_jwt.request_claims = never");
    session.assert_nobody();
}

#[test]
fn postgrests_claims_do_not_count_where_keys_are_configured() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run(&format!("SET request.jwt.claims = {}", sql_text(BOB)));
    app.assert_nobody();
    assert_eq!(source(&mut app), "pg_session_jwt.jwk");
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");
}

#[test]
fn a_malformed_startup_key_does_not_fall_back_to_postgrests_claims() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    for jwk in [
        "{",
        "{}",
        "[]",
        "null",
        "x",
        r#"{"kty":"OKP"}"#,
        r#"{"keys":[]}"#,
    ] {
        println!("{jwk}");
        let mut app = db.app_with_jwk(jwk);
        app.run(&format!("SET request.jwt.claims = {}", sql_text(BOB)));
        if let Ok(user) = app.try_value("SELECT auth.user_id()") {
            assert_eq!(user, None);
        }
        assert_eq!(
            app.try_rows("SELECT * FROM todos")
                .unwrap_or_default()
                .len(),
            0
        );
        for sql in [
            "SELECT auth.init()".to_owned(),
            format!(
                "SELECT auth.jwt_session_init({})",
                sql_text(&issuer.token_for("bob"))
            ),
            format!("SELECT auth.verify({})", sql_text(&issuer.token_for("bob"))),
        ] {
            let refusal = app.refused(&sql);
            refusal.assert("22023", "invalid JSON Web Key Set");
            assert!(!refusal.detail.is_empty(), "{refusal:?}");
        }
        app.run("SELECT * FROM auth.status()");
    }
}

/// Postgres takes a PGC_BACKEND parameter from ALTER DATABASE only as long as it does not know it.
#[test]
fn a_key_that_an_administrator_set_where_it_cannot_count_leaves_nobody_to_postgrests_claims() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    db.administrator_sets("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let mut app = db.app();
    app.run(&format!("SET request.jwt.claims = {}", sql_text(BOB)));
    let user = app.try_value("SELECT auth.user_id()");
    assert!(!matches!(&user, Ok(Some(_))), "{user:?}");
    assert_eq!(
        app.try_rows("SELECT * FROM todos")
            .unwrap_or_default()
            .len(),
        0
    );
}

#[test]
fn a_superusers_claims_win_over_everything() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let mut session = db.connect(&setting("PGUSER"), &key);
    session.present(&issuer.token_for("alice"));
    session.run(r#"SET request.jwt.claims = '{"sub":"carol"}'"#);
    session.assert_user("alice");
    session.run("BEGIN");
    session.run(&format!(
        "SET LOCAL pg_session_jwt.claims = {}",
        sql_text(BOB)
    ));
    session.assert_user("bob");
    assert_eq!(source(&mut session), "pg_session_jwt.claims");
    // Policies are tried out as an ordinary role.
    session.run(&format!("SET LOCAL ROLE {APP_USER}"));
    session.assert_user("bob");
    assert_eq!(session.tasks(), ["read"]);
    session.run("COMMIT");
    session.assert_user("alice");
    session.run("SET pg_session_jwt.claims = ''");
    session.assert_user("alice");
}

#[test]
fn a_role_that_may_set_claims_may_set_claims() {
    let db = Database::with_todos();
    let middleware = db.role("middleware");
    db.superuser().run(&format!(
        "GRANT SET ON PARAMETER pg_session_jwt.claims TO {middleware}"
    ));
    for loaded in [false, true] {
        let mut session = db.connect(&middleware, "");
        if loaded {
            session.assert_nobody();
        }
        session.run(&format!("SET pg_session_jwt.claims = {}", sql_text(BOB)));
        session.assert_user("bob");
        assert_eq!(session.tasks(), ["read"]);
        session.run("RESET pg_session_jwt.claims");
        session.assert_nobody();
        session.refused("SET pg_session_jwt.clock_skew = 1").assert(
            "42501",
            "permission denied to set parameter \"pg_session_jwt.clock_skew\"",
        );
    }
    let options = option("pg_session_jwt.claims", BOB);
    db.connect(&middleware, &options).assert_user("bob");
}

#[test]
fn claims_that_are_no_json_object_are_an_error_of_the_superusers_or_nobody() {
    let db = Database::new();
    let functions = [
        "auth.user_id()",
        "auth.session()",
        "auth.role()",
        "auth.claim('sub')",
    ];
    for parameter in ["pg_session_jwt.claims", "request.jwt.claims"] {
        let message = format!("invalid value for parameter \"{parameter}\"");
        let mut session = db.superuser();
        session.run("SELECT auth.init()");
        for claims in [
            "[]",
            "null",
            "1",
            "\"alice\"",
            "{",
            "{} {}",
            "alice",
            "{\"sub\":1e400}",
            "{\"sub\":\"\\u0000\"}",
            " ",
        ] {
            println!("{parameter} {claims}");
            session.run(&format!("SET {parameter} = {}", sql_text(claims)));
            for function in functions {
                let sql = format!("SELECT {function}");
                if parameter == "request.jwt.claims" {
                    let nobody = if function == "auth.session()" {
                        "null"
                    } else {
                        "NULL"
                    };
                    assert_eq!(session.rows(&sql), [nobody]);
                } else {
                    session.refused(&sql).assert("22023", &message);
                }
            }
            session.run("SELECT * FROM auth.status()");
        }
        for sub in ["1.5", "true", "{}", "[\"alice\"]"] {
            let claims = format!("{{\"sub\":{sub}}}");
            session.run(&format!("SET {parameter} = {}", sql_text(&claims)));
            session
                .refused("SELECT auth.user_id()")
                .assert("22023", &message);
            assert_eq!(session.value("SELECT auth.uid()"), None);
            session.run("SELECT auth.session(), auth.role()");
            session.run("SELECT * FROM auth.status()");
        }
        session.run(&format!("SET {parameter} = '{{}}'"));
        session.assert_nobody();
        assert_eq!(session.text("SELECT auth.session()"), "{}");
    }
}

#[test]
fn a_token_with_neither_keys_nor_claims_is_never_a_silent_anonymous() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app();
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&issuer.token_for("alice"))
    ));
    let refusal = app.refused("SELECT auth.user_id()");
    refusal.assert_stage("key", first_line::NO_KEY);
    assert!(!refusal.hint.is_empty());
}

#[test]
fn init_without_a_startup_key_succeeds_and_pins_nothing() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut session = db.superuser();
    session.run("SELECT auth.init()");
    session.run("SELECT auth.init()");
    session.run(&format!(
        "SELECT auth.init({})",
        sql_text(&issuer.jwk().to_string())
    ));
    session.run("SELECT auth.init()");
    session.present(&issuer.token_for("alice"));
}

#[test]
fn pinned_keys_are_write_once() {
    let (db, issuer, other) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let init = |text: &str| format!("SELECT auth.init({})", sql_text(text));
    let jwk = issuer.jwk().to_string();
    let startup = option("pg_session_jwt.jwk", &jwk);
    for mut session in [db.superuser(), db.connect(&setting("PGUSER"), &startup)] {
        session.run(&init(&jwk));
        session.run(&init(&jwk));
        for text in [
            other.jwk().to_string(),
            format!("{jwk} "),
            harness::jwks(&[issuer.jwk()]),
        ] {
            session
                .refused(&init(&text))
                .assert("55000", "session keys are already pinned");
        }
        session.run("DISCARD ALL");
        session.refused(&init(&other.jwk().to_string()));
        session.run(&init(&jwk));
        session.present(&issuer.token_for("alice"));
        session.assert_user("alice");
    }
}

#[test]
fn ordinary_roles_may_not_pin_keys_unless_granted() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let init = format!("SELECT auth.init({})", sql_text(&issuer.jwk().to_string()));
    db.app()
        .refused(&init)
        .assert("42501", "permission denied for function init");
    let server = db.role("server");
    db.superuser().run(&format!(
        "GRANT EXECUTE ON FUNCTION auth.init(text) TO {server}"
    ));
    let mut session = db.connect(&server, "");
    session.run(&init);
    session.present(&issuer.token_for("alice"));
    session.assert_user("alice");
}

#[test]
fn no_mutilated_claims_get_anything_but_22023() {
    let db = Database::new();
    let mut app = db.app();
    let good = r#"{"sub":"alice","o":{"id":[1,null,-1.5e3]},"t":true,"x":"\u00e9"}"#;
    for at in 0..good.len() {
        for replacement in [
            "",
            "\\",
            "\"",
            "{",
            "}",
            "[",
            ",",
            ":",
            "0",
            "e",
            "\u{1}",
            "\u{1F600}",
        ] {
            let claims = format!("{}{replacement}{}", &good[..at], &good[at + 1..]);
            app.run(&format!("SET request.jwt.claims = {}", sql_text(&claims)));
            let columns = "auth.user_id(), auth.uid(), auth.session(), auth.organization_id()";
            if let Err(refusal) = app.try_run(&format!("SELECT {columns}")) {
                refusal.assert(
                    "22023",
                    "invalid value for parameter \"request.jwt.claims\"",
                );
            }
        }
    }
}

#[test]
fn bytes_that_are_no_utf8_in_claims_are_nobody() {
    let db = Database::in_encoding("SQL_ASCII");
    db.superuser().run("CREATE EXTENSION pg_session_jwt");
    let mut app = db.app();
    app.run("SET request.jwt.claims = E'{\"sub\":\"\\xff\"}'");
    app.assert_nobody();
    assert_eq!(
        app.text("SELECT problem FROM auth.status()"),
        "request.jwt.claims is ignored: invalid byte sequence for encoding \"UTF8\": 0xff."
    );
}
