//! Keys that follow their issuer: who may have requests sent, and where to.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use harness::{
    APP_USER, Answer, Cluster, DISCOVERY, Database, Refusal, Session, Web, first_line, option,
    set_of, setting, sql_text, wait_until,
};

use serde_json::json;

use crate::fetching::{follow, key, pass, set, token};

/// A database whose owner is no superuser, and has created the extension himself; a superuser, and the owner.
pub(crate) fn owned() -> (Database, String, Session, Session) {
    let db = Database::without_extension();
    let (mut admin, role) = (db.superuser(), db.role("owner"));
    let name = db.name();
    admin.run(&format!(
        "ALTER DATABASE {name} OWNER TO {role}; ALTER SCHEMA public OWNER TO {role}"
    ));
    let mut owner = db.connect(&role, "");
    owner.run("CREATE EXTENSION pg_session_jwt");
    (db, role, admin, owner)
}

const NOT_ALLOWED: &str = "Keys are not fetched from \"127.0.0.1\": a superuser may add this host to pg_session_jwt.fetch_hosts, or write the provider's row.";

/// The one WARNING about a row, if there was one.
#[track_caller]
fn warning(session: &mut Session) -> Option<Refusal> {
    let mut said = session.said();
    let last = said.pop();
    assert!(said.is_empty(), "{said:?} {last:?}");
    last
}

#[track_caller]
fn assert_warned(session: &mut Session, host: &str) {
    let warning = warning(session).expect("a WARNING");
    warning.assert("01000", "keys of provider \"web\" are not fetched");
    assert_eq!(
        warning.detail,
        "Only a superuser may have keys fetched from any host."
    );
    assert_eq!(warning.hint, NOT_ALLOWED.replace("127.0.0.1", host));
}

#[test]
fn a_row_that_an_owner_wrote_waits_until_its_host_is_allowed() {
    let (db, role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    owner.run(&follow(&web));
    assert_warned(&mut owner, "127.0.0.1");
    let written = "SELECT name, written_by_superuser FROM auth.providers";
    assert_eq!(owner.rows(written), ["web|f"]);
    let alice = token(&web, &good, "alice");
    let mut app = db.app();
    for _ in 0..2 {
        let refusal = app.rejected(&alice);
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        let facts = "the issuer's keys have not been fetched yet (provider \"web\")";
        assert!(refusal.detail.ends_with(facts), "{refusal:?}");
        assert_eq!(refusal.hint, NOT_ALLOWED);
    }
    app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&alice)));
    let problem = app.text("SELECT problem FROM auth.status()");
    assert!(problem.contains("have not been fetched yet"), "{problem}");

    // He cannot allow it.
    for sql in [
        "SET pg_session_jwt.fetch_hosts = '127.0.0.1'".to_owned(),
        format!(
            "ALTER DATABASE {} SET pg_session_jwt.fetch_hosts = '127.0.0.1'",
            db.name()
        ),
        format!("ALTER ROLE {role} SET pg_session_jwt.fetch_hosts = '127.0.0.1'"),
        "SET pg_session_jwt.fetch_ca_file = '/tmp/x'".to_owned(),
        "SELECT set_config('pg_session_jwt.fetch_stale', '1000000', false)".to_owned(),
    ] {
        assert_eq!(owner.refused(&sql).sqlstate, "42501", "{sql}");
    }
    for value in ["127.0.0.1", "*.example.com"] {
        let mut other = db.connect(&role, &option("pg_session_jwt.fetch_hosts", value));
        let refusal = other.rejected(&alice);
        assert_eq!(refusal.sqlstate, "42501", "{refusal:?}");
    }
    assert!(web.heads().is_empty());
    assert_eq!(owner.rows("TABLE auth.provider_keys"), Vec::<String>::new());

    // A superuser can; for another host first.
    db.administrator_sets(
        "pg_session_jwt.fetch_hosts",
        "127.0.0.2, localhost, *.0.0.1.example",
    );
    assert_eq!(db.app().rejected(&alice).hint, NOT_ALLOWED);
    assert!(web.heads().is_empty());
    db.administrator_sets("pg_session_jwt.fetch_hosts", "*.example.com, 127.0.0.1");
    let mut app = db.app();
    app.present(&alice);
    app.assert_user("alice");
    let mut owner = db.connect(&role, "");
    owner.run("UPDATE auth.providers SET audience = NULL");
    assert_eq!(warning(&mut owner), None);
    // Or he writes the row himself.
    admin.run("UPDATE auth.providers SET audience = NULL");
    assert_eq!(admin.rows(written), ["web|t"]);
    let name = db.name();
    admin.run(&format!(
        "ALTER DATABASE {name} RESET pg_session_jwt.fetch_hosts"
    ));
    pass(&mut admin, 31);
    let second = key("second");
    web.serve_issuer(&[&second]);
    let mut app = db.app();
    app.present(&token(&web, &second, "bob"));
    app.assert_user("bob");
}

