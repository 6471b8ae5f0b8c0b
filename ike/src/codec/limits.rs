//! How much of anything a message may hold. Each limit has its error in [`TooMany`](super::TooMany) or
//! [`Malformed`](super::Malformed).

/// Largest message in octets: what the 16-bit length of RFC 9329 section 3 leaves beside itself and the marker.
pub const MAX_MESSAGE_LEN: usize = 65_535 - 2 - 4;
/// Most payloads in one chain, outer or inner.
pub const MAX_PAYLOADS: usize = 100;
/// Most proposals in one SA payload.
pub const MAX_PROPOSALS: usize = 64;
/// Most transforms in all proposals of one SA payload.
pub const MAX_TRANSFORMS: usize = 512;
/// Most attributes of one transform.
pub const MAX_ATTRIBUTES: usize = 8;
/// Most selectors in one TS payload.
pub const MAX_TRAFFIC_SELECTORS: usize = 128;
/// Most SPIs in one Delete payload.
pub const MAX_SPIS: usize = 1024;
/// Most attributes of one Configuration payload.
pub const MAX_CONFIGURATION_ATTRIBUTES: usize = 256;
/// Shortest nonce in octets (RFC 7296 section 3.9).
pub const MIN_NONCE_LEN: usize = 16;
/// Longest nonce in octets (RFC 7296 section 3.9).
pub const MAX_NONCE_LEN: usize = 256;
