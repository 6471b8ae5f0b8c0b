//! Joining TCP packets that follow one another into one, for a kernel that takes them so: what receive offload is to
//! [`super::segment`]'s segmentation offload. Nothing is lost by it: cut again by the rules of that, the packets are the same.

use super::offload::{Offload, PartialChecksum, Segmentation, Segmented};
use super::{Inner, IpVersion, checksum, protocol};
use crate::packet::inner::Fragment;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_MIN_LEN: usize = 20;
const TCP_MAX_LEN: usize = 60;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const TCP_CHECKSUM: usize = 16;
/// Longest packet of IP, in bytes.
const LONGEST: usize = 65_535;

/// A TCP packet that may have others behind it in one packet: whole, without options of IP, with data, with a valid
/// checksum, and without any flag but ACK and PSH.
#[derive(Clone, Copy, Debug)]
pub struct Joinable {
    version: IpVersion,
    /// Bytes of IP and TCP headers.
    header_len: usize,
    data_len: usize,
    sequence: u32,
    identification: u16,
    dont_fragment: bool,
    is_pushed: bool,
}

/// Packets of one flow, in the order of their data.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    header: [u8; IPV6_LEN + TCP_MAX_LEN],
    first: Joinable,
    /// Bytes of data in all of them.
    data_len: usize,
    count: usize,
    is_pushed: bool,
    /// The last one was shorter, or pushed: nothing follows it.
    is_closed: bool,
}

impl Joinable {
    /// Looks at a packet whose headers are `inner`.
    pub fn of(packet: &[u8], inner: &Inner) -> Option<Self> {
        let ip_len = match inner.version {
            IpVersion::V4 => IPV4_LEN,
            IpVersion::V6 => IPV6_LEN,
        };
        let is_plain = inner.protocol == protocol::TCP
            && inner.fragment == Fragment::Whole
            && inner.payload_offset == ip_len
            && inner.total_len == packet.len();
        let segment = packet.get(ip_len..).filter(|_| is_plain)?;
        let tcp = segment.first_chunk::<TCP_MIN_LEN>()?;
        let tcp_len = usize::from(tcp[12] >> 4) * 4;
        let data_len = segment.len().checked_sub(tcp_len)?;
        let has_other_flags = tcp[12] & 0x0f != 0 || tcp[13] & !PSH != ACK;
        if tcp_len < TCP_MIN_LEN || data_len == 0 || has_other_flags {
            return None;
        }
        if !checksum::is_valid(segment, inner.source, inner.destination, protocol::TCP) {
            return None;
        }
        let identification = match inner.version {
            IpVersion::V4 => u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]),
            IpVersion::V6 => 0,
        };
        Some(Self {
            version: inner.version,
            header_len: ip_len + tcp_len,
            data_len,
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            identification,
            dont_fragment: inner.dont_fragment,
            is_pushed: tcp[13] & PSH != 0,
        })
    }

    /// Bytes of IP and TCP headers.
    pub fn header_len(&self) -> usize {
        self.header_len
    }
}

impl Run {
    /// A run that begins with this packet; `None` if its headers are longer than headers are.
    pub fn new(packet: &[u8], first: Joinable) -> Option<Self> {
        let mut header = [0; IPV6_LEN + TCP_MAX_LEN];
        header.get_mut(..first.header_len)?.copy_from_slice(packet.get(..first.header_len)?);
        let (data_len, is_pushed) = (first.data_len, first.is_pushed);
        Some(Self { header, first, data_len, count: 1, is_pushed, is_closed: is_pushed })
    }

    /// True if the packet is of the same flow: its addresses and ports are.
    pub fn is_flow_of(&self, packet: &[u8], inner: &Inner) -> bool {
        let addresses = match self.first.version {
            IpVersion::V4 => 12..IPV4_LEN,
            IpVersion::V6 => 8..IPV6_LEN,
        };
        let ports = addresses.end..addresses.end + 4;
        let at = inner.payload_offset;
        self.first.version == inner.version
            && inner.protocol == protocol::TCP
            && self.header.get(addresses.clone()) == packet.get(addresses)
            && self.header.get(ports) == packet.get(at..at + 4)
    }

    /// Takes the packet in if it goes on where the run ends and differs in nothing else; false, and nothing done, if not.
    pub fn join(&mut self, packet: &[u8], next: Joinable) -> bool {
        let first = &self.first;
        let goes_on = !self.is_closed
            && next.header_len == first.header_len
            && next.data_len <= first.data_len
            && next.sequence == first.sequence.wrapping_add(self.data_len as u32)
            && first.header_len + self.data_len + next.data_len <= LONGEST
            && (first.dont_fragment
                || next.identification == first.identification.wrapping_add(self.count as u16))
            && packet.get(..first.header_len).is_some_and(|header| self.is_like(header));
        if goes_on {
            self.data_len += next.data_len;
            self.count += 1;
            self.is_pushed = next.is_pushed;
            self.is_closed = next.is_pushed || next.data_len < first.data_len;
        }
        goes_on
    }

