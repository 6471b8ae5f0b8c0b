//! The Certificate and Certificate Request payloads (RFC 7296 sections 3.6 and 3.7).

use std::borrow::Cow;

use super::code_point::CertEncoding;
use super::error::DecodeError;
use super::reader::Reader;
use super::writer::Writer;

/// CERT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate<'a> {
    /// Certificate Encoding.
    pub encoding: CertEncoding,
    /// Certificate Data.
    pub data: Cow<'a, [u8]>,
}

/// CERTREQ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRequest<'a> {
    /// Certificate Encoding.
    pub encoding: CertEncoding,
    /// Certification Authority: for X.509, SHA-1 hashes of 20 octets each.
    pub authorities: Cow<'a, [u8]>,
}

impl<'a> Certificate<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { encoding: CertEncoding(reader.u8("Cert Encoding")?), data: reader.rest().into() })
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.bytes(&self.data);
    }
}

impl<'a> CertificateRequest<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { encoding: CertEncoding(reader.u8("Cert Encoding")?), authorities: reader.rest().into() })
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.bytes(&self.authorities);
    }
}
