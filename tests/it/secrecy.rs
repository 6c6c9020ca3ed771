//! The token and a secret key are nowhere to be read.

use std::time::{Duration, Instant};

use harness::{
    APP_USER, Database, Issuer, Session, b64, jwks, option, server_log, sql_text, token,
};
use serde_json::json;

/// The part of a token that makes it worth stealing.
fn signature(token: &str) -> &str {
    token.rsplit_once('.').unwrap().1
}

/// Nothing that SQL can read about parameters and about this session has any of these texts in it.
#[track_caller]
fn assert_shown_nowhere(session: &mut Session, secrets: &[&str]) {
    for sql in [
        "SHOW ALL",
        "SHOW pg_session_jwt.jwt",
        "SHOW pg_session_jwt.jwk",
        "SELECT current_setting('pg_session_jwt.jwt')",
        "SELECT current_setting('pg_session_jwt.jwk')",
        "SELECT * FROM pg_settings",
        "SELECT * FROM pg_catalog.pg_show_all_settings()",
        "SELECT set_config('pg_session_jwt.jwt', current_setting('pg_session_jwt.jwt'), true)",
        "SELECT * FROM auth.status()",
        "SELECT auth.status()",
        "SELECT auth.session()",
        "SELECT * FROM pg_prepared_statements",
        "SELECT * FROM pg_cursors",
        "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        "SELECT * FROM pg_db_role_setting",
        "SELECT name, ident FROM pg_backend_memory_contexts",
    ] {
        let answer = format!("{:?}", session.try_rows(sql));
        for secret in secrets {
            assert!(!answer.contains(secret), "{sql} shows {secret}");
        }
    }
}

