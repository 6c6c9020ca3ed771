// The code of docs/guides, as printed: the page's SQL by psql, its JavaScript and Python through PgBouncer, with two
// users, no one, and tokens that must be refused. tests/it/guides plays what SQL the pages have beyond that.
//
// What is not printed is here: the page's issuer is the one on loopback, and the libraries that know who is signed in to a
// web application are two lines each.
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { SignJWT } from 'jose';
import pg from 'pg';
import { admin, said, token } from './world.mjs';

const oidc = await (await fetch(`${process.env.ISSUERS}/oidc`)).text();
const jwks = (await (await fetch(`${oidc}/.well-known/openid-configuration`)).json()).jwks_uri;
const { DATABASE_URL, ADMIN_URL, PSQL, PYTHON } = process.env;
const CLERK = 'https://your-instance.clerk.accounts.dev';

// Below tests/clients, so that the pages' imports are found in its node_modules.
const folder = mkdtempSync(join(import.meta.dirname, '../guides-'));
after(() => rmSync(folder, { recursive: true }));

// Whose request it is, as Clerk's and WorkOS's libraries would know it.
const request = new AsyncLocalStorage();
globalThis.signedIn = (options) => request.getStore()?.(options) ?? null;
const as = (presented, work) => request.run(() => presented, work);
const standIn = (name, exported, code) => {
  const at = join(folder, 'node_modules', name);
  mkdirSync(at, { recursive: true });
  const about = { type: 'module', exports: { [exported]: './index.js' } };
  writeFileSync(join(at, 'package.json'), JSON.stringify(about));
  writeFileSync(join(at, 'index.js'), code);
};
const clerk = `export const auth = async () => ({ getToken: (options) => globalThis.signedIn(options) });`;
standIn('@clerk/nextjs', './server', clerk);
const workos = `export const withAuth = async () => ({ accessToken: await globalThis.signedIn() });`;
standIn('@workos-inc/authkit-nextjs', '.', workos);

// The blocks of a page in a language, without the indentation of the list that they are in.
function blocks(page, language) {
  const text = readFileSync(
    join(import.meta.dirname, '../../../docs/guides', `${page}.md`),
    'utf8',
  );
  const found = text.matchAll(/^( *)```(\w*)\n([^]*?)^\1```$/gm);
  return [...found]
    .filter((block) => block[2] === language)
    .map((block) => block[3].replaceAll(new RegExp(`^${block[1]}`, 'gm'), ''));
}

// A database that the page's SQL makes, up to where the page tries it; and the role `app`, which all pages make.
async function database(
  t,
  page,
  { replace = {}, leaveOut = () => false, variables = {}, settings = {} },
) {
  const name = `guides_${page.replaceAll('-', '_')}`;
  const url = (base) => base.replace(/\/guides$/, `/${name}`);
  await admin(`CREATE DATABASE ${name}`);
  t.after(async () => {
    await admin(`DROP DATABASE ${name} WITH (FORCE)`);
    await admin('DROP ROLE IF EXISTS app');
  });
  await admin(`ALTER DATABASE ${name} SET pg_session_jwt.fetch_wait = '10 s'`);
  for (const [setting, value] of Object.entries(settings)) {
    await admin(`ALTER DATABASE ${name} SET ${setting} = ${value}`);
  }
  const sql = blocks(page, 'sql');
  const set = sql.findIndex((block) => block.startsWith('SET SESSION AUTHORIZATION'));
  let input = sql
    .slice(0, set)
    .filter((block) => !leaveOut(block))
    .join('\n');
  for (const [printed, here] of Object.entries(replace)) {
    assert.ok(input.includes(printed), `${page} has no ${printed}`);
    input = input.replaceAll(printed, here);
  }
  const given = Object.entries(variables).flatMap(([name, value]) => ['-v', `${name}=${value}`]);
  execFileSync(
    PSQL,
    ['-XqAt', '-v', 'ON_ERROR_STOP=1', ...given, '-d', url(ADMIN_URL), '-f', '-'],
    { input, stdio: ['pipe', 'ignore', 'inherit'] },
  );
  return { url: url(DATABASE_URL), admin: url(ADMIN_URL) };
}

