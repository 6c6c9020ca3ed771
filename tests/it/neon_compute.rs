//! Neon's compute node, whose configuration pins version 0.3.1, and the proxy beside Postgres on it: what
//! they send, on whatever they find in the database.

use harness::{CURRENT, Database, ISS, Issuer, Row, Session, first_line, now, token_with};
use serde_json::json;

/// The version that the compute node asks for.
const PINNED: &str = "0.3.1";

/// What a compute node has found in a database.
#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    Ours(&'static str),
    LeftBy(&'static str),
}

const FOUND: [Found; 6] = [
    Found::Nothing,
    Found::Ours(CURRENT),
    Found::LeftBy("1.0.0"),
    Found::Ours(PINNED),
    Found::LeftBy(PINNED),
    Found::LeftBy("0.5.0"),
];

impl Found {
    fn database(self) -> Database {
        match self {
            Self::Nothing => Database::without_extension(),
            Self::Ours(version) => Database::with_version(version),
            Self::LeftBy(version) => Database::left_by(version),
        }
    }
}

/// Asked for by the first request for a database and a role since the compute node started.
fn configure(db: &Database, role: &str) {
    let mut superuser = db.superuser();
    let installed = superuser
        .client
        .query_opt(
            "SELECT extversion FROM pg_extension WHERE extname = $1",
            &[&"pg_session_jwt"],
        )
        .unwrap()
        .map(|row| row.get::<_, String>(0));
    match installed.as_deref() {
        Some(PINNED) => {}
        Some(_) => superuser.run(r#"ALTER EXTENSION "pg_session_jwt" UPDATE TO "0.3.1""#),
        None => superuser.run_with_our_scripts(
            r#"CREATE EXTENSION IF NOT EXISTS "pg_session_jwt" WITH SCHEMA public VERSION "0.3.1""#,
        ),
    }
    assert_eq!(superuser.extension_version(), PINNED);
    // Only where the role itself has nothing: a replica could not write.
    let privileges = superuser
        .client
        .query(
            "SELECT privilege_type FROM pg_namespace
                 JOIN LATERAL (SELECT * FROM aclexplode(nspacl) AS x) acl ON true
                 JOIN pg_user users ON acl.grantee = users.usesysid
             WHERE users.usename = $1 AND nspname = $2",
            &[&role, &"auth"],
        )
        .unwrap();
    if privileges.is_empty() {
        superuser.run(&format!(r#"GRANT USAGE ON SCHEMA "auth" TO "{role}""#));
    }
}

/// The proxy's connection, with a key made for it, and its requests.
struct Proxy {
    key: Issuer,
    connection: Session,
    jti: i64,
}

impl Proxy {
    fn connect(db: &Database, role: &str) -> Self {
        let key = Issuer::ed25519();
        let options = format!("-c pg_session_jwt.jwk={}", key.jwk());
        let connection = db.connect(role, &options);
        Self {
            key,
            connection,
            jti: 0,
        }
    }

    fn initialize(&mut self) {
        self.connection
            .client
            .execute("select auth.init()", &[])
            .unwrap();
    }

    /// A request of this user, whose own token the proxy has verified and signs again.
    fn request(&mut self, user: &str) {
        self.jti += 1;
        let claims = json!({"sub": user, "exp": now() + 60, "jti": self.jti});
        let token = self.key.sign(r#"{"alg":"EdDSA"}"#, claims.to_string());
        self.connection.run("DISCARD ALL");
        self.connection
            .run(&format!("select auth.jwt_session_init('{token}')"));
    }

    fn assert_serves(&mut self) {
        for round in 0..3 {
            self.request("alice");
            assert_eq!(self.connection.tasks(), ["write", "sleep"], "{round}");
            self.request("bob");
            assert_eq!(self.connection.tasks(), ["read"]);
            self.connection
                .refused("INSERT INTO todos (user_id, task) VALUES ('alice', 'x')")
                .assert(
                    "42501",
                    "new row violates row-level security policy for table \"todos\"",
                );
        }
        self.connection.run("DISCARD ALL");
        self.connection.assert_nobody();
        assert_eq!(self.connection.tasks(), [""; 0]);
    }
}

#[test]
fn the_compute_nodes_sequence_works_on_whatever_is_there() {
    for found in FOUND {
        let db = found.database();
        let role = db.role("web");
        configure(&db, &role);
        db.add_todos();
        let mut proxy = Proxy::connect(&db, &role);
        proxy.initialize();
        proxy.assert_serves();
        // The node goes to sleep and starts again, and another role comes.
        let other = db.role("other");
        for role in [&role, &other] {
            configure(&db, role);
            let mut proxy = Proxy::connect(&db, role);
            proxy.initialize();
            proxy.assert_serves();
        }
        // The connection from before goes on.
        proxy.assert_serves();
    }
}

#[test]
fn an_administrator_who_updates_is_not_in_the_compute_nodes_way() {
    for found in FOUND {
        let db = found.database();
        let role = db.role("web");
        configure(&db, &role);
        db.add_todos();
        let mut admin = db.superuser();
        for _ in 0..2 {
            admin.run("ALTER EXTENSION pg_session_jwt UPDATE");
            assert_eq!(admin.extension_version(), CURRENT);
            admin.run(
                "CREATE OR REPLACE VIEW org AS SELECT auth.org_id(), auth.has_permission('x')",
            );
            configure(&db, &role);
            let mut proxy = Proxy::connect(&db, &role);
            proxy.initialize();
            proxy.assert_serves();
        }
    }
}

#[test]
fn providers_and_their_privileges_outlive_the_compute_nodes_configuration() {
    for found in [
        Found::Ours(CURRENT),
        Found::LeftBy("1.0.0"),
        Found::Ours("0.5.0"),
        Found::Ours(PINNED),
    ] {
        let db = found.database();
        let (role, reader) = (db.role("web"), db.role("reader"));
        let issuer = Issuer::ed25519();
        let good = token_with(&issuer, "alice", &json!({"aud": "app"}));
        db.add_todos();
        let mut admin = db.superuser();
        admin.run(&Row::main(&[&issuer]).with("audience", "'{app}'").insert());
        admin.run(&format!("GRANT SELECT ON auth.providers TO {reader}"));
        let rows = "SELECT name, issuer, audience, created_at FROM auth.providers";
        let registered = admin.rows(rows);
        assert!(registered[0].starts_with(&format!("main|{ISS}|{{app}}|")));
        // The node starts, starts again, and finds that somebody has updated the extension.
        for update in [false, true, false] {
            configure(&db, &role);
            assert_eq!(db.connect(&reader, "").rows(rows), registered, "{found:?}");
            // The database says whom to trust: that is not whoever opens a connection.
            let mut proxy = Proxy::connect(&db, &role);
            proxy.connection.refused("select auth.init()").assert(
                "55000",
                "keys of a connection are not trusted while a provider is registered",
            );
            let mut app = db.connect(&role, "");
            app.refused("TABLE auth.providers")
                .assert("42501", "permission denied for table providers");
            app.present(&good);
            assert_eq!(app.tasks(), ["write", "sleep"]);
            app.rejected(&token_with(&issuer, "bob", &json!({"aud": "other"})))
                .assert_stage("policy", first_line::AUDIENCE);
            // A change counts at once, whatever the version number says, and rows are checked.
            admin.rotate(&[&Issuer::ed25519()]);
            app.user_refused()
                .assert_stage("signature", first_line::SIGNATURE);
            admin
                .refused("UPDATE auth.providers SET jwks = '{}'")
                .assert("22023", "invalid provider \"main\"");
            admin.rotate(&[&issuer]);
            app.assert_user("alice");
            if update {
                admin.run("ALTER EXTENSION pg_session_jwt UPDATE");
            }
        }
        admin.run("DELETE FROM auth.providers");
        let mut proxy = Proxy::connect(&db, &role);
        proxy.initialize();
        proxy.assert_serves();
    }
}

#[test]
fn a_database_owner_creates_the_extension_for_the_compute_node_to_find() {
    let db = Database::without_extension();
    let (owner, role) = (db.role("owner"), db.role("web"));
    db.superuser()
        .run(&format!("ALTER DATABASE {} OWNER TO {owner}", db.name()));
    let mut session = db.connect(&owner, "");
    session.run("CREATE EXTENSION pg_session_jwt");
    let issuer = Issuer::ed25519();
    session.register(&[&issuer]);
    configure(&db, &role);
    session.run("UPDATE auth.providers SET enabled = false");
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    configure(&db, &role);
    session.run("DELETE FROM auth.providers");
    db.add_todos();
    let mut proxy = Proxy::connect(&db, &role);
    proxy.initialize();
    proxy.assert_serves();
    // Other roles need no grant of their own.
    assert_eq!(db.app().user_id(), None);
}
