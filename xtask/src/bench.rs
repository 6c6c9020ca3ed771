//! `cargo xtask bench`: what the extension costs per row, per token and per transaction.
//!
//! A release build in a private copy of Postgres, one throwaway cluster, one report. What is compared
//! is measured in turns (round 1 of everything, round 2 of everything, …), in one backend where that
//! is possible, and the figures are medians over the rounds of the difference within a round: a
//! machine that becomes slower meanwhile does not favour anybody.

mod fetching;
mod policies;
mod process;
mod providers;
mod rows;
mod shared;
mod table;
mod timed;
mod token;
mod tokens;
mod transactions;

use std::fs;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum, value_parser};
use harness::{Cluster, Programs, Session, sql_text};

use crate::machine::Machine;
use crate::postgres::{self, Postgres};
use crate::shell::{note, say};
use crate::{Major, demo};
use token::{Key, Token};

/// Options of the command.
#[derive(Args)]
pub struct Options {
    /// Which Postgres (15 to 18); default: the one found
    #[arg(long)]
    pg: Option<Major>,
    /// Of how many interleaved rounds the medians are
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure only this part (a list is fine)
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part, as `--only` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What an accessor costs per row
    Rows,
    /// What a token costs
    Tokens,
    /// However many providers
    Providers,
    /// Keys that follow their issuer
    Fetching,
    /// What a token costs that another connection has verified
    Shared,
    /// Accessors in policies, with and without an index
    Policies,
    /// pgbench
    Transactions,
    /// Loading, memory, CREATE EXTENSION
    Backend,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// On top of what every throwaway cluster is set to.
const SETTINGS: &str = "
shared_buffers = 1GB
synchronous_commit = off
max_wal_size = 4GB
checkpoint_timeout = 1h
autovacuum = off
log_min_messages = warning
jit = off
max_parallel_workers_per_gather = 0
max_connections = 300
";
/// Where signatures are to be computed.
const ALONE: &str = "pg_session_jwt.signature_memory = 0\n";
/// Where they are remembered for all connections.
const SHARED: &str = "shared_preload_libraries = 'pg_session_jwt'\n";

/// The database that most is measured in.
const DATABASE: &str = "bench";
/// Its copy without providers.
const UNVERIFIED: &str = "unverified";

/// How many users, and tokens of each kind.
const USERS: usize = 2000;

/// What all parts share.
struct Bench<'a> {
    cluster: &'a Cluster,
    programs: Programs,
    rounds: u32,
    keys: [Key; 4],
    /// Of each key one for each user.
    tokens: [Vec<Token>; 4],
}

