//! Transform IDs and hash algorithms.

use super::code_points;

code_points! {
    /// Encryption Algorithm, transform type 1.
    EncrId(u16) {
        DES_IV64 = 1, "ENCR_DES_IV64", "deprecated";
        DES = 2, "ENCR_DES", "deprecated";
        TRIPLE_DES = 3, "ENCR_3DES", "RFC 2451";
        NULL = 11, "ENCR_NULL", "RFC 2410";
        AES_CBC = 12, "ENCR_AES_CBC", "RFC 3602";
        AES_CTR = 13, "ENCR_AES_CTR", "RFC 3686";
        AES_CCM_8 = 14, "ENCR_AES_CCM_8", "RFC 4309";
        AES_CCM_12 = 15, "ENCR_AES_CCM_12", "RFC 4309";
        AES_CCM_16 = 16, "ENCR_AES_CCM_16", "RFC 4309";
        AES_GCM_8 = 18, "ENCR_AES_GCM_8", "RFC 4106";
        AES_GCM_12 = 19, "ENCR_AES_GCM_12", "RFC 4106";
        AES_GCM_16 = 20, "ENCR_AES_GCM_16", "RFC 4106";
        NULL_AUTH_AES_GMAC = 21, "ENCR_NULL_AUTH_AES_GMAC", "RFC 4543";
        CAMELLIA_CBC = 23, "ENCR_CAMELLIA_CBC", "RFC 5529";
        CAMELLIA_CTR = 24, "ENCR_CAMELLIA_CTR", "RFC 5529";
        CAMELLIA_CCM_8 = 25, "ENCR_CAMELLIA_CCM_8", "RFC 5529";
        CAMELLIA_CCM_12 = 26, "ENCR_CAMELLIA_CCM_12", "RFC 5529";
        CAMELLIA_CCM_16 = 27, "ENCR_CAMELLIA_CCM_16", "RFC 5529";
        CHACHA20_POLY1305 = 28, "ENCR_CHACHA20_POLY1305", "RFC 7634";
        AES_CCM_8_IIV = 29, "ENCR_AES_CCM_8_IIV", "RFC 8750";
        AES_GCM_16_IIV = 30, "ENCR_AES_GCM_16_IIV", "RFC 8750";
        CHACHA20_POLY1305_IIV = 31, "ENCR_CHACHA20_POLY1305_IIV", "RFC 8750";
        KUZNYECHIK_MGM_KTREE = 32, "ENCR_KUZNYECHIK_MGM_KTREE", "RFC 9227";
        MAGMA_MGM_KTREE = 33, "ENCR_MAGMA_MGM_KTREE", "RFC 9227";
        KUZNYECHIK_MGM_MAC_KTREE = 34, "ENCR_KUZNYECHIK_MGM_MAC_KTREE", "RFC 9227";
        MAGMA_MGM_MAC_KTREE = 35, "ENCR_MAGMA_MGM_MAC_KTREE", "RFC 9227";
    }
}

code_points! {
    /// Pseudorandom Function, transform type 2.
    PrfId(u16) {
        HMAC_MD5 = 1, "PRF_HMAC_MD5", "deprecated";
        HMAC_SHA1 = 2, "PRF_HMAC_SHA1", "RFC 2104";
        AES128_XCBC = 4, "PRF_AES128_XCBC", "RFC 4434";
        HMAC_SHA2_256 = 5, "PRF_HMAC_SHA2_256", "RFC 4868";
        HMAC_SHA2_384 = 6, "PRF_HMAC_SHA2_384", "RFC 4868";
        HMAC_SHA2_512 = 7, "PRF_HMAC_SHA2_512", "RFC 4868";
        AES128_CMAC = 8, "PRF_AES128_CMAC", "RFC 4615";
        HMAC_STREEBOG_512 = 9, "PRF_HMAC_STREEBOG_512", "RFC 9385";
    }
}

code_points! {
    /// Integrity Algorithm, transform type 3.
    IntegId(u16) {
        NONE = 0, "NONE", "RFC 7296";
        HMAC_MD5_96 = 1, "AUTH_HMAC_MD5_96", "deprecated";
        HMAC_SHA1_96 = 2, "AUTH_HMAC_SHA1_96", "RFC 2404";
        AES_XCBC_96 = 5, "AUTH_AES_XCBC_96", "RFC 3566";
        AES_CMAC_96 = 8, "AUTH_AES_CMAC_96", "RFC 4494";
        AES_128_GMAC = 9, "AUTH_AES_128_GMAC", "RFC 4543";
        AES_192_GMAC = 10, "AUTH_AES_192_GMAC", "RFC 4543";
        AES_256_GMAC = 11, "AUTH_AES_256_GMAC", "RFC 4543";
        HMAC_SHA2_256_128 = 12, "AUTH_HMAC_SHA2_256_128", "RFC 4868";
        HMAC_SHA2_384_192 = 13, "AUTH_HMAC_SHA2_384_192", "RFC 4868";
        HMAC_SHA2_512_256 = 14, "AUTH_HMAC_SHA2_512_256", "RFC 4868";
    }
}

