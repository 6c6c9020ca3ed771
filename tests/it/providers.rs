//! `auth.providers`: who may touch it, which rows there can be, and that nothing else counts beside it.

use std::time::{Duration, Instant};

use harness::{
    APP_USER, Cluster, Database, ISS, Issuer, Row, Session, b64, first_line, jwks, option,
    pg_major, sql_text, token, token_with,
};
use serde_json::{Value, json};

const NOT_TRUSTED: &str = "keys of a connection are not trusted while a provider is registered";

/// A database whose user `alice` has a token, and whose application role may create what it likes in
/// a schema of its own.
fn database() -> (Database, Issuer) {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    admin.run(&format!("CREATE SCHEMA mine AUTHORIZATION {APP_USER}"));
    (db, issuer)
}

#[test]
fn an_ordinary_role_can_do_nothing_with_the_table() {
    let (db, _issuer) = database();
    db.superuser()
        .run("CREATE TABLE mine.own (name text); ALTER TABLE mine.own OWNER TO app_user");
    let mut app = db.app();
    let denied = "permission denied for table providers";
    let not_owner = "must be owner of table providers";
    // The privilege MAINTAIN came with 17.
    let maintain = if pg_major() < 17 { not_owner } else { denied };
    for (sql, message) in [
        ("TABLE auth.providers", denied),
        ("SELECT count(*) FROM auth.providers", denied),
        ("SELECT name FROM auth.providers", denied),
        ("SELECT ctid FROM auth.providers", denied),
        ("EXPLAIN SELECT FROM auth.providers", denied),
        ("SELECT FROM auth.providers FOR KEY SHARE", denied),
        ("INSERT INTO auth.providers (name) VALUES ('x')", denied),
        (
            "INSERT INTO auth.providers (name) VALUES ('main') ON CONFLICT DO NOTHING",
            denied,
        ),
        ("UPDATE auth.providers SET enabled = false", denied),
        ("DELETE FROM auth.providers", denied),
        (
            "MERGE INTO auth.providers USING (SELECT 1) AS x ON true WHEN MATCHED THEN DELETE",
            denied,
        ),
        ("TRUNCATE auth.providers", denied),
        ("COPY auth.providers TO STDOUT", denied),
        ("COPY auth.providers FROM STDIN", denied),
        ("COPY (SELECT * FROM auth.providers) TO STDOUT", denied),
        ("LOCK TABLE auth.providers IN ACCESS SHARE MODE", denied),
        (
            "LOCK TABLE auth.providers IN ACCESS EXCLUSIVE MODE NOWAIT",
            denied,
        ),
        ("CREATE TABLE mine.copy (LIKE auth.providers)", denied),
        ("CREATE TABLE mine.copy AS TABLE auth.providers", denied),
        (
            "CREATE TABLE mine.child () INHERITS (auth.providers)",
            not_owner,
        ),
        (
            "CREATE TABLE mine.reference (name text REFERENCES auth.providers)",
            denied,
        ),
        (
            "CREATE TRIGGER own BEFORE INSERT ON auth.providers FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            denied,
        ),
        (
            "CREATE RULE own AS ON SELECT TO auth.providers DO INSTEAD NOTHING",
            not_owner,
        ),
        ("CREATE POLICY own ON auth.providers", not_owner),
        ("CREATE INDEX ON auth.providers (name)", not_owner),
        (
            "CREATE STATISTICS own ON name, issuer FROM auth.providers",
            not_owner,
        ),
        ("ALTER TABLE auth.providers DISABLE TRIGGER ALL", not_owner),
        ("ALTER TABLE auth.providers ADD COLUMN x int", not_owner),
        ("ALTER TABLE auth.providers OWNER TO app_user", not_owner),
        ("ALTER TABLE auth.providers RENAME TO x", not_owner),
        ("ALTER TABLE auth.providers SET SCHEMA mine", not_owner),
        ("DROP TABLE auth.providers", not_owner),
        (
            "DROP TRIGGER check_provider ON auth.providers",
            "must be owner of relation providers",
        ),
        ("COMMENT ON TABLE auth.providers IS 'x'", not_owner),
        ("CLUSTER auth.providers USING providers_pkey", maintain),
        ("REINDEX TABLE auth.providers", maintain),
        ("GRANT SELECT ON auth.providers TO app_user", denied),
        (
            "SELECT auth.create_roles()",
            "permission denied for function create_roles",
        ),
        (
            "CREATE TRIGGER own BEFORE INSERT ON mine.own FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
            "permission denied for function auth.check_provider",
        ),
        (
            "CREATE TRIGGER own AFTER INSERT ON mine.own EXECUTE FUNCTION auth.providers_written()",
            "permission denied for function auth.providers_written",
        ),
        (
            "CREATE TABLE auth.providers2 ()",
            "permission denied for schema auth",
        ),
        (
            "CREATE TYPE auth.x AS ENUM ()",
            "permission denied for schema auth",
        ),
        ("DROP SCHEMA auth CASCADE", "must be owner of schema auth"),
    ] {
        let refusal = app.refused(&format!("BEGIN; {sql}; COMMIT"));
        println!("{sql}: {}", refusal.message);
        app.run("ROLLBACK");
        assert_eq!(refusal.sqlstate, "42501", "{sql}: {refusal:?}");
        // Which of the two words Postgres says depends on its version.
        let wanted = [
            message.to_owned(),
            message.replace("owner of table", "owner of relation"),
        ];
        assert!(wanted.contains(&refusal.message), "{sql}: {refusal:?}");
    }
    // These only warn.
    for sql in ["ANALYZE auth.providers", "VACUUM auth.providers"] {
        app.run(sql);
        let notices = app.notices();
        assert!(
            notices
                .iter()
                .any(|n| n.starts_with("WARNING: ") && n.contains("providers")),
            "{sql}: {notices:?}"
        );
    }
    // Statistics would hold the most common values.
    db.superuser().run("ANALYZE auth.providers");
    assert_eq!(
        app.rows("SELECT * FROM pg_stats WHERE schemaname = 'auth'"),
        [""; 0]
    );
    // A view of its own shows nobody more than he may see.
    app.run("CREATE VIEW mine.view AS SELECT * FROM auth.providers");
    app.refused("TABLE mine.view").assert("42501", denied);
    let called = app.refused("SELECT auth.check_provider()");
    assert_eq!(called.sqlstate, "42501", "{called:?}");
}

