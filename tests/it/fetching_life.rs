//! Keys that follow their issuer: nobody is held up, nothing is left behind, whatever happens meanwhile.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{
    APP_USER, Answer, Cluster, DISCOVERY, Issuer, Programs, Session, Web, backend_memory_kib,
    first_line, sql_text, token_with, wait_until,
};
use serde_json::json;

use crate::fetching::{STILL, follow, key, pass, set, timed, token};

const NO_PLACE: &str = "As many keys as may be are being fetched already: try again in a moment.";
const NO_WORKER: &str = "No background worker is free to fetch the issuer's keys: max_worker_processes must be greater than max_parallel_workers.";

/// A server of its own with the extension, an application's role, and a provider.
fn cluster(settings: &str, web: &Web) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run(&format!(
        "CREATE EXTENSION pg_session_jwt; CREATE ROLE {APP_USER} LOGIN; {}",
        follow(web)
    ));
    (cluster, admin)
}

/// Nothing was lost track of.
#[track_caller]
fn assert_log_is_clean(cluster: &Cluster) {
    let log = cluster.log();
    for word in [
        "TRAP: ",
        "leak",
        "still referenced",
        "not closed",
        "terminated by signal",
        "stack backtrace",
        "PANIC",
        "internal error",
        "you don't own a lock",
    ] {
        let line = log.lines().find(|line| line.contains(word));
        assert_eq!(line, None);
    }
}

/// The process ids of the children of a server.
fn children(cluster: &Cluster) -> Vec<(u32, String)> {
    let parent = postmaster(cluster);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        // pid (name) state parent
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        if after.split_whitespace().nth(1) == Some(&parent.to_string()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).into_owned()));
        }
    }
    found
}

/// The workers that fetch.
fn workers(cluster: &Cluster) -> Vec<u32> {
    let all = children(cluster).into_iter();
    let workers = all.filter(|(_, name)| name.contains("pg_session_jwt keys"));
    workers.map(|(pid, _)| pid).collect()
}

