//! `auth.login`, `auth.logout`, `auth.create_roles` and `auth.pre_request`: which database role a token
//! gets, and for how long.

use harness::{
    Cluster, Database, Issuer, Refusal, Row, Session, first_line, sql_text, token, token_with,
};
use serde_json::{Value, json};

/// A database with a provider, whose application connects as a role that may become `authenticated`
/// and `anonymous`.
struct Site {
    db: Database,
    issuer: Issuer,
    app: String,
}

impl Site {
    fn new() -> Self {
        let (db, issuer) = (Database::new(), Issuer::ed25519());
        db.superuser().register(&[&issuer]);
        let app = db.login_role();
        Self { db, issuer, app }
    }

    fn session(&self) -> Session {
        self.db.connect(&self.app, "")
    }

    fn token(&self, sub: &str, more: &Value) -> String {
        token_with(&self.issuer, sub, more)
    }

    fn user(&self, sub: &str) -> String {
        self.token(sub, &json!({"role": "authenticated"}))
    }

    fn set(&self, assignments: &str) {
        self.db
            .superuser()
            .run(&format!("UPDATE auth.providers SET {assignments}"));
    }
}

fn login(token: &str) -> String {
    format!("SELECT auth.login({})", sql_text(token))
}

fn login_for_session(token: &str) -> String {
    format!("SELECT auth.login({}, false)", sql_text(token))
}

/// Role and user.
fn who(session: &mut Session) -> String {
    session
        .rows("SELECT current_user, auth.user_id()")
        .remove(0)
}

#[track_caller]
fn assert_role_refused(refusal: &Refusal, detail: &str) {
    refusal.assert_stage("policy", first_line::ROLE);
    assert_eq!(
        refusal.detail,
        format!("policy: {detail} (provider \"main\")")
    );
    assert!(!refusal.hint.is_empty(), "{refusal:?}");
}

#[test]
fn a_login_is_for_the_transaction() {
    let site = Site::new();
    let (app, nobody) = (&site.app, format!("{}|NULL", site.app));
    let mut session = site.session();
    let alice = login(&site.user("alice"));
    // On its own, it is its own transaction.
    assert_eq!(session.text(&alice), "authenticated");
    assert_eq!(who(&mut session), nobody);
    for ending in ["COMMIT", "ROLLBACK"] {
        session.run("BEGIN");
        assert_eq!(session.text(&alice), "authenticated");
        assert_eq!(who(&mut session), "authenticated|alice");
        assert_eq!(session.text("SELECT session_user"), *app);
        session.run(ending);
        assert_eq!(who(&mut session), nobody);
    }
    // An error ends it too.
    session.run("BEGIN");
    session.run(&alice);
    assert_eq!(session.refused("SELECT 1/0").sqlstate, "22012");
    session.run("ROLLBACK");
    assert_eq!(who(&mut session), nobody);
}

#[test]
fn savepoints_give_back_the_login_before() {
    let site = Site::new();
    let mut session = site.session();
    session.run("BEGIN; SAVEPOINT a");
    session.run(&login(&site.user("alice")));
    session.run("SAVEPOINT b");
    session.run(&login(&site.user("bob")));
    assert_eq!(who(&mut session), "authenticated|bob");
    session.run("SELECT auth.login(NULL)");
    assert_eq!(who(&mut session), "anonymous|NULL");
    session.run("ROLLBACK TO SAVEPOINT b");
    assert_eq!(who(&mut session), "authenticated|alice");
    session.run("SELECT auth.logout()");
    assert_eq!(who(&mut session), format!("{}|NULL", site.app));
    session.run("ROLLBACK TO SAVEPOINT b");
    assert_eq!(who(&mut session), "authenticated|alice");
    // A login that fails leaves everything as it was.
    let stranger = login(&token(&Issuer::ed25519(), "mallory"));
    session
        .refused(&stranger)
        .assert_stage("signature", first_line::SIGNATURE);
    session.run("ROLLBACK TO SAVEPOINT b");
    assert_eq!(who(&mut session), "authenticated|alice");
    let literal = sql_text(&site.token("bob", &json!({"role": "postgres"})));
    session.run(&format!(
        "DO $do$ BEGIN PERFORM auth.login({literal});
         EXCEPTION WHEN invalid_authorization_specification THEN END $do$"
    ));
    assert_eq!(who(&mut session), "authenticated|alice");
    session.run("ROLLBACK TO SAVEPOINT a");
    assert_eq!(who(&mut session), format!("{}|NULL", site.app));
    session.run("COMMIT");
    // A subtransaction that is released passes it on to the transaction around.
    session.run("BEGIN; SAVEPOINT c");
    session.run(&login(&site.user("alice")));
    session.run("RELEASE SAVEPOINT c");
    assert_eq!(who(&mut session), "authenticated|alice");
    session.run("COMMIT");
    assert_eq!(who(&mut session), format!("{}|NULL", site.app));
}

