//! However many providers there are, a connection reads those whose tokens it is presented, and keeps the
//! latest of them.

use harness::{
    Database, ISS, Issuer, Row, Session, backend_memory_kib, first_line, set_of, sql_text,
    token_with, wait_until,
};
use serde_json::json;

/// More issuers than a connection keeps (`ISSUERS_KEPT` in src/providers/look_up.rs).
const MORE_THAN_KEPT: usize = 70;

fn issuer_number(number: usize) -> String {
    format!("https://{number}.example")
}

/// A token of the issuer with this number.
fn token_of(key: &Issuer, number: usize) -> String {
    token_with(
        key,
        &format!("user-{number}"),
        &json!({"iss": issuer_number(number)}),
    )
}

/// Registers the issuers of these numbers, all with the same keys, in one statement.
fn register_many(admin: &mut Session, numbers: std::ops::RangeInclusive<usize>, keys: &[&Issuer]) {
    admin.run(&format!(
        "INSERT INTO auth.providers (name, issuer, jwks)
         SELECT 'p' || i, 'https://' || i || '.example', {}
         FROM generate_series({}, {}) i",
        set_of(keys),
        numbers.start(),
        numbers.end()
    ));
}

/// A database with more issuers than a connection keeps, and their key.
fn database() -> (Database, Issuer) {
    let (db, key) = (Database::new(), Issuer::hs256());
    register_many(&mut db.superuser(), 1..=MORE_THAN_KEPT, &[&key]);
    (db, key)
}

/// Whoever has a token of an issuer is who it says.
#[track_caller]
fn assert_known(app: &mut Session, key: &Issuer, number: usize) {
    app.present(&token_of(key, number));
    app.assert_user(&format!("user-{number}"));
}

#[test]
fn more_issuers_than_a_connection_keeps_are_all_known_to_it() {
    let (db, key) = database();
    let mut admin = db.superuser();
    let mut app = db.app();
    for _ in 0..2 {
        for number in 1..=MORE_THAN_KEPT {
            assert_known(&mut app, &key, number);
            app.rejected(&token_of(&key, MORE_THAN_KEPT + number))
                .assert_stage("key", first_line::ISSUER);
        }
    }
    // Some are disabled, some rotate, and some stay, whether they are kept or not.
    let new = Issuer::hs256();
    admin.run(&format!(
        "UPDATE auth.providers SET enabled = false WHERE substr(name, 2)::int % 3 = 1;
         UPDATE auth.providers SET jwks = {} WHERE substr(name, 2)::int % 3 = 2;",
        set_of(&[&new])
    ));
    app.user_refused().assert_stage("key", first_line::ISSUER);
    for _ in 0..2 {
        for number in (1..=MORE_THAN_KEPT).rev() {
            match number % 3 {
                0 => assert_known(&mut app, &key, number),
                1 => app
                    .rejected(&token_of(&key, number))
                    .assert_stage("key", first_line::ISSUER),
                _ => {
                    app.rejected(&token_of(&key, number))
                        .assert_stage("signature", first_line::SIGNATURE);
                    assert_known(&mut app, &new, number);
                }
            }
        }
    }
    admin.run("TRUNCATE auth.providers");
    app.user_refused().assert_stage("key", first_line::NO_KEY);
}

