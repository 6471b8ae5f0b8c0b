//! Does a packet match a selector?

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::flow_cache::upper_layer;
use super::index::bits;
use crate::packet::Inner;
use crate::packet::inner::Ports;
use crate::policy::Selector;
use crate::sa::SaSelectors;

/// The selector values of a packet, seen from this gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Address on our side.
    pub local: IpAddr,
    /// Address on the other side.
    pub remote: IpAddr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Ports: ours and the other side's.
    pub ports: Ports,
}

/// In few and wide words.
impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(bits(self.local));
        state.write_u128(bits(self.remote));
        state.write_u64(upper_layer(self.protocol, self.ports));
    }
}

/// How a packet relates to a selector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelectorMatch {
    /// Inside.
    Yes,
    /// Outside.
    No,
    /// Inside but for ports that a fragment does not show (RFC 4301 section 7).
    PortsUnknown,
}

impl Flow {
    /// A packet that leaves the protected side.
    pub fn outbound(inner: &Inner) -> Self {
        Self { local: inner.source, remote: inner.destination, protocol: inner.protocol, ports: inner.ports }
    }

    /// A packet that came out of a tunnel.
    pub fn inbound(inner: &Inner) -> Self {
        let ports = match inner.ports {
            Ports::Known(source, destination) => Ports::Known(destination, source),
            other => other,
        };
        Self { local: inner.destination, remote: inner.source, protocol: inner.protocol, ports }
    }

    /// The same packet seen from the other side of the policy.
    pub fn reversed(self) -> Self {
        let ports = match self.ports {
            Ports::Known(local, remote) => Ports::Known(remote, local),
            other => other,
        };
        Self { local: self.remote, remote: self.local, protocol: self.protocol, ports }
    }
}

/// Matches a packet that came out of a tunnel against the selectors of its SA: any local with any remote. It is looked at where it
/// is, without a [`Flow`] of it.
#[inline]
pub fn admits(selectors: &SaSelectors, inner: &Inner) -> SelectorMatch {
    let (source, destination) = Port::both(&inner.ports);
    both_sides(
        (&selectors.local, &inner.destination, destination),
        (&selectors.remote, &inner.source, source),
        inner.protocol,
    )
}

/// Matches a flow against two lists of selectors: any local with any remote.
pub fn matches_any(local: &[Selector], remote: &[Selector], flow: &Flow) -> SelectorMatch {
    let (local_port, remote_port) = Port::both(&flow.ports);
    both_sides((local, &flow.local, local_port), (remote, &flow.remote, remote_port), flow.protocol)
}

/// Selectors of one side, and what a packet has there.
type Side<'a> = (&'a [Selector], &'a IpAddr, Port);

#[inline]
fn both_sides(local: Side<'_>, remote: Side<'_>, protocol: u8) -> SelectorMatch {
    match one_side(local, protocol) {
        SelectorMatch::No => SelectorMatch::No,
        SelectorMatch::Yes => one_side(remote, protocol),
        SelectorMatch::PortsUnknown => match one_side(remote, protocol) {
            SelectorMatch::No => SelectorMatch::No,
            SelectorMatch::Yes | SelectorMatch::PortsUnknown => SelectorMatch::PortsUnknown,
        },
    }
}

#[derive(Clone, Copy)]
enum Port {
    Known(u16),
    Absent,
    Unknown,
}

impl Port {
    #[inline]
    fn both(ports: &Ports) -> (Self, Self) {
        match *ports {
            Ports::Known(first, second) => (Self::Known(first), Self::Known(second)),
            Ports::Absent => (Self::Absent, Self::Absent),
            Ports::Unknown => (Self::Unknown, Self::Unknown),
        }
    }
}

/// As the range has it, in numbers: addresses are compared octet by octet otherwise.
#[inline]
fn contains(addresses: &RangeInclusive<IpAddr>, address: &IpAddr) -> bool {
    match (addresses.start(), addresses.end(), address) {
        (IpAddr::V4(first), IpAddr::V4(last), IpAddr::V4(address)) => {
            (first.to_bits()..=last.to_bits()).contains(&address.to_bits())
        }
        (IpAddr::V6(first), IpAddr::V6(last), IpAddr::V6(address)) => {
            (first.to_bits()..=last.to_bits()).contains(&address.to_bits())
        }
        _ => addresses.contains(address),
    }
}