fn postmaster(cluster: &Cluster) -> u32 {
    let file = cluster.directory().join("data/postmaster.pid");
    let text = fs::read_to_string(file).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

/// Has a token ask a server that hangs, and waits until a worker does.
fn begin_to_hang(cluster: &Cluster, database: &str, web: &Web) {
    let mut app = cluster.connect(database, APP_USER);
    let refusal = app.rejected(&token(web, &key("unknown"), "mallory"));
    assert_eq!(refusal.hint, STILL);
    assert!(!workers(cluster).is_empty(), "{:?}", children(cluster));
}

#[test]
fn neither_drop_database_nor_vacuum_nor_a_shutdown_waits_for_a_server_that_hangs() {
    let web = Web::http();
    web.serve(DISCOVERY, Answer::Hang);
    let (cluster, mut admin) = cluster("", &web);
    admin.run("CREATE DATABASE a TEMPLATE postgres; ");
    admin.run("CREATE DATABASE b TEMPLATE postgres");
    admin.run("CREATE DATABASE c TEMPLATE postgres");
    begin_to_hang(&cluster, "a", &web);
    for (sql, most) in [
        ("DROP DATABASE b", 700),
        ("DROP DATABASE a", 700),
        ("CHECKPOINT", 700),
        ("VACUUM pg_catalog.pg_class", 700),
    ] {
        let ((), took) = timed(|| admin.run(sql));
        assert!(took < Duration::from_millis(most), "{sql}: {took:?}");
    }
    assert_eq!(workers(&cluster).len(), 1, "it hangs still");
    begin_to_hang(&cluster, "c", &web);
    // It has no snapshot, and is not in the way of who needs the database for himself.
    assert_eq!(
        admin.text("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xmin IS NOT NULL"),
        "0"
    );
    let ((), took) = timed(|| admin.run("ALTER DATABASE c RENAME TO d"));
    assert!(took < Duration::from_millis(700), "{took:?}");
    drop(admin);
    assert!(!workers(&cluster).is_empty());
    let (stopped, took) = timed(|| {
        let mut stop = Programs::under_test().command("pg_ctl");
        stop.args(["stop", "-w", "-m", "fast", "-D"]);
        stop.arg(cluster.directory().join("data"))
            .stdout(Stdio::null())
            .status()
    });
    assert!(stopped.unwrap().success());
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_log_is_clean(&cluster);
}

#[test]
fn no_process_outlives_a_postmaster_that_is_killed() {
    let web = Web::http();
    web.serve(DISCOVERY, Answer::Hang);
    let (cluster, admin) = cluster("", &web);
    begin_to_hang(&cluster, "postgres", &web);
    drop(admin);
    let pids: Vec<u32> = children(&cluster).into_iter().map(|(pid, _)| pid).collect();
    assert!(pids.len() > 3);
    let worker = workers(&cluster);
    let killed = std::process::Command::new("kill")
        .args(["-9", &postmaster(&cluster).to_string()])
        .status();
    assert!(killed.unwrap().success());
    let ((), took) = timed(|| {
        wait_until("all are gone", || {
            let is_gone = |pid: &u32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            };
            pids.iter().chain(&worker).all(is_gone)
        });
    });
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn without_a_free_worker_a_token_waits_its_time_and_says_so() {
    let web = Web::http();
    let good = key("good");
    web.serve_issuer(&[&good]);
    // The launcher of logical replication takes one.
    for settings in ["max_worker_processes = 0", "max_worker_processes = 1"] {
        let (cluster, mut admin) = cluster(settings, &web);
        let mut app = cluster.connect("postgres", APP_USER);
        let (refusal, waited) = timed(|| app.rejected(&token(&web, &good, "alice")));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        assert_eq!(refusal.hint, NO_WORKER);
        assert!((1000..2000).contains(&waited.as_millis()), "{waited:?}");
        admin.run("SET statement_timeout = '500ms'");
        let (refusal, waited) = timed(|| admin.refused("SELECT auth.refresh()"));
        refusal.assert("57014", "canceling statement due to statement timeout");
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        // Keys that there are count, and nobody waits for newer ones.
        admin.run(&format!(
            "INSERT INTO auth.provider_keys (provider, issuer, url, jwks, fetched_at, checked_at, next_at, failures)
             VALUES ('web', '{0}', '{0}{DISCOVERY}', {1}, now() - interval '1 h', now() - interval '1 h', now() - interval '1 h', 0)",
            web.url(),
            harness::set_of(&[&good])
        ));
        app.present(&token(&web, &good, "alice"));
        let ((), waited) = timed(|| app.assert_user("alice"));
        assert!(waited < Duration::from_millis(500), "{waited:?}");
        assert_log_is_clean(&cluster);
    }
    assert!(web.heads().is_empty());
}

#[test]
fn a_database_whose_issuers_are_slow_leaves_a_worker_to_the_others() {
    let web = Web::http();
    let (cluster, mut admin) = cluster("max_worker_processes = 16", &web);
    admin.run("DELETE FROM auth.providers");
    let issuer = |number: usize| format!("{}/{number}", web.url());
    for number in 0..6 {
        web.serve(&format!("/{number}/jwks"), Answer::Hang);
        admin.run(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('p{number}', '{0}', '{0}/jwks')",
            issuer(number)
        ));
    }
    let hints: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6)
            .map(|number| {
                let (cluster, issuer) = (&cluster, issuer(number));
                scope.spawn(move || {
                    let mut app = cluster.connect("postgres", APP_USER);
                    let token = token_with(&key("unknown"), "mallory", &json!({"iss": issuer}));
                    let (refusal, waited) = timed(|| app.rejected(&token));
                    assert!(waited < Duration::from_secs(2), "{waited:?}");
                    refusal.hint
                })
            })
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    let count = |hint: &str| hints.iter().filter(|one| *one == hint).count();
    assert_eq!((count(STILL), count(NO_PLACE)), (3, 3), "{hints:?}");
    assert_eq!(workers(&cluster).len(), 3);
    assert_eq!(web.heads().len(), 3);
    admin.run("CREATE DATABASE other");
    let mut other = cluster.connect("other", "postgres");
    let good = key("good");
    web.serve_issuer(&[&good]);
    other.run("CREATE EXTENSION pg_session_jwt");
    other.run(&follow(&web));
    other.present(&token(&web, &good, "alice"));
    assert_eq!(workers(&cluster).len(), 3);
    assert_log_is_clean(&cluster);
}

