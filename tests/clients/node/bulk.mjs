// 5,000 interleaved requests of 20 users and of no one over 4 connections of the server. Each way of presenting a
// token follows each other one on the same connection, some requests fail in the middle, and half-way through the
// provider rotates its keys: from then on, old and new tokens come.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import pg from 'pg';
import { admin, provider, said, token } from './world.mjs';

const REQUESTS = 5000;
const USERS = 20;
const CLIENTS = 32;

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CLIENTS });
after(() => pool.end());

const ways = [
  'SELECT auth.login($1)',
  "SELECT set_config('pg_session_jwt.jwt', $1, true)",
  'SELECT auth.jwt_session_init($1, true)',
];

// Of every ten requests, three fail; each after the user has been seen, and with something written.
const errors = [
  ['SELECT 1 / 0', '22012'],
  ["INSERT INTO todos (task) VALUES ('task 1')", '23505'],
  ["SET LOCAL statement_timeout = '1ms'; SELECT pg_sleep(10)", '57014'],
  ["SET LOCAL pg_session_jwt.jwt = 'no token'; SELECT auth.user_id()", '28000'],
  ['no SQL', '42601'],
];

// The same numbers in each run.
let state = 1;
function random(below) {
  state = (state * 48271) % 0x7fffffff;
  return state % below;
}

const seen = { leaked: 0, missing: 0, stale: 0, failed: 0, otherwise: 0 };
const backends = new Map();

async function see(db, user) {
  const { rows } = await db.query('SELECT owner, auth.user_id() AS id FROM todos');
  const [{ id, pid }] = (await db.query('SELECT auth.user_id() AS id, pg_backend_pid() AS pid'))
    .rows;
  backends.set(pid, (backends.get(pid) ?? new Set()).add(user));
  seen.stale += (id !== user) + rows.filter((row) => row.id !== user).length;
  seen.leaked += rows.filter((row) => row.owner !== user).length;
  seen.missing += (user === null ? 0 : 3) - rows.filter((row) => row.owner === user).length;
}

async function request({ user, tokens, pick, way, error }) {
  const db = await pool.connect();
  try {
    await db.query('BEGIN');
    if (user !== null) await db.query(way, [tokens[pick % tokens.length]]);
    await see(db, user);
    if (error) {
      const [sql, code] = error;
      if (user !== null) await db.query("INSERT INTO todos (task) VALUES ('never')");
      const failure = await db.query(sql).then(() => undefined, said);
      // No one may not write at all.
      const expected = code === '23505' && user === null ? '42501' : code;
      if (failure?.code !== expected) seen.otherwise += 1;
      seen.failed += 1;
    }
  } finally {
    await db.query(error ? 'ROLLBACK' : 'COMMIT');
    // Whichever connection this is: nobody is on it between transactions.
    const { rows } = await db.query('SELECT auth.user_id() AS id, current_user AS role');
    if (rows[0].id !== null || rows[0].role !== 'web') seen.stale += 1;
    db.release();
  }
}

test(`${REQUESTS} requests of ${USERS} users over 4 connections of the server`, async () => {
  const users = Array.from({ length: USERS }, (_, i) => ({ user: `user-${i + 1}`, tokens: [] }));
  const newTokens = () =>
    Promise.all(
      users.map(async ({ user, tokens }) => {
        const kinds = ['rs256', 'es256', 'jose'];
        tokens.push(...(await Promise.all(kinds.map((kind) => token(user, kind)))));
      }),
    );
  await newTokens();

  const rotation = async () => {
    await admin('SELECT admin.a_minute_later()');
    await provider('rotate');
    await newTokens();
  };

  const requests = Array.from({ length: REQUESTS }, () => {
    // One in 21 is of no one.
    const { user, tokens } = users[random(USERS + 1)] ?? { user: null };
    const error = random(10) < 3 ? errors[random(errors.length)] : undefined;
    return { user, tokens, pick: random(6), way: ways[random(ways.length)], error };
  });

  const started = performance.now();
  let next = 0;
  let rotated;
  const client = async () => {
    while (next < REQUESTS) {
      if (next === REQUESTS / 2) rotated = rotation();
      await request(requests[next++]);
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  await rotated;
  const seconds = (performance.now() - started) / 1000;

  const [{ rows }] = await admin("SELECT count(*)::int AS rows FROM todos WHERE task = 'never'");
  const each = [...backends.values()].map((users) => users.size);
  console.log(
    `${REQUESTS} requests in ${seconds.toFixed(1)} s, ${Math.round(REQUESTS / seconds)} per second, ` +
      `${seen.failed} of them with an error; ${backends.size} connections of the server, ` +
      `each with ${Math.min(...each)} to ${Math.max(...each)} identities\n` +
      `rows leaked: ${seen.leaked}, rows missing: ${seen.missing}, stale identities: ${seen.stale}, ` +
      `writes that should not be there: ${rows}, errors other than meant: ${seen.otherwise}`,
  );
  assert.deepEqual(
    { ...seen, rows },
    { ...seen, leaked: 0, missing: 0, stale: 0, otherwise: 0, rows: 0 },
  );
  assert.ok(backends.size <= 4);
  assert.equal(Math.min(...each), USERS + 1, 'each connection has served everybody');
});
