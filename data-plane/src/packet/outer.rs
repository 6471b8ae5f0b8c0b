//! The outer header of a tunnel packet: IPv4 or IPv6, with or without UDP (RFC 4301 section 5.1.2, RFC 3948).

use std::net::{IpAddr, SocketAddr};

use super::checksum;
use super::{PacketBuf, ecn, protocol};
use crate::sa::{Carrier, Path};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const TTL: u8 = 64;
const FLAG_DF: u16 = 0x4000;

/// What becomes of the DF bit of an outer IPv4 header (RFC 4301 section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DontFragment {
    /// As the inner header says; set if that is IPv6.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Never set: routers on the path may fragment.
    Clear,
}

/// How inner and outer header are related.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelOptions {
    /// The outer DSCP is the inner one (RFC 2983); else it is zero, so that it tells an observer nothing.
    pub copy_dscp: bool,
    /// The DF bit of outer IPv4 headers.
    pub dont_fragment: DontFragment,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self { copy_dscp: true, dont_fragment: DontFragment::Copy }
    }
}

/// What the outer header takes from the inner one and from the SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OuterFields {
    /// Traffic class (DSCP and ECN) of the inner packet.
    pub inner_traffic_class: u8,
    /// The inner packet may not be fragmented: IPv4 with DF, or IPv6.
    pub inner_dont_fragment: bool,
    /// Distinguishes packets that routers may fragment; the low bits of the sequence number do.
    pub identification: u16,
}

/// The outer header of a path, but for what differs from packet to packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OuterHeader {
    template: [u8; IPV6_LEN + UDP_LEN],
    template_sum: u64,
    len: usize,
    source: IpAddr,
    destination: IpAddr,
    local_port: u16,
    remote_port: u16,
    udp: bool,
    options: TunnelOptions,
}

