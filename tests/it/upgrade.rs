//! A drop-in for Neon's versions: what they left in a database works with this library, and ALTER
//! EXTENSION UPDATE makes of it what a fresh install is. Any version can be asked for by its number.

use std::path::Path;

use harness::{APP_USER, CURRENT, Database, ISS, Issuer, Session, first_line, sql_text, token};
use serde_json::json;

/// Neon's versions, oldest first.
const OLD: [&str; 3] = ["0.3.1", "0.4.0", "0.5.0"];

/// Ours that have been released, oldest first.
const OWN: [&str; 2] = ["1.0.0", "1.0.1"];

/// A user, and an organization.
const ID: &str = "0188a1b2-0000-7000-8000-0000000000ab";

/// The accessors of a version, and what each says to nobody and to the user ID of the organization ID,
/// where that is not all claims.
fn accessors(version: &str) -> Vec<(&'static str, &'static str, Option<String>)> {
    let claim = || Some(ID.to_owned());
    let all = [
        ("0.3.1", "user_id", "NULL", claim()),
        ("0.3.1", "session", "null", None),
        ("0.4.0", "uid", "NULL", claim()),
        ("0.4.0", "jwt", "null", None),
        (
            "0.5.0",
            "organization",
            "NULL",
            Some(format!("{{\"id\": \"{ID}\"}}")),
        ),
        ("0.5.0", "organization_id", "NULL", claim()),
    ];
    let known = all.into_iter().filter(|(since, ..)| *since <= version);
    known
        .map(|(_, name, nobody, user)| (name, nobody, user))
        .collect()
}

/// A database as one of Neon's versions left it, with policies and a view on its functions.
fn old_database(version: &str) -> Database {
    let db = Database::left_by(version);
    let mut session = db.superuser();
    // As that version's guides say.
    session.run("GRANT USAGE ON SCHEMA auth TO PUBLIC");
    db.add_todos();
    let columns = accessors(version).into_iter();
    let columns: Vec<_> = columns
        .map(|(name, ..)| format!("auth.{name}() AS {name}"))
        .collect();
    session.run(&format!(
        "CREATE VIEW public.me AS SELECT {}; GRANT SELECT ON me TO PUBLIC;",
        columns.join(", ")
    ));
    db
}

/// What an application of that time does, and sees.
fn assert_an_old_application_works(db: &Database, version: &str) {
    let issuer = Issuer::ed25519();
    let mut app = db.app_with_key(&issuer);
    app.run("SELECT auth.init()");
    assert_eq!(app.tasks(), [""; 0]);
    for (name, nobody, _) in accessors(version) {
        assert_eq!(
            app.rows(&format!("SELECT {name} FROM public.me")),
            [nobody],
            "{name}"
        );
    }
    app.present(&issuer.token(&json!({"sub": "alice", "jti": 1})));
    assert_eq!(app.tasks(), ["write", "sleep"]);
    let claims = json!({"sub": ID, "jti": 2, "o": {"id": ID}});
    app.present(&issuer.token(&claims));
    for (name, _, user) in accessors(version) {
        let is_right = match user {
            Some(text) => format!("{name}::text = {}", sql_text(&text)),
            None => format!("{name} = {}::jsonb", sql_text(&claims.to_string())),
        };
        assert_eq!(app.text(&format!("SELECT {is_right} FROM public.me")), "t");
    }
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
    app.assert_user(ID);
    app.run("DISCARD ALL");
    app.assert_nobody();
    // Somebody whom PostgREST has let in.
    let mut app = db.app();
    app.run("SET request.jwt.claims = '{\"sub\": \"bob\"}'");
    assert_eq!(app.tasks(), ["read"]);
}

#[test]
fn policies_on_the_old_definitions_work_with_the_new_library_before_the_update() {
    for version in OLD {
        let db = old_database(version);
        assert_an_old_application_works(&db, version);
        assert_eq!(db.superuser().extension_version(), version);
    }
}

