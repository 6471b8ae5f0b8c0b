//! Who has no limit for what begins an IKE SA: peers that have one, as long as they have it.

#[path = "xdp_verdicts/frames.rs"]
#[allow(dead_code, reason = "the tests of verdicts use all of it")]
mod frames;
mod gateway;
mod tunnel;
#[path = "bad_input/wire.rs"]
#[allow(dead_code, reason = "the test of bad input uses all of it")]
mod wire;

use std::net::Ipv4Addr;

use portcullis_common::Verdict;
use portcullis_data_plane::sa::{Carrier, EchoAnswers, Path, PathId};

use gateway::wait_until;
use tunnel::{Side, TUN, Tunnel, XDP};
use wire::{Wire, mac};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Not configured, and of one prefix.
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 78);

#[test]
fn a_peer_has_no_limit_while_it_has_a_path() {
    const ALL: u64 = 300;
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let b = &tunnel.b;
        let wan = Wire::new(&tunnel.a.gateway, "wan0");
        let ethernet = [&mac(&b.gateway, "wan0")[..], &mac(&tunnel.a.gateway, "wan0"), &[8, 0]].concat();
        let ask = |source: Ipv4Addr| {
            let request = frames::udp(500, 500, &frames::ike(34, 0x08, [0; 8], 33, &[0; 48]));
            let packet = frames::ipv4(GATEWAY.octets(), 17, 0, &request);
            wan.send(&[&ethernet[..], &frames::from_ipv4(source.to_bits(), &packet)].concat());
        };
        let exhaust = |source: Ipv4Addr| {
            let before = counted(b, Verdict::InitLimited);
            wait_until("the prefix has had its share", || {
                ask(source);
                counted(b, Verdict::InitLimited) > before
            });
        };
        exhaust(STRANGER);
        let path = Path {
            carrier: Carrier::Udp,
            local: GATEWAY.into(),
            local_port: 4500,
            remote: PEER.into(),
            remote_port: 4500,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        };
        b.plane.update_path(PathId(2), path);
        // Twice the same address: one of two IKE SAs may end.
        b.plane.update_path(PathId(3), path);
        b.plane.remove_path(PathId(3));
        let before = counted(b, Verdict::PassedIke);
        (0..ALL).for_each(|_| ask(PEER));
        wait_until("all of the peer's pass", || counted(b, Verdict::PassedIke) >= before + ALL);
        exhaust(STRANGER);
        b.plane.update_path(PathId(2), Path { remote: tunnel.a.wan_address(false), ..path });
        exhaust(PEER);
    }
}

fn counted(side: &Side, verdict: Verdict) -> u64 {
    let report = side.plane.report();
    let counts = report.interfaces.iter().flat_map(|interface| &interface.xdp);
    counts.filter(|(counted, ..)| *counted == verdict).map(|(_, packets, _)| packets).sum()
}
