// The OpenID provider of the example, on loopback, in place of yours. It is a real one (npm `oidc-provider`):
// the page signs in at it by the authorization-code flow with PKCE, and the database fetches its keys. Only its
// users need no password.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { errors, Provider } from 'oidc-provider';

const users = {
  alice: {
    name: 'Alice',
    org_id: 'org_acme',
    org_name: 'Acme',
    permissions: ['todos:delete'],
    about: 'of Acme, whose todos she may delete',
  },
  bob: { name: 'Bob', org_id: 'org_acme', org_name: 'Acme', permissions: [], about: 'of Acme' },
  carol: { name: 'Carol', permissions: [], about: 'on her own' },
};

// What a token can be for: the seconds that it lives. The page asks for the brief one to see it expire.
const resources = { 'urn:todo': 600, 'urn:todo:brief': 5 };

export async function startProvider({ port, clientId, pages }) {
  const issuer = `http://127.0.0.1:${port}`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = { ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' };

  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: clientId,
        token_endpoint_auth_method: 'none', // a page keeps no secret: PKCE stands in for it
        redirect_uris: pages.map((page) => `${page}/`),
        grant_types: ['authorization_code'],
        response_types: ['code'],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    clientBasedCORS: (ctx, origin) => pages.includes(origin),
    jwks: { keys: [{ ...key, kid: randomUUID() }] },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    findAccount: (ctx, id) =>
      Object.hasOwn(users, id) ? { accountId: id, claims: () => ({ sub: id }) } : undefined,
    // What the database reads: auth.claim('name'), auth.org_id(), auth.org_slug(), auth.has_permission().
    extraTokenClaims: (ctx, { accountId }) => ({ ...users[accountId], about: undefined }),
    features: {
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => {
          if (!Object.hasOwn(resources, resource)) throw new errors.InvalidTarget();
          return {
            audience: 'todo',
            scope: '',
            accessTokenFormat: 'jwt',
            accessTokenTTL: resources[resource],
            jwt: { sign: { alg: 'ES256' } },
          };
        },
      },
    },
    interactions: { url: (ctx, { uid }) => `/sign-in/${uid}` },
    // The page is the provider's own, so nobody is asked whether it may know who they are.
    loadExistingGrant: async ({ oidc }) => {
      const grant = new oidc.provider.Grant({
        clientId: oidc.client.clientId,
        accountId: oidc.session.accountId,
      });
      grant.addOIDCScope('openid');
      await grant.save();
      return grant;
    },
    ttl: {
      AccessToken: (ctx, { resourceServer }) => resourceServer?.accessTokenTTL ?? 600,
      AuthorizationCode: 60,
      Grant: 3600,
      IdToken: 600,
      Interaction: 600,
      Session: 3600,
    },
  });

  const oidc = provider.callback();
  const server = createServer(async (request, response) => {
    if (!request.url.startsWith('/sign-in/')) return oidc(request, response);
    try {
      if (request.method === 'POST') {
        const user = await chosen(request);
        const result = user
          ? { login: { accountId: user } }
          : { error: 'access_denied', error_description: 'You did not sign in' };
        await provider.interactionFinished(request, response, result);
      } else {
        await provider.interactionDetails(request, response); // or it throws: there is no such sign-in
        response.writeHead(200, headers(pages)).end(form);
      }
    } catch {
      response.writeHead(400, headers(pages)).end('This sign-in is over: go back to the page.');
    }
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return issuer;
}

async function chosen(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > 1000) throw new Error('too long');
  }
  const user = new URLSearchParams(text).get('user');
  return Object.hasOwn(users, user) ? user : undefined;
}

const style = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0; min-height: 100vh; display: grid; place-content: center; padding: 1rem; box-sizing: border-box;
  background: light-dark(#eef1f6, #12151b); color: light-dark(#1a2030, #e7eaf0) }
main { width: min(22rem, 100%); padding: 2rem; border-radius: 1rem; background: light-dark(#fff, #1c212b);
  box-shadow: 0 8px 32px #0003; box-sizing: border-box }
h1 { margin: 0; font-size: 1.4rem }
p { margin: .25rem 0 1.25rem; color: light-dark(#556, #aab2c0) }
button { display: block; width: 100%; margin: .6rem 0 0; padding: .75rem 1rem; border-radius: .6rem; font: inherit;
  text-align: left; cursor: pointer; border: 1px solid light-dark(#ccd3df, #3a4252); color: inherit;
  background: light-dark(#f8f9fc, #252b37) }
button:hover { border-color: light-dark(#3156d3, #8ea9ff) }
button:focus-visible { outline: 3px solid light-dark(#3156d3, #8ea9ff); outline-offset: 2px }
button.cancel { border: 0; background: none; text-align: center; color: light-dark(#556, #aab2c0) }
span { color: light-dark(#556, #aab2c0) }
`;
const hash = createHash('sha256').update(style).digest('base64');

const headers = (pages) => ({
  'content-type': 'text/html; charset=utf-8',
  // The form's answer leads back to the page.
  'content-security-policy':
    `default-src 'none'; style-src 'sha256-${hash}'; form-action 'self' ${pages.join(' ')}; ` +
    "base-uri 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'same-origin',
  'cache-control': 'no-store',
});

const button = ([id, { name, about }]) =>
  `<button name="user" value="${id}"><b>${name}</b> <span>${about}</span></button>`;

const form = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in</title>
<style>${style}</style>
<main>
  <h1>Who are you?</h1>
  <p>The example’s own provider takes your word for it.</p>
  <form method="post">
    ${Object.entries(users).map(button).join('\n    ')}
    <button class="cancel" name="user" value="">Cancel</button>
  </form>
</main>
</html>
`;
