//! Errors that lead on: what was given in place of a token or a key set, and what to give instead.

use harness::{Database, ISS, Issuer, Row, b64, first_line, now, sql_text, token, token_with};
use serde_json::{Value, json};

#[test]
fn what_is_no_token_is_called_what_it_is() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    db.superuser().register(&[&issuer]);
    let mut app = db.app();
    let good = token(&issuer, "alice");
    for (text, hint) in [
        (
            format!("Bearer {good}"),
            "Present the token alone, without \"Bearer\".",
        ),
        (
            format!("bearer {good}"),
            "Present the token alone, without \"Bearer\".",
        ),
        (
            format!("\"{good}\""),
            "Present the token alone, without the quotes around it.",
        ),
        (
            format!("{good}\n"),
            "Present the token alone, without white space or a line end around it.",
        ),
        (
            format!(" {good}"),
            "Present the token alone, without white space or a line end around it.",
        ),
        (
            format!("{good}.e30.AA"),
            "Five parts are an encrypted token",
        ),
        (
            "ya29.a0Af".replace('.', "-"),
            "This is an opaque token or an API key",
        ),
        (
            "sk_live_51H".into(),
            "This is an opaque token or an API key",
        ),
    ] {
        for sql in ["auth.login", "auth.jwt_session_init", "auth.verify"] {
            let refusal = app.refused(&format!("SELECT {sql}({})", sql_text(&text)));
            assert_eq!(refusal.sqlstate, "28000", "{refusal:?}");
            assert!(refusal.detail.starts_with("structure: "), "{refusal:?}");
            assert!(refusal.hint.starts_with(hint), "{text}: {refusal:?}");
            refusal.assert_shows_no_token();
        }
    }
    let nothing = app.rejected("");
    nothing.assert_stage("structure", first_line::ENCODING);
    assert_eq!(nothing.hint, "");
}

#[test]
fn what_is_no_key_set_is_called_what_it_is_wherever_it_is_given() {
    let db = Database::new();
    let mut admin = db.superuser();
    let long = "a secret that somebody has typed as it is, without encoding it!";
    for (jwks, detail, hint) in [
        (
            json!({"a": "-----BEGIN CERTIFICATE-----\nMII", "b": "-----BEGIN CERTIFICATE-----\nMII"}),
            "it is a map of certificates, not a key set",
            "Firebase serves a JWK Set at https://www.googleapis.com/service_accounts/v1/jwk/",
        ),
        (
            json!({"issuer": ISS, "jwks_uri": "https://issuer.example/keys"}),
            "it is a discovery document, not a key set; its \"jwks_uri\" is \"https://issuer.example/keys\"",
            "Give the JWK Set that its \"jwks_uri\" answers.",
        ),
        (
            json!("-----BEGIN PUBLIC KEY-----\nMII"),
            "not a JSON object but PEM in a string",
            "Give the key as a JWK",
        ),
        (
            json!({"keys": []}),
            "no usable key: the set is empty",
            "An issuer of HS256 tokens publishes no key",
        ),
        (
            json!("https://issuer.example/keys"),
            "not a JSON object but a URL",
            "Give the JWK Set itself",
        ),
        (
            json!([Issuer::ed25519().jwk()]),
            "not a JSON object but an array",
            "Put the array into an object",
        ),
        (
            json!({"kty": "oct", "k": long}),
            "no usable key: key 1: \"k\" is not base64url",
            "\"k\" is the base64url of the secret's bytes. In SQL: ",
        ),
        (
            json!({"kty": "oct", "k": "super-secret-jwt-token-with-at"}),
            "no usable key: key 1: ",
            "",
        ),
        (
            json!({"kty": "oct", "alg": "HS512", "k": b64(&[7; 32])}),
            "no usable key: key 1: the secret has 32 bytes, but at least 64 are required",
            "A secret must be at least as long as the hash",
        ),
    ] {
        let row = Row::new("p", ISS, &[]).jwks(&jwks);
        let by_row = admin.refused(&row.insert());
        by_row.assert("22023", "invalid provider \"p\"");
        assert!(
            by_row.detail.starts_with(&format!("jwks: {detail}")),
            "{by_row:?}"
        );
        let by_init = admin.refused(&format!(
            "SELECT auth.init({})",
            sql_text(&jwks.to_string())
        ));
        by_init.assert("22023", "invalid JSON Web Key Set");
        assert!(by_init.detail.starts_with(detail), "{by_init:?}");
        for refusal in [by_row, by_init] {
            assert!(
                refusal.hint.starts_with(hint) && !refusal.hint.is_empty(),
                "{refusal:?}"
            );
            assert!(
                !refusal.hint.contains("as the issuer publishes"),
                "{refusal:?}"
            );
        }
    }
    let pem = admin.refused("SELECT auth.init(E'-----BEGIN PUBLIC KEY-----\\nMII')");
    assert_eq!(pem.detail, "the text is PEM");
}

