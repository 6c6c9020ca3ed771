// postgres.js, with set_config(): the role stays, and policies alone tell users apart.
import postgres from 'postgres';
import { CLIENTS, scenario } from './scenario.mjs';

// Before its version 1.21, PgBouncer does not keep track of prepared statements.
const sql = postgres(process.env.DATABASE_URL, { max: CLIENTS, prepare: false });

const present = (db, token) => db`SELECT set_config('pg_session_jwt.jwt', ${token}, true)`;

const withUser = (token, work) =>
  sql.begin(async (db) => {
    if (token) await present(db, token);
    return work(db);
  });

scenario('postgres.js', {
  withUser,
  userId: async (db) => (await db`SELECT auth.user_id() AS id`)[0].id,
  todos: (db) => db`SELECT owner, task FROM todos ORDER BY id`,
  add: (db, task, owner) => db`INSERT INTO todos ${db(owner ? { task, owner } : { task })}`,
  run: (db, text) => db.unsafe(text),
  present,
  savepoint: (db, work) => db.savepoint(work),
  idle: async () => (await sql`SELECT auth.user_id() AS id`)[0].id,
  close: () => sql.end(),
  // set_config() keeps a token as it is.
  presentsLate: true,
});
