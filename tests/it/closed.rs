//! While a provider is there, nothing below it is trusted: whatever is renamed, moved, disabled, or put in
//! a table's place.

use harness::{
    APP_USER, Cluster, Database, ISS, Issuer, Row, Session, first_line, option, sql_text, token,
    wait_until,
};
use serde_json::json;

const BOB: &str = r#"SET request.jwt.claims = '{"sub":"bob"}'"#;

/// Nobody is bob by PostgREST's claims or by a key of the connection, and the provider's tokens count.
#[track_caller]
fn assert_only_the_provider_counts(db: &Database, schema: &str, issuer: &Issuer) {
    let stranger = Issuer::ed25519();
    let key = option("pg_session_jwt.jwk", &stranger.jwk().to_string());
    for options in [String::new(), key] {
        let mut app = db.connect(APP_USER, &options);
        app.run(BOB);
        let who = format!("SELECT {schema}.user_id()");
        assert_eq!(app.value(&who), None);
        let present = |token: String| {
            let token = sql_text(&token);
            format!("SELECT {schema}.jwt_session_init({token})")
        };
        app.refused(&present(stranger.token_for("bob")))
            .assert_stage("key", first_line::ISSUER);
        app.run(&present(token(issuer, "alice")));
        assert_eq!(app.text(&who), "alice");
    }
}

#[test]
fn a_table_that_is_renamed_or_moved_says_whom_to_trust_as_before() {
    let issuer = Issuer::ed25519();
    for (change, schema) in [
        ("ALTER TABLE auth.providers RENAME TO issuers", "auth"),
        ("ALTER TABLE auth.providers SET SCHEMA public", "auth"),
        ("ALTER SCHEMA auth RENAME TO identity", "identity"),
        (
            "ALTER TABLE auth.providers RENAME TO away;
             CREATE TABLE auth.providers (LIKE auth.away)",
            "auth",
        ),
        (
            "ALTER TABLE auth.providers RENAME TO away; CREATE VIEW auth.providers AS SELECT 1",
            "auth",
        ),
        (
            "ALTER TRIGGER check_provider ON auth.providers RENAME TO other",
            "auth",
        ),
    ] {
        let db = Database::new();
        let mut admin = db.superuser();
        admin.register(&[&issuer]);
        let mut before = db.app();
        before.present(&token(&issuer, "alice"));
        admin.run(change);
        before.run(BOB);
        if schema == "auth" {
            before.assert_user("alice");
        }
        assert_only_the_provider_counts(&db, schema, &issuer);
        // A change of rows is noticed as before.
        let table = admin.text(
            "SELECT extconfig[1]::regclass FROM pg_extension WHERE extname = 'pg_session_jwt'",
        );
        admin.run(&format!("UPDATE {table} SET enabled = false"));
        before
            .refused(&format!("SELECT {schema}.user_id()"))
            .assert_stage("key", first_line::ISSUER);
        admin
            .refused(&format!("INSERT INTO {table} (name) VALUES ('x')"))
            .assert("22023", "invalid provider \"x\"");
    }
}

#[test]
fn where_all_providers_are_disabled_nobody_is_trusted() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let mut app = db.app();
    app.present(&token(&issuer, "alice"));
    admin.run("UPDATE auth.providers SET enabled = false");
    let refusal = app.user_refused();
    refusal.assert_stage("key", first_line::ISSUER);
    assert_eq!(refusal.hint, "The matching provider \"main\" is disabled.");
    app.run("SELECT auth.logout()");
    app.run(BOB);
    app.assert_nobody();
    assert_eq!(app.tasks(), [""; 0]);
    assert_eq!(
        app.rows("SELECT source, problem FROM auth.status()"),
        ["auth.providers|No token has been presented to this session, or it was forgotten."]
    );
    let mut own = db.app_with_key(&issuer);
    own.run(BOB);
    own.assert_nobody();
    own.refused("SELECT auth.init()").assert(
        "55000",
        "keys of a connection are not trusted while a provider is registered",
    );
    admin
        .refused(&format!(
            "SELECT auth.init({})",
            sql_text(&issuer.jwk().to_string())
        ))
        .assert(
            "55000",
            "keys of a connection are not trusted while a provider is registered",
        );
    // The last row deleted, the sources below count again.
    admin.run("DELETE FROM auth.providers");
    own.present(&issuer.token_for("alice"));
    own.assert_user("alice");
    app.assert_user("bob");
}

