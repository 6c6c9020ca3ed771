//! What a token costs that another connection has verified.

use anyhow::Result;

use super::table::{Table, median_difference, number};
use super::timed::Timed as _;
use super::{Bench, USERS};

/// What is measured: its name, the expression, and what it may be.
const FIGURES: [(&str, &str, &str); 2] = [
    ("`auth.verify(t)`", "auth.verify(t)", "4 µs"),
    (
        "`auth.jwt_session_init(t, true)`",
        "auth.jwt_session_init(t, true)",
        "2.5 µs",
    ),
];

impl Bench<'_> {
    /// The table "verified by another connection". The server's connections share a memory of signatures.
    pub fn shared(&self) -> Result<String> {
        let mut table = vec![vec![(Vec::new(), Vec::new()); self.keys.len()]; FIGURES.len()];
        for round in 0..=self.rounds {
            // Round 0 verifies them; each later one is another connection.
            let mut backend = self.backend();
            for (place, key) in self.keys.iter().enumerate() {
                let from = format!("FROM tokens WHERE alg = '{}'", key.algorithm());
                backend.run(&format!("SELECT count(auth.verify(t)) {from} AND n = 0"));
                for (figure, (_, expression, _)) in table.iter_mut().zip(FIGURES) {
                    let mut time = |expression: &str| -> Result<f64> {
                        let sql = format!("SELECT count({expression}) {from} AND n > 0");
                        let time = backend.time(&sql, &(USERS - 1).to_string())?;
                        #[allow(clippy::cast_precision_loss)]
                        Ok(time / (USERS - 1) as f64)
                    };
                    let (nothing, own) = (time("octet_length(t)")?, time(expression)?);
                    if round > 0 {
                        figure[place].0.push(own);
                        figure[place].1.push(nothing);
                    }
                }
            }
        }
        let mut heads = vec!["a token that another connection has verified".to_owned()];
        heads.extend(self.keys.iter().map(|key| key.algorithm().to_owned()));
        heads.push("at most".to_owned());
        let mut text = Table::new(&heads);
        for (figures, (name, _, most)) in table.into_iter().zip(FIGURES) {
            let mut cells = vec![name.to_owned()];
            for (own, nothing) in figures {
                let cost = median_difference(&own, &nothing) / 1000.0;
                cells.push(format!("{} µs", number(cost)));
            }
            cells.push(most.to_owned());
            text.row(&cells);
        }
        Ok(format!(
            "\n### Verified by another connection\n\nIn all, less what a like query takes without the \
             extension. (HS256 is computed each time.)\n\n{}",
            text.finish()
        ))
    }
}
