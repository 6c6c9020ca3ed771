//! The table of verification stages: each cell rejects, with its SQLSTATE and first line, by
//! whichever way the token is presented.

use harness::{ACCESSORS, Database, Issuer, Session, b64, first_line, jwks, now, sql_text};
use serde_json::json;

/// Presents a token in each way there is, and expects the same answer.
#[track_caller]
fn assert_rejected(app: &mut Session, token: &str, stage: &str, message: &str) {
    let literal = sql_text(token);
    for sql in [
        format!("SELECT auth.verify({literal})"),
        format!("SELECT auth.jwt_session_init({literal})"),
        format!("SELECT auth.jwt_session_init({literal}, false)"),
        format!("SELECT auth.jwt_session_init({literal}, true)"),
    ] {
        app.refused(&sql).assert_stage(stage, message);
        app.assert_nobody();
    }
    // The empty text means: no token.
    if token.is_empty() {
        return;
    }
    app.run(&format!("SET pg_session_jwt.jwt = {literal}"));
    for sql in ACCESSORS {
        app.refused(sql).assert_stage(stage, message);
    }
    app.run("SELECT * FROM auth.status()");
    app.run("RESET pg_session_jwt.jwt");
    app.assert_nobody();
}

fn good_claims() -> serde_json::Value {
    json!({"sub": "alice", "exp": now() + 3600})
}

/// A correctly signed token that is exactly this long.
fn token_of_length(issuer: &Issuer, length: usize) -> String {
    for header_padding in 0..4 {
        let header = json!({"alg": issuer.alg(), "x": "x".repeat(header_padding)}).to_string();
        let token = |padding: usize| {
            let payload = json!({"sub": "alice", "x": "x".repeat(padding)}).to_string();
            issuer.sign(&header, payload)
        };
        let missing = length - token(0).len();
        for padding in (missing * 3 / 4).saturating_sub(3)..missing {
            let token = token(padding);
            match token.len().cmp(&length) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return token,
                std::cmp::Ordering::Greater => break,
            }
        }
    }
    panic!("no token of {length} bytes");
}

#[test]
fn a_token_may_have_64_kib_and_not_one_byte_more() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let largest = token_of_length(&issuer, 64 * 1024);
    app.present(&largest);
    app.assert_user("alice");
    app.run("RESET pg_session_jwt.jwt");

    let one_more = token_of_length(&issuer, 64 * 1024 + 1);
    assert_rejected(&mut app, &one_more, "structure", first_line::ENCODING);
    let huge = token_of_length(&issuer, 3 << 20);
    assert_rejected(&mut app, &huge, "structure", first_line::ENCODING);
}

#[test]
fn a_token_has_exactly_three_parts() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let good = issuer.token(&good_claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    for token in [
        "".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a".to_owned(),
        "a.b.c".to_owned(),
        "not a token".to_owned(),
        message.to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.AAAA"),
        format!("{good}.AAAA.AAAA"),
        format!("{good}....."),
    ] {
        println!("{token}");
        assert_rejected(&mut app, &token, "structure", first_line::ENCODING);
    }
}