#[test]
fn a_login_for_the_session_lasts_until_logout() {
    let site = Site::new();
    let nobody = format!("{}|NULL", site.app);
    let mut session = site.session();
    session.run(&login_for_session(&site.user("alice")));
    assert_eq!(who(&mut session), "authenticated|alice");
    session.run("BEGIN");
    session.run(&login(&site.user("bob")));
    assert_eq!(who(&mut session), "authenticated|bob");
    session.run("COMMIT");
    assert_eq!(who(&mut session), "authenticated|alice");
    // The membership is the session user's, not that of the role assumed.
    session.run(&login_for_session(&site.user("bob")));
    assert_eq!(who(&mut session), "authenticated|bob");
    session.run("SELECT auth.logout()");
    assert_eq!(who(&mut session), nobody);
    // In a transaction that fails there was none.
    session.run("BEGIN");
    session.run(&login_for_session(&site.user("alice")));
    session.run("ROLLBACK");
    assert_eq!(who(&mut session), nobody);
    for end in ["DISCARD ALL", "RESET ROLE; RESET pg_session_jwt.jwt"] {
        session.run(&login_for_session(&site.user("alice")));
        session.run(end);
        assert_eq!(who(&mut session), nobody, "{end}");
    }
    for none in ["NULL", "''"] {
        session.run(&login_for_session(&site.user("alice")));
        assert_eq!(
            session.text(&format!("SELECT auth.login({none}, false)")),
            "anonymous"
        );
        assert_eq!(who(&mut session), "anonymous|NULL");
        session.run("SELECT auth.logout()");
    }
    session.run("SELECT auth.logout()");
    assert_eq!(who(&mut session), nobody);
}

#[test]
fn the_next_user_of_a_pooled_connection_inherits_nothing() {
    let site = Site::new();
    site.db.add_todos();
    site.db.superuser().run(
        "DROP POLICY see ON todos;
         CREATE POLICY own ON todos TO authenticated USING (auth.user_id() = user_id);
         CREATE POLICY teaser ON todos TO anonymous USING (id = 1);",
    );
    let mut session = site.session();
    session.run("PREPARE mine AS SELECT task FROM todos ORDER BY id");
    let rows: [(String, &[&str]); 4] = [
        (login(&site.user("alice")), &["write", "sleep"]),
        (login(&site.user("bob")), &["read"]),
        ("SELECT auth.login(NULL)".into(), &["write"]),
        ("SELECT auth.login('')".into(), &["write"]),
    ];
    for round in 0..12 {
        let (login, expected) = &rows[round * 7 % 4];
        session.run("BEGIN");
        session.run(login);
        assert_eq!(session.rows("EXECUTE mine"), *expected, "{login}");
        session.run("DECLARE c CURSOR FOR SELECT task FROM todos ORDER BY id");
        assert_eq!(session.rows("FETCH 1 FROM c"), expected[..1]);
        session.run(if round % 2 == 0 { "COMMIT" } else { "ROLLBACK" });
        // No policy is for the role that connects.
        assert_eq!(session.rows("EXECUTE mine"), [""; 0]);
    }
    // A cursor opened before another login: its rows belong to the user who opened it, or it has none.
    session.run("BEGIN");
    session.run(&login(&site.user("alice")));
    session.run("DECLARE c CURSOR FOR SELECT task FROM todos ORDER BY id");
    session.run(&login(&site.user("bob")));
    let fetched = session.rows("FETCH ALL FROM c");
    assert!(
        fetched.is_empty() || fetched == ["write", "sleep"] || fetched == ["read"],
        "{fetched:?}"
    );
    session.run("COMMIT");
}

