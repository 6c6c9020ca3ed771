//! The crate postgres, with auth.jwt_session_init(). What it must live through is in ../node/scenario.mjs; here
//! is the part of it that takes a driver of its own kind.
//!
//! The tests run one after the other: they share the issuers, whose keys change.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use harness::{Refusal, first_line, setting};
use postgres::types::Type;
use postgres::{Client, Error, NoTls, Transaction};

const CLIENTS: usize = 16;
const USERS: [Option<&str>; 3] = [Some("alice"), Some("bob"), None];

fn connect(address: &str) -> Client {
    Client::connect(&setting(address), NoTls).expect("a connection")
}

/// Asks the issuers: issuers.mjs says what for.
fn ask(method: &str, path: &str) -> String {
    let issuers = setting("ISSUERS");
    let address = issuers.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the issuers");
    write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    body.to_owned()
}

fn token(user: &str, kind: &str) -> String {
    ask("GET", &format!("/token?user={user}&kind={kind}"))
}

/// A transaction of the token's user; `None`: of no one.
fn with_user<T>(
    client: &mut Client,
    token: Option<&str>,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut transaction = client.transaction()?;
    if let Some(token) = token {
        present(&mut transaction, token)?;
    }
    let result = work(&mut transaction)?;
    transaction.commit()?;
    Ok(result)
}

fn present(db: &mut Transaction<'_>, token: &str) -> Result<(), Error> {
    // Typed: `query` prepares by name, of which PgBouncer before 1.21 does not keep track.
    let token = (&token as &(dyn postgres::types::ToSql + Sync), Type::TEXT);
    let present = "SELECT auth.jwt_session_init($1, true)";
    db.query_typed(present, &[token]).map(drop)
}

/// It is this user, and sees their rows: all of them, and no others. The process id of the backend.
fn sees_their_own(db: &mut Transaction<'_>, user: Option<&str>) -> Result<i32, Error> {
    let rows = db.query_typed("SELECT auth.user_id(), pg_backend_pid()", &[])?;
    assert_eq!(rows[0].get::<_, Option<&str>>(0), user);
    let todos = db.query_typed("SELECT owner, task FROM todos ORDER BY id", &[])?;
    let seen: Vec<(&str, &str)> = todos.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = user.map_or(vec![], |user| {
        ["task 1", "task 2", "task 3"]
            .map(|task| (user, task))
            .into()
    });
    assert_eq!(seen, expected);
    Ok(rows[0].get(1))
}

/// Users come and go on 16 connections; between transactions each is nobody. The backends they met.
fn all_is_well(rounds: usize) -> HashSet<i32> {
    let tokens = USERS.map(|user| user.map(|user| token(user, "es256")));
    let one = |client: usize| {
        let mut app = connect("DATABASE_URL");
        let round = |round: usize| {
            let who = (client + round) % USERS.len();
            let see = |db: &mut Transaction<'_>| sees_their_own(db, USERS[who]);
            let pid = with_user(&mut app, tokens[who].as_deref(), see).unwrap();
            let id = app.query_typed("SELECT auth.user_id()", &[]).unwrap();
            assert_eq!(id[0].get::<_, Option<&str>>(0), None);
            pid
        };
        (0..rounds).map(round).collect::<HashSet<_>>()
    };
    scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || one(client)))
            .collect();
        let met = clients.into_iter().map(|client| client.join().unwrap());
        met.flatten().collect()
    })
}

#[test]
fn sixteen_clients_share_four_connections_of_the_server() {
    let backends = all_is_well(20);
    assert!(backends.len() <= 4, "{backends:?}");
}

