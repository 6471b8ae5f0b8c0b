use std::ops::RangeInclusive;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};

#[test]
fn protected_traffic_is_blocked_out_in_and_forwarded() {
    let policies = desired(&spec([protect("10.1.0.0/16", "10.2.0.0/16")]));
    let out = Packet::new("10.1.0.5", "10.2.0.7");
    assert_eq!(verdict(&policies, Direction::Out, &out), Some(Action::Block));
    assert_eq!(verdict(&policies, Direction::In, &out.reversed()), Some(Action::Block));
    assert_eq!(verdict(&policies, Direction::Forward, &out.reversed()), Some(Action::Block));
    assert_eq!(policies.len(), 3);
}

#[test]
fn traffic_from_the_lan_into_the_tun_is_not_stopped_by_a_forward_policy() {
    let policies = desired(&spec([protect("10.1.0.0/16", "10.2.0.0/16")]));
    assert_eq!(verdict(&policies, Direction::Forward, &Packet::new("10.1.0.5", "10.2.0.7")), None);
}

#[test]
fn a_range_is_blocked_as_its_prefixes() {
    let local = selector("10.1.0.0", "10.1.0.255");
    let remote = selector("10.2.0.1", "10.2.0.6");
    let policies = desired(&spec([policy(protect_disposition(None), local, remote)]));
    assert_eq!(policies.len(), 4 * 3);
    for (last, expected) in [(0, None), (1, Some(Action::Block)), (6, Some(Action::Block)), (7, None)] {
        let packet = Packet::new("10.1.0.9", &format!("10.2.0.{last}"));
        assert_eq!(verdict(&policies, Direction::Out, &packet), expected, "{last}");
    }
}

#[test]
fn the_first_rule_decides_between_bypass_and_protect() {
    let narrow = || bypass("10.1.0.0/16", "10.2.9.0/24");
    let wide = || protect("10.1.0.0/16", "10.2.0.0/16");
    let packet = Packet::new("10.1.0.5", "10.2.9.1");
    let first = desired(&spec([narrow(), wide()]));
    let last = desired(&spec([wide(), narrow()]));
    for (direction, packet) in [
        (Direction::Out, packet),
        (Direction::In, packet.reversed()),
        (Direction::Forward, packet.reversed()),
    ] {
        assert_eq!(verdict(&first, direction, &packet), Some(Action::Allow));
        assert_eq!(verdict(&last, direction, &packet), Some(Action::Block));
    }
}

#[test]
fn a_discard_before_a_bypass_keeps_its_hole_shut_and_one_beside_all_protection_does_nothing() {
    let discard = |remote| policy(Disposition::Discard, net("10.1.0.0/16"), net(remote));
    let rules = [
        discard("10.2.9.0/28"),
        bypass("10.1.0.0/16", "10.2.9.0/24"),
        protect("10.1.0.0/16", "10.2.0.0/16"),
        policy(Disposition::Discard, net("0.0.0.0/0"), net("0.0.0.0/0")),
    ];
    let policies = desired(&spec(rules));
    let out = |to| verdict(&policies, Direction::Out, &Packet::new("10.1.0.5", to));
    assert_eq!(out("10.2.9.1"), Some(Action::Block));
    assert_eq!(out("10.2.9.77"), Some(Action::Allow));
    assert_eq!(out("192.0.2.1"), None);
}

#[test]
fn a_bypass_outside_all_protection_adds_no_kernel_policy() {
    assert!(desired(&spec([bypass("10.1.0.0/16", "0.0.0.0/0")])).is_empty());
}

#[test]
fn ike_and_esp_pass_between_this_host_and_a_peer_inside_a_protected_prefix() {
    let mut spec = spec([protect("0.0.0.0/0", "0.0.0.0/0")]);
    spec.local_addresses = [address("192.0.2.1")].into();
    spec.peers = [Some(address("198.51.100.2"))].into();
    let policies = desired(&spec);
    let packet = Packet::new("192.0.2.1", "198.51.100.2");
    for packet in [
        packet.with(UDP, 500, 500),
        packet.with(UDP, 4500, 61_000),
        packet.with(TCP, 50_000, 4500),
        packet.with(TCP, 4500, 50_000),
        packet.with(ESP, 0, 0),
    ] {
        assert_eq!(verdict(&policies, Direction::Out, &packet), Some(Action::Allow), "{packet:?}");
        assert_eq!(verdict(&policies, Direction::In, &packet.reversed()), Some(Action::Allow), "{packet:?}");
        assert_eq!(
            verdict(&policies, Direction::Forward, &packet.reversed()),
            Some(Action::Block),
            "{packet:?}"
        );
    }
    assert_eq!(verdict(&policies, Direction::Out, &packet.with(TCP, 50_000, 443)), Some(Action::Block));
    let other = Packet::new("192.0.2.1", "198.51.100.3").with(UDP, 500, 500);
    assert_eq!(verdict(&policies, Direction::Out, &other), Some(Action::Block));
}

