//! The LAN program.

use std::net::IpAddr;

use portcullis_common::Verdict;
use portcullis_data_plane::bpf::Steering;
use portcullis_data_plane::config::Role;
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};

use super::bench::{Bench, OUR_IPV4, OUR_IPV6};
use super::frames::*;

const PROTECTED_IPV4: [u8; 4] = [10, 2, 7, 9];
const PROTECTED_IPV6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const BYPASSED_IPV4: [u8; 4] = [10, 3, 7, 9];
const BYPASSED_IPV6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const OTHER_IPV4: [u8; 4] = [10, 4, 7, 9];
const OTHER_IPV6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

fn bench(steering: Steering, protected: bool) -> Bench {
    let mut bench = Bench::new(Role::Lan, steering, protected);
    bench.set_policies(&policies());
    bench
}

#[test]
fn protected_traffic_goes_to_the_tun_in_tun_mode() {
    let bench = bench(Steering::Kernel, true);
    assert_eq!(bench.run(&to_v4(PROTECTED_IPV4)), Verdict::PassedProtected);
    assert_eq!(bench.run(&to_v6(PROTECTED_IPV6)), Verdict::PassedProtected);
    let tagged = ethernet(&[0x88a8, 0x8100], 0x0800, &icmp_v4(PROTECTED_IPV4));
    assert_eq!(bench.run(&tagged), Verdict::PassedProtected);
    assert_eq!(bench.run(&frame(&ipv4(PROTECTED_IPV4, 1, 10, &[8; 8]))), Verdict::PassedProtected);
}

/// RFC 4301 section 5: without a worker nothing protected leaves, under any policy of the interface.
#[test]
fn protected_traffic_is_dropped_when_no_socket_takes_it() {
    for protected in [true, false] {
        let bench = bench(Steering::Redirect, protected);
        assert_eq!(bench.run(&to_v4(PROTECTED_IPV4)), Verdict::NoWorker);
        assert_eq!(bench.run(&to_v6(PROTECTED_IPV6)), Verdict::NoWorker);
        let mut fragment = icmp_v4(PROTECTED_IPV4);
        fragment[6] = 0x20;
        assert_eq!(bench.run(&frame(&fragment)), Verdict::NoWorker);
    }
}

/// RFC 4301 section 4.4.1: what matches no policy is discarded.
#[test]
fn a_destination_without_policy_is_dropped_on_a_protected_interface_only() {
    let protected = bench(Steering::Redirect, true);
    assert_eq!(protected.run(&to_v4(OTHER_IPV4)), Verdict::NoPolicy);
    assert_eq!(protected.run(&to_v6(OTHER_IPV6)), Verdict::NoPolicy);
    let open = bench(Steering::Redirect, false);
    assert_eq!(open.run(&to_v4(OTHER_IPV4)), Verdict::PassedBypass);
    assert_eq!(open.run(&to_v6(OTHER_IPV6)), Verdict::PassedBypass);
}

#[test]
fn a_bypassed_destination_passes() {
    let bench = bench(Steering::Redirect, true);
    assert_eq!(bench.run(&to_v4(BYPASSED_IPV4)), Verdict::PassedBypass);
    assert_eq!(bench.run(&to_v6(BYPASSED_IPV6)), Verdict::PassedBypass);
}

#[test]
fn addresses_of_one_slash_24_may_differ() {
    let bench = bench(Steering::Redirect, true);
    // 10.5.0.64/26 is protected, 10.5.0.128 bypassed, the rest has no policy.
    for (host, verdict) in [
        (63, Verdict::NoPolicy),
        (64, Verdict::NoWorker),
        (127, Verdict::NoWorker),
        (128, Verdict::PassedBypass),
        (129, Verdict::NoPolicy),
    ] {
        assert_eq!(bench.run(&to_v4([10, 5, 0, host])), verdict, "10.5.0.{host}");
    }
}

/// The longest prefix decides, as the list is ordered with the narrow policy first.
#[test]
fn ipv6_prefixes_nest() {
    let bench = bench(Steering::Redirect, true);
    let mut inside = PROTECTED_IPV6;
    inside[6..8].copy_from_slice(&[0, 0xbb]);
    assert_eq!(bench.run(&to_v6(inside)), Verdict::PassedBypass);
    inside[15] = 10;
    assert_eq!(bench.run(&to_v6(inside)), Verdict::NoWorker);
}

