// node-postgres, with auth.login(): the user's role is assumed too.
import pg from 'pg';
import { CLIENTS, scenario } from './scenario.mjs';

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CLIENTS });

async function withUser(token, work) {
  const db = await pool.connect();
  try {
    await db.query('BEGIN');
    await db.query('SELECT auth.login($1)', [token]);
    const result = await work(db);
    await db.query('COMMIT');
    return result;
  } catch (error) {
    await db.query('ROLLBACK');
    throw error;
  } finally {
    db.release();
  }
}

scenario('node-postgres', {
  withUser,
  userId: async (db) => (await db.query('SELECT auth.user_id() AS id')).rows[0].id,
  todos: async (db) => (await db.query('SELECT owner, task FROM todos ORDER BY id')).rows,
  add: (db, task, owner) =>
    owner
      ? db.query('INSERT INTO todos (task, owner) VALUES ($1, $2)', [task, owner])
      : db.query('INSERT INTO todos (task) VALUES ($1)', [task]),
  run: async (db, sql) => (await db.query(sql)).rows,
  present: (db, token) => db.query('SELECT auth.login($1)', [token]),
  savepoint: async (db, work) => {
    await db.query('SAVEPOINT part');
    try {
      return await work(db);
    } catch (error) {
      await db.query('ROLLBACK TO part');
      throw error;
    }
  },
  idle: async () => (await pool.query('SELECT auth.user_id() AS id')).rows[0].id,
  close: () => pool.end(),
});
