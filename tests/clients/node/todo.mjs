// examples/todo in a browser: what each of its users sees, and what becomes of tokens that somebody has changed.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import pg from 'pg';
import { chromium } from 'playwright-core';
import { admin } from './world.mjs';

const url = process.env.TODO_PAGE;
const axe = await readFile(new URL(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

const OWN = {
  alice: ['Buy milk', 'Call the dentist', "Plan Bob's surprise party"],
  bob: ['Repair the bicycle', 'Find a present for Alice'],
  carol: [],
};
const ACME = [
  'Renew the certificates',
  'Invite everyone to the retreat',
  'Write the release notes',
];

let browser, rows;
let open = []; // the pages of a test, each in a context of its own

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  rows = await admin('SELECT * FROM todos ORDER BY id');
});
after(() => browser.close());

// Nothing of a test stays, and nothing in it was in the console or in an address that should not be there.
afterEach(async () => {
  for (const page of open) await page.context().close();
  const [pages] = [open, (open = [])];
  await admin('DELETE FROM todos WHERE id > $1', [rows.at(-1).id]);
  for (const row of rows) {
    await admin(
      `INSERT INTO todos OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_record(NULL::todos, $1)
       ON CONFLICT (id) DO UPDATE SET done = excluded.done`,
      [JSON.stringify(row)],
    );
  }
  for (const { complaints, addresses } of pages) {
    assert.deepEqual(complaints, []);
    for (const address of addresses) assert.doesNotMatch(address, /eyJ/, 'a token in an address');
  }
});

async function visit(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  Object.assign(page, { complaints: [], addresses: [], token: undefined });
  open.push(page);
  page.on('console', (message) => {
    // Chromium writes a line for each answer that is no success.
    const answer = /^Failed to load resource: the server responded with a status of 40[134] /;
    const text = message.text();
    if (['error', 'warning'].includes(message.type()) && !answer.test(text))
      page.complaints.push(text);
  });
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('request', (request) => {
    page.addresses.push(request.url());
    const { authorization } = request.headers();
    if (authorization) page.token = authorization.split(' ')[1];
  });
  await page.goto(url);
  return page;
}

async function signIn(user, options) {
  const page = await visit(options);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: new RegExp(`^${user}`, 'i') }).click();
  await page.getByText(`This is ${user}.`).waitFor();
  return page;
}

const tasks = (page, list) => page.locator(`#${list} .task`).allTextContents();

async function sees(page, mine, shared) {
  await page.locator('#busy').waitFor({ state: 'hidden' });
  assert.deepEqual([await tasks(page, 'mine'), await tasks(page, 'shared')], [mine, shared]);
}

// The page says this, and shows no row.
async function refused(page, title, text) {
  const alert = page.getByRole('alert');
  await alert.getByText(title).waitFor();
  assert.equal(await page.locator('#alert-text').textContent(), text);
  await sees(page, [], []);
  assert.equal(await page.getByText('No rows.').filter({ visible: true }).count(), 2);
}

const send = (page, what) => page.getByRole('radio', { name: what }).check();
const problem = (page) => page.locator('#status dt:text-is("problem") + dd').textContent();
const todo = (page, task) => page.locator('li', { hasText: task });

test('a stranger is asked to sign in, and nothing is asked of the database', async () => {
  const page = await visit();
  await page.getByRole('heading', { name: 'Whose todos?' }).waitFor();
  assert.equal(await page.locator('#signed-in').isVisible(), false);
  assert.deepEqual(
    page.addresses.filter((address) => address.includes('/api/')),
    [],
  );
});

test('each user sees their own todos and those of their organization', async () => {
  const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((it) => signIn(it)));
  await sees(alice, OWN.alice, ACME);
  await sees(bob, OWN.bob, ACME);
  await sees(carol, [], []);
  assert.equal(await alice.locator('#user p').innerText(), 'Alice of Acme · role authenticated');
  await carol.getByText('You belong to no organization').waitFor();
  await carol.getByText('Nothing to do.').first().waitFor();
  await alice.getByRole('button', { name: 'Sign out' }).click();
  await alice.getByRole('heading', { name: 'Whose todos?' }).waitFor();
  assert.deepEqual(await tasks(alice, 'mine'), []);
});

