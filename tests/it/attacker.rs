//! No SQL of an ordinary role changes who it is without a token.

use harness::{APP_USER, Database, Issuer, Session, first_line, jwks, option, sql_text};
use serde_json::json;

const BOB: &str = r#"{"sub":"bob","role":"postgres"}"#;

/// What somebody might try in order to be bob, with the SQLSTATE it gets; "" where Postgres allows
/// it and it must be without effect.
fn attempts(attacker: &Issuer) -> Vec<(String, &'static str)> {
    let (bob, key) = (sql_text(BOB), sql_text(&attacker.jwk().to_string()));
    let forged = sql_text(&attacker.token_for("bob"));
    let cannot_change_now = "55P02";
    let no_privilege = "42501";
    [
        (format!("SET request.jwt.claims = {bob}"), ""),
        (format!("SET LOCAL request.jwt.claims = {bob}"), ""),
        (format!("SELECT set_config('request.jwt.claims', {bob}, false)"), ""),
        ("SET request.jwt.claim.sub = 'bob'".into(), ""),
        (format!("SET pg_session_jwt.claims = {bob}"), no_privilege),
        (format!("SET LOCAL pg_session_jwt.claims = {bob}"), no_privilege),
        (format!("SELECT set_config('pg_session_jwt.claims', {bob}, true)"), no_privilege),
        ("SET pg_session_jwt.request_claims = fallback".into(), no_privilege),
        ("SET pg_session_jwt.clock_skew = 100000".into(), no_privilege),
        ("SET pg_session_jwt.audit_log = off".into(), no_privilege),
        (format!("SET pg_session_jwt.jwk = {key}"), cannot_change_now),
        (format!("SET LOCAL pg_session_jwt.jwk = {key}"), cannot_change_now),
        (format!("SELECT set_config('pg_session_jwt.jwk', {key}, false)"), cannot_change_now),
        ("SET pg_session_jwt.jwk = ''".into(), cannot_change_now),
        ("RESET pg_session_jwt.jwk".into(), cannot_change_now),
        (format!("SELECT auth.init({key})"), no_privilege),
        ("SELECT auth.init(NULL)".into(), no_privilege),
        (format!("SELECT auth.jwt_session_init({forged})"), "28000"),
        (format!("SELECT auth.verify({forged})"), "28000"),
        // The prefix is reserved: no new parameter under it.
        ("SET pg_session_jwt.user_id = 'bob'".into(), "42602"),
        (format!("UPDATE pg_settings SET setting = {bob} WHERE name LIKE 'pg_session_jwt%'"), no_privilege),
        ("UPDATE pg_settings SET setting = 'bob' WHERE name = 'request.jwt.claims'".into(), ""),
        ("RESET pg_session_jwt.claims".into(), no_privilege),
        ("RESET request.jwt.claims".into(), ""),
        ("RESET pg_session_jwt.jwt".into(), ""),
        ("RESET ALL".into(), ""),
        ("DISCARD ALL".into(), ""),
        ("DISCARD PLANS".into(), ""),
        ("DISCARD TEMP".into(), ""),
        ("RESET SESSION AUTHORIZATION".into(), ""),
        ("SET SESSION AUTHORIZATION DEFAULT".into(), ""),
        ("SET ROLE NONE".into(), ""),
        ("ALTER FUNCTION auth.user_id() OWNER TO CURRENT_USER".into(), no_privilege),
        ("CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text LANGUAGE sql AS $$ SELECT 'bob' $$".into(), no_privilege),
        ("DROP FUNCTION auth.user_id() CASCADE".into(), no_privilege),
        ("ALTER TABLE todos DISABLE ROW LEVEL SECURITY".into(), no_privilege),
        ("SET row_security = off".into(), ""),
        ("DROP EXTENSION pg_session_jwt CASCADE".into(), no_privilege),
        ("ALTER EXTENSION pg_session_jwt UPDATE".into(), no_privilege),
        ("CREATE FUNCTION pg_temp.own() RETURNS text LANGUAGE c AS '$libdir/pg_session_jwt', 'user_id_wrapper'".into(), no_privilege),
        ("CREATE FUNCTION pg_temp.own() RETURNS text LANGUAGE internal AS 'current_database'".into(), no_privilege),
    ]
    .into()
}

