//! A gateway is renumbered while data flows (transport policy rules 5 and 11): its IKE SA follows, or another takes its place;
//! without an address it says so. Nothing crosses the router in clear meanwhile.

use std::net::Ipv4Addr;
use std::time::Duration;

use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{DataPlaneMode, Lab, Pair, PairOptions, Side};

use crate::{SOON, artefacts, capture, change, flow, nothing_in_clear, wait_answered, wait_more};

const NEW: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

#[test]
fn with_separate_transports_a_renumbered_gateway_keeps_its_sas() {
    for (transport, mode) in [("tcp", DataPlaneMode::Xdp), ("udp-then-tcp", DataPlaneMode::Tun)] {
        let pair = Pair::up(PairOptions { transport, mode, ..PairOptions::USUAL }, &artefacts()).unwrap();
        let router = capture(&pair);
        both(&pair, |c| (&*c.state, &*c.evidence) == ("direct_ip", "echo"));
        let flows = [Side::A, Side::B].map(|side| flow(&pair.lab, side, 100));
        wait_more(&flows, 50);
        let before = sas(&pair);
        renumber(&pair.lab);
        let [a, b] = both(&pair, |c| {
            (&*c.state, &*c.reason, &*c.evidence) == ("direct_udp", "address_changed", "echo")
        });
        assert_eq!(sas(&pair), before, "no SA is new");
        assert_eq!(a.esp_transport.as_deref(), Some("udp"));
        assert!(b.ike_sas[0].remote.starts_with(&NEW.to_string()), "{}", b.ike_sas[0].remote);
        wait_more(&flows, 100);
        for side in [Side::A, Side::B] {
            let gateway = pair.gateway(side);
            gateway.agreed(side.connection()).unwrap();
            let drops = gateway.status().unwrap().data_plane.drops;
            assert_eq!(drops.get("replay").copied().unwrap_or(0), 0, "{drops:?}");
        }
        // New keys do not change where ESP goes.
        pair.a.verb(&["rekey", Side::A.connection()]).unwrap();
        wait_more(&flows, 100);
        both(&pair, |c| (&*c.state, &*c.reason) == ("direct_udp", "address_changed"));
        for flow in flows {
            flow.finish().unwrap();
        }
        let counts = router.finish().unwrap();
        nothing_in_clear(&counts);
        assert!(counts.esp_ip > 0 && counts.esp_udp > 0 && counts.esp_tcp == 0, "{counts:?}");
    }
}

#[test]
fn without_separate_transports_another_ike_sa_takes_the_place() {
    for keeps_old in [false, true] {
        let mut pair =
            Pair::new(PairOptions { transport: "udp", ..PairOptions::USUAL }, &artefacts()).unwrap();
        for side in [Side::A, Side::B] {
            let ike = format!("connections/{}/ike/separate_transports", side.connection());
            change(pair.gateway(side), |config| config.set(&ike, "off"));
        }
        // A new IKE SA from a new address is taken from a peer that may have any.
        change(&pair.b, |config| config.set("connections/site-a/remote/address", "any"));
        let router = capture(&pair);
        pair.b.start().unwrap();
        pair.a.start().unwrap();
        pair.wait_up(SOON).unwrap();
        let flows = [Side::A, Side::B].map(|side| flow(&pair.lab, side, 100));
        wait_more(&flows, 50);
        let before = sas(&pair);
        if keeps_old {
            prefer(&pair.lab)
        } else {
            renumber(&pair.lab)
        }
        let is_new = |c: &ConnectionStatus| c.ike_sas.len() == 1 && c.ike_sas[0].spi_i != before[0].0;
        let [a, b] = both(&pair, |c| is_new(c) && (&*c.state, &*c.evidence) == ("direct_ip", "echo"));
        assert_eq!((&*a.reason, a.ike_transport.as_deref()), ("none", Some("udp")));
        assert!(b.ike_sas[0].remote.starts_with(&NEW.to_string()), "{}", b.ike_sas[0].remote);
        wait_more(&flows, 100);
        for flow in flows {
            flow.finish().unwrap();
        }
        let counts = router.finish().unwrap();
        nothing_in_clear(&counts);
        assert_eq!(counts.tcp_streams, 0, "{counts:?}");
    }
}

#[test]
fn a_gateway_without_its_configured_address_is_local_down_until_it_is_back() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let address = Side::A.wan().0;
    change(&pair.a, |config| config.set("connections/site-b/local/address", address.to_string()));
    let router = capture(&pair);
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    wait_answered(&pair.lab);
    let before = sas(&pair);
    // Another address leads to the peer, but the connection is not to use it.
    prefer(&pair.lab);
    remove(&pair.lab);
    let is_down = |c: &ConnectionStatus| (&*c.state, &*c.reason) == ("local_down", "no_route");
    let down = pair.a.wait_connection(Side::A.connection(), SOON, is_down).unwrap();
    assert!(down.detail.contains(&address.to_string()), "{}", down.detail);
    assert_eq!(crate::knock(&pair.lab), 0);
    assert!(is_down(&pair.a.connection(Side::A.connection()).unwrap()));
    pair.lab.gw_a.add_address("wan0", address.into(), 24).unwrap();
    both(&pair, |c| &*c.state == "direct_ip");
    wait_answered(&pair.lab);
    assert_eq!(sas(&pair), before, "the same SAs");

    // Without an SA: nothing is tried before the address is there.
    pair.a.stop().unwrap();
    remove(&pair.lab);
    pair.a.start().unwrap();
    pair.a.wait_connection(Side::A.connection(), SOON, is_down).unwrap();
    pair.lab.gw_a.add_address("wan0", address.into(), 24).unwrap();
    pair.a.wait_connection(Side::A.connection(), Duration::from_secs(5), ConnectionStatus::is_up).unwrap();
    wait_answered(&pair.lab);
    nothing_in_clear(&router.finish().unwrap());
}

/// Waits until both ends are as `wanted`.
fn both(pair: &Pair, wanted: impl Fn(&ConnectionStatus) -> bool) -> [ConnectionStatus; 2] {
    [Side::A, Side::B]
        .map(|side| pair.gateway(side).wait_connection(side.connection(), SOON, &wanted).unwrap())
}

/// The SPIs of the IKE SA and of its child, at either end.
fn sas(pair: &Pair) -> [(String, String); 2] {
    [Side::A, Side::B].map(|side| {
        let mut connection = pair.gateway(side).connection(side.connection()).unwrap();
        let sa = connection.ike_sas.remove(0);
        (sa.spi_i, sa.children[0].spi_in.clone())
    })
}

/// gw-a's address towards the router goes, with its routes, and another one comes. What leaks towards it still arrives.
fn renumber(lab: &Lab) {
    remove(lab);
    lab.gw_a.add_address("wan0", NEW.into(), 24).unwrap();
    lab.gw_a.add_route("default", Side::A.router().0.into()).unwrap();
    lab.router.add_route(Side::A.inner()[0], NEW.into()).unwrap();
}

/// Another address comes beside the first, and packets leave from that.
fn prefer(lab: &Lab) {
    lab.gw_a.add_address("wan0", NEW.into(), 32).unwrap();
    let router = Side::A.router().0.to_string();
    lab.gw_a
        .ip(&[
            "route",
            "replace",
            "default",
            "via",
            &router,
            "dev",
            "wan0",
            "onlink",
            "src",
            &NEW.to_string(),
        ])
        .unwrap();
}

fn remove(lab: &Lab) {
    let old = format!("{}/24", Side::A.wan().0);
    lab.gw_a.ip(&["address", "delete", &old, "dev", "wan0"]).unwrap();
}