#[test]
fn policies_and_views_on_the_old_definitions_work_after_the_update() {
    for version in OLD {
        let db = old_database(version);
        let mut session = db.superuser();
        session.run("ALTER EXTENSION pg_session_jwt UPDATE");
        assert_eq!(session.extension_version(), CURRENT);
        assert_an_old_application_works(&db, version);
        let policies = session.text("SELECT count(*) FROM pg_policies WHERE tablename = 'todos'");
        assert_eq!(policies, "4");
    }
}

#[test]
fn a_session_that_lives_through_the_update_keeps_its_user() {
    for version in OLD {
        let db = old_database(version);
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
}

/// A version of Neon's that is asked for by its number has that version's functions.
#[test]
fn from_one_old_version_to_a_newer_one_its_functions_come() {
    for (from, to) in [("0.3.1", "0.4.0"), ("0.3.1", "0.5.0"), ("0.4.0", "0.5.0")] {
        let db = old_database(from);
        let mut session = db.superuser();
        session.update_to(to);
        assert_eq!(session.extension_version(), to);
        session.run("DROP VIEW me");
        let issuer = Issuer::ed25519();
        let mut app = db.app_with_key(&issuer);
        app.present(&issuer.token(&json!({"sub": ID, "o": {"id": ID}})));
        for (name, _, user) in accessors(to) {
            let answer = app.text(&format!("SELECT auth.{name}()"));
            assert_eq!(answer, user.unwrap_or(answer.clone()), "{name}");
        }
    }
}

/// What the catalog comparison reads: `part` has every member of the extension and what exists only as part of
/// one (indexes, constraints, triggers, defaults, row types). TOAST tables are left out, as their names contain
/// OIDs. `sorted` is for arrays whose order says nothing, such as privileges in the order they were granted.
const PARTS: &str = "
    CREATE OR REPLACE TEMP VIEW part AS
        WITH RECURSIVE found AS (
            SELECT classid, objid FROM pg_depend
            WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt')
            UNION
            SELECT d.classid, d.objid
            FROM found JOIN pg_depend d ON refclassid = found.classid AND refobjid = found.objid
            WHERE deptype IN ('a', 'i'))
        SELECT * FROM found
        WHERE NOT (classid = 'pg_class'::regclass AND objid IN
            (SELECT oid FROM pg_class WHERE relnamespace = 'pg_toast'::regnamespace));
    CREATE OR REPLACE FUNCTION pg_temp.sorted(anyarray) RETURNS text[] LANGUAGE sql AS
        'SELECT CASE WHEN $1 IS NOT NULL THEN ARRAY(SELECT unnest($1)::text ORDER BY 1) END'";

/// Each catalog that describes a part, with names where the catalog has OIDs. A part of a kind that is missing
/// here fails the comparison.
const CATALOGS: &[(&str, &str)] = &[
    (
        "pg_extension",
        "SELECT extname, extowner::regrole, extnamespace::regnamespace, extrelocatable, extversion
         FROM pg_extension WHERE extname = 'pg_session_jwt'",
    ),
    (
        "pg_extension: what pg_dump dumps",
        "SELECT dumped::regclass, condition
         FROM pg_extension, unnest(extconfig, extcondition) AS config (dumped, condition)
         WHERE extname = 'pg_session_jwt' ORDER BY dumped::regclass::text",
    ),
    (
        "pg_namespace",
        "SELECT nspname, nspowner::regrole, pg_temp.sorted(nspacl)
         FROM pg_namespace JOIN part ON classid = 'pg_namespace'::regclass AND objid = oid
         ORDER BY nspname",
    ),
    (
        "pg_proc",
        "SELECT oid::regprocedure, proowner::regrole, procost, prorows, provariadic::regtype,
                prosupport, prokind, prosecdef, proleakproof, proisstrict, proretset, provolatile,
                proparallel, pronargs, pronargdefaults, prorettype::regtype, proargtypes::regtype[],
                proallargtypes::regtype[], proargmodes, proargnames,
                pg_get_expr(proargdefaults, 0), prosrc, probin, proconfig, pg_temp.sorted(proacl),
                CASE WHEN prokind <> 'a' THEN pg_get_functiondef(oid) END
         FROM pg_proc JOIN part ON classid = 'pg_proc'::regclass AND objid = oid
         ORDER BY oid::regprocedure::text",
    ),
    (
        "pg_type",
        "SELECT oid::regtype, typowner::regrole, typlen, typbyval, typtype, typcategory, typispreferred,
                typdelim, typinput, typoutput, typreceive, typsend, typalign, typstorage, typnotnull,
                typbasetype::regtype, typtypmod, typndims, typcollation::regcollation, typdefault,
                ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder),
                pg_temp.sorted(typacl)
         FROM pg_type t JOIN part ON classid = 'pg_type'::regclass AND objid = oid
         ORDER BY oid::regtype::text",
    ),
    // Not relnatts, which counts the columns that were dropped, nor the flags that VACUUM corrects later.
    (
        "pg_class",
        "SELECT oid::regclass, relkind, (SELECT amname FROM pg_am WHERE oid = relam), relowner::regrole,
                relpersistence, relrowsecurity, relforcerowsecurity, relreplident, relispartition,
                reloptions, pg_temp.sorted(relacl), reltoastrelid <> 0,
                CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END
         FROM pg_class JOIN part ON classid = 'pg_class'::regclass AND objid = oid
         ORDER BY oid::regclass::text",
    ),
    // A column's place among those that are there, not attnum: dropped columns keep theirs. Not attmissingval:
    // it stands for a new column in rows from before. Not attoptions: Debian's 15.20 keeps a number of its own there.
    (
        "pg_attribute and pg_attrdef",
        "SELECT attrelid::regclass, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname,
                atttypid::regtype, atttypmod, attndims, attnotnull, pg_get_expr(adbin, adrelid),
                attidentity, attgenerated, attislocal, attstorage, attcompression,
                attcollation::regcollation, pg_temp.sorted(attacl)
         FROM pg_attribute JOIN part ON classid = 'pg_class'::regclass AND objid = attrelid
             LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE attnum > 0 AND NOT attisdropped
         ORDER BY attrelid::regclass::text, attnum",
    ),
    (
        "pg_constraint",
        "SELECT conrelid::regclass, contypid::regtype, conname, contype, convalidated,
                pg_get_constraintdef(oid)
         FROM pg_constraint JOIN part ON classid = 'pg_constraint'::regclass AND objid = oid
         ORDER BY conrelid::regclass::text, contypid::regtype::text, conname",
    ),
    (
        "pg_index",
        "SELECT pg_get_indexdef(indexrelid), indisprimary, indisvalid, indisclustered, indisreplident
         FROM pg_index JOIN part ON classid = 'pg_class'::regclass AND objid = indexrelid
         ORDER BY 1",
    ),
    // Those of a foreign key have OIDs in their names; the key is among the constraints.
    (
        "pg_trigger",
        "SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid)
         FROM pg_trigger JOIN part ON classid = 'pg_trigger'::regclass AND objid = oid
         WHERE NOT tgisinternal ORDER BY tgrelid::regclass::text, tgname",
    ),
    (
        "pg_policy",
        "SELECT polrelid::regclass, polname, polcmd, polpermissive,
                pg_temp.sorted(polroles::regrole[]),
                pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
         FROM pg_policy JOIN part ON classid = 'pg_policy'::regclass AND objid = oid
         ORDER BY polrelid::regclass::text, polname",
    ),
    (
        "pg_rewrite",
        "SELECT ev_class::regclass, rulename, ev_enabled, pg_get_ruledef(oid)
         FROM pg_rewrite JOIN part ON classid = 'pg_rewrite'::regclass AND objid = oid
         ORDER BY ev_class::regclass::text, rulename",
    ),
    (
        "pg_sequence",
        "SELECT seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache,
                seqcycle
         FROM pg_sequence JOIN part ON classid = 'pg_class'::regclass AND objid = seqrelid
         ORDER BY seqrelid::regclass::text",
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
        "pg_depend: everything in the schema",
        "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
         WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'auth'::regnamespace
         ORDER BY 1",
    ),
    (
        "pg_description",
        "SELECT pg_describe_object(classoid, objoid, objsubid), description
         FROM pg_description JOIN part ON classid = classoid AND objid = objoid
         UNION ALL
         SELECT 'the extension', obj_description(oid, 'pg_extension')
         FROM pg_extension WHERE extname = 'pg_session_jwt'
         ORDER BY 1",
    ),
    (
        "pg_init_privs",
        "SELECT pg_describe_object(classoid, objoid, objsubid), privtype, pg_temp.sorted(initprivs)
         FROM pg_init_privs WHERE privtype = 'e' ORDER BY 1",
    ),
];