/// Makes every attempt; after each one the session must be `who`, or (only when a token was given
/// up) nobody.
fn assert_nothing_helps(
    mut session: impl FnMut() -> Session,
    attacker: &Issuer,
    who: Option<&str>,
) {
    for (sql, sqlstate) in attempts(attacker) {
        let mut app = session();
        println!("{sql}");
        match app.try_run(&sql) {
            Ok(()) => assert_eq!(sqlstate, "", "{sql} was allowed"),
            Err(refusal) => {
                assert_eq!(refusal.sqlstate, sqlstate, "{sql}: {refusal:?}");
            }
        }
        app.run("SET row_security = on");
        let user = app.user_id();
        assert!(user.is_none() || user.as_deref() == who, "{sql}: {user:?}");
        let rows = app.rows("SELECT DISTINCT user_id FROM public.todos");
        assert!(
            rows.is_empty() || Some(rows[0].as_str()) == who,
            "{sql}: {rows:?}"
        );
    }
}

#[test]
fn nobody_with_a_pinned_key_stays_nobody_whatever_it_sets() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    assert_nothing_helps(
        || {
            let mut app = db.app_with_key(&issuer);
            app.assert_nobody();
            app
        },
        &attacker,
        None,
    );
}

#[test]
fn alice_is_never_bob_whatever_she_sets() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    assert_nothing_helps(
        || {
            let mut app = db.app_with_key(&issuer);
            app.present(&issuer.token_for("alice"));
            app.assert_user("alice");
            app
        },
        &attacker,
        Some("alice"),
    );
}

#[test]
fn in_a_transaction_with_savepoints_alice_is_never_bob() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    app.run(&format!(
        "SELECT auth.jwt_session_init({}, true)",
        sql_text(&issuer.token_for("alice"))
    ));
    for (sql, _) in attempts(&attacker) {
        app.run("SAVEPOINT s");
        let allowed = app.try_run(&sql).is_ok();
        if allowed {
            app.run("SET row_security = on");
            let user = app.user_id();
            assert_ne!(user.as_deref(), Some("bob"), "{sql}");
            let rows = app.rows("SELECT user_id FROM public.todos WHERE user_id <> 'alice'");
            assert_eq!(rows, [""; 0], "{sql}");
        }
        app.run("ROLLBACK TO s");
        app.assert_user("alice");
    }
    app.run("COMMIT");
    app.assert_nobody();
}

/// Until the library is loaded, its parameters are placeholders that anybody may set.
#[test]
fn what_is_set_before_the_library_is_loaded_does_not_count() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    let key = sql_text(&attacker.jwk().to_string());
    let forged = attacker.token_for("bob");

    for set in [
        format!("SET pg_session_jwt.jwk = {key}"),
        format!("SELECT set_config('pg_session_jwt.jwk', {key}, false)"),
    ] {
        println!("{set}");
        let mut app = db.app_with_key(&issuer);
        app.run(&set);
        // What it stood in the place of cannot be known, so nobody is believed.
        for token in [&forged, &issuer.token_for("alice")] {
            app.rejected(token).assert(
                "42501",
                "permission denied to set parameter \"pg_session_jwt.jwk\"",
            );
        }

        // On a connection that has no key at all, this gives it none.
        let mut app = db.app();
        app.run(&set);
        app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&forged)));
        app.refused("SELECT auth.user_id()");
        app.refused("SELECT count(*) FROM todos");
        app.rejected(&forged);
    }

    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    app.run(&format!("SET LOCAL pg_session_jwt.jwk = {key}"));
    app.refused("SELECT auth.user_id(), auth.jwt_session_init('x')");
    app.run("ROLLBACK");
    app.rejected(&forged).assert(
        "42501",
        "permission denied to set parameter \"pg_session_jwt.jwk\"",
    );
}

