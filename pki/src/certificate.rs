//! One certificate, as far as IKE looks into it.

use rustls_pki_types::CertificateDer;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName, SubjectKeyIdentifier};

use crate::key::PublicKey;
use crate::name::DistinguishedName;
use crate::{Refusal, Subject, WallTime};

/// The longest that is accepted, octets: twice an ML-DSA-87 certificate with a handful of names.
const MAX_LEN: usize = 16 * 1024;

/// An X.509 certificate, parsed once.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    subject: Option<DistinguishedName>,
    names: Vec<GeneralName>,
    serial: Vec<u8>,
    not_before: WallTime,
    not_after: WallTime,
    key: Option<PublicKey>,
    spki: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    may_sign: bool,
    may_issue: bool,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Parses DER. That it is parsed does not mean that it is good for anything.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        if der.len() > MAX_LEN {
            return Err(Refusal::Malformed);
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| Refusal::Malformed)?;
        let tbs = parsed.tbs_certificate();
        let names = tbs.get_extension::<SubjectAltName>().map_err(|_| Refusal::Malformed)?;
        let usage = tbs.get_extension::<KeyUsage>().map_err(|_| Refusal::Malformed)?.map(|(_, usage)| usage);
        let basic = tbs.get_extension::<BasicConstraints>().map_err(|_| Refusal::Malformed)?;
        let identifier = tbs.get_extension::<SubjectKeyIdentifier>().map_err(|_| Refusal::Malformed)?;
        let spki = tbs.subject_public_key_info();
        Ok(Self {
            subject: DistinguishedName::of(tbs.subject()),
            names: names.map(|(_, names)| names.0).unwrap_or_default(),
            serial: tbs.serial_number().as_bytes().to_vec(),
            not_before: tbs.validity().not_before.to_unix_duration(),
            not_after: tbs.validity().not_after.to_unix_duration(),
            key: PublicKey::of(spki),
            spki: spki.to_der().map_err(|_| Refusal::Malformed)?,
            key_identifier: identifier.map(|(_, identifier)| identifier.0.as_bytes().to_vec()),
            may_sign: usage.is_none_or(|usage| usage.digital_signature() || usage.non_repudiation()),
            may_issue: basic.is_some_and(|(_, basic)| basic.ca)
                && usage.is_none_or(|usage| usage.key_cert_sign()),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn as_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its subject, if it has one.
    pub fn subject(&self) -> Option<&DistinguishedName> {
        self.subject.as_ref()
    }

    /// What to call it in status and logs: its subject, or its first name, or its serial number.
    pub fn label(&self) -> String {
        match (&self.subject, self.names.first()) {
            (Some(subject), _) => subject.to_string(),
            (None, Some(GeneralName::DnsName(name))) => name.to_string(),
            (None, Some(GeneralName::Rfc822Name(name))) => name.to_string(),
            (None, _) => format!("serial {}", self.serial()),
        }
    }

    /// Its serial number in hexadecimal.
    pub fn serial(&self) -> String {
        self.serial.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// From when on it is valid.
    pub fn not_before(&self) -> WallTime {
        self.not_before
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> WallTime {
        self.not_after
    }

    /// Its key; `None` if its kind is not known.
    pub fn key(&self) -> Option<&PublicKey> {
        self.key.as_ref()
    }

    /// SubjectPublicKeyInfo in DER, whose SHA-1 is the Certification Authority of CERTREQ (RFC 7296 section 3.7).
    pub fn subject_public_key_info(&self) -> &[u8] {
        &self.spki
    }

    /// It says that its key may sign what is no certificate (RFC 4945 section 5.1.3.2), or does not say anything.
    pub fn may_sign(&self) -> bool {
        self.may_sign
    }

    /// It is an authority's: basicConstraints say so, and keyUsage does not say otherwise.
    pub fn may_issue(&self) -> bool {
        self.may_issue
    }

    /// The key identifier that certificates below it name it by (RFC 5280 section 4.2.1.2), if it has one.
    pub fn key_identifier(&self) -> Option<&[u8]> {
        self.key_identifier.as_deref()
    }

    /// Its serial number.
    pub fn serial_number(&self) -> &[u8] {
        &self.serial
    }

    /// It is the certificate of this subject.
    pub fn is_for(&self, subject: Subject<'_>) -> bool {
        subject.is(self.subject.as_ref(), &self.names)
    }

    /// It is within its validity.
    ///
    /// # Errors
    /// [`Refusal::NotYetValid`] or [`Refusal::Expired`].
    pub fn is_valid_at(&self, now: WallTime) -> Result<(), Refusal> {
        match () {
            () if now < self.not_before => Err(Refusal::NotYetValid),
            () if now > self.not_after => Err(Refusal::Expired),
            () => Ok(()),
        }
    }
}