#[test]
fn base64url_is_canonical_in_every_part() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let header = b64(br#"{"alg":"EdDSA","x":"12"}"#); // 24 bytes: no unused bits
    let unpadded = b64(br#"{"alg":"EdDSA"}"#); // 15 bytes
    let payload = b64(br#"{"sub":"alice"}"#);
    let one_over = b64(br#"{"sub":"alice" }"#); // 16 bytes: 4 unused bits in the last letter
    assert_eq!(
        one_over.chars().last(),
        Some('Q'),
        "`Q` and `R` decode to the same byte"
    );
    let unused_bits = format!("{}R", &one_over[..one_over.len() - 1]);
    let in_the_middle = |text: &str, c: &str| format!("{}{c}{}", &text[..8], &text[8..]);

    for (header, payload) in [
        // padding
        (format!("{header}="), payload.clone()),
        (header.clone(), format!("{one_over}==")),
        (header.clone(), format!("{payload}=")),
        // whitespace
        (format!(" {header}"), payload.clone()),
        (format!("{header}\n"), payload.clone()),
        (in_the_middle(&header, "\n"), payload.clone()),
        (header.clone(), in_the_middle(&payload, " ")),
        (header.clone(), format!("{payload}\t")),
        // unused bits
        (header.clone(), unused_bits),
        // a length that no bytes have
        (header.clone(), format!("{payload}A")),
        (format!("{unpadded}A"), payload.clone()),
        // letters of the other alphabet, and of none
        (header.clone(), in_the_middle(&payload, "+/+/")),
        (in_the_middle(&header, "+/+/"), payload.clone()),
        (header.clone(), in_the_middle(&payload, "ä")),
        (header.clone(), in_the_middle(&payload, "%3D%")),
    ] {
        let token = issuer.sign_parts(&header, &payload);
        println!("{token}");
        assert_rejected(&mut app, &token, "structure", first_line::ENCODING);
    }

    // 64 bytes of signature end in a letter that carries 2 bits.
    let good = issuer.token(&good_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let last = signature.chars().last().unwrap();
    let twin = char::from(last as u8 + 1);
    let shortened = &signature[..signature.len() - 1];
    for signature in [
        format!("{signature}=="),
        format!("{signature} "),
        format!("{signature}\n"),
        format!(" {signature}"),
        format!("{shortened}{twin}"),
        format!("{signature}AAA"),
        in_the_middle(signature, "+/+/"),
        format!("{signature}!"),
    ] {
        let token = format!("{message}.{signature}");
        println!("{token}");
        assert_rejected(
            &mut app,
            &token,
            "structure",
            first_line::SIGNATURE_ENCODING,
        );
    }
}

#[test]
fn the_header_is_one_plain_json_object() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"alg":"EdDSA","x":{open}{close}}}"#)
    };
    let headers: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"EdDSA\"".to_vec(),
        b"7".to_vec(),
        br#"[{"alg":"EdDSA"}]"#.to_vec(),
        br#"{"alg":"EdDSA""#.to_vec(),
        br#"{"alg":"EdDSA"} {}"#.to_vec(),
        br#"{"alg":"EdDSA",}"#.to_vec(),
        br#"{'alg':'EdDSA'}"#.to_vec(),
        // a byte order mark, a NUL, bytes that are not UTF-8
        b"\xef\xbb\xbf{\"alg\":\"EdDSA\"}".to_vec(),
        b"{\"alg\":\"EdDSA\"}\0".to_vec(),
        b"{\"alg\":\"EdDSA\",\"x\":\"\0\"}".to_vec(),
        b"{\"alg\":\"EdDSA\",\"x\":\"\xff\xfe\"}".to_vec(),
        b"{\"alg\":\"EdDSA\",\"x\":\"\xc0\xaf\"}".to_vec(),
        // text that jsonb could not hold
        br#"{"alg":"EdDSA","x":"\u0000"}"#.to_vec(),
        br#"{"alg":"EdDSA","x":"\ud800"}"#.to_vec(),
        br#"{"alg":"EdDSA","x":"\udc00\ud800"}"#.to_vec(),
        // duplicate members, spelled differently, at any depth
        br#"{"alg":"EdDSA","alg":"EdDSA"}"#.to_vec(),
        br#"{"alg":"none","alg":"EdDSA"}"#.to_vec(),
        br#"{"alg":"EdDSA","\u0061lg":"none"}"#.to_vec(),
        br#"{"alg":"EdDSA","x":{"a":1,"a":2}}"#.to_vec(),
        br#"{"alg":"EdDSA","x":[{"a":1,"\u0061":2}]}"#.to_vec(),
        // what we would have to understand, and do not
        br#"{"alg":"EdDSA","crit":["exp"],"exp":4102444800}"#.to_vec(),
        br#"{"alg":"EdDSA","crit":[]}"#.to_vec(),
        br#"{"alg":"EdDSA","crit":null}"#.to_vec(),
        br#"{"alg":"EdDSA","b64":false}"#.to_vec(),
        br#"{"alg":"EdDSA","b64":true}"#.to_vec(),
        br#"{"alg":"EdDSA","b64":false,"crit":["b64"]}"#.to_vec(),
        // nesting
        nested(9).into_bytes(),
        nested(100).into_bytes(),
        nested(5000).into_bytes(),
        format!("{}{}", r#"{"x":"#.repeat(3000), "}".repeat(3000)).into_bytes(),
    ];
    for header in headers {
        println!("{}", String::from_utf8_lossy(&header));
        let token = issuer.sign(header, good_claims().to_string());
        assert_rejected(&mut app, &token, "structure", first_line::ENCODING);
    }

    app.present(&issuer.sign(nested(7), good_claims().to_string()));
    app.assert_user("alice");
}