#[test]
fn the_trigger_functions_work_on_no_other_table() {
    let (db, _issuer) = database();
    let mut admin = db.superuser();
    admin.run(
        "CREATE TABLE own (LIKE auth.providers);
         CREATE TRIGGER one BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    );
    let protocol = ("39P01", "this trigger function is for auth.providers");
    let insert = "INSERT INTO own SELECT * FROM auth.providers";
    admin.refused(insert).assert(protocol.0, protocol.1);
    admin.run(
        "DROP TRIGGER one ON own;
         CREATE TRIGGER two AFTER INSERT ON own EXECUTE FUNCTION auth.providers_written()",
    );
    admin.refused(insert).assert(protocol.0, protocol.1);
    for function in ["check_provider", "providers_written"] {
        admin
            .refused(&format!("SELECT auth.{function}()"))
            .assert(protocol.0, protocol.1);
    }
}

#[test]
fn nothing_in_a_users_search_path_changes_whom_the_database_trusts() {
    let (db, issuer) = database();
    let attacker = Issuer::ed25519();
    let good = token(&issuer, "alice");
    let forged = token(&attacker, "admin");
    let own_row = Row::new("evil", ISS, &[&attacker])
        .insert()
        .replace("auth.providers", "mine.providers");
    let shadows = [
        "CREATE TABLE mine.providers (name text, issuer text, jwks jsonb, jwks_url text,
             audience text[], authorized_parties text[], algorithms text[],
             required_claims text[] DEFAULT '{}', role_claim text[] DEFAULT '{role}',
             allowed_roles name[] DEFAULT '{postgres}', default_role name,
             enabled boolean DEFAULT true)",
        &own_row,
        "CREATE TEMP TABLE providers AS TABLE mine.providers",
        "CREATE FUNCTION mine.row_to_json(anyelement) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'",
        "CREATE FUNCTION mine.jsonb_in(text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
        "CREATE FUNCTION mine.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$",
        "CREATE FUNCTION mine.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OPERATOR mine.= (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.yes)",
        "CREATE TYPE mine.json AS ENUM ('x')",
        "CREATE TYPE mine.jsonb AS ENUM ('x')",
        "CREATE TYPE mine.name AS ENUM ('x')",
        "CREATE DOMAIN mine.text AS pg_catalog.text CHECK (false)",
    ];
    let mut app = db.app();
    for sql in shadows {
        app.run(sql);
    }
    // A cast is global: it needs to own one of the types, which an ordinary role does not.
    app.refused("CREATE CAST (pg_catalog.jsonb AS pg_catalog.json) WITHOUT FUNCTION")
        .assert("42501", "must be owner of type jsonb or type json");
    for path in [
        "mine, pg_temp, pg_catalog",
        "pg_temp, mine, auth, pg_catalog",
        "",
    ] {
        // Prepared before and after the path was set, cold and warm.
        for stale in [false, true] {
            app.run(&format!(
                "SELECT pg_catalog.set_config('search_path', '{path}', false)"
            ));
            if stale {
                db.superuser()
                    .run("UPDATE auth.providers SET enabled = true");
            }
            app.rejected(&forged)
                .assert_stage("signature", first_line::SIGNATURE);
            app.present(&good);
            app.assert_user("alice");
            assert_eq!(
                app.rows("SELECT provider, subject FROM auth.status()"),
                ["main|alice"]
            );
        }
    }
    // Nor does it when the row is written.
    let writer = db.role("writer");
    let mut admin = db.superuser();
    admin.run(&format!(
        "GRANT INSERT, SELECT ON auth.providers TO {writer}; GRANT USAGE ON SCHEMA mine TO {writer}"
    ));
    let mut writer = db.connect(&writer, "");
    writer.run("SET search_path = mine, pg_temp, pg_catalog");
    writer
        .refused(&Row::new("second", ISS, &[&attacker]).insert())
        .assert("22023", "invalid provider \"second\"");
    writer.run(&Row::new("second", "https://second.example", &[&attacker]).insert());
    assert_eq!(
        writer.text("SELECT created_at > '2020-01-01'::pg_catalog.timestamptz FROM auth.providers WHERE name OPERATOR(pg_catalog.=) 'second'"),
        "t"
    );
}

