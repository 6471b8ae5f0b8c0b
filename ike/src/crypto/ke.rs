//! Key exchange methods: Diffie-Hellman groups and ML-KEM (transform type 4, and ADDKE by RFC 9370).
//!
//! A KEM is not symmetric: the initiator sends an encapsulation key, the responder a ciphertext. The two roles are
//! therefore two operations, and the one that waits for the peer is consumed when its answer comes.

use core::fmt;

use zeroize::Zeroizing;

use super::{Rng, once, provider};

/// A key exchange method (IANA "Key Exchange Method Transform IDs").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum KeMethod {
    /// 256-bit random ECP group (RFC 5903).
    Ecp256,
    /// 384-bit random ECP group (RFC 5903).
    Ecp384,
    /// Curve25519 (RFC 8031).
    Curve25519,
    /// ml-kem-512.
    MlKem512,
    /// ml-kem-768.
    MlKem768,
    /// ml-kem-1024.
    MlKem1024,
}

impl KeMethod {
    /// The method with this transform ID, if it is supported.
    pub(crate) const fn from_id(id: u16) -> Option<Self> {
        match id {
            19 => Some(Self::Ecp256),
            20 => Some(Self::Ecp384),
            31 => Some(Self::Curve25519),
            35 => Some(Self::MlKem512),
            36 => Some(Self::MlKem768),
            37 => Some(Self::MlKem1024),
            _ => None,
        }
    }

    /// Its transform ID.
    pub(crate) const fn id(self) -> u16 {
        match self {
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Curve25519 => 31,
            Self::MlKem512 => 35,
            Self::MlKem768 => 36,
            Self::MlKem1024 => 37,
        }
    }

    /// Octets of Key Exchange Data that the initiator sends.
    pub(crate) const fn initiator_len(self) -> usize {
        match self {
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Curve25519 => 32,
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Octets of Key Exchange Data that the responder sends.
    pub(crate) const fn responder_len(self) -> usize {
        match self {
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Curve25519 => 32,
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }

    const fn is_kem(self) -> bool {
        matches!(self, Self::MlKem512 | Self::MlKem768 | Self::MlKem1024)
    }
}

/// Why a key exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeError {
    /// The peer's Key Exchange Data has the wrong length for the method.
    Length,
    /// The peer's Key Exchange Data is not a valid public value (RFC 6989, FIPS 203 section 7.2).
    InvalidPublicValue,
    /// The method is not one of those supported.
    Unsupported,
    /// The provider could not draw a private value.
    Provider,
}

/// A secret that two peers share; wiped when dropped.
pub(crate) struct SharedSecret(pub(super) Zeroizing<Vec<u8>>);

impl SharedSecret {
    /// The octets, for key derivation only.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// What the initiator of a key exchange keeps until the response.
pub(crate) struct KeInitiator {
    method: KeMethod,
    secret: Secret,
}

enum Secret {
    Dh(provider::DhSecret),
    Kem(provider::KemDecapsulator),
}

impl KeInitiator {
    /// Fresh private values, and the Key Exchange Data to send.
    pub(crate) fn generate(method: KeMethod, rng: &mut Rng) -> Result<(Self, Vec<u8>), KeError> {
        if method.is_kem() {
            let (secret, data) = provider::KemDecapsulator::generate(method, &mut once(rng))?;
            Ok((Self { method, secret: Secret::Kem(secret) }, data))
        } else {
            let (secret, data) = provider::DhSecret::generate(method)?;
            Ok((Self { method, secret: Secret::Dh(secret) }, data))
        }
    }

    /// The method it was made for.
    pub(crate) fn method(&self) -> KeMethod {
        self.method
    }

    /// The shared secret, from the responder's Key Exchange Data.
    pub(crate) fn finish(self, responder: &[u8]) -> Result<SharedSecret, KeError> {
        if responder.len() != self.method.responder_len() {
            return Err(KeError::Length);
        }
        match self.secret {
            Secret::Dh(secret) => secret.agree(self.method, responder),
            Secret::Kem(secret) => secret.decapsulate(responder),
        }
    }
}

/// What an initiator keeps of its first exchange until one of several responses has proven itself (RFC 7296 section 2.4).
/// Used within one exchange alone, and dropped with it.
pub(crate) struct ReusableKe {
    method: KeMethod,
    secret: ReusableSecret,
}

enum ReusableSecret {
    Dh(provider::ReusableDh),
    Kem(provider::KemDecapsulator),
}

impl ReusableKe {
    /// Fresh private values, and the Key Exchange Data to send.
    pub(crate) fn generate(method: KeMethod, rng: &mut Rng) -> Result<(Self, Vec<u8>), KeError> {
        if method.is_kem() {
            let (secret, data) = provider::KemDecapsulator::generate(method, &mut once(rng))?;
            Ok((Self { method, secret: ReusableSecret::Kem(secret) }, data))
        } else {
            let (secret, data) = provider::ReusableDh::generate(method)?;
            Ok((Self { method, secret: ReusableSecret::Dh(secret) }, data))
        }
    }

    /// The method it was made for.
    pub(crate) fn method(&self) -> KeMethod {
        self.method
    }

    /// The shared secret, from the Key Exchange Data of one response.
    pub(crate) fn agree(&self, responder: &[u8]) -> Result<SharedSecret, KeError> {
        if responder.len() != self.method.responder_len() {
            return Err(KeError::Length);
        }
        match &self.secret {
            ReusableSecret::Dh(secret) => secret.agree(responder),
            ReusableSecret::Kem(secret) => secret.decapsulate(responder),
        }
    }
}

impl fmt::Debug for ReusableKe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReusableKe({:?}, ..)", self.method)
    }
}

impl fmt::Debug for KeInitiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeInitiator({:?}, ..)", self.method)
    }
}

/// The responder's half: its Key Exchange Data and the shared secret, from the initiator's.
pub(crate) fn respond(
    method: KeMethod,
    initiator: &[u8],
    rng: &mut Rng,
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    if initiator.len() != method.initiator_len() {
        return Err(KeError::Length);
    }
    if method.is_kem() {
        provider::kem_encapsulate(method, initiator, &mut once(rng))
    } else {
        let (secret, data) = provider::DhSecret::generate(method)?;
        Ok((data, secret.agree(method, initiator)?))
    }
}