#[test]
fn duplicate_members_in_the_payload_are_refused_before_anybody_reads_it() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    for payload in [
        r#"{"sub":"alice","sub":"bob"}"#,
        r#"{"sub":"alice","sub":"alice"}"#,
        r#"{"sub":"alice","s\u0075b":"bob"}"#,
        r#"{"sub":"alice","o":{"id":1,"id":2}}"#,
        r#"{"sub":"alice","a":[1,{"b":{"c":1,"c":1}}]}"#,
    ] {
        println!("{payload}");
        let token = issuer.sign(r#"{"alg":"EdDSA"}"#, payload);
        assert_rejected(&mut app, &token, "structure", first_line::ENCODING);
    }
    app.present(&issuer.sign(
        r#"{"alg":"EdDSA"}"#,
        r#"{"sub":"alice","a":{"sub":1,"b":{"sub":2}}}"#,
    ));
    app.assert_user("alice");
}

#[test]
fn the_header_names_an_algorithm_and_a_type_that_we_know() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    for header in [
        json!({}),
        json!({"kid": "1"}),
        json!({"alg": null}),
        json!({"alg": 1}),
        json!({"alg": ["EdDSA"]}),
        json!({"alg": {"EdDSA": 1}}),
        json!({"alg": ""}),
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({"alg": "NONE"}),
        json!({"alg": "nOnE"}),
        json!({"alg": "eddsa"}),
        json!({"alg": "EDDSA"}),
        json!({"alg": " EdDSA"}),
        json!({"alg": "EdDSA "}),
        json!({"alg": "ES512"}),
        json!({"alg": "ES256K"}),
        json!({"alg": "HS1"}),
        json!({"alg": "RSA-OAEP"}),
        json!({"alg": "dir"}),
        json!({"alg": "EdDSA", "typ": "JWE"}),
        json!({"alg": "EdDSA", "typ": "dpop+jwt"}),
        json!({"alg": "EdDSA", "typ": "application/octet-stream"}),
        json!({"alg": "EdDSA", "typ": ""}),
        json!({"alg": "EdDSA", "typ": 7}),
        json!({"alg": "EdDSA", "typ": ["JWT"]}),
    ] {
        println!("{header}");
        let token = issuer.sign(header.to_string(), good_claims().to_string());
        assert_rejected(&mut app, &token, "header", first_line::HEADER);
    }

    // Unsecured, as RFC 7515 has it: nothing after the second dot.
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = b64(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
        let payload = b64(good_claims().to_string().as_bytes());
        let token = format!("{header}.{payload}.");
        assert_rejected(&mut app, &token, "header", first_line::HEADER);
    }

    for typ in [
        "JWT",
        "jwt",
        "at+jwt",
        "AT+JWT",
        "application/jwt",
        "application/JWT",
        "application/at+jwt",
        "JOSE",
    ] {
        println!("typ {typ}");
        let header = json!({"alg": "EdDSA", "typ": typ}).to_string();
        app.present(&issuer.sign(header, good_claims().to_string()));
        app.assert_user("alice");
    }
    for header in [
        json!({"alg": "Ed25519"}),
        json!({"alg": "EdDSA", "typ": null, "kid": null}),
    ] {
        app.present(&issuer.sign(header.to_string(), good_claims().to_string()));
        app.assert_user("alice");
    }
}

#[test]
fn keys_and_addresses_in_a_header_are_never_used() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let attacker = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    for (member, value) in [
        ("jwk", attacker.jwk()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/certificate.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        let mut header = json!({"alg": "EdDSA"});
        header[member] = value;
        let forged = attacker.sign(header.to_string(), good_claims().to_string());
        assert_rejected(&mut app, &forged, "signature", first_line::SIGNATURE);
    }
}

#[test]
fn without_any_source_of_keys_presenting_a_token_is_an_error() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let token = issuer.token(&good_claims());
    for claims_of_postgrest in [None, Some(r#"{"sub":"bob"}"#)] {
        let mut app = db.app();
        if let Some(claims) = claims_of_postgrest {
            app.run(&format!("SET request.jwt.claims = {}", sql_text(claims)));
        }
        let literal = sql_text(&token);
        for sql in [
            format!("SELECT auth.verify({literal})"),
            format!("SELECT auth.jwt_session_init({literal})"),
            format!("SELECT auth.jwt_session_init({literal}, true)"),
        ] {
            let refusal = app.refused(&sql);
            refusal.assert_stage("key", first_line::NO_KEY);
            assert!(!refusal.hint.is_empty(), "{refusal:?}");
        }
        // Nor is it a silent anonymous when the parameter is set.
        app.run(&format!("SET pg_session_jwt.jwt = {literal}"));
        app.refused("SELECT auth.user_id()")
            .assert_stage("key", first_line::NO_KEY);
    }
}