#[test]
fn a_token_gets_the_role_that_its_provider_lets_it_have() {
    let site = Site::new();
    let other = site.db.role("other");
    let member = site.db.role("member");
    site.db
        .superuser()
        .run(&format!("GRANT {member} TO {}", site.app));
    let mut session = site.session();
    let absent = "the token names no role";
    assert_role_refused(
        &session.refused(&login(&token(&site.issuer, "alice"))),
        absent,
    );
    for odd in [
        json!(1),
        json!([]),
        json!([7, null]),
        json!({}),
        json!(true),
    ] {
        let token = site.token("alice", &json!({"role": odd}));
        assert_role_refused(&session.refused(&login(&token)), absent);
    }
    for (several, names) in [
        (json!(["admin", "postgres"]), "admin, postgres"),
        (json!({"admin": {"authenticated": 1}}), "admin"),
    ] {
        let token = site.token("alice", &json!({"role": several}));
        let facts = format!("role \"{names}\" is not in allowed_roles");
        assert_role_refused(&session.refused(&login(&token)), &facts);
    }
    for one_of_several in [
        json!(["postgres", "authenticated"]),
        json!({"postgres": {}, "authenticated": {}}),
    ] {
        let token = site.token("alice", &json!({"role": one_of_several}));
        assert_eq!(session.text(&login(&token)), "authenticated");
    }
    for named in [
        "none",
        "postgres",
        &member,
        &other,
        "",
        "Authenticated",
        "authenticated ",
    ] {
        let token = site.token("alice", &json!({"role": named}));
        assert_role_refused(
            &session.refused(&login(&token)),
            &format!("role \"{named}\" is not in allowed_roles"),
        );
        assert_eq!(session.text("SELECT current_user"), site.app);
    }
    // In the list, it is for Postgres to say.
    site.set(&format!(
        "allowed_roles = '{{authenticated,postgres,{member},{other},no_such_role}}'"
    ));
    let named = |role: &str| login(&site.token("alice", &json!({"role": role})));
    assert_eq!(session.text(&named(&member)), member);
    assert_role_refused(
        &session.refused(&named("postgres")),
        "role \"postgres\" is a superuser, which no token may assume",
    );
    session.refused(&named(&other)).assert(
        "42501",
        &format!("permission denied to set role \"{other}\""),
    );
    session
        .refused(&named("no_such_role"))
        .assert("22023", "role \"no_such_role\" does not exist");
    // Somebody who could SET ROLE to a superuser cannot log in as one.
    let mut admin = site.db.superuser();
    assert_role_refused(
        &admin.refused(&named("postgres")),
        "role \"postgres\" is a superuser, which no token may assume",
    );
    site.set("default_role = 'postgres'");
    assert_role_refused(
        &session.refused(&named("whatever")),
        "role \"postgres\" is a superuser, which no token may assume",
    );
    site.set("default_role = 'anonymous', allowed_roles = '{authenticated}'");
    for token in [
        token(&site.issuer, "alice"),
        site.token("alice", &json!({"role": "postgres"})),
        site.token("alice", &json!({"role": "none"})),
        site.token("alice", &json!({"role": 5})),
    ] {
        assert_eq!(session.text(&login(&token)), "anonymous");
    }
    assert_eq!(session.text(&named("authenticated")), "authenticated");
    // The user is the token's all the same.
    session.run("BEGIN");
    session.run(&login(&token(&site.issuer, "alice")));
    assert_eq!(who(&mut session), "anonymous|alice");
    session.run("COMMIT");
    // A superuser's name counts from the moment that it is one.
    let mut admin = site.db.superuser();
    site.set(&format!(
        "allowed_roles = '{{{member}}}', default_role = NULL"
    ));
    assert_eq!(session.text(&named(&member)), member);
    admin.run(&format!("ALTER ROLE {member} SUPERUSER"));
    assert_role_refused(
        &session.refused(&named(&member)),
        &format!("role \"{member}\" is a superuser, which no token may assume"),
    );
    admin.run(&format!(
        "ALTER ROLE {member} NOSUPERUSER; REVOKE {member} FROM {}",
        site.app
    ));
    session.refused(&named(&member)).assert(
        "42501",
        &format!("permission denied to set role \"{member}\""),
    );
}

