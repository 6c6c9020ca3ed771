//! What a provider asks of its tokens beyond a good signature, and that every answer names it.

use harness::{
    Database, ISS, Issuer, Refusal, Row, Session, first_line, now, sql_text, token, token_with,
};
use serde_json::{Value, json};

/// A database with the provider `main`, and an application's session.
fn site(row: impl Fn(Row) -> Row) -> (Database, Issuer, Session) {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    db.superuser().run(&row(Row::main(&[&issuer])).insert());
    let app = db.app();
    (db, issuer, app)
}

/// The refusal, its DETAIL to the letter, naming the provider.
#[track_caller]
fn assert_refused(refusal: &Refusal, stage: &str, message: &str, facts: &str) {
    refusal.assert_stage(stage, message);
    assert_eq!(
        refusal.detail,
        format!("{stage}: {facts} (provider \"main\")"),
        "{refusal:?}"
    );
}

#[test]
fn the_audience_must_name_the_database() {
    let (db, issuer, mut app) = site(|row| row.with("audience", "'{https://db.example,db}'"));
    let token = |aud: Value| token_with(&issuer, "alice", &json!({"aud": aud}));
    for aud in [
        json!("db"),
        json!(["x", "db"]),
        json!(["https://db.example"]),
    ] {
        app.present(&token(aud));
        app.assert_user("alice");
    }
    for (aud, facts) in [
        (json!("DB"), "\"aud\" is \"DB\""),
        (
            json!("https://db.example/"),
            "\"aud\" is \"https://db.example/\"",
        ),
        (json!(["x", "y"]), "\"aud\" is \"x\", \"y\""),
        (json!([]), "the token has no \"aud\""),
        (Value::Null, "the token has no \"aud\""),
    ] {
        let refusal = app.rejected(&token(aud));
        assert_refused(&refusal, "policy", first_line::AUDIENCE, facts);
        assert!(!refusal.hint.is_empty(), "{refusal:?}");
    }
    app.rejected(&token(json!(5)))
        .assert_stage("payload", first_line::PAYLOAD);
    // None asked for: any will do.
    db.superuser()
        .run("UPDATE auth.providers SET audience = NULL");
    for aud in [json!("x"), json!([]), Value::Null] {
        app.present(&token(aud));
    }
}

#[test]
fn the_authorized_party_must_be_listed() {
    let (db, issuer, mut app) =
        site(|row| row.with("authorized_parties", "'{https://app.example}'"));
    let token = |azp: Value| token_with(&issuer, "alice", &json!({"azp": azp}));
    app.present(&token(json!("https://app.example")));
    app.assert_user("alice");
    for (azp, facts) in [
        (
            json!("https://app.example/"),
            "\"azp\" is \"https://app.example/\"",
        ),
        (
            json!("https://evil.example"),
            "\"azp\" is \"https://evil.example\"",
        ),
        (
            json!(["https://app.example"]),
            "the token has neither \"azp\" nor \"client_id\"",
        ),
        (
            Value::Null,
            "the token has neither \"azp\" nor \"client_id\"",
        ),
    ] {
        let refusal = app.rejected(&token(azp));
        assert_refused(&refusal, "policy", first_line::PARTY, facts);
        assert!(!refusal.hint.is_empty(), "{refusal:?}");
    }
    // An access token names the application in client_id, which counts where there is no azp.
    let access = |more: Value| token_with(&issuer, "alice", &more);
    app.present(&access(json!({"client_id": "https://app.example"})));
    for (claims, facts) in [
        (json!({"client_id": "other"}), "\"client_id\" is \"other\""),
        (
            json!({"client_id": "https://app.example", "azp": "other"}),
            "\"azp\" is \"other\"",
        ),
        (
            json!({"client_id": "https://app.example", "azp": ["other"]}),
            "the token has neither \"azp\" nor \"client_id\"",
        ),
    ] {
        let refusal = app.rejected(&access(claims));
        assert_refused(&refusal, "policy", first_line::PARTY, facts);
    }
    db.superuser()
        .run("UPDATE auth.providers SET authorized_parties = NULL");
    app.present(&token(json!("https://evil.example")));
}

#[test]
fn required_claims_are_there_and_exp_is_one_by_default() {
    let (db, issuer, mut app) = site(|row| row);
    let without = |name: &str| token_with(&issuer, "alice", &json!({name: null}));
    assert_refused(
        &app.rejected(&without("exp")),
        "policy",
        first_line::LACKS,
        "the token has no \"exp\"",
    );
    let mut admin = db.superuser();
    admin.run("UPDATE auth.providers SET required_claims = '{exp,sub,email}'");
    assert_refused(
        &app.rejected(&token(&issuer, "alice")),
        "policy",
        first_line::LACKS,
        "the token has no \"email\"",
    );
    // JSON null is no claim.
    let claims = json!({"iss": ISS, "sub": "alice", "exp": now() + 60, "email": null});
    app.rejected(&issuer.token(&claims))
        .assert_stage("policy", first_line::LACKS);
    app.present(&token_with(&issuer, "alice", &json!({"email": ""})));
    admin.run("UPDATE auth.providers SET required_claims = '{}'");
    app.present(&without("exp"));
    app.assert_user("alice");
    app.present(&without("sub"));
    app.assert_nobody();
}

