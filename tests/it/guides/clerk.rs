//! docs/guides/clerk.md, with session tokens of both versions.

use serde_json::{Value, json};

use super::provider::CLERK;
use super::{Guide, Provider, documented, refuses_what_is_not_a_good_token, request, seen};

/// With the role that the first step has Clerk add.
fn with_role(name: &str) -> Value {
    let mut claims = documented(name);
    claims["role"] = json!("authenticated");
    claims
}

#[test]
fn the_page_is_a_path_to_the_first_authorised_row() {
    let clerk = Provider::new();
    let one =
        documented("Clerk v1, no active organization, with the database role that Supabase wants");
    let two =
        documented("Clerk v2, no active organization, with the database role that Supabase wants");
    let alice = clerk.token(&two, "user_alice");
    let guide = Guide::printed("clerk")
        .instead_of(CLERK, &clerk.url())
        .set("alice", &alice)
        .set("bob", &clerk.token(&one, "user_bob"));
    guide.play(|_, _| {});

    let mut app = guide.connect("app");
    let tasks = "SELECT name, user_id FROM tasks";
    for version in [&one, &two] {
        let token = clerk.token(version, "user_alice");
        assert_eq!(
            seen(&mut app, &token, tasks),
            ["water the plants, user_alice"]
        );
        let token = clerk.token(version, "user_carol");
        assert_eq!(seen(&mut app, &token, tasks), [""; 0]);
    }
    let theirs = "INSERT INTO tasks (name, user_id) VALUES ('x', 'user_bob')";
    let refusal = request(&mut app, Some(&alice), &[theirs]).unwrap_err();
    assert!(
        refusal
            .message
            .starts_with("new row violates row-level security policy")
    );
    // No one: as the last table of the page says.
    let refusal = request(&mut app, None, &[tasks]).unwrap_err();
    refusal.assert("42501", "permission denied for table tasks");
    refuses_what_is_not_a_good_token(&mut app, &clerk, &two);
    // A token from before the first step.
    let token = clerk.token(
        &documented("Clerk v2, no active organization"),
        "user_alice",
    );
    let refusal = request(&mut app, Some(&token), &[tasks]).unwrap_err();
    refusal.assert("28000", "JWT role is not accepted");
}

#[test]
fn organizations_are_those_of_either_version() {
    let clerk = Provider::new();
    let one = with_role("Clerk v1, active organization");
    let two = with_role("Clerk v2, the documentation's example of each claim");
    let guide = Guide::printed("clerk")
        .instead_of(CLERK, &clerk.url())
        .set("alice", &clerk.token(&two, "user_alice"))
        .set("bob", &clerk.token(&one, "user_bob"));
    guide.play(|_, _| {});
    let mut app = guide.connect("app");
    let add = "INSERT INTO invoices (amount) VALUES (1)";
    let count = "SELECT count(*) FROM invoices";
    // Admins of the same organization, by tokens of either version.
    for (number, version) in [&one, &two].into_iter().enumerate() {
        let token = clerk.token(version, "user_alice");
        let rows = request(&mut app, Some(&token), &[add, count]).unwrap();
        assert_eq!(rows, [(number + 1).to_string()]);
    }
    // Members see, and do not write; others see nothing.
    let with = |version: &Value, path: &str, value: &str| {
        let mut claims = version.clone();
        *claims.pointer_mut(path).expect("a claim") = json!(value);
        clerk.token(&claims, "user_bob")
    };
    for (version, role, member, id) in [
        (&one, "/org_role", "org:member", "/org_id"),
        (&two, "/o/rol", "member", "/o/id"),
    ] {
        let token = with(version, role, member);
        assert_eq!(seen(&mut app, &token, count), ["2"]);
        request(&mut app, Some(&token), &[add]).unwrap_err();
        assert_eq!(
            seen(&mut app, &with(version, id, "org_other"), count),
            ["0"]
        );
    }
    // The policy that the page replaces is for the first version only.
    let mut admin = guide.connect("postgres");
    admin.run("ALTER POLICY see ON invoices USING (auth.jwt() ->> 'org_id' = org_id)");
    for (version, rows) in [(&one, "2"), (&two, "0")] {
        let token = clerk.token(version, "user_alice");
        assert_eq!(seen(&mut app, &token, count), [rows]);
    }
}
