//! The seam: every call into a crate that computes is in this folder.
//!
//! Two providers stand side by side in one process, and [`Provider::install`] says which one computes key exchanges, HMAC,
//! digests and AEAD (docs/adr/0015, 0016). Signatures are `aws-lc-rs`'s alone, because `ring` has no ML-DSA.

mod aws_lc;
#[cfg(test)]
mod dh_vectors;
#[cfg(test)]
mod published;
mod ring_ml_kem;
mod symmetric;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use core::sync::atomic::{AtomicBool, Ordering};

use rand_core::CryptoRng;

pub(super) use self::aws_lc::{PrivateKey, verify_signature};
pub(super) use self::ring_ml_kem::constant_time_eq;
use super::aead::Aead;
use super::ke::{KeError, KeMethod, SharedSecret};
use super::prf::{Prf, PrfOutput};

/// Who computes key exchanges, HMAC and AEAD of IKE.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Provider {
    /// `aws-lc-rs`: the faster one (docs/performance.md), and the way to its FIPS module.
    #[default]
    AwsLc,
    /// `ring`, with `ml-kem`.
    Ring,
}

static USES_RING: AtomicBool = AtomicBool::new(false);

impl Provider {
    /// From now on the whole process computes by this one. Exchanges that are under way end as they began.
    pub fn install(self) {
        USES_RING.store(self == Self::Ring, Ordering::Relaxed);
    }

    fn installed() -> Self {
        if USES_RING.load(Ordering::Relaxed) { Self::Ring } else { Self::AwsLc }
    }
}

/// The private value of one Diffie-Hellman exchange, used once.
pub(super) enum DhSecret {
    Ring(ring_ml_kem::DhSecret),
    AwsLc(aws_lc::DhSecret),
}

impl DhSecret {
    /// A fresh private value and the Key Exchange Data that belongs to it.
    pub(super) fn generate(method: KeMethod) -> Result<(Self, Vec<u8>), KeError> {
        Ok(match Provider::installed() {
            Provider::Ring => {
                let (secret, data) = ring_ml_kem::DhSecret::generate(method)?;
                (Self::Ring(secret), data)
            }
            Provider::AwsLc => {
                let (secret, data) = aws_lc::DhSecret::generate(method)?;
                (Self::AwsLc(secret), data)
            }
        })
    }

    /// The shared secret with the peer's Key Exchange Data, which is tested (RFC 6989 section 2.3, RFC 8031 section 2.3).
    pub(super) fn agree(self, method: KeMethod, peer: &[u8]) -> Result<SharedSecret, KeError> {
        match self {
            Self::Ring(secret) => secret.agree(method, peer),
            Self::AwsLc(secret) => secret.agree(peer),
        }
    }
}

/// The private value of one Diffie-Hellman exchange that may answer several peer values.
pub(super) enum ReusableDh {
    Ring(ring_ml_kem::ReusableDh),
    AwsLc(aws_lc::DhSecret),
}

impl ReusableDh {
    /// A fresh private value and the Key Exchange Data that belongs to it.
    pub(super) fn generate(method: KeMethod) -> Result<(Self, Vec<u8>), KeError> {
        Ok(match Provider::installed() {
            Provider::Ring => {
                let (secret, data) = ring_ml_kem::ReusableDh::generate(method)?;
                (Self::Ring(secret), data)
            }
            Provider::AwsLc => {
                let (secret, data) = aws_lc::DhSecret::generate(method)?;
                (Self::AwsLc(secret), data)
            }
        })
    }

    /// The shared secret with one peer's Key Exchange Data, which is tested.
    pub(super) fn agree(&self, peer: &[u8]) -> Result<SharedSecret, KeError> {
        match self {
            Self::Ring(secret) => secret.agree(peer),
            Self::AwsLc(secret) => secret.agree(peer),
        }
    }
}

