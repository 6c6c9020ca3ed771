//! Tokens that our code did not sign.

use harness::{Database, first_line, rfc_examples, tokens_of_other_libraries};

#[test]
fn tokens_of_two_other_libraries_are_accepted_and_their_tampered_forms_are_not() {
    let db = Database::new();
    let vectors = tokens_of_other_libraries();
    assert_eq!(vectors.len(), 2 * 12, "two libraries, 12 algorithms");
    for vector in vectors {
        let mut app = db.app_with_jwk(&vector["jwk"].to_string());
        let name = format!("{} by {}", vector["alg"], vector["library"]);

        for tampered in vector["tampered"].as_array().unwrap() {
            println!("{name}: {}", tampered["how"]);
            app.rejected(tampered["token"].as_str().unwrap())
                .assert_stage("signature", first_line::SIGNATURE);
            app.assert_nobody();
        }

        println!("{name}");
        app.present(vector["token"].as_str().unwrap());
        let claims = app.text("SELECT auth.session()");
        let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
        assert_eq!(claims, vector["claims"]);
    }
}

#[test]
fn a_key_set_of_every_public_algorithm_verifies_the_tokens_of_each() {
    let db = Database::new();
    let vectors: Vec<_> = tokens_of_other_libraries()
        .into_iter()
        .filter(|v| v["library"] == "jose" && v["jwk"]["kty"] != "oct")
        .collect();
    let keys: Vec<_> = vectors.iter().map(|v| v["jwk"].clone()).collect();
    let mut app = db.app_with_jwk(&harness::jwks(&keys));
    for vector in vectors {
        app.present(vector["token"].as_str().unwrap());
        app.assert_user(vector["claims"]["sub"].as_str().unwrap());
    }
}

#[test]
fn the_examples_of_rfc_7515_and_rfc_8037_come_as_far_as_they_should() {
    let db = Database::new();
    // An unsecured token, and one whose algorithm we do not know, fail before any key is looked for.
    let any_key = rfc_examples()[0]["jwk"].clone();
    for example in rfc_examples() {
        println!("{}", example["source"]);
        let header_is_refused = example["outcome"] == "header";
        let jwk = if header_is_refused {
            &any_key
        } else {
            &example["jwk"]
        };
        let mut app = db.app_with_jwk(&jwk.to_string());
        let (stage, message) = match example["outcome"].as_str().unwrap() {
            "expired" => ("time", first_line::EXPIRED),
            "payload" => ("payload", first_line::PAYLOAD),
            "header" => ("header", first_line::HEADER),
            other => panic!("unknown outcome {other}"),
        };
        app.rejected(example["token"].as_str().unwrap())
            .assert_stage(stage, message);
        app.assert_nobody();
    }
}

#[test]
fn the_signatures_of_the_rfc_examples_count_not_only_their_dates() {
    let db = Database::new();
    for example in rfc_examples() {
        if example["outcome"] == "header" {
            continue;
        }
        let mut app = db.app_with_jwk(&example["jwk"].to_string());
        let token = example["token"].as_str().unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut signature = harness::unb64(signature);
        signature[7] ^= 4;
        let forged = format!("{message}.{}", harness::b64(&signature));
        app.rejected(&forged)
            .assert_stage("signature", first_line::SIGNATURE);
    }
}

#[test]
fn a_key_on_a_curve_that_we_do_not_know_is_no_usable_key() {
    let db = Database::new();
    let p521 = rfc_examples()[3]["jwk"].to_string();
    db.app_with_jwk(&p521)
        .refused("SELECT auth.init()")
        .assert("22023", "invalid JSON Web Key Set");
}
