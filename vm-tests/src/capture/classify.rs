//! What one Ethernet frame is, seen from between two gateways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kinds a capture tells apart.
#[derive(PartialEq, Debug)]
pub(super) enum Kind<'a> {
    EspIp,
    EspUdp,
    IkeUdp4500,
    IkeUdp500,
    NatKeepalive,
    Tcp4500(Segment<'a>),
    /// To or from an inner address, with a description.
    InnerClear(String),
    Other,
}

/// A TCP segment.
#[derive(PartialEq, Debug)]
pub(super) struct Segment<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    pub syn: bool,
    pub payload: &'a [u8],
}

/// Prefixes, each an address and a length.
pub(super) struct Prefixes(pub Vec<(IpAddr, u8)>);

impl Prefixes {
    fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(prefix, length)| match (prefix, address) {
            (IpAddr::V4(p), IpAddr::V4(a)) => {
                let ignored = 32 - u32::from(*length);
                p.to_bits().checked_shr(ignored) == a.to_bits().checked_shr(ignored)
            }
            (IpAddr::V6(p), IpAddr::V6(a)) => {
                let ignored = 128 - u32::from(*length);
                p.to_bits().checked_shr(ignored) == a.to_bits().checked_shr(ignored)
            }
            _ => false,
        })
    }
}

pub(super) fn classify<'a>(frame: &'a [u8], inner: &Prefixes) -> Kind<'a> {
    classify_packet(frame, inner).unwrap_or(Kind::Other)
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const IKE_PORT: u16 = 500;
const NAT_T_PORT: u16 = 4500;

/// `None` if the frame is no IP packet or is cut short.
fn classify_packet<'a>(frame: &'a [u8], inner: &Prefixes) -> Option<Kind<'a>> {
    let (source, destination, protocol, payload) = ip_header(frame)?;
    if inner.contain(source) || inner.contain(destination) {
        let description =
            format!("{source} > {destination}, protocol {protocol}, {} octets of payload", payload.len());
        return Some(Kind::InnerClear(description));
    }
    match protocol {
        ESP => Some(Kind::EspIp),
        UDP => {
            let ports = [be16(payload, 0)?, be16(payload, 2)?];
            let data = payload.get(8..usize::from(be16(payload, 4)?))?;
            Some(if ports.contains(&NAT_T_PORT) {
                match data {
                    [0xff] => Kind::NatKeepalive,
                    [0, 0, 0, 0, ..] => Kind::IkeUdp4500,
                    _ => Kind::EspUdp,
                }
            } else if ports.contains(&IKE_PORT) {
                Kind::IkeUdp500
            } else {
                Kind::Other
            })
        }
        TCP => {
            let ports = [be16(payload, 0)?, be16(payload, 2)?];
            if !ports.contains(&NAT_T_PORT) {
                return Some(Kind::Other);
            }
            const SYN: u8 = 2;
            Some(Kind::Tcp4500(Segment {
                source: SocketAddr::new(source, ports[0]),
                destination: SocketAddr::new(destination, ports[1]),
                sequence: u32::from(be16(payload, 4)?) << 16 | u32::from(be16(payload, 6)?),
                syn: payload.get(13)? & SYN != 0,
                payload: payload.get(usize::from(payload.get(12)? >> 4) * 4..)?,
            }))
        }
        _ => Some(Kind::Other),
    }
}

/// Source, destination, protocol and payload of the IP packet in a frame; a fragment other than the first has
/// the protocol of its packet and no ports.
fn ip_header(frame: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    let packet = frame.get(14..)?;
    match be16(frame, 12)? {
        IPV4 => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            // Ethernet pads short frames; the total length does not count that.
            let payload = packet.get(header..usize::from(be16(packet, 2)?)).unwrap_or(packet.get(header..)?);
            Some((Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into(), packet[9], payload))
        }
        IPV6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            let payload = packet.get(40..)?;
            Some((Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into(), packet[6], payload))
        }
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_4500_is_told_apart_by_the_marker() {
        assert_eq!(kind_of(UDP, &udp(4500, &[0, 0, 0, 0, 1])), "IkeUdp4500");
        assert_eq!(kind_of(UDP, &udp(4500, &[0, 0, 1, 0, 1])), "EspUdp");
        assert_eq!(kind_of(UDP, &udp(4500, &[0xff])), "NatKeepalive");
        assert_eq!(kind_of(UDP, &udp(500, &[0; 4])), "IkeUdp500");
        assert_eq!(kind_of(UDP, &udp(53, &[0; 4])), "Other");
        assert_eq!(kind_of(ESP, &[1; 20]), "EspIp");
    }

    #[test]
    fn an_inner_address_is_clear_text_whatever_it_carries() {
        let inner = Prefixes(vec![([192, 0, 2, 0].into(), 24)]);
        let frame = frame(ESP, &[1; 20]);
        assert!(matches!(classify(&frame, &inner), Kind::InnerClear(_)));
    }

    #[test]
    fn truncation_anywhere_is_no_panic() {
        let whole = frame(TCP, &[0x11; 40]);
        for length in 0..whole.len() {
            classify(&whole[..length], &Prefixes(vec![]));
        }
    }

    fn kind_of(protocol: u8, payload: &[u8]) -> String {
        format!("{:?}", classify(&frame(protocol, payload), &Prefixes(vec![([10, 0, 0, 0].into(), 8)])))
    }

    fn frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, (20 + payload.len()) as u8, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend([192, 0, 2, 2, 198, 51, 100, 2]);
        frame.extend(payload);
        frame
    }

    fn udp(port: u16, data: &[u8]) -> Vec<u8> {
        let mut datagram = 50_000u16.to_be_bytes().to_vec();
        datagram.extend(port.to_be_bytes());
        datagram.extend((8 + data.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(data);
        datagram
    }
}
