// What is around a client: the issuers, and the database's administrator.
import pg from 'pg';

// One user's token of this kind; issuers.mjs has the kinds.
export async function token(user, kind = 'rs256') {
  const response = await fetch(`${process.env.ISSUERS}/token?user=${user}&kind=${kind}`);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return text;
}

// The OpenID provider begins to sign with new keys (`rotate`), or stops publishing the old ones (`retire`).
export async function provider(change) {
  const response = await fetch(`${process.env.ISSUERS}/${change}`, { method: 'POST' });
  if (!response.ok) throw new Error(await response.text());
}

// Runs statements as a superuser, and not through the pooler.
export async function admin(sql, values) {
  const db = new pg.Client({ connectionString: process.env.ADMIN_URL });
  await db.connect();
  try {
    return (await db.query(sql, values)).rows;
  } finally {
    await db.end();
  }
}

// Keys are not fetched again within 30 seconds. This is a minute later.
export const aMinuteLater = () =>
  admin(`UPDATE auth.provider_keys SET fetched_at = fetched_at - interval '1 minute',
    checked_at = checked_at - interval '1 minute', next_at = next_at - interval '1 minute'`);

// What the server said, of which libraries make errors of their own.
export const said = (error) => error.cause ?? error;
