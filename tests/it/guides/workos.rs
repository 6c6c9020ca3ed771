//! docs/guides/workos.md, with the JWT template and without it.

use serde_json::json;

use super::{Guide, Provider, documented, refuses_what_is_not_a_good_token, request, seen};

#[test]
fn the_page_is_a_path_to_the_first_authorised_row() {
    let workos = Provider::named("https://api.workos.com/user_management/client_123456789");
    let alices = documented("WorkOS, JWT template that moves the role to user_role");
    let mut bobs = alices.clone();
    bobs["org_id"] = json!("org_of_bob");
    let alice = workos.token(&alices, "user_alice");
    let guide = Guide::printed("workos")
        .instead_of(
            "https://api.workos.com/sso/jwks/client_123456789",
            &workos.jwks_url(),
        )
        .set("alice", &alice)
        .set("bob", &workos.token(&bobs, "user_bob"));
    guide.play(|_, _| {});

    let mut app = guide.connect("app");
    let posts = "SELECT title, author FROM posts";
    let add = "INSERT INTO posts (title) VALUES ('x')";
    let clean = "DELETE FROM posts RETURNING title";
    assert_eq!(
        seen(
            &mut app,
            &alice,
            "SELECT auth.jwt() ->> 'user_role', auth.role()"
        ),
        ["admin, authenticated"]
    );
    // Another member of the organization, without the permission, and who is no admin.
    let mut member = alices.clone();
    member["user_role"] = json!("member");
    member["permissions"] = json!(["posts:read"]);
    let carol = workos.token(&member, "user_carol");
    assert_eq!(seen(&mut app, &carol, posts), ["hello, user_alice"]);
    assert_eq!(
        request(&mut app, Some(&carol), &[add])
            .unwrap_err()
            .sqlstate,
        "42501"
    );
    assert_eq!(seen(&mut app, &carol, clean), [""; 0]);
    // Nobody's organization.
    let none = documented("WorkOS, no organization selected, JWT template");
    assert_eq!(
        seen(&mut app, &workos.token(&none, "user_dan"), posts),
        [""; 0]
    );
    request(&mut app, None, &[posts])
        .unwrap_err()
        .assert("42501", "permission denied for table posts");
    refuses_what_is_not_a_good_token(&mut app, &workos, &alices);

    // Without the template.
    let mut plain = alices;
    plain["role"] = plain["user_role"].take();
    let plain = workos.token(&plain, "user_alice");
    let refusal = request(&mut app, Some(&plain), &[posts]).unwrap_err();
    refusal.assert("28000", "JWT role is not accepted");
    assert!(refusal.detail.contains("admin"), "{refusal:?}");
    let mut admin = guide.connect("postgres");
    admin.run("UPDATE auth.providers SET default_role = 'authenticated'");
    for token in [&plain, &alice] {
        assert_eq!(
            seen(&mut app, token, "SELECT current_user, auth.org_role()"),
            ["authenticated, admin"]
        );
    }
    assert_eq!(seen(&mut app, &plain, clean), ["hello"]);
}
