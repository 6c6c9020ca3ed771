//! pgbench: a transaction that reads ten rows through row-level security.

use std::fs;
use std::process::Command;

use super::backend::Backend;
use super::table::{Table, median, median_ratio, number};
use super::{Bench, DATABASE, UNVERIFIED, USERS};
use crate::cluster::forget_postgres_variables;
use crate::postgres::Postgres;
use crate::problem::{Context, Problem, Result};
use crate::shell;

/// How long each run takes: ten seconds; two, where somebody only tries it out with fewer rounds.
fn seconds(rounds: usize) -> u32 {
    if rounds < 5 { 2 } else { 10 }
}

/// The table that transactions read, and roles to read it as.
pub fn tables(backend: &mut Backend) -> Result<()> {
    backend.run(&format!(
        "CREATE TABLE notes AS
         SELECT i AS id, sub AS user_id, sub::uuid AS uid, 'note number ' || i AS body
         FROM generate_series(0, {USERS} * 10 - 1) i JOIN tokens ON alg = 'RS256' AND n = i % {USERS};
         CREATE INDEX ON notes (user_id); CREATE INDEX ON notes (uid);
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE ROLE app_ours LOGIN; CREATE ROLE app_supabase LOGIN; CREATE ROLE app_open LOGIN BYPASSRLS;
         GRANT SELECT ON notes TO app_ours, app_supabase, app_open;
         CREATE POLICY ours ON notes TO app_ours USING (auth.user_id() = user_id);
         CREATE POLICY supabase ON notes TO app_supabase USING ((select public.supabase_uid()) = uid)"
    ))?;
    backend.run("VACUUM (FREEZE, ANALYZE) notes")?;
    Ok(())
}

/// A way to run the transaction.
struct Variant {
    name: &'static str,
    user: &'static str,
    database: &'static str,
    /// Presents the user's token or claims.
    present: &'static str,
    read: &'static str,
}

/// The one that the others are measured by.
const REFERENCE: usize = 1;

const VARIANTS: [Variant; 4] = [
    Variant {
        name: "no security: `WHERE user_id = $1`",
        user: "app_open",
        database: DATABASE,
        present: "SELECT sub, claims FROM tokens WHERE alg = 'RS256' AND n = :n \\gset",
        read: "SELECT id, body FROM notes WHERE user_id = :sub;",
    },
    Variant {
        name: "claims unverified (`request.jwt.claims`), policy `auth.user_id() = user_id`",
        user: "app_ours",
        database: UNVERIFIED,
        present: SET_CLAIMS,
        read: READ,
    },
    Variant {
        name: "claims unverified, Supabase's policy `(select auth.uid()) = uid`",
        user: "app_supabase",
        database: DATABASE,
        present: SET_CLAIMS,
        read: READ,
    },
    Variant {
        name: "**token verified**, policy `auth.user_id() = user_id`",
        user: "app_ours",
        database: DATABASE,
        present: "SELECT auth.jwt_session_init(t, true) FROM tokens WHERE alg = 'RS256' AND n = :n;",
        read: READ,
    },
];

const SET_CLAIMS: &str = "SELECT set_config('request.jwt.claims', claims, true) FROM tokens WHERE alg = 'RS256' AND n = :n;";
const READ: &str = "SELECT id, body FROM notes;";

/// Whose transactions they are, and how pgbench chooses the number of the user.
fn users() -> [(&'static str, String); 2] {
    [
        ("each connection has its user", ":client_id".to_owned()),
        (
            "any of 2,000 users in each transaction",
            format!("random(0, {})", USERS - 1),
        ),
    ]
}

impl Variant {
    fn script(&self, choice: &str) -> String {
        let Self { present, read, .. } = self;
        format!("\\set n {choice}\nBEGIN;\n{present}\n{read}\nCOMMIT;\n")
    }
}

impl Bench<'_> {
    /// The table "per transaction".
    pub fn transactions(&self, postgres: &Postgres) -> Result<String> {
        for variant in &VARIANTS {
            self.reads_ten_rows(variant)?;
        }
        let users = users();
        let mut rates = vec![[Vec::new(), Vec::new()]; VARIANTS.len()];
        for _ in 0..self.rounds {
            for (choice, (_, number)) in users.iter().enumerate() {
                for (variant, rates) in VARIANTS.iter().zip(&mut rates) {
                    let script = variant.script(number);
                    rates[choice].push(self.pgbench(postgres, variant, &script)?);
                }
            }
        }
        let mut heads = vec!["transactions per second".to_owned()];
        heads.extend(users.iter().map(|(name, _)| (*name).to_owned()));
        let mut table = Table::new(&heads);
        for (variant, own) in VARIANTS.iter().zip(&rates) {
            let mut cells = vec![variant.name.to_owned()];
            for (own, reference) in own.iter().zip(&rates[REFERENCE]) {
                cells.push(format!(
                    "{} ({:.0} %)",
                    number(median(own.iter().copied())),
                    median_ratio(own, reference) * 100.0
                ));
            }
            table.row(&cells);
        }
        Ok(format!(
            "\n### Per transaction\n\n`BEGIN`, present the user's RS256 token or claims, read the user's \
             10 rows, `COMMIT`: pgbench, 8 clients on the same machine, prepared statements, {} runs \
             of {} s each, in turns; in brackets, relative to claims that nobody verifies.\n\n{}",
            self.rounds,
            seconds(self.rounds),
            table.finish()
        ))
    }

    /// A policy that finds no identity is fast, and worth nothing.
    fn reads_ten_rows(&self, variant: &Variant) -> Result<()> {
        let mut backend = Backend::open(self.cluster, variant.user, variant.database)?;
        backend.run("\\set n 7\nSELECT 1")?;
        let mut last = String::new();
        for line in variant
            .script("7")
            .lines()
            .filter(|line| !line.starts_with('\\'))
        {
            // pgbench makes parameters of its variables, psql text. And `\gset` ends a statement: the
            // semicolon that follows here would be its argument.
            let statement = line.trim_end_matches(';').replace(":sub", ":'sub'");
            let statement = statement.replace("\\gset", "\\gset\nSELECT 1");
            if statement == "COMMIT" {
                backend.time(&format!("SELECT count(*) FROM ({last}) x"), "10")?;
            }
            backend.run(&statement)?;
            last = statement;
        }
        Ok(())
    }

    fn pgbench(&self, postgres: &Postgres, variant: &Variant, script: &str) -> Result<f64> {
        let path = self.cluster.directory().join("transaction.sql");
        fs::write(&path, script).context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(postgres.program("pgbench"));
        forget_postgres_variables(&mut command);
        command.args(["-n", "-M", "prepared", "-c", "8", "-j", "2"]);
        command
            .args(["-T", &seconds(self.rounds).to_string(), "-f"])
            .arg(path);
        command.args(["-h", "127.0.0.1", "-p", &self.cluster.port.to_string()]);
        command
            .args(["-U", variant.user, variant.database])
            .env("LC_ALL", "C");
        let text = shell::output(&mut command, "running pgbench")?;
        text.lines()
            .find_map(|line| {
                let rest = line.strip_prefix("tps = ")?;
                rest.split(' ').next()?.parse().ok()
            })
            .ok_or_else(|| Problem::new("pgbench does not say how much it did").details(text))
    }
}
