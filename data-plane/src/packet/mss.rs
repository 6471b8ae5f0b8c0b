//! TCP maximum segment size, lowered to what fits the tunnel (RFC 9293 section 3.7.1, RFC 4459 section 3.2).

use super::{Inner, checksum, protocol};

const SYN: u8 = 0x02;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// True for a packet that begins with the TCP header of a SYN.
pub fn is_syn(packet: &[u8], inner: &Inner) -> bool {
    inner.protocol == protocol::TCP
        && !inner.is_later_fragment()
        && packet.get(inner.payload_offset + 13).is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the MSS option of a SYN to `limit` bytes; true if it did. `segment` starts at the TCP header.
pub fn clamp(segment: &mut [u8], limit: u16) -> bool {
    if segment.len() < 20 || segment[13] & SYN == 0 {
        return false;
    }
    let options_end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    let mut at = 20;
    while at < options_end {
        match segment[at] {
            END_OF_OPTIONS => return false,
            NO_OPERATION => at += 1,
            kind => {
                let Some(len) = segment.get(at + 1).map(|len| usize::from(*len)).filter(|len| *len >= 2)
                else {
                    return false;
                };
                if kind == MAXIMUM_SEGMENT_SIZE && len == 4 && at + 4 <= options_end {
                    return lower(segment, at + 2, limit);
                }
                at += len;
            }
        }
    }
    false
}

fn lower(segment: &mut [u8], at: usize, limit: u16) -> bool {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= limit {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    let sum = u16::from_be_bytes([segment[16], segment[17]]);
    // At an odd offset the option's octets lie in the other halves of the words that are summed.
    let (old, new) = if at.is_multiple_of(2) { (old, limit) } else { (old.swap_bytes(), limit.swap_bytes()) };
    let sum = checksum::update(sum, old, new);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    #[test]
    fn a_larger_mss_is_lowered_wherever_it_stands_and_the_checksum_stays_valid() {
        for options in
            [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4, 1, 1, 0], &[3, 3, 7, 2, 4, 0x05, 0xb4, 1]]
        {
            let mut segment = syn(options);
            assert!(clamp(&mut segment, 1300));
            assert!(segment.windows(4).any(|w| w == [2, 4, 0x05, 0x14]));
            assert!(is_valid(&segment));
        }
    }

    #[test]
    fn a_smaller_mss_and_packets_without_syn_are_left_alone() {
        let mut segment = syn(&[2, 4, 0x02, 0x00]);
        assert!(!clamp(&mut segment, 1300));
        let mut segment = syn(&[2, 4, 0x05, 0xb4]);
        segment[13] = 0x10;
        let before = segment.clone();
        assert!(!clamp(&mut segment, 1300));
        assert_eq!(segment, before);
    }

    #[test]
    fn options_that_lie_about_their_length_are_left_alone() {
        for options in [&[2, 0, 0, 0][..], &[2, 1, 5, 5], &[3, 200, 0, 0], &[1, 1, 1, 2], &[1, 1, 2, 4]] {
            assert!(!clamp(&mut syn(options), 100));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(mut segment in proptest::collection::vec(any::<u8>(), 0..80), limit in any::<u16>()) {
            let len = segment.len();
            clamp(&mut segment, limit);
            prop_assert_eq!(segment.len(), len);
        }
    }

    const ENDS: (IpAddr, IpAddr) =
        (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    fn syn(options: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment.extend_from_slice(options);
        segment[12] = ((segment.len() / 4) as u8) << 4;
        segment[13] = SYN;
        let pseudo = checksum::fold(checksum::pseudo_header(ENDS.0, ENDS.1, 6, segment.len()));
        segment[16..18].copy_from_slice(&pseudo.to_be_bytes());
        checksum::complete(&mut segment, ENDS.0, ENDS.1, 6);
        segment
    }

    fn is_valid(segment: &[u8]) -> bool {
        let pseudo = checksum::pseudo_header(ENDS.0, ENDS.1, 6, segment.len());
        checksum::fold(pseudo + checksum::sum(segment)) == 0xffff
    }
}
