//! `cargo xtask demo`: the to-do application of Neon's guide for Clerk, played in psql.
//!
//! What it prints is what psql printed, with the tokens shortened; every answer is compared with
//! the expected one.

mod token;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::DemoOptions;
use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::postgres::{self, Postgres};
use crate::problem::{Context, Problem, Result};
use crate::psql::{self, Snippet};
use crate::shell::{self, note, say};
use token::{Key, key_set, shortened, startup_option};

const ADA: &str = "user_2ada0000000000000000000000";
const BEN: &str = "user_2ben0000000000000000000000";

/// The answer that a statement must have.
enum Expect {
    /// This command tag: `INSERT 0 1`.
    Tag(&'static str),
    /// These rows, cells separated by ` | `.
    Rows(Vec<String>),
    /// An error with this SQLSTATE and first line.
    Error(&'static str, &'static str),
}

/// A statement, what to say before it, and what it must answer.
struct Line {
    comment: &'static str,
    sql: String,
    expect: Expect,
}

/// What happens in one connection, line by line.
#[derive(Default)]
struct Scene {
    lines: Vec<Line>,
    comment: &'static str,
}

impl Scene {
    /// A comment above the next statement.
    fn say(mut self, comment: &'static str) -> Self {
        self.comment = comment;
        self
    }

    fn add(mut self, sql: impl Into<String>, expect: Expect) -> Self {
        let comment = std::mem::take(&mut self.comment);
        self.lines.push(Line {
            comment,
            sql: sql.into(),
            expect,
        });
        self
    }

    fn tag(self, sql: &str, tag: &'static str) -> Self {
        self.add(sql, Expect::Tag(tag))
    }

    fn rows(self, sql: &str, rows: &[&str]) -> Self {
        self.add(
            sql,
            Expect::Rows(rows.iter().map(|row| (*row).to_owned()).collect()),
        )
    }

    fn error(self, sql: &str, sqlstate: &'static str, line: &'static str) -> Self {
        self.add(sql, Expect::Error(sqlstate, line))
    }

    /// A transaction begins as an application's does: a role without rights of its own, a token.
    fn begin(self) -> Self {
        self.tag("BEGIN;", "BEGIN")
            .tag("SET LOCAL ROLE authenticated;", "SET")
    }

