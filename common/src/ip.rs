//! IPv4 with options (RFC 791) and IPv6 with extension headers (RFC 8200), as far as steering needs them.

use crate::bytes::{Bytes, Malformed};
use crate::ethernet::Network;

/// IPv6 extension headers that are followed; the kernel gets a packet with more.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// A destination address, in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl Address {
    /// True if no router forwards packets to it: multicast, limited broadcast, IPv6 link-local.
    #[inline(always)]
    pub fn stays_on_link(&self) -> bool {
        match self {
            Self::V4(a) => a[0] & 0xf0 == 0xe0 || *a == [0xff; 4],
            Self::V6(a) => a[0] == 0xff || (a[0] == 0xfe && a[1] & 0xc0 == 0x80),
        }
    }
}

/// A source address: of either family two words that have a value, which verifiers ask for.
///
/// IPv4 is an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2). The words are in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct Source {
    /// The first eight octets.
    pub upper: u64,
    /// The last eight octets.
    pub lower: u64,
}

impl Source {
    const MAPPED: u64 = 0xffff;

    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { upper: 0, lower: (Self::MAPPED << 32 | u32::from_be_bytes(octets) as u64).to_be() }
    }

    /// An IPv6 address.
    #[inline(always)]
    pub const fn v6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> Self {
        Self {
            upper: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            lower: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// True for an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.upper == 0 && u64::from_be(self.lower) >> 32 == Self::MAPPED
    }
}

/// What steering needs of an IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Where it goes to.
    pub destination: Address,
    /// Offset of this header in the frame.
    pub offset: usize,
    /// Length of the fixed header and, in IPv4, its options.
    header_len: usize,
    /// Offset of the end of the packet in the frame; padding may follow.
    pub end: usize,
    /// IPv4: protocol. IPv6: next header of the fixed header.
    first_protocol: u8,
    /// IPv4: a fragment. IPv6 says so in an extension header.
    fragment_v4: bool,
}

/// The upper layer of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upper {
    /// This protocol, its header at this offset in the frame.
    Whole(u8, usize),
    /// A fragment, the first included.
    Fragment,
    /// Behind more extension headers than we follow.
    Deep,
}

/// Reads the fixed IP header, and checks that the frame holds the packet; `None` for another network layer.
///
/// # Errors
/// [`Malformed::Ipv4`] or [`Malformed::Ipv6`].
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(frame: &B, network: Network) -> Result<Option<Ip>, Malformed> {
    match network {
        Network::Ipv4(offset) => parse_v4(frame, offset).map(Some),
        Network::Ipv6(offset) => parse_v6(frame, offset).map(Some),
        Network::Other => Ok(None),
    }
}

#[inline(always)]
fn parse_v4<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Result<Ip, Malformed> {
    let header: [u8; 20] = frame.read(offset).ok_or(Malformed::Ipv4)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len || !frame.holds(offset + total_len) {
        return Err(Malformed::Ipv4);
    }
    // More fragments, or an offset.
    let fragment_v4 = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    Ok(Ip {
        destination: Address::V4([header[16], header[17], header[18], header[19]]),
        offset,
        header_len,
        end: offset + total_len,
        first_protocol: header[9],
        fragment_v4,
    })
}

#[inline(always)]
fn parse_v6<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Result<Ip, Malformed> {
    let header: [u8; 8] = frame.read(offset).ok_or(Malformed::Ipv6)?;
    let destination = frame.read(offset + 24).ok_or(Malformed::Ipv6)?;
    // A jumbogram says 0 (RFC 2675 section 3) and has only its extension headers here: no ESP is found in it.
    let total_len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || !frame.holds(offset + total_len) {
        return Err(Malformed::Ipv6);
    }
    Ok(Ip {
        destination: Address::V6(destination),
        offset,
        header_len: 40,
        end: offset + total_len,
        first_protocol: header[6],
        fragment_v4: false,
    })
}

impl Ip {
    /// Where it says it comes from; `None` for no packet that was parsed.
    #[inline(always)]
    pub fn source<B: Bytes + ?Sized>(&self, frame: &B) -> Option<Source> {
        match self.destination {
            Address::V4(_) => frame.read(self.offset + 12).map(Source::v4),
            Address::V6(_) => frame.read(self.offset + 8).map(Source::v6),
        }
    }

    /// Finds the upper layer.
    ///
    /// # Errors
    /// [`Malformed::ExtensionHeader`] if one reaches past the end of the packet.
    #[inline(always)]
    pub fn upper<B: Bytes + ?Sized>(&self, frame: &B) -> Result<Upper, Malformed> {
        if self.fragment_v4 {
            return Ok(Upper::Fragment);
        }
        let mut protocol = self.first_protocol;
        let mut offset = self.offset + self.header_len;
        if matches!(self.destination, Address::V4(_)) {
            return Ok(Upper::Whole(protocol, offset));
        }
        for _ in 0..MAX_EXTENSION_HEADERS {
            let len_of_unit = match protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => 8,
                protocol::FRAGMENT => return Ok(Upper::Fragment),
                _ => return Ok(Upper::Whole(protocol, offset)),
            };
            let [next, units]: [u8; 2] = frame.read(offset).ok_or(Malformed::ExtensionHeader)?;
            offset += (usize::from(units) + 1) * len_of_unit;
            if offset > self.end {
                return Err(Malformed::ExtensionHeader);
            }
            protocol = next;
        }
        Ok(Upper::Deep)
    }
}
