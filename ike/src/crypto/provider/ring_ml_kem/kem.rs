//! ML-KEM by the `ml-kem` crate, with the input checks of FIPS 203 sections 7.2 and 7.3.

use ml_kem::kem::{Decapsulate, Encapsulate, Kem};
use ml_kem::{
    EncapsulationKey512, EncapsulationKey768, EncapsulationKey1024, KeyExport, MlKem512, MlKem768, MlKem1024,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::crypto::ke::{KeError, KeMethod, SharedSecret};

/// A decapsulation key, used for one ciphertext.
pub(crate) struct KemDecapsulator(Inner);

enum Inner {
    MlKem512(Box<ml_kem::DecapsulationKey512>),
    MlKem768(Box<ml_kem::DecapsulationKey768>),
    MlKem1024(Box<ml_kem::DecapsulationKey1024>),
}

impl KemDecapsulator {
    /// A fresh key pair; the encapsulation key is the Key Exchange Data of the initiator.
    pub(crate) fn generate(method: KeMethod, rng: &mut impl CryptoRng) -> Result<(Self, Vec<u8>), KeError> {
        match method {
            KeMethod::MlKem512 => {
                let (dk, ek) = MlKem512::generate_keypair_from_rng(rng);
                Ok((Self(Inner::MlKem512(Box::new(dk))), ek.to_bytes().to_vec()))
            }
            KeMethod::MlKem768 => {
                let (dk, ek) = MlKem768::generate_keypair_from_rng(rng);
                Ok((Self(Inner::MlKem768(Box::new(dk))), ek.to_bytes().to_vec()))
            }
            KeMethod::MlKem1024 => {
                let (dk, ek) = MlKem1024::generate_keypair_from_rng(rng);
                Ok((Self(Inner::MlKem1024(Box::new(dk))), ek.to_bytes().to_vec()))
            }
            KeMethod::Curve25519 | KeMethod::Ecp256 | KeMethod::Ecp384 => Err(KeError::Unsupported),
        }
    }

    /// The shared secret in `ciphertext`. Its length is the type check of FIPS 203 section 7.3; a wrong ciphertext of
    /// the right length gives another secret (implicit rejection).
    pub(crate) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, KeError> {
        let secret = match &self.0 {
            Inner::MlKem512(dk) => dk.decapsulate_slice(ciphertext),
            Inner::MlKem768(dk) => dk.decapsulate_slice(ciphertext),
            Inner::MlKem1024(dk) => dk.decapsulate_slice(ciphertext),
        };
        let secret = secret.map_err(|_| KeError::Length)?;
        Ok(SharedSecret(Zeroizing::new(secret.to_vec())))
    }
}

/// Encapsulates a fresh secret to the peer's encapsulation key, after the checks of FIPS 203 section 7.2: its length, and
/// that every coefficient is reduced modulo q. Returns the ciphertext and the secret.
pub(crate) fn kem_encapsulate(
    method: KeMethod,
    key: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    match method {
        KeMethod::MlKem512 => encapsulate::<EncapsulationKey512>(key, rng),
        KeMethod::MlKem768 => encapsulate::<EncapsulationKey768>(key, rng),
        KeMethod::MlKem1024 => encapsulate::<EncapsulationKey1024>(key, rng),
        KeMethod::Curve25519 | KeMethod::Ecp256 | KeMethod::Ecp384 => Err(KeError::Unsupported),
    }
}

fn encapsulate<K: Encapsulate>(
    key: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, SharedSecret), KeError> {
    let key = key.try_into().map_err(|_| KeError::Length)?;
    let key = K::new(key).map_err(|_| KeError::InvalidPublicValue)?;
    let (ciphertext, secret) = key.encapsulate_with_rng(rng);
    Ok((ciphertext.to_vec(), SharedSecret(Zeroizing::new(secret.to_vec()))))
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;
    use std::collections::BTreeMap;

    use rand_core::{SeedableRng, TryCryptoRng, TryRng};

    use super::*;
    use crate::crypto::Rng;
    use crate::crypto::prf::tests::unhex;

    const METHODS: [KeMethod; 3] = [KeMethod::MlKem512, KeMethod::MlKem768, KeMethod::MlKem1024];

    /// FIPS 203; the vectors and their source are in `vectors/ml-kem.txt`.
    #[test]
    fn ml_kem_matches_the_published_vectors() {
        let sets: Vec<_> = include_str!("vectors/ml-kem.txt").split("name = ").skip(1).map(parse).collect();
        assert_eq!(sets.len(), METHODS.len());
        let mut rng = Rng::from_seed([7; 32]);
        for (method, set) in METHODS.into_iter().zip(sets) {
            let mut seed = Fixed([unhex(set["d"]), unhex(set["z"])].concat());
            let (decapsulator, ek) = KemDecapsulator::generate(method, &mut seed).unwrap();
            assert!(ek == unhex(set["ek"]), "{method:?}: encapsulation key");
            let (ciphertext, secret) = kem_encapsulate(method, &ek, &mut rng).unwrap();
            assert_eq!(decapsulator.decapsulate(&ciphertext).unwrap().expose(), secret.expose());

            let (ciphertext, secret) =
                kem_encapsulate(method, &unhex(set["encap_ek"]), &mut Fixed(unhex(set["m"]))).unwrap();
            assert!(ciphertext == unhex(set["c"]), "{method:?}: ciphertext");
            assert_eq!(secret.expose(), unhex(set["k"]), "{method:?}: encapsulated secret");

            let decapsulator = expanded(method, &unhex(set["dk"]));
            let secret = decapsulator.decapsulate(&unhex(set["decap_c"])).unwrap();
            assert_eq!(secret.expose(), unhex(set["decap_k"]), "{method:?}: decapsulated secret");
        }
    }

    #[allow(deprecated, reason = "NIST publishes decapsulation keys in their expanded form")]
    fn expanded(method: KeMethod, dk: &[u8]) -> KemDecapsulator {
        use ml_kem::ExpandedKeyEncoding;
        KemDecapsulator(match method {
            KeMethod::MlKem512 => Inner::MlKem512(Box::new(
                ml_kem::DecapsulationKey512::from_expanded_bytes(dk.try_into().unwrap()).unwrap(),
            )),
            KeMethod::MlKem768 => Inner::MlKem768(Box::new(
                ml_kem::DecapsulationKey768::from_expanded_bytes(dk.try_into().unwrap()).unwrap(),
            )),
            _ => Inner::MlKem1024(Box::new(
                ml_kem::DecapsulationKey1024::from_expanded_bytes(dk.try_into().unwrap()).unwrap(),
            )),
        })
    }

    fn parse(set: &str) -> BTreeMap<&str, &str> {
        set.lines().filter_map(|line| line.split_once(" = ")).collect()
    }

    /// Gives out these octets, once.
    struct Fixed(Vec<u8>);

    impl TryRng for Fixed {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            let mut word = [0; 4];
            self.try_fill_bytes(&mut word)?;
            Ok(u32::from_le_bytes(word))
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let mut word = [0; 8];
            self.try_fill_bytes(&mut word)?;
            Ok(u64::from_le_bytes(word))
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            let rest = self.0.split_off(out.len());
            out.copy_from_slice(&self.0);
            self.0 = rest;
            Ok(())
        }
    }

    impl TryCryptoRng for Fixed {}
}