#[test]
fn a_key_fits_when_its_type_curve_use_and_operations_allow_the_algorithm() {
    let db = Database::new();
    let token_of = |issuer: &Issuer| issuer.token(&good_claims());
    let (ed, p256, p384, rsa) = (
        Issuer::ed25519(),
        Issuer::es256(),
        Issuer::es384(),
        Issuer::rs256(),
    );
    let hs = Issuer::hs256();
    // (the key that is trusted, a token that it does not fit)
    let cases = [
        (ed.jwk(), token_of(&p256)),
        (p256.jwk(), token_of(&p384)),
        (p384.jwk(), token_of(&p256)),
        (p256.jwk(), token_of(&rsa)),
        (rsa.jwk(), token_of(&hs)),
        (ed.jwk(), token_of(&hs)),
        (hs.jwk(), token_of(&ed)),
        (hs.jwk(), token_of(&rsa)),
    ];
    for (jwk, token) in cases {
        println!("{jwk}");
        let mut app = db.app_with_jwk(&jwk.to_string());
        assert_rejected(&mut app, &token, "key", first_line::NO_KEY_FITS);
    }

    // The right key, with a member that forbids this use of it.
    let anchor = Issuer::es384().with_kid("another");
    for (member, value) in [
        ("alg", json!("RS512")),
        ("alg", json!("PS256")),
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!(["encrypt", "wrapKey"])),
    ] {
        let mut jwk = rsa.jwk();
        jwk[member] = value;
        println!("{jwk}");
        let set = jwks(&[jwk, anchor.jwk()]);
        let mut app = db.app_with_jwk(&set);
        assert_rejected(&mut app, &token_of(&rsa), "key", first_line::NO_KEY_FITS);
    }

    for (member, value) in [
        ("alg", json!("RS256")),
        ("use", json!("sig")),
        ("key_ops", json!(["verify"])),
        ("key_ops", json!(["sign", "verify"])),
        ("key_ops", json!([])),
        ("key_ops", json!(null)),
        ("use", json!(null)),
        ("alg", json!(null)),
        ("kid", json!(null)),
        ("d", json!(null)),
        ("x5c", json!(null)),
    ] {
        let mut jwk = rsa.jwk();
        jwk[member] = value;
        println!("{jwk}");
        let mut app = db.app_with_jwk(&jwk.to_string());
        app.present(&token_of(&rsa));
        app.assert_user("alice");
    }
}

