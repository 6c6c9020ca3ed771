-- The policies of a todo application, and what each user may do.
\set keys '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"demo","x":"fgu02O7yz5YQkUkHnKtn8B6peO-d0Ax6HOqJXS24wwo"}]}'
\set alice 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwib3JnX2lkIjoib3JnXzEifQ.xZBUl7l7HHZvY9B860QiB3_hw7maKkNLLO14_7iHcLsxREuAaClKKrJpBI_dSezAt82v0lptf-f0Od5JfXwTAQ'
\set bob 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJib2IiLCJleHAiOjQxMDI0NDQ4MDB9.JGcEHTXsN43rsIVluGqfGwPyNlwb1cdf1tWppqYbiqjgZPvzAP1az_-fi_s2JWy8SLKgjOIqzTbCxrM0ZuvzBQ'
\set forged 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.57512CjA2CygYCoxHIChCCjvI6KpUcxU6FZThtDvcZm4pqbnJQVHZP4gwLPhteQcH3KLPjj-6E0IaIsFztoEBg'
\set expired 'eyJhbGciOiJFZERTQSIsImtpZCI6ImRlbW8ifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6MTcwMDAwMDAwMH0.vP2NFPOlD1bMZVhrFiA21w2a2VPtsBAukveyH_rsY5FoXqKdX7Y6YuTTQv9u8za4O3PAfDvfE9ujivNqszO0Dw'
CREATE ROLE regress_authenticated NOLOGIN;
CREATE TABLE todos (id int PRIMARY KEY, user_id text NOT NULL DEFAULT auth.user_id(), task text NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO regress_authenticated;
ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
CREATE POLICY s ON todos FOR SELECT TO regress_authenticated USING (auth.user_id() = user_id);
CREATE POLICY i ON todos FOR INSERT TO regress_authenticated WITH CHECK (auth.user_id() = user_id);
CREATE POLICY u ON todos FOR UPDATE TO regress_authenticated
    USING (auth.user_id() = user_id) WITH CHECK (auth.user_id() = user_id);
CREATE POLICY d ON todos FOR DELETE TO regress_authenticated USING (auth.user_id() = user_id);
INSERT INTO todos VALUES (1, 'alice', 'water the plants'), (2, 'bob', 'feed the cat');
SELECT auth.init(:'keys');
SET ROLE regress_authenticated;
-- nobody
SELECT * FROM todos;
INSERT INTO todos (id, task) VALUES (3, 'nobody''s');
INSERT INTO todos (id, user_id, task) VALUES (3, 'alice', 'forged');
-- alice
BEGIN;
SELECT auth.jwt_session_init(:'alice', true);
SELECT * FROM todos;
INSERT INTO todos (id, task) VALUES (3, 'buy milk') RETURNING *;
UPDATE todos SET task = 'stolen' WHERE id = 2;
DELETE FROM todos WHERE id = 2;
UPDATE todos SET user_id = 'bob' WHERE id = 3;
ROLLBACK;
-- the transaction took the identity along
SELECT auth.user_id(), count(*) FROM todos;
-- bob, by the parameter
BEGIN;
SELECT set_config('pg_session_jwt.jwt', :'bob', true);
SELECT * FROM todos;
COMMIT;
SELECT auth.user_id();
-- alice for the session, and savepoints
SELECT auth.jwt_session_init(:'alice');
BEGIN;
SAVEPOINT a;
SET LOCAL pg_session_jwt.jwt = :'bob';
SELECT auth.user_id();
ROLLBACK TO a;
SELECT auth.user_id();
COMMIT;
-- a failed presentation leaves who was there
SELECT auth.jwt_session_init(:'forged');
\set VERBOSITY terse
SELECT auth.jwt_session_init(:'expired');
\set VERBOSITY default
SELECT auth.jwt_session_init(NULL);
SELECT auth.user_id();
SELECT auth.logout();
SELECT auth.user_id(), auth.jwt(), auth.session();
RESET ROLE;
DROP TABLE todos;
DROP ROLE regress_authenticated;