#[test]
fn who_gives_a_row_its_address_decides_where_its_keys_may_come_from() {
    let (_db, role, mut admin, mut owner) = owned();
    let web = Web::http();
    let url = web.url();
    let written = "SELECT written_by_superuser FROM auth.providers WHERE name LIKE 'web%'";
    admin.run(&follow(&web));
    assert_eq!(admin.text(written), "t");
    assert_eq!(warning(&mut admin), None);
    let other = format!("jwks_url = '{url}/other'");
    let own = format!("SET ROLE {role}; UPDATE auth.providers SET {other}; RESET ROLE");
    owner.run(&format!(
        "CREATE FUNCTION public.give() RETURNS void LANGUAGE sql SECURITY DEFINER AS
             $$ UPDATE auth.providers SET written_by_superuser = true, {other} $$;
         CREATE VIEW public.view AS SELECT * FROM auth.providers"
    ));
    let keys = set_of(&[&key("own")]);
    for (by_owner, sql, expected) in [
        // What says nothing about the address.
        (
            true,
            "SET audience = '{a}', enabled = true, written_by_superuser = true",
            "t",
        ),
        (true, "SET written_by_superuser = false", "t"),
        (
            true,
            "SET name = 'web2', issuer = issuer, jwks_url = NULL",
            "t",
        ),
        (true, "SET name = 'web'", "t"),
        (true, &format!("SET jwks = {keys}"), "t"),
        (true, "SET jwks = NULL", "t"),
        // The address.
        (
            true,
            &format!("SET {other}, written_by_superuser = true"),
            "f",
        ),
        (true, "SET jwks_url = NULL", "f"),
        (true, "SET written_by_superuser = true", "f"),
        // A superuser's hand.
        (false, "SET written_by_superuser = false", "t"),
        (true, "SET issuer = issuer || '/x'", "f"),
        (false, "SET enabled = true", "t"),
        (true, &format!("SET jwks = {keys}, {other}"), "f"),
        (false, "SET jwks_url = NULL, jwks = NULL", "t"),
    ] {
        let session = if by_owner { &mut owner } else { &mut admin };
        session.run(&format!("UPDATE auth.providers {sql}"));
        assert_eq!(admin.text(written), expected, "{sql}");
    }
    for (sql, by_owner, expected) in [
        // Who is somebody else for a moment.
        (own.as_str(), false, "f"),
        ("SELECT public.give()", false, "f"),
        ("SELECT public.give()", true, "f"),
        (&format!("UPDATE public.view SET written_by_superuser = true, {other}"), true, "f"),
        (
            "MERGE INTO auth.providers p USING (VALUES ('web')) v (name) ON p.name = v.name
             WHEN MATCHED THEN UPDATE SET jwks_url = 'https://merged.example', written_by_superuser = true",
            true,
            "f",
        ),
        (
            "INSERT INTO auth.providers (name, issuer, written_by_superuser) VALUES ('web', 'https://a.example', true)
             ON CONFLICT (name) DO UPDATE SET jwks_url = 'https://c.example', written_by_superuser = excluded.written_by_superuser",
            true,
            "f",
        ),
        (
            "WITH gone AS (DELETE FROM auth.providers RETURNING *)
             INSERT INTO auth.providers (name, issuer, written_by_superuser) SELECT name || '3', issuer, written_by_superuser FROM gone",
            true,
            "f",
        ),
        (
            "DELETE FROM auth.providers;
             INSERT INTO auth.providers (name, issuer, written_by_superuser) VALUES ('web', 'https://a.example', true)",
            true,
            "f",
        ),
        (
            "DELETE FROM auth.providers;
             MERGE INTO auth.providers p USING (VALUES ('web')) v (name) ON p.name = v.name
             WHEN NOT MATCHED THEN INSERT (name, issuer, written_by_superuser) VALUES ('web', 'https://a.example', true)",
            true,
            "f",
        ),
    ] {
        admin.run("DELETE FROM auth.providers");
        admin.run(&follow(&web));
        assert_eq!(admin.text(written), "t");
        let session = if by_owner { &mut owner } else { &mut admin };
        session.run(sql);
        assert_eq!(admin.text(written), expected, "{sql}");
    }
    admin.run("DELETE FROM auth.providers");
    for (session, expected) in [(&mut owner, "f"), (&mut admin, "t")] {
        session.run("DELETE FROM auth.providers");
        let copy = "COPY auth.providers (name, issuer, written_by_superuser) FROM STDIN";
        let mut writer = session.client.copy_in(copy).unwrap();
        writer
            .write_all(format!("web\t{url}\ttrue\n").as_bytes())
            .unwrap();
        writer.finish().unwrap();
        assert_eq!(session.text(written), expected);
    }
    owner.run("UPDATE auth.providers SET name = 'web'");
    assert_eq!(admin.text(written), "t", "it is the superuser's row still");
    for sql in [
        "ALTER TABLE auth.providers DISABLE TRIGGER ALL",
        "ALTER TABLE auth.providers ALTER written_by_superuser SET DEFAULT true",
        "CREATE TRIGGER z BEFORE UPDATE ON auth.providers FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "SET session_replication_role = replica",
        "CREATE TABLE public.child () INHERITS (auth.providers)",
        "CREATE RULE r AS ON UPDATE TO auth.providers DO NOTHING",
    ] {
        assert_eq!(owner.refused(sql).sqlstate, "42501", "{sql}");
    }
}

