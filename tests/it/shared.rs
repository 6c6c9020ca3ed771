//! What one connection has verified, all remember; and nothing else is accepted for it.

use harness::{Cluster, Issuer, Row, Session, first_line, pg_major, token, wait_until};

/// A server whose connections share so much memory, and its administrator.
fn server(memory: &str) -> (Cluster, Session) {
    let server = Cluster::start(&format!(
        "shared_preload_libraries = 'pg_session_jwt'\npg_session_jwt.signature_memory = '{memory}'"
    ));
    let mut admin = server.connect("postgres", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app LOGIN");
    (server, admin)
}

fn app(server: &Cluster) -> Session {
    server.connect("postgres", "app")
}

#[test]
fn memory_is_made_at_start_and_of_the_size_that_was_asked_for() {
    for (memory, bytes) in [("2MB", "2097152"), ("5kB", "5120"), ("0", "")] {
        let (_server, mut admin) = server(memory);
        let allocated =
            "SELECT size FROM pg_shmem_allocations WHERE name = 'pg_session_jwt signatures'";
        assert_eq!(admin.rows(allocated).join(""), bytes, "{memory}");
        admin
            .refused("SET pg_session_jwt.signature_memory = 1")
            .assert(
                "55P02",
                "parameter \"pg_session_jwt.signature_memory\" cannot be changed without restarting the server",
            );
        let key = Issuer::es256();
        admin.register(&[&key]);
        for _ in 0..2 {
            admin.present(&token(&key, "alice"));
            admin.assert_user("alice");
        }
    }
}

#[test]
fn a_remembered_signature_is_worth_what_its_key_is_worth() {
    let (server, mut admin) = server("64kB");
    let (key, same_name) = (
        Issuer::es256().with_kid("kid"),
        Issuer::es256().with_kid("kid"),
    );
    admin.register(&[&key]);
    let good = token(&key, "alice");
    let mut known = app(&server);
    known.present(&good);
    app(&server).present(&good);

    // Another database trusts another key of this name.
    admin.run("CREATE DATABASE other");
    let mut other = server.connect("other", "postgres");
    other.run("CREATE EXTENSION pg_session_jwt");
    other.register(&[&same_name]);
    let mut stranger = server.connect("other", "app");
    stranger
        .rejected(&good)
        .assert_stage("signature", first_line::SIGNATURE);

    // The key is replaced by one of the same name, and taken out.
    admin.rotate(&[&same_name]);
    for session in [&mut known, &mut app(&server)] {
        session
            .rejected(&good)
            .assert_stage("signature", first_line::SIGNATURE);
    }
    admin.run("DELETE FROM auth.providers");
    app(&server)
        .rejected(&good)
        .assert_stage("key", first_line::NO_KEY);

    // It is back: so is what it has signed, for as long as policy and time allow.
    admin.run(&Row::main(&[&key]).with("audience", "'{x}'").insert());
    app(&server)
        .rejected(&good)
        .assert_stage("policy", "JWT audience is not accepted");
    admin.run("UPDATE auth.providers SET audience = NULL");
    app(&server).present(&good);
    // A token with another end than the good one's.
    let mut forged = good.into_bytes();
    let last = forged.len() - 3;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    app(&server)
        .rejected(&forged)
        .assert_stage("signature", first_line::SIGNATURE);
}

#[test]
fn many_connections_that_fight_for_little_memory_accept_what_is_good_and_nothing_else() {
    // Room for 32 signatures.
    let (server, mut admin) = server("1kB");
    let key = Issuer::ed25519();
    let forger = Issuer::ed25519();
    admin.register(&[&key]);
    std::thread::scope(|scope| {
        for number in 0..24 {
            let (server, key, forger) = (&server, &key, &forger);
            scope.spawn(move || {
                let mut session = app(server);
                for turn in 0..40 {
                    // Some are everybody's, some are nobody else's.
                    let user = format!(
                        "user-{}",
                        if turn % 2 == 0 {
                            turn
                        } else {
                            number * 1000 + turn
                        }
                    );
                    session.present(&token(key, &user));
                    session.assert_user(&user);
                    session
                        .rejected(&token(forger, &user))
                        .assert_stage("signature", first_line::SIGNATURE);
                }
            });
        }
    });
}

#[test]
fn after_a_crash_it_is_empty_and_works() {
    let (server, mut admin) = server("64kB");
    let key = Issuer::ed25519();
    admin.register(&[&key]);
    let good = token(&key, "alice");
    app(&server).present(&good);
    let mut victim = app(&server);
    let pid = victim.pid();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    wait_until("the server is back", || {
        server
            .log()
            .matches("database system is ready to accept connections")
            .count()
            >= 2
    });
    for _ in 0..2 {
        let mut session = app(&server);
        session.present(&good);
        session.assert_user("alice");
        session
            .rejected(&token(&Issuer::ed25519(), "alice"))
            .assert_stage("signature", first_line::SIGNATURE);
    }
}

#[test]
fn without_a_preload_the_first_connection_makes_it_from_17_on() {
    let server = Cluster::start("pg_session_jwt.signature_memory = '128kB'");
    let mut admin = server.connect("postgres", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app LOGIN");
    let key = Issuer::es256();
    admin.register(&[&key]);
    let good = token(&key, "alice");
    for _ in 0..3 {
        let mut session = app(&server);
        session.present(&good);
        session.assert_user("alice");
    }
    if pg_major() >= 17 {
        // Inside it is not to be seen before 19; it is a segment of its own.
        let segments = admin
            .text("SELECT count(*) FROM pg_shmem_allocations WHERE name = 'DSM Registry Data'");
        assert_eq!(segments, "1");
    }
    admin
        .refused("SET pg_session_jwt.signature_memory = 1")
        .assert(
            "55P02",
            "parameter \"pg_session_jwt.signature_memory\" cannot be changed now",
        );
}
