use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::PolicyKey;

const WIDE_V4: &str = "0.0.0.0-255.255.255.255";

/// RFC 4301 section 4.4.1: the first policy that matches decides.
#[test]
fn an_earlier_bypass_inside_a_protected_range_passes() {
    let set = set(vec![bypass(WIDE_V4, "10.2.3.0-10.2.3.255"), protect("10.2.0.0-10.2.255.255", None)]);
    assert_eq!(class(&set, "10.2.3.4"), PrefixClass::Pass);
    assert_eq!(class(&set, "10.2.4.4"), PrefixClass::Worker);
    assert_eq!(class(&set, "10.3.0.1"), PrefixClass::None);
}

#[test]
fn a_bypass_that_some_packets_miss_goes_to_the_worker() {
    let mut ports = bypass(WIDE_V4, "10.2.3.0-10.2.3.255");
    ports.remote[0].ports = 53..=53;
    let source = bypass("10.1.0.0-10.1.255.255", "10.2.4.0-10.2.4.255");
    let set = set(vec![ports, source]);
    assert_eq!(class(&set, "10.2.3.4"), PrefixClass::Worker);
    assert_eq!(class(&set, "10.2.4.4"), PrefixClass::Worker);
}

#[test]
fn a_discard_is_counted_by_the_worker() {
    let mut discard = bypass(WIDE_V4, "10.2.3.0-10.2.3.255");
    discard.disposition = Disposition::Discard;
    assert_eq!(class(&set(vec![discard]), "10.2.3.4"), PrefixClass::Worker);
}

#[test]
fn route_based_selectors_cover_nothing_but_their_guarded_prefixes() {
    let mut set = set(vec![protect(WIDE_V4, Some("vti0"))]);
    set.guard_prefixes = vec![("10.9.0.0".parse().unwrap(), 16), ("2001:db8::".parse().unwrap(), 32)];
    assert_eq!(class(&set, "10.2.3.4"), PrefixClass::None);
    assert_eq!(class(&set, "10.9.1.1"), PrefixClass::Pass);
    assert_eq!(class(&set, "2001:db8::1"), PrefixClass::Pass);
}

#[test]
fn ipv6_destinations_have_classes_of_their_own() {
    let set = set(vec![protect("2001:db8:2::-2001:db8:2:ffff:ffff:ffff:ffff:ffff", None)]);
    assert_eq!(class(&set, "2001:db8:2::1"), PrefixClass::Worker);
    assert_eq!(class(&set, "2001:db8:3::1"), PrefixClass::None);
}

#[test]
fn whole_address_spaces_are_one_prefix() {
    assert_eq!(cover(0, u128::from(u32::MAX), 32).collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!(cover(0, u128::MAX, 128).collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!(cover(u128::MAX, u128::MAX, 128).collect::<Vec<_>>(), [(u128::MAX, 128)]);
    assert_eq!(cover(2, 1, 32).count(), 0);
}

proptest! {
    #[test]
    fn prefixes_make_up_exactly_their_range(a in any::<u32>(), b in any::<u32>()) {
        let (first, last) = (u128::from(a.min(b)), u128::from(a.max(b)));
        let mut next = first;
        for (address, length) in cover(first, last, 32) {
            prop_assert_eq!(address, next);
            let size = 1u128 << (32 - u32::from(length));
            prop_assert_eq!(address % size, 0);
            next += size;
        }
        prop_assert_eq!(next, last + 1);
    }
}

fn class(set: &PolicySet, destination: &str) -> PrefixClass {
    LanClasses::new(set).class(destination.parse().unwrap())
}

fn set(policies: Vec<Policy>) -> PolicySet {
    PolicySet { policies, ..PolicySet::default() }
}

fn bypass(local: &str, remote: &str) -> Policy {
    Policy { local: vec![selector(local)], remote: vec![selector(remote)], disposition: Disposition::Bypass }
}

fn protect(remote: &str, interface: Option<&str>) -> Policy {
    let key = PolicyKey { connection: "c".into(), child: "net".into() };
    let disposition = Disposition::Protect { key, acquire: false, interface: interface.map(Arc::from) };
    Policy { disposition, ..bypass(WIDE_V4, remote) }
}

fn selector(range: &str) -> Selector {
    let (first, last) = range.split_once('-').unwrap();
    Selector {
        addresses: first.parse().unwrap()..=last.parse().unwrap(),
        protocol: None,
        ports: 0..=u16::MAX,
    }
}
