"""Signatures that must not verify, in the manner of Wycheproof: prints tests/vectors/negatives.json.

Each is one change away from a good signature, which is there too (`"how": "good"`). Made with the Python package
cryptography, fresh keys on every run. See README.md beside this file.
"""

import base64
import hashlib
import hmac
import json
import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

CLAIMS = {"sub": "alice", "exp": 4102444800}
ORDER = {
    256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
HASH = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def message(alg: str) -> bytes:
    return f'{b64(json.dumps({"alg": alg}).encode())}.{b64(json.dumps(CLAIMS).encode())}'.encode()


def common(good: bytes, other: bytes):
    flipped = bytearray(good)
    flipped[0] ^= 0x80
    return [
        ("good", good),
        ("empty", b""),
        ("one zero byte", b"\0"),
        ("all zeros", bytes(len(good))),
        ("all ones", b"\xff" * len(good)),
        ("truncated by a byte", good[:-1]),
        ("without its first byte", good[1:]),
        ("half of it", good[: len(good) // 2]),
        ("a zero byte before it", b"\0" + good),
        ("a zero byte after it", good + b"\0"),
        ("twice", good + good),
        ("reversed", good[::-1]),
        ("first bit flipped", bytes(flipped)),
        ("of another message", other),
    ]


def ecdsa(alg: str, curve):
    bits = curve.key_size
    key, length, order = ec.generate_private_key(curve), bits // 8, ORDER[bits]
    point = key.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": f"P-{bits}", "x": b64(point.x.to_bytes(length, "big")), "y": b64(point.y.to_bytes(length, "big"))}

    def sign(text: bytes, hash=HASH[str(bits)], signer=key):
        return signer.sign(text, ec.ECDSA(hash))

    def fixed(r: int, s: int) -> bytes:
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")

    der = sign(message(alg))
    r, s = utils.decode_dss_signature(der)
    rows = common(fixed(r, s), fixed(*utils.decode_dss_signature(sign(b"other"))))
    wrong_hash = utils.decode_dss_signature(sign(message(alg), hashes.SHA512()))
    stranger = utils.decode_dss_signature(sign(message(alg), signer=ec.generate_private_key(curve)))
    rows += [
        ("DER instead of r and s", der),
        ("s and r swapped", fixed(s, r)),
        ("r is 0", fixed(0, s)),
        ("s is 0", fixed(r, 0)),
        ("both are 0", fixed(0, 0)),
        ("both are 1", fixed(1, 1)),
        ("r is the order", fixed(order, s)),
        ("s is the order", fixed(r, order)),
        ("r is the order less 1", fixed(order - 1, s)),
        ("another hash", fixed(*wrong_hash)),
        ("another key", fixed(*stranger)),
        # The one change that ECDSA allows: also a signature of this key for this text.
        ("malleable: the order less s", fixed(r, order - s)),
    ]
    return alg, jwk, rows


def rsa_keys(alg: str):
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    hash = HASH[alg[2:]]

    def pss(hash, salt):
        return padding.PSS(padding.MGF1(hash), salt)

    def sign(text: bytes, hash=hash, how=None, signer=key):
        how = how or (padding.PKCS1v15() if alg[0] == "R" else pss(hash, hash.digest_size))
        return signer.sign(text, how, hash)

    good, other_hash = sign(message(alg)), HASH["512" if alg[2:] != "512" else "256"]
    rows = common(good, sign(b"other"))
    value = int.from_bytes(good, "big")
    rows += [
        ("another hash", sign(message(alg), other_hash)),
        ("another key", sign(message(alg), signer=rsa.generate_private_key(65537, 2048))),
        ("the modulus", numbers.n.to_bytes(256, "big")),
        ("one", (1).to_bytes(256, "big")),
        ("the modulus less the signature", (numbers.n - value).to_bytes(256, "big")),
        ("the other padding", sign(message(alg), how=pss(hash, hash.digest_size) if alg[0] == "R" else padding.PKCS1v15())),
    ]
    if value + numbers.n < 2**2048:
        rows.append(("the signature plus the modulus", (value + numbers.n).to_bytes(256, "big")))
    if alg[0] == "P":
        rows += [
            ("no salt", sign(message(alg), how=pss(hash, 0))),
            ("a short salt", sign(message(alg), how=pss(hash, hash.digest_size - 1))),
            ("the longest salt", sign(message(alg), how=pss(hash, padding.PSS.MAX_LENGTH))),
            ("another hash in MGF1", sign(message(alg), how=padding.PSS(padding.MGF1(other_hash), hash.digest_size))),
        ]
    else:
        # Forged padding, which only a key of ours can sign: raw exponentiation of a block of our own.
        private = key.private_numbers()
        digest = hashes.Hash(hash)
        digest.update(message(alg))
        prefix = {"256": "3031300d060960864801650304020105000420", "384": "3041300d060960864801650304020205000430", "512": "3051300d060960864801650304020305000440"}
        info = bytes.fromhex(prefix[alg[2:]]) + digest.finalize()

        without_null = bytearray(info[:15] + info[17:])
        without_null[1] -= 2
        without_null[3] -= 2

        def raw(block: bytes) -> bytes:
            return pow(int.from_bytes(block, "big"), private.d, numbers.n).to_bytes(256, "big")

        filler = 256 - len(info) - 3
        rows += [
            ("good, by hand", raw(b"\0\1" + b"\xff" * filler + b"\0" + info)),
            ("block type 2", raw(b"\0\2" + b"\xff" * filler + b"\0" + info)),
            ("padding that is not all ones", raw(b"\0\1" + b"\xff" * (filler - 1) + b"\xfe\0" + info)),
            ("short padding and garbage behind", raw(b"\0\1" + b"\xff" * 8 + b"\0" + info + bytes(filler - 8))),
            ("an algorithm without its NULL", raw(b"\0\1" + b"\xff" * (filler + 2) + b"\0" + without_null)),
            ("a digest without its algorithm", raw(b"\0\1" + b"\xff" * (filler + len(info) - len(info[19:])) + b"\0" + info[19:])),
        ]
    return alg, jwk, rows


def eddsa(alg: str):
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    good = key.sign(message(alg))
    r, s = good[:32], int.from_bytes(good[32:], "little")
    rows = common(good, key.sign(b"other"))
    rows += [
        ("s and r swapped", good[32:] + r),
        ("s plus the order", r + (s + ED25519_ORDER).to_bytes(32, "little")),
        ("s is 0", r + bytes(32)),
        ("s is the order", r + ED25519_ORDER.to_bytes(32, "little")),
        ("r is the neutral point", b"\1" + bytes(31) + good[32:]),
        ("another key", ed25519.Ed25519PrivateKey.generate().sign(message(alg))),
        ("of the message's hash", key.sign(hashlib.sha512(message(alg)).digest())),
    ]
    return alg, jwk, rows


def secret(alg: str):
    key = os.urandom(64)
    sign = lambda text, name, key=key: hmac.new(key, text, name).digest()
    good = sign(message(alg), f"sha{alg[2:]}")
    rows = common(good, sign(b"other", f"sha{alg[2:]}"))
    others = [name for name in ("sha1", "sha256", "sha384", "sha512") if name != f"sha{alg[2:]}"]
    rows += [(f"with {name}", sign(message(alg), name)) for name in others]
    rows += [
        ("cut to the length of SHA-256", sign(message(alg), "sha512")[:32]),
        ("with an empty key", sign(message(alg), f"sha{alg[2:]}", b"")),
        ("with the key in base64url", sign(message(alg), f"sha{alg[2:]}", b64(key).encode())),
        ("the bare hash", hashlib.new(f"sha{alg[2:]}", key + message(alg)).digest()),
    ]
    return alg, {"kty": "oct", "k": b64(key)}, rows


def main() -> None:
    families = [rsa_keys(f"{kind}S{bits}") for kind in "RP" for bits in (256, 384, 512)]
    families += [ecdsa("ES256", ec.SECP256R1()), ecdsa("ES384", ec.SECP384R1()), eddsa("EdDSA")]
    families += [secret(f"HS{bits}") for bits in (256, 384, 512)]
    out = []
    for alg, jwk, rows in families:
        signatures = [{"how": how, "signature": b64(signature)} for how, signature in rows]
        out.append({"alg": alg, "jwk": jwk, "message": message(alg).decode(), "signatures": signatures})
    print(json.dumps(out, indent=1))


main()