#[test]
fn setting_a_superusers_parameter_before_the_library_is_loaded_ends_all_identity() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let parameters = [
        ("pg_session_jwt.claims", BOB),
        ("pg_session_jwt.request_claims", "fallback"),
        ("pg_session_jwt.clock_skew", "86400"),
        ("pg_session_jwt.audit_log", "off"),
    ];
    let functions = [
        "auth.user_id()",
        "auth.uid()",
        "auth.role()",
        "auth.email()",
        "auth.claim('sub')",
        "auth.claim('a', 'b')",
        "auth.session()",
        "auth.jwt()",
        "auth.organization()",
        "auth.organization_id()",
    ];
    for (name, value) in parameters {
        let message = format!("permission denied to set parameter \"{name}\"");
        let set = format!("SET {name} = {}", sql_text(value));
        let by_options = db.connect(APP_USER, &format!("{key} {}", option(name, value)));
        let mut by_set = db.connect(APP_USER, &key);
        by_set.run(&set);
        for (how, mut app) in [("options", by_options), ("SET", by_set)] {
            println!("{name} by {how}");
            for function in functions {
                app.refused(&format!("SELECT {function}"))
                    .assert("42501", &message);
            }
            let warnings = app.notices();
            assert!(
                warnings
                    .iter()
                    .any(|w| w.starts_with("WARNING: ") && w.contains(name)),
                "{warnings:?}"
            );
            app.rejected(&issuer.token_for("alice"))
                .assert("42501", &message);
            app.refused("SELECT count(*) FROM public.todos")
                .assert("42501", &message);
            app.run("SELECT * FROM auth.status()");

            // No way back but another connection.
            app.run("RESET ALL");
            app.run("DISCARD ALL");
            app.refused("SELECT auth.user_id()")
                .assert("42501", &message);
        }
    }
    db.app_with_key(&issuer).present(&issuer.token_for("alice"));
}

#[test]
fn an_administrators_settings_outlive_what_a_client_asks_for_at_connection_start() {
    let db = Database::with_todos();
    db.administrator_sets("pg_session_jwt.request_claims", "never");
    let claims = option("request.jwt.claims", BOB);

    let mut app = db.connect(APP_USER, &claims);
    app.assert_nobody();
    assert_eq!(app.text("SHOW pg_session_jwt.request_claims"), "never");

    let fallback = option("pg_session_jwt.request_claims", "fallback");
    let mut app = db.connect(APP_USER, &format!("{claims} {fallback}"));
    app.refused("SELECT auth.user_id()").assert(
        "42501",
        "permission denied to set parameter \"pg_session_jwt.request_claims\"",
    );
}

#[test]
fn a_role_gains_nothing_by_altering_itself() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    let role = db.role("self");
    let key = sql_text(&attacker.jwk().to_string());
    let options = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let bob = sql_text(BOB);
    for loaded in [false, true] {
        let mut app = db.connect(&role, &options);
        if loaded {
            app.assert_nobody();
        }
        for set in [
            format!("pg_session_jwt.claims = {bob}"),
            format!("pg_session_jwt.jwk = {key}"),
            "pg_session_jwt.request_claims = fallback".into(),
            "pg_session_jwt.clock_skew = 86400".into(),
        ] {
            let refusal = app.refused(&format!("ALTER ROLE {role} SET {set}"));
            assert!(
                ["42501", "55P02"].contains(&refusal.sqlstate.as_str()),
                "{refusal:?}"
            );
        }
    }
    // These it may set, and they are worth nothing.
    let mut app = db.connect(&role, &options);
    app.assert_nobody();
    let forged = sql_text(&attacker.token_for("bob"));
    app.run(&format!(
        "ALTER ROLE {role} SET pg_session_jwt.jwt = {forged}"
    ));
    app.try_run(&format!("ALTER ROLE {role} SET request.jwt.claims = {bob}"))
        .ok();
    db.connect(&role, &options).assert_nobody();
}