#[test]
fn a_change_of_one_row_is_no_change_of_another() {
    let (db, key) = database();
    let mut admin = db.superuser();
    let mut app = db.app();
    assert_known(&mut app, &key, 1);
    for change in [
        "UPDATE auth.providers SET audience = '{x}' WHERE name = 'p2'",
        "DELETE FROM auth.providers WHERE name = 'p2'",
        "VACUUM (FREEZE, FULL) auth.providers",
        "REINDEX TABLE auth.providers",
        "CLUSTER auth.providers USING providers_pkey",
        "UPDATE auth.providers SET name = 'renamed' WHERE name = 'p1'",
        "UPDATE auth.providers SET name = 'p1' WHERE name = 'renamed'",
        "BEGIN; CREATE TEMP TABLE rows AS TABLE auth.providers; TRUNCATE auth.providers;
         INSERT INTO auth.providers TABLE rows; COMMIT",
    ] {
        for statement in change.split_inclusive(';') {
            admin.run(statement);
        }
        app.assert_user("user-1");
        assert_known(&mut app, &key, 3);
        assert_known(&mut app, &key, 1);
    }
    assert_eq!(
        app.text("SELECT provider FROM auth.status()"),
        "p1",
        "the name that the row has now"
    );
}

#[test]
fn who_changes_rows_sees_each_change_and_each_that_is_undone() {
    let (db, key) = database();
    let mut admin = db.superuser();
    let mut app = db.app();
    for session in [&mut admin, &mut app] {
        assert_known(session, &key, 1);
        assert_known(session, &key, 2);
    }
    let off = "UPDATE auth.providers SET enabled = false WHERE name = 'p2'";
    let refused = |admin: &mut Session| {
        admin.user_refused().assert_stage("key", first_line::ISSUER);
    };
    // The row of today, of a savepoint, of a savepoint in it; each gone with its savepoint.
    admin.run(&format!("BEGIN; SAVEPOINT a; {off}; SAVEPOINT b"));
    refused(&mut admin);
    admin.run("ROLLBACK TO b; UPDATE auth.providers SET enabled = true WHERE name = 'p2'");
    admin.assert_user("user-2");
    admin.run("ROLLBACK TO b");
    refused(&mut admin);
    admin.run("ROLLBACK TO a");
    admin.assert_user("user-2");
    // All of it within one command, of which nothing remains.
    admin.run(
        "DO $$ BEGIN
             BEGIN
                 DELETE FROM auth.providers;
                 INSERT INTO auth.providers (name, jwks) VALUES ('x', '{\"kty\":\"oct\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}');
                 PERFORM auth.user_id();
                 RAISE 'accepted';
             EXCEPTION WHEN invalid_authorization_specification THEN END;
             IF auth.user_id() <> 'user-2' THEN RAISE 'it is %', auth.user_id(); END IF;
         END $$",
    );
    app.assert_user("user-2");
    admin.run(off);
    app.assert_user("user-2");
    admin.run("COMMIT");
    app.user_refused().assert_stage("key", first_line::ISSUER);
    refused(&mut admin);
    assert_known(&mut admin, &key, 1);
}

#[test]
fn a_connection_that_used_a_deleted_provider_trusts_the_others_only() {
    let (db, key, own) = (Database::new(), Issuer::hs256(), Issuer::ed25519());
    let mut admin = db.superuser();
    register_many(&mut admin, 1..=1000, &[&key]);
    let mut app = db.app_with_key(&own);
    assert_known(&mut app, &key, 7);
    admin.run("DELETE FROM auth.providers WHERE name <> 'p500'");
    app.user_refused().assert_stage("key", first_line::ISSUER);
    app.rejected(&own.token_for("mallory"))
        .assert_stage("key", first_line::ISSUER);
    assert_known(&mut app, &key, 500);
    admin.run("UPDATE auth.providers SET enabled = false");
    app.rejected(&own.token_for("mallory"))
        .assert_stage("key", first_line::ISSUER);
    // The last one gone, past a thousand rows that no vacuum has removed yet.
    admin.run("DELETE FROM auth.providers");
    app.present(&own.token_for("alice"));
    app.assert_user("alice");
    register_many(&mut admin, 7..=7, &[&key]);
    app.user_refused().assert_stage("key", first_line::ISSUER);
    assert_known(&mut app, &key, 7);
}

