//! Ethernet headers of the packets we send.

use super::{IpVersion, PacketBuf};

/// Length of a header without VLAN tag.
pub const HEADER_LEN: usize = 14;

/// A link-layer address.
pub type MacAddress = [u8; 6];

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
