// Serves the page, and hands its requests to Postgres together with the user's token. It does not look into
// the token, and no query has a user in it: who is asking, and for which rows, the database decides.
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { startProvider } from './provider.mjs';

const port = Number(process.env.PORT ?? 3000);
const clientId = 'todo';
const issuer = await startProvider({
  port: Number(process.env.ISSUER_PORT ?? 3001),
  clientId,
  pages: [`http://127.0.0.1:${port}`, `http://localhost:${port}`],
});

// DATABASE_URL, or else the variables that psql reads. Fewer connections than there are users.
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 });
pool.on('error', report); // a connection that was lost while nobody used it

// A transaction that begins with a token, and ends with it: the connection keeps nobody.
async function transaction(present, token, sql, values) {
  // Not in the `try`: the database may refuse the server itself, and that is not the user's fault.
  const db = await pool.connect().catch((error) => {
    throw new Error('no connection to the database', { cause: error });
  });
  let lost;
  try {
    await db.query('BEGIN');
    await db.query(present, [token]);
    const { rows } = await db.query(sql, values);
    await db.query('COMMIT');
    return rows;
  } catch (error) {
    await db.query('ROLLBACK').catch((failure) => (lost = failure));
    throw error;
  } finally {
    db.release(lost); // one that could not be rolled back is closed
  }
}

// As the token's user, in the token's role. Without a token: `anonymous`, who may do nothing here.
const asUser = (token, sql, values) => transaction('SELECT auth.login($1)', token, sql, values);

// What the page may ask for: one statement each. `id` is from the path, `body` what was sent.
const queries = {
  'GET /api/me': () => [
    `SELECT current_user AS role, auth.user_id() AS user_id, auth.claim('name') AS name,
            auth.org_id() AS org_id, auth.org_slug() AS org_name`,
  ],
  'GET /api/todos': () => ['SELECT id, user_id, org_id, task, done FROM todos ORDER BY id'],
  // For the organization, if the user has one: otherwise '', which the policy refuses.
  'POST /api/todos': (id, body) => [
    `INSERT INTO todos (task, org_id) VALUES ($1, CASE WHEN $2 THEN coalesce(auth.org_id(), '') END)
     RETURNING id, user_id, org_id, task, done`,
    [String(body.task ?? ''), body.shared === true],
  ],
  'PATCH /api/todos/id': (id, body) => [
    'UPDATE todos SET done = $2 WHERE id = $1 RETURNING id, user_id, org_id, task, done',
    [id, body.done === true],
  ],
  'DELETE /api/todos/id': (id) => ['DELETE FROM todos WHERE id = $1 RETURNING id', [id]],
};

// What the database thinks of a token. An application would keep this to itself, with DETAIL and HINT.
async function status(token) {
  const present = "SELECT FROM set_config('pg_session_jwt.jwt', $1, true)";
  const [status] = await transaction(present, token ?? '', 'SELECT * FROM auth.status()');
  const refusal = await asUser(token, 'SELECT').then(
    () => null,
    (error) => {
      if (!isRefusal(error)) throw error;
      const { code, message, detail, hint } = error;
      return { code, message, detail, hint };
    },
  );
  return { status, refusal };
}

// What a request may be told, by SQLSTATE: that the token is not accepted, that a policy or a privilege says
// no, that a value does not fit. Their first lines are about what the user sent; everything else is for the log.
const statusOf = ({ code }) =>
  code === '28000' ? 401 : code === '42501' ? 403 : /^2[23]/.test(code) ? 422 : undefined;
const isRefusal = (error) => error instanceof pg.DatabaseError && statusOf(error) !== undefined;

// Never a token: there is none in the messages of the database, and nothing else is written here.
function report(error) {
  console.error(error.code ?? '', error.message, error.cause?.message ?? '');
}

async function answer(request, address) {
  const token = /^Bearer (.+)$/i.exec(request.headers.authorization)?.[1];
  if (request.method === 'GET' && address === '/api/status') return [200, await status(token)];

  const [, path, id] = /^(\/api\/\w+)(?:\/(\d{1,18}))?$/.exec(address) ?? [];
  const query = queries[`${request.method} ${path}${id ? '/id' : ''}`];
  if (!query) return [404, { message: 'There is nothing at this address' }];
  const rows = await asUser(token, ...query(id, await bodyOf(request)));
  // It is not there, or a policy hides it: that is the same to whoever asks.
  if (id && rows.length === 0) return [404, { message: 'No policy gives you that todo' }];
  return [200, rows];
}

async function bodyOf(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > 10_000) throw new SyntaxError('too long');
  }
  return Object(JSON.parse(text || '{}'));
}

const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
    `connect-src 'self' ${issuer}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; ` +
    "require-trusted-types-for 'script'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
};

const file = (name, type) => [readFileSync(new URL(`public/${name}`, import.meta.url)), type];
const files = {
  '/': file('index.html', 'text/html; charset=utf-8'),
  '/app.js': file('app.js', 'text/javascript; charset=utf-8'),
  '/sign-in.js': file('sign-in.js', 'text/javascript; charset=utf-8'),
  '/style.css': file('style.css', 'text/css; charset=utf-8'),
  '/icon.svg': file('icon.svg', 'image/svg+xml'),
  '/config.json': [JSON.stringify({ issuer, clientId, resource: 'urn:todo' }), 'application/json'],
};

const server = createServer(async (request, response) => {
  const [address] = request.url.split('?');
  if (request.method === 'GET' && Object.hasOwn(files, address)) {
    const [content, type] = files[address];
    response.writeHead(200, { ...headers, 'content-type': type }).end(content);
    return;
  }
  const [code, body] = await answer(request, address).catch((error) => {
    if (isRefusal(error)) {
      return [statusOf(error), { code: error.code, message: error.message }];
    }
    if (error instanceof SyntaxError)
      return [400, { message: 'That is not JSON, or too much of it' }];
    report(error);
    return [500, { message: 'The database cannot answer just now' }];
  });
  const type = { 'content-type': 'application/json' };
  if (code === 401) type['www-authenticate'] = 'Bearer error="invalid_token"';
  response.writeHead(code, { ...headers, ...type }).end(JSON.stringify(body));
});
server.listen(port, '127.0.0.1', () => console.log(`The page is at http://127.0.0.1:${port}`));