/// Waits until the log has this line, and returns all of it.
fn log_with(wanted: &str) -> String {
    let start = Instant::now();
    loop {
        let log = server_log();
        if log.contains(wanted) {
            return log;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "never logged: {wanted}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn neither_token_nor_secret_can_be_read_back() {
    let db = Database::new();
    let secret = b"a secret of more than thirty-two bytes, for HS256";
    let issuer = Issuer::secret(secret).with_kid("shared");
    let token = issuer.token_for("alice");
    let mut app = db.app_with_key(&issuer);
    app.assert_nobody();
    // A superuser who looks at the session from inside sees no more.
    let mut pinned = db.superuser();
    pinned.run(&format!(
        "SELECT auth.init({})",
        sql_text(&issuer.jwk().to_string())
    ));
    for mut session in [app, pinned] {
        set_by_parameter(&mut session, &token);
        let secrets = [signature(&token), &b64(secret), "thirty-two"];
        assert_shown_nowhere(&mut session, &secrets);
        session.assert_user("alice");
        assert_shown_nowhere(&mut session, &secrets);
    }
}

/// Before anything has loaded the library, its parameters are placeholders, which Postgres shows.
#[test]
fn where_the_library_is_preloaded_they_are_hidden_from_the_first_statement_on() {
    let db = Database::new();
    db.administrator_sets("session_preload_libraries", "pg_session_jwt");
    let issuer = Issuer::hs256();
    let secret = issuer.jwk()["k"].as_str().unwrap().to_owned();
    let token = issuer.token_for("alice");
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let presented = option("pg_session_jwt.jwt", &token);
    let by_options = db.connect(APP_USER, &format!("{key} {presented}"));
    let mut by_set = db.connect(APP_USER, &key);
    assert_eq!(
        set_by_parameter(&mut by_set, &token).as_deref(),
        Some("(hidden)")
    );
    for mut app in [by_options, by_set] {
        assert_shown_nowhere(&mut app, &[signature(&token), &secret]);
        app.assert_user("alice");
        app.run("RESET ALL");
        assert_shown_nowhere(&mut app, &[&secret]);
    }
}

/// By a parameter of a prepared statement: the text of a query is for others to keep.
fn set_by_parameter(session: &mut Session, token: &str) -> Option<String> {
    let sql = "SELECT set_config('pg_session_jwt.jwt', $1, false)";
    let row = session.client.query_one(sql, &[&token]).unwrap();
    row.get(0)
}

#[test]
fn show_says_that_there_is_a_token_and_which_keys_there_are() {
    let db = Database::new();
    let issuer = Issuer::ed25519().with_kid("2024-01");
    let mut app = db.app_with_key(&issuer);
    app.assert_nobody();
    assert_eq!(app.text("SHOW pg_session_jwt.jwt"), "");
    app.present(&issuer.token_for("alice"));
    assert_eq!(app.text("SHOW pg_session_jwt.jwt"), "(hidden)");
    assert_eq!(
        app.text("SELECT current_setting('pg_session_jwt.jwt')"),
        "(hidden)"
    );
    let token = sql_text(&issuer.token_for("alice"));
    assert_eq!(
        app.text(&format!(
            "SELECT set_config('pg_session_jwt.jwt', {token}, false)"
        )),
        "(hidden)"
    );
    assert_eq!(
        app.text("SELECT set_config('pg_session_jwt.jwt', '', false)"),
        ""
    );

    let keys = |app: &mut Session| -> serde_json::Value {
        serde_json::from_str(&app.text("SHOW pg_session_jwt.jwk")).unwrap()
    };
    let shown = keys(&mut app);
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(
        (&shown[0]["kty"], &shown[0]["kid"]),
        (&json!("OKP"), &json!("2024-01"))
    );

    let secret = Issuer::hs256().with_kid("s").with("alg", "HS256");
    let mut app = db.app_with_key(&secret);
    app.assert_nobody();
    assert_eq!(
        keys(&mut app),
        json!([{"kty": "oct", "kid": "s", "alg": "HS256"}])
    );

    let mut app = db.app_with_jwk("{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"");
    app.run("SELECT * FROM auth.status()");
    assert_eq!(app.text("SHOW pg_session_jwt.jwk"), "(invalid)");
    let mut app = db.app();
    app.assert_nobody();
    assert_eq!(app.text("SHOW pg_session_jwt.jwk"), "");
}

#[test]
fn messages_about_a_token_do_not_repeat_it() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    for token in [
        Issuer::ed25519().token_for("alice"),
        issuer.token(&json!({"sub": "alice", "exp": 1})),
        issuer.token(&json!({"sub": [5]})),
        issuer.token(&json!({"sub": "alice", "nbf": 99_999_999_999_i64})),
        issuer.sign(r#"{"alg":"none"}"#, r#"{"sub":"alice"}"#),
        issuer.sign(r#"{"alg":"EdDSA","crit":["x"]}"#, r#"{"sub":"alice"}"#),
        format!("{}.x", issuer.token_for("alice")),
        issuer.token_for("alice").replace('.', ","),
    ] {
        let refusal = app.rejected(&token);
        refusal.assert_shows_no_token();
        let text = format!("{refusal:?}");
        let signature = &token[token.len() - 20..];
        assert!(!text.contains(signature), "{text}");
        app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&token)));
        let status = app.rows("SELECT * FROM auth.status()").join("");
        assert!(
            !status.contains(signature) && !status.contains("eyJ"),
            "{status}"
        );
        app.run("RESET pg_session_jwt.jwt");
    }
}

#[test]
fn messages_about_a_key_do_not_repeat_a_secret() {
    let db = Database::new();
    let secret = b64(b"a secret that is long enough for HS256, surely");
    let private = b64(&[0x5a; 32]);
    for jwk in [
        json!({"kty": "oct", "k": format!("{secret}!")}).to_string(),
        json!({"kty": "oct", "k": secret, "alg": 1}).to_string(),
        json!({"kty": "oct", "k": secret, "use": "enc"}).to_string(),
        json!({"kty": "oct", "K": secret}).to_string(),
        format!("{{\"kty\":\"oct\",\"k\":\"{secret}\""),
        jwks(&[
            json!({"kty": "oct", "k": secret}),
            json!({"kty": "oct", "k": secret, "d": "AA"}),
        ]),
        Issuer::ed25519()
            .with("d", private.clone())
            .jwk()
            .to_string(),
        secret.clone(),
    ] {
        let mut app = db.app_with_jwk(&jwk);
        let refusal = app.refused("SELECT auth.init()");
        refusal.assert("22023", "invalid JSON Web Key Set");
        assert_shown_nowhere(&mut app, &[&secret, &private]);
        let mut text = format!("{refusal:?}");
        text += &app.notices().join("\n");
        let refusal = db
            .superuser()
            .refused(&format!("SELECT auth.init({})", sql_text(&jwk)));
        text += &format!("{refusal:?}");
        for wanted in [&secret, &private] {
            assert!(!text.contains(wanted.as_str()), "{wanted}: {text}");
        }
    }
}

/// A word that only this test writes into the log, in this run.
fn in_log(db: &Database, word: &str) -> String {
    format!("{word}-of-{}", db.name())
}

#[test]
fn the_server_log_has_neither_token_nor_secret() {
    let db = Database::new();
    db.administrator_sets("pg_session_jwt.audit_log", "on");
    let word = |word: &str| in_log(&db, word);
    let issuer = Issuer::hs256().with_kid(&word("key"));
    let secret = issuer.jwk()["k"].as_str().unwrap().to_owned();
    let stranger = Issuer::hs256().with_kid(&word("key"));
    let mut app = db.app_with_key(&issuer);
    let good = issuer.token(&json!({
        "sub": word("subject"), "aud": word("audience"), "iss": word("issuer"), "jti": 1,
    }));
    let forged = stranger.token_for(&word("forger"));
    let expired = issuer.token(&json!({"sub": word("late"), "exp": 1}));
    let replayed = issuer.token(&json!({"sub": word("again"), "jti": 0}));
    app.present(&good);
    app.assert_user(&word("subject"));
    // In the text of the statement itself, and in a function's.
    for token in [&forged, &expired, &replayed] {
        let literal = sql_text(token);
        app.rejected(token);
        app.refused(&format!(
            "DO $$ BEGIN PERFORM auth.jwt_session_init({literal}); END $$"
        ));
        app.run(&format!("SET pg_session_jwt.jwt = {literal}"));
        app.refused("SELECT auth.user_id()");
    }
    app.refused(&format!("SELECT auth.verify({})", sql_text(&forged)));
    app.run("RESET pg_session_jwt.jwt");
    // A broken key, in the startup packet and in a statement.
    let broken = format!("{{\"kty\":\"oct\",\"k\":\"{secret}\"");
    db.app_with_jwk(&broken).refused("SELECT auth.init()");
    db.superuser()
        .refused(&format!("SELECT auth.init({})", sql_text(&broken)));
    app.present(&issuer.token(&json!({"sub": word("last"), "jti": 2})));

    let log = log_with(&word("last"));
    for secret in [
        signature(&good),
        signature(&forged),
        signature(&expired),
        signature(&replayed),
        &secret,
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }

    let accepted = log
        .lines()
        .find(|line| line.contains("token accepted:") && line.contains(&word("subject")))
        .expect("an accepted token is logged");
    for fact in ["LOG:", "pg_session_jwt: token accepted:"] {
        assert!(accepted.contains(fact), "{fact} in {accepted}");
    }
    for fact in ["audience", "issuer", "key"] {
        assert!(accepted.contains(&word(fact)), "{fact} in {accepted}");
    }
    assert!(log.contains("pg_session_jwt: token rejected: invalid JWT signature"));
    assert!(log.contains("pg_session_jwt: token rejected: Token used after it has expired"));
}

/// What Postgres itself raises within a call of ours: SET ROLE that is not allowed, a time-out, a lock.
#[test]
fn errors_of_postgres_own_that_pass_through_show_no_token_and_no_frames() {
    let db = Database::new();
    let issuer = Issuer::ed25519();
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let app_role = db.role("no_member");
    admin.run(
        "CREATE FUNCTION signed_in(jwt text) RETURNS text LANGUAGE plpgsql AS
             'BEGIN RETURN auth.login(jwt); END';
         DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated') THEN
                 CREATE ROLE authenticated;
             END IF;
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
         END $$;
         UPDATE auth.providers SET default_role = 'authenticated';",
    );
    let token = token(&issuer, "alice");
    let literal = sql_text(&token);
    let mut app = db.connect(&app_role, "");
    app.run("SET application_name = 'x'");
    let mut told = Vec::new();
    for sql in [
        format!("SELECT auth.login({literal})"),
        format!("SELECT signed_in({literal})"),
        format!("DO $$ BEGIN PERFORM auth.login({literal}); END $$"),
        format!("DO $$ BEGIN EXECUTE $x$SELECT auth.login({literal})$x$; END $$"),
    ] {
        told.push(app.client.simple_query(&sql).unwrap_err());
    }
    for error in &told {
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "42501");
        assert_eq!(
            error.message(),
            "permission denied to set role \"authenticated\""
        );
    }
    // The table of providers is locked: the wait for it is cut short within a call of ours.
    admin.run("BEGIN; LOCK TABLE auth.providers");
    let mut app = db.connect(&app_role, "");
    for (setting, state) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        app.run(&format!("SET {setting} = '50ms'"));
        for sql in [
            format!("SELECT auth.verify({literal})"),
            format!("DO $$ BEGIN PERFORM auth.jwt_session_init({literal}); END $$"),
        ] {
            let error = app.client.simple_query(&sql).unwrap_err();
            assert_eq!(error.code().unwrap().code(), state, "{error:?}");
            told.push(error);
        }
    }
    admin.run("ROLLBACK");
    for error in &told {
        let error = error.as_db_error().unwrap();
        assert_eq!(error.where_(), None, "{error:?}");
        let text = format!("{error:?}");
        assert!(!text.contains(signature(&token)), "{text}");
        let frames = ["std::", "core::", "pgrx", ".rs:"];
        let detail = error.detail().unwrap_or_default();
        assert!(!frames.iter().any(|frame| detail.contains(frame)), "{text}");
    }
    let end = in_log(&db, "end");
    admin.run(&format!("DO $$ BEGIN RAISE LOG '{end}'; END $$"));
    let log = log_with(&end);
    assert!(log.contains("permission denied to set role"));
    let line = log.lines().find(|line| line.contains(signature(&token)));
    assert_eq!(line, None);
    assert!(!log.contains("stack backtrace"), "frames in the log");
}

