// Signing in: the authorization-code flow of OpenID Connect with PKCE, as a page does it that has no secret.
// The token is returned, and stored nowhere: it lives as long as the page.

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '');

const home = `${location.origin}/`;

async function discover({ issuer }) {
  const response = await fetch(`${issuer}/.well-known/openid-configuration`);
  const about = await response.json();
  if (about.issuer !== issuer) throw new Error('The provider says that it is another one.');
  return about;
}

// Leaves the page for the provider's. `more` are parameters of its own: { prompt: 'login' } asks who it is.
export async function leave(config, more) {
  const { authorization_endpoint } = await discover(config);
  const pending = {
    state: random(),
    nonce: random(),
    verifier: random(),
    resource: more.resource ?? config.resource,
  };
  // In this tab only, and only until the answer comes.
  sessionStorage.setItem('sign-in', JSON.stringify(pending));
  const challenge = await crypto.subtle.digest(
    'SHA-256',
    new TextEncoder().encode(pending.verifier),
  );
  const url = new URL(authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: config.clientId,
    redirect_uri: home,
    response_type: 'code',
    scope: 'openid',
    resource: pending.resource,
    state: pending.state,
    nonce: pending.nonce,
    code_challenge: base64url(new Uint8Array(challenge)),
    code_challenge_method: 'S256',
    ...more,
  });
  location.assign(url);
}

// The access token, if the page was opened by the provider's answer; undefined, if it was not.
export async function arrive(config) {
  const answer = new URLSearchParams(location.search);
  if (!answer.has('state')) return undefined;
  history.replaceState(null, '', home); // the code is of no use to whoever reads the address bar
  const pending = JSON.parse(sessionStorage.getItem('sign-in'));
  sessionStorage.removeItem('sign-in');
  if (answer.get('state') !== pending?.state || answer.get('iss') !== config.issuer) {
    throw new Error('This sign-in was not begun here.');
  }
  if (answer.get('error') === 'login_required') {
    await leave(config, { prompt: 'login', resource: pending.resource });
    return new Promise(() => {}); // the page is on its way out
  }
  if (answer.has('error')) throw new Error(answer.get('error_description') ?? answer.get('error'));

  const { token_endpoint } = await discover(config);
  const response = await fetch(token_endpoint, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: config.clientId,
      redirect_uri: home,
      code: answer.get('code'),
      code_verifier: pending.verifier,
      resource: pending.resource,
    }),
  });
  const tokens = await response.json();
  if (!response.ok) throw new Error(tokens.error_description ?? 'The provider gave no token.');
  // The ID token came from the provider itself, so these are what is left to check.
  const { iss, aud, nonce } = claimsOf(tokens.id_token);
  if (iss !== config.issuer || aud !== config.clientId || nonce !== pending.nonce) {
    throw new Error('The provider’s answer belongs to another sign-in.');
  }
  return tokens.access_token;
}

// What a token says, as anybody can read it. Only to show it: whether it is true, the database says.
export function claimsOf(token) {
  const bytes = atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0))));
}

// The same token with other claims, as somebody would make it who has no key.
export function withClaims(token, claims) {
  const [header, , signature] = token.split('.');
  const payload = { ...claimsOf(token), ...claims };
  return [header, base64url(new TextEncoder().encode(JSON.stringify(payload))), signature].join(
    '.',
  );
}

// The same token with one character of its signature changed.
export function withBrokenSignature(token) {
  const [header, payload, signature] = token.split('.');
  const first = signature[0] === 'A' ? 'B' : 'A';
  return [header, payload, first + signature.slice(1)].join('.');
}
