//! docs/guides/moving-over.md.

use harness::sql_text;
use serde_json::{Value, json};

use super::provider::CLERK;
use super::{Guide, Provider, documented, refuses_what_is_not_a_good_token, request, seen};

const SUPABASE: &str = "https://abcdefghijklmnopqrst.supabase.co/auth/v1";
const ALICE: &str = "11111111-1111-4111-8111-111111111111";
const BOB: &str = "22222222-2222-4222-8222-222222222222";

/// Supabase's claims of this user.
fn supabase(email: &str) -> Value {
    let mut claims = documented("Supabase, no organization");
    claims["email"] = json!(email);
    claims
}

/// Hasura's, as its documentation has them.
fn hasura(user: &str, role: &str) -> Value {
    json!({
        "iat": 1,
        "https://hasura.io/jwt/claims": {
            "x-hasura-default-role": role,
            "x-hasura-allowed-roles": ["user", "admin"],
            "x-hasura-user-id": user,
        },
    })
}

#[test]
fn the_page_is_a_path_to_the_first_authorised_row() {
    let (theirs, other) = (Provider::named(SUPABASE), Provider::new());
    let alice = theirs.token(&supabase("alice@example.com"), ALICE);
    let bob = theirs.token(&supabase("bob@example.com"), BOB);
    let carol = other.token(&hasura("carol-1", "user"), "carol");
    let guide = Guide::printed("moving-over")
        .instead_of(
            &format!("{SUPABASE}/.well-known/jwks.json"),
            &theirs.jwks_url(),
        )
        .instead_of(CLERK, &other.url())
        .set("alice", &alice)
        .set("bob", &bob)
        .set("carol", &carol);
    guide.play(|_, _| {});

    let mut app = guide.connect("app");
    let profiles = "SELECT bio FROM profiles";
    assert_eq!(seen(&mut app, &alice, profiles), ["gardener"]);
    assert_eq!(seen(&mut app, &bob, profiles), [""; 0]);
    assert_eq!(
        request(&mut app, None, &["SELECT current_user, auth.jwt()"]).unwrap(),
        ["anon, null"]
    );
    let mut service = supabase("x");
    service["role"] = json!("service_role");
    let service = theirs.token(&service, ALICE);
    let refusal = request(&mut app, Some(&service), &[profiles]).unwrap_err();
    refusal.assert("28000", "JWT role is not accepted");
    refuses_what_is_not_a_good_token(&mut app, &theirs, &supabase("x"));

    let notes = "SELECT note FROM notes";
    assert_eq!(seen(&mut app, &carol, notes), ["mine"]);
    assert_eq!(
        seen(
            &mut app,
            &other.token(&hasura("dan-2", "user"), "dan"),
            notes
        ),
        [""; 0]
    );
    let admin = other.token(&hasura("carol-1", "admin"), "carol");
    let refusal = request(&mut app, Some(&admin), &[notes]).unwrap_err();
    refusal.assert("28000", "JWT role is not accepted");
    // What any SQL could set before.
    app.run("SET \"hasura.user\" = '{\"x-hasura-user-id\": \"carol-1\"}'");
    assert_eq!(
        app.value("SELECT session_variable('x-hasura-user-id')"),
        None
    );
}

#[test]
fn policies_of_a_whole_supabase_database_go_on() {
    let theirs = Provider::named(SUPABASE);
    let guide = Guide::printed("moving-over");
    let mut admin = guide.connect("postgres");
    // The functions as Supabase defines them, and policies that were made with them.
    admin.run(
        "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN;
         CREATE ROLE app LOGIN NOINHERIT IN ROLE anon, authenticated;
         CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO PUBLIC;
         CREATE TABLE auth.users (id uuid PRIMARY KEY);
         CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
             select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                 (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid $$;
         CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
             select coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                 (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'))::text $$;
         CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$
             select coalesce(nullif(current_setting('request.jwt.claim.email', true), ''),
                 (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'))::text $$;
         CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
             select coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                 nullif(current_setting('request.jwt.claims', true), ''))::jsonb $$;
         CREATE TABLE notes (owner uuid DEFAULT auth.uid() REFERENCES auth.users, note text);
         CREATE POLICY own ON notes TO authenticated USING ((select auth.uid()) = owner
             AND auth.role() = 'authenticated' AND auth.jwt() ->> 'email' = auth.email());
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY; GRANT SELECT, INSERT ON notes TO authenticated",
    );
    admin.run(&format!(
        "INSERT INTO auth.users VALUES ('{ALICE}'), ('{BOB}')"
    ));
    let refusal = admin.refused("CREATE EXTENSION pg_session_jwt");
    refusal.assert("42P06", "schema \"auth\" already exists");

    admin.run(&guide.unmarked("ALTER SCHEMA auth RENAME"));
    admin.run(&format!(
        "INSERT INTO auth.providers (name, issuer, jwks_url) VALUES ('supabase', '{SUPABASE}', {})",
        sql_text(&theirs.jwks_url())
    ));
    assert_eq!(admin.text("SELECT keys FROM auth.refresh('supabase')"), "1");
    let mut app = guide.connect("app");
    let notes = "SELECT note FROM notes";
    let alice = theirs.token(&supabase("alice@example.com"), ALICE);
    let add = "INSERT INTO notes (note) VALUES ('mine')";
    assert_eq!(
        request(&mut app, Some(&alice), &[add, notes]).unwrap(),
        ["mine"]
    );
    let bob = theirs.token(&supabase("bob@example.com"), BOB);
    assert_eq!(seen(&mut app, &bob, notes), [""; 0]);
    app.run(&format!(
        "SET request.jwt.claim.sub = '{ALICE}'; SET ROLE authenticated"
    ));
    assert_eq!(app.rows(notes), [""; 0]);
}

#[test]
fn an_application_of_0_5_0_moves_from_startup_keys_to_a_provider() {
    let clerk = Provider::new();
    let guide = Guide::printed("moving-over");
    let mut admin = guide.connect("postgres");
    admin.run(
        "CREATE EXTENSION pg_session_jwt VERSION '0.5.0'; CREATE ROLE app LOGIN;
         CREATE TABLE todos (user_id text DEFAULT auth.user_id(), task text);
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY; GRANT ALL ON todos TO app;
         CREATE POLICY own ON todos USING (auth.user_id() = user_id)",
    );
    admin.run(&guide.unmarked("ALTER EXTENSION"));
    admin.run(&format!(
        "INSERT INTO auth.providers (name, issuer) VALUES ('clerk', {})",
        sql_text(&clerk.url())
    ));
    assert_eq!(admin.text("SELECT keys FROM auth.refresh('clerk')"), "1");
    let session = documented("Clerk v2, no active organization");
    let mut app = guide.connect("app");
    app.present(&clerk.token(&session, "user_alice"));
    app.run("INSERT INTO todos (task) VALUES ('water the plants')");
    assert_eq!(app.rows("SELECT task FROM todos"), ["water the plants"]);
    app.present(&clerk.token(&session, "user_bob"));
    assert_eq!(app.rows("SELECT task FROM todos"), [""; 0]);
}
