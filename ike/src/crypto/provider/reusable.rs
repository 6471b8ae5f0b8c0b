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

    fn from_private(method: KeMethod, private: &[u8]) -> Option<(Self, Vec<u8>)> {
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
    use super::*;
    use crate::crypto::prf::tests::unhex;
    use crate::crypto::provider::DhSecret;

    /// RFC 7748 section 6.1, RFC 5903 sections 8.1 and 8.2.
    #[test]
    fn the_published_secrets_are_agreed_on_again_and_again() {
        for (method, private, public, peer, shared) in [
            (
                KeMethod::Curve25519,
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
                "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
            ),
            (
                KeMethod::Ecp256,
                "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
                "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180\
                 5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
                "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
                 56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
                "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
            ),
            (
                KeMethod::Ecp384,
                "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
                "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA\
                 9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
                "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571\
                 DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
                "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
            ),
        ] {
            let (secret, ours) = ReusableDh::from_private(method, &unhex(private)).unwrap();
            assert_eq!(ours, unhex(public), "{method:?}");
            for _ in 0..2 {
                assert_eq!(secret.agree(&unhex(peer)).unwrap().expose(), unhex(shared), "{method:?}");
            }
        }
    }

    /// The two providers agree with each other on fresh values.
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
        for (method, value) in [
            (KeMethod::Curve25519, vec![0; 32]),
            (KeMethod::Ecp256, vec![1; 64]),
            (KeMethod::Ecp384, vec![1; 96]),
        ] {
            let (secret, _) = ReusableDh::generate(method).unwrap();
            assert_eq!(secret.agree(&value).err(), Some(KeError::InvalidPublicValue), "{method:?}");
        }
        let (secret, _) = ReusableDh::generate(KeMethod::Ecp256).unwrap();
        assert!(secret.agree(&[0; 63]).is_err());
        assert!(ReusableDh::generate(KeMethod::MlKem768).is_err());
    }
}
