// Signs one token per algorithm with the npm package `jose`, and prints one JSON array: the
// vectors on standard input (those of pyjwt.py), then its own. Fresh keys on every run; the
// private ones are thrown away. See README.md beside this file.
import { readFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { SignJWT, base64url, exportJWK, generateKeyPair, jwtVerify } from "jose";

const { version } = createRequire(import.meta.url)("jose/package.json");
const BYTES = { HS256: 32, HS384: 48, HS512: 64 };
const ALGORITHMS = [
  "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
  "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512",
];

async function generate(alg) {
  if (BYTES[alg]) {
    const secret = randomBytes(BYTES[alg]);
    return { sign: secret, verify: secret, jwk: { kty: "oct", k: base64url.encode(secret) } };
  }
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { sign: privateKey, verify: publicKey, jwk: await exportJWK(publicKey) };
}

async function vector(alg) {
  const kid = `jose-${alg}`;
  const claims = { sub: `user-${alg}`, iss: "https://jose.example", iat: 1700000000, exp: 4102444800 };
  const sign = (key) => new SignJWT(claims).setProtectedHeader({ alg, kid, typ: "JWT" }).sign(key);

  const [key, other] = [await generate(alg), await generate(alg)];
  const token = await sign(key.sign);
  await jwtVerify(token, key.verify);

  const [header, payload, signature] = token.split(".");
  const flipped = Buffer.from(base64url.decode(signature));
  flipped[flipped.length >> 1] ^= 1;
  const forged = JSON.stringify({ ...claims, sub: "somebody-else" });
  return {
    library: "jose",
    version,
    alg,
    jwk: { ...key.jwk, alg, kid },
    token,
    claims,
    tampered: [
      { how: "one bit of the signature flipped", token: `${header}.${payload}.${base64url.encode(flipped)}` },
      { how: "another sub in the payload", token: `${header}.${base64url.encode(forged)}.${signature}` },
      { how: "signed by another key", token: await sign(other.sign) },
    ],
  };
}

const vectors = JSON.parse(readFileSync(0, "utf8"));
for (const alg of ALGORITHMS) vectors.push(await vector(alg));
console.log(JSON.stringify(vectors, null, 2));
