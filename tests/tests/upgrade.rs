//! A drop-in for version 0.5.0: what that version left in a database works with this library, and
//! ALTER EXTENSION UPDATE makes of it what a fresh install is.

use std::path::PathBuf;
use std::sync::Mutex;

use pg_session_jwt_tests::{APP_USER, Database, Issuer, Session, first_line, sharedir, sql_text};
use serde_json::json;

/// The script of version 0.5.0, where CREATE EXTENSION finds it while a test needs it.
struct OldScript;

static IN_USE: Mutex<u32> = Mutex::new(0);

impl OldScript {
    fn path() -> PathBuf {
        sharedir().join("extension/pg_session_jwt--0.5.0.sql")
    }

    fn install() -> Self {
        let mut in_use = IN_USE.lock().unwrap();
        if *in_use == 0 {
            let script = include_str!("../fixtures/pg_session_jwt--0.5.0.sql");
            // A server must never see half of it.
            let draft = Self::path().with_extension("sql.draft");
            std::fs::write(&draft, script)
                .and_then(|()| std::fs::rename(&draft, Self::path()))
                .expect("PG_SHAREDIR/extension is writable");
        }
        *in_use += 1;
        Self
    }
}

impl Drop for OldScript {
    fn drop(&mut self) {
        let mut in_use = IN_USE.lock().unwrap();
        *in_use -= 1;
        if *in_use == 0 {
            let _ = std::fs::remove_file(Self::path());
        }
    }
}

/// A database as version 0.5.0 left it, with policies and a view on its functions.
fn old_database() -> (Database, OldScript) {
    let script = OldScript::install();
    let db = Database::without_extension();
    let mut session = db.superuser();
    session.run("CREATE EXTENSION pg_session_jwt VERSION '0.5.0'");
    // As that version's guides say.
    session.run("GRANT USAGE ON SCHEMA auth TO PUBLIC");
    db.add_todos();
    session.run(
        "CREATE VIEW public.me AS
             SELECT auth.user_id() AS user_id, auth.uid() AS uid, auth.session() AS session,
                    auth.jwt() AS jwt, auth.organization() AS o, auth.organization_id() AS o_id;
         GRANT SELECT ON me TO PUBLIC;",
    );
    (db, script)
}

fn version(session: &mut Session) -> String {
    session.text("SELECT extversion FROM pg_extension WHERE extname = 'pg_session_jwt'")
}

/// What an application of that time does, and sees.
fn assert_an_old_application_works(db: &Database) {
    let issuer = Issuer::ed25519();
    let id = "0188a1b2-0000-7000-8000-0000000000ab";
    let mut app = db.app_with_key(&issuer);
    app.run("SELECT auth.init()");
    assert_eq!(app.tasks(), [""; 0]);
    assert_eq!(
        app.rows("SELECT * FROM public.me"),
        ["NULL|NULL|null|null|NULL|NULL"]
    );
    app.present(&issuer.token(&json!({"sub": "alice", "jti": 1})));
    assert_eq!(app.tasks(), ["write", "sleep"]);
    app.present(&issuer.token(&json!({"sub": id, "jti": 2, "o": {"id": id}})));
    assert_eq!(
        app.rows("SELECT user_id, uid, o, o_id, session = jwt FROM public.me"),
        [format!("{id}|{id}|{{\"id\": \"{id}\"}}|{id}|t")]
    );
    assert_eq!(app.tasks(), [""; 0]);
    app.run("INSERT INTO todos (task) VALUES ('new')");
    assert_eq!(app.tasks(), ["new"]);
    app.run("DELETE FROM todos");
    app.rejected(&issuer.token(&json!({"sub": "alice", "jti": 2})))
        .assert_stage("policy", first_line::REPLAY);
    app.rejected(&Issuer::ed25519().token_for("bob"))
        .assert_stage("signature", first_line::SIGNATURE);
    let bob = sql_text(&issuer.token(&json!({"sub": "bob", "jti": 3})));
    app.run("BEGIN");
    app.run(&format!(
        "SELECT set_config('pg_session_jwt.jwt', {bob}, true)"
    ));
    assert_eq!(app.tasks(), ["read"]);
    app.run("COMMIT");
    app.assert_user(id);
    app.run("DISCARD ALL");
    app.assert_nobody();
}

