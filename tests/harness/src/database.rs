//! The server under test, and a database in it for each test.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Config, NoTls};

use crate::{Issuer, Session, option, sql_text};

/// The role that applications connect as: it may log in and nothing else.
pub const APP_USER: &str = "app_user";

/// What `cargo xtask test` says about the server.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need a server of their own; run `cargo xtask test`")
    })
}

/// 15, 16, …
pub fn pg_major() -> u32 {
    setting("PG_MAJOR").parse().expect("PG_MAJOR is a number")
}

/// Everything the server has logged so far.
pub fn server_log() -> String {
    let log = std::fs::read(setting("PG_LOG")).expect("PG_LOG names the server's log");
    String::from_utf8_lossy(&log).into_owned()
}

/// The directory that `extension/` lies in.
pub fn sharedir() -> PathBuf {
    setting("PG_SHAREDIR").into()
}

fn config(database: &str, role: &str) -> Config {
    let mut config = Config::new();
    config
        .host(&setting("PGHOST"))
        .port(setting("PGPORT").parse().expect("PGPORT is a number"))
        .user(role)
        .dbname(database);
    config
}

/// A database that lives as long as its test, and the roles made for it.
pub struct Database {
    name: String,
    roles: Mutex<Vec<String>>,
}

impl Database {
    /// A database with the extension in it.
    pub fn new() -> Self {
        let database = Self::without_extension();
        database.superuser().run("CREATE EXTENSION pg_session_jwt");
        database
    }

    /// A database with the extension and the table `todos` as the README's policies guard it: two
    /// rows of alice's, one of bob's.
    pub fn with_todos() -> Self {
        let database = Self::new();
        database.add_todos();
        database
    }

    /// `todos`, guarded by policies that call `auth.user_id()`.
    pub fn add_todos(&self) {
        self.superuser().run(
            "CREATE TABLE public.todos (
                 id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                 user_id text NOT NULL DEFAULT auth.user_id(),
                 task text NOT NULL
             );
             INSERT INTO todos (user_id, task)
                 VALUES ('alice', 'write'), ('bob', 'read'), ('alice', 'sleep');
             ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
             CREATE POLICY see ON todos FOR SELECT USING (auth.user_id() = user_id);
             CREATE POLICY add ON todos FOR INSERT WITH CHECK (auth.user_id() = user_id);
             CREATE POLICY edit ON todos FOR UPDATE USING (auth.user_id() = user_id);
             CREATE POLICY drop ON todos FOR DELETE USING (auth.user_id() = user_id);
             GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO PUBLIC;",
        );
    }

    /// An empty database.
    pub fn without_extension() -> Self {
        Self::created_with("")
    }

    /// An empty database in an encoding other than the cluster's.
    pub fn in_encoding(encoding: &str) -> Self {
        Self::created_with(&format!(
            "ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        ))
    }

    fn created_with(clauses: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jwt_test_{}_{number}", std::process::id());
        let mut postgres = maintenance();
        // Roles belong to the whole cluster, so only one test may make this one.
        postgres.run(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock(1);
             DO $$ BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_USER}') THEN
                     CREATE ROLE {APP_USER} LOGIN;
                 END IF;
             END $$;
             COMMIT;"
        ));
        postgres.run(&format!("CREATE DATABASE {name} {clauses}"));
        Self {
            name,
            roles: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A role for this test alone; gone when the test is over.
    pub fn role(&self, purpose: &str) -> String {
        let role = format!("{}_{purpose}", self.name);
        maintenance().run(&format!("CREATE ROLE {role} LOGIN"));
        self.roles.lock().unwrap().push(role.clone());
        role
    }

    /// The roles that `auth.login` assumes, and a login role for this test alone that is a member of
    /// both, and has the rights of neither until it assumes it.
    pub fn login_role(&self) -> String {
        let role = self.role("app");
        // One test at a time, as above.
        maintenance().run(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock(1);
             DO $$ DECLARE wanted name; BEGIN
                 FOREACH wanted IN ARRAY '{{anonymous,authenticated}}'::name[] LOOP
                     IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                         BEGIN
                             EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
                         EXCEPTION WHEN duplicate_object OR unique_violation THEN
                             NULL; -- auth.create_roles() in another test was quicker
                         END;
                     END IF;
                 END LOOP;
             END $$;
             ALTER ROLE {role} NOINHERIT;
             GRANT anonymous, authenticated TO {role};
             COMMIT;"
        ));
        role
    }

    /// A connection that may do anything.
    pub fn superuser(&self) -> Session {
        Session::open(&config(&self.name, &setting("PGUSER")))
    }

    /// An application's connection that brought no key.
    pub fn app(&self) -> Session {
        self.connect(APP_USER, "")
    }

    /// An application's connection whose startup key is the issuer's.
    pub fn app_with_key(&self, issuer: &Issuer) -> Session {
        self.app_with_jwk(&issuer.jwk().to_string())
    }

    /// An application's connection with this text as the startup key.
    pub fn app_with_jwk(&self, jwk: &str) -> Session {
        self.connect(APP_USER, &option("pg_session_jwt.jwk", jwk))
    }

    /// A connection as any role with any startup options.
    pub fn connect(&self, role: &str, options: &str) -> Session {
        Session::open(config(&self.name, role).options(options))
    }

    /// `ALTER DATABASE … SET`: what the administrator wants for every later connection.
    pub fn administrator_sets(&self, parameter: &str, value: &str) {
        let value = sql_text(value);
        let name = &self.name;
        self.superuser()
            .run(&format!("ALTER DATABASE {name} SET {parameter} = {value}"));
    }
}

impl Default for Database {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Best effort: a test that is already failing should say why, not fail here.
        let Ok(mut postgres) = config(&setting("PGDATABASE"), &setting("PGUSER")).connect(NoTls)
        else {
            return;
        };
        let name = &self.name;
        let _ = postgres.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
        for role in self.roles.lock().unwrap().iter() {
            let _ = postgres.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
        }
    }
}

fn maintenance() -> Session {
    Session::open(&config(&setting("PGDATABASE"), &setting("PGUSER")))
}
