//! README.md's SQL, pasted into psql as a reader would.
//!
//! Each block that begins with a line "```sql" is run, in order, as superuser in one fresh database;
//! consecutive blocks share a session. The first lines of a block may be comments that mean
//! something:
//!
//! - `-- fails: 28000` — the block ends in an error with this SQLSTATE;
//! - `-- new connection` — a new session begins here; `-- new connection as NAME` — as this role.
//!
//! A block that creates an extension which this server does not have is passed over.

use crate::cluster::Cluster;
use crate::problem::{Problem, Result};
use crate::psql::{self, Snippet};
use crate::shell::note;

/// A block of SQL in a Markdown file.
#[derive(Debug, Default, PartialEq)]
pub struct Block {
    /// The line of its opening fence.
    line: usize,
    text: String,
    /// The SQLSTATE that it must fail with.
    fails: Option<String>,
    /// It wants a new session, as this role.
    connect: Option<String>,
}

impl Block {
    /// The extensions that it creates.
    fn extensions(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(|line| {
            let rest = line.trim().strip_prefix("CREATE EXTENSION ")?;
            let rest = rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest);
            rest.split([' ', ';']).next()
        })
    }
}

/// Whether the server has this extension. Ours it must have: that it does not is no excuse.
fn offers(available: &str, name: &str) -> bool {
    name == "pg_session_jwt" || available.lines().any(|line| line == name)
}

/// Runs the blocks of `markdown`. Returns how many there were.
pub fn run(cluster: &Cluster, markdown: &str) -> Result<usize> {
    let available = cluster.sql("postgres", "SELECT name FROM pg_available_extensions")?;
    let mut blocks = blocks(markdown);
    blocks.retain(
        |block| match block.extensions().find(|name| !offers(&available, name)) {
            None => true,
            Some(name) => {
                note(format!(
                    "README.md, line {}: skipped, there is no {name} here",
                    block.line
                ));
                false
            }
        },
    );
    cluster.sql("postgres", "CREATE DATABASE readme TEMPLATE template0")?;
    let mut rest = &blocks[..];
    while let Some(first) = rest.first() {
        let more = rest[1..]
            .iter()
            .take_while(|block| block.connect.is_none())
            .count();
        let (session, after) = rest.split_at(1 + more);
        rest = after;
        let role = first.connect.as_deref().unwrap_or("postgres");
        let mut command = cluster.psql(role, "readme");
        command.arg("-q");
        let snippets: Vec<Snippet> = session
            .iter()
            .map(|block| Snippet {
                sql: &block.text,
                stop: block.fails.is_none(),
            })
            .collect();
        let mut answers = psql::session(&mut command, &snippets)?.into_iter();
        for block in session {
            let (text, sqlstate) = match answers.next() {
                Some(answer) => (answer.text, answer.sqlstate),
                None => (String::new(), None),
            };
            judge(block, sqlstate.as_deref(), &text)?;
        }
    }
    cluster.sql("postgres", "DROP DATABASE readme WITH (FORCE)")?;
    Ok(blocks.len())
}

fn judge(block: &Block, sqlstate: Option<&str>, text: &str) -> Result<()> {
    let expected = block.fails.as_deref().unwrap_or("00000");
    if sqlstate == Some(expected) {
        note(match &block.fails {
            Some(sqlstate) => format!("README.md, line {}: fails with {sqlstate}, ok", block.line),
            None => format!("README.md, line {}: ok", block.line),
        });
        return Ok(());
    }
    let what = match (sqlstate, &block.fails) {
        (Some("00000"), Some(wanted)) => format!("must fail with {wanted}, and does not"),
        (Some(got), Some(wanted)) => format!("must fail with {wanted}, and fails with {got}"),
        (None, _) if text.is_empty() => "was not reached: psql had ended".to_owned(),
        _ => "fails".to_owned(),
    };
    Err(Problem::new(format!(
        "README.md: the SQL block at line {} {what}",
        block.line
    ))
    .details(format!("{}\n--\n{text}", block.text.trim_end())))
}

