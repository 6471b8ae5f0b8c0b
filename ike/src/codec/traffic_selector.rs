//! Traffic selectors: address range, protocol, ports (RFC 7296 section 3.13.1, RFC 4301 section 4.4.1.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses, protocol and ports of one side of a Child SA. [`FromStr`](core::str::FromStr) and
/// [`Display`](core::fmt::Display) use strongSwan's notation, `10.1.0.0/16[tcp/80]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TrafficSelector {
    /// IP protocol; 0 is any.
    pub protocol: u8,
    /// Ports, or ICMP type and code.
    pub ports: PortRange,
    /// Addresses.
    pub addresses: AddressRange,
}

/// First and last address, of one family, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    start: IpAddr,
    end: IpAddr,
}

/// Ports, ICMP type and code (type in the upper octet), or MIPv6 MH type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortRange {
    start: u16,
    end: u16,
}

impl TrafficSelector {
    /// All protocols and ports of an address range.
    pub const fn any_protocol(addresses: AddressRange) -> Self {
        Self { protocol: 0, ports: PortRange::ANY, addresses }
    }

    /// All protocols and ports of a prefix, or `None` if its length is too long or bits after it are set.
    pub fn from_prefix(address: IpAddr, len: u8) -> Option<Self> {
        AddressRange::from_prefix(address, len).map(Self::any_protocol)
    }

    /// All protocols and ports of one address.
    pub const fn host(address: IpAddr) -> Self {
        Self::any_protocol(AddressRange { start: address, end: address })
    }

    /// Everything that `other` selects is selected by this one too.
    pub fn contains(&self, other: &Self) -> bool {
        (self.protocol == 0 || self.protocol == other.protocol)
            && self.ports.contains(other.ports)
            && self.addresses.contains(&other.addresses)
    }

    /// What both select, or `None` if there is nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (a, b) if a == b => a,
            _ => return None,
        };
        let ports = self.ports.intersect(other.ports)?;
        let addresses = self.addresses.intersect(&other.addresses)?;
        Some(Self { protocol, ports, addresses })
    }

    /// A packet with these values is selected; `port` is `None` where the packet has none or does not show it, which
    /// only ANY and OPAQUE select.
    pub fn selects(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        (self.protocol == 0 || self.protocol == protocol)
            && self.addresses.contains_address(address)
            && port
                .map_or(self.ports.is_any() || self.ports.is_opaque(), |port| self.ports.contains_port(port))
    }
}

impl AddressRange {
    /// A range, or `None` if the families differ or it ends before it starts.
    pub fn new(start: IpAddr, end: IpAddr) -> Option<Self> {
        (start.is_ipv4() == end.is_ipv4() && start <= end).then_some(Self { start, end })
    }

    /// A prefix, or `None` if its length is too long or bits after it are set.
    pub fn from_prefix(address: IpAddr, len: u8) -> Option<Self> {
        let end = match address {
            IpAddr::V4(address) => {
                let mask = host_mask(len, 32)? as u32;
                let bits = address.to_bits();
                (bits & mask == 0).then(|| IpAddr::from(Ipv4Addr::from_bits(bits | mask)))
            }
            IpAddr::V6(address) => {
                let mask = host_mask(len, 128)?;
                let bits = address.to_bits();
                (bits & mask == 0).then(|| IpAddr::from(Ipv6Addr::from_bits(bits | mask)))
            }
        }?;
        Some(Self { start: address, end })
    }

    /// The address is in it.
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    /// First address.
    pub const fn start(&self) -> IpAddr {
        self.start
    }

    /// Last address.
    pub const fn end(&self) -> IpAddr {
        self.end
    }

    /// The range as a prefix, if it is one.
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        let (start, end, width) = match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => (start.to_bits().into(), end.to_bits().into(), 32),
            (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits(), end.to_bits(), 128_u8),
            _ => return None,
        };
        let differing: u128 = start ^ end;
        let host_bits = 128 - differing.leading_zeros() as u8;
        let len = width.checked_sub(host_bits)?;
        let mask = host_mask(len, width)?;
        (differing == mask && start & mask == 0).then_some((self.start, len))
    }

    /// `address` lies within.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    /// All of `other` lies within.
    pub fn contains(&self, other: &Self) -> bool {
        self.contains_address(other.start) && self.contains_address(other.end)
    }

    /// What both have in common.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}

impl PortRange {
    /// All ports, and packets without any: ANY includes OPAQUE (RFC 7296 section 3.13.1).
    pub const ANY: Self = Self { start: 0, end: u16::MAX };
    /// Only packets whose ports cannot be seen (RFC 7296 section 3.13.1).
    pub const OPAQUE: Self = Self { start: u16::MAX, end: 0 };

    /// A range, or `None` if it ends before it starts; [`PortRange::OPAQUE`] is written that way round.
    pub const fn new(start: u16, end: u16) -> Option<Self> {
        if start <= end || (start == u16::MAX && end == 0) { Some(Self { start, end }) } else { None }
    }

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { start: port, end: port }
    }

    /// Start Port as on the wire.
    pub const fn start(self) -> u16 {
        self.start
    }

    /// End Port as on the wire.
    pub const fn end(self) -> u16 {
        self.end
    }

    /// ANY.
    pub const fn is_any(self) -> bool {
        self.start == 0 && self.end == u16::MAX
    }

    /// OPAQUE.
    pub const fn is_opaque(self) -> bool {
        self.start > self.end
    }

    /// `port` lies within.
    pub const fn contains_port(self, port: u16) -> bool {
        self.start <= port && port <= self.end
    }

    /// All of `other` lies within.
    pub const fn contains(self, other: Self) -> bool {
        self.is_any()
            || (self.is_opaque() && other.is_opaque())
            || (!self.is_opaque() && !other.is_opaque() && self.start <= other.start && other.end <= self.end)
    }

    /// What both have in common.
    pub fn intersect(self, other: Self) -> Option<Self> {
        if self.contains(other) {
            return Some(other);
        }
        if other.contains(self) {
            return Some(self);
        }
        if self.is_opaque() || other.is_opaque() {
            return None;
        }
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(Self { start, end })
    }
}

/// The low bits of an address that a prefix of `len` leaves free.
fn host_mask(len: u8, width: u8) -> Option<u128> {
    let host_bits = u32::from(width.checked_sub(len)?);
    Some(1_u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1))
}
