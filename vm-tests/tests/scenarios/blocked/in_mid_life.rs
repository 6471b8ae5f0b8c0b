//! Blocked while traffic flows, and unblocked.

use std::time::{Duration, Instant};

use portcullis_vm_tests::{Blocked, DataPlaneMode, Side, UdpFlow, Way};

use super::{BUSY, Scene, Stage, measured};
use crate::{SOON, flow, wait_more};

/// Slow enough to lose little of a machine.
const PACKETS_PER_SECOND: u32 = 200;

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
    let (stage, flows) = flowing(mode);
    stage.pair.lab.block(Blocked::Protocol50, way).unwrap();
    let blocked = Instant::now();
    let a = stage.wait(Side::A, ("direct_udp", "ip_unanswered", "echo"));
    let took = blocked.elapsed();
    measured(what, took);
    let most = Duration::from_secs_f64(a.ike_sas[0].esp.decision_within_seconds) + BUSY;
    assert!(took <= most, "{took:?}, decision within {most:?}");
    stage.wait(Side::B, ("direct_udp", "*", "echo"));
    wait_more(&flows, 50);
    end(flows);
    let (_, counts) = stage.finish();
    assert!(counts.esp_ip > 0 && counts.esp_udp > 0 && counts.esp_tcp == 0, "{counts:?}");
}

/// Rows 17 and 18 under fail-closed: shut, and back.
#[test]
fn both_blocked_in_mid_life_is_shut_under_fail_closed_and_returns() {
    let (stage, flows) = flowing(DataPlaneMode::Xdp);
    stage.pair.lab.block(Blocked::Protocol50, Way::Both).unwrap();
    stage.pair.lab.block(Blocked::Udp4500, Way::Both).unwrap();
    let blocked = Instant::now();
    stage.wait(Side::A, ("blocked", "esp_unreachable", "none"));
    let took = blocked.elapsed();
    measured("both blocked in mid-life, fail-closed", took);
    // 3 s and the shortened budget.
    assert!(took <= Duration::from_millis(4000) + BUSY, "{took:?}");
    assert!(stage.pair.lab.filtered().unwrap() > 0);
    let before = flows.iter().map(|flow| flow.progress().received).collect::<Vec<_>>();
    stage.stays_shut();
    let after = flows.iter().map(|flow| flow.progress().received).collect::<Vec<_>>();
    assert_eq!(before, after, "shut");

    stage.pair.lab.unblock().unwrap();
    let unblocked = Instant::now();
    // An attempt may be verifying at this moment, and find UDP answered whose first echoes over IP were still blocked.
    stage.wait(Side::A, ("*", "*", "echo"));
    measured("back after both were blocked, fail-closed", unblocked.elapsed());
    stage.wait(Side::B, ("*", "*", "echo"));
    wait_more(&flows, 50);
    end(flows);
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0, "fail-closed: ESP is never in TCP");
}

/// Rule 5: neither ESP nor IKE answers, so nothing is decided, and everything goes on when the router is back.
#[test]
fn router_outage_is_no_blockage() {
    let (stage, flows) = flowing(DataPlaneMode::Xdp);
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

/// A scene where echo has proven IP, with traffic both ways.
fn flowing(mode: DataPlaneMode) -> (Stage, Vec<UdpFlow>) {
    let stage = Scene { mode, ..Scene::USUAL }.start();
    stage.wait(Side::A, ("direct_ip", "none", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    let flows = [Side::A, Side::B].map(|side| flow(&stage.pair.lab, side, PACKETS_PER_SECOND));
    for flow in &flows {
        flow.wait(SOON, |p| p.received >= 50).expect("traffic before the block");
    }
    (stage, flows.into())
}

/// Ends flows that may have lost, and have doubled nothing.
fn end(flows: Vec<UdpFlow>) {
    for flow in flows {
        let report = flow.finish().unwrap();
        assert_eq!((report.duplicated, report.refused), (0, 0), "{report}");
    }
}
