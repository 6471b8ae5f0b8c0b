//! Limits of what may begin an IKE SA.

use std::net::IpAddr;

use portcullis_common::Verdict;
use portcullis_common::limit::Rate;
use portcullis_common::opening::IkePorts;
use portcullis_data_plane::bpf::Steering;
use portcullis_data_plane::config::{OpeningLimits, Role};

use super::bench::{Bench, OUR_IPV4, OUR_IPV6};
use super::frames::*;

const IKE_SA_INIT: u8 = 34;
const INITIATOR: u8 = 0x08;
const RESPONSE: u8 = 0x20;
const SYN: u8 = 0x02;
const STRANGER: [u8; 4] = [203, 0, 113, 7];
const BURST: u32 = 3;
/// Nothing comes back while a test runs.
const HOUR_NS: u64 = 3_600_000_000_000;

/// Three of each kind, and no other within a test.
fn bench(steering: Steering) -> Bench {
    with(steering, OpeningLimits::default())
}

fn with(steering: Steering, others: OpeningLimits) -> Bench {
    let rate = Rate::every(HOUR_NS, BURST);
    let limits = OpeningLimits { init: rate, init_with_cookie: rate, syn: rate, ..others };
    Bench::with_limits(Role::Wan, steering, false, &limits)
}

/// RFC 7296 sections 1.2 and 2.6, RFC 9329 section 2: requests, requests with cookies and connections have buckets of their
/// own, whatever carries them, whether workers or the kernel take ESP.
#[test]
fn each_kind_of_opening_is_limited_by_itself() {
    for steering in [Steering::Redirect, Steering::Kernel] {
        for (kind, limited) in [
            (Kind::Init, Verdict::InitLimited),
            (Kind::Cookie, Verdict::CookieLimited),
            (Kind::Syn, Verdict::SynLimited),
        ] {
            let bench = bench(steering);
            assert_eq!(pass(&bench, &kind.packet_v4(STRANGER)), BURST, "{kind:?}");
            assert_eq!(bench.run(&kind.packet_v4(STRANGER)), limited, "{kind:?}");
            for other in [Kind::Init, Kind::Cookie, Kind::Syn].into_iter().filter(|other| *other != kind) {
                assert_eq!(pass(&bench, &other.packet_v4(STRANGER)), BURST, "{other:?} after {kind:?}");
            }
        }
    }
}

/// RFC 3948 section 2.2: on port 4500 behind the non-ESP marker it is the same request, and takes from the same bucket.
#[test]
fn both_ports_of_ike_share_a_bucket() {
    let bench = bench(Steering::Redirect);
    let behind_marker = [&[0; 4][..], &Kind::Init.message()].concat();
    let on_4500 = from(STRANGER, &udp_4500_in_ipv4(OUR_IPV4, &behind_marker));
    assert_eq!(pass(&bench, &on_4500), BURST);
    assert_eq!(bench.run(&on_4500), Verdict::InitLimited);
    assert_eq!(bench.run(&Kind::Init.packet_v4(STRANGER)), Verdict::InitLimited);
}

#[test]
fn addresses_of_one_prefix_share_and_others_do_not() {
    let bench = with(
        Steering::Redirect,
        OpeningLimits { ipv4_prefix: 24, ipv6_prefix: 48, ..OpeningLimits::default() },
    );
    let sources = [[203, 0, 113, 7], [203, 0, 113, 8], [203, 0, 113, 255], [203, 0, 113, 0]];
    let verdicts = sources.map(|source| bench.run(&Kind::Init.packet_v4(source)));
    assert_eq!(verdicts, [Verdict::PassedIke, Verdict::PassedIke, Verdict::PassedIke, Verdict::InitLimited]);
    let (one, near, far) = (ipv6_source(0x0001_0000), ipv6_source(0x0001_ffff), ipv6_source(0x0002_0000));
    assert_eq!(pass(&bench, &Kind::Init.packet_v6(one)), BURST);
    assert_eq!(bench.run(&Kind::Init.packet_v6(near)), Verdict::InitLimited);
    // The secret may put another prefix into the same buckets: once in 4096 starts.
    let others = (0..8u32).map(|n| bench.run(&Kind::Init.packet_v6(ipv6_source(ipv6_word(far) + (n << 16)))));
    assert!(others.filter(|verdict| *verdict == Verdict::PassedIke).count() >= 6);
    let single = with(Steering::Redirect, OpeningLimits { ipv4_prefix: 32, ..OpeningLimits::default() });
    assert_eq!(pass(&single, &Kind::Init.packet_v4(STRANGER)), BURST);
    let others = (8..16).map(|host| single.run(&Kind::Init.packet_v4([203, 0, 113, host])));
    assert!(others.filter(|verdict| *verdict == Verdict::PassedIke).count() >= 6);
}