/// Neon's proxy, whose key stops counting in the middle of a pooled connection's life.
#[test]
fn a_connection_is_told_that_its_own_key_does_not_count() {
    let (db, proxy, issuer) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut app = db.app_with_key(&proxy);
    app.run("SELECT auth.init()");
    app.present(&proxy.token(&json!({"sub": "alice", "jti": 1})));
    app.assert_user("alice");
    db.superuser().register(&[&issuer]);
    let ignored = "The key in pg_session_jwt.jwk is ignored on this connection: while auth.providers has a \
                   row, only its providers are trusted.";
    let next = proxy.token(&json!({"sub": "alice", "jti": 2}));
    for refusal in [
        app.user_refused(),
        app.rejected(&next),
        app.refused(&format!("SELECT auth.verify({})", sql_text(&next))),
        app.rejected(&token(&proxy, "alice")),
        app.rejected(&token(&Issuer::es256(), "alice")),
    ] {
        assert_eq!(refusal.sqlstate, "28000", "{refusal:?}");
        assert!(refusal.hint.ends_with(ignored), "{refusal:?}");
    }
    app.run("SELECT auth.logout()");
    let problem = app.text("SELECT problem FROM auth.status()");
    assert!(problem.ends_with(ignored), "{problem}");
    // Of a token that fails for another reason, that is none of the causes.
    let refusal = app.rejected("a.b.c.d");
    assert!(!refusal.hint.contains("pg_session_jwt.jwk"), "{refusal:?}");
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
}

#[test]
fn the_triggers_functions_are_no_use_elsewhere() {
    let db = Database::new();
    let mut admin = db.superuser();
    let (one, two) = (Issuer::ed25519(), Issuer::es256());
    admin.register(&[&one]);
    admin.run(
        "CREATE TABLE other (name text, updated_at timestamptz); INSERT INTO other VALUES ('a')",
    );
    let message = "this trigger function is for auth.providers";
    for function in ["check_provider", "providers_written"] {
        for table in ["auth.providers", "other"] {
            for (time, each) in [
                ("BEFORE", "STATEMENT"),
                ("AFTER", "STATEMENT"),
                ("BEFORE", "ROW"),
                ("AFTER", "ROW"),
            ] {
                let own = match function {
                    "check_provider" => ("BEFORE", "ROW"),
                    _ => ("AFTER", "STATEMENT"),
                };
                let fits = table == "auth.providers" && (time, each) == own;
                for event in ["INSERT", "UPDATE", "DELETE", "TRUNCATE"] {
                    if event == "TRUNCATE" && each == "ROW" {
                        continue;
                    }
                    let act = match event {
                        "INSERT" if table == "other" => "INSERT INTO other VALUES ('b')".to_owned(),
                        "INSERT" => Row::new("two", "https://two.example", &[&two]).insert(),
                        "UPDATE" => format!("UPDATE {table} SET name = name"),
                        "DELETE" => format!("DELETE FROM {table}"),
                        _ => format!("TRUNCATE {table}"),
                    };
                    admin.run(&format!(
                        "BEGIN; CREATE TRIGGER aaa {time} {event} ON {table} FOR EACH {each}
                             EXECUTE FUNCTION auth.{function}()"
                    ));
                    if fits {
                        admin.run(&act);
                    } else {
                        let refusal = admin.refused(&act);
                        refusal.assert("39P01", message);
                    }
                    admin.run("ROLLBACK");
                }
            }
        }
        admin
            .refused(&format!("SELECT auth.{function}()"))
            .assert("39P01", message);
    }
}