code_points! {
    /// Key Exchange Method, transform types 4 and 6 to 12 (RFC 9370 section 4.1).
    KeMethod(u16) {
        NONE = 0, "NONE", "RFC 7296";
        MODP_768 = 1, "768-bit MODP", "RFC 7296";
        MODP_1024 = 2, "1024-bit MODP", "RFC 7296";
        MODP_1536 = 5, "1536-bit MODP", "RFC 3526";
        MODP_2048 = 14, "2048-bit MODP", "RFC 3526";
        MODP_3072 = 15, "3072-bit MODP", "RFC 3526";
        MODP_4096 = 16, "4096-bit MODP", "RFC 3526";
        MODP_6144 = 17, "6144-bit MODP", "RFC 3526";
        MODP_8192 = 18, "8192-bit MODP", "RFC 3526";
        ECP_256 = 19, "256-bit random ECP", "RFC 5903";
        ECP_384 = 20, "384-bit random ECP", "RFC 5903";
        ECP_521 = 21, "521-bit random ECP", "RFC 5903";
        MODP_1024_160 = 22, "1024-bit MODP with 160-bit subgroup", "RFC 5114";
        MODP_2048_224 = 23, "2048-bit MODP with 224-bit subgroup", "RFC 5114";
        MODP_2048_256 = 24, "2048-bit MODP with 256-bit subgroup", "RFC 5114";
        ECP_192 = 25, "192-bit random ECP", "RFC 5114";
        ECP_224 = 26, "224-bit random ECP", "RFC 5114";
        BRAINPOOL_P224R1 = 27, "brainpoolP224r1", "RFC 6954";
        BRAINPOOL_P256R1 = 28, "brainpoolP256r1", "RFC 6954";
        BRAINPOOL_P384R1 = 29, "brainpoolP384r1", "RFC 6954";
        BRAINPOOL_P512R1 = 30, "brainpoolP512r1", "RFC 6954";
        CURVE25519 = 31, "Curve25519", "RFC 8031";
        CURVE448 = 32, "Curve448", "RFC 8031";
        GOST3410_2012_256 = 33, "GOST3410_2012_256", "RFC 9385";
        GOST3410_2012_512 = 34, "GOST3410_2012_512", "RFC 9385";
        ML_KEM_512 = 35, "ml-kem-512", "draft-ietf-ipsecme-ikev2-mlkem";
        ML_KEM_768 = 36, "ml-kem-768", "draft-ietf-ipsecme-ikev2-mlkem";
        ML_KEM_1024 = 37, "ml-kem-1024", "draft-ietf-ipsecme-ikev2-mlkem";
    }
}

/// Octets of Key Exchange Data that each side of a method sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeLengths {
    /// From the initiator of the exchange.
    pub initiator: usize,
    /// From the responder of the exchange.
    pub responder: usize,
}

impl KeMethod {
    /// How much Key Exchange Data the method needs; `None` for methods this code does not know. Over UDP this
    /// decides whether an IKE_SA_INIT fits into one packet.
    pub const fn lengths(self) -> Option<KeLengths> {
        let (initiator, responder) = match self {
            Self::MODP_2048 => (256, 256),
            Self::MODP_3072 => (384, 384),
            Self::MODP_4096 => (512, 512),
            Self::MODP_6144 => (768, 768),
            Self::MODP_8192 => (1024, 1024),
            Self::ECP_256 => (64, 64),
            Self::ECP_384 => (96, 96),
            Self::ECP_521 => (132, 132),
            Self::CURVE25519 => (32, 32),
            Self::CURVE448 => (56, 56),
            Self::ML_KEM_512 => (800, 768),
            Self::ML_KEM_768 => (1184, 1088),
            Self::ML_KEM_1024 => (1568, 1568),
            _ => return None,
        };
        Some(KeLengths { initiator, responder })
    }
}

code_points! {
    /// Sequence Numbers, transform type 5 (RFC 9827).
    SnId(u16) {
        SEQUENTIAL_32 = 0, "32-bit Sequential Numbers", "RFC 7296 (\"No Extended Sequence Numbers\")";
        PARTIAL_64 = 1, "Partially Transmitted 64-bit Sequential Numbers", "RFC 7296 (\"Extended Sequence Numbers\")";
        UNSPECIFIED_32 = 2, "32-bit Unspecified Numbers", "RFC 9838";
    }
}

code_points! {
    /// Hash algorithm in SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4).
    HashAlgorithm(u16) {
        SHA1 = 1, "SHA1", "RFC 7427";
        SHA2_256 = 2, "SHA2-256", "RFC 7427";
        SHA2_384 = 3, "SHA2-384", "RFC 7427";
        SHA2_512 = 4, "SHA2-512", "RFC 7427";
        IDENTITY = 5, "Identity", "RFC 8420";
        STREEBOG_256 = 6, "STREEBOG_256", "RFC 9385";
        STREEBOG_512 = 7, "STREEBOG_512", "RFC 9385";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// draft-ietf-ipsecme-ikev2-mlkem section 2.1, table 1, where the payload length counts 8 octets of headers.
    #[test]
    fn ml_kem_sends_a_key_one_way_and_a_ciphertext_the_other() {
        let payload = |method: KeMethod| method.lengths().map(|l| (l.initiator + 8, l.responder + 8));
        assert_eq!(payload(KeMethod::ML_KEM_512), Some((808, 776)));
        assert_eq!(payload(KeMethod::ML_KEM_768), Some((1192, 1096)));
        assert_eq!(payload(KeMethod::ML_KEM_1024), Some((1576, 1576)));
        assert_eq!(KeMethod(999).lengths(), None);
    }
}
