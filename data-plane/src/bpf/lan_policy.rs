//! From the ordered SPD to the classes of destinations that the LAN program pre-filters by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use portcullis_common::prefix_class::{Ipv4Classes, Ipv6Classes, PrefixClass};

use crate::policy::{Disposition, Policy, PolicySet, Selector};

/// The classes of all destinations.
pub struct LanClasses {
    pub(super) ipv4: Ipv4Classes,
    pub(super) ipv6: Ipv6Classes,
}

impl LanClasses {
    /// The classes for a set of policies.
    pub fn new(set: &PolicySet) -> Self {
        let mut ipv4 = Vec::new();
        let mut ipv6 = Vec::new();
        for (address, length, class) in destinations(set) {
            match address {
                IpAddr::V4(a) => ipv4.push((a, length, class)),
                IpAddr::V6(a) => ipv6.push((a, length, class)),
            }
        }
        Self { ipv4: Ipv4Classes::new(&ipv4), ipv6: Ipv6Classes::new(&ipv6) }
    }

    /// The class of a destination.
    pub fn class(&self, destination: IpAddr) -> PrefixClass {
        match destination {
            IpAddr::V4(a) => self.ipv4.class(a),
            IpAddr::V6(a) => self.ipv6.class(a),
        }
    }
}

/// The classes that a set of policies gives to destinations, in order: the first that covers one decides.
///
/// A destination belongs to the first policy that can match a packet to it. Only where that is a BYPASS of
/// every packet to it, whatever the source, protocol and ports, may the kernel or the program decide; else a worker does.
/// Prefixes that the kernel routes into the TUN of a route-based connection pass into the kernel.
pub fn destinations(set: &PolicySet) -> Vec<(IpAddr, u8, PrefixClass)> {
    let mut listed = Vec::new();
    for policy in &set.policies {
        let Some(coverage) = coverage(policy) else { continue };
        for remote in &policy.remote {
            let class = coverage.of(remote);
            match (remote.addresses.start(), remote.addresses.end()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    listed.extend(cover_v4(*first..=*last).map(|(a, length)| (a.into(), length, class)));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    listed.extend(cover_v6(*first..=*last).map(|(a, length)| (a.into(), length, class)));
                }
                // A range of two families is none.
                _ => {}
            }
        }
    }
    let guarded = set.guard_prefixes.iter();
    listed.extend(guarded.map(|&(address, length)| (address, length, PrefixClass::Pass)));
    listed
}

/// What a policy means to destinations it covers.
#[derive(Clone, Copy)]
enum Coverage {
    Worker,
    /// A BYPASS for every source.
    Bypass,
}

impl Coverage {
    fn of(self, remote: &Selector) -> PrefixClass {
        match self {
            Self::Bypass if takes_everything(remote) => PrefixClass::Pass,
            _ => PrefixClass::Worker,
        }
    }
}

fn coverage(policy: &Policy) -> Option<Coverage> {
    match &policy.disposition {
        // The kernel's routes, not selectors, decide what enters its TUN.
        Disposition::Protect { interface: Some(_), .. } => None,
        Disposition::Bypass if policy.local.iter().any(is_any) => Some(Coverage::Bypass),
        _ => Some(Coverage::Worker),
    }
}

fn takes_everything(selector: &Selector) -> bool {
    selector.protocol.is_none() && selector.ports == (0..=u16::MAX)
}

/// A selector of every address of its family. With both families in a policy, the one of the destination is
/// the only one that can match.
fn is_any(selector: &Selector) -> bool {
    let all = match (selector.addresses.start(), selector.addresses.end()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => first.is_unspecified() && *last == Ipv4Addr::BROADCAST,
        (IpAddr::V6(first), IpAddr::V6(last)) => first.is_unspecified() && u128::from(*last) == u128::MAX,
        _ => false,
    };
    all && takes_everything(selector)
}

fn cover_v4(range: RangeInclusive<Ipv4Addr>) -> impl Iterator<Item = (Ipv4Addr, u8)> {
    let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
    cover(first.into(), last.into(), 32).map(|(address, length)| (Ipv4Addr::from(address as u32), length))
}

fn cover_v6(range: RangeInclusive<Ipv6Addr>) -> impl Iterator<Item = (Ipv6Addr, u8)> {
    let (first, last) = (u128::from(*range.start()), u128::from(*range.end()));
    cover(first, last, 128).map(|(address, length)| (Ipv6Addr::from(address), length))
}

/// The fewest prefixes that make up a range, in ascending order; none if it is empty.
fn cover(first: u128, last: u128, width: u32) -> impl Iterator<Item = (u128, u8)> {
    let mut next = (first <= last).then_some(first);
    std::iter::from_fn(move || {
        let first = next?;
        let aligned = first.trailing_zeros().min(width);
        // The largest block that starts here and ends within the range.
        let host_bits = (0..=aligned).rev().find(|bits| last - first >= size_minus_one(*bits))?;
        let end = first + size_minus_one(host_bits);
        next = end.checked_add(1).filter(|_| end < last);
        Some((first, (width - host_bits) as u8))
    })
}

/// Addresses in a block with so many host bits, less one.
fn size_minus_one(host_bits: u32) -> u128 {
    if host_bits == 0 { 0 } else { u128::MAX >> (128 - host_bits) }
}

#[cfg(test)]
mod tests;