/// The expression that the HINT gives turns a secret as it is typed into `k`.
#[test]
fn the_hint_about_a_secret_makes_a_key_that_works() {
    let (db, secret) = (
        Database::new(),
        "a secret that is typed: it is long ~ enough, ö, for HS256",
    );
    let mut admin = db.superuser();
    let jwks = json!({"kty": "oct", "k": secret});
    let hint = admin.refused(&Row::main(&[]).jwks(&jwks).insert()).hint;
    let (_, expression) = hint.split_once("In SQL: ").expect("an expression");
    let expression = expression
        .trim_end_matches('.')
        .replace("the secret", secret);
    let k = admin.text(&format!("SELECT {expression}"));
    assert_eq!(k, b64(secret.as_bytes()));
    admin.run(&Row::main(&[]).jwks(&json!({"kty": "oct", "k": k})).insert());
    let issuer = Issuer::secret(secret.as_bytes());
    let mut app = db.app();
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
    // Encoded once too often, it is another secret: the same hint.
    let refusal = app.rejected(&token(&Issuer::secret(k.as_bytes()), "alice"));
    refusal.assert_stage("signature", first_line::SIGNATURE);
    assert_eq!(refusal.hint, hint);
    // And one for HS512 would have to be longer.
    let header = r#"{"alg":"HS512"}"#;
    let claims = json!({"iss": ISS, "sub": "alice", "exp": now() + 60}).to_string();
    let refusal = app.rejected(&Issuer::secret(&[7; 32]).sign(header, claims));
    refusal.assert_stage("key", first_line::NO_KEY_FITS);
    assert_eq!(
        refusal.hint,
        "HS512 needs a secret of at least 64 bytes; the one that is trusted is shorter."
    );
}

#[test]
fn an_issuer_that_comes_near_a_registered_one_is_hinted_at() {
    let tenant = "11111111-2222-3333-4444-555555555555";
    for (registered, presented, hint) in [
        (
            "https://api.workos.com",
            "https://api.workos.com/user_management/client_1",
            "same host",
        ),
        (
            "https://api.workos.com/user_management/client_1",
            "https://api.workos.com",
            "same host",
        ),
        (
            "https://id.example.com/realms/shop",
            "http://keycloak:8080/realms/shop",
            "at another host",
        ),
        (
            &format!("https://login.microsoftonline.com/{tenant}/v2.0"),
            &format!("https://sts.windows.net/{tenant}/"),
            "Entra's access tokens of version 1 and 2",
        ),
        (
            "https://acme.auth0.com/",
            "https://acme.auth0.com",
            "trailing slash",
        ),
        (
            "https://one.example",
            "https://two.example",
            "Register a provider for it",
        ),
    ] {
        let (db, issuer) = (Database::new(), Issuer::ed25519());
        db.superuser()
            .run(&Row::new("p", registered, &[&issuer]).insert());
        let token = token_with(&issuer, "alice", &json!({"iss": presented}));
        let refusal = db.app().rejected(&token);
        refusal.assert_stage("key", first_line::ISSUER);
        assert!(refusal.hint.contains(hint), "{presented}: {refusal:?}");
    }
}

