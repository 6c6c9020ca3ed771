//! `request_claims = verified`: policies that read `request.jwt.claims` read the verified claims, whatever
//! a session does.

use harness::{
    Cluster, Database, Issuer, Session, first_line, pg_major, sql_text, token, token_with,
};
use serde_json::json;

const BOB: &str = r#"{"sub":"bob","role":"x"}"#;
const CLAIMS: &str = "SELECT current_setting('request.jwt.claims', true)";

/// Policies as their guides have them: Clerk's, Supabase's, PostgREST's old ones.
const GUIDES: &str = "
    CREATE SCHEMA app;
    CREATE FUNCTION app.requesting_user_id() RETURNS text LANGUAGE sql STABLE AS $$
        SELECT NULLIF(current_setting('request.jwt.claims', true)::json->>'sub', '')::text
    $$;
    CREATE FUNCTION app.uid() RETURNS text LANGUAGE sql STABLE AS $$
        select coalesce(
            nullif(current_setting('request.jwt.claim.sub', true), ''),
            (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))
    $$;
    CREATE FUNCTION app.slow() RETURNS text LANGUAGE plpgsql STABLE AS $$
        begin return nullif(current_setting('request.jwt.claim.sub', true), ''); end
    $$;
    GRANT USAGE ON SCHEMA app TO PUBLIC;
    CREATE TABLE notes (id int, owner text);
    INSERT INTO notes VALUES (1, 'alice'), (2, 'bob'), (3, 'alice');
    CREATE TABLE clerk AS TABLE notes; CREATE TABLE supabase AS TABLE notes;
    CREATE TABLE plain AS TABLE notes; CREATE TABLE slow AS TABLE notes;
    CREATE POLICY p ON clerk USING (app.requesting_user_id() = owner);
    CREATE POLICY p ON supabase USING ((select app.uid()) = owner);
    CREATE POLICY p ON plain USING (current_setting('request.jwt.claim.sub', true) = owner);
    CREATE POLICY p ON slow USING (app.slow() = owner);
    ALTER TABLE clerk ENABLE ROW LEVEL SECURITY; ALTER TABLE supabase ENABLE ROW LEVEL SECURITY;
    ALTER TABLE plain ENABLE ROW LEVEL SECURITY; ALTER TABLE slow ENABLE ROW LEVEL SECURITY;
    GRANT ALL ON clerk, supabase, plain, slow TO PUBLIC;
    CREATE FUNCTION app.definer() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$
        SELECT current_setting('request.jwt.claims', true)::json->>'sub'
    $$;";

const TABLES: [&str; 4] = ["clerk", "supabase", "plain", "slow"];

struct Server {
    cluster: Cluster,
    admin: Session,
    key: Issuer,
}

impl Server {
    /// The library in `libraries`, and `verified` for everybody.
    fn loading(libraries: &str) -> Self {
        Self::start(&format!(
            "{libraries} = 'pg_session_jwt'\npg_session_jwt.request_claims = verified"
        ))
    }

    fn preloaded() -> Self {
        Self::loading("shared_preload_libraries")
    }

    fn start(settings: &str) -> Self {
        let cluster = Cluster::start(settings);
        let mut admin = cluster.connect("postgres", "postgres");
        admin
            .run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app LOGIN; CREATE ROLE other LOGIN");
        admin.run(GUIDES);
        let key = Issuer::es256();
        admin.register(&[&key]);
        Self {
            cluster,
            admin,
            key,
        }
    }

    fn app(&self) -> Session {
        self.app_with("")
    }

    fn app_with(&self, options: &str) -> Session {
        self.cluster.connect_with("postgres", "app", options)
    }

    fn token(&self, user: &str) -> String {
        token(&self.key, user)
    }
}

/// Whoever the session is, it sees this user's rows through each of the policies, and these claims.
#[track_caller]
fn assert_is(app: &mut Session, user: Option<&str>) {
    let rows = match user {
        Some("alice") => "1,3",
        Some("bob") => "2",
        _ => "",
    };
    for table in TABLES {
        let seen = app.text(&format!(
            "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM {table}"
        ));
        assert_eq!(seen, rows, "{table}");
    }
    assert_eq!(app.value("SELECT app.definer()").as_deref(), user);
    assert_eq!(app.user_id().as_deref(), user);
}

