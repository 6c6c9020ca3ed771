//! A value that an accessor returned stays what it was for as long as Postgres holds on to it, whatever
//! becomes of the token meanwhile.
//!
//! What reads freed memory may still find there what was freed. In a Postgres with assertions (that
//! of version 17, where the tests build it) freed memory is overwritten at once.

use harness::{Database, Issuer, Session, sql_text};
use serde_json::json;

/// More than a session keeps tokens, and than a call site keeps values.
const USERS: usize = 12;

/// A session that becomes any of the users, and asks every accessor, with `pg_temp.turn(number)`; and
/// a table of what each accessor says of each of them, written user by user.
fn session_of_many(db: &Database) -> Session {
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    app.run(&format!(
        "CREATE TEMP TABLE tokens (n int, token text);
         CREATE TEMP TABLE truth (n int, {COLUMNS_AND_TYPES});
         CREATE FUNCTION pg_temp.turn(n int) RETURNS int LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM set_config('pg_session_jwt.jwt', token, false)
             FROM tokens WHERE tokens.n = turn.n % 12;
             PERFORM {ACCESSORS};
             RETURN n;
         END $$"
    ));
    for n in 0..USERS {
        let token = issuer.token(&json!({
            "sub": format!("0188a1b2-0000-7000-8000-0000000000{n:02}"),
            "email": format!("user-{n}-{}@example.com", "long".repeat(n * 20)),
            "org_id": format!("org-{n}-{}", "o".repeat(n * 30)),
            "permissions": [format!("p:{n}"), "a".repeat(n + 1)],
        }));
        app.run(&format!(
            "INSERT INTO tokens VALUES ({n}, {})",
            sql_text(&token)
        ));
        app.run(&format!("SELECT pg_temp.turn({n})"));
        app.run(&format!("INSERT INTO truth SELECT {n}, {ACCESSORS}"));
    }
    app.run("ANALYZE truth");
    assert_eq!(
        app.text("SELECT count(DISTINCT (u, x, j, i, p, e)) FROM truth"),
        USERS.to_string()
    );
    app
}

const COLUMNS_AND_TYPES: &str = "u text, x uuid, j jsonb, i text, p text[], e text";
const ACCESSORS: &str = "auth.user_id(), auth.uid(), auth.jwt(), auth.org_id(), \
                         auth.permissions(), auth.claim('email')";

/// A subquery with this many rows, each of which belongs to another user than the previous one.
fn rows(count: usize) -> String {
    let names = ["u", "x", "j", "i", "p", "e"];
    let columns: Vec<String> = ACCESSORS
        .split(", ")
        .zip(names)
        .map(|(call, name)| format!("{call} AS {name}"))
        .collect();
    // The columns of a row are computed from left to right: the user changes before the row is handed on.
    format!(
        "(SELECT pg_temp.turn(k) % {USERS} AS n, {}, pg_temp.turn(k + 7) % {USERS} AS next
          FROM generate_series(1, {count}) k OFFSET 0)",
        columns.join(", ")
    )
}

/// How many rows of `query`, which has the columns of [`rows`], say what is true.
fn true_rows(app: &mut Session, query: &str) -> String {
    app.text(&format!(
        "WITH r AS MATERIALIZED ({query})
         SELECT count(*) FROM r JOIN truth t USING (n)
         WHERE (r.u, r.x, r.j, r.i, r.p, r.e) = (t.u, t.x, t.j, t.i, t.p, t.e)"
    ))
}

