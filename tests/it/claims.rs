//! What the accessors say about a token's claims.

use harness::{Database, Issuer, Session, first_line, sql_text};
use serde_json::{Value, json};

fn session_of(db: &Database, claims: &Value) -> Session {
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(claims));
    app
}

const UUID: &str = "0188a1b2-0000-7000-8000-0000000000ab";

#[test]
fn without_a_token_every_accessor_is_null_and_the_session_is_json_null() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    for mut app in [db.app_with_key(&issuer), db.app()] {
        for accessor in [
            "auth.user_id()",
            "auth.uid()",
            "auth.role()",
            "auth.email()",
            "auth.claim('sub')",
            "auth.claim('o', 'id')",
            "auth.organization()",
            "auth.organization_id()",
        ] {
            assert_eq!(app.value(&format!("SELECT {accessor}")), None, "{accessor}");
        }
        for accessor in ["auth.session()", "auth.jwt()"] {
            assert_eq!(app.text(&format!("SELECT {accessor}")), "null");
            assert_eq!(app.text(&format!("SELECT {accessor} IS NULL")), "f");
            assert_eq!(app.value(&format!("SELECT {accessor} ->> 'sub'")), None);
        }
    }
}

#[test]
fn session_and_jwt_are_all_claims() {
    let db = Database::new();
    let claims = json!({
        "sub": "alice", "n": 1.5, "t": true, "z": null, "a": [1, {"b": "c"}], "ü": "日本 \" \\ \n",
        "": "empty", "big": 12345678901234567890_u64,
    });
    let mut app = session_of(&db, &claims);
    for accessor in ["auth.session()", "auth.jwt()"] {
        let text = app.text(&format!("SELECT {accessor}"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), claims);
    }
    assert_eq!(app.text("SELECT auth.jwt() -> 'a' -> 1 ->> 'b'"), "c");
}

#[test]
fn numbers_keep_every_digit() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.sign(
        r#"{"alg":"EdDSA"}"#,
        r#"{"a":123456789012345678901234567890,"b":0.10,"c":1e2,"d":-0.12345678901234567890}"#,
    ));
    assert_eq!(
        app.text("SELECT auth.claim('a')"),
        "123456789012345678901234567890"
    );
    assert_eq!(app.text("SELECT auth.claim('b')"), "0.10");
    assert_eq!(app.text("SELECT auth.claim('c')"), "100");
    assert_eq!(
        app.text("SELECT auth.claim('d')"),
        "-0.12345678901234567890"
    );
}

