//! Ethernet II with at most two VLAN tags (IEEE 802.1Q).

use crate::bytes::{Bytes, Malformed};

/// Length of a header without VLAN tag.
pub const HEADER_LEN: usize = 14;

const TAG_LEN: usize = 4;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What the header of a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Sent to a group address: broadcast or multicast.
    pub group: bool,
    /// What the frame carries.
    pub network: Network,
}

/// The network layer of a frame, with the offset of its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IPv4.
    Ipv4(usize),
    /// IPv6.
    Ipv6(usize),
    /// Anything else, and IP behind more than two tags.
    Other,
}

/// Reads the header of a frame.
///
/// # Errors
/// [`Malformed::Ethernet`] if the frame ends inside it.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(frame: &B) -> Result<Ethernet, Malformed> {
    let [first] = frame.read(0).ok_or(Malformed::Ethernet)?;
    let group = first & 1 != 0;
    let mut offset = HEADER_LEN;
    let mut ethertype = ethertype_before(frame, offset)?;
    if is_tag(ethertype) {
        offset += TAG_LEN;
        ethertype = ethertype_before(frame, offset)?;
        if is_tag(ethertype) {
            offset += TAG_LEN;
            ethertype = ethertype_before(frame, offset)?;
        }
    }
    let network = match ethertype {
        IPV4 => Network::Ipv4(offset),
        IPV6 => Network::Ipv6(offset),
        _ => Network::Other,
    };
    Ok(Ethernet { group, network })
}

#[inline(always)]
fn ethertype_before<B: Bytes + ?Sized>(frame: &B, end: usize) -> Result<u16, Malformed> {
    frame.read(end - 2).map(u16::from_be_bytes).ok_or(Malformed::Ethernet)
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == PROVIDER_VLAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_is_found_behind_up_to_two_tags() {
        let network = |types: &[u16]| parse(&frame(2, types)[..]).map(|e| e.network);
        assert_eq!(network(&[IPV4]), Ok(Network::Ipv4(14)));
        assert_eq!(network(&[VLAN, IPV6]), Ok(Network::Ipv6(18)));
        assert_eq!(network(&[PROVIDER_VLAN, VLAN, IPV4]), Ok(Network::Ipv4(22)));
        assert_eq!(network(&[VLAN, VLAN, VLAN, IPV4]), Ok(Network::Other));
        assert_eq!(network(&[0x0806]), Ok(Network::Other));
        // IEEE 802.3 length field.
        assert_eq!(network(&[46]), Ok(Network::Other));
    }

    #[test]
    fn a_header_or_tag_that_is_cut_short_is_malformed() {
        let tagged = frame(2, &[VLAN, IPV4]);
        for len in [0, 1, 13, 14, 17] {
            assert_eq!(parse(&tagged[..len]), Err(Malformed::Ethernet), "{len}");
        }
    }

    #[test]
    fn group_addresses_are_told_from_individual_ones() {
        assert!(parse(&frame(0xff, &[IPV4])[..]).unwrap().group);
        assert!(parse(&frame(0x33, &[IPV6])[..]).unwrap().group);
        assert!(!parse(&frame(0x02, &[IPV4])[..]).unwrap().group);
    }

    fn frame(first: u8, types: &[u16]) -> Vec<u8> {
        let mut frame = vec![first, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (i, ethertype) in types.iter().enumerate() {
            if i > 0 {
                frame.extend_from_slice(&[0, 7]);
            }
            frame.extend_from_slice(&ethertype.to_be_bytes());
        }
        frame
    }
}
