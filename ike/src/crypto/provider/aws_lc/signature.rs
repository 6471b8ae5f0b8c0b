//! Signatures by `aws-lc-rs`: RSA, ECDSA, Ed25519 and ML-DSA. It draws the randomness of signatures from the system.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use portcullis_pki::{KeyType, PublicKey};

use crate::crypto::signature::{SignatureAlgorithm, SignatureHash};

/// A private key; the provider wipes it when it is dropped.
pub(crate) enum PrivateKey {
    Rsa(rsa::KeyPair),
    /// The same key twice: signatures as in RFC 7427, and as in RFC 4754.
    EcdsaP256(EcdsaKeyPair, EcdsaKeyPair),
    EcdsaP384(EcdsaKeyPair, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    MlDsa44(PqdsaKeyPair),
    MlDsa65(PqdsaKeyPair),
    MlDsa87(PqdsaKeyPair),
}

impl PrivateKey {
    /// Reads PKCS #8, RSAPrivateKey of PKCS #1 or ECPrivateKey of SEC 1, in DER; `None` if it is none of them, or RSA below
    /// 2048 bits.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let rsa =
            || rsa::KeyPair::from_pkcs8(der).or_else(|_| rsa::KeyPair::from_der(der)).ok().map(Self::Rsa);
        let p256 = || {
            Some(Self::EcdsaP256(
                ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, der)?,
                ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der)?,
            ))
        };
        let p384 = || {
            Some(Self::EcdsaP384(
                ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, der)?,
                ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, der)?,
            ))
        };
        // Without a check of the public half, because OpenSSL writes none.
        let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::Ed25519);
        let pqdsa = |algorithm| PqdsaKeyPair::from_pkcs8(algorithm, der).ok();
        p256()
            .or_else(p384)
            .or_else(ed25519)
            .or_else(rsa)
            .or_else(|| pqdsa(&signature::ML_DSA_44_SIGNING).map(Self::MlDsa44))
            .or_else(|| pqdsa(&signature::ML_DSA_65_SIGNING).map(Self::MlDsa65))
            .or_else(|| pqdsa(&signature::ML_DSA_87_SIGNING).map(Self::MlDsa87))
    }

    /// The public half, as a certificate has it.
    pub(crate) fn public(&self) -> PublicKey {
        let (key_type, bits) = match self {
            Self::Rsa(key) => (KeyType::Rsa, key.public_key().as_ref()),
            Self::EcdsaP256(key, _) => (KeyType::EcdsaP256, key.public_key().as_ref()),
            Self::EcdsaP384(key, _) => (KeyType::EcdsaP384, key.public_key().as_ref()),
            Self::Ed25519(key) => (KeyType::Ed25519, key.public_key().as_ref()),
            Self::MlDsa44(key) => (KeyType::MlDsa44, key.public_key().as_ref()),
            Self::MlDsa65(key) => (KeyType::MlDsa65, key.public_key().as_ref()),
            Self::MlDsa87(key) => (KeyType::MlDsa87, key.public_key().as_ref()),
        };
        PublicKey { key_type, bits: bits.to_vec() }
    }

    /// Signs; `None` if the key cannot do this algorithm, or the provider failed.
    pub(crate) fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        use SignatureAlgorithm as A;
        let random = SystemRandom::new();
        match (self, algorithm) {
            (Self::Rsa(key), A::RsaPss(hash)) => {
                let padding = match hash {
                    SignatureHash::Sha256 => &signature::RSA_PSS_SHA256,
                    SignatureHash::Sha384 => &signature::RSA_PSS_SHA384,
                    SignatureHash::Sha512 => &signature::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            (Self::Rsa(key), A::RsaPkcs1(hash)) => {
                let padding = match hash {
                    SignatureHash::Sha256 => &signature::RSA_PKCS1_SHA256,
                    SignatureHash::Sha384 => &signature::RSA_PKCS1_SHA384,
                    SignatureHash::Sha512 => &signature::RSA_PKCS1_SHA512,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            (Self::EcdsaP256(key, _), A::Ecdsa(SignatureHash::Sha256))
            | (Self::EcdsaP384(key, _), A::Ecdsa(SignatureHash::Sha384))
            | (Self::EcdsaP256(_, key), A::EcdsaP256Fixed)
            | (Self::EcdsaP384(_, key), A::EcdsaP384Fixed) => {
                Some(key.sign(&random, message).ok()?.as_ref().to_vec())
            }
            (Self::Ed25519(key), A::Ed25519) => Some(key.try_sign(message).ok()?.as_ref().to_vec()),
            (Self::MlDsa44(key), A::MlDsa44)
            | (Self::MlDsa65(key), A::MlDsa65)
            | (Self::MlDsa87(key), A::MlDsa87) => {
                let mut signature = vec![0; key.algorithm().signature_len()];
                let length = key.sign(message, &mut signature).ok()?;
                signature.truncate(length);
                Some(signature)
            }
            _ => None,
        }
    }
}

fn ecdsa(algorithm: &'static signature::EcdsaSigningAlgorithm, der: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(algorithm, der)
        .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der))
        .ok()
}

