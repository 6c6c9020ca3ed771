-- The SQL surface of pg_session_jwt: every object, its comment and its privileges.
--
-- It runs in the new schema auth of a fresh install. Older versions are updated by the scripts beside it, of
-- which those that have been released are never edited. Everything here can run again: the script of 0.5.0
-- was this text as it stood in 1.0.1.
--
-- The script of a trusted extension runs as the bootstrap superuser, which owns what it creates. The
-- schema that the extension was installed into is in search_path then, and others may have put
-- functions and operators there: it is taken out first, and names are qualified all the same.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- The members that the extension has before this script: its end leaves their privileges alone.
SELECT pg_catalog.set_config('auth_script.before', coalesce(pg_catalog.string_agg(
    pg_catalog.format('%s/%s', classid, objid), ' '), ''), true)
FROM pg_catalog.pg_depend
WHERE refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND deptype = 'e'
    AND refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt')
    -- The schema is new where it is alone.
    AND classid <> 'pg_catalog.pg_namespace'::pg_catalog.regclass;

COMMENT ON SCHEMA auth IS 'Identity of the session''s user, from a verified JSON Web Token';

-- Presenting keys and tokens

CREATE OR REPLACE FUNCTION auth.init() RETURNS void
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'init_wrapper';
COMMENT ON FUNCTION auth.init() IS
    'Loads and checks the startup key (pg_session_jwt.jwk); warns if there is neither a key nor a provider';

CREATE OR REPLACE FUNCTION auth.init(jwks text) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'init_jwks_wrapper';
COMMENT ON FUNCTION auth.init(text) IS
    'Pins the keys that this connection trusts: a JWK or a JWK Set; write-once';

CREATE OR REPLACE FUNCTION auth.jwt_session_init(jwt text) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'jwt_session_init_wrapper';
COMMENT ON FUNCTION auth.jwt_session_init(text) IS
    'Verifies a token and keeps it for the session';

CREATE OR REPLACE FUNCTION auth.jwt_session_init(jwt text, is_local boolean) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'jwt_session_init_local_wrapper';
COMMENT ON FUNCTION auth.jwt_session_init(text, boolean) IS
    'Verifies a token and keeps it for the transaction (is_local) or the session';

CREATE OR REPLACE FUNCTION auth.verify(jwt text) RETURNS jsonb
    STABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'verify_wrapper';
COMMENT ON FUNCTION auth.verify(text) IS
    'Verifies a token and returns its claims; changes nothing in the session';

CREATE OR REPLACE FUNCTION auth.login(jwt text, is_local boolean DEFAULT true) RETURNS name
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'login_wrapper';
COMMENT ON FUNCTION auth.login(text, boolean) IS
    'Verifies a token, keeps it and assumes the database role that it names; without a token, anonymous, or anon if only that exists';

CREATE OR REPLACE FUNCTION auth.pre_request() RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'pre_request_wrapper';
COMMENT ON FUNCTION auth.pre_request() IS
    'For PostgREST''s db-pre-request: presents the token of the Authorization header';

CREATE OR REPLACE FUNCTION auth.logout() RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'logout_wrapper';
COMMENT ON FUNCTION auth.logout() IS
    'Forgets the token and the role';

-- The user's identity

CREATE OR REPLACE FUNCTION auth.session() RETURNS jsonb
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'session_wrapper';
COMMENT ON FUNCTION auth.session() IS
    'All claims; JSON null when there are none';

CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'jwt_wrapper';
COMMENT ON FUNCTION auth.jwt() IS
    'All claims; JSON null when there are none';

CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'user_id_wrapper';
COMMENT ON FUNCTION auth.user_id() IS
    'The claim sub; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'uid_wrapper';
COMMENT ON FUNCTION auth.uid() IS
    'The claim sub as uuid; NULL when it is not one';

CREATE OR REPLACE FUNCTION auth.role() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'role_wrapper';
COMMENT ON FUNCTION auth.role() IS
    'The claim role; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.email() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'email_wrapper';
COMMENT ON FUNCTION auth.email() IS
    'The claim email; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.claim(name text) RETURNS text
    STABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'claim_wrapper';
COMMENT ON FUNCTION auth.claim(text) IS
    'A claim: a string as it is, anything else as JSON text; NULL when absent or JSON null';

CREATE OR REPLACE FUNCTION auth.claim(VARIADIC path text[]) RETURNS text
    STABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'claim_path_wrapper';
COMMENT ON FUNCTION auth.claim(text[]) IS
    'The claim at a path: a string as it is, anything else as JSON text; NULL when absent or JSON null';