#[test]
fn tokens_without_an_issuer_have_their_provider_among_many() {
    let (db, key) = database();
    let mut app = db.app();
    let without = token_with(&key, "alice", &json!({"iss": null}));
    let refusal = app.rejected(&without);
    refusal.assert_stage("key", first_line::ISSUER);
    let mut admin = db.superuser();
    let own = Issuer::hs256();
    admin.run(&Row::main(&[&own]).with("issuer", "NULL").insert());
    app.rejected(&without)
        .assert_stage("signature", first_line::SIGNATURE);
    app.present(&token_with(&own, "bob", &json!({"iss": null})));
    app.assert_user("bob");
    let refusal = admin.refused(
        &Row::new("second", ISS, &[&key])
            .with("issuer", "NULL")
            .insert(),
    );
    refusal.assert("22023", "invalid provider \"second\"");
    admin.run("UPDATE auth.providers SET enabled = false WHERE issuer IS NULL");
    let refusal = app.user_refused();
    refusal.assert_stage("key", first_line::ISSUER);
    assert!(refusal.hint.contains("\"main\""), "{refusal:?}");
}

#[test]
fn the_provider_that_was_probably_meant_is_found_among_many() {
    let (db, key) = database();
    let mut admin = db.superuser();
    admin.run(&Row::new("slash", "https://slash.example/", &[&key]).insert());
    admin.run(&Row::new("bare", "bare.example", &[&key]).insert());
    admin.run(
        &Row::new("off", "https://off.example", &[&key])
            .with("enabled", "false")
            .insert(),
    );
    let mut app = db.app();
    for (issuer, named) in [
        ("https://slash.example", Some("slash")),
        ("http://slash.example/", Some("slash")),
        ("https://1.example/", Some("p1")),
        ("http://1.example", Some("p1")),
        ("1.example", Some("p1")),
        ("https://bare.example", Some("bare")),
        ("ftp://bare.example", Some("bare")),
        ("https://off.example", Some("off")),
        // It would not help to spell it right.
        ("https://off.example/", None),
        ("https://2.EXAMPLE", None),
        ("", None),
        ("/", None),
        ("https://", None),
    ] {
        let refusal = app.rejected(&token_with(&key, "alice", &json!({"iss": issuer})));
        refusal.assert_stage("key", first_line::ISSUER);
        match named {
            Some(name) => assert!(
                refusal.hint.contains(&format!("\"{name}\"")),
                "{issuer}: {refusal:?}"
            ),
            None => assert!(!refusal.hint.contains('"'), "{issuer}: {refusal:?}"),
        }
    }
}

/// How often the table was read from end to end, once every session that read it has gone.
fn scans(db: &Database) -> i64 {
    let others = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let mut watch = db.superuser();
    wait_until("all others have gone", || watch.text(others) == "0");
    watch
        .text("SELECT seq_scan FROM pg_stat_all_tables WHERE relid = 'auth.providers'::regclass")
        .parse()
        .unwrap()
}

#[test]
fn no_token_makes_a_connection_read_the_whole_table() {
    let (db, key) = database();
    let before = scans(&db);
    let mut app = db.app();
    for number in 1..=2 * MORE_THAN_KEPT {
        let _ = app.try_run(&format!(
            "SELECT auth.jwt_session_init({})",
            sql_text(&token_of(&key, number))
        ));
    }
    app.rejected(&token_with(&key, "alice", &json!({"iss": null})));
    // Nor a change, of which a signal tells.
    let mut admin = db.superuser();
    admin.run("SET enable_seqscan = off");
    for _ in 0..5 {
        admin.run("UPDATE auth.providers SET audience = NULL WHERE name = 'p3'");
        assert_known(&mut app, &key, 3);
        assert_known(&mut db.app(), &key, 4);
    }
    drop((admin, app));
    assert_eq!(scans(&db), before);
}