/// The kernel looks `out` policies up for forwarded packets too.
#[test]
fn an_inner_packet_on_an_ike_port_is_no_ike_even_where_the_peer_may_be_anybody() {
    let mut spec = spec([protect("10.1.0.0/16", "10.2.0.0/16")]);
    spec.local_addresses = [address("192.0.2.1"), address("10.1.0.1")].into();
    spec.peers = [None].into();
    let policies = desired(&spec);
    for (protocol, port) in [(UDP, 500), (UDP, 4500), (TCP, 4500), (ESP, 0)] {
        let inner = Packet::new("10.1.0.5", "10.2.0.7").with(protocol, port, port);
        assert_eq!(verdict(&policies, Direction::Out, &inner), Some(Action::Block));
    }
    let own = Packet::new("10.1.0.1", "10.2.0.7");
    assert_eq!(verdict(&policies, Direction::Out, &own.with(UDP, 4500, 61_000)), Some(Action::Allow));
    assert_eq!(verdict(&policies, Direction::Out, &own.with(UDP, 61_000, 4500)), Some(Action::Block));
}

#[test]
fn neighbour_discovery_passes_but_is_not_forwarded() {
    let mut spec = spec([protect("::/0", "::/0")]);
    spec.local_addresses = [address("2001:db8:1::1")].into();
    let policies = desired(&spec);
    let ours = ["fe80::1", "2001:db8:1::1"];
    let out = [("fe80::1", "ff02::1:ff00:7"), (ours[1], "2001:db8:1::7"), ("::", "ff02::1:ff00:1")];
    let arriving =
        [("fe80::7", "ff02::1"), ("2001:db8:1::7", ours[1]), ("2001:db8:1::7", ours[0]), ("::", "ff02::1")];
    for kind in 133..=137 {
        for (from, to) in out {
            let packet = Packet::new(from, to).with(ICMPV6, kind, 0);
            assert_eq!(verdict(&policies, Direction::Out, &packet), Some(Action::Allow), "{packet:?}");
        }
        for (from, to) in arriving {
            let packet = Packet::new(from, to).with(ICMPV6, kind, 0);
            assert_eq!(verdict(&policies, Direction::In, &packet), Some(Action::Allow), "{packet:?}");
            assert_eq!(verdict(&policies, Direction::Forward, &packet), Some(Action::Block), "{packet:?}");
        }
    }
    for (from, to) in out {
        let echo = Packet::new(from, to).with(ICMPV6, 128, 0);
        assert_eq!(verdict(&policies, Direction::Out, &echo), Some(Action::Block));
    }
    let forwarded = Packet::new("2001:db8:1::9", "2001:db8:2::7").with(ICMPV6, 135, 0);
    assert_eq!(verdict(&policies, Direction::Out, &forwarded), Some(Action::Block));
}

#[test]
fn a_rule_with_ports_covers_fragments_too() {
    let ports = |s: Selector, ports| Selector { protocol: Some(UDP), ports, ..s };
    let local = ports(net("10.1.0.0/16"), 0..=u16::MAX);
    let remote = ports(net("10.2.0.0/16"), 53..=53);
    let policies = desired(&spec([policy(protect_disposition(None), local, remote)]));
    let packet = Packet::new("10.1.0.5", "10.2.0.7");
    let fragment = packet.with(UDP, 0, 0);
    assert_eq!(verdict(&policies, Direction::Out, &packet.with(UDP, 40_000, 53)), Some(Action::Block));
    assert_eq!(verdict(&policies, Direction::Out, &fragment), Some(Action::Block));
    assert_eq!(verdict(&policies, Direction::Forward, &fragment.reversed()), Some(Action::Block));
    assert_eq!(verdict(&policies, Direction::Out, &packet.with(UDP, 40_000, 54)), None);
    assert_eq!(verdict(&policies, Direction::Out, &packet.with(TCP, 40_000, 53)), None);
}