/// What psql prints that connects like this.
fn psql(server: &Cluster, connection: &str, sql: &str) -> String {
    let mut psql = harness::Programs::under_test().command("psql");
    psql.args(["-XAt", "-c", sql, "-d"]);
    psql.arg(format!(
        "host=127.0.0.1 port={} dbname=postgres {connection}",
        server.port()
    ));
    let output = psql.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap().trim().to_owned()
}

#[test]
fn policies_of_other_guides_read_the_verified_claims_without_a_change() {
    let mut server = Server::preloaded();
    let mut app = server.app();
    assert_eq!(app.text(CLAIMS), "{}");
    assert_eq!(
        app.text("SELECT current_setting('request.jwt.claim.sub')"),
        ""
    );
    assert_is(&mut app, None);
    for user in ["alice", "bob", "carol"] {
        app.run("BEGIN");
        app.run(&format!(
            "SELECT auth.jwt_session_init({}, true)",
            sql_text(&server.token(user))
        ));
        assert_is(&mut app, Some(user));
        app.run("SAVEPOINT s");
        app.present(&server.token("bob"));
        assert_is(&mut app, Some("bob"));
        app.run("ROLLBACK TO s");
        assert_is(&mut app, Some(user));
        app.run("COMMIT");
        assert_is(&mut app, None);
    }
    // All claims, as auth.jwt() has them; single ones, as auth.claim() gives them.
    let more =
        json!({"role": "authenticated", "email": "a@example.com", "n": 1.50, "o": {"id": "ü"}});
    app.present(&token_with(&server.key, "alice", &more));
    for (setting, function) in [
        ("request.jwt.claims", "auth.jwt()::text"),
        ("request.jwt.claim.sub", "auth.user_id()"),
        ("request.jwt.claim.role", "auth.role()"),
        ("request.jwt.claim.email", "auth.email()"),
    ] {
        let sql = format!("SELECT current_setting('{setting}') = {function}, {function}");
        let row = app.rows(&sql).join("");
        assert!(row.starts_with("t|"), "{setting}: {row}");
        assert_eq!(app.text(&format!("SHOW {setting}")), row[2..]);
    }
    app.run("SELECT auth.logout()");
    // Claims that a superuser sets count, as they do everywhere.
    server
        .admin
        .run(&format!("SET pg_session_jwt.claims = '{BOB}'"));
    assert_eq!(server.admin.text("SELECT app.uid()"), "bob");
    let problem = app.text("SELECT problem FROM auth.status()");
    assert!(!problem.contains("forged"), "{problem}");
}

/// What a session may write, with no effect; and what is refused to it.
const WRITES: [&str; 12] = [
    r#"SET request.jwt.claims = '{"sub":"bob"}'"#,
    r#"SET LOCAL request.jwt.claims = '{"sub":"bob"}'"#,
    r#"SET "Request.JWT.Claims" = '{"sub":"bob"}'"#,
    "SET request.jwt.claim.sub = 'bob'",
    r#"SELECT set_config('request.jwt.claims', '{"sub":"bob"}', false)"#,
    r#"SELECT set_config('request.jwt.claims', '{"sub":"bob"}', true), set_config('request.jwt.claim.sub', 'bob', true)"#,
    r#"DO $$ BEGIN PERFORM set_config('request.jwt.claim.sub', 'bob', false); END $$"#,
    "RESET request.jwt.claims",
    "RESET request.jwt.claim.sub",
    "RESET ALL",
    "SET request.jwt.claims TO DEFAULT",
    "SET request.jwt.claim.other = 'anything'",
];
const DENIED: &str = "permission denied to set parameter \"pg_session_jwt.request_claims\"";
const STORED: &str = "invalid value for parameter \"request.jwt.claim";
/// What the message begins with, and what is refused.
const REFUSED: [(&str, &str); 8] = [
    (DENIED, "SET pg_session_jwt.request_claims = fallback"),
    (DENIED, "SELECT set_config('pg_session_jwt.request_claims', 'fallback', true)"),
    (DENIED, "RESET pg_session_jwt.request_claims"),
    (DENIED, "ALTER ROLE app SET pg_session_jwt.request_claims = fallback"),
    (STORED, r#"ALTER ROLE app SET request.jwt.claims = '{"sub":"bob"}'"#),
    (STORED, "ALTER ROLE app SET request.jwt.claim.sub = 'bob'"),
    (
        STORED,
        r#"CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql SET request.jwt.claims = '{"sub":"bob"}'
           AS 'SELECT count(*) FROM public.clerk'"#,
    ),
    (
        DENIED,
        "CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql SET pg_session_jwt.request_claims = never
         AS 'SELECT count(*) FROM public.clerk'",
    ),
];

#[test]
fn nothing_that_a_session_sets_changes_what_is_read() {
    let server = Server::preloaded();
    for present in [false, true] {
        let mut app = server.app();
        let user = present.then_some("alice");
        for transaction in [false, true] {
            for write in WRITES {
                if present {
                    app.present(&server.token("alice"));
                }
                if transaction {
                    app.run("BEGIN; SAVEPOINT s");
                }
                app.run(write);
                // RESET ALL forgets the token, as it should.
                let user = user.filter(|_| write != "RESET ALL");
                assert_is(&mut app, user);
                if transaction {
                    app.run("ROLLBACK TO s");
                    assert_is(&mut app, if present { Some("alice") } else { None });
                    app.run("COMMIT");
                }
            }
        }
        for (message, write) in REFUSED {
            let refusal = app.refused(write);
            assert_eq!(refusal.sqlstate, "42501", "{write}");
            assert!(refusal.message.starts_with(message), "{write}: {refusal:?}");
            assert_is(&mut app, app_user(present));
        }
        app.run("DISCARD ALL");
        assert_is(&mut app, None);
        app.run("SET SESSION AUTHORIZATION DEFAULT; SET ROLE NONE");
        assert_is(&mut app, None);
    }
}

fn app_user(present: bool) -> Option<&'static str> {
    present.then_some("alice")
}