CREATE OR REPLACE FUNCTION auth.organization() RETURNS jsonb
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'organization_wrapper';
COMMENT ON FUNCTION auth.organization() IS
    'The claim o when it is an object; NULL otherwise';

CREATE OR REPLACE FUNCTION auth.organization_id() RETURNS uuid
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'organization_id_wrapper';
COMMENT ON FUNCTION auth.organization_id() IS
    'The claim o.id as uuid; NULL when it is not one';

CREATE OR REPLACE FUNCTION auth.org_id() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'org_id_wrapper';
COMMENT ON FUNCTION auth.org_id() IS
    'The organization''s ID, whichever issuer the token is from; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.org_role() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'org_role_wrapper';
COMMENT ON FUNCTION auth.org_role() IS
    'The user''s role in the organization, without Clerk''s prefix; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.org_slug() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'org_slug_wrapper';
COMMENT ON FUNCTION auth.org_slug() IS
    'The organization''s short name; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.permissions() RETURNS text[]
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'permissions_wrapper';
COMMENT ON FUNCTION auth.permissions() IS
    'The user''s permissions as the issuer''s dashboard writes them; NULL when the token does not mention permissions';

CREATE OR REPLACE FUNCTION auth.has_permission(permission text) RETURNS boolean
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'has_permission_wrapper';
COMMENT ON FUNCTION auth.has_permission(text) IS
    'Whether the user has a permission; false, never NULL, without a token';

CREATE OR REPLACE FUNCTION auth.status(
    OUT source text,
    OUT provider text,
    OUT issuer text,
    OUT key_id text,
    OUT algorithm text,
    OUT subject text,
    OUT role text,
    OUT issued_at timestamptz,
    OUT expires_at timestamptz,
    OUT problem text)
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'status_wrapper';
COMMENT ON FUNCTION auth.status() IS
    'Why auth.user_id() is what it is: source of trust, token, and what is wrong; never raises';

-- The issuers that the database trusts

DO $moved$
DECLARE
    place text;
BEGIN
    -- Two tables of providers would be one too many: whose rows count?
    SELECT provider_table::pg_catalog.regclass::text INTO place
    FROM pg_catalog.pg_extension, pg_catalog.unnest(extconfig) provider_table
    WHERE extname = 'pg_session_jwt'
        AND provider_table IS DISTINCT FROM pg_catalog.to_regclass('auth.providers')::oid;
    IF FOUND THEN
        RAISE EXCEPTION 'the table of providers is not auth.providers but %', place
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Give it its schema and its name back, then update the extension.';
    END IF;
END
$moved$;

-- Postgres refuses one of this name that is not the extension's.
CREATE TABLE IF NOT EXISTS auth.providers (
    name text PRIMARY KEY,
    issuer text,
    jwks jsonb,
    jwks_url text,
    audience text[],
    authorized_parties text[],
    algorithms text[],
    required_claims text[] NOT NULL DEFAULT '{exp}',
    role_claim text[] NOT NULL DEFAULT '{role}',
    allowed_roles name[] NOT NULL DEFAULT '{authenticated}',
    default_role name,
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    written_by_superuser boolean NOT NULL DEFAULT true
);
SELECT pg_catalog.pg_extension_config_dump('auth.providers', '');

-- Tokens are matched to rows by it. In byte order: no change of the operating system's collations can
-- disturb it.
CREATE INDEX IF NOT EXISTS providers_issuer
    ON auth.providers (issuer COLLATE pg_catalog."C" pg_catalog.text_ops);
COMMENT ON INDEX auth.providers_issuer IS 'Finds the providers of an issuer';

COMMENT ON TABLE auth.providers IS
    'Issuers whose tokens this database trusts; while there is a row, enabled or not, nothing that a client brings is trusted';
COMMENT ON TYPE auth.providers IS 'A row of auth.providers';
COMMENT ON COLUMN auth.providers.name IS 'Names the provider in errors and auth.status()';
COMMENT ON COLUMN auth.providers.issuer IS
    'The claim iss, compared exactly; NULL for tokens that carry none';
COMMENT ON COLUMN auth.providers.jwks IS
    'The keys: a JWK or a JWK Set; NULL to follow those that the issuer publishes';
COMMENT ON COLUMN auth.providers.jwks_url IS
    'Where the issuer publishes its keys: https or loopback; NULL, if jwks is too: where its discovery document says';
COMMENT ON COLUMN auth.providers.audience IS
    'The claim aud must name one of these; NULL for any';