#[test]
fn a_token_that_no_key_verifies_says_what_may_be_the_matter() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut admin = db.superuser();
    let others: Vec<Issuer> = (0..9).map(|_| Issuer::ed25519()).collect();
    admin.register(&others.iter().collect::<Vec<_>>());
    let mut app = db.app();
    let refusal = app.rejected(&token(&issuer, "alice"));
    refusal.assert_stage("signature", first_line::SIGNATURE);
    assert!(
        refusal.detail.contains("the first 8 of 9 matching keys"),
        "{refusal:?}"
    );
    assert!(
        refusal.hint.starts_with("Give the keys a \"kid\""),
        "{refusal:?}"
    );

    let claims = json!({"iss": ISS, "sub": "alice", "exp": now() + 60}).to_string();
    let graph = issuer.sign(r#"{"alg":"EdDSA","nonce":"abc"}"#, &claims);
    let refusal = app.rejected(&graph);
    refusal.assert_stage("signature", first_line::SIGNATURE);
    assert!(refusal.hint.contains("Microsoft Graph"), "{refusal:?}");

    admin.rotate(&[&issuer]);
    let without_exp = token_with(&issuer, "alice", &json!({"exp": null}));
    let refusal = app.rejected(&without_exp);
    refusal.assert_stage("policy", first_line::LACKS);
    assert_eq!(
        refusal.hint,
        "The provider's required_claims decides which claims a token must have; \"exp\" is one of them."
    );
}

#[test]
fn a_fault_in_the_payload_is_reported_as_one_with_providers_too() {
    for issuer_of_row in [sql_text(ISS), "NULL".to_owned()] {
        let (db, issuer) = (Database::new(), Issuer::ed25519());
        db.superuser().run(
            &Row::main(&[&issuer])
                .with("issuer", &issuer_of_row)
                .insert(),
        );
        let mut app = db.app();
        for (payload, facts) in [
            (
                format!(r#"{{"iss":"{ISS}","a":"\u0000"}}"#),
                "payload: not usable JSON: ",
            ),
            (
                format!(r#"{{"iss":"{ISS}","a":"\ud800"}}"#),
                "payload: not usable JSON: ",
            ),
            (
                format!(r#"{{"iss":"{ISS}","a":1e400}}"#),
                "payload: not usable JSON: ",
            ),
            (
                format!(r#"{{"iss":["{ISS}"]}}"#),
                "payload: \"iss\" is not a string",
            ),
            ("[]".into(), "payload: not a JSON object"),
            ("".into(), "payload: not usable JSON: "),
        ] {
            // Whoever signed it.
            for signer in [&issuer, &Issuer::ed25519()] {
                let refusal = app.rejected(&signer.sign(r#"{"alg":"EdDSA"}"#, &payload));
                refusal.assert_stage("payload", first_line::PAYLOAD);
                assert!(refusal.detail.starts_with(facts), "{payload}: {refusal:?}");
            }
        }
    }
}

/// Entra's tenant-independent set: a key of one tenant's issuer signs for no other.
#[test]
fn a_key_that_names_its_issuer_is_for_that_issuers_tokens() {
    let (db, everyones, one) = (Database::new(), Issuer::es256(), Issuer::es256());
    let iss = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    let everyones = everyones.with_kid("all").with("issuer", iss("{tenantid}"));
    let one = one.with_kid("one").with("issuer", iss("other"));
    db.superuser()
        .run(&Row::new("entra", &iss("mine"), &[&everyones, &one]).insert());
    let mut app = db.app();
    let claims = |tid: Value| json!({"iss": iss("mine"), "tid": tid});
    app.present(&token_with(&everyones, "alice", &claims(json!("mine"))));
    app.assert_user("alice");
    for (signer, tid) in [
        (&everyones, json!("other")),
        (&everyones, json!(null)),
        (&everyones, json!(["mine"])),
        (&one, json!("mine")),
        (&one, json!("other")),
    ] {
        let refusal = app.rejected(&token_with(signer, "mallory", &claims(tid)));
        refusal.assert_stage("key", first_line::NO_KEY_FITS);
        assert_eq!(
            refusal.hint,
            "A key that would fit is for another issuer, as its member \"issuer\" says: register the keys of the token's own. Entra's for tokens of version 1 are at https://login.microsoftonline.com/<tenant>/discovery/keys."
        );
        app.assert_user("alice");
    }
    // A key that nobody published is no such case.
    let refusal = app.rejected(&token_with(
        &Issuer::es256().with_kid("new"),
        "mallory",
        &claims(json!("mine")),
    ));
    assert!(refusal.hint.contains("rotated its keys"), "{refusal:?}");
}
