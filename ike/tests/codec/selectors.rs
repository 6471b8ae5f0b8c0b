//! Traffic selectors: sets of packets, their notation, and what two sides make of them.

use crate::strategies::traffic_selector;
use portcullis_ike::codec::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

proptest! {
    #[test]
    fn notation_survives(selector in traffic_selector()) {
        prop_assert_eq!(selector.to_string().parse::<TrafficSelector>().unwrap(), selector);
    }

    /// A packet is in the intersection if and only if both select it.
    #[test]
    fn an_intersection_selects_what_both_select(
        a in traffic_selector(),
        b in traffic_selector(),
        packet in packet(),
    ) {
        let common = a.intersect(&b);
        prop_assert_eq!(common, b.intersect(&a));
        for (address, protocol, port) in [packet, edge(&a, packet), edge(&b, packet)] {
            let both = a.selects(address, protocol, port) && b.selects(address, protocol, port);
            prop_assert_eq!(common.is_some_and(|c| c.selects(address, protocol, port)), both);
        }
        if let Some(common) = common {
            prop_assert!(a.contains(&common) && b.contains(&common));
        }
    }

    #[test]
    fn what_contains_another_selects_its_packets(a in traffic_selector(), b in traffic_selector(), packet in packet()) {
        let (address, protocol, port) = edge(&b, packet);
        if a.contains(&b) && b.selects(address, protocol, port) {
            prop_assert!(a.selects(address, protocol, port));
        }
    }

    /// RFC 7296 section 2.9: the answer is a subset of the offer, within our policy, and loses nothing of either.
    #[test]
    fn narrowing_keeps_exactly_what_offer_and_policy_share(
        offered in vec(traffic_selector(), 1..5),
        policy in vec(traffic_selector(), 1..5),
        packet in packet(),
    ) {
        let narrowed = narrow(&offered, &policy);
        prop_assert!(covers(&offered, &narrowed) && covers(&policy, &narrowed));
        let selected = |set: &[TrafficSelector], (address, protocol, port)| {
            set.iter().any(|selector| selector.selects(address, protocol, port))
        };
        for packet in offered.iter().chain(&policy).map(|selector| edge(selector, packet)) {
            let both = selected(&offered, packet) && selected(&policy, packet);
            prop_assert_eq!(selected(&narrowed, packet), both);
        }
    }
}

/// The example of RFC 7296 section 2.9: the packet's own selectors first, then what the SA may carry.
#[test]
fn the_first_choice_of_the_initiator_is_in_the_answer() {
    let offered = selectors(&["198.51.100.43[tcp/1025]", "198.51.100.0/24"]);
    assert_eq!(narrow(&offered, &selectors(&["198.51.100.0/24"])), selectors(&["198.51.100.0/24"]));
    assert_eq!(
        narrow(&offered, &selectors(&["198.51.100.43"])),
        selectors(&["198.51.100.43"]),
        "narrower than offered, first choice included"
    );
    assert_eq!(narrow(&offered, &selectors(&["203.0.113.0/24"])), [], "TS_UNACCEPTABLE");
}

#[test]
fn each_family_is_narrowed_for_itself() {
    let offered = selectors(&["0.0.0.0/0", "::/0"]);
    let policy = selectors(&["2001:db8::/32", "10.0.0.0/8[udp/53]"]);
    assert_eq!(narrow(&offered, &policy), selectors(&["10.0.0.0/8[udp/53]", "2001:db8::/32"]));
}

#[test]
fn a_hostile_offer_does_not_grow_the_answer_beyond_its_limit() {
    let offered: Vec<_> = (0..=255).map(|i| TrafficSelector::host(IpAddr::from([10, 0, 0, i]))).collect();
    let narrowed = narrow(&offered, &selectors(&["10.0.0.0/8"]));
    assert_eq!(narrowed.len(), MAX_TRAFFIC_SELECTORS);
    assert!(covers(&offered, &narrowed));
}

/// RFC 7296 section 3.13.1: "ANY" includes "OPAQUE"; OPAQUE is not any port.
#[test]
fn any_ports_include_opaque_ones_and_no_others_do() {
    assert_eq!(PortRange::ANY.intersect(PortRange::OPAQUE), Some(PortRange::OPAQUE));
    assert_eq!(PortRange::OPAQUE.intersect(PortRange::single(80)), None);
    assert!(!PortRange::new(0, 65_534).unwrap().contains(PortRange::OPAQUE));
    assert_eq!(PortRange::new(80, 79), None);
    assert_eq!(PortRange::new(65_535, 0), Some(PortRange::OPAQUE));
}

#[test]
fn notation_is_strongswans() {
    let selector: TrafficSelector = "10.1.0.0/16[tcp/80]".parse().unwrap();
    assert_eq!((selector.protocol, selector.ports), (6, PortRange::single(80)));
    assert_eq!(selector.addresses.prefix(), Some((IpAddr::from([10, 1, 0, 0]), 16)));
    for (text, printed) in [
        ("10.0.0.1", "10.0.0.1/32"),
        ("::/0", "::/0"),
        ("0.0.0.0/0[gre]", "0.0.0.0/0[gre]"),
        ("0.0.0.0/0[47/any]", "0.0.0.0/0[gre]"),
        ("10.0.0.1-10.0.0.9[17/1000-2000]", "10.0.0.1-10.0.0.9[udp/1000-2000]"),
        ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
        ("10.0.0.0/8[tcp/opaque]", "10.0.0.0/8[tcp/opaque]"),
        ("10.0.0.0/8[any/53]", "10.0.0.0/8[any/53]"),
    ] {
        assert_eq!(text.parse::<TrafficSelector>().unwrap().to_string(), printed);
    }
}

#[test]
fn a_wrong_selector_says_what_is_wrong_with_it() {
    for (text, message) in [
        ("10.1.0/16", "`10.1.0` is no IP address"),
        ("10.1.0.0/33", "`33` is no prefix length of this address"),
        ("10.1.2.3/16", "bits after the prefix are set; write `10.1.0.0/16`"),
        ("10.0.0.9-10.0.0.1", "`10.0.0.9-10.0.0.1` mixes address families or ends before it starts"),
        ("10.0.0.1-::1", "`10.0.0.1-::1` mixes address families or ends before it starts"),
        ("::/0[tcp/99999]", "`99999` is no port, range of ports, any or opaque"),
        ("::/0[tcp/65535-0]", "`65535-0` is no port, range of ports, any or opaque"),
        ("::/0[tcp", "`::/0[tcp` does not end in `]`"),
    ] {
        assert_eq!(text.parse::<TrafficSelector>().unwrap_err().to_string(), message);
    }
    let error = "::/0[tpc]".parse::<TrafficSelector>().unwrap_err().to_string();
    assert!(error.starts_with("`tpc` is no protocol") && error.contains("tcp"));
}

type Packet = (IpAddr, u8, Option<u16>);

fn packet() -> impl Strategy<Value = Packet> {
    (any::<IpAddr>(), prop_oneof![Just(6), Just(17), any::<u8>()], any::<Option<u16>>())
}

/// A packet at the edge of a selector, or like `packet` where it leaves a choice.
fn edge(selector: &TrafficSelector, (_, protocol, port): Packet) -> Packet {
    let protocol = if selector.protocol == 0 { protocol } else { selector.protocol };
    let port = match selector.ports {
        ports if ports.is_any() => port,
        ports if ports.is_opaque() => None,
        ports => Some(ports.end()),
    };
    (selector.addresses.start(), protocol, port)
}

fn selectors(texts: &[&str]) -> Vec<TrafficSelector> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