#[test]
fn a_parallel_worker_trusts_whom_its_leader_trusts() {
    let (db, issuer) = database();
    let mut admin = db.superuser();
    let force = if pg_major() == 15 {
        "force_parallel_mode"
    } else {
        "debug_parallel_query"
    };
    let mut app = db.app();
    app.run(&format!("SET {force} = on"));
    let plan = app.rows("EXPLAIN SELECT auth.user_id()").join("\n");
    assert!(plan.contains("Workers Planned: 1"), "{plan}");
    app.assert_nobody();
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(&issuer, "alice"))
    ));
    app.assert_user("alice");
    assert_eq!(app.text("SELECT provider FROM auth.status()"), "main");
    app.refused("SELECT count(*) FROM auth.providers")
        .assert("42501", "permission denied for table providers");
    admin.run("UPDATE auth.providers SET audience = '{x}'");
    app.user_refused()
        .assert_stage("policy", first_line::AUDIENCE);
    admin.run("UPDATE auth.providers SET audience = NULL");
    app.assert_user("alice");
    // A worker sees what its own transaction has written.
    admin.run(&format!(
        "SET {force} = on; BEGIN; DELETE FROM auth.providers"
    ));
    admin
        .refused(&format!(
            "SELECT auth.verify({})",
            sql_text(&token(&issuer, "alice"))
        ))
        .assert_stage("key", first_line::NO_KEY);
    admin.run("ROLLBACK");
    app.assert_user("alice");
}

