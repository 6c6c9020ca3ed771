-- What 1.0.1 adds to 1.0.0: privileges for the owners of the extension and of the database, and a word
-- about whoever else has some.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

COMMENT ON FUNCTION auth.init() IS
    'Loads and checks the startup key (pg_session_jwt.jwk); a WARNING where there is neither a key nor a provider';
COMMENT ON FUNCTION auth.org_id() IS
    'The organization, whoever issued the token; NULL when there is none';
COMMENT ON FUNCTION auth.org_role() IS
    'The user''s role in the organization, without Clerk''s prefix; NULL when there is none';
COMMENT ON FUNCTION auth.org_slug() IS
    'The organization''s short name; NULL when there is none';
COMMENT ON TABLE auth.providers IS
    'Issuers whose tokens this database trusts; while one is there, enabled or not, nothing that a client brings is trusted';
COMMENT ON FUNCTION auth.check_provider() IS
    'Trigger of auth.providers: checks a row and notifies every backend';
COMMENT ON TRIGGER check_provider ON auth.providers IS 'Checks a row and notifies every backend';

DO $privileges$
DECLARE
    extension_owner oid;
    object record;
    receiver oid;
    initial aclitem[];
    holders text;
    statements text;
BEGIN
    -- From the catalog: 1.0.0 had served whoever ran its script.
    SELECT extowner INTO STRICT extension_owner
    FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt';

    FOR object IN
        SELECT o.*, coalesce(i.initprivs, pg_catalog.acldefault(o.acl_kind, o.owner)) AS initial
        FROM (
            SELECT 'TABLE' AS kind, 'r'::"char" AS acl_kind, tableoid AS class, oid AS id,
                oid::pg_catalog.regclass::text AS name, relowner AS owner,
                'SELECT, INSERT, UPDATE, DELETE, TRUNCATE' AS privileges
            FROM pg_catalog.pg_class WHERE oid = 'auth.providers'::pg_catalog.regclass
            UNION ALL
            SELECT 'FUNCTION', 'f', tableoid, oid,
                oid::pg_catalog.regprocedure::text, proowner,
                'EXECUTE'
            FROM pg_catalog.pg_proc WHERE oid IN (
                'auth.init(text)'::pg_catalog.regprocedure,
                'auth.create_roles()'::pg_catalog.regprocedure)
        ) o LEFT JOIN pg_catalog.pg_init_privs i
            ON i.classoid = o.class AND i.objoid = o.id AND i.objsubid = 0
    LOOP
        initial := object.initial;
        FOREACH receiver IN ARRAY ARRAY[extension_owner, 'pg_database_owner'::pg_catalog.regrole] LOOP
            -- What 1.0.0 had given and is there no more, an administrator has revoked.
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_catalog.aclexplode(initial) WHERE grantee = receiver);
            EXECUTE pg_catalog.format('GRANT %s ON %s %s TO %I WITH GRANT OPTION',
                object.privileges, object.kind, object.name, pg_catalog.pg_get_userbyid(receiver));
            SELECT initial || item INTO STRICT initial
            FROM pg_catalog.pg_init_privs, pg_catalog.unnest(initprivs) item
            WHERE classoid = object.class AND objoid = object.id AND objsubid = 0 AND EXISTS (
                SELECT FROM pg_catalog.aclexplode(ARRAY[item])
                WHERE grantee = receiver AND grantor = object.owner);
        END LOOP;
        -- GRANT in an extension's script takes all that is granted on the object for the extension's
        -- own, which pg_dump leaves out; what an administrator has granted is not.
        UPDATE pg_catalog.pg_init_privs SET initprivs = initial
        WHERE classoid = object.class AND objoid = object.id AND objsubid = 0
            AND initprivs <> initial;
        -- From Postgres 17 on, a role in there cannot be dropped.
        DELETE FROM pg_catalog.pg_shdepend
        WHERE dbid = (SELECT oid FROM pg_catalog.pg_database
                WHERE datname = pg_catalog.current_database())
            AND classid = object.class AND objid = object.id AND deptype = 'i'
            AND refobjid NOT IN (SELECT grantee FROM pg_catalog.aclexplode(initial));
    END LOOP;

    -- 1.0.0 did not take back what ALTER DEFAULT PRIVILEGES gave when it was installed.
    SELECT pg_catalog.string_agg(
            pg_catalog.format('%s (%s on %s)', holder, privileges, name), ', ' ORDER BY name, holder),
        pg_catalog.string_agg(
            pg_catalog.format('REVOKE %s ON %s FROM %s;', revoked, name, holder), ' '
            ORDER BY name, holder)
        INTO holders, statements
    FROM (
        SELECT name, revoked,
            CASE grantee WHEN 0 THEN 'PUBLIC'
                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END AS holder,
            pg_catalog.string_agg(DISTINCT privilege_type || place, ', ') AS privileges
        FROM (
            SELECT 'TABLE auth.providers' AS name, 'ALL' AS revoked, '' AS place,
                relowner AS owner, relacl AS acl
            FROM pg_catalog.pg_class WHERE oid = 'auth.providers'::pg_catalog.regclass
            UNION ALL
            SELECT 'TABLE auth.providers', 'ALL', pg_catalog.format(' (%I)', attname),
                relowner, attacl
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute ON attrelid = c.oid
            WHERE c.oid = 'auth.providers'::pg_catalog.regclass
            UNION ALL
            SELECT 'FUNCTION auth.init(text)', 'ALL', '',
                proowner, coalesce(proacl, pg_catalog.acldefault('f', proowner))
            FROM pg_catalog.pg_proc WHERE oid = 'auth.init(text)'::pg_catalog.regprocedure
            UNION ALL
            SELECT 'SCHEMA auth', 'CREATE', '', nspowner, nspacl
            FROM pg_catalog.pg_namespace WHERE nspname = 'auth'
        ) o, LATERAL pg_catalog.aclexplode(acl)
        WHERE grantee NOT IN (owner, extension_owner, 'pg_database_owner'::pg_catalog.regrole)
            AND (revoked = 'ALL' OR privilege_type = revoked)
        GROUP BY name, revoked, grantee
    ) h;
    IF holders IS NOT NULL THEN
        RAISE WARNING 'others hold privileges that are meant for the owners: %', holders
            USING HINT = 'ALTER DEFAULT PRIVILEGES may have given them when 1.0.0 was installed. '
                'Where they should not be: ' || statements;
    END IF;
END
$privileges$;