COMMENT ON COLUMN auth.providers.authorized_parties IS
    'The claim azp, or client_id where there is no azp, must be one of these; NULL for any, or none';
COMMENT ON COLUMN auth.providers.algorithms IS
    'The header member alg must be one of these; NULL for whatever the keys allow';
COMMENT ON COLUMN auth.providers.required_claims IS 'Claims that a token must have';
COMMENT ON COLUMN auth.providers.role_claim IS
    'Path of the claim that names the database role for auth.login(); an index selects from an array';
COMMENT ON COLUMN auth.providers.allowed_roles IS
    'The roles that this claim may name; of an array, or of an object''s keys, the first of these that is in it counts';
COMMENT ON COLUMN auth.providers.default_role IS
    'The role when the claim is absent or names another; NULL to refuse the login';
COMMENT ON COLUMN auth.providers.enabled IS 'Whether the provider counts';
COMMENT ON COLUMN auth.providers.created_at IS 'When the row was inserted';
COMMENT ON COLUMN auth.providers.updated_at IS 'When the row was last updated';
COMMENT ON COLUMN auth.providers.written_by_superuser IS
    'Whether a superuser wrote the row, kept by the table: otherwise keys are fetched from hosts in pg_session_jwt.fetch_hosts only';

-- What the issuers have published. Not part of pg_dump: it is fetched again.
CREATE TABLE IF NOT EXISTS auth.provider_keys (
    provider text COLLATE pg_catalog."C" PRIMARY KEY,
    issuer text,
    url text NOT NULL,
    jwks jsonb,
    fetched_at timestamptz,
    checked_at timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    failures integer NOT NULL,
    error text,
    ignored text[]
);
CREATE INDEX IF NOT EXISTS provider_keys_next_at ON auth.provider_keys (next_at);
COMMENT ON INDEX auth.provider_keys_next_at IS 'Finds the keys that are to be fetched next';

COMMENT ON TABLE auth.provider_keys IS
    'Keys that were fetched for the providers that follow their issuer; written by a background worker';
COMMENT ON TYPE auth.provider_keys IS 'A row of auth.provider_keys';
COMMENT ON COLUMN auth.provider_keys.provider IS 'The name of the provider';
COMMENT ON COLUMN auth.provider_keys.issuer IS
    'The issuer in the provider''s row when they were fetched; they count while it is the same';
COMMENT ON COLUMN auth.provider_keys.url IS
    'Where they were fetched: the row''s jwks_url, or its discovery document; they count while it is the same';
COMMENT ON COLUMN auth.provider_keys.jwks IS
    'The keys that count, as the issuer published them; NULL until a first attempt succeeds';
COMMENT ON COLUMN auth.provider_keys.fetched_at IS 'When they were fetched last';
COMMENT ON COLUMN auth.provider_keys.checked_at IS
    'When the last attempt to fetch them ended, whether it succeeded or failed';
COMMENT ON COLUMN auth.provider_keys.next_at IS 'When they are to be fetched again';
COMMENT ON COLUMN auth.provider_keys.failures IS
    'How many attempts have failed since the last one that succeeded';
COMMENT ON COLUMN auth.provider_keys.error IS 'Why the last attempt failed; NULL if it succeeded';
COMMENT ON COLUMN auth.provider_keys.ignored IS
    'The published keys that cannot be used, each with the reason; NULL for none';

CREATE OR REPLACE FUNCTION auth.check_provider() RETURNS trigger
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'check_provider_wrapper';
COMMENT ON FUNCTION auth.check_provider() IS
    'Trigger of auth.providers and auth.provider_keys: checks a row and notifies every backend';

CREATE OR REPLACE FUNCTION auth.providers_written() RETURNS trigger
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'providers_written_wrapper';
COMMENT ON FUNCTION auth.providers_written() IS
    'Trigger of auth.providers: checks that no two rows can claim one token';

CREATE OR REPLACE TRIGGER check_provider BEFORE INSERT OR UPDATE OR DELETE ON auth.providers
    FOR EACH ROW EXECUTE FUNCTION auth.check_provider();
CREATE OR REPLACE TRIGGER providers_written AFTER INSERT OR UPDATE ON auth.providers
    FOR EACH STATEMENT EXECUTE FUNCTION auth.providers_written();
-- Also where rows arrive by logical replication, or session_replication_role says replica.
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider;
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER providers_written;
COMMENT ON TRIGGER check_provider ON auth.providers IS 'Checks a row and notifies every backend';
COMMENT ON TRIGGER providers_written ON auth.providers IS
    'Checks that no two rows can claim one token';