/// Finds the blocks of SQL.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    // The fence that is open, and the block if it is one of SQL.
    let mut open: Option<(String, Option<Block>)> = None;
    for (index, line) in markdown.lines().enumerate() {
        let bare = line.trim_start();
        let ticks: String = bare.chars().take_while(|&c| c == '`').collect();
        let info = bare[ticks.len()..].trim();
        match &mut open {
            None if ticks.len() >= 3 => {
                let block = (info == "sql").then(|| Block {
                    line: index + 1,
                    ..Block::default()
                });
                open = Some((ticks, block));
            }
            None => {}
            Some((fence, block)) if ticks.len() >= fence.len() && info.is_empty() => {
                found.extend(block.take().map(directives));
                open = None;
            }
            Some((_, Some(block))) => block.text += &format!("{line}\n"),
            Some((_, None)) => {}
        }
    }
    found
}

/// Reads the comments at the top of a block.
fn directives(mut block: Block) -> Block {
    for line in block.text.lines() {
        let Some(comment) = line.trim().strip_prefix("--") else {
            break;
        };
        let comment = comment.trim();
        if let Some(sqlstate) = comment.strip_prefix("fails:") {
            block.fails = sqlstate.split_whitespace().next().map(String::from);
        } else if let Some(role) = comment.strip_prefix("new connection") {
            let role = role.trim().strip_prefix("as ").unwrap_or("postgres");
            block.connect = Some(role.trim().to_owned());
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_of_sql_count() {
        let text = "# x\n```sh\ncargo\n```\n```sql\nSELECT 1;\n\nSELECT 2;\n```\n````md\n```sql\nno\n```\n````\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 1);
        assert_eq!(
            (blocks[0].line, blocks[0].text.as_str()),
            (5, "SELECT 1;\n\nSELECT 2;\n")
        );
        assert_eq!((&blocks[0].fails, &blocks[0].connect), (&None, &None));
    }

    #[test]
    fn a_block_in_a_list_is_a_block() {
        let blocks = blocks("1. First\n   ```sql\n   SELECT 1;\n   ```\n2. Second\n");
        assert_eq!(blocks[0].text, "   SELECT 1;\n");
    }

    #[test]
    fn comments_at_the_top_mean_something() {
        let text = "```sql\n-- new connection as app\n-- fails: 28000 (no key)\nSELECT 1;\n-- fails: 1\n```\n\
                    ```sql\n-- new connection\nSELECT 2;\n```\n";
        let blocks = blocks(text);
        assert_eq!(blocks[0].fails.as_deref(), Some("28000"));
        assert_eq!(blocks[0].connect.as_deref(), Some("app"));
        assert_eq!(blocks[1].connect.as_deref(), Some("postgres"));
        assert_eq!(blocks[1].fails, None);
    }

    #[test]
    fn only_a_missing_extension_of_somebody_elses_is_an_excuse() {
        let block = Block {
            text: "CREATE EXTENSION IF NOT EXISTS pgtap;\n-- CREATE EXTENSION x\n  CREATE EXTENSION pg_session_jwt;\n".into(),
            ..Block::default()
        };
        let missing = |available: &str| -> Vec<String> {
            block
                .extensions()
                .filter(|name| !offers(available, name))
                .map(String::from)
                .collect()
        };
        assert_eq!(missing("plpgsql\nhstore"), ["pgtap"]);
        assert_eq!(missing("plpgsql\npgtap"), [""; 0]);
    }

    #[test]
    fn the_verdict_is_the_sqlstate() {
        let fine = Block::default();
        let fails = Block {
            fails: Some("28000".into()),
            ..Block::default()
        };
        assert!(judge(&fine, Some("00000"), "").is_ok());
        assert!(judge(&fine, Some("42501"), "ERROR").is_err());
        assert!(judge(&fine, None, "").is_err());
        assert!(judge(&fails, Some("28000"), "ERROR").is_ok());
        assert!(judge(&fails, Some("00000"), "").is_err());
        assert!(judge(&fails, Some("22023"), "").is_err());
    }
}