#[test]
fn one_line_is_logged_for_each_token_accepted_not_for_each_use() {
    let db = Database::new();
    db.administrator_sets("pg_session_jwt.audit_log", "on");
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    let subjects = ["at-presentation", "at-first-use", "end"].map(|word| in_log(&db, word));
    app.present(&issuer.token_for(&subjects[0]));
    for _ in 0..5 {
        app.run("SELECT auth.user_id(), auth.session() FROM generate_series(1, 10)");
    }
    let token = sql_text(&issuer.token_for(&subjects[1]));
    app.run(&format!("SET pg_session_jwt.jwt = {token}"));
    for _ in 0..5 {
        app.run("SELECT auth.user_id(), auth.role()");
    }
    app.present(&issuer.token_for(&subjects[2]));
    let log = log_with(&subjects[2]);
    for subject in &subjects {
        let lines = log.lines().filter(|line| line.contains(subject)).count();
        assert_eq!(lines, 1, "{subject}");
    }
}

#[test]
fn without_audit_log_nothing_is_logged() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let [subject, end] = ["subject", "end"].map(|word| in_log(&db, word));
    app.present(&issuer.token_for(&subject));
    app.assert_user(&subject);
    // Something that comes later in the log.
    db.superuser()
        .run(&format!("DO $$ BEGIN RAISE LOG '{end}'; END $$"));
    assert!(!log_with(&end).contains(&subject));
}

