-- Each accessor, with and without claims.
\set keys '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"demo","x":"fgu02O7yz5YQkUkHnKtn8B6peO-d0Ax6HOqJXS24wwo"}]}'
\set alice 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwib3JnX2lkIjoib3JnXzEifQ.xZBUl7l7HHZvY9B860QiB3_hw7maKkNLLO14_7iHcLsxREuAaClKKrJpBI_dSezAt82v0lptf-f0Od5JfXwTAQ'
\set bob 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJib2IiLCJleHAiOjQxMDI0NDQ4MDB9.JGcEHTXsN43rsIVluGqfGwPyNlwb1cdf1tWppqYbiqjgZPvzAP1az_-fi_s2JWy8SLKgjOIqzTbCxrM0ZuvzBQ'
\set forged 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.57512CjA2CygYCoxHIChCCjvI6KpUcxU6FZThtDvcZm4pqbnJQVHZP4gwLPhteQcH3KLPjj-6E0IaIsFztoEBg'
\set expired 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6MTcwMDAwMDAwMH0.vP2NFPOlD1bMZVhrFiA21w2a2VPtsBAukveyH_rsY5FoXqKdX7Y6YuTTQv9u8za4O3PAfDvfE9ujivNqszO0Dw'
\pset null '<NULL>'
CREATE VIEW everything AS
    SELECT auth.user_id(), auth.uid(), auth.role(), auth.email(), auth.claim('org_id') AS org_id,
        auth.organization(), auth.organization_id(), auth.jwt(), auth.session();
\x on
TABLE everything;
SET pg_session_jwt.claims = '{"sub": "018fa93e-2a4c-7d2b-9c6e-1f0a5b3c4d5e", "role": "editor", "email": "a@example.com", "o": {"id": "7F6A1F3E-7B1C-4D38-A6B4-0123456789AB", "rol": "admin"}}';
TABLE everything;
SET pg_session_jwt.claims = '{"sub": "user_2x", "role": 7, "o": "not an object", "org_id": "org_1"}';
TABLE everything;
SET pg_session_jwt.claims = '{"o": {"id": "not a uuid"}}';
TABLE everything;
\x off
-- claims as ->> and #>> give them
SET pg_session_jwt.claims = '{"text": "t", "quoted": "\"q\" \u00e9", "number": 1.10, "big": 12345678901234567890, "yes": true, "null": null, "list": ["a", {"b": 2}], "object": {"list": [1, 2], "": "empty"}}';
SELECT name, auth.claim(name), auth.claim(name) IS NOT DISTINCT FROM auth.jwt() ->> name AS same
    FROM unnest('{text,quoted,number,big,yes,null,list,object,absent,""}'::text[] || NULL) AS name;
SELECT auth.claim('list', '0'), auth.claim('list', '1', 'b'), auth.claim('object', 'list', '-1'),
    auth.claim('object', ''), auth.claim('object', 'absent', 'deeper'), auth.claim('text', 'no');
SELECT auth.claim(VARIADIC '{object,list}'::text[]), auth.claim(VARIADIC '{}'::text[]) = auth.jwt()::text AS whole,
    auth.claim(VARIADIC ARRAY['object', NULL]);
-- an integer sub is its text; one that is neither is nobody's id
SET pg_session_jwt.claims = '{"sub": 7}';
SELECT auth.user_id();
SET pg_session_jwt.claims = '{"sub": 7.5}';
SELECT auth.user_id();
SELECT auth.uid(), auth.claim('sub');
SET pg_session_jwt.claims = '{"sub": null}';
SELECT auth.user_id();
-- claims that are none
SET pg_session_jwt.claims = 'alice';
SELECT auth.user_id();
SET pg_session_jwt.claims = '["alice"]';
SELECT auth.user_id();
SET pg_session_jwt.claims = '{"sub": "alice", "sub": "bob"}';
SELECT auth.user_id();
SELECT source, problem FROM auth.status();
-- claims win over a token; PostgREST's count when nothing else is there
SELECT auth.init(:'keys');
SELECT auth.jwt_session_init(:'bob');
SET pg_session_jwt.claims = '{"sub": "alice"}';
SET request.jwt.claims = '{"sub": "carol"}';
SELECT auth.user_id(), source FROM auth.status();
RESET pg_session_jwt.claims;
SELECT auth.user_id(), source, key_id, algorithm, subject, expires_at AT TIME ZONE 'UTC' AS expires_at, problem
    FROM auth.status();
SELECT auth.logout();
SELECT auth.user_id(), source, problem FROM auth.status();
\c
\pset null '<NULL>'
SELECT auth.user_id(), source, problem FROM auth.status();
SET request.jwt.claims = '{"sub": "carol"}';
SELECT auth.user_id(), source, problem FROM auth.status();
SET request.jwt.claims = '';
SELECT auth.user_id();
SET request.jwt.claims = '{"sub": "carol"}';
SET pg_session_jwt.request_claims = never;
SELECT auth.user_id(), source FROM auth.status();
DROP VIEW everything;
