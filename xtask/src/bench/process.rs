//! What a backend pays once: loading the library, memory, CREATE EXTENSION.

use super::table::{Table, median, number};
use super::timed::Timed as _;
use super::{Bench, token};
use anyhow::Result;
use harness::{Session, backend_memory_kib};

impl Bench<'_> {
    /// The table "per backend".
    pub fn process(&self) -> Result<String> {
        let mut memory = Vec::new();
        for providers in [1, 10] {
            let database = format!("providers_{providers}");
            self.cluster
                .connect("postgres", "postgres")
                .run(&format!("CREATE DATABASE {database}"));
            let keys = token::key_set(&[&self.keys[0], &self.keys[1], &self.keys[2]]);
            let mut owner = self.cluster.connect(&database, "postgres");
            owner.run("CREATE EXTENSION pg_session_jwt");
            owner.run(&format!(
                "INSERT INTO auth.providers (name, issuer, jwks)
                 SELECT 'p' || i, '{}' || CASE i WHEN 1 THEN '' ELSE '/' || i END, '{keys}'
                 FROM generate_series(1, {providers}) i",
                token::ISSUER
            ));
            memory.push((providers, database));
        }

        let (mut load, mut plpgsql, mut library) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = vec![Vec::new(); memory.len()];
        let mut create = Vec::new();
        let one = &self.tokens[2][super::rows::USER].text;
        for _ in 0..self.rounds {
            for ((_, database), used) in memory.iter().zip(&mut used) {
                let mut backend = self.cluster.connect(database, "postgres");
                // Whatever any first query brings into memory shall be there before.
                backend.run("SELECT count(*) FROM pg_class, pg_proc WHERE relname = proname");
                plpgsql.push(backend.time("LOAD 'plpgsql'", "")?);
                let before = private_memory(&mut backend);
                load.push(backend.time("LOAD 'pg_session_jwt'", "")?);
                library.push(private_memory(&mut backend) - before);
                backend.run(&format!("SELECT auth.jwt_session_init('{one}')"));
                backend.run("SELECT auth.user_id()");
                used.push(private_memory(&mut backend) - before);
            }
            let mut backend = self.cluster.connect("postgres", "postgres");
            create.push(backend.time("CREATE EXTENSION pg_session_jwt", "")?);
            backend.run("DROP EXTENSION pg_session_jwt");
        }

        let mut table = Table::new(&["per backend".into(), "".into(), "at most".into()]);
        let milliseconds = |times: Vec<f64>| format!("{} ms", number(median(times) / 1e6));
        let mut line = |name: String, value: String, target: &str| {
            table.row(&[name, value, target.to_owned()]);
        };
        line("loading the library".into(), milliseconds(load), "5 ms");
        line(
            "loading plpgsql, to compare".into(),
            milliseconds(plpgsql),
            "",
        );
        line(
            "private memory: the library".into(),
            format!("{} KiB", number(median(library))),
            "",
        );
        for ((providers, _), used) in memory.iter().zip(used) {
            line(
                match providers {
                    1 => "private memory: the library, one provider with 3 keys, a token of 1 KiB"
                        .into(),
                    more => format!("… with {more} such providers"),
                },
                format!("{} KiB", number(median(used))),
                if *providers == 10 { "1,024 KiB" } else { "" },
            );
        }
        line("`CREATE EXTENSION`".into(), milliseconds(create), "");
        Ok(format!("\n### Per backend\n\n{}", table.finish()))
    }
}

/// Memory that the backend shares with no other process, in KiB.
#[allow(clippy::cast_precision_loss)]
pub fn private_memory(backend: &mut Session) -> f64 {
    backend_memory_kib(&backend.pid()) as f64
}
