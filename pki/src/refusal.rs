//! Why a certificate is not accepted.

use core::fmt;

/// Why a certificate, a chain or a revocation list is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The peer has sent no certificate.
    Missing,
    /// More certificates than a chain may have.
    TooMany,
    /// A kind of CERT payload that is not a certificate: hash and URL, PKCS #7, raw keys.
    Encoding,
    /// It cannot be parsed.
    Malformed,
    /// No path leads to a configured authority.
    UnknownAuthority,
    /// It, one of its issuers or their authority has expired.
    Expired,
    /// It or one of its issuers is not valid yet.
    NotYetValid,
    /// A revocation list has it, or one of its issuers.
    Revoked,
    /// Revocation lists are configured, and none is its issuer's.
    RevocationUnknown,
    /// The revocation list of its issuer is past its next update.
    RevocationExpired,
    /// Its key usage or extended key usage is another (RFC 4945 sections 5.1.3.2 and 5.1.3.12).
    Usage,
    /// A critical extension that is not known.
    CriticalExtension,
    /// An issuer that is no authority, a path that is too long, or a name that its issuer may not give out.
    Constraint,
    /// It is signed by an algorithm that is not accepted: SHA-1, RSA below 2048 bits, or one that is not known.
    Algorithm,
    /// It is somebody else's (RFC 4945 section 3.1).
    Subject,
}

impl Refusal {
    /// Every value.
    pub const ALL: &'static [Self] = &[
        Self::Missing,
        Self::TooMany,
        Self::Encoding,
        Self::Malformed,
        Self::UnknownAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::RevocationUnknown,
        Self::RevocationExpired,
        Self::Usage,
        Self::CriticalExtension,
        Self::Constraint,
        Self::Algorithm,
        Self::Subject,
    ];

    /// The word for status, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "certificate_missing",
            Self::TooMany => "certificate_chain_too_long",
            Self::Encoding => "certificate_encoding",
            Self::Malformed => "certificate_malformed",
            Self::UnknownAuthority => "certificate_unknown_ca",
            Self::Expired => "certificate_expired",
            Self::NotYetValid => "certificate_not_yet_valid",
            Self::Revoked => "certificate_revoked",
            Self::RevocationUnknown => "certificate_revocation_unknown",
            Self::RevocationExpired => "certificate_crl_expired",
            Self::Usage => "certificate_usage",
            Self::CriticalExtension => "certificate_critical_extension",
            Self::Constraint => "certificate_constraint",
            Self::Algorithm => "certificate_algorithm",
            Self::Subject => "certificate_identity",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no certificate was sent",
            Self::TooMany => "the chain has too many certificates",
            Self::Encoding => "the certificate is sent in a form that is not accepted: only X.509 in DER is, no URL",
            Self::Malformed => "a certificate or revocation list cannot be parsed",
            Self::UnknownAuthority => "the certificate leads to none of the configured authorities: compare `ca`",
            Self::Expired => "the certificate, or one above it, has expired: issue a new one, and compare the clocks",
            Self::NotYetValid => "the certificate, or one above it, is not valid yet: compare the clocks",
            Self::Revoked => "the certificate, or one above it, is revoked",
            Self::RevocationUnknown => {
                "revocation lists are configured, but none is of the issuer of the certificate: add it to `crl`"
            }
            Self::RevocationExpired => "the revocation list of the issuer is out of date: fetch a new one for `crl`",
            Self::Usage => {
                "the certificate is for another use: key usage needs digitalSignature or nonRepudiation, extended key usage, if any, ipsecIKE or any"
            }
            Self::CriticalExtension => "the certificate has a critical extension that is not known",
            Self::Constraint => "an issuer of the certificate may not issue it: it is no authority, or a constraint forbids it",
            Self::Algorithm => {
                "the certificate has a key or a signature that is not accepted: RSA needs 2048 bits, SHA-1 is refused"
            }
            Self::Subject => "the certificate does not have the identity in its subjectAltName, or as its subject",
        })
    }
}

impl core::error::Error for Refusal {}

impl From<webpki::Error> for Refusal {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } | E::InvalidCertValidity => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::CertRevoked => Self::Revoked,
            E::CrlExpired { .. } => Self::RevocationExpired,
            E::UnknownRevocationStatus => Self::RevocationUnknown,
            E::UnknownIssuer | E::InvalidSignatureForPublicKey | E::CertDistrusted => Self::UnknownAuthority,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::Usage,
            E::UnsupportedCriticalExtension => Self::CriticalExtension,
            E::CaUsedAsEndEntity
            | E::EndEntityUsedAsCa
            | E::PathLenConstraintViolated
            | E::NameConstraintViolation
            | E::IssuerNotCrlSigner => Self::Constraint,
            E::MaximumPathDepthExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumSignatureChecksExceeded
            | E::MaximumNameConstraintComparisonsExceeded => Self::TooMany,
            E::SignatureAlgorithmMismatch
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | E::UnsupportedCrlSignatureAlgorithmContext(_)
            | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            // A list that cannot be used leaves the status of the certificate unknown.
            E::InvalidCrlSignatureForPublicKey
            | E::UnsupportedCrlIssuingDistributionPoint
            | E::UnsupportedDeltaCrl
            | E::UnsupportedIndirectCrl
            | E::UnsupportedRevocationReasonsPartitioning => Self::RevocationUnknown,
            _ => Self::Malformed,
        }
    }
}
