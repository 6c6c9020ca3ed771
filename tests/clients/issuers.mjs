// The issuers of the tests, on loopback: a real OpenID provider (npm `oidc-provider`), whose keys the
// database follows by discovery, and an application's own issuer, which signs with `jose` and whose public
// key is in the provider's row.
//
// Prints one line of JSON when it is up, and ends with its standard input: never later than who started it.
// Clients in every language ask it over http:
//
//   GET  /token?user=alice&kind=rs256   a token, as text; `tokens` below has the kinds
//   GET  /oidc                          the provider's address
//   POST /rotate                        the provider signs with new keys, and still publishes the old ones
//   POST /retire                        the provider publishes the new ones only
import { createServer } from 'node:http';
import { once } from 'node:events';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { Provider } from 'oidc-provider';

// Each user is a client of the provider that asks for tokens with its own credentials: `sub` is its name.
const users = ['alice', 'bob', ...Array.from({ length: 20 }, (_, i) => `user-${i + 1}`)];

async function listen(handler) {
  const server = createServer(handler).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

async function newKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: crypto.randomUUID() };
}

const newKeys = () => Promise.all(['RS256', 'ES256'].map(newKey));

// The provider takes its keys when it is made, so a rotation makes a new one at the same address. It signs
// with the first key of an algorithm.
let provider, keys;
const oidc = await listen((request, response) => provider(request, response));

function publish(these) {
  keys = these;
  const about = new Provider(oidc, {
    clients: users.map((user) => ({
      client_id: user,
      client_secret: 'secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    cookies: { keys: ['unused'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        // Two APIs of one application, which differ in the algorithm of their tokens.
        getResourceServerInfo: (_, resource) => ({
          audience: 'app',
          scope: '',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: resource.split('/').at(-1).toUpperCase() } },
        }),
      },
    },
    jwks: { keys },
    ttl: { ClientCredentials: 3600 },
  });
  provider = about.callback();
}

publish(await newKeys());

// As an application asks for a token.
async function fromProvider(user, alg) {
  const response = await fetch(`${oidc}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${user}:secret`)}` },
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      resource: `https://api.example.com/${alg}`,
    }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(answer));
  return answer.access_token;
}

const ownIssuer = 'https://id.example.com';
const ownKey = await newKey('Ed25519');

function signed(key, issuer, user, seconds = 600, audience = 'app', claims = {}) {
  const now = Math.floor(Date.now() / 1000);
  return new SignJWT({ role: 'authenticated', ...claims })
    .setProtectedHeader({ alg: key.alg, kid: key.kid })
    .setIssuer(issuer)
    .setSubject(user)
    .setAudience(audience)
    .setIssuedAt(now + seconds - 600)
    .setExpirationTime(now + seconds)
    .sign(key);
}

const tokens = {
  rs256: (user) => fromProvider(user, 'rs256'),
  es256: (user) => fromProvider(user, 'es256'),
  jose: (user) => signed(ownKey, ownIssuer, user),
  // With the claims that the one who asks has in `claims`.
  claims: (user, claims) => signed(keys[0], claims.iss ?? oidc, user, 600, 'app', claims),
  // What must be refused. The allowance for clocks that differ is a minute.
  expired: (user) => signed(keys[0], oidc, user, -61),
  forged: async (user) => signed({ ...(await newKey('RS256')), kid: keys[0].kid }, oidc, user),
  elsewhere: (user) => signed(keys[0], oidc, user, 600, 'another application'),
  stranger: (user) => signed(keys[0], 'https://stranger.example.com', user),
};

const changes = {
  '/rotate': async () => publish([...(await newKeys()), ...keys]),
  '/retire': async () => publish(keys.slice(0, 2)),
};

const control = await listen(async (request, response) => {
  try {
    const { pathname, searchParams } = new URL(request.url, 'http://127.0.0.1');
    if (request.method === 'POST') await changes[pathname]();
    const { user, kind, claims } = Object.fromEntries(searchParams);
    const answers = {
      '/token': () => tokens[kind](user, JSON.parse(claims ?? '{}')),
      '/oidc': () => oidc,
    };
    response.end((await answers[pathname]?.()) ?? '');
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});

const { d: _, ...ownPublicKey } = ownKey;
console.log(JSON.stringify({ control, oidc, own: { issuer: ownIssuer, jwk: ownPublicKey } }));
process.stdin.on('end', () => process.exit()).resume();
