//! auth.refresh(): an administrator has keys fetched now.

use std::time::Duration;

use harness::{
    APP_USER, Answer, DISCOVERY, Database, Issuer, Row, Session, Web, sql_text, wait_until,
};

use crate::fetching::{following, key, may_hang, set, timed, token};

const REFRESH: &str = "SELECT provider, keys, error FROM auth.refresh(";

/// A row that follows its issuer at this path.
fn at(web: &Web, name: &str) -> String {
    Row::new(name, &format!("{}/{name}", web.url()), &[])
        .with("jwks", "NULL")
        .with("jwks_url", &sql_text(&format!("{}/{name}/jwks", web.url())))
        .insert()
}

#[test]
fn it_says_of_each_provider_what_came_of_it() {
    let (db, web) = (Database::new(), Web::http());
    let mut admin = db.superuser();
    assert_eq!(
        admin.rows("SELECT * FROM auth.refresh()"),
        Vec::<String>::new()
    );
    admin
        .refused("SELECT * FROM auth.refresh('nobody')")
        .assert("42704", "provider \"nobody\" does not exist");
    let keys = [key("a"), key("b")];
    web.serve("/two/jwks", set(&[keys[0].jwk(), keys[1].jwk()]));
    web.serve("/down/jwks", Answer::Status(503));
    for name in ["two", "down", "off"] {
        admin.run(&at(&web, name));
    }
    admin.run("UPDATE auth.providers SET enabled = false WHERE name = 'off'");
    admin.run(&Row::new("pinned", "https://pinned.example", &[&keys[0]]).insert());
    admin.run(
        &Row::new("name only", "name", &[&keys[0]])
            .with("jwks_url", &sql_text(&format!("{}/two/jwks", web.url())))
            .insert(),
    );
    let down = format!("down|NULL|{}/down/jwks answered 503", web.url());
    let mut all = admin.rows("SELECT * FROM auth.refresh()");
    all.sort_unstable();
    assert_eq!(all, [&down, "name only|2|NULL", "two|2|NULL"]);
    for (name, row) in [
        ("two", "two|2|NULL"),
        ("down", &down),
        (
            "pinned",
            "pinned|NULL|the provider does not follow its issuer: jwks has its keys, and it has no jwks_url",
        ),
        (
            "off",
            &format!("off|NULL|{}/off/jwks answered 404", web.url()),
        ),
    ] {
        assert_eq!(admin.rows(&format!("{REFRESH}'{name}')")), [row]);
    }
    for name in ["", "TWO", "two ", "no' body"] {
        let refusal = admin.refused(&format!("{REFRESH}{})", sql_text(name)));
        assert_eq!(refusal.sqlstate, "42704", "{refusal:?}");
        assert!(refusal.message.ends_with("does not exist"), "{refusal:?}");
    }
    assert_eq!(
        admin.rows("SELECT provider, failures, error IS NULL FROM auth.provider_keys ORDER BY 1"),
        ["down|2|f", "name only|0|t", "off|1|f", "two|0|t"]
    );
    // An outage takes nothing.
    web.serve("/two/jwks", Answer::Status(500));
    let row = admin.rows(&format!("{REFRESH}'two')"));
    assert_eq!(
        row,
        [format!("two|NULL|{}/two/jwks answered 500", web.url())]
    );
    assert_eq!(
        admin.rows(
            "SELECT jsonb_array_length(jwks->'keys') FROM auth.provider_keys WHERE provider = 'two'"
        ),
        ["2"]
    );
}