/// The databases have the same extension, object by object. Nothing here names an object of it.
#[track_caller]
pub fn assert_same_catalog(one: &mut Session, other: &mut Session, about: &str) {
    one.run(PARTS);
    other.run(PARTS);
    let kinds = other.rows("SELECT DISTINCT classid::regclass::text FROM part ORDER BY 1");
    assert!(kinds.len() >= 6, "too few parts: {kinds:?}");
    for kind in kinds {
        let is_compared =
            |(catalog, _): &(&str, &str)| catalog.split([' ', ':']).any(|word| word == kind);
        assert!(CATALOGS.iter().any(is_compared), "add {kind} to CATALOGS");
    }
    let only = |rows: &[String], others: &[String]| {
        let rows = rows.iter().filter(|row| !others.contains(row));
        rows.cloned().collect::<Vec<_>>()
    };
    for (catalog, sql) in CATALOGS {
        let (here, there) = (one.rows(sql), other.rows(sql));
        assert!(
            here == there,
            "{catalog}, {about}: {:#?} is not {:#?}",
            only(&here, &there),
            only(&there, &here)
        );
    }
}

#[test]
fn an_updated_database_is_object_by_object_a_fresh_one() {
    let fresh = Database::new();
    let mut fresh = fresh.superuser();
    for version in OLD.into_iter().chain(OWN) {
        let db = Database::left_by(version);
        let mut updated = db.superuser();
        updated.run("ALTER EXTENSION pg_session_jwt UPDATE");
        assert_eq!(updated.notices(), [""; 0]);
        assert_same_catalog(&mut updated, &mut fresh, version);
    }
    // One step at a time.
    let db = Database::left_by("0.3.1");
    let mut updated = db.superuser();
    for version in ["0.4.0", "0.5.0", "1.0.0", "1.0.1", CURRENT] {
        updated.update_to(version);
    }
    assert_same_catalog(&mut updated, &mut fresh, "step by step");
}

