// The page. It keeps the user's token in memory, sends it with each request, and shows what comes back: rows, or
// what the database has against the token. Whatever is shown goes through textContent.
import { arrive, claimsOf, leave, withBrokenSignature, withClaims } from './sign-in.js';

const $ = (id) => document.getElementById(id);
const lists = { mine: $('mine'), shared: $('shared') };

let config;
let token; // the user's
let sent; // what is sent instead of it, when the user tries that
let expiry; // a timer

// Requests

async function api(method, path, body) {
  const asked = sent;
  const headers = { 'content-type': 'application/json' };
  if (sent) headers.authorization = `Bearer ${sent}`;
  const request = fetch(`/api/${path}`, { method, headers, body: body && JSON.stringify(body) });
  const response = await request.catch(() => {
    throw { title: 'The server cannot be reached', message: 'Is it still running?' };
  });
  const answer = await response.json();
  // What comes for a token that is no longer sent is not shown: nobody waits for it.
  if (asked !== sent) return new Promise(() => {});
  if (!response.ok) throw answer;
  return answer;
}

// Runs what a person asked for, and says what became of it.
async function attempt(work) {
  $('alert').hidden = true;
  try {
    return await work();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

const EXPIRED = 'Token used after it has expired';

function complain({ title, message, code }) {
  const text = code ? `${message} (SQLSTATE ${code})` : message;
  const expired = message === EXPIRED;
  const titles = {
    28000: 'The database does not accept this token',
    42501: 'The database does not allow that',
  };
  $('alert-title').textContent = expired
    ? 'Your token has expired'
    : (title ?? titles[code] ?? 'That did not work');
  $('alert-text').textContent = expired ? `The database says: ${text}` : text;
  const [label, act] = expired
    ? ['Get a new one', () => leave(config, { prompt: 'none' })]
    : sent !== token
      ? ['Send my token again', () => disguise('mine')]
      : code === '28000'
        ? ['Sign in again', () => leave(config, { prompt: 'login' })]
        : [];
  const action = $('alert-action');
  action.hidden = !label;
  action.textContent = label;
  action.onclick = () => attempt(act);
  $('alert').hidden = false;
}

// The lists

function item(todo) {
  const li = $('todo').content.firstElementChild.cloneNode(true);
  const box = li.querySelector('input');
  li.querySelector('.task').textContent = todo.task;
  li.querySelector('.who').textContent = todo.org_id === null ? '' : todo.user_id;
  box.checked = todo.done;
  box.onchange = () =>
    attempt(async () => {
      const done = box.checked;
      box.checked = !done; // until the database has said so
      const [now] = await api('PATCH', `todos/${todo.id}`, { done });
      box.checked = now.done;
    });
  const button = li.querySelector('.delete');
  button.setAttribute('aria-label', `Delete “${todo.task}”`);
  button.onclick = () =>
    attempt(async () => {
      await api('DELETE', `todos/${todo.id}`);
      const section = li.closest('section');
      const next = (li.nextElementSibling ?? li.previousElementSibling)?.querySelector('.delete');
      const focused = li.contains(document.activeElement);
      li.remove();
      settle(section);
      if (focused) (next ?? section.querySelector('form input')).focus();
    });
  return li;
}

const settle = (section) => {
  section.querySelector('.empty').hidden = section.querySelector('li') !== null;
};

for (const [name, section] of Object.entries(lists)) {
  const form = section.querySelector('form');
  form.onsubmit = (event) => {
    event.preventDefault();
    attempt(async () => {
      const { task } = form.elements;
      const [todo] = await api('POST', 'todos', { task: task.value, shared: name === 'shared' });
      section.querySelector('ul').append(item(todo));
      settle(section);
      form.reset();
      if (form.contains(document.activeElement)) task.focus();
    });
  };
}

function showUser(me) {
  $('user-name').textContent = me?.name ?? me?.user_id ?? 'Nobody';
  $('user-about').textContent = me
    ? `${me.org_name ? `of ${me.org_name} ` : ''}· role ${me.role}`
    : '';
  $('shared-title').textContent = me?.org_name ? `${me.org_name}’s` : 'Your organization’s';
}

function showTodos(todos, me) {
  for (const [name, section] of Object.entries(lists)) {
    const rows = (todos ?? []).filter(({ org_id }) => (name === 'mine') === (org_id === null));
    section.querySelector('ul').replaceChildren(...rows.map(item));
    const alone = name === 'shared' && me !== undefined && me.org_id === null;
    section.querySelector('.none').hidden = todos !== undefined;
    section.querySelector('.empty').hidden = !todos || rows.length > 0 || alone;
    section.querySelector('form').hidden = !todos || alone;
    const note = section.querySelector('.alone');
    if (note) note.hidden = !alone;
  }
}

// What the database thinks of the token

function showToken() {
  const claims = sent ? claimsOf(sent) : undefined;
  $('claims').textContent = claims ? JSON.stringify(claims, null, 2) : 'Nothing is sent.';
  const left = claims ? Math.ceil(claims.exp - Date.now() / 1000) : 0;
  const minutes = Math.floor(left / 60);
  const time = minutes > 0 ? `${minutes} min ${left % 60} s` : `${left} s`;
  $('time-left').textContent = !claims ? '' : left > 0 ? `Expires in ${time}.` : 'Expired.';
}

function showStatus({ status, refusal } = {}) {
  const verdict = $('verdict');
  verdict.className = refusal ? 'bad' : 'good';
  verdict.textContent = refusal
    ? `${refusal.message} (SQLSTATE ${refusal.code})`
    : status
      ? `This is ${status.subject ?? 'nobody'}.`
      : '';
  const more = Object.entries({ DETAIL: refusal?.detail, HINT: refusal?.hint });
  $('detail').textContent = more
    .filter(([, text]) => text)
    .map(([name, text]) => `${name}: ${text}`)
    .join('\n');
  const known = Object.entries(status ?? {}).filter(([, value]) => value !== null);
  $('status').replaceChildren(
    ...known.flatMap(([name, value]) => {
      const [term, text] = ['dt', 'dd'].map((tag) => document.createElement(tag));
      term.textContent = name.replace('_', ' ');
      text.textContent = name.endsWith('_at') ? new Date(value).toLocaleString() : value;
      return [term, text];
    }),
  );
}

// Everything, with the token that is sent now.
async function refresh() {
  $('busy').hidden = false;
  clearTimeout(expiry);
  await attempt(async () => {
    showToken();
    const [me, todos, status] = await Promise.allSettled([
      api('GET', 'me'),
      api('GET', 'todos'),
      api('GET', 'status'),
    ]);
    // Nothing of an earlier token stays on the screen.
    showUser(me.value?.[0]);
    showTodos(todos.value, me.value?.[0]);
    showStatus(status.value);
    for (const { reason } of [todos, me, status]) if (reason) throw reason;
    if (!sent) return;
    // When it is over, the database is asked once more; and again, if its clock is behind.
    const left = claimsOf(sent).exp * 1000 - Date.now();
    expiry = setTimeout(refresh, left > 0 ? Math.min(left + 300, 2 ** 31 - 1) : 5000);
  });
  $('busy').hidden = true;
}

setInterval(() => token && showToken(), 1000);

// Somebody else, for this user to pretend to be.
const other = () => (claimsOf(token).sub === 'bob' ? 'alice' : 'bob');

async function disguise(how) {
  const tokens = {
    mine: () => token,
    broken: () => withBrokenSignature(token),
    changed: () => withClaims(token, { sub: other() }),
    none: () => undefined,
  };
  document.querySelector(`#disguise [value=${how}]`).checked = true;
  sent = tokens[how]();
  await refresh();
}

$('disguise').onchange = (event) => disguise(event.target.value);
$('refresh').onclick = refresh;
$('brief').onclick = () =>
  attempt(() => leave(config, { prompt: 'none', resource: `${config.resource}:brief` }));
$('sign-in').onclick = () => attempt(() => leave(config, { prompt: 'login' }));
$('sign-out').onclick = () => {
  clearTimeout(expiry);
  token = sent = undefined;
  showTodos();
  $('alert').hidden = $('busy').hidden = true;
  showSignedIn(false);
  $('sign-in').focus();
};

function showSignedIn(yes) {
  $('user').hidden = $('signed-in').hidden = !yes;
  $('welcome').hidden = yes;
}

await attempt(async () => {
  config = await (await fetch('/config.json')).json();
  token = await arrive(config);
});
$('busy').hidden = true;
showSignedIn(token !== undefined);
if (token) {
  $('changed').textContent = `user changed to ${other()}`;
  await disguise('mine');
}