#[test]
fn the_role_may_lie_deep_in_the_token() {
    let site = Site::new();
    site.set("role_claim = '{https://example.com/roles,db,role}'");
    let mut session = site.session();
    let deep = |role: Value| {
        site.token(
            "alice",
            &json!({"role": "postgres", "https://example.com/roles": {"db": {"role": role}}}),
        )
    };
    assert_eq!(
        session.text(&login(&deep(json!("authenticated")))),
        "authenticated"
    );
    assert_role_refused(
        &session.refused(&login(&deep(json!(["postgres"])))),
        "role \"postgres\" is not in allowed_roles",
    );
    site.set("role_claim = '{https://example.com/roles,db,role,-1}'");
    let list = deep(json!(["postgres", "authenticated"]));
    assert_eq!(session.text(&login(&list)), "authenticated");
    site.set("role_claim = '{https://example.com/roles,db,role,0}'");
    assert_role_refused(
        &session.refused(&login(&list)),
        "role \"postgres\" is not in allowed_roles",
    );
    site.set("role_claim = '{https://example.com/roles,db,role}'");
    assert_role_refused(
        &session.refused(&login(&site.user("alice"))),
        "the token names no role",
    );
    session.run(&login_for_session(&deep(json!("authenticated"))));
    assert_eq!(
        session.text("SELECT role FROM auth.status()"),
        "authenticated"
    );
    // auth.role() is the claim of that name.
    assert_eq!(session.text("SELECT auth.role()"), "postgres");
}

#[test]
fn without_providers_the_claim_is_role_and_the_list_authenticated() {
    let (db, issuer) = (Database::new(), Issuer::ed25519());
    let app = db.login_role();
    let option = harness::option("pg_session_jwt.jwk", &issuer.jwk().to_string());
    let mut session = db.connect(&app, &option);
    let token = |role: &str| issuer.token(&json!({"sub": "alice", "role": role}));
    assert_eq!(
        session.text(&login(&token("authenticated"))),
        "authenticated"
    );
    for role in ["anonymous", "postgres", "none", &app] {
        let refusal = session.refused(&login(&token(role)));
        refusal.assert_stage("policy", first_line::ROLE);
        assert_eq!(
            refusal.detail,
            format!("policy: role \"{role}\" is not in allowed_roles")
        );
    }
    session
        .refused(&login(&issuer.token_for("alice")))
        .assert_stage("policy", first_line::ROLE);
    db.connect(&app, "")
        .refused(&login(&token("authenticated")))
        .assert_stage("key", first_line::NO_KEY);
}

#[test]
fn a_session_user_who_is_no_member_gets_postgres_own_refusal() {
    let site = Site::new();
    let stranger = site.db.role("stranger");
    let mut session = site.db.connect(&stranger, "");
    let nobody = format!("{stranger}|NULL");
    session
        .refused(&login_for_session(&site.user("alice")))
        .assert("42501", "permission denied to set role \"authenticated\"");
    assert_eq!(who(&mut session), nobody);
    session
        .refused("SELECT auth.login(NULL)")
        .assert("42501", "permission denied to set role \"anonymous\"");
    session.present(&site.user("alice"));
    assert_eq!(who(&mut session), format!("{stranger}|alice"));
}

