//! Blocked while traffic flows, and unblocked.

use std::time::SystemTime;

use portcullis_vm_tests::{Blocked, DataPlaneMode, Nat, Side, UdpFlow, Way};

use super::{FALLBACK, PACKETS_PER_SECOND, Scene, Stage, end, flows, measured, within};
use crate::{assert_perfect, wait_more};

#[test]
fn protocol_50_blocked_in_mid_life_moves_to_udp() {
    moves_to_udp(DataPlaneMode::Xdp, Way::Both, "protocol 50 blocked in mid-life");
}

#[test]
fn protocol_50_blocked_in_mid_life_moves_to_udp_on_tun() {
    moves_to_udp(DataPlaneMode::Tun, Way::Both, "protocol 50 blocked in mid-life, TUN");
}

#[test]
fn protocol_50_blocked_from_the_initiator_in_mid_life_moves_to_udp() {
    moves_to_udp(
        DataPlaneMode::Xdp,
        Way::From(Side::A),
        "protocol 50 blocked from the initiator in mid-life",
    );
}

#[test]
fn protocol_50_blocked_from_the_responder_in_mid_life_moves_to_udp() {
    moves_to_udp(
        DataPlaneMode::Xdp,
        Way::From(Side::B),
        "protocol 50 blocked from the responder in mid-life",
    );
}

fn moves_to_udp(mode: DataPlaneMode, way: Way, what: &str) {
    let (stage, flows) = flowing(Scene { mode, ..Scene::USUAL });
    let promised = promised(&stage);
    let blocked = SystemTime::now();
    stage.pair.lab.block(Blocked::Protocol50, way).unwrap();
    let says = ("direct_udp", "ip_unanswered", "echo");
    stage.wait(Side::A, says);
    let took = stage.came_to(Side::A, says, blocked);
    measured(what, took);
    within(took, promised);
    stage.wait(Side::B, ("direct_udp", "*", "echo"));
    wait_more(&flows, 50);
    end(flows);
    let (_, counts) = stage.finish();
    assert!(counts.esp_ip > 0 && counts.esp_udp > 0 && counts.esp_tcp == 0, "{counts:?}");
}

/// Rows 17 and 18 under fail-closed: shut, and back.
#[test]
fn both_blocked_in_mid_life_is_shut_under_fail_closed_and_returns() {
    let (stage, flows) = flowing(Scene::USUAL);
    let promised = promised(&stage);
    let blocked = SystemTime::now();
    stage.pair.lab.block(Blocked::Protocol50, Way::Both).unwrap();
    stage.pair.lab.block(Blocked::Udp4500, Way::Both).unwrap();
    let says = ("blocked", "esp_unreachable", "none");
    stage.wait(Side::A, says);
    let took = stage.came_to(Side::A, says, blocked);
    measured("both blocked in mid-life, fail-closed", took);
    within(took, promised);
    assert!(stage.pair.lab.filtered().unwrap() > 0);
    let before = flows.iter().map(|flow| flow.progress().received).collect::<Vec<_>>();
    stage.stays_shut();
    let after = flows.iter().map(|flow| flow.progress().received).collect::<Vec<_>>();
    assert_eq!(before, after, "shut");

    let unblocked = SystemTime::now();
    stage.pair.lab.unblock().unwrap();
    // An attempt may be verifying at this moment, and find UDP answered whose first echoes over IP were still blocked.
    let says = ("direct_*", "*", "echo");
    stage.wait(Side::A, says);
    measured("back after both were blocked, fail-closed", stage.came_to(Side::A, says, unblocked));
    stage.wait(Side::B, says);
    wait_more(&flows, 50);
    end(flows);
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0, "fail-closed: ESP is never in TCP");
}

