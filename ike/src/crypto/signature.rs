//! Signatures in AUTH: RFC 7427 for RSA and ECDSA, RFC 8420 for Ed25519, the text on post-quantum signatures for ML-DSA, and
//! RFC 4754 for peers without RFC 7427.
//!
//! A signature is computed over the octets of RFC 7296 section 2.15 as they are. RSA and ECDSA hash them, with what
//! SIGNATURE_HASH_ALGORITHMS says that the verifier can do; Ed25519 and ML-DSA are "pure": the hash is Identity, and ML-DSA's
//! context is empty.

use core::fmt;

use portcullis_pki::{KeyType, PublicKey};

use super::provider::{PrivateKey, verify_signature};
use crate::codec::HashAlgorithm;

mod algorithm_identifier;

/// A hash that a signature is computed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SignatureHash {
    Sha256,
    Sha384,
    Sha512,
}

/// How a signature is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SignatureAlgorithm {
    /// RSASSA-PSS, with the same hash in MGF1 and a salt as long as the hash (RFC 4055 section 3.1).
    RsaPss(SignatureHash),
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(SignatureHash),
    /// ECDSA, the signature as Ecdsa-Sig-Value (RFC 5758 section 3.2).
    Ecdsa(SignatureHash),
    /// ECDSA with SHA-256 on P-256, r and s one after the other (RFC 4754 section 7): Auth Method 9.
    EcdsaP256Fixed,
    /// ECDSA with SHA-384 on P-384, r and s one after the other: Auth Method 10.
    EcdsaP384Fixed,
    /// Ed25519 (RFC 8420).
    Ed25519,
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl SignatureAlgorithm {
    /// All of them, best first.
    pub(crate) const ALL: [Self; 15] = [
        Self::MlDsa87,
        Self::MlDsa65,
        Self::MlDsa44,
        Self::Ed25519,
        Self::Ecdsa(SignatureHash::Sha384),
        Self::Ecdsa(SignatureHash::Sha256),
        Self::Ecdsa(SignatureHash::Sha512),
        Self::RsaPss(SignatureHash::Sha256),
        Self::RsaPss(SignatureHash::Sha384),
        Self::RsaPss(SignatureHash::Sha512),
        Self::RsaPkcs1(SignatureHash::Sha256),
        Self::RsaPkcs1(SignatureHash::Sha384),
        Self::RsaPkcs1(SignatureHash::Sha512),
        Self::EcdsaP256Fixed,
        Self::EcdsaP384Fixed,
    ];
}

/// Algorithms that an end has announced (RFC 9593).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Signatures(u16);

impl Signatures {
    /// One more.
    pub(crate) fn insert(&mut self, algorithm: SignatureAlgorithm) {
        self.0 |= Self::bit(algorithm);
    }

    /// It is among them.
    pub(crate) fn has(self, algorithm: SignatureAlgorithm) -> bool {
        self.0 & Self::bit(algorithm) != 0
    }

    /// There are none.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(algorithm: SignatureAlgorithm) -> u16 {
        SignatureAlgorithm::ALL.iter().position(|one| *one == algorithm).map_or(0, |at| 1 << at)
    }
}

/// AlgorithmIdentifier of Digital Signature, as SUPPORTED_AUTH_METHODS has it.
pub(crate) fn announcement(algorithm: SignatureAlgorithm) -> Option<Vec<u8>> {
    algorithm_identifier::encode(algorithm)
}

/// The algorithm of an AlgorithmIdentifier.
pub(crate) fn announced(identifier: &[u8]) -> Option<SignatureAlgorithm> {
    algorithm_identifier::decode(identifier)
}

/// The hashes that an end verifies signatures with (SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SignatureHashes(u8);

impl SignatureHashes {
    /// What we verify with. SHA-1 is never among them.
    pub(crate) const OURS: [HashAlgorithm; 4] =
        [HashAlgorithm::SHA2_256, HashAlgorithm::SHA2_384, HashAlgorithm::SHA2_512, HashAlgorithm::IDENTITY];

    /// What a notification announces. What is not known is left out.
    pub(crate) fn of(algorithms: &[HashAlgorithm]) -> Self {
        let known = algorithms.iter().filter(|algorithm| Self::OURS.contains(algorithm));
        Self(known.fold(0, |set, algorithm| set | 1 << algorithm.0))
    }

    fn has(self, algorithm: HashAlgorithm) -> bool {
        self.0 & 1 << algorithm.0 != 0
    }

    /// It verifies signatures of this algorithm.
    pub(crate) fn verify(self, algorithm: SignatureAlgorithm) -> bool {
        self.has(match algorithm {
            SignatureAlgorithm::RsaPss(hash)
            | SignatureAlgorithm::RsaPkcs1(hash)
            | SignatureAlgorithm::Ecdsa(hash) => match hash {
                SignatureHash::Sha256 => HashAlgorithm::SHA2_256,
                SignatureHash::Sha384 => HashAlgorithm::SHA2_384,
                SignatureHash::Sha512 => HashAlgorithm::SHA2_512,
            },
            SignatureAlgorithm::EcdsaP256Fixed => HashAlgorithm::SHA2_256,
            SignatureAlgorithm::EcdsaP384Fixed => HashAlgorithm::SHA2_384,
            SignatureAlgorithm::Ed25519
            | SignatureAlgorithm::MlDsa44
            | SignatureAlgorithm::MlDsa65
            | SignatureAlgorithm::MlDsa87 => HashAlgorithm::IDENTITY,
        })
    }
}

