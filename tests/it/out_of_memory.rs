//! A backend that has little memory left says so: SQLSTATE 53200, and goes on. A process that aborts would
//! make Postgres restart every other one.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use harness::{Cluster, Issuer, Row, Session, jwks, option, sql_text, token_with};
use serde_json::json;

/// Limits the address space of a backend to what it has now plus this many KiB; `None` for no limit.
fn limit(pid: &str, more_kib: Option<u64>) {
    let limit = match more_kib {
        None => "unlimited".to_owned(),
        Some(more) => {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmSize:"));
            let size: u64 = line
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap();
            ((size + more) * 1024).to_string()
        }
    };
    // Root may lack the capability to do so for another user's process: as that user, then.
    let process = std::fs::metadata(format!("/proc/{pid}")).expect("the backend");
    let mut command = Command::new("prlimit");
    if std::fs::metadata("/proc/self")
        .expect("a Linux /proc")
        .uid()
        == 0
    {
        command.uid(process.uid()).gid(process.gid());
    }
    let done = command
        .args(["--pid", pid, &format!("--as={limit}:")])
        .output()
        .expect("prlimit, of util-linux");
    assert!(done.status.success(), "{done:?}");
}

/// Runs each statement with each limit; all that may happen is success, or 53200.
#[track_caller]
fn starve(session: &mut Session, statements: &[String]) -> (usize, usize) {
    let pid = session.pid();
    let (mut succeeded, mut refused) = (0, 0);
    for more_kib in (0..12_000)
        .step_by(350)
        .chain([20_000, 30_000, 40_000, 50_000, 60_000, 70_000])
    {
        for statement in statements {
            limit(&pid, Some(more_kib));
            let result = session.try_run(statement);
            limit(&pid, None);
            match result {
                Ok(()) => succeeded += 1,
                Err(refusal) => {
                    // A token that is too long is rejected as such, however much memory there is.
                    let is_long = refusal.detail.contains("longer than");
                    assert!(
                        is_long || refusal.sqlstate == "53200",
                        "{more_kib} {refusal:?}"
                    );
                    refused += usize::from(!is_long);
                }
            }
        }
    }
    (succeeded, refused)
}

/// Many small values: what takes the most memory for its length.
fn dense(value: &str, length: usize) -> String {
    let values = format!("{value},").repeat(length / (value.len() + 1));
    format!("{{\"sub\":\"bob\",\"a\":[{values}1]}}")
}

