//! The server under test: a database for each test, and connections to it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::{Issuer, Refusal};

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

/// A literal for SQL text.
pub fn sql_text(text: &str) -> String {
    assert!(!text.contains('\0'), "SQL text cannot hold a NUL");
    let quoted = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{quoted}'")
}

/// A startup option, as libpq's `options=` wants it: words end at a space unless a backslash is
/// before it.
pub fn option(name: &str, value: &str) -> String {
    let mut option = format!("-c {name}=");
    for c in value.chars() {
        if c.is_ascii_whitespace() || c == '\\' {
            option.push('\\');
        }
        option.push(c);
    }
    option
}

/// Memory that belongs to a backend alone, in KiB.
pub fn backend_memory_kib(pid: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a Linux /proc");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
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

/// One connection.
pub struct Session {
    /// The driver's client, for the extended protocol.
    pub client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Session {
    pub(crate) fn open(config: &Config) -> Self {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notices);
        let mut config = config.clone();
        config.notice_callback(move |notice| {
            let line = format!("{}: {}", notice.severity(), notice.message());
            heard.lock().unwrap().push(line);
        });
        let client = config
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("no connection: {error:?}"));
        Self { client, notices }
    }

    /// Runs statements that must succeed (simple protocol).
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        if let Err(refusal) = self.try_run(sql) {
            panic!("refused: {sql}\n{refusal:?}");
        }
    }

    /// Runs statements; what the server said if it refused them.
    pub fn try_run(&mut self, sql: &str) -> Result<(), Refusal> {
        self.try_rows(sql).map(drop)
    }

    /// The refusal of statements that must fail.
    #[track_caller]
    pub fn refused(&mut self, sql: &str) -> Refusal {
        match self.try_rows(sql) {
            Ok(rows) => panic!("should have been refused, but answered {rows:?}: {sql}"),
            Err(refusal) => refusal,
        }
    }

    /// Every row, every column as text.
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Refusal> {
        let messages = self.client.simple_query(sql);
        let messages = messages.map_err(|error| Refusal::from_error(&error))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |row: &postgres::SimpleQueryRow, i| row.get(i).map(str::to_owned);
        Ok(rows
            .map(|row| (0..row.len()).map(|i| text(row, i)).collect())
            .collect())
    }

    /// Every row of a query that must succeed, its columns joined by `|`, NULL as `NULL`.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<String> {
        let rows = self
            .try_rows(sql)
            .unwrap_or_else(|refusal| panic!("refused: {sql}\n{refusal:?}"));
        rows.into_iter()
            .map(|row| {
                let columns = row.into_iter().map(|c| c.unwrap_or("NULL".to_owned()));
                columns.collect::<Vec<_>>().join("|")
            })
            .collect()
    }

    /// The first column of the last row; None for NULL.
    pub fn try_value(&mut self, sql: &str) -> Result<Option<String>, Refusal> {
        let rows = self.try_rows(sql)?;
        Ok(rows.into_iter().next_back().and_then(|row| row[0].clone()))
    }

    /// The one value of a query that must succeed; None for NULL.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> Option<String> {
        self.try_value(sql)
            .unwrap_or_else(|refusal| panic!("refused: {sql}\n{refusal:?}"))
    }

    /// The one value of a query that must be neither refused nor NULL.
    #[track_caller]
    pub fn text(&mut self, sql: &str) -> String {
        self.value(sql)
            .unwrap_or_else(|| panic!("NULL or no row: {sql}"))
    }

    /// `auth.user_id()`
    #[track_caller]
    pub fn user_id(&mut self) -> Option<String> {
        self.value("SELECT auth.user_id()")
    }

    /// It is this user and, if the database has `todos`, sees what this user may see.
    #[track_caller]
    pub fn assert_user(&mut self, user: &str) {
        assert_eq!(self.user_id().as_deref(), Some(user));
    }

    /// It is nobody.
    #[track_caller]
    pub fn assert_nobody(&mut self) {
        assert_eq!(self.user_id(), None);
    }

    /// Presents a token, which must be accepted.
    #[track_caller]
    pub fn present(&mut self, token: &str) {
        self.run(&present_sql(token));
    }

    /// Presents a token, which must be rejected.
    #[track_caller]
    pub fn rejected(&mut self, token: &str) -> Refusal {
        self.refused(&present_sql(token))
    }

    /// The tasks in `todos` that this session sees.
    #[track_caller]
    pub fn tasks(&mut self) -> Vec<String> {
        self.rows("SELECT task FROM public.todos ORDER BY id")
    }

    /// The process id of its backend.
    pub fn pid(&mut self) -> String {
        self.text("SELECT pg_backend_pid()")
    }

    /// The notices and warnings that have come since the last call: `WARNING: …`.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap())
    }
}

fn present_sql(token: &str) -> String {
    format!("SELECT auth.jwt_session_init({})", sql_text(token))
}
