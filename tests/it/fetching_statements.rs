//! Keys that follow their issuer: a token may need a key that is not there yet wherever a token may be used.

use harness::{Database, Session, Web, pg_major, server_log, sql_text};

use crate::fetching::{following, key, pass, token};

/// An issuer that has another key each time.
struct Rotating {
    db: Database,
    web: Web,
    admin: Session,
    keys: usize,
}

impl Rotating {
    fn new() -> Self {
        let (db, web, admin) = following(&[]);
        Self {
            db,
            web,
            admin,
            keys: 0,
        }
    }

    /// From now on it has a new key, and no other. A token that needs it.
    fn rotate(&mut self) -> String {
        self.keys += 1;
        let key = key(&format!("key-{}", self.keys));
        self.web.serve_issuer(&[&key]);
        pass(&mut self.admin, 31);
        token(&self.web, &key, &self.user())
    }

    /// The same as a literal.
    fn literal(&mut self) -> String {
        sql_text(&self.rotate())
    }

    /// Whose token it is.
    fn user(&self) -> String {
        format!("user-{}", self.keys)
    }

    /// The keys have been fetched once after each change, and are there for all.
    #[track_caller]
    fn assert_fetched(&mut self) {
        assert_eq!(self.web.requests("/jwks"), self.keys);
        let kid = self
            .admin
            .rows("SELECT jwks->'keys'->0->>'kid' FROM auth.provider_keys");
        assert_eq!(kid, [format!("key-{}", self.keys)]);
    }
}

#[test]
fn in_any_transaction_and_whatever_becomes_of_it() {
    let mut issuer = Rotating::new();
    let mut app = issuer.db.app();
    for begin in [
        "BEGIN",
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    ] {
        for end in ["COMMIT", "ROLLBACK"] {
            app.run(begin);
            // Its snapshot is older than the keys.
            app.run("SELECT count(*) FROM pg_class");
            let token = issuer.rotate();
            app.present(&token);
            app.assert_user(&issuer.user());
            app.run("SELECT count(*) FROM pg_class");
            app.assert_user(&issuer.user());
            app.run(end);
            issuer.assert_fetched();
            // They stay.
            app.present(&token);
            app.assert_user(&issuer.user());
            issuer.assert_fetched();
        }
    }
    app.run("BEGIN; SAVEPOINT a");
    let token = issuer.rotate();
    app.present(&token);
    app.run("ROLLBACK TO a");
    issuer.assert_fetched();
    app.present(&token);
    app.assert_user(&issuer.user());
    app.run("COMMIT");
    issuer.assert_fetched();
    // Nor has any session of any test so far lost track of what it uses.
    let log = server_log();
    for word in ["leak", "still referenced", "don't own a lock"] {
        let line = log.lines().find(|line| line.contains(word));
        assert_eq!(line, None);
    }
}

#[test]
fn in_any_statement() {
    let mut issuer = Rotating::new();
    let mut app = issuer.db.app();
    // A parameter, and the first use of it.
    let set = |issuer: &mut Rotating| format!("SET pg_session_jwt.jwt = {}", issuer.literal());
    app.run(&set(&mut issuer));
    app.assert_user(&issuer.user());
    issuer.assert_fetched();

    app.run("PREPARE who AS SELECT auth.user_id()");
    for _ in 0..3 {
        app.run(&set(&mut issuer));
        assert_eq!(app.text("EXECUTE who"), issuer.user());
        issuer.assert_fetched();
    }
    // The extended protocol.
    let statement = app.client.prepare("SELECT auth.verify($1) ->> 'sub'");
    let statement = statement.unwrap();
    let token = issuer.rotate();
    let rows = app.client.query(&statement, &[&token]).unwrap();
    assert_eq!(rows[0].get::<_, String>(0), issuer.user());
    issuer.assert_fetched();

    app.run("BEGIN; DECLARE c CURSOR FOR SELECT auth.user_id() FROM generate_series(1, 3)");
    app.run(&set(&mut issuer));
    assert_eq!(app.rows("FETCH 2 FROM c"), vec![issuer.user(); 2]);
    assert_eq!(app.rows("FETCH 2 FROM c"), vec![issuer.user(); 1]);
    app.run("COMMIT");
    issuer.assert_fetched();

    let verify = format!("SELECT auth.verify({}) ->> 'sub'", issuer.literal());
    assert_eq!(app.text(&verify), issuer.user());
    issuer.assert_fetched();
}

