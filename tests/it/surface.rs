//! The SQL surface: what there is, who may use it, and what it says about itself.

use harness::{CURRENT, Database, Issuer, sql_text};

/// Every function of the contract: signature, result, volatility, parallel safety, for PUBLIC.
const FUNCTIONS: &[&str] = &[
    "check_provider()|trigger|v|u|f",
    "claim(name text)|text|s|s|t",
    "claim(VARIADIC path text[])|text|s|s|t",
    "create_roles()|void|v|u|f",
    "email()|text|s|s|t",
    "forget_keys()|trigger|v|u|f",
    "has_permission(permission text)|boolean|s|s|t",
    "init()|void|s|s|t",
    "init(jwks text)|void|v|u|f",
    "jwt()|jsonb|s|s|t",
    "jwt_session_init(jwt text)|void|v|u|t",
    "jwt_session_init(jwt text, is_local boolean)|void|v|u|t",
    "login(jwt text, is_local boolean)|name|v|u|t",
    "logout()|void|v|u|t",
    "org_id()|text|s|s|t",
    "org_role()|text|s|s|t",
    "org_slug()|text|s|s|t",
    "organization()|jsonb|s|s|t",
    "organization_id()|uuid|s|s|t",
    "permissions()|text[]|s|s|t",
    "pre_request()|void|v|u|t",
    "providers_written()|trigger|v|u|f",
    "refresh(provider text)|record|v|u|f",
    "role()|text|s|s|t",
    "session()|jsonb|s|s|t",
    "status()|record|s|s|t",
    "uid()|uuid|s|s|t",
    "user_id()|text|s|s|t",
    "verify(jwt text)|jsonb|s|s|t",
];

#[test]
fn the_functions_are_those_of_the_contract() {
    let db = Database::new();
    let functions = db.superuser().rows(
        "SELECT format('%s(%s)', proname, pg_get_function_identity_arguments(p.oid)),
                prorettype::regtype, provolatile, proparallel,
                has_function_privilege('app_user', p.oid, 'EXECUTE')
         FROM pg_proc p WHERE pronamespace = 'auth'::regnamespace",
    );
    let mut functions: Vec<String> = functions
        .into_iter()
        .map(|f| match f.strip_prefix("status(") {
            // Its OUT columns are below.
            Some(rest) => format!("status(){}", &rest[rest.find(')').unwrap() + 1..]),
            None => f,
        })
        .collect();
    functions.sort_unstable();
    let mut expected = FUNCTIONS.to_vec();
    expected.sort_unstable();
    assert_eq!(functions, expected);

    let columns = db.superuser().text(
        "SELECT string_agg(n || ' ' || t::regtype, ', ' ORDER BY o)
         FROM pg_proc, unnest(proargnames, proallargtypes) WITH ORDINALITY AS c(n, t, o)
         WHERE oid = 'auth.status'::regproc",
    );
    assert_eq!(
        columns,
        "source text, provider text, issuer text, key_id text, algorithm text, subject text, \
         role text, issued_at timestamp with time zone, expires_at timestamp with time zone, \
         problem text"
    );
}

