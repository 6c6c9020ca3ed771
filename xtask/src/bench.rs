//! `cargo xtask bench`: what the extension costs per row, per token and per transaction.
//!
//! A release build in a private copy of Postgres, one throwaway cluster, one report. What is compared
//! is measured in turns (round 1 of everything, round 2 of everything, …), in one backend where that
//! is possible, and the figures are medians over the rounds of the difference within a round: a
//! machine that becomes slower meanwhile does not favour anybody.

mod backend;
mod policies;
mod process;
mod rows;
mod table;
mod token;
mod tokens;
mod transactions;

use std::fs;

use crate::cli::{BenchOptions, Part};
use crate::cluster::Cluster;
use crate::demo;
use crate::machine::{self, Machine};
use crate::postgres::{self, Postgres};
use crate::problem::{Context, Result};
use crate::shell::{self, note, say};
use backend::Backend;
use token::{Key, Token};

/// On top of what every throwaway cluster is set to.
const SETTINGS: &str = "
shared_buffers = 1GB
max_wal_size = 4GB
checkpoint_timeout = 1h
autovacuum = off
log_min_messages = warning
jit = off
max_parallel_workers_per_gather = 0
";

/// The database that most is measured in.
const DATABASE: &str = "bench";
/// Its copy without providers.
const UNVERIFIED: &str = "unverified";

/// How many users, and tokens of each kind.
const USERS: usize = 2000;

/// What all parts share.
struct Bench<'a> {
    cluster: &'a Cluster,
    rounds: usize,
    keys: [Key; 4],
    /// Of each key one for each user.
    tokens: [Vec<Token>; 4],
}

/// Measures, and prints the report.
pub fn run(options: &BenchOptions, arguments: &[String]) -> Result<()> {
    let mut machine = Machine::look()?;
    if cfg!(debug_assertions) {
        // ring, which the extension is compared with, is in this program: it must be a release too.
        say("Building the benchmark itself (half a minute the first time)");
        let mut again = machine.cargo();
        again.args(["run", "--quiet", "--release", "--package", "xtask", "--"]);
        again.args(arguments);
        return shell::loud(&mut again, "the benchmark");
    }
    machine.build_tools()?;
    let major = match options.pg {
        Some(major) => major,
        None => postgres::default_major(&machine)?,
    };
    let postgres = postgres::private(&machine, major)?;
    // Another run would replace the library under our running server.
    let _lock = machine.lock(&postgres.label())?;
    demo::install(&machine, &postgres)?;
    say("Starting a throwaway server, signing tokens (10 seconds)");
    let cluster = Cluster::start_with(&machine, &postgres, SETTINGS)?;
    let bench = Bench::new(&cluster, options.rounds)?;

    let mut report = bench.heading(&postgres)?;
    let outcome = bench.all(options, &postgres, &mut report);
    // What there is, also when a later part fails.
    println!("\n{}", report.trim_end());
    outcome?;
    let path = machine
        .target()
        .join(format!("bench-{}.md", postgres.label()));
    fs::write(&path, &report).context(|| format!("cannot write {}", path.display()))?;
    say(format!("This report is in {}", path.display()));
    Ok(())
}

impl<'a> Bench<'a> {
    /// Makes keys, tokens and the two databases.
    fn new(cluster: &'a Cluster, rounds: usize) -> Result<Self> {
        let keys = [Key::rsa()?, Key::ec()?, Key::ed()?, Key::secret()?];
        let sign = |key: &Key| -> Result<Vec<Token>> {
            (0..USERS)
                .map(|number| key.token(token::claims(key, number), 1024))
                .collect()
        };
        let tokens = [
            sign(&keys[0])?,
            sign(&keys[1])?,
            sign(&keys[2])?,
            sign(&keys[3])?,
        ];
        let bench = Self {
            cluster,
            rounds,
            keys,
            tokens,
        };
        bench.databases()?;
        Ok(bench)
    }

