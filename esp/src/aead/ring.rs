//! The AEADs of `ring`.

use ::ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{AeadFailure, NONCE_LEN};
use crate::{Algorithm, InvalidKeyLength};

/// An expanded key of `ring`.
pub(super) struct Key(LessSafeKey);

impl Key {
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, InvalidKeyLength> {
        let aead = match algorithm {
            Algorithm::Aes128Gcm16 => &AES_128_GCM,
            Algorithm::Aes256Gcm16 => &AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(aead, key).map_err(|_| InvalidKeyLength)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8; Algorithm::ICV_LEN],
    ) -> Result<(), AeadFailure> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        match &self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text) {
            Ok(tag) => *icv = *tag.as_ref().first_chunk().ok_or(AeadFailure)?,
            Err(_) => return Err(AeadFailure),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> Result<(), AeadFailure> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), text_and_icv).map(|_| ()).map_err(|_| AeadFailure)
    }
}