/// RFC 4301 section 5.1: what was opened crosses the boundary again by policy alone.
#[test]
fn opened_packets_leave_by_the_unprotected_interface_only_under_a_bypass() {
    let break_out = || policy(Disposition::Bypass, net("10.2.0.0/16"), net("10.1.9.0/24"));
    let not_there = policy(Disposition::Discard, net("10.2.0.0/16"), net("10.1.9.7/32"));
    for (rules, bypassed) in [
        (vec![protect("10.1.0.0/16", "10.2.0.0/16")], Some(Action::Block)),
        (vec![not_there.clone(), break_out(), protect("10.1.0.0/16", "10.2.0.0/16")], Some(Action::Allow)),
        (vec![protect("10.1.0.0/16", "10.2.0.0/16"), not_there, break_out()], Some(Action::Allow)),
    ] {
        let spec = GuardSpec { wan_interfaces: [7, 8].into(), ..spec(rules) };
        let policies = desired(&spec);
        let at = |interface, to: &str| {
            verdict_at(Some(interface), &policies, Direction::Out, &Packet::new("10.2.0.7", to))
        };
        for wan in [7, 8] {
            assert_eq!(at(wan, "10.1.0.5"), Some(Action::Block));
            assert_eq!(at(wan, "10.1.9.7"), Some(Action::Block));
            assert_eq!(at(wan, "10.1.9.1"), bypassed);
            assert_eq!(at(wan, "10.3.0.1"), None, "other people's traffic");
        }
        assert_eq!(at(9, "10.1.0.5"), None, "towards the protected side it goes");
    }
}

#[test]
fn fragments_of_opened_packets_with_ports_do_not_leave_either() {
    let ports = |s: Selector, ports| Selector { protocol: Some(UDP), ports, ..s };
    let (local, remote) = (ports(net("10.1.0.0/16"), 0..=u16::MAX), ports(net("10.2.0.0/16"), 53..=53));
    let rules = [policy(protect_disposition(None), local, remote)];
    let policies = desired(&GuardSpec { wan_interfaces: [7].into(), ..spec(rules) });
    let packet = Packet::new("10.2.0.7", "10.1.0.5");
    let at = |packet| verdict_at(Some(7), &policies, Direction::Out, &packet);
    assert_eq!(at(packet.with(UDP, 53, 40_000)), Some(Action::Block));
    assert_eq!(at(packet.with(UDP, 0, 0)), Some(Action::Block));
    assert_eq!(at(packet.with(UDP, 54, 40_000)), None);
}

#[test]
fn a_route_based_child_is_guarded_by_its_prefixes_not_by_its_selectors() {
    let mut set = PolicySet {
        policies: vec![policy(protect_disposition(Some("vti0".into())), net("0.0.0.0/0"), net("0.0.0.0/0"))],
        ..PolicySet::default()
    };
    assert!(desired(&GuardSpec::new(&set, [], [], [])).is_empty());
    set.guard_prefixes = vec![(address("10.2.3.4"), 16)];
    let policies = desired(&GuardSpec::new(&set, [], [], []));
    assert_eq!(verdict(&policies, Direction::Out, &Packet::new("8.8.8.8", "10.2.0.1")), Some(Action::Block));
    assert_eq!(verdict(&policies, Direction::Out, &Packet::new("8.8.8.8", "10.3.0.1")), None);
}

#[test]
fn selectors_that_no_packet_matches_make_no_policy() {
    let both = policy(protect_disposition(None), net("10.1.0.0/16"), net("2001:db8::/32"));
    let with = |protocol| Selector { protocol: Some(protocol), ..net("10.1.0.0/16") };
    let other = policy(protect_disposition(None), with(TCP), with(UDP));
    assert!(desired(&spec([both, other])).is_empty());
}

