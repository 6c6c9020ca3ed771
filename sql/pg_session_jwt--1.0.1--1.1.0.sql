-- What 1.1.0 adds to 1.0.1, and nothing that 1.0.1 has already: what administrators have granted or revoked
-- stays. The result is what sql/auth.sql makes of a fresh install, which a test compares. It can run again:
-- the script back changes the version number only.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

COMMENT ON FUNCTION auth.init() IS
    'Loads and checks the startup key (pg_session_jwt.jwk); warns if there is neither a key nor a provider';
COMMENT ON FUNCTION auth.login(text, boolean) IS
    'Verifies a token, keeps it and assumes the database role that it names; without a token, anonymous, or anon if only that exists';
COMMENT ON FUNCTION auth.org_id() IS
    'The organization''s ID, whichever issuer the token is from; NULL when there is none';
COMMENT ON FUNCTION auth.permissions() IS
    'The user''s permissions as the issuer''s dashboard writes them; NULL when the token does not mention permissions';
COMMENT ON TABLE auth.providers IS
    'Issuers whose tokens this database trusts; while there is a row, enabled or not, nothing that a client brings is trusted';
COMMENT ON COLUMN auth.providers.authorized_parties IS
    'The claim azp, or client_id where there is no azp, must be one of these; NULL for any, or none';
COMMENT ON COLUMN auth.providers.algorithms IS
    'The header member alg must be one of these; NULL for whatever the keys allow';
COMMENT ON COLUMN auth.providers.role_claim IS
    'Path of the claim that names the database role for auth.login(); an index selects from an array';
COMMENT ON COLUMN auth.providers.allowed_roles IS
    'The roles that this claim may name; of an array, or of an object''s keys, the first of these that is in it counts';

-- Whether this runs for the first time: after that, administrators may have changed privileges.
SELECT pg_catalog.set_config('auth_script.is_first',
    (pg_catalog.to_regclass('auth.provider_keys') IS NULL)::text, true);

DO $issuers$
DECLARE
    provider text;
BEGIN
    -- An index holds none of 2,700 bytes, and says so in words of its own.
    SELECT name INTO provider FROM auth.providers WHERE pg_catalog.octet_length(issuer) > 2048 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the issuer of provider "%" is longer than 2048 bytes', provider
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Delete the provider, then update the extension.';
    END IF;
END
$issuers$;
CREATE INDEX IF NOT EXISTS providers_issuer
    ON auth.providers (issuer COLLATE pg_catalog."C" pg_catalog.text_ops);
COMMENT ON INDEX auth.providers_issuer IS 'Finds the providers of an issuer';

ALTER TABLE auth.providers ADD COLUMN IF NOT EXISTS written_by_superuser boolean NOT NULL DEFAULT false;
-- The rows that are there do not begin to follow their issuer by themselves.
ALTER TABLE auth.providers ALTER COLUMN written_by_superuser SET DEFAULT true;
COMMENT ON COLUMN auth.providers.jwks IS
    'The keys: a JWK or a JWK Set; NULL to follow those that the issuer publishes';
COMMENT ON COLUMN auth.providers.jwks_url IS
    'Where the issuer publishes its keys: https or loopback; NULL, if jwks is too: where its discovery document says';
COMMENT ON COLUMN auth.providers.written_by_superuser IS
    'Whether a superuser wrote the row, kept by the table: otherwise keys are fetched from hosts in pg_session_jwt.fetch_hosts only';
COMMENT ON FUNCTION auth.check_provider() IS
    'Trigger of auth.providers and auth.provider_keys: checks a row and notifies every backend';

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

-- Privileges of what is new, set as sql/auth.sql does: ALTER DEFAULT PRIVILEGES may have given or taken
-- anything.
DO $privileges$
DECLARE
    extension_owner name;
    object record;
    holder name;
BEGIN
    SELECT pg_catalog.pg_get_userbyid(extowner) INTO STRICT extension_owner
    FROM pg_catalog.pg_extension WHERE extname = 'pg_session_jwt';

    FOR object IN
        SELECT 'FUNCTION' AS kind, oid::pg_catalog.regprocedure::text AS name,
            coalesce(proacl, pg_catalog.acldefault('f', proowner)) AS acl, proowner AS owner_id,
            CASE WHEN oid = 'auth.refresh(text)'::pg_catalog.regprocedure THEN 'EXECUTE' END AS for_owners
        FROM pg_catalog.pg_proc
        WHERE oid IN ('auth.refresh(text)'::pg_catalog.regprocedure,
            'auth.forget_keys()'::pg_catalog.regprocedure)
        UNION ALL
        SELECT 'TABLE', oid::pg_catalog.regclass::text,
            coalesce(relacl, pg_catalog.acldefault('r', relowner)), relowner, 'SELECT'
        FROM pg_catalog.pg_class WHERE oid = 'auth.provider_keys'::pg_catalog.regclass
        UNION ALL
        SELECT 'TYPE', oid::pg_catalog.regtype::text, typacl, typowner, NULL
        FROM pg_catalog.pg_type
        WHERE oid = 'auth.provider_keys'::pg_catalog.regtype AND typacl IS NOT NULL
    LOOP
        EXIT WHEN pg_catalog.current_setting('auth_script.is_first') <> 'true';
        FOR holder IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'public'
                ELSE pg_catalog.pg_get_userbyid(grantee) END
            FROM pg_catalog.aclexplode(object.acl)
            WHERE grantee <> object.owner_id
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %I', object.kind, object.name, holder);
        END LOOP;
        EXECUTE pg_catalog.format('GRANT ALL ON %s %s TO %I', object.kind, object.name,
            pg_catalog.pg_get_userbyid(object.owner_id));
        IF object.kind = 'TYPE' THEN
            EXECUTE pg_catalog.format('GRANT USAGE ON TYPE %s TO PUBLIC', object.name);
        END IF;
        IF object.for_owners IS NOT NULL THEN
            EXECUTE pg_catalog.format('GRANT %s ON %s %s TO %I, pg_database_owner WITH GRANT OPTION',
                object.for_owners, object.kind, object.name, extension_owner);
        END IF;
    END LOOP;
END
$privileges$;