#[test]
fn set_session_authorization_gives_no_more_and_takes_nothing() {
    let (db, issuer) = database();
    let mut session = db.superuser();
    let token = token(&issuer, "alice");
    session.run(&format!("SET SESSION AUTHORIZATION {APP_USER}"));
    session
        .refused("TABLE auth.providers")
        .assert("42501", "permission denied for table providers");
    session.present(&token);
    session.assert_user("alice");
    session
        .rejected(&harness::token(&Issuer::ed25519(), "bob"))
        .assert_stage("signature", first_line::SIGNATURE);
    db.superuser()
        .run("UPDATE auth.providers SET enabled = false");
    session
        .user_refused()
        .assert_stage("key", first_line::ISSUER);
    session.run("RESET SESSION AUTHORIZATION; UPDATE auth.providers SET enabled = true");
    session.assert_user("alice");
}

#[test]
fn nothing_that_a_client_brings_counts_beside_a_provider() {
    let (db, issuer, own) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut admin = db.superuser();
    let init = format!("SELECT auth.init({})", sql_text(&own.jwk().to_string()));
    // Keys that a connection had before.
    let mut started = db.app_with_key(&own);
    started.run("SELECT auth.init()");
    started.present(&own.token_for("mallory"));
    started.assert_user("mallory");
    let mut pinned = db.superuser();
    pinned.run(&init);
    pinned.run("SET SESSION AUTHORIZATION app_user");
    pinned.present(&own.token_for("mallory"));
    pinned.assert_user("mallory");
    let mut requested = db.app();
    requested.run(r#"SET request.jwt.claims = '{"sub": "mallory"}'"#);
    requested.assert_user("mallory");

    admin.register(&[&issuer]);
    for session in [&mut started, &mut pinned] {
        session
            .user_refused()
            .assert_stage("key", first_line::ISSUER);
        session
            .rejected(&own.token_for("mallory"))
            .assert_stage("key", first_line::ISSUER);
        session
            .rejected(&token(&own, "mallory"))
            .assert_stage("signature", first_line::SIGNATURE);
        session
            .refused("SELECT auth.init()")
            .assert("55000", NOT_TRUSTED);
        session.run("SELECT auth.logout()");
        session.assert_nobody();
        session.run(r#"SET request.jwt.claims = '{"sub": "mallory"}'"#);
        session.assert_nobody();
        // It may use the database's own.
        session.present(&token(&issuer, "alice"));
        session.assert_user("alice");
    }
    requested.assert_nobody();
    assert_eq!(
        requested.text("SELECT source FROM auth.status()"),
        "auth.providers"
    );
    requested.run("SELECT auth.init()");
    let refusal = admin.refused(&init);
    refusal.assert("55000", NOT_TRUSTED);
    assert!(
        !refusal.detail.is_empty() && !refusal.hint.is_empty(),
        "{refusal:?}"
    );
    let mut late = db.app_with_key(&own);
    late.refused("SELECT auth.init()")
        .assert("55000", NOT_TRUSTED);
    late.rejected(&own.token_for("mallory"))
        .assert_stage("key", first_line::ISSUER);
    // Replay is a matter of startup keys, and they do not count: the same id may come again.
    let numbered = token_with(&issuer, "alice", &json!({"jti": 7}));
    late.present(&numbered);
    late.run("SELECT auth.logout()");
    late.present(&numbered);
    late.assert_user("alice");

    // Claims that a superuser sets win over everything.
    admin.run(r#"SET pg_session_jwt.claims = '{"sub": "carol"}'"#);
    admin.assert_user("carol");
    admin.run("RESET pg_session_jwt.claims");

    // A provider that is disabled is one all the same: nobody is trusted.
    admin.run("UPDATE auth.providers SET enabled = false");
    requested.assert_nobody();
    late.refused("SELECT auth.init()")
        .assert("55000", NOT_TRUSTED);
    admin.run("DELETE FROM auth.providers");
    requested.assert_user("mallory");
    late.run("SELECT auth.logout(); SELECT auth.init()");
    late.present(&own.token_for("mallory"));
    late.assert_user("mallory");
    admin.run(&init);
}

#[test]
fn a_preloaded_library_judges_the_startup_packet_by_the_providers() {
    let (issuer, own) = (Issuer::ed25519(), Issuer::ed25519());
    for preload in ["shared_preload_libraries", "session_preload_libraries"] {
        let cluster = Cluster::start(&format!("{preload} = 'pg_session_jwt'"));
        let mut admin = cluster.connect("postgres", "postgres");
        admin.run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app LOGIN");
        let with_key = |key: &Issuer, token: &str| {
            let options = [
                option("pg_session_jwt.jwk", &key.jwk().to_string()),
                option("pg_session_jwt.jwt", token),
            ];
            cluster.connect_with("postgres", "app", &options.join(" "))
        };
        let (mine, good) = (own.token_for("mallory"), token(&issuer, "alice"));
        with_key(&own, &mine).assert_user("mallory");
        admin.run(&Row::main(&[&issuer]).insert());
        with_key(&own, &mine)
            .user_refused()
            .assert_stage("key", first_line::ISSUER);
        with_key(&own, &good).assert_user("alice");
        with_key(&issuer, &issuer.token_for("alice"))
            .user_refused()
            .assert_stage("key", first_line::ISSUER);
        let mut app = with_key(&own, &good);
        app.run("RESET pg_session_jwt.jwt");
        app.assert_user("alice");
        app.run("DISCARD ALL");
        app.assert_user("alice");
        // A token that is stored for a role is nobody's.
        admin.run(&format!(
            "ALTER ROLE app SET pg_session_jwt.jwt = {}",
            sql_text(&good)
        ));
        cluster.connect("postgres", "app").assert_nobody();
        assert!(!cluster.log().contains("terminated by signal"));
    }
}

#[test]
fn a_row_too_large_to_read_in_one_breath_is_read_or_refused() {
    // Out of line and compressed, read while a statement times out again and again: whatever becomes
    // of the statements, the client's key never counts.
    let (db, issuer, attacker) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut keys = vec![issuer.jwk()];
    keys.extend((0..400).map(|i| Issuer::ed25519().with_kid(&format!("k{i}")).jwk()));
    let mut admin = db.superuser();
    admin.run(
        &Row::main(&[])
            .with("jwks", &sql_text(&jwks(&keys)))
            .insert(),
    );
    let forged = sql_text(&attacker.token_for("mallory"));
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for milliseconds in 1..40 {
        let mut app = db.app_with_key(&attacker);
        app.run(&format!("SET statement_timeout = {milliseconds}"));
        for _ in 0..3 {
            match app.try_value(&format!("SELECT auth.verify({forged})->>'sub'")) {
                Ok(user) => panic!("{user:?} was let in"),
                Err(refusal) => *outcomes.entry(refusal.sqlstate).or_default() += 1,
            }
        }
    }
    println!("{outcomes:?}");
    assert!(
        outcomes.keys().all(|s| ["28000", "57014"].contains(&&**s)),
        "{outcomes:?}"
    );
}

/// Changes that make a row a bad one, with the beginning of the DETAIL that says so.
fn bad_rows() -> Vec<(&'static str, String, &'static str)> {
    let rsa_1024 = json!({"kty": "RSA", "e": "AQAB", "n": b64(&[0xC1; 128])});
    let json = |value: Value| sql_text(&value.to_string());
    vec![
        ("name", "''".into(), "the name is empty"),
        ("issuer", "''".into(), "the issuer is empty"),
        ("jwks", json(json!("text")), "jwks: "),
        ("jwks", json(json!([])), "jwks: "),
        ("jwks", json(json!({})), "jwks: "),
        ("jwks", json(json!({"keys": {}})), "jwks: "),
        ("jwks", json(json!({"keys": []})), "jwks: no usable key"),
        (
            "jwks",
            json(json!({"keys": [{"kty": "OKP", "crv": "X25519", "x": "AA"}]})),
            "jwks: no usable key",
        ),
        (
            "jwks",
            json(Issuer::ed25519().with("use", "enc").jwk()),
            "jwks: no usable key",
        ),
        (
            "jwks",
            json(Issuer::ed25519().with("d", b64(&[7; 32])).jwk()),
            "jwks: key 1: it is a private key",
        ),
        ("jwks", json(rsa_1024), "jwks: no usable key: key 1: "),
        (
            "jwks",
            json(Issuer::secret(&[7; 31]).jwk()),
            "jwks: no usable key: key 1: the secret has 31 bytes",
        ),
        ("jwks_url", "'http://example.com/jwks'".into(), "jwks_url "),
        ("jwks_url", "'ftp://localhost/jwks'".into(), "jwks_url "),
        ("jwks_url", "''".into(), "jwks_url "),
        (
            "algorithms",
            "'{EdDSA,none}'".into(),
            "algorithm \"none\" is not supported",
        ),
        (
            "algorithms",
            "'{eddsa}'".into(),
            "algorithm \"eddsa\" is not supported",
        ),
        (
            "algorithms",
            "'{ES256K}'".into(),
            "algorithm \"ES256K\" is not supported",
        ),
        ("algorithms", "'{RS256}'".into(), "no usable key"),
        ("algorithms", "'{}'".into(), "no usable key"),
        ("algorithms", "'{EdDSA,NULL}'".into(), ""),
        ("algorithms", "'{{EdDSA},{ES256}}'".into(), ""),
        ("audience", "'{}'".into(), ""),
        ("audience", "'{NULL}'".into(), ""),
        ("audience", "'{{a},{b}}'".into(), ""),
        ("authorized_parties", "'{}'".into(), ""),
        ("authorized_parties", "'{a,NULL}'".into(), ""),
        ("authorized_parties", "'{{a}}'".into(), ""),
        ("required_claims", "'{exp,NULL}'".into(), ""),
        ("required_claims", "'{{exp}}'".into(), ""),
        ("role_claim", "'{}'".into(), "role_claim is empty"),
        ("role_claim", "'{NULL}'".into(), ""),
        ("role_claim", "'{{role}}'".into(), ""),
        (
            "allowed_roles",
            "'{none}'".into(),
            "\"none\" is not the name of a role",
        ),
        ("allowed_roles", "'{authenticated,NULL}'".into(), ""),
        ("allowed_roles", "'{{authenticated}}'".into(), ""),
        (
            "default_role",
            "'none'".into(),
            "\"none\" is not the name of a role",
        ),
        (
            "default_role",
            "''".into(),
            "\"\" is not the name of a role",
        ),
    ]
}

#[test]
fn a_row_without_keys_or_an_address_of_keys_is_refused() {
    let db = Database::new();
    let mut admin = db.superuser();
    for (issuer, jwks_url, detail) in [
        ("NULL", "NULL", "the provider has no keys"),
        (
            "'supabase'",
            "NULL",
            "the issuer \"supabase\" is neither https nor http, so it has no discovery document",
        ),
        (
            "'http://id.example.com'",
            "NULL",
            "the issuer \"http://id.example.com\" is neither https nor loopback, so it has no discovery document",
        ),
        (
            "'https://id.example.com'",
            "'http://id.example.com/jwks'",
            "jwks_url \"http://id.example.com/jwks\" is neither https nor loopback",
        ),
        (
            "NULL",
            "'https://user@id.example.com/jwks'",
            "jwks_url \"https://user@id.example.com/jwks\" has a user name",
        ),
    ] {
        let refusal = admin.refused(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('new', {issuer}, {jwks_url})"
        ));
        refusal.assert("22023", "invalid provider \"new\"");
        assert_eq!(refusal.detail, detail);
        assert!(!refusal.hint.is_empty());
    }
    // With keys of its own, an issuer need not be an address.
    admin.run(&Row::new("own", "supabase", &[&Issuer::ed25519()]).insert());
}

#[test]
fn a_bad_row_is_refused_when_it_is_written() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    admin.run(&Row::new("other", "https://other.example", &[&issuer]).insert());
    let mut wrong = Vec::new();
    for (column, value, detail) in bad_rows() {
        let row = Row::new("new", "https://new.example", &[&issuer]).with(column, &value);
        let expected = |is_update| {
            let name = match (column, is_update) {
                ("name", _) => "",
                (_, true) => "other",
                (_, false) => "new",
            };
            format!("invalid provider \"{name}\"")
        };
        let update = format!("UPDATE auth.providers SET {column} = {value} WHERE name = 'other'");
        for enabled in ["true", "false"] {
            let insert = row.clone().with("enabled", enabled).insert();
            for sql in [&insert, &update] {
                admin.run("BEGIN");
                match admin.try_run(sql) {
                    Err(refusal)
                        if refusal.sqlstate == "22023"
                            && refusal.message == expected(sql == &update)
                            && refusal.detail.starts_with(detail)
                            && !refusal.detail.is_empty()
                            && !refusal.hint.is_empty() => {}
                    answer => wrong.push(format!("{column} = {value}: {answer:?}")),
                }
                admin.run("ROLLBACK");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} should have been refused with 22023, DETAIL and HINT:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // What jsonb itself does not take.
    let refusal = admin.refused("INSERT INTO auth.providers (name, jwks) VALUES ('new', '{')");
    refusal.assert("22P02", "invalid input syntax for type json");
    for column in ["required_claims", "role_claim", "allowed_roles", "enabled"] {
        let row = Row::new("new", "https://new.example", &[&issuer]).with(column, "NULL");
        admin
            .refused(&row.insert())
            .assert("22023", "invalid provider \"new\"");
    }
    // Good ones, to be sure that it is the change that was bad.
    for (column, value) in [
        ("jwks_url", "'https://example.com/jwks'"),
        ("jwks_url", "'http://127.0.0.1:3000/jwks'"),
        ("algorithms", "'{EdDSA}'"),
        ("issuer", "NULL"),
        ("required_claims", "'{}'"),
        ("allowed_roles", "'{}'"),
        ("default_role", "'anonymous'"),
    ] {
        let row = Row::new("new", "https://new.example", &[&issuer]).with(column, value);
        admin.run(&row.insert());
        admin.run("DELETE FROM auth.providers WHERE name = 'new'");
    }
}

#[test]
fn an_error_about_a_row_never_shows_a_key() {
    let db = Database::new();
    let mut admin = db.superuser();
    let secret = Issuer::hs256();
    let k = secret.jwk()["k"].as_str().unwrap().to_owned();
    let private = Issuer::ed25519().with("d", "AA").jwk();
    let mixed = json!({"keys": [secret.jwk(), private]});
    let refusal = admin.refused(&Row::main(&[]).jwks(&mixed).insert());
    refusal.assert("22023", "invalid provider \"main\"");
    assert!(!format!("{refusal:?}").contains(&k), "{refusal:?}");
    // Nor does a warning about one that is ignored.
    let ignored = secret.with("use", "enc").jwk();
    let mixed = json!({"keys": [ignored, Issuer::ed25519().jwk()]});
    admin.run(&Row::main(&[]).jwks(&mixed).insert());
    let notices = admin.notices();
    assert_eq!(notices, ["WARNING: keys of provider \"main\" are ignored"]);
}

#[test]
fn two_rows_that_could_claim_one_token_are_refused() {
    let (db, one, two) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&one]);
    let second = Row::new("second", ISS, &[&two]);
    let check = |refusal: harness::Refusal| {
        assert_eq!(refusal.sqlstate, "22023", "{refusal:?}");
        assert!(
            ["invalid provider \"main\"", "invalid provider \"second\""]
                .contains(&&*refusal.message),
            "{refusal:?}"
        );
        assert!(
            refusal.detail.contains("EdDSA") && !refusal.hint.is_empty(),
            "{refusal:?}"
        );
    };
    check(admin.refused(&second.insert()));
    // Also with different key ids: a token may have none.
    check(
        admin.refused(
            &second
                .clone()
                .keys(&[&Issuer::ed25519().with_kid("k")])
                .insert(),
        ),
    );
    admin.run(&second.clone().with("enabled", "false").insert());
    check(admin.refused("UPDATE auth.providers SET enabled = true WHERE name = 'second'"));
    check(admin.refused("UPDATE auth.providers SET enabled = true"));
    // In one statement they may change places.
    admin.run("UPDATE auth.providers SET enabled = NOT enabled");
    admin.run("DELETE FROM auth.providers");
    check(admin.refused(&format!(
        "{}; {}",
        Row::main(&[&one]).insert(),
        second.insert()
    )));
    check(admin.refused(&format!(
        "WITH a AS ({} RETURNING 1) {}",
        Row::main(&[&one]).insert(),
        second.insert()
    )));
    // Rows without an issuer are rows of one.
    admin.run(&Row::main(&[&one]).with("issuer", "NULL").insert());
    check(admin.refused(&second.clone().with("issuer", "NULL").insert()));
    admin.run(&second.insert());
    admin.run("DELETE FROM auth.providers");
    // Different algorithms are what it takes.
    admin.run(&Row::main(&[&one]).insert());
    admin.run(&Row::new("second", ISS, &[&Issuer::hs256()]).insert());
    admin.run(
        &Row::new("third", ISS, &[&Issuer::rs256()])
            .with("algorithms", "'{RS256}'")
            .insert(),
    );
    admin.run(
        &Row::new("fourth", ISS, &[&Issuer::other_rs256()])
            .with("algorithms", "'{PS256}'")
            .insert(),
    );
    let refusal =
        admin.refused("UPDATE auth.providers SET algorithms = NULL WHERE name = 'fourth'");
    assert_eq!(refusal.sqlstate, "22023", "{refusal:?}");
}

fn wait_for_lock(session: &mut Session, pid: &str) {
    let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    let deadline = Instant::now() + Duration::from_secs(20);
    while session.text(&waits) == "0" {
        assert!(Instant::now() < deadline, "backend {pid} waits for no lock");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn of_two_transactions_that_write_such_rows_one_waits_and_fails() {
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for ending in ["COMMIT", "ROLLBACK"] {
            let db = Database::new();
            let [mut first, mut second, mut watch] = std::array::from_fn(|_| db.superuser());
            let pid = second.pid();
            for session in [&mut first, &mut second] {
                session.run(&format!(
                    "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM pg_class"
                ));
            }
            first.run(&Row::new("first", ISS, &[&Issuer::ed25519()]).insert());
            let answer = std::thread::scope(|threads| {
                let insert = Row::new("second", ISS, &[&Issuer::ed25519()]).insert();
                let writer = threads.spawn(move || second.try_run(&format!("{insert}; COMMIT")));
                wait_for_lock(&mut watch, &pid);
                first.run(ending);
                writer.join().unwrap()
            });
            if ending == "COMMIT" {
                answer
                    .unwrap_err()
                    .assert("22023", "invalid provider \"second\"");
            } else {
                assert_eq!(answer, Ok(()));
            }
            let left = if ending == "COMMIT" {
                "first"
            } else {
                "second"
            };
            assert_eq!(watch.rows("SELECT name FROM auth.providers"), [left]);
        }
    }
}

#[test]
fn the_times_of_a_row_are_kept() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    assert_eq!(
        admin.text("SELECT created_at = updated_at AND created_at <= now() FROM auth.providers"),
        "t"
    );
    let created = admin.text("SELECT created_at FROM auth.providers");
    admin.run("UPDATE auth.providers SET audience = NULL");
    assert_eq!(
        admin.text("SELECT updated_at > created_at FROM auth.providers"),
        "t"
    );
    admin.run("BEGIN; UPDATE auth.providers SET updated_at = 'epoch'");
    assert_eq!(
        admin.text("SELECT updated_at = now() FROM auth.providers"),
        "t"
    );
    admin.run("COMMIT");
    assert_eq!(admin.text("SELECT created_at FROM auth.providers"), created);
}

#[test]
fn rows_are_checked_whatever_session_replication_role_says() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    let mut app = db.app();
    app.assert_nobody();
    admin.run("SET session_replication_role = replica");
    admin
        .refused(&Row::main(&[&issuer]).jwks(&json!({"keys": []})).insert())
        .assert("22023", "invalid provider \"main\"");
    admin.register(&[&issuer]);
    admin
        .refused(&Row::new("second", ISS, &[&Issuer::ed25519()]).insert())
        .assert("22023", "invalid provider \"second\"");
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
    admin.run("DELETE FROM auth.providers");
    app.user_refused().assert_stage("key", first_line::NO_KEY);
}
