//! Distinguished names, as `rcgen` wants them.

use anyhow::{Result, bail};
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_cert::der::{Decode, Tag, Tagged};

/// One with a common name alone.
pub fn common(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}

/// The subject of an authority, in the same octets: what it issues names it by them.
pub fn of_authority(der: &[u8]) -> Result<DistinguishedName> {
    let name = x509_cert::name::Name::from_der(der)?;
    let mut distinguished_name = DistinguishedName::new();
    for attribute in name.iter() {
        let oid: Vec<u64> = attribute.oid.arcs().map(u64::from).collect();
        let text = std::str::from_utf8(attribute.value.value())?;
        let value = match attribute.value.tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into()?),
            tag => bail!("the subject of the authority has a string of the kind {tag}"),
        };
        distinguished_name.push(DnType::from_oid(&oid), value);
    }
    Ok(distinguished_name)
}