/// A plan node that keeps rows, what makes the planner take it, a query of `$rows`, and how many rows
/// it has.
const NODES: [(&str, &str, &str, &str); 15] = [
    ("Function Scan", "", "SELECT * FROM $rows r", "600"),
    ("Limit", "", "SELECT * FROM $rows r LIMIT 100", "100"),
    (
        "Sort",
        "",
        "SELECT * FROM $rows r ORDER BY e DESC, j, u",
        "600",
    ),
    (
        "Incremental Sort",
        "",
        "SELECT * FROM (SELECT * FROM $rows r ORDER BY u OFFSET 0) s ORDER BY u, e",
        "600",
    ),
    (
        "HashAggregate",
        "SET enable_sort = off",
        "SELECT n, u, x, j, i, p, e FROM $rows r GROUP BY 1, 2, 3, 4, 5, 6, 7",
        "12",
    ),
    (
        "Unique",
        "SET enable_hashagg = off",
        "SELECT DISTINCT n, u, x, j, i, p, e FROM $rows r",
        "12",
    ),
    (
        "Hash Join",
        "SET enable_mergejoin = off; SET enable_nestloop = off",
        "SELECT r.* FROM $rows r JOIN truth ON r.j = truth.j AND r.p = truth.p",
        "600",
    ),
    (
        "Merge Join",
        "SET enable_hashjoin = off; SET enable_nestloop = off",
        "SELECT r.* FROM $rows r JOIN truth ON r.u = truth.u",
        "600",
    ),
    (
        "Materialize",
        "SET enable_hashjoin = off; SET enable_mergejoin = off",
        "SELECT r.* FROM truth JOIN $rows r ON r.x = truth.x",
        "600",
    ),
    (
        "WindowAgg",
        "",
        "SELECT n, lag(u, 0) OVER one AS u, last_value(x) OVER one AS x,
                nth_value(j, 1) OVER same AS j, i, first_value(p) OVER same AS p, e
         FROM $rows r
         WINDOW one AS (ROWS CURRENT ROW), same AS (PARTITION BY u ORDER BY e)",
        "600",
    ),
    (
        "Append",
        "",
        "SELECT * FROM $rows a UNION ALL SELECT * FROM $rows b",
        "1200",
    ),
    (
        "SetOp",
        "",
        "SELECT * FROM $rows a INTERSECT SELECT * FROM $rows b",
        "12",
    ),
    (
        "Aggregate",
        "",
        "SELECT n, max(u) AS u, (array_agg(x))[1] AS x, (array_agg(j))[1] AS j,
                mode() WITHIN GROUP (ORDER BY i) AS i,
                max(p) AS p, string_agg(DISTINCT e, '') AS e
         FROM $rows r GROUP BY n",
        "12",
    ),
    (
        "Recursive Union",
        "",
        "WITH RECURSIVE w AS (
             SELECT 1 AS depth, n, u, x, j, i, p, e FROM $rows r
             UNION SELECT depth + 1, n, u, x, j, i, p, e FROM w WHERE depth < 3)
         SELECT * FROM w",
        "36",
    ),
    (
        "ProjectSet",
        "",
        "SELECT n, u, x, j, i, p, e FROM (SELECT *, unnest(p) FROM $rows r) s",
        "1200",
    ),
];

#[test]
fn rows_that_a_plan_node_keeps_are_of_the_users_they_were_made_for() {
    let db = Database::new();
    let mut app = session_of_many(&db);
    let rows = rows(600);
    for (node, settings, query, expected) in NODES {
        app.run(&format!("RESET ALL; {settings}"));
        let query = query.replace("$rows", &rows);
        let plan = app.rows(&format!("EXPLAIN (COSTS OFF) {query}"));
        assert!(plan.iter().any(|line| line.contains(node)), "{plan:#?}");
        assert_eq!(true_rows(&mut app, &query), expected, "{node}");
    }
}

#[test]
fn a_subselect_that_is_computed_once_keeps_its_user() {
    let db = Database::new();
    let mut app = session_of_many(&db);
    // Computed when it is first asked for, by then as user 1.
    assert_eq!(
        app.text(
            "SELECT count(*) FROM
                 (SELECT pg_temp.turn(k), (SELECT auth.user_id()) AS u, (SELECT auth.jwt()) AS j,
                         (SELECT auth.permissions()) AS p
                  FROM generate_series(1, 500) k OFFSET 0) r
                 JOIN truth USING (u, j, p) WHERE n = 1"
        ),
        "500"
    );
}

#[test]
fn a_cursor_gives_each_row_the_user_of_its_fetch_and_gives_it_again_unchanged() {
    let db = Database::new();
    let mut app = session_of_many(&db);
    let truth = |app: &mut Session, n: usize| {
        app.rows(&format!(
            "SELECT u, j, p FROM truth WHERE n = {}",
            n % USERS
        ))
    };
    app.run("BEGIN");
    app.run("SELECT pg_temp.turn(0)");
    for (name, kind) in [("c", "SCROLL CURSOR"), ("h", "SCROLL CURSOR WITH HOLD")] {
        app.run(&format!(
            "DECLARE {name} {kind} FOR
             SELECT auth.user_id(), auth.jwt(), auth.permissions() FROM generate_series(1, 100)"
        ));
    }
    for n in 0..2 * USERS {
        app.run(&format!("SELECT pg_temp.turn({n})"));
        let row = app.rows("FETCH c");
        assert_eq!(row, truth(&mut app, n), "row {n}");
        // Statements enough to reset or reuse whatever was freed.
        app.run("DISCARD PLANS; SELECT pg_temp.turn(k) FROM generate_series(1, 40) k");
    }
    app.run("SELECT pg_temp.turn(5)");
    app.run("COMMIT");
    // COMMIT has run the held cursor's query to its end, as the user of that moment.
    for n in 6..9 {
        app.run(&format!("SELECT pg_temp.turn({n})"));
        let row = app.rows("FETCH h");
        assert_eq!(row, truth(&mut app, 5));
    }
    app.run("SELECT auth.logout()");
    app.run("FETCH LAST h");
    assert_eq!(app.rows("FETCH ABSOLUTE 2 FROM h"), truth(&mut app, 5));
}

