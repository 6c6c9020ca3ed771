//! docs/guides: each page, played as a new user would, with nothing but its page, on a server of its own from an empty
//! database to the first authorised row.
//!
//! `:'alice'` in a block is a psql variable: the page says what to set it to, and the test sets it.

mod scale_out;

use std::path::{Path, PathBuf};

use harness::{Cluster, Issuer, Session, set_of, sql_text};

use crate::documents::{self, Block};

/// The pages, each with a test in a file of its own here.
const PAGES: [&str; 1] = ["scale-out"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides")
}

/// A page, and the server that its reader has.
pub struct Guide {
    pub server: Cluster,
    place: String,
    blocks: Vec<Block>,
    variables: Vec<(&'static str, String)>,
}

impl Guide {
    /// A page, and an empty server with what it wants in postgresql.conf.
    pub fn of(page: &str, settings: &str) -> Self {
        assert!(PAGES.contains(&page), "add {page} to PAGES");
        let file = folder().join(page).with_extension("md");
        let markdown = std::fs::read_to_string(&file).expect("a page");
        Self {
            server: Cluster::start(settings),
            place: file.display().to_string(),
            blocks: documents::blocks(&markdown),
            variables: Vec::new(),
        }
    }

    /// What a psql variable is set to.
    pub fn set(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((variable, value.into()));
        self
    }

    /// A new connection to the reader's database.
    pub fn connect(&self, role: &str) -> Session {
        self.server.connect("postgres", role)
    }

    /// Runs the blocks in their order, as superuser unless they say otherwise. `after` is called after each.
    pub fn play(&self, mut after: impl FnMut(&Block, &mut Session)) {
        let mut session = self.connect("postgres");
        for block in &self.blocks {
            if let Some(role) = block.directive("new connection") {
                session = self.connect(role.strip_prefix("as ").unwrap_or("postgres"));
            }
            if block.sql.contains("CREATE EXTENSION citus") {
                continue;
            }
            let mut sql = block.sql.clone();
            for (variable, value) in &self.variables {
                sql = sql.replace(&format!(":'{variable}'"), &sql_text(value));
            }
            let line = block.line;
            let place = format!("{}, line {line}", self.place);
            documents::run(&mut session, &Block { line, sql }, &place);
            after(block, &mut session);
        }
    }
}

/// Our keys in place of those that the issuer publishes, which this machine cannot fetch.
pub fn pin(session: &mut Session, issuer: &str, keys: &[&Issuer]) {
    session.run(&format!(
        "UPDATE auth.providers SET jwks = {} WHERE issuer = {}",
        sql_text(&set_of(keys)),
        sql_text(issuer)
    ));
}

#[test]
fn each_page_is_played() {
    let entries = std::fs::read_dir(folder()).expect("guides").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut pages: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(".md")?.to_owned()))
        .collect();
    pages.sort();
    assert_eq!(pages, PAGES);
}
