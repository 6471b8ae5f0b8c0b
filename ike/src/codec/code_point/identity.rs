//! Numbers of the payloads that identify, authenticate, configure and select traffic.

use super::code_points;

code_points! {
    /// Identification Type (RFC 7296 section 3.5).
    IdType(u8) {
        IPV4_ADDR = 1, "ID_IPV4_ADDR", "RFC 7296";
        FQDN = 2, "ID_FQDN", "RFC 7296";
        RFC822_ADDR = 3, "ID_RFC822_ADDR", "RFC 7296";
        IPV6_ADDR = 5, "ID_IPV6_ADDR", "RFC 7296";
        DER_ASN1_DN = 9, "ID_DER_ASN1_DN", "RFC 7296";
        DER_ASN1_GN = 10, "ID_DER_ASN1_GN", "RFC 7296";
        KEY_ID = 11, "ID_KEY_ID", "RFC 7296";
        FC_NAME = 12, "ID_FC_NAME", "RFC 4595";
        NULL = 13, "ID_NULL", "RFC 7619";
    }
}

code_points! {
    /// Certificate Encoding (RFC 7296 section 3.6).
    CertEncoding(u8) {
        PKCS7 = 1, "PKCS #7 wrapped X.509 certificate", "RFC 7296";
        PGP = 2, "PGP Certificate", "RFC 7296";
        DNS_SIGNED_KEY = 3, "DNS Signed Key", "RFC 7296";
        X509_SIGNATURE = 4, "X.509 Certificate - Signature", "RFC 7296";
        KERBEROS = 6, "Kerberos Token", "RFC 7296";
        CRL = 7, "Certificate Revocation List", "RFC 7296";
        ARL = 8, "Authority Revocation List", "RFC 7296";
        SPKI = 9, "SPKI Certificate", "RFC 7296";
        X509_ATTRIBUTE = 10, "X.509 Certificate - Attribute", "RFC 7296";
        HASH_AND_URL_CERTIFICATE = 12, "Hash and URL of X.509 certificate", "RFC 7296";
        HASH_AND_URL_BUNDLE = 13, "Hash and URL of X.509 bundle", "RFC 7296";
        OCSP = 14, "OCSP Content", "RFC 4806";
        RAW_PUBLIC_KEY = 15, "Raw Public Key", "RFC 7670";
    }
}

code_points! {
    /// Authentication Method (RFC 7296 section 3.8).
    AuthMethod(u8) {
        RSA_SIGNATURE = 1, "RSA Digital Signature", "RFC 7296";
        SHARED_KEY = 2, "Shared Key Message Integrity Code", "RFC 7296";
        DSS_SIGNATURE = 3, "DSS Digital Signature", "RFC 7296";
        ECDSA_SHA256_P256 = 9, "ECDSA with SHA-256 on P-256", "RFC 4754";
        ECDSA_SHA384_P384 = 10, "ECDSA with SHA-384 on P-384", "RFC 4754";
        ECDSA_SHA512_P521 = 11, "ECDSA with SHA-512 on P-521", "RFC 4754";
        SECURE_PASSWORD = 12, "Generic Secure Password", "RFC 6467";
        NULL = 13, "NULL", "RFC 7619";
        DIGITAL_SIGNATURE = 14, "Digital Signature", "RFC 7427";
    }
}

code_points! {
    /// Traffic Selector Type (RFC 7296 section 3.13.1).
    TsType(u8) {
        IPV4_ADDR_RANGE = 7, "TS_IPV4_ADDR_RANGE", "RFC 7296";
        IPV6_ADDR_RANGE = 8, "TS_IPV6_ADDR_RANGE", "RFC 7296";
        FC_ADDR_RANGE = 9, "TS_FC_ADDR_RANGE", "RFC 4595";
        SECLABEL = 10, "TS_SECLABEL", "RFC 9478";
    }
}

code_points! {
    /// CFG Type of the Configuration payload (RFC 7296 section 3.15).
    CfgType(u8) {
        REQUEST = 1, "CFG_REQUEST", "RFC 7296";
        REPLY = 2, "CFG_REPLY", "RFC 7296";
        SET = 3, "CFG_SET", "RFC 7296";
        ACK = 4, "CFG_ACK", "RFC 7296";
    }
}

code_points! {
    /// Configuration Attribute Type (RFC 7296 section 3.15.1), 15 bits.
    CfgAttributeType(u16) {
        INTERNAL_IP4_ADDRESS = 1, "INTERNAL_IP4_ADDRESS", "RFC 7296";
        INTERNAL_IP4_NETMASK = 2, "INTERNAL_IP4_NETMASK", "RFC 7296";
        INTERNAL_IP4_DNS = 3, "INTERNAL_IP4_DNS", "RFC 7296";
        INTERNAL_IP4_NBNS = 4, "INTERNAL_IP4_NBNS", "RFC 7296";
        INTERNAL_IP4_DHCP = 6, "INTERNAL_IP4_DHCP", "RFC 7296";
        APPLICATION_VERSION = 7, "APPLICATION_VERSION", "RFC 7296";
        INTERNAL_IP6_ADDRESS = 8, "INTERNAL_IP6_ADDRESS", "RFC 7296";
        INTERNAL_IP6_DNS = 10, "INTERNAL_IP6_DNS", "RFC 7296";
        INTERNAL_IP6_DHCP = 12, "INTERNAL_IP6_DHCP", "RFC 7296";
        INTERNAL_IP4_SUBNET = 13, "INTERNAL_IP4_SUBNET", "RFC 7296";
        SUPPORTED_ATTRIBUTES = 14, "SUPPORTED_ATTRIBUTES", "RFC 7296";
        INTERNAL_IP6_SUBNET = 15, "INTERNAL_IP6_SUBNET", "RFC 7296";
        MIP6_HOME_PREFIX = 16, "MIP6_HOME_PREFIX", "RFC 5026";
        INTERNAL_IP6_LINK = 17, "INTERNAL_IP6_LINK", "RFC 5739";
        INTERNAL_IP6_PREFIX = 18, "INTERNAL_IP6_PREFIX", "RFC 5739";
        HOME_AGENT_ADDRESS = 19, "HOME_AGENT_ADDRESS", "3GPP TS 24.302";
        P_CSCF_IP4_ADDRESS = 20, "P_CSCF_IP4_ADDRESS", "RFC 7651";
        P_CSCF_IP6_ADDRESS = 21, "P_CSCF_IP6_ADDRESS", "RFC 7651";
        FTT_KAT = 22, "FTT_KAT", "3GPP TS 24.302";
        EXTERNAL_SOURCE_IP4_NAT_INFO = 23, "EXTERNAL_SOURCE_IP4_NAT_INFO", "3GPP TS 29.139";
        TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24, "TIMEOUT_PERIOD_FOR_LIVENESS_CHECK", "3GPP TS 24.302";
        INTERNAL_DNS_DOMAIN = 25, "INTERNAL_DNS_DOMAIN", "RFC 8598";
        INTERNAL_DNSSEC_TA = 26, "INTERNAL_DNSSEC_TA", "RFC 8598";
        ENCDNS_IP4 = 27, "ENCDNS_IP4", "RFC 9464";
        ENCDNS_IP6 = 28, "ENCDNS_IP6", "RFC 9464";
        ENCDNS_DIGEST_INFO = 29, "ENCDNS_DIGEST_INFO", "RFC 9464";
    }
}
