//! PEM files (RFC 7468): certificates, revocation lists and private keys, found by their labels.

use rustls_pki_types::pem::{PemObject, SectionKind};

use crate::{Certificate, Refusal};

/// Every certificate of a PEM file, or the one of a DER file, in order.
///
/// # Errors
/// [`Refusal::Malformed`]; there may be none.
pub fn certificates(file: &[u8]) -> Result<Vec<Certificate>, Refusal> {
    sections(file, SectionKind::Certificate)?.iter().map(|der| Certificate::from_der(der)).collect()
}

/// Every revocation list of a PEM file, or the one of a DER file, in DER.
///
/// # Errors
/// [`Refusal::Malformed`]; there may be none.
pub fn revocation_lists(file: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    sections(file, SectionKind::Crl)
}

/// The certification request of a PEM or DER file, in DER.
///
/// # Errors
/// [`Refusal::Malformed`], also if there is not exactly one.
pub fn request(file: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut found = sections(file, SectionKind::Csr)?;
    match (found.pop(), found.is_empty()) {
        (Some(request), true) => Ok(request),
        _ => Err(Refusal::Malformed),
    }
}

fn sections(file: &[u8], wanted: SectionKind) -> Result<Vec<Vec<u8>>, Refusal> {
    const DER_SEQUENCE: u8 = 0x30;
    if file.first() == Some(&DER_SEQUENCE) {
        return Ok(vec![file.to_vec()]);
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(file) {
        match section {
            Ok((kind, der)) if kind == wanted => found.push(der),
            Ok(_) => {}
            Err(_) => return Err(Refusal::Malformed),
        }
    }
    Ok(found)
}
