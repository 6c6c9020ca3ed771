//! Keys that change count, or stop counting, at the next statement of every open session.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use harness::{
    APP_USER, Database, ISS, Issuer, Row, Session, first_line, jwks, server_log, set_of, sql_text,
    token,
};

/// What takes the identity of the provider's users away, and gives it back; and how their tokens are
/// then refused.
fn removals(keys: &Issuer) -> [(&'static str, String, &'static str); 6] {
    let other = Issuer::ed25519();
    let other_keys = set_of(&[&other]);
    let restore = |sql: &str| {
        format!(
            "{sql}; DELETE FROM auth.providers; {}",
            Row::main(&[keys]).insert()
        )
    };
    [
        (
            "UPDATE auth.providers SET enabled = false",
            "UPDATE auth.providers SET enabled = true".into(),
            first_line::ISSUER,
        ),
        (
            "DELETE FROM auth.providers",
            Row::main(&[keys]).insert(),
            first_line::NO_KEY,
        ),
        (
            "TRUNCATE auth.providers",
            Row::main(&[keys]).insert(),
            first_line::NO_KEY,
        ),
        (
            "UPDATE auth.providers SET issuer = 'https://elsewhere.example'",
            format!("UPDATE auth.providers SET issuer = '{ISS}'"),
            first_line::ISSUER,
        ),
        (
            "UPDATE auth.providers SET audience = '{nobody}'",
            "UPDATE auth.providers SET audience = NULL".into(),
            first_line::AUDIENCE,
        ),
        (
            Box::leak(format!("UPDATE auth.providers SET jwks = {other_keys}").into_boxed_str()),
            restore("SELECT"),
            first_line::SIGNATURE,
        ),
    ]
}

#[test]
fn what_is_removed_stops_counting_at_the_next_statement_of_every_open_session() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let tokens = [token(&issuer, "alice"), token(&issuer, "bob")];
    let mut idle = db.app();
    idle.present(&tokens[0]);
    let mut prepared = db.app();
    prepared.present(&tokens[0]);
    prepared.run(
        "PREPARE who AS SELECT auth.user_id(); PREPARE mine AS SELECT task FROM todos ORDER BY id",
    );
    // Enough runs for a generic plan.
    for _ in 0..8 {
        assert_eq!(prepared.text("EXECUTE who"), "alice");
        assert_eq!(prepared.rows("EXECUTE mine"), ["write", "sleep"]);
    }
    for (removal, restore, message) in removals(&issuer) {
        for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            println!("{isolation}: {removal}");
            let mut open = db.app();
            open.run(&format!("BEGIN ISOLATION LEVEL {isolation}"));
            open.present(&tokens[1]);
            open.assert_user("bob");
            assert_eq!(open.tasks(), ["read"]);
            open.run("SAVEPOINT s");
            // It touches no table at all.
            let mut tableless = db.app();
            tableless.present(&tokens[1]);
            tableless.run(&format!("BEGIN ISOLATION LEVEL {isolation}"));
            tableless.assert_user("bob");

            admin.run(removal);
            open.user_refused().assert("28000", message);
            open.run("ROLLBACK TO SAVEPOINT s");
            open.refused("SELECT task FROM todos")
                .assert("28000", message);
            tableless.user_refused().assert("28000", message);
            idle.user_refused().assert("28000", message);
            idle.refused("SELECT * FROM todos").assert("28000", message);
            prepared.refused("EXECUTE who").assert("28000", message);
            prepared.refused("EXECUTE mine").assert("28000", message);
            assert_eq!(
                idle.text("SELECT subject IS NULL AND problem IS NOT NULL FROM auth.status()"),
                "t"
            );

            admin.run(&restore);
            idle.assert_user("alice");
            assert_eq!(prepared.text("EXECUTE who"), "alice");
            assert_eq!(prepared.rows("EXECUTE mine"), ["write", "sleep"]);
            open.run("ROLLBACK TO SAVEPOINT s");
            open.assert_user("bob");
            assert_eq!(open.tasks(), ["read"]);
        }
    }
}