#[test]
fn in_any_function_and_trigger() {
    let mut issuer = Rotating::new();
    issuer.admin.run(
        "CREATE FUNCTION definer() RETURNS text LANGUAGE sql SECURITY DEFINER
             SET search_path = pg_catalog AS 'SELECT auth.user_id()';
         CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.user_id := auth.user_id(); RETURN NEW; END $$;
         CREATE TABLE notes (user_id text);
         CREATE TRIGGER fill BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION fill();
         CREATE FUNCTION looks(tokens text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
             DECLARE token text;
             BEGIN
                 FOREACH token IN ARRAY tokens LOOP
                     BEGIN
                         PERFORM set_config('pg_session_jwt.jwt', token, true);
                         RETURN NEXT auth.user_id();
                     EXCEPTION WHEN invalid_authorization_specification THEN
                         RETURN NEXT SQLERRM;
                     END;
                 END LOOP;
             END $$;
         GRANT INSERT, SELECT ON notes TO PUBLIC",
    );
    let mut app = issuer.db.app();
    let set = |issuer: &mut Rotating| format!("SET pg_session_jwt.jwt = {}", issuer.literal());
    app.run(&set(&mut issuer));
    assert_eq!(app.text("SELECT definer()"), issuer.user());
    issuer.assert_fetched();

    app.run(&set(&mut issuer));
    app.run("INSERT INTO notes SELECT FROM generate_series(1, 2)");
    assert_eq!(app.rows("TABLE notes"), vec![issuer.user(); 2]);
    issuer.assert_fetched();

    app.run("RESET pg_session_jwt.jwt");
    let before = issuer.rotate();
    let after = issuer.rotate();
    let tokens = [&before, &after, &before]
        .map(|token| sql_text(token))
        .join(",");
    assert_eq!(
        app.rows(&format!("SELECT * FROM looks(ARRAY[{tokens}])")),
        ["no key fits the JWT", &issuer.user(), "no key fits the JWT"]
    );
    assert_eq!(
        issuer.web.requests("/jwks"),
        issuer.keys - 1,
        "one for both"
    );
}

#[test]
fn a_policy_and_a_login_wait_for_the_key() {
    let mut issuer = Rotating::new();
    issuer.admin.run(
        "CREATE TABLE notes (user_id text);
         INSERT INTO notes SELECT 'user-' || n FROM generate_series(1, 1000) n; ANALYZE notes;
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON notes USING (auth.user_id() = user_id);
         GRANT SELECT ON notes TO PUBLIC",
    );
    let mut app = issuer.db.app();
    app.run(&format!("SET pg_session_jwt.jwt = {}", issuer.literal()));
    assert_eq!(app.rows("TABLE notes"), [issuer.user()]);
    issuer.assert_fetched();

    let role = issuer.db.login_role();
    issuer
        .admin
        .run("UPDATE auth.providers SET default_role = 'authenticated'");
    let mut app = issuer.db.connect(&role, "");
    app.run("BEGIN");
    let login = format!("SELECT auth.login({})", issuer.literal());
    assert_eq!(app.text(&login), "authenticated");
    assert_eq!(app.rows("TABLE notes"), [issuer.user()]);
    app.run("COMMIT");
    issuer.assert_fetched();
}

/// What a parallel plan answers: all rows, or why not.
fn in_workers(app: &mut Session, sql: &str, user: &str) -> Option<String> {
    match app.try_rows(sql) {
        Ok(rows) => {
            assert_eq!(rows, vec![vec![Some(user.to_owned())]]);
            None
        }
        Err(refusal) => {
            refusal.assert_stage("key", harness::first_line::NO_KEY_FITS);
            Some(refusal.hint)
        }
    }
}

#[test]
fn a_parallel_plan_answers_rightly_or_says_what_to_do() {
    let mut issuer = Rotating::new();
    issuer.admin.run(
        "CREATE TABLE notes (user_id text);
         INSERT INTO notes SELECT 'user-' || n % 10 FROM generate_series(1, 50000) n;
         ANALYZE notes; GRANT SELECT ON notes TO PUBLIC",
    );
    let parameter = if pg_major() >= 16 {
        "debug_parallel_query"
    } else {
        "force_parallel_mode"
    };
    for leader in ["on", "off"] {
        let mut app = issuer.db.app();
        app.run(&format!(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
             SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;
             SET {parameter} = on; SET parallel_leader_participation = {leader}"
        ));
        // The planner asks for a comparison with a column, in the leader. Not for the other one.
        let compared = "SELECT DISTINCT user_id FROM notes WHERE auth.user_id() = user_id";
        let shown = "SELECT DISTINCT auth.user_id() FROM notes WHERE length(user_id) > 0";
        for (sql, planner_asks) in [(compared, true), (shown, false)] {
            let token = issuer.rotate();
            app.run(&format!("SET pg_session_jwt.jwt = {}", sql_text(&token)));
            let plan = app.rows(&format!("EXPLAIN (COSTS OFF) {shown}")).join("\n");
            assert!(plan.contains("Workers Planned"), "{plan}");
            let hint = in_workers(&mut app, sql, &issuer.user());
            if planner_asks {
                assert_eq!(hint, None);
            } else if let Some(hint) = hint {
                assert_eq!(
                    hint,
                    "Keys are not fetched in a parallel worker: present the token in a statement of its own."
                );
                // As the HINT says.
                app.present(&token);
                assert_eq!(in_workers(&mut app, sql, &issuer.user()), None);
            }
            issuer.assert_fetched();
        }
    }
}