#[test]
fn policies_on_the_old_definitions_work_with_the_new_library_before_the_update() {
    let (db, _script) = old_database();
    assert_an_old_application_works(&db);
    assert_eq!(version(&mut db.superuser()), "0.5.0");
}

#[test]
fn policies_and_views_on_the_old_definitions_work_after_the_update() {
    let (db, _script) = old_database();
    let mut session = db.superuser();
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(version(&mut session), "1.0.1");
    assert_an_old_application_works(&db);
    let policies = session.text("SELECT count(*) FROM pg_policies WHERE tablename = 'todos'");
    assert_eq!(policies, "4");
}

#[test]
fn a_session_that_lives_through_the_update_keeps_its_user() {
    let (db, _script) = old_database();
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    app.run("PREPARE mine AS SELECT task FROM todos ORDER BY id");
    app.present(&issuer.token_for("bob"));
    assert_eq!(app.rows("EXECUTE mine"), ["read"]);
    db.superuser().run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(app.rows("EXECUTE mine"), ["read"]);
    app.assert_user("bob");
    assert_eq!(app.text("SELECT auth.claim('sub')"), "bob");
    assert_eq!(app.text("SELECT subject FROM auth.status()"), "bob");
}

/// Each catalog that describes the extension, with names where the catalog has OIDs.
const CATALOGS: &[(&str, &str)] = &[
    (
        "pg_extension",
        "SELECT extname, extowner::regrole, extnamespace::regnamespace, extrelocatable, extversion,
                extconfig::regclass[], extcondition
         FROM pg_extension WHERE extname = 'pg_session_jwt'",
    ),
    (
        "pg_namespace",
        "SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace WHERE nspname = 'auth'",
    ),
    (
        "pg_proc",
        "SELECT oid::regprocedure, proowner::regrole, prolang, procost, prorows, provariadic,
                prosupport, prokind, prosecdef, proleakproof, proisstrict, proretset, provolatile,
                proparallel, pronargs, pronargdefaults, prorettype::regtype, proargtypes::regtype[],
                proallargtypes::regtype[], proargmodes, proargnames,
                pg_get_expr(proargdefaults, 0), protrftypes, prosrc, probin, proconfig, proacl,
                pg_get_functiondef(oid)
         FROM pg_proc WHERE pronamespace = 'auth'::regnamespace
         ORDER BY oid::regprocedure::text",
    ),
    (
        "pg_class",
        "SELECT oid::regclass, relkind, relowner::regrole, relpersistence, relnatts, relchecks,
                relhasindex, relhasrules, relhastriggers, relhassubclass, relrowsecurity,
                relforcerowsecurity, relreplident, relispartition, reloptions, relacl,
                reltoastrelid <> 0
         FROM pg_class WHERE relnamespace = 'auth'::regnamespace ORDER BY oid::regclass::text",
    ),
    (
        "pg_attribute",
        "SELECT attrelid::regclass, attnum, attname, atttypid::regtype, atttypmod, attndims,
                attnotnull, atthasdef, pg_get_expr(adbin, adrelid), attidentity, attgenerated,
                attisdropped, attislocal, attstorage, attcompression, attcollation::regcollation,
                attacl, col_description(attrelid, attnum)
         FROM pg_attribute a LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE attnum > 0 AND attrelid IN
             (SELECT oid FROM pg_class WHERE relnamespace = 'auth'::regnamespace)
         ORDER BY attrelid::regclass::text, attnum",
    ),
    (
        "pg_constraint",
        "SELECT conrelid::regclass, conname, contype, convalidated, pg_get_constraintdef(oid)
         FROM pg_constraint WHERE connamespace = 'auth'::regnamespace
         ORDER BY conrelid::regclass::text, conname",
    ),
    (
        "pg_index",
        "SELECT pg_get_indexdef(indexrelid), indisprimary, indisvalid, indisreplident
         FROM pg_index WHERE indrelid = 'auth.providers'::regclass ORDER BY 1",
    ),
    (
        "pg_trigger",
        "SELECT tgname, tgenabled, tgisinternal, tgdeferrable, pg_get_triggerdef(oid),
                obj_description(oid, 'pg_trigger')
         FROM pg_trigger WHERE tgrelid = 'auth.providers'::regclass ORDER BY 1",
    ),
    (
        "pg_depend: members",
        "SELECT pg_describe_object(classid, objid, objsubid), deptype FROM pg_depend
         WHERE refclassid = 'pg_extension'::regclass
             AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt')
         ORDER BY 1",
    ),
    (
        "pg_depend: what the extension needs",
        "SELECT pg_describe_object(refclassid, refobjid, refobjsubid), deptype FROM pg_depend
         WHERE classid = 'pg_extension'::regclass
             AND objid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt')
         ORDER BY 1",
    ),
    (
        "pg_description",
        "SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid), description
         FROM pg_description d JOIN pg_depend m
             ON m.classid = d.classoid AND m.objid = d.objoid AND m.deptype = 'e'
         WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt')
         UNION ALL
         SELECT 'the extension', obj_description(oid, 'pg_extension')
         FROM pg_extension WHERE extname = 'pg_session_jwt'
         ORDER BY 1",
    ),
    (
        "pg_init_privs",
        "SELECT pg_describe_object(classoid, objoid, objsubid), privtype, initprivs
         FROM pg_init_privs WHERE privtype = 'e' ORDER BY 1",
    ),
    (
        "everything in the schema",
        "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
         WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'auth'::regnamespace
         ORDER BY 1",
    ),
];

