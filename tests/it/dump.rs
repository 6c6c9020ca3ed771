//! Providers outlive a dump, and sessions outlive the extension.

use std::path::PathBuf;
use std::process::Command;

use harness::{
    APP_USER, Cluster, Database, ISS, Issuer, Row, first_line, server_log, setting, sql_text,
    token, wait_until,
};

/// Runs a program of Postgres's that must succeed; its standard output.
#[track_caller]
fn program(name: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(PathBuf::from(setting("PG_BIN")).join(name))
        .args(arguments)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
    assert!(
        !said.contains("ERROR") && !said.contains("WARNING"),
        "{said}"
    );
    output.stdout
}

/// Dumps `from` as `role` and restores it into `to`.
fn move_database(role: &str, from: &str, to: &str, format: &str) {
    let file = std::env::temp_dir().join(format!("{from}.{format}"));
    let path = file.to_str().unwrap();
    program(
        "pg_dump",
        &["-U", role, "-d", from, "-F", format, "-f", path],
    );
    if format == "plain" {
        program(
            "psql",
            &[
                "-U",
                role,
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                to,
                "-f",
                path,
            ],
        );
    } else {
        program(
            "pg_restore",
            &["-U", role, "--exit-on-error", "-d", to, path],
        );
    }
    std::fs::remove_file(&file).unwrap();
}

const ROWS: &str = "SELECT p FROM auth.providers p ORDER BY name";
const GRANTS: &str = "SELECT grantee::regrole, privilege_type, is_grantable
     FROM pg_class, aclexplode(relacl) WHERE oid = 'auth.providers'::regclass ORDER BY grantee::regrole::text, 2";

