//! docs/guides/clerk-neon.md; its Drizzle is played in tests/clients.

use super::provider::CLERK;
use super::{Guide, Provider, documented, refuses_what_is_not_a_good_token, request, seen};

#[test]
fn the_page_is_a_path_to_the_first_authorised_row() {
    let clerk = Provider::named(CLERK);
    // As they come: no role.
    let session = documented("Clerk v2, no active organization");
    let alice = clerk.token(&session, "user_alice");
    let bob = clerk.token(&session, "user_bob");
    let guide = Guide::printed("clerk-neon")
        .instead_of(&format!("{CLERK}/.well-known/jwks.json"), &clerk.jwks_url())
        .set("alice", &alice)
        .set("bob", &bob);
    guide.play(|_, _| {});

    let mut app = guide.connect("app");
    let todos = "SELECT task, user_id, is_complete FROM todos";
    let query = "select task from todos where user_id = auth.user_id()";
    assert!(guide.markdown.contains(&query.replace("task", "*")));
    assert_eq!(
        seen(&mut app, &alice, todos),
        ["water the plants, user_alice, f"]
    );
    assert_eq!(seen(&mut app, &alice, query), ["water the plants"]);
    for nothing in [todos, query] {
        assert_eq!(seen(&mut app, &bob, nothing), [""; 0]);
        assert_eq!(request(&mut app, None, &[nothing]).unwrap(), [""; 0]);
    }
    // Each of the four policies.
    let change = "UPDATE todos SET is_complete = true RETURNING task";
    assert_eq!(seen(&mut app, &alice, change), ["water the plants"]);
    for (other, denied) in [
        (change, ""),
        ("DELETE FROM todos RETURNING task", ""),
        (
            "INSERT INTO todos (task, user_id) VALUES ('x', 'user_alice')",
            "42501",
        ),
    ] {
        let outcome = request(&mut app, Some(&bob), &[other]);
        match denied {
            "" => assert_eq!(outcome.unwrap(), [""; 0]),
            _ => assert_eq!(outcome.unwrap_err().sqlstate, denied),
        }
    }
    let give = "UPDATE todos SET user_id = 'user_bob'";
    assert_eq!(
        request(&mut app, Some(&alice), &[give])
            .unwrap_err()
            .sqlstate,
        "42501"
    );
    let nobodys = "INSERT INTO todos (task, user_id) VALUES ('x', 'user_alice')";
    assert_eq!(
        request(&mut app, None, &[nobodys]).unwrap_err().sqlstate,
        "42501"
    );
    assert_eq!(
        seen(&mut app, &alice, "DELETE FROM todos RETURNING task"),
        ["water the plants"]
    );
    refuses_what_is_not_a_good_token(&mut app, &clerk, &session);
}