    /// Packets in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// True if no packet can join any more.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The headers of all of them as one packet, and how it is to be cut.
    pub fn finish(&mut self) -> (&[u8], Offload) {
        let Joinable { version, header_len, data_len: size, .. } = self.first;
        let total = header_len + self.data_len;
        let header = &mut self.header[..header_len];
        let (ip_len, kind, pseudo) = match version {
            IpVersion::V4 => {
                header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                checksum::set_ipv4_header(&mut header[..IPV4_LEN]);
                (IPV4_LEN, Segmented::TcpV4, checksum::sum(&header[12..IPV4_LEN]))
            }
            IpVersion::V6 => {
                header[4..6].copy_from_slice(&((total - IPV6_LEN) as u16).to_be_bytes());
                (IPV6_LEN, Segmented::TcpV6, checksum::sum(&header[8..IPV6_LEN]))
            }
        };
        let pseudo = checksum::fold(pseudo + u64::from(protocol::TCP) + (total - ip_len) as u64);
        let tcp = &mut header[ip_len..];
        tcp[13] |= if self.is_pushed { PSH } else { 0 };
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&pseudo.to_be_bytes());
        let offload = Offload {
            checksum: Some(PartialChecksum { start: ip_len as u16, offset: TCP_CHECKSUM as u16 }),
            segmentation: Some(Segmentation { kind, size: size as u16, header_len: header_len as u16 }),
        };
        (header, offload)
    }

    /// True if headers of the same length say the same, but for lengths, place in the stream, PSH and checksums.
    fn is_like(&self, header: &[u8]) -> bool {
        let own = &self.header[..self.first.header_len];
        let ip_differs = match self.first.version {
            // Version and class; flags to protocol; addresses.
            IpVersion::V4 => {
                own[..2] != header[..2] || own[6..10] != header[6..10] || own[12..20] != header[12..20]
            }
            // Version, class and flow label; next header, hop limit and addresses.
            IpVersion::V6 => own[..4] != header[..4] || own[6..IPV6_LEN] != header[6..IPV6_LEN],
        };
        let ip_len = match self.first.version {
            IpVersion::V4 => IPV4_LEN,
            IpVersion::V6 => IPV6_LEN,
        };
        let (own, tcp) = (&own[ip_len..], &header[ip_len..]);
        // Ports; acknowledgement and offset; window; urgent pointer and options.
        let tcp_differs = own[..4] != tcp[..4]
            || own[8..13] != tcp[8..13]
            || own[14..16] != tcp[14..16]
            || own[18..] != tcp[18..];
        !ip_differs && !tcp_differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::segment::Segments;
    use proptest::prelude::*;

    const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

    /// A TCP packet as a sender leaves it to its card.
    fn packet(v6: bool, data: usize, flags: u8, options: &[u8]) -> Vec<u8> {
        let tcp_len = TCP_MIN_LEN + options.len();
        let mut packet = match v6 {
            false => {
                let total = (IPV4_LEN + tcp_len + data) as u16;
                let mut header = vec![0x45, 0x02, 0, 0, 0xff, 0xfe, 0x40, 0, 64, protocol::TCP, 0, 0];
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header.extend([10, 1, 0, 5, 10, 2, 0, 5]);
                checksum::set_ipv4_header(&mut header);
                header
            }
            true => {
                let len = ((tcp_len + data) as u16).to_be_bytes();
                let mut header = vec![0x60, 0x20, 0, 7, len[0], len[1], protocol::TCP, 64];
                header.extend([0xfd; 32]);
                header
            }
        };
        let sequence = 0xffff_f000u32.to_be_bytes();
        packet.extend([0x30, 0x39, 0x14, 0x51]);
        packet.extend(sequence);
        packet.extend([0, 0, 0, 9, (tcp_len as u8 / 4) << 4, flags, 0x10, 0, 0, 0, 0, 0]);
        packet.extend(options);
        packet.extend((0..data).map(|i| (i * 7) as u8));
        packet
    }

    fn cut(whole: &[u8], size: u16) -> Vec<Vec<u8>> {
        let inner = Inner::parse(whole).unwrap();
        let kind = match inner.version {
            IpVersion::V4 => Segmented::TcpV4,
            IpVersion::V6 => Segmented::TcpV6,
        };
        let segments = Segments::new(whole, &inner, Segmentation { kind, size, header_len: 0 }).unwrap();
        (0..segments.count())
            .map(|number| {
                let mut out = vec![0; 70_000];
                let len = segments.write(number, &mut out).unwrap();
                out.truncate(len);
                assert_eq!(Inner::parse(&out).unwrap(), segments.inner(number));
                out
            })
            .collect()
    }

    fn joinable(packet: &[u8]) -> Option<Joinable> {
        Joinable::of(packet, &Inner::parse(packet).unwrap())
    }

    proptest! {
        #[test]
        fn what_was_cut_is_joined_to_what_it_was(
            v6 in any::<bool>(),
            data in 1usize..20_000,
            size in 100u16..9_000,
            pushed in any::<bool>(),
            options in any::<bool>(),
        ) {
            let options = if options { &OPTIONS[..] } else { &[] };
            let whole = packet(v6, data, if pushed { ACK | PSH } else { ACK }, options);
            let segments = cut(&whole, size);
            prop_assert_eq!(segments.len(), data.div_ceil(usize::from(size)));
            let first = joinable(&segments[0]).unwrap();
            let mut run = Run::new(&segments[0], first).unwrap();
            for segment in &segments[1..] {
                prop_assert!(run.is_flow_of(segment, &Inner::parse(segment).unwrap()));
                prop_assert!(run.join(segment, joinable(segment).unwrap()));
            }
            prop_assert_eq!(run.count(), segments.len());
            let (header, offload) = run.finish();
            let mut joined = header.to_vec();
            segments.iter().for_each(|segment| joined.extend(&segment[first.header_len()..]));
            offload.finish_checksum(&mut joined);
            let inner = Inner::parse(&joined).unwrap();
            prop_assert!(checksum::is_valid(
                &joined[inner.payload_offset..], inner.source, inner.destination, protocol::TCP
            ));
            let at = inner.payload_offset + TCP_CHECKSUM;
            joined[at..at + 2].fill(0);
            prop_assert_eq!(joined, whole);
            let segmentation = offload.segmentation.unwrap();
            prop_assert_eq!(usize::from(segmentation.size), data.min(usize::from(size)));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u16>()) {
            let Some(inner) = Inner::parse(&bytes) else { return Ok(()) };
            let _ = Joinable::of(&bytes, &inner).and_then(|first| Run::new(&bytes, first));
            for kind in [Segmented::TcpV4, Segmented::TcpV6, Segmented::Udp] {
                let cut = Segments::new(&bytes, &inner, Segmentation { kind, size, header_len: 0 });
                let _ = cut.map(|cut| cut.write(0, &mut [0; 300]));
            }
        }
    }

    #[test]
    fn segments_carry_what_is_true_of_them() {
        const FIN: u8 = 0x01;
        const CWR: u8 = 0x80;
        let segments = cut(&packet(false, 250, ACK | PSH | FIN | CWR, &[]), 100);
        let flags: Vec<_> = segments.iter().map(|segment| segment[IPV4_LEN + 13]).collect();
        assert_eq!(flags, [ACK | CWR, ACK, ACK | PSH | FIN]);
        let sequences: Vec<_> =
            segments.iter().map(|s| u32::from_be_bytes([s[24], s[25], s[26], s[27]])).collect();
        assert_eq!(sequences, [0xffff_f000, 0xffff_f064, 0xffff_f0c8]);
        let identifications: Vec<_> = segments.iter().map(|s| u16::from_be_bytes([s[4], s[5]])).collect();
        assert_eq!(identifications, [0xfffe, 0xffff, 0]);
        for segment in &segments {
            let inner = Inner::parse(segment).unwrap();
            assert_eq!(checksum::fold(checksum::sum(&segment[..IPV4_LEN])), 0xffff);
            assert!(checksum::is_valid(&segment[IPV4_LEN..], inner.source, inner.destination, protocol::TCP));
        }
    }

    #[test]
    fn datagrams_are_cut_into_datagrams() {
        for v6 in [false, true] {
            let tcp = packet(v6, 300, ACK, &[]);
            let ip_len = if v6 { IPV6_LEN } else { IPV4_LEN };
            let mut whole = tcp[..ip_len].to_vec();
            whole[if v6 { 6 } else { 9 }] = protocol::UDP;
            whole.extend([0, 53, 0, 53, 1, 64, 0, 0]);
            whole.extend(&tcp[ip_len + TCP_MIN_LEN - 8..]);
            let total = whole.len();
            let field = if v6 { total - IPV6_LEN } else { total } as u16;
            let at = if v6 { 4 } else { 2 };
            whole[at..at + 2].copy_from_slice(&field.to_be_bytes());
            let inner = Inner::parse(&whole).unwrap();
            let segmentation = Segmentation { kind: Segmented::Udp, size: 120, header_len: 0 };
            let segments = Segments::new(&whole, &inner, segmentation).unwrap();
            let mut out = [0; 400];
            let lens: Vec<_> = (0..segments.count())
                .map(|number| {
                    let len = segments.write(number, &mut out).unwrap();
                    let datagram = &out[ip_len..len];
                    assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), datagram.len());
                    assert!(checksum::is_valid(datagram, inner.source, inner.destination, protocol::UDP));
                    datagram.len() - 8
                })
                .collect();
            assert_eq!(lens, [120, 120, 68]);
        }
    }

    /// Each of these would be lost, or made up, if the packet were taken in.
    #[test]
    fn a_packet_that_differs_in_anything_else_does_not_join() {
        for v6 in [false, true] {
            let segments = cut(&packet(v6, 300, ACK, &OPTIONS), 100);
            let ip = if v6 { IPV6_LEN } else { IPV4_LEN };
            let ttl = if v6 { 7 } else { 8 };
            let changes: [(&str, usize); 8] = [
                ("ECN or DSCP", 1),
                ("TTL", ttl),
                ("acknowledgement", ip + 11),
                ("window", ip + 15),
                ("urgent pointer", ip + 19),
                ("options", ip + 27),
                ("port", ip + 1),
                ("sequence", ip + 7),
            ];
            for (what, at) in changes {
                let mut run = Run::new(&segments[0], joinable(&segments[0]).unwrap()).unwrap();
                let mut other = segments[1].clone();
                other[at] ^= 0x10;
                repair(&mut other);
                assert!(!run.join(&other, joinable(&other).unwrap()), "{what}");
                assert_eq!(run.count(), 1);
            }
        }
    }

    #[test]
    fn nothing_follows_a_shorter_packet_or_a_push_and_nothing_longer_joins() {
        let pushed = cut(&packet(false, 100, ACK | PSH, &[]), 100);
        let run = Run::new(&pushed[0], joinable(&pushed[0]).unwrap()).unwrap();
        assert!(run.is_closed());
        let segments = cut(&packet(false, 250, ACK, &[]), 100);
        let mut run = Run::new(&segments[0], joinable(&segments[0]).unwrap()).unwrap();
        assert!(run.join(&segments[1], joinable(&segments[1]).unwrap()) && !run.is_closed());
        assert!(run.join(&segments[2], joinable(&segments[2]).unwrap()) && run.is_closed());
        let mut run = Run::new(&segments[2], joinable(&segments[2]).unwrap()).unwrap();
        assert!(!run.join(&segments[0], joinable(&segments[0]).unwrap()));
    }

    /// RFC 6864 section 4: identifications of packets that may be fragmented mean something.
    #[test]
    fn identifications_have_to_go_on_where_fragmentation_is_allowed() {
        let mut segments = cut(&packet(false, 200, ACK, &[]), 100);
        for segment in &mut segments {
            segment[6] = 0;
            checksum::set_ipv4_header(&mut segment[..IPV4_LEN]);
        }
        let mut run = Run::new(&segments[0], joinable(&segments[0]).unwrap()).unwrap();
        let mut gap = segments[1].clone();
        gap[5] ^= 1;
        checksum::set_ipv4_header(&mut gap[..IPV4_LEN]);
        assert!(!run.join(&gap, joinable(&gap).unwrap()));
        assert!(run.join(&segments[1], joinable(&segments[1]).unwrap()));
    }

    #[test]
    fn what_is_no_plain_data_with_a_valid_checksum_is_not_joinable() {
        let data = &cut(&packet(false, 100, ACK, &[]), 100)[0];
        assert!(joinable(data).is_some());
        let mut corrupt = data.clone();
        corrupt[60] ^= 1;
        assert!(joinable(&corrupt).is_none(), "a wrong checksum must arrive wrong");
        for flags in [0x02, 0x11, 0x14, 0x30, 0x50, 0x90, 0x00, PSH] {
            assert!(joinable(&cut(&packet(false, 100, flags, &[]), 100)[0]).is_none(), "{flags:#x}");
        }
        assert!(joinable(&cut(&packet(false, 0, ACK, &[]), 100)[0]).is_none(), "no data");
    }

    fn repair(packet: &mut [u8]) {
        let inner = Inner::parse(packet).unwrap();
        if inner.version == IpVersion::V4 {
            checksum::set_ipv4_header(&mut packet[..IPV4_LEN]);
        }
        let segment = &mut packet[inner.payload_offset..];
        let pseudo = checksum::pseudo_header(inner.source, inner.destination, protocol::TCP, segment.len());
        segment[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        checksum::finish(segment, TCP_CHECKSUM);
    }
}