#[test]
fn the_table_of_providers_is_that_of_the_contract() {
    let db = Database::new();
    let mut session = db.superuser();
    assert_eq!(
        session.rows(
            "SELECT attname, atttypid::regtype, attnotnull, pg_get_expr(adbin, adrelid)
             FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = 'auth.providers'::regclass AND attnum > 0 ORDER BY attnum"
        ),
        [
            "name|text|t|NULL",
            "issuer|text|f|NULL",
            "jwks|jsonb|f|NULL",
            "jwks_url|text|f|NULL",
            "audience|text[]|f|NULL",
            "authorized_parties|text[]|f|NULL",
            "algorithms|text[]|f|NULL",
            "required_claims|text[]|t|'{exp}'::text[]",
            "role_claim|text[]|t|'{role}'::text[]",
            "allowed_roles|name[]|t|'{authenticated}'::name[]",
            "default_role|name|f|NULL",
            "enabled|boolean|t|true",
            "created_at|timestamp with time zone|t|now()",
            "updated_at|timestamp with time zone|t|now()",
            "written_by_superuser|boolean|t|true",
        ]
    );
    assert_eq!(
        session.rows(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint
             WHERE conrelid = 'auth.providers'::regclass AND contype = 'p'"
        ),
        ["PRIMARY KEY (name)"]
    );
    // TRIGGER and REFERENCES are for nobody but the table's owner.
    for privilege in [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TRUNCATE",
        "REFERENCES",
        "TRIGGER",
    ] {
        let sql =
            format!("SELECT has_table_privilege('app_user', 'auth.providers', '{privilege}')");
        assert_eq!(session.text(&sql), "f", "{privilege}");
    }
    assert_eq!(
        session.rows(
            "SELECT attname FROM pg_attribute
             WHERE attrelid IN ('auth.providers'::regclass, 'auth.provider_keys'::regclass) AND attnum > 0
                 AND col_description(attrelid, attnum) IS NULL"
        ),
        [""; 0],
        "columns without a comment"
    );
    // A trigger is no member of the extension.
    assert_eq!(
        session.rows(
            "SELECT tgname, tgenabled, obj_description(oid, 'pg_trigger') IS NOT NULL
             FROM pg_trigger WHERE tgrelid = 'auth.providers'::regclass ORDER BY 1"
        ),
        [
            "check_provider|A|t",
            "forget_all_keys|A|t",
            "forget_keys|A|t",
            "forget_keys_of_name|A|t",
            "providers_written|A|t"
        ]
    );
}

#[test]
fn everything_has_a_comment_and_belongs_to_the_extension() {
    let db = Database::new();
    let mut session = db.superuser();
    let members = session.rows(
        "SELECT pg_describe_object(classid, objid, objsubid),
                obj_description(objid, classid::regclass::name) IS NOT NULL
         FROM pg_depend
         WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
             AND classid <> 'pg_type'::regclass -- the table's row type, which Postgres makes
             AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt')",
    );
    assert!(members.len() > FUNCTIONS.len(), "{members:?}");
    for member in &members {
        assert!(member.ends_with("|t"), "no comment: {member}");
    }
    let strays = session.rows(
        "SELECT oid::regprocedure FROM pg_proc p WHERE pronamespace = 'auth'::regnamespace
         AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')",
    );
    assert_eq!(strays, [""; 0]);
    assert!(session.value("SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'pg_session_jwt'").is_some());
}

#[test]
fn nobody_but_the_owner_may_create_in_schema_auth() {
    let db = Database::new();
    let mut session = db.superuser();
    assert_eq!(
        session.rows("SELECT has_schema_privilege('app_user', 'auth', 'USAGE'), has_schema_privilege('app_user', 'auth', 'CREATE')"),
        ["t|f"]
    );
}

#[test]
fn the_parameters_have_the_contracts_defaults_and_describe_themselves() {
    let db = Database::new();
    let mut app = db.app();
    app.assert_nobody();
    for (name, default) in [
        ("jwk", ""),
        ("jwt", ""),
        ("claims", ""),
        ("request_claims", "fallback"),
        ("clock_skew", "1min"),
        ("audit_log", "off"),
    ] {
        assert_eq!(app.text(&format!("SHOW pg_session_jwt.{name}")), default);
    }
    let settings = app.rows(
        "SELECT name, context, setting || coalesce(unit, '') FROM pg_settings
         WHERE name LIKE 'pg\\_session\\_jwt.%' AND short_desc <> '' ORDER BY name",
    );
    for setting in [
        "pg_session_jwt.audit_log|superuser|off",
        "pg_session_jwt.claims|superuser|",
        "pg_session_jwt.clock_skew|superuser|60s",
        "pg_session_jwt.request_claims|superuser|fallback",
    ] {
        assert!(
            settings.iter().any(|s| s == setting),
            "{setting} in {settings:?}"
        );
    }
}

