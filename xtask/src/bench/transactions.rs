//! pgbench: a transaction that reads ten rows through row-level security.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{PgBouncer, Session, sql_text};

use super::table::{Table, median, median_ratio, number};
use super::timed::Timed as _;
use super::{Bench, DATABASE, UNVERIFIED, USERS};
use crate::clients;
use crate::shell::note;

/// How long a variant runs before it is the next one's turn. The speed of a machine that others use too
/// changes within seconds.
const TURN: Duration = Duration::from_millis(250);
/// Turns of each variant until all are started anew: where the scheduler puts processes makes a
/// difference of a tenth, for as long as they live.
const TURNS: u32 = 12;
/// What pgbench has to connect, before it is stopped for the first time.
const START: Duration = Duration::from_millis(300);

/// The table that transactions read, and roles to read it as.
pub fn tables(backend: &mut Session) {
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
    ));
    backend.run("VACUUM (FREEZE, ANALYZE) notes");
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

const VARIANTS: [Variant; 6] = [
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
        name: "**RS256 token verified**, policy `auth.user_id() = user_id`",
        user: "app_ours",
        database: DATABASE,
        present: "SELECT auth.jwt_session_init(t, true) FROM tokens WHERE alg = 'RS256' AND n = :n;",
        read: READ,
    },
    Variant {
        name: "**ES256 token verified**, the same policy",
        user: "app_ours",
        database: DATABASE,
        present: "SELECT auth.jwt_session_init(t, true) FROM tokens WHERE alg = 'ES256' AND n = :n;",
        read: READ,
    },
    Variant {
        name: "**EdDSA token verified**, the same policy",
        user: "app_ours",
        database: DATABASE,
        present: "SELECT auth.jwt_session_init(t, true) FROM tokens WHERE alg = 'EdDSA' AND n = :n;",
        read: READ,
    },
];

const POOL: &str = "pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 100";

const SET_CLAIMS: &str = "SELECT set_config('request.jwt.claims', claims, true) FROM tokens WHERE alg = 'RS256' AND n = :n;";
const READ: &str = "SELECT id, body FROM notes;";

/// How connections come and go, and whose transactions they run.
struct Column {
    name: &'static str,
    /// How pgbench chooses the number of the user.
    user: String,
    /// After so many transactions, each has a new connection. 0: never.
    connection_for: usize,
    /// Through PgBouncer in transaction mode, with half as many connections as there are clients.
    pooled: bool,
}

fn columns() -> [Column; 4] {
    let any = format!("random(0, {})", USERS - 1);
    [
        Column {
            name: "each connection has its user",
            user: ":client_id".to_owned(),
            connection_for: 0,
            pooled: false,
        },
        Column {
            name: "any of 2,000 users in each transaction",
            user: any.clone(),
            connection_for: 0,
            pooled: false,
        },
        Column {
            name: "likewise, a new connection every 10 transactions",
            user: any.clone(),
            connection_for: 10,
            pooled: false,
        },
        Column {
            name: "likewise, 8 clients over 4 connections of PgBouncer",
            user: any,
            connection_for: 0,
            pooled: true,
        },
    ]
}

impl Variant {
    fn script(&self, column: &Column) -> String {
        let (Self { present, read, .. }, user) = (self, &column.user);
        let one = format!("\\set n {user}\nBEGIN;\n{present}\n{read}\nCOMMIT;\n");
        one.repeat(column.connection_for.max(1))
    }
}

/// A script that pgbench runs.
struct Case<'a> {
    variant: &'a Variant,
    column: &'a Column,
    script: PathBuf,
    /// A PgBouncer for it alone: a pgbench that is stopped keeps connections of its pool.
    pooler: Option<PgBouncer>,
}