#[test]
fn algorithms_are_those_of_the_list() {
    let (db, rsa) = (Database::new(), Issuer::rs256());
    let mut admin = db.superuser();
    admin.run(
        &Row::main(&[&rsa])
            .with("algorithms", "'{PS256,RS512}'")
            .insert(),
    );
    let mut app = db.app();
    let refusal = app.rejected(&token(&rsa, "alice"));
    assert_refused(
        &refusal,
        "key",
        first_line::NO_KEY_FITS,
        "the token has \"alg\" \"RS256\" and no \"kid\"",
    );
    admin.run("UPDATE auth.providers SET algorithms = '{RS256}'");
    app.present(&token(&rsa, "alice"));
    // A public key is no secret, whatever a token's header says.
    let modulus = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let forged = token(&Issuer::secret(modulus.as_bytes()), "alice");
    admin.run("UPDATE auth.providers SET algorithms = NULL");
    app.rejected(&forged)
        .assert_stage("key", first_line::NO_KEY_FITS);
}

#[test]
fn the_issuer_is_compared_exactly_and_a_hint_says_what_comes_near() {
    let (db, issuer, mut app) = site(|row| row);
    let mut admin = db.superuser();
    let of = |iss: Value| token_with(&issuer, "alice", &json!({"iss": iss}));
    for (iss, hint) in [
        (
            "https://issuer.example/",
            "The issuer of provider \"main\" differs only by a trailing slash.",
        ),
        (
            "http://issuer.example",
            "The issuer of provider \"main\" differs only in its scheme.",
        ),
        (
            "issuer.example",
            "The issuer of provider \"main\" differs only in its scheme.",
        ),
        (
            "https://ISSUER.example",
            "Register a provider for it in auth.providers.",
        ),
        (
            "https://issuer.example.evil",
            "Register a provider for it in auth.providers.",
        ),
        ("", "Register a provider for it in auth.providers."),
    ] {
        let refusal = app.rejected(&of(json!(iss)));
        refusal.assert_stage("key", first_line::ISSUER);
        assert_eq!(
            refusal.detail,
            format!("key: no enabled provider has the issuer \"{iss}\"")
        );
        assert_eq!(refusal.hint, hint, "{iss}");
    }
    let refusal = app.rejected(&of(Value::Null));
    refusal.assert_stage("key", first_line::ISSUER);
    assert_eq!(
        refusal.detail,
        "key: no enabled provider accepts tokens without \"iss\""
    );
    // One with a slash is another one.
    admin.run("UPDATE auth.providers SET issuer = 'https://issuer.example/'");
    app.present(&of(json!("https://issuer.example/")));
    assert_eq!(
        app.rejected(&token(&issuer, "alice")).hint,
        "The issuer of provider \"main\" differs only by a trailing slash."
    );
    // Disabled, beside one that is enabled.
    admin.run(
        &Row::new("off", "https://off.example", &[&issuer])
            .with("enabled", "false")
            .insert(),
    );
    let refusal = app.rejected(&of(json!("https://off.example")));
    refusal.assert_stage("key", first_line::ISSUER);
    assert_eq!(refusal.hint, "The matching provider \"off\" is disabled.");
}

#[test]
fn a_provider_without_an_issuer_is_for_tokens_without_one() {
    let (db, with, without) = (Database::new(), Issuer::ed25519(), Issuer::ed25519());
    let mut admin = db.superuser();
    admin.register(&[&with]);
    admin.run(
        &Row::new("jobs", "x", &[&without])
            .with("issuer", "NULL")
            .insert(),
    );
    let mut app = db.app();
    app.present(&without.token_for("job"));
    app.assert_user("job");
    assert_eq!(app.text("SELECT provider FROM auth.status()"), "jobs");
    app.present(&token(&with, "alice"));
    assert_eq!(app.text("SELECT provider FROM auth.status()"), "main");
    // Neither signs for the other.
    let refusal = app.rejected(&with.token_for("job"));
    refusal.assert_stage("signature", first_line::SIGNATURE);
    assert!(
        refusal.detail.ends_with("(provider \"jobs\")"),
        "{refusal:?}"
    );
    let refusal = app.rejected(&token(&without, "alice"));
    refusal.assert_stage("signature", first_line::SIGNATURE);
    assert!(
        refusal.detail.ends_with("(provider \"main\")"),
        "{refusal:?}"
    );
}

