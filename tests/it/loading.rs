//! The library is loaded at the first call in a connection, and the client chooses that moment: in
//! parallel mode, in a worker, under a time-out, within a transaction that is undone. Whatever it
//! chooses, it is whom its token says, and what an administrator has set stays set.

use std::path::PathBuf;
use std::process::Command;

use harness::{APP_USER, Cluster, Database, Issuer, Refusal, Session, option, setting, sql_text};
use serde_json::json;

const BOB: &str = r#"SET request.jwt.claims = '{"sub":"bob"}'"#;

/// How a library comes into a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Preloaded {
    No,
    Session,
}

fn database(preloaded: Preloaded) -> Database {
    let db = Database::with_todos();
    if preloaded == Preloaded::Session {
        db.administrator_sets("session_preload_libraries", "pg_session_jwt");
    }
    db
}

/// Functions that load the library, or read the table, wherever the plan puts them. `app_user` owns no
/// schema, but it has pg_temp.
fn prepare(app: &mut Session) {
    app.run(
        "CREATE FUNCTION pg_temp.half() RETURNS bool LANGUAGE plpgsql PARALLEL SAFE
             AS 'begin return auth.user_id() is null; end';
         CREATE FUNCTION pg_temp.quiet() RETURNS bool LANGUAGE plpgsql PARALLEL SAFE
             AS 'begin return auth.user_id() is null; exception when others then return true; end';
         CREATE FUNCTION pg_temp.see() RETURNS text LANGUAGE plpgsql PARALLEL SAFE
             AS 'begin return (select string_agg(task, $$,$$) from public.todos); end';
         SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0;",
    );
}

const LOAD_IN_LEADER: &str =
    "SET max_parallel_workers = 0; SELECT count(*) FROM pg_class WHERE pg_temp.half()";
const SEE_IN_WORKER: &str = "SET max_parallel_workers = 8; SET parallel_leader_participation = off;
    SELECT DISTINCT coalesce(pg_temp.see(), '') FROM pg_class";

/// The errors that a client may get when it causes a load that cannot be completed.
#[track_caller]
fn assert_told(refusal: &Refusal) {
    // 25000: a subtransaction in parallel mode, which Postgres refuses; 25P02: after an error.
    let states = ["25000", "25P02", "28000", "42501", "55000", "57014"];
    assert!(states.contains(&refusal.sqlstate.as_str()), "{refusal:?}");
    assert!(!refusal.message.is_empty());
}

/// Runs statements, each of which may be refused, then returns what a worker sees of `todos`, and the
/// leader.
#[track_caller]
fn seen_after(app: &mut Session, statements: &[&str]) -> Vec<Result<String, Refusal>> {
    for statement in statements {
        if let Err(refusal) = app.try_run(statement) {
            assert_told(&refusal);
        }
    }
    ["SELECT coalesce(pg_temp.see(), '')", SEE_IN_WORKER]
        .into_iter()
        .rev()
        .map(|sql| app.try_value(sql).map(Option::unwrap_or_default))
        .collect()
}

/// A load in the leader of a parallel plan, one that is caught, one in a worker, one that is undone.
const LOADS: &[&[&str]] = &[
    &[LOAD_IN_LEADER],
    &["SET max_parallel_workers = 0; SELECT count(*) FROM pg_class WHERE pg_temp.quiet()"],
    &[
        "SET parallel_leader_participation = off; SELECT count(*) FROM pg_class WHERE pg_temp.half()",
    ],
    &[
        "BEGIN",
        "SAVEPOINT a",
        LOAD_IN_LEADER,
        "ROLLBACK TO a",
        "COMMIT",
        "ROLLBACK",
    ],
    &["BEGIN", LOAD_IN_LEADER, LOAD_IN_LEADER, "ROLLBACK"],
    &[
        LOAD_IN_LEADER,
        LOAD_IN_LEADER,
        "RESET ALL",
        "DISCARD TEMP",
        BOB,
    ],
    &[],
];

#[test]
fn a_half_loaded_leader_and_a_clean_worker_are_nobody_under_somebody_elses_key() {
    let issuer = Issuer::ed25519();
    for preloaded in [Preloaded::No, Preloaded::Session] {
        let db = database(preloaded);
        for load in LOADS {
            let mut app = db.app_with_key(&issuer);
            prepare(&mut app);
            app.run(BOB);
            for seen in seen_after(&mut app, load) {
                if load.contains(&"DISCARD TEMP") {
                    continue; // the functions are gone: only the loads are of interest
                }
                assert_eq!(seen, Ok(String::new()), "{preloaded:?} {load:?}");
            }
            app.assert_nobody();
            app.present(&issuer.token_for("alice"));
            app.assert_user("alice");
        }
    }
}

