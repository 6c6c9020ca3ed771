//! What issuers publish and sign, registered as docs/providers.md says: its INSERT and its policy, for each.
//!
//! Key sets and tokens have the shape that the issuer's own documentation gives them (`source`), and are signed by
//! another library: tests/vectors/generate/issuers.py.

use harness::{Cluster, Session, sql_text};
use serde_json::Value;

fn issuers() -> Vec<Value> {
    serde_json::from_str(include_str!("../vectors/issuers.json")).expect("vectors")
}

/// The statements that a section gives, and its policy.
fn section<'a>(page: &'a str, name: &str) -> (String, &'a str) {
    let (_, section) = page.split_once(&format!("\n### {name}\n")).expect(name);
    let section = section.split("\n#").next().expect("a section");
    // A block of SQL, or one that a shell gives to psql.
    let between = |start: &str, end: &str| -> Vec<&str> {
        let rests = section.split(start).skip(1);
        rests
            .map(|rest| rest.split_once(end).expect("an end").0)
            .collect()
    };
    let all = [
        between("```sql\n", "\n```"),
        between("<<'SQL'\n", "\nSQL\n"),
    ];
    let statements = all.concat().join("\n");
    let (_, policy) = section.split_once("\nPolicy: `").expect("a policy");
    (statements, policy.split('`').next().expect("an end"))
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

#[track_caller]
fn check(app: &mut Session, token: &Value, about: &str) {
    let login = format!(
        "SELECT auth.login({})",
        sql_text(token["token"].as_str().expect("a token"))
    );
    if let Some(message) = text(&token["refused"]) {
        app.refused(&login).assert("28000", message);
        return;
    }
    app.run("BEGIN");
    assert_eq!(
        app.value(&login).as_deref(),
        text(&token["role"]),
        "{about}"
    );
    for (question, answer) in [
        ("auth.user_id()", &token["user_id"]),
        ("auth.org_id()", &token["org_id"]),
        ("auth.org_role()", &token["org_role"]),
    ] {
        let got = app.value(&format!("SELECT {question}"));
        assert_eq!(got.as_deref(), text(answer), "{about}: {question}");
    }
    if let Some(permissions) = token["permissions"].as_array() {
        let wanted: Vec<&str> = permissions.iter().filter_map(Value::as_str).collect();
        let got = app.text("SELECT array_to_string(auth.permissions(), ' ')");
        assert_eq!(got, wanted.join(" "), "{about}");
    }
    let seen = app.rows("SELECT whose FROM things");
    let own = if token["row"].is_null() {
        &[][..]
    } else {
        &["its own"]
    };
    assert_eq!(seen, own, "{about}: rows that the policy shows");
    app.run("ROLLBACK");
}

#[test]
fn every_issuer_in_the_documentation_works_as_its_section_says() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
    let page = std::fs::read_to_string(page).expect("a page");
    // Roles belong to the whole cluster, and `anon` changes what login(NULL) does.
    let cluster = Cluster::start("");
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run("CREATE ROLE authenticated; CREATE ROLE anon; CREATE ROLE app LOGIN NOINHERIT IN ROLE authenticated, anon");
    let issuers = issuers();
    for (number, issuer) in issuers.iter().enumerate() {
        let name = issuer["name"].as_str().expect("a name");
        assert!(text(&issuer["source"]).is_some_and(|source| source.starts_with("https://")));
        let (statements, policy) = section(&page, text(&issuer["section"]).expect("a section"));
        let mut statements = statements.replace(":'jwks'", &sql_text(&issuer["jwks"].to_string()));
        // Where the issuer has a secret of its own, its row stands beside the one with public keys.
        if let Some(k) = text(&issuer["k"]) {
            statements = statements.replace(":'k'", &sql_text(k));
        }
        for (capitals, value) in issuer["names"].as_object().expect("names") {
            statements = statements.replace(capitals, value.as_str().expect("text"));
        }
        let database = format!("issuer_{number}");
        admin.run(&format!("CREATE DATABASE {database}"));
        let mut owner = cluster.connect(&database, "postgres");
        owner.run("CREATE EXTENSION pg_session_jwt");
        owner.run(&statements);
        owner.run(text(&issuer["change"]).unwrap_or_default());
        // As if the keys had been fetched from where they are.
        owner.run(&format!(
            "INSERT INTO auth.provider_keys
             SELECT name, issuer, coalesce(jwks_url, rtrim(issuer, '/') || '/.well-known/openid-configuration'),
                 {}, now(), now(), now() + interval '1 h', 0
             FROM auth.providers WHERE jwks IS NULL",
            sql_text(&issuer["jwks"].to_string())
        ));
        owner.run(&format!(
            "CREATE TABLE things (whose text, user_id text, uid uuid, repository text);
             INSERT INTO things VALUES ('another''s', 'x', '00000000-0000-0000-0000-000000000000', 'x/y');
             ALTER TABLE things ENABLE ROW LEVEL SECURITY;
             GRANT SELECT ON things TO PUBLIC;
             CREATE POLICY own ON things USING ({policy})"
        ));
        let rows: Vec<_> = issuer["tokens"]
            .as_array()
            .expect("tokens")
            .iter()
            .collect();
        for token in rows {
            owner.run("DELETE FROM things WHERE whose = 'its own'");
            if let Some(row) = token["row"].as_object() {
                let (column, value) = row.iter().next().expect("a column");
                let value = sql_text(value.as_str().expect("text"));
                owner.run(&format!(
                    "INSERT INTO things (whose, {column}) VALUES ('its own', {value})"
                ));
            }
            let mut app = cluster.connect(&database, "app");
            check(&mut app, token, name);
        }
    }
    // No section goes without a token.
    let known: Vec<_> = issuers
        .iter()
        .filter_map(|issuer| text(&issuer["section"]))
        .collect();
    let (_, sections) = page.split_once("\n## Per issuer\n").expect("the sections");
    let (sections, _) = sections.split_once("\n## ").expect("an end");
    for heading in sections
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
    {
        assert!(
            known.contains(&heading) || heading == "Your own issuer",
            "{heading}"
        );
    }
}

#[test]
fn anon_is_who_logs_in_without_a_token_where_only_that_role_exists() {
    let cluster = Cluster::start("");
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt");
    admin
        .refused("SELECT auth.login(NULL)")
        .assert("22023", "role \"anonymous\" does not exist");
    admin.run("CREATE ROLE anon");
    for none in ["NULL", "''"] {
        admin.run("BEGIN");
        assert_eq!(admin.text(&format!("SELECT auth.login({none})")), "anon");
        assert_eq!(admin.text("SELECT current_user"), "anon");
        admin.run("ROLLBACK");
    }
    admin.run("CREATE ROLE anonymous");
    assert_eq!(admin.text("SELECT auth.login(NULL, false)"), "anonymous");
}