// The page's JavaScript, imported; the last block without a name of its own is the application.
async function application(page, url) {
  const at = join(folder, page);
  mkdirSync(at);
  writeFileSync(join(at, 'package.json'), '{"type": "module"}');
  process.env.DATABASE_URL = url;
  const files = blocks(page, 'js').map((code, i) => {
    const name = code.includes('pgTable(') ? 'schema' : `application-${i}`;
    const file = join(at, `${name}.js`);
    writeFileSync(file, code);
    return file;
  });
  return Promise.all(
    files.filter((file) => !file.endsWith('schema.js')).map((file) => import(pathToFileURL(file))),
  );
}

async function refused(promise, code, message) {
  const error = await promise.then(() => assert.fail(`should be refused: ${message}`), said);
  assert.equal(`${error.code} ${error.message}`, `${code} ${message}`);
}

// Two users, over and over and at once, then no one and what is refused.
async function isTheUsersOwn({ of, add, list, forNoOne }) {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map(of));
  await as(alice, () => add('water the plants'));
  for (let round = 0; round < 10; round++) {
    const lists = await Promise.all([as(alice, list), as(bob, list), as(alice, list)]);
    assert.deepEqual(lists, [['water the plants'], [], ['water the plants']]);
  }
  await forNoOne(list());
  for (const [kind, message] of [
    ['expired', 'Token used after it has expired'],
    ['forged', 'invalid JWT signature'],
    ['stranger', 'unknown JWT issuer'],
  ]) {
    await refused(as(await token('alice', kind), list), '28000', message);
  }
  assert.deepEqual(await as(alice, list), ['water the plants']);
}

const denied = (table) => (promise) =>
  refused(promise, '42501', `permission denied for table ${table}`);

test('clerk: tasks, with node-postgres', async (t) => {
  const made = await database(t, 'clerk', { replace: { [CLERK]: oidc } });
  const [app] = await application('clerk', made.url);
  await isTheUsersOwn({
    of: (user) => token(user, 'claims', { v: 2, azp: 'http://localhost:3000' }),
    add: app.addTask,
    list: async () => (await app.tasks()).map(({ name }) => name),
    forNoOne: denied('tasks'),
  });
});

test('clerk-jwt-template: tasks, with tokens of the template', async (t) => {
  const secret =
    'the secret of a project at Supabase, which is eighty-eight characters long, or about that';
  const made = await database(t, 'clerk-jwt-template', {
    replace: { [CLERK]: oidc },
    variables: { secret },
    // The page's lines in postgresql.conf, without a restart.
    settings: {
      session_preload_libraries: 'pg_session_jwt',
      'pg_session_jwt.request_claims': 'verified',
    },
  });
  const template = (user) =>
    new SignJWT({ role: 'authenticated' })
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer(oidc)
      .setSubject(user)
      .setAudience('authenticated')
      .setExpirationTime('1 minute')
      .sign(new TextEncoder().encode(secret));
  const [app] = await application('clerk-jwt-template', made.url);
  const list = async () => (await app.tasks()).map(({ name }) => name);
  const [alice, bob] = await Promise.all(['alice', 'bob'].map(template));
  const by = (presented, work) =>
    request.run(({ template }) => (template === 'supabase' ? presented : null), work);
  await by(alice, () => app.addTask('water the plants'));
  assert.deepEqual(await by(alice, list), ['water the plants']);
  assert.deepEqual(await by(bob, list), []);
  await denied('tasks')(list());
  const forged = [...alice.split('.').slice(0, 2), bob.split('.')[2]].join('.');
  await refused(by(forged, list), '28000', 'invalid JWT signature');
});