#[test]
fn never_stays_never() {
    for preloaded in [Preloaded::No, Preloaded::Session] {
        let db = database(preloaded);
        db.administrator_sets("pg_session_jwt.request_claims", "never");
        for load in LOADS {
            let mut app = db.app();
            prepare(&mut app);
            app.run(BOB);
            for seen in seen_after(&mut app, load) {
                assert!(
                    load.contains(&"DISCARD TEMP") || seen == Ok(String::new()),
                    "{preloaded:?} {load:?} {seen:?}"
                );
            }
            app.assert_nobody();
        }
    }
}

/// A client that tries to be rid of the administrator's value while it is a mere placeholder.
#[test]
fn an_administrators_value_cannot_be_replaced_before_the_load() {
    let db = Database::with_todos();
    db.administrator_sets("pg_session_jwt.request_claims", "never");
    let replace = [
        ("SET pg_session_jwt.request_claims = 'fallback'", ""),
        ("", "-c pg_session_jwt.request_claims=fallback"),
        ("", "-c pg_session_jwt.clock_skew=x"),
        ("SET pg_session_jwt.clock_skew = 'x'", ""),
        (
            "SET pg_session_jwt.request_claims = 'never'; SET pg_session_jwt.request_claims = 'fallback'",
            "",
        ),
        (
            "BEGIN; SET LOCAL pg_session_jwt.request_claims = 'fallback'",
            "-c pg_session_jwt.request_claims=never",
        ),
    ];
    for (statement, options) in replace {
        for load in LOADS {
            let mut app = db.connect(APP_USER, options);
            prepare(&mut app);
            app.run(BOB);
            app.run(statement);
            for seen in seen_after(&mut app, load) {
                match seen {
                    Ok(tasks) => assert_eq!(tasks, "", "{statement} {options} {load:?}"),
                    Err(_) if load.contains(&"DISCARD TEMP") || statement.contains("LOCAL") => {}
                    Err(refusal) => refusal.assert(
                        "42501",
                        &format!(
                            "permission denied to set parameter \"pg_session_jwt.{}\"",
                            if format!("{statement}{options}").contains("skew") {
                                "clock_skew"
                            } else {
                                "request_claims"
                            }
                        ),
                    ),
                }
            }
        }
    }
}

#[test]
fn claims_given_at_connection_start_count_in_every_worker() {
    let db = Database::with_todos();
    let proxy = db.role("proxy");
    db.superuser().run(&format!(
        "GRANT SET ON PARAMETER pg_session_jwt.claims TO {proxy}"
    ));
    for load in LOADS {
        if load.contains(&"DISCARD TEMP") {
            continue;
        }
        let mut app = db.connect(
            &proxy,
            &option("pg_session_jwt.claims", r#"{"sub":"alice"}"#),
        );
        prepare(&mut app);
        app.run(BOB);
        for seen in seen_after(&mut app, load) {
            assert_eq!(seen.as_deref(), Ok("write,sleep"), "{load:?}");
        }
        app.assert_user("alice");
    }
    db.superuser().run(&format!(
        "REVOKE SET ON PARAMETER pg_session_jwt.claims FROM {proxy}"
    ));
}

#[test]
fn an_honest_first_query_may_run_in_parallel() {
    let issuer = Issuer::ed25519();
    let token = sql_text(&issuer.token_for("alice"));
    for preloaded in [Preloaded::No, Preloaded::Session] {
        let db = database(preloaded);
        for first in [
            "SET max_parallel_workers = 0; SELECT DISTINCT pg_temp.see() FROM pg_class",
            SEE_IN_WORKER,
        ] {
            let mut app = db.app_with_key(&issuer);
            prepare(&mut app);
            app.run(&format!("SET pg_session_jwt.jwt = {token}"));
            assert_eq!(app.text(first), "write,sleep", "{preloaded:?} {first}");
            assert_eq!(app.tasks(), ["write", "sleep"]);
            // Only the load may set parameters in parallel mode.
            app.run(
                "CREATE FUNCTION pg_temp.set() RETURNS text LANGUAGE plpgsql PARALLEL SAFE
                     AS 'begin return set_config($$pg_session_jwt.jwt$$, $$$$, false); end';
                 SET max_parallel_workers = 0",
            );
            let refusal = app.refused("SELECT count(pg_temp.set()) FROM pg_class");
            assert!(
                refusal.message.ends_with("during a parallel operation"),
                "{refusal:?}"
            );
            app.assert_user("alice");
        }
    }
}

/// Postgres looks for interrupts at the end of each WARNING, and a thousand of them take a while.
#[test]
fn a_load_that_times_out_is_a_load_all_the_same() {
    let issuer = Issuer::ed25519();
    let db = Database::with_todos();
    let mut cancelled = 0;
    for try_number in 0..40 {
        let mut app = db.app_with_key(&issuer);
        prepare(&mut app);
        app.run(BOB);
        let many: String = (0..400)
            .map(|i| format!("SET pg_session_jwt.x{i} = 'x';"))
            .collect();
        app.run(&many);
        app.run(&format!(
            "SET statement_timeout = '{}us'",
            1000 + 200 * try_number
        ));
        if let Err(refusal) = app.try_run("SELECT auth.user_id()") {
            refusal.assert("57014", "canceling statement due to statement timeout");
            cancelled += 1;
        }
        // Which the time-out may meet as well.
        while app.try_run("SET statement_timeout = 0").is_err() {}
        for seen in seen_after(&mut app, &[LOAD_IN_LEADER]) {
            assert_eq!(seen, Ok(String::new()));
        }
        app.present(&issuer.token_for("alice"));
        app.assert_user("alice");
    }
    assert!(cancelled > 0, "the time-outs were too long");
}

#[test]
fn an_error_in_the_first_call_leaves_the_library_loaded() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_jwk("no key at all");
    prepare(&mut app);
    app.run(BOB);
    for _ in 0..2 {
        app.refused("SELECT auth.init()")
            .assert("22023", "invalid JSON Web Key Set");
    }
    for seen in seen_after(&mut app, LOADS[0]) {
        assert_eq!(seen, Ok(String::new()));
    }
    app.run(&format!(
        "SET pg_session_jwt.jwt = {}",
        sql_text(&issuer.token_for("bob"))
    ));
    app.refused("SELECT auth.user_id()")
        .assert("22023", "invalid JSON Web Key Set");
}