#[test]
fn an_owner_reads_the_keys_and_cannot_write_them() {
    let (db, _role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    admin.run(&follow(&web));
    db.app().present(&token(&web, &good, "alice"));
    let reader = db.role("reader");
    let read = "SELECT provider FROM auth.provider_keys";
    assert_eq!(owner.rows(read), ["web"]);
    for sql in [
        "INSERT INTO auth.provider_keys (provider, url, checked_at, next_at, failures) VALUES ('x', 'y', now(), now(), 0)",
        "UPDATE auth.provider_keys SET jwks = jwks",
        "DELETE FROM auth.provider_keys",
        "TRUNCATE auth.provider_keys",
        "ALTER TABLE auth.provider_keys DISABLE TRIGGER ALL",
        "DROP TABLE auth.provider_keys",
        "ALTER EXTENSION pg_session_jwt DROP TABLE auth.provider_keys",
        "CREATE TRIGGER t AFTER INSERT ON auth.provider_keys FOR EACH ROW EXECUTE FUNCTION auth.forget_keys()",
        "CREATE TABLE auth.mine ()",
        "DO $$ BEGIN LOCK TABLE auth.provider_keys IN ACCESS EXCLUSIVE MODE; END $$",
        "SELECT auth.forget_keys()",
    ] {
        for session in [&mut owner, &mut db.app()] {
            let refusal = session.refused(sql);
            assert_eq!(refusal.sqlstate, "42501", "{sql}: {refusal:?}");
        }
    }
    for session in [&mut db.app(), &mut db.connect(&reader, "")] {
        session
            .refused(read)
            .assert("42501", "permission denied for table provider_keys");
    }
    owner.run(&format!("GRANT SELECT ON auth.provider_keys TO {reader}"));
    assert_eq!(db.connect(&reader, "").rows(read), ["web"]);
    // Through the providers that he may delete.
    owner.run("DELETE FROM auth.providers");
    assert_eq!(owner.rows(read), Vec::<String>::new());
    // A superuser gives whatever he likes.
    admin.run(&format!(
        "GRANT UPDATE, SELECT, DELETE ON auth.provider_keys TO {reader}"
    ));
    db.connect(&reader, "")
        .run("DELETE FROM auth.provider_keys");
}

/// Names of this machine that are not called localhost.
fn names_of_this_machine() -> Vec<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().filter(|line| line.starts_with("127."));
    let names = lines.flat_map(|line| line.split_whitespace().skip(1));
    let is_other = |name: &&str| !name.starts_with("localhost") && !name.contains('#');
    names.filter(is_other).map(str::to_owned).collect()
}

