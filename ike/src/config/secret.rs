//! Secrets of the configuration.

use core::fmt;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::crypto::prf::{Prf, PrfOutput};

/// A secret that is wiped when its last holder drops it, and never printed.
#[derive(Clone)]
pub struct Secret(Arc<Held>);

struct Held {
    octets: Zeroizing<Box<[u8]>>,
    key_pads: [OnceLock<Box<PrfOutput>>; 3],
}

impl Secret {
    /// Takes the octets of the secret.
    pub fn new(octets: Vec<u8>) -> Self {
        // Through a copy: the vector may have more room than octets, and giving that back would leave them in freed memory.
        let octets = Zeroizing::new(octets);
        Self(Arc::new(Held {
            octets: Zeroizing::new(octets.as_slice().into()),
            key_pads: Default::default(),
        }))
    }

    /// The octets, for key derivation only.
    pub fn expose(&self) -> &[u8] {
        &self.0.octets
    }

    /// prf(Shared Secret, "Key Pad for IKEv2") (RFC 7296 section 2.15), which is the same in every AUTH by this secret and is
    /// computed in the first.
    pub(crate) fn key_pad(&self, prf: Prf) -> &PrfOutput {
        let [sha256, sha384, sha512] = &self.0.key_pads;
        let kept = match prf {
            Prf::HmacSha256 => sha256,
            Prf::HmacSha384 => sha384,
            Prf::HmacSha512 => sha512,
        };
        kept.get_or_init(|| Box::new(prf.compute(self.expose(), &[b"Key Pad for IKEv2"])))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.octets == other.0.octets
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7296 section 2.15, with the function that was negotiated.
    #[test]
    fn a_key_pad_is_computed_once_for_each_function_and_all_holders() {
        let secret = Secret::new(b"secret".to_vec());
        let other = secret.clone();
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            let expected = prf.compute(b"secret", &[b"Key Pad for IKEv2"]);
            assert_eq!(secret.key_pad(prf).to_vec(), expected.to_vec(), "{prf:?}");
            assert!(core::ptr::eq(secret.key_pad(prf), other.key_pad(prf)), "{prf:?}");
        }
    }

    #[test]
    fn secrets_are_equal_by_their_octets() {
        let secret = Secret::new(b"secret".to_vec());
        secret.key_pad(Prf::HmacSha256);
        assert_eq!(secret, Secret::new(b"secret".to_vec()));
        assert_ne!(secret, Secret::new(b"secreT".to_vec()));
    }
}