CREATE OR REPLACE TRIGGER check_provider BEFORE INSERT OR UPDATE OR DELETE ON auth.provider_keys
    FOR EACH ROW EXECUTE FUNCTION auth.check_provider();
ALTER TABLE auth.provider_keys ENABLE ALWAYS TRIGGER check_provider;
COMMENT ON TRIGGER check_provider ON auth.provider_keys IS 'Notifies every backend';

-- Who may write providers need not be able to write their keys.
CREATE OR REPLACE FUNCTION auth.forget_keys() RETURNS trigger
    VOLATILE PARALLEL UNSAFE SECURITY DEFINER LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- It writes as its owner may: for the extension's own table alone, in whatever schema that is now.
    IF NOT EXISTS (SELECT FROM pg_extension
        WHERE extname = 'pg_session_jwt' AND TG_RELID = ANY (extconfig))
    THEN
        RAISE 'this trigger function is for auth.providers' USING ERRCODE = '39P01';
    ELSIF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('DELETE FROM %I.provider_keys', TG_TABLE_SCHEMA);
    ELSE
        EXECUTE format('DELETE FROM %I.provider_keys WHERE provider = $1', TG_TABLE_SCHEMA)
            USING OLD.name;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION auth.forget_keys() IS
    'Trigger of auth.providers: forgets the keys of a provider that is gone or has another name';
CREATE OR REPLACE TRIGGER forget_keys AFTER DELETE ON auth.providers
    FOR EACH ROW EXECUTE FUNCTION auth.forget_keys();
CREATE OR REPLACE TRIGGER forget_keys_of_name AFTER UPDATE ON auth.providers
    FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION auth.forget_keys();
CREATE OR REPLACE TRIGGER forget_all_keys AFTER TRUNCATE ON auth.providers
    FOR EACH STATEMENT EXECUTE FUNCTION auth.forget_keys();
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER forget_keys;
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER forget_keys_of_name;
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER forget_all_keys;
COMMENT ON TRIGGER forget_keys ON auth.providers IS 'Forgets the keys of a deleted provider';
COMMENT ON TRIGGER forget_keys_of_name ON auth.providers IS
    'Forgets the keys of a provider that gets another name';
COMMENT ON TRIGGER forget_all_keys ON auth.providers IS 'Forgets the keys of all providers';

CREATE OR REPLACE FUNCTION auth.refresh(provider text DEFAULT NULL)
    RETURNS TABLE (provider text, keys integer, error text)
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'refresh_wrapper';
COMMENT ON FUNCTION auth.refresh(text) IS
    'Fetches the keys of a provider, or of all that follow their issuer, now: how many there are, or why that failed';

CREATE OR REPLACE FUNCTION auth.create_roles() RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY '{anonymous,authenticated}'::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
        EXECUTE format('GRANT %I TO %I', wanted, current_user);
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.create_roles() IS
    'Creates the roles anonymous and authenticated where they are missing, and grants them to the caller';

-- Privileges

-- They are set, not adjusted: ALTER DEFAULT PRIVILEGES may have given or taken anything when an object
-- was created. An object that was there before keeps what its administrator made of it.
DO $privileges$
DECLARE
    before text[] :=
        pg_catalog.string_to_array(pg_catalog.current_setting('auth_script.before'), ' ');
    extension oid;
    -- From the catalog: the macro for it means the role that runs the script, and fails for some names.
    extension_owner name;
    object record;
    holder name;
    initial aclitem[];