    /// `bench` and its copy: tokens, the table that transactions read; then, in the one, providers.
    fn databases(&self) -> Result<()> {
        self.cluster
            .sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        let mut backend = self.backend()?;
        backend.run(
            "CREATE EXTENSION pg_session_jwt;
             CREATE TABLE tokens (alg text, n int, sub text, t text, claims text,
                                  PRIMARY KEY (alg, n))",
        )?;
        for (key, tokens) in self.keys.iter().zip(&self.tokens) {
            for (chunk, some) in tokens.chunks(500).enumerate() {
                let rows: Vec<String> = some
                    .iter()
                    .enumerate()
                    .map(|(index, token)| {
                        let number = chunk * 500 + index;
                        format!(
                            "('{}', {number}, '{}', '{}', '{}')",
                            key.algorithm,
                            token::subject(number),
                            token.text,
                            token.claims
                        )
                    })
                    .collect();
                backend.run(&format!("INSERT INTO tokens VALUES {}", rows.join(",\n")))?;
            }
        }
        backend.run(SUPABASE_UID)?;
        backend.run("GRANT SELECT ON tokens TO PUBLIC")?;
        backend.run("VACUUM (FREEZE, ANALYZE) tokens")?;
        transactions::tables(&mut backend)?;
        drop(backend);
        self.cluster.sql(
            "postgres",
            &format!("CREATE DATABASE {UNVERIFIED} TEMPLATE {DATABASE}"),
        )?;
        let [rs, es, ed, hs] = &self.keys;
        self.backend()?.run(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks) VALUES
             ('public', '{}', '{}'), ('secret', '{}', '{}')",
            token::ISSUER,
            token::key_set(&[rs, es, ed]),
            token::SECRET_ISSUER,
            token::key_set(&[hs])
        ))?;
        Ok(())
    }

    /// A new backend, as superuser, in the database with providers.
    fn backend(&self) -> Result<Backend> {
        Backend::open(self.cluster, "postgres", DATABASE)
    }

    /// The machine and the software: figures without them say nothing.
    fn heading(&self, postgres: &Postgres) -> Result<String> {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = about
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("an unknown processor", |(_, name)| name.trim());
        let ask = |sql| self.cluster.sql(DATABASE, sql);
        let version = ask("SHOW server_version")?;
        let mut text = format!(
            "{processor}, {} cores; Postgres {version}; pg_session_jwt {}, release build. \
             Medians of {} interleaved rounds.\n",
            machine::cores(),
            ask("SELECT extversion FROM pg_extension WHERE extname = 'pg_session_jwt'")?,
            self.rounds
        );
        if ask("SHOW debug_assertions")? == "on" {
            text += &format!(
                "\n**This Postgres {} is built with assertions: its figures are not those of a \
                 Postgres in production.**\n",
                postgres.major
            );
        }
        Ok(text)
    }

    fn all(&self, options: &BenchOptions, postgres: &Postgres, report: &mut String) -> Result<()> {
        let wants = |part| options.only.is_empty() || options.only.contains(&part);
        if wants(Part::Rows) || wants(Part::Policies) {
            say("Making tables of a million rows (10 seconds)");
            rows::tables(&mut self.backend()?)?;
        }
        if wants(Part::Rows) {
            say("Per row (a minute)");
            *report += &self.rows()?;
        }
        if wants(Part::Tokens) {
            say("Per token (half a minute)");
            *report += &self.tokens()?;
        }
        if wants(Part::Policies) {
            say("Through policies (a minute)");
            *report += &self.policies()?;
        }
        if wants(Part::Transactions) {
            if postgres.program("pgbench").is_file() {
                say("Per transaction, with pgbench (6 minutes)");
                *report += &self.transactions(postgres)?;
            } else {
                note("There is no pgbench beside this Postgres: transactions are left out.");
            }
        }
        if wants(Part::Backend) {
            say("Loading, memory, CREATE EXTENSION (10 seconds)");
            *report += &self.process()?;
        }
        Ok(())
    }
}

/// What Supabase's `auth.uid()` is: migrations/20211202183645_update_auth_uid.up.sql of its repository
/// supabase/auth.
const SUPABASE_UID: &str = "
CREATE FUNCTION public.supabase_uid() RETURNS uuid LANGUAGE sql STABLE AS $$
  select nullif(
    coalesce(
      current_setting('request.jwt.claim.sub', true),
      (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')
    ),
    ''
  )::uuid
$$";
