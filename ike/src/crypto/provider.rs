//! The seam: every call into a crate that computes is in this folder.
//!
//! `ring` does HMAC, AEAD, X25519, P-256 and P-384, `ml-kem` ML-KEM, and `x25519-dalek`, `p256` and `p384` are there where a
//! private value is used more than once. `aws-lc-rs` does signatures, because `ring` has no ML-DSA. They stand side by side in
//! one process, function by function (docs/adr/0015): another one offers the same function and takes its place here.

mod aws_lc;
mod kem;
mod reusable;
mod ring;

pub(super) use self::aws_lc::{PrivateKey, verify_signature};
pub(super) use self::kem::{KemDecapsulator, kem_encapsulate};
pub(super) use self::reusable::ReusableDh;
pub(super) use self::ring::{DhSecret, aead_open, aead_seal, constant_time_eq, hmac, sha1, sha256};
