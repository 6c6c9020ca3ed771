//! Databases with another version of the extension than the current one.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Database, Session, sharedir};

/// The version that CREATE EXTENSION installs when it is not told which.
pub const CURRENT: &str = env!("CARGO_PKG_VERSION");

/// What the versions of Neon's extension, and our own released ones, left in a database.
const FIXTURES: [(&str, &str); 5] = [
    (
        "0.3.1",
        include_str!("../fixtures/pg_session_jwt--0.3.1.sql"),
    ),
    (
        "0.4.0",
        include_str!("../fixtures/pg_session_jwt--0.4.0.sql"),
    ),
    (
        "0.5.0",
        include_str!("../fixtures/pg_session_jwt--0.5.0.sql"),
    ),
    (
        "1.0.0",
        concat!(
            "CREATE SCHEMA auth;\n",
            include_str!("../../../sql/pg_session_jwt--0.5.0--1.0.0.sql")
        ),
    ),
    (
        "1.0.1",
        concat!(
            "CREATE SCHEMA auth;\n",
            include_str!("../../../sql/pg_session_jwt--0.5.0--1.0.1.sql")
        ),
    ),
];

/// Held by whoever installs a version by its number: all tests of a program share one directory of
/// scripts, and a fixture in it is an install script to everybody.
static SCRIPTS: Mutex<()> = Mutex::new(());

fn scripts() -> MutexGuard<'static, ()> {
    SCRIPTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fixture, where CREATE EXTENSION finds it.
struct Installable(PathBuf);

impl Installable {
    fn new(version: &str) -> Self {
        let (_, script) = FIXTURES
            .iter()
            .find(|(fixture, _)| *fixture == version)
            .expect("a fixture");
        let name = format!("extension/pg_session_jwt--{version}.sql");
        let path = sharedir().join(name);
        std::fs::write(&path, script).expect("PG_SHAREDIR/extension is writable");
        Self(path)
    }
}

impl Drop for Installable {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Database {
    /// A database as an older version left it: one of Neon's extension, or one of our own.
    pub fn left_by(version: &str) -> Self {
        let database = Self::without_extension();
        database.superuser().install_left_by(version);
        database
    }

    /// A database in which this version was asked for by its number.
    pub fn with_version(version: &str) -> Self {
        let database = Self::without_extension();
        database.superuser().install(version);
        database
    }
}

impl Session {
    /// Makes of the database what an older version left.
    #[track_caller]
    pub fn install_left_by(&mut self, version: &str) {
        let _scripts = scripts();
        let _installable = Installable::new(version);
        self.run(&format!(
            "CREATE EXTENSION pg_session_jwt VERSION '{version}'"
        ));
    }

    /// Installs a version by its number, from our own scripts.
    #[track_caller]
    pub fn install(&mut self, version: &str) {
        self.run_with_our_scripts(&format!(
            "CREATE EXTENSION pg_session_jwt VERSION '{version}'"
        ));
    }

    /// Runs statements that do so.
    #[track_caller]
    pub fn run_with_our_scripts(&mut self, sql: &str) {
        let _scripts = scripts();
        self.run(sql);
    }

    /// Updates the extension, or sets its version back.
    #[track_caller]
    pub fn update_to(&mut self, version: &str) {
        self.run(&format!(
            "ALTER EXTENSION pg_session_jwt UPDATE TO '{version}'"
        ));
    }

    /// The version of the extension in the database.
    #[track_caller]
    pub fn extension_version(&mut self) -> String {
        self.text("SELECT extversion FROM pg_extension WHERE extname = 'pg_session_jwt'")
    }
}
