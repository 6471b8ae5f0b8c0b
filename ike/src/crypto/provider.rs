//! The seam: every call into a crate that computes is in this folder.
//!
//! The first provider is `ring` for HMAC, AEAD, X25519, P-256 and P-384 with `ml-kem` for ML-KEM, and `x25519-dalek`, `p256`
//! and `p384` where a private value is used more than once. Another one offers the same functions and takes its place here.

mod kem;
mod reusable;
mod ring;

pub(super) use self::kem::{KemDecapsulator, kem_encapsulate};
pub(super) use self::reusable::ReusableDh;
pub(super) use self::ring::{DhSecret, aead_open, aead_seal, constant_time_eq, hmac, sha1, sha256};