#[test]
fn without_its_index_the_table_is_read_and_says_the_same() {
    for spoil in [
        "DROP INDEX auth.providers_issuer",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'auth.providers_issuer'::regclass",
        // None of these finds all rows by their bytes.
        "DROP INDEX auth.providers_issuer;
         CREATE INDEX ON auth.providers (issuer COLLATE \"C\") WHERE enabled;
         CREATE INDEX ON auth.providers (issuer text_pattern_ops);
         CREATE INDEX ON auth.providers (lower(issuer));
         CREATE INDEX ON auth.providers (name COLLATE \"C\", issuer);
         CREATE INDEX ON auth.providers USING hash (issuer)",
        "DROP INDEX auth.providers_issuer;
         CREATE INDEX ON auth.providers (issuer COLLATE \"und-x-icu\")",
        // This one does.
        "DROP INDEX auth.providers_issuer;
         CREATE INDEX ON auth.providers (issuer COLLATE \"C\" DESC NULLS FIRST, name)",
    ] {
        let (db, key) = database();
        let mut admin = db.superuser();
        let mut app = db.app();
        assert_known(&mut app, &key, 1);
        if let Err(refusal) = admin.try_run(spoil) {
            // A Postgres without ICU has no such collation.
            assert_eq!(refusal.sqlstate, "42704", "{refusal:?}");
            continue;
        }
        println!("{spoil}");
        app.assert_user("user-1");
        for number in [1, 2, MORE_THAN_KEPT] {
            assert_known(&mut app, &key, number);
        }
        app.rejected(&token_of(&key, MORE_THAN_KEPT + 1))
            .assert_stage("key", first_line::ISSUER);
        admin.run(&Row::main(&[&key]).with("issuer", "NULL").insert());
        app.present(&token_with(&key, "alice", &json!({"iss": null})));
        app.assert_user("alice");
        let overlap = Row::new("second", &issuer_number(2), &[&key]).insert();
        admin
            .refused(&overlap)
            .assert("22023", "invalid provider \"second\"");
        admin.run("UPDATE auth.providers SET enabled = false WHERE name = 'p1'");
        app.rejected(&token_of(&key, 1))
            .assert_stage("key", first_line::ISSUER);
        let refusal = app.rejected(&token_with(
            &key,
            "alice",
            &json!({"iss": "https://2.example/"}),
        ));
        assert!(refusal.hint.contains("\"p2\""), "{refusal:?}");
        admin.run("DELETE FROM auth.providers");
        app.user_refused().assert_stage("key", first_line::NO_KEY);
    }
}

#[test]
fn a_catalog_of_1_0_0_has_no_index_and_knows_as_many() {
    let (db, key) = (Database::left_by("1.0.0"), Issuer::hs256());
    let mut admin = db.superuser();
    register_many(&mut admin, 1..=MORE_THAN_KEPT, &[&key]);
    let mut app = db.app();
    for update in ["SELECT", "ALTER EXTENSION pg_session_jwt UPDATE"] {
        admin.run(update);
        for number in 1..=MORE_THAN_KEPT {
            assert_known(&mut app, &key, number);
        }
        admin
            .refused(&Row::new("second", &issuer_number(2), &[&key]).insert())
            .assert("22023", "invalid provider \"second\"");
    }
}

#[test]
fn rows_that_overlap_are_found_among_many_that_are_written_at_once() {
    let (db, key) = (Database::new(), Issuer::hs256());
    let mut admin = db.superuser();
    let is_refused = |refusal: harness::Refusal| {
        assert_eq!(refusal.sqlstate, "22023", "{refusal:?}");
        assert!(refusal.detail.contains("same issuer"), "{refusal:?}");
    };
    let insert = |issuer: &str| {
        format!(
            "INSERT INTO auth.providers (name, issuer, jwks)
             SELECT 'p' || i, {issuer}, {} FROM generate_series(1, 1000) i",
            set_of(&[&key])
        )
    };
    // The last one joins the first.
    is_refused(admin.refused(&insert("'https://' || i % 999 || '.example'")));
    admin.run(&insert("'https://' || i || '.example'"));
    // All move on by one, which in between looks like an overlap, and back.
    let shift = |by: i32| {
        format!(
            "UPDATE auth.providers SET issuer = 'https://' || substr(name, 2)::int + {by} || '.example'"
        )
    };
    admin.run(&shift(1));
    assert_known(&mut db.app(), &key, 1001);
    admin.run(&shift(0));
    is_refused(admin.refused(
        "UPDATE auth.providers SET issuer = 'https://7.example' WHERE name IN ('p9', 'p8')",
    ));
    is_refused(admin.refused("UPDATE auth.providers SET issuer = NULL WHERE name IN ('p9', 'p8')"));
    is_refused(admin.refused(
        "INSERT INTO auth.providers (name, issuer, jwks)
         SELECT name, 'https://7.example', jwks FROM auth.providers WHERE name = 'p9'
         ON CONFLICT (name) DO UPDATE SET issuer = EXCLUDED.issuer",
    ));
    is_refused(admin.refused(
        "MERGE INTO auth.providers p USING (VALUES ('p8'), ('p9')) v (name) ON p.name = v.name
         WHEN MATCHED THEN UPDATE SET issuer = 'https://new.example'",
    ));
    // By COPY.
    let path = std::env::temp_dir().join(format!("many-{}.copy", std::process::id()));
    let path = sql_text(path.to_str().unwrap());
    admin.run(&format!(
        "COPY (SELECT 'copy-' || name, issuer, jwks FROM auth.providers) TO {path}"
    ));
    let copy = format!("COPY auth.providers (name, issuer, jwks) FROM {path}");
    is_refused(admin.refused(&copy));
    admin.run(&format!(
        "BEGIN; DELETE FROM auth.providers; {copy}; COMMIT"
    ));
    assert_known(&mut db.app(), &key, 1000);
    // One of which nothing has remained is nobody's obstacle.
    admin.run("BEGIN; SAVEPOINT s");
    is_refused(admin.refused(&Row::new("second", &issuer_number(2), &[&key]).insert()));
    admin.run("ROLLBACK TO s");
    admin.run(&Row::new("second", &issuer_number(2), &[&Issuer::ed25519()]).insert());
    is_refused(admin.refused(&Row::new("third", &issuer_number(2), &[&key]).insert()));
    admin.run("ROLLBACK");
    assert_eq!(admin.text("SELECT count(*) FROM auth.providers"), "1000");
}

#[test]
fn an_issuer_may_be_long_and_too_long_is_said_plainly() {
    let (db, key) = (Database::new(), Issuer::hs256());
    let mut admin = db.superuser();
    // Nothing that compresses.
    let long = |bytes: usize| -> String {
        let text = (0..bytes / 64 + 1).map(|i| {
            let digest = ring::digest::digest(&ring::digest::SHA256, i.to_string().as_bytes());
            digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        });
        text.collect::<String>()[..bytes].to_owned()
    };
    admin.run(&Row::new("long", &long(2048), &[&key]).insert());
    let refusal = admin.refused(&Row::new("longer", &long(2049), &[&key]).insert());
    refusal.assert("22023", "invalid provider \"longer\"");
    assert_eq!(refusal.detail, "the issuer is longer than 2048 bytes");
    let mut app = db.app();
    app.present(&token_with(&key, "alice", &json!({"iss": long(2048)})));
    app.assert_user("alice");
    for bytes in [2047, 2049, 40_000] {
        app.rejected(&token_with(&key, "alice", &json!({"iss": long(bytes)})))
            .assert_stage("key", first_line::ISSUER);
    }
}

#[test]
fn an_issuer_is_found_in_whatever_encoding() {
    let (db, key) = (Database::in_encoding("LATIN1"), Issuer::hs256());
    let mut admin = db.superuser();
    admin.run("CREATE EXTENSION pg_session_jwt");
    for (name, issuer) in [("one", "https://é.example"), ("two", "https://e.example")] {
        admin.run(&Row::new(name, issuer, &[&key]).insert());
    }
    let mut app = db.app();
    let of = |issuer: &str| token_with(&key, issuer, &json!({"iss": issuer}));
    for issuer in ["https://é.example", "https://e.example"] {
        app.run(&format!("SET pg_session_jwt.jwt = '{}'", of(issuer)));
        app.assert_user(issuer);
    }
    // No text of this database holds such a name.
    for issuer in ["https://\u{3a9}.example", "https://e\u{301}.example"] {
        app.rejected(&of(issuer))
            .assert_stage("key", first_line::ISSUER);
    }
}

/// As logical replication of a newer version's table, or a superuser, may leave one.
#[test]
fn a_row_that_cannot_be_read_is_its_issuers_trouble_only() {
    let (db, key) = database();
    let mut admin = db.superuser();
    admin.run(
        "BEGIN; ALTER TABLE auth.providers DISABLE TRIGGER ALL;
         UPDATE auth.providers SET jwks = '[]' WHERE name = 'p2'; COMMIT",
    );
    let mut app = db.app_with_key(&key);
    for _ in 0..2 {
        assert_known(&mut app, &key, 1);
        app.rejected(&token_of(&key, 2))
            .assert("22023", "invalid provider \"p2\"");
        admin.run("ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider");
    }
    admin.run("DELETE FROM auth.providers WHERE name <> 'p2'");
    // It is there, and nothing below it counts.
    app.rejected(&key.token_for("mallory"))
        .assert_stage("key", first_line::ISSUER);
}

#[test]
fn five_thousand_providers_and_three_hundred_issuers_need_little_memory() {
    let keys = [Issuer::rs256().with_kid("a"), Issuer::es256().with_kid("b")];
    let keys = &keys.each_ref();
    let measure = |providers: usize, issuers: usize| {
        let db = Database::new();
        register_many(&mut db.superuser(), 1..=providers, keys);
        let mut app = db.superuser();
        app.run("SELECT count(*) FROM pg_class, pg_proc WHERE relname = proname");
        app.run("LOAD 'pg_session_jwt'");
        let pid = app.pid();
        let before = backend_memory_kib(&pid);
        assert_known(&mut app, keys[1], 1);
        let first = backend_memory_kib(&pid) - before;
        let mut grown = Vec::new();
        for turn in 0..3 {
            for number in 0..issuers {
                assert_known(&mut app, keys[1], number % providers + 1);
            }
            grown.push(backend_memory_kib(&pid) - before);
            println!("{providers} providers, turn {turn}: {first}, {grown:?} KiB");
        }
        (first, grown)
    };
    let (few_first, few) = measure(10, 10);
    let (many_first, many) = measure(5000, 300);
    assert!(many_first - few_first < 512, "{few_first} {many_first}");
    assert!(many[0] - few[0] < 1024, "{few:?} {many:?}");
    // Nor does it go on growing, also with issuers that nobody has registered.
    assert!(many[2] - many[0] < 512, "{many:?}");
}

#[test]
fn made_up_issuers_leave_nothing_behind() {
    let (db, key) = database();
    let mut app = db.app();
    assert_known(&mut app, &key, 1);
    let pid = app.pid();
    let mut made_up = |from: usize| {
        for number in from..from + 3000 {
            app.rejected(&token_with(
                &key,
                "alice",
                &json!({"iss": format!("{}/{number}", "x".repeat(1000))}),
            ));
        }
        app.assert_user("user-1");
        backend_memory_kib(&pid)
    };
    let before = made_up(0);
    let after = made_up(10_000);
    // With assertions Postgres overwrites what it frees: what was only asked for then counts as used.
    if app.text("SHOW debug_assertions") == "off" {
        assert!(after - before < 512, "{before} {after}");
    }
}