#[test]
fn no_security_definer_function_switches_roles() {
    let site = Site::new();
    let token = sql_text(&site.user("alice"));
    site.db.superuser().run(&format!(
        "CREATE FUNCTION public.as_definer() RETURNS name LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN RETURN auth.login({token}, false); END $$;
         CREATE FUNCTION public.logout_as_definer() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN PERFORM auth.logout(); END $$;
         CREATE FUNCTION public.as_invoker() RETURNS name LANGUAGE plpgsql AS
             $$ BEGIN RETURN auth.login({token}, false); END $$"
    ));
    assert_eq!(
        site.db.superuser().rows(
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'auth'::regnamespace AND prosecdef"
        ),
        // A trigger, which nobody may attach or call.
        ["auth.forget_keys()"]
    );
    let mut session = site.session();
    let message = "cannot set parameter \"role\" within security-definer function";
    session
        .refused("SELECT as_definer()")
        .assert("42501", message);
    assert_eq!(who(&mut session), format!("{}|NULL", site.app));
    assert_eq!(session.text("SELECT as_invoker()"), "authenticated");
    assert_eq!(who(&mut session), "authenticated|alice");
    session
        .refused("SELECT logout_as_definer()")
        .assert("42501", message);
    assert_eq!(who(&mut session), "authenticated|alice");
}

#[test]
fn who_logs_in_with_a_bad_token_stays_who_he_was() {
    let site = Site::new();
    let mut session = site.session();
    session.run(&login_for_session(&site.user("alice")));
    let expired = site.token("bob", &json!({"role": "authenticated", "exp": 1_000_000}));
    session
        .refused(&login_for_session(&expired))
        .assert_stage("time", first_line::EXPIRED);
    session
        .refused("SELECT auth.login('x')")
        .assert_stage("structure", first_line::ENCODING);
    assert_eq!(who(&mut session), "authenticated|alice");
    session.refused("SELECT auth.login(NULL, NULL::boolean), 1/0");
    assert_eq!(who(&mut session), "authenticated|alice");
}

fn pre_request(headers: &str) -> String {
    format!(
        "SELECT set_config('request.headers', {}, true); SELECT auth.pre_request()",
        sql_text(headers)
    )
}

#[test]
fn postgrest_presents_the_authorization_header() {
    let site = Site::new();
    let mut session = site.session();
    let good = token(&site.issuer, "alice");
    let bob = token(&site.issuer, "bob");
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer   "] {
        let headers =
            json!({"accept": "*/*", "authorization": format!("{scheme}{good}")}).to_string();
        session.run("BEGIN");
        session.run(&pre_request(&headers));
        session.assert_user("alice");
        session.run("COMMIT");
        session.assert_nobody();
    }
    // No token: no identity, not that of the token that the session still has.
    session.present(&bob);
    for headers in [
        "",
        "{}",
        r#"{"accept": "*/*"}"#,
        r#"{"authorization": ""}"#,
        r#"{"authorization": "Basic YTpi"}"#,
        r#"{"authorization": null}"#,
    ] {
        session.run("BEGIN");
        session.run(&pre_request(headers));
        session.assert_nobody();
        session.run("COMMIT");
        session.assert_user("bob");
    }
    session.run("SELECT auth.pre_request()");
    session.assert_user("bob");
    // Wrong ones are errors, and nobody is left in force by them.
    for (headers, sqlstate, message) in [
        (
            "{",
            "22023",
            "invalid value for parameter \"request.headers\"",
        ),
        (
            "[]",
            "22023",
            "invalid value for parameter \"request.headers\"",
        ),
        (
            r#""x""#,
            "22023",
            "invalid value for parameter \"request.headers\"",
        ),
        (
            r#"{"authorization": "Bearer x"}"#,
            "28000",
            first_line::ENCODING,
        ),
        (
            r#"{"authorization": "Bearer a.b.c d"}"#,
            "28000",
            first_line::ENCODING,
        ),
    ] {
        session.run("BEGIN");
        session
            .refused(&pre_request(headers))
            .assert(sqlstate, message);
        session.run("ROLLBACK");
    }
    let forged = token(&Issuer::ed25519(), "alice");
    let headers = json!({"authorization": format!("Bearer {forged}")}).to_string();
    session.run("BEGIN");
    session
        .refused(&pre_request(&headers))
        .assert_stage("signature", first_line::SIGNATURE);
    session.run("ROLLBACK");
    session.assert_user("bob");
}