#[test]
fn an_error_in_the_middle_of_a_transaction_hands_nothing_on() {
    let mut app = connect("DATABASE_URL");
    let (alice, forged) = (token("alice", "rs256"), token("bob", "forged"));
    type Work<'a> = &'a dyn Fn(&mut Transaction<'_>) -> Result<(), Error>;
    let sql = |sql: &'static str| move |db: &mut Transaction<'_>| db.batch_execute(sql);
    let cancelled = |db: &mut Transaction<'_>| {
        let pid: i32 = db.query_typed("SELECT pg_backend_pid()", &[])?[0].get(0);
        scope(|scope| {
            scope.spawn(move || {
                let wake = format!("SELECT admin.wake({pid})");
                connect("ADMIN_URL").batch_execute(&wake)
            });
            db.batch_execute("SELECT pg_sleep(10)")
        })
    };
    let happens: [(Work<'_>, &str, &str); 6] = [
        (
            &sql("INSERT INTO todos (task) VALUES ('task 1')"),
            "23505",
            "duplicate key value violates unique constraint \"todos_owner_task_key\"",
        ),
        (
            &sql("INSERT INTO todos (task) VALUES ('')"),
            "23514",
            "new row for relation \"todos\" violates check constraint \"todos_task_check\"",
        ),
        (&sql("SELECT 1 / 0"), "22012", "division by zero"),
        (
            &sql("SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(10)"),
            "57014",
            "canceling statement due to statement timeout",
        ),
        (
            &cancelled,
            "57014",
            "canceling statement due to user request",
        ),
        (&|db| present(db, &forged), "28000", first_line::SIGNATURE),
    ];
    for (work, sqlstate, message) in happens {
        println!("{message}");
        let failed = with_user(&mut app, Some(&alice), |db| {
            db.batch_execute("INSERT INTO todos (task) VALUES ('never')")?;
            work(db)
        });
        Refusal::from_error(&failed.unwrap_err()).assert(sqlstate, message);
        all_is_well(2);
    }
}

#[test]
fn after_a_savepoint_is_rolled_back_the_user_is_who_it_was() {
    let mut app = connect("DATABASE_URL");
    let (alice, bob) = (token("alice", "rs256"), token("bob", "jose"));
    with_user(&mut app, Some(&alice), |db| {
        let mut part = db.transaction()?;
        present(&mut part, &bob)?;
        sees_their_own(&mut part, Some("bob"))?;
        part.batch_execute("SELECT 1 / 0").unwrap_err();
        part.rollback()?;
        sees_their_own(db, Some("alice"))
    })
    .unwrap();
}

#[test]
fn a_token_that_is_not_accepted_is_refused_and_nobody_comes_of_it() {
    let mut app = connect("DATABASE_URL");
    for (kind, stage, message) in [
        ("expired", "time", first_line::EXPIRED),
        ("forged", "signature", first_line::SIGNATURE),
        ("elsewhere", "policy", first_line::AUDIENCE),
        ("stranger", "key", first_line::ISSUER),
    ] {
        let presented = token("alice", kind);
        let failed = with_user(&mut app, Some(&presented), |_| -> Result<(), Error> {
            panic!("no statement follows a token that is refused")
        });
        Refusal::from_error(&failed.unwrap_err()).assert_stage(stage, message);
        all_is_well(1);
    }
}

#[test]
fn the_provider_rotates_its_keys_while_requests_come_in() {
    let mut admin = connect("ADMIN_URL");
    let old = token("alice", "rs256");
    let mut app = connect("DATABASE_URL");
    let see = |db: &mut Transaction<'_>| sees_their_own(db, Some("alice"));
    with_user(&mut app, Some(&old), see).unwrap();
    admin
        .batch_execute("SELECT admin.a_minute_later()")
        .unwrap();

    let over = AtomicBool::new(false);
    scope(|scope| {
        // Tokens of the application's own issuer go on meanwhile.
        let traffic = scope.spawn(|| {
            let (mut app, bob) = (connect("DATABASE_URL"), token("bob", "jose"));
            let see = |db: &mut Transaction<'_>| sees_their_own(db, Some("bob"));
            while !over.load(Ordering::Acquire) {
                with_user(&mut app, Some(&bob), see).unwrap();
            }
        });
        ask("POST", "/rotate");
        let new = token("alice", "rs256");
        with_user(&mut app, Some(&new), see).unwrap();
        with_user(&mut app, Some(&old), see).unwrap();
        ask("POST", "/retire");
        let refresh = "SELECT * FROM auth.refresh('oidc')";
        admin.batch_execute(refresh).unwrap();
        let failed = with_user(&mut app, Some(&old), see).unwrap_err();
        Refusal::from_error(&failed).assert_stage("key", first_line::NO_KEY_FITS);
        with_user(&mut app, Some(&new), see).unwrap();
        over.store(true, Ordering::Release);
        traffic.join().unwrap();
    });
    all_is_well(2);
}
