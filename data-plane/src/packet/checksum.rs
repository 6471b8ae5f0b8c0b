//! The Internet checksum (RFC 1071), updated in place (RFC 1624), and completed where a sender left it to its card.

use std::net::IpAddr;

/// IP protocol numbers that carry a checksum over a pseudo-header.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// One's complement sum of `bytes`, to be added up and folded.
pub fn sum(bytes: &[u8]) -> u64 {
    // In whatever order the machine has its octets, since the sum in the other order is this one's octets exchanged
    // (RFC 1071 section 2 B): that leaves the loop nothing but additions.
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    u64::from(u16::from_be(fold(total + u64::from(u32::from_ne_bytes(last)))))
}

/// Folds a sum to 16 bits.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sum of the pseudo-header of an upper-layer packet (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u64 {
    let address = |address| match address {
        IpAddr::V4(a) => sum(&a.octets()),
        IpAddr::V6(a) => sum(&a.octets()),
    };
    address(source) + address(destination) + u64::from(protocol) + len as u64
}

/// Writes the checksum of an IPv4 header into it.
///
/// # Panics
/// If `header` is shorter than 20 bytes.
pub fn set_ipv4_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !fold(sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The checksum after a 16-bit word that it covers changed from `old` to `new` (RFC 1624 equation 3).
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Completes the checksum of a TCP or UDP packet that the sender left to its network card.
///
/// Such a packet comes from a neighbour on a virtual link with the folded pseudo-header sum in the checksum
/// field. `segment` is the upper-layer packet in full; fragments have no pseudo-header sum and must not be
/// given.
pub fn complete(segment: &mut [u8], source: IpAddr, destination: IpAddr, protocol: u8) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return,
    };
    let Some(field) = segment.get(at..at + 2) else { return };
    let unfinished = fold(pseudo_header(source, destination, protocol, segment.len()));
    if field == unfinished.to_be_bytes() {
        finish(segment, at);
    }
}

/// Puts the checksum over `segment` `at` octets into it, where the sum of what it covers beside that is by now.
pub fn finish(segment: &mut [u8], at: usize) {
    let checksum = match !fold(sum(segment)) {
        // RFC 768: zero would mean that there is no checksum. TCP does not care which of the two zeros it gets.
        0 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// True if the checksum of an IPv4 header, options included, holds (RFC 791 section 3.1).
pub fn is_valid_ipv4_header(header: &[u8]) -> bool {
    fold(sum(header)) == 0xffff
}

/// True if a UDP datagram may be taken: its checksum holds, or a sender on a virtual link left it to a card that there is none of,
/// or it has none and came over IPv4 (RFC 768; RFC 8200 section 8.1 has one over IPv6).
pub fn is_acceptable_udp(datagram: &[u8], source: IpAddr, destination: IpAddr) -> bool {
    match datagram.get(6..8) {
        None => false,
        Some([0, 0]) => source.is_ipv4(),
        Some(field) => {
            let pseudo = fold(pseudo_header(source, destination, UDP, datagram.len()));
            field == pseudo.to_be_bytes() || fold(u64::from(pseudo) + sum(datagram)) == 0xffff
        }
    }
}

/// True if the checksum of an upper-layer packet, which is in it, holds.
pub fn is_valid(segment: &[u8], source: IpAddr, destination: IpAddr, protocol: u8) -> bool {
    fold(pseudo_header(source, destination, protocol, segment.len()) + sum(segment)) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 3: the numerical example.
    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    /// RFC 1624 section 4: the example whose naive update gives the other zero.
    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn an_unfinished_checksum_is_completed_and_a_finished_one_left_alone() {
        let (source, destination) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut segment = vec![0x12, 0x34, 0x00, 0x35, 0x00, 0x0b, 0, 0, b'a', b'b', b'c'];
        let pseudo = fold(pseudo_header(source, destination, UDP, segment.len()));
        segment[6..8].copy_from_slice(&pseudo.to_be_bytes());
        complete(&mut segment, source, destination, UDP);
        assert!(is_valid(&segment, source, destination, UDP));
        let finished = segment.clone();
        complete(&mut segment, source, destination, UDP);
        assert_eq!(segment, finished);
    }

    /// RFC 768, RFC 8200 section 8.1.
    #[test]
    fn a_datagram_is_acceptable_with_a_checksum_that_holds_or_is_left_to_a_card_and_over_ipv4_without() {
        let v4 = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let v6 = (IpAddr::from([1u16; 8]), IpAddr::from([2u16; 8]));
        for (source, destination) in [v4, v6] {
            let mut datagram = vec![0x11, 0x94, 0x11, 0x94, 0, 13, 0, 0, 1, 2, 3, 4, 5];
            let is_acceptable = |datagram: &[u8]| is_acceptable_udp(datagram, source, destination);
            assert_eq!(is_acceptable(&datagram), source.is_ipv4());
            let pseudo = fold(pseudo_header(source, destination, UDP, datagram.len()));
            datagram[6..8].copy_from_slice(&pseudo.to_be_bytes());
            assert!(is_acceptable(&datagram), "left to a card");
            complete(&mut datagram, source, destination, UDP);
            assert!(is_acceptable(&datagram));
            for at in 0..datagram.len() {
                let mut wrong = datagram.clone();
                wrong[at] ^= 4;
                assert!(!is_acceptable(&wrong), "octet {at}");
            }
            assert!(!is_acceptable(&datagram[..7]));
        }
    }

    /// RFC 768: an all zero checksum says that none was made.
    #[test]
    fn a_udp_packet_without_checksum_stays_without() {
        let mut segment = [0, 1, 0, 2, 0, 8, 0, 0];
        complete(&mut segment, IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]), UDP);
        assert_eq!(segment[6..], [0, 0]);
    }

    proptest! {
        /// RFC 1071 section 1: 16-bit words, in network byte order.
        #[test]
        fn the_sum_is_that_of_words_in_network_byte_order(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
            prop_assert_eq!(fold(sum(&bytes)), fold(words.sum()));
        }

        #[test]
        fn completion_always_gives_a_valid_checksum(
            mut segment in proptest::collection::vec(any::<u8>(), 20..200),
            v6 in any::<bool>(),
            a in any::<u128>(),
            b in any::<u128>(),
            tcp in any::<bool>(),
        ) {
            let address = |bits: u128| match v6 {
                true => IpAddr::from(bits.to_be_bytes()),
                false => IpAddr::from((bits as u32).to_be_bytes()),
            };
            let (at, protocol) = if tcp { (16, TCP) } else { (6, UDP) };
            let pseudo = fold(pseudo_header(address(a), address(b), protocol, segment.len()));
            segment[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
            complete(&mut segment, address(a), address(b), protocol);
            prop_assert!(is_valid(&segment, address(a), address(b), protocol));
        }

        #[test]
        fn an_update_equals_a_new_computation(mut header in proptest::array::uniform20(any::<u8>()), ttl in any::<u8>()) {
            set_ipv4_header(&mut header);
            let old = u16::from_be_bytes([header[8], header[9]]);
            let new = u16::from_be_bytes([ttl, header[9]]);
            let updated = update(u16::from_be_bytes([header[10], header[11]]), old, new);
            header[8] = ttl;
            header[10..12].copy_from_slice(&updated.to_be_bytes());
            prop_assert_eq!(fold(sum(&header)), 0xffff);
        }
    }
}