    fn sign_in(self, token: &str) -> Self {
        let sql = format!("SELECT auth.jwt_session_init('{token}', true);");
        self.rows(&sql, &[""])
    }
}

/// Builds, installs, starts and plays.
pub fn run(options: &DemoOptions) -> Result<()> {
    let mut machine = Machine::look()?;
    machine.build_tools()?;
    let postgres = choose(&machine, options.pg)?;
    // Into a private copy the tests install as well, which must not happen under our server.
    let private = postgres.pg_config.starts_with(&machine.cache);
    let _lock = if private {
        Some(machine.lock(&postgres.label())?)
    } else {
        None
    };
    install(&machine, &postgres)?;
    say(format!(
        "Starting a throwaway Postgres {} on a free port (3 seconds)",
        postgres.major
    ));
    let cluster = Cluster::start(&machine, &postgres)?;
    note(format!("listening on 127.0.0.1:{}", cluster.port));

    let play = Play::new()?;
    play.perform(&cluster)?;
    play.hand_out(&cluster)?;

    let directory = cluster.directory().display().to_string();
    let psql = format!(
        "PGOPTIONS=\"$(cat {directory}/pgoptions)\" {} -h 127.0.0.1 -p {} -U app todo",
        shell::quote(&postgres.program("psql").display().to_string()),
        cluster.port
    );
    say("Every answer was the expected one");
    if options.keep {
        let stop = cluster.keep(&machine, &postgres)?;
        note(
            "The server stays up. In psql, this is how to be Ada (her token is good for an hour):",
        );
        println!("      \\set ada `cat {directory}/ada.jwt`");
        println!("      BEGIN;  SET LOCAL ROLE authenticated;");
        println!("      SELECT auth.jwt_session_init(:'ada', true);  TABLE todos;  COMMIT;");
        note("To stop the server and remove it:");
        println!("      {stop}");
        note("To open psql on it:");
    } else {
        drop(cluster);
        note(
            "The server is gone. `cargo xtask demo --keep` leaves it up, and ends with the line that",
        );
        note("opens psql on it. For this one that was:");
    }
    println!("      {psql}");
    Ok(())
}

/// The Postgres to install into: the system's if we may, otherwise a private copy.
fn choose(machine: &Machine, wanted: Option<u16>) -> Result<Postgres> {
    let may = |postgres: &Postgres| {
        machine.root || machine.sudo || postgres.pg_config.starts_with(&machine.cache)
    };
    match postgres::system(machine, wanted)? {
        Some(postgres) if may(&postgres) => Ok(postgres),
        Some(postgres) => {
            note(format!(
                "Installing into {} takes root or sudo: a private copy is used instead.",
                postgres.modules.display()
            ));
            postgres::private(machine, postgres.major)
        }
        // Neither installed nor offered by apt.
        None => postgres::private(machine, wanted.unwrap_or(16)),
    }
}

/// Installs a release build.
pub fn install(machine: &Machine, postgres: &Postgres) -> Result<()> {
    say(format!(
        "Building a release and installing it into {} (5 minutes the first time, then seconds)",
        postgres.modules.display()
    ));
    let mut install = postgres.cargo_pgrx(machine)?;
    install
        .args(["install", "--release", "--pg-config"])
        .arg(&postgres.pg_config);
    install.args(["--no-default-features", "--features", &postgres.label()]);
    if !machine.root && !postgres.pg_config.starts_with(&machine.cache) {
        install.arg("--sudo");
    }
    shell::loud(&mut install, "building and installing the extension")
}

/// The keys and tokens of one performance.
struct Play {
    keys: String,
    ada: String,
    ben: String,
    forged: String,
    expired: String,
}

impl Play {
    fn new() -> Result<Self> {
        let old = Key::new("ins_2demoOld", include_bytes!("demo/DEMO-ONLY-key-a.pk8"))?;
        let new = Key::new("ins_2demoNew", include_bytes!("demo/DEMO-ONLY-key-b.pk8"))?;
        let forger = Key::new(new.id, include_bytes!("demo/DEMO-ONLY-forger.pk8"))?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        // Clerk's live for a minute; these for an hour, so that there is time to play with them.
        let hour = 3600;
        Ok(Self {
            keys: key_set(&[&old, &new]),
            ada: old.token(ADA, now, hour)?,
            ben: new.token(BEN, now, hour)?,
            forged: forger.token(ADA, now, hour)?,
            expired: new.token(ADA, now - 2 * hour, hour)?,
        })
    }

