//! `aws-lc-rs` for everything that has a key. It draws its randomness from the system.

mod agreement;
mod kem;
mod signature;
mod symmetric;

pub(super) use self::agreement::DhSecret;
pub(super) use self::kem::{KemDecapsulator, kem_encapsulate};
pub(in crate::crypto) use self::signature::{PrivateKey, verify_signature};
pub(super) use self::symmetric::{HmacKey, aead_open, aead_seal, sha1, sha256};