#[test]
fn a_kid_must_be_the_keys_unless_one_of_them_has_none() {
    let (db, key) = (Database::new(), Issuer::ed25519().with_kid("1"));
    let mut app = db.app_with_key(&key);
    let with_kid = |kid: serde_json::Value| {
        let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
        key.sign(header, good_claims().to_string())
    };
    for kid in ["2", "", "1 ", "01"] {
        let token = with_kid(json!(kid));
        assert_rejected(&mut app, &token, "key", first_line::NO_KEY_FITS);
    }
    app.present(&with_kid(json!("1")));
    app.assert_user("alice");
    let without_kid = key.sign(r#"{"alg":"EdDSA"}"#, good_claims().to_string());
    app.present(&without_kid);

    let mut jwk = key.jwk();
    jwk.as_object_mut().unwrap().remove("kid");
    let mut app = db.app_with_jwk(&jwk.to_string());
    app.present(&with_kid(json!("whatever")));
    app.assert_user("alice");
}

#[test]
fn of_several_keys_that_fit_eight_are_tried() {
    let db = Database::new();
    let issuers: Vec<Issuer> = (0..9).map(|_| Issuer::ed25519()).collect();
    let keys: Vec<_> = issuers.iter().map(Issuer::jwk).collect();

    let mut app = db.app_with_jwk(&jwks(&keys[..8]));
    for issuer in &issuers[..8] {
        app.present(&issuer.token(&good_claims()));
    }
    let stranger = issuers[8].token(&good_claims());
    app.rejected(&stranger)
        .assert_stage("signature", first_line::SIGNATURE);

    let mut app = db.app_with_jwk(&jwks(&keys));
    let accepted = issuers
        .iter()
        .filter(|issuer| {
            let token = sql_text(&issuer.token(&good_claims()));
            app.try_run(&format!("SELECT auth.verify({token})")).is_ok()
        })
        .count();
    assert_eq!(accepted, 8);
}

#[test]
fn a_signature_of_another_key_or_text_or_length_is_refused() {
    let db = Database::new();
    for (issuer, other) in [
        (Issuer::ed25519(), Issuer::ed25519()),
        (Issuer::es256(), Issuer::es256()),
        (Issuer::es384(), Issuer::es384()),
        (Issuer::rs256(), Issuer::other_rs256()),
        (Issuer::hs256(), Issuer::hs256()),
    ] {
        println!("{}", issuer.alg());
        let mut app = db.app_with_key(&issuer);
        let good = issuer.token(&good_claims());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let raw = harness::unb64(signature);
        let changed_claims = b64(json!({"sub": "bob"}).to_string().as_bytes());
        let mut flipped = raw.clone();
        flipped[0] ^= 0x80;
        for token in [
            other.token(&good_claims()),
            format!("{header}.{changed_claims}.{signature}"),
            format!("{message}.{}", b64(&flipped)),
            format!("{message}.{}", b64(&vec![0; raw.len()])),
            format!("{message}.{}", b64(&raw[1..])),
            format!("{message}.{}", b64(&raw[..raw.len() - 1])),
            format!("{message}.{}", b64(&[raw.as_slice(), &[0]].concat())),
            format!("{message}."),
        ] {
            assert_rejected(&mut app, &token, "signature", first_line::SIGNATURE);
        }
    }
}

#[test]
fn a_public_rsa_key_is_no_hmac_secret() {
    let (db, rsa) = (Database::new(), Issuer::rs256());
    let mut app = db.app_with_key(&rsa);
    let modulus = rsa.jwk()["n"].as_str().unwrap().to_owned();
    for secret in [
        rsa.jwk().to_string().into_bytes(),
        modulus.clone().into_bytes(),
        harness::unb64(&modulus),
    ] {
        let forged = Issuer::secret(&secret).token(&good_claims());
        assert_rejected(&mut app, &forged, "key", first_line::NO_KEY_FITS);
    }
}

#[test]
fn the_payload_is_an_object_whose_registered_claims_have_their_types() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let payloads: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"true".to_vec(),
        b"1".to_vec(),
        b"\"alice\"".to_vec(),
        b"[]".to_vec(),
        br#"[{"sub":"alice"}]"#.to_vec(),
        br#"{"sub":"alice""#.to_vec(),
        br#"{"sub":"alice"}x"#.to_vec(),
        br#"{"sub":"alice",}"#.to_vec(),
        b"alice".to_vec(),
        b"\xef\xbb\xbf{\"sub\":\"alice\"}".to_vec(),
        b"{\"sub\":\"alice\"}\0".to_vec(),
        b"{\"sub\":\"a\0\"}".to_vec(),
        b"{\"sub\":\"\xff\"}".to_vec(),
        b"{\"sub\":\"alice\",\"x\":\"\xed\xa0\x80\"}".to_vec(),
        br#"{"sub":"\u0000"}"#.to_vec(),
        br#"{"sub":"alice","x":{"\u0000":1}}"#.to_vec(),
        br#"{"sub":"\ud800"}"#.to_vec(),
        br#"{"sub":"alice","x":["\udfff"]}"#.to_vec(),
        br#"{"sub":"alice","x":1e400}"#.to_vec(),
        br#"{"sub":"alice","exp":1e400}"#.to_vec(),
        br#"{"sub":"alice","x":-1e400}"#.to_vec(),
        br#"{"sub":"alice","x":1e999999999999}"#.to_vec(),
        br#"{"sub":"alice","x":NaN}"#.to_vec(),
        br#"{"sub":"alice","x":Infinity}"#.to_vec(),
        br#"{"exp":"4102444800"}"#.to_vec(),
        br#"{"exp":null}"#.to_vec(),
        br#"{"exp":true}"#.to_vec(),
        br#"{"exp":[4102444800]}"#.to_vec(),
        br#"{"exp":{}}"#.to_vec(),
        br#"{"nbf":"0"}"#.to_vec(),
        br#"{"nbf":false}"#.to_vec(),
        br#"{"iat":"0"}"#.to_vec(),
        br#"{"iat":[]}"#.to_vec(),
        br#"{"iss":1}"#.to_vec(),
        br#"{"iss":["a"]}"#.to_vec(),
        br#"{"sub":1.0}"#.to_vec(),
        br#"{"sub":123456789012345678901}"#.to_vec(),
        br#"{"sub":true}"#.to_vec(),
        br#"{"sub":{"id":"alice"}}"#.to_vec(),
        br#"{"sub":["alice"]}"#.to_vec(),
        br#"{"aud":1}"#.to_vec(),
        br#"{"aud":{}}"#.to_vec(),
        br#"{"aud":["a",1]}"#.to_vec(),
        br#"{"aud":["a",null]}"#.to_vec(),
        br#"{"aud":[["a"]]}"#.to_vec(),
    ];
    for payload in payloads {
        println!("{}", String::from_utf8_lossy(&payload));
        let token = issuer.sign(r#"{"alg":"EdDSA"}"#, payload);
        assert_rejected(&mut app, &token, "payload", first_line::PAYLOAD);
    }

    for payload in [
        r#"{"sub":"alice"}"#.to_owned(),
        r#" { "sub" : "alice" } "#.to_owned(),
        r#"{"sub":"alice","aud":null,"nbf":null,"iat":null,"iss":null,"jti":null}"#.to_owned(),
        r#"{"sub":"alice","exp":4102444800.75,"nbf":0.5,"iat":-1}"#.to_owned(),
        r#"{"sub":"alice","exp":4.1024448e9}"#.to_owned(),
        r#"{"sub":"alice","aud":"one"}"#.to_owned(),
        r#"{"sub":"alice","aud":[]}"#.to_owned(),
        r#"{"sub":"alice","aud":["one","two"]}"#.to_owned(),
        r#"{"sub":"alice","x":1e300,"y":123456789012345678901234567890}"#.to_owned(),
        format!(
            r#"{{"sub":"alice","x":{}{}}}"#,
            "[".repeat(50),
            "]".repeat(50)
        ),
    ] {
        println!("{payload}");
        app.present(&issuer.sign(r#"{"alg":"EdDSA"}"#, payload));
        app.assert_user("alice");
    }
}

#[test]
fn a_payload_nested_too_deep_for_anybody_is_refused_and_harms_nobody() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = 10_000 / (open.len() + 1);
        let inner = if open == "[" { "" } else { "1" };
        let payload = format!(
            r#"{{"sub":"alice","x":{}{inner}{}}}"#,
            open.repeat(depth),
            close.repeat(depth)
        );
        let refusal = app.rejected(&issuer.sign(r#"{"alg":"EdDSA"}"#, payload));
        assert_eq!(refusal.sqlstate, "28000", "{refusal:?}");
        app.assert_nobody();
    }
}

#[test]
fn the_first_stage_that_fails_is_the_one_reported() {
    let (db, issuer) = (Database::new(), Issuer::ed25519().with_kid("1"));
    let stranger = Issuer::ed25519().with_kid("1");
    let mut app = db.app_with_key(&issuer);
    let expired = json!({"sub": "alice", "exp": 1}).to_string();
    let no_object = "[]".to_owned();
    let bad_type_and_expired = json!({"sub": [7], "exp": 1}).to_string();
    let good_header = r#"{"alg":"EdDSA","kid":"1"}"#;
    for (signer, header, payload, stage, message) in [
        // structure before header, key, signature, payload, time
        (
            &stranger,
            r#"{"alg":"none","crit":[],"kid":"2"}"#,
            &expired,
            "structure",
            first_line::ENCODING,
        ),
        // header before key
        (
            &stranger,
            r#"{"alg":"none","kid":"2"}"#,
            &expired,
            "header",
            first_line::HEADER,
        ),
        // key before signature
        (
            &stranger,
            r#"{"alg":"EdDSA","kid":"2"}"#,
            &expired,
            "key",
            first_line::NO_KEY_FITS,
        ),
        (
            &issuer,
            r#"{"alg":"EdDSA","kid":"2"}"#,
            &no_object,
            "key",
            first_line::NO_KEY_FITS,
        ),
        // signature before payload and time
        (
            &stranger,
            good_header,
            &no_object,
            "signature",
            first_line::SIGNATURE,
        ),
        (
            &stranger,
            good_header,
            &expired,
            "signature",
            first_line::SIGNATURE,
        ),
        // payload before time
        (
            &issuer,
            good_header,
            &bad_type_and_expired,
            "payload",
            first_line::PAYLOAD,
        ),
        (&issuer, good_header, &expired, "time", first_line::EXPIRED),
    ] {
        println!("{header} {payload}");
        assert_rejected(&mut app, &signer.sign(header, payload), stage, message);
    }
}

#[test]
fn null_is_no_token() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(&good_claims()));
    for sql in [
        "SELECT auth.jwt_session_init(NULL)",
        "SELECT auth.jwt_session_init(NULL, false)",
        "SELECT auth.jwt_session_init(NULL, true)",
    ] {
        app.refused(sql)
            .assert_stage("structure", first_line::ENCODING);
        app.assert_user("alice");
    }
    assert_eq!(app.value("SELECT auth.verify(NULL)"), None);
}

