//! ring behind jsonwebtoken: the one place where a signature is computed with.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as BadSignature, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::{agreement, hmac, signature};

/// Whether `signature` (base64url) is `key`'s over `signed` by `algorithm`.
///
/// False also where key and algorithm are of different families.
pub(crate) fn verify(
    signature: &str,
    signed: &[u8],
    key: &DecodingKey,
    algorithm: Algorithm,
) -> bool {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Refused only where one is installed already, and none but this one ever is: no backend
        // feature of jsonwebtoken is on.
        let _ = RING.install_default();
    });
    key.family() == algorithm.family()
        && jsonwebtoken::crypto::verify(signature, signed, key, algorithm).unwrap_or(false)
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory: verifier,
    // Unused: keys are read by key_set.rs.
    key_utils: KeyUtils::new_unimplemented(),
};

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key: key.clone(),
    }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, signed: &[u8], signature: &Vec<u8>) -> Result<(), BadSignature> {
        let key = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => bytes,
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let key = signature::RsaPublicKeyComponents { n, e };
                let algorithm = rsa(self.algorithm).ok_or_else(BadSignature::new)?;
                return key
                    .verify(algorithm, signed, signature)
                    .map_err(|_| BadSignature::new());
            }
        };
        match public(self.algorithm) {
            Some(algorithm) => {
                signature::UnparsedPublicKey::new(algorithm, key).verify(signed, signature)
            }
            None => {
                let algorithm = secret(self.algorithm).ok_or_else(BadSignature::new)?;
                hmac::verify(&hmac::Key::new(algorithm, key), signed, signature)
            }
        }
        .map_err(|_| BadSignature::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Whether `point` (SEC 1, uncompressed) is on the curve: ring checks the other side's key before it
/// agrees on a secret, of which nothing is kept.
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
