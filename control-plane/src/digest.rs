//! SHA-256 for tokens and entity tags, from the provider that TLS uses.

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// A SHA-256 hash.
pub type Digest = [u8; 32];

/// Hashes octets.
pub fn sha256(octets: &[u8]) -> Digest {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256;
    let mut digest = [0; 32];
    digest.copy_from_slice(suite.common.hash_provider.hash(octets).as_ref());
    digest
}

/// The first half of a hash in hexadecimal: enough to tell documents apart.
pub fn short_hex(octets: &[u8]) -> String {
    sha256(octets).iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, the message "abc".
    #[test]
    fn it_is_sha_256() {
        assert_eq!(short_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223");
    }
}