#[test]
fn down_and_up_again_is_no_change() {
    let fresh = Database::new();
    let mut fresh = fresh.superuser();
    let left_by = OLD.into_iter().chain(OWN).map(Some).chain([None]);
    for left_by in left_by {
        let db = left_by.map_or_else(Database::new, Database::left_by);
        let mut session = db.superuser();
        session.run("ALTER EXTENSION pg_session_jwt UPDATE");
        session.notices();
        for version in ["0.5.0", "0.4.0", "0.3.1", "1.0.0", "1.0.1"] {
            session.update_to(version);
            assert_eq!(session.extension_version(), version);
            session.run("ALTER EXTENSION pg_session_jwt UPDATE");
            assert_eq!(session.extension_version(), CURRENT);
            assert_same_catalog(&mut session, &mut fresh, version);
        }
        assert_eq!(session.notices(), [""; 0]);
    }
}

/// Every version can be asked for by its number, from every other, and takes nothing away.
#[test]
fn from_every_version_to_every_other_nothing_is_lost() {
    let versions = ["0.3.1", "0.4.0", "0.5.0", "1.0.0", "1.0.1", CURRENT];
    for from in versions {
        let db = Database::with_version(from);
        let issuer = Issuer::ed25519();
        let reader = db.role("reader");
        let mut session = db.superuser();
        assert_eq!(session.extension_version(), from);
        db.add_todos();
        session.register(&[&issuer]);
        session.run(&format!(
            "CREATE VIEW public.org AS SELECT auth.org_id();
             GRANT SELECT ON auth.providers TO {reader};
             REVOKE EXECUTE ON FUNCTION auth.email() FROM PUBLIC;"
        ));
        // There and back, so that each pair is tried from the same state.
        for to in versions.into_iter().filter(|to| *to != from) {
            for version in [to, from] {
                let here = session.extension_version();
                // What 0.5.0's upgrade to 1.0.0 does once only cannot be done again.
                if version == "1.0.0" && OLD.contains(&&*here) {
                    session
                        .refused("ALTER EXTENSION pg_session_jwt UPDATE TO '1.0.0'")
                        .assert("42P07", "relation \"providers\" already exists");
                    session.update_to(CURRENT);
                }
                session.update_to(version);
                assert_eq!(session.extension_version(), version);
                let mut app = db.app();
                app.present(&token(&issuer, "alice"));
                assert_eq!(app.tasks(), ["write", "sleep"]);
                app.refused("SELECT auth.email()")
                    .assert("42501", "permission denied for function email");
                assert_eq!(
                    db.connect(&reader, "")
                        .rows("SELECT name, issuer FROM auth.providers"),
                    [format!("main|{ISS}")],
                    "{from} to {to}"
                );
            }
        }
    }
}