#[test]
fn wrong_values_of_parameters_are_refused() {
    let db = Database::new();
    let mut session = db.superuser();
    session.run("SELECT auth.init()");
    for set in [
        "pg_session_jwt.clock_skew = -1",
        "pg_session_jwt.clock_skew = 'x'",
        "pg_session_jwt.request_claims = 'sometimes'",
        "pg_session_jwt.audit_log = 'perhaps'",
    ] {
        let refusal = session.refused(&format!("SET {set}"));
        assert_eq!(refusal.sqlstate, "22023", "{refusal:?}");
    }
    let refusal = session.refused("SET pg_session_jwt.no_such_parameter = 1");
    assert_eq!(refusal.sqlstate, "42602", "{refusal:?}");
}

#[test]
fn an_ordinary_owner_of_the_database_may_install_the_extension() {
    let db = Database::without_extension();
    let owner = db.role("owner");
    let name = db.name();
    db.superuser()
        .run(&format!("ALTER DATABASE {name} OWNER TO {owner}"));
    let issuer = Issuer::ed25519();
    let mut session = db.connect(&owner, "");
    session.run("CREATE EXTENSION pg_session_jwt");
    assert_eq!(
        session.text("SELECT extversion FROM pg_extension WHERE extname = 'pg_session_jwt'"),
        CURRENT
    );
    // The owner may pin keys, and let others do so.
    let server = db.role("server");
    session.run(&format!(
        "GRANT EXECUTE ON FUNCTION auth.init(text) TO {server}"
    ));
    let init = format!("SELECT auth.init({})", sql_text(&issuer.jwk().to_string()));
    db.connect(&owner, "").run(&init);
    db.connect(&server, "").run(&init);
    db.app()
        .refused(&init)
        .assert("42501", "permission denied for function init");
    session.refused("SET pg_session_jwt.claims = '{}'").assert(
        "42501",
        "permission denied to set parameter \"pg_session_jwt.claims\"",
    );
    let mut app = db.app_with_key(&issuer);
    app.present(&issuer.token_for("alice"));
    app.assert_user("alice");
    session.run("DROP EXTENSION pg_session_jwt");
}

#[test]
fn the_extension_goes_without_a_trace() {
    let db = Database::new();
    let mut session = db.superuser();
    session.run("DROP EXTENSION pg_session_jwt");
    assert_eq!(session.value("SELECT to_regnamespace('auth')"), None);
    session.run("CREATE EXTENSION pg_session_jwt");
    session.assert_nobody();
}

#[test]
fn a_dumped_database_is_restored_with_its_policies() {
    let db = Database::with_todos();
    let target = Database::without_extension();
    let bin = std::path::PathBuf::from(harness::setting("PG_BIN"));
    let dump = std::process::Command::new(bin.join("pg_dump"))
        .args(["--dbname", db.name()])
        .output()
        .expect("pg_dump runs");
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let file = std::env::temp_dir().join(format!("{}.sql", db.name()));
    std::fs::write(&file, &dump.stdout).unwrap();
    let restore = std::process::Command::new(bin.join("psql"))
        .args([
            "--no-psqlrc",
            "--quiet",
            "--set",
            "ON_ERROR_STOP=1",
            "--dbname",
            target.name(),
        ])
        .arg("--file")
        .arg(&file)
        .output()
        .expect("psql runs");
    std::fs::remove_file(&file).unwrap();
    assert!(
        restore.status.success(),
        "{}",
        String::from_utf8_lossy(&restore.stderr)
    );
    let issuer = Issuer::ed25519();
    let mut app = target.app_with_key(&issuer);
    assert_eq!(app.tasks(), [""; 0]);
    app.present(&issuer.token_for("bob"));
    assert_eq!(app.tasks(), ["read"]);
}