#[test]
fn startup_options_do_not_replace_keys_that_trusted_code_pins() {
    let (db, issuer, attacker) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    // An application server's own function, which pins what the administrator trusts.
    db.superuser().run(&format!(
        "CREATE FUNCTION public.pin() RETURNS void LANGUAGE sql SECURITY DEFINER
         SET search_path = '' AS $$ SELECT auth.init({}) $$",
        sql_text(&issuer.jwk().to_string())
    ));

    let mut app = db.app_with_key(&attacker);
    app.refused("SELECT public.pin()")
        .assert("55000", "session keys are already pinned");

    let mut app = db.app_with_key(&issuer);
    app.run("SELECT public.pin()");

    let mut app = db.app();
    app.run("SELECT public.pin()");
    app.rejected(&attacker.token_for("bob"))
        .assert_stage("signature", first_line::SIGNATURE);
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");
    for sql in [
        format!(
            "SET pg_session_jwt.jwk = {}",
            sql_text(&attacker.jwk().to_string())
        ),
        "SET pg_session_jwt.jwk = ''".into(),
        "RESET pg_session_jwt.jwk".into(),
    ] {
        let refusal = app.refused(&sql);
        assert_eq!(refusal.sqlstate, "55P02", "{refusal:?}");
    }
    app.run("RESET ALL");
    app.run("DISCARD ALL");
    app.rejected(&attacker.token_for("bob"))
        .assert_stage("signature", first_line::SIGNATURE);
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");
}

#[test]
fn an_own_operator_or_function_earlier_in_search_path_is_not_called() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    db.superuser()
        .run(&format!("CREATE SCHEMA evil AUTHORIZATION {APP_USER}"));
    let mut app = db.app_with_key(&issuer);
    app.run(
        "CREATE FUNCTION evil.always(text, text) RETURNS bool IMMUTABLE LANGUAGE sql
             AS 'SELECT true';
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.always);
         CREATE FUNCTION evil.user_id() RETURNS text LANGUAGE sql AS $$ SELECT 'bob' $$;
         CREATE FUNCTION evil.jsonb_object_field_text(jsonb, text) RETURNS text
             LANGUAGE sql AS $$ SELECT 'bob' $$;
         CREATE FUNCTION evil.current_setting(text, bool) RETURNS text
             LANGUAGE sql AS $$ SELECT '{\"sub\":\"bob\"}' $$;
         CREATE FUNCTION evil.now() RETURNS timestamptz
             LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$",
    );
    app.run("SET search_path = evil, pg_temp, public, pg_catalog");
    app.assert_nobody();
    assert_eq!(app.tasks(), [""; 0]);
    app.present(&issuer.token(&json!({"sub": "alice", "role": "reader"})));
    app.assert_user("alice");
    assert_eq!(app.text("SELECT auth.role()"), "reader");
    assert_eq!(app.tasks(), ["write", "sleep"]);
    app.rejected(&issuer.token(&json!({"sub": "bob", "exp": 1})))
        .assert_stage("time", first_line::EXPIRED);
}

#[test]
fn a_table_or_type_of_ones_own_named_as_ours_changes_nothing() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.refused("CREATE SCHEMA auth");
    app.run("CREATE TEMP TABLE providers (name text)");
    app.run("CREATE TEMP TABLE todos (user_id text)");
    app.refused("CREATE TABLE auth.providers (name text)")
        .assert("42501", "permission denied for schema auth");
    app.assert_nobody();
    assert_eq!(app.tasks(), [""; 0]);
}