#[test]
fn nothing_that_a_connection_begins_with_changes_what_is_read() {
    let mut server = Server::preloaded();
    let bob = harness::option("request.jwt.claims", BOB);
    for options in [
        bob.clone(),
        "-c request.jwt.claim.sub=bob".to_owned(),
        "-c Request.Jwt.Claim.Sub=bob".to_owned(),
        format!("{bob} -c request.jwt.claim.sub=bob -c request.jwt.claim.role=x"),
    ] {
        let mut app = server.app_with(&options);
        assert_is(&mut app, None);
        app.run("RESET ALL; RESET request.jwt.claims; RESET request.jwt.claim.sub");
        assert_is(&mut app, None);
        app.present(&server.token("alice"));
        assert_is(&mut app, Some("alice"));
        app.run("DISCARD ALL");
        assert_is(&mut app, None);
    }
    // What a superuser gives a role, a database or a function has no effect either.
    server.admin.run(
        r#"ALTER ROLE app SET request.jwt.claims = '{"sub":"bob"}';
           ALTER DATABASE postgres SET request.jwt.claim.sub = 'bob';
           CREATE FUNCTION app.bob() RETURNS bigint LANGUAGE sql SECURITY DEFINER
               SET request.jwt.claims = '{"sub":"bob"}' AS
               $$ SELECT count(*) FROM public.notes
                  WHERE owner = current_setting('request.jwt.claims')::json->>'sub' $$"#,
    );
    let mut app = server.app();
    assert_is(&mut app, None);
    assert_eq!(app.text("SELECT app.bob()"), "0");
    app.present(&server.token("alice"));
    assert_is(&mut app, Some("alice"));
    assert_eq!(app.text("SELECT app.bob()"), "2");
    // Postgres itself refuses what only a superuser may set.
    let said = psql(
        &server.cluster,
        "user=app options='-c pg_session_jwt.request_claims=fallback'",
        "SELECT 1",
    );
    assert!(
        said.contains("permission denied to set parameter \"pg_session_jwt.request_claims\""),
        "{said}"
    );
}

