//! Ranges of addresses and ports, and the prefixes that a kernel selector can hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// An address range of one family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "(IpAddr, IpAddr)", try_from = "(IpAddr, IpAddr)")]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An address prefix; bits behind `length` are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// First address.
    pub address: IpAddr,
    /// Length in bits.
    pub length: u8,
}

/// A range of ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// Ports as a kernel selector holds them: those equal to `value` under `mask`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMask {
    /// The bits compared.
    pub value: u16,
    /// Which bits are compared; 0 is any port.
    pub mask: u16,
}

/// The two ends of a range are not of one family, or in the wrong order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an address range: {first} to {last}")]
pub struct NotARange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// From `first` to `last`, both included.
    ///
    /// # Errors
    /// When the families differ or `last` is before `first`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, NotARange> {
        let range = Self { family: Family::of(first), first: number(first), last: number(last) };
        if Family::of(first) == Family::of(last) && range.first <= range.last {
            Ok(range)
        } else {
            Err(NotARange { first, last })
        }
    }

    /// One address.
    pub const fn single(address: IpAddr) -> Self {
        Self { family: Family::of(address), first: number(address), last: number(address) }
    }

    /// The prefix of `length` bits that holds `address`; longer than the address counts as one address.
    pub const fn prefix(address: IpAddr, length: u8) -> Self {
        let family = Family::of(address);
        let host = host_mask(family.bits().saturating_sub(length));
        Self { family, first: number(address) & !host, last: number(address) | host }
    }

    /// Every address of a family.
    pub const fn all(family: Family) -> Self {
        Self { family, first: 0, last: host_mask(family.bits()) }
    }

    /// Its family.
    pub const fn family(self) -> Family {
        self.family
    }

    /// First address.
    pub fn first(self) -> IpAddr {
        self.family.address(self.first)
    }

    /// Last address.
    pub fn last(self) -> IpAddr {
        self.family.address(self.last)
    }

    /// What both hold.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.family == other.family && first <= last).then_some(Self { family: self.family, first, last })
    }

    /// The fewest prefixes that hold exactly this range, in order.
    pub fn prefixes(self) -> Vec<Prefix> {
        let bits = self.family.bits();
        let mut prefixes = Vec::new();
        let mut next = self.first;
        loop {
            // The largest block that starts here: bounded by alignment and by what is left.
            let mut host_bits = (next.trailing_zeros() as u8).min(bits);
            while next | host_mask(host_bits) > self.last {
                host_bits -= 1;
            }
            prefixes.push(Prefix { address: self.family.address(next), length: bits - host_bits });
            let end = next | host_mask(host_bits);
            if end == self.last {
                return prefixes;
            }
            next = end + 1;
        }
    }
}

impl From<AddressRange> for (IpAddr, IpAddr) {
    fn from(range: AddressRange) -> Self {
        (range.first(), range.last())
    }
}

impl TryFrom<(IpAddr, IpAddr)> for AddressRange {
    type Error = NotARange;

    fn try_from((first, last): (IpAddr, IpAddr)) -> Result<Self, NotARange> {
        Self::new(first, last)
    }
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl PortRange {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether every port is in it.
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// What both hold.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// The fewest value and mask pairs that hold exactly this range, in order.
    pub fn masks(self) -> Vec<PortMask> {
        let mut masks = Vec::new();
        let (mut next, last) = (u32::from(self.first), u32::from(self.last));
        while next <= last {
            let mut host_bits = next.trailing_zeros().min(16);
            while next + (1 << host_bits) - 1 > last {
                host_bits -= 1;
            }
            masks.push(PortMask { value: next as u16, mask: (0xffff_u32 << host_bits) as u16 });
            next += 1 << host_bits;
        }
        masks
    }
}

impl From<&RangeInclusive<u16>> for PortRange {
    fn from(range: &RangeInclusive<u16>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }
}

const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits() as u128,
        IpAddr::V6(a) => a.to_bits(),
    }
}

const fn host_mask(host_bits: u8) -> u128 {
    if host_bits >= 128 { u128::MAX } else { (1 << host_bits) - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_that_is_a_prefix_is_one_prefix() {
        assert_eq!(texts(range("10.1.0.0", "10.1.255.255")), ["10.1.0.0/16"]);
        assert_eq!(texts(range("0.0.0.0", "255.255.255.255")), ["0.0.0.0/0"]);
        assert_eq!(texts(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), ["::/0"]);
        assert_eq!(texts(range("2001:db8::7", "2001:db8::7")), ["2001:db8::7/128"]);
    }

    #[test]
    fn an_unaligned_range_is_the_fewest_prefixes() {
        let prefixes = texts(range("10.0.0.1", "10.0.0.6"));
        assert_eq!(prefixes, ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]);
        assert_eq!(range("0.0.0.1", "255.255.255.255").prefixes().len(), 32);
    }

    #[test]
    fn a_range_across_families_or_backwards_is_refused() {
        assert!(AddressRange::new("10.0.0.1".parse().unwrap(), "::1".parse().unwrap()).is_err());
        assert!(AddressRange::new("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn ports_become_masks() {
        assert_eq!(PortRange::ANY.masks(), [PortMask { value: 0, mask: 0 }]);
        assert_eq!(PortRange::single(500).masks(), [PortMask { value: 500, mask: 0xffff }]);
        let masks = PortRange { first: 1024, last: 65535 }.masks();
        assert_eq!(masks.len(), 6);
    }

    proptest! {
        #[test]
        fn prefixes_hold_the_range_and_nothing_else(a: u32, b: u32, probe: u32) {
            let (first, last) = (a.min(b), a.max(b));
            let range = AddressRange::new(v4(first), v4(last)).unwrap();
            let holders =
                range.prefixes().iter().filter(|p| AddressRange::prefix(p.address, p.length).holds(probe)).count();
            prop_assert_eq!(holders, usize::from((first..=last).contains(&probe)));
        }

        #[test]
        fn masks_hold_the_ports_and_nothing_else(a: u16, b: u16, probe: u16) {
            let range = PortRange { first: a.min(b), last: a.max(b) };
            let holders = range.masks().iter().filter(|m| probe & m.mask == m.value).count();
            prop_assert_eq!(holders, usize::from((range.first..=range.last).contains(&probe)));
        }
    }

    impl AddressRange {
        fn holds(self, probe: u32) -> bool {
            (self.first..=self.last).contains(&u128::from(probe))
        }
    }

    fn range(first: &str, last: &str) -> AddressRange {
        AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    fn texts(range: AddressRange) -> Vec<String> {
        range.prefixes().iter().map(|p| format!("{}/{}", p.address, p.length)).collect()
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }
}
