//! Whose a certificate is (RFC 4945 section 3.1): subjectAltName, or the subject for a distinguished name.

use std::net::IpAddr;

use x509_cert::ext::pkix::name::GeneralName;

use crate::name::DistinguishedName;

/// Who a certificate has to be for.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// ID_FQDN: a dNSName, compared without case and without wildcards (section 3.1.2).
    Fqdn(&'a str),
    /// ID_RFC822_ADDR: an rfc822Name, compared without case (section 3.1.3).
    Email(&'a str),
    /// ID_IPV4_ADDR or ID_IPV6_ADDR: an iPAddress, compared octet by octet (section 3.1.1).
    Address(IpAddr),
    /// ID_DER_ASN1_DN: the subject itself, octet by octet (section 3.1.5).
    Name(&'a DistinguishedName),
    /// An identity that no certificate has (ID_KEY_ID, section 3.1.8).
    Other,
}

impl Subject<'_> {
    pub(crate) fn is(&self, subject: Option<&DistinguishedName>, names: &[GeneralName]) -> bool {
        match self {
            Self::Fqdn(name) => names
                .iter()
                .any(|n| matches!(n, GeneralName::DnsName(dns) if dns.as_str().eq_ignore_ascii_case(name))),
            Self::Email(name) => names.iter().any(
                |n| matches!(n, GeneralName::Rfc822Name(email) if email.as_str().eq_ignore_ascii_case(name)),
            ),
            Self::Address(IpAddr::V4(ip)) => has_address(names, &ip.octets()),
            Self::Address(IpAddr::V6(ip)) => has_address(names, &ip.octets()),
            Self::Name(name) => subject.is_some_and(|subject| subject.der() == name.der()),
            Self::Other => false,
        }
    }
}

fn has_address(names: &[GeneralName], octets: &[u8]) -> bool {
    names.iter().any(|name| matches!(name, GeneralName::IpAddress(ip) if ip.as_bytes() == octets))
}
