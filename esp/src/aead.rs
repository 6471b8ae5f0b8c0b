//! The seam to the AEAD provider: one expanded key, sealing and opening in place.
//!
//! The functions here do not know ESP. Whoever calls [`ExpandedKey::seal`] answers for it that no nonce is
//! ever used twice with a key.

mod ring;

use core::fmt;

use crate::{Algorithm, InvalidKeyLength};

/// Octets of a nonce.
pub const NONCE_LEN: usize = 12;

/// A key with everything that can be computed from it in advance. About half a kilobyte; it stays in the
/// process that expanded it.
pub struct ExpandedKey(ring::Key);

/// The ICV is wrong, or the text is longer than the algorithm allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AeadFailure;

impl ExpandedKey {
    /// Expands a key (without salt).
    ///
    /// # Errors
    /// [`InvalidKeyLength`] unless `key` has exactly [`Algorithm::key_len`] octets.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, InvalidKeyLength> {
        ring::Key::new(algorithm, key).map(Self)
    }

    /// Encrypts `text` in place and writes the ICV over it and `aad`.
    ///
    /// # Errors
    /// [`AeadFailure`] if `text` is longer than the algorithm allows (tens of gigabytes).
    #[inline]
    pub fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8; Algorithm::ICV_LEN],
    ) -> Result<(), AeadFailure> {
        self.0.seal(nonce, aad, text, icv)
    }

    /// Verifies the ICV at the end of `text_and_icv` over the text before it and `aad`, and decrypts the text
    /// in place.
    ///
    /// # Errors
    /// [`AeadFailure`] if the ICV is wrong or missing; the text is then garbage.
    #[inline]
    pub fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> Result<(), AeadFailure> {
        self.0.open(nonce, aad, text_and_icv)
    }
}

impl fmt::Debug for ExpandedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpandedKey(..)")
    }
}

impl fmt::Display for AeadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("authentication failed")
    }
}

impl core::error::Error for AeadFailure {}
