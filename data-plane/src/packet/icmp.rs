//! ICMP errors that a router owes the sender (RFC 792, RFC 1812 section 4.3, RFC 4443 section 2.4).

use std::net::IpAddr;

use super::{Inner, IpVersion, checksum, protocol};

/// Why the sender hears from us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// TTL or hop limit ran out in transit.
    TimeExceeded,
    /// The packet may not be fragmented and exceeds this MTU in bytes (RFC 1191, RFC 8201).
    TooBig {
        /// What fits.
        mtu: u16,
    },
}

/// Longest ICMPv4 error (RFC 1812 section 4.3.2.3).
const V4_MAX: usize = 576;
/// Longest ICMPv6 error: the minimum MTU (RFC 4443 section 2.4 c).
const V6_MAX: usize = 1280;
const V4_HEADERS: usize = 20 + 8;
const V6_HEADERS: usize = 40 + 8;

/// Longest ICMP error that [`build`] makes.
pub const MAX_LEN: usize = V6_MAX;

/// Writes the error about `offending` (an IP packet and what its headers say) to `out`, from our address
/// `source`; returns its length.
///
/// `None` if the rules forbid an answer: to an ICMP error, to any but the first fragment, to or from an address
/// that is no single host; or if `source` is not of the packet's family.
pub fn build(
    error: IcmpError,
    offending: &[u8],
    inner: &Inner,
    source: IpAddr,
    out: &mut [u8; MAX_LEN],
) -> Option<usize> {
    if !may_answer(offending, inner) {
        return None;
    }
    match (source, inner.source) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let (kind, code, word) = match error {
                IcmpError::TimeExceeded => (11, 0, 0),
                IcmpError::TooBig { mtu } => (3, 4, u32::from(mtu)),
            };
            let quote = offending.get(..offending.len().min(V4_MAX - V4_HEADERS))?;
            let len = V4_HEADERS + quote.len();
            out[..V4_HEADERS].fill(0);
            out[0] = 0x45;
            // RFC 1812 section 4.3.2.5: precedence 6, internetwork control.
            out[1] = 0xc0;
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            (out[8], out[9]) = (64, protocol::ICMP);
            out[12..16].copy_from_slice(&source.octets());
            out[16..20].copy_from_slice(&to.octets());
            checksum::set_ipv4_header(&mut out[..20]);
            (out[20], out[21]) = (kind, code);
            out[24..28].copy_from_slice(&word.to_be_bytes());
            out[V4_HEADERS..len].copy_from_slice(quote);
            let sum = !checksum::fold(checksum::sum(&out[20..len]));
            out[22..24].copy_from_slice(&sum.to_be_bytes());
            Some(len)
        }
        (IpAddr::V6(own), IpAddr::V6(to)) => {
            let (kind, code, word) = match error {
                IcmpError::TimeExceeded => (3, 0, 0),
                IcmpError::TooBig { mtu } => (2, 0, u32::from(mtu)),
            };
            let quote = offending.get(..offending.len().min(V6_MAX - V6_HEADERS))?;
            let len = V6_HEADERS + quote.len();
            out[..V6_HEADERS].fill(0);
            out[0] = 0x60;
            out[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            (out[6], out[7]) = (protocol::ICMPV6, 64);
            out[8..24].copy_from_slice(&own.octets());
            out[24..40].copy_from_slice(&to.octets());
            (out[40], out[41]) = (kind, code);
            out[44..48].copy_from_slice(&word.to_be_bytes());
            out[V6_HEADERS..len].copy_from_slice(quote);
            let pseudo = checksum::pseudo_header(source, inner.source, protocol::ICMPV6, len - 40);
            let sum = !checksum::fold(pseudo + checksum::sum(&out[40..len]));
            out[42..44].copy_from_slice(&sum.to_be_bytes());
            Some(len)
        }
        _ => None,
    }
}

/// RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e).
fn may_answer(offending: &[u8], inner: &Inner) -> bool {
    let upper = offending.get(inner.payload_offset);
    let is_error = match inner.protocol {
        protocol::ICMP if inner.version == IpVersion::V4 => {
            upper.is_none_or(|kind| matches!(kind, 3..=5 | 11 | 12))
        }
        protocol::ICMPV6 if inner.version == IpVersion::V6 => {
            upper.is_none_or(|kind| *kind < 128 || *kind == 137)
        }
        _ => false,
    };
    let one_host = |address: IpAddr| match address {
        IpAddr::V4(a) => !(a.is_unspecified() || a.is_broadcast() || a.is_multicast() || a.is_loopback()),
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_multicast() || a.is_loopback()),
    };
    !is_error && !inner.is_later_fragment() && one_host(inner.source) && one_host(inner.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_error_quotes_the_packet_and_names_the_mtu() {
        let packet = udp_v4(1400);
        let mut out = [0; MAX_LEN];
        let source = IpAddr::from([10, 1, 0, 254]);
        let len = build(IcmpError::TooBig { mtu: 1400 }, &packet, &parse(&packet), source, &mut out).unwrap();
        assert_eq!(len, 576);
        assert_eq!(out[20..22], [3, 4]);
        assert_eq!(out[26..28], 1400u16.to_be_bytes());
        assert_eq!((&out[12..16], &out[16..20]), (&[10, 1, 0, 254][..], &[10, 1, 0, 1][..]));
        assert_eq!(out[28..576], packet[..548]);
        assert_eq!(checksum::fold(checksum::sum(&out[..20])), 0xffff);
        assert_eq!(checksum::fold(checksum::sum(&out[20..len])), 0xffff);
    }

    #[test]
    fn an_ipv6_error_fits_the_minimum_mtu_and_has_a_valid_checksum() {
        let packet = udp_v6(1452);
        let mut out = [0; MAX_LEN];
        let source: IpAddr = "fd01::fe".parse().unwrap();
        let inner = parse(&packet);
        for (error, kind) in [(IcmpError::TooBig { mtu: 1400 }, 2), (IcmpError::TimeExceeded, 3)] {
            let len = build(error, &packet, &inner, source, &mut out).unwrap();
            assert_eq!((len, out[40], out[41]), (1280, kind, 0));
            let pseudo = checksum::pseudo_header(source, inner.source, 58, len - 40);
            assert_eq!(checksum::fold(pseudo + checksum::sum(&out[40..len])), 0xffff);
        }
    }

    /// RFC 1812 section 4.3.2.7: no ICMP error about an ICMP error, a later fragment, or a group address.
    #[test]
    fn what_must_not_be_answered_is_not() {
        let mut out = [0; MAX_LEN];
        let source = IpAddr::from([10, 1, 0, 254]);
        let mut answered = |packet: &[u8]| {
            build(IcmpError::TimeExceeded, packet, &parse(packet), source, &mut out).is_some()
        };
        let mut icmp = udp_v4(64);
        icmp[9] = protocol::ICMP;
        icmp[20] = 8;
        assert!(answered(&icmp), "an echo request is no error");
        icmp[20] = 3;
        assert!(!answered(&icmp));
        let mut fragment = udp_v4(64);
        fragment[6..8].copy_from_slice(&8u16.to_be_bytes());
        assert!(!answered(&fragment));
        let mut multicast = udp_v4(64);
        multicast[16..20].copy_from_slice(&[224, 0, 0, 5]);
        assert!(!answered(&multicast));
    }

    fn parse(packet: &[u8]) -> Inner {
        Inner::parse(packet).unwrap()
    }

    fn udp_v4(len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        (packet[8], packet[9]) = (1, protocol::UDP);
        packet[12..16].copy_from_slice(&[10, 1, 0, 1]);
        packet[16..20].copy_from_slice(&[10, 2, 0, 1]);
        packet
    }

    fn udp_v6(len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        (packet[6], packet[7]) = (protocol::UDP, 1);
        (packet[8], packet[23]) = (0xfd, 1);
        (packet[24], packet[39]) = (0xfd, 2);
        packet
    }
}
