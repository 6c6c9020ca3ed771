"""Signs one token per algorithm with PyJWT and prints vectors as a JSON array.

Every run makes fresh keys, so the output differs from run to run; the private
keys are thrown away. See README.md beside this file.
"""

import base64
import json
import os

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ALGORITHMS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "RS384": lambda: rsa.generate_private_key(65537, 3072),
    "RS512": lambda: rsa.generate_private_key(65537, 4096),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS384": lambda: rsa.generate_private_key(65537, 3072),
    "PS512": lambda: rsa.generate_private_key(65537, 4096),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "HS256": lambda: os.urandom(32),
    "HS384": lambda: os.urandom(48),
    "HS512": lambda: os.urandom(64),
}


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def jwk(alg: str, key) -> dict:
    """The key as whoever verifies has it: the public half, or the secret itself."""
    if isinstance(key, bytes):
        members = {"kty": "oct", "k": b64url(key)}
    else:
        algorithm = jwt.get_algorithm_by_name(alg)
        members = algorithm.to_jwk(key.public_key(), as_dict=True)
        members.pop("key_ops", None)
    return members | {"alg": alg, "kid": f"pyjwt-{alg}"}


def tampered(alg: str, token: str, claims: dict, headers: dict, other_key) -> list:
    header, payload, signature = token.split(".")
    raw = bytearray(unb64url(signature))
    raw[len(raw) // 2] ^= 0x01
    forged = json.dumps(claims | {"sub": "somebody-else"}).encode()
    return [
        {"how": "one bit of the signature flipped", "token": f"{header}.{payload}.{b64url(bytes(raw))}"},
        {"how": "another sub in the payload", "token": f"{header}.{b64url(forged)}.{signature}"},
        {"how": "signed by another key", "token": jwt.encode(claims, other_key, algorithm=alg, headers=headers)},
    ]


def main() -> None:
    vectors = []
    for alg, generate in ALGORITHMS.items():
        key, headers = generate(), {"kid": f"pyjwt-{alg}"}
        claims = {"sub": f"user-{alg}", "iss": "https://pyjwt.example", "iat": 1700000000, "exp": 4102444800}
        token = jwt.encode(claims, key, algorithm=alg, headers=headers)
        vectors.append(
            {
                "library": "PyJWT",
                "version": jwt.__version__,
                "alg": alg,
                "jwk": jwk(alg, key),
                "token": token,
                "claims": claims,
                "tampered": tampered(alg, token, claims, headers, generate()),
            }
        )
    print(json.dumps(vectors))


main()
