//! What presenting a token costs, beside ring's verification of the same bytes.

use super::table::{Table, median, median_difference, number};
use super::timed::Timed as _;
use super::{Bench, USERS};
use anyhow::Result;

/// How often one token is presented again.
const AGAIN: usize = 20_000;
/// Likewise, in transactions of their own.
const COMMITS: usize = 5_000;

/// Of one algorithm, round by round, nanoseconds per token.
#[derive(Default)]
struct Figures {
    ring: Vec<f64>,
    nothing: Vec<f64>,
    verify: Vec<f64>,
    init: Vec<f64>,
    set: Vec<f64>,
    before: Vec<f64>,
    set_nothing: Vec<f64>,
    again_nothing: Vec<f64>,
    again: Vec<f64>,
    commit_nothing: Vec<f64>,
    commit: Vec<f64>,
}

#[allow(clippy::cast_precision_loss)]
fn per(nanoseconds: f64, times: usize) -> f64 {
    nanoseconds / times as f64
}

impl Bench<'_> {
    /// The table "per token".
    pub fn tokens(&self) -> Result<String> {
        let mut backend = self.backend();
        let mut all: Vec<Figures> = self.keys.iter().map(|_| Figures::default()).collect();
        let count = USERS.to_string();
        for round in 0..=self.rounds {
            for ((key, tokens), figures) in self.keys.iter().zip(&self.tokens).zip(&mut all) {
                let algorithm = key.algorithm();
                let from = format!("FROM tokens WHERE alg = '{algorithm}'");
                let mut tokens_in = |expression: &str| {
                    let sql = format!("SELECT count({expression}) {from}");
                    backend.time(&sql, &count).map(|time| per(time, USERS))
                };
                let ring = key.verify_all(tokens)?;
                let nothing = tokens_in("octet_length(t)")?;
                // What any parameter costs, and somebody who looks at it.
                let set_nothing = tokens_in(
                    "CASE WHEN set_config('bench.jwt', t, true) IS NOT NULL
                          THEN current_setting('bench.jwt', true) END",
                )?;
                let mut new_tokens_in = |expression: &str| -> Result<f64> {
                    // Keys that are written anew have verified nothing yet. They are read with the
                    // first token, which is not among those that are timed.
                    backend.run("UPDATE auth.providers SET name = name");
                    backend.run(&format!(
                        "SELECT auth.verify(t) FROM tokens WHERE alg = '{algorithm}' AND n = 0"
                    ));
                    let sql = format!("SELECT count({expression}) {from} AND n > 0");
                    let time = backend.time(&sql, &(USERS - 1).to_string())?;
                    Ok(per(time, USERS - 1))
                };
                let verify = new_tokens_in("auth.verify(t)")?;
                let init = new_tokens_in("auth.jwt_session_init(t, true)")?;
                let set = new_tokens_in(
                    "CASE WHEN set_config('pg_session_jwt.jwt', t, true) IS NOT NULL
                          THEN auth.user_id() END",
                )?;
                let sql = format!("SELECT count(auth.jwt_session_init(t, true)) {from}");
                let before = per(backend.time(&sql, &count)?, USERS);

                let one = format!("(SELECT t {from} AND n = 7)");
                let mut again_in = |expression: &str| {
                    let sql =
                        format!("SELECT count({expression}) FROM generate_series(1, {AGAIN}) i");
                    backend
                        .time(&sql, &AGAIN.to_string())
                        .map(|time| per(time, AGAIN))
                };
                let again_nothing = again_in(&format!("octet_length({one}) + i"))?;
                let again = again_in(&format!("auth.jwt_session_init({one}, true)"))?;

                let mut commits = |call: &str| {
                    let sql = format!(
                        "DO $$ DECLARE token text := {one}; BEGIN
                             FOR i IN 1..{COMMITS} LOOP PERFORM {call}; COMMIT; END LOOP;
                         END $$"
                    );
                    backend.time(&sql, "").map(|time| per(time, COMMITS))
                };
                let commit_nothing = commits("set_config('bench.jwt', token, true)")?;
                let commit = commits("auth.jwt_session_init(token, true)")?;
                if round > 0 {
                    figures.ring.push(ring);
                    figures.nothing.push(nothing);
                    figures.verify.push(verify);
                    figures.init.push(init);
                    figures.set.push(set);
                    figures.before.push(before);
                    figures.set_nothing.push(set_nothing);
                    figures.again_nothing.push(again_nothing);
                    figures.again.push(again);
                    figures.commit_nothing.push(commit_nothing);
                    figures.commit.push(commit);
                }
            }
        }
        Ok(format!(
            "\n### Per token\n\n{} distinct tokens of 1 KiB for each algorithm, one backend; what a \
             like query takes without the extension is taken off. Ring verifies the same bytes in a \
             process of its own, in turns with the backend.\n\n{}",
            super::table::count(USERS),
            self.table(&all)
        ))
    }

    fn table(&self, all: &[Figures]) -> String {
        let mut heads = vec!["per token".to_owned()];
        heads.extend(self.keys.iter().map(|key| key.algorithm().to_owned()));
        heads.push("at most".to_owned());
        let mut table = Table::new(&heads);
        let mut line = |name: &str, target: &str, figure: &dyn Fn(&Figures) -> f64| {
            let mut cells = vec![name.to_owned()];
            cells.extend(
                all.iter()
                    .map(|f| format!("{} µs", number(figure(f) / 1000.0))),
            );
            cells.push(target.to_owned());
            table.row(&cells);
        };
        line("ring alone", "", &|f| median(f.ring.iter().copied()));
        line("`auth.verify(t)`, new token", "", &|f| {
            median_difference(&f.verify, &f.nothing)
        });
        line("… above ring", "10 µs", &|f| {
            let own: Vec<f64> = f
                .verify
                .iter()
                .zip(&f.nothing)
                .map(|(a, b)| a - b)
                .collect();
            median_difference(&own, &f.ring)
        });
        line("`auth.jwt_session_init(t, true)`, new token", "", &|f| {
            median_difference(&f.init, &f.nothing)
        });
        line("… above ring", "10 µs", &|f| {
            let own: Vec<f64> = f.init.iter().zip(&f.nothing).map(|(a, b)| a - b).collect();
            median_difference(&own, &f.ring)
        });
        line(
            "`set_config('pg_session_jwt.jwt', t, true)` and `auth.user_id()`, new token, above the \
             same with a parameter that nobody verifies",
            "",
            &|f| median_difference(&f.set, &f.set_nothing),
        );
        line("… above ring", "10 µs", &|f| {
            let own: Vec<f64> = f
                .set
                .iter()
                .zip(&f.set_nothing)
                .map(|(a, b)| a - b)
                .collect();
            median_difference(&own, &f.ring)
        });
        line(
            "`auth.jwt_session_init(t, true)`, a token that came before, but not among the last 8",
            "",
            &|f| median_difference(&f.before, &f.nothing),
        );
        line(
            "`auth.jwt_session_init(t, true)`, the same token again",
            "3 µs",
            &|f| median_difference(&f.again, &f.again_nothing),
        );
        line(
            "… in the next transaction, above `set_config` of a parameter that nobody verifies",
            "3 µs",
            &|f| median_difference(&f.commit, &f.commit_nothing),
        );
        table.finish()
    }
}
