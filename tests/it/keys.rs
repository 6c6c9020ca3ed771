//! Keys that are configured wrongly are an error where they are configured.

use harness::{Database, Issuer, Session, b64, first_line, jwks, rfc_examples, sql_text};
use serde_json::{Value, json};

#[track_caller]
fn assert_wrong(db: &Database, jwk: &str) {
    println!("{jwk:.200}");
    let mut sessions: Vec<(Session, String)> = vec![];
    if jwk.len() < 9000 && !jwk.is_empty() {
        sessions.push((db.app_with_jwk(jwk), "SELECT auth.init()".into()));
    }
    sessions.push((
        db.superuser(),
        format!("SELECT auth.init({})", sql_text(jwk)),
    ));
    for (mut session, sql) in sessions {
        let refusal = session.refused(&sql);
        refusal.assert("22023", "invalid JSON Web Key Set");
        assert!(!refusal.detail.is_empty(), "{refusal:?}");
    }
}

fn without(mut jwk: Value, member: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(member);
    jwk
}

fn with(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

#[test]
fn what_is_no_key_at_all_is_refused() {
    let db = Database::new();
    for text in [
        "",
        " ",
        "x",
        "1",
        "null",
        "[]",
        "{}",
        "\"\"",
        "{\"keys\":{}}",
        "{\"keys\":null}",
        "{\"keys\":[]}",
        "{\"keys\":[1]}",
        "{\"keys\":[null]}",
        "{\"keys\":[{}]}",
        "{\"kty\":1}",
    ] {
        assert_wrong(&db, text);
    }
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    assert_wrong(&db, &deep);
    assert_wrong(&db, &format!("{{\"keys\":{deep}}}"));
    assert_wrong(&db, r#"{"kty":"oct","k":"\u0000"}"#);
    db.superuser()
        .refused("SELECT auth.init(NULL)")
        .assert("22023", "invalid JSON Web Key Set");
}

#[test]
fn a_malformed_key_is_refused_alone_and_ignored_beside_a_good_one() {
    let db = Database::new();
    let good = Issuer::ed25519().with_kid("good");
    let (ed, p256, p384, rsa, hs) = (
        Issuer::ed25519().jwk(),
        Issuer::es256().jwk(),
        Issuer::es384().jwk(),
        Issuer::rs256().jwk(),
        Issuer::hs256().jwk(),
    );
    for jwk in [
        without(ed.clone(), "kty"),
        without(ed.clone(), "crv"),
        without(ed.clone(), "x"),
        with(ed.clone(), "x", json!(b64(&[1; 31]))),
        with(ed.clone(), "x", json!(b64(&[1; 33]))),
        with(ed.clone(), "x", json!("!")),
        with(ed.clone(), "x", json!(7)),
        with(ed.clone(), "crv", json!("X25519")),
        with(ed.clone(), "crv", json!("Ed448")),
        with(ed.clone(), "kty", json!("okp")),
        with(ed.clone(), "alg", json!("RS256")),
        with(ed.clone(), "kid", json!(1)),
        with(ed.clone(), "use", json!("enc")),
        with(ed.clone(), "key_ops", json!(["sign"])),
        without(p256.clone(), "x"),
        without(p256.clone(), "y"),
        with(p256.clone(), "y", json!(b64(&[0; 31]))),
        with(p256.clone(), "y", json!("")),
        with(p256.clone(), "crv", json!("secp256k1")),
        with(p256.clone(), "crv", json!("P-384")),
        with(p384.clone(), "crv", json!("P-256")),
        rfc_examples()[3]["jwk"].clone(),
        without(rsa.clone(), "n"),
        without(rsa.clone(), "e"),
        with(rsa.clone(), "n", json!("")),
        with(rsa.clone(), "e", json!(b64(&[]))),
        without(hs.clone(), "k"),
        with(hs.clone(), "k", json!("")),
        with(hs.clone(), "k", json!("not base64url!")),
    ] {
        assert_wrong(&db, &jwk.to_string());
        assert_wrong(&db, &jwks(std::slice::from_ref(&jwk)));
        let set = jwks(&[jwk, good.jwk()]);
        let mut app = db.app_with_jwk(&set);
        app.run("SELECT auth.init()");
        let warning = "WARNING: keys of this connection are ignored";
        assert_eq!(app.notices(), [warning], "{set}");
        app.present(&good.token_for("alice"));
        app.assert_user("alice");
    }
}

#[test]
fn a_private_key_is_refused() {
    let db = Database::new();
    for issuer in [Issuer::ed25519(), Issuer::es256(), Issuer::rs256()] {
        let private = with(issuer.jwk(), "d", json!(b64(&[7; 32])));
        assert_wrong(&db, &private.to_string());
        // Also beside a good one, where it could be skipped.
        let good = Issuer::ed25519().with_kid("good").jwk();
        assert_wrong(&db, &jwks(&[good, with(private, "kid", json!("private"))]));
    }
}

#[test]
fn rsa_keys_have_2048_to_8192_bits() {
    let db = Database::new();
    let modulus = |bits: usize| {
        // The highest bit is set, and it is odd.
        let mut bytes = vec![0xa5; bits.div_ceil(8)];
        if !bits.is_multiple_of(8) {
            bytes[0] = 1 << (bits % 8 - 1);
        }
        json!({"kty": "RSA", "e": "AQAB", "n": b64(&bytes)})
    };
    for bits in [512, 1024, 2040, 2047, 8193, 8200, 16384] {
        assert_wrong(&db, &modulus(bits).to_string());
    }
    for bits in [2048, 3072, 4096, 8192] {
        let mut session = db.superuser();
        session.run(&format!(
            "SELECT auth.init({})",
            sql_text(&modulus(bits).to_string())
        ));
    }
    // A leading zero byte, as some write a number that would otherwise look negative, adds no bits.
    let n = Issuer::rs256().jwk()["n"].as_str().unwrap().to_owned();
    let padded = |bytes: &[u8]| b64(&[vec![0], bytes.to_vec()].concat());
    let jwk = json!({"kty": "RSA", "e": "AQAB", "n": padded(&harness::unb64(&n))});
    let mut app = db.app_with_jwk(&jwk.to_string());
    app.present(&Issuer::rs256().token_for("alice"));
    app.assert_user("alice");
    let short = padded(&[0xa5; 255]);
    assert_wrong(
        &db,
        &json!({"kty": "RSA", "e": "AQAB", "n": short}).to_string(),
    );
}

#[test]
fn a_key_of_1024_bits_verifies_nothing_beside_a_good_one_either() {
    let (db, good) = (Database::new(), Issuer::rs256().with_kid("good"));
    let weak = json!({"kty": "RSA", "e": "AQAB", "kid": "weak", "n": b64(&[0xa5; 128])});
    let mut app = db.app_with_jwk(&jwks(&[weak, good.jwk()]));
    app.present(&good.token_for("alice"));
    app.rejected(&Issuer::rs256().with_kid("weak").token_for("bob"))
        .assert_stage("key", first_line::NO_KEY_FITS);
    app.assert_user("alice");
}

#[test]
fn a_secret_is_at_least_as_long_as_the_hash() {
    let db = Database::new();
    let secret = |bytes: usize, alg: Option<&str>| {
        let mut jwk = json!({"kty": "oct", "k": b64(&vec![7; bytes])});
        if let Some(alg) = alg {
            jwk["alg"] = json!(alg);
        }
        jwk.to_string()
    };
    for (bytes, alg) in [
        (31, None),
        (31, Some("HS256")),
        (47, Some("HS384")),
        (63, Some("HS512")),
    ] {
        assert_wrong(&db, &secret(bytes, alg));
    }
    for (bytes, alg) in [
        (32, None),
        (32, Some("HS256")),
        (48, Some("HS384")),
        (64, Some("HS512")),
    ] {
        db.app_with_jwk(&secret(bytes, alg))
            .run("SELECT auth.init()");
    }
    // One that is long enough for HS256 does not fit a token with HS512.
    let mut app = db.app_with_jwk(&secret(32, None));
    let token = Issuer::secret(&[7; 32]).sign(r#"{"alg":"HS512"}"#, r#"{"sub":"alice"}"#);
    app.rejected(&token)
        .assert_stage("key", first_line::NO_KEY_FITS);
}

#[test]
fn keys_may_share_a_kid_and_secrets_a_set_with_public_keys() {
    let db = Database::new();
    let issuers = [
        Issuer::ed25519().with_kid("1"),
        Issuer::ed25519().with_kid("1"),
        Issuer::es256().with_kid("1"),
        Issuer::rs256().with_kid("1"),
        Issuer::other_rs256().with_kid("1"),
        Issuer::hs256().with_kid("1"),
        Issuer::hs256(),
    ];
    let mut keys: Vec<_> = issuers.iter().map(Issuer::jwk).collect();
    keys.push(keys[0].clone());
    let mut app = db.app_with_jwk(&jwks(&keys));
    app.run("SELECT auth.init()");
    assert_eq!(app.notices(), [""; 0]);
    for issuer in &issuers {
        app.present(&issuer.token_for("alice"));
        app.assert_user("alice");
        app.rejected(&issuer.token_for("bob").replace(".eyJ", ".eyI"));
    }
    // What is public is no secret: neither the bytes of a key nor its text signs anything.
    for public in &issuers[..5] {
        let jwk = public.jwk();
        for member in ["x", "n"] {
            let Some(text) = jwk.get(member).and_then(|value| value.as_str()) else {
                continue;
            };
            for secret in [
                text.as_bytes().to_vec(),
                harness::unb64(text),
                jwk.to_string().into(),
            ] {
                app.rejected(&Issuer::secret(&secret).with_kid("1").token_for("bob"))
                    .assert_stage("signature", first_line::SIGNATURE);
            }
        }
    }
}

#[test]
fn a_set_must_not_contradict_itself() {
    let db = Database::new();
    let key = |kid: &str| Issuer::ed25519().with_kid(kid).jwk();
    assert_wrong(&db, r#"{"keys":[],"keys":[]}"#);
    let (x, y) = (key("1"), key("1"));
    let twice = format!(
        r#"{{"kty":"OKP","crv":"Ed25519","x":{},"x":{}}}"#,
        x["x"], y["x"]
    );
    assert_wrong(&db, &twice);
}

#[test]
fn keys_that_we_cannot_use_are_skipped_beside_one_that_we_can() {
    let (db, issuer) = (Database::new(), Issuer::ed25519().with_kid("good"));
    let set = jwks(&[
        json!({"kty": "OKP", "crv": "X25519", "x": b64(&[9; 32]), "kid": "agreement"}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "later"}),
        rfc_examples()[3]["jwk"].clone(),
        with(Issuer::rs256().jwk(), "use", json!("enc")),
        issuer.jwk(),
    ]);
    let mut app = db.app_with_jwk(&set);
    app.run("SELECT auth.init()");
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");
    app.rejected(&Issuer::rs256().token_for("bob"))
        .assert_stage("key", first_line::NO_KEY_FITS);
}

#[test]
fn members_that_others_add_to_keys_and_sets_do_no_harm() {
    let (db, issuer) = (Database::new(), Issuer::rs256());
    let mut jwk = issuer.with_kid("1").jwk();
    jwk["x5c"] = json!(["MIIB"]);
    jwk["x5t"] = json!("abc");
    jwk["x5t#S256"] = json!("abc");
    jwk["use"] = json!("sig");
    jwk["alg"] = json!("RS256");
    let set = json!({"keys": [jwk], "expires": 7}).to_string();
    let mut app = db.app_with_jwk(&set);
    app.run("SELECT auth.init()");
    let token = Issuer::rs256().with_kid("1").token_for("alice");
    app.present(&token);
    app.assert_user("alice");
}

#[test]
fn an_rsa_exponent_that_makes_forging_easy_never_verifies_anything() {
    let db = Database::new();
    let n = Issuer::rs256().jwk()["n"].clone();
    for e in ["AA", "AQ", "Ag", "BA"] {
        println!("e = {e}");
        let jwk = json!({"kty": "RSA", "n": n, "e": e}).to_string();
        let mut app = db.app_with_jwk(&jwk);
        let token = Issuer::rs256().token_for("alice");
        let refusal = app.rejected(&token);
        assert!(
            ["22023", "28000"].contains(&refusal.sqlstate.as_str()),
            "{refusal:?}"
        );
    }
}

#[test]
fn no_mutilated_key_set_gets_anything_but_22023() {
    let db = Database::new();
    let good = jwks(&[
        Issuer::ed25519().with_kid("1").with("use", "sig").jwk(),
        Issuer::es256()
            .with_kid("2")
            .with("key_ops", vec!["verify"])
            .jwk(),
    ]);
    let mut session = db.superuser();
    for at in 0..good.len() {
        for replacement in ["", "\\", "\"", "{", "]", ",", ":", "0", "=", "\u{1}", "é"] {
            let set = format!("{}{replacement}{}", &good[..at], &good[at + 1..]);
            match session.try_run(&format!("SELECT auth.init({})", sql_text(&set))) {
                Err(refusal) => refusal.assert("22023", "invalid JSON Web Key Set"),
                // Still keys: this session is bound to them.
                Ok(_) => session = db.superuser(),
            }
        }
    }
}