/// A peer that is known has no limit, and its neighbours in the prefix do not gain by it.
#[test]
fn who_is_exempt_has_no_limit() {
    let mut bench = bench(Steering::Redirect);
    let (peer, peer_v6) = ([203, 0, 113, 9], ipv6_source(0x0001_0009));
    bench.exempt(peer.into());
    bench.exempt(peer_v6.into());
    // Twice: an IKE SA, and a configured address.
    bench.exempt(IpAddr::from(peer));
    assert_eq!(pass(&bench, &Kind::Init.packet_v4(STRANGER)), BURST);
    for kind in [Kind::Init, Kind::Cookie, Kind::Syn] {
        assert_eq!(pass(&bench, &kind.packet_v4(peer)), 20, "{kind:?}");
        assert_eq!(pass(&bench, &kind.packet_v6(peer_v6)), 20, "{kind:?}");
    }
    assert_eq!(bench.run(&Kind::Init.packet_v4(STRANGER)), Verdict::InitLimited);
    assert_eq!(bench.run(&Kind::Init.packet_v6(ipv6_source(0x0001_000a))), Verdict::InitLimited);
    bench.limit_again(peer.into());
    assert_eq!(bench.run(&Kind::Init.packet_v4(peer)), Verdict::PassedIke, "one reason is left");
    bench.limit_again(peer.into());
    assert_eq!(bench.run(&Kind::Init.packet_v4(peer)), Verdict::InitLimited);
    assert_eq!(bench.run(&Kind::Init.packet_v6(peer_v6)), Verdict::PassedIke);
}

/// What is no opening is never limited: answers to us, requests of IKE SAs, segments of connections, ESP.
#[test]
fn nothing_else_is_limited() {
    let bench = bench(Steering::Kernel);
    let udp_500 = |message: &[u8]| from(STRANGER, &ipv4(OUR_IPV4, 17, 0, &udp(500, 500, message)));
    for kind in [Kind::Init, Kind::Cookie, Kind::Syn] {
        (0..10).for_each(|_| _ = bench.run(&kind.packet_v4(STRANGER)));
    }
    for (name, frame) in [
        ("a response", udp_500(&ike(IKE_SA_INIT, RESPONSE, [0; 8], 41, &[0; 28]))),
        ("a responder's SPI", udp_500(&ike(IKE_SA_INIT, INITIATOR, [9; 8], 33, &[0; 28]))),
        ("IKE_AUTH", udp_500(&ike(35, INITIATOR, [9; 8], 46, &[0; 28]))),
        ("half a header", udp_500(&Kind::Init.message()[..27])),
    ] {
        assert_eq!(pass(&bench, &frame), 20, "{name}");
    }
    let other = |packet: &[u8]| bench.run(&from(STRANGER, packet));
    for flags in [0x12, 0x10, 0x18, 0x11, 0x04] {
        assert_eq!(other(&ipv4(OUR_IPV4, 6, 0, &tcp(4500, flags))), Verdict::PassedOther, "{flags:02x}");
    }
    assert_eq!(other(&ipv4(OUR_IPV4, 6, 0, &tcp(443, SYN))), Verdict::PassedOther, "another port");
    assert_eq!(other(&ipv4([198, 51, 100, 99], 6, 0, &tcp(4500, SYN))), Verdict::PassedOther, "not to us");
    let to_others = ipv4([198, 51, 100, 99], 17, 0, &udp(500, 500, &Kind::Init.message()));
    assert_eq!(other(&to_others), Verdict::PassedOther, "not to us");
}

