//! When and over what a tunnel comes up: on the first packet that needs it, by hand, and over IPv6.

use portcullis_vm_tests::capture::Capture;
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{CHILD, Pair, PairOptions, Side, inner_prefixes};

use crate::{SOON, artefacts, wait_answered};

#[test]
fn first_packet_brings_an_on_traffic_child_up() {
    let mut pair = configured_start("on-traffic");
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    assert!(!pair.a.connection(Side::A.connection()).unwrap().is_up());
    wait_answered(&pair.lab);
    assert!(pair.a.connection(Side::A.connection()).unwrap().is_up());
}

#[test]
fn a_child_without_start_waits_for_up() {
    let mut pair = configured_start("none");
    let capture = Capture::start(&pair.lab.router, inner_prefixes()).unwrap();
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    assert_eq!(crate::knock(&pair.lab), 0);
    let counts = capture.counts();
    assert_eq!((counts.inner_clear, counts.tcp_streams), (0, 0), "neither clear text nor IKE");
    pair.a.verb(&["up", Side::A.connection()]).unwrap();
    wait_answered(&pair.lab);
}

#[test]
fn esp_and_ike_travel_over_ipv6() {
    for transport in ["tcp", "udp-then-tcp"] {
        let options = PairOptions { transport, ..PairOptions::USUAL };
        let mut pair = Pair::new(options, &artefacts()).unwrap();
        for side in [Side::A, Side::B] {
            let mut config = pair.gateway(side).configuration().unwrap();
            let remote = side.other().wan().1.to_string();
            config.set(&format!("connections/{}/remote/address", side.connection()), remote);
            pair.gateway(side).configure(config).unwrap();
        }
        let capture = Capture::start(&pair.lab.router, inner_prefixes()).unwrap();
        pair.b.start().unwrap();
        pair.a.start().unwrap();
        pair.wait_up(SOON).unwrap();
        wait_answered(&pair.lab);
        for side in [Side::A, Side::B] {
            let is_proven = |c: &ConnectionStatus| (&*c.state, &*c.evidence) == ("direct_ip", "echo");
            pair.gateway(side).wait_connection(side.connection(), SOON, is_proven).unwrap();
            pair.gateway(side).agreed(side.connection()).unwrap();
        }
        let counts = capture.finish().unwrap();
        assert_eq!(counts.inner_clear + counts.esp_tcp, 0);
        // A start on UDP has shown that UDP passes, so ESP leaves on it until IP is proven.
        assert_eq!(counts.esp_udp > 0, transport == "udp-then-tcp", "{transport}: {counts:?}");
        assert!(counts.esp_ip > 0, "{transport}: {counts:?}");
    }
}

fn configured_start(mode: &str) -> Pair {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let path = format!("connections/{}/children/{CHILD}/start", Side::A.connection());
    let config = pair.a.configuration().unwrap().with(&path, mode);
    pair.a.configure(config).unwrap();
    pair
}