impl Bench<'_> {
    /// The table "per transaction".
    pub fn transactions(&self) -> Result<String> {
        for variant in &VARIANTS {
            self.reads_ten_rows(variant)?;
        }
        let pgbouncer = clients::find_pgbouncer();
        if pgbouncer.is_none() {
            note("There is no PgBouncer here: transactions through it are left out.");
        }
        let mut columns = Vec::from(columns());
        columns.retain(|column| !column.pooled || pgbouncer.is_some());
        let mut cases = Vec::new();
        for (number, column) in columns.iter().enumerate() {
            for (index, variant) in VARIANTS.iter().enumerate() {
                let script = self
                    .cluster
                    .directory()
                    .join(format!("{number}-{index}.sql"));
                fs::write(&script, variant.script(column))
                    .with_context(|| format!("cannot write {}", script.display()))?;
                let pooler = pgbouncer.as_deref().filter(|_| column.pooled);
                let pooler = pooler.map(|program| {
                    let server = self.cluster.port();
                    PgBouncer::start(program, &self.programs, server, &[variant.user], POOL)
                });
                cases.push(Case {
                    variant,
                    column,
                    script,
                    pooler: pooler.transpose()?,
                });
            }
        }
        let starts = 2 * self.rounds;
        let mut rates = vec![Vec::new(); cases.len()];
        for _ in 0..starts {
            for (rates, rate) in rates.iter_mut().zip(self.in_turns(&cases)?) {
                rates.push(rate);
            }
        }

        let mut heads = vec!["transactions per second".to_owned()];
        heads.extend(columns.iter().map(|column| column.name.to_owned()));
        let mut table = Table::new(&heads);
        for (index, variant) in VARIANTS.iter().enumerate() {
            let mut cells = vec![variant.name.to_owned()];
            for rates in rates.chunks(VARIANTS.len()) {
                let (own, reference) = (&rates[index], &rates[REFERENCE]);
                cells.push(format!(
                    "{} ({:.0} %)",
                    number(median(own.iter().copied())),
                    median_ratio(own, reference) * 100.0
                ));
            }
            table.row(&cells);
        }
        Ok(format!(
            "\n### Per transaction\n\n`BEGIN`, present the user's token or claims, read the user's \
             10 rows, `COMMIT`: pgbench, 8 clients on the same machine, prepared statements (but for \
             PgBouncer); medians of \
             {starts} starts, in each {TURNS} turns of {} ms for each line and column; in brackets, relative \
             to claims that nobody verifies.\n\n{}",
            TURN.as_millis(),
            table.finish()
        ))
    }

    /// Runs pgbench with each of the scripts, one at a time and in turns. Returns transactions per second.
    fn in_turns(&self, cases: &[Case]) -> Result<Vec<f64>> {
        let count = u32::try_from(cases.len()).unwrap_or(1);
        // For turns that are somewhat longer than they should be.
        let duration = (START + TURN * TURNS) * count * 11 / 10 + Duration::from_secs(1);
        let mut loads = Vec::new();
        for case in cases {
            let load = self.load(case, duration)?;
            sleep(START);
            load.signal("STOP")?;
            loads.push(load);
        }
        let deadline = Instant::now() + duration;
        let mut active = vec![START; loads.len()];
        for _ in 0..TURNS {
            for (load, active) in loads.iter().zip(&mut active) {
                let begin = Instant::now();
                load.signal("CONT")?;
                sleep(TURN);
                load.signal("STOP")?;
                *active += begin.elapsed();
            }
        }
        sleep(deadline.saturating_duration_since(Instant::now()));
        let mut rates = Vec::new();
        for ((load, active), case) in loads.into_iter().zip(active).zip(cases) {
            #[allow(clippy::cast_precision_loss)]
            let transactions = case.column.connection_for.max(1) as f64;
            rates.push(load.finish()? * transactions / active.as_secs_f64());
        }
        Ok(rates)
    }

    /// A policy that finds no identity is fast, and worth nothing.
    fn reads_ten_rows(&self, variant: &Variant) -> Result<()> {
        let mut session = self.cluster.connect(variant.database, variant.user);
        session.run("BEGIN");
        // What `\\gset` makes variables of.
        let present = variant.present.replace(":n", "7").replace("\\gset", "");
        session.run(&present);
        let subject = sql_text(&super::token::subject(7));
        let read = variant.read.trim_end_matches(';').replace(":sub", &subject);
        session.time(&format!("SELECT count(*) FROM ({read}) x"), "10")?;
        session.run("COMMIT");
        Ok(())
    }

    /// Starts a pgbench, to be stopped and continued, that ends when it is continued after `duration`.
    fn load(&self, case: &Case, duration: Duration) -> Result<Load> {
        let Case {
            variant,
            column,
            script,
            pooler,
        } = case;
        let mut command = self.programs.command("pgbench");
        // PgBouncer before 1.21 knows no prepared statements.
        let mode = if column.pooled {
            "extended"
        } else {
            "prepared"
        };
        command.args(["-n", "-M", mode, "-c", "8", "-j", "2"]);
        if column.connection_for > 0 {
            command.arg("-C");
        }
        command.args(["-T", &duration.as_secs().to_string(), "-f"]);
        command.arg(script);
        let port = pooler
            .as_ref()
            .map_or_else(|| self.cluster.port(), PgBouncer::port);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command
            .args(["-U", variant.user, variant.database])
            .env("LC_ALL", "C");
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        Ok(Load(Some(child.context("starting pgbench")?)))
    }
}

/// A running pgbench.
struct Load(Option<Child>);

impl Load {
    fn signal(&self, name: &str) -> Result<()> {
        let id = self.0.as_ref().map_or(0, Child::id);
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status();
        ensure!(kill?.success(), "cannot stop and continue pgbench");
        Ok(())
    }

    /// How many transactions it made.
    fn finish(mut self) -> Result<f64> {
        self.signal("CONT")?;
        let child = self.0.take().context("it has ended")?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| {
                let count = line.strip_prefix("number of transactions actually processed: ")?;
                count.parse().ok()
            })
            .with_context(|| {
                let said = String::from_utf8_lossy(&output.stderr);
                format!("pgbench does not say how much it did: {said}")
            })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
