//! Accessors in policies, as an unprivileged role, with and without an index.

use super::Bench;
use super::rows::USER;
use super::table::{Table, median, median_difference, median_ratio, number};
use super::timed::Timed as _;
use super::token;
use anyhow::Result;

/// Rows of both tables: `b`, and `x`, which has indexes and is ordered by user.
const ROWS: f64 = 1_000_000.0;

/// The policies with a constant in the place of the text, and of the uuid.
const TEXT: usize = 0;
const UUID: usize = 1;

/// What each role's policy is, and the one that it is measured against; the roles are p0, p1, ….
fn policies() -> Vec<(&'static str, String, usize)> {
    let user = token::subject(USER);
    let text = |name, condition: &str| (name, condition.to_owned(), TEXT);
    let uuid = |name, condition: &str| (name, condition.to_owned(), UUID);
    vec![
        text("`'…' = user_id`", &format!("'{user}' = user_id")),
        uuid("`'…'::uuid = uid`", &format!("'{user}'::uuid = uid")),
        text("`auth.user_id() = user_id`", "auth.user_id() = user_id"),
        text(
            "`(select auth.user_id()) = user_id`",
            "(select auth.user_id()) = user_id",
        ),
        text(
            "`(select auth.user_id() = user_id)` (Drizzle)",
            "(select auth.user_id() = user_id)",
        ),
        uuid("`auth.uid() = uid`", "auth.uid() = uid"),
        uuid(
            "Supabase's `auth.uid() = uid`",
            "public.supabase_uid() = uid",
        ),
        uuid(
            "Supabase's `(select auth.uid()) = uid`",
            "(select public.supabase_uid()) = uid",
        ),
    ]
}

impl Bench<'_> {
    /// The table "through a policy".
    pub fn policies(&self) -> Result<String> {
        let policies = policies();
        let mut backend = self.backend();
        backend.run("CREATE TABLE x AS SELECT * FROM b ORDER BY user_id, i");
        backend.run("CREATE INDEX x_user_id ON x (user_id); CREATE INDEX x_uid ON x (uid)");
        backend.run("VACUUM (FREEZE, ANALYZE) x");
        for table in ["b", "x"] {
            backend.run(&format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
        }
        for (index, (_, condition, _)) in policies.iter().enumerate() {
            backend.run(&format!("CREATE ROLE p{index}"));
            for table in ["b", "x"] {
                backend.run(&format!(
                    "GRANT SELECT ON {table} TO p{index};
                     CREATE POLICY p{index} ON {table} TO p{index} USING ({condition})"
                ));
            }
        }
        let key = &self.keys[2];
        let token = key.token(token::claims(key, USER), 1024);
        backend.run(&format!("SELECT auth.jwt_session_init('{}')", token.text));
        backend.run(&format!("SET request.jwt.claims = '{}'", token.claims));

        let mut scans = vec![Vec::new(); policies.len()];
        let mut finds = vec![Vec::new(); policies.len()];
        let rounds = self.rounds;
        for round in 0..=rounds {
            for index in 0..policies.len() {
                backend.run(&format!("SET ROLE p{index}"));
                let scan = backend.time("SELECT count(*) FROM b", "1000")?;
                // Twice: the first one plans with what the change of role has invalidated.
                backend.time("SELECT sum(i) FROM x", SUM)?;
                let find = backend.time("SELECT sum(i) FROM x", SUM)?;
                backend.run("RESET ROLE");
                if round > 0 {
                    scans[index].push(scan / ROWS);
                    finds[index].push(find);
                }
            }
        }

        let heads = [
            "policy",
            "sequential scan, above the constant, per row",
            "with an index, the whole query",
            "plan",
        ];
        let mut table = Table::new(&heads.map(String::from));
        for (index, (name, _, constant)) in policies.iter().enumerate() {
            backend.run(&format!("SET ROLE p{index}"));
            let plan = backend.rows("EXPLAIN (COSTS OFF) SELECT sum(i) FROM x");
            backend.run("RESET ROLE");
            table.row(&[
                (*name).to_owned(),
                format!(
                    "{} ns (×{:.2})",
                    number(median_difference(&scans[index], &scans[*constant])),
                    median_ratio(&scans[index], &scans[*constant])
                ),
                format!(
                    "{} µs",
                    number(median(finds[index].iter().copied()) / 1000.0)
                ),
                format!("`{}`", scanned(&plan.join("\n"))),
            ]);
        }
        Ok(format!(
            "\n### Through a policy\n\nAn unprivileged role reads a table of {} rows, of which 1,000 \
             are its user's; the token has 1 KiB. The plan is `EXPLAIN`'s, with the index.\n\n{}",
            number(ROWS),
            table.finish()
        ))
    }
}

/// The sum of i over the rows of user 7: 7, 1007, …, 999007.
const SUM: &str = "499507000";

/// The lines of a plan that say how the table is read.
fn scanned(plan: &str) -> String {
    let lines: Vec<&str> = plan
        .lines()
        .map(|line| line.trim().trim_start_matches("->").trim())
        .filter(|line| {
            [
                "Seq Scan on",
                "Index Scan",
                "Bitmap Index",
                "Index Cond",
                "Filter",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        })
        .collect();
    let text = lines.join("; ");
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_plan_what_reads_the_table() {
        let plan = "Aggregate\n  ->  Index Scan using x_user_id on x\n        Index Cond: (user_id = auth.user_id())\n";
        assert_eq!(
            scanned(plan),
            "Index Scan using x_user_id on x; Index Cond: (user_id = auth.user_id())"
        );
    }

    #[test]
    fn the_sum() {
        let sum: u64 = (0..1_000_000).filter(|i| i % 1000 == USER as u64).sum();
        assert_eq!(sum.to_string(), SUM);
    }
}
