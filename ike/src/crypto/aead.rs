//! Authenticated encryption of the Encrypted payload (RFC 5282 for AES-GCM, RFC 7634 for ChaCha20-Poly1305).

use core::fmt;

use zeroize::Zeroizing;

use super::provider;

/// A negotiated AEAD algorithm, transform type 1, with the 16-octet ICV that RFC 8247 asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Aead {
    /// ENCR_AES_GCM_16 with a 128-bit key.
    Aes128Gcm16,
    /// ENCR_AES_GCM_16 with a 256-bit key.
    Aes256Gcm16,
    /// ENCR_CHACHA20_POLY1305.
    ChaCha20Poly1305,
}

/// Octets of the Initialization Vector (RFC 5282 section 3, RFC 7634 section 2).
pub(crate) const IV_LEN: usize = 8;
/// Octets of the Integrity Check Value.
pub(crate) const ICV_LEN: usize = 16;
/// Octets of the salt that follows the key in the keying material (RFC 5282 section 7.1, RFC 7634 section 2).
const SALT_LEN: usize = 4;

impl Aead {
    /// The algorithm with this transform ID and Key Length attribute in bits, if it is supported.
    pub(crate) const fn from_id(id: u16, key_bits: Option<u16>) -> Option<Self> {
        match (id, key_bits) {
            (20, Some(128)) => Some(Self::Aes128Gcm16),
            (20, Some(256)) => Some(Self::Aes256Gcm16),
            (28, None) => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Octets of keying material: the key and its salt.
    pub(crate) const fn keymat_len(self) -> usize {
        self.key_len() + SALT_LEN
    }

    const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The name in strongSwan notation, as key logs and status print it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }
}

/// Key and salt of one direction of an IKE SA.
#[derive(Clone)]
pub(crate) struct AeadKey {
    aead: Aead,
    /// The first [`Aead::keymat_len`] octets.
    keymat: Zeroizing<[u8; MOST_KEYMAT]>,
}

/// Octets of the longest key and its salt.
const MOST_KEYMAT: usize = 32 + SALT_LEN;

impl AeadKey {
    /// Takes exactly [`Aead::keymat_len`] octets.
    pub(crate) fn new(aead: Aead, keymat: &[u8]) -> Self {
        debug_assert_eq!(keymat.len(), aead.keymat_len());
        let mut key = Self { aead, keymat: Zeroizing::new([0; MOST_KEYMAT]) };
        for (to, from) in key.keymat.iter_mut().zip(keymat) {
            *to = *from;
        }
        key
    }

    /// Encrypts `text` in place and returns the ICV. The caller never uses an `iv` twice with one key.
    pub(crate) fn seal(&self, iv: [u8; IV_LEN], aad: &[u8], text: &mut [u8]) -> Option<[u8; ICV_LEN]> {
        let (key, nonce) = self.key_and_nonce(iv)?;
        provider::aead_seal(self.aead, key, nonce, aad, text)
    }

    /// Decrypts `text_and_icv` in place; `None` if it is not authentic.
    pub(crate) fn open<'a>(
        &self,
        iv: [u8; IV_LEN],
        aad: &[u8],
        text_and_icv: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let (key, nonce) = self.key_and_nonce(iv)?;
        provider::aead_open(self.aead, key, nonce, aad, text_and_icv)
    }

    /// Key and salt, for a key log only.
    pub(crate) fn expose(&self) -> &[u8] {
        self.keymat.get(..self.aead.keymat_len()).unwrap_or_default()
    }

    fn key_and_nonce(&self, iv: [u8; IV_LEN]) -> Option<(&[u8], [u8; 12])> {
        let (key, salt) = self.expose().split_at_checked(self.aead.key_len())?;
        let [s0, s1, s2, s3] = *<&[u8; SALT_LEN]>::try_from(salt).ok()?;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        Some((key, [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]))
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeadKey({:?}, ..)", self.aead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::prf::tests::unhex;

    /// McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test cases 4 and 16.
    #[test]
    fn aes_gcm_matches_the_published_vectors() {
        let text = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
        let aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
        matches(
            Aead::Aes128Gcm16,
            "feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            aad,
            text,
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        );
        matches(
            Aead::Aes256Gcm16,
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            aad,
            text,
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        );
    }

    /// RFC 8439 section 2.8.2.
    #[test]
    fn chacha20_poly1305_matches_rfc_8439() {
        matches(
            Aead::ChaCha20Poly1305,
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "070000004041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            "4c616469657320616e642047656e746c656d656e206f662074686520636c6173\
             73206f66202739393a204966204920636f756c64206f6666657220796f75206f\
             6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73\
             637265656e20776f756c642062652069742e",
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6\
             3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36\
             92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
             3ff4def08e4b7a9de576d26586cec64b6116",
            "1ae10b594f09e26a7e902ecbd0600691",
        );
    }

    /// RFC 7634 appendix B: an INFORMATIONAL response as IKE sends it.
    #[test]
    fn chacha20_poly1305_matches_the_encrypted_payload_of_rfc_7634() {
        matches(
            Aead::ChaCha20Poly1305,
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "a0a1a2a31011121314151617",
            "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029",
            "0000000c000040010000000a00",
            "610394701f8d017f7c12924889",
            "6b71bfe25236efd7cdc67066906315b2",
        );
    }

    #[test]
    fn a_changed_octet_anywhere_is_noticed() {
        let key = AeadKey::new(Aead::Aes128Gcm16, &[1; 20]);
        let mut sealed = b"text".to_vec();
        let icv = key.seal([2; 8], b"aad", &mut sealed).unwrap();
        sealed.extend_from_slice(&icv);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open([2; 8], b"aad", &mut changed).is_none());
        }
        assert!(key.open([2; 8], b"aae", &mut sealed.clone()).is_none());
        assert!(key.open([3; 8], b"aad", &mut sealed.clone()).is_none());
        assert_eq!(key.open([2; 8], b"aad", &mut sealed).unwrap(), b"text");
    }

    fn matches(aead: Aead, key: &str, nonce: &str, aad: &str, text: &str, cipher_text: &str, icv: &str) {
        let (nonce, aad, text) = (unhex(nonce), unhex(aad), unhex(text));
        let (salt, iv) = nonce.split_at(SALT_LEN);
        let key = AeadKey::new(aead, &[unhex(key).as_slice(), salt].concat());
        let iv = iv.try_into().unwrap();
        let mut data = text.clone();
        let tag = key.seal(iv, &aad, &mut data).unwrap();
        assert_eq!((data.as_slice(), tag.as_slice()), (unhex(cipher_text).as_slice(), unhex(icv).as_slice()));
        data.extend_from_slice(&tag);
        assert_eq!(key.open(iv, &aad, &mut data).unwrap(), text);
    }
}