#[test]
fn a_plpgsql_variable_keeps_its_user_through_tokens_commits_and_rollbacks() {
    let db = Database::new();
    let mut app = session_of_many(&db);
    app.run(
        "CREATE PROCEDURE pg_temp.keeps(me int) LANGUAGE plpgsql AS $$
         <<kept>> DECLARE
             unused int := pg_temp.turn(me);
             u text := auth.user_id();
             x uuid := auth.uid();
             j jsonb := auth.jwt();
             p text[] := auth.permissions();
             r record;
             r2 record;
             seen text[];
         BEGIN
             SELECT auth.user_id() AS u, auth.jwt() AS j, auth.permissions() AS p INTO r;
             FOR k IN 1..60 LOOP
                 PERFORM pg_temp.turn(k);
                 seen := seen || auth.user_id();
                 CASE k % 4
                     WHEN 0 THEN COMMIT;
                     WHEN 1 THEN ROLLBACK;
                     WHEN 2 THEN
                         BEGIN
                             PERFORM pg_temp.turn(k + 1), 1 / (auth.user_id() = '')::int;
                         EXCEPTION WHEN division_by_zero THEN
                             NULL;
                         END;
                     ELSE
                         EXECUTE 'SELECT pg_temp.turn($1 + 1), $2 AS u, $3 AS j' INTO STRICT r2
                             USING k, auth.user_id(), auth.jwt();
                         ASSERT (SELECT (r2.u, r2.j) = (t.u, t.j) FROM truth t WHERE n = k % 12), k;
                 END CASE;
                 ASSERT (SELECT (kept.u, kept.x, kept.j, kept.p, r.u, r.j, r.p) = (t.u, t.x, t.j, t.p, t.u, t.j, t.p)
                         FROM truth t WHERE n = me), k;
                 ASSERT seen[k] = (SELECT t.u FROM truth t WHERE n = k % 12), k;
             END LOOP;
         END $$",
    );
    for me in [0, 7, 11] {
        app.run(&format!("CALL pg_temp.keeps({me})"));
    }
}

#[test]
fn an_argument_keeps_its_user_while_the_function_changes_the_token() {
    let db = Database::new();
    let mut app = session_of_many(&db);
    app.run(
        "CREATE FUNCTION pg_temp.after(u text, k int, j jsonb, p text[]) RETURNS boolean
             LANGUAGE plpgsql AS $$
             DECLARE me int := (SELECT n FROM truth t WHERE t.u = after.u);
             BEGIN
                 FOR other IN 1..12 LOOP PERFORM pg_temp.turn(k + other); END LOOP;
                 PERFORM auth.logout();
                 RETURN (SELECT (t.u, t.j, t.p) = (after.u, after.j, after.p)
                         FROM truth t WHERE n = me) AND auth.user_id() IS NULL;
             END $$",
    );
    assert_eq!(
        app.text(
            "SELECT count(*) FROM
                 (SELECT pg_temp.turn(k),
                         pg_temp.after(auth.user_id(), k, auth.jwt(), auth.permissions()) AS kept
                  FROM generate_series(1, 60) k OFFSET 0) r
             WHERE kept"
        ),
        "60"
    );
}

#[test]
fn what_is_written_to_a_table_or_an_index_is_what_was_read() {
    let db = Database::new();
    let mut app = session_of_many(&db);
    app.run(
        "CREATE TEMP TABLE written (n int, u text DEFAULT auth.user_id(), j jsonb, p text[],
                                    CHECK (u = auth.user_id()));
         CREATE INDEX ON written (u);
         CREATE FUNCTION pg_temp.fill() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             NEW.j := auth.jwt();
             NEW.p := auth.permissions();
             PERFORM pg_temp.turn(NEW.n), auth.user_id();
             RETURN NEW;
         END $$;
         CREATE TRIGGER fill BEFORE INSERT ON written FOR EACH ROW EXECUTE FUNCTION pg_temp.fill()",
    );
    app.run("INSERT INTO written (n) SELECT pg_temp.turn(k) FROM generate_series(1, 300) k");
    assert_eq!(
        app.text(
            "SELECT count(*) FROM written w JOIN truth t ON t.n = w.n % 12
             WHERE (w.u, w.j, w.p) = (t.u, t.j, t.p)"
        ),
        "300"
    );
    // An index scan that restarts for each row looks for that row's user.
    app.run("ANALYZE written; SET enable_seqscan = off; SET enable_bitmapscan = off");
    assert_eq!(
        app.text(
            "SELECT count(*) FROM generate_series(1, 48) k, LATERAL
                 (SELECT pg_temp.turn(k) AS t OFFSET 0) a, LATERAL
                 (SELECT w.n FROM written w WHERE w.u = auth.user_id() AND a.t > 0 OFFSET 0) b
             WHERE b.n % 12 = k % 12"
        ),
        (48 * 25).to_string()
    );
}