#[test]
fn prepared_statements_cursors_and_workers_read_it_too() {
    let server = Server::preloaded();
    let mut app = server.app();
    let count = |app: &mut Session, statement: &postgres::Statement| -> i64 {
        app.client.query_one(statement, &[]).unwrap().get(0)
    };
    let statement = app.client.prepare("SELECT count(*) FROM clerk").unwrap();
    app.run("SET plan_cache_mode = force_generic_plan");
    for round in 0..4 {
        let (user, rows) = [("alice", 2), ("bob", 1)][round % 2];
        assert_eq!(count(&mut app, &statement), 0);
        app.run("BEGIN");
        app.run(&format!(
            "SELECT auth.jwt_session_init({}, true)",
            sql_text(&server.token(user))
        ));
        app.run("DECLARE c CURSOR FOR SELECT count(*) FROM plain");
        app.run(WRITES[3]);
        assert_eq!(count(&mut app, &statement), rows);
        assert_eq!(app.text("FETCH c"), rows.to_string());
        app.run("COMMIT");
    }
    app.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET parallel_leader_participation = off;
         SET request.jwt.claims = '{\"sub\":\"bob\"}'; SET request.jwt.claim.sub = 'bob'",
    );
    let worker = "SELECT DISTINCT current_setting('request.jwt.claim.sub', true)
                  FROM pg_class WHERE relname <> current_setting('request.jwt.claims', true)";
    let explained = app.rows(&format!("EXPLAIN {worker}")).join("\n");
    assert!(explained.contains("Workers Planned"), "{explained}");
    assert_eq!(app.rows(worker), [""]);
    app.present(&server.token("alice"));
    assert_eq!(app.rows(worker), ["alice"]);
}

#[test]
fn reading_it_raises_what_the_token_is_refused_for_and_lists_go_on_working() {
    let mut server = Server::preloaded();
    let mut app = server.app();
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(&Issuer::es256(), "bob"))
    ));
    for read in [
        CLAIMS,
        "SHOW request.jwt.claims",
        "SELECT current_setting('request.jwt.claim.email')",
        "SELECT current_setting('request.jwt.claim.role')",
        "SELECT current_setting('request.jwt.claim.sub')",
        "SELECT count(*) FROM clerk",
        "SELECT count(*) FROM slow",
        "SELECT app.definer()",
    ] {
        let refusal = app.refused(read);
        refusal.assert_stage("signature", first_line::SIGNATURE);
        refusal.assert_shows_no_token();
    }
    for list in [
        "SELECT count(*) > 300 FROM pg_settings",
        "SELECT count(*) > 300 FROM pg_show_all_settings()",
        "SELECT count(*) = 0 FROM pg_settings WHERE name LIKE 'request.%'",
    ] {
        assert_eq!(app.text(list), "t", "{list}");
        app.refused("SELECT current_setting('request.jwt.claim.email')")
            .assert_stage("signature", first_line::SIGNATURE);
    }
    let all = app.rows("SHOW ALL");
    assert!(all.len() > 300 && !all.iter().any(|line| line.starts_with("request.")));
    if pg_major() == 15 {
        // Nobody's claims, at worst.
        app.run("SHOW request.jwt.claim");
        assert_eq!(
            app.text("SELECT current_setting('request.jwt.claim.email')"),
            ""
        );
        app.refused(CLAIMS)
            .assert_stage("signature", first_line::SIGNATURE);
    }
    assert_eq!(
        app.rows("EXPLAIN (SETTINGS, COSTS OFF) SELECT 1")[0],
        "Result"
    );
    app.run("SELECT auth.logout()");
    assert_eq!(app.text(CLAIMS), "{}");
    // The administrator's claims that are no claims.
    server
        .admin
        .run("SET pg_session_jwt.claims = '{\"sub\": {}}'");
    server.admin.refused(CLAIMS).assert(
        "22023",
        "invalid value for parameter \"pg_session_jwt.claims\"",
    );
}

#[test]
fn where_the_setting_is_another_nothing_changes() {
    let conf = |libraries: &str| format!("{libraries} = 'pg_session_jwt'");
    for settings in [
        conf("shared_preload_libraries"),
        conf("session_preload_libraries"),
        String::new(),
    ] {
        let server = Server::start(&settings);
        let mut app = server.app();
        for _ in 0..2 {
            assert_eq!(app.value(CLAIMS), None, "{settings}");
            app.assert_nobody();
        }
        app.refused("SELECT current_setting('request.jwt.claims')")
            .assert(
                "42704",
                "unrecognized configuration parameter \"request.jwt.claims\"",
            );
        app.run(&format!("SET request.jwt.claims = '{BOB}'"));
        assert_eq!(app.text(CLAIMS), BOB);
        app.present(&server.token("alice"));
        assert_eq!(app.text(CLAIMS), BOB);
    }
    // One database has another setting than the server.
    let mut server = Server::preloaded();
    for other in ["fallback", "never"] {
        server.admin.run(&format!(
            "ALTER DATABASE postgres SET pg_session_jwt.request_claims = {other}"
        ));
        assert_eq!(server.app().value(CLAIMS), None);
    }
}

