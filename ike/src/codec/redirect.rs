//! The data of REDIRECT and REDIRECTED_FROM (RFC 5685 sections 9.2 and 9.3).

use std::net::IpAddr;

/// GW Ident Type.
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

/// New Responder GW Identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GatewayIdentity {
    /// Types 1 and 2.
    Address(IpAddr),
    /// Type 3.
    Fqdn(String),
}

impl core::fmt::Display for GatewayIdentity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Fqdn(name) => name.fmt(f),
        }
    }
}

/// REDIRECT: where to, and the Nonce Data, which only IKE_SA_INIT has. `None` if it cannot be read.
pub fn decode_redirect(data: &[u8]) -> Option<(GatewayIdentity, &[u8])> {
    let [kind, len, rest @ ..] = data else { return None };
    let (identity, nonce) = rest.split_at_checked(usize::from(*len))?;
    let identity = match *kind {
        IPV4 => GatewayIdentity::Address(<[u8; 4]>::try_from(identity).ok()?.into()),
        IPV6 => GatewayIdentity::Address(<[u8; 16]>::try_from(identity).ok()?.into()),
        FQDN => GatewayIdentity::Fqdn(
            core::str::from_utf8(identity)
                .ok()
                .filter(|name| name.is_ascii() && !name.is_empty())?
                .to_owned(),
        ),
        _ => return None,
    };
    Some((identity, nonce))
}

/// REDIRECT or REDIRECTED_FROM with this gateway; the nonce is that of the IKE_SA_INIT request that it answers, or empty.
pub fn encode_redirect(gateway: IpAddr, nonce: &[u8]) -> Vec<u8> {
    match gateway {
        IpAddr::V4(address) => [&[IPV4, 4][..], &address.octets(), nonce].concat(),
        IpAddr::V6(address) => [&[IPV6, 16][..], &address.octets(), nonce].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_survive_and_what_is_cut_short_is_refused() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        let data = encode_redirect(v4, b"nonce");
        assert_eq!(data, [&[1, 4, 192, 0, 2, 1][..], b"nonce"].concat());
        assert_eq!(decode_redirect(&data), Some((GatewayIdentity::Address(v4), &b"nonce"[..])));
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            decode_redirect(&encode_redirect(v6, b"")),
            Some((GatewayIdentity::Address(v6), &b""[..]))
        );
        let name = [&[3, 3][..], b"gw1n"].concat();
        assert_eq!(decode_redirect(&name), Some((GatewayIdentity::Fqdn("gw1".into()), &b"n"[..])));
        for bad in [
            &[][..],
            &[1],
            &[1, 4, 1, 2, 3],
            &[1, 3, 1, 2, 3],
            &[2, 4, 1, 2, 3, 4],
            &[3, 0],
            &[3, 1, 0xff],
            &[4, 1, 1],
        ] {
            assert_eq!(decode_redirect(bad), None, "{bad:?}");
        }
    }
}