#[test]
fn a_change_that_no_trigger_tells_of_counts_at_the_next_statement_too() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let mut app = db.app();
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
    // What pg_restore --disable-triggers does before it, and after.
    let off = "ALTER TABLE auth.providers DISABLE TRIGGER ALL";
    let on_again = "ALTER TABLE auth.providers ENABLE TRIGGER ALL";
    let disable = "UPDATE auth.providers SET enabled = false";
    let enable = "UPDATE auth.providers SET enabled = true";

    admin.run(off);
    app.assert_user("alice");
    admin.run(disable);
    app.user_refused().assert("28000", first_line::ISSUER);
    app.rejected(&token(&issuer, "bob"))
        .assert("28000", first_line::ISSUER);
    admin.run(enable);
    app.assert_user("alice");

    // No trigger that was enabled this way fires for what logical replication applies.
    admin.run(on_again);
    app.assert_user("alice");
    admin.run("SET session_replication_role = replica");
    admin.run(disable);
    app.user_refused().assert("28000", first_line::ISSUER);
    admin.run(enable);
    app.assert_user("alice");

    admin.run("ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider");
    app.assert_user("alice");
    admin.run(disable);
    app.user_refused().assert("28000", first_line::ISSUER);
}

#[test]
fn a_new_key_counts_at_once_too() {
    let (db, old, new) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&old]);
    let mut app = db.app();
    app.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class; SAVEPOINT s");
    app.rejected(&token(&new, "alice"))
        .assert_stage("signature", first_line::SIGNATURE);
    app.run("ROLLBACK TO SAVEPOINT s");
    admin.rotate(&[&new]);
    app.present(&token(&new, "alice"));
    app.assert_user("alice");
}

#[test]
fn the_next_statement_may_be_one_of_a_function() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let users_before_and_after = [
        // An expression, and queries, with and without a table.
        "first := auth.user_id(); PERFORM pg_advisory_lock(7); second := auth.user_id();",
        "SELECT auth.user_id() INTO first; PERFORM pg_advisory_lock(7); SELECT auth.user_id() INTO second;",
        "SELECT min(user_id) INTO first FROM todos; PERFORM pg_advisory_lock(7);
         SELECT min(user_id) INTO second FROM todos;",
        "FOR i IN 1..2 LOOP
             SELECT auth.user_id() INTO second;
             IF i = 1 THEN first := second; PERFORM pg_advisory_lock(7); END IF;
         END LOOP;",
        "FOR i IN 1..2 LOOP
             second := auth.user_id();
             IF i = 1 THEN first := second; PERFORM pg_advisory_lock(7); END IF;
         END LOOP;",
    ];
    for (number, body) in users_before_and_after.iter().enumerate() {
        println!("{body}");
        admin.run(&format!(
            "CREATE FUNCTION before_and_after_{number}() RETURNS text LANGUAGE plpgsql AS $$
             DECLARE first text; second text;
             BEGIN {body} RETURN first || ' ' || second; END $$"
        ));
        admin.run("SELECT pg_advisory_lock(7)");
        std::thread::scope(|threads| {
            let mut app = db.app();
            app.present(&token(&issuer, "alice"));
            let pid = app.pid();
            let asked =
                threads.spawn(move || app.refused(&format!("SELECT before_and_after_{number}()")));
            wait_for_lock(&mut admin, &pid);
            // Committed before the lock goes.
            admin.run("UPDATE auth.providers SET enabled = false");
            admin.run("SELECT pg_advisory_unlock(7)");
            asked
                .join()
                .unwrap()
                .assert_stage("key", first_line::ISSUER);
        });
        admin.run("UPDATE auth.providers SET enabled = true");
    }
}