/// A private key that signs AUTH.
pub struct SigningKey(PrivateKey);

impl SigningKey {
    /// Reads PKCS #8, RSAPrivateKey of PKCS #1 or ECPrivateKey of SEC 1, in DER. `None` if it is none of them: RSA of at least
    /// 2048 bits, P-256, P-384, Ed25519, ML-DSA-44, ML-DSA-65, ML-DSA-87.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        PrivateKey::from_der(der).map(Self)
    }

    /// The public half, as a certificate has it.
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    /// The algorithm for a peer that verifies with these hashes, and has announced these signatures if it announces any: PSS
    /// before PKCS #1 (RFC 8247 section 3.2).
    pub(crate) fn algorithm_for(
        &self,
        hashes: SignatureHashes,
        announced: Option<Signatures>,
    ) -> Option<SignatureAlgorithm> {
        use SignatureAlgorithm as A;
        use SignatureHash as H;
        let sha2 = [H::Sha256, H::Sha384, H::Sha512];
        let rsa = [sha2.map(A::RsaPss), sha2.map(A::RsaPkcs1)].concat();
        let candidates: &[A] = match self.0.public().key_type {
            KeyType::Rsa => &rsa,
            KeyType::EcdsaP256 => &[A::Ecdsa(SignatureHash::Sha256)],
            KeyType::EcdsaP384 => &[A::Ecdsa(SignatureHash::Sha384)],
            KeyType::Ed25519 => &[A::Ed25519],
            KeyType::MlDsa44 => &[A::MlDsa44],
            KeyType::MlDsa65 => &[A::MlDsa65],
            KeyType::MlDsa87 => &[A::MlDsa87],
        };
        let mut possible = candidates.iter().copied().filter(|algorithm| hashes.verify(*algorithm));
        let is_announced = |algorithm: &A| announced.is_none_or(|signatures| signatures.has(*algorithm));
        // With none that was announced, the first one: the list is a hint.
        let first = possible.clone().next();
        possible.find(is_announced).or(first)
    }

    /// The algorithm for a peer without RFC 7427.
    pub(crate) fn fixed_algorithm(&self) -> Option<SignatureAlgorithm> {
        match self.0.public().key_type {
            KeyType::EcdsaP256 => Some(SignatureAlgorithm::EcdsaP256Fixed),
            KeyType::EcdsaP384 => Some(SignatureAlgorithm::EcdsaP384Fixed),
            _ => None,
        }
    }

    /// Signs what is no AUTH: a certificate or a revocation list, by the algorithm that every reader of certificates knows for the
    /// key. `None` if the provider failed.
    pub fn sign_certificate(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let algorithm = match self.0.public().key_type {
            KeyType::Rsa => SignatureAlgorithm::RsaPkcs1(SignatureHash::Sha256),
            KeyType::EcdsaP256 => SignatureAlgorithm::Ecdsa(SignatureHash::Sha256),
            KeyType::EcdsaP384 => SignatureAlgorithm::Ecdsa(SignatureHash::Sha384),
            KeyType::Ed25519 => SignatureAlgorithm::Ed25519,
            KeyType::MlDsa44 => SignatureAlgorithm::MlDsa44,
            KeyType::MlDsa65 => SignatureAlgorithm::MlDsa65,
            KeyType::MlDsa87 => SignatureAlgorithm::MlDsa87,
        };
        self.0.sign(algorithm, octets)
    }

    /// Signs; `None` if the provider failed.
    pub(crate) fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(algorithm, message)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.0.public().key_type.label())
    }
}

/// Authentication Data of Digital Signature (RFC 7427 section 3): length and DER of AlgorithmIdentifier, then the signature.
pub(crate) fn digital_signature(algorithm: SignatureAlgorithm, signature: &[u8]) -> Option<Vec<u8>> {
    let identifier = algorithm_identifier::encode(algorithm)?;
    let length = u8::try_from(identifier.len()).ok()?;
    Some([&[length], &*identifier, signature].concat())
}

/// Takes Authentication Data of Digital Signature apart; `None` if it is malformed, or an algorithm that is not accepted.
pub(crate) fn parse_digital_signature(data: &[u8]) -> Option<(SignatureAlgorithm, &[u8])> {
    let (length, rest) = data.split_first()?;
    let (identifier, signature) = rest.split_at_checked(usize::from(*length))?;
    Some((algorithm_identifier::decode(identifier)?, signature))
}

/// Verifies a signature; false if it is wrong, or the key cannot do this algorithm, or has too few bits.
pub(crate) fn verify(
    key: &PublicKey,
    algorithm: SignatureAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> bool {
    verify_signature(key, algorithm, message, signature)
}

#[cfg(test)]
mod tests;