#[test]
fn a_security_definer_function_is_no_other_user() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    db.superuser().run(
        "CREATE FUNCTION public.who() RETURNS text LANGUAGE sql SECURITY DEFINER
             AS 'SELECT auth.user_id()'",
    );
    db.superuser()
        .run("CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC");
    let mut app = db.app_with_key(&issuer);
    assert_eq!(app.value("SELECT public.who()"), None);
    app.present(&issuer.token_for("alice"));
    assert_eq!(app.text("SELECT public.who()"), "alice");

    // A function of one's own with a SET clause.
    app.refused(&format!(
        "CREATE FUNCTION open.as_bob() RETURNS text LANGUAGE sql
             SET pg_session_jwt.claims = {} AS 'SELECT auth.user_id()'",
        sql_text(BOB)
    ))
    .assert(
        "42501",
        "permission denied to set parameter \"pg_session_jwt.claims\"",
    );
    // Nor does one that sets PostgREST's claims for itself.
    app.run(&format!(
        "CREATE FUNCTION open.as_bob() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             PERFORM set_config('request.jwt.claims', {}, true);
             RETURN auth.user_id();
         END $$",
        sql_text(BOB)
    ));
    assert_eq!(app.text("SELECT open.as_bob()"), "alice");
    app.run("DROP FUNCTION open.as_bob()");
    app.run(&format!(
        "CREATE FUNCTION open.as_bob() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
             SET pg_session_jwt.jwt = {} AS 'BEGIN RETURN auth.user_id(); END'",
        sql_text(&Issuer::ed25519().token_for("bob"))
    ));
    app.refused("SELECT open.as_bob()")
        .assert_stage("signature", first_line::SIGNATURE);
    app.assert_user("alice");
}

#[test]
fn a_function_with_a_token_in_its_set_clause_is_that_user_only_inside() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    db.superuser()
        .run("CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC");
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    app.run(&format!(
        "CREATE FUNCTION open.as_bob() RETURNS text LANGUAGE plpgsql
             SET pg_session_jwt.jwt = {} AS 'BEGIN RETURN auth.user_id(); END'",
        sql_text(&issuer.token_for("bob"))
    ));
    assert_eq!(
        app.rows("SELECT auth.user_id(), open.as_bob(), auth.user_id() FROM generate_series(1, 3)"),
        ["alice|bob|alice"; 3]
    );
    app.assert_user("alice");
}

#[test]
fn a_prepared_statement_answers_for_who_executes_it() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let (alice, bob) = (issuer.token_for("alice"), issuer.token_for("bob"));
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        let mut app = db.app_with_key(&issuer);
        app.run(&format!("SET plan_cache_mode = {mode}"));
        app.present(&alice);
        app.run(
            "PREPARE mine AS SELECT task FROM public.todos ORDER BY id;
             PREPARE me(int) AS SELECT auth.user_id() WHERE $1 = 1;",
        );
        // More than five executions, so that `auto` comes to a generic plan.
        for _ in 0..8 {
            app.present(&alice);
            assert_eq!(app.rows("EXECUTE mine"), ["write", "sleep"]);
            assert_eq!(app.rows("EXECUTE me(1)"), ["alice"]);
            app.present(&bob);
            assert_eq!(app.rows("EXECUTE mine"), ["read"]);
            assert_eq!(app.rows("EXECUTE me(1)"), ["bob"]);
            app.run("SELECT auth.logout()");
            assert_eq!(app.rows("EXECUTE mine"), [""; 0]);
            assert_eq!(app.rows("EXECUTE me(1)"), ["NULL"]);
        }
    }
}

