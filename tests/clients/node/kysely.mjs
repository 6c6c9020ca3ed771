// Kysely over node-postgres, with auth.login().
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { CLIENTS, scenario } from './scenario.mjs';

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CLIENTS });
const kysely = new Kysely({ dialect: new PostgresDialect({ pool }) });

const present = (db, token) => sql`SELECT auth.login(${token ?? null})`.execute(db);

const withUser = (token, work) =>
  kysely.transaction().execute(async (db) => {
    await present(db, token);
    return work(db);
  });

const userId = async (db) => (await sql`SELECT auth.user_id() AS id`.execute(db)).rows[0].id;

scenario('Kysely', {
  withUser,
  userId,
  todos: (db) => db.selectFrom('todos').select(['owner', 'task']).orderBy('id').execute(),
  add: (db, task, owner) =>
    db
      .insertInto('todos')
      .values(owner ? { task, owner } : { task })
      .execute(),
  run: async (db, text) => (await sql.raw(text).execute(db)).rows,
  present,
  savepoint: async (db, work) => {
    await sql`SAVEPOINT part`.execute(db);
    try {
      return await work(db);
    } catch (error) {
      await sql`ROLLBACK TO part`.execute(db);
      throw error;
    }
  },
  idle: () => userId(kysely),
  close: () => kysely.destroy(),
});
