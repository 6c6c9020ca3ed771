//! Keys that follow their issuer: an owner of a database puts his own things where the worker writes.

use std::time::Duration;

use harness::{Session, Web, server_log, sql_text};

use crate::fetching::{follow, key, set, token};
use crate::fetching_permission::owned;

/// Records what it can do where it runs, and tries to become a superuser.
const SPY: &str = "
    CREATE TABLE public.seen (place text, who text, session text, super text, tries text);
    GRANT ALL ON public.seen TO PUBLIC;
    CREATE FUNCTION public.spy(place text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE tries text := ''; sql text;
    BEGIN
        FOREACH sql IN ARRAY ARRAY[
            'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET ROLE',
            'RESET SESSION AUTHORIZATION', 'SET ROLE NONE', 'SELECT pg_read_file(''PG_VERSION'')',
            'ALTER ROLE CURRENT_USER SUPERUSER', 'COPY (SELECT 1) TO PROGRAM ''true''',
            'SET session_replication_role = replica', 'CREATE TEMP TABLE t ()'
        ] LOOP
            BEGIN
                EXECUTE sql;
                IF current_setting('is_superuser') = 'on' OR sql NOT LIKE 'RESET%' AND sql NOT LIKE '%NONE' THEN
                    tries := tries || sql || '; ';
                END IF;
            EXCEPTION WHEN OTHERS THEN END;
        END LOOP;
        INSERT INTO public.seen VALUES (place, current_user, session_user,
            (SELECT rolsuper::text FROM pg_catalog.pg_roles WHERE rolname = current_user), tries);
        RETURN true;
    END $$;
    CREATE FUNCTION public.spy_trigger() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.spy(TG_NAME); RETURN coalesce(NEW, OLD); END $$;
    CREATE FUNCTION public.spy_default() RETURNS text LANGUAGE sql AS
        $$ SELECT public.spy('default')::text $$;
    CREATE FUNCTION public.spy_index(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.spy('index'); RETURN $1; END $$;
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.spy('clock'); RETURN pg_catalog.clock_timestamp(); END $$;
    CREATE FUNCTION public.make_interval(secs double precision) RETURNS interval LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.spy('interval'); RETURN pg_catalog.make_interval(secs => secs); END $$;
    CREATE FUNCTION public.spy_equal(text, text) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.spy('operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.spy_equal);";

/// Tables of an owner's own, under the names of the extension's, with all that can run code.
const TRAPS: &str = "
    CREATE TABLE auth.providers (name text PRIMARY KEY, issuer text, jwks jsonb, jwks_url text);
    CREATE TABLE auth.provider_keys (issuer text, 
        provider text PRIMARY KEY CHECK (public.spy('check')), url text NOT NULL, jwks jsonb,
        fetched_at timestamptz, checked_at timestamptz, next_at timestamptz, failures integer,
        error text, ignored text[], extra text DEFAULT public.spy_default());
    CREATE INDEX ON auth.provider_keys (public.spy_index(url));
    CREATE TRIGGER before BEFORE INSERT OR UPDATE ON auth.provider_keys
        FOR EACH ROW EXECUTE FUNCTION public.spy_trigger();
    CREATE TRIGGER after AFTER INSERT OR UPDATE ON auth.provider_keys
        FOR EACH STATEMENT EXECUTE FUNCTION public.spy_trigger();
    ALTER TABLE auth.providers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY p ON auth.providers USING (public.spy('policy'));";

/// What ran, ran as its owner, and could do no more than he.
#[track_caller]
fn assert_no_power(admin: &mut Session, owner: &str) -> usize {
    let seen = admin.rows("SELECT who, super, tries, place FROM public.seen");
    for line in &seen {
        assert!(line.starts_with(&format!("{owner}|false||")), "{seen:?}");
    }
    seen.len()
}

#[test]
fn what_an_owner_puts_in_the_place_of_the_tables_has_no_power() {
    let (db, role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    db.administrator_sets("pg_session_jwt.fetch_hosts", "127.0.0.1");
    let answer = set(&[good.jwk()]).after(Duration::from_millis(1500));
    web.serve("/jwks", answer);
    owner.run(&follow(&web));
    let mut app = db.app();
    let alice = token(&web, &good, "alice");
    let refusal = app.rejected(&alice);
    assert!(refusal.hint.contains("are being fetched"), "{refusal:?}");
    // While it lasts.
    owner.run("DROP EXTENSION pg_session_jwt");
    owner.run(SPY);
    owner.run(&format!(
        "CREATE SCHEMA auth; {TRAPS};
         INSERT INTO auth.providers (name, issuer) VALUES ('web', {})",
        sql_text(&web.url())
    ));
    owner.run("SET search_path = public, pg_catalog");
    // The extension does not go into a schema of his, nor do his tables become its own.
    owner.run("DELETE FROM public.seen");
    assert_eq!(
        owner.refused("CREATE EXTENSION pg_session_jwt").sqlstate,
        "42P06"
    );
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(
        admin.text(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_session_jwt%'"
        ),
        "0"
    );
    assert_eq!(admin.rows("TABLE auth.provider_keys"), Vec::<String>::new());
    assert_eq!(assert_no_power(&mut admin, &role), 0, "nothing ran");

    // Made members of the extension that he has beside them.
    owner.run("ALTER SCHEMA auth RENAME TO mine; CREATE EXTENSION pg_session_jwt");
    owner.run(
        "ALTER EXTENSION pg_session_jwt ADD TABLE mine.providers;
         ALTER EXTENSION pg_session_jwt ADD TABLE mine.provider_keys",
    );
    owner.run(&follow(&web));
    web.serve_issuer(&[&good]);
    let mut app = db.app();
    app.present(&alice);
    app.assert_user("alice");
    assert_eq!(admin.text("SELECT count(*) FROM auth.provider_keys"), "1");
    assert_eq!(admin.text("SELECT count(*) FROM mine.provider_keys"), "0");
    assert_eq!(assert_no_power(&mut admin, &role), 0, "nothing ran");
}

#[test]
fn triggers_on_tables_that_were_given_away_run_as_their_owner() {
    let (db, role, mut admin, mut owner) = owned();
    let (web, good) = (Web::http(), key("good"));
    web.serve_issuer(&[&good]);
    admin.run(&follow(&web));
    // Rows of such tables are nobody's but his.
    admin.run(&format!(
        "ALTER DATABASE {} SET pg_session_jwt.fetch_hosts = '127.0.0.1'",
        db.name()
    ));
    let mut admin = db.superuser();
    admin.run(&format!(
        "ALTER SCHEMA auth OWNER TO {role}; ALTER TABLE auth.providers OWNER TO {role};
         ALTER TABLE auth.provider_keys OWNER TO {role}"
    ));
    owner.run(SPY);
    // The table that the worker writes is replaced; that of providers cannot be.
    let (_, traps) = TRAPS.split_once(';').unwrap();
    owner.run("ALTER EXTENSION pg_session_jwt DROP TABLE auth.provider_keys; DROP TABLE auth.provider_keys");
    owner.run(traps);
    owner.run(
        "ALTER EXTENSION pg_session_jwt ADD TABLE auth.provider_keys; DELETE FROM public.seen",
    );
    let mut app = db.app();
    let alice = token(&web, &good, "alice");
    app.present(&alice);
    app.assert_user("alice");
    let ran = assert_no_power(&mut admin, &role);
    let places = admin.rows("SELECT DISTINCT place FROM public.seen ORDER BY 1");
    assert_eq!(
        places,
        ["after", "before", "check", "default", "index", "policy"]
    );
    // What would run when the worker has become a superuser again, does not run.
    owner.run(
        "CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON auth.provider_keys
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.spy_trigger()",
    );
    admin.rows("SELECT * FROM auth.refresh()");
    assert!(assert_no_power(&mut admin, &role) >= ran);
    let deferred = "SELECT count(*) FROM public.seen WHERE place = 'deferred'";
    assert_eq!(admin.text(deferred), "0");
    // Nor does a rule, or a view in its place.
    let row = ["nothing was written: commit the provider's row first, or see the server log"];
    owner.run(
        "DROP TRIGGER deferred ON auth.provider_keys; DELETE FROM public.seen;
         CREATE RULE also AS ON INSERT TO auth.provider_keys DO ALSO SELECT public.spy('rule')",
    );
    assert_eq!(admin.rows("SELECT error FROM auth.refresh()"), row);
    owner.run(
        "DROP RULE also ON auth.provider_keys;
         ALTER EXTENSION pg_session_jwt DROP TABLE auth.provider_keys;
         ALTER TABLE auth.provider_keys RENAME TO real_keys;
         CREATE VIEW auth.provider_keys AS SELECT * FROM auth.real_keys WHERE public.spy('view');
         CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE ON auth.provider_keys
             FOR EACH ROW EXECUTE FUNCTION public.spy_trigger();
         ALTER EXTENSION pg_session_jwt ADD VIEW auth.provider_keys; DELETE FROM public.seen",
    );
    assert_eq!(admin.rows("SELECT error FROM auth.refresh()"), row);
    assert_no_power(&mut admin, &role);
    owner.run(
        "ALTER EXTENSION pg_session_jwt DROP VIEW auth.provider_keys; DROP VIEW auth.provider_keys;
         ALTER TABLE auth.real_keys RENAME TO provider_keys;
         ALTER EXTENSION pg_session_jwt ADD TABLE auth.provider_keys; DELETE FROM public.seen",
    );
    let mut admin = db.superuser();
    assert_eq!(admin.rows("SELECT error FROM auth.refresh()"), ["NULL"]);
    let log = server_log();
    let why =
        "INSERT with ON CONFLICT clause cannot be used with table that has INSERT or UPDATE rules";
    assert!(log.contains(why), "as the error says");
    assert!(!log.contains("stack backtrace") && !log.contains("pgrx_extern_c_guard"));
    // With owners that differ, nothing is written at all.
    owner.run("DELETE FROM public.seen");
    admin.run("ALTER TABLE auth.providers OWNER TO postgres");
    assert_eq!(admin.rows("SELECT error FROM auth.refresh()"), row);
    assert_eq!(assert_no_power(&mut admin, &role), 0);
    admin.run(&format!("ALTER TABLE auth.providers OWNER TO {role}"));
}