#[inline]
fn one_side((selectors, address, port): Side<'_>, protocol: u8) -> SelectorMatch {
    let mut result = SelectorMatch::No;
    for selector in selectors {
        if !contains(&selector.addresses, address) || selector.protocol.is_some_and(|p| p != protocol) {
            continue;
        }
        let any_port = *selector.ports.start() == 0 && *selector.ports.end() == u16::MAX;
        match port {
            _ if any_port => return SelectorMatch::Yes,
            Port::Known(port) if selector.ports.contains(&port) => return SelectorMatch::Yes,
            Port::Unknown => result = SelectorMatch::PortsUnknown,
            Port::Known(_) | Port::Absent => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_local_goes_with_any_remote() {
        let local = [range("10.1.0.0", "10.1.0.255"), range("10.1.9.0", "10.1.9.255")];
        let remote = [range("10.2.0.0", "10.2.255.255")];
        let matched = |l: &str, r: &str| matches_any(&local, &remote, &flow(l, r, Ports::Known(1, 2)));
        assert_eq!(matched("10.1.9.7", "10.2.3.4"), SelectorMatch::Yes);
        assert_eq!(matched("10.1.1.7", "10.2.3.4"), SelectorMatch::No);
        assert_eq!(matched("10.1.0.7", "10.3.0.1"), SelectorMatch::No);
    }

    #[test]
    fn families_do_not_mix() {
        let any_v4 = [range("0.0.0.0", "255.255.255.255")];
        let v6 = Flow { local: "fd00::1".parse().unwrap(), ..flow("10.0.0.1", "10.0.0.2", Ports::Absent) };
        assert_eq!(matches_any(&any_v4, &any_v4, &v6), SelectorMatch::No);
    }

    #[test]
    fn protocol_and_ports_of_either_side_select() {
        let web = Selector { protocol: Some(6), ports: 443..=443, ..range("10.2.0.0", "10.2.0.255") };
        let local = [range("10.1.0.0", "10.1.0.255")];
        let matched = |flow: Flow| matches_any(&local, std::slice::from_ref(&web), &flow);
        let tcp = Flow { protocol: 6, ..flow("10.1.0.1", "10.2.0.1", Ports::Known(9, 443)) };
        assert_eq!(matched(tcp), SelectorMatch::Yes);
        assert_eq!(matched(Flow { ports: Ports::Known(443, 9), ..tcp }), SelectorMatch::No);
        assert_eq!(matched(Flow { protocol: 17, ..tcp }), SelectorMatch::No);
    }

    /// RFC 4301 section 7: a fragment without ports fits no selector that names ports.
    #[test]
    fn a_later_fragment_is_ambiguous_only_where_ports_select() {
        let web = Selector { protocol: Some(6), ports: 443..=443, ..range("10.2.0.0", "10.2.0.255") };
        let local = [range("10.1.0.0", "10.1.0.255")];
        let fragment = Flow { protocol: 6, ..flow("10.1.0.1", "10.2.0.1", Ports::Unknown) };
        assert_eq!(matches_any(&local, std::slice::from_ref(&web), &fragment), SelectorMatch::PortsUnknown);
        assert_eq!(matches_any(&local, &[range("10.2.0.0", "10.2.0.255")], &fragment), SelectorMatch::Yes);
        let elsewhere = Flow { remote: "10.9.0.1".parse().unwrap(), ..fragment };
        assert_eq!(matches_any(&local, &[web], &elsewhere), SelectorMatch::No);
    }

    /// RFC 4301 section 4.4.1.1: a protocol without ports does not match a selector that names some.
    #[test]
    fn a_protocol_without_ports_does_not_match_named_ports() {
        let named = [Selector { ports: 1..=65535, ..range("10.2.0.0", "10.2.0.255") }];
        let local = [range("10.1.0.0", "10.1.0.255")];
        assert_eq!(
            matches_any(&local, &named, &flow("10.1.0.1", "10.2.0.1", Ports::Absent)),
            SelectorMatch::No
        );
    }

    fn range(first: &str, last: &str) -> Selector {
        Selector {
            addresses: first.parse().unwrap()..=last.parse().unwrap(),
            protocol: None,
            ports: 0..=u16::MAX,
        }
    }

    fn flow(local: &str, remote: &str, ports: Ports) -> Flow {
        Flow { local: local.parse().unwrap(), remote: remote.parse().unwrap(), protocol: 17, ports }
    }
}