#[test]
fn a_superusers_row_leads_to_public_addresses_or_says_localhost() {
    let db = Database::new();
    let mut admin = db.superuser();
    let https = Web::https();
    let port = https.port();
    let names = names_of_this_machine();
    let mut refused = vec![
        (
            "https://10.0.0.1/jwks".to_owned(),
            "10.0.0.1 is not a public address".to_owned(),
        ),
        (
            "https://192.168.0.1:8443/jwks".into(),
            "192.168.0.1 is not a public address".into(),
        ),
        (
            "https://172.31.255.255/jwks".into(),
            "172.31.255.255 is not a public address".into(),
        ),
        (
            "https://169.254.169.254/jwks".into(),
            "169.254.169.254 is not a public address".into(),
        ),
        (
            "https://100.64.0.1/jwks".into(),
            "100.64.0.1 is not a public address".into(),
        ),
        (
            format!("https://0.0.0.0:{port}/jwks"),
            "0.0.0.0 is not a public address".into(),
        ),
        (
            "https://[fd00:ec2::254]/jwks".into(),
            "fd00:ec2::254 is not a public address".into(),
        ),
        (
            "https://[fe80::1]/jwks".into(),
            "fe80::1 is not a public address".into(),
        ),
        (
            format!("https://[::]:{port}/jwks"),
            "is not a public address".into(),
        ),
        (
            "https://[::ffff:10.0.0.1]/jwks".into(),
            "is not a public address".into(),
        ),
        (
            "https://[64:ff9b::a00:1]/jwks".into(),
            "is not a public address".into(),
        ),
    ];
    for name in &names {
        refused.push((
            format!("https://{name}:{port}/jwks"),
            format!("{name} resolves to 127.0.0.1, which is not a public address"),
        ));
    }
    for (url, why) in refused {
        admin.run("DELETE FROM auth.providers");
        admin.run(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('web', 'x', '{url}')"
        ));
        assert_eq!(warning(&mut admin), None);
        let rows = admin.rows("SELECT error FROM auth.refresh('web')");
        assert!(rows[0].contains(&why), "{url}: {rows:?}");
    }
    // Every other way to write an address is refused, or is that address.
    for host in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "10.1",
        "0",
    ] {
        admin.run("DELETE FROM auth.providers");
        let inserted = admin.try_run(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('web', 'x', 'https://{host}:{port}/jwks')"
        ));
        match inserted {
            Err(refusal) => refusal.assert("22023", "invalid provider \"web\""),
            Ok(()) => {
                let rows = admin.rows("SELECT keys, error FROM auth.refresh('web')");
                assert!(rows[0].starts_with("NULL|"), "{host}: {rows:?}");
            }
        }
    }
    for url in [
        "http://10.0.0.1/jwks",
        "http://id.example/jwks",
        "ftp://localhost/jwks",
        "file:///etc/passwd",
        "https://user:word@id.example/jwks",
    ] {
        let refusal = admin.refused(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('bad', 'x', '{url}')"
        ));
        refusal.assert("22023", "invalid provider \"bad\"");
    }
    assert!(https.heads().is_empty(), "{:?}", https.heads());
    // Allowed by name it is asked, whatever its address.
    if let Some(name) = names.first() {
        admin.run("DELETE FROM auth.providers");
        admin.run(&format!(
            "SET pg_session_jwt.fetch_hosts = '{name}'; SET pg_session_jwt.fetch_ca_file = '{}';
             INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('web', 'x', 'https://{name}:{port}/jwks')",
            https.ca_file().display()
        ));
        let rows = admin.rows("SELECT error FROM auth.refresh('web')");
        let why = format!("the certificate of {name} is not trusted: it is for another name");
        assert_eq!(rows, [why]);
    }
}