#[test]
fn no_statement_of_an_ordinary_role_crashes_the_server() {
    let cluster = Cluster::start("");
    let issuer = Issuer::rs256();
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN;");
    let fea = format!("o:{}", "f".repeat(5000));
    let clerk =
        json!({"v": 2, "fea": fea, "o": {"per": "a,".repeat(2000), "fpm": "9".repeat(700)}});
    let tokens = [
        issuer.token_for("alice"),
        token_with(&issuer, "alice", &json!({"a": vec![json!([]); 3000]})),
        token_with(&issuer, "alice", &clerk),
        issuer.token_for("alice").repeat(1000),
    ];
    let mut statements = Vec::new();
    for token in tokens.map(|token| sql_text(&token)) {
        statements.push(format!("SELECT auth.verify({token})"));
        statements.push(format!("SELECT auth.jwt_session_init({token})"));
        statements.push("SELECT auth.permissions(), auth.has_permission('org:f:a')".to_owned());
        statements.push("SELECT auth.jwt(), auth.user_id(), auth.claim('a'), auth.status()".into());
        statements.push(format!(
            "SET pg_session_jwt.jwt = {token}; SELECT auth.user_id(); SELECT auth.logout()"
        ));
    }
    statements.push("SHOW pg_session_jwt.jwk".into());
    statements.push("SELECT auth.init()".into());

    // With keys of the connection, as many as a startup packet holds.
    let many: Vec<Issuer> = (0..40)
        .map(|i| Issuer::ed25519().with_kid(&format!("k{i}")))
        .collect();
    let keys: Vec<_> = many.iter().chain([&issuer]).map(Issuer::jwk).collect();
    let key = option("pg_session_jwt.jwk", &jwks(&keys).to_string());
    let mut app = cluster.connect_with("postgres", "app_user", &key);
    app.assert_nobody();
    let (succeeded, refused) = starve(&mut app, &statements[..10]);
    assert!(succeeded > 20 && refused > 5, "{succeeded} {refused}");
    starve(&mut app, &statements[10..]);
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");

    // With none, and claims that anybody can set: one at the limit, one far beyond it.
    let mut app = cluster.connect("postgres", "app_user");
    app.assert_nobody();
    let lengths = [
        ("{}", 260_000),
        ("[]", 260_000),
        ("0", 260_000),
        ("{}", 2_000_000),
    ];
    let claims: Vec<String> = lengths
        .into_iter()
        .flat_map(|(value, length)| {
            let set = format!(
                "SET request.jwt.claims = {}",
                sql_text(&dense(value, length))
            );
            [
                set,
                "SELECT auth.user_id(), auth.jwt() IS NULL, auth.permissions()".to_owned(),
            ]
        })
        .chain([format!(
            "SET request.headers = {}; SELECT auth.pre_request()",
            sql_text(&dense("{}", 200_000))
        )])
        .collect();
    starve(&mut app, &claims);
    app.run("RESET ALL");
    app.assert_nobody();

    // With providers.
    let rows: Vec<String> = many
        .iter()
        .enumerate()
        .map(|(i, issuer)| {
            Row::new(&format!("p{i}"), &format!("https://{i}.example"), &[issuer]).insert()
        })
        .collect();
    admin.run(&rows.join(";"));
    let token = sql_text(&token_with(
        &many[3],
        "alice",
        &json!({"iss": "https://3.example"}),
    ));
    let ask = format!("SET pg_session_jwt.jwt = {token}; SELECT auth.user_id()");
    starve(&mut app, std::slice::from_ref(&ask));
    app.run(&ask);
    app.assert_user("alice");
    assert!(!cluster.log().contains("terminated by signal"));
    assert!(!cluster.log().contains("PANIC"));
}

#[test]
fn a_first_call_without_memory_is_an_error_and_not_a_half_loaded_library() {
    let cluster = Cluster::start("");
    let issuer = Issuer::ed25519();
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run("CREATE EXTENSION pg_session_jwt; CREATE ROLE app_user LOGIN;");
    let key = option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let long = sql_text(&"x".repeat(3_000_000));
    let (mut ended, mut refused) = (0, 0);
    for more_kib in (0..16_000).step_by(250) {
        let mut app = cluster.connect_with("postgres", "app_user", &key);
        app.run(&format!(
            r#"SET request.jwt.claims = '{{"sub":"bob"}}'; SET pg_session_jwt.jwt = {long}; SELECT 'a'"#
        ));
        let pid = app.pid();
        limit(&pid, Some(more_kib));
        let error = app.client.simple_query("SELECT auth.user_id()").err();
        let told = error.as_ref().and_then(|error| error.as_db_error());
        let state = told.map(|told| told.code().code().to_owned());
        if error.is_some() && told.is_none_or(|told| told.severity() == "FATAL") {
            // FATAL: what could not be completed ends the session, and only it.
            assert!(
                matches!(state.as_deref(), None | Some("53200")),
                "{state:?}"
            );
            ended += 1;
            continue;
        }
        // 58P01: the dynamic loader had no room for the library itself.
        let told = ["53200", "58P01", "28000"];
        assert!(
            told.contains(&state.as_deref().unwrap_or("none")),
            "{state:?}"
        );
        refused += usize::from(state.as_deref() != Some("28000"));
        limit(&pid, None);
        // The token that was presented is not lost, and nobody is bob.
        app.refused("SELECT auth.user_id()")
            .assert_stage("structure", "invalid JWT encoding");
        app.present(&issuer.token_for("alice"));
        app.assert_user("alice");
    }
    println!("{refused} refused, {ended} ended");
    assert!(refused > 0);
    admin.run("SELECT 1");
    assert!(!cluster.log().contains("terminated by signal"));
    assert!(!cluster.log().contains("PANIC"));
}