/// Providers of every shape, and somebody who may read and write them.
fn fill(db: &Database, issuer: &Issuer, reader: &str) {
    let mut admin = db.superuser();
    admin.register(&[issuer]);
    let old = Issuer::hs256();
    admin.run(
        &Row::new("old", ISS, &[&old])
            .with("enabled", "false")
            .with("audience", r#"'{"a b","c\"d",é}'"#)
            .with("authorized_parties", "'{x}'")
            .with("algorithms", "'{HS256}'")
            .with("required_claims", "'{}'")
            .with("role_claim", "'{a,b}'")
            .with("allowed_roles", "'{one,\"Two, three\"}'")
            .with("default_role", "'gone'")
            .with("created_at", "'2001-02-03 04:05:06.789+00'")
            .with("updated_at", "'2002-02-03 04:05:06.789+00'")
            .insert(),
    );
    // Rows with one issuer that differ only in the other columns, and one without keys yet.
    admin.run(&Row::new("beside", ISS, &[&Issuer::es256()]).insert());
    admin.run(
        &Row::new("url", "https://url.example", &[])
            .with("jwks", "NULL")
            .with("jwks_url", "'https://url.example/jwks'")
            .insert(),
    );
    admin.run("UPDATE auth.providers SET audience = NULL WHERE name = 'main'");
    admin.run(&format!(
        "GRANT SELECT, UPDATE ON auth.providers TO {reader};
         GRANT EXECUTE ON FUNCTION auth.init(text) TO {reader}"
    ));
}

#[test]
fn a_dumped_database_is_restored_with_its_providers() {
    for format in ["plain", "custom"] {
        let (from, to) = (Database::with_todos(), Database::without_extension());
        let (issuer, reader) = (Issuer::ed25519(), from.role("reader"));
        fill(&from, &issuer, &reader);
        move_database(&setting("PGUSER"), from.name(), to.name(), format);
        let (mut before, mut after) = (from.superuser(), to.superuser());
        let rows = before.rows(ROWS);
        assert_eq!(rows.len(), 4);
        assert_eq!(after.rows(ROWS), rows);
        assert_eq!(after.rows(GRANTS), before.rows(GRANTS));
        assert_eq!(
            after.rows("SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'auth.providers'::regclass ORDER BY 1"),
            ["check_provider|A", "forget_all_keys|A", "forget_keys|A", "forget_keys_of_name|A", "providers_written|A"]
        );
        let mut app = to.app();
        app.refused("TABLE auth.providers")
            .assert("42501", "permission denied for table providers");
        app.present(&token(&issuer, "alice"));
        assert_eq!(app.tasks(), ["write", "sleep"]);
        let mut reader = to.connect(&reader, "");
        assert_eq!(reader.text("SELECT count(*) FROM auth.providers"), "4");
        reader.run("UPDATE auth.providers SET enabled = false");
        app.user_refused().assert_stage("key", first_line::ISSUER);
    }
}

#[test]
fn the_owner_of_a_database_dumps_and_restores_it() {
    let (from, to) = (Database::without_extension(), Database::without_extension());
    let (issuer, owner) = (Issuer::ed25519(), from.role("owner"));
    let reader = from.role("reader");
    for db in [&from, &to] {
        let name = db.name();
        db.superuser().run(&format!(
            "ALTER DATABASE {name} OWNER TO {owner}; ALTER SCHEMA public OWNER TO {owner}"
        ));
    }
    let mut session = from.connect(&owner, "");
    session.run("CREATE EXTENSION pg_session_jwt");
    session.run(&Row::main(&[&issuer]).insert());
    session.run(&format!("GRANT SELECT ON auth.providers TO {reader}"));
    let rows = session.rows(ROWS);
    drop(session);
    move_database(&owner, from.name(), to.name(), "custom");
    assert_eq!(to.connect(&owner, "").rows(ROWS), rows);
    assert_eq!(to.connect(&reader, "").rows(ROWS), rows);
    let mut app = to.app();
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
}

#[test]
fn the_owner_of_a_database_dumps_what_a_superuser_installed() {
    for new in [true, false] {
        for format in ["plain", "custom"] {
            let from = if new {
                Database::new()
            } else {
                Database::left_by("1.0.0")
            };
            let (issuer, owner) = (Issuer::ed25519(), from.role("owner"));
            let reader = from.role("reader");
            let own = |db: &Database| {
                let name = db.name();
                db.superuser()
                    .run(&format!("ALTER DATABASE {name} OWNER TO {owner}"));
            };
            own(&from);
            from.superuser()
                .run("ALTER EXTENSION pg_session_jwt UPDATE");
            let mut session = from.connect(&owner, "");
            session.run(&Row::main(&[&issuer]).insert());
            session.run(
                "CREATE TABLE public.mine (id text);
                 ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY see ON mine USING (id = auth.user_id());
                 GRANT SELECT ON mine TO PUBLIC;
                 INSERT INTO mine VALUES ('alice'), ('bob');",
            );
            let rows = session.rows(ROWS);
            let assert_moved = |to: &Database| {
                assert_eq!(to.superuser().rows(ROWS), rows);
                let mut app = to.app();
                app.present(&token(&issuer, "alice"));
                assert_eq!(app.rows("TABLE mine"), ["alice"]);
                app.refused("TABLE auth.providers")
                    .assert("42501", "permission denied for table providers");
            };
            let to = Database::without_extension();
            own(&to);
            move_database(&owner, from.name(), to.name(), format);
            assert_moved(&to);
            assert_eq!(to.connect(&owner, "").rows(ROWS), rows);

            // What the owner grants, pg_database_owner grants: pg_dump writes SET SESSION AUTHORIZATION,
            // which is for a superuser.
            session.run(&format!("GRANT SELECT ON auth.providers TO {reader}"));
            let to = Database::without_extension();
            own(&to);
            move_database(&setting("PGUSER"), from.name(), to.name(), format);
            assert_moved(&to);
            assert_eq!(to.connect(&reader, "").rows(ROWS), rows);
        }
    }
}

/// GRANT in an extension's script makes pg_dump take for the extension's own what an administrator had
/// granted on the same object before.
#[test]
fn what_was_granted_before_an_update_is_in_a_dump_after_it() {
    let everything = "SELECT n.nspacl, t.relacl, f.proacl, t.oid::regclass
         FROM pg_namespace n, pg_class t, pg_proc f
         WHERE nspname = 'auth' AND t.oid = 'auth.providers'::regclass
             AND f.oid = 'auth.init(text)'::regprocedure";
    for old in ["0.3.1", "0.5.0", "1.0.0"] {
        let (from, to) = (Database::without_extension(), Database::without_extension());
        let (reader, maker) = (from.role("reader"), from.role("maker"));
        let mut before = from.superuser();
        before.install_left_by(old);
        if old == "1.0.0" {
            before.run(&format!(
                "GRANT SELECT, UPDATE ON auth.providers TO {reader};
                 GRANT SELECT (name) ON auth.providers TO {maker};
                 GRANT EXECUTE ON FUNCTION auth.init(text) TO {reader} WITH GRANT OPTION;"
            ));
        }
        before.run(&format!(
            "GRANT USAGE, CREATE ON SCHEMA auth TO {maker};
             REVOKE EXECUTE ON FUNCTION auth.session() FROM PUBLIC;"
        ));
        before.run("ALTER EXTENSION pg_session_jwt UPDATE");
        move_database(&setting("PGUSER"), from.name(), to.name(), "plain");
        let mut after = to.superuser();
        // In whatever order.
        let sorted = |rows: Vec<String>| {
            let mut items: Vec<String> = rows[0]
                .split([',', '{', '}', '|'])
                .map(str::to_owned)
                .collect();
            items.sort_unstable();
            items
        };
        assert_eq!(
            sorted(after.rows(everything)),
            sorted(before.rows(everything)),
            "{old}"
        );
        assert_eq!(
            after.rows(
                "SELECT has_function_privilege('public', 'auth.session()', 'EXECUTE'),
                        has_function_privilege('public', 'auth.user_id()', 'EXECUTE')"
            ),
            ["f|t"]
        );
        if old == "1.0.0" {
            assert_eq!(
                to.connect(&maker, "")
                    .text("SELECT count(name) FROM auth.providers"),
                "0"
            );
        }
    }
}

#[test]
fn sessions_outlive_the_extension() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let good = token(&issuer, "alice");
    let mut apps: Vec<_> = (0..3).map(|_| db.app()).collect();
    for app in &mut apps {
        app.present(&good);
        app.run("PREPARE who AS SELECT auth.user_id(); PREPARE mine AS SELECT task FROM todos ORDER BY id");
        assert_eq!(app.text("EXECUTE who"), "alice");
    }
    apps[1].run("BEGIN; SET LOCAL statement_timeout = '10s'");
    // Dropped, and made again by the session that uses it.
    admin.present(&good);
    let drop = "DROP POLICY see ON todos; DROP POLICY add ON todos; DROP POLICY edit ON todos; DROP POLICY drop ON todos;
         ALTER TABLE todos ALTER user_id DROP DEFAULT; DROP EXTENSION pg_session_jwt";
    admin.run(drop);
    for (number, app) in apps.iter_mut().enumerate() {
        let refusal = app.refused("SELECT auth.user_id()");
        if number == 1 {
            // In a transaction Postgres may not have noticed yet that the function is gone. That it
            // has no providers, the library has.
            assert!(
                ["3F000", "42883", "28000"].contains(&&*refusal.sqlstate),
                "{refusal:?}"
            );
        } else {
            refusal.assert("3F000", "schema \"auth\" does not exist");
        }
    }
    apps[1].run("ROLLBACK");
    assert_ne!(apps[2].refused("EXECUTE who").sqlstate, "XX000");
    assert_eq!(apps[2].rows("EXECUTE mine"), [""; 0]);
    admin.refused("SELECT auth.user_id()");
    admin.run("CREATE EXTENSION pg_session_jwt");
    // No provider is registered: presenting a token is an error.
    admin.user_refused().assert_stage("key", first_line::NO_KEY);
    for app in &mut apps {
        app.user_refused().assert_stage("key", first_line::NO_KEY);
    }
    admin.register(&[&issuer]);
    admin.assert_user("alice");
    for app in &mut apps {
        app.assert_user("alice");
        assert_eq!(app.text("EXECUTE who"), "alice");
    }
    // The new table is listened to as the old one was.
    admin.run("UPDATE auth.providers SET enabled = false");
    for app in &mut apps {
        app.user_refused().assert_stage("key", first_line::ISSUER);
    }
    admin.run("UPDATE auth.providers SET enabled = true");

    // All of that in one transaction, undone, and not.
    for ending in ["ROLLBACK", "COMMIT"] {
        admin.run(
            "BEGIN; DROP EXTENSION pg_session_jwt; CREATE EXTENSION pg_session_jwt; SAVEPOINT s",
        );
        admin.user_refused().assert_stage("key", first_line::NO_KEY);
        admin.run("ROLLBACK TO SAVEPOINT s");
        admin.register(&[&issuer]);
        admin.assert_user("alice");
        // In place: the table is as new as the transaction.
        admin.run("TRUNCATE auth.providers; SAVEPOINT s");
        admin.user_refused().assert_stage("key", first_line::NO_KEY);
        admin.run("ROLLBACK TO SAVEPOINT s");
        admin.run(ending);
        let mut other = db.app();
        other.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&good)));
        for session in [&mut admin, &mut apps[0], &mut other] {
            if ending == "ROLLBACK" {
                session.assert_user("alice");
            } else {
                session
                    .user_refused()
                    .assert_stage("key", first_line::NO_KEY);
            }
        }
    }
    assert!(!server_log().contains("terminated by signal"));
}

