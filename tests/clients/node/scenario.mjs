// What every client must live through. scenario.py is the same in Python, scenario.rs in Rust.
//
// The database has three todos of alice's and three of bob's. There are 16 clients, and PgBouncer has 4
// connections to the server, so whatever one request leaves behind is what another one finds.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { admin, provider, said, token } from './world.mjs';

export const CLIENTS = 16;

// An application:
//   withUser(token, work)  a transaction of the token's user; undefined: of no one
//   userId(db)             auth.user_id()
//   todos(db)              [{ owner, task }]
//   add(db, task, owner)   without an owner it is the user's own
//   run(db, sql)           any other statement
//   present(db, token)     another token in the middle of a transaction
//   savepoint(db, work)    a part of a transaction that is rolled back by itself
//   idle()                 auth.user_id() outside of any transaction
//   presentsLate           a token is refused by the first statement that needs it
export function scenario(name, app) {
  const { withUser } = app;
  const tokens = {};
  const ofEachKind = (user) =>
    Promise.all(['rs256', 'es256', 'jose'].map((kind) => token(user, kind)));

  before(async () => {
    // Both users come with tokens of each issuer.
    for (const user of ['alice', 'bob']) tokens[user] = await ofEachKind(user);
  });
  after(() => app.close());

  // It is this user, and sees their rows: all of them, and no others.
  async function seesTheirOwn(db, user) {
    assert.equal(await app.userId(db), user ?? null);
    const todos = await app.todos(db);
    assert.deepEqual(
      todos.map(({ owner, task }) => `${owner}: ${task}`),
      user ? [1, 2, 3].map((n) => `${user}: task ${n}`) : [],
    );
  }

  const request = (user, kind = 0) =>
    withUser(tokens[user]?.[kind], (db) => seesTheirOwn(db, user));

  // On every connection there is, once more: somebody, and no one between transactions.
  async function allIsWell() {
    const users = ['alice', 'bob', undefined];
    const requests = Array.from({ length: CLIENTS }, (_, i) => request(users[i % 3], i % 2));
    await Promise.all(requests);
    for (const id of await Promise.all(Array.from({ length: CLIENTS }, app.idle))) {
      assert.equal(id, null);
    }
  }

  async function refused(promise, code, message) {
    const error = await promise.then(
      () => assert.fail(`should have been refused: ${message}`),
      said,
    );
    assert.equal(`${error.code} ${error.message}`, `${code} ${message}`);
    return error;
  }

  test(`${name}: two users see their own rows, and no one sees any`, async () => {
    for (const kind of [0, 1, 2]) {
      await request('alice', kind);
      await request('bob', kind);
      await request(undefined);
    }
    await allIsWell();
  });

  test(`${name}: a row is its user's, and cannot be given to another`, async () => {
    const [alice] = tokens.alice;
    await withUser(alice, async (db) => {
      await app.add(db, 'mine');
      const todos = await app.todos(db);
      assert.deepEqual([todos.length, todos[3].owner], [4, 'alice']);
    });
    await request('bob');
    await withUser(alice, (db) => app.run(db, "DELETE FROM todos WHERE task = 'mine'"));
    const policy = 'new row violates row-level security policy for table "todos"';
    await refused(
      withUser(alice, (db) => app.add(db, 'theirs', 'bob')),
      '42501',
      policy,
    );
    await refused(
      withUser(undefined, (db) => app.add(db, 'theirs', 'bob')),
      '42501',
      policy,
    );
    await allIsWell();
  });

  // Each happens to alice, after she has written something.
  const errors = {
    'a constraint': [
      (db) => app.add(db, 'task 1'),
      ['23505', 'duplicate key value violates unique constraint "todos_owner_task_key"'],
    ],
    'a check': [
      (db) => app.add(db, ''),
      ['23514', 'new row for relation "todos" violates check constraint "todos_task_check"'],
    ],
    'a division by zero': [(db) => app.run(db, 'SELECT 1 / 0'), ['22012', 'division by zero']],
    'a statement that takes too long': [
      async (db) => {
        await app.run(db, "SET LOCAL statement_timeout = '20ms'");
        await app.run(db, 'SELECT pg_sleep(10)');
      },
      ['57014', 'canceling statement due to statement timeout'],
    ],
    'a statement that is cancelled': [
      async (db) => {
        const [{ pid }] = await app.run(db, 'SELECT pg_backend_pid() AS pid');
        const wake = admin('SELECT admin.wake($1)', [pid]);
        await Promise.all([app.run(db, 'SELECT pg_sleep(10)'), wake]);
      },
      ['57014', 'canceling statement due to user request'],
    ],
    'a forged token of bob': [
      async (db) => {
        await app.present(db, await token('bob', 'forged'));
        await app.userId(db);
      },
      ['28000', 'invalid JWT signature'],
    ],
  };
  for (const [what, [happens, error]] of Object.entries(errors)) {
    test(`${name}: ${what} in the middle of a transaction hands nothing on`, async () => {
      const fails = () =>
        withUser(tokens.alice[0], async (db) => {
          await app.add(db, 'never');
          await happens(db);
        });
      await refused(fails(), ...error);
      await allIsWell();
      // Many at once, one after the other for the key that they would all write.
      const others = Array.from({ length: 30 }, (_, i) => request(['bob', undefined][i % 2]));
      await Promise.all([refused(fails(), ...error), refused(fails(), ...error), ...others]);
      await allIsWell();
    });
  }

  test(`${name}: after a savepoint is rolled back the user is who it was`, async () => {
    await withUser(tokens.alice[0], async (db) => {
      const inner = app.savepoint(db, async (db) => {
        await app.present(db, tokens.bob[0]);
        await seesTheirOwn(db, 'bob');
        await app.run(db, 'SELECT 1 / 0');
      });
      await refused(inner, '22012', 'division by zero');
      await seesTheirOwn(db, 'alice');
    });
    await allIsWell();
  });

  test(`${name}: a token that is not accepted is refused, and nobody comes of it`, async () => {
    const wrong = {
      expired: ['Token used after it has expired', 'time: '],
      forged: ['invalid JWT signature', 'signature: '],
      elsewhere: ['JWT audience is not accepted', 'policy: '],
      stranger: ['unknown JWT issuer', 'key: '],
    };
    for (const [kind, [message, stage]] of Object.entries(wrong)) {
      const presented = await token('alice', kind);
      const never = () => assert.fail('no statement follows a token that is refused');
      const error = await refused(
        withUser(presented, app.presentsLate ? app.userId : never),
        '28000',
        message,
      );
      assert.ok(error.detail.startsWith(stage), error.detail);
      assert.ok(!JSON.stringify(error).includes(presented), 'the error shows the token');
      await allIsWell();
    }
    await refused(withUser('no token', app.userId), '28000', 'invalid JWT encoding');
  });

  test(`${name}: ${CLIENTS} clients at once over 4 connections of the server`, async () => {
    const users = ['alice', 'bob', undefined];
    const backends = new Set();
    for (let round = 0; round < 20; round++) {
      const requests = Array.from({ length: CLIENTS }, (_, i) =>
        withUser(tokens[users[(round + i) % 3]]?.[i % 3], async (db) => {
          await seesTheirOwn(db, users[(round + i) % 3]);
          const [{ pid }] = await app.run(db, 'SELECT pg_backend_pid() AS pid');
          backends.add(pid);
        }),
      );
      await Promise.all(requests);
    }
    assert.ok(backends.size <= 4, `${backends.size} connections`);
  });

  test(`${name}: the provider rotates its keys while requests come in`, async () => {
    await admin('SELECT admin.a_minute_later()');
    const [old] = tokens.alice;
    let over = false;
    const traffic = async (_, i) => {
      while (!over) await request(['alice', 'bob', undefined][i % 3], i % 2);
    };
    const rotation = async () => {
      await provider('rotate');
      for (const user of ['alice', 'bob']) tokens[user] = await ofEachKind(user);
      // The first of them has the keys fetched, and waits for them.
      await Promise.all(Array.from({ length: CLIENTS }, () => request('alice')));
      await withUser(old, (db) => seesTheirOwn(db, 'alice'));
      await provider('retire');
      await admin("SELECT * FROM auth.refresh('oidc')");
      await refused(withUser(old, app.userId), '28000', 'no key fits the JWT');
    };
    await Promise.all([
      rotation().finally(() => (over = true)),
      ...Array.from({ length: 6 }, traffic),
    ]);
    await allIsWell();
  });
}