/// Two rows of one issuer that share an algorithm, as logical replication brings them about: it fires no
/// trigger for a statement.
#[test]
fn a_token_that_two_rows_could_claim_is_nobodys() {
    let (db, one, two) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut admin = db.superuser();
    let rsa = Issuer::rs256();
    admin.run(&format!(
        "{}; {}; ALTER TABLE auth.providers DISABLE TRIGGER providers_written; {}; {}; {};
         ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER providers_written",
        Row::new("one", ISS, &[&one]).insert(),
        Row::new("rsa", ISS, &[&rsa]).insert(),
        Row::new("two", ISS, &[&two]).insert(),
        Row::new("third", "https://third.example", &[&one]).insert(),
        Row::new("fourth", "https://third.example", &[&two]).insert(),
    ));
    let mut app = db.app();
    for issuer in [&one, &two] {
        let refusal = app.rejected(&token(issuer, "alice"));
        refusal.assert_stage("key", "JWT could belong to several providers");
        assert_eq!(
            refusal.detail,
            "key: more than one provider has a matching key (providers \"one\", \"two\")"
        );
        assert_eq!(
            refusal.hint,
            "Put the keys into one row, set algorithms so that they differ, or disable one."
        );
    }
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(&one, "alice"))
    ));
    let problem = app.text("SELECT problem FROM auth.status()");
    assert!(problem.contains("\"one\", \"two\""), "{problem}");
    app.run("RESET pg_session_jwt.jwt");
    // One that only one row could claim is that row's.
    app.present(&token(&rsa, "alice"));
    app.assert_user("alice");
    // A new row must not join them; a correction of one pair does not wait for that of the other.
    admin
        .refused(&Row::new("five", ISS, &[&Issuer::ed25519()]).insert())
        .assert("22023", "invalid provider \"five\"");
    admin
        .refused("UPDATE auth.providers SET audience = '{x}' WHERE name = 'one'")
        .assert("22023", "invalid provider \"one\"");
    admin.run("UPDATE auth.providers SET enabled = false WHERE name = 'two'");
    app.present(&token(&one, "alice"));
    app.assert_user("alice");
    admin.run("UPDATE auth.providers SET issuer = 'https://fourth.example' WHERE name = 'fourth'");
    admin.run("UPDATE auth.providers SET audience = '{x}' WHERE name IN ('third', 'fourth')");
}

#[test]
fn is_local_has_no_null() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let alice = sql_text(&issuer.token_for("alice"));
    for call in ["jwt_session_init", "login"] {
        app.refused(&format!("SELECT auth.{call}({alice}, NULL)"))
            .assert("22004", "is_local must not be null");
    }
    app.assert_nobody();
}

#[test]
fn the_least_of_all_ids_is_no_replay() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let token = |jti: i64| issuer.token(&json!({"sub": "alice", "jti": jti}));
    let mut app = db.app_with_key(&issuer);
    app.present(&token(i64::MIN));
    app.assert_user("alice");
    app.rejected(&token(i64::MIN))
        .assert_stage("policy", first_line::REPLAY);
    app.present(&token(i64::MIN + 1));
    let mut app = db.app_with_key(&issuer);
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(i64::MIN))
    ));
    app.assert_user("alice");
}

#[test]
fn init_warns_where_nothing_could_verify_a_token() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let warning =
        "WARNING: this connection has no key to verify a token with, and no provider is registered";
    let mut app = db.app();
    app.run("SELECT auth.init()");
    assert_eq!(app.notices(), [warning]);
    let mut with_key = db.app_with_key(&issuer);
    with_key.run("SELECT auth.init()");
    assert_eq!(with_key.notices(), [""; 0]);
    db.superuser().register(&[&issuer]);
    app.run("SELECT auth.init()");
    assert_eq!(app.notices(), [""; 0]);
}

