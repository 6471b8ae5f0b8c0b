//! What the headers of a clear-text IP packet say, and the few fields a router changes in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{checksum, protocol};

/// IP version of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Where in its original packet a fragment lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fragment {
    /// The packet is whole.
    Whole,
    /// The first fragment, with the upper-layer header.
    First,
    /// Any other; its ports are not in it.
    Later,
}

/// Ports as selectors see them (RFC 4301 section 4.4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    /// Source and destination; for ICMP both are type and code (RFC 7296 section 3.13.1).
    Known(u16, u16),
    /// The protocol has none.
    Absent,
    /// A later fragment: OPAQUE in the words of RFC 4301 section 7.
    Unknown,
}

/// The headers of a clear-text packet, checked against its length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Inner {
    /// IP version.
    pub version: IpVersion,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Upper-layer protocol, behind all extension headers.
    pub protocol: u8,
    /// Ports, or what stands for them.
    pub ports: Ports,
    /// Where the upper-layer header starts.
    pub payload_offset: usize,
    /// Length of the packet as its header says, at most that of the bytes it came in.
    pub total_len: usize,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 DF bit; true for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// Whole packet or fragment.
    pub fragment: Fragment,
}

impl Inner {
    /// Reads the headers of `packet`, which starts at the IP header and may be followed by padding; `None` if
    /// they are malformed.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    /// True for a fragment without upper-layer header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment == Fragment::Later
    }

    /// The ESP next header for this packet.
    pub fn next_header(&self) -> u8 {
        match self.version {
            IpVersion::V4 => protocol::IPV4,
            IpVersion::V6 => protocol::IPV6,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < 20 || total_len < header_len || total_len > packet.len() {
            return None;
        }
        let field = u16::from_be_bytes([header[6], header[7]]);
        let fragment = fragment(field & 0x1fff != 0, field & 0x2000 != 0);
        let upper = packet.get(header_len..total_len)?;
        Some(Self {
            version: IpVersion::V4,
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            protocol: header[9],
            ports: ports(header[9], upper, fragment)?,
            payload_offset: header_len,
            total_len,
            traffic_class: header[1],
            ttl: header[8],
            dont_fragment: field & 0x4000 != 0,
            fragment,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let total_len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let packet = packet.get(..total_len)?;
        let (protocol, payload_offset, fragment) = upper_layer(header[6], packet)?;
        let address =
            |at: usize| -> Option<Ipv6Addr> { packet.get(at..)?.first_chunk::<16>().map(|a| (*a).into()) };
        Some(Self {
            version: IpVersion::V6,
            source: address(8)?.into(),
            destination: address(24)?.into(),
            protocol,
            ports: ports(protocol, packet.get(payload_offset..)?, fragment)?,
            payload_offset,
            total_len,
            traffic_class: header[0] << 4 | header[1] >> 4,
            ttl: header[7],
            dont_fragment: true,
            fragment,
        })
    }
}

/// Takes one off TTL or hop limit, which must not be zero.
pub fn decrement_ttl(packet: &mut [u8], version: IpVersion) {
    match version {
        IpVersion::V4 => {
            let old = u16::from_be_bytes([packet[8], packet[9]]);
            packet[8] = packet[8].saturating_sub(1);
            let new = u16::from_be_bytes([packet[8], packet[9]]);
            patch_checksum(packet, old, new);
        }
        IpVersion::V6 => packet[7] = packet[7].saturating_sub(1),
    }
}

/// Replaces DSCP and ECN.
pub fn set_traffic_class(packet: &mut [u8], version: IpVersion, traffic_class: u8) {
    match version {
        IpVersion::V4 => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] = traffic_class;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            patch_checksum(packet, old, new);
        }
        IpVersion::V6 => {
            packet[0] = packet[0] & 0xf0 | traffic_class >> 4;
            packet[1] = packet[1] & 0x0f | traffic_class << 4;
        }
    }
}

