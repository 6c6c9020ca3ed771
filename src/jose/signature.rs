//! The one place where a signature is verified: by ring.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::rand::SystemRandom;
use ring::{agreement, hmac, signature};

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