/// Rule 5: neither ESP nor IKE answers, so nothing is decided, and everything goes on when the router is back.
#[test]
fn router_outage_is_no_blockage() {
    let (stage, flows) = flowing(Scene::USUAL);
    let before = stage.pair.a.connection(Side::A.connection()).unwrap();
    stage.pair.lab.block(Blocked::Everything, Way::Both).unwrap();
    stage.wait(Side::A, ("suspect", "*", "echo"));
    stage.wait(Side::B, ("suspect", "*", "echo"));
    stage.pair.lab.unblock().unwrap();
    stage.wait(Side::A, ("direct_ip", "*", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    wait_more(&flows, 50);
    end(flows);
    let after = stage.pair.a.connection(Side::A.connection()).unwrap();
    assert_eq!(after.ike_sas[0].spi_i, before.ike_sas[0].spi_i, "the same IKE SA");
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0);
}

/// UDP is no business of ESP over IP, nor of IKE in TCP.
#[test]
fn udp_4500_blocked_in_mid_life_changes_nothing_for_esp_over_ip() {
    let (stage, flows) = flowing(Scene::USUAL);
    let before = stage.pair.a.connection(Side::A.connection()).unwrap();
    let blocked = SystemTime::now();
    stage.pair.lab.block(Blocked::Udp4500, Way::Both).unwrap();
    // Well beyond what a decision takes, and a few idle echoes.
    let packets = f64::from(PACKETS_PER_SECOND) * (promised(&stage) + 1.0);
    wait_more(&flows, packets as u64);
    stage.nothing_changed(blocked);
    let after = stage.pair.a.connection(Side::A.connection()).unwrap();
    assert_eq!(after.ike_sas[0].spi_i, before.ike_sas[0].spi_i, "the same IKE SA");
    assert_perfect(flows);
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!((counts.esp_udp, counts.esp_tcp), (0, 0), "{counts:?}");
}

/// Rows 17 and 18 where UDP is all there is: behind a NAT, or by configuration.
#[test]
fn udp_4500_blocked_in_mid_life_shuts_esp_in_udp_under_fail_closed() {
    for (scene, what) in ONLY_UDP {
        let (stage, flows) = flowing(scene);
        let what = format!("UDP 4500 blocked in mid-life, {what}, fail-closed");
        udp_blocked(&stage, &what, ("blocked", "esp_unreachable", "none"));
        stage.stays_shut();
        stage.pair.lab.unblock().unwrap();
        stage.wait(Side::A, ("direct_udp", "*", "echo"));
        stage.wait(Side::B, ("direct_udp", "*", "echo"));
        wait_more(&flows, 50);
        end(flows);
        let counts = stage.router.finish().unwrap();
        crate::nothing_in_clear(&counts);
        assert_eq!((counts.esp_ip, counts.esp_tcp), (0, 0), "{what}: {counts:?}");
    }
}

#[test]
fn udp_4500_blocked_in_mid_life_moves_esp_in_udp_into_tcp_under_tcp_fallback() {
    for (scene, what) in ONLY_UDP {
        let (stage, flows) = flowing(Scene { policies: FALLBACK, ..scene });
        let what = format!("UDP 4500 blocked in mid-life, {what}, tcp-fallback");
        udp_blocked(&stage, &what, ("tcp", "esp_unreachable", "*"));
        stage.wait(Side::B, ("tcp", "esp_unreachable", "*"));
        wait_more(&flows, 50);
        stage.pair.lab.unblock().unwrap();
        stage.wait(Side::A, ("direct_udp", "returned", "echo"));
        stage.wait(Side::B, ("direct_udp", "*", "*"));
        wait_more(&flows, 50);
        end(flows);
        let counts = stage.router.finish().unwrap();
        crate::nothing_in_clear(&counts);
        assert!(counts.esp_ip == 0 && counts.esp_tcp > 0, "{what}: {counts:?}");
    }
}

const ONLY_UDP: [(Scene, &str); 2] = [
    (Scene { nat: Nat::BeforeA, ..Scene::USUAL }, "behind a NAT"),
    (Scene { esp_transports: "[udp]", ..Scene::USUAL }, "UDP alone allowed"),
];

fn udp_blocked(stage: &Stage, what: &str, says: super::Says) {
    let promised = promised(stage);
    let blocked = SystemTime::now();
    stage.pair.lab.block(Blocked::Udp4500, Way::Both).unwrap();
    stage.wait(Side::A, says);
    let took = stage.came_to(Side::A, says, blocked);
    measured(what, took);
    within(took, promised);
    assert!(stage.pair.lab.filtered().unwrap() > 0, "the filter has met what it stops");
}

/// What gw-a says now that a decision takes at most, seconds.
fn promised(stage: &Stage) -> f64 {
    let connection = stage.pair.a.connection(Side::A.connection()).unwrap();
    connection.ike_sas[0].esp.decision_within_seconds
}

/// A scene where echo has proven the first carrier, with traffic both ways.
fn flowing(scene: Scene) -> (Stage, Vec<UdpFlow>) {
    let stage = scene.start();
    stage.wait(Side::A, ("direct_*", "*", "echo"));
    stage.wait(Side::B, ("direct_*", "*", "echo"));
    let flows = flows(&stage);
    wait_more(&flows, 50);
    (stage, flows)
}