proptest! {
    /// The SPD read packet by packet is the reference; the guard may be stricter, never laxer.
    #[test]
    fn what_the_spd_protects_first_is_blocked(
        rules in prop::collection::vec((0..3u8, 0..32u32, 0..32u32, 0..32u32, 0..32u32), 0..6),
        source in 0..32u32,
        destination in 0..32u32,
    ) {
        let range = |a: u32, b: u32| {
            let at = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
            Selector { addresses: at(a.min(b))..=at(a.max(b)), protocol: None, ports: 0..=u16::MAX }
        };
        let policies: Vec<_> = rules.iter().map(|&(kind, a, b, c, d)| {
            let disposition = match kind {
                0 => Disposition::Bypass,
                1 => Disposition::Discard,
                _ => protect_disposition(None),
            };
            policy(disposition, range(a, b), range(c, d))
        }).collect();
        let at = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
        let packet = Packet { source: at(source), destination: at(destination), protocol: UDP, ports: (7, 9) };
        let holds = |s: &[Selector], a: IpAddr| s.iter().any(|s| s.addresses.contains(&a));
        let mut matching = policies.iter().filter(|p| holds(&p.local, packet.source) && holds(&p.remote, packet.destination));
        let first = matching.clone().next().map(|p| &p.disposition);
        let protected = matching.any(|p| matches!(p.disposition, Disposition::Protect { .. }));
        let verdict = verdict(&desired(&spec(policies.clone())), Direction::Out, &packet);
        match first {
            Some(Disposition::Protect { .. }) => prop_assert_eq!(verdict, Some(Action::Block)),
            Some(Disposition::Bypass) => prop_assert_ne!(verdict, Some(Action::Block)),
            Some(Disposition::Discard) => prop_assert_eq!(verdict, protected.then_some(Action::Block)),
            None => prop_assert_eq!(verdict, None),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: (u16, u16),
}

impl Packet {
    fn new(source: &str, destination: &str) -> Self {
        Self {
            source: address(source),
            destination: address(destination),
            protocol: TCP,
            ports: (50_000, 443),
        }
    }

    fn with(self, protocol: u8, source: u16, destination: u16) -> Self {
        Self { protocol, ports: (source, destination), ..self }
    }

    fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: (self.ports.1, self.ports.0),
            ..self
        }
    }
}

/// As the kernel decides: the matching policy with the lowest priority.
fn verdict(policies: &DesiredPolicies, direction: Direction, packet: &Packet) -> Option<Action> {
    verdict_at(None, policies, direction, packet)
}

/// What a child adds does not grow with the number of the others: as many as this took minutes once, at every start.
#[test]
fn many_children_are_guarded_each_for_itself() {
    const CHILDREN: u32 = 100_000;
    let remote = |n: u32| format!("{}/32", std::net::Ipv4Addr::from_bits(0x1400_0000 + n));
    let set = PolicySet {
        policies: (0..CHILDREN).map(|n| protect("10.1.0.0/16", &remote(n))).collect(),
        ..PolicySet::default()
    };
    let policies = desired(&GuardSpec::new(&set, [], [], [7]));
    // Three directions, and what was opened at the unprotected interface.
    assert_eq!(policies.len(), 4 * CHILDREN as usize);
    let last = Packet::new("20.1.134.159", "10.1.0.1");
    assert_eq!(verdict_at(Some(7), &policies, Direction::Out, &last), Some(Action::Block));
}

fn verdict_at(
    interface: Option<u32>,
    policies: &DesiredPolicies,
    direction: Direction,
    packet: &Packet,
) -> Option<Action> {
    let holds = |p: Prefix, a: IpAddr| {
        AddressRange::prefix(p.address, p.length).intersect(AddressRange::single(a)).is_some()
    };
    let matches = |s: &PolicySelector| {
        s.direction == direction
            && s.interface.is_none_or(|i| Some(i) == interface)
            && holds(s.source, packet.source)
            && holds(s.destination, packet.destination)
            && s.protocol.is_none_or(|p| p == packet.protocol)
            && packet.ports.0 & s.source_ports.mask == s.source_ports.value
            && packet.ports.1 & s.destination_ports.mask == s.destination_ports.value
    };
    policies.iter().filter(|(s, _)| matches(s)).min_by_key(|(_, v)| v.priority).map(|(_, v)| v.action)
}

fn spec(policies: impl IntoIterator<Item = Policy>) -> GuardSpec {
    let set = PolicySet { policies: policies.into_iter().collect(), ..PolicySet::default() };
    GuardSpec::new(&set, [], [], [])
}

fn protect(local: &str, remote: &str) -> Policy {
    policy(protect_disposition(None), net(local), net(remote))
}

fn bypass(local: &str, remote: &str) -> Policy {
    policy(Disposition::Bypass, net(local), net(remote))
}

fn policy(disposition: Disposition, local: Selector, remote: Selector) -> Policy {
    Policy { local: vec![local], remote: vec![remote], disposition }
}

fn protect_disposition(interface: Option<Arc<str>>) -> Disposition {
    let key = PolicyKey { connection: "c".into(), child: "net".into() };
    Disposition::Protect { key, acquire: false, interface }
}

fn net(text: &str) -> Selector {
    let (address_text, length) = text.split_once('/').unwrap();
    let range = AddressRange::prefix(address(address_text), length.parse().unwrap());
    any_port(range.first()..=range.last())
}

fn selector(first: &str, last: &str) -> Selector {
    any_port(address(first)..=address(last))
}

fn any_port(addresses: RangeInclusive<IpAddr>) -> Selector {
    Selector { addresses, protocol: None, ports: 0..=u16::MAX }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