test('todos are added, ticked and deleted, and the others see the organization’s only', async () => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((it) => signIn(it)));
  const markup = '<img src=x onerror="console.error(1)"> & <b>bold</b>';
  await alice.getByLabel('New todo of yours').fill(markup);
  await alice.locator('#mine').getByRole('button', { name: 'Add' }).click();
  await todo(alice, markup).waitFor();
  await alice.getByLabel('New todo of your organization').fill('Book a room');
  await alice.locator('#shared').getByRole('button', { name: 'Add' }).click();
  await todo(alice, 'Book a room').waitFor();
  await alice.getByRole('checkbox', { name: 'Call the dentist' }).click();
  await alice.getByRole('button', { name: 'Delete “Buy milk”' }).click();
  await todo(alice, 'Buy milk').waitFor({ state: 'detached' });
  await alice.getByRole('checkbox', { name: 'Write the release notes' }).click();
  await alice.locator('#shared input:checked + .task', { hasText: 'Write the' }).waitFor();

  const mine = [...OWN.alice.slice(1), markup];
  await alice.getByRole('button', { name: 'Refresh' }).click();
  await sees(alice, mine, [...ACME, 'Book a room']);
  assert.equal(await alice.getByRole('checkbox', { name: 'Call the dentist' }).isChecked(), true);
  await bob.getByRole('button', { name: 'Refresh' }).click();
  await todo(bob, 'Book a room').waitFor();
  await sees(bob, OWN.bob, [...ACME, 'Book a room']);
  assert.equal(await todo(bob, 'Book a room').locator('.who').textContent(), 'alice');
  assert.equal(
    await bob.getByRole('checkbox', { name: 'Write the release notes' }).isChecked(),
    true,
  );
});

test('a member deletes what they added to the organization, and with the permission all of it', async () => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((it) => signIn(it)));
  await bob.getByRole('button', { name: 'Delete “Renew the certificates”' }).click();
  await bob.getByRole('alert').getByText('No policy gives you that todo').waitFor();
  await sees(bob, OWN.bob, ACME);
  await alice.getByRole('button', { name: 'Delete “Write the release notes”' }).click();
  await todo(alice, 'Write the release notes').waitFor({ state: 'detached' });
  await bob.getByRole('button', { name: 'Refresh' }).click();
  await todo(bob, 'Write the release notes').waitFor({ state: 'detached' });
  await sees(bob, OWN.bob, ACME.slice(0, 2));
});