/// A parallel worker cannot count a token's id for its leader, so it refuses rather than guess.
#[test]
fn a_worker_that_loads_by_itself_accepts_no_token_id() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    prepare(&mut app);
    let token = issuer.token(&json!({"sub": "alice", "jti": 7}));
    app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&token)));
    let refusal = app.refused(SEE_IN_WORKER);
    refusal.assert(
        "28000",
        "Token ID must be strictly monotonically increasing.",
    );
    // In the leader, and from then on in workers, it counts.
    app.assert_user("alice");
    assert_eq!(app.text(SEE_IN_WORKER), "write,sleep");
}

#[test]
fn the_same_attacks_fail_under_shared_preload_libraries() {
    let cluster = Cluster::start("shared_preload_libraries = 'pg_session_jwt'");
    let issuer = Issuer::ed25519();
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run(
        "CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN;
         CREATE TABLE todos (user_id text, task text);
         INSERT INTO todos VALUES ('bob', 'read');
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON todos USING (auth.user_id() = user_id);
         GRANT SELECT ON todos TO PUBLIC;",
    );
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    for load in LOADS {
        let mut app = cluster.connect_with("postgres", APP_USER, &key);
        prepare(&mut app);
        app.run(BOB);
        for seen in seen_after(&mut app, load) {
            assert!(
                load.contains(&"DISCARD TEMP") || seen == Ok(String::new()),
                "{load:?} {seen:?}"
            );
        }
        app.assert_nobody();
    }
}

