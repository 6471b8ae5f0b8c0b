//! The key exchanges of a responder and nothing else: X25519 by `ring`, ML-KEM-768 by `ml-kem`.

use std::hint::black_box;

use ml_kem::kem::{Encapsulate, Kem};
use ml_kem::{EncapsulationKey768, KeyExport, MlKem768};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::SystemRandom;

use crate::thread_time_ns;

const EXCHANGES: u32 = 500;

/// Pairs of one X25519 and one ML-KEM-768 exchange in a second of processor time.
pub fn handshakes_per_second() -> f64 {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let random = SystemRandom::new();
    let peer = EphemeralPrivateKey::generate(&X25519, &random).and_then(|key| key.compute_public_key());
    let peer = peer.expect("the system has random numbers");
    let (_, key) = MlKem768::generate_keypair_from_rng(&mut rng);
    let key = key.to_bytes();
    let start = thread_time_ns();
    for _ in 0..EXCHANGES {
        x25519(peer.as_ref(), &random);
        let key = EncapsulationKey768::new(&key).expect("a valid key");
        black_box(key.encapsulate_with_rng(&mut rng));
    }
    f64::from(EXCHANGES) * 1e9 / (thread_time_ns() - start) as f64
}

fn x25519(peer: &[u8], random: &SystemRandom) {
    let secret = EphemeralPrivateKey::generate(&X25519, random).expect("the system has random numbers");
    let public = secret.compute_public_key();
    black_box(public.is_ok());
    let agreed = agree_ephemeral(secret, &UnparsedPublicKey::new(&X25519, peer), |secret| secret.to_vec());
    black_box(agreed.is_ok());
}
