//! pg_upgrade brings providers, policies, defaults and views along.

use std::io::Write as _;

use harness::{APP_USER, CURRENT, Cluster, Issuer, Programs, Row, first_line, token};

use crate::upgrade::assert_same_catalog;

/// `cargo xtask test --pg 16,18` names the programs of 16, with the extension, in PG_OLD_BIN.
#[test]
fn a_database_goes_from_16_to_18_with_all_that_depends_on_the_extension() {
    let Ok(bin) = std::env::var("PG_OLD_BIN") else {
        // Written past the test's capture: left out is not passed.
        let why =
            "pg_upgrade is not tested: PG_OLD_BIN does not name the programs of an older Postgres";
        writeln!(std::io::stderr(), "{why}").expect("standard error is open");
        return;
    };
    let new = Programs::under_test();
    let old = Programs {
        bin: bin.into(),
        ..new.clone()
    };
    let issuer = Issuer::ed25519();
    let cluster = Cluster::of(&old, "").expect("a server");
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run(&format!(
        "CREATE ROLE {APP_USER} LOGIN; CREATE ROLE reader LOGIN"
    ));
    admin.run("CREATE DATABASE app");
    let mut admin = cluster.connect("app", "postgres");
    // The last released version: the new server's first update has something to do.
    admin.run("CREATE EXTENSION pg_session_jwt VERSION '1.0.1'");
    admin.register(&[&issuer]);
    admin.run(
        "CREATE TABLE todos (id int, user_id text NOT NULL DEFAULT auth.user_id());
         INSERT INTO todos VALUES (1, 'alice'), (2, 'bob');
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON todos USING (auth.user_id() = user_id);
         CREATE VIEW mine WITH (security_invoker) AS SELECT *, auth.org_id() FROM todos;
         GRANT SELECT, INSERT ON todos TO PUBLIC; GRANT SELECT ON mine TO PUBLIC;
         GRANT SELECT ON auth.providers TO reader",
    );
    let rows = admin.rows("TABLE auth.providers");
    drop(admin);

    let cluster = cluster
        .upgraded(&new, &["--no-data-checksums"])
        .expect("pg_upgrade");
    let mut admin = cluster.connect("app", "postgres");
    assert!(admin.text("SHOW server_version").starts_with("18"));
    assert_eq!(admin.rows("TABLE auth.providers"), rows);
    let mut app = cluster.connect("app", APP_USER);
    app.present(&token(&issuer, "alice"));
    assert_eq!(
        app.rows("SELECT id, user_id, org_id FROM mine"),
        ["1|alice|NULL"]
    );
    app.run("INSERT INTO todos (id) VALUES (3)");
    assert_eq!(app.rows("SELECT id FROM todos ORDER BY id"), ["1", "3"]);
    app.refused("TABLE auth.providers")
        .assert("42501", "permission denied for table providers");
    let mut reader = cluster.connect("app", "reader");
    assert_eq!(reader.text("SELECT count(*) FROM auth.providers"), "1");
    // Both triggers fire as before, in every session, and notify the open ones.
    admin.run("SET session_replication_role = replica");
    for bad in [
        "INSERT INTO auth.providers (name, jwks) VALUES ('second', '{}')",
        &Row::new("second", harness::ISS, &[&Issuer::ed25519()]).insert(),
    ] {
        admin
            .refused(bad)
            .assert("22023", "invalid provider \"second\"");
    }
    admin.run("UPDATE auth.providers SET enabled = false");
    app.user_refused().assert_stage("key", first_line::ISSUER);
    admin.run("UPDATE auth.providers SET enabled = true; RESET session_replication_role");
    // The update is as it is everywhere, and makes what a fresh install makes.
    assert_eq!(admin.extension_version(), "1.0.1");
    admin.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(admin.extension_version(), CURRENT);
    app.assert_user("alice");
    admin.run("CREATE DATABASE fresh");
    let mut fresh = cluster.connect("fresh", "postgres");
    fresh.run("CREATE EXTENSION pg_session_jwt");
    admin.run("REVOKE SELECT ON auth.providers FROM reader");
    // pg_dump, and so pg_upgrade, leaves out what is commented on the row type of a table. Only this
    // table was there to be dumped.
    fresh.run("COMMENT ON TYPE auth.providers IS NULL");
    assert_same_catalog(&mut admin, &mut fresh, "after pg_upgrade");
}