/// Statements before the load; statements after it, and who it is then.
type Script = (
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

/// What was set while the parameters were placeholders comes back as (sub)transactions and functions end.
#[test]
fn values_of_every_nesting_survive_the_load() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let jwt = |user: &str| format!("pg_session_jwt.jwt = {}", sql_text(&issuer.token_for(user)));
    let claims = |user: &str| format!("pg_session_jwt.claims = '{{\"sub\":\"{user}\"}}'");
    let scripts: &[Script] = &[
        (&["SET $a"], &[("", "a")]),
        (
            &["SET $a", "BEGIN", "SET LOCAL $b"],
            &[("", "b"), ("COMMIT", "a")],
        ),
        (
            &["BEGIN", "SET $a", "SAVEPOINT s", "SET $b"],
            &[("", "b"), ("ROLLBACK TO s", "a"), ("ROLLBACK", "")],
        ),
        (
            &["BEGIN", "SET $a", "SET LOCAL $b"],
            &[("", "b"), ("COMMIT", "a")],
        ),
        (
            &["BEGIN", "SAVEPOINT s", "SET LOCAL $b"],
            &[("", "b"), ("RELEASE s", "b"), ("COMMIT", "")],
        ),
        (
            &[
                "SET $c",
                "BEGIN",
                "SET LOCAL $a",
                "SAVEPOINT s",
                "SET $b",
                "SAVEPOINT t",
                "SET LOCAL $d",
            ],
            &[
                ("", "d"),
                ("ROLLBACK TO t", "b"),
                ("ROLLBACK TO s", "a"),
                ("COMMIT", "c"),
            ],
        ),
    ];
    for parallel in [false, true] {
        for (before, after) in scripts {
            for kind in ["jwt", "claims"] {
                let mut session = match kind {
                    "jwt" => db.app_with_key(&issuer),
                    _ => db.superuser(),
                };
                let fill = |sql: &str| match sql.split_once('$') {
                    None => sql.to_owned(),
                    Some((head, user)) if kind == "jwt" => head.to_owned() + &jwt(user),
                    Some((head, user)) => head.to_owned() + &claims(user),
                };
                prepare(&mut session);
                for sql in *before {
                    session.run(&fill(sql));
                }
                if parallel {
                    session.run(LOAD_IN_LEADER);
                }
                for (sql, user) in *after {
                    session.run(sql);
                    let seen = session.user_id();
                    assert_eq!(seen.unwrap_or_default(), *user, "{kind} {before:?} {sql}");
                }
            }
        }
    }
    // Within a function that has a token of its own, which before the load a superuser alone can give it.
    for parallel in [false, true] {
        let mut app = db.app_with_key(&issuer);
        prepare(&mut app);
        db.superuser().run(&format!(
            "CREATE OR REPLACE FUNCTION public.as_b() RETURNS text LANGUAGE plpgsql SET {} AS
                 'begin
                     if {parallel} then perform count(*) from pg_class where auth.user_id() is null; end if;
                     return auth.user_id();
                 end'",
            jwt("b")
        ));
        app.run(&format!("SET {}; SET max_parallel_workers = 0", jwt("a")));
        assert_eq!(app.text("SELECT public.as_b()"), "b");
        app.assert_user("a");
    }
}

