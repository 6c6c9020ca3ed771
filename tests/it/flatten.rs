//! Policies of the form `(SELECT …)`, as Drizzle writes them: planned like the bare call, with the same answers.

use harness::{Cluster, Database, Refusal, Session, pg_major};

/// A table of 2,000 rows of 200 users, with an index; its administrator, and a session with an ordinary role.
fn database() -> (Database, Session, Session) {
    let db = Database::new();
    let role = db.role("reader");
    let mut admin = db.superuser();
    admin.run(&format!(
        "CREATE TABLE t (id int, user_id text, u uuid, team text, n int);
         CREATE INDEX ON t (user_id);
         INSERT INTO t SELECT i, CASE WHEN i % 50 > 0 THEN 'user-' || i % 200 END, gen_random_uuid(),
             CASE i % 3 WHEN 0 THEN NULL ELSE 'team-' || i % 7 END, i % 5 FROM generate_series(1, 2000) i;
         ANALYZE t;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role};
         CREATE FUNCTION public.own() RETURNS text STABLE LANGUAGE sql AS 'SELECT auth.user_id()';
         CREATE FUNCTION public.loud() RETURNS boolean VOLATILE LANGUAGE plpgsql AS
             $$ BEGIN RAISE NOTICE 'loud'; RETURN true; END $$"
    ));
    let mut app = db.superuser();
    app.run(&format!("SET test.role = {role}; SET ROLE {role}"));
    (db, admin, app)
}

/// Gives the session an identity.
fn claim(app: &mut Session, claims: &str) {
    app.run(&format!(
        "RESET ROLE; SET pg_session_jwt.claims = '{claims}';
         SELECT set_config('role', current_setting('test.role'), false)"
    ));
}

fn policy(admin: &mut Session, condition: &str) {
    admin.run(&format!(
        "DROP POLICY IF EXISTS p ON t; CREATE POLICY p ON t USING ({condition}) WITH CHECK (true)"
    ));
}

/// The plan of a statement, without costs.
fn plan(app: &mut Session, sql: &str) -> String {
    let plan = try_plan(app, sql);
    plan.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"))
}

