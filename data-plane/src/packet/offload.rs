//! What a packet leaves to a network card: the header that TUN devices put before each (virtio 1.2, section 5.1.6).

use super::checksum;

/// Bytes of `struct virtio_net_hdr`, as TUN devices have it.
pub const HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const NONE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
/// With TCP: no segment but the first has CWR (RFC 3168).
const ECN: u8 = 0x80;

/// What is left to be done to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The checksum over all that follows `start` goes `offset` bytes behind it, where the sum of the pseudo-header is.
    pub checksum: Option<PartialChecksum>,
    /// It is to be cut.
    pub segmentation: Option<Segmentation>,
}

/// Where an unfinished checksum is, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialChecksum {
    /// From where it counts, from the beginning of the packet.
    pub start: u16,
    /// Where it is, from there.
    pub offset: u16,
}

/// How a packet is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// What it is.
    pub kind: Segmented,
    /// Bytes of data in each segment but the last.
    pub size: u16,
    /// Bytes of the headers that each segment gets.
    pub header_len: u16,
}

/// What can be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segmented {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either.
    Udp,
}

impl Offload {
    /// Reads the header; `None` for a kind of segmentation that was not asked for.
    pub fn parse(header: &[u8; HEADER_LEN]) -> Option<Self> {
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let kind = match header[1] & !ECN {
            NONE => None,
            TCP_V4 => Some(Segmented::TcpV4),
            TCP_V6 => Some(Segmented::TcpV6),
            UDP => Some(Segmented::Udp),
            _ => return None,
        };
        let segmentation = kind.map(|kind| Segmentation { kind, size: word(4), header_len: word(2) });
        let partial = header[0] & NEEDS_CHECKSUM != 0;
        let checksum = partial.then(|| PartialChecksum { start: word(6), offset: word(8) });
        Some(Self { checksum, segmentation })
    }

    /// Puts the checksum that was left to us into the packet.
    pub fn finish_checksum(&self, packet: &mut [u8]) {
        if let Some(PartialChecksum { start, offset }) = self.checksum
            && let Some(segment) = packet.get_mut(usize::from(start)..)
        {
            checksum::finish(segment, usize::from(offset));
        }
    }

    /// Writes the header.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        if let Some(Segmentation { kind, size, header_len }) = self.segmentation {
            header[1] = match kind {
                Segmented::TcpV4 => TCP_V4,
                Segmented::TcpV6 => TCP_V6,
                Segmented::Udp => UDP,
            };
            header[2..4].copy_from_slice(&header_len.to_ne_bytes());
            header[4..6].copy_from_slice(&size.to_ne_bytes());
        }
        if let Some(PartialChecksum { start, offset }) = self.checksum {
            header[0] = NEEDS_CHECKSUM;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        for segmentation in [Segmented::TcpV4, Segmented::TcpV6, Segmented::Udp]
            .map(|kind| Some(Segmentation { kind, size: 1400, header_len: 40 }))
            .into_iter()
            .chain([None])
        {
            for checksum in [checksum, None] {
                let offload = Offload { checksum, segmentation };
                assert_eq!(Offload::parse(&offload.to_bytes()), Some(offload));
            }
        }
        assert_eq!(Offload::default().to_bytes(), [0; HEADER_LEN]);
    }

    #[test]
    fn tcp_with_ecn_is_tcp_and_an_unknown_kind_is_refused() {
        let mut header = [0; HEADER_LEN];
        header[1] = ECN | TCP_V4;
        assert_eq!(Offload::parse(&header).unwrap().segmentation.unwrap().kind, Segmented::TcpV4);
        // Fragmentation of UDP, which nobody asked for.
        header[1] = 3;
        assert_eq!(Offload::parse(&header), None);
    }
}
