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
