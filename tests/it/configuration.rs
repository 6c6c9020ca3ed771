//! What an administrator writes into postgresql.conf, where nothing is preloaded.

use harness::{APP_USER, Cluster, Issuer, Session};

/// A server with these lines, the extension, and a table whose rows are alice's and bob's.
fn server(lines: &str) -> Cluster {
    let cluster = Cluster::start(lines);
    cluster.connect("postgres", "postgres").run(
        "CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN;
         CREATE TABLE todos (user_id text, task text);
         INSERT INTO todos VALUES ('alice', 'write'), ('bob', 'read');
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON todos USING (auth.user_id() = user_id);
         GRANT SELECT ON todos TO PUBLIC;",
    );
    cluster
}

fn key_line(issuer: &Issuer) -> String {
    format!("pg_session_jwt.jwk = '{}'", issuer.jwk())
}

#[track_caller]
fn assert_trusts(app: &mut Session, issuer: &Issuer) {
    app.run(r#"SET request.jwt.claims = '{"sub":"bob"}'"#);
    app.assert_nobody();
    assert_eq!(app.rows("SELECT task FROM todos"), [""; 0]);
    app.present(&issuer.token_for("alice"));
    assert_eq!(app.rows("SELECT task FROM todos"), ["write"]);
}

#[test]
fn a_key_in_the_configuration_survives_a_reload() {
    let (issuer, next) = (Issuer::ed25519(), Issuer::ed25519());
    for preload in ["", "session_preload_libraries = 'pg_session_jwt'"] {
        let cluster = server(&format!("{preload}\n{}", key_line(&issuer)));
        let mut early = cluster.connect("postgres", APP_USER);
        assert_trusts(&mut cluster.connect("postgres", APP_USER), &issuer);
        cluster.reload("work_mem = '5MB'");
        assert_trusts(&mut cluster.connect("postgres", APP_USER), &issuer);
        // In parallel plans too, and where the first call comes after the reload.
        let mut app = cluster.connect("postgres", APP_USER);
        app.run(
            r#"SET request.jwt.claims = '{"sub":"bob"}'; SET parallel_setup_cost = 0;
            SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
            SET parallel_leader_participation = off;"#,
        );
        assert_eq!(app.rows("SELECT task FROM todos"), [""; 0]);
        assert_trusts(&mut early, &issuer);
        // Another key is for new connections, as with any parameter of connection start.
        cluster.reload(&key_line(&next));
        early.assert_user("alice");
        assert_trusts(&mut cluster.connect("postgres", APP_USER), &next);
        let mut replaced = cluster.connect("postgres", APP_USER);
        replaced.run(r#"SET request.jwt.claims = '{"sub":"bob"}'"#);
        replaced
            .rejected(&issuer.token_for("alice"))
            .assert_stage("signature", "invalid JWT signature");
    }
}

#[test]
fn a_wrong_value_says_so_and_a_reload_with_a_right_one_is_enough() {
    let issuer = Issuer::ed25519();
    for (parameter, wrong, right) in [
        ("clock_skew", "a minute", "90"),
        ("request_claims", "sometimes", "never"),
        ("audit_log", "perhaps", "on"),
    ] {
        let line = |value: &str| format!("pg_session_jwt.{parameter} = '{value}'");
        let cluster = server(&line(wrong));
        cluster.reload(&key_line(&issuer));
        let mut apps: Vec<_> = (0..3)
            .map(|_| cluster.connect("postgres", APP_USER))
            .collect();
        let message = format!("invalid value for parameter \"pg_session_jwt.{parameter}\"");
        for app in &mut apps {
            app.run(r#"SET request.jwt.claims = '{"sub":"bob"}'"#);
            let refusal = app.refused("SELECT task FROM todos");
            refusal.assert("22023", &message);
            assert_eq!(
                refusal.detail,
                "The value in postgresql.conf is invalid, so this session has no identity."
            );
            assert!(refusal.hint.contains("reload"), "{refusal:?}");
            let problem = app.text("SELECT problem FROM auth.status()");
            assert!(problem.starts_with(&message), "{problem}");
        }
        // One that is as wrong as before changes nothing, in no worker either.
        cluster.reload(&line("still wrong"));
        for app in &mut apps {
            app.refused("SELECT auth.user_id()")
                .assert("22023", &message);
        }
        if parameter == "audit_log" {
            cluster.reload_without("pg_session_jwt.audit_log");
        } else {
            cluster.reload(&line(right));
        }
        for app in &mut apps {
            assert_trusts(app, &issuer);
            if parameter == "clock_skew" {
                assert_eq!(app.text("SHOW pg_session_jwt.clock_skew"), "90s");
            }
        }
    }
}

#[test]
fn a_wrong_value_of_alter_database_says_so() {
    let cluster = server("");
    let mut admin = cluster.connect("postgres", "postgres");
    for parameter in ["clock_skew", "jwk"] {
        admin.run(&format!(
            "ALTER DATABASE postgres SET pg_session_jwt.{parameter} = 'a minute'"
        ));
        let mut app = cluster.connect("postgres", APP_USER);
        app.run(r#"SET request.jwt.claims = '{"sub":"bob"}'"#);
        let refusal = app.refused("SELECT task FROM todos");
        refusal.assert(
            "22023",
            &format!("invalid value for parameter \"pg_session_jwt.{parameter}\""),
        );
        assert!(refusal.detail.contains("ALTER DATABASE"), "{refusal:?}");
        admin.run(&format!(
            "ALTER DATABASE postgres RESET pg_session_jwt.{parameter}"
        ));
    }
}

/// An administrator replaces `never` by a key: connections that are open have neither.
#[test]
fn a_connection_that_began_before_the_key_trusts_nothing_less() {
    let issuer = Issuer::ed25519();
    for preload in ["", "session_preload_libraries = 'pg_session_jwt'"] {
        let cluster = server(&format!(
            "{preload}\npg_session_jwt.request_claims = 'never'"
        ));
        let mut loaded = cluster.connect("postgres", APP_USER);
        loaded.assert_nobody();
        cluster.reload_without("request_claims");
        cluster.reload(&key_line(&issuer));
        loaded.run(r#"SET request.jwt.claims = '{"sub":"bob"}'"#);
        let message = "pg_session_jwt.jwk was set in postgresql.conf after this connection began";
        loaded
            .refused("SELECT task FROM todos")
            .assert("55000", message);
        loaded.run(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
             SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off;",
        );
        loaded
            .refused("SELECT count(*) FROM todos")
            .assert("55000", message);
        assert_eq!(
            loaded.text("SELECT source FROM auth.status()"),
            "pg_session_jwt.jwk"
        );
        assert_trusts(&mut cluster.connect("postgres", APP_USER), &issuer);
    }
}