fn patch_checksum(packet: &mut [u8], old: u16, new: u16) {
    let checksum = checksum::update(u16::from_be_bytes([packet[10], packet[11]]), old, new);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn fragment(has_offset: bool, more: bool) -> Fragment {
    match (has_offset, more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::Whole,
    }
}

/// `None` if the upper-layer header is cut short, which in a first fragment is an attack (RFC 1858).
fn ports(upper_protocol: u8, upper: &[u8], fragment: Fragment) -> Option<Ports> {
    const DCCP: u8 = 33;
    const SCTP: u8 = 132;
    const UDP_LITE: u8 = 136;
    let has_ports = match upper_protocol {
        protocol::TCP | protocol::UDP | DCCP | SCTP | UDP_LITE => true,
        protocol::ICMP | protocol::ICMPV6 => false,
        _ => return Some(Ports::Absent),
    };
    if fragment == Fragment::Later {
        return Some(Ports::Unknown);
    }
    if !has_ports {
        let kind = upper.first_chunk::<2>()?;
        return Some(Ports::Known(u16::from_be_bytes(*kind), u16::from_be_bytes(*kind)));
    }
    let [a, b, c, d] = *upper.first_chunk::<4>()?;
    Some(Ports::Known(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Walks the extension headers (RFC 8200 section 4): protocol, its offset, and where a fragment lies.
fn upper_layer(first: u8, packet: &[u8]) -> Option<(u8, usize, Fragment)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    let (mut next, mut at, mut place) = (first, 40, Fragment::Whole);
    loop {
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(*packet.get(at + 1)?) + 1) * 8,
            AUTHENTICATION => (usize::from(*packet.get(at + 1)?) + 2) * 4,
            FRAGMENT => {
                let header = packet.get(at..)?.first_chunk::<8>()?;
                let field = u16::from_be_bytes([header[2], header[3]]);
                place = fragment(field & 0xfff8 != 0, field & 1 != 0);
                8
            }
            _ => return Some((next, at, place)),
        };
        next = *packet.get(at)?;
        at += len;
        if at > packet.len() {
            return None;
        }
        if place == Fragment::Later {
            // What follows in a later fragment is data, not a header.
            return Some((next, at, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ipv4_udp_packet_is_read_in_full() {
        let mut packet = v4(protocol::UDP, &[0x12, 0x34, 0x00, 0x35, 0, 8, 0, 0]);
        packet[1] = 0xb8;
        packet[6] = 0x40;
        packet.extend_from_slice(&[0; 20]);
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!(inner.ports, Ports::Known(0x1234, 0x35));
        assert_eq!((inner.total_len, inner.payload_offset, inner.ttl), (28, 20, 64));
        assert_eq!((inner.traffic_class, inner.dont_fragment, inner.fragment), (0xb8, true, Fragment::Whole));
        assert_eq!((inner.source, inner.destination), ([10, 1, 0, 1].into(), [10, 2, 0, 1].into()));
    }

    #[test]
    fn ipv6_extension_headers_lead_to_the_upper_layer() {
        let chain = [[60, 0, 1, 4, 0, 0, 0, 0], [43, 0, 1, 4, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0, 0]].concat();
        let inner = Inner::parse(&v6(0, &[&chain[..], &[0, 80, 1, 187]].concat())).unwrap();
        assert_eq!((inner.protocol, inner.payload_offset), (protocol::TCP, 64));
        assert_eq!(inner.ports, Ports::Known(80, 443));
    }

    /// RFC 4301 section 7: the ports of a later fragment are OPAQUE.
    #[test]
    fn fragments_say_whether_their_ports_are_known() {
        let mut first = v4(protocol::UDP, &[0, 1, 0, 2]);
        first[6..8].copy_from_slice(&0x2000u16.to_be_bytes());
        assert_eq!(Inner::parse(&first).unwrap().ports, Ports::Known(1, 2));
        let mut later = v4(protocol::UDP, &[0, 1, 0, 2]);
        later[6..8].copy_from_slice(&185u16.to_be_bytes());
        let later = Inner::parse(&later).unwrap();
        assert_eq!((later.ports, later.fragment), (Ports::Unknown, Fragment::Later));
        let v6_later = Inner::parse(&v6(44, &[17, 0, 0x05, 0xa8, 0, 0, 0, 1, 9, 9])).unwrap();
        assert_eq!((v6_later.ports, v6_later.protocol), (Ports::Unknown, protocol::UDP));
    }

    /// RFC 7296 section 3.13.1: type in the upper octet, code in the lower.
    #[test]
    fn icmp_type_and_code_stand_for_ports() {
        let inner = Inner::parse(&v4(protocol::ICMP, &[3, 4, 0, 0])).unwrap();
        assert_eq!(inner.ports, Ports::Known(0x0304, 0x0304));
    }

    #[test]
    fn lengths_that_contradict_each_other_are_malformed() {
        let good = v4(protocol::UDP, &[0, 1, 0, 2]);
        assert!(Inner::parse(&good[..good.len() - 1]).is_none());
        for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x55), (3, 19), (3, 23)] {
            let mut packet = good.clone();
            packet[at] = value;
            assert!(Inner::parse(&packet).is_none(), "byte {at} = {value:#x}");
        }
        assert!(Inner::parse(&v6(0, &[6, 200, 0, 0, 0, 0, 0, 0])).is_none());
    }

    #[test]
    fn ttl_and_traffic_class_change_with_a_valid_checksum() {
        let mut packet = v4(protocol::UDP, &[0, 1, 0, 2]);
        checksum::set_ipv4_header(&mut packet[..20]);
        decrement_ttl(&mut packet, IpVersion::V4);
        set_traffic_class(&mut packet, IpVersion::V4, 0xbb);
        assert_eq!((packet[8], packet[1]), (63, 0xbb));
        assert_eq!(checksum::fold(checksum::sum(&packet[..20])), 0xffff);
        let mut packet = v6(protocol::UDP, &[0, 1, 0, 2]);
        decrement_ttl(&mut packet, IpVersion::V6);
        set_traffic_class(&mut packet, IpVersion::V6, 0xbb);
        assert_eq!((Inner::parse(&packet).unwrap().traffic_class, packet[7]), (0xbb, 63));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_offsets_stay_inside(
            version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
            mut packet in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            packet[0] = version;
            if let Some(inner) = Inner::parse(&packet) {
                prop_assert!(inner.payload_offset <= inner.total_len && inner.total_len <= packet.len());
            }
        }
    }

    fn v4(upper_protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20 + upper.len() as u8, 0, 0, 0, 0, 64, upper_protocol, 0, 0];
        packet.extend_from_slice(&[10, 1, 0, 1, 10, 2, 0, 1]);
        packet.extend_from_slice(upper);
        packet
    }

    fn v6(next: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, upper.len() as u8, next, 64];
        packet.extend_from_slice(&[0xfd; 32]);
        packet.extend_from_slice(upper);
        packet
    }
}
