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

CREATE OR REPLACE FUNCTION auth.logout() RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'logout_wrapper';
COMMENT ON FUNCTION auth.logout() IS
    'Forgets the token';

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
