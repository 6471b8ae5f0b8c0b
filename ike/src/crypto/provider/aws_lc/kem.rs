//! ML-KEM by `aws-lc-rs`, with the input checks of FIPS 203 sections 7.2 and 7.3.

use aws_lc_rs::kem::{self, Ciphertext, DecapsulationKey, EncapsulationKey};
use zeroize::Zeroizing;

use crate::crypto::ke::{KeError, KeMethod, SharedSecret};

/// A decapsulation key.
pub(crate) struct KemDecapsulator(DecapsulationKey);

impl KemDecapsulator {
    /// A fresh key pair; the encapsulation key is the Key Exchange Data of the initiator.
    pub(crate) fn generate(method: KeMethod) -> Result<(Self, Vec<u8>), KeError> {
        let key = DecapsulationKey::generate(algorithm(method)?).map_err(|_| KeError::Provider)?;
        let public = key.encapsulation_key().and_then(|key| Ok(key.key_bytes()?.as_ref().to_vec()));
        Ok((Self(key), public.map_err(|_| KeError::Provider)?))
    }

    /// The shared secret in `ciphertext`. Its length is the type check of FIPS 203 section 7.3; a wrong ciphertext of the
    /// right length gives another secret (implicit rejection).
    pub(crate) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, KeError> {
        let secret = self.0.decapsulate(Ciphertext::from(ciphertext)).map_err(|_| KeError::Length)?;
        Ok(SharedSecret(Zeroizing::new(secret.as_ref().to_vec())))
    }
}

/// Encapsulates a fresh secret to the peer's encapsulation key, after the checks of FIPS 203 section 7.2: its length, and
/// that every coefficient is reduced modulo q. Returns the ciphertext and the secret.
pub(crate) fn kem_encapsulate(method: KeMethod, key: &[u8]) -> Result<(Vec<u8>, SharedSecret), KeError> {
    let key = EncapsulationKey::new(algorithm(method)?, key).map_err(|_| KeError::InvalidPublicValue)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| KeError::InvalidPublicValue)?;
    Ok((ciphertext.as_ref().to_vec(), SharedSecret(Zeroizing::new(secret.as_ref().to_vec()))))
}

fn algorithm(method: KeMethod) -> Result<&'static kem::Algorithm, KeError> {
    match method {
        KeMethod::MlKem512 => Ok(&kem::ML_KEM_512),
        KeMethod::MlKem768 => Ok(&kem::ML_KEM_768),
        KeMethod::MlKem1024 => Ok(&kem::ML_KEM_1024),
        KeMethod::Curve25519 | KeMethod::Ecp256 | KeMethod::Ecp384 => Err(KeError::Unsupported),
    }
}

#[cfg(test)]
impl KemDecapsulator {
    /// A decapsulation key in the form of FIPS 203, in which vectors are published.
    pub(crate) fn from_expanded(method: KeMethod, dk: &[u8]) -> Self {
        Self(DecapsulationKey::new(algorithm(method).unwrap(), dk).unwrap())
    }
}
