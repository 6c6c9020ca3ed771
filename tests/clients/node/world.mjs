// What is around a client: the issuers, and the database's administrator.
import pg from 'pg';

// One user's token of this kind; issuers.mjs has the kinds.
export async function token(user, kind = 'rs256', claims = {}) {
  const query = new URLSearchParams({ user, kind, claims: JSON.stringify(claims) });
  const response = await fetch(`${process.env.ISSUERS}/token?${query}`);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return text;
}

// The OpenID provider begins to sign with new keys (`rotate`), or stops publishing the old ones (`retire`).
export async function provider(change) {
  const response = await fetch(`${process.env.ISSUERS}/${change}`, { method: 'POST' });
  if (!response.ok) throw new Error(await response.text());
}

// Runs statements as a superuser, and not through the pooler. admin.sql has functions for it.
export async function admin(sql, values) {
  const db = new pg.Client({ connectionString: process.env.ADMIN_URL });
  await db.connect();
  try {
    return (await db.query(sql, values)).rows;
  } finally {
    await db.end();
  }
}

// What the server said, of which libraries make errors of their own.
export const said = (error) => error.cause ?? error;
