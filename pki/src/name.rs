//! Distinguished names (RFC 5280 section 4.1.2.4), as identities and as subjects.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;

use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::name::Name;

/// The longest that is accepted, octets of DER.
const MAX_LEN: usize = 2048;

/// A distinguished name: its DER, and what it is compared by. Two are equal if their attributes are, in order; the type of a
/// string and the case of ASCII letters do not matter (RFC 5280 section 7.1, without its Unicode preparation).
#[derive(Clone)]
pub struct DistinguishedName {
    der: Vec<u8>,
    text: String,
    attributes: Vec<Vec<(ObjectIdentifier, Vec<u8>)>>,
}

impl DistinguishedName {
    /// Reads DER; `None` if it is no Name, an empty one or one that is too long.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        if der.len() > MAX_LEN {
            return None;
        }
        Self::of(&Name::from_der(der).ok()?)
    }

    pub(crate) fn of(name: &Name) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let attributes = name.iter_rdn().map(|rdn| {
            let mut set: Vec<_> = rdn
                .iter()
                .map(|attribute| (attribute.oid, attribute.value.value().to_ascii_lowercase()))
                .collect();
            set.sort();
            set
        });
        Some(Self { der: name.to_der().ok()?, text: name.to_string(), attributes: attributes.collect() })
    }

    /// DER, as in ID_DER_ASN1_DN (RFC 7296 section 3.5).
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl FromStr for DistinguishedName {
    type Err = ();

    /// Reads the notation of RFC 4514: `CN=gw1,O=Example,C=CH`.
    fn from_str(text: &str) -> Result<Self, ()> {
        Name::from_str(text)
            .ok()
            .and_then(|name| Self::of(&name))
            .filter(|name| name.der.len() <= MAX_LEN)
            .ok_or(())
    }
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        self.attributes == other.attributes
    }
}

impl Eq for DistinguishedName {}

impl Hash for DistinguishedName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.attributes.hash(state);
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_string_type() {
        let name: DistinguishedName = "CN=gw1.example.net,O=Example,C=CH".parse().unwrap();
        assert_eq!(DistinguishedName::from_der(name.der()).as_ref(), Some(&name));
        assert_eq!("CN=GW1.example.NET,O=EXAMPLE,C=ch".parse(), Ok(name.clone()));
        for other in
            ["CN=gw2.example.net,O=Example,C=CH", "O=Example,CN=gw1.example.net,C=CH", "CN=gw1.example.net"]
        {
            assert_ne!(other.parse(), Ok(name.clone()), "{other}");
        }
        assert_eq!(name.to_string(), "CN=gw1.example.net,O=Example,C=CH");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert!(DistinguishedName::from_der(&[0x30, 0]).is_none(), "empty");
        assert!(DistinguishedName::from_der(&[0x30, 3, 1]).is_none());
        assert!("nonsense".parse::<DistinguishedName>().is_err());
    }
}