#[test]
fn verify_returns_the_claims_and_changes_nothing() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token(&json!({"sub": "alice", "jti": 1})));
    let bob = sql_text(&issuer.token(&json!({"sub": "bob", "n": 1.5})));
    for _ in 0..3 {
        assert_eq!(
            app.text(&format!("SELECT auth.verify({bob}) - 'exp'")),
            r#"{"n": 1.5, "sub": "bob"}"#
        );
        app.assert_user("alice");
    }
}

#[test]
fn verify_does_not_use_up_a_token_id() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let token = issuer.token(&json!({"sub": "alice", "jti": 5}));
    let literal = sql_text(&token);
    app.run(&format!("SELECT auth.verify({literal})"));
    app.run(&format!("SELECT auth.verify({literal})"));
    app.present(&token);
    app.assert_user("alice");
}

/// A generator that gives the same numbers in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn no_mutilated_token_gets_anything_but_28000() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let mut app = db.app_with_key(&issuer);
    let good = issuer.token(&json!({"sub": "alice", "exp": now() + 3600, "o": {"id": [1, null]}}));
    let alphabet: Vec<char> = "AZaz09-_.=+/ \n\"{}[],:\\\u{1}é\u{1F600}".chars().collect();
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for round in 0..3000 {
        let mut token: Vec<char> = good.chars().collect();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(token.len().max(1));
            if token.is_empty() {
                break;
            }
            match numbers.below(4) {
                0 => drop(token.remove(at)),
                1 => token.insert(at, alphabet[numbers.below(alphabet.len())]),
                2 => token[at] = alphabet[numbers.below(alphabet.len())],
                _ => token.truncate(at.max(1)),
            }
        }
        let token: String = token.into_iter().collect();
        if token == good {
            continue;
        }
        let refusal = app.rejected(&token);
        assert_eq!(
            refusal.sqlstate, "28000",
            "round {round}: {token}: {refusal:?}"
        );
    }
    app.assert_nobody();
}