#[test]
fn what_stays_on_the_link_passes() {
    let bench = bench(Steering::Redirect, true);
    let group = |packet: &[u8]| {
        let mut frame = frame(packet);
        frame[0] = 0x33;
        frame
    };
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (name, frame) in [
        ("our ipv4 address", to_v4(OUR_IPV4)),
        ("our ipv6 address", to_v6(OUR_IPV6)),
        ("arp", ethernet(&[], 0x0806, &[0; 28])),
        ("ipv4 multicast", to_v4([224, 0, 0, 5])),
        ("ipv4 broadcast", to_v4([255; 4])),
        ("ipv6 link-local", to_v6(link_local)),
        ("ipv6 multicast", to_v6(all_nodes)),
        ("group address", group(&icmp_v4(PROTECTED_IPV4))),
    ] {
        assert_eq!(bench.run(&frame), Verdict::PassedOther, "{name}");
    }
}

#[test]
fn malformed_headers_are_dropped() {
    let bench = bench(Steering::Kernel, false);
    let mut long_v4 = icmp_v4(PROTECTED_IPV4);
    long_v4[2] = 0x7f;
    let mut long_v6 = icmp_v6(PROTECTED_IPV6);
    long_v6[4] = 0x7f;
    for (name, frame) in [
        ("tag cut short", ethernet(&[0x8100], 0x0800, &[])[..17].to_vec()),
        ("ipv4 cut short", ethernet(&[], 0x0800, &[0x45; 19])),
        ("ipv4 longer than the frame", frame(&long_v4)),
        ("ipv6 cut short", ethernet(&[], 0x86dd, &[0x60; 39])),
        ("ipv6 longer than the frame", frame(&long_v6)),
        ("ipv4 that says it is ipv6", ethernet(&[], 0x86dd, &icmp_v4(PROTECTED_IPV4))),
    ] {
        assert_eq!(bench.run(&frame), Verdict::Malformed, "{name}");
    }
}

#[test]
fn a_reload_changes_classes_both_ways() {
    let mut bench = bench(Steering::Redirect, true);
    bench.set_policies(&PolicySet::default());
    for frame in [to_v4(PROTECTED_IPV4), to_v6(PROTECTED_IPV6), to_v4(BYPASSED_IPV4), to_v4([10, 5, 0, 64])] {
        assert_eq!(bench.run(&frame), Verdict::NoPolicy);
    }
    bench.set_policies(&policies());
    assert_eq!(bench.run(&to_v4(PROTECTED_IPV4)), Verdict::NoWorker);
    assert_eq!(bench.run(&to_v6(BYPASSED_IPV6)), Verdict::PassedBypass);
    assert_eq!(bench.run(&to_v4([10, 5, 0, 128])), Verdict::PassedBypass);
}

fn policies() -> PolicySet {
    let key = PolicyKey { connection: "dc".into(), child: "net".into() };
    let protect = Disposition::Protect { key, acquire: false, interface: None };
    let policy = |first: &str, last: &str, disposition: &Disposition| Policy {
        local: vec![
            selector("0.0.0.0", "255.255.255.255"),
            selector("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ],
        remote: vec![selector(first, last)],
        disposition: disposition.clone(),
    };
    PolicySet {
        policies: vec![
            policy("2001:db8:2:bb::9", "2001:db8:2:bb::9", &Disposition::Bypass),
            policy("10.2.0.0", "10.2.255.255", &protect),
            policy("2001:db8:2::", "2001:db8:2:ffff:ffff:ffff:ffff:ffff", &protect),
            policy("10.3.0.0", "10.3.255.255", &Disposition::Bypass),
            policy("2001:db8:3::", "2001:db8:3:ffff:ffff:ffff:ffff:ffff", &Disposition::Bypass),
            policy("10.5.0.64", "10.5.0.127", &protect),
            policy("10.5.0.128", "10.5.0.128", &Disposition::Bypass),
        ],
        ..PolicySet::default()
    }
}

fn selector(first: &str, last: &str) -> Selector {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Selector { addresses: address(first)..=address(last), protocol: None, ports: 0..=u16::MAX }
}

fn icmp_v4(destination: [u8; 4]) -> Vec<u8> {
    ipv4(destination, 1, 0, &[8, 0, 0, 0, 0, 0, 0, 0])
}

fn icmp_v6(destination: [u8; 16]) -> Vec<u8> {
    ipv6(destination, 58, &[], &[128, 0, 0, 0, 0, 0, 0, 0])
}

fn to_v4(destination: [u8; 4]) -> Vec<u8> {
    frame(&icmp_v4(destination))
}

fn to_v6(destination: [u8; 16]) -> Vec<u8> {
    frame(&icmp_v6(destination))
}
