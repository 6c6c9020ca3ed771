//! The SQL of README.md and docs, run as a reader would: each page in a database of its own, its blocks in
//! order, as superuser. The first lines of a block may be comments that mean something:
//!
//! - `-- fails: 28000`: the block ends in an error with this SQLSTATE;
//! - `-- new connection`: a new session begins here; `-- new connection as NAME`: as this role.
//!
//! A comment after the semicolon of a SELECT is its first row. A block that creates an extension which this
//! server does not have is left out. The pages in docs/guides are played in `guides`.

use std::path::{Path, PathBuf};

use harness::{Database, Session, setting};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

/// A block of code in a page, of SQL unless it says otherwise.
#[derive(Default)]
pub struct Block {
    pub line: usize,
    pub sql: String,
}

impl Block {
    /// What follows these words in a comment at the top.
    pub fn directive(&self, words: &str) -> Option<&str> {
        let comments = self.sql.lines().map_while(|line| line.strip_prefix("-- "));
        comments
            .into_iter()
            .find_map(|line| Some(line.strip_prefix(words)?.trim()))
    }

    /// The extension that it creates.
    fn extension(&self) -> Option<&str> {
        let (_, rest) = self.sql.split_once("CREATE EXTENSION ")?;
        rest.strip_prefix("IF NOT EXISTS ")
            .unwrap_or(rest)
            .split([' ', ';'])
            .next()
    }
}

/// The blocks of SQL in a page.
pub fn blocks(markdown: &str) -> Vec<Block> {
    fenced(markdown, "sql")
}

/// The blocks of this language; empty for those that name none.
pub fn fenced(markdown: &str, language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open = None;
    for (event, range) in Parser::new(markdown).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) if &*info == language => {
                let line = markdown[..range.start].matches('\n').count() + 1;
                open = Some(Block {
                    line,
                    ..Block::default()
                });
            }
            Event::Text(text) => {
                if let Some(block) = &mut open {
                    block.sql += &text;
                }
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            _ => {}
        }
    }
    blocks
}

/// The statements of a block and, where a comment says so, the row that each answers. A statement ends with a
/// line that ends in a semicolon, outside of `$$`.
fn statements(sql: &str) -> Vec<(String, Option<&str>)> {
    let mut statements = Vec::new();
    let mut text = String::new();
    for line in sql.lines() {
        let (code, comment) = match line.split_once("; --") {
            Some((code, comment)) => (format!("{code};"), Some(comment.trim())),
            None => (line.to_owned(), None),
        };
        text += &code;
        text.push('\n');
        if code.trim_end().ends_with(';') && text.matches("$$").count().is_multiple_of(2) {
            let is_query = text.trim_start().starts_with("SELECT");
            statements.push((std::mem::take(&mut text), comment.filter(|_| is_query)));
        }
    }
    assert_eq!(text.trim(), "", "the last statement has no end");
    statements
}

/// Runs a block, and checks what its comments say.
pub fn run(session: &mut Session, block: &Block, place: &str) {
    let wanted = block
        .directive("fails:")
        .and_then(|text| text.split(' ').next());
    for (sql, row) in statements(&block.sql) {
        match session.try_rows(&sql) {
            Ok(rows) => {
                if let Some(row) = row {
                    let cells = rows.first().into_iter().flatten();
                    let cells = cells.map(|cell| cell.as_deref().unwrap_or("NULL"));
                    assert_eq!(cells.collect::<Vec<_>>().join(", "), row, "{place}: {sql}");
                }
            }
            Err(refusal) => {
                assert_eq!(
                    Some(&*refusal.sqlstate),
                    wanted,
                    "{place}: {sql}{refusal:?}"
                );
                return;
            }
        }
    }
    assert_eq!(wanted, None, "{place} should fail");
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let entries = std::fs::read_dir(root.join("docs")).into_iter().flatten();
    let files = entries.flatten().map(|entry| entry.path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "md");
    let mut pages: Vec<_> = files.filter(is_page).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

#[test]
fn the_sql_of_every_page_runs_as_printed() {
    for page in pages() {
        let markdown = std::fs::read_to_string(&page).expect("a page");
        let db = Database::without_extension();
        let mut session = db.superuser();
        for block in blocks(&markdown) {
            let place = format!("{}, line {}", page.display(), block.line);
            if let Some(name) = block.extension().filter(|name| *name != "pg_session_jwt") {
                let offered =
                    format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'");
                if session.text(&offered) == "0" {
                    println!("{place}: left out, there is no {name} here");
                    continue;
                }
            }
            if let Some(role) = block.directive("new connection") {
                let role = role
                    .strip_prefix("as ")
                    .map_or_else(|| setting("PGUSER"), str::to_owned);
                session = db.connect(&role, "");
            }
            run(&mut session, &block, &place);
        }
    }
}

#[test]
fn a_block_is_what_a_reader_sees_as_one() {
    let text = "# x\n```sh\ncargo\n```\n1. A\n   ```sql\n   -- fails: 28000 (no key)\n   SELECT 1;\n\n   SELECT 2; -- 2\n   ```\n\
                ````md\n```sql\nno\n```\n````\n```sql\nDO $$ BEGIN\nNULL;\nEND $$;\nCREATE EXTENSION IF NOT EXISTS x;\n```\n";
    let blocks = blocks(text);
    assert_eq!(blocks.len(), 2);
    assert_eq!(blocks[0].line, 6);
    assert_eq!(blocks[0].directive("fails:"), Some("28000 (no key)"));
    let [(one, None), (two, Some("2"))] = &statements(&blocks[0].sql)[..] else {
        panic!("{}", blocks[0].sql)
    };
    assert_eq!(
        (one.trim(), two.trim()),
        ("-- fails: 28000 (no key)\nSELECT 1;", "SELECT 2;")
    );
    assert_eq!(statements(&blocks[1].sql).len(), 2);
    assert_eq!(blocks[1].extension(), Some("x"));
}
