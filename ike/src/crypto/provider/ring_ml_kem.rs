//! `ring` for HMAC, AEAD, X25519, P-256 and P-384, `ml-kem` for ML-KEM, and `x25519-dalek`, `p256` and `p384` where a private
//! value is used more than once.

mod kem;
mod reusable;
mod ring;
mod symmetric;

pub(super) use self::kem::{KemDecapsulator, kem_encapsulate};
pub(super) use self::reusable::ReusableDh;
pub(super) use self::ring::DhSecret;
pub(in crate::crypto) use self::ring::constant_time_eq;
pub(super) use self::symmetric::{HmacKey, aead_open, aead_seal, sha1, sha256};
