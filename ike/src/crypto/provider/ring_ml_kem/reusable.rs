//! Diffie-Hellman with a private value that answers more than one peer value, for the first exchange of an initiator alone.
//!
//! `ring` consumes a private value when it is used, which is right everywhere but where several responses to one request are
//! followed until one proves itself (RFC 7296 section 2.4). Reuse needs the tests of RFC 6989 section 2 on every peer value:
//! points are decoded, which checks that they are on the curve, and a result of zero is refused (RFC 8031 section 2.3).

use p256::elliptic_curve::sec1::ToSec1Point as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::crypto::ke::{KeError, KeMethod, SharedSecret};

/// Private values drawn before one lies in the range of the curve; the chance that one does not is below 2^-32.
const ATTEMPTS: usize = 8;

/// A private value of one exchange; wiped when dropped.
pub(crate) enum ReusableDh {
    Curve25519(Box<x25519_dalek::StaticSecret>),
    Ecp256(Box<p256::SecretKey>),
    Ecp384(Box<p384::SecretKey>),
}

impl ReusableDh {
    /// A fresh private value and the Key Exchange Data that belongs to it.
    pub(crate) fn generate(method: KeMethod) -> Result<(Self, Vec<u8>), KeError> {
        let random = SystemRandom::new();
        for _ in 0..ATTEMPTS {
            let mut octets = Zeroizing::new(vec![0; private_len(method)?]);
            random.fill(&mut octets).map_err(|_| KeError::Provider)?;
            if let Some(generated) = Self::from_private(method, &octets) {
                return Ok(generated);
            }
        }
        Err(KeError::Provider)
    }

    pub(in crate::crypto::provider) fn from_private(
        method: KeMethod,
        private: &[u8],
    ) -> Option<(Self, Vec<u8>)> {
        match method {
            KeMethod::Curve25519 => {
                let octets = Zeroizing::new(<[u8; 32]>::try_from(private).ok()?);
                let secret = x25519_dalek::StaticSecret::from(*octets);
                let public = x25519_dalek::PublicKey::from(&secret);
                Some((Self::Curve25519(Box::new(secret)), public.as_bytes().to_vec()))
            }
            KeMethod::Ecp256 => {
                let secret = p256::SecretKey::from_slice(private).ok()?;
                let point = secret.public_key().to_sec1_point(false);
                let public = without_form(point.as_bytes());
                Some((Self::Ecp256(Box::new(secret)), public))
            }
            KeMethod::Ecp384 => {
                let secret = p384::SecretKey::from_slice(private).ok()?;
                let point = secret.public_key().to_sec1_point(false);
                let public = without_form(point.as_bytes());
                Some((Self::Ecp384(Box::new(secret)), public))
            }
            KeMethod::MlKem512 | KeMethod::MlKem768 | KeMethod::MlKem1024 => None,
        }
    }

    /// The shared secret with one peer's Key Exchange Data.
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<SharedSecret, KeError> {
        let secret = match self {
            Self::Curve25519(secret) => {
                let peer = <[u8; 32]>::try_from(peer).map_err(|_| KeError::Length)?;
                let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(peer));
                if !shared.was_contributory() {
                    return Err(KeError::InvalidPublicValue);
                }
                shared.as_bytes().to_vec()
            }
            Self::Ecp256(secret) => {
                let peer = p256::PublicKey::from_sec1_bytes(&with_form(peer))
                    .map_err(|_| KeError::InvalidPublicValue)?;
                p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine())
                    .raw_secret_bytes()
                    .to_vec()
            }
            Self::Ecp384(secret) => {
                let peer = p384::PublicKey::from_sec1_bytes(&with_form(peer))
                    .map_err(|_| KeError::InvalidPublicValue)?;
                p384::ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine())
                    .raw_secret_bytes()
                    .to_vec()
            }
        };
        Ok(SharedSecret(Zeroizing::new(secret)))
    }
}

fn private_len(method: KeMethod) -> Result<usize, KeError> {
    match method {
        KeMethod::Curve25519 | KeMethod::Ecp256 => Ok(32),
        KeMethod::Ecp384 => Ok(48),
        KeMethod::MlKem512 | KeMethod::MlKem768 | KeMethod::MlKem1024 => Err(KeError::Unsupported),
    }
}

/// RFC 5903 section 7 sends x and y alone; SEC 1 puts the form before them, 4 for "uncompressed".
fn with_form(data: &[u8]) -> Vec<u8> {
    [&[4], data].concat()
}

fn without_form(point: &[u8]) -> Vec<u8> {
    point.get(1..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::DhSecret;
    use super::*;
    use crate::crypto::provider::dh_vectors;

    #[test]
    fn the_published_secrets_are_agreed_on_again_and_again() {
        for vector in dh_vectors::ALL {
            let (secret, ours) = ReusableDh::from_private(vector.method, &vector.private()).unwrap();
            assert_eq!(ours, vector.public(), "{:?}", vector.method);
            for _ in 0..2 {
                assert_eq!(secret.agree(&vector.peer()).unwrap().expose(), vector.shared());
            }
        }
    }

    /// `ring` and the crates here agree with each other on fresh values.
    #[test]
    fn one_private_value_agrees_with_several_peers() {
        for method in [KeMethod::Curve25519, KeMethod::Ecp256, KeMethod::Ecp384] {
            let (secret, ours) = ReusableDh::generate(method).unwrap();
            for _ in 0..4 {
                let (peer, theirs) = DhSecret::generate(method).unwrap();
                let there = peer.agree(method, &ours).unwrap();
                assert_eq!(secret.agree(&theirs).unwrap().expose(), there.expose(), "{method:?}");
            }
        }
    }

    /// RFC 6989 section 2 and RFC 8031 section 2.3.
    #[test]
    fn public_values_off_the_curve_are_refused() {
        for (method, value) in dh_vectors::OFF_THE_CURVE {
            let (secret, _) = ReusableDh::generate(method).unwrap();
            assert_eq!(secret.agree(value).err(), Some(KeError::InvalidPublicValue), "{method:?}");
        }
        let (secret, _) = ReusableDh::generate(KeMethod::Ecp256).unwrap();
        assert!(secret.agree(&[0; 63]).is_err());
        assert!(ReusableDh::generate(KeMethod::MlKem768).is_err());
    }
}
