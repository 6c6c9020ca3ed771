//! What an accessor costs per row, above a constant in the same place.

use super::table::{Table, count, median, median_difference, median_ratio, number};
use super::timed::Timed as _;
use super::{Bench, token};
use crate::shell::note;
use anyhow::Result;
use harness::Session;

/// Rows of the table that fast expressions are measured on.
const MANY: u32 = 1_000_000;
/// Rows of the one for expressions that read JSON anew for each row.
const FEW: u32 = 5_000;
/// Users of both tables.
const OWNERS: u32 = 1000;
/// The user whose rows are looked for.
pub const USER: usize = 7;

/// An expression, and the constant that stands in its place.
struct Probe {
    name: &'static str,
    condition: String,
    constant: String,
    rows: u32,
    /// How many rows fulfil both conditions.
    finds: u32,
    /// What section 7 of the contract allows, in nanoseconds.
    target: Option<u32>,
    /// With `request_claims = verified`.
    is_verified: bool,
}

/// Makes the tables `b` and, with fewer rows, `s`; both without an index.
pub fn tables(backend: &mut Session) {
    for (name, rows) in [("b", MANY), ("s", FEW)] {
        backend.run(&format!(
            "CREATE TABLE {name} AS
             SELECT i, (prefix || lpad((i % {OWNERS})::text, 12, '0'))::uuid AS uid,
                    prefix || lpad((i % {OWNERS})::text, 12, '0') AS user_id,
                    'o_' || lpad((i % {OWNERS})::text, 3, '0') AS org
             FROM generate_series(0, {rows} - 1) i, (VALUES ('00000000-0000-4000-8000-')) v (prefix)"
        ));
        backend.run(&format!("VACUUM (FREEZE, ANALYZE) {name}"));
    }
}

fn probes(claims: &str) -> Vec<Probe> {
    let (user, org) = (token::subject(USER), token::organization(USER));
    let user_id = format!("user_id = '{user}'");
    let uid = format!("uid = '{user}'::uuid");
    let org = format!("org = '{org}'");
    let probe = |name, condition: &str, constant: &str, rows, finds, target| Probe {
        name,
        condition: condition.into(),
        constant: constant.into(),
        rows,
        finds,
        target,
        is_verified: false,
    };
    let verified = |name, like: Probe| Probe {
        name,
        is_verified: true,
        ..like
    };
    let found = MANY / OWNERS;
    vec![
        probe(
            "the same constant again",
            &user_id,
            &user_id,
            MANY,
            found,
            None,
        ),
        probe(
            "`auth.user_id()`",
            "user_id = auth.user_id()",
            &user_id,
            MANY,
            found,
            Some(10),
        ),
        probe(
            "`auth.uid()`",
            "uid = auth.uid()",
            &uid,
            MANY,
            found,
            Some(10),
        ),
        probe(
            "`auth.org_id()`",
            "org = auth.org_id()",
            &org,
            MANY,
            found,
            Some(10),
        ),
        probe(
            "`auth.claim('org_id')`",
            "org = auth.claim('org_id')",
            &org,
            MANY,
            found,
            Some(25),
        ),
        probe(
            "`auth.has_permission('a:b')`",
            "CASE WHEN i >= 0 THEN auth.has_permission('a:b') END",
            "CASE WHEN i >= 0 THEN true END",
            MANY,
            MANY,
            Some(25),
        ),
        probe(
            "`auth.jwt()->>'sub'`",
            "user_id = auth.jwt()->>'sub'",
            &user_id,
            MANY,
            found,
            Some(120),
        ),
        probe(
            "`current_user`",
            "user_id = current_user",
            "user_id = 'postgres'::name",
            MANY,
            0,
            None,
        ),
        probe(
            "`current_setting('request.jwt.claims', true)`",
            "user_id = current_setting('request.jwt.claims', true)",
            &format!("user_id = '{claims}'"),
            MANY,
            0,
            None,
        ),
        verified(
            "the same, `verified`",
            probe(
                "",
                "user_id = current_setting('request.jwt.claims', true)",
                &format!("user_id = '{claims}'"),
                MANY,
                0,
                None,
            ),
        ),
        probe(
            "`current_setting(…)::jsonb->>'sub'`",
            "user_id = current_setting('request.jwt.claims', true)::jsonb->>'sub'",
            &user_id,
            FEW,
            FEW / OWNERS,
            None,
        ),
        probe(
            "Supabase's `auth.uid()`",
            "uid = public.supabase_uid()",
            &uid,
            FEW,
            FEW / OWNERS,
            None,
        ),
        verified(
            "the same, `verified`",
            probe(
                "",
                "uid = public.supabase_uid()",
                &uid,
                FEW,
                FEW / OWNERS,
                None,
            ),
        ),
    ]
}

