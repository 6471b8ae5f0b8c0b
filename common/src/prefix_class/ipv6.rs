//! Builds the IPv6 hash table and its list of lengths.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::vec::Vec;

use super::{Ipv6Lengths, Ipv6Prefix, MAX_IPV6_LENGTHS, NO_LENGTH, PrefixClass};

/// The classes of all IPv6 addresses.
pub struct Ipv6Classes {
    prefixes: BTreeMap<Ipv6Prefix, PrefixClass>,
    lengths: Ipv6Lengths,
}

impl Ipv6Classes {
    /// The classes that an ordered list of prefixes gives: the first that covers an address decides.
    ///
    /// The longest prefix of the list that an address lies in carries the class of the first entry that covers
    /// that prefix: the prefixes an address lies in are nested, so that entry is the first that covers the
    /// address, too. Where more than [`MAX_IPV6_LENGTHS`] lengths are in use, the longest are rounded down to
    /// one that remains, and everything under such a prefix goes to the worker.
    ///
    /// A length above 128 counts as 128; [`PrefixClass::Mixed`] counts as [`PrefixClass::Worker`].
    pub fn new(ordered: &[(Ipv6Addr, u8, PrefixClass)]) -> Self {
        let entries: Vec<_> =
            ordered.iter().map(|(a, length, class)| (*a, (*length).min(128), *class)).collect();
        let used: BTreeSet<u8> = entries.iter().map(|(_, length, _)| *length).collect();
        let kept: Vec<u8> = used.into_iter().take(MAX_IPV6_LENGTHS).collect();
        let longest = kept.last().copied().unwrap_or(0);

        let mut prefixes = BTreeMap::new();
        for (address, length, _) in entries.iter().filter(|(_, length, _)| *length <= longest) {
            let first = entries.iter().find(|(a, l, _)| l <= length && covers(*a, *l, *address));
            let class = match first {
                Some((_, _, PrefixClass::Mixed)) => PrefixClass::Worker,
                Some((_, _, class)) => *class,
                None => PrefixClass::None,
            };
            prefixes.insert(Ipv6Prefix::of(address.octets(), *length), class);
        }
        for (address, _, _) in entries.iter().filter(|(_, length, _)| *length > longest) {
            prefixes.insert(Ipv6Prefix::of(address.octets(), longest), PrefixClass::Worker);
        }

        let mut lengths = [NO_LENGTH; MAX_IPV6_LENGTHS];
        for (place, length) in lengths.iter_mut().zip(kept.into_iter().rev()) {
            *place = length;
        }
        Self { prefixes, lengths }
    }

    /// Every prefix with its class.
    pub fn prefixes(&self) -> &BTreeMap<Ipv6Prefix, PrefixClass> {
        &self.prefixes
    }

    /// The lengths in use.
    pub fn lengths(&self) -> &Ipv6Lengths {
        &self.lengths
    }

    /// The class of an address, as the program looks it up.
    pub fn class(&self, address: Ipv6Addr) -> PrefixClass {
        self.lengths
            .iter()
            .take_while(|length| **length != NO_LENGTH)
            .find_map(|length| self.prefixes.get(&Ipv6Prefix::of(address.octets(), *length)))
            .copied()
            .unwrap_or_default()
    }
}

fn covers(prefix: Ipv6Addr, length: u8, address: Ipv6Addr) -> bool {
    Ipv6Prefix::of(prefix.octets(), length) == Ipv6Prefix::of(address.octets(), length)
}
