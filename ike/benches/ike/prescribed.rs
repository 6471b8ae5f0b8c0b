//! What RFC 7296 prescribes beside key exchanges: HMAC, AEAD, SHA-1 and random numbers of one handshake, on texts of the lengths
//! that they have in it, as the crates that compute them do them. Each is done as often as the responder does it.

use std::hint::black_box;

use portcullis_ike::Provider;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Octets of a nonce, a key and the output of PRF_HMAC_SHA2_384, the cipher's key and salt, and what prf+ of a set of keys is
/// seeded with.
const NONCE: usize = 32;
const PRF: usize = 48;
const SHARED: usize = 32;
const CIPHER: usize = 36;
const SEED: usize = 2 * NONCE + 16;

/// Octets of the messages of a handshake, as they were on the wire.
#[derive(Clone, Copy, Default, Debug)]
pub struct Lengths {
    /// IKE_SA_INIT, request and response.
    pub init: [usize; 2],
    /// IKE_INTERMEDIATE, request and response; zero if there is none.
    pub intermediate: [usize; 2],
    /// IKE_AUTH, request and response.
    pub auth: [usize; 2],
}

macro_rules! by {
    ($name:ident, $by:ident) => {
        mod $name {
            use $by::{aead, digest, hmac};

            use super::*;

            pub fn handshake(lengths: &Lengths) {
                // NAT detection: two digests sent, two compared (section 2.23).
                for _ in 0..4 {
                    black_box(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[1; 22]));
                }
                // SKEYSEED and what it is expanded to (section 2.14).
                prf(2 * NONCE, SHARED);
                prf_plus(3 * PRF + 2 * CIPHER, SEED);
                if lengths.intermediate[0] > 0 {
                    // RFC 9370 section 2.2.2, RFC 9242 section 3.3.2.
                    prf(PRF, SHARED + 2 * NONCE);
                    prf_plus(3 * PRF + 2 * CIPHER, SEED);
                    lengths.intermediate.iter().for_each(|length| prf(PRF, *length));
                    lengths.intermediate.iter().for_each(|length| protect(*length));
                }
                // "Key Pad for IKEv2" once, and both AUTH, each with its MACed identity (section 2.15).
                prf(16, 17);
                let covered = if lengths.intermediate[0] > 0 { 2 * PRF + 4 } else { 0 };
                for _ in 0..2 {
                    prf(PRF, 16);
                    prf(PRF, 8 + lengths.init[0] + lengths.init[1] + NONCE + PRF + covered);
                }
                lengths.auth.iter().for_each(|length| protect(*length));
                // KEYMAT (section 2.17).
                prf_plus(2 * CIPHER, 2 * NONCE);
            }

            fn prf(key: usize, text: usize) {
                let key = hmac::Key::new(hmac::HMAC_SHA384, &TEXT[..key]);
                black_box(hmac::sign(&key, &TEXT[..text]));
            }

            fn prf_plus(octets: usize, seed: usize) {
                let key = hmac::Key::new(hmac::HMAC_SHA384, &TEXT[..PRF]);
                for block in 0..octets.div_ceil(PRF) {
                    let last = if block == 0 { 0 } else { PRF };
                    black_box(hmac::sign(&key, &TEXT[..last + seed + 1]));
                }
            }

            /// Opening costs what sealing does.
            fn protect(octets: usize) {
                let key = aead::UnboundKey::new(&aead::AES_256_GCM, &TEXT[..32]).expect("a key of 32 octets");
                let nonce = aead::Nonce::assume_unique_for_key([1; 12]);
                let mut text = [2; 4096];
                let text = &mut text[..octets];
                let sealed = aead::LessSafeKey::new(key).seal_in_place_separate_tag(
                    nonce,
                    aead::Aad::from(&TEXT[..32]),
                    text,
                );
                black_box(sealed.is_ok());
            }
        }
    };
}

by!(by_ring, ring);
by!(by_aws_lc, aws_lc_rs);

static TEXT: [u8; 4096] = [7; 4096];

/// All of it once.
pub fn handshake(provider: Provider, lengths: &Lengths, rng: &mut ChaCha20Rng) {
    // Nonce and SPI of IKE, and the SPI of ESP; for ML-KEM, a generator of its own and a new seed for this one.
    rng.fill_bytes(&mut [0; NONCE + 8 + 4]);
    if lengths.intermediate[0] > 0 {
        let mut seeds = [[0; 32]; 2];
        seeds.iter_mut().for_each(|seed| rng.fill_bytes(seed));
        *rng = ChaCha20Rng::from_seed(seeds[0]);
        black_box(ChaCha20Rng::from_seed(seeds[1]));
    }
    match provider {
        Provider::Ring => by_ring::handshake(lengths),
        Provider::AwsLc => by_aws_lc::handshake(lengths),
    }
}