#[test]
fn the_owner_of_a_database_makes_the_roles_where_postgres_lets_him() {
    let cluster = Cluster::start("");
    let mut admin = cluster.connect("postgres", "postgres");
    admin.run(
        "CREATE ROLE plain LOGIN; CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE app LOGIN;
         CREATE ROLE other LOGIN;",
    );
    for owner in ["plain", "creator"] {
        admin.run(&format!("CREATE DATABASE of_{owner} OWNER {owner}"));
    }
    let mut plain = cluster.connect("of_plain", "plain");
    plain.run("CREATE EXTENSION pg_session_jwt");
    plain
        .refused("SELECT auth.create_roles()")
        .assert("42501", "permission denied to create role");
    // Without the roles a login says what is missing.
    cluster
        .connect("of_plain", "app")
        .refused("SELECT auth.login(NULL)")
        .assert("22023", "role \"anonymous\" does not exist");

    let mut owner = cluster.connect("of_creator", "creator");
    owner.run("CREATE EXTENSION pg_session_jwt");
    owner.run("SELECT auth.create_roles()");
    assert_eq!(
        owner.rows(
            "SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolbypassrls FROM pg_roles
             WHERE rolname IN ('anonymous', 'authenticated') ORDER BY 1"
        ),
        ["anonymous|f|f|f|f", "authenticated|f|f|f|f"]
    );
    // Twice is once.
    owner.run("SELECT auth.create_roles()");
    owner.run("GRANT anonymous, authenticated TO app");
    let issuer = Issuer::ed25519();
    let row = Row::main(&[&issuer]).with("default_role", "'authenticated'");
    owner.run(&row.insert());
    owner.run(
        "CREATE TABLE todos (user_id text, task text);
         INSERT INTO todos VALUES ('alice', 'write'), ('bob', 'read');
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON todos TO authenticated USING (auth.user_id() = user_id);
         GRANT SELECT ON todos TO authenticated, anonymous;",
    );
    for role in ["app", "creator"] {
        let mut session = cluster.connect("of_creator", role);
        session.run("BEGIN");
        session.run(&login(&token(&issuer, "alice")));
        assert_eq!(session.rows("SELECT * FROM todos"), ["alice|write"]);
        assert_eq!(
            session.rows("SELECT current_user, auth.user_id()"),
            ["authenticated|alice"]
        );
        session.run("SELECT auth.login(NULL)");
        assert_eq!(session.rows("SELECT * FROM todos"), [""; 0]);
        session.run("COMMIT");
    }
    // The owner lets others read and write the table, and takes that back.
    let mut other = cluster.connect("of_creator", "other");
    let denied = "permission denied for table providers";
    other
        .refused("TABLE auth.providers")
        .assert("42501", denied);
    owner.run("GRANT SELECT, INSERT ON auth.providers TO other");
    assert_eq!(other.rows("SELECT name FROM auth.providers"), ["main"]);
    other.run(&Row::new("second", "https://second.example", &[&issuer]).insert());
    other
        .refused("DELETE FROM auth.providers")
        .assert("42501", denied);
    owner.run("REVOKE ALL ON auth.providers FROM other");
    other
        .refused("TABLE auth.providers")
        .assert("42501", denied);
    owner.run("UPDATE auth.providers SET enabled = false; DELETE FROM auth.providers; TRUNCATE auth.providers");
    owner.run("DROP EXTENSION pg_session_jwt CASCADE; CREATE EXTENSION pg_session_jwt");

    // The roles are there, but they are somebody else's.
    assert_eq!(
        plain.refused("SELECT auth.create_roles()").sqlstate,
        "42501"
    );
    plain.run(&row.insert());
    let mut app = cluster.connect("of_plain", "app");
    assert_eq!(app.text(&login(&token(&issuer, "alice"))), "authenticated");
    // A superuser needs nobody's leave.
    let mut admin = cluster.connect("of_plain", "postgres");
    admin.run("SELECT auth.create_roles()");
    assert_eq!(admin.text("SELECT auth.login(NULL)"), "anonymous");
}
