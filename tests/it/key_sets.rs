//! Key sets as issuers write them, wherever they are given: `tests/vectors/key_sets.json`, whose keys and tokens
//! another library has made (tests/vectors/generate/key_sets.py).

use harness::{Database, ISS, Refusal, Row, Session, first_line, sql_text};
use serde_json::{Value, json};

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../vectors/key_sets.json")).expect("vectors")
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().expect(member)
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().expect(member)
}

fn set(vector: &Value) -> Value {
    json!({"keys": vector["keys"]})
}

/// What was said when the set was given: nothing, or that a key is ignored.
#[track_caller]
fn check_warning(said: &[Refusal], whose: &str, vector: &Value) {
    let Some(ignored) = vector["ignored"].as_str() else {
        assert_eq!(said, [], "{}", vector["what"]);
        return;
    };
    let expected = Refusal {
        sqlstate: "01000".into(),
        message: format!("keys {whose} are ignored"),
        detail: ignored.into(),
        hint: "The other keys count. Tokens that these keys signed are rejected.".into(),
    };
    assert_eq!(said, [expected], "{}", vector["what"]);
}

/// The tokens that the keys verify, and those that no key may.
#[track_caller]
fn check_tokens(session: &mut Session, vector: &Value) {
    for good in list(vector, "good") {
        session.present(text(good, "token"));
        assert_eq!(
            session.user_id().as_deref(),
            good["sub"].as_str(),
            "{}",
            vector["what"]
        );
    }
    let before = session.value("SELECT auth.session()");
    for bad in list(vector, "bad") {
        let refusal = session.rejected(text(bad, "token"));
        println!("{}: {}", vector["what"], bad["how"]);
        let line = match text(bad, "stage") {
            "header" => first_line::HEADER,
            "key" => first_line::NO_KEY_FITS,
            "signature" => first_line::SIGNATURE,
            "payload" => first_line::PAYLOAD,
            other => panic!("{other}"),
        };
        refusal.assert_stage(text(bad, "stage"), line);
        assert!(!refusal.detail.contains("MI"), "{refusal:?}");
    }
    assert_eq!(session.value("SELECT auth.session()"), before);
}

#[test]
fn each_is_read_from_a_row_that_is_inserted_or_updated() {
    let db = Database::new();
    let (mut admin, mut app) = (db.superuser(), db.app());
    let empty = Row::main(&[&harness::Issuer::hs256()]);
    for vector in vectors() {
        let row = Row::main(&[]).jwks(&set(&vector));
        for (before, statement) in [(None, row.insert()), (Some(empty.insert()), row.update())] {
            admin.run("DELETE FROM auth.providers");
            before.into_iter().for_each(|before| admin.run(&before));
            assert_eq!(admin.said(), []);
            admin.run(&statement);
            check_warning(&admin.said(), "of provider \"main\"", &vector);
        }
        app.run("SELECT auth.logout()");
        check_tokens(&mut app, &vector);
    }
}

#[test]
fn each_is_read_from_a_startup_key() {
    let db = Database::new();
    for vector in vectors() {
        let mut app = db.app_with_jwk(&set(&vector).to_string());
        app.run("SELECT auth.init()");
        check_warning(&app.said(), "of this connection", &vector);
        check_tokens(&mut app, &vector);
    }
}

#[test]
fn each_is_read_from_what_trusted_code_pins() {
    let db = Database::new();
    for vector in vectors() {
        let mut session = db.superuser();
        let init = format!("SELECT auth.init({})", sql_text(&set(&vector).to_string()));
        session.run(&init);
        check_warning(&session.said(), "of this connection", &vector);
        check_tokens(&mut session, &vector);
        // One key alone is read as well as a set of one.
        if let [key] = list(&vector, "keys") {
            let mut session = db.superuser();
            session.run(&format!("SELECT auth.init({})", sql_text(&key.to_string())));
            check_tokens(&mut session, &vector);
        }
    }
}

