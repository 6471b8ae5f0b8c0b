//! Behind a NAT: the mapping is kept alive while nothing is sent, and when the translator forgets it traffic finds its
//! way again, whoever sends first (transport policy rules 4 and 10).

use std::time::Duration;

use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{Nat, Pair, PairOptions, Ping, Side, until};

use crate::{SOON, artefacts, capture, change, nothing_in_clear, wait_answered};

/// Rows 3 and 12: whichever end is behind the translator, and whatever IKE starts on, ESP settles on UDP, and each end says why
/// as far as it can know.
#[test]
fn either_end_behind_a_nat_and_either_start_settle_on_udp() {
    for nat in [Nat::BeforeA, Nat::BeforeB] {
        for transport in ["tcp", "udp-then-tcp"] {
            let options = PairOptions { nat, transport, ..PairOptions::USUAL };
            let mut pair = Pair::new(options, &artefacts()).unwrap();
            let router = capture(&pair);
            pair.b.start().unwrap();
            pair.a.start().unwrap();
            for side in [Side::A, Side::B] {
                let is_proven = |c: &ConnectionStatus| {
                    (&*c.state, &*c.reason, &*c.evidence) == ("direct_udp", "nat", "echo")
                };
                let gateway = pair.gateway(side);
                gateway.wait_connection(side.connection(), SOON, is_proven).unwrap();
                let connection = gateway.agreed(side.connection()).unwrap();
                assert_eq!(connection.ike_transport.as_deref(), Some("tcp"), "{nat:?}, {transport}");
                assert_eq!(connection.esp_transport.as_deref(), Some("udp"), "{nat:?}, {transport}");
            }
            wait_answered(&pair.lab);
            let back = Ping { count: 1, ..Ping::to(Side::A.host().0) };
            assert_eq!(back.run(&pair.lab.host_b).unwrap().answered, 1);
            let counts = router.finish().unwrap();
            nothing_in_clear(&counts);
            assert_eq!((counts.esp_ip, counts.esp_tcp), (0, 0), "{nat:?}, {transport}: {counts:?}");
        }
    }
}

#[test]
fn idle_end_behind_a_nat_keeps_its_mapping_alive() {
    let pair = behind_nat();
    wait_answered(&pair.lab);
    let router = capture(&pair);
    // A keepalive holds the mapping; an echo beside it, which asks for no reply, lets the peer learn a new one.
    router.wait(SOON, |c| c.nat_keepalives >= 3 && c.esp_udp >= 3).expect("three intervals' keepalives");
    let counts = router.finish().unwrap();
    nothing_in_clear(&counts);
    assert_eq!(counts.esp_ip, 0);
    let drops = pair.b.status().unwrap().data_plane.drops;
    assert!(drops["echo_one_way"] > 0, "gw-b takes echoes without reply for what they are");
    let connection = pair.b.connection(Side::B.connection()).unwrap();
    assert_eq!((&*connection.state, &*connection.evidence), ("direct_udp", "echo"));
}

#[test]
fn traffic_from_the_far_side_finds_a_rebound_mapping() {
    let pair = behind_nat();
    wait_answered(&pair.lab);
    let before = pair.b.connection(Side::B.connection()).unwrap();
    let spis = |c: &ConnectionStatus| {
        let sa = c.ike_sas.first().expect("an IKE SA");
        (sa.spi_i.clone(), sa.children[0].spi_in.clone())
    };

    rebind(&pair);
    // host-a is silent: it is gw-a's keepalive that shows gw-b the new mapping.
    let ping = Ping { count: 1, timeout: Duration::from_millis(200), ..Ping::to(Side::A.host().0) };
    until(SOON, || (ping.run(&pair.lab.host_b).unwrap().answered == 1).then_some(()))
        .expect("host-b reaches host-a by the new mapping");

    // IKE finds its way too: the stream through the old mapping is dead.
    pair.a.verb(&["rekey", Side::A.connection(), "--child", "net"]).unwrap();
    wait_answered(&pair.lab);
    let after = pair.b.connection(Side::B.connection()).unwrap();
    assert_eq!(spis(&after).0, spis(&before).0, "the same IKE SA");
    assert_ne!(spis(&after).1, spis(&before).1, "with new keys");
}

/// Up, with a short keepalive interval.
fn behind_nat() -> Pair {
    let options = PairOptions { nat: Nat::BeforeA, ..PairOptions::USUAL };
    let mut pair = Pair::new(options, &artefacts()).unwrap();
    change(&pair.a, |config| config.set("connections/site-b/esp/keepalive", "1s"));
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    pair
}

/// The translator forgets every mapping and makes new ones with other ports.
fn rebind(pair: &Pair) {
    let router = &pair.lab.router;
    router
        .nft(
            "flush chain ip lab after; \
             add rule ip lab after iifname wan-a oifname wan-b meta l4proto { tcp, udp } masquerade to :20000-20999",
        )
        .unwrap();
    // Mappings of a masqueraded interface go when it does.
    router.ip(&["link", "set", "wan-b", "down"]).unwrap();
    router.ip(&["link", "set", "wan-b", "up"]).unwrap();
}
