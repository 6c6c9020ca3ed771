//! docs/guides/pooling.md; its JavaScript and Python, through PgBouncer, are played in tests/clients.

use super::provider::CLERK;
use super::{Guide, Provider, documented, refuses_what_is_not_a_good_token, request, seen};

#[test]
fn the_page_is_a_path_to_the_first_authorised_row() {
    let clerk = Provider::new();
    let session = documented("Clerk v2, no active organization");
    let token = |user| clerk.token(&session, user);
    let guide = Guide::printed("pooling")
        .instead_of(CLERK, &clerk.url())
        .set("alice", &token("user_alice"))
        .set("bob", &token("user_bob"));
    guide.play(|_, _| {});

    let mut app = guide.connect("app");
    let todos = "SELECT task FROM todos";
    for _ in 0..3 {
        assert_eq!(
            seen(&mut app, &token("user_alice"), todos),
            ["water the plants"]
        );
        assert_eq!(seen(&mut app, &token("user_bob"), todos), [""; 0]);
        for token in [None, Some(token("user_alice"))] {
            let statements: &[&str] = if token.is_some() {
                &["SELECT 1 / 0"]
            } else {
                &[todos]
            };
            request(&mut app, token.as_deref(), statements).unwrap_err();
            app.assert_nobody();
            assert_eq!(app.text("SELECT current_user"), "app");
            app.refused(todos)
                .assert("42501", "permission denied for table todos");
        }
    }
    refuses_what_is_not_a_good_token(&mut app, &clerk, &session);
}
