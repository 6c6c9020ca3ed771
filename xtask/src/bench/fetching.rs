//! What it costs a statement that its token needs a key which has to be fetched.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Issuer, Web, sql_text, token_with};
use serde_json::json;

use super::Bench;
use super::table::{Table, median, precise};
use super::timed::Timed as _;
use crate::shell::note;

/// So many connections need one new key at the same moment.
const SESSIONS: usize = 20;

const DATABASE: &str = "fetching";

/// What is measured: its name, and what it may be.
const FIGURES: [(&str, &str); 4] = [
    ("a new token, its key known", ""),
    ("a new token, its key fetched meanwhile", "10 ms"),
    ("… in 20 connections at once, the last one", ""),
    ("a made-up key, within half a minute of that", ""),
];

/// A server, and how many keys it has had.
struct Rotating {
    web: Web,
    keys: usize,
}

impl Rotating {
    /// The only key from now on.
    fn rotate(&mut self) -> Issuer {
        self.keys += 1;
        let key = Issuer::es256().with_kid(&format!("key-{}", self.keys));
        self.web.serve_issuer(&[&key]);
        key
    }

    fn token(&self, key: &Issuer) -> String {
        token_with(key, "alice", &json!({"iss": self.web.url()}))
    }
}

impl Bench<'_> {
    /// The table "keys that follow their issuer".
    pub fn fetching(&self) -> Result<String> {
        note("an issuer on this machine, https");
        let mut server = Rotating {
            web: Web::https(),
            keys: 0,
        };
        let mut admin = self.cluster.connect("postgres", "postgres");
        admin.run(&format!("CREATE DATABASE {DATABASE}"));
        let mut owner = self.cluster.connect(DATABASE, "postgres");
        owner.run("CREATE EXTENSION pg_session_jwt");
        owner.run(&format!(
            "ALTER DATABASE {DATABASE} SET pg_session_jwt.fetch_ca_file = {};
             INSERT INTO auth.providers (name, issuer) VALUES ('web', {})",
            sql_text(&server.web.ca_file().display().to_string()),
            sql_text(&server.web.url())
        ));
        let mut figures = vec![Vec::new(); FIGURES.len()];
        for round in 0..=self.rounds.max(5) {
            let measured = self.fetching_round(&mut server)?;
            if round > 0 {
                figures
                    .iter_mut()
                    .zip(measured)
                    .for_each(|(all, one)| all.push(one));
            }
        }
        let heads = ["keys that follow their issuer", "median", "at most"].map(str::to_owned);
        let mut table = Table::new(&heads);
        for ((name, most), figures) in FIGURES.into_iter().zip(figures) {
            let median = format!("{} ms", precise(median(figures.into_iter())));
            table.row(&[name.to_owned(), median, most.to_owned()]);
        }
        Ok(format!(
            "\n### Keys that follow their issuer\n\nES256, an issuer on this machine over https with \
             discovery: two requests. A statement is `SELECT auth.verify(…)`.\n\n{}",
            table.finish()
        ))
    }

    /// One round: the figures, in their order, in milliseconds.
    fn fetching_round(&self, server: &mut Rotating) -> Result<[f64; 4]> {
        let mut owner = self.cluster.connect(DATABASE, "postgres");
        let mut let_time_pass = || {
            owner.run(
                "UPDATE auth.provider_keys SET checked_at = checked_at - interval '31 s', next_at = next_at",
            );
        };
        let verify = |token: &str| format!("SELECT auth.verify('{token}')->>'sub'");
        let mut backend = self.cluster.connect(DATABASE, "postgres");
        let known = server.rotate();
        let_time_pass();
        backend.time(&verify(&server.token(&known)), "alice")?;
        let of_known = backend.time(&verify(&server.token(&known)), "alice")?;

        let new = server.rotate();
        let_time_pass();
        let of_new = backend.time(&verify(&server.token(&new)), "alice")?;

        let new = server.rotate();
        let_time_pass();
        let requests = server.web.requests("/jwks");
        let sql = verify(&server.token(&new));
        let sessions = (0..SESSIONS).map(|_| self.cluster.connect(DATABASE, "postgres"));
        let mut sessions: Vec<_> = sessions.collect();
        for session in &mut sessions {
            session.run("SELECT auth.status()");
        }
        let began = Instant::now();
        let times: Vec<Duration> = std::thread::scope(|scope| {
            let all = sessions.iter_mut().map(|session| {
                let sql = &sql;
                scope.spawn(move || {
                    session.run(sql);
                    began.elapsed()
                })
            });
            let all: Vec<_> = all.collect();
            all.into_iter()
                .map(|thread| thread.join().unwrap_or_default())
                .collect()
        });
        let last = times.into_iter().max().unwrap_or_default();
        let requests = server.web.requests("/jwks") - requests;
        ensure!(
            requests == 1,
            "{SESSIONS} connections made {requests} requests"
        );

        let made_up = Issuer::es256().with_kid("made-up");
        let made_up = format!(
            "DO $$ BEGIN PERFORM auth.verify('{}');
             EXCEPTION WHEN invalid_authorization_specification THEN END $$",
            server.token(&made_up)
        );
        backend.time(&made_up, "")?;
        let of_made_up = backend.time(&made_up, "")?;
        let ms = |nanoseconds: f64| nanoseconds / 1e6;
        Ok([
            ms(of_known),
            ms(of_new),
            last.as_secs_f64() * 1e3,
            ms(of_made_up),
        ])
    }
}
