//! Certification requests (PKCS #10, RFC 2986).

use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

use crate::Refusal;
use crate::key::PublicKey;
use crate::trust::ALGORITHMS;

/// A request whose sender holds the private key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The key that a certificate is asked for.
    pub key: PublicKey,
}

impl Request {
    /// Reads DER and checks the signature. Names and extensions that are asked for are left to the issuer to decide on.
    ///
    /// # Errors
    /// [`Refusal::Malformed`]; [`Refusal::Algorithm`] if the key is of no known kind, or the signature wrong.
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        let request = CertReq::from_der(der).map_err(|_| Refusal::Malformed)?;
        let key = PublicKey::of(&request.info.public_key).ok_or(Refusal::Algorithm)?;
        let message = request.info.to_der().map_err(|_| Refusal::Malformed)?;
        let signature = request.signature.as_bytes().ok_or(Refusal::Malformed)?;
        let key_algorithm =
            content(&request.info.public_key.algorithm.to_der().map_err(|_| Refusal::Malformed)?);
        let algorithm = content(&request.algorithm.to_der().map_err(|_| Refusal::Malformed)?);
        let is_signed = ALGORITHMS.iter().any(|known| {
            known.public_key_alg_id().as_ref() == key_algorithm
                && known.signature_alg_id().as_ref() == algorithm
                && known.verify_signature(&key.bits, &message, signature).is_ok()
        });
        if is_signed { Ok(Self { key }) } else { Err(Refusal::Algorithm) }
    }
}

/// What is in a SEQUENCE of at most 127 octets.
fn content(sequence: &[u8]) -> Vec<u8> {
    sequence.get(2..).unwrap_or_default().to_vec()
}