test('clerk-neon: todos, with a schema by Drizzle', async (t) => {
  const made = await database(t, 'clerk-neon', {
    replace: { [`'${CLERK}/.well-known/jwks.json'`]: `'${jwks}'`, [`'${CLERK}'`]: `'${oidc}'` },
    leaveOut: (block) => block.includes('CREATE TABLE todos'), // Drizzle makes it
  });
  const [app] = await application('clerk-neon', made.url);
  const at = join(folder, 'clerk-neon');
  const config = {
    dialect: 'postgresql',
    schema: 'schema.js',
    out: 'migrations',
    dbCredentials: { url: made.admin },
  };
  writeFileSync(join(at, 'drizzle.config.js'), `export default ${JSON.stringify(config)};`);
  const kit = join(createRequire(import.meta.url).resolve('drizzle-kit'), '../bin.cjs');
  for (const command of ['generate', 'migrate']) {
    execFileSync(process.execPath, [kit, command], { cwd: at, stdio: 'ignore' });
  }
  for (const list of [app.myTodos, app.myTodosInSql]) {
    await isTheUsersOwn({
      of: (user) => token(`${user}-${list.name}`, 'claims', { role: undefined }),
      add: (task) => app.addTodo(task),
      list: async () => (await list()).map(({ task }) => task),
      forNoOne: async (promise) => assert.deepEqual(await promise, []),
    });
  }
});

test('workos: posts, with node-postgres', async (t) => {
  const issuer = 'https://api.workos.com/user_management/client_123456789';
  const keys = 'https://api.workos.com/sso/jwks/client_123456789';
  const made = await database(t, 'workos', { replace: { [keys]: jwks, [issuer]: oidc } });
  const [app] = await application('workos', made.url);
  await isTheUsersOwn({
    of: (user) =>
      token(user, 'claims', {
        org_id: `org_of_${user}`,
        user_role: 'member',
        permissions: ['posts:write'],
      }),
    add: app.addPost,
    list: async () => (await app.posts()).map(({ title }) => title),
    forNoOne: denied('posts'),
  });
});

// Neon's proxy, as far as its driver sees it: the statements of a request in one transaction.
async function neonProxy(t, url) {
  const run = async (queries) => {
    const db = new pg.Client({ connectionString: url });
    await db.connect();
    try {
      await db.query('BEGIN');
      const results = [];
      for (const { query, params } of queries) {
        const result = await db.query({ text: query, values: params, rowMode: 'array' });
        const { fields, rows, command, rowCount } = result;
        results.push({ fields, rows, command, rowCount, rowAsArray: true });
      }
      await db.query('COMMIT');
      return [200, { results }];
    } catch ({ message, code }) {
      return [400, { message, code }];
    } finally {
      await db.end();
    }
  };
  const server = createServer(async (incoming, response) => {
    const [status, answer] = await run((await json(incoming)).queries);
    response.writeHead(status).end(JSON.stringify(answer));
  });
  t.after(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return `http://127.0.0.1:${server.address().port}/sql`;
}

test('pooling: todos, with node-postgres, psycopg and the driver of Neon', async (t) => {
  const made = await database(t, 'pooling', { replace: { [CLERK]: oidc } });
  process.env.SQL_PROXY = await neonProxy(t, made.url);
  // Neon's driver wants a password in the address.
  const [postgres, neon] = await application('pooling', made.url.replace('app@', 'app:none@'));
  const python = async (presented) => {
    const [code] = blocks('pooling', 'python');
    writeFileSync(join(folder, 'pooling', 'app.py'), code);
    const run =
      'import sys, json, app; print(json.dumps(app.tasks(sys.argv[1]))); app.pool.close()';
    const env = { ...process.env, DATABASE_URL: made.url };
    const options = {
      cwd: join(folder, 'pooling'),
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    };
    return JSON.parse(execFileSync(PYTHON, ['-Bc', run, presented], options));
  };
  const rows = async (tasks, presented) => (await tasks(presented)).map(({ task }) => task);
  const all = [
    (presented) => rows(postgres.tasks, presented),
    (presented) => rows(neon.tasks, presented),
  ];
  await postgres.addTask(await token('alice', 'claims'), 'water the plants');
  for (const list of [...all, python]) {
    assert.deepEqual(await list(await token('alice', 'claims')), ['water the plants']);
    assert.deepEqual(await list(await token('bob', 'claims')), []);
  }
  for (const list of all) {
    await denied('todos')(list(null));
    await refused(list(await token('alice', 'forged')), '28000', 'invalid JWT signature');
    await refused(
      list(await token('alice', 'expired')),
      '28000',
      'Token used after it has expired',
    );
  }
  await assert.rejects(
    python(await token('alice', 'forged')),
    /InvalidAuthorizationSpecification: invalid JWT signature/,
  );
});
