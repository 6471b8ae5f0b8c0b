//! Ethernet headers of the packets we send.

use portcullis_common::ethernet as common;

use super::{IpVersion, PacketBuf};

pub use common::HEADER_LEN;

/// A link-layer address.
pub type MacAddress = [u8; 6];

/// An Ethernet header, VLAN tags included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EthernetHeader {
    /// Who sent it.
    pub source: MacAddress,
    /// Bytes before the IP header.
    pub len: usize,
}

/// Reads the header of a frame that carries IP, as XDP does; `None` if it does not.
pub fn parse(frame: &[u8]) -> Option<EthernetHeader> {
    let source = *frame.get(6..)?.first_chunk::<6>()?;
    match common::parse(frame).ok()?.network {
        common::Network::Ipv4(len) | common::Network::Ipv6(len) => Some(EthernetHeader { source, len }),
        _ => None,
    }
}

/// Puts an Ethernet header before an IP packet; `None` if there is no room.
pub fn push(
    packet: &mut PacketBuf<'_>,
    destination: MacAddress,
    source: MacAddress,
    version: IpVersion,
) -> Option<()> {
    let header = packet.push_front(HEADER_LEN)?;
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    let ethertype = match version {
        IpVersion::V4 => [0x08, 0x00],
        IpVersion::V6 => [0x86, 0xdd],
    };
    header[12..14].copy_from_slice(&ethertype);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_is_found_behind_up_to_two_tags() {
        let frame = |types: &[[u8; 2]]| {
            let mut frame = [[3; 6], [4; 6]].concat();
            types.iter().for_each(|t| frame.extend_from_slice(&[t[0], t[1], 0, 7]));
            frame
        };
        let (ip, tag) = ([0x08, 0x00], [0x81, 0x00]);
        assert_eq!(parse(&frame(&[ip])), Some(EthernetHeader { source: [4; 6], len: 14 }));
        assert_eq!(parse(&frame(&[tag, [0x86, 0xdd]])).unwrap().len, 18);
        assert_eq!(parse(&frame(&[[0x88, 0xa8], tag, ip])).unwrap().len, 22);
        assert_eq!(parse(&frame(&[tag, tag, tag, ip])), None);
        assert_eq!(parse(&frame(&[[0x08, 0x06]])), None);
        assert_eq!(parse(&[0; 13]), None);
    }

    #[test]
    fn the_header_names_both_ends_and_the_ip_version() {
        for (version, ethertype) in [(IpVersion::V4, [8, 0]), (IpVersion::V6, [0x86, 0xdd])] {
            let mut bytes = [0; 20];
            let mut packet = PacketBuf::new(&mut bytes, 14, 1).unwrap();
            push(&mut packet, [1; 6], [2; 6], version).unwrap();
            assert_eq!(packet.bytes()[..12], [[1; 6], [2; 6]].concat());
            assert_eq!(packet.bytes()[12..14], ethertype);
            assert!(push(&mut packet, [1; 6], [2; 6], version).is_none());
        }
    }
}
