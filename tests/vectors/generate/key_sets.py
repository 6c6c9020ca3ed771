"""Key sets in every spelling that issuers use, and tokens for them: prints tests/vectors/key_sets.json.

Each entry has `keys` (the set), `ignored` (how the WARNING names the keys that cannot be used), `good` (tokens that
must be accepted, with their `sub`) and `bad` (tokens that must not be, with the stage that refuses them). Keys and
signatures are made with PyJWT and cryptography, fresh on every run; the private keys are thrown away. See README.md
beside this file.
"""

import base64
import json
import os

import jwt
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISS = "https://issuer.example"
CLAIMS = {"iss": ISS, "sub": "alice", "exp": 4102444800}
KINDS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "HS256": lambda: os.urandom(32),
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def standard(text: str) -> str:
    return text.translate(str.maketrans("-_", "+/"))


class Key:
    def __init__(self, alg: str, key=None):
        self.alg, self.key = alg, key or KINDS[alg]()

    def jwk(self, **members) -> dict:
        if isinstance(self.key, bytes):
            return {"kty": "oct", "k": b64(self.key)} | members
        jwk = jwt.get_algorithm_by_name(self.alg).to_jwk(self.key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        return jwk | members

    def spelled(self, change, *names, **members) -> dict:
        """With some members changed."""
        jwk = self.jwk(**members)
        return jwk | {name: change(jwk[name]) for name in names}

    def sign(self, claims=CLAIMS, alg=None, **header) -> str:
        header = {"alg": alg or self.alg} | header
        message = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        signature = jwt.get_algorithm_by_name(self.alg).sign(message.encode(), self.key)
        return f"{message}.{b64(signature)}"


def good(token: str, sub="alice"):
    return {"token": token, "sub": sub}


def bad(token: str, stage: str, how: str):
    return {"token": token, "stage": stage, "how": how}


def find_short(alg: str, name: str) -> Key:
    """A key with a coordinate that begins with a zero byte."""
    while True:
        key = Key(alg)
        if unb64(key.jwk()[name])[0] == 0:
            return key


def with_minus(alg: str, *names: str) -> Key:
    """A key whose base64url is not base64 too."""
    while True:
        key = Key(alg)
        if all(set("-_") & set(key.jwk()[name]) for name in names):
            return key


def strip(text: str) -> str:
    return b64(unb64(text).lstrip(b"\0"))


def signed_byte(text: str) -> str:
    return b64(b"\0" + unb64(text))


def spellings():
    for alg, names in [("RS256", ["n"]), ("ES256", ["x", "y"]), ("ES384", ["x", "y"]), ("EdDSA", ["x"]), ("HS256", ["k"])]:
        key = with_minus(alg, *names)
        ways = [("padding", padded), ("the standard alphabet", standard), ("both", lambda text: padded(standard(text)))]
        if alg in ("RS256", "ES256", "ES384"):
            ways.append(("a leading zero", signed_byte))
            ways.append(("several leading zeros", lambda text: b64(bytes(7) + unb64(text))))
        for what, change in ways:
            yield f"{alg}: {what}", [key.spelled(change, *names)], [good(key.sign())], []
        nulls = dict.fromkeys(["kid", "use", "alg", "key_ops", "issuer", "d", "p", "q", "dp", "dq", "qi", "oth", "priv", "x5c", "x5t", "x5u", "ext"])
        yield f"{alg}: null members", [key.jwk(**nulls)], [good(key.sign()), good(key.sign(kid="1"))], []
        yield f"{alg}: an empty key_ops", [key.jwk(key_ops=[])], [good(key.sign())], []
    exponent = Key("RS256")
    for e in ["AAEAAQ", "AAEAAQ==", "AAAAAQAB"]:
        yield f"RS256: e is {e}", [exponent.jwk(e=e)], [good(exponent.sign())], []
    for alg in ("ES256", "ES384"):
        for name in "xy":
            key = find_short(alg, name)
            yield f"{alg}: {name} lost its leading zero", [key.spelled(strip, name)], [good(key.sign())], []
            yield f"{alg}: {name} lost its leading zero and is padded", [key.spelled(lambda t: padded(standard(strip(t))), name)], [good(key.sign())], []


def algorithms():
    key = Key("EdDSA")
    for alg in (None, "EdDSA", "Ed25519"):
        yield f"alg of an Ed25519 key: {alg}", [key.jwk(alg=alg)], [good(key.sign()), good(key.sign(alg="Ed25519"))], [
            bad(key.sign(alg="Ed448"), "header", "Ed448"),
            bad(Key("EdDSA").sign(alg="Ed25519"), "signature", "another key"),
        ]
    for typ in ("JOSE", "jose", "JWT", "at+jwt", "application/at+jwt", None):
        yield f"typ {typ}", [key.jwk()], [good(key.sign(typ=typ, kid=None))], []


def claims():
    key = Key("ES256")
    nulls = dict.fromkeys(["aud", "nbf", "iat", "jti"])
    for sub, text in [(42, "42"), (-7, "-7"), (0, "0"), (2**63, str(2**63)), (2**64 - 1, str(2**64 - 1)), (None, None)]:
        yield f"sub {sub}", [key.jwk()], [good(key.sign(CLAIMS | nulls | {"sub": sub}), text)], [
            bad(key.sign(CLAIMS | {"sub": sub, "exp": None}), "payload", "exp null"),
        ]
    yield "other subs", [key.jwk()], [], [
        bad(key.sign(CLAIMS | {"sub": sub}), "payload", repr(sub)) for sub in (1.5, 2**64, True, ["a"], {"id": 1})
    ]


def several():
    rs, rs2, es, ed, hs = (Key(alg) for alg in ("RS256", "RS256", "ES256", "EdDSA", "HS256"))
    tokens = lambda *keys: [good(key.sign(kid="1")) for key in keys]
    stranger = [bad(Key("RS256").sign(kid="1"), "signature", "another key"), bad(rs.sign(kid="2"), "key", "another kid")]
    yield "RSA beside EC with one kid", [rs.jwk(kid="1"), es.jwk(kid="1")], tokens(rs, es), stranger
    yield "two RSA keys with one kid", [rs.jwk(kid="1"), rs2.jwk(kid="1")], tokens(rs, rs2), stranger
    per_alg = [rs.jwk(kid="1", alg=alg) for alg in ("RS256", "RS384", "RS512", "PS256")]
    yield "one RSA key for each algorithm", per_alg, tokens(rs) + [good(Key(alg, rs.key).sign(kid="1")) for alg in ("RS384", "RS512", "PS256")], [
        bad(Key("PS512", rs.key).sign(kid="1"), "key", "an algorithm that none declares")
    ]
    yield "the same key twice", [rs.jwk(kid="1"), rs.jwk(kid="1")], tokens(rs), stranger
    yield "the same key with and without kid", [ed.jwk(), ed.jwk(kid="1")], tokens(ed), []
    keys = [rs, es, ed, hs]
    for kid, headers in [("1", {"kid": "1"}), (None, {}), (None, {"kid": "1"})]:
        forged = [
            bad(Key("HS256", secret).sign(**headers), "signature", f"{name} of {key.alg} as the secret")
            for key in (rs, es, ed)
            for name, secret in encodings(key)
        ]
        yield f"secret and public keys, kid {kid}, token's {headers}", [key.jwk(kid=kid) for key in keys], [good(key.sign(**headers)) for key in keys], forged
    without = [
        bad(Key("HS256", secret).sign(), "key", f"{name} of {key.alg} as the secret")
        for key in (rs, es, ed)
        for name, secret in encodings(key)
    ]
    yield "public keys alone", [key.jwk() for key in (rs, es, ed)], [good(key.sign()) for key in (rs, es, ed)], without


def encodings(key: Key):
    """The bytes of a public key, in each form in which a careless library might take it for a secret."""
    public, jwk = key.key.public_key(), key.jwk()
    spki = form.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(form.Encoding.PEM, spki)
    yield "PEM", pem
    yield "PEM without its last line end", pem.rstrip(b"\n")
    yield "PEM with CR LF", pem.replace(b"\n", b"\r\n")
    yield "the base64 of PEM", b"".join(pem.splitlines()[1:-1])
    yield "DER", public.public_bytes(form.Encoding.DER, spki)
    if key.alg == "RS256":
        for name, encoding in (("PEM", form.Encoding.PEM), ("DER", form.Encoding.DER)):
            yield f"PKCS 1 in {name}", public.public_bytes(encoding, form.PublicFormat.PKCS1)
    if key.alg == "ES256":
        for name, which in (("the point", form.PublicFormat.UncompressedPoint), ("the compressed point", form.PublicFormat.CompressedPoint)):
            yield name, public.public_bytes(form.Encoding.X962, which)
        yield "x and y", unb64(jwk["x"]) + unb64(jwk["y"])
    for name in ("n", "x", "y", "e"):
        if name in jwk:
            yield f"the text of {name}", jwk[name].encode()
            yield f"the bytes of {name}", unb64(jwk[name])
    yield "the JWK", json.dumps(jwk).encode()
    yield "the JWK without spaces", json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode()
    yield "nothing", b"\0"


def unusable():
    """Beside a good key, what cannot be used is ignored and named."""
    weak = Key("RS256", rsa.generate_private_key(65537, 1024))
    p521, k256 = Key("ES512", ec.generate_private_key(ec.SECP521R1())), Key("ES256K", ec.generate_private_key(ec.SECP256K1()))
    rs, es, ed, hs = (Key(alg) for alg in ("RS256", "ES256", "EdDSA", "HS256"))
    curve = lambda name: f'"crv" "{name}" is not supported'
    without = lambda jwk, name: {k: v for k, v in jwk.items() if k != name}
    fine = Key("EdDSA")
    for bad_key, why, tokens in [
        ({"kty": "RSA", "use": "sig", "x5c": ["MIIB"]}, '"n" is missing (certificates in "x5c" are not read)', []),
        ({"x5c": ["MIIB"]}, '"kty" is missing (certificates in "x5c" are not read)', []),
        (weak.jwk(), "the RSA key has 1024 bits", [bad(weak.sign(), "key", "1024 bits")]),
        (weak.spelled(lambda n: b64(bytes(128) + unb64(n)), "n"), "the RSA key has 1024 bits", [bad(weak.sign(), "key", "1024 bits behind zeros")]),
        (without(rs.jwk(), "n"), '"n" is missing', [bad(rs.sign(), "key", "no n")]),
        (without(rs.jwk(), "e"), '"e" is missing', [bad(rs.sign(), "key", "no e")]),
        (rs.jwk(e="AQ"), '"e" is not a usable RSA exponent', [bad(rs.sign(), "key", "e is 1")]),
        (without(es.jwk(), "y"), '"y" is missing', [bad(es.sign(), "key", "no y")]),
        (without(es.jwk(), "crv"), '"crv" is missing', [bad(es.sign(), "key", "no crv")]),
        (without(ed.jwk(), "x"), '"x" is missing', []),
        (es.jwk(y=es.jwk()["x"]), '"x" and "y" are not a point on the curve', [bad(es.sign(), "key", "off the curve")]),
        (es.jwk(crv="P-384"), '"x" and "y" are not a point on the curve', [bad(es.sign(), "key", "another curve")]),
        (ed.jwk(kid=7), '"kid" is not a string', [bad(ed.sign(kid="7"), "key", "a kid that is a number"), bad(ed.sign(), "signature", "without it")]),
        (rs.jwk(use="enc"), '"use" is not "sig"', [bad(rs.sign(), "key", "for encryption")]),
        (rs.jwk(alg="RSA-OAEP"), '"alg" "RSA-OAEP" is not supported', [bad(rs.sign(), "key", "for encryption")]),
        (rs.jwk(alg="ES256"), '"alg" "ES256" does not belong to the key type RSA', [bad(rs.sign(), "key", "an alg of another type")]),
        (rs.jwk(key_ops=["encrypt"]), '"key_ops" lacks "verify"', [bad(rs.sign(), "key", "for encryption")]),
        (p521.jwk(), curve("P-521"), [bad(p521.sign(), "header", "ES512")]),
        (k256.jwk(), curve("secp256k1"), [bad(k256.sign(), "header", "ES256K")]),
        ({"kty": "OKP", "crv": "X25519", "x": ed.jwk()["x"]}, curve("X25519"), []),
        ({"kty": "OKP", "crv": "Ed448", "x": b64(os.urandom(57))}, curve("Ed448"), []),
        ({"kty": "AKP", "alg": "ML-DSA-44", "pub": b64(os.urandom(1312))}, '"alg" "ML-DSA-44" is not supported', []),
        ({"kty": "AKP", "pub": "AA"}, '"kty" "AKP" is not supported', []),
        ({"kty": "oct", "k": b64(hs.key[:31])}, "the secret has 31 bytes, but at least 32 are required", [bad(Key("HS256", hs.key[:31]).sign(), "key", "31 bytes")]),
        (1, "not a JSON object", []),
        (None, "not a JSON object", []),
        (["a"], "not a JSON object", []),
        ("text", "not a JSON object", []),
    ]:
        yield f"beside a good key: {json.dumps(bad_key)[:80]}", [bad_key, fine.jwk(kid="good")], [good(fine.sign(kid="good"))], tokens, f"key 1: {why}"
    same = Key("RS256")
    yield "1024 bits beside 2048 under one kid", [weak.jwk(kid="1"), same.jwk(kid="1")], [good(same.sign(kid="1"))], [
        bad(weak.sign(kid="1"), "signature", "1024 bits")
    ], 'key 1 ("1"): the RSA key has 1024 bits'


def entra():
    everyones, other, any_issuer = Key("RS256"), Key("RS256"), Key("RS256")
    keys = [
        everyones.jwk(kid="1", issuer="https://{tenantid}.example"),
        other.jwk(kid="2", issuer="https://other.example"),
        any_issuer.jwk(kid="3"),
    ]
    token = lambda key, kid, tid: key.sign(CLAIMS | {"tid": tid}, kid=kid)
    yield "keys that say their issuer", keys, [good(token(everyones, "1", "issuer")), good(token(any_issuer, "3", "x"))], [
        bad(token(everyones, "1", "other"), "key", "another tenant"),
        bad(token(everyones, "1", None), "key", "no tenant"),
        bad(token(everyones, "1", ""), "key", "an empty tenant"),
        bad(token(everyones, "1", ["issuer"]), "key", "a list of tenants"),
        bad(token(everyones, "1", "{tenantid}"), "key", "the placeholder"),
        bad(token(other, "2", "other"), "key", "another issuer's key"),
        bad(token(other, "2", "issuer"), "key", "another issuer's key"),
    ]


def curves():
    p256, p384 = Key("ES256"), Key("ES384")
    cut = lambda token, n: token[: token.rindex(".") + 1] + b64(unb64(token[token.rindex(".") + 1 :])[:n])
    yield "two curves under one kid", [p256.jwk(kid="1"), p384.jwk(kid="1")], [good(p256.sign(kid="1")), good(p384.sign(kid="1"))], [
        bad(p384.sign(alg="ES256", kid="1"), "signature", "P-384 as ES256"),
        bad(cut(p384.sign(alg="ES256", kid="1"), 64), "signature", "P-384 as ES256, cut to its length"),
        bad(p256.sign(alg="ES384", kid="1"), "signature", "P-256 as ES384"),
        bad(p256.sign(alg="EdDSA", kid="1"), "key", "ECDSA as EdDSA"),
        bad(p256.sign(alg="HS256", kid="1"), "key", "ECDSA as HMAC"),
    ]


def main() -> None:
    out = []
    for what, keys, good_tokens, bad_tokens, *ignored in [
        entry for group in (spellings, algorithms, claims, several, unusable, entra, curves) for entry in group()
    ]:
        out.append({"what": what, "keys": keys, "ignored": ignored[0] if ignored else None, "good": good_tokens, "bad": bad_tokens})
    print(json.dumps(out, indent=1))


main()
