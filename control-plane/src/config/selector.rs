//! Traffic selectors: read in the notation of [`TrafficSelector`], handed to the data plane as ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use portcullis_data_plane::policy::Selector;
use portcullis_ike::codec::{PortRange, TrafficSelector};

/// Reads `10.1.0.0/16`, `2001:db8::1`, `10.1.0.1-10.1.0.9`, each with an optional `[protocol]` or
/// `[protocol/port]`, as in `10.1.0.0/16[tcp/443]`.
///
/// # Errors
/// Names the part that is wrong.
pub fn selector(text: &str) -> Result<TrafficSelector, String> {
    let selector: TrafficSelector = text.parse().map_err(|error| format!("'{text}': {error}"))?;
    match (selector.ports, selector.protocol) {
        (ports, _) if ports.is_any() => Ok(selector),
        (ports, _) if ports.is_opaque() => Err(format!("'{text}': opaque ports are not supported")),
        (_, protocol) if has_ports(protocol) => Ok(selector),
        _ => Err(format!("'{text}': {PORTS_NEED_PROTOCOL}")),
    }
}

/// What ports ask for.
pub const PORTS_NEED_PROTOCOL: &str = "ports need a protocol that has them (tcp, udp, dccp, sctp, udplite)";

/// A prefix such as `10.1.0.0/16`.
///
/// # Errors
/// Says what is wrong.
pub fn prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let selector = selector(text)?;
    match selector.addresses.prefix() {
        Some(prefix) if selector.protocol == 0 => Ok(prefix),
        _ => Err(format!("'{text}' is not a prefix such as 10.1.0.0/16")),
    }
}

/// Everything, in both families.
pub fn everything() -> Vec<TrafficSelector> {
    let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    all.into_iter().filter_map(|address| TrafficSelector::from_prefix(address, 0)).collect()
}

/// True if some selector of one side has the family of some selector of the other.
pub fn pairable(local: &[TrafficSelector], remote: &[TrafficSelector]) -> bool {
    let is_v4 = |selector: &TrafficSelector| selector.addresses.start().is_ipv4();
    local.iter().any(|a| remote.iter().any(|b| is_v4(a) == is_v4(b)))
}

/// True for protocols whose first four octets are two ports.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// The form that the data plane compares packets with.
pub fn for_data_plane(selector: &TrafficSelector) -> Selector {
    Selector {
        addresses: selector.addresses.start()..=selector.addresses.end(),
        protocol: (selector.protocol != 0).then_some(selector.protocol),
        ports: range(selector.ports),
    }
}

/// Opaque ports (RFC 4301 section 4.4.1.1) are those of packets that show none; the data plane knows them as port 0.
fn range(ports: PortRange) -> RangeInclusive<u16> {
    if ports.is_opaque() { 0..=0 } else { ports.start()..=ports.end() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_selectors_say_which_part_is_wrong() {
        for (text, part) in [
            ("10.1.0.1/16", "10.1.0.0/16"),
            ("10.1.0.0/33", "33"),
            ("10.1.0.0/16[tpc]", "tpc"),
            ("10.1.0.0/16[tcp/opaque]", "opaque"),
            ("10.1.0.0/16[gre/8]", "ports need a protocol"),
            ("host.example", "host.example"),
        ] {
            let error = selector(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(prefix("10.0.0.1-10.0.0.9").is_err() && prefix("10.0.0.0/8[tcp]").is_err());
        assert_eq!(prefix("10.0.0.0/8"), Ok(("10.0.0.0".parse().unwrap(), 8)));
    }

    #[test]
    fn the_data_plane_gets_the_same_range() {
        let selector = for_data_plane(&selector("10.1.0.0/16[tcp/80-90]").unwrap());
        let (first, last) = ("10.1.0.0".parse().unwrap(), "10.1.255.255".parse().unwrap());
        assert_eq!(selector, Selector { addresses: first..=last, protocol: Some(6), ports: 80..=90 });
    }
}