#[test]
fn what_a_database_or_a_role_is_set_to_does_not_matter() {
    let web = Web::http();
    let first = key("first");
    web.serve_issuer(&[&first]);
    let (cluster, mut admin) = cluster("max_prepared_transactions = 2", &web);
    let mut requests = 0;
    admin.run("CREATE SCHEMA evil; CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$");
    for of in ["DATABASE postgres", "ROLE postgres", "ROLE ALL"] {
        for setting in [
            "default_transaction_read_only = on",
            "lock_timeout = 1",
            "statement_timeout = 1",
            "search_path = evil, pg_catalog",
            "session_replication_role = replica",
            "default_transaction_isolation = serializable",
            "default_transaction_deferrable = on",
            "idle_in_transaction_session_timeout = 1",
            "row_security = off",
            "datestyle = 'SQL, DMY'",
            "timezone = 'Asia/Kathmandu'",
            "intervalstyle = sql_standard",
            "client_encoding = latin1",
            "log_statement = 'all'",
            "synchronous_commit = remote_apply",
            "role = app_user",
        ] {
            if of != "DATABASE postgres" && setting.starts_with("statement_timeout") {
                continue;
            }
            let key = key(&format!("key-{requests}"));
            web.serve_issuer(&[&key]);
            pass(&mut admin, 100_000);
            admin.run(&format!("ALTER {of} SET {setting}"));
            let mut app = cluster.connect("postgres", APP_USER);
            while app.try_run("SET statement_timeout = 0").is_err() {}
            let alice = sql_text(&token(&web, &key, "alice"));
            let presented = app.try_run(&format!("SELECT auth.jwt_session_init({alice})"));
            let name = setting.split(' ').next().unwrap();
            admin.run(&format!("ALTER {of} RESET {name}"));
            assert_eq!(presented, Ok(()), "{of}: {setting}");
            app.assert_user("alice");
            requests += 1;
            assert_eq!(web.requests("/jwks"), requests, "{of}: {setting}");
        }
    }
    // In a transaction that is prepared.
    let last = key("last");
    web.serve_issuer(&[&last]);
    pass(&mut admin, 31);
    let mut app = cluster.connect("postgres", APP_USER);
    app.run("BEGIN; SELECT txid_current()");
    app.present(&token(&web, &last, "alice"));
    app.run("PREPARE TRANSACTION 'p'");
    app.run("COMMIT PREPARED 'p'");
    // A standby that never answers.
    cluster.reload("synchronous_standby_names = 'nobody'");
    admin.run("SET synchronous_commit = off");
    let later = key("later");
    web.serve_issuer(&[&later]);
    pass(&mut admin, 31);
    let mut app = cluster.connect("postgres", APP_USER);
    let ((), waited) = timed(|| app.present(&token(&web, &later, "alice")));
    assert!(waited < Duration::from_millis(900), "{waited:?}");
    app.assert_user("alice");
    let (rows, waited) = timed(|| admin.rows("SELECT * FROM auth.refresh()"));
    assert_eq!(rows, ["web|1|NULL"]);
    assert!(waited < Duration::from_millis(900), "{waited:?}");
    assert_log_is_clean(&cluster);
}