/// Measures, and prints the report.
pub fn run(options: &Options) -> Result<()> {
    let mut machine = Machine::look()?;
    if cfg!(debug_assertions) {
        // ring, which the extension is compared with, is in this program: it must be a release too.
        say("Building the benchmark itself (half a minute the first time)");
        let again = machine.cargo();
        let again = again.args(["run", "--quiet", "--release", "--package", "xtask", "--"]);
        return Ok(again.args(std::env::args().skip(1)).run()?);
    }
    machine.build_tools()?;
    let major = match options.pg {
        Some(major) => major.0,
        None => postgres::default_major(&machine)?,
    };
    let postgres = postgres::private(&machine, major)?;
    // Another run would replace the library under our running server.
    let _lock = machine.lock(&postgres.label())?;
    demo::install(&machine, &postgres)?;
    say("Starting a throwaway server, signing tokens (10 seconds)");
    let programs = postgres.programs(&machine)?;
    let alone = Cluster::of(&programs, &[SETTINGS, ALONE].concat())?;
    let bench = Bench::new(&alone, programs.clone(), options.rounds);
    let mut report = bench.heading(&postgres);
    let outcome = bench.all(options, &mut report);
    let outcome = outcome.and_then(|()| {
        if !options.wants(Part::Shared) && !options.wants(Part::Transactions) {
            return Ok(());
        }
        let shared = Cluster::of(&programs, &[SETTINGS, SHARED].concat())?;
        let bench = Bench::new(&shared, programs, options.rounds);
        bench.all_shared(options, &postgres, &mut report)
    });
    // What there is, also when a later part fails.
    println!("\n{}", report.trim_end());
    outcome?;
    let path = machine
        .target()
        .join(format!("bench-{}.md", postgres.label()));
    fs::write(&path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    say(format!("This report is in {}", path.display()));
    Ok(())
}

impl<'a> Bench<'a> {
    /// Makes keys, tokens and the two databases.
    fn new(cluster: &'a Cluster, programs: Programs, rounds: u32) -> Self {
        let keys = token::keys();
        let tokens = keys.each_ref().map(|key| {
            let numbers = 0..USERS;
            numbers
                .map(|number| key.token(token::claims(key, number), 1024))
                .collect()
        });
        let bench = Self {
            cluster,
            programs,
            rounds,
            keys,
            tokens,
        };
        bench.databases();
        bench
    }

    /// `bench` and its copy: tokens, the table that transactions read; then, in the one, providers.
    fn databases(&self) {
        let mut admin = self.cluster.connect("postgres", "postgres");
        admin.run(&format!("CREATE DATABASE {DATABASE}"));
        let mut backend = self.backend();
        backend.run(
            "CREATE EXTENSION pg_session_jwt;
             CREATE TABLE tokens (alg text, n int, sub text, t text, claims text,
                                  PRIMARY KEY (alg, n));
             -- A client's parameters are not compressed either.
             ALTER TABLE tokens ALTER t SET STORAGE PLAIN, ALTER claims SET STORAGE PLAIN",
        );
        for (key, tokens) in self.keys.iter().zip(&self.tokens) {
            let alg = key.algorithm();
            let rows = tokens.iter().enumerate().map(|(number, token)| {
                let (sub, claims) = (token::subject(number), sql_text(&token.claims));
                format!("('{alg}', {number}, '{sub}', '{}', {claims})", token.text)
            });
            let rows: Vec<String> = rows.collect();
            backend.run(&format!("INSERT INTO tokens VALUES {}", rows.join(",\n")));
        }
        backend.run(SUPABASE_UID);
        backend.run("GRANT SELECT ON tokens TO PUBLIC");
        backend.run("VACUUM (FREEZE, ANALYZE) tokens");
        transactions::tables(&mut backend);
        drop(backend);
        admin.run(&format!("CREATE DATABASE {UNVERIFIED} TEMPLATE {DATABASE}"));
        let [rs, es, ed, hs] = &self.keys;
        self.backend().run(&format!(
            "INSERT INTO auth.providers (name, issuer, jwks) VALUES
             ('public', '{}', '{}'), ('secret', '{}', '{}')",
            token::ISSUER,
            token::key_set(&[rs, es, ed]),
            token::SECRET_ISSUER,
            token::key_set(&[hs])
        ));
    }

    /// A new backend, as superuser, in the database with providers.
    fn backend(&self) -> Session {
        self.cluster.connect(DATABASE, "postgres")
    }

    /// The machine and the software: figures without them say nothing.
    fn heading(&self, postgres: &Postgres) -> String {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = about
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("an unknown processor", |(_, name)| name.trim());
        let mut backend = self.backend();
        let mut text = format!(
            "{processor}, {} cores; Postgres {}; pg_session_jwt {}, release build. \
             Medians of {} interleaved rounds.\n",
            std::thread::available_parallelism().map_or(0, Into::into),
            backend.text("SHOW server_version"),
            backend.text("SELECT extversion FROM pg_extension WHERE extname = 'pg_session_jwt'"),
            self.rounds
        );
        if postgres.assertions {
            text += &format!(
                "\n**This Postgres {} is built with assertions: its figures are not those of a \
                 Postgres in production.**\n",
                postgres.major
            );
        }
        text
    }

    fn all(&self, options: &Options, report: &mut String) -> Result<()> {
        let wants = |part| options.wants(part);
        if wants(Part::Rows) || wants(Part::Policies) {
            say("Making tables of a million rows (10 seconds)");
            rows::tables(&mut self.backend());
        }
        if wants(Part::Rows) {
            say("Per row (a minute)");
            *report += &self.rows()?;
        }
        if wants(Part::Tokens) {
            say("Per token (half a minute)");
            *report += &self.tokens()?;
        }
        if wants(Part::Providers) {
            say("However many providers (2 minutes)");
            *report += &self.providers()?;
        }
        if wants(Part::Fetching) {
            say("Keys that follow their issuer (10 seconds)");
            *report += &self.fetching()?;
        }
        if wants(Part::Policies) {
            say("Through policies (a minute)");
            *report += &self.policies()?;
        }
        if wants(Part::Backend) {
            say("Loading, memory, CREATE EXTENSION (10 seconds)");
            *report += &self.process()?;
        }
        Ok(())
    }

    /// What is measured where connections share a memory of signatures.
    fn all_shared(
        &self,
        options: &Options,
        postgres: &Postgres,
        report: &mut String,
    ) -> Result<()> {
        if options.wants(Part::Shared) {
            say("Verified by another connection (10 seconds)");
            *report += &self.shared()?;
        }
        if options.wants(Part::Transactions) {
            if postgres.bin.join("pgbench").is_file() {
                say("Per transaction, with pgbench (6 minutes)");
                *report += &self.transactions()?;
            } else {
                note("There is no pgbench beside this Postgres: transactions are left out.");
            }
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
