//! Digests that are not part of a pseudorandom function, and comparison in constant time.

use core::net::SocketAddr;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::provider;

/// Octets of two SPIs, an IPv6 address and a port.
const MOST_DETECTED: usize = 8 + 8 + 16 + 2;

/// The data of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP (RFC 7296 section 2.23): SHA-1 of the SPIs, the
/// address and the port.
pub(crate) fn nat_detection(spi_i: u64, spi_r: u64, address: SocketAddr) -> [u8; 20] {
    let mut text = Vec::with_capacity(MOST_DETECTED);
    text.extend_from_slice(&spi_i.to_be_bytes());
    text.extend_from_slice(&spi_r.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => text.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => text.extend_from_slice(&ip.octets()),
    }
    text.extend_from_slice(&address.port().to_be_bytes());
    provider::sha1(&text)
}

/// The Certification Authority of CERTREQ: SHA-1 of SubjectPublicKeyInfo, which names a key and protects nothing (RFC 7296
/// section 3.7).
pub(crate) fn key_hash(subject_public_key_info: &[u8]) -> [u8; 20] {
    provider::sha1(subject_public_key_info)
}

/// SHA-256 of the concatenated parts.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    provider::sha256(&Zeroizing::new(parts.concat()))
}

/// Compares in a time that depends on the lengths alone.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    provider::constant_time_eq(a, b)
}