#[test]
fn no_way_leads_through_what_can_run_only_once() {
    let db = Database::without_extension();
    let paths = db
        .superuser()
        .rows("SELECT source, target, path FROM pg_extension_update_paths('pg_session_jwt')");
    let versions = OLD.len() + OWN.len() + 1;
    assert_eq!(paths.len(), versions * (versions - 1), "{paths:?}");
    for path in &paths {
        assert!(!path.ends_with("NULL"), "no way: {path}");
        let [_, target, steps] = path.split('|').collect::<Vec<_>>()[..] else {
            panic!("{path}");
        };
        assert!(
            target == "1.0.0" || !steps.contains("0.5.0--1.0.0"),
            "{path}"
        );
    }
    assert!(paths.contains(&format!(
        "0.3.1|{CURRENT}|0.3.1--0.4.0--0.5.0--1.0.1--{CURRENT}"
    )));
    assert!(paths.contains(&format!("{CURRENT}|1.0.0|{CURRENT}--1.0.1--1.0.0")));
}

/// What has been released stays as it is. When a version is released, its steps are added here.
#[test]
fn released_scripts_are_not_edited() {
    let released = [
        (
            "0.3.1--0.4.0",
            "27101c1d4f4610d2a82959e1a26031d7d3d99baa205d0aaf0e3b10d6b893ca2a",
        ),
        (
            "0.4.0--0.3.1",
            "cccc227f80a25979b52c16e499a73ae3299452c58e78be013ea6e7c424cbb033",
        ),
        (
            "0.4.0--0.5.0",
            "2e552e7f30c45964241d2eb5d319bf315337d5e98a11eda0a42cd14c3fe5d179",
        ),
        (
            "0.5.0--0.4.0",
            "7ead12a9fbe3d690bcb6e6c57fd72e43e103c55a0202f6ff3b22cce326b1f16a",
        ),
        (
            "0.5.0--1.0.0",
            "878444faa947906cc622fd998f0b953b312ca7ee6c4b300055014cd24f3a7191",
        ),
        (
            "0.5.0--1.0.1",
            "f704537b82612d9fcb376647fa1f7e59a3b871e6a203c00a05595dad8576ad96",
        ),
        (
            "1.0.0--1.0.1",
            "dba1825d8ce86586a7b04d92fe4037e3ded95b3faf9688d425f7c44f30e62acf",
        ),
        (
            "1.0.1--0.5.0",
            "4a24409d964cf3c85a58fffe80c48120b5f54f5817ed826332ae6e5bdf35c267",
        ),
        (
            "1.0.1--1.0.0",
            "5cd5929c671cbbdbee6cff4fe1f243d2f5c9ca4395294d3817d9c867c95d5baf",
        ),
    ];
    // Each of these steps is among them.
    for entry in std::fs::read_dir(sql_folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let step = file
            .strip_prefix("pg_session_jwt--")
            .and_then(|step| step.strip_suffix(".sql"));
        let Some(step) = step.filter(|step| step.split("--").all(|version| version != CURRENT))
        else {
            continue;
        };
        assert!(
            released.iter().any(|(name, _)| *name == step),
            "{step} leads from one released version to another: add its digest here (sha256sum sql/{file})"
        );
    }
    for (name, wanted) in released {
        let path = sql_folder().join(format!("pg_session_jwt--{name}.sql"));
        assert!(path.is_file() && !path.is_symlink(), "{}", path.display());
        let text = std::fs::read(&path).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &text);
        let bytes = digest.as_ref().iter();
        let digest: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            digest, wanted,
            "{name} has been released, and databases have run it as it was: put the change into the step to {CURRENT}"
        );
    }
}

