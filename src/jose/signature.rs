//! The one place where a signature is verified: by ring.

use std::cell::RefCell;
use std::collections::HashSet;

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::rand::SystemRandom;
use ring::{agreement, digest, hmac, signature};

/// Whether `signature` is `key`'s signature of `signed` by `algorithm`.
///
/// False also if key and algorithm are of different families.
pub(crate) fn verify(
    signature: &[u8],
    signed: &[u8],
    key: &DecodingKey,
    algorithm: Algorithm,
) -> bool {
    if key.family() != algorithm.family() {
        return false;
    }
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => rsa(algorithm).is_some_and(|parameters| {
            let key = signature::RsaPublicKeyComponents { n, e };
            key.verify(parameters, signed, signature).is_ok()
        }),
        DecodingKeyKind::SecretOrDer(key) => match (public(algorithm), secret(algorithm)) {
            (Some(algorithm), _) => signature::UnparsedPublicKey::new(algorithm, key)
                .verify(signed, signature)
                .is_ok(),
            (None, Some(algorithm)) => {
                hmac::verify(&hmac::Key::new(algorithm, key), signed, signature).is_ok()
            }
            (None, None) => false,
        },
    }
}

/// The signatures that one key has verified, so that a token that is presented again is not verified
/// again: a digest takes a twentieth of the time.
///
/// A valid signature stays valid; when a key is no longer trusted, its memory goes with it.
#[derive(Default)]
pub(crate) struct FoundGood(RefCell<HashSet<Digest>>);

/// The first half of a SHA-256. A forged token would need the digest of a remembered one: 2^128
/// attempts, which is what the signatures themselves resist.
type Digest = [u8; DIGEST_BYTES];

const DIGEST_BYTES: usize = 16;

/// At most this many are remembered, in 68 KiB (17 bytes each, in a table of 4,096, seven eighths full).
const REMEMBERED: usize = 3584;

impl FoundGood {
    /// Whether `signature` of `signed` was verified before, or `verify` succeeds now.
    pub(crate) fn or_if(
        &self,
        signed: &[u8],
        signature: &[u8],
        verify: impl FnOnce() -> bool,
    ) -> bool {
        let mut hash = digest::Context::new(&digest::SHA256);
        // The dot keeps the two apart: the signed part contains exactly one, and the signature follows
        // the second.
        for part in [signed, b".", signature] {
            hash.update(part);
        }
        let digest = hash.finish();
        let Some(&digest) = digest.as_ref().first_chunk::<DIGEST_BYTES>() else {
            return verify();
        };
        let mut known = self.0.borrow_mut();
        if known.contains(&digest) {
            return true;
        }
        let good = verify();
        if good {
            if known.len() == REMEMBERED {
                known.clear();
            }
            known.insert(digest);
        }
        good
    }
}

/// Whether `point` (SEC 1, uncompressed) is on the curve: ring checks the peer's key before it agrees on
/// a secret, which is discarded.
pub(crate) fn is_on_curve(curve: &'static agreement::Algorithm, point: &[u8]) -> bool {
    let own = agreement::EphemeralPrivateKey::generate(curve, &SystemRandom::new());
    let other = agreement::UnparsedPublicKey::new(curve, point);
    own.is_ok_and(|own| agreement::agree_ephemeral(own, &other, |_| ()).is_ok())
}

fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn public(algorithm: Algorithm) -> Option<&'static dyn signature::VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&signature::ED25519),
        _ => None,
    }
}

fn secret(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_signature_is_computed_once_and_a_bad_one_each_time() {
        let known = FoundGood::default();
        let computed = RefCell::new(0);
        let check = |signed: &str, signature: &str, good| {
            known.or_if(signed.as_bytes(), signature.as_bytes(), || {
                *computed.borrow_mut() += 1;
                good
            })
        };
        assert!(check("h.p", "s", true) && check("h.p", "s", false));
        assert_eq!(computed.take(), 1);
        for other in [("h.q", "s"), ("h.p", "t"), ("h.p.s", "")] {
            assert!(!check(other.0, other.1, false) && !check(other.0, other.1, false));
            assert_eq!(computed.take(), 2, "{other:?}");
        }
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let known = FoundGood::default();
        for number in 0..=REMEMBERED {
            assert!(known.or_if(number.to_string().as_bytes(), b"s", || true));
        }
        assert_eq!(known.0.borrow().len(), 1);
        assert!(!known.or_if(b"0", b"s", || false), "forgotten, so computed");
    }
}