/// The figures of one length of token.
struct Column {
    length: &'static str,
    /// Of each probe, in their order: nanoseconds per row of the expression and of the constant.
    times: Vec<(Vec<f64>, Vec<f64>)>,
}

impl Bench<'_> {
    /// The table "per row".
    pub fn rows(&self) -> Result<String> {
        let mut columns = Vec::new();
        for (length, bytes) in [("300 bytes", 300), ("1 KiB", 1024), ("64 KiB", 65_536)] {
            note(format!("tokens of {length}"));
            columns.push(self.column(length, bytes)?);
        }
        let mut heads = vec!["per row, above a constant".to_owned()];
        heads.extend(
            columns
                .iter()
                .map(|column| format!("token of {}", column.length)),
        );
        heads.push("at most".to_owned());
        let mut table = Table::new(&heads);
        for (index, probe) in probes("").iter().enumerate() {
            let mut cells = vec![probe.name.to_owned()];
            for column in &columns {
                let (times, constants) = &column.times[index];
                let ratio = median_ratio(times, constants);
                let digits = if ratio < 10.0 { 2 } else { 0 };
                cells.push(format!(
                    "{} ns (×{ratio:.digits$})",
                    number(median_difference(times, constants)),
                ));
            }
            cells.push(
                probe
                    .target
                    .map_or(String::new(), |target| format!("{target} ns")),
            );
            table.row(&cells);
        }
        let constant = columns
            .iter()
            .map(|column| median(column.times[0].1.iter().copied()));
        Ok(format!(
            "\n### Per row\n\n`SELECT count(*) FROM b WHERE user_id = …`, {} rows (the last \
             three lines: {}), sequential scan, one backend, no JIT, no parallel workers; in brackets, \
             the whole scan relative to the one with a constant, which takes {} ns per row. Keys: a \
             registered provider; tokens: EdDSA.\n\n{}",
            count(MANY as usize),
            count(FEW as usize),
            number(median(constant)),
            table.finish()
        ))
    }

    fn column(&self, length: &'static str, bytes: usize) -> Result<Column> {
        let key = &self.keys[2];
        let token = key.token(token::claims(key, USER), bytes);
        let probes = probes(&token.claims);
        let mut backends = [false, true].map(|is_verified| {
            let mut backend = self.backend();
            backend.run(&format!("SELECT auth.jwt_session_init('{}')", token.text));
            if is_verified {
                backend.run("SET pg_session_jwt.request_claims = verified");
            }
            backend.run(&format!("SET request.jwt.claims = '{}'", token.claims));
            backend
        });
        let mut times = vec![(Vec::new(), Vec::new()); probes.len()];
        // The first round warms everything up, and does not count.
        for round in 0..=self.rounds {
            for (probe, (own, constants)) in probes.iter().zip(&mut times) {
                let table = if probe.rows == MANY { "b" } else { "s" };
                let backend = &mut backends[usize::from(probe.is_verified)];
                let mut time = |condition: &str| -> Result<f64> {
                    let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
                    let nanoseconds = backend.time(&sql, &probe.finds.to_string())?;
                    Ok(nanoseconds / f64::from(probe.rows))
                };
                let (below, above) = (time(&probe.constant)?, time(&probe.condition)?);
                if round > 0 {
                    constants.push(below);
                    own.push(above);
                }
            }
        }
        Ok(Column { length, times })
    }
}