/// A decapsulation key.
pub(super) enum KemDecapsulator {
    MlKem(ring_ml_kem::KemDecapsulator),
    AwsLc(aws_lc::KemDecapsulator),
}

impl KemDecapsulator {
    /// A fresh key pair; the encapsulation key is the Key Exchange Data of the initiator.
    pub(super) fn generate(method: KeMethod, rng: &mut impl CryptoRng) -> Result<(Self, Vec<u8>), KeError> {
        Ok(match Provider::installed() {
            Provider::Ring => {
                let (key, data) = ring_ml_kem::KemDecapsulator::generate(method, rng)?;
                (Self::MlKem(key), data)
            }
            Provider::AwsLc => {
                let (key, data) = aws_lc::KemDecapsulator::generate(method)?;
                (Self::AwsLc(key), data)
            }
        })
    }

    /// The shared secret in `ciphertext` (FIPS 203 section 7.3).
    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, KeError> {
        match self {
            Self::MlKem(key) => key.decapsulate(ciphertext),
            Self::AwsLc(key) => key.decapsulate(ciphertext),
        }
    }
}

/// Encapsulates a fresh secret to the peer's encapsulation key, which is checked (FIPS 203 section 7.2). Returns the ciphertext
/// and the secret.
pub(super) fn kem_encapsulate(
    method: KeMethod,
    key: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    match Provider::installed() {
        Provider::Ring => ring_ml_kem::kem_encapsulate(method, key, rng),
        Provider::AwsLc => aws_lc::kem_encapsulate(method, key),
    }
}

/// A key of HMAC.
#[allow(clippy::large_enum_variant, reason = "one process has one of them, on the stack and not for long")]
pub(super) enum HmacKey {
    Ring(ring_ml_kem::HmacKey),
    AwsLc(aws_lc::HmacKey),
}

impl HmacKey {
    /// Takes the key of a pseudorandom function.
    pub(super) fn new(prf: Prf, key: &[u8]) -> Self {
        match Provider::installed() {
            Provider::Ring => Self::Ring(ring_ml_kem::HmacKey::new(prf, key)),
            Provider::AwsLc => Self::AwsLc(aws_lc::HmacKey::new(prf, key)),
        }
    }

    /// HMAC over the concatenation of `parts`.
    pub(super) fn compute(&self, parts: &[&[u8]]) -> PrfOutput {
        match self {
            Self::Ring(key) => key.compute(parts),
            Self::AwsLc(key) => key.compute(parts),
        }
    }
}

/// SHA-1, for NAT detection (RFC 7296 section 2.23) and the names of authorities (section 3.7) only.
pub(super) fn sha1(text: &[u8]) -> [u8; 20] {
    match Provider::installed() {
        Provider::Ring => ring_ml_kem::sha1(text),
        Provider::AwsLc => aws_lc::sha1(text),
    }
}

/// SHA-256.
pub(super) fn sha256(text: &[u8]) -> [u8; 32] {
    match Provider::installed() {
        Provider::Ring => ring_ml_kem::sha256(text),
        Provider::AwsLc => aws_lc::sha256(text),
    }
}

/// Encrypts `text` in place and returns the tag; `None` if the key does not fit or the text is too long.
pub(super) fn aead_seal(
    aead: Aead,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> Option<[u8; 16]> {
    match Provider::installed() {
        Provider::Ring => ring_ml_kem::aead_seal(aead, key, nonce, aad, text),
        Provider::AwsLc => aws_lc::aead_seal(aead, key, nonce, aad, text),
    }
}

/// Decrypts text and tag in place and returns the text; `None` if it is not authentic.
pub(super) fn aead_open<'a>(
    aead: Aead,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text_and_tag: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    match Provider::installed() {
        Provider::Ring => ring_ml_kem::aead_open(aead, key, nonce, aad, text_and_tag),
        Provider::AwsLc => aws_lc::aead_open(aead, key, nonce, aad, text_and_tag),
    }
}
