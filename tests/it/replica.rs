//! A hot standby believes what its primary does, as soon as it has replayed it.

use std::time::{Duration, Instant};

use harness::{Cluster, Issuer, Row, Session, first_line, set_of, sql_text, token};

/// Waits until the standby has replayed what the primary has committed so far.
fn wait_for_replay(primary: &mut Session, standby: &mut Session) {
    let target = primary.text("SELECT pg_current_wal_flush_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'");
    let deadline = Instant::now() + Duration::from_secs(30);
    while standby.text(&replayed) != "t" {
        assert!(Instant::now() < deadline, "the standby does not follow");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_rotation_on_the_primary_takes_identity_away_on_the_standby() {
    let primary = Cluster::start("wal_level = replica\nmax_wal_senders = 4");
    let mut admin = primary.connect("postgres", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN");
    let (first, second) = (Issuer::ed25519(), Issuer::es256());
    admin.run(&Row::main(&[&first]).insert());
    let standby = primary.replica();
    let mut watch = standby.connect("postgres", "postgres");
    assert_eq!(watch.text("SELECT pg_is_in_recovery()"), "t");
    wait_for_replay(&mut admin, &mut watch);

    let mut idle = standby.connect("postgres", "app_user");
    idle.present(&token(&first, "alice"));
    idle.assert_user("alice");
    let mut open = standby.connect("postgres", "app_user");
    open.present(&token(&first, "bob"));
    open.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    open.assert_user("bob");
    let mut app = standby.connect("postgres", "app_user");
    app.rejected(&token(&second, "alice"))
        .assert_stage("key", first_line::NO_KEY_FITS);
    app.refused("SELECT * FROM auth.providers")
        .assert("42501", "permission denied for table providers");

    // Both keys, then the new one alone.
    admin.rotate(&[&first, &second]);
    wait_for_replay(&mut admin, &mut watch);
    idle.assert_user("alice");
    open.assert_user("bob");
    app.present(&token(&second, "carol"));
    app.assert_user("carol");
    admin.rotate(&[&second]);
    wait_for_replay(&mut admin, &mut watch);
    for session in [&mut idle, &mut open] {
        session
            .user_refused()
            .assert_stage("key", first_line::NO_KEY_FITS);
    }
    app.assert_user("carol");

    // A rollback on the primary is none of the standby's business.
    admin.run(&format!(
        "BEGIN; UPDATE auth.providers SET jwks = {}; ROLLBACK; CHECKPOINT",
        set_of(&[&first])
    ));
    wait_for_replay(&mut admin, &mut watch);
    app.assert_user("carol");

    // To and fro: the standby never lags behind what it has replayed.
    let tokens = [token(&first, "first"), token(&second, "second")];
    for turn in 0..50 {
        let (now, other) = if turn % 2 == 0 {
            (&first, 0)
        } else {
            (&second, 1)
        };
        admin.rotate(&[now]);
        wait_for_replay(&mut admin, &mut watch);
        app.run(&format!(
            "SET pg_session_jwt.jwt = {}",
            sql_text(&tokens[other])
        ));
        app.assert_user(if other == 0 { "first" } else { "second" });
        let refused = &tokens[1 - other];
        app.rejected(refused)
            .assert_stage("key", first_line::NO_KEY_FITS);
    }

    // Gone, and nothing else is trusted instead until that is replayed.
    admin.run("DELETE FROM auth.providers");
    wait_for_replay(&mut admin, &mut watch);
    app.user_refused().assert_stage("key", first_line::NO_KEY);
    app.run("SELECT auth.logout(); SET request.jwt.claims = '{\"sub\": \"dave\"}'");
    app.assert_user("dave");
    admin.run(&Row::main(&[&second]).insert());
    wait_for_replay(&mut admin, &mut watch);
    app.assert_nobody();
    admin.run("TRUNCATE auth.providers");
    wait_for_replay(&mut admin, &mut watch);
    app.assert_user("dave");
    for log in [primary.log(), standby.log()] {
        assert!(!log.contains("terminated by signal"), "{log}");
    }
}

#[test]
fn roles_are_assumed_on_a_standby_and_nothing_is_written() {
    let primary = Cluster::start("wal_level = replica\nmax_wal_senders = 4");
    let mut admin = primary.connect("postgres", "postgres");
    admin.run(
        "CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN; SELECT auth.create_roles();
         GRANT anonymous, authenticated TO app_user",
    );
    let issuer = Issuer::ed25519();
    admin.run(
        &Row::main(&[&issuer])
            .with("default_role", "'authenticated'")
            .insert(),
    );
    let standby = primary.replica();
    let mut watch = standby.connect("postgres", "postgres");
    wait_for_replay(&mut admin, &mut watch);
    let mut app = standby.connect("postgres", "app_user");
    let token = sql_text(&token(&issuer, "alice"));
    app.run(&format!("BEGIN; SELECT auth.login({token})"));
    assert_eq!(
        app.rows("SELECT current_user, auth.user_id()"),
        ["authenticated|alice"]
    );
    app.run("COMMIT");
    assert_eq!(
        app.rows("SELECT current_user, auth.user_id()"),
        ["app_user|NULL"]
    );
    watch
        .refused(&Row::new("other", "https://other.example", &[&issuer]).insert())
        .assert("25006", "cannot execute INSERT in a read-only transaction");
}
