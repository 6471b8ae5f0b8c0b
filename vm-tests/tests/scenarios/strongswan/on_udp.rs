//! IKE and ESP in UDP: rows 5 and 6. charon says that it is behind a NAT, because its ESP is in UDP always.

use std::time::Duration;

use portcullis_vm_tests::{Ping, Side};

use super::{CHILD, Scene, THEIRS};

/// Row 5.
#[test]
fn portcullis_initiates_and_stays_on_udp() {
    let scene = Scene::new("udp-then-tcp", &[]).up();
    carried_in_udp(scene, false);
}

/// Row 5 as responder; charon starts on UDP 500 and goes on on UDP 4500.
#[test]
fn strongswan_initiates_and_stays_on_udp() {
    let mut scene = Scene::new("udp-then-tcp", &[("children/net/start", "none")]);
    scene.pair.a.start().unwrap();
    scene.pair.b.initiate(CHILD).unwrap();
    carried_in_udp(scene, true);
}

fn carried_in_udp(scene: Scene, strongswan_initiates: bool) {
    let (ours, theirs) = scene.wait_up();
    assert_eq!(theirs.is_initiator, strongswan_initiates);
    assert_eq!(theirs.connection, THEIRS);
    assert_eq!(ours.ike_sas[0].initiator, !strongswan_initiates);
    assert_eq!((&ours.ike_sas[0].spi_i, &ours.ike_sas[0].spi_r), (&theirs.spis.0, &theirs.spis.1));
    assert!(ours.ike_sas[0].algorithms.contains("mlkem768"), "{}", ours.ike_sas[0].algorithms);
    assert!(!ours.ike_sas[0].separate_transports && !ours.ike_sas[0].esp.echo);
    scene.carries_traffic();
    let ours = scene.says("direct_udp", "nat", "inbound");
    assert_eq!((ours.ike_transport.as_deref(), ours.esp_transport.as_deref()), (Some("udp"), Some("udp")));
    let (_, theirs) = scene.wait_up();
    let (opened, sealed) = theirs.installed(CHILD).unwrap().packets;
    assert!(opened > 20 && sealed > 20, "{theirs:?}");
    let counts = scene.finish();
    assert_eq!((counts.esp_ip, counts.esp_tcp, counts.tcp_streams), (0, 0, 0), "{counts:?}");
    assert!(counts.esp_udp > 40, "{counts:?}");
    assert_eq!(counts.ike_udp_500.packets > 0, strongswan_initiates, "{counts:?}");
}

/// Row 6, and the guard; strongSwan's host is the control, for its gateway has no guard.
#[test]
fn require_blocks_before_anything_is_set_up_and_the_guard_holds() {
    let quick = [
        ("ike/separate_transports", "require"),
        ("ike/retransmit_after", "100ms"),
        ("ike/retransmissions", "2"),
    ];
    let mut scene = Scene::new("udp-then-tcp", &quick);
    scene.pair.a.start().unwrap();
    let ours = scene.says("blocked", "peer_no_separate", "none");
    assert!(ours.detail.contains("separate transports"), "{}", ours.detail);
    assert!(ours.ike_sas.is_empty());
    scene.stays_shut();
    let sas = scene.pair.b.sas().unwrap();
    assert!(sas.iter().all(|sa| sa.children.is_empty() && sa.state != "ESTABLISHED"), "{sas:?}");

    let back = Ping { timeout: Duration::from_millis(100), ..Ping::to(Side::A.host().0) };
    let back = back.run(&scene.pair.lab.host_b).unwrap();
    assert_eq!(back.answered, 0, "clear text is not let in");
    let counts = scene.router.finish().unwrap();
    assert!(counts.inner_clear >= 10, "the capture sees clear text when there is any");
    assert_eq!((counts.esp_udp, counts.esp_ip, counts.tcp_streams), (0, 0, 0), "{counts:?}");
}
