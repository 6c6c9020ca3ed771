// Drizzle: a schema with drizzle-orm/neon's policies, pushed by drizzle-kit, then used over node-postgres with
// auth.login(): the policies are for the role `authenticated`.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import { CLIENTS, scenario } from './scenario.mjs';
import { todos } from './schema.mjs';
import { admin, token } from './world.mjs';

// `push` of drizzle-kit 0.31 leaves out what policies say (drizzle-orm issue 3504): with it, no one sees any row.
const migrations = mkdtempSync(join(tmpdir(), 'drizzle-'));
const kit = join(dirname(createRequire(import.meta.url).resolve('drizzle-kit')), 'bin.cjs');
function drizzleKit(...command) {
  execFileSync(process.execPath, [kit, ...command, '--config', 'drizzle.config.mjs'], {
    cwd: import.meta.dirname,
    env: { ...process.env, MIGRATIONS: migrations },
    stdio: 'inherit',
  });
}
drizzleKit('generate');
drizzleKit('migrate');
// It knows again what it has made, and changes nothing.
drizzleKit('push', '--force');
rmSync(migrations, { recursive: true });
await admin(`GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO authenticated;
  GRANT SELECT, INSERT ON todos TO anonymous;
  INSERT INTO todos (owner, task)
    SELECT owner, 'task ' || n FROM generate_series(1, 3) n, unnest('{alice,bob}'::text[]) owner;
  -- Enough rows of others for an index to be worth it.
  INSERT INTO todos (owner, task)
    SELECT 'user-' || n % 1000, 'task ' || n FROM generate_series(1, 20000) n;
  ANALYZE todos`);

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CLIENTS });
const database = drizzle(pool);

const present = (db, token) => db.execute(sql`SELECT auth.login(${token ?? null})`);

const withUser = (token, work) =>
  database.transaction(async (db) => {
    await present(db, token);
    return work(db);
  });

const userId = async (db) => (await db.execute(sql`SELECT auth.user_id() AS id`)).rows[0].id;

test('drizzle-kit has made the policies, and knows them again', async () => {
  const policies = await admin(`SELECT cmd, roles::text, coalesce(qual, with_check) AS condition
    FROM pg_policies WHERE tablename = 'todos' ORDER BY cmd`);
  assert.deepEqual(
    policies.map(({ cmd, roles }) => `${cmd} ${roles}`),
    ['DELETE', 'INSERT', 'SELECT', 'UPDATE'].map((cmd) => `${cmd} {authenticated}`),
  );
  for (const { condition } of policies) {
    assert.match(condition, /^\( ?SELECT \(auth\.user_id\(\) = todos\.owner\)/);
  }
});

test('a query of a user finds its rows by an index', async () => {
  await withUser(await token('alice'), async (db) => {
    const plan = await db.execute(sql`EXPLAIN SELECT * FROM todos`);
    const text = plan.rows.map((row) => row['QUERY PLAN']).join('\n');
    assert.match(text, /Index Cond: \(owner = auth\.user_id\(\)\)/, text);
  });
});

scenario('Drizzle', {
  withUser,
  userId,
  todos: (db) => db.select().from(todos).orderBy(todos.id),
  add: (db, task, owner) => db.insert(todos).values({ task, owner }),
  run: async (db, text) => (await db.execute(sql.raw(text))).rows,
  present,
  savepoint: (db, work) => db.transaction(work),
  idle: () => userId(database),
  close: () => pool.end(),
});