/// As in 0.5.0: a policy is no place for an error about what anybody can set.
#[test]
fn postgrests_claims_that_are_no_object_are_nobody_and_the_status_says_why() {
    let db = Database::with_todos();
    let mut app = db.app();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(256 * 1024));
    for (claims, why) in [
        ("x", "not usable JSON: expected value at line 1 column 1"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (
            r#"{"sub":"bob","sub":"bob"}"#,
            "not usable JSON: member \"sub\" appears twice",
        ),
        (
            r#"{"sub":"bob","a":"\u0000"}"#,
            "not usable JSON: a string contains U+0000",
        ),
        (&long, "longer than 262144 bytes"),
    ] {
        app.run(&format!("SET request.jwt.claims = {}", sql_text(claims)));
        app.assert_nobody();
        assert_eq!(app.text("SELECT auth.jwt()"), "null");
        assert_eq!(app.tasks(), [""; 0]);
        assert_eq!(
            app.rows("SELECT source, problem FROM auth.status()"),
            [format!(
                "request.jwt.claims|request.jwt.claims is ignored: {why}."
            )]
        );
    }
    app.run(BOB);
    app.assert_user("bob");
    // A superuser's own claims are another matter.
    let mut admin = db.superuser();
    admin.run("SET pg_session_jwt.claims = '[]'");
    admin.refused("SELECT auth.user_id()").assert(
        "22023",
        "invalid value for parameter \"pg_session_jwt.claims\"",
    );
}

#[test]
fn a_replicated_overlap_is_told_and_can_be_corrected() {
    let cluster = Cluster::start("wal_level = logical");
    let (mut source, mut target) = cluster.logical_replication("");
    let (here, there) = (Issuer::ed25519(), Issuer::ed25519());
    let wait = |session: &mut Session, sql: &str| wait_until(sql, || session.text(sql) == "t");
    // What is copied at first is checked as any statement's rows are; what comes later is not.
    wait(
        &mut target,
        "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel",
    );
    target.run(&Row::new("here", ISS, &[&here]).insert());
    source.run(&Row::new("there", ISS, &[&there]).insert());
    wait(&mut target, "SELECT count(*) = 2 FROM auth.providers");
    let mut app = cluster.connect("target", APP_USER);
    for issuer in [&here, &there] {
        app.rejected(&token(issuer, "alice"))
            .assert_stage("key", "JWT could belong to several providers");
    }
    target.run("UPDATE auth.providers SET enabled = false WHERE name = 'there'");
    app.present(&token(&here, "alice"));
    app.assert_user("alice");
}

/// As development versions of Neon's extension declared one.
#[test]
fn a_function_that_is_declared_with_another_type_is_an_error_and_not_a_crash() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    db.superuser().run(
        "CREATE SCHEMA odd; GRANT USAGE ON SCHEMA odd TO PUBLIC;
         CREATE FUNCTION odd.uid() RETURNS text STABLE LANGUAGE c AS '$libdir/pg_session_jwt', 'uid_wrapper';
         CREATE FUNCTION odd.user_id() RETURNS uuid STABLE LANGUAGE c AS '$libdir/pg_session_jwt', 'user_id_wrapper';
         CREATE FUNCTION odd.has() RETURNS jsonb STABLE LANGUAGE c AS '$libdir/pg_session_jwt', 'has_permission_wrapper';
         CREATE FUNCTION odd.jwt() RETURNS bigint STABLE LANGUAGE c AS '$libdir/pg_session_jwt', 'jwt_wrapper';",
    );
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("0188a1b2-0000-7000-8000-0000000000ab"));
    for function in ["uid", "user_id", "has", "jwt"] {
        app.refused(&format!(
            "SELECT odd.{function}() FROM generate_series(1, 3)"
        ))
        .assert(
            "42P13",
            "the function is declared with another return type than it has",
        );
    }
}