test('a broken signature, another user in the payload and no token get no rows', async () => {
  const alice = await signIn('alice');
  const not = 'The database does not accept this token';
  await send(alice, 'broken signature');
  await refused(alice, not, 'invalid JWT signature (SQLSTATE 28000)');
  assert.match(await problem(alice), /^invalid JWT signature \(signature: /);

  await send(alice, 'user changed to bob');
  await refused(alice, not, 'invalid JWT signature (SQLSTATE 28000)');
  assert.match(await alice.locator('#claims').textContent(), /"sub": "bob"/);
  assert.equal(await alice.getByText('This is bob.').isVisible(), false);

  await send(alice, 'no token');
  await refused(
    alice,
    'The database does not allow that',
    'permission denied for table todos (SQLSTATE 42501)',
  );
  assert.match(await problem(alice), /^No token has been presented/);

  await send(alice, 'my token');
  await alice.getByText('This is alice.').waitFor();
  await sees(alice, OWN.alice, ACME);
  assert.equal(await alice.getByRole('alert').isVisible(), false);
});

test('an expired token is told, and a new one is had without signing in', async () => {
  const alice = await signIn('alice');
  await alice.getByRole('button', { name: 'Get a token for 5 seconds' }).click();
  await alice.getByText(/^Expires in [1-5] s\.$/).waitFor();
  await alice.getByText('This is alice.').waitFor();
  await sees(alice, OWN.alice, ACME);
  const text = 'The database says: Token used after it has expired (SQLSTATE 28000)';
  await refused(alice, 'Your token has expired', text);
  assert.match(await problem(alice), /^Token used after it has expired \(time: /);
  assert.match(await alice.locator('#detail').innerText(), /^DETAIL: time: .*\nHINT: /);
  await alice.getByRole('button', { name: 'Get a new one' }).click();
  await alice.getByText(/^Expires in 9 min/).waitFor();
  await sees(alice, OWN.alice, ACME);
});

test('the keyboard is enough', async () => {
  const page = await visit();
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  await press('Tab', 'Enter');
  await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
  await press('Tab', 'Tab', 'Enter'); // Bob is the second
  await page.getByText('This is bob.').waitFor();
  const focused = () =>
    page.evaluate(
      () =>
        document.activeElement.labels?.[0]?.innerText.trim() || document.activeElement.ariaLabel,
    );
  await press('Tab', 'Tab', 'Tab');
  assert.equal(await focused(), 'Repair the bicycle');
  await press('Space');
  await page.locator('#mine input:checked + .task', { hasText: 'Repair the bicycle' }).waitFor();
  await press('Tab', 'Enter');
  await todo(page, 'Repair the bicycle').waitFor({ state: 'detached' });
  assert.equal(await focused(), 'Delete “Find a present for Alice”');
  await press('Tab');
  assert.equal(await focused(), 'New todo of yours');
  await page.keyboard.type('Water the plants');
  await press('Enter');
  await todo(page, 'Water the plants').waitFor();
  assert.equal(await focused(), 'New todo of yours');
  await sees(page, ['Find a present for Alice', 'Water the plants'], ACME);
  await page.getByRole('radio', { name: 'my token' }).focus();
  await press('ArrowRight');
  await refused(
    page,
    'The database does not accept this token',
    'invalid JWT signature (SQLSTATE 28000)',
  );
  assert.equal(await focused(), 'broken signature');
});

test('a sign-in that was not begun here, or is given up, ends in words', async () => {
  const page = await visit();
  for (const begun of [false, true]) {
    if (begun) {
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
    }
    const { issuer } = await (await fetch(`${url}/config.json`)).json();
    await page.goto(`${url}/?${new URLSearchParams({ code: 'x', state: 'y', iss: issuer })}`);
    await page.getByText('This sign-in was not begun here.').waitFor();
    assert.equal(page.url(), `${url}/`);
  }
  // An answer that belongs to another sign-in: its nonce is not the one of this.
  await page.route('**/token', async (route) => {
    const response = await route.fetch();
    const tokens = await response.json();
    const [header, payload, signature] = tokens.id_token.split('.');
    const claims = { ...JSON.parse(Buffer.from(payload, 'base64url')), nonce: 'another' };
    const other = Buffer.from(JSON.stringify(claims)).toString('base64url');
    await route.fulfill({
      response,
      json: { ...tokens, id_token: [header, other, signature].join('.') },
    });
  });
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: /^Alice/ }).click();
  await page.getByText('belongs to another sign-in').waitFor();
  assert.equal(await page.locator('#signed-in').isVisible(), false);

  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByText('You did not sign in').waitFor();
  assert.equal(page.url(), `${url}/`);
});

test('the token is nowhere but in the page’s memory', async () => {
  const page = await signIn('alice');
  const stored = () =>
    JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]);
  assert.equal(await page.evaluate(stored), '[{},{},""]');
  await page.reload();
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
});