#[test]
fn all_claims_are_the_very_jsonb_that_postgres_makes_of_the_text() {
    let db = Database::new();
    let mut session = db.superuser();
    let long = "x".repeat(300);
    let many: Vec<String> = (0..200).map(|i| format!(r#""key {i}": {i}"#)).collect();
    for value in [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1.50",
        "1e3",
        "-0",
        "-0.0",
        "1E-7",
        "10000",
        "20000000000000000",
        "\"\"",
        r#""\u00e9\ud83d\ude00\\\"\n""#,
        r#""1.0""#,
        "[]",
        "{}",
        "[[],{},[{}]]",
        r#"[1, [2, {"a": [null, "b", true]}], 3]"#,
        r#"{"b": 1, "a": {"": {}, "aa": [1, 2, [3]], "z": null}, "é": "ü"}"#,
        &format!("\"{long}\""),
        &format!("{{{}}}", many.join(", ")),
        &format!("{}1{}", "[".repeat(120), "]".repeat(120)),
    ] {
        let claims = format!(r#"{{"sub": "alice", "value": {value}, "a": [{value}, {value}]}}"#);
        session.run(&format!(
            "SET pg_session_jwt.claims = {}",
            sql_text(&claims)
        ));
        let same = session.text(&format!(
            "SELECT jsonb_send(auth.jwt()) = jsonb_send(j) AND auth.jwt() = j
                 AND pg_column_size(auth.jwt()) = pg_column_size(j) AND auth.jwt()->'value' = j->'value'
             FROM (VALUES ({}::jsonb)) v (j)",
            sql_text(&claims)
        ));
        assert_eq!(same, "t", "{value}");
    }
}

#[test]
fn user_id_is_sub_whatever_is_in_it() {
    let db = Database::new();
    for sub in [
        "alice",
        "",
        " ",
        "auth0|123",
        "o'neil",
        "日本",
        "\u{1F600}",
        "a\nb",
        "\u{1}",
        "null",
    ] {
        let mut app = session_of(&db, &json!({"sub": sub}));
        assert_eq!(app.user_id().as_deref(), Some(sub));
        assert_eq!(app.text("SELECT auth.claim('sub') = auth.user_id()"), "t");
    }
    session_of(&db, &json!({"email": "a@b.c"})).assert_nobody();
    let long = "x".repeat(10_000);
    session_of(&db, &json!({"sub": long})).assert_user(&long);
}

#[test]
fn uid_is_sub_as_uuid_or_null() {
    let db = Database::new();
    for (sub, uid) in [
        (UUID, Some(UUID)),
        ("0188A1B2-0000-7000-8000-0000000000AB", Some(UUID)),
        ("alice", None),
        ("", None),
        ("0188a1b2-0000-7000-8000-0000000000a", None),
        ("0188a1b2-0000-7000-8000-0000000000abc", None),
        ("g188a1b2-0000-7000-8000-0000000000ab", None),
    ] {
        let mut app = session_of(&db, &json!({"sub": sub}));
        assert_eq!(app.value("SELECT auth.uid()").as_deref(), uid, "{sub}");
        assert_eq!(app.text("SELECT pg_typeof(auth.uid())"), "uuid");
    }
}

#[test]
fn role_and_email_are_the_claims_of_that_name() {
    let db = Database::new();
    let mut app = session_of(
        &db,
        &json!({"role": "authenticated", "email": "a@example.com"}),
    );
    assert_eq!(app.text("SELECT auth.role()"), "authenticated");
    assert_eq!(app.text("SELECT auth.email()"), "a@example.com");
    let mut app = session_of(&db, &json!({"role": null, "email": ""}));
    assert_eq!(app.value("SELECT auth.role()"), None);
    assert_eq!(app.text("SELECT auth.email()"), "");
}

#[test]
fn claim_is_a_string_as_it_is_and_anything_else_as_json() {
    let db = Database::new();
    let mut app = session_of(
        &db,
        &json!({
            "s": "text", "n": 1, "t": true, "z": null, "a": [1, "x"], "o": {"k": {"d": "deep", "l": ["first", {"m": "in"}]}},
            "a.b": "dotted", "": "empty",
        }),
    );
    for (sql, value) in [
        ("auth.claim('s')", Some("text")),
        ("auth.claim('n')", Some("1")),
        ("auth.claim('t')", Some("true")),
        ("auth.claim('z')", None),
        ("auth.claim('absent')", None),
        ("auth.claim('S')", None),
        ("auth.claim('a')", Some("[1, \"x\"]")),
        ("auth.claim('a.b')", Some("dotted")),
        ("auth.claim('')", Some("empty")),
        ("auth.claim(NULL::text)", None),
        ("auth.claim('o', 'k', 'd')", Some("deep")),
        ("auth.claim('o', 'k', 'l', '0')", Some("first")),
        ("auth.claim('o', 'k', 'l', '1', 'm')", Some("in")),
        ("auth.claim('o', 'k', 'l', '-1', 'm')", Some("in")),
        ("auth.claim('o', 'k', 'x')", None),
        ("auth.claim('s', 'x')", None),
        ("auth.claim('z', 'x')", None),
        ("auth.claim('o', NULL)", None),
        ("auth.claim(VARIADIC ARRAY['o', 'k', 'd'])", Some("deep")),
        ("auth.claim(VARIADIC ARRAY['s'])", Some("text")),
        ("auth.claim(VARIADIC NULL)", None),
        ("auth.claim(name => 's')", Some("text")),
    ] {
        assert_eq!(
            app.value(&format!("SELECT {sql}")).as_deref(),
            value,
            "{sql}"
        );
    }
    // Not a constant: another name for each row.
    assert_eq!(
        app.rows("SELECT auth.claim(k) FROM unnest(ARRAY['s', 'n', 'z', 's', 't']) AS k"),
        ["text", "1", "NULL", "text", "true"]
    );
    assert_eq!(
        app.rows("SELECT auth.claim('o', 'k', k) FROM unnest(ARRAY['d', 'x', 'd']) AS k"),
        ["deep", "NULL", "deep"]
    );
    app.run("PREPARE c(text) AS SELECT auth.claim($1)");
    for _ in 0..8 {
        assert_eq!(app.rows("EXECUTE c('s')"), ["text"]);
        assert_eq!(app.rows("EXECUTE c('n')"), ["1"]);
    }
}

#[test]
fn an_empty_path_raises_nothing() {
    let db = Database::new();
    let mut app = session_of(&db, &json!({"sub": "alice"}));
    // jsonb's own `#>> '{}'` is the whole; NULL would do as well.
    app.run("SELECT auth.claim(VARIADIC ARRAY[]::text[])");
}

#[test]
fn the_organization_is_the_claim_o_when_it_is_an_object() {
    let db = Database::new();
    let mut app = session_of(&db, &json!({"o": {"id": UUID, "rol": "admin"}}));
    assert_eq!(app.text("SELECT auth.organization() ->> 'rol'"), "admin");
    assert_eq!(app.text("SELECT auth.organization_id()"), UUID);
    for (claims, has_organization) in [
        (json!({}), false),
        (json!({"o": null}), false),
        (json!({"o": "text"}), false),
        (json!({"o": [UUID]}), false),
        (json!({"o": 7}), false),
        (json!({"o": {}}), true),
        (json!({"o": {"id": null}}), true),
        (json!({"o": {"id": "org_123"}}), true),
        (json!({"o": {"id": 7}}), true),
        (json!({"o": {"id": {"id": UUID}}}), true),
    ] {
        let mut app = session_of(&db, &claims);
        let is_null = app.value("SELECT auth.organization()").is_none();
        assert_eq!(is_null, !has_organization, "{claims}");
        assert_eq!(app.value("SELECT auth.organization_id()"), None, "{claims}");
    }
}

#[test]
fn accessors_work_in_every_place_an_expression_may_stand() {
    let db = Database::with_todos();
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(&json!({"sub": "alice", "role": "r"})));
    assert_eq!(
        app.rows("SELECT auth.user_id() || g || auth.role() FROM generate_series(1, 3) g"),
        ["alice1r", "alice2r", "alice3r"]
    );
    assert_eq!(app.rows("SELECT * FROM auth.user_id()"), ["alice"]);
    assert_eq!(
        app.rows("SELECT key FROM jsonb_each(auth.jwt()) ORDER BY 1"),
        ["role", "sub"]
    );
    assert_eq!(app.rows("VALUES (auth.user_id())"), ["alice"]);
    assert_eq!(
        app.text("SELECT count(*) FILTER (WHERE auth.user_id() = user_id) FROM todos"),
        "2"
    );
    assert_eq!(
        app.text("SELECT string_agg(auth.user_id(), ',' ORDER BY auth.role()) FROM todos"),
        "alice,alice"
    );
    assert_eq!(
        app.rows("SELECT DISTINCT u FROM (SELECT auth.user_id() AS u FROM todos) t GROUP BY u HAVING auth.user_id() = u"),
        ["alice"]
    );
    app.run("INSERT INTO todos (task) VALUES ('x') RETURNING auth.user_id()");
    app.run("CREATE TEMP TABLE t AS SELECT auth.jwt() AS j, auth.user_id() AS u FROM generate_series(1, 5000)");
    assert_eq!(
        app.text("SELECT count(*) FROM t WHERE u = 'alice' AND j ->> 'sub' = u"),
        "5000"
    );
    assert_eq!(
        app.text("SELECT max(u COLLATE \"C\") FROM (SELECT auth.user_id() AS u ORDER BY 1) t"),
        "alice"
    );
}

#[test]
fn a_number_that_jsonb_cannot_hold_rejects_the_token_and_not_only_the_accessor_that_reads_it() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let token = |number: &str| {
        let payload = format!(r#"{{"sub":"alice","deep":[{{"n":{number}}}]}}"#);
        issuer.sign(r#"{"alg":"EdDSA"}"#, payload)
    };
    for number in ["1e-20000", "-1.5E-99999"] {
        let token = token(number);
        let refusal = app.rejected(&token);
        refusal.assert_stage("payload", first_line::PAYLOAD);
        assert!(refusal.detail.contains("cannot store"), "{refusal:?}");
        app.run(&format!("SET pg_session_jwt.jwt = '{token}'"));
        app.refused("SELECT auth.user_id()")
            .assert_stage("payload", first_line::PAYLOAD);
        app.run("RESET pg_session_jwt.jwt");
    }
    app.present(&token("1e-16000"));
    app.assert_user("alice");
    let sql = "SELECT (auth.jwt() -> 'deep' -> 0 ->> 'n')::numeric = 1e-16000";
    assert_eq!(app.text(sql), "t");
}

#[test]
fn in_a_database_of_another_encoding_no_text_is_garbled() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let db = Database::in_encoding(encoding);
        db.superuser().run("CREATE EXTENSION pg_session_jwt");
        let issuer = Issuer::ed25519();
        let mut app = db.app_with_key(&issuer);
        app.run("SET client_encoding = 'UTF8'");
        app.present(&issuer.token_for("alice"));
        app.assert_user("alice");
        for sub in ["Jürgen", "日本"] {
            let token = issuer.token(&json!({"sub": sub, "ü": sub}));
            if let Err(refusal) = app.try_run(&format!("SELECT auth.jwt_session_init('{token}')")) {
                println!("{encoding} {sub}: {refusal:?}");
                assert_eq!(refusal.sqlstate, "28000");
                continue;
            }
            for sql in [
                "SELECT auth.user_id()",
                "SELECT auth.claim('sub')",
                "SELECT auth.session() ->> 'sub'",
                "SELECT auth.claim(k) FROM (VALUES ('sub')) v(k)",
                "SELECT subject FROM auth.status()",
            ] {
                match app.try_value(sql) {
                    Ok(value) => assert!(
                        value.as_deref() == Some(sub)
                            || (value.is_none() && sql.contains("status")),
                        "{encoding} {sql} {value:?}"
                    ),
                    Err(refusal) => {
                        assert!(
                            ["22P05", "28000"].contains(&refusal.sqlstate.as_str()),
                            "{refusal:?}"
                        );
                        assert_eq!((encoding, sub), ("LATIN1", "日本"), "{refusal:?}");
                    }
                }
            }
            app.run("SELECT auth.logout()");
        }
    }
}
