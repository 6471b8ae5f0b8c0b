//! Which policies a destination can meet, without a look at all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use crate::policy::Selector;

/// Lists may hold so many numbers for each policy before a search of all policies is better: ranges inside ranges inside
/// ranges, as nobody configures them, would need the square.
const NUMBERS_PER_POLICY: usize = 64;

/// For each address the numbers of the policies whose remote selectors hold it, in their order.
///
/// The ranges of all selectors cut the addresses of a family into pieces; within one piece the policies are the same. A
/// look-up is a binary search for the piece.
#[derive(Debug, Default)]
pub struct AddressIndex {
    v4: Pieces,
    v6: Pieces,
}

#[derive(Debug, Default)]
struct Pieces {
    /// First address of each piece, ascending.
    starts: Vec<u128>,
    /// Where its list lies.
    lists: Vec<Range<u32>>,
    numbers: Vec<u32>,
}

/// Where policies begin and end.
#[derive(Default)]
struct Edges {
    begin: Vec<u32>,
    end: Vec<u32>,
}

impl AddressIndex {
    /// An index of policies by their remote selectors; `None` if it would be too large.
    pub fn build<'a>(policies: impl Iterator<Item = (u32, &'a [Selector])> + Clone) -> Option<Self> {
        let of_family = |is_v4: bool| {
            let selectors = policies.clone().flat_map(|(number, selectors)| {
                selectors.iter().map(move |selector| (number, &selector.addresses))
            });
            let ranges = selectors
                .filter(|(_, addresses)| addresses.start().is_ipv4() == is_v4)
                .map(|(number, addresses)| (number, bits(*addresses.start()), bits(*addresses.end())));
            let limit = policies.clone().count() * NUMBERS_PER_POLICY + NUMBERS_PER_POLICY;
            Pieces::build(ranges, limit)
        };
        Some(Self { v4: of_family(true)?, v6: of_family(false)? })
    }

    /// The numbers of the policies that may take a packet to this address, ascending.
    pub fn candidates(&self, address: IpAddr) -> &[u32] {
        let pieces = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        pieces.find(bits(address))
    }
}

impl Pieces {
    fn build(ranges: impl Iterator<Item = (u32, u128, u128)>, limit: usize) -> Option<Self> {
        let mut edges: BTreeMap<u128, Edges> = BTreeMap::new();
        for (number, first, last) in ranges.filter(|(_, first, last)| first <= last) {
            edges.entry(first).or_default().begin.push(number);
            // Nothing comes behind the last address of all.
            if let Some(behind) = last.checked_add(1) {
                edges.entry(behind).or_default().end.push(number);
            }
        }
        let mut pieces = Self::default();
        // A policy may have several selectors that hold an address.
        let mut here: BTreeMap<u32, usize> = BTreeMap::new();
        for (start, Edges { begin, end }) in edges {
            begin.into_iter().for_each(|number| *here.entry(number).or_default() += 1);
            for number in end {
                if let Some(count) = here.get_mut(&number) {
                    *count -= 1;
                    if *count == 0 {
                        here.remove(&number);
                    }
                }
            }
            if pieces.numbers.len() + here.len() > limit {
                return None;
            }
            let before = u32::try_from(pieces.numbers.len()).ok()?;
            pieces.numbers.extend(here.keys());
            pieces.starts.push(start);
            pieces.lists.push(before..u32::try_from(pieces.numbers.len()).ok()?);
        }
        Some(pieces)
    }

    fn find(&self, address: u128) -> &[u32] {
        let behind = self.starts.partition_point(|start| *start <= address);
        let piece = behind.checked_sub(1).and_then(|piece| self.lists.get(piece));
        piece.and_then(|list| self.numbers.get(list.start as usize..list.end as usize)).unwrap_or_default()
    }
}

/// An address as a number; its family is not in it.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selector(first: IpAddr, last: IpAddr) -> Selector {
        Selector { addresses: first..=last, protocol: None, ports: 0..=u16::MAX }
    }

    fn index(policies: &[Vec<Selector>]) -> Option<AddressIndex> {
        AddressIndex::build((0..).zip(policies).map(|(number, selectors)| (number, selectors.as_slice())))
    }

    #[test]
    fn the_first_and_the_last_address_of_all_are_found() {
        for (first, last) in
            [("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
        {
            let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
            let index = index(&[vec![selector(first, last)]]).unwrap();
            assert_eq!((index.candidates(first), index.candidates(last)), (&[0][..], &[0][..]));
            let other: IpAddr = if first.is_ipv4() { "::1" } else { "10.0.0.1" }.parse().unwrap();
            assert!(index.candidates(other).is_empty());
        }
    }

    #[test]
    fn ten_thousand_sites_below_one_default_have_short_lists() {
        let site = |number: u32| {
            let first = (10 << 24) + number * 256;
            vec![selector(IpAddr::V4(first.into()), IpAddr::V4((first + 255).into()))]
        };
        let mut policies: Vec<_> = (0..10_000).map(site).collect();
        policies.push(vec![selector("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap())]);
        let index = index(&policies).unwrap();
        assert_eq!(index.candidates("10.0.5.77".parse().unwrap()), [5, 10_000]);
        assert_eq!(index.candidates("192.0.2.1".parse().unwrap()), [10_000]);
    }

    #[test]
    fn what_would_need_the_square_is_refused() {
        let nested: Vec<_> = (0..2000u32)
            .map(|n| vec![selector(IpAddr::V4(n.into()), IpAddr::V4((u32::MAX - n).into()))])
            .collect();
        assert!(index(&nested).is_none());
    }

    proptest! {
        #[test]
        fn candidates_are_those_of_a_search_of_all(
            ranges in proptest::collection::vec(proptest::collection::vec((0u8..40, 0u8..12, any::<bool>()), 0..4), 0..30),
            looked_for in proptest::collection::vec((0u8..60, any::<bool>()), 1..50),
        ) {
            let address = |last: u8, v6: bool| match v6 {
                true => IpAddr::from(u128::from(last).to_be_bytes()),
                false => IpAddr::from(u32::from(last).to_be_bytes()),
            };
            let policies: Vec<Vec<_>> = ranges
                .iter()
                .map(|list| list.iter().map(|(first, len, v6)| selector(address(*first, *v6), address(first + len, *v6))).collect())
                .collect();
            let Some(index) = index(&policies) else { return Err(TestCaseError::fail("small sets fit")) };
            for (last, v6) in looked_for {
                let address = address(last, v6);
                let all: Vec<u32> = (0..)
                    .zip(&policies)
                    .filter(|(_, selectors)| selectors.iter().any(|s| s.addresses.contains(&address)))
                    .map(|(number, _)| number)
                    .collect();
                prop_assert_eq!(index.candidates(address), all);
            }
        }
    }
}
