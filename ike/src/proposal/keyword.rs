//! The words of the notation. Of several words for one algorithm the first is printed.

use super::suite::Encryption;
use crate::codec::{EncrId, KeMethod, PrfId, SnId};

const AES_128_GCM_16: Encryption = Encryption { id: EncrId::AES_GCM_16, key_bits: Some(128) };
const AES_256_GCM_16: Encryption = Encryption { id: EncrId::AES_GCM_16, key_bits: Some(256) };
const CHACHA20_POLY1305: Encryption = Encryption { id: EncrId::CHACHA20_POLY1305, key_bits: None };

pub(super) const ENCRYPTION: &[(&str, Encryption)] = &[
    ("aes128gcm16", AES_128_GCM_16),
    ("aes256gcm16", AES_256_GCM_16),
    ("chacha20poly1305", CHACHA20_POLY1305),
    ("aes128gcm128", AES_128_GCM_16),
    ("aes256gcm128", AES_256_GCM_16),
    ("aes128gcm", AES_128_GCM_16),
    ("aes256gcm", AES_256_GCM_16),
];

pub(super) const PRF: &[(&str, PrfId)] = &[
    ("prfsha256", PrfId::HMAC_SHA2_256),
    ("prfsha384", PrfId::HMAC_SHA2_384),
    ("prfsha512", PrfId::HMAC_SHA2_512),
];

pub(super) const KEY_EXCHANGE: &[(&str, KeMethod)] = &[
    ("x25519", KeMethod::CURVE25519),
    ("ecp256", KeMethod::ECP_256),
    ("ecp384", KeMethod::ECP_384),
    ("mlkem512", KeMethod::ML_KEM_512),
    ("mlkem768", KeMethod::ML_KEM_768),
    ("mlkem1024", KeMethod::ML_KEM_1024),
    ("curve25519", KeMethod::CURVE25519),
];

/// What makes a key exchange optional: alone for type 4 of a Child SA, after `keN_` for additional ones.
pub(super) const NO_KEY_EXCHANGE: &str = "modpnone";
pub(super) const NO_ADDITIONAL: &str = "none";

pub(super) const SEQUENCE_NUMBERS: &[(&str, SnId)] =
    &[("esn", SnId::PARTIAL_64), ("noesn", SnId::SEQUENTIAL_32)];

pub(super) fn value<T: Copy>(table: &[(&'static str, T)], word: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

pub(super) fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> Option<&'static str> {
    table.iter().find(|(_, candidate)| candidate == value).map(|(name, _)| *name)
}
