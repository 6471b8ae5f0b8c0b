//! IKE identities as operators write them.

use portcullis_ike::config::Identity;

/// Reads an identity (RFC 7296 section 3.5): an address, `user@host`, a host name, or `keyid:` followed by
/// hexadecimal octets, or `dn:` followed by a distinguished name. `fqdn:`, `email:` and `address:` in front force the type.
///
/// # Errors
/// Says what is wrong.
pub fn identity(text: &str) -> Result<Identity, String> {
    const MAX: usize = 255;
    if let Some(name) = text.strip_prefix("dn:") {
        return name.parse().map(Identity::Name).map_err(|()| {
            format!("'{name}' is not a distinguished name such as CN=gw1,O=Example (RFC 4514)")
        });
    }
    if text.is_empty() || text.len() > MAX || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(format!("an identity has 1 to {MAX} characters without spaces"));
    }
    if let Some(octets) = text.strip_prefix("keyid:") {
        return hexadecimal(octets)
            .map(Identity::KeyId)
            .ok_or_else(|| format!("'{text}': keyid: is followed by an even number of hexadecimal digits"));
    }
    if let Some(name) = text.strip_prefix("fqdn:") {
        return Ok(Identity::Fqdn(name.to_owned()));
    }
    if let Some(name) = text.strip_prefix("email:") {
        return Ok(Identity::Email(name.to_owned()));
    }
    if let Some(address) = text.strip_prefix("address:") {
        return address
            .parse()
            .map(Identity::Address)
            .map_err(|_| format!("'{address}' is not an IP address"));
    }
    Ok(match text.parse() {
        Ok(address) => Identity::Address(address),
        Err(_) if text.contains('@') => Identity::Email(text.to_owned()),
        Err(_) => Identity::Fqdn(text.to_owned()),
    })
}

/// Octets of an even number of hexadecimal digits; at least one.
pub fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_follows_from_the_form() {
        assert_eq!(identity("gw1.example.net"), Ok(Identity::Fqdn("gw1.example.net".to_owned())));
        assert_eq!(identity("ops@example.net"), Ok(Identity::Email("ops@example.net".to_owned())));
        assert_eq!(identity("2001:db8::1"), Ok(Identity::Address("2001:db8::1".parse().unwrap())));
        assert_eq!(identity("keyid:00ff"), Ok(Identity::KeyId(vec![0, 255])));
        assert_eq!(identity("fqdn:192.0.2.1"), Ok(Identity::Fqdn("192.0.2.1".to_owned())));
        let name = identity("dn:CN=gw 1,O=Example").unwrap();
        assert_eq!(name.to_string(), "CN=gw 1,O=Example");
        for bad in ["dn:", "dn:nonsense", "", "a b", "keyid:0", "keyid:zz", "address:x"] {
            assert!(identity(bad).is_err(), "{bad}");
        }
    }
}
