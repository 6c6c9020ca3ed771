//! What the extension creates has the privileges that the contract gives it, whatever ALTER DEFAULT
//! PRIVILEGES says, and an update keeps what an administrator made of them.

use std::sync::atomic::{AtomicU32, Ordering};

use harness::{
    ACCESSORS, APP_USER, CURRENT, Database, Issuer, Row, Session, pg_major, server_log, sql_text,
    token,
};

/// Every member of the extension, and what others than its owner may do with it: `grantee=PRIVILEGE`,
/// with a star where it may be granted on. An owner that lacks something is listed as well.
const MEMBERS: &str = "
    SELECT pg_describe_object(classid, objid, 0) AS object,
        coalesce((
            SELECT string_agg(
                format('%s=%s%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                    privilege_type, CASE WHEN is_grantable THEN '*' END),
                ' ' ORDER BY grantee::regrole::text, privilege_type)
            FROM aclexplode(coalesce(acl, acldefault(kind, owner))) WHERE grantee <> owner), '-'),
        (SELECT count(*) FROM
            (SELECT privilege_type FROM aclexplode(acldefault(kind, owner)) WHERE grantee = owner
             EXCEPT SELECT privilege_type FROM aclexplode(coalesce(acl, acldefault(kind, owner)))
                 WHERE grantee = owner) missing)
    FROM pg_depend, LATERAL (
        SELECT 'n'::\"char\" AS kind, nspowner AS owner, nspacl AS acl FROM pg_namespace
            WHERE classid = 'pg_namespace'::regclass AND oid = objid
        UNION ALL SELECT 'f', proowner, proacl FROM pg_proc
            WHERE classid = 'pg_proc'::regclass AND oid = objid
        UNION ALL SELECT 'r', relowner, relacl FROM pg_class
            WHERE classid = 'pg_class'::regclass AND oid = objid
        UNION ALL SELECT 'T', typowner, typacl FROM pg_type
            WHERE classid = 'pg_type'::regclass AND oid = objid) o
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt')
    ORDER BY pg_describe_object(classid, objid, 0) COLLATE \"C\"";

/// What ALTER DEFAULT PRIVILEGES can do: give everything to an application, and take what is everybody's.
fn make_hostile(session: &mut Session, scope: &str, app: &str) {
    for statement in [
        "GRANT ALL ON TABLES TO $app",
        "GRANT ALL ON FUNCTIONS TO $app WITH GRANT OPTION",
        "GRANT ALL ON SCHEMAS TO $app",
        "GRANT ALL ON TYPES TO $app",
        "GRANT SELECT ON TABLES TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        "REVOKE USAGE ON TYPES FROM PUBLIC",
    ] {
        if scope.contains("IN SCHEMA") && statement.contains("SCHEMAS") {
            continue;
        }
        session.run(&format!(
            "ALTER DEFAULT PRIVILEGES {scope} {}",
            statement.replace("$app", app)
        ));
    }
}

/// The contract's privileges, in the form of [`MEMBERS`], for an extension of this owner.
fn assert_contract(db: &Database, extension_owner: &str) {
    let mut session = db.superuser();
    session.run("SET search_path = pg_catalog");
    let members = session.rows(MEMBERS);
    assert!(members.len() > 28, "{members:?}");
    let owner_of_objects = session
        .text("SELECT relowner::regrole FROM pg_class WHERE oid = 'auth.providers'::regclass");
    let mut owners = vec!["pg_database_owner", extension_owner];
    owners.retain(|owner| *owner != owner_of_objects);
    owners.sort_unstable();
    let may = |privileges: &[&str]| {
        let all = owners.iter().flat_map(|owner| {
            privileges
                .iter()
                .map(move |privilege| format!("{owner}={privilege}*"))
        });
        all.collect::<Vec<_>>().join(" ")
    };
    for member in &members {
        let (object, privileges) = member.split_once('|').unwrap();
        let wanted = match object {
            // From 17 on the array of rows is a member as well.
            "schema auth"
            | "type auth.providers"
            | "type auth.providers[]"
            | "type auth.provider_keys"
            | "type auth.provider_keys[]" => "PUBLIC=USAGE".to_owned(),
            "table auth.provider_keys" => may(&["SELECT"]),
            "table auth.providers" => may(&["DELETE", "INSERT", "SELECT", "TRUNCATE", "UPDATE"]),
            "function auth.init(text)"
            | "function auth.create_roles()"
            | "function auth.refresh(text)" => may(&["EXECUTE"]),
            "function auth.check_provider()"
            | "function auth.providers_written()"
            | "function auth.forget_keys()" => "-".to_owned(),
            _ => {
                assert!(object.starts_with("function auth."), "unexpected: {member}");
                "PUBLIC=EXECUTE".to_owned()
            }
        };
        assert_eq!(privileges, format!("{wanted}|0"), "{object}");
    }
    assert_eq!(
        session.text(
            "SELECT count(*) FROM pg_attribute
             WHERE attrelid = 'auth.providers'::regclass AND attacl IS NOT NULL"
        ),
        "0"
    );
}

/// What an ordinary role may and may not do.
fn assert_an_application_has_its_place(db: &Database) {
    let mut app = db.app();
    for accessor in ACCESSORS {
        app.run(accessor);
    }
    app.run("SELECT auth.status(), auth.has_permission('x'), auth.logout()");
    for (sql, message) in [
        (
            "TABLE auth.providers",
            "permission denied for table providers",
        ),
        (
            "INSERT INTO auth.providers (name) VALUES ('x')",
            "permission denied for table providers",
        ),
        (
            "DELETE FROM auth.providers",
            "permission denied for table providers",
        ),
        (
            "TRUNCATE auth.providers",
            "permission denied for table providers",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON auth.providers FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
            "permission denied for table providers",
        ),
        (
            "SELECT auth.init('{}')",
            "permission denied for function init",
        ),
        (
            "SELECT auth.create_roles()",
            "permission denied for function create_roles",
        ),
        (
            "CREATE FUNCTION auth.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "permission denied for schema auth",
        ),
        (
            "CREATE TABLE auth.t ()",
            "permission denied for schema auth",
        ),
    ] {
        app.refused(sql).assert("42501", message);
    }
    let owner = db.superuser().text("SELECT current_user");
    app.run("CREATE TEMP TABLE t (a int)");
    app.refused(
        "CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    )
    .assert(
        "42501",
        "permission denied for function auth.check_provider",
    );
    assert_ne!(owner, APP_USER);
}

/// Somebody who is not a superuser may register providers, pin keys, make roles, and let others do so.
fn assert_may_administer(db: &Database, owner: &str) {
    let issuer = Issuer::ed25519();
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let helper = db.role(&format!(
        "helper{}",
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    let mut session = db.connect(owner, "");
    session.register(&[&issuer]);
    session.run("UPDATE auth.providers SET enabled = true");
    assert_eq!(session.text("SELECT count(*) FROM auth.providers"), "1");
    let mut app = db.app();
    app.present(&token(&issuer, "alice"));
    app.assert_user("alice");
    session.run(&format!(
        "GRANT SELECT, DELETE ON auth.providers TO {helper};
         GRANT EXECUTE ON FUNCTION auth.init(text) TO {helper};
         GRANT EXECUTE ON FUNCTION auth.create_roles() TO {helper};"
    ));
    db.connect(&helper, "").run("DELETE FROM auth.providers");
    let init = format!("SELECT auth.init({})", sql_text(&issuer.jwk().to_string()));
    db.connect(&helper, "").run(&init);
    db.connect(owner, "").run(&init);
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON auth.providers FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
        "ALTER TABLE auth.providers DISABLE TRIGGER check_provider",
    ] {
        let refusal = session.refused(sql);
        assert_eq!(refusal.sqlstate, "42501", "{refusal:?}");
    }
    session.register(&[&issuer]);
    session.run("TRUNCATE auth.providers");
    session.run(&format!(
        "REVOKE ALL ON auth.providers FROM {helper};
         REVOKE ALL ON FUNCTION auth.init(text), auth.create_roles() FROM {helper};"
    ));
}

/// Makes this role the owner of the database.
fn give(db: &Database, owner: &str) {
    db.superuser()
        .run(&format!("ALTER DATABASE {} OWNER TO {owner}", db.name()));
}

#[test]
fn a_fresh_install_has_the_privileges_of_the_contract() {
    let db = Database::new();
    assert_contract(&db, "postgres");
    assert_an_application_has_its_place(&db);

    let db = Database::without_extension();
    let owner = db.role("owner");
    give(&db, &owner);
    db.connect(&owner, "")
        .run("CREATE EXTENSION pg_session_jwt");
    assert_contract(&db, &owner);
    assert_an_application_has_its_place(&db);
    assert_may_administer(&db, &owner);
}

#[test]
fn default_privileges_neither_give_nor_take() {
    for by_owner in [false, true] {
        let db = Database::without_extension();
        let owner = db.role("owner");
        give(&db, &owner);
        make_hostile(&mut db.superuser(), "FOR ROLE postgres", APP_USER);
        // The default privileges of the role that runs CREATE EXTENSION do not matter either.
        make_hostile(&mut db.connect(&owner, ""), "", APP_USER);
        if by_owner {
            db.connect(&owner, "")
                .run("CREATE EXTENSION pg_session_jwt");
            assert_contract(&db, &owner);
        } else {
            db.superuser().run("CREATE EXTENSION pg_session_jwt");
            assert_contract(&db, "postgres");
        }
        assert_an_application_has_its_place(&db);
        assert_may_administer(&db, &owner);
    }
}

#[test]
fn asked_for_by_its_number_an_older_version_has_the_same_privileges() {
    for version in ["0.3.1", "0.4.0", "0.5.0", "1.0.0", "1.0.1", CURRENT] {
        let db = Database::without_extension();
        let owner = db.role("owner");
        give(&db, &owner);
        make_hostile(&mut db.superuser(), "FOR ROLE postgres", APP_USER);
        db.connect(&owner, "").install(version);
        assert_contract(&db, &owner);
        assert_an_application_has_its_place(&db);
        assert_may_administer(&db, &owner);
    }
}

#[test]
fn default_privileges_of_the_owners_change_nothing_either() {
    let db = Database::without_extension();
    let owner = db.role("owner");
    give(&db, &owner);
    let mut session = db.superuser();
    for statement in [
        // Too little for those who should have something, and too much.
        "REVOKE ALL ON TABLES FROM postgres",
        "REVOKE ALL ON FUNCTIONS FROM postgres",
        "REVOKE ALL ON SCHEMAS FROM postgres",
        "REVOKE ALL ON TYPES FROM postgres",
        "GRANT TRIGGER, REFERENCES ON TABLES TO pg_database_owner",
        "GRANT TRIGGER, SELECT ON TABLES TO $owner",
        "GRANT EXECUTE ON FUNCTIONS TO $owner, pg_database_owner",
    ] {
        let statement = statement.replace("$owner", &owner);
        session.run(&format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE postgres {statement}"
        ));
    }
    db.connect(&owner, "")
        .run("CREATE EXTENSION pg_session_jwt");
    assert_contract(&db, &owner);
    assert_may_administer(&db, &owner);
}

#[test]
fn an_update_from_an_old_version_sets_the_privileges_of_what_it_adds() {
    for version in ["0.3.1", "0.4.0", "0.5.0", "1.0.0", "1.0.1"] {
        let db = Database::left_by(version);
        let other = db.role("other");
        let mut session = db.superuser();
        make_hostile(&mut session, "FOR ROLE postgres", APP_USER);
        make_hostile(&mut session, "FOR ROLE postgres IN SCHEMA auth", &other);
        session.run("ALTER EXTENSION pg_session_jwt UPDATE");
        assert_contract(&db, "postgres");
        assert_an_application_has_its_place(&db);
    }
    // Nobody warned: nobody has anything.
    let db = Database::left_by("0.5.0");
    let mut session = db.superuser();
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(session.notices(), [""; 0]);
    assert_contract(&db, "postgres");
}

#[test]
fn an_update_leaves_what_was_there_before_as_the_administrator_made_it() {
    let db = Database::left_by("0.5.0");
    let (reader, maker) = (db.role("reader"), db.role("maker"));
    let mut session = db.superuser();
    session.run(&format!(
        "GRANT CREATE, USAGE ON SCHEMA auth TO {maker} WITH GRANT OPTION;
         REVOKE EXECUTE ON FUNCTION auth.jwt() FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION auth.jwt() TO {reader};"
    ));
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    let acls = "SELECT n.nspacl, p.proacl FROM pg_namespace n, pg_proc p
                WHERE nspname = 'auth' AND p.oid = 'auth.jwt()'::regprocedure";
    let after = [format!(
        "{{postgres=UC/postgres,{maker}=U*C*/postgres,=U/postgres}}|{{postgres=X/postgres,{reader}=X/postgres}}"
    )];
    assert_eq!(session.rows(acls), after);
    // The version number back, and again: there is nothing new.
    session.run("REVOKE USAGE ON SCHEMA auth FROM PUBLIC; REVOKE SELECT ON auth.providers FROM pg_database_owner");
    let members = session.rows(MEMBERS);
    session.update_to("0.3.1");
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(session.rows(MEMBERS), members);
    // pg_init_privs, in which pg_dump finds what is the extension's own, has none of it.
    assert_eq!(
        session.text(&format!(
            "SELECT count(*) FROM pg_init_privs, aclexplode(initprivs)
             WHERE grantee IN ('{reader}'::regrole, '{maker}'::regrole)"
        )),
        "0"
    );
    session.run(&format!(
        "REVOKE ALL ON SCHEMA auth FROM {maker}; DROP ROLE {maker}; CREATE ROLE {maker}"
    ));
}

#[test]
fn from_1_0_0_the_owners_get_their_privileges() {
    // Installed by a superuser for somebody else.
    let db = Database::left_by("1.0.0");
    let owner = db.role("owner");
    give(&db, &owner);
    db.connect(&owner, "")
        .refused("TABLE auth.providers")
        .assert("42501", "permission denied for table providers");
    let mut session = db.superuser();
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(session.notices(), [""; 0]);
    assert_contract(&db, "postgres");
    assert_may_administer(&db, &owner);
    // Its next owner instead of this one.
    let next = db.role("next");
    give(&db, &next);
    db.connect(&owner, "")
        .refused("TABLE auth.providers")
        .assert("42501", "permission denied for table providers");
    assert_may_administer(&db, &next);

    // Installed by the database's owner, who still has it when the database is somebody else's.
    let db = Database::without_extension();
    let (first, second) = (db.role("first"), db.role("second"));
    give(&db, &first);
    db.connect(&first, "").install_left_by("1.0.0");
    give(&db, &second);
    session = db.superuser();
    session.run(&format!(
        "GRANT CREATE ON DATABASE {} TO {first}",
        db.name()
    ));
    db.connect(&first, "")
        .run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_contract(&db, &first);
    assert_may_administer(&db, &first);
    assert_may_administer(&db, &second);
}

#[test]
fn a_superuser_who_updates_does_so_for_the_extensions_owner() {
    for start in ["0.5.0", "1.0.0"] {
        let db = Database::without_extension();
        let owner = db.role("owner");
        give(&db, &owner);
        db.connect(&owner, "").install_left_by("0.5.0");
        let mut session = db.superuser();
        if start == "1.0.0" {
            // 1.0.0 served whoever ran its script.
            session.update_to("1.0.0");
            give(&db, "postgres");
            db.connect(&owner, "")
                .refused("TABLE auth.providers")
                .assert("42501", "permission denied for table providers");
        }
        give(&db, "postgres");
        session.run("ALTER EXTENSION pg_session_jwt UPDATE");
        assert_eq!(session.notices(), [""; 0]);
        assert_contract(&db, &owner);
        assert_may_administer(&db, &owner);
    }
}

#[test]
fn from_1_0_0_what_an_administrator_granted_or_revoked_stays() {
    let db = Database::without_extension();
    let (owner, reader) = (db.role("owner"), db.role("reader"));
    give(&db, &owner);
    db.connect(&owner, "").install_left_by("1.0.0");
    let mut session = db.superuser();
    session.run(&format!(
        "GRANT SELECT ON auth.providers TO {reader};
         GRANT UPDATE (enabled) ON auth.providers TO {reader};
         GRANT EXECUTE ON FUNCTION auth.init(text) TO {reader};
         REVOKE TRUNCATE ON auth.providers FROM {owner};
         REVOKE ALL ON FUNCTION auth.create_roles() FROM {owner};
         REVOKE EXECUTE ON FUNCTION auth.email() FROM PUBLIC;
         REVOKE USAGE ON SCHEMA auth FROM PUBLIC;"
    ));
    // And what is new.
    let touched = "object IN ('table auth.providers', 'function auth.init(text)',
                              'function auth.create_roles()', 'table auth.provider_keys',
                              'function auth.refresh(text)', 'function auth.forget_keys()')";
    let rest = format!(
        "SELECT * FROM ({MEMBERS}) m WHERE NOT {touched} AND object NOT LIKE 'type auth.provider_keys%'"
    );
    let before = session.rows(&rest);
    session.run("ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(session.rows(&rest), before);
    let table = "DELETE* INSERT* SELECT* TRUNCATE* UPDATE*";
    let with = |role: &str, privileges: &str| {
        let all = privileges
            .split(' ')
            .map(|privilege| format!("{role}={privilege}"));
        all.collect::<Vec<_>>().join(" ")
    };
    let wanted = [
        format!(
            "function auth.create_roles()|{}|0",
            with("pg_database_owner", "EXECUTE*")
        ),
        "function auth.forget_keys()|-|0".to_owned(),
        format!(
            "function auth.init(text)|{owner}=EXECUTE* {reader}=EXECUTE {}|0",
            with("pg_database_owner", "EXECUTE*")
        ),
        format!("function auth.refresh(text)|{owner}=EXECUTE* pg_database_owner=EXECUTE*|0"),
        format!("table auth.provider_keys|{owner}=SELECT* pg_database_owner=SELECT*|0"),
        format!(
            "table auth.providers|{} {reader}=SELECT {}|0",
            with(&owner, "DELETE* INSERT* SELECT* UPDATE*"),
            with("pg_database_owner", table)
        ),
    ];
    let members = session.rows(&format!("SELECT * FROM ({MEMBERS}) m WHERE {touched}"));
    assert_eq!(members, wanted);
    // pg_init_privs, in which pg_dump finds what is the extension's own, has none of it.
    let initial = session.rows(
        "SELECT DISTINCT grantee::regrole::text FROM pg_init_privs, aclexplode(initprivs)
         WHERE grantee <> 10 AND (classoid, objoid) IN (
             SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND refobjid =
                 (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt'))
         ORDER BY 1",
    );
    assert_eq!(initial, ["-", &*owner, "pg_database_owner"]);
    session.run(&format!(
        "REVOKE ALL ON auth.providers FROM {reader};
         REVOKE ALL ON FUNCTION auth.init(text) FROM {reader};
         DROP ROLE {reader}; CREATE ROLE {reader}"
    ));
}

#[test]
fn from_1_0_0_one_warning_names_whoever_else_may_use_the_keys() {
    let db = Database::without_extension();
    let (owner, reader) = (db.role("owner"), db.role("reader"));
    give(&db, &owner);
    let mut session = db.superuser();
    session.run(&format!(
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT, INSERT ON TABLES TO {APP_USER};
         ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON SCHEMAS TO {APP_USER};
         ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT EXECUTE ON FUNCTIONS TO {APP_USER};"
    ));
    db.connect(&owner, "").install_left_by("1.0.0");
    let odd = format!("{} \"odd'", reader);
    let quoted = odd.replace('"', "\"\"");
    session.run(&format!(
        "CREATE ROLE \"{quoted}\";
         GRANT SELECT (name, jwks), UPDATE (name) ON auth.providers TO \"{quoted}\";
         GRANT EXECUTE ON FUNCTION auth.init(text) TO PUBLIC;"
    ));
    session.notices();
    let mut admin = db.connect(&owner, "");
    admin.run("ALTER EXTENSION pg_session_jwt UPDATE");
    let warning = format!(
        "WARNING: others hold privileges that are meant for the owners: \
         PUBLIC (EXECUTE on FUNCTION auth.init(text)), {APP_USER} (EXECUTE on FUNCTION auth.init(text)), \
         {APP_USER} (CREATE on SCHEMA auth), \
         \"{quoted}\" (SELECT (jwks), SELECT (name), UPDATE (name) on TABLE auth.providers), \
         {APP_USER} (INSERT, SELECT on TABLE auth.providers)"
    );
    assert_eq!(admin.notices(), [warning]);
    // It says how to take them away, and then there is nothing to say.
    let hint = hint_of_update(&db, &owner);
    let statements = hint.split_once("Where they should not be: ").unwrap().1;
    assert_eq!(statements.matches("REVOKE ").count(), 5, "{hint}");
    session.run(statements);
    admin.update_to("1.0.0");
    admin.update_to(CURRENT);
    assert_eq!(admin.notices(), [""; 0]);
    let left = session.rows(&format!(
        "SELECT * FROM ({MEMBERS}) m WHERE object IN ('table auth.providers', 'function auth.init(text)')"
    ));
    assert!(
        !left.concat().contains(APP_USER) && !left.concat().contains("PUBLIC"),
        "{left:?}"
    );
    db.app()
        .refused("CREATE TABLE auth.t ()")
        .assert("42501", "permission denied for schema auth");
    session.run(&format!("DROP ROLE \"{quoted}\""));
}

/// The HINT of the WARNING with which 1.0.0 is updated, from the server's log.
fn hint_of_update(db: &Database, owner: &str) -> String {
    let mut session = db.connect(owner, "");
    session.update_to("1.0.0");
    session.update_to(CURRENT);
    let process = format!("[{}] HINT:  ", session.pid());
    let log = server_log();
    let mut hints = log.lines().filter_map(|line| line.split_once(&process));
    hints.next_back().expect("a HINT").1.to_owned()
}

#[test]
fn names_and_settings_of_any_kind_do_no_harm() {
    for name in [
        "Public \"x' y",
        "current_user",
        "SELECT",
        "a.b%I $privileges$",
    ] {
        let db = Database::without_extension();
        let quoted = name.replace('"', "\"\"");
        let mut session = db.superuser();
        session.run(&format!(
            "CREATE ROLE \"{quoted}\" LOGIN;
             ALTER DATABASE {} OWNER TO \"{quoted}\";
             ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO \"{quoted}\"",
            db.name()
        ));
        let mut owner = db.connect(name, "");
        owner.run(
            "SET quote_all_identifiers = on; SET standard_conforming_strings = off;
             SET escape_string_warning = off; SET transform_null_equals = on; SET array_nulls = off;
             SET auth_script.before = 'x'; SET plpgsql.extra_errors = 'all';",
        );
        owner.run("CREATE EXTENSION pg_session_jwt");
        assert_eq!(owner.notices(), [""; 0]);
        let shown = session.text(&format!("SELECT quote_ident({})", sql_text(name)));
        assert_contract(&db, &shown);
        assert_may_administer(&db, name);
        if name.contains(['"', '$']) {
            // 1.0.0's script could not be run by such a user.
            continue;
        }
        owner.run("DROP EXTENSION pg_session_jwt");
        owner.install_left_by("1.0.0");
        owner.run("ALTER EXTENSION pg_session_jwt UPDATE");
        owner.update_to("0.3.1");
        owner.run("ALTER EXTENSION pg_session_jwt UPDATE");
        assert_eq!(owner.text("SHOW auth_script.before"), "x");
        // 1.0.0 gave what its owner's default privileges gave.
        session.run(&format!(
            "REVOKE TRIGGER, REFERENCES ON auth.providers FROM \"{quoted}\""
        ));
        if pg_major() >= 17 {
            session.run(&format!(
                "REVOKE MAINTAIN ON auth.providers FROM \"{quoted}\""
            ));
        }
        assert_contract(&db, &shown);
        session.run(&format!("ALTER DATABASE {} OWNER TO postgres", db.name()));
    }
}

/// The script runs as the bootstrap superuser while the extension's schema is in search_path.
#[test]
fn functions_and_operators_in_the_extensions_schema_are_not_used() {
    for start in [CURRENT, "0.3.1", "0.5.0", "1.0.0"] {
        let db = Database::without_extension();
        let owner = db.role("owner");
        give(&db, &owner);
        let mut session = db.connect(&owner, "");
        session.run(
            "CREATE FUNCTION public.spring(text) RETURNS text LANGUAGE plpgsql AS
                 $$BEGIN RAISE EXCEPTION 'sprung by %', current_user; END$$;",
        );
        let trap = |arguments: &str| {
            format!("BEGIN PERFORM public.spring(''); RETURN NULL; END$$ {arguments}")
        };
        let mut traps = Vec::new();
        let types = [
            "oid",
            "regclass",
            "regprocedure",
            "regrole",
            "regnamespace",
            "name",
            "text",
            "\"char\"",
            "oidvector",
            "aclitem[]",
            "text[]",
        ];
        for (number, left) in types.iter().enumerate() {
            for (other, right) in types.iter().enumerate() {
                let name = format!("trap_{number}_{other}");
                traps.push(format!(
                    "CREATE FUNCTION public.{name}({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS $${};",
                    trap("")
                ));
                for operator in ["=", "<>", "||"] {
                    traps.push(format!(
                        "CREATE OPERATOR public.{operator} (FUNCTION = public.{name}, LEFTARG = {left}, RIGHTARG = {right});"
                    ));
                }
            }
        }
        for (name, arguments, returns) in [
            ("format", "text, text, text", "text"),
            ("format", "text, oid, oid", "text"),
            ("string_agg", "text, text", "text"),
            ("set_config", "text, text, boolean", "text"),
            ("quote_ident", "name", "text"),
            ("coalesce", "text, text", "text"),
            ("now", "", "timestamptz"),
        ] {
            traps.push(format!(
                "CREATE FUNCTION public.\"{name}\"({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $${};",
                trap("")
            ));
        }
        session.run(&traps.join("\n"));
        // The trap works where it is not avoided.
        session
            .refused("SET search_path = public; SELECT 'pg_class'::regclass = 1::oid")
            .assert("P0001", &format!("sprung by {owner}"));
        session.run("RESET search_path");
        match start {
            CURRENT => session.run("CREATE EXTENSION pg_session_jwt WITH SCHEMA public"),
            _ => session.install_left_by(start),
        }
        session.run("ALTER EXTENSION pg_session_jwt UPDATE");
        session.run("ALTER EXTENSION pg_session_jwt UPDATE TO '0.3.1'");
        session.run("ALTER EXTENSION pg_session_jwt UPDATE");
        assert_contract(&db, &owner);
    }
}

#[test]
fn what_a_provider_row_holds_is_for_those_alone() {
    // A key may be a secret.
    let db = Database::without_extension();
    let owner = db.role("owner");
    give(&db, &owner);
    make_hostile(&mut db.superuser(), "FOR ROLE postgres", APP_USER);
    db.superuser().run("CREATE EXTENSION pg_session_jwt");
    let secret = Issuer::hs256();
    db.connect(&owner, "").run(&Row::main(&[&secret]).insert());
    let mut app = db.app();
    for sql in [
        "SELECT jwks FROM auth.providers",
        "SELECT name FROM auth.providers",
        "COPY auth.providers TO STDOUT",
        "SELECT query_to_xml('TABLE auth.providers', true, true, '')",
        "UPDATE auth.providers SET jwks = NULL",
        "CREATE TEMP VIEW v AS TABLE auth.providers; TABLE v",
    ] {
        app.refused(sql)
            .assert("42501", "permission denied for table providers");
    }
    app.present(&token(&secret, "alice"));
    app.assert_user("alice");
}