/// What is ignored beside a good key is an error alone, and then says the same.
#[test]
fn a_set_of_unusable_keys_only_is_refused_wherever_it_is_given() {
    let db = Database::new();
    let mut admin = db.superuser();
    let mut count = 0;
    for vector in vectors() {
        let (Some(ignored), [bad, _]) = (vector["ignored"].as_str(), list(&vector, "keys")) else {
            continue;
        };
        count += 1;
        let alone = json!({"keys": [bad]});
        let in_row = admin.refused(&Row::new("p", ISS, &[]).jwks(&alone).insert());
        in_row.assert("22023", "invalid provider \"p\"");
        assert_eq!(in_row.detail, format!("jwks: no usable key: {ignored}"));
        let text = alone.to_string();
        let pinned = admin.refused(&format!("SELECT auth.init({})", sql_text(&text)));
        let brought = db.app_with_jwk(&text).refused("SELECT auth.init()");
        for refusal in [&pinned, &brought] {
            refusal.assert("22023", "invalid JSON Web Key Set");
            assert_eq!(refusal.detail, format!("no usable key: {ignored}"));
        }
        for refusal in [in_row, pinned, brought] {
            assert!(!refusal.hint.is_empty(), "{refusal:?}");
            assert!(!refusal.hint.to_lowercase().contains("cop"), "{refusal:?}");
        }
    }
    assert!(count > 25, "{count}");
}

/// A private key is an error where it is written, whatever is beside it and however little of it there is.
#[test]
fn a_private_key_is_refused_wherever_it_is_given() {
    let db = Database::new();
    let mut admin = db.superuser();
    admin.register(&[&harness::Issuer::hs256()]);
    let vectors = vectors();
    let good: Vec<Value> = ["RS256: padding", "ES256: padding", "EdDSA: padding"]
        .map(|what| {
            vectors
                .iter()
                .find(|vector| vector["what"] == what)
                .expect(what)["keys"][0]
                .clone()
        })
        .into();
    for (number, key) in good.iter().enumerate() {
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"] {
            for value in [json!("AA"), json!(""), json!([]), json!(7), json!(false)] {
                let mut private = key.clone();
                private[member] = value;
                let mut keys = good.clone();
                keys[number] = private;
                let detail = format!(
                    "key {}: it is a private key (it has \"{member}\")",
                    number + 1
                );
                let row = Row::main(&[]).jwks(&json!({ "keys": keys }));
                let updated = admin.refused(&row.update());
                updated.assert("22023", "invalid provider \"main\"");
                assert_eq!(updated.detail, format!("jwks: {detail}"));
                assert!(
                    updated.hint.ends_with("compromised: rotate it."),
                    "{updated:?}"
                );
            }
        }
    }
    admin.run("DELETE FROM auth.providers");
    let mut keys = good;
    keys[1]["d"] = json!("AA");
    let text = json!({ "keys": keys }).to_string();
    for refusal in [
        admin.refused(&format!("SELECT auth.init({})", sql_text(&text))),
        db.app_with_jwk(&text).refused("SELECT auth.init()"),
    ] {
        refusal.assert("22023", "invalid JSON Web Key Set");
        assert_eq!(refusal.detail, "key 2: it is a private key (it has \"d\")");
        assert!(
            refusal.hint.ends_with("compromised: rotate it."),
            "{refusal:?}"
        );
    }
}

/// 64 KiB and not one byte more, with providers, whose issuer is looked for in the payload.
#[test]
fn a_token_of_64_kib_is_read_with_a_provider_too() {
    let (db, issuer) = (Database::new(), harness::Issuer::rs256());
    db.superuser().register(&[&issuer]);
    let mut app = db.app();
    let token = |filler: usize| {
        let roles = json!({"roles": ["r".repeat(filler)]});
        harness::token_with(&issuer, "alice", &json!({"realm_access": roles}))
    };
    let (mut longest, mut over) = (String::new(), String::new());
    for filler in 48_000..50_000 {
        let token = token(filler);
        if token.len() <= 65_536 {
            longest = token;
        } else {
            over = token;
            break;
        }
    }
    assert!(longest.len() > 65_530 && over.len() > 65_536);
    app.present(&longest);
    app.assert_user("alice");
    let refusal = app.rejected(&over);
    refusal.assert_stage("structure", first_line::ENCODING);
    assert_eq!(
        refusal.detail,
        "structure: the token is longer than 65536 bytes"
    );
    app.assert_user("alice");
}
