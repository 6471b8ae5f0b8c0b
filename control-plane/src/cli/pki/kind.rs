//! Kinds of keys.

use anyhow::Result;
use clap::ValueEnum;
use portcullis_pki::KeyType;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_ML_DSA_44, PKCS_ML_DSA_65,
    PKCS_ML_DSA_87, PKCS_RSA_SHA256, RsaKeySize, SignatureAlgorithm,
};

/// The kind of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// RSA of 3072 bits.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44.
    #[value(name = "ml-dsa-44")]
    MlDsa44,
    /// ML-DSA-65.
    #[value(name = "ml-dsa-65")]
    MlDsa65,
    /// ML-DSA-87, which CNSA 2.0 asks for.
    #[value(name = "ml-dsa-87")]
    MlDsa87,
}

impl Kind {
    /// A fresh key.
    pub fn generate(self) -> Result<KeyPair> {
        let algorithm = algorithm(match self {
            Self::Rsa => return Ok(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072)?),
            Self::EcdsaP256 => KeyType::EcdsaP256,
            Self::EcdsaP384 => KeyType::EcdsaP384,
            Self::Ed25519 => KeyType::Ed25519,
            Self::MlDsa44 => KeyType::MlDsa44,
            Self::MlDsa65 => KeyType::MlDsa65,
            Self::MlDsa87 => KeyType::MlDsa87,
        });
        Ok(KeyPair::generate_for(algorithm)?)
    }
}

/// How keys of this kind are named in certificates.
pub fn algorithm(key: KeyType) -> &'static SignatureAlgorithm {
    match key {
        KeyType::Rsa => &PKCS_RSA_SHA256,
        KeyType::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
        KeyType::EcdsaP384 => &PKCS_ECDSA_P384_SHA384,
        KeyType::Ed25519 => &PKCS_ED25519,
        KeyType::MlDsa44 => &PKCS_ML_DSA_44,
        KeyType::MlDsa65 => &PKCS_ML_DSA_65,
        KeyType::MlDsa87 => &PKCS_ML_DSA_87,
    }
}
