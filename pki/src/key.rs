//! The public key of a certificate.

use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// What a key can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyType {
    /// rsaEncryption (RFC 8017): RSASSA-PSS and RSASSA-PKCS1-v1_5.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// ML-DSA-44 (FIPS 204).
    MlDsa44,
    /// ML-DSA-65 (FIPS 204).
    MlDsa65,
    /// ML-DSA-87 (FIPS 204).
    MlDsa87,
}

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ML_DSA_44: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
const ML_DSA_87: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19");

impl KeyType {
    /// The word for status and logs, and for `portcullis pki --key`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
        }
    }
}

/// The public key of a certificate (RFC 5280 section 4.1.2.7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    /// What it can do.
    pub key_type: KeyType,
    /// The content of subjectPublicKey: RSAPublicKey, the uncompressed point, or the raw key.
    pub bits: Vec<u8>,
}

impl PublicKey {
    /// `None` if its kind is not known.
    pub(crate) fn of(spki: &SubjectPublicKeyInfoOwned) -> Option<Self> {
        let curve = || spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
        let key_type = match spki.algorithm.oid {
            RSA_ENCRYPTION => KeyType::Rsa,
            EC_PUBLIC_KEY => match curve()? {
                P256 => KeyType::EcdsaP256,
                P384 => KeyType::EcdsaP384,
                _ => return None,
            },
            ED25519 => KeyType::Ed25519,
            ML_DSA_44 => KeyType::MlDsa44,
            ML_DSA_65 => KeyType::MlDsa65,
            ML_DSA_87 => KeyType::MlDsa87,
            _ => return None,
        };
        Some(Self { key_type, bits: spki.subject_public_key.as_bytes()?.to_vec() })
    }
}