#[test]
fn a_plpgsql_function_answers_for_who_calls_it() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    db.superuser().run(
        "CREATE FUNCTION public.who() RETURNS text LANGUAGE plpgsql STABLE
             AS 'BEGIN RETURN auth.user_id() || (SELECT count(*) FROM public.todos); END';
         CREATE FUNCTION public.claim_of(name text) RETURNS text LANGUAGE plpgsql STABLE
             AS 'BEGIN RETURN auth.claim(name); END'",
    );
    let mut app = db.app_with_key(&issuer);
    let (alice, bob) = (issuer.token_for("alice"), issuer.token_for("bob"));
    for _ in 0..8 {
        app.present(&alice);
        assert_eq!(app.text("SELECT public.who()"), "alice2");
        assert_eq!(app.text("SELECT public.claim_of('sub')"), "alice");
        app.present(&bob);
        assert_eq!(app.text("SELECT public.who()"), "bob1");
        assert_eq!(app.value("SELECT public.claim_of('none')"), None);
        assert_eq!(app.text("SELECT public.claim_of('sub')"), "bob");
    }
    // In one statement, through one call site.
    app.run("BEGIN");
    let both = format!(
        "DO $$ DECLARE seen text[]; token text; BEGIN
             FOREACH token IN ARRAY ARRAY[{alice}, {bob}, {alice}] LOOP
                 PERFORM auth.jwt_session_init(token);
                 seen := seen || auth.user_id();
             END LOOP;
             ASSERT seen = ARRAY['alice', 'bob', 'alice'], seen::text;
         END $$",
        alice = sql_text(&alice),
        bob = sql_text(&bob)
    );
    app.run(&both);
    app.run("COMMIT");
}

#[test]
fn a_cursor_held_over_a_token_change_shows_nobodys_rows_but_the_two_users() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    db.superuser()
        .run("INSERT INTO todos (user_id, task) VALUES ('carol', 'secret')");
    let (alice, bob) = (issuer.token_for("alice"), issuer.token_for("bob"));
    let mut app = db.app_with_key(&issuer);
    app.present(&alice);
    app.run("BEGIN");
    app.run("DECLARE c NO SCROLL CURSOR FOR SELECT user_id FROM public.todos ORDER BY id");
    app.run("DECLARE held CURSOR WITH HOLD FOR SELECT user_id FROM public.todos");
    app.run("DECLARE who CURSOR FOR SELECT auth.user_id() FROM generate_series(1, 10)");
    assert_eq!(app.rows("FETCH 1 FROM c"), ["alice"]);
    assert_eq!(app.rows("FETCH 2 FROM who"), ["alice", "alice"]);
    app.present(&bob);
    assert_eq!(app.rows("FETCH 2 FROM who"), ["bob", "bob"]);
    for user in app.rows("FETCH ALL FROM c") {
        assert!(["alice", "bob"].contains(&user.as_str()), "{user}");
    }
    app.run("SELECT auth.logout()");
    assert_eq!(app.rows("FETCH 2 FROM who"), ["NULL", "NULL"]);
    app.run("COMMIT");
    for user in app.rows("FETCH ALL FROM held") {
        assert!(["alice", "bob"].contains(&user.as_str()), "{user}");
    }
    app.run("CLOSE ALL");
    app.assert_nobody();
}

#[test]
fn a_plan_made_before_the_token_expired_or_changed_folds_no_identity_into_it() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    let plan = app.rows("EXPLAIN (VERBOSE, COSTS OFF) SELECT auth.user_id() FROM public.todos");
    assert!(plan.iter().all(|line| !line.contains("alice")), "{plan:?}");
}

#[test]
fn a_rejected_token_in_a_handled_exception_leaves_the_identity_that_was_there() {
    let (db, issuer, attacker) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    app.run(&format!(
        "DO $$ BEGIN
             PERFORM auth.jwt_session_init({});
             RAISE 'accepted';
         EXCEPTION WHEN invalid_authorization_specification THEN
             ASSERT auth.user_id() = 'alice';
         END $$",
        sql_text(&attacker.token_for("bob"))
    ));
    app.assert_user("alice");
}

