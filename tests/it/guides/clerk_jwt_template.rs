//! docs/guides/clerk-jwt-template.md: the secret, the function as it is, then without either.

use harness::{Issuer, Session, first_line, now};
use serde_json::{Value, json};

use super::provider::CLERK;
use super::{Guide, Provider, documented, refuses_what_is_not_a_good_token, request, seen};

/// As long as Supabase's: in base64 it has a line end.
const SECRET: &str =
    "kq0hQ7sLx1Jd8rQ2mT5uV9wY3zB6cE0fG4iK7nP1oR5tU8xA2bD6eF9hJ3kM7pS0vW4yZ8aC1dG5jL9nQ2sT6w==";

const TASKS: &str = "SELECT name, user_id FROM tasks";

#[track_caller]
fn refused(app: &mut Session, token: &str, line: &str) {
    let refusal = request(app, Some(token), &[TASKS]).unwrap_err();
    refusal.assert("28000", line);
}

#[test]
fn the_page_is_a_path_to_the_first_authorised_row_and_away_from_the_secret() {
    let clerk = Provider::new();
    let secret = Issuer::secret(SECRET.as_bytes());
    let template = documented("Clerk v1 by a JWT template, which leaves out sid");
    let session =
        documented("Clerk v2, no active organization, with the database role that Supabase wants");
    let by_template = |user: &str| secret.token(&clerk.claims(&template, user));
    let guide = Guide::printed("clerk-jwt-template")
        .instead_of(CLERK, &clerk.url())
        .set("secret", SECRET)
        .set("alice", &by_template("user_alice"))
        .set("bob", &by_template("user_bob"));
    let hers = ["water the plants, user_alice"];
    let mut steps = 0;
    guide.play(|block, admin| {
        let app = || guide.connect("app");
        let is_hers = |app: &mut Session, token: &str| {
            assert_eq!(seen(app, token, TASKS), hers);
        };
        if block.sql.contains("RESET SESSION AUTHORIZATION") {
            steps += 1;
            let mut app = app();
            is_hers(&mut app, &by_template("user_alice"));
            assert_eq!(seen(&mut app, &by_template("user_carol"), TASKS), [""; 0]);
            request(&mut app, None, &[TASKS]).unwrap_err();
            let with = |name: &str, value: Value| {
                let mut claims = clerk.claims(&template, "user_alice");
                claims[name] = value;
                secret.token(&claims)
            };
            refused(
                &mut app,
                &with("exp", json!(now() - 61)),
                first_line::EXPIRED,
            );
            refused(&mut app, &with("aud", json!("other")), first_line::AUDIENCE);
            refused(
                &mut app,
                &with("role", json!("service_role")),
                first_line::ROLE,
            );
            let forger = Issuer::hs256();
            let forged = forger.token(&clerk.claims(&template, "user_alice"));
            refused(&mut app, &forged, first_line::SIGNATURE);
            // Not yet.
            refused(
                &mut app,
                &clerk.token(&session, "user_alice"),
                first_line::NO_KEY_FITS,
            );
            // The page's promise: whatever is written, as whatever role.
            for setting in ["request.jwt.claims", "request.jwt.claim.sub"] {
                app.run(&format!("SET {setting} = '{{\"sub\":\"user_alice\"}}'"));
            }
            app.run("SET ROLE authenticated");
            assert_eq!(app.rows(TASKS), [""; 0]);
        } else if block.sql.contains("'{RS256}'") {
            steps += 1;
            // Both, and the function as it is now needs no setting.
            admin.run("SET pg_session_jwt.request_claims = fallback");
            let mut app = app();
            is_hers(&mut app, &by_template("user_alice"));
            is_hers(&mut app, &clerk.token(&session, "user_alice"));
        }
    });
    assert_eq!(steps, 2);
    let mut app = guide.connect("app");
    assert_eq!(
        seen(&mut app, &clerk.token(&session, "user_alice"), TASKS),
        hers
    );
    refused(
        &mut app,
        &by_template("user_alice"),
        first_line::NO_KEY_FITS,
    );
    refuses_what_is_not_a_good_token(&mut app, &clerk, &session);
}
