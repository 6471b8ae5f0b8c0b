//! IPv4 fragmentation before encryption (RFC 791 section 3.2), for packets that allow it and exceed the tunnel's
//! path MTU: the peer's hosts reassemble, not the peer's gateway (RFC 4459 section 3.1).

use super::{Inner, IpVersion, checksum};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
/// Options that go into every fragment have this bit (RFC 791 section 3.1).
const COPIED: u8 = 0x80;

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes and gives each to `emit`.
///
/// Returns false, with nothing emitted, if the packet is IPv6, forbids fragmentation or `mtu` is too small.
pub fn split(packet: &[u8], inner: &Inner, mtu: usize, mut emit: impl FnMut(&[u8])) -> bool {
    let header_len = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    let in_v4 = inner.version == IpVersion::V4 && !inner.dont_fragment;
    let (Some((header, payload)), true) = (packet.split_at_checked(header_len), in_v4) else { return false };
    if header_len < 20 || mtu < header_len + 8 {
        return false;
    }
    let field = u16::from_be_bytes([header[6], header[7]]);
    let (first_offset, more_behind) = (field & OFFSET_MASK, field & MORE_FRAGMENTS);
    let step = (mtu - header_len) & !7;
    let mut fragment = Vec::with_capacity(mtu);
    for (i, part) in payload.chunks(step).enumerate() {
        let at = i * step;
        fragment.clear();
        fragment.extend_from_slice(header);
        if i > 0 {
            blank_uncopied_options(&mut fragment[20..]);
        }
        fragment.extend_from_slice(part);
        let is_last = at + part.len() == payload.len();
        let flags = if is_last { more_behind } else { MORE_FRAGMENTS };
        let offset = first_offset + (at / 8) as u16;
        let len = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&len.to_be_bytes());
        fragment[6..8].copy_from_slice(&(flags | offset & OFFSET_MASK).to_be_bytes());
        checksum::set_ipv4_header(&mut fragment[..header_len]);
        emit(&fragment);
    }
    true
}

/// Options that belong into the first fragment only become no-operations.
fn blank_uncopied_options(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return,
            1 => at += 1,
            kind => {
                let len = options.get(at + 1).map_or(1, |len| usize::from(*len)).max(1);
                let end = (at + len).min(options.len());
                if kind & COPIED == 0 {
                    options[at..end].fill(1);
                }
                at = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fragments_fit_and_reassemble_to_the_packet(len in 60usize..3000, mtu in 68usize..1500, options in any::<bool>()) {
            let packet = packet(len, options);
            let header_len = usize::from(packet[0] & 15) * 4;
            let mut reassembled = vec![0; len - header_len];
            let mut last_seen = false;
            let was_split = split(&packet, &Inner::parse(&packet).unwrap(), mtu, |fragment| {
                assert!(fragment.len() <= mtu);
                assert_eq!(checksum::fold(checksum::sum(&fragment[..header_len])), 0xffff);
                let field = u16::from_be_bytes([fragment[6], fragment[7]]);
                let at = usize::from(field & OFFSET_MASK) * 8;
                last_seen |= field & MORE_FRAGMENTS == 0;
                reassembled[at..at + fragment.len() - header_len].copy_from_slice(&fragment[header_len..]);
            });
            prop_assert!(was_split && last_seen);
            prop_assert_eq!(&reassembled, &packet[header_len..]);
        }
    }

    #[test]
    fn a_fragment_that_is_cut_again_keeps_its_place_in_the_whole() {
        let mut packet = packet(200, false);
        packet[6..8].copy_from_slice(&(MORE_FRAGMENTS | 100).to_be_bytes());
        let mut fields = Vec::new();
        assert!(split(&packet, &Inner::parse(&packet).unwrap(), 120, |fragment| {
            fields.push(u16::from_be_bytes([fragment[6], fragment[7]]));
        }));
        assert_eq!(fields, [MORE_FRAGMENTS | 100, MORE_FRAGMENTS | 112]);
    }

    /// RFC 791 section 3.1: only options with the copied flag go into every fragment.
    #[test]
    fn uncopied_options_stay_in_the_first_fragment() {
        let packet = packet(200, true);
        let mut options = Vec::new();
        split(&packet, &Inner::parse(&packet).unwrap(), 120, |f| options.push(f[20..28].to_vec()));
        assert_eq!(options[0], [7, 3, 4, 0x94, 4, 0, 0, 0]);
        assert_eq!(options[1], [1, 1, 1, 0x94, 4, 0, 0, 0]);
    }

    #[test]
    fn a_packet_with_df_is_not_cut() {
        let mut packet = packet(200, false);
        packet[6] = 0x40;
        assert!(!split(&packet, &Inner::parse(&packet).unwrap(), 120, |_| panic!("emitted")));
    }

    fn packet(len: usize, options: bool) -> Vec<u8> {
        let mut packet: Vec<u8> = (0..len).map(|i| i as u8).collect();
        packet[..20].fill(0);
        packet[0] = if options { 0x47 } else { 0x45 };
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        (packet[8], packet[9]) = (64, 17);
        if options {
            packet[20..28].copy_from_slice(&[7, 3, 4, 0x94, 4, 0, 0, 0]);
        }
        packet
    }
}
