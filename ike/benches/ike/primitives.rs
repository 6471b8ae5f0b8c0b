//! The cryptography of a responder and nothing else, as the crates that compute it do it.

use std::hint::black_box;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey as AwsLcPublicKey};
use aws_lc_rs::kem::{DecapsulationKey, EncapsulationKey};
use ml_kem::kem::{Encapsulate, Kem};
use ml_kem::{EncapsulationKey768, KeyExport, MlKem768};
use portcullis_ike::Provider;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::SystemRandom;

use crate::prescribed::{self, Lengths};
use crate::thread_time_ns;

const EXCHANGES: u32 = 500;

/// Exchanges of X25519, each with one of ML-KEM-768 if `with_kem`, in a second of processor time.
pub fn exchanges_per_second(provider: Provider, with_kem: bool) -> f64 {
    timed_by(provider, with_kem, || ())
}

/// The same with everything else that has to be computed for a handshake with messages of these lengths.
pub fn handshakes_per_second(provider: Provider, with_kem: bool, lengths: &Lengths) -> f64 {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    timed_by(provider, with_kem, || prescribed::handshake(provider, lengths, &mut rng))
}

fn timed_by(provider: Provider, with_kem: bool, beside: impl FnMut()) -> f64 {
    match provider {
        Provider::Ring => by_ring(with_kem, beside),
        Provider::AwsLc => by_aws_lc(with_kem, beside),
    }
}

fn by_ring(with_kem: bool, mut beside: impl FnMut()) -> f64 {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let random = SystemRandom::new();
    let peer = EphemeralPrivateKey::generate(&X25519, &random).and_then(|key| key.compute_public_key());
    let peer = peer.expect("the system has random numbers");
    let (_, key) = MlKem768::generate_keypair_from_rng(&mut rng);
    let key = key.to_bytes();
    timed(|| {
        let secret = EphemeralPrivateKey::generate(&X25519, &random).expect("the system has random numbers");
        black_box(secret.compute_public_key().is_ok());
        let peer = UnparsedPublicKey::new(&X25519, peer.as_ref());
        black_box(agree_ephemeral(secret, &peer, |secret| secret.to_vec()).is_ok());
        if with_kem {
            let key = EncapsulationKey768::new(&key).expect("a valid key");
            black_box(key.encapsulate_with_rng(&mut rng));
        }
        beside();
    })
}

fn by_aws_lc(with_kem: bool, mut beside: impl FnMut()) -> f64 {
    use aws_lc_rs::agreement::{X25519, agree};
    use aws_lc_rs::kem::ML_KEM_768;
    let peer = PrivateKey::generate(&X25519).and_then(|key| key.compute_public_key());
    let peer = peer.expect("the system has random numbers");
    let key = DecapsulationKey::generate(&ML_KEM_768).and_then(|key| key.encapsulation_key()?.key_bytes());
    let key = key.expect("the system has random numbers");
    timed(|| {
        let secret = PrivateKey::generate(&X25519).expect("the system has random numbers");
        black_box(secret.compute_public_key().is_ok());
        let peer = AwsLcPublicKey::new(&X25519, peer.as_ref());
        black_box(agree(&secret, peer, (), |secret| Ok(secret.to_vec())).is_ok());
        if with_kem {
            let key = EncapsulationKey::new(&ML_KEM_768, key.as_ref()).expect("a valid key");
            black_box(key.encapsulate().is_ok());
        }
        beside();
    })
}

fn timed(mut exchange: impl FnMut()) -> f64 {
    let start = thread_time_ns();
    for _ in 0..EXCHANGES {
        exchange();
    }
    f64::from(EXCHANGES) * 1e9 / (thread_time_ns() - start) as f64
}