fn sql_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql"))
}

/// Everything of the extension, and the version: what a refused update must not touch.
fn members(session: &mut Session) -> Vec<String> {
    session.rows(
        "SELECT extversion, pg_describe_object(classid, objid, 0),
                coalesce((SELECT nspacl FROM pg_namespace WHERE oid = objid),
                         (SELECT proacl FROM pg_proc WHERE oid = objid))
         FROM pg_extension e JOIN pg_depend ON refobjid = e.oid AND deptype = 'e'
         WHERE extname = 'pg_session_jwt' ORDER BY 2",
    )
}

#[test]
fn what_somebody_else_made_under_our_names_is_not_taken_over() {
    let strangers = [
        (
            "CREATE TABLE auth.providers (name text)",
            "table auth.providers",
        ),
        (
            "CREATE VIEW auth.providers AS SELECT 1 AS name",
            "view auth.providers",
        ),
        (
            "CREATE FUNCTION auth.login(jwt text, is_local boolean) RETURNS name
                 LANGUAGE sql AS 'SELECT ''postgres''::name'",
            "function auth.login(text,boolean)",
        ),
        (
            "CREATE FUNCTION auth.check_provider() RETURNS trigger
                 LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "function auth.check_provider()",
        ),
    ];
    for version in OLD {
        for (create, name) in strangers {
            let db = Database::left_by(version);
            let mut session = db.superuser();
            session.run(create);
            let before = members(&mut session);
            let refusal = session.refused("ALTER EXTENSION pg_session_jwt UPDATE");
            refusal.assert(
                "55000",
                &format!("{name} is not a member of extension \"pg_session_jwt\""),
            );
            assert_eq!(members(&mut session), before);
            assert_eq!(session.extension_version(), version);
        }
    }
    // A schema is no different: a fresh install needs one of its own.
    let db = Database::without_extension();
    let mut session = db.superuser();
    session.run("CREATE SCHEMA auth");
    session
        .refused("CREATE EXTENSION pg_session_jwt")
        .assert("42P06", "schema \"auth\" already exists");
}

#[test]
fn a_table_of_providers_that_was_moved_gets_no_second_one_beside_it() {
    let db = Database::new();
    let mut session = db.superuser();
    session.register(&[&Issuer::ed25519()]);
    session.update_to("0.5.0");
    for (away, back, place) in [
        (
            "ALTER TABLE auth.providers RENAME TO issuers",
            "ALTER TABLE auth.issuers RENAME TO providers",
            "auth.issuers",
        ),
        (
            "ALTER TABLE auth.providers SET SCHEMA public",
            "ALTER TABLE public.providers SET SCHEMA auth",
            "public.providers",
        ),
    ] {
        session.run(away);
        let refusal = session.refused("ALTER EXTENSION pg_session_jwt UPDATE");
        refusal.assert(
            "55000",
            &format!("the table of providers is not auth.providers but {place}"),
        );
        assert_eq!(
            refusal.hint,
            "Give it its schema and its name back, then update the extension."
        );
        session.run(back);
    }
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(session.text("SELECT count(*) FROM auth.providers"), "1");
}

#[test]
fn what_an_administrator_granted_or_commented_before_the_update_stays() {
    let db = old_database("0.5.0");
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
    let db = old_database("0.5.0");
    let mut session = db.superuser();
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(session.extension_version(), CURRENT);
    session.run("DROP TABLE todos; DROP VIEW me; DROP EXTENSION pg_session_jwt");
    assert_eq!(session.value("SELECT to_regproc('auth.user_id')"), None);
}

#[test]
fn an_update_that_is_rolled_back_leaves_the_old_version() {
    let db = old_database("0.5.0");
    let mut session = db.superuser();
    session.run("BEGIN; ALTER EXTENSION pg_session_jwt UPDATE; ROLLBACK");
    assert_eq!(session.extension_version(), "0.5.0");
    assert_an_old_application_works(&db, "0.5.0");
}