BEGIN
    SELECT oid, pg_catalog.pg_get_userbyid(extowner) INTO STRICT extension, extension_owner
    FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt';

    FOR object IN
        SELECT o.*, pg_catalog.pg_get_userbyid(o.owner_id) AS owner
        FROM pg_catalog.pg_depend d, LATERAL (
            SELECT 'SCHEMA' AS kind, 'n'::"char" AS acl_kind, pg_catalog.quote_ident(nspname) AS name,
                nspowner AS owner_id, nspacl AS acl,
                'USAGE' AS for_public, NULL AS for_owners
            FROM pg_catalog.pg_namespace
            WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND oid = d.objid
            UNION ALL
            SELECT 'FUNCTION', 'f', oid::pg_catalog.regprocedure::text, proowner, proacl,
                CASE WHEN oid NOT IN (
                    'auth.init(text)'::pg_catalog.regprocedure,
                    'auth.create_roles()'::pg_catalog.regprocedure,
                    'auth.refresh(text)'::pg_catalog.regprocedure,
                    'auth.check_provider()'::pg_catalog.regprocedure,
                    'auth.providers_written()'::pg_catalog.regprocedure,
                    'auth.forget_keys()'::pg_catalog.regprocedure
                ) THEN 'EXECUTE' END,
                CASE WHEN oid IN (
                    'auth.init(text)'::pg_catalog.regprocedure,
                    'auth.create_roles()'::pg_catalog.regprocedure,
                    'auth.refresh(text)'::pg_catalog.regprocedure
                ) THEN 'EXECUTE' END
            FROM pg_catalog.pg_proc
            WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND oid = d.objid
            UNION ALL
            -- A key may be a secret. TRIGGER is for no one: a trigger runs as the role that writes.
            SELECT 'TABLE', 'r', oid::pg_catalog.regclass::text, relowner, relacl,
                NULL,
                CASE oid WHEN 'auth.providers'::pg_catalog.regclass
                    THEN 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'
                    WHEN 'auth.provider_keys'::pg_catalog.regclass THEN 'SELECT' END
            FROM pg_catalog.pg_class
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND oid = d.objid
            UNION ALL
            SELECT 'TYPE', 'T', oid::pg_catalog.regtype::text, typowner, typacl, 'USAGE', NULL
            FROM pg_catalog.pg_type
            WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND oid = d.objid
        ) o
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND d.refobjid = extension AND d.deptype = 'e'
            AND CASE o.kind WHEN 'SCHEMA' THEN before = '{}'
                ELSE pg_catalog.format('%s/%s', d.classid, d.objid) <> ALL (before) END
            -- What Postgres gives by itself is right for the others.
            AND (o.acl IS NOT NULL OR o.kind NOT IN ('FUNCTION', 'TYPE') OR o.for_public IS NULL)
    LOOP
        FOR holder IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'public'
                ELSE pg_catalog.pg_get_userbyid(grantee) END
            FROM pg_catalog.aclexplode(
                coalesce(object.acl, pg_catalog.acldefault(object.acl_kind, object.owner_id)))
            WHERE grantee <> object.owner_id
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %I',
                object.kind, object.name, holder);
        END LOOP;
        EXECUTE pg_catalog.format('GRANT ALL ON %s %s TO %I',
            object.kind, object.name, object.owner);
        IF object.for_public IS NOT NULL THEN
            EXECUTE pg_catalog.format('GRANT %s ON %s %s TO PUBLIC',
                object.for_public, object.kind, object.name);
        END IF;
        IF object.for_owners IS NOT NULL THEN
            -- The database's owner as well: for whom a superuser may have installed the extension,
            -- and whose pg_dump reads the rows.
            EXECUTE pg_catalog.format('GRANT %s ON %s %s TO %I, pg_database_owner WITH GRANT OPTION',
                object.for_owners, object.kind, object.name, extension_owner);
        END IF;
    END LOOP;

    -- Until 0.5.0 the schema was left for the administrator to open.
    IF before <> '{}'
        AND pg_catalog.format('%s/%s', 'pg_catalog.pg_class'::pg_catalog.regclass::oid,
            'auth.providers'::pg_catalog.regclass::oid) <> ALL (before)
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_namespace, pg_catalog.aclexplode(nspacl)
            WHERE nspname = 'auth' AND grantee = 0 AND privilege_type = 'USAGE')
    THEN
        SELECT coalesce(initprivs, pg_catalog.acldefault('n', nspowner))
                || pg_catalog.makeaclitem(0, nspowner, 'USAGE', false)
            INTO STRICT initial
        FROM pg_catalog.pg_namespace n LEFT JOIN pg_catalog.pg_init_privs i
            ON i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND i.objoid = n.oid
        WHERE nspname = 'auth';
        GRANT USAGE ON SCHEMA auth TO PUBLIC;
        -- GRANT in an extension's script takes all that is granted on the object for the extension's
        -- own, which pg_dump leaves out; what an administrator has granted is not.
        UPDATE pg_catalog.pg_init_privs SET initprivs = initial
        WHERE classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
            AND objoid = 'auth'::pg_catalog.regnamespace AND initprivs <> initial;
        -- From Postgres 17 on, a role in there cannot be dropped.
        DELETE FROM pg_catalog.pg_shdepend
        WHERE dbid = (SELECT oid FROM pg_catalog.pg_database
                WHERE datname = pg_catalog.current_database())
            AND classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
            AND objid = 'auth'::pg_catalog.regnamespace AND deptype = 'i'
            AND refobjid NOT IN (SELECT grantee FROM pg_catalog.aclexplode(initial));
    END IF;

    PERFORM pg_catalog.set_config('auth_script.before', '', true);
END
$privileges$;
