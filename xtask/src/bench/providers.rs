//! What many providers cost: 10, 1,000 and 100,000 in turns.

use super::process::private_memory;
use super::table::{Table, count, median, median_difference, precise};
use super::timed::Timed as _;
use super::{Bench, token};
use crate::shell::note;
use anyhow::Result;
use harness::sql_text;

/// How many providers the databases have; all rounds compare the last with the first.
const PROVIDERS: [usize; 3] = [10, 1000, 100_000];
/// How many issuers' tokens one connection is presented.
const ISSUERS: usize = 300;
/// How many rows are written at once.
const ROWS: usize = 1000;

/// What is measured, in the order of the table: its name, its unit and how much more it may be with 100,000
/// providers than with 10.
const FIGURES: [(&str, &str, &str); 8] = [
    ("first token of a connection", "ms", "1 ms"),
    ("private memory: library and that token", "KiB", "1,024 KiB"),
    ("… after tokens of 300 issuers", "KiB", "1,024 KiB"),
    ("writing a row", "ms", "5 ms"),
    ("first use after a change of another row", "ms", "1 ms"),
    ("first use after a change of its own row", "ms", "1 ms"),
    ("a token of an unknown issuer, refused", "ms", "1 ms"),
    ("1,000 rows in one statement", "ms", "1 s in all"),
];

fn issuer(number: usize) -> String {
    format!("https://{number}.b.test")
}

/// `INSERT` of the providers with these numbers, each with three keys.
fn insert(numbers: std::ops::RangeInclusive<usize>, keys: &str) -> String {
    format!(
        "INSERT INTO auth.providers (name, issuer, jwks)
         SELECT 'p' || i, 'https://' || i || '.b.test', {} FROM generate_series({}, {}) i",
        sql_text(keys),
        numbers.start(),
        numbers.end()
    )
}

impl Bench<'_> {
    /// The table "however many providers".
    pub fn providers(&self) -> Result<String> {
        let keys = token::key_set(&[&self.keys[0], &self.keys[1], &self.keys[2]]);
        let mut all = Vec::new();
        for providers in PROVIDERS {
            note(format!("{} providers", count(providers)));
            let database = format!("many_{providers}");
            let mut admin = self.cluster.connect("postgres", "postgres");
            admin.run(&format!("CREATE DATABASE {database}"));
            let mut owner = self.cluster.connect(&database, "postgres");
            owner.run("CREATE EXTENSION pg_session_jwt");
            owner.run(&insert(1..=providers, &keys));
            owner.run("VACUUM (FREEZE, ANALYZE) auth.providers");
            // All over the table.
            let tokens = (0..ISSUERS)
                .map(|i| self.token_of(1 + i * providers.div_ceil(ISSUERS) % providers));
            let tokens: Vec<String> = tokens.collect();
            all.push((database, tokens, vec![Vec::new(); FIGURES.len()]));
        }
        // The first round warms everything up, and does not count.
        for round in 0..=self.rounds {
            for (database, tokens, figures) in &mut all {
                let measured = self.round(database, tokens, &keys)?;
                if round > 0 {
                    figures
                        .iter_mut()
                        .zip(measured)
                        .for_each(|(all, one)| all.push(one));
                }
            }
        }

        let mut heads = vec!["however many providers".to_owned()];
        heads.extend(PROVIDERS.map(count));
        heads.extend(["the last above the first".to_owned(), "at most".to_owned()]);
        let mut table = Table::new(&heads);
        for (index, (name, unit, most)) in FIGURES.into_iter().enumerate() {
            let of = |place: usize| -> &[f64] { &all[place].2[index] };
            let mut cells = vec![name.to_owned()];
            cells.extend(
                (0..PROVIDERS.len())
                    .map(|place| format!("{} {unit}", precise(median(of(place).iter().copied())))),
            );
            let more = median_difference(of(PROVIDERS.len() - 1), of(0));
            cells.extend([format!("{} {unit}", precise(more)), most.to_owned()]);
            table.row(&cells);
        }
        Ok(format!(
            "\n### However many providers\n\nEach has three keys, and an issuer of its own; tokens of \
             1 KiB, EdDSA. A use is `SELECT auth.user_id()`.\n\n{}",
            table.finish()
        ))
    }

    /// A token of the provider with this number.
    fn token_of(&self, number: usize) -> String {
        let key = &self.keys[2];
        let mut claims = token::claims(key, super::rows::USER);
        claims.insert("iss".into(), issuer(number).into());
        key.token(claims, 1024).text
    }

    /// One round in one of the databases: the figures, in their order.
    fn round(&self, database: &str, tokens: &[String], keys: &str) -> Result<[f64; 8]> {
        let user = token::subject(super::rows::USER);
        let mut owner = self.cluster.connect(database, "postgres");
        owner.run("UPDATE auth.providers SET audience = NULL WHERE name = 'p6'");
        let mut backend = self.cluster.connect(database, "postgres");
        // Whatever any first query brings into memory shall be there before.
        backend.run("SELECT count(*) FROM pg_class, pg_proc WHERE relname = proname");
        let before = private_memory(&mut backend);
        backend.run("LOAD 'pg_session_jwt'");
        let present = |token: &str| format!("SELECT auth.jwt_session_init('{token}')");
        let first = backend.time(&present(&tokens[0]), "")?;
        let memory = private_memory(&mut backend) - before;
        for token in tokens {
            backend.run(&present(token));
        }
        backend.run(&present(&tokens[0]));
        backend.run("SELECT auth.user_id()");
        let memory_of_many = private_memory(&mut backend) - before;

        let mut write_and_use = |name: &str| -> Result<(f64, f64)> {
            let write = format!("UPDATE auth.providers SET audience = NULL WHERE name = '{name}'");
            let written = owner.time(&write, "")?;
            Ok((written, backend.time("SELECT auth.user_id()", &user)?))
        };
        let (write, after_other) = write_and_use("p5")?;
        let (_, after_own) = write_and_use("p1")?;
        let unknown = format!(
            "DO $$ BEGIN PERFORM auth.verify('{}');
             EXCEPTION WHEN invalid_authorization_specification THEN END $$",
            self.token_of(1_000_000)
        );
        let unknown = backend.time(&unknown, "")?;
        let bulk = owner.time(&insert(200_001..=200_000 + ROWS, keys), "")?;
        owner.run("DELETE FROM auth.providers WHERE substr(name, 2)::int > 200000");
        owner.run("VACUUM auth.providers");
        let ms = |nanoseconds: f64| nanoseconds / 1e6;
        Ok([
            ms(first),
            memory,
            memory_of_many,
            ms(write),
            ms(after_other),
            ms(after_own),
            ms(unknown),
            ms(bulk),
        ])
    }
}