#[test]
fn a_session_waits_for_whoever_drops_the_extension() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let mut app = db.app();
    app.present(&token(&issuer, "alice"));
    admin.run("BEGIN; DROP EXTENSION pg_session_jwt");
    // It has read the providers before: it need not again, and nothing has been committed.
    app.assert_user("alice");
    let mut late = db.app();
    late.run("SET lock_timeout = '200ms'");
    late.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(&issuer, "alice"))
    ));
    let refusal = late.user_refused();
    assert_eq!(refusal.sqlstate, "55P03", "{refusal:?}");
    admin.run("ROLLBACK");
    late.assert_user("alice");
    app.assert_user("alice");
}

#[test]
fn rows_that_arrive_by_logical_replication_are_checked_and_count() {
    let cluster = Cluster::start("wal_level = logical");
    let (one, two) = (Issuer::ed25519(), Issuer::ed25519());
    let (mut source, _target) = cluster.logical_replication(&Row::main(&[&one]).insert());
    let mut app = cluster.connect("target", APP_USER);
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&token(&one, "alice"))
    ));
    let mut wait_for = |wanted: Result<&str, &str>| {
        wait_until(&format!("{wanted:?}"), || {
            match (app.try_value("SELECT auth.user_id()"), wanted) {
                (Ok(Some(user)), Ok(wanted)) => user == wanted,
                (Err(refusal), Err(wanted)) => refusal.message == wanted,
                _ => false,
            }
        });
    };
    wait_for(Ok("alice"));
    source.rotate(&[&two]);
    wait_for(Err(first_line::SIGNATURE));
    source.rotate(&[&one]);
    wait_for(Ok("alice"));
    source.run("UPDATE auth.providers SET enabled = false");
    wait_for(Err(first_line::ISSUER));
    // A row that the source let through is refused where it arrives.
    source.run(
        "ALTER TABLE auth.providers DISABLE TRIGGER ALL;
         UPDATE auth.providers SET enabled = true, jwks = '{\"keys\": []}'",
    );
    wait_until("the refusal in the log", || {
        cluster.log().contains("invalid provider \"main\"")
    });
    wait_for(Err(first_line::ISSUER));
}