#[test]
fn a_standby_has_its_keys_from_the_primary() {
    let web = Web::http();
    let (first, second) = (key("first"), key("second"));
    web.serve_issuer(&[&first]);
    let (primary, mut admin) = cluster("max_wal_senders = 4", &web);
    let standby = primary.replica();
    let mut watch = standby.connect("postgres", "postgres");
    let mut replayed = |admin: &mut Session| {
        let target = admin.text("SELECT pg_current_wal_insert_lsn()");
        admin.run("CHECKPOINT");
        wait_until("it is replayed", || {
            watch.text(&format!("SELECT pg_last_wal_replay_lsn() >= '{target}'")) == "t"
        });
    };
    let mut app = standby.connect("postgres", APP_USER);
    let (refusal, waited) = timed(|| app.rejected(&token(&web, &first, "alice")));
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    let hint = "A standby does not fetch keys: they come from the primary, once a token has been presented there or auth.refresh() been called.";
    assert_eq!(refusal.hint, hint);
    assert!(
        waited < Duration::from_millis(500),
        "it does not wait: {waited:?}"
    );
    let mut owner = standby.connect("postgres", "postgres");
    assert_eq!(
        owner.rows("SELECT * FROM auth.refresh()"),
        [format!("web|NULL|{hint}")]
    );
    assert_eq!(admin.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
    replayed(&mut admin);
    app.present(&token(&web, &first, "alice"));
    app.assert_user("alice");
    // Old keys count there as well, and are not asked for.
    pass(&mut admin, 3600);
    replayed(&mut admin);
    app.assert_user("alice");
    assert_eq!(web.requests("/jwks"), 1);
    // A rotation.
    web.serve_issuer(&[&second]);
    let refusal = app.rejected(&token(&web, &second, "bob"));
    assert_eq!(refusal.hint, hint);
    primary
        .connect("postgres", APP_USER)
        .present(&token(&web, &second, "bob"));
    replayed(&mut admin);
    app.user_refused()
        .assert_stage("key", first_line::NO_KEY_FITS);
    app.present(&token(&web, &second, "bob"));
    // A day after.
    pass(&mut admin, 86_401);
    replayed(&mut admin);
    let refusal = app.user_refused();
    let facts = "the issuer's keys do not count any more: they were fetched 24 h ago";
    assert!(refusal.detail.contains(facts), "{refusal:?}");
    assert_eq!(refusal.hint, hint);
    // It becomes a primary.
    owner.run("SELECT pg_promote()");
    app.present(&token(&web, &second, "bob"));
    app.assert_user("bob");
    assert_eq!(web.requests("/jwks"), 3);
    for cluster in [&primary, &standby] {
        assert_log_is_clean(cluster);
    }
}

#[test]
fn hundreds_of_fetches_leave_nothing_behind() {
    let web = Web::http();
    let good = key("good");
    web.serve("/jwks", set(&[good.jwk()]));
    let (cluster, mut admin) = cluster("", &web);
    admin.run("DELETE FROM auth.providers");
    admin.run(&format!(
        "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('web', '{0}', '{0}/jwks')",
        web.url()
    ));
    let pid = admin.pid();
    let in_one = "DO $$ BEGIN FOR i IN 1..50 LOOP PERFORM auth.refresh('web'); END LOOP; END $$";
    let measure = |admin: &mut Session| {
        let target = |file: fs::DirEntry| fs::read_link(file.path()).unwrap_or_default();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        // Tables are opened as they are needed, and kept open.
        let is_other = |file: &std::path::PathBuf| !file.starts_with(cluster.directory());
        let files = files.map(target).filter(is_other).count();
        let mappings = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mappings = mappings
            .lines()
            .filter(|line| line.contains("/dev/shm"))
            .count();
        let segments = fs::read_dir("/dev/shm").unwrap().count();
        let locks = admin.text("SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'");
        let memory = "SELECT sum(used_bytes) / 1024 FROM pg_backend_memory_contexts";
        let contexts: i64 = admin
            .text(memory)
            .split('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        (
            files,
            mappings,
            segments,
            locks,
            contexts,
            backend_memory_kib(&pid),
        )
    };
    admin.run(in_one);
    let before = measure(&mut admin);
    for _ in 0..3 {
        admin.run(in_one);
    }
    for _ in 0..50 {
        admin.rows("SELECT * FROM auth.refresh()");
    }
    let after = measure(&mut admin);
    assert_eq!(
        (after.0, after.1),
        (before.0, before.1),
        "descriptors, mappings"
    );
    assert!(after.2 <= before.2 + 8, "{before:?} {after:?}");
    assert_eq!(after.3, "0");
    assert!(after.4 - before.4 < 64, "{before:?} {after:?}");
    assert!(after.5 - before.5 < 1024, "{before:?} {after:?}");
    assert_eq!(web.requests("/jwks"), 250);
    assert!(workers(&cluster).is_empty());
    assert_log_is_clean(&cluster);
}

#[test]
fn whatever_moment_a_cancel_comes_at_nothing_is_left_behind() {
    let web = Web::http();
    let good = key("good");
    web.serve_issuer(&[&good]);
    let (cluster, mut admin) = cluster("", &web);
    let alice = sql_text(&token(&web, &good, "alice"));
    let mallory = sql_text(&token(&web, &key("unknown"), "mallory"));
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..4)
            .map(|number| {
                let (cluster, alice, mallory) = (&cluster, &alice, &mallory);
                scope.spawn(move || {
                    let mut session = cluster.connect("postgres", "postgres");
                    for turn in 0..60 {
                        // From before the worker starts to after it has ended.
                        let timeout = 1 + (turn * 7 + number * 5) % 31;
                        session.run(&format!("SET statement_timeout = {timeout}"));
                        let sql = match turn % 4 {
                            0 => "SELECT auth.refresh()".to_owned(),
                            1 => format!("SELECT auth.verify({mallory})"),
                            2 => format!(
                                "DO $$ BEGIN PERFORM auth.verify({alice}), auth.refresh();
                                     EXCEPTION WHEN query_canceled THEN NULL; END $$"
                            ),
                            _ => format!("SELECT auth.verify({alice}), auth.refresh('web')"),
                        };
                        if let Err(refusal) = session.try_run(&sql) {
                            let known = ["57014", "28000"].contains(&refusal.sqlstate.as_str());
                            assert!(known, "{refusal:?}");
                        }
                    }
                })
            })
            .collect();
        // Meanwhile time passes, and rows change.
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                pass(&mut admin, 1000);
                admin.run("UPDATE auth.providers SET audience = NULL");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let ended: Vec<_> = sessions.into_iter().map(|session| session.join()).collect();
        running.store(false, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    wait_until("the workers have ended", || workers(&cluster).is_empty());
    let mut admin = cluster.connect("postgres", "postgres");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'";
    assert_eq!(admin.text(locks), "0");
    assert_eq!(admin.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_token_that_a_worker_had_fetched_for_is_in_no_log() {
    let web = Web::http();
    let good = key("good");
    web.serve_issuer(&[&good]);
    let (cluster, mut admin) = cluster(
        "log_min_messages = debug5\nlog_error_verbosity = verbose\nlog_min_error_statement = debug5",
        &web,
    );
    let mut app = cluster.connect("postgres", APP_USER);
    let (alice, mallory) = (
        token(&web, &good, "alice"),
        token(&web, &Issuer::es256().with_kid("other"), "mallory"),
    );
    app.client
        .query("SELECT auth.jwt_session_init($1)", &[&alice])
        .unwrap();
    app.assert_user("alice");
    pass(&mut admin, 31);
    app.client
        .query("SELECT auth.jwt_session_init($1)", &[&mallory])
        .unwrap_err();
    assert_eq!(web.requests("/jwks"), 2);
    for head in web.heads() {
        assert!(!head.contains("eyJ") && !head.to_ascii_lowercase().contains("authorization"));
    }
    let log = cluster.log();
    assert!(log.contains("pg_session_jwt keys"));
    for token in [&alice, &mallory] {
        let signature = token.rsplit('.').next().unwrap();
        let line = log.lines().find(|line| line.contains(signature));
        assert_eq!(line, None);
    }
    assert_log_is_clean(&cluster);
}
