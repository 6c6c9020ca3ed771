//! pgbench: a transaction that reads ten rows through row-level security.

use std::fs;
use std::process::Command;

use super::backend::Backend;
use super::table::{Table, median, number};
use super::{Bench, DATABASE, UNVERIFIED, USERS};
use crate::cluster::forget_postgres_variables;
use crate::postgres::Postgres;
use crate::problem::{Context, Problem, Result};
use crate::shell;

/// Runs of each variant, in turns.
const RUNS: usize = 2;
/// How long each takes: ten seconds; two, where somebody only tries it out with fewer rounds.
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
    script: String,
}

fn variants() -> Vec<Variant> {
    let any = format!("\\set n random(0, {})\n", USERS - 1);
    let own = "\\set n :client_id\n".to_owned();
    let read = "SELECT id, body FROM notes;";
    let init = "SELECT auth.jwt_session_init(t, true) FROM tokens WHERE alg = 'RS256' AND n = :n;";
    let set = "SELECT set_config('request.jwt.claims', claims, true) FROM tokens WHERE alg = 'RS256' AND n = :n;";
    let variant = |name, user, database, script: String| Variant {
        name,
        user,
        database,
        script,
    };
    vec![
        variant(
            "no security: `WHERE user_id = $1`",
            "app_open",
            DATABASE,
            format!(
                "{any}BEGIN;\nSELECT sub, claims FROM tokens WHERE alg = 'RS256' AND n = :n \\gset\n\
                 SELECT id, body FROM notes WHERE user_id = :sub;\nCOMMIT;\n"
            ),
        ),
        variant(
            "claims unverified (`request.jwt.claims`), policy `auth.user_id() = user_id`",
            "app_ours",
            UNVERIFIED,
            format!("{any}BEGIN;\n{set}\n{read}\nCOMMIT;\n"),
        ),
        variant(
            "claims unverified, Supabase's policy `(select auth.uid()) = uid`",
            "app_supabase",
            DATABASE,
            format!("{any}BEGIN;\n{set}\n{read}\nCOMMIT;\n"),
        ),
        variant(
            "the same two with the connection's own claims each time: `auth.user_id() = user_id`",
            "app_ours",
            UNVERIFIED,
            format!("{own}BEGIN;\n{set}\n{read}\nCOMMIT;\n"),
        ),
        variant(
            "… and Supabase's",
            "app_supabase",
            DATABASE,
            format!("{own}BEGIN;\n{set}\n{read}\nCOMMIT;\n"),
        ),
        variant(
            "verified, the connection's token of the last transaction again",
            "app_ours",
            DATABASE,
            format!("{own}BEGIN;\n{init}\n{read}\nCOMMIT;\n"),
        ),
        variant(
            "verified, one of 2,000 RS256 tokens in each transaction",
            "app_ours",
            DATABASE,
            format!("{any}BEGIN;\n{init}\n{read}\nCOMMIT;\n"),
        ),
    ]
}

impl Bench<'_> {
    /// The table "per transaction".
    pub fn transactions(&self, postgres: &Postgres) -> Result<String> {
        let variants = variants();
        for variant in &variants {
            self.reads_ten_rows(variant)?;
        }
        let mut rates = vec![Vec::new(); variants.len()];
        for _ in 0..RUNS {
            for (variant, rates) in variants.iter().zip(&mut rates) {
                rates.push(self.pgbench(postgres, variant)?);
            }
        }
        let rates: Vec<f64> = rates.into_iter().map(median).collect();
        let heads = [
            "per transaction",
            "transactions per second",
            "relative to claims unverified",
        ];
        let mut table = Table::new(&heads.map(String::from));
        for (variant, rate) in variants.iter().zip(&rates) {
            table.row(&[
                variant.name.to_owned(),
                number(*rate),
                format!("{:.0} %", rate / rates[1] * 100.0),
            ]);
        }
        Ok(format!(
            "\n### Per transaction\n\n`BEGIN`, present the user's token or claims, read the user's 10 \
             rows, `COMMIT`: pgbench, 8 clients on the same machine, prepared statements, {RUNS} runs \
             of {} s each, in turns.\n\n{}",
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
            .script
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

    fn pgbench(&self, postgres: &Postgres, variant: &Variant) -> Result<f64> {
        let script = self.cluster.directory().join("transaction.sql");
        fs::write(&script, &variant.script)
            .context(|| format!("cannot write {}", script.display()))?;
        let mut command = Command::new(postgres.program("pgbench"));
        forget_postgres_variables(&mut command);
        command.args(["-n", "-M", "prepared", "-c", "8", "-j", "2"]);
        command
            .args(["-T", &seconds(self.rounds).to_string(), "-f"])
            .arg(script);
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
