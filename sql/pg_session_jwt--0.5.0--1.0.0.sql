-- The SQL surface of pg_session_jwt: every object, its grants and its comment.
--
-- It runs in the new schema auth of a fresh install, and as the upgrade script of version 0.5.0,
-- whose functions it replaces in place, so that policies which call them stay.
--
-- The script of a trusted extension runs as the bootstrap superuser, which owns what it creates.
-- Everything is schema-qualified: nothing depends on search_path.

GRANT USAGE ON SCHEMA auth TO PUBLIC;
COMMENT ON SCHEMA auth IS 'Identity of the session''s user, from a verified JSON Web Token';

-- Presenting keys and tokens

CREATE OR REPLACE FUNCTION auth.init() RETURNS void
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'init_wrapper';
COMMENT ON FUNCTION auth.init() IS
    'Loads and checks the startup key (pg_session_jwt.jwk), if there is one';

CREATE OR REPLACE FUNCTION auth.init(jwks text) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'init_jwks_wrapper';
REVOKE EXECUTE ON FUNCTION auth.init(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth.init(text) TO @extowner@ WITH GRANT OPTION;
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
    'Verifies a token, keeps it and assumes the database role that it names; without a token, anonymous';

CREATE OR REPLACE FUNCTION auth.pre_request() RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'pre_request_wrapper';
COMMENT ON FUNCTION auth.pre_request() IS
    'For PostgREST''s db-pre-request: presents the token of the Authorization header';

CREATE OR REPLACE FUNCTION auth.logout() RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'logout_wrapper';
COMMENT ON FUNCTION auth.logout() IS
    'Forgets the token and the role';

-- Asking who the user is

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
    'The organisation, whoever issued the token; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.org_role() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'org_role_wrapper';
COMMENT ON FUNCTION auth.org_role() IS
    'The user''s role in the organisation, without Clerk''s prefix; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.org_slug() RETURNS text
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'org_slug_wrapper';
COMMENT ON FUNCTION auth.org_slug() IS
    'The organisation''s short name; NULL when there is none';

CREATE OR REPLACE FUNCTION auth.permissions() RETURNS text[]
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'permissions_wrapper';
COMMENT ON FUNCTION auth.permissions() IS
    'The user''s permissions as the issuer''s dashboard writes them; NULL when the token says nothing of them';

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

-- Whom the database trusts

CREATE TABLE auth.providers (
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
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
-- A key may be a secret. TRIGGER is not given away: a trigger would run as whoever writes.
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON auth.providers TO @extowner@ WITH GRANT OPTION;
SELECT pg_catalog.pg_extension_config_dump('auth.providers', '');

COMMENT ON TABLE auth.providers IS
    'Issuers whose tokens this database trusts; while one is enabled, nothing that a client brings is trusted';
COMMENT ON TYPE auth.providers IS 'A row of auth.providers';
COMMENT ON COLUMN auth.providers.name IS 'Names the provider in errors and auth.status()';
COMMENT ON COLUMN auth.providers.issuer IS
    'The claim iss, compared exactly; NULL for tokens that carry none';
COMMENT ON COLUMN auth.providers.jwks IS 'The keys: a JWK or a JWK Set';
COMMENT ON COLUMN auth.providers.jwks_url IS
    'Where the issuer publishes its keys: https or loopback; not fetched by this version';
COMMENT ON COLUMN auth.providers.audience IS
    'The claim aud must name one of these; NULL for any';
COMMENT ON COLUMN auth.providers.authorized_parties IS
    'The claim azp must be one of these; NULL for any, or none';
COMMENT ON COLUMN auth.providers.algorithms IS
    'The claim alg must be one of these; NULL for whatever the keys allow';
COMMENT ON COLUMN auth.providers.required_claims IS 'Claims that a token must have';
COMMENT ON COLUMN auth.providers.role_claim IS
    'Path of the claim that names the database role for auth.login()';
COMMENT ON COLUMN auth.providers.allowed_roles IS 'The roles that this claim may name';
COMMENT ON COLUMN auth.providers.default_role IS
    'The role when the claim is absent or names another; NULL to refuse the login';
COMMENT ON COLUMN auth.providers.enabled IS 'Whether the provider counts';
COMMENT ON COLUMN auth.providers.created_at IS 'When the row was inserted';
COMMENT ON COLUMN auth.providers.updated_at IS 'When the row was last updated';

CREATE OR REPLACE FUNCTION auth.check_provider() RETURNS trigger
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'check_provider_wrapper';
REVOKE EXECUTE ON FUNCTION auth.check_provider() FROM PUBLIC;
COMMENT ON FUNCTION auth.check_provider() IS
    'Trigger of auth.providers: checks a row and tells every backend';

CREATE OR REPLACE FUNCTION auth.providers_written() RETURNS trigger
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'providers_written_wrapper';
REVOKE EXECUTE ON FUNCTION auth.providers_written() FROM PUBLIC;
COMMENT ON FUNCTION auth.providers_written() IS
    'Trigger of auth.providers: checks that no two rows can claim one token';

CREATE TRIGGER check_provider BEFORE INSERT OR UPDATE OR DELETE ON auth.providers
    FOR EACH ROW EXECUTE FUNCTION auth.check_provider();
CREATE TRIGGER providers_written AFTER INSERT OR UPDATE ON auth.providers
    FOR EACH STATEMENT EXECUTE FUNCTION auth.providers_written();
-- Also where rows arrive by logical replication, or session_replication_role says replica.
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider;
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER providers_written;
COMMENT ON TRIGGER check_provider ON auth.providers IS 'Checks a row and tells every backend';
COMMENT ON TRIGGER providers_written ON auth.providers IS
    'Checks that no two rows can claim one token';

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
REVOKE EXECUTE ON FUNCTION auth.create_roles() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth.create_roles() TO @extowner@ WITH GRANT OPTION;
COMMENT ON FUNCTION auth.create_roles() IS
    'Creates the roles anonymous and authenticated where they are missing, and grants them to the caller';