#[test]
fn a_reload_reaches_the_connections_that_are_open() {
    let server = Server::start("shared_preload_libraries = 'pg_session_jwt'");
    let mut app = server.app();
    let statement = app.client.prepare("SELECT count(*) FROM clerk").unwrap();
    app.run(
        "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE plpgsql AS
             'begin return current_setting(''request.jwt.claim.sub'', true); end'",
    );
    app.run(&format!(
        "SET request.jwt.claims = '{BOB}'; SET request.jwt.claim.sub = 'bob'"
    ));
    let count =
        |app: &mut Session| -> i64 { app.client.query_one(&statement, &[]).unwrap().get(0) };
    assert_eq!(
        (count(&mut app), app.text("SELECT pg_temp.f()").as_str()),
        (1, "bob")
    );
    // Each way that a statement comes in is the first one after the reload.
    let mut others: Vec<Session> = (0..5).map(|_| server.app()).collect();
    for other in &mut others {
        other.run(&format!(
            "SET request.jwt.claims = '{BOB}'; SET request.jwt.claim.sub = 'bob'"
        ));
    }
    others[4].run(
        "BEGIN; DECLARE c CURSOR FOR SELECT current_setting('request.jwt.claim.sub') FROM generate_series(1, 3)",
    );
    assert_eq!(others[4].text("FETCH c"), "bob");
    server
        .cluster
        .reload("pg_session_jwt.request_claims = verified");
    assert_eq!(count(&mut app), 0);
    assert_eq!(app.text("SELECT pg_temp.f()"), "");
    assert_is(&mut others[0], None);
    assert_eq!(others[1].text(CLAIMS), "{}");
    others[2].run("DO $$ BEGIN ASSERT current_setting('request.jwt.claim.sub', true) = ''; END $$");
    assert_eq!(others[3].text("SHOW request.jwt.claims"), "{}");
    assert_eq!(others[4].text("FETCH c"), "");
    app.present(&server.token("alice"));
    assert_is(&mut app, Some("alice"));
    // And back: what was written is there again.
    server
        .cluster
        .reload("pg_session_jwt.request_claims = fallback");
    harness::wait_until("the setting is back", || {
        app.text("SHOW pg_session_jwt.request_claims") == "fallback"
    });
    assert_eq!(app.text(CLAIMS), BOB);
    assert_eq!(app.text("SELECT pg_temp.f()"), "bob");
}

#[test]
fn what_a_superuser_sets_in_a_session_no_reset_all_undoes() {
    let server = Server::start("shared_preload_libraries = 'pg_session_jwt'");
    let mut session = server.cluster.connect("postgres", "postgres");
    session.run(&format!("SET request.jwt.claims = '{BOB}'"));
    session.run("SET pg_session_jwt.request_claims = verified; SET ROLE app");
    for undo in ["RESET ALL", "RESET ALL; RESET ALL"] {
        session.run(&format!(
            "{undo}; SET ROLE app; SET request.jwt.claim.sub = 'bob'"
        ));
        assert_is(&mut session, None);
    }
    session
        .refused("RESET pg_session_jwt.request_claims")
        .assert(
            "42501",
            "permission denied to set parameter \"pg_session_jwt.request_claims\"",
        );
}

#[test]
fn keys_of_a_connection_do_not_undo_it() {
    let mut server = Server::preloaded();
    server
        .admin
        .run("DELETE FROM auth.providers; GRANT EXECUTE ON FUNCTION auth.init(text) TO app");
    let key = Issuer::ed25519();
    for mut app in [
        server.app_with(&harness::option(
            "pg_session_jwt.jwk",
            &key.jwk().to_string(),
        )),
        server.app(),
    ] {
        app.run("BEGIN");
        app.run(&format!(
            "SELECT auth.init({})",
            sql_text(&key.jwk().to_string())
        ));
        app.run("ROLLBACK; SET request.jwt.claim.sub = 'bob'");
        assert_is(&mut app, None);
        app.run(&format!(
            "SELECT auth.init({})",
            sql_text(&key.jwk().to_string())
        ));
        assert_is(&mut app, None);
        app.present(&key.token_for("alice"));
        assert_is(&mut app, Some("alice"));
    }
}