#[test]
fn an_updated_database_is_object_by_object_a_fresh_one() {
    let _script = OldScript::install();
    let (old_db, fresh_db) = (Database::without_extension(), Database::new());
    let (mut updated, mut fresh) = (old_db.superuser(), fresh_db.superuser());
    updated.run("CREATE EXTENSION pg_session_jwt VERSION '0.5.0'");
    updated.run("ALTER EXTENSION pg_session_jwt UPDATE");
    for (catalog, sql) in CATALOGS {
        let wanted = fresh.rows(sql);
        assert!(!wanted.is_empty(), "{catalog} says nothing");
        assert_eq!(updated.rows(sql), wanted, "{catalog}");
    }
}

#[test]
fn what_an_administrator_granted_or_commented_before_the_update_stays() {
    let (db, _script) = old_database();
    let reader = db.role("reader");
    let mut session = db.superuser();
    session.run(&format!(
        "REVOKE EXECUTE ON FUNCTION auth.jwt() FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION auth.jwt() TO {reader};"
    ));
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(
        session.rows(&format!(
            "SELECT has_function_privilege('{reader}', 'auth.jwt()', 'EXECUTE'),
                    has_function_privilege('{APP_USER}', 'auth.jwt()', 'EXECUTE')"
        )),
        ["t|f"]
    );
    db.app()
        .refused("SELECT auth.init('x')")
        .assert("42501", "permission denied for function init");
}

#[test]
fn updating_twice_is_updating_once() {
    let (db, _script) = old_database();
    let mut session = db.superuser();
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(version(&mut session), "1.0.1");
    session.run("DROP TABLE todos; DROP VIEW me; DROP EXTENSION pg_session_jwt");
    assert_eq!(session.value("SELECT to_regproc('auth.user_id')"), None);
}

#[test]
fn an_update_that_is_rolled_back_leaves_the_old_version() {
    let (db, _script) = old_database();
    let mut session = db.superuser();
    session.run("BEGIN; ALTER EXTENSION pg_session_jwt UPDATE; ROLLBACK");
    assert_eq!(version(&mut session), "0.5.0");
    assert_an_old_application_works(&db);
}
