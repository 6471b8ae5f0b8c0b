use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

#[test]
fn the_first_prefix_that_covers_an_address_decides() {
    let classes = Ipv4Classes::new(&[
        ("10.1.2.128".parse().unwrap(), 25, PrefixClass::Pass),
        ("10.1.0.0".parse().unwrap(), 16, PrefixClass::Worker),
        ("10.1.3.0".parse().unwrap(), 24, PrefixClass::Pass),
    ]);
    let class = |a: &str| classes.class(a.parse().unwrap());
    assert_eq!(class("10.1.2.127"), PrefixClass::Worker);
    assert_eq!(class("10.1.2.128"), PrefixClass::Pass);
    assert_eq!(class("10.1.3.1"), PrefixClass::Worker);
    assert_eq!(class("10.2.0.0"), PrefixClass::None);
    assert_eq!(classes.mixed().len(), 1);
}

#[test]
fn a_default_route_fills_the_array() {
    let classes = Ipv4Classes::new(&[(Ipv4Addr::UNSPECIFIED, 0, PrefixClass::Worker)]);
    assert!(classes.words().iter().all(|word| *word == 0x5555_5555_5555_5555));
    assert_eq!(classes.words().len(), IPV4_WORDS as usize);
}

#[test]
fn a_block_that_becomes_uniform_is_no_longer_mixed() {
    let [low, high] = ["10.0.0.0", "10.0.0.128"].map(|a| a.parse().unwrap());
    let classes = Ipv4Classes::new(&[(low, 25, PrefixClass::Worker), (high, 25, PrefixClass::Worker)]);
    assert!(classes.mixed().is_empty());
    assert_eq!(classes.class("10.0.0.200".parse().unwrap()), PrefixClass::Worker);
}

#[test]
fn more_ipv6_lengths_than_are_looked_up_end_at_the_worker() {
    let prefix = |length: u8| {
        let bits = u128::MAX << (128 - u32::from(length));
        (Ipv6Addr::from(bits), length, PrefixClass::Pass)
    };
    let ordered: Vec<_> = (1..=40).map(prefix).rev().collect();
    let classes = Ipv6Classes::new(&ordered);
    assert!(classes.lengths().iter().all(|length| *length != NO_LENGTH));
    for (address, length, class) in ordered {
        let rounded = usize::from(length) >= MAX_IPV6_LENGTHS;
        let expected = if rounded { PrefixClass::Worker } else { class };
        assert_eq!(classes.class(address), expected, "/{length}");
    }
    assert_eq!(classes.class(Ipv6Addr::LOCALHOST), PrefixClass::None);
}

#[test]
fn the_key_of_the_hash_table_has_no_padding() {
    assert_eq!((size_of::<Ipv6Prefix>(), align_of::<Ipv6Prefix>()), (24, 8));
}

/// Few distinct bits, so that prefixes nest and meet.
fn ipv4() -> impl Strategy<Value = Ipv4Addr> {
    (0..3u8, 0..3u8, any::<u8>()).prop_map(|(a, b, c)| Ipv4Addr::new(10, a, b, c))
}

fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    (0..3u16, 0..3u16, any::<u8>())
        .prop_map(|(a, b, c)| Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, 0, c.into()))
}

fn class() -> impl Strategy<Value = PrefixClass> {
    prop_oneof![Just(PrefixClass::None), Just(PrefixClass::Worker), Just(PrefixClass::Pass)]
}

/// What the classes are defined to be: a walk down the list.
fn naive(ordered: &[(u128, u8, PrefixClass)], width: u32, address: u128) -> PrefixClass {
    let same = |prefix: u128, length: u8| {
        let rest = width - u32::from(length);
        prefix.checked_shr(rest).unwrap_or(0) == address.checked_shr(rest).unwrap_or(0)
    };
    ordered.iter().find(|(p, length, _)| same(*p, *length)).map_or(PrefixClass::None, |(_, _, class)| *class)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ipv4_classes_are_those_of_the_ordered_list(
        ordered in proptest::collection::vec((ipv4(), 8..=32u8, class()), 0..12),
        addresses in proptest::collection::vec(ipv4(), 64),
    ) {
        let classes = Ipv4Classes::new(&ordered);
        let model: Vec<_> = ordered.iter().map(|(a, l, c)| (u128::from(u32::from(*a)), *l, *c)).collect();
        for address in addresses.into_iter().chain(ordered.iter().map(|(a, _, _)| *a)) {
            let expected = naive(&model, 32, u32::from(address).into());
            prop_assert_eq!(classes.class(address), expected, "{}", address);
        }
        for (prefix, block) in classes.mixed() {
            let first = block[0] & 3;
            let uniform = block.iter().all(|word| *word == u64::MAX / 3 * first);
            prop_assert!(!uniform, "{:x} is not mixed", prefix);
        }
    }

    #[test]
    fn ipv6_classes_are_those_of_the_ordered_list(
        ordered in proptest::collection::vec((ipv6(), 0..=128u8, class()), 0..12),
        addresses in proptest::collection::vec(ipv6(), 64),
    ) {
        let classes = Ipv6Classes::new(&ordered);
        let model: Vec<_> = ordered.iter().map(|(a, l, c)| (u128::from(*a), *l, *c)).collect();
        for address in addresses.into_iter().chain(ordered.iter().map(|(a, _, _)| *a)) {
            prop_assert_eq!(classes.class(address), naive(&model, 128, address.into()), "{}", address);
        }
    }
}