fn try_plan(app: &mut Session, sql: &str) -> Result<String, Refusal> {
    let rows = app.try_rows(&format!("EXPLAIN (COSTS OFF) {sql}"))?;
    let lines = rows.into_iter().flatten().flatten();
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn drizzles_form_uses_an_index_like_the_bare_call() {
    let (_db, mut admin, mut app) = database();
    claim(&mut app, "{\"sub\": \"user-7\", \"org\": \"team-1\"}");
    app.run("SELECT auth.user_id(); SET enable_seqscan = off");
    let sql = "SELECT id FROM t";
    for (condition, bare) in [
        (
            "(select auth.user_id() = user_id)",
            "auth.user_id() = user_id",
        ),
        (
            "(select auth.user_id() = t.user_id) and true",
            "auth.user_id() = user_id",
        ),
        (
            "(select (select auth.user_id()) = user_id)",
            "(select auth.user_id()) = user_id",
        ),
        (
            "(select auth.jwt()->>'sub' = user_id)",
            "auth.jwt()->>'sub' = user_id",
        ),
        (
            "(select auth.user_id() = user_id) and (select n > 1)",
            "auth.user_id() = user_id and n > 1",
        ),
        (
            "(select auth.user_id() = user_id and n > 1)",
            "auth.user_id() = user_id and n > 1",
        ),
    ] {
        policy(&mut admin, bare);
        let (wanted, rows) = (plan(&mut app, sql), app.rows(sql));
        assert!(wanted.contains("Index"), "{wanted}");
        assert!(!rows.is_empty());
        policy(&mut admin, condition);
        assert_eq!(plan(&mut app, sql), wanted, "{condition}");
        assert_eq!(app.rows(sql), rows, "{condition}");
        app.run("SET pg_session_jwt.flatten_policies = off");
        let unchanged = plan(&mut app, sql);
        assert!(unchanged.contains("SubPlan"), "{unchanged}");
        assert_eq!(app.rows(sql), rows, "{condition}");
        app.run("RESET pg_session_jwt.flatten_policies");
    }
}

#[test]
fn what_could_change_an_answer_stays_as_it_is() {
    let (_db, mut admin, mut app) = database();
    claim(&mut app, "{\"sub\": \"user-7\"}");
    app.run("SELECT auth.user_id()");
    admin.run(
        "ALTER TABLE t ADD k circle, ADD c text COLLATE \"C\", ADD p text COLLATE \"POSIX\";
         CREATE FUNCTION neg(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR public.==== (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text,
             NEGATOR = OPERATOR(public.!====));
         CREATE OPERATOR public.!==== (FUNCTION = neg, LEFTARG = text, RIGHTARG = text,
             NEGATOR = OPERATOR(public.====))",
    );
    for condition in [
        // It may fail.
        "(select auth.user_id()::int = n)",
        "(select 1 / n = id)",
        "(select lower(auth.user_id()) = user_id)",
        "(select auth.verify(user_id) is null)",
        "(select md5(user_id) = auth.user_id())",
        "(select auth.user_id() is not null and k = '<(0,0),1e200>')",
        "(select auth.user_id() is not null and c = p)",
        // Its negator is somebody's own.
        "not (select auth.user_id() operator(public.====) user_id)",
        // It may have an effect, or another value each time.
        "(select loud() and user_id is null)",
        "(select random() < 2 and user_id is null)",
        // Nobody knows what it does.
        "(select own() = user_id)",
        // It is more than an expression.
        "(select auth.user_id() = user_id limit 1)",
        "(select auth.user_id() = user_id where true)",
        "(select distinct auth.user_id() = user_id)",
        "(select bool_or(auth.user_id() = v.x) from (values (t.user_id)) v (x))",
        "exists (select auth.user_id() = user_id)",
        "true in (select auth.user_id() = user_id)",
        // Once for the whole query is best.
        "(select auth.user_id() = 'user-7')",
        "user_id = (select auth.user_id())",
    ] {
        policy(&mut admin, condition);
        let with = plan(&mut app, "SELECT id FROM t");
        app.run("SET pg_session_jwt.flatten_policies = off");
        let without = plan(&mut app, "SELECT id FROM t");
        app.run("RESET pg_session_jwt.flatten_policies");
        assert_eq!(with, without, "{condition}");
    }
}

/// A condition of a policy, made of `seed`.
struct Maker(u64);

impl Maker {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one(&mut self, texts: &[&str]) -> String {
        texts[usize::try_from(self.below(texts.len() as u64)).unwrap()].to_owned()
    }

    fn text(&mut self, depth: u32) -> String {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 | 1 => "auth.user_id()".into(),
            2 => self.one(&["user_id", "team"]),
            3 => self.one(&[
                "'user-7'",
                "NULL::text",
                "''",
                "auth.jwt()->>'org'",
                "auth.claim('org')",
            ]),
            4 => self.one(&["n::text", "own()", "auth.jwt()#>>'{a,b}'"]),
            5 => format!(
                "coalesce({}, {})",
                self.text(depth - 1),
                self.text(depth - 1)
            ),
            6 => format!("(select {})", self.text(depth - 1)),
            7 => format!(
                "case when {} then {} else {} end",
                self.condition(depth - 1),
                self.text(depth - 1),
                self.text(depth - 1)
            ),
            _ => format!("nullif({}, {})", self.text(depth - 1), self.text(depth - 1)),
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        if depth == 0 {
            return format!("{} = {}", self.text(0), self.text(0));
        }
        let depth = depth - 1;
        match self.below(12) {
            0..=2 => format!("(select {})", self.condition(depth)),
            3 => format!("({} and {})", self.condition(depth), self.condition(depth)),
            4 => format!("({} or {})", self.condition(depth), self.condition(depth)),
            5 => format!("not {}", self.condition(depth)),
            6 => format!(
                "({}) is distinct from ({})",
                self.text(depth),
                self.text(depth)
            ),
            7 => format!("({}) is null", self.text(depth)),
            8 => format!(
                "({}) = any (array['user-7', team, 'user-9'])",
                self.text(depth)
            ),
            9 => format!(
                "exists (select from m where m.team = t.team and {})",
                self.condition(depth)
            ),
            10 => self.one(&[
                "n > 2",
                "loud()",
                "n % 2 = 0",
                "u is not null",
                "(select n + 1 > 3)",
            ]),
            _ => format!("{} = {}", self.text(depth), self.text(depth)),
        }
    }
}

#[test]
fn no_answer_changes() {
    let (_db, mut admin, mut app) = database();
    admin.run("CREATE TABLE m (team text, user_id text); INSERT INTO m VALUES ('team-1', 'user-7'), ('team-2', NULL)");
    admin.run("GRANT SELECT ON m TO PUBLIC; CREATE VIEW v WITH (security_barrier) AS SELECT * FROM t WHERE n < 4");
    let role = app.text("SELECT current_user");
    admin.run(&format!(
        "ALTER VIEW v OWNER TO {role}; ALTER TABLE t FORCE ROW LEVEL SECURITY"
    ));
    app.run("SELECT auth.user_id()");
    app.run("SET client_min_messages = warning");
    let (mut maker, mut flattened, mut asked) = (Maker(0x5eed_1e55), 0, 0);
    for _ in 0..150 {
        let depth = 1 + u32::try_from(maker.below(3)).unwrap();
        let mut condition = maker.condition(depth);
        if maker.below(3) > 0 {
            condition = format!("(select {condition})");
        }
        policy(&mut admin, &condition);
        for claims in [
            "",
            "{\"sub\": \"user-7\", \"org\": \"team-1\", \"a\": {\"b\": \"user-9\"}}",
            "{\"sub\": \"nobody\"}",
        ] {
            claim(&mut app, claims);
            for sql in [
                "SELECT count(*), sum(id) FROM t",
                "SELECT id FROM t WHERE n = 3 ORDER BY id LIMIT 20",
                "SELECT count(*) FROM v",
                "WITH x AS MATERIALIZED (SELECT * FROM t) SELECT count(*) FROM x JOIN t USING (id)",
            ] {
                let with = app.try_rows(sql);
                let plan_with = try_plan(&mut app, sql);
                app.run("SET pg_session_jwt.flatten_policies = off");
                let without = app.try_rows(sql);
                let plan_without = try_plan(&mut app, sql);
                app.run("RESET pg_session_jwt.flatten_policies");
                assert_eq!(with, without, "{condition}: {sql}");
                asked += 1;
                flattened += usize::from(plan_with != plan_without);
            }
        }
    }
    assert!(
        flattened > asked / 20,
        "{flattened} of {asked} plans are other ones"
    );
}

#[test]
fn a_plan_from_before_the_library_was_loaded_is_made_again() {
    let (_db, mut admin, mut app) = database();
    policy(&mut admin, "(select auth.user_id() = user_id)");
    app.run("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan");
    app.run("PREPARE q AS SELECT count(*) FROM t WHERE n >= $1");
    let first = plan(&mut app, "EXECUTE q(0)");
    assert!(
        first.contains("SubPlan"),
        "nothing has loaded it yet: {first}"
    );
    app.run("SELECT auth.user_id()");
    let then = plan(&mut app, "EXECUTE q(0)");
    assert!(
        then.contains("Index Cond: (user_id = auth.user_id())"),
        "{then}"
    );
    for user in ["user-7", "user-8"] {
        claim(&mut app, &format!("{{\"sub\": \"{user}\"}}"));
        let own = format!("SELECT count(*) FROM t WHERE user_id = '{user}'");
        assert_eq!(app.text("EXECUTE q(0)"), admin.text(&own), "{user}");
    }
}

#[test]
fn what_writes_is_planned_alike() {
    let (_db, mut admin, mut app) = database();
    policy(&mut admin, "(select auth.user_id() = user_id)");
    app.run("SELECT auth.user_id(); SET enable_seqscan = off");
    claim(&mut app, "{\"sub\": \"user-7\"}");
    for sql in [
        "UPDATE t SET n = n + 1",
        "DELETE FROM t",
        "SELECT id FROM t FOR UPDATE",
    ] {
        let with = plan(&mut app, sql);
        assert!(
            with.contains("Index Cond: (user_id = auth.user_id())"),
            "{sql}: {with}"
        );
    }
    app.run("BEGIN; UPDATE t SET n = -1");
    let others = "SELECT count(*) FROM t WHERE n = -1 AND user_id IS DISTINCT FROM 'user-7'";
    app.run("COMMIT");
    assert_eq!(admin.text(others), "0");
    assert_ne!(admin.text("SELECT count(*) FROM t WHERE n = -1"), "0");
}

#[test]
fn other_modules_that_look_at_plans_work_beside_it_in_either_order() {
    let offered = Database::without_extension()
        .superuser()
        .text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'");
    if offered == "0" {
        println!("left out: this Postgres has no pg_stat_statements");
        return;
    }
    let settings = |libraries: &str| {
        format!(
            "shared_preload_libraries = '{libraries}'\nauto_explain.log_min_duration = 0\ncompute_query_id = on"
        )
    };
    // What each fails with, in all that an error says: in planning, once within a function that is inlined.
    let errors = |server: &Cluster| {
        let mut app = server.connect("postgres", "app");
        [
            "SELECT id FROM t a FULL JOIN t b USING (id) WHERE public.inverse(0) > 0",
            "SELECT * FROM t a FULL JOIN t b ON a.id < b.id",
            "SELECT count(*) FROM t WHERE id = 1/0",
        ]
        .map(|sql| {
            let error = app.client.simple_query(sql).expect_err(sql);
            format!("{:?}", error.as_db_error().expect("the server's"))
        })
    };
    let mut expected = None;
    for (libraries, has_ours) in [
        ("pg_stat_statements, auto_explain", false),
        ("pg_session_jwt, pg_stat_statements, auto_explain", true),
        ("pg_stat_statements, auto_explain, pg_session_jwt", true),
    ] {
        let server = Cluster::start(&settings(libraries));
        let mut admin = server.connect("postgres", "postgres");
        admin.run(
            "CREATE EXTENSION pg_session_jwt; CREATE EXTENSION pg_stat_statements; CREATE ROLE app LOGIN;
             CREATE FUNCTION inverse(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / $1';
             CREATE TABLE t (id int, user_id text); CREATE INDEX ON t (user_id);
             INSERT INTO t SELECT i, 'user-' || i FROM generate_series(1, 2000) i; ANALYZE t;
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO app;
             CREATE POLICY p ON t USING ((select auth.user_id() = user_id))",
        );
        let said = errors(&server);
        assert_eq!(&said, expected.get_or_insert(said.clone()), "{libraries}");
        if !has_ours {
            continue;
        }
        let mut app = server.connect("postgres", "app");
        let scan = plan(&mut app, "SELECT id AS watched FROM t");
        assert!(scan.contains("Index Cond"), "{libraries}: {scan}");
        app.run("SELECT id AS watched FROM t");
        let log = server.log();
        let explained = log
            .rsplit("SELECT id AS watched")
            .next()
            .unwrap_or_default();
        assert!(
            explained.contains("Index Cond: (user_id = auth.user_id())"),
            "{libraries}: {explained}"
        );
        let calls =
            "SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE 'SELECT id AS watched%'";
        assert_eq!(admin.text(calls), "1", "{libraries}");
    }
}

#[test]
fn a_column_that_is_computed_when_it_is_read_may_fail() {
    if pg_major() < 18 {
        return;
    }
    let (_db, mut admin, mut app) = database();
    admin.run(
        "ALTER TABLE t ADD secret text, ADD v bool GENERATED ALWAYS AS (secret::int = 1) VIRTUAL;
         UPDATE t SET secret = CASE user_id WHEN 'user-7' THEN '1' ELSE 'secret of ' || user_id END;
         ANALYZE t",
    );
    claim(
        &mut app,
        "{\"sub\": \"user-7\", \"o\": {\"id\": \"user-7\"}}",
    );
    policy(
        &mut admin,
        "(select auth.jwt()->'o'->>'id' = user_id and v)",
    );
    for flatten in ["off", "on"] {
        app.run(&format!("SET pg_session_jwt.flatten_policies = {flatten}"));
        assert_eq!(app.rows("SELECT DISTINCT user_id FROM t"), ["user-7"]);
    }
}

#[test]
fn a_deep_query_is_planned_as_without_it() {
    let (_db, mut admin, mut app) = database();
    policy(&mut admin, "(select auth.user_id() = user_id)");
    claim(&mut app, "{\"sub\": \"user-7\"}");
    const DEEP: usize = 2500;
    for sql in [
        format!("SELECT id{} FROM t", " + 1".repeat(DEEP)),
        format!(
            "SELECT id FROM t WHERE {}(user_id = 'a')",
            "not ".repeat(DEEP)
        ),
        vec!["SELECT id FROM t"; DEEP / 4].join(" UNION ALL "),
        format!(
            "{}SELECT id FROM t{}",
            "SELECT * FROM (".repeat(50),
            ") s".repeat(50)
        ),
    ] {
        for flatten in ["off", "on"] {
            app.run(&format!("SET pg_session_jwt.flatten_policies = {flatten}"));
            plan(&mut app, &sql);
        }
    }
    // Where it is too deep, Postgres says so, and nobody else.
    let too_deep = format!("SELECT id{} FROM t", " + 1".repeat(100_000));
    let said = ["off", "on"].map(|flatten| {
        app.run(&format!("SET pg_session_jwt.flatten_policies = {flatten}"));
        app.refused(&too_deep)
    });
    assert_eq!(said[0], said[1]);
    said[0].assert("54001", "stack depth limit exceeded");
}