/// Waits until a backend waits for a lock.
fn wait_for_lock(session: &mut Session, pid: &str) {
    let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    let deadline = Instant::now() + Duration::from_secs(20);
    while session.text(&waits) == "0" {
        assert!(Instant::now() < deadline, "backend {pid} waits for no lock");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_change_that_is_rolled_back_changes_nothing_for_anybody() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let mut app = db.app();
    app.present(&token(&issuer, "alice"));
    // The one who changes sees what it does while it does it, and no longer.
    admin.present(&token(&issuer, "bob"));
    for (removal, restore, message) in removals(&issuer) {
        println!("{removal}");
        admin.run("BEGIN");
        admin.run(removal);
        app.assert_user("alice");
        admin.user_refused().assert("28000", message);
        app.assert_user("alice");
        admin.run("ROLLBACK");
        admin.assert_user("bob");
        app.assert_user("alice");

        admin.run("BEGIN; SAVEPOINT s");
        admin.run(removal);
        app.assert_user("alice");
        admin.run("SAVEPOINT t");
        admin.user_refused().assert("28000", message);
        admin.run("ROLLBACK TO SAVEPOINT s");
        admin.assert_user("bob");
        app.assert_user("alice");
        admin.run(removal);
        admin.run("SAVEPOINT u");
        admin.user_refused().assert("28000", message);
        admin.run("ROLLBACK TO SAVEPOINT u");
        admin.run(&restore);
        admin.assert_user("bob");
        admin.run("COMMIT");
        admin.assert_user("bob");
        app.assert_user("alice");

        // An error undoes it as well, also one that PL/pgSQL catches.
        let sql = format!("{removal}; SELECT 1/0");
        assert_eq!(admin.refused(&sql).sqlstate, "22012");
        admin.assert_user("bob");
        let removal = removal.replace('\'', "''");
        admin.run(&format!(
            "DO $do$ BEGIN
                 BEGIN EXECUTE '{removal}'; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN END;
                 IF auth.user_id() <> 'bob' THEN RAISE 'it is %', auth.user_id(); END IF;
             END $do$"
        ));
        admin.assert_user("bob");
        app.assert_user("alice");
    }
}

#[test]
fn a_provider_that_is_not_yet_committed_is_for_nobody_else() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    admin.run("BEGIN");
    admin.register(&[&Issuer::ed25519()]);
    app.assert_user("alice");
    admin.run("ROLLBACK");
    app.assert_user("alice");
    admin.run("BEGIN");
    admin.register(&[&Issuer::ed25519()]);
    app.assert_user("alice");
    admin.run("COMMIT");
    app.user_refused().assert_stage("key", first_line::ISSUER);
}

#[test]
fn a_table_emptied_twice_in_one_transaction_is_empty() {
    // The second TRUNCATE works in place: it gives the table no new file.
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.run("BEGIN; TRUNCATE auth.providers");
    admin.register(&[&issuer]);
    admin.present(&token(&issuer, "alice"));
    admin.assert_user("alice");
    admin.run("TRUNCATE auth.providers; SAVEPOINT s");
    admin.user_refused().assert_stage("key", first_line::NO_KEY);
    admin.run("ROLLBACK TO SAVEPOINT s; COMMIT");
    admin.user_refused().assert_stage("key", first_line::NO_KEY);
}

#[test]
fn a_change_that_lands_while_a_backend_reads_is_not_missed() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let [mut one, mut two, mut three] = std::array::from_fn(|_| db.superuser());
    let mut app = db.app();
    one.register(&[&issuer]);
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
    let (app_pid, two_pid) = (app.pid(), two.pid());
    let touch = "UPDATE auth.providers SET audience = NULL";
    let lock = "LOCK TABLE auth.providers IN ACCESS EXCLUSIVE MODE";
    // The backend has to read, and cannot yet; when it can, there has been a change; and when it
    // reads again, another one.
    three.run(touch);
    one.run(&format!("BEGIN; {lock}; {touch}"));
    std::thread::scope(|threads| {
        let app = &mut app;
        let reader = threads.spawn(move || app.assert_user("alice"));
        wait_for_lock(&mut three, &app_pid);
        let second = threads.spawn(move || two.run(&format!("BEGIN; {lock}; {touch}; COMMIT")));
        wait_for_lock(&mut three, &two_pid);
        one.run("COMMIT");
        second.join().unwrap();
        reader.join().unwrap();
    });
    three.run("UPDATE auth.providers SET enabled = false");
    app.user_refused().assert_stage("key", first_line::ISSUER);
}

#[test]
fn a_backend_that_was_interrupted_while_it_read_reads_again() {
    let (db, issuer, attacker) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&issuer]);
    let mut cold = db.app_with_key(&attacker);
    let mut warm = db.app();
    warm.present(&token(&issuer, "alice"));
    warm.assert_user("alice");
    admin.run("UPDATE auth.providers SET audience = '{x}'");
    for (timeout, sqlstate) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        admin.run("BEGIN; LOCK TABLE auth.providers IN ACCESS EXCLUSIVE MODE");
        for session in [&mut cold, &mut warm] {
            session.run(&format!("SET {timeout} = '50ms'"));
            for sql in ["SELECT auth.user_id()", "SELECT auth.init()"] {
                let refusal = session.try_run(sql);
                if let Err(refusal) = refusal {
                    assert_eq!(refusal.sqlstate, sqlstate, "{refusal:?}");
                }
            }
            session.run(&format!("SET {timeout} = 0"));
        }
        admin.run("COMMIT");
        // The key that the client brought does not count, and the provider's new policy does.
        cold.rejected(&attacker.token_for("mallory"))
            .assert_stage("key", first_line::ISSUER);
        warm.user_refused()
            .assert_stage("policy", first_line::AUDIENCE);
        admin.run("UPDATE auth.providers SET audience = '{y}'");
    }
}

