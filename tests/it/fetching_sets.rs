//! Keys that follow their issuer: what is in the set that an issuer publishes.

use harness::{Answer, Database, Issuer, Web, b64, first_line, server_log, sql_text};
use serde_json::json;

use crate::fetching::{body, following, key, may_hang, pass, set, token};

#[test]
fn beside_a_good_key_those_that_cannot_be_used_are_named() {
    let (good, secret) = (key("good"), Issuer::hs256().with_kid("secret"));
    let d = b64(b"a number that nobody may know...");
    let private_key = Issuer::ed25519().with_kid("private");
    let mut private = private_key.jwk();
    private["d"] = d.clone().into();
    let (db, web, mut admin) = following(&[]);
    let malformed = json!({"kty": "EC", "crv": "P-256", "kid": "malformed", "x": "AA", "y": "AA"});
    let encryption = json!({"kty": "RSA", "kid": "enc", "use": "enc", "n": "AA", "e": "AQAB"});
    let keys = [
        secret.jwk(),
        private,
        malformed,
        good.jwk(),
        json!(1),
        encryption,
    ];
    web.serve("/jwks", set(&keys));
    let mut app = db.app();
    app.present(&token(&web, &good, "alice"));
    app.assert_user("alice");
    assert_eq!(
        admin.rows("SELECT jwks->'keys', error FROM auth.provider_keys"),
        [format!(
            "{}|NULL",
            admin.text(&format!(
                "SELECT {}::jsonb",
                sql_text(&json!([good.jwk()]).to_string())
            ))
        )]
    );
    let ignored = admin.rows("SELECT unnest(ignored) FROM auth.provider_keys");
    for (name, fact) in [
        ("key 1 (\"secret\")", "a secret that is published is none"),
        ("key 2 (\"private\")", "it is a private key (it has \"d\")"),
        ("key 3 (\"malformed\")", ""),
        ("key 5", "not a JSON object"),
    ] {
        let is_named =
            |line: &String| line.starts_with(&format!("{name}: ")) && line.ends_with(fact);
        assert!(ignored.iter().any(is_named), "{name}: {ignored:?}");
    }
    for unusable in [&secret, &private_key] {
        app.rejected(&token(&web, unusable, "mallory"))
            .assert_stage("key", first_line::NO_KEY_FITS);
    }
    // No key material is anywhere.
    let all = admin
        .rows("SELECT p::text FROM auth.provider_keys p")
        .join("");
    let secret = secret.jwk()["k"].as_str().unwrap().to_owned();
    let (all, log) = (all, server_log());
    for text in [&all, &log] {
        assert!(!text.contains(&d) && !text.contains(&secret));
    }
}

#[test]
fn an_error_quotes_neither_key_nor_token() {
    let d = b64(b"another number that nobody knows");
    let (db, web, mut admin) = following(&[]);
    let mut private = key("private").jwk();
    private["d"] = d.clone().into();
    let mut app = db.app();
    let alice = token(&web, &key("private"), "alice");
    for answer in [
        set(&[private.clone()]),
        body(&format!("{{\"keys\":[{private}")),
        body(&format!("{{\"kty\":\"EC\",\"kty\":\"EC\",\"d\":\"{d}\"}}")),
        body(&format!("\"{d}\"")),
        Answer::json(&json!({"keys": {d.clone(): d}})),
        Answer::Raw(format!("{d}\r\n").into_bytes()),
    ] {
        web.serve("/jwks", answer);
        let refusal = app.rejected(&alice);
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        assert!(!format!("{refusal:?}").contains(&d), "{refusal:?}");
        let row = admin
            .rows("SELECT p::text, error FROM auth.provider_keys p")
            .join("");
        assert!(row.contains("127.0.0.1"), "{row}");
        assert!(!row.contains(&d), "{row}");
        pass(&mut admin, 1000);
    }
    // A cancel in the middle of it: the statement is logged, but for its token.
    let _alone = may_hang();
    web.serve("/jwks", Answer::Hang);
    app.run("SET statement_timeout = '200ms'");
    let refusal = app.rejected(&alice);
    refusal.assert("57014", "canceling statement due to statement timeout");
    app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&alice)));
    app.refused("SELECT auth.user_id()")
        .assert("57014", "canceling statement due to statement timeout");
    let signature = alice.rsplit('.').next().unwrap();
    let log = server_log();
    assert!(!log.contains(&d));
    let line = log.lines().find(|line| line.contains(signature));
    assert_eq!(line, None);
}