#[test]
fn rows_for_another_user_can_neither_be_added_nor_changed_nor_given_away() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.refused("INSERT INTO todos (task) VALUES ('x')");
    app.present(&issuer.token_for("alice"));
    app.run("INSERT INTO todos (task) VALUES ('mine')");
    for sql in [
        "INSERT INTO todos (user_id, task) VALUES ('bob', 'x')",
        "UPDATE todos SET user_id = 'bob'",
    ] {
        app.refused(sql).assert(
            "42501",
            "new row violates row-level security policy for table \"todos\"",
        );
    }
    app.run("UPDATE todos SET task = 'taken' WHERE user_id = 'bob'");
    app.run("DELETE FROM todos WHERE user_id = 'bob'");
    assert_eq!(
        db.superuser()
            .rows("SELECT task FROM todos WHERE user_id = 'bob'"),
        ["read"]
    );
}

#[test]
fn the_envelope_of_a_token_cannot_be_forged() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let token = |jti: i32| issuer.token(&json!({"sub": "alice", "jti": jti}));
    let first = token(1);
    app.present(&first);
    app.present(&token(2));
    for prefix in [
        "A0000000000000000",
        "A8000000000000000",
        "A7fffffffffffffff",
        "P8000000000000000",
        "A",
        "P",
        "\u{1}",
    ] {
        app.run(&format!(
            "SET pg_session_jwt.jwt = {}",
            sql_text(&format!("{prefix}{first}"))
        ));
        let refusal = app.refused("SELECT auth.user_id()");
        assert_eq!(refusal.sqlstate, "28000", "{refusal:?}");
    }
    let by_options = option("pg_session_jwt.jwt", &format!("A8000000000000000{first}"));
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let mut app = db.connect(APP_USER, &format!("{key} {by_options}"));
    let refusal = app.refused("SELECT auth.user_id()");
    assert_eq!(refusal.sqlstate, "28000", "{refusal:?}");
}

#[test]
fn a_key_set_given_by_a_client_is_worth_what_the_client_is_worth_and_no_more() {
    // Whoever chooses the startup options chooses the keys (the contract says so); but not for others.
    let (db, issuer, client) = (Database::with_todos(), Issuer::ed25519(), Issuer::ed25519());
    let mut own = db.app_with_jwk(&jwks(&[client.jwk()]));
    own.present(&client.token_for("bob"));
    own.assert_user("bob");
    let mut other = db.app_with_key(&issuer);
    other
        .rejected(&client.token_for("bob"))
        .assert_stage("signature", first_line::SIGNATURE);
}

/// The value that an accessor keeps at its call site must not outlive a change of its arguments,
/// however the call came about.
#[test]
fn accessors_behind_operators_of_ones_own_answer_for_their_arguments() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    db.superuser()
        .run("CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC");
    let mut app = db.app_with_key(&issuer);
    app.run(
        "CREATE OPERATOR open.@@@ (RIGHTARG = text, FUNCTION = auth.claim);
         CREATE OPERATOR open.### (RIGHTARG = text[], FUNCTION = auth.claim);",
    );
    app.present(&issuer.token(&json!({"sub": "alice", "role": "r", "o": {"id": "x"}})));
    assert_eq!(
        app.rows(
            "SELECT OPERATOR(open.@@@) k, OPERATOR(open.###) ARRAY[k]
             FROM unnest(ARRAY['sub', 'role', 'none', 'sub']) AS k"
        ),
        ["alice|alice", "r|r", "NULL|NULL", "alice|alice"]
    );
    app.run("PREPARE p(text) AS SELECT OPERATOR(open.@@@) $1, auth.claim($1), auth.claim('o', $1)");
    for _ in 0..8 {
        assert_eq!(app.rows("EXECUTE p('sub')"), ["alice|alice|NULL"]);
        assert_eq!(app.rows("EXECUTE p('role')"), ["r|r|NULL"]);
        assert_eq!(app.rows("EXECUTE p('id')"), ["NULL|NULL|x"]);
    }
}
