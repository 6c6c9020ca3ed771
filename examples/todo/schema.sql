-- The database of the example. In an empty database, as superuser: psql -f schema.sql
-- (-v issuer=… where the provider has another address than this one).
\set ON_ERROR_STOP on
\if :{?issuer}
\else
    \set issuer 'http://127.0.0.1:3001'
\endif

CREATE EXTENSION pg_session_jwt;
SELECT auth.create_roles();

-- What the server connects as. It has no rights but those of the two roles, which it assumes for a transaction.
CREATE ROLE todo_app LOGIN NOINHERIT IN ROLE authenticated, anonymous;

-- Whose tokens count. There is no key here: the provider's keys are fetched, and follow it when it rotates them.
INSERT INTO auth.providers (name, issuer, audience, default_role)
VALUES ('demo', :'issuer', '{todo}', 'authenticated');

-- So that a token which lives for 5 seconds is over after 5, and not after 65: provider and database share a clock.
ALTER DATABASE :"DBNAME" SET pg_session_jwt.clock_skew = 0;

CREATE TABLE todos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL DEFAULT auth.user_id(),
    org_id text, -- NULL: the user's own
    task text NOT NULL CHECK (length(task) BETWEEN 1 AND 200),
    done boolean NOT NULL DEFAULT false
);
CREATE INDEX ON todos (user_id);
CREATE INDEX ON todos (org_id);

-- No one writes user_id: it is its default. And no row changes hands.
GRANT SELECT, INSERT (org_id, task), UPDATE (done), DELETE ON todos TO authenticated;

ALTER TABLE todos ENABLE ROW LEVEL SECURITY;

CREATE POLICY "their own" ON todos TO authenticated
    USING (org_id IS NULL AND user_id = auth.user_id());

-- Members of an organization see, add and tick what is the organization's. They delete what they added; with the
-- permission todos:delete, all of it.
CREATE POLICY "see the organization's" ON todos FOR SELECT TO authenticated
    USING (org_id = auth.org_id());
CREATE POLICY "add to the organization's" ON todos FOR INSERT TO authenticated
    WITH CHECK (org_id = auth.org_id() AND user_id = auth.user_id());
CREATE POLICY "tick the organization's" ON todos FOR UPDATE TO authenticated
    USING (org_id = auth.org_id());
CREATE POLICY "delete the organization's" ON todos FOR DELETE TO authenticated
    USING (org_id = auth.org_id() AND (user_id = auth.user_id() OR auth.has_permission('todos:delete')));

INSERT INTO todos (user_id, org_id, task, done) VALUES
    ('alice', NULL, 'Buy milk', true),
    ('alice', NULL, 'Call the dentist', false),
    ('alice', NULL, 'Plan Bob''s surprise party', false),
    ('bob', NULL, 'Repair the bicycle', false),
    ('bob', NULL, 'Find a present for Alice', false),
    ('alice', 'org_acme', 'Renew the certificates', true),
    ('alice', 'org_acme', 'Invite everyone to the retreat', false),
    ('bob', 'org_acme', 'Write the release notes', false);