#[test]
fn what_a_token_says_cannot_write_lines_into_the_log() {
    let db = Database::new();
    db.administrator_sets("pg_session_jwt.audit_log", "on");
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    let [forged, end] = ["forged-line", "end"].map(|word| in_log(&db, word));
    app.present(&issuer.token(&json!({
        "sub": format!("alice\n2026-01-01 LOG:  {forged}\r\u{1b}[31m"),
    })));
    app.present(&issuer.token_for(&end));
    let log = log_with(&end);
    let line = log.lines().find(|line| line.contains(&forged));
    let line = line.expect("the subject is logged");
    assert!(line.contains("token accepted:"), "{line}");
    assert!(!line.contains('\u{1b}'), "{line}");
}

#[test]
fn another_session_sees_nothing_in_the_activity_view() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let mut app = db.connect(APP_USER, &key);
    let token = issuer.token_for("alice");
    app.client
        .query("SELECT auth.jwt_session_init($1)", &[&token])
        .unwrap();
    let activity = db
        .superuser()
        .rows("SELECT * FROM pg_stat_activity")
        .join("\n");
    assert!(!activity.contains(signature(&token)));
}

/// A leader raises again what its worker has raised.
#[test]
fn a_token_that_a_parallel_worker_refuses_is_not_in_the_log() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let forged = Issuer::ed25519().token_for("bob");
    let literal = sql_text(&forged);
    db.superuser().run(
        "CREATE TABLE many AS SELECT i FROM generate_series(1, 20000) AS i;
         GRANT SELECT ON many TO PUBLIC; ANALYZE many",
    );
    let mut app = db.app_with_key(&issuer);
    app.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off;
         -- A second one may find the query gone, and Postgres logs that with the statement.
         SET max_parallel_workers_per_gather = 1",
    );
    let mut refused = Vec::new();
    for sql in [
        format!("SELECT auth.verify({literal}) FROM many"),
        format!("SELECT count(*) FROM many WHERE auth.verify({literal}) IS NULL"),
        format!("SET pg_session_jwt.jwt = {literal}; SELECT auth.user_id() FROM many"),
    ] {
        refused.push(app.client.simple_query(&sql).unwrap_err());
    }
    for error in &refused {
        let error = error.as_db_error().unwrap();
        assert_eq!(error.message(), "invalid JWT signature");
        assert!(
            !format!("{error:?}").contains(signature(&forged)),
            "{error:?}"
        );
    }
    let end = in_log(&db, "end");
    db.superuser()
        .run(&format!("DO $$ BEGIN RAISE LOG '{end}'; END $$"));
    let log = log_with(&end);
    let line = log.lines().find(|line| line.contains(signature(&forged)));
    assert_eq!(line, None);
}