test('the handler takes nothing from a request but the token and the todo', async () => {
  const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((it) => signIn(it)));
  const ask = async ({ token }, method, path, body) => {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    if (typeof body === 'object') body = JSON.stringify(body);
    const response = await fetch(`${url}/api/${path}`, { method, headers, body });
    return [response.status, await response.json()];
  };
  const [, [added]] = await ask(bob, 'POST', 'todos', {
    task: "'); DROP TABLE todos; --",
    user_id: 'alice',
    org_id: 'org_other',
    done: true,
  });
  assert.deepEqual(
    { ...added, id: 0 },
    {
      id: 0,
      user_id: 'bob',
      org_id: null,
      task: "'); DROP TABLE todos; --",
      done: false,
    },
  );
  const [hers] = (await ask(alice, 'GET', 'todos'))[1];
  const gone = [404, { message: 'No policy gives you that todo' }];
  const policy = 'new row violates row-level security policy for table "todos"';
  const check = 'new row for relation "todos" violates check constraint "todos_task_check"';
  const nothing = [404, { message: 'There is nothing at this address' }];
  for (const [who, method, path, body, expected] of [
    [bob, 'PATCH', `todos/${hers.id}`, { done: true }, gone],
    [bob, 'DELETE', `todos/${hers.id}`, undefined, gone],
    [
      carol,
      'POST',
      'todos',
      { task: 'x', shared: true },
      [403, { code: '42501', message: policy }],
    ],
    [carol, 'POST', 'todos', { task: '' }, [422, { code: '23514', message: check }]],
    [carol, 'POST', 'todos', undefined, [422, { code: '23514', message: check }]],
    [carol, 'POST', 'todos', null, [422, { code: '23514', message: check }]],
    [carol, 'POST', 'todos', '{', [400, { message: 'That is not JSON, or too much of it' }]],
    [
      carol,
      'POST',
      'todos',
      { task: 'x'.repeat(20_000) },
      [400, { message: 'That is not JSON, or too much of it' }],
    ],
    [carol, 'DELETE', 'todos', undefined, nothing],
    [carol, 'GET', 'constructor', undefined, nothing],
    [carol, 'GET', 'todos/1', undefined, nothing],
    [
      {},
      'GET',
      'me',
      undefined,
      [200, [{ role: 'anonymous', user_id: null, name: null, org_id: null, org_name: null }]],
    ],
  ]) {
    const answer = await ask(who, method, path, body);
    assert.deepEqual(answer, expected, `${method} ${path} ${body}`);
  }
  // What is not about the request is for the log, in which no token ever is.
  await admin('ALTER TABLE todos RENAME TO gone');
  const silent = [500, { message: 'The database cannot answer just now' }];
  const broken = await ask(bob, 'GET', 'todos').finally(() =>
    admin('ALTER TABLE gone RENAME TO todos'),
  );
  assert.deepEqual(broken, silent);
  const log = await readFile(process.env.TODO_LOG, 'utf8');
  assert.match(log, /^42P01 relation "todos" does not exist/m);
  assert.doesNotMatch(log, /eyJ/);
});

test('the connections of the pool keep nobody', async () => {
  const pages = await Promise.all(['alice', 'bob', 'carol'].map((it) => signIn(it)));
  const people = [
    ...pages.map(({ token }) => token),
    `${pages[0].token.slice(0, -2)}AA`,
    undefined,
  ];
  const expected = ['alice', 'bob', 'carol', 401, null];
  for (let round = 0; round < 20; round++) {
    const answers = people.map(async (token) => {
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const response = await fetch(`${url}/api/me`, { headers });
      return response.ok ? (await response.json())[0].user_id : response.status;
    });
    assert.deepEqual(await Promise.all(answers), expected);
  }
  // The same connections, by way of the pooler.
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
  const ask = () => pool.query('SELECT current_user AS role, auth.user_id() AS id');
  for (const { rows } of await Promise.all(Array.from({ length: 10 }, ask))) {
    assert.deepEqual(rows, [{ role: 'todo_app', id: null }]);
  }
  await pool.end();
});

// TODO_SCREENSHOTS: a folder to look at them.
for (const colorScheme of ['light', 'dark']) {
  for (const [name, viewport] of Object.entries({
    desktop: { width: 1200, height: 900 },
    phone: { width: 360, height: 740 },
  })) {
    test(`${name}, ${colorScheme}: it fits, and axe finds nothing against it`, async () => {
      const look = { viewport, colorScheme };
      const fine = async (page, state) => {
        if (process.env.TODO_SCREENSHOTS) {
          const path = join(process.env.TODO_SCREENSHOTS, `${name}-${colorScheme}-${state}.png`);
          await page.screenshot({ path, fullPage: true });
        }
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        const found = violations.map(
          ({ id, nodes }) => `${state}: ${id}: ${nodes.map(({ html }) => html)}`,
        );
        assert.deepEqual(found, []);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= viewport.width, `${state}: ${wide} pixels wide`);
      };
      const page = await visit(look);
      await page.getByRole('button', { name: 'Sign in' }).waitFor();
      await fine(page, 'welcome');
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
      await fine(page, 'form');
      await page.getByRole('button', { name: /^Alice/ }).click();
      await page.getByText('This is alice.').waitFor();
      await sees(page, OWN.alice, ACME);
      await fine(page, 'rows');
      await send(page, 'user changed to bob');
      await page.getByRole('alert').waitFor();
      await sees(page, [], []);
      await fine(page, 'refused');
      await fine(await signIn('carol', look), 'empty');
    });
  }
}
