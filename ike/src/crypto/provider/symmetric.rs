//! HMAC, digests and AEAD. The two crates that do them have one interface, so one text is compiled against each.

/// `HmacKey`, `sha1`, `sha256`, `aead_seal` and `aead_open` by the crate of this name.
macro_rules! symmetric_by {
    ($by:ident) => {
        use $by::{aead, digest, hmac};

        use crate::crypto::aead::Aead;
        use crate::crypto::prf::{Prf, PrfOutput};

        /// A key of HMAC, with what of it is the same for every text computed once.
        pub(crate) struct HmacKey(hmac::Key);

        impl HmacKey {
            pub(crate) fn new(prf: Prf, key: &[u8]) -> Self {
                let algorithm = match prf {
                    Prf::HmacSha256 => hmac::HMAC_SHA256,
                    Prf::HmacSha384 => hmac::HMAC_SHA384,
                    Prf::HmacSha512 => hmac::HMAC_SHA512,
                };
                Self(hmac::Key::new(algorithm, key))
            }

            /// HMAC over the concatenation of `parts`.
            pub(crate) fn compute(&self, parts: &[&[u8]]) -> PrfOutput {
                let mut context = hmac::Context::with_key(&self.0);
                for part in parts {
                    context.update(part);
                }
                PrfOutput::new(context.sign().as_ref())
            }
        }

        pub(crate) fn sha1(text: &[u8]) -> [u8; 20] {
            let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text);
            digest.as_ref().try_into().unwrap_or([0; 20])
        }

        pub(crate) fn sha256(text: &[u8]) -> [u8; 32] {
            let digest = digest::digest(&digest::SHA256, text);
            digest.as_ref().try_into().unwrap_or([0; 32])
        }

        fn aead_key(aead: Aead, key: &[u8]) -> Option<aead::LessSafeKey> {
            let algorithm = match aead {
                Aead::Aes128Gcm16 => &aead::AES_128_GCM,
                Aead::Aes256Gcm16 => &aead::AES_256_GCM,
                Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            };
            Some(aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?))
        }

        /// Encrypts `text` in place and returns the tag; `None` if the key does not fit or the text is too long.
        pub(crate) fn aead_seal(
            aead: Aead,
            key: &[u8],
            nonce: [u8; 12],
            aad: &[u8],
            text: &mut [u8],
        ) -> Option<[u8; 16]> {
            let tag = aead_key(aead, key)?
                .seal_in_place_separate_tag(
                    aead::Nonce::assume_unique_for_key(nonce),
                    aead::Aad::from(aad),
                    text,
                )
                .ok()?;
            tag.as_ref().try_into().ok()
        }

        /// Decrypts text and tag in place and returns the text; `None` if it is not authentic.
        pub(crate) fn aead_open<'a>(
            aead: Aead,
            key: &[u8],
            nonce: [u8; 12],
            aad: &[u8],
            text_and_tag: &'a mut [u8],
        ) -> Option<&'a mut [u8]> {
            aead_key(aead, key)?
                .open_in_place(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), text_and_tag)
                .ok()
        }
    };
}

pub(super) use symmetric_by;
