//! docs/guides: each page, played as a new user would, with nothing but its page, on a server of its own from an empty
//! database to the first authorised row.
//!
//! `:'alice'` in a block is a psql variable: the page says what to set it to, and the test sets it. The address of an
//! issuer, which this machine cannot reach, is replaced by one on loopback ([`Provider`]). All else is as printed, the
//! lines for postgresql.conf too. The JavaScript and Python of these pages runs in tests/clients.

mod clerk;
mod clerk_jwt_template;
mod clerk_neon;
mod moving_over;
mod pooling;
mod postgrest;
mod provider;
mod scale_out;
mod workos;

use std::path::{Path, PathBuf};

use harness::{Cluster, Session, sql_text};

use crate::documents::{self, Block};

pub use provider::{Provider, documented, refuses_what_is_not_a_good_token, request, seen};

/// The pages, each with a test in a file of its own here.
const PAGES: [&str; 8] = [
    "clerk",
    "clerk-jwt-template",
    "clerk-neon",
    "moving-over",
    "pooling",
    "postgrest",
    "scale-out",
    "workos",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides")
}

fn read(page: &str) -> (String, String) {
    assert!(PAGES.contains(&page), "add {page} to PAGES");
    let file = folder().join(page).with_extension("md");
    let markdown = std::fs::read_to_string(&file).expect("a page");
    (file.display().to_string(), markdown)
}

/// A page, and the server that its reader has.
pub struct Guide {
    pub server: Cluster,
    pub markdown: String,
    place: String,
    blocks: Vec<Block>,
    replaced: Vec<(String, String)>,
}

impl Guide {
    /// A page, and an empty server with what it wants in postgresql.conf.
    pub fn of(page: &str, settings: &str) -> Self {
        let (place, markdown) = read(page);
        Self {
            server: Cluster::start(settings),
            place,
            blocks: documents::blocks(&markdown),
            markdown,
            replaced: Vec::new(),
        }
    }

    /// A page, and an empty server with the page's own lines in postgresql.conf.
    pub fn printed(page: &str) -> Self {
        let lines = documents::fenced(&read(page).1, "ini");
        let lines: Vec<String> = lines.into_iter().map(|block| block.sql).collect();
        Self::of(page, &lines.concat())
    }

    /// What a psql variable is set to.
    pub fn set(self, variable: &str, value: &str) -> Self {
        self.instead_of(&format!(":'{variable}'"), &sql_text(value))
    }

    /// What stands in the page, and what it is here.
    pub fn instead_of(mut self, printed: &str, here: &str) -> Self {
        assert!(
            self.blocks.iter().any(|block| block.sql.contains(printed)),
            "{} has no {printed}",
            self.place
        );
        self.replaced.push((printed.to_owned(), here.to_owned()));
        self
    }

    /// The page's only block without a language that begins so.
    pub fn unmarked(&self, beginning: &str) -> String {
        let mut blocks = documents::fenced(&self.markdown, "");
        blocks.retain(|block| block.sql.starts_with(beginning));
        assert_eq!(blocks.len(), 1, "{beginning}");
        blocks.remove(0).sql
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
            let mut sql = block.sql.clone();
            for (printed, here) in &self.replaced {
                sql = sql.replace(printed, here);
            }
            let line = block.line;
            let place = format!("{}, line {line}", self.place);
            documents::run(&mut session, &Block { line, sql }, &place);
            after(block, &mut session);
        }
    }
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
