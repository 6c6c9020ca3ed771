-- The application's database: one for each client, whose providers are there already.

CREATE TABLE todos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner text NOT NULL DEFAULT auth.user_id(),
    task text NOT NULL CHECK (task <> ''),
    UNIQUE (owner, task)
);
ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON todos USING (auth.user_id() = owner);
INSERT INTO todos (owner, task)
SELECT owner, 'task ' || n
FROM generate_series(1, 3) n, unnest('{alice,bob}'::text[] || array(SELECT 'user-' || i FROM generate_series(1, 20) i)) owner;

-- Applications connect as `web`. Those that call auth.login() become `authenticated` or `anonymous`; the
-- others stay what they are, and the policies alone tell users apart.
GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO web, anonymous, authenticated;