/// Keys enough to be kept out of line in the table: reading them opens another relation.
fn large_set(signer: &Issuer) -> String {
    let mut keys = vec![signer.jwk()];
    keys.extend((0..40).map(|i| Issuer::ed25519().with_kid(&format!("other-{i}")).jwk()));
    sql_text(&jwks(&keys))
}

#[test]
fn ten_backends_that_read_while_keys_rotate_a_thousand_times_never_lag_behind() {
    const ROTATIONS: u64 = 1000;
    let db = Database::with_todos();
    let issuers = [
        Issuer::ed25519().with_kid("even"),
        Issuer::ed25519().with_kid("odd"),
    ];
    // In generation n the issuer n % 2 is trusted.
    let rotations: Vec<_> = issuers
        .iter()
        .map(|issuer| format!("UPDATE auth.providers SET jwks = {}", large_set(issuer)))
        .collect();
    let mut admin = db.superuser();
    admin.register(&[&issuers[0]]);
    let (begun, committed) = (AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let answers: u64 = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..10)
            .map(|number: usize| {
                let (db, issuers) = (&db, &issuers);
                let (begun, committed, over) = (&begun, &committed, &over);
                threads.spawn(move || {
                    let own = (number % 2) as u64;
                    let user = if own == 0 { "alice" } else { "bob" };
                    let token = token(&issuers[number % 2], user);
                    let literal = sql_text(&token);
                    let mut app = db.connect(APP_USER, "");
                    let mut answers = [0_u64; 2];
                    let ask = match number / 2 {
                        0 => "SELECT auth.user_id()".to_owned(),
                        1 => format!("SELECT auth.verify({literal})->>'sub'"),
                        2 => format!("SELECT auth.user_id() FROM auth.jwt_session_init({literal})"),
                        3 => "EXECUTE mine".to_owned(),
                        _ => "SELECT subject FROM auth.status()".to_owned(),
                    };
                    app.run(&format!("SET pg_session_jwt.jwt = {literal}"));
                    app.run("PREPARE mine AS SELECT min(user_id) FROM todos");
                    if number / 2 == 4 {
                        // One transaction for all of it.
                        app.run(
                            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class",
                        );
                    }
                    let mut last = false;
                    loop {
                        let before = committed.load(SeqCst);
                        let answer = app.try_value(&ask);
                        let after = begun.load(SeqCst);
                        let accepted = match &answer {
                            Ok(Some(subject)) => {
                                assert_eq!(subject, user);
                                true
                            }
                            // auth.status() never raises.
                            Ok(None) if number / 2 == 4 => false,
                            Ok(None) => panic!("{ask}: nobody"),
                            Err(refusal) => {
                                refusal.assert_stage("key", first_line::NO_KEY_FITS);
                                false
                            }
                        };
                        if before == after {
                            assert_eq!(accepted, before % 2 == own, "{ask} in generation {before}");
                        }
                        answers[usize::from(accepted)] += 1;
                        if last {
                            break;
                        }
                        // Once more when the last generation has been committed.
                        last = over.load(SeqCst);
                    }
                    assert!(answers[1] > 0, "{ask}: {answers:?}");
                    answers[0] + answers[1]
                })
            })
            .collect();
        for generation in 1..=ROTATIONS {
            begun.store(generation, SeqCst);
            admin.run(&rotations[(generation % 2) as usize]);
            committed.store(generation, SeqCst);
            if started.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        over.store(true, SeqCst);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    println!("{answers} answers, {:?}", started.elapsed());
    assert_eq!(
        committed.load(SeqCst),
        ROTATIONS,
        "a machine too slow for this test"
    );
    assert!(!server_log().contains("terminated by signal"));
}
