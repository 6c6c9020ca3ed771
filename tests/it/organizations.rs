//! One name for what issuers call differently: `auth.org_id` and its like, with claims as the issuers
//! document them.

use harness::{Database, Issuer, Row, Session, documented_claims, now, sql_text};
use serde_json::{Value, json};

/// What the session says of the organization, in the form that the vectors have.
fn answers(session: &mut Session) -> Value {
    let json = session.text(
        "SELECT jsonb_build_object('org_id', auth.org_id(), 'org_role', auth.org_role(),
                'org_slug', auth.org_slug(), 'permissions', auth.permissions())",
    );
    serde_json::from_str(&json).unwrap()
}

/// The list, and each permission in it by itself.
fn assert_permissions(session: &mut Session, expected: &Value) {
    for permission in expected.as_array().into_iter().flatten() {
        let permission = permission.as_str().unwrap();
        let has = |p: &str| format!("SELECT auth.has_permission({})", sql_text(p));
        assert_eq!(session.text(&has(permission)), "t", "{permission}");
        assert_eq!(session.text(&has(&format!("{permission}x"))), "f");
    }
    // false and never NULL.
    for absent in ["'no:such:permission'", "''", "NULL"] {
        assert_eq!(
            session.text(&format!("SELECT auth.has_permission({absent})")),
            "f"
        );
    }
}

#[test]
fn claims_as_documented_say_the_same_as_claims_and_in_a_token() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    let vectors = documented_claims();
    assert!(vectors.len() > 20);
    // Every issuer of the vectors, with one key.
    let mut issuers: Vec<&str> = vectors
        .iter()
        .filter_map(|v| v["claims"]["iss"].as_str())
        .collect();
    issuers.sort_unstable();
    issuers.dedup();
    for (number, iss) in issuers.iter().enumerate() {
        admin.run(&Row::new(&format!("p{number}"), iss, &[&issuer]).insert());
    }
    admin.run(
        &Row::new("none", "x", &[&issuer])
            .with("issuer", "NULL")
            .insert(),
    );
    let mut app = db.app();
    for vector in &vectors {
        println!("{}", vector["name"]);
        assert!(
            vector["source"]
                .as_str()
                .is_some_and(|s| s.starts_with("https://")),
            "{vector}"
        );
        let (claims, expected) = (&vector["claims"], &vector["expected"]);
        admin.run(&format!(
            "SET pg_session_jwt.claims = {}",
            sql_text(&claims.to_string())
        ));
        assert_eq!(answers(&mut admin), *expected, "{}", vector["name"]);
        assert_permissions(&mut admin, &expected["permissions"]);
        // The documented times are long past.
        let mut claims = claims.clone();
        claims["exp"] = json!(now() + 600);
        app.present(&issuer.token(&claims));
        assert_eq!(answers(&mut app), *expected, "{}", vector["name"]);
        assert_permissions(&mut app, &expected["permissions"]);
    }
    // One call site, several users.
    let ask = "SELECT auth.org_id(), auth.org_role(), auth.has_permission('a') FROM generate_series(1, 2)";
    for (claims, answer) in [
        (r#"{"org_id": "one", "permissions": ["a"]}"#, "one|NULL|t"),
        (r#"{"org_id": "two"}"#, "two|NULL|f"),
        ("{}", "NULL|NULL|f"),
    ] {
        admin.run(&format!("SET pg_session_jwt.claims = '{claims}'"));
        assert_eq!(admin.rows(ask), [answer, answer], "{claims}");
    }
}

#[test]
fn without_a_token_there_is_no_organization() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app();
    let nobody = json!({"org_id": null, "org_role": null, "org_slug": null, "permissions": null});
    assert_eq!(answers(&mut app), nobody);
    assert_permissions(&mut app, &Value::Null);
    db.superuser().register(&[&issuer]);
    assert_eq!(answers(&mut app), nobody);
    assert_permissions(&mut app, &Value::Null);
    // A token that is no good is an error, and not the answer no.
    app.run("SET pg_session_jwt.jwt = 'x'");
    for function in [
        "org_id()",
        "org_role()",
        "org_slug()",
        "permissions()",
        "has_permission('a')",
    ] {
        app.refused(&format!("SELECT auth.{function}"))
            .assert_stage("structure", "invalid JWT encoding");
    }
}

#[test]
fn a_policy_may_ask_for_organization_and_permission() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    admin.run(
        "CREATE TABLE notes (org_id text, note text);
         INSERT INTO notes VALUES ('org_1', 'one'), ('org_2', 'two');
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY see ON notes USING (org_id = auth.org_id() AND auth.has_permission('notes:read'));
         GRANT SELECT ON notes TO PUBLIC",
    );
    let mut app = db.app();
    for (org, permissions, notes) in [
        ("org_1", json!(["notes:read"]), vec!["one"]),
        ("org_2", json!(["x", "notes:read"]), vec!["two"]),
        ("org_2", json!(["notes:write"]), vec![]),
        ("org_3", json!(["notes:read"]), vec![]),
    ] {
        let more = json!({"org_id": org, "permissions": permissions});
        app.present(&harness::token_with(&issuer, "alice", &more));
        assert_eq!(app.rows("SELECT note FROM notes"), notes);
    }
}