/// Two wrong values in postgresql.conf are two, and what a client did on top is not forgiven with them.
#[test]
fn every_refused_value_counts() {
    let cluster = Cluster::start(
        "pg_session_jwt.request_claims = 'nevr'\npg_session_jwt.audit_log = 'perhaps'",
    );
    cluster
        .connect("postgres", "postgres")
        .run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN");
    let mut honest = cluster.connect("postgres", APP_USER);
    let mut tampering = cluster.connect("postgres", APP_USER);
    tampering.run(r#"SET pg_session_jwt.claims = '{"sub":"bob"}'"#);
    let wrong = |name: &str| format!("invalid value for parameter \"pg_session_jwt.{name}\"");
    honest
        .refused("SELECT auth.user_id()")
        .assert("22023", &wrong("request_claims"));
    tampering.refused("SELECT auth.user_id()");
    cluster.reload("pg_session_jwt.audit_log = 'on'");
    honest
        .refused("SELECT auth.user_id()")
        .assert("22023", &wrong("request_claims"));
    cluster.reload("pg_session_jwt.request_claims = 'never'");
    honest.run(BOB);
    honest.assert_nobody();
    for _ in 0..2 {
        tampering.refused("SELECT auth.user_id()").assert(
            "42501",
            "permission denied to set parameter \"pg_session_jwt.claims\"",
        );
    }
}

/// session_preload_libraries is not read there.
#[test]
fn a_walsender_that_runs_sql_is_a_connection_like_any_other() {
    for preloaded in [Preloaded::No, Preloaded::Session] {
        let db = database(preloaded);
        db.administrator_sets("pg_session_jwt.request_claims", "never");
        let role = db.role("walsender");
        db.superuser()
            .run(&format!("ALTER ROLE {role} REPLICATION"));
        let psql = |options: &str, sql: &str| {
            let output = Command::new(PathBuf::from(setting("PG_BIN")).join("psql"))
                .args(["-X", "-A", "-t", "-q", "-v", "VERBOSITY=sqlstate"])
                .arg(format!(
                    "dbname={} user={role} replication=database options='{options}'",
                    db.name()
                ))
                .args(["-c", BOB, "-c", sql])
                .output()
                .expect("psql runs");
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
        };
        let ask = "SELECT 'user:', auth.user_id()";
        assert_eq!(psql("", ask).trim(), "user:|", "{preloaded:?}");
        let fallback = "-c pg_session_jwt.request_claims=fallback";
        let answer = psql(fallback, ask);
        assert!(
            answer.ends_with("ERROR:  42501\n"),
            "{preloaded:?} {answer}"
        );
    }
}

/// Postgres 15 keeps a placeholder under the spelling that it was first set with; names have no case.
#[test]
fn a_name_in_capitals_is_the_same_name() {
    let db = Database::with_todos();
    db.administrator_sets("pg_session_jwt.request_claims", "never");
    for preloaded in [false, true] {
        if preloaded {
            db.administrator_sets("session_preload_libraries", "pg_session_jwt");
        }
        for name in ["Request_claims", "REQUEST_CLAIMS", "request_claims"] {
            let mut app = db.connect(APP_USER, &format!("-c pg_session_jwt.{name}=x"));
            app.run(BOB);
            app.refused("SELECT task FROM todos").assert(
                "42501",
                "permission denied to set parameter \"pg_session_jwt.request_claims\"",
            );
        }
    }
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let key = issuer.jwk().to_string();
    let mut app = db.connect(APP_USER, &option("PG_SESSION_JWT.Jwk", &key));
    app.run(&format!(
        r#"SET pg_session_jwt."JWT" = {}"#,
        sql_text(&issuer.token_for("alice"))
    ));
    app.assert_user("alice");
}

/// As a pooler may send it, in one message with the next user's statement.
#[test]
fn a_reset_in_the_transaction_that_loads_the_library_is_not_undone() {
    let (db, issuer) = (Database::with_todos(), Issuer::ed25519());
    let jwt = |user: &str| {
        let token = sql_text(&issuer.token_for(user));
        format!("SET pg_session_jwt.jwt = {token}")
    };
    for reset in [
        "RESET ALL",
        "RESET pg_session_jwt.jwt",
        "SET pg_session_jwt.jwt TO DEFAULT",
        "SET LOCAL pg_session_jwt.jwt TO DEFAULT",
        "SAVEPOINT s; RESET ALL; RELEASE s",
        "RESET ALL; SAVEPOINT s",
        "RESET ALL; SAVEPOINT s; SET LOCAL pg_session_jwt.jwt = 'x'; ROLLBACK TO s",
    ] {
        for parallel in [false, true] {
            for ending in ["COMMIT", "ROLLBACK"] {
                let mut app = db.app_with_key(&issuer);
                prepare(&mut app);
                app.run(&jwt("alice"));
                app.run("BEGIN");
                app.run(reset);
                if parallel {
                    app.run(LOAD_IN_LEADER);
                }
                app.assert_nobody();
                assert_eq!(app.tasks(), [""; 0], "{reset}");
                app.run(ending);
                let restored =
                    ending == "ROLLBACK" || reset.contains("LOCAL pg_session_jwt.jwt TO");
                let expected = restored.then_some("alice");
                assert_eq!(app.user_id().as_deref(), expected, "{reset} {ending}");
            }
        }
    }
    // One that lies below a later SET.
    let mut app = db.app_with_key(&issuer);
    app.run(&jwt("alice"));
    app.run("BEGIN; RESET ALL; SAVEPOINT s");
    app.run(&jwt("bob"));
    app.assert_user("bob");
    app.run("ROLLBACK TO s");
    app.assert_nobody();
    app.run("COMMIT");
    app.assert_nobody();
    // The keys are the connection's, whatever is RESET, and their token ids count on.
    for reset in [
        "RESET pg_session_jwt.jwk",
        "SET LOCAL pg_session_jwt.jwk TO DEFAULT",
    ] {
        let mut app = db.app_with_key(&issuer);
        app.run("BEGIN");
        app.run(reset);
        app.run(BOB);
        app.assert_nobody();
        app.run("COMMIT");
        app.assert_nobody();
        let token = issuer.token(&json!({"sub": "alice", "jti": 5}));
        app.present(&token);
        app.run("SELECT auth.logout()");
        assert_eq!(app.rejected(&token).sqlstate, "28000");
    }
    // Claims, by those who may set them.
    let mut admin = db.superuser();
    admin.run(r#"SET pg_session_jwt.claims = '{"sub":"bob"}'"#);
    admin.run("BEGIN; RESET pg_session_jwt.claims");
    admin.assert_nobody();
    admin.run("COMMIT");
    admin.assert_nobody();
    // What came with the connection comes back.
    let role = db.role("app");
    let options = format!(
        "{} {}",
        option("pg_session_jwt.jwk", &issuer.jwk().to_string()),
        option("pg_session_jwt.jwt", &issuer.token_for("alice"))
    );
    let mut app = db.connect(&role, &options);
    app.run(&jwt("bob"));
    app.run("BEGIN; RESET pg_session_jwt.jwt");
    app.assert_user("alice");
    app.run("COMMIT");
    app.assert_user("alice");
}