#[test]
fn no_mutilated_json_gets_anything_but_28000_when_it_is_signed() {
    let (db, issuer) = (Database::new(), Issuer::hs256());
    let mut app = db.app_with_key(&issuer);
    let header = br#"{"alg":"HS256","typ":"JWT","kid":"a"}"#;
    let payload = br#"{"sub":"alice","exp":4102444800,"aud":["a"],"o":{"id":"x","n":-1.5e3}}"#;
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let mut accepted = 0;
    for round in 0..3000 {
        let (mut header, mut payload) = (header.to_vec(), payload.to_vec());
        let part = if numbers.below(2) == 0 {
            &mut header
        } else {
            &mut payload
        };
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(part.len());
            match numbers.below(3) {
                0 => drop(part.remove(at)),
                1 => part.insert(at, u8::try_from(numbers.below(256)).unwrap()),
                _ => part[at] = br#"0{}[]",:\eE-+."#[numbers.below(14)],
            }
        }
        let token = issuer.sign(&header, &payload);
        match app.try_run(&format!("SELECT auth.verify({})", sql_text(&token))) {
            Ok(()) => accepted += 1,
            Err(refusal) => assert_eq!(
                refusal.sqlstate,
                "28000",
                "round {round}: {} {}: {refusal:?}",
                String::from_utf8_lossy(&header),
                String::from_utf8_lossy(&payload)
            ),
        }
    }
    assert!(
        accepted > 0,
        "some mutilations only change a letter of a name"
    );
}
