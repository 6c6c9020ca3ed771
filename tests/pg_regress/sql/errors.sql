-- SQLSTATE, DETAIL and HINT of what goes wrong, and what is not shown.
\set keys '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"demo","x":"fgu02O7yz5YQkUkHnKtn8B6peO-d0Ax6HOqJXS24wwo"}]}'
\set alice 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwib3JnX2lkIjoib3JnXzEifQ.xZBUl7l7HHZvY9B860QiB3_hw7maKkNLLO14_7iHcLsxREuAaClKKrJpBI_dSezAt82v0lptf-f0Od5JfXwTAQ'
\set bob 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJib2IiLCJleHAiOjQxMDI0NDQ4MDB9.JGcEHTXsN43rsIVluGqfGwPyNlwb1cdf1tWppqYbiqjgZPvzAP1az_-fi_s2JWy8SLKgjOIqzTbCxrM0ZuvzBQ'
\set forged 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.57512CjA2CygYCoxHIChCCjvI6KpUcxU6FZThtDvcZm4pqbnJQVHZP4gwLPhteQcH3KLPjj-6E0IaIsFztoEBg'
\set expired 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6MTcwMDAwMDAwMH0.vP2NFPOlD1bMZVhrFiA21w2a2VPtsBAukveyH_rsY5FoXqKdX7Y6YuTTQv9u8za4O3PAfDvfE9ujivNqszO0Dw'
SELECT auth.user_id();
SHOW pg_session_jwt.jwk;
SHOW pg_session_jwt.jwt;
-- no key at all
SELECT auth.jwt_session_init(:'alice');
\echo :SQLSTATE
SET pg_session_jwt.jwt = :'alice';
SELECT auth.user_id();
\echo :SQLSTATE
SELECT problem FROM auth.status();
RESET pg_session_jwt.jwt;
SELECT auth.init();
-- keys that nobody should trust
SELECT auth.init(NULL);
\echo :SQLSTATE
SELECT auth.init('');
\echo :SQLSTATE
SELECT auth.init('{"keys":[]}');
\echo :SQLSTATE
SELECT auth.init('{"kty":"oct","k":"c2hvcnQ"}');
\echo :SQLSTATE
SELECT auth.init('{"kty":"OKP","crv":"Ed25519","x":"fgu02O7yz5YQkUkHnKtn8B6peO-d0Ax6HOqJXS24wwo","d":"AA"}');
\echo :SQLSTATE
-- keys are written once; a ROLLBACK takes them back, and does not let PostgREST's claims in
BEGIN;
SELECT auth.init('{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"s"}');
SHOW pg_session_jwt.jwk;
ROLLBACK;
SHOW pg_session_jwt.jwk;
SET request.jwt.claims = '{"sub": "mallory"}';
SELECT auth.user_id(), source FROM auth.status();
SELECT auth.init(:'keys');
SELECT auth.init(:'keys');
SELECT auth.init('{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}');
\echo :SQLSTATE
SET pg_session_jwt.jwk = '';
\echo :SQLSTATE
RESET pg_session_jwt.jwk;
\echo :SQLSTATE
DISCARD ALL;
SHOW pg_session_jwt.jwk;
-- tokens
SELECT auth.jwt_session_init('');
\echo :SQLSTATE
SELECT auth.jwt_session_init('a.b');
\echo :SQLSTATE
SELECT auth.jwt_session_init('e30.e30.');
\echo :SQLSTATE
SELECT auth.jwt_session_init('e30.e30.=');
\echo :SQLSTATE
SELECT auth.jwt_session_init('eyJhbGciOiJub25lIn0.e30.');
\echo :SQLSTATE
SELECT auth.jwt_session_init('eyJhbGciOiJIUzI1NiJ9.e30.AA');
\echo :SQLSTATE
SELECT auth.jwt_session_init(:'forged');
\echo :SQLSTATE
SELECT auth.verify(:'forged');
\echo :SQLSTATE
SELECT auth.verify(:'alice');
SELECT auth.verify(NULL);
SELECT auth.user_id();
-- verified at first use, and redacted
SET pg_session_jwt.jwt = :'forged';
SELECT auth.user_id();
\echo :SQLSTATE
SELECT source, subject, problem FROM auth.status();
SHOW pg_session_jwt.jwt;
SELECT current_setting('pg_session_jwt.jwt'), set_config('pg_session_jwt.jwt', :'bob', false);
SELECT name FROM pg_settings WHERE name LIKE 'pg\_session\_jwt.%' ORDER BY name;
-- the prefix is reserved
SET pg_session_jwt.jwtt = '';
\echo :SQLSTATE
