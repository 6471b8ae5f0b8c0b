//! ML-KEM by the `ml-kem` crate, with the input checks of FIPS 203 sections 7.2 and 7.3.

use ml_kem::kem::{Decapsulate, Encapsulate, Kem};
use ml_kem::{
    EncapsulationKey512, EncapsulationKey768, EncapsulationKey1024, KeyExport, MlKem512, MlKem768, MlKem1024,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::crypto::ke::{KeError, KeMethod, SharedSecret};

/// A decapsulation key, used for one ciphertext.
pub(crate) struct KemDecapsulator(Inner);

enum Inner {
    MlKem512(Box<ml_kem::DecapsulationKey512>),
    MlKem768(Box<ml_kem::DecapsulationKey768>),
    MlKem1024(Box<ml_kem::DecapsulationKey1024>),
}

impl KemDecapsulator {
    /// A fresh key pair; the encapsulation key is the Key Exchange Data of the initiator.
    pub(crate) fn generate(method: KeMethod, rng: &mut impl CryptoRng) -> Result<(Self, Vec<u8>), KeError> {
        match method {
            KeMethod::MlKem512 => {
                let (dk, ek) = MlKem512::generate_keypair_from_rng(rng);
                Ok((Self(Inner::MlKem512(Box::new(dk))), ek.to_bytes().to_vec()))
            }
            KeMethod::MlKem768 => {
                let (dk, ek) = MlKem768::generate_keypair_from_rng(rng);
                Ok((Self(Inner::MlKem768(Box::new(dk))), ek.to_bytes().to_vec()))
            }
            KeMethod::MlKem1024 => {
                let (dk, ek) = MlKem1024::generate_keypair_from_rng(rng);
                Ok((Self(Inner::MlKem1024(Box::new(dk))), ek.to_bytes().to_vec()))
            }
            KeMethod::Curve25519 | KeMethod::Ecp256 | KeMethod::Ecp384 => Err(KeError::Unsupported),
        }
    }

    /// The shared secret in `ciphertext`. Its length is the type check of FIPS 203 section 7.3; a wrong ciphertext of
    /// the right length gives another secret (implicit rejection).
    pub(crate) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, KeError> {
        let secret = match &self.0 {
            Inner::MlKem512(dk) => dk.decapsulate_slice(ciphertext),
            Inner::MlKem768(dk) => dk.decapsulate_slice(ciphertext),
            Inner::MlKem1024(dk) => dk.decapsulate_slice(ciphertext),
        };
        let secret = secret.map_err(|_| KeError::Length)?;
        Ok(SharedSecret(Zeroizing::new(secret.to_vec())))
    }
}

/// Encapsulates a fresh secret to the peer's encapsulation key, after the checks of FIPS 203 section 7.2: its length, and
/// that every coefficient is reduced modulo q. Returns the ciphertext and the secret.
pub(crate) fn kem_encapsulate(
    method: KeMethod,
    key: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    match method {
        KeMethod::MlKem512 => encapsulate::<EncapsulationKey512>(key, rng),
        KeMethod::MlKem768 => encapsulate::<EncapsulationKey768>(key, rng),
        KeMethod::MlKem1024 => encapsulate::<EncapsulationKey1024>(key, rng),
        KeMethod::Curve25519 | KeMethod::Ecp256 | KeMethod::Ecp384 => Err(KeError::Unsupported),
    }
}

fn encapsulate<K: Encapsulate>(
    key: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    let key = key.try_into().map_err(|_| KeError::Length)?;
    let key = K::new(key).map_err(|_| KeError::InvalidPublicValue)?;
    let (ciphertext, secret) = key.encapsulate_with_rng(rng);
    Ok((ciphertext.to_vec(), SharedSecret(Zeroizing::new(secret.to_vec()))))
}

#[cfg(test)]
impl KemDecapsulator {
    /// A decapsulation key in the form of FIPS 203, in which vectors are published.
    #[allow(deprecated, reason = "nothing else reads the form of FIPS 203")]
    pub(crate) fn from_expanded(method: KeMethod, dk: &[u8]) -> Self {
        use ml_kem::ExpandedKeyEncoding as _;
        Self(match method {
            KeMethod::MlKem512 => Inner::MlKem512(Box::new(
                ml_kem::DecapsulationKey512::from_expanded_bytes(dk.try_into().unwrap()).unwrap(),
            )),
            KeMethod::MlKem768 => Inner::MlKem768(Box::new(
                ml_kem::DecapsulationKey768::from_expanded_bytes(dk.try_into().unwrap()).unwrap(),
            )),
            _ => Inner::MlKem1024(Box::new(
                ml_kem::DecapsulationKey1024::from_expanded_bytes(dk.try_into().unwrap()).unwrap(),
            )),
        })
    }
}
