//! Key material of one direction of an SA, as KEYMAT gives it.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Algorithm;
use crate::aead::{ExpandedKey, NONCE_LEN};

/// Key and salt of one direction; wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    #[zeroize(skip)]
    algorithm: Algorithm,
    key: [u8; 32],
    salt: [u8; Algorithm::SALT_LEN],
}

/// KEYMAT of a length that the algorithm does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidKeyLength;

impl KeyMaterial {
    /// Takes key, then salt, from KEYMAT (RFC 4106 section 8.1, RFC 7634 section 2).
    ///
    /// # Errors
    /// [`InvalidKeyLength`] unless `keymat` has exactly [`Algorithm::keymat_len`] octets.
    pub fn from_keymat(algorithm: Algorithm, keymat: &[u8]) -> Result<Self, InvalidKeyLength> {
        let (key, salt) = keymat.split_at_checked(algorithm.key_len()).ok_or(InvalidKeyLength)?;
        let salt = salt.try_into().map_err(|_| InvalidKeyLength)?;
        let mut material = Self { algorithm, key: [0; 32], salt };
        material.key.get_mut(..key.len()).ok_or(InvalidKeyLength)?.copy_from_slice(key);
        Ok(material)
    }

    /// The algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn key(&self) -> &[u8] {
        self.key.get(..self.algorithm.key_len()).unwrap_or_default()
    }
}

/// Key material made ready for packets. About half a kilobyte; it stays in the process that expanded it.
#[derive(Debug)]
pub struct ExpandedKeymat {
    pub(crate) key: ExpandedKey,
    salt: u32,
}

impl ExpandedKeymat {
    /// Expands the key.
    ///
    /// # Errors
    /// [`InvalidKeyLength`] if the provider does not take the key; [`KeyMaterial`] always has the right length.
    pub fn new(material: &KeyMaterial) -> Result<Self, InvalidKeyLength> {
        Ok(Self {
            key: ExpandedKey::new(material.algorithm, material.key())?,
            salt: u32::from_be_bytes(material.salt),
        })
    }

    /// Salt, then IV (RFC 4106 section 4, RFC 7634 section 2).
    #[inline]
    pub(crate) fn nonce(&self, iv: u64) -> [u8; NONCE_LEN] {
        let [nonce @ .., _, _, _, _] = (u128::from(self.salt) << 96 | u128::from(iv) << 32).to_be_bytes();
        nonce
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({:?}, ..)", self.algorithm)
    }
}

impl fmt::Display for InvalidKeyLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key material does not have the length of the algorithm")
    }
}

impl core::error::Error for InvalidKeyLength {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_salt_come_in_this_order() {
        let keymat: Vec<u8> = (0..20).collect();
        let material = KeyMaterial::from_keymat(Algorithm::Aes128Gcm16, &keymat).unwrap();
        assert_eq!((material.key(), material.salt), (&keymat[..16], [16, 17, 18, 19]));
    }

    #[test]
    fn every_other_length_is_refused() {
        for algorithm in Algorithm::ALL {
            for len in 0..64 {
                let taken = KeyMaterial::from_keymat(algorithm, &vec![7; len]).is_ok();
                assert_eq!(taken, len == algorithm.keymat_len(), "{algorithm:?} {len}");
            }
        }
    }

    #[test]
    fn debug_prints_no_key() {
        let material = KeyMaterial::from_keymat(Algorithm::Aes256Gcm16, &[0xab; 36]).unwrap();
        let text = format!("{material:?}");
        assert!(!text.contains("171") && !text.contains("ab, ab") && text.contains("Aes256Gcm16"));
    }
}
