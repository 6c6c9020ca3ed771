//! Who may change what is fetched, and whom.

use harness::{Cluster, Database, Web, first_line, option, token_with};
use serde_json::json;

use crate::fetching::{follow, following, key, pass, token};

#[test]
fn nobody_but_the_worker_and_superusers_writes_fetched_keys() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    db.app().present(&token(&web, &good, "alice"));
    let writer = db.role("writer");
    admin.run(&format!(
        "GRANT pg_write_all_data, pg_read_all_data TO {writer}"
    ));
    let mut writer = db.connect(&writer, "");
    for sql in [
        "UPDATE auth.provider_keys SET next_at = now()",
        "DELETE FROM auth.provider_keys",
        "INSERT INTO auth.provider_keys SELECT 'x', issuer, url, jwks, now(), now(), now(), 0 FROM auth.provider_keys",
    ] {
        let refusal = writer.refused(sql);
        refusal.assert("42501", "permission denied for table provider_keys");
        assert!(refusal.hint.contains("auth.providers"), "{refusal:?}");
    }
    // What he may do to providers goes on working, with what it entails.
    writer.run("UPDATE auth.providers SET name = 'other'");
    assert_eq!(
        admin.rows("SELECT provider FROM auth.provider_keys"),
        [""; 0]
    );
    writer.run("DELETE FROM auth.providers");
    admin.run("INSERT INTO auth.provider_keys (provider, url, checked_at, next_at, failures) VALUES ('x', 'y', now(), now(), 0)");
    admin.run("TRUNCATE auth.providers");
    assert_eq!(
        admin.rows("SELECT provider FROM auth.provider_keys"),
        [""; 0]
    );
}

#[test]
fn a_session_that_lost_an_administrators_parameter_fetches_nothing() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let operator = db.role("operator");
    admin.run(&format!(
        "GRANT EXECUTE ON FUNCTION auth.refresh(text) TO {operator}"
    ));
    let mut session = db.connect(&operator, &option("pg_session_jwt.fetch_ca_file", "x"));
    for sql in [
        "SELECT auth.refresh()",
        "SELECT auth.refresh('web')",
        "SELECT auth.user_id()",
    ] {
        session.refused(sql).assert(
            "42501",
            "permission denied to set parameter \"pg_session_jwt.fetch_ca_file\"",
        );
    }
    assert_eq!(web.requests("/jwks"), 0);
    let mut session = db.connect(&operator, "");
    assert_eq!(
        session.rows("SELECT * FROM auth.refresh('web')"),
        ["web|1|NULL"]
    );
}

#[test]
fn where_the_tables_owner_is_no_superuser_no_row_is_a_superusers() {
    let server = Cluster::start("");
    let web = Web::http();
    let good = key("good");
    web.serve_issuer(&[&good]);
    let mut admin = server.connect("postgres", "postgres");
    admin.run("CREATE ROLE adm LOGIN SUPERUSER");
    let mut adm = server.connect("postgres", "adm");
    adm.run("CREATE EXTENSION pg_session_jwt");
    adm.run(&follow(&web));
    admin.run("ALTER ROLE adm NOSUPERUSER");
    let mut adm = server.connect("postgres", "adm");
    let refreshed = adm.rows("SELECT keys, error FROM auth.refresh('web')");
    assert_eq!(
        refreshed,
        [
            "NULL|Keys are not fetched from \"127.0.0.1\": a superuser may add this host to \
          pg_session_jwt.fetch_hosts, or write the provider's row."
        ]
    );
    // Nor by what he can write into tables of his own.
    adm.run("ALTER TABLE auth.providers DISABLE TRIGGER check_provider");
    adm.run("UPDATE auth.providers SET written_by_superuser = true");
    adm.run("ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider");
    assert_eq!(
        adm.rows("SELECT keys, error FROM auth.refresh('web')"),
        refreshed
    );
    assert_eq!(web.requests("/jwks"), 0);
    // His rows can be deleted, and their keys with them.
    adm.run("DELETE FROM auth.providers");
}

#[test]
fn a_superuser_who_makes_a_row_his_is_told_where_requests_go() {
    let (db, web) = (Database::without_extension(), Web::http());
    let good = key("good");
    web.serve_issuer(&[&good]);
    let owner = db.role("owner");
    let mut admin = db.superuser();
    admin.run(&format!("ALTER DATABASE {} OWNER TO {owner}", db.name()));
    let mut owner = db.connect(&owner, "");
    owner.run("CREATE EXTENSION pg_session_jwt");
    owner.run(&follow(&web));
    assert_eq!(
        owner.notices(),
        ["WARNING: keys of provider \"web\" are not fetched"]
    );
    admin.run("UPDATE auth.providers SET audience = NULL");
    let said = admin.said();
    assert_eq!(
        said[0].message,
        "provider \"web\" is a superuser's from now on"
    );
    assert_eq!(
        said[0].detail,
        "Keys are fetched for it from \"127.0.0.1\"."
    );
    admin.run("UPDATE auth.providers SET enabled = true");
    assert_eq!(admin.notices(), [""; 0], "once");
    db.app().present(&token(&web, &good, "alice"));
    // An owner who touches the address makes it his.
    owner.run("UPDATE auth.providers SET audience = NULL");
    assert_eq!(owner.notices(), [""; 0]);
    owner.run("UPDATE auth.providers SET issuer = issuer || '/'");
    assert_eq!(
        owner.notices(),
        ["WARNING: keys of provider \"web\" are not fetched"]
    );
}

#[test]
fn keys_that_were_fetched_for_one_issuer_are_not_anothers_with_the_same_document() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let mut app = db.app();
    app.present(&token(&web, &good, "alice"));
    // `…` and `…/` have one discovery document, and it names one of them.
    admin.run("UPDATE auth.providers SET issuer = issuer || '/'");
    let other = json!({"iss": format!("{}/", web.url())});
    pass(&mut admin, 31);
    let refusal = app.rejected(&token_with(&good, "alice", &other));
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    let error = admin.text("SELECT error FROM auth.provider_keys");
    assert!(error.contains("is of the issuer"), "{error}");
    app.rejected(&token_with(&good, "alice", &other))
        .assert_stage("key", first_line::NO_KEY_FITS);
    admin.run("UPDATE auth.providers SET issuer = rtrim(issuer, '/')");
    pass(&mut admin, 31);
    app.present(&token(&web, &good, "alice"));
}

#[test]
fn a_row_that_is_not_committed_yet_is_not_refreshed() {
    let (db, web) = (Database::new(), Web::http());
    web.serve_issuer(&[&key("good")]);
    let mut admin = db.superuser();
    admin.run("BEGIN");
    admin.run(&follow(&web));
    assert_eq!(
        admin.rows("SELECT * FROM auth.refresh('web')"),
        ["web|NULL|nothing was written: commit the provider's row first, or see the server log"]
    );
    admin.run("COMMIT");
    assert_eq!(
        admin.rows("SELECT * FROM auth.refresh('web')"),
        ["web|1|NULL"]
    );
}