    /// Lays keys and tokens beside the cluster, for whoever goes on in psql.
    fn hand_out(&self, cluster: &Cluster) -> Result<()> {
        let options = startup_option("pg_session_jwt.jwk", &self.keys);
        for (name, text) in [
            ("pgoptions", &options),
            ("ada.jwt", &self.ada),
            ("ben.jwt", &self.ben),
        ] {
            let path = cluster.directory().join(name);
            fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn perform(&self, cluster: &Cluster) -> Result<()> {
        cluster.sql("postgres", "CREATE DATABASE todo")?;
        say("The owner of the database makes the table and its policies");
        self.play(cluster, "postgres", owner())?;
        say(
            "Ada: her application's connection brings the issuer's public keys, her query her token",
        );
        note(format!(
            "PGOPTIONS='-c pg_session_jwt.jwk={}…'",
            &self.keys[..60.min(self.keys.len())]
        ));
        self.play(cluster, "app", self.ada_first())?;
        say("Ben, in another connection");
        self.play(cluster, "app", self.ben())?;
        say("Ada again");
        self.play(cluster, "app", self.ada_again())?;
        say(
            "Mallory has no token of Ada's, and makes one: her name, the issuer's key id, his own key",
        );
        self.play(cluster, "app", self.mallory())?;
        say("A token of Ada's that expired an hour ago");
        self.play(cluster, "app", self.expired())?;
        say("No token at all");
        self.play(cluster, "app", nobody())?;
        say("What the owner of the database sees, whom the policies do not bind");
        self.play(cluster, "postgres", everything())
    }

    /// Plays a scene in a connection of its own, showing it as psql would.
    fn play(&self, cluster: &Cluster, user: &str, scene: Scene) -> Result<()> {
        let mut command = cluster.psql(user, "todo");
        command.args(["-P", "null=(null)"]);
        let prompt = if user == "postgres" {
            "todo=#"
        } else {
            command.env(
                "PGOPTIONS",
                startup_option("pg_session_jwt.jwk", &self.keys),
            );
            "todo=>"
        };
        let snippets: Vec<Snippet> = scene
            .lines
            .iter()
            .map(|line| Snippet {
                sql: &line.sql,
                stop: false,
            })
            .collect();
        let mut answers = psql::session(&mut command, &snippets)?.into_iter();
        println!();
        for line in &scene.lines {
            if !line.comment.is_empty() {
                println!("{prompt} -- {}", line.comment);
            }
            println!(
                "{prompt} {}",
                self.hide(&line.sql).replace('\n', "\ntodo-> ")
            );
            let Some(answer) = answers.next() else {
                return Err(Problem::new("psql ended before it had run everything"));
            };
            print!("{}", self.hide(&answer.text));
            line.expect.check(&answer).map_err(|expected| {
                Problem::new("the demo got another answer than it should")
                    .command(self.hide(&line.sql))
                    .details(format!(
                        "{} (SQLSTATE {})\nexpected: {expected}",
                        self.hide(answer.text.trim_end()),
                        answer.sqlstate.as_deref().unwrap_or("none: psql ended")
                    ))
            })?;
        }
        Ok(())
    }

    /// The text without its tokens.
    fn hide(&self, text: &str) -> String {
        [&self.ada, &self.ben, &self.forged, &self.expired]
            .into_iter()
            .fold(text.to_owned(), |text, token| {
                text.replace(token, &shortened(token))
            })
    }

    fn ada_first(&self) -> Scene {
        Scene::default()
            .say("The role may touch the table; which rows, her verified token decides.")
            .begin()
            .sign_in(&self.ada)
            .rows("SELECT auth.user_id();", &[ADA])
            .tag(
                "INSERT INTO todos (task) VALUES ('Buy milk'), ('Call Ben');",
                "INSERT 0 2",
            )
            .rows(MINE, &["1 | Buy milk | f", "2 | Call Ben | f"])
            .tag("COMMIT;", "COMMIT")
            .say("The token was for that transaction only: a pooled connection forgets it.")
            .rows("SELECT auth.user_id();", &["(null)"])
    }

    fn ben(&self) -> Scene {
        Scene::default()
            .say("His token is signed with the issuer's other key. He sees nothing of Ada's.")
            .begin()
            .sign_in(&self.ben)
            .rows(MINE, &[])
            .tag(
                "INSERT INTO todos (task) VALUES ('Water the plants');",
                "INSERT 0 1",
            )
            .rows(MINE, &["3 | Water the plants | f"])
            .say("Ada's rows are not there for him to change.")
            .tag(
                "UPDATE todos SET is_complete = true WHERE id = 1;",
                "UPDATE 0",
            )
            .tag("DELETE FROM todos WHERE id = 1;", "DELETE 0")
            .tag("COMMIT;", "COMMIT")
            .say("Nor can he put words into her mouth.")
            .begin()
            .sign_in(&self.ben)
            .error(
                &format!("INSERT INTO todos (user_id, task) VALUES ('{ADA}', 'Pay Ben');"),
                "42501",
                r#"ERROR:  new row violates row-level security policy for table "todos""#,
            )
            .tag("ROLLBACK;", "ROLLBACK")
    }

    fn ada_again(&self) -> Scene {
        Scene::default()
            .begin()
            .sign_in(&self.ada)
            .tag(
                "UPDATE todos SET is_complete = true WHERE task = 'Buy milk';",
                "UPDATE 1",
            )
            .rows(MINE, &["1 | Buy milk | t", "2 | Call Ben | f"])
            .tag("DELETE FROM todos WHERE task = 'Call Ben';", "DELETE 1")
            .tag("COMMIT;", "COMMIT")
            .say("She may change and delete her own rows, but not make one somebody else's.")
            .begin()
            .sign_in(&self.ada)
            .error(
                &format!("UPDATE todos SET user_id = '{BEN}' WHERE id = 1;"),
                "42501",
                r#"ERROR:  new row violates row-level security policy for table "todos""#,
            )
            .tag("ROLLBACK;", "ROLLBACK")
    }

    fn mallory(&self) -> Scene {
        self.refused(&self.forged, "ERROR:  invalid JWT signature")
            .say("He is nobody, and nobody sees nothing.")
            .begin()
            .rows(
                "SELECT auth.user_id(), count(*) FROM todos;",
                &["(null) | 0"],
            )
            .tag("COMMIT;", "COMMIT")
    }

    fn expired(&self) -> Scene {
        self.refused(&self.expired, "ERROR:  Token used after it has expired")
    }

    fn refused(&self, token: &str, error: &'static str) -> Scene {
        Scene::default()
            .begin()
            .error(
                &format!("SELECT auth.jwt_session_init('{token}', true);"),
                "28000",
                error,
            )
            .tag("ROLLBACK;", "ROLLBACK")
    }
}

const MINE: &str = "SELECT id, task, is_complete FROM todos ORDER BY id;";

fn owner() -> Scene {
    Scene::default()
        .tag("CREATE EXTENSION pg_session_jwt;", "CREATE EXTENSION")
        .tag("CREATE ROLE authenticated NOLOGIN;", "CREATE ROLE")
        .tag("CREATE ROLE anonymous NOLOGIN;", "CREATE ROLE")
        .say("What the application connects as. It has no rights but those two roles'.")
        .tag(
            "CREATE ROLE app LOGIN NOINHERIT IN ROLE authenticated, anonymous;",
            "CREATE ROLE",
        )
        .tag(
            "CREATE TABLE todos (\n    \
                 id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,\n    \
                 user_id text NOT NULL DEFAULT (auth.user_id()),\n    \
                 task text NOT NULL CHECK (task <> ''),\n    \
                 is_complete boolean NOT NULL DEFAULT false,\n    \
                 inserted_at timestamptz NOT NULL DEFAULT now()\n\
             );",
            "CREATE TABLE",
        )
        .tag(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO authenticated;",
            "GRANT",
        )
        .tag(
            "ALTER TABLE todos ENABLE ROW LEVEL SECURITY;",
            "ALTER TABLE",
        )
        .tag(
            "CREATE POLICY \"view todos\" ON todos FOR SELECT TO authenticated\n    \
                 USING (auth.user_id() = user_id);",
            "CREATE POLICY",
        )
        .tag(
            "CREATE POLICY \"create todos\" ON todos FOR INSERT TO authenticated\n    \
                 WITH CHECK (auth.user_id() = user_id);",
            "CREATE POLICY",
        )
        .tag(
            "CREATE POLICY \"update todos\" ON todos FOR UPDATE TO authenticated\n    \
                 USING (auth.user_id() = user_id) WITH CHECK (auth.user_id() = user_id);",
            "CREATE POLICY",
        )
        .tag(
            "CREATE POLICY \"delete todos\" ON todos FOR DELETE TO authenticated\n    \
                 USING (auth.user_id() = user_id);",
            "CREATE POLICY",
        )
}

fn nobody() -> Scene {
    Scene::default()
        .begin()
        .rows("SELECT auth.user_id();", &["(null)"])
        .rows(MINE, &[])
        .error(
            "INSERT INTO todos (task) VALUES ('Hello?');",
            "42501",
            r#"ERROR:  new row violates row-level security policy for table "todos""#,
        )
        .tag("ROLLBACK;", "ROLLBACK")
        .say("A role that was granted nothing does not get that far.")
        .tag("BEGIN;", "BEGIN")
        .tag("SET LOCAL ROLE anonymous;", "SET")
        .error(MINE, "42501", "ERROR:  permission denied for table todos")
        .tag("ROLLBACK;", "ROLLBACK")
}

fn everything() -> Scene {
    let row =
        |id: u8, user: &str, task: &str, done: &str| format!("{id} | {user} | {task} | {done}");
    let rows = vec![
        row(1, ADA, "Buy milk", "t"),
        row(3, BEN, "Water the plants", "f"),
    ];
    Scene::default().add(
        "SELECT id, user_id, task, is_complete FROM todos ORDER BY id;",
        Expect::Rows(rows),
    )
}

impl Expect {
    /// Compares; the error says what was expected.
    fn check(&self, answer: &psql::Answer) -> std::result::Result<(), String> {
        let sqlstate = answer.sqlstate.as_deref();
        let (fits, expected) = match self {
            Self::Tag(tag) => (
                sqlstate == Some("00000") && answer.text.trim() == *tag,
                (*tag).to_owned(),
            ),
            Self::Rows(wanted) => (
                sqlstate == Some("00000") && rows(&answer.text).as_ref() == Some(wanted),
                format!("{} rows: {wanted:?}", wanted.len()),
            ),
            Self::Error(state, line) => (
                sqlstate == Some(state) && answer.text.lines().next() == Some(line),
                format!("{line} (SQLSTATE {state})"),
            ),
        };
        if fits { Ok(()) } else { Err(expected) }
    }
}

/// The rows of a table that psql printed.
fn rows(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines().skip(1).peekable();
    lines.next().filter(|line| line.starts_with('-'))?;
    let mut rows = Vec::new();
    for line in lines {
        if line.starts_with('(') && (line.ends_with(" rows)") || line == "(1 row)") {
            return Some(rows);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        rows.push(cells.join(" | "));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, sqlstate: &str) -> psql::Answer {
        psql::Answer {
            text: text.into(),
            sqlstate: Some(sqlstate.into()),
        }
    }

    #[test]
    fn a_table_is_read_back() {
        let text = " id |   task   \n----+----------\n  1 | Buy milk\n  2 | \n(2 rows)\n\n";
        assert_eq!(rows(text).unwrap(), ["1 | Buy milk", "2 | "]);
        assert_eq!(rows(" id \n----\n(0 rows)\n\n").unwrap(), [""; 0]);
        assert_eq!(rows(" init \n------\n \n(1 row)\n\n").unwrap(), [""]);
        assert_eq!(rows("INSERT 0 1\n"), None);
    }

    #[test]
    fn another_answer_is_an_error() {
        assert!(
            Expect::Tag("UPDATE 0")
                .check(&answer("UPDATE 0\n", "00000"))
                .is_ok()
        );
        assert!(
            Expect::Tag("UPDATE 0")
                .check(&answer("UPDATE 1\n", "00000"))
                .is_err()
        );
        let refused = Expect::Error("28000", "ERROR:  invalid JWT signature");
        let text = "ERROR:  invalid JWT signature\nDETAIL:  signature: …\n";
        assert!(refused.check(&answer(text, "28000")).is_ok());
        assert!(refused.check(&answer(text, "XX000")).is_err());
        assert!(
            refused
                .check(&answer(" x \n---\n \n(1 row)\n", "00000"))
                .is_err()
        );
    }

    #[test]
    fn no_token_is_shown() {
        let play = Play::new().unwrap();
        let shown = play.hide(&format!("SELECT '{}', '{}'", play.ada, play.forged));
        assert!(
            !shown.contains(&play.ada) && !shown.contains(&play.forged),
            "{shown}"
        );
    }
}
