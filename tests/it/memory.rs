//! Two hundred thousand token changes in one backend: its memory does not grow.

use harness::{Database, Issuer, Session, backend_memory_kib, now, sql_text};
use serde_json::json;

/// What 200,000 leaks of 16 bytes would come to, and more than the noise of an allocator.
const GROWTH_ALLOWED_KIB: i64 = 3 * 1024;

/// A table of tokens for a hundred users.
fn database_with_tokens(issuer: &Issuer) -> Database {
    let db = Database::new();
    let tokens: Vec<String> = (0..100)
        .map(|i| {
            let claims = json!({
                "sub": format!("user-{i}"), "exp": now() + 7200, "role": "reader",
                "o": {"id": "0188a1b2-0000-7000-8000-000000000001", "padding": "x".repeat(500)},
            });
            format!("({i}, {})", sql_text(&issuer.token(&claims)))
        })
        .collect();
    db.superuser().run(&format!(
        "CREATE TABLE tokens (id int PRIMARY KEY, token text);
         INSERT INTO tokens VALUES {};
         GRANT SELECT ON tokens TO PUBLIC;",
        tokens.join(", ")
    ));
    db
}

/// Changes the token `times` times inside one statement, by each way, and uses it each time.
fn change_tokens(app: &mut Session, times: u32, commit: &str) {
    app.run(&format!(
        "DO $$
         DECLARE
             tokens text[] := ARRAY(SELECT token FROM tokens ORDER BY id);
             n int;
         BEGIN
             FOR i IN 1..{times} LOOP
                 n := i % 100;
                 IF i % 2 = 0 THEN
                     PERFORM auth.jwt_session_init(tokens[n + 1], i % 4 = 0);
                 ELSE
                     PERFORM set_config('pg_session_jwt.jwt', tokens[n + 1], i % 3 = 0);
                 END IF;
                 ASSERT auth.user_id() = 'user-' || n;
                 IF i % 10 = 0 THEN
                     ASSERT auth.session() ->> 'sub' = auth.claim('sub');
                     ASSERT auth.organization_id() IS NOT NULL;
                 END IF;
                 {commit}
             END LOOP;
         END $$"
    ));
}

#[track_caller]
fn assert_no_growth(
    app: &mut Session,
    mut changes: impl FnMut(&mut Session, u32),
    warm_up: u32,
    times: u32,
) {
    let pid = app.pid();
    changes(app, warm_up);
    let before = backend_memory_kib(&pid);
    changes(app, times);
    let growth = backend_memory_kib(&pid) - before;
    println!("{growth} KiB more after {times} changes");
    assert!(growth < GROWTH_ALLOWED_KIB, "{growth} KiB");
}

#[test]
fn two_hundred_thousand_token_changes_leave_memory_as_it_was() {
    let issuer = Issuer::hs256();
    let db = database_with_tokens(&issuer);
    let mut app = db.app_with_key(&issuer);
    assert_no_growth(
        &mut app,
        |app, times| change_tokens(app, times, "IF i % 10 = 0 THEN COMMIT; END IF;"),
        20_000,
        200_000,
    );
}

#[test]
fn nor_do_two_hundred_thousand_in_one_transaction_need_more() {
    let issuer = Issuer::hs256();
    let db = database_with_tokens(&issuer);
    let mut app = db.app_with_key(&issuer);
    app.run("BEGIN");
    assert_no_growth(
        &mut app,
        |app, times| change_tokens(app, times, ""),
        20_000,
        200_000,
    );
    app.run("COMMIT");
}

#[test]
fn nor_do_changes_that_come_over_the_wire() {
    let issuer = Issuer::ed25519();
    let db = database_with_tokens(&issuer);
    let mut app = db.app_with_key(&issuer);
    let tokens = app.rows("SELECT token FROM tokens ORDER BY id");
    let present = app
        .client
        .prepare("SELECT set_config('pg_session_jwt.jwt', $1, true)")
        .unwrap();
    let who = app.client.prepare("SELECT auth.user_id()").unwrap();
    assert_no_growth(
        &mut app,
        |app, times| {
            for i in 0..times as usize {
                let mut transaction = app.client.transaction().unwrap();
                transaction.execute(&present, &[&tokens[i % 100]]).unwrap();
                let user: String = transaction.query_one(&who, &[]).unwrap().get(0);
                assert_eq!(user, format!("user-{}", i % 100));
                transaction.commit().unwrap();
            }
        },
        500,
        5_000,
    );
}

#[test]
fn nor_do_rejected_tokens() {
    let (issuer, stranger) = (Issuer::hs256(), Issuer::hs256());
    let db = database_with_tokens(&stranger);
    let mut app = db.app_with_key(&issuer);
    assert_no_growth(
        &mut app,
        |app, times| {
            app.run(&format!(
                "DO $$
                 DECLARE tokens text[] := ARRAY(SELECT token FROM tokens ORDER BY id);
                 BEGIN
                     FOR i IN 1..{times} LOOP
                         BEGIN
                             PERFORM auth.jwt_session_init(tokens[i % 100 + 1]);
                             RAISE 'accepted';
                         EXCEPTION WHEN invalid_authorization_specification THEN
                         END;
                         IF i % 10 = 0 THEN COMMIT; END IF;
                     END LOOP;
                 END $$"
            ));
        },
        2_000,
        20_000,
    );
}