/// Verifies a signature; false if it is wrong, or the key cannot do this algorithm, or has too few bits.
pub(crate) fn verify_signature(
    key: &PublicKey,
    algorithm: SignatureAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> bool {
    verification(key.key_type, algorithm).is_some_and(|algorithm| {
        UnparsedPublicKey::new(algorithm, &key.bits).verify(message, signature).is_ok()
    })
}

fn verification(key: KeyType, algorithm: SignatureAlgorithm) -> Option<&'static dyn VerificationAlgorithm> {
    use KeyType as K;
    use SignatureAlgorithm as A;
    use SignatureHash as H;
    Some(match (key, algorithm) {
        (K::Rsa, A::RsaPss(H::Sha256)) => &signature::RSA_PSS_2048_8192_SHA256,
        (K::Rsa, A::RsaPss(H::Sha384)) => &signature::RSA_PSS_2048_8192_SHA384,
        (K::Rsa, A::RsaPss(H::Sha512)) => &signature::RSA_PSS_2048_8192_SHA512,
        (K::Rsa, A::RsaPkcs1(H::Sha256)) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (K::Rsa, A::RsaPkcs1(H::Sha384)) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (K::Rsa, A::RsaPkcs1(H::Sha512)) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (K::EcdsaP256, A::Ecdsa(H::Sha256)) => &signature::ECDSA_P256_SHA256_ASN1,
        (K::EcdsaP256, A::Ecdsa(H::Sha384)) => &signature::ECDSA_P256_SHA384_ASN1,
        (K::EcdsaP256, A::Ecdsa(H::Sha512)) => &signature::ECDSA_P256_SHA512_ASN1,
        (K::EcdsaP384, A::Ecdsa(H::Sha256)) => &signature::ECDSA_P384_SHA256_ASN1,
        (K::EcdsaP384, A::Ecdsa(H::Sha384)) => &signature::ECDSA_P384_SHA384_ASN1,
        (K::EcdsaP384, A::Ecdsa(H::Sha512)) => &signature::ECDSA_P384_SHA512_ASN1,
        (K::EcdsaP256, A::EcdsaP256Fixed) => &signature::ECDSA_P256_SHA256_FIXED,
        (K::EcdsaP384, A::EcdsaP384Fixed) => &signature::ECDSA_P384_SHA384_FIXED,
        (K::Ed25519, A::Ed25519) => &signature::ED25519,
        (K::MlDsa44, A::MlDsa44) => &signature::ML_DSA_44,
        (K::MlDsa65, A::MlDsa65) => &signature::ML_DSA_65,
        (K::MlDsa87, A::MlDsa87) => &signature::ML_DSA_87,
        _ => return None,
    })
}
