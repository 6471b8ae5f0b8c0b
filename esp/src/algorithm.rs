//! The AEAD algorithms of ESP and the lengths that each fixes.

/// An AEAD algorithm of ESP, with a 16-octet ICV and an explicit 8-octet IV.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// AES-GCM with a 128-bit key (RFC 4106).
    Aes128Gcm16 = 1,
    /// AES-GCM with a 256-bit key (RFC 4106).
    Aes256Gcm16 = 2,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305 = 3,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm16, Self::Aes256Gcm16, Self::ChaCha20Poly1305];
    /// Octets of salt behind the key in KEYMAT (RFC 4106 section 8.1, RFC 7634 section 2).
    pub const SALT_LEN: usize = 4;
    /// Octets of the IV that each packet carries (RFC 4106 section 3.1, RFC 7634 section 2).
    pub const IV_LEN: usize = 8;
    /// Octets of the ICV.
    pub const ICV_LEN: usize = 16;
    /// Octets that the longest KEYMAT of all algorithms has.
    pub const MAX_KEYMAT_LEN: usize = 36;

    /// Octets of the key without its salt.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Octets that one direction takes from KEYMAT: key, then salt.
    pub const fn keymat_len(self) -> usize {
        self.key_len() + Self::SALT_LEN
    }

    /// The algorithm with this number (`self as u8`), as the SA table stores it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes128Gcm16),
            2 => Some(Self::Aes256Gcm16),
            3 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4106 section 8.1 and RFC 7634 section 2: 20, 36 and 36 octets of KEYMAT.
    #[test]
    fn keymat_lengths_are_those_of_the_rfcs() {
        assert_eq!(Algorithm::ALL.map(Algorithm::keymat_len), [20, 36, 36]);
        assert_eq!(Algorithm::ALL.iter().map(|a| a.keymat_len()).max(), Some(Algorithm::MAX_KEYMAT_LEN));
    }

    #[test]
    fn numbers_name_their_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_number(algorithm as u8), Some(algorithm));
        }
        assert_eq!(Algorithm::from_number(0), None);
    }
}