#[test]
fn keys_are_stored_whatever_characters_are_in_them() {
    for encoding in ["UTF8", "LATIN1", "SQL_ASCII"] {
        let (db, web) = (Database::in_encoding(encoding), Web::http());
        let mut admin = db.superuser();
        admin.run("CREATE EXTENSION pg_session_jwt");
        if encoding != "UTF8" {
            admin.run("SET client_encoding = 'UTF8'");
        }
        // A name and an id with an é; members that jsonb cannot hold, or the encoding lacks.
        let name = match encoding {
            "SQL_ASCII" => "clef",
            _ => "clé",
        };
        let plain = key(name);
        web.serve_issuer(&[&plain]);
        admin.run(&format!(
            "INSERT INTO auth.providers (name, issuer) VALUES ('{name}', {})",
            sql_text(&web.url())
        ));
        let mut app = db.app();
        app.present(&token(&web, &plain, "alice"));
        app.assert_user("alice");
        for (member, value) in [
            ("x-nul", json!("a\u{0}b")),
            ("x-greek", json!("κλειδί")),
            ("kid", json!("κλειδί")),
            ("kid", json!("a\u{0}b")),
        ] {
            let odd = key("odd").with(member, value.clone());
            pass(&mut admin, 1000);
            web.serve("/jwks", set(&[odd.jwk(), plain.jwk()]));
            let rows = admin.rows("SELECT error FROM auth.refresh()");
            let text = value.as_str().unwrap();
            let why = if text.contains('\0') {
                "not usable JSON: a string contains U+0000"
            } else if encoding == "LATIN1" {
                "this database cannot store the keys: "
            } else {
                "NULL"
            };
            assert!(
                rows[0].contains(why),
                "{encoding}: {member} {value}: {rows:?}"
            );
            app.present(&token(&web, &plain, "alice"));
            app.assert_user("alice");
        }
        for number in ["1e999999", "-0", "1.000000000000000000000000001"] {
            let jwk =
                key("odd")
                    .jwk()
                    .to_string()
                    .replacen('{', &format!("{{\"x-number\":{number},"), 1);
            web.serve(
                "/jwks",
                body(&format!("{{\"keys\":[{jwk},{}]}}", plain.jwk())),
            );
            let rows = admin.rows("SELECT error FROM auth.refresh()");
            assert_eq!(rows.len(), 1, "{encoding}: {number}");
            let is_read = rows == ["NULL"]
                || rows[0].contains("cannot store")
                || rows[0].contains("not usable JSON");
            assert!(is_read, "{encoding}: {number}: {rows:?}");
        }
    }
}

#[test]
fn a_set_may_be_large_and_not_larger() {
    const MOST: usize = 256 * 1024;
    let (last, large) = (key("last"), Issuer::rs256());
    let (db, web, mut admin) = following(&[]);
    let mut keys: Vec<_> = (0..400)
        .map(|number| {
            let mut jwk = large.jwk();
            jwk["kid"] = format!("key-{number}").into();
            jwk
        })
        .collect();
    keys.push(last.jwk());
    let mut text = json!({"keys": keys}).to_string();
    text += &" ".repeat(MOST - text.len());
    web.serve("/jwks", body(&text));
    let mut app = db.app();
    for key in [
        &last,
        &Issuer::rs256().with_kid("key-399"),
        &Issuer::rs256(),
    ] {
        app.present(&token(&web, key, "alice"));
        app.assert_user("alice");
    }
    assert_eq!(
        admin.rows("SELECT keys, error FROM auth.refresh()"),
        ["401|NULL"]
    );
    app.assert_user("alice");
    web.serve("/jwks", body(&format!("{text} ")));
    let error = format!("{}/jwks answered with more than {MOST} bytes", web.url());
    assert_eq!(
        admin.rows("SELECT keys, error FROM auth.refresh()"),
        [format!("NULL|{error}")]
    );
    app.assert_user("alice");
}

#[test]
fn a_provider_may_have_any_name() {
    let good = key("good");
    let (db, web, mut admin) = following(&[&good]);
    let mut app = db.app();
    let alice = token(&web, &good, "alice");
    for name in [
        "a\nLOG:  b",
        "'); DROP TABLE auth.providers; --",
        "\"quoted\" %s %n \\",
        "\u{7f}\u{202e}\u{1f600}",
        &"long ".repeat(400),
    ] {
        admin.run(&format!(
            "UPDATE auth.providers SET name = {}",
            sql_text(name)
        ));
        app.present(&alice);
        app.assert_user("alice");
        web.serve("/jwks", Answer::Status(500));
        let row = admin.rows("SELECT provider, keys, error FROM auth.refresh()");
        assert_eq!(
            row,
            [format!("{name}|NULL|{}/jwks answered 500", web.url())]
        );
        let refusal = admin.refused(&format!(
            "SELECT auth.refresh({})",
            sql_text(&format!("{name}x"))
        ));
        assert_eq!(refusal.sqlstate, "42704", "{refusal:?}");
        web.serve_issuer(&[&good]);
        assert_eq!(admin.rows("SELECT count(*) FROM auth.provider_keys"), ["1"]);
    }
    assert!(
        !server_log().contains("\nLOG:  b"),
        "nobody writes lines into the log"
    );
}