#[test]
fn other_ports_and_no_limits_are_taken_from_the_configuration() {
    let ports = IkePorts { udp: 5500, tcp: 0 };
    let bench = with(Steering::Redirect, OpeningLimits { ports, ..OpeningLimits::default() });
    let init = from(STRANGER, &ipv4(OUR_IPV4, 17, 0, &udp(500, 5500, &Kind::Init.message())));
    assert_eq!(pass(&bench, &init), BURST);
    assert_eq!(bench.run(&init), Verdict::InitLimited);
    assert_eq!(bench.run(&Kind::Init.packet_v4(STRANGER)), Verdict::PassedOther);
    assert_eq!(bench.run(&Kind::Syn.packet_v4(STRANGER)), Verdict::PassedOther);
    let none = OpeningLimits {
        init: Rate::NONE,
        init_with_cookie: Rate::NONE,
        syn: Rate::NONE,
        ..OpeningLimits::default()
    };
    let bench = Bench::with_limits(Role::Wan, Steering::Redirect, false, &none);
    for kind in [Kind::Init, Kind::Cookie, Kind::Syn] {
        assert_eq!(pass(&bench, &kind.packet_v4(STRANGER)), 20, "{kind:?}");
    }
}

#[test]
fn a_bucket_fills_again() {
    let limits = OpeningLimits { init: Rate::new(50, 1), ..OpeningLimits::default() };
    let bench = Bench::with_limits(Role::Wan, Steering::Redirect, false, &limits);
    let mut verdicts = std::iter::repeat_with(|| bench.run(&Kind::Init.packet_v4(STRANGER)));
    assert_eq!(verdicts.next(), Some(Verdict::PassedIke));
    let mut after_that = verdicts.skip_while(|verdict| *verdict == Verdict::PassedIke);
    assert!(after_that.any(|verdict| verdict == Verdict::PassedIke));
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Init,
    Cookie,
    Syn,
}

impl Kind {
    fn message(self) -> Vec<u8> {
        // Payload header, protocol, size of the SPI, COOKIE, its data.
        let cookie = [&[33, 0, 0, 16, 0, 0, 0x40, 0x06][..], &[0xc0; 8]].concat();
        let (first, payloads) = if self == Self::Cookie { (41, cookie) } else { (33, vec![0; 48]) };
        ike(IKE_SA_INIT, INITIATOR, [0; 8], first, &payloads)
    }

    fn upper(self) -> (u8, Vec<u8>) {
        if self == Self::Syn { (6, tcp(4500, SYN)) } else { (17, udp(500, 500, &self.message())) }
    }

    fn packet_v4(self, source: [u8; 4]) -> Vec<u8> {
        let (protocol, payload) = self.upper();
        from(source, &ipv4(OUR_IPV4, protocol, 0, &payload))
    }

    fn packet_v6(self, source: [u8; 16]) -> Vec<u8> {
        let (protocol, payload) = self.upper();
        let mut packet = ipv6(OUR_IPV6, protocol, &[], &payload);
        packet[8..24].copy_from_slice(&source);
        frame(&packet)
    }
}

fn from(source: [u8; 4], packet: &[u8]) -> Vec<u8> {
    frame(&from_ipv4(u32::from_be_bytes(source), packet))
}

/// How many of twenty pass, which are the first ones.
fn pass(bench: &Bench, frame: &[u8]) -> u32 {
    let passes: Vec<_> = (0..20).map(|_| bench.run(frame) == Verdict::PassedIke).collect();
    assert!(passes.is_sorted_by(|a, b| a >= b), "{passes:?}");
    passes.into_iter().filter(|passes| *passes).count() as u32
}

/// An address whose third and fourth groups are these 32 bits.
fn ipv6_source(groups: u32) -> [u8; 16] {
    let mut source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    source[4..8].copy_from_slice(&groups.to_be_bytes());
    source
}

fn ipv6_word(source: [u8; 16]) -> u32 {
    u32::from_be_bytes([source[4], source[5], source[6], source[7]])
}