#[test]
fn a_library_that_is_not_preloaded_says_that_claims_can_be_forged() {
    let told = "request.jwt.claims can be forged: pg_session_jwt.request_claims is \"verified\", but pg_session_jwt is not in shared_preload_libraries.";
    let server = Server::loading("session_preload_libraries");
    let mut app = server.app_with("-c request.jwt.claim.sub=bob");
    assert_is(&mut app, None);
    let problem = "SELECT problem FROM auth.status()";
    assert!(app.text(problem).ends_with(told));
    app.present(&server.token("alice"));
    assert_is(&mut app, Some("alice"));
    assert_eq!(app.text(problem), told);
    // A client that sets what only a superuser may: whatever the administrator has set is lost.
    let mut app =
        server.app_with("-c pg_session_jwt.request_claims=fallback -c request.jwt.claim.sub=bob");
    for read in [
        CLAIMS,
        "SELECT count(*) FROM plain",
        "SELECT auth.user_id()",
    ] {
        app.refused(read).assert(
            "42501",
            "permission denied to set parameter \"pg_session_jwt.request_claims\"",
        );
    }
    // One that is loaded by the first call.
    let server = Server::start("pg_session_jwt.request_claims = verified");
    let mut app = server.app_with("-c request.jwt.claim.sub=bob");
    assert_eq!(
        app.text("SELECT current_setting('request.jwt.claim.sub')"),
        "bob"
    );
    app.assert_nobody();
    assert_is(&mut app, None);
    assert!(app.text(problem).ends_with(told));
    // Elsewhere there is nothing to say.
    let db = Database::new();
    assert!(!db.app().text(problem).contains("forged"));
}

#[test]
fn walsenders_and_workers_of_replication_read_nobodys_claims() {
    let server = Cluster::start(
        "shared_preload_libraries = 'pg_session_jwt'\npg_session_jwt.request_claims = verified\nwal_level = logical",
    );
    for (replication, shown) in [("database", "{}"), ("true", "{}")] {
        let said = psql(
            &server,
            &format!("user=postgres replication={replication} options='-c request.jwt.claims=x'"),
            "SHOW request.jwt.claims",
        );
        assert_eq!(said, shown);
    }
    let (mut source, mut target) = server.logical_replication("");
    target.run(
        "CREATE TABLE seen (claims text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'begin insert into public.seen values (current_setting(''request.jwt.claims'', true)); return new; end';
         CREATE TRIGGER note BEFORE INSERT ON auth.providers FOR EACH ROW EXECUTE FUNCTION note();
         ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER note;
         ALTER ROLE postgres SET request.jwt.claims = '{\"sub\":\"bob\"}'",
    );
    source.register(&[&Issuer::es256()]);
    harness::wait_until("the row arrives", || target.rows("TABLE seen").len() == 1);
    assert_eq!(target.rows("TABLE seen"), ["{}"]);
}

#[test]
fn postgrests_sequence_ends_in_the_verified_identity() {
    let server = Server::preloaded();
    let mut app = server.app();
    for (user, claimed) in [("alice", "bob"), ("bob", "alice")] {
        app.run("BEGIN");
        let shown = app.text(&format!(
            "SELECT set_config('request.jwt.claims', '{{\"sub\":\"{claimed}\"}}', true)"
        ));
        assert_eq!(shown, "{}");
        app.run(&format!(
            "SELECT set_config('request.headers', '{}', true)",
            json!({"authorization": format!("Bearer {}", server.token(user))})
        ));
        app.run("SELECT auth.pre_request()");
        assert_is(&mut app, Some(user));
        app.run("COMMIT");
        assert_is(&mut app, None);
    }
}

#[test]
fn a_claim_that_the_encoding_lacks_is_refused_and_not_lost() {
    let mut server = Server::preloaded();
    server.admin.run(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    );
    let mut admin = server.cluster.connect("latin", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt");
    admin.register(&[&server.key]);
    let mut app = server.cluster.connect("latin", "app");
    app.present(&token_with(
        &server.key,
        "alice",
        &json!({"email": "jürgen"}),
    ));
    assert_eq!(
        app.text("SELECT current_setting('request.jwt.claim.email')"),
        "jürgen"
    );
    app.rejected(&token_with(
        &server.key,
        "alice",
        &json!({"email": "Łukasz"}),
    ));
    assert_eq!(
        app.text("SELECT current_setting('request.jwt.claim.email')"),
        "jürgen"
    );
}
