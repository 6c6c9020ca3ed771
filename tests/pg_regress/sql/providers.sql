-- Providers: what a database writes down about whom it trusts.
\set keys '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"demo","x":"fgu02O7yz5YQkUkHnKtn8B6peO-d0Ax6HOqJXS24wwo"}]}'
\set alice 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwib3JnX2lkIjoib3JnXzEifQ.xZBUl7l7HHZvY9B860QiB3_hw7maKkNLLO14_7iHcLsxREuAaClKKrJpBI_dSezAt82v0lptf-f0Od5JfXwTAQ'
\set bob 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJib2IiLCJleHAiOjQxMDI0NDQ4MDB9.JGcEHTXsN43rsIVluGqfGwPyNlwb1cdf1tWppqYbiqjgZPvzAP1az_-fi_s2JWy8SLKgjOIqzTbCxrM0ZuvzBQ'
\set forged 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.57512CjA2CygYCoxHIChCCjvI6KpUcxU6FZThtDvcZm4pqbnJQVHZP4gwLPhteQcH3KLPjj-6E0IaIsFztoEBg'
\set expired 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6MTcwMDAwMDAwMH0.vP2NFPOlD1bMZVhrFiA21w2a2VPtsBAukveyH_rsY5FoXqKdX7Y6YuTTQv9u8za4O3PAfDvfE9ujivNqszO0Dw'
\set next '{"kty":"OKP","crv":"Ed25519","kid":"next","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
\set secret '{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}'
CREATE ROLE regress_user NOLOGIN;
-- rows that cannot work
INSERT INTO auth.providers (name) VALUES ('p');
\echo :SQLSTATE
INSERT INTO auth.providers (name, jwks) VALUES ('p', '{"keys":[]}');
INSERT INTO auth.providers (name, jwks) VALUES ('p', '{"kty":"oct","k":"AAAA"}');
INSERT INTO auth.providers (name, jwks) VALUES ('p', jsonb_build_object('keys', jsonb_build_array(:'next', :'secret')));
INSERT INTO auth.providers (name, jwks) VALUES ('p', :'next'::jsonb || '{"d":"AA"}');
INSERT INTO auth.providers (name, jwks, algorithms) VALUES ('p', :'next', '{RS256}');
INSERT INTO auth.providers (name, jwks, algorithms) VALUES ('p', :'next', '{none}');
INSERT INTO auth.providers (name, jwks, algorithms) VALUES ('p', :'next', '{EdDSA,NULL}');
INSERT INTO auth.providers (name, jwks, allowed_roles) VALUES ('p', :'next', '{none}');
INSERT INTO auth.providers (name, jwks_url) VALUES ('p', 'http://keys.example/jwks.json');
\echo :SQLSTATE
-- what cannot be used is named, and the rest counts
BEGIN;
INSERT INTO auth.providers (name, jwks) VALUES ('p',
    jsonb_build_object('keys', jsonb_build_array(:'next'::jsonb, :'secret'::jsonb, 7, :'secret'::jsonb || '{"k":"AA","kid":"short"}')));
ROLLBACK;
-- one that works; a second one that could claim its tokens does not
INSERT INTO auth.providers (name, jwks) VALUES ('demo', :'keys');
INSERT INTO auth.providers (name, jwks) VALUES ('other', :'next');
INSERT INTO auth.providers (name, jwks) VALUES ('old secret', :'secret');
INSERT INTO auth.providers (name, issuer, jwks) VALUES ('elsewhere', 'https://issuer.example', :'next');
INSERT INTO auth.providers (name, jwks, enabled) VALUES ('other', :'next', false);
UPDATE auth.providers SET enabled = true WHERE name = 'other';
DELETE FROM auth.providers WHERE name = 'other';
-- what a connection brings does not count now
SELECT auth.init();
SELECT auth.init(:'keys');
\echo :SQLSTATE
SET request.jwt.claims = '{"sub": "mallory"}';
SELECT auth.user_id(), source, problem FROM auth.status();
-- tokens
SELECT auth.jwt_session_init(:'alice');
SELECT auth.user_id(), auth.org_id(), source, provider, key_id FROM auth.status();
SELECT auth.verify(:'forged');
SELECT auth.verify('eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyJ9.AA');
SELECT auth.verify('eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIn0.AA');
-- policy
UPDATE auth.providers SET audience = '{app}' WHERE name = 'demo';
SELECT auth.user_id();
\echo :SQLSTATE
UPDATE auth.providers SET audience = NULL, authorized_parties = '{https://app.example}' WHERE name = 'demo';
SELECT auth.user_id();
UPDATE auth.providers SET authorized_parties = NULL, required_claims = '{exp,sid}' WHERE name = 'demo';
SELECT auth.user_id();
UPDATE auth.providers SET required_claims = '{exp}', algorithms = '{EdDSA}' WHERE name = 'demo';
SELECT auth.user_id();
-- a change that is rolled back changes nothing; one that is not counts at once
BEGIN;
UPDATE auth.providers SET jwks = :'next' WHERE name = 'demo';
SELECT auth.user_id();
ROLLBACK;
SELECT auth.user_id();
BEGIN;
SAVEPOINT s;
UPDATE auth.providers SET enabled = false;
SELECT auth.user_id();
ROLLBACK TO s;
SELECT auth.user_id();
COMMIT;
-- roles
SELECT auth.login(:'alice');
\echo :SQLSTATE
UPDATE auth.providers SET role_claim = '{org_id}', allowed_roles = '{org_1}' WHERE name = 'demo';
SELECT auth.login(:'alice');
\echo :SQLSTATE
SELECT auth.login(:'bob');
UPDATE auth.providers SET default_role = 'regress_user' WHERE name = 'demo';
SELECT auth.login(:'bob', false);
SELECT current_user, auth.user_id();
SELECT * FROM auth.providers;
SELECT auth.logout();
SELECT current_user = session_user AS back, auth.user_id();
SELECT quote_ident(rolname) AS superuser FROM pg_roles WHERE oid = 10 \gset
UPDATE auth.providers SET default_role = :'superuser' WHERE name = 'demo';
SELECT auth.login(:'bob');
TRUNCATE auth.providers;
SELECT source FROM auth.status();
-- something else of that name is nothing to trust, and nothing to fall over
BEGIN;
ALTER TABLE auth.providers RENAME TO away;
CREATE VIEW auth.providers AS SELECT 1 AS name;
SELECT source, problem FROM auth.status();
SELECT auth.user_id();
\echo :SQLSTATE
ROLLBACK;
-- no error of Postgres's own quotes a row, which may hold a secret
INSERT INTO auth.providers (name, jwks, created_at) VALUES ('p', :'secret', NULL);
INSERT INTO auth.providers (name, jwks, enabled) VALUES ('p', :'secret', NULL);
INSERT INTO auth.providers (name, jwks) VALUES (NULL, :'secret');
RESET request.jwt.claims;
DROP ROLE regress_user;