#[test]
fn an_old_secret_lives_on_beside_new_public_keys_until_it_is_disabled() {
    let (db, secret, public) = (Database::new(), Issuer::hs256(), Issuer::es256());
    let mut admin = db.superuser();
    admin.run(&Row::new("old", ISS, &[&secret]).insert());
    let mut app = db.app();
    app.present(&token(&secret, "alice"));
    admin.run(&Row::new("new", ISS, &[&public]).insert());
    app.assert_user("alice");
    assert_eq!(app.text("SELECT provider FROM auth.status()"), "old");
    app.present(&token(&public, "alice"));
    assert_eq!(app.text("SELECT provider FROM auth.status()"), "new");
    let mut late = db.app();
    late.present(&token(&secret, "alice"));
    // Each has a policy of its own.
    admin.run("UPDATE auth.providers SET audience = '{x}' WHERE name = 'new'");
    let refusal = app.user_refused();
    refusal.assert_stage("policy", first_line::AUDIENCE);
    assert!(
        refusal.detail.ends_with("(provider \"new\")"),
        "{refusal:?}"
    );
    late.assert_user("alice");
    admin.run("UPDATE auth.providers SET enabled = (name = 'new'), audience = NULL");
    app.assert_user("alice");
    late.user_refused()
        .assert_stage("key", first_line::NO_KEY_FITS);
}

#[test]
fn every_error_of_a_token_names_its_provider() {
    let (_db, issuer, mut app) = site(|row| row);
    let kid = Issuer::ed25519().with_kid("k1");
    let claims = |more: Value| token_with(&issuer, "alice", &more);
    for (token, stage, message) in [
        (
            token(&Issuer::ed25519(), "x"),
            "signature",
            first_line::SIGNATURE,
        ),
        (token(&Issuer::es256(), "x"), "key", first_line::NO_KEY_FITS),
        (token(&Issuer::hs256(), "x"), "key", first_line::NO_KEY_FITS),
        (token(&kid, "x"), "signature", first_line::SIGNATURE),
        (claims(json!({"exp": 1})), "time", first_line::EXPIRED),
        (
            claims(json!({"nbf": now() + 900})),
            "time",
            first_line::EARLY,
        ),
        (
            claims(json!({"iat": now() + 900})),
            "time",
            first_line::EARLY,
        ),
        (claims(json!({"exp": "x"})), "payload", first_line::PAYLOAD),
        (claims(json!({"sub": 5.5})), "payload", first_line::PAYLOAD),
        (claims(json!({"exp": null})), "policy", first_line::LACKS),
    ] {
        for sql in [
            "SELECT auth.verify",
            "SELECT auth.jwt_session_init",
            "SELECT auth.login",
        ] {
            let refusal = app.refused(&format!("{sql}({})", sql_text(&token)));
            refusal.assert_stage(stage, message);
            assert!(
                refusal.detail.ends_with(" (provider \"main\")"),
                "{refusal:?}"
            );
        }
        app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&token)));
        let refusal = app.user_refused();
        refusal.assert_stage(stage, message);
        let problem = app.text("SELECT problem FROM auth.status()");
        assert_eq!(problem, format!("{message} ({})", refusal.detail));
        assert!(!problem.contains("eyJ"), "{problem}");
        app.run("SELECT auth.logout()");
    }
}

#[test]
fn status_tells_all_about_an_accepted_token() {
    let (db, issuer) = (Database::new(), Issuer::ed25519().with_kid("2026"));
    db.superuser().run(
        &Row::main(&[&issuer])
            .with("role_claim", "'{app,role}'")
            .insert(),
    );
    let mut app = db.app();
    assert_eq!(
        app.rows("SELECT source, provider, subject, problem FROM auth.status()"),
        [
            "auth.providers|NULL|NULL|No token has been presented to this session, or it was forgotten."
        ]
    );
    let exp = now() + 3600;
    app.present(&token_with(
        &issuer,
        "alice",
        &json!({"iat": now(), "exp": exp, "app": {"role": "authenticated"}}),
    ));
    assert_eq!(
        app.rows(&format!(
            "SELECT source, provider, issuer, key_id, algorithm, subject, role,
                    issued_at BETWEEN now() - interval '1 minute' AND now() + interval '1 minute',
                    expires_at = to_timestamp({exp}), problem
             FROM auth.status()"
        )),
        [format!(
            "auth.providers|main|{ISS}|2026|EdDSA|alice|authenticated|t|t|NULL"
        )]
    );
    // With no key in force the status still never raises.
    db.superuser().run("DELETE FROM auth.providers");
    assert_eq!(
        app.rows("SELECT provider, subject, problem LIKE 'no key to verify the token with%' FROM auth.status()"),
        ["NULL|NULL|t"]
    );
}
