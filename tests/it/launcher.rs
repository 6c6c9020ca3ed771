//! Keys that are fetched by the clock, where the library is preloaded.

use harness::{Answer, Cluster, Issuer, Web, sql_text, token_with, wait_until};
use serde_json::json;

#[test]
fn a_preloaded_library_has_keys_fetched_though_nobody_asks() {
    let server = Cluster::start("shared_preload_libraries = 'pg_session_jwt'");
    let (key, web) = (Issuer::es256().with_kid("first"), Web::http());
    web.serve_issuer(&[&key]);
    let mut admin = server.connect("postgres", "postgres");
    admin.run("CREATE DATABASE other");
    admin.run(&format!(
        "CREATE EXTENSION pg_session_jwt;
         INSERT INTO auth.providers (name, issuer) VALUES ('web', {})",
        sql_text(&web.url())
    ));
    let token = token_with(&key, "alice", &json!({"iss": web.url()}));
    admin.present(&token);
    admin.run(
        "INSERT INTO auth.providers (name, issuer) VALUES ('unused', 'https://unused.example')",
    );
    assert_eq!(
        admin.text(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_session_jwt launcher'"
        ),
        "1"
    );
    assert_eq!(web.requests("/jwks"), 1);
    admin.run("UPDATE auth.provider_keys SET next_at = now() - interval '1 s'");
    drop(admin);
    // It begins with a round.
    server.restart();
    wait_until("the launcher has had them fetched", || {
        web.requests("/jwks") == 2
    });
    let mut admin = server.connect("postgres", "postgres");
    wait_until("they are stored", || {
        admin.text("SELECT bool_and(next_at > now()) FROM auth.provider_keys") == "t"
    });
    // Keys that nobody has ever needed are not fetched.
    assert_eq!(
        admin.rows("SELECT provider FROM auth.provider_keys"),
        ["web"]
    );
    // Neither it nor its workers are connected to a database for long.
    wait_until("the other database can be dropped", || {
        admin.try_run("DROP DATABASE other").is_ok()
    });
}

#[test]
fn the_launcher_reads_names_in_each_encoding() {
    let server = Cluster::start("shared_preload_libraries = 'pg_session_jwt'");
    let (key, web) = (Issuer::es256().with_kid("clé"), Web::http());
    web.serve("/jwks", Answer::json(&json!({"keys": [key.jwk()]})));
    let mut admin = server.connect("postgres", "postgres");
    for encoding in ["LATIN1", "SQL_ASCII", "UTF8"] {
        admin.run(&format!(
            "CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0"
        ));
        let mut admin = server.connect(&encoding.to_lowercase(), "postgres");
        let issuer = match encoding {
            "SQL_ASCII" => "issuer",
            _ => "émetteur",
        };
        admin.run(&format!(
            "CREATE EXTENSION pg_session_jwt; SET client_encoding = 'UTF8';
             INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('{issuer}', '{issuer}', {})",
            sql_text(&format!("{}/jwks", web.url()))
        ));
        admin.present(&token_with(&key, "alice", &json!({"iss": issuer})));
        admin.run("UPDATE auth.provider_keys SET next_at = now() - interval '1 s'");
    }
    assert_eq!(web.requests("/jwks"), 3);
    drop(admin);
    server.restart();
    wait_until("all are fetched", || web.requests("/jwks") == 6);
    assert!(!server.log().contains("internal error"));
}