impl OuterHeader {
    /// The header of a path; `None` if the path sends nothing or mixes address families. For a stream it is that of UDP,
    /// for its size alone: RFC 9329 section 3 limits messages to what ESP in UDP has, so that the inner MTU stays when
    /// the carrier changes.
    pub fn new(path: &Path, options: TunnelOptions) -> Option<Self> {
        let udp = match path.carrier {
            Carrier::Ip => false,
            Carrier::Udp | Carrier::Stream(_) => true,
            Carrier::Hold | Carrier::Shut => return None,
        };
        let mut template = [0; IPV6_LEN + UDP_LEN];
        let next_header = if udp { protocol::UDP } else { protocol::ESP };
        let ip_len = match (path.local, path.remote) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                template[0] = 0x45;
                template[8] = TTL;
                template[9] = next_header;
                template[12..16].copy_from_slice(&source.octets());
                template[16..20].copy_from_slice(&destination.octets());
                IPV4_LEN
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                template[0] = 0x60;
                template[6] = next_header;
                template[7] = TTL;
                template[8..24].copy_from_slice(&source.octets());
                template[24..40].copy_from_slice(&destination.octets());
                IPV6_LEN
            }
            _ => return None,
        };
        // Of what stays the same in an IPv4 header: TTL, protocol, addresses.
        let template_sum = checksum::sum(&template[8..IPV4_LEN]);
        template[ip_len..ip_len + 2].copy_from_slice(&path.local_port.to_be_bytes());
        template[ip_len + 2..ip_len + 4].copy_from_slice(&path.remote_port.to_be_bytes());
        let len = ip_len + if udp { UDP_LEN } else { 0 };
        let Path { local: source, remote: destination, local_port, remote_port, .. } = *path;
        Some(Self { template, template_sum, len, source, destination, local_port, remote_port, udp, options })
    }

    /// Bytes of the IP and UDP headers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A header is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Largest inner packet whose outer packet has at most `mtu` bytes of IP; 0 if none has.
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        portcullis_esp::max_payload_len(mtu.saturating_sub(self.len))
    }

    /// Longest ESP echo message whose outer packet has at most `mtu` bytes of IP: it has less padding than data.
    pub fn echo_mtu(&self, mtu: usize) -> usize {
        portcullis_esp::least_padded_max_payload_len(mtu.saturating_sub(self.len))
    }

    /// True if both lead from the same end to the same other end by the same carrier, whatever they let routers do.
    pub fn is_same_way(&self, other: &Self) -> bool {
        // Without UDP a port means nothing.
        let way =
            |header: &Self| (header.source, header.destination, header.udp.then_some(header.remote_port));
        way(self) == way(other)
    }

    /// True if ESP travels in UDP.
    pub fn is_udp(&self) -> bool {
        self.udp
    }

    /// Our address.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// The peer's address.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Our address and UDP port.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.local_port)
    }

    /// The peer's address and UDP port.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.remote_port)
    }

    /// The traffic class of the outer header.
    pub fn traffic_class(&self, fields: &OuterFields) -> u8 {
        ecn::encapsulate(fields.inner_traffic_class, self.options.copy_dscp)
    }

    /// True if the outer header forbids fragmentation.
    pub fn dont_fragment(&self, fields: &OuterFields) -> bool {
        match self.options.dont_fragment {
            DontFragment::Copy => fields.inner_dont_fragment,
            DontFragment::Set => true,
            DontFragment::Clear => false,
        }
    }

    /// Puts the header before the ESP packet; `None` if the buffer has no room or the packet is too long for IP.
    pub fn push(&self, packet: &mut PacketBuf<'_>, fields: &OuterFields) -> Option<()> {
        let total = u16::try_from(packet.len() + self.len).ok()?;
        let room = packet.push_front(self.len)?;
        let traffic_class = self.traffic_class(fields);
        let ip_len = match self.source {
            IpAddr::V4(_) => {
                let (template, behind) = self.template.split_first_chunk::<IPV4_LEN>()?;
                let (header, udp) = room.split_first_chunk_mut::<IPV4_LEN>()?;
                *header = self.ipv4_header(template, traffic_class, total, fields);
                if let Some(udp) = udp.first_chunk_mut::<UDP_LEN>() {
                    *udp = *behind.first_chunk()?;
                }
                IPV4_LEN
            }
            IpAddr::V6(_) => {
                room.copy_from_slice(&self.template[..self.len]);
                let header = room.get_mut(..IPV6_LEN)?;
                header[0] = 0x60 | traffic_class >> 4;
                header[1] = traffic_class << 4;
                header[4..6].copy_from_slice(&(total - IPV6_LEN as u16).to_be_bytes());
                IPV6_LEN
            }
        };
        if self.udp {
            self.finish_udp(&mut packet.bytes_mut()[ip_len..]);
        }
        Some(())
    }

    /// The header without a look back at what was written: a processor waits for its own stores of other widths.
    fn ipv4_header(
        &self,
        template: &[u8; IPV4_LEN],
        traffic_class: u8,
        total: u16,
        fields: &OuterFields,
    ) -> [u8; IPV4_LEN] {
        let flags = if self.dont_fragment(fields) { FLAG_DF } else { 0 };
        let first = u16::from_be_bytes([template[0], traffic_class]);
        let words = [first, total, fields.identification, flags].map(u64::from);
        let checksum = !checksum::fold(self.template_sum + words.iter().sum::<u64>());
        let word = |high: u16, low: u16| u128::from(high) << 16 | u128::from(low);
        let start = word(first, total) << 96
            | word(fields.identification, flags) << 64
            | word(u16::from_be_bytes([template[8], template[9]]), checksum) << 32
            | u128::from(u32::from_be_bytes([template[12], template[13], template[14], template[15]]));
        let mut header = *template;
        header[..16].copy_from_slice(&start.to_be_bytes());
        header
    }

    /// Length and checksum of the UDP header: zero over IPv4 (RFC 3948 section 2.1), computed over IPv6, where
    /// zero is only for those who agreed on it (RFC 8200 section 8.1, RFC 6935).
    fn finish_udp(&self, datagram: &mut [u8]) {
        let len = datagram.len();
        datagram[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        if self.source.is_ipv6() {
            let pseudo = checksum::pseudo_header(self.source, self.destination, protocol::UDP, len);
            let checksum = match !checksum::fold(pseudo + checksum::sum(datagram)) {
                0 => 0xffff,
                checksum => checksum,
            };
            datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sa::EchoAnswers;

    const FIELDS: OuterFields =
        OuterFields { inner_traffic_class: 0xb9, inner_dont_fragment: true, identification: 0x1234 };

    #[test]
    fn an_ipv4_header_carries_esp_with_a_valid_checksum() {
        let packet = built(&path("192.0.2.1", "198.51.100.2", Carrier::Ip), TunnelOptions::default());
        assert_eq!(packet.len(), 20 + 5);
        assert_eq!(packet[..10], [0x45, 0xb9, 0, 25, 0x12, 0x34, 0x40, 0, 64, 50]);
        assert_eq!(checksum::fold(checksum::sum(&packet[..20])), 0xffff);
        assert_eq!(packet[12..20], [192, 0, 2, 1, 198, 51, 100, 2]);
    }

    proptest! {
        /// RFC 791 section 3.1: whatever is in it, its checksum is what a sum over all of it says.
        #[test]
        fn every_ipv4_header_has_the_checksum_of_its_octets(
            (local, remote) in any::<([u8; 4], [u8; 4])>(),
            (inner_traffic_class, inner_dont_fragment, identification) in any::<(u8, bool, u16)>(),
            udp in any::<bool>(),
            len in 0usize..3000,
        ) {
            let carrier = if udp { Carrier::Udp } else { Carrier::Ip };
            let text = |octets: [u8; 4]| std::net::Ipv4Addr::from(octets).to_string();
            let header = OuterHeader::new(&path(&text(local), &text(remote), carrier), TunnelOptions::default()).unwrap();
            let mut bytes = vec![0x5a; 64 + len];
            let mut packet = PacketBuf::new(&mut bytes, 64, len).unwrap();
            let fields = OuterFields { inner_traffic_class, inner_dont_fragment, identification };
            header.push(&mut packet, &fields).unwrap();
            let mut expected = packet.bytes()[..20].to_vec();
            checksum::set_ipv4_header(&mut expected);
            prop_assert_eq!(&packet.bytes()[..20], expected);
            prop_assert_eq!(usize::from(u16::from_be_bytes([packet.bytes()[2], packet.bytes()[3]])), header.len() + len);
            prop_assert_eq!((&packet.bytes()[12..16], &packet.bytes()[16..20]), (&local[..], &remote[..]));
        }
    }

    /// RFC 3948 section 2.1: the UDP checksum should be zero, which over IPv4 means none.
    #[test]
    fn udp_over_ipv4_has_no_checksum() {
        let packet = built(&path("192.0.2.1", "198.51.100.2", Carrier::Udp), TunnelOptions::default());
        assert_eq!(packet[9], 17);
        assert_eq!(packet[20..28], [0x11, 0x94, 0x27, 0x0f, 0, 13, 0, 0]);
    }

    /// RFC 8200 section 8.1: the UDP checksum is not optional over IPv6.
    #[test]
    fn udp_over_ipv6_has_a_valid_checksum() {
        let path = path("2001:db8::1", "2001:db8::2", Carrier::Udp);
        let packet = built(&path, TunnelOptions::default());
        assert_eq!(packet[..8], [0x6b, 0x90, 0, 0, 0, 13, 17, 64]);
        let pseudo = checksum::pseudo_header(path.local, path.remote, 17, 13);
        assert_eq!(checksum::fold(pseudo + checksum::sum(&packet[40..])), 0xffff);
    }

    /// RFC 4301 section 8.1: the three DF options.
    #[test]
    fn the_df_bit_follows_the_option() {
        let df = |dont_fragment, inner_dont_fragment| {
            let options = TunnelOptions { dont_fragment, ..TunnelOptions::default() };
            let header = OuterHeader::new(&path("192.0.2.1", "192.0.2.2", Carrier::Ip), options).unwrap();
            header.dont_fragment(&OuterFields { inner_dont_fragment, ..FIELDS })
        };
        assert_eq!((df(DontFragment::Copy, true), df(DontFragment::Copy, false)), (true, false));
        assert_eq!((df(DontFragment::Set, false), df(DontFragment::Clear, true)), (true, false));
    }

    #[test]
    fn the_inner_mtu_is_the_largest_packet_that_fits() {
        for carrier in [Carrier::Ip, Carrier::Udp] {
            for (local, remote) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
                let header =
                    OuterHeader::new(&path(local, remote, carrier), TunnelOptions::default()).unwrap();
                for mtu in 1280..1520 {
                    let inner = header.inner_mtu(mtu);
                    let outer = |inner| header.len() + portcullis_esp::sealed_len(inner);
                    assert!(outer(inner) <= mtu && outer(inner + 1) > mtu);
                    let echo = header.echo_mtu(mtu);
                    let outer = |echo| header.len() + portcullis_esp::least_padded_len(echo);
                    assert!(outer(echo) <= mtu && outer(echo + 1) > mtu);
                }
            }
        }
    }

    #[test]
    fn a_path_that_sends_nothing_or_mixes_families_has_no_header() {
        let header = |p: &Path| OuterHeader::new(p, TunnelOptions::default());
        assert_eq!(header(&path("192.0.2.1", "192.0.2.2", Carrier::Hold)), None);
        assert_eq!(header(&path("192.0.2.1", "192.0.2.2", Carrier::Shut)), None);
        assert_eq!(header(&path("192.0.2.1", "2001:db8::2", Carrier::Ip)), None);
    }

    #[test]
    fn a_packet_without_headroom_or_too_long_for_ip_is_refused() {
        let header =
            OuterHeader::new(&path("192.0.2.1", "192.0.2.2", Carrier::Ip), TunnelOptions::default()).unwrap();
        let mut bytes = vec![0; 70000];
        assert_eq!(header.push(&mut PacketBuf::new(&mut bytes, 19, 10).unwrap(), &FIELDS), None);
        assert_eq!(header.push(&mut PacketBuf::new(&mut bytes, 100, 65516).unwrap(), &FIELDS), None);
    }

    /// An ESP echo over IP knows no port, and goes the way of its path all the same.
    #[test]
    fn a_port_tells_ways_apart_in_udp_alone() {
        let is_same_way = |carrier| {
            let of = |remote_port| {
                let path = Path { remote_port, ..path("192.0.2.1", "192.0.2.2", carrier) };
                OuterHeader::new(&path, TunnelOptions::default()).unwrap()
            };
            of(4500).is_same_way(&of(0))
        };
        assert!(is_same_way(Carrier::Ip));
        assert!(!is_same_way(Carrier::Udp));
    }

    fn path(local: &str, remote: &str, carrier: Carrier) -> Path {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        Path {
            carrier,
            local,
            local_port: 4500,
            remote,
            remote_port: 9999,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        }
    }

    fn built(path: &Path, options: TunnelOptions) -> Vec<u8> {
        let mut bytes = [0x5a; 128];
        let mut packet = PacketBuf::new(&mut bytes, 64, 5).unwrap();
        OuterHeader::new(path, options).unwrap().push(&mut packet, &FIELDS).unwrap();
        packet.bytes().to_vec()
    }
}