#[test]
fn localhost_is_for_a_superuser_to_name() {
    let (db, _role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve("/jwks", set(&[good.jwk()]));
    let mut asked = 0;
    for (host, named) in [
        ("localhost", "localhost"),
        ("LocalHost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1.2.3", "127.1.2.3"),
        ("[::1]", "::1"),
    ] {
        let insert = format!(
            "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('web', {}, 'http://{host}:{}/jwks')",
            sql_text(&web.url()),
            web.port()
        );
        owner.run(&insert);
        assert_warned(&mut owner, named);
        let refusal = db.app().rejected(&token(&web, &good, "alice"));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        assert_eq!(refusal.hint, NOT_ALLOWED.replace("127.0.0.1", named));
        assert_eq!(web.heads().len(), asked);
        owner.run("DELETE FROM auth.providers");
        if host.eq_ignore_ascii_case("localhost") {
            admin.run(&insert);
            assert_eq!(warning(&mut admin), None);
            db.app().present(&token(&web, &good, "alice"));
            admin.run("DELETE FROM auth.providers");
            asked += 1;
            assert_eq!(web.heads().len(), asked);
        }
    }
}

/// Dumps a database as one role, and restores it as another; what pg_restore said.
fn dump_and_restore(from: &Database, dumper: &str, to: &Database, restorer: &str) -> String {
    let file = std::env::temp_dir().join(format!("{}.fetching", from.name()));
    let path = file.to_str().unwrap();
    let run = |name: &str, arguments: &[&str]| {
        let program = PathBuf::from(setting("PG_BIN")).join(name);
        let output = Command::new(program).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        said
    };
    run(
        "pg_dump",
        &["-U", dumper, "-d", from.name(), "-F", "custom", "-f", path],
    );
    let said = run(
        "pg_restore",
        &["-U", restorer, "--exit-on-error", "-d", to.name(), path],
    );
    std::fs::remove_file(&file).unwrap();
    said
}

#[test]
fn a_restore_loses_no_row_and_gives_no_permission() {
    let superuser = setting("PGUSER");
    let (from, role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    admin.run(&follow(&web));
    owner.run("INSERT INTO auth.providers (name, issuer) VALUES ('owners', 'http://127.0.0.1:1')");
    from.app().present(&token(&web, &good, "alice"));
    let rows = "SELECT name, written_by_superuser FROM auth.providers ORDER BY 1";
    assert_eq!(admin.rows(rows), ["owners|f", "web|t"]);
    for (dumper, restorer, expected) in [
        (&superuser, &superuser, ["owners|f", "web|t"]),
        (&role, &superuser, ["owners|f", "web|t"]),
        (&role, &role, ["owners|f", "web|f"]),
    ] {
        let to = Database::without_extension();
        to.superuser().run(&format!(
            "ALTER DATABASE {} OWNER TO {role}; ALTER SCHEMA public OWNER TO {role}",
            to.name()
        ));
        let before = web.heads().len();
        let said = dump_and_restore(&from, dumper, &to, restorer);
        assert_eq!(to.superuser().rows(rows), expected);
        let warnings = said.matches("are not fetched").count();
        assert!(warnings == 0 || warnings <= 2, "{said}");
        // Keys are no part of it.
        assert_eq!(
            to.superuser()
                .text("SELECT count(*) FROM auth.provider_keys"),
            "0"
        );
        assert_eq!(web.heads().len(), before);
        let mut app = to.app();
        let alice = token(&web, &good, "alice");
        if expected[1] == "web|t" {
            app.present(&alice);
            app.assert_user("alice");
        } else {
            assert_eq!(app.rejected(&alice).hint, NOT_ALLOWED);
            assert_eq!(web.heads().len(), before);
        }
    }
}

#[test]
fn a_document_leads_only_where_the_owners_row_may_lead() {
    let (db, _role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    db.administrator_sets("pg_session_jwt.fetch_hosts", "127.0.0.1");
    owner.run(&follow(&web));
    for (host, why) in [
        (
            "localhost",
            "localhost is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row",
        ),
        (
            "[::1]",
            "::1 is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row",
        ),
        (
            "127.0.0.2",
            "127.0.0.2 is not in pg_session_jwt.fetch_hosts, and no superuser wrote the row",
        ),
    ] {
        let uri = format!("http://{host}:{}/jwks", web.port());
        let document = json!({"issuer": web.url(), "jwks_uri": uri});
        web.serve(DISCOVERY, Answer::json(&document));
        let refusal = db.app().rejected(&token(&web, &good, "alice"));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        let row = admin.rows("SELECT jwks, error FROM auth.provider_keys");
        assert_eq!(row, [format!("NULL|{why}")]);
        pass(&mut admin, 1000);
    }
    assert_eq!(web.requests("/jwks"), 0);
}

#[test]
fn keys_that_arrive_by_logical_replication_do_not_break_it() {
    let cluster = Cluster::start("wal_level = logical");
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    let (mut source, mut target) = cluster.logical_replication(&follow(&web));
    let providers = "SELECT name, audience FROM auth.providers ORDER BY 1";
    wait_until("the row arrives", || target.rows(providers) == ["web|NULL"]);
    let alice = token(&web, &good, "alice");
    // As FOR ALL TABLES publishes them. Each of both has fetched its own.
    for database in ["source", "target"] {
        cluster.connect(database, APP_USER).present(&alice);
    }
    source.run("ALTER PUBLICATION p ADD TABLE auth.provider_keys");
    target.run("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    source.run("DELETE FROM auth.provider_keys");
    assert_eq!(source.rows("SELECT * FROM auth.refresh()"), ["web|1|NULL"]);
    source.run("SELECT auth.refresh(); UPDATE auth.providers SET audience = '{a}'");
    wait_until("the rows arrive", || target.rows(providers) == ["web|{a}"]);
    wait_until("all tables are synchronized", || {
        target.text("SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel") == "t"
    });
    assert!(
        !cluster.log().contains("duplicate key"),
        "{}",
        cluster.log()
    );
}

#[test]
fn a_row_that_arrives_by_logical_replication_is_whose_it_was() {
    let cluster = Cluster::start("wal_level = logical");
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    let (mut source, mut target) = cluster.logical_replication(&format!(
        "{}; CREATE ROLE writer; GRANT USAGE ON SCHEMA auth TO writer;
         GRANT ALL ON auth.providers TO writer; SET ROLE writer;
         INSERT INTO auth.providers (name, issuer) VALUES ('writers', 'http://127.0.0.1:1'); RESET ROLE",
        follow(&web)
    ));
    let rows = "SELECT name, written_by_superuser, enabled FROM auth.providers ORDER BY 1";
    let mut arrived = |what: [&str; 2]| {
        wait_until("the rows arrive", || target.rows(rows) == what);
    };
    arrived(["web|t|t", "writers|f|t"]);
    source.run("SET ROLE writer; UPDATE auth.providers SET enabled = false; RESET ROLE");
    arrived(["web|t|f", "writers|f|f"]);
    source.run("UPDATE auth.providers SET enabled = true WHERE name = 'web'");
    arrived(["web|t|t", "writers|f|f"]);
    // Each database fetches for itself.
    for (database, requests) in [("target", 1), ("source", 2)] {
        let mut app = cluster.connect(database, APP_USER);
        app.present(&token(&web, &good, "alice"));
        app.assert_user("alice");
        assert_eq!(web.requests("/jwks"), requests);
    }
    // An address that the writer gives is not the superuser's, here or there.
    source.run(&format!(
        "SET ROLE writer; UPDATE auth.providers SET jwks_url = '{}/evil'; RESET ROLE",
        web.url()
    ));
    arrived(["web|f|t", "writers|f|f"]);
}