#[test]
fn it_is_for_the_owners_and_for_whom_they_allow_it() {
    let good = key("good");
    let (db, _web, mut admin) = following(&[&good]);
    for sql in ["SELECT auth.refresh()", "SELECT auth.refresh('web')"] {
        db.app()
            .refused(sql)
            .assert("42501", "permission denied for function refresh");
    }
    let owner = db.role("owner");
    admin.run(&format!("ALTER DATABASE {} OWNER TO {owner}", db.name()));
    let mut owner = db.connect(&owner, "");
    assert_eq!(owner.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
    owner.run(&format!(
        "GRANT EXECUTE ON FUNCTION auth.refresh(text) TO {APP_USER}"
    ));
    let mut app = db.app();
    assert_eq!(
        app.rows("SELECT * FROM auth.refresh('web')"),
        ["web|1|NULL"]
    );
    app.refused("TABLE auth.provider_keys")
        .assert("42501", "permission denied for table provider_keys");
}

#[test]
fn it_works_wherever_a_select_does() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let mut requests = 0;
    for begin in [
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
        "BEGIN",
    ] {
        admin.run(begin);
        admin.run("SELECT count(*) FROM pg_class");
        for _ in 0..2 {
            assert_eq!(admin.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
            requests += 1;
        }
        admin.run("ROLLBACK");
        assert_eq!(web.requests("/jwks"), requests);
    }
    // Its row is visible to the next statement, and to a token at once.
    db.app().present(&token(&web, &good, "alice"));
    assert_eq!(web.requests("/jwks"), requests);
    // As a function of columns, and not for all of them.
    assert_eq!(
        admin.rows("SELECT r.keys FROM auth.providers p, auth.refresh(p.name) r"),
        ["1"]
    );
    assert_eq!(admin.rows("SELECT (auth.refresh('web')).keys"), ["1"]);
}

#[test]
fn whoever_calls_it_while_another_one_fetches_has_a_fetch_of_his_own() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    web.serve(
        "/jwks",
        set(&[good.jwk()]).after(Duration::from_millis(500)),
    );
    let mut sessions: Vec<Session> = (0..3).map(|_| db.superuser()).collect();
    std::thread::scope(|scope| {
        for session in &mut sessions {
            scope.spawn(move || {
                assert_eq!(session.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
            });
        }
    });
    assert_eq!(web.requests("/jwks"), 3, "one after the other");
    assert_eq!(admin.rows("SELECT failures FROM auth.provider_keys"), ["0"]);
}

#[test]
fn a_cancel_is_obeyed_at_once_and_leaves_nothing_behind() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let _alone = may_hang();
    web.serve(DISCOVERY, Answer::Hang);
    let mut session = db.superuser();
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND pid = {}",
        session.pid()
    );
    session.run("SET statement_timeout = '300ms'");
    let (refusal, waited) = timed(|| session.refused("SELECT auth.refresh()"));
    refusal.assert("57014", "canceling statement due to statement timeout");
    assert!((300..800).contains(&waited.as_millis()), "{waited:?}");
    // The client hears of it before the transaction has ended.
    wait_until("the lock is gone", || admin.text(&locks) == "0");
    // In a subtransaction.
    session.run("SET statement_timeout = '100ms'; BEGIN; SAVEPOINT a");
    session
        .refused("SELECT auth.refresh()")
        .assert("57014", "canceling statement due to statement timeout");
    session.run("ROLLBACK TO a");
    assert_eq!(admin.text(&locks), "0");
    session.run("COMMIT; RESET statement_timeout");
    // By another session.
    let pid = session.pid();
    let waited = std::thread::scope(|scope| {
        let refused = scope.spawn(|| timed(|| session.refused("SELECT auth.refresh()")));
        std::thread::sleep(Duration::from_millis(200));
        admin.run(&format!("SELECT pg_cancel_backend({pid})"));
        let (refusal, waited) = refused.join().unwrap();
        refusal.assert("57014", "canceling statement due to user request");
        waited
    });
    assert!((150..800).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(
        web.requests(DISCOVERY),
        1,
        "the first worker goes on, and is the only one"
    );
    assert_eq!(admin.text(&locks), "0");
    wait_until("the worker ends by itself", || {
        admin.rows("SELECT failures FROM auth.provider_keys") == ["1"]
    });
    web.serve_issuer(&[&good]);
    assert_eq!(session.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
}

#[test]
fn a_provider_that_may_not_be_asked_says_why() {
    let db = Database::without_extension();
    let mut admin = db.superuser();
    let owner = db.role("owner");
    admin.run(&format!("ALTER DATABASE {} OWNER TO {owner}", db.name()));
    let mut owner = db.connect(&owner, "");
    owner.run("CREATE EXTENSION pg_session_jwt");
    let web = Web::http();
    web.serve_issuer(&[&Issuer::ed25519()]);
    owner.run(&crate::fetching::follow(&web));
    let why = "web|NULL|Keys are not fetched from \"127.0.0.1\": a superuser may add this host to pg_session_jwt.fetch_hosts, or write the provider's row.";
    for session in [&mut owner, &mut admin] {
        assert_eq!(session.rows("SELECT * FROM auth.refresh()"), [why]);
        assert_eq!(session.rows("SELECT * FROM auth.refresh('web')"), [why]);
    }
    admin.run("SET pg_session_jwt.fetch_hosts = '127.0.0.1'");
    assert_eq!(admin.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
    assert_eq!(web.requests("/jwks"), 1);
}
