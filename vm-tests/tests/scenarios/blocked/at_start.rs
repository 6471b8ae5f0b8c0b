//! Blocked before the first packet.

use std::time::Duration;

use portcullis_vm_tests::{Blocked, DataPlaneMode, Nat, Side, Way};

use super::{Scene, Stage, measured, within};

/// attempts × timeout + stagger, shortened. Without an IKE SA `status` has none to say.
const BUDGET_SECONDS: f64 = 1.0;
/// `ike.tcp_timeout`, shortened.
const TCP_TIMEOUT_SECONDS: f64 = 1.0;

#[test]
fn protocol_50_blocked_leaves_udp_after_a_tcp_start() {
    let filters = &[(Blocked::Protocol50, Way::Both)];
    let stage = Scene { filters, ..Scene::USUAL }.start();
    direct_udp(stage, "protocol 50 blocked, TCP start", "ip_unanswered");
}

#[test]
fn protocol_50_blocked_leaves_udp_after_a_udp_start() {
    let filters = &[(Blocked::Protocol50, Way::Both)];
    let stage =
        Scene { transport: "udp-then-tcp", mode: DataPlaneMode::Tun, filters, ..Scene::USUAL }.start();
    direct_udp(stage, "protocol 50 blocked, UDP start", "ip_unanswered");
}

/// Row 12: with a NAT only UDP will do, and nothing else is asked.
#[test]
fn protocol_50_blocked_makes_no_difference_behind_a_nat() {
    let filters = &[(Blocked::Protocol50, Way::Both), (Blocked::UdpAbove(1480), Way::Both)];
    for nat in [Nat::BeforeA, Nat::BeforeB] {
        let stage = Scene { nat, filters, ..Scene::USUAL }.start();
        stage.wait(Side::A, ("direct_udp", "nat", "echo"));
        stage.wait(Side::B, ("direct_udp", "*", "echo"));
        stage.passes();
        let counts = stage.router.finish().unwrap();
        crate::nothing_in_clear(&counts);
        assert_eq!((counts.esp_ip, counts.esp_tcp), (0, 0), "{nat:?}: {counts:?}");
    }
}

/// Nothing is asked over UDP once IP has answered, whichever way UDP is blocked.
#[test]
fn udp_4500_blocked_one_way_leaves_ip_after_a_tcp_start() {
    for filters in [&[(Blocked::Udp4500, Way::From(Side::A))], &[(Blocked::Udp4500, Way::From(Side::B))]] {
        let stage = Scene { filters, ..Scene::USUAL }.start();
        stage.wait(Side::A, ("direct_ip", "none", "echo"));
        stage.wait(Side::B, ("direct_ip", "*", "echo"));
        stage.passes();
        let counts = stage.router.finish().unwrap();
        crate::nothing_in_clear(&counts);
        assert_eq!((counts.esp_udp, counts.esp_tcp), (0, 0), "{filters:?}: {counts:?}");
    }
}

/// Where ESP may go in UDP alone, one direction is enough to shut it.
#[test]
fn udp_4500_blocked_one_way_is_shut_where_only_udp_is_allowed() {
    for (filters, what) in [
        (&[(Blocked::Udp4500, Way::From(Side::A))], "UDP 4500 blocked from the initiator, UDP alone allowed"),
        (&[(Blocked::Udp4500, Way::From(Side::B))], "UDP 4500 blocked from the responder, UDP alone allowed"),
    ] {
        let stage = Scene { filters, esp_transports: "[udp]", ..Scene::USUAL }.start();
        stage.wait(Side::A, ("blocked", "esp_unreachable", "none"));
        let verification = stage.verification(Side::A, "unreachable", None);
        measured(what, verification);
        within(verification, BUDGET_SECONDS);
        stage.stays_shut();
        let (_, counts) = stage.finish();
        assert_eq!((counts.esp_ip, counts.esp_tcp), (0, 0), "{what}: {counts:?}");
    }
}

fn direct_udp(stage: Stage, what: &str, reason: &'static str) {
    let a = stage.wait(Side::A, ("direct_udp", reason, "echo"));
    stage.wait(Side::B, ("direct_udp", "*", "echo"));
    stage.passes();
    let verification = stage.verification(Side::A, "answered", Some("udp"));
    measured(what, verification);
    within(verification, a.ike_sas[0].esp.budget_seconds);
    let (_, counts) = stage.finish();
    assert!(counts.esp_udp > 0 && counts.esp_tcp == 0, "{counts:?}");
}

#[test]
fn udp_4500_blocked_leaves_ip_after_a_tcp_start() {
    let filters = &[(Blocked::Udp4500, Way::Both)];
    // An idle echo over UDP is not sent once IP has answered, so the filter is what a later packet meets.
    let stage = Scene { filters, ..Scene::USUAL }.start();
    let a = stage.wait(Side::A, ("direct_ip", "none", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    stage.passes();
    let verification = stage.verification(Side::A, "answered", Some("ip"));
    measured("UDP 4500 blocked, TCP start", verification);
    within(verification, a.ike_sas[0].esp.budget_seconds);
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0);
}

/// Row 9: IKE finds TCP, and ESP its carrier by row 11.
#[test]
fn udp_4500_blocked_leads_a_udp_start_to_tcp_and_ip() {
    let filters = &[(Blocked::Udp4500, Way::Both)];
    let stage = Scene { transport: "udp-then-tcp", filters, ..Scene::USUAL }.start();
    let says = ("direct_ip", "ike_udp_unreachable", "echo");
    let a = stage.wait(Side::A, says);
    assert_eq!(a.ike_transport.as_deref(), Some("tcp"));
    let took = stage.came_to(Side::A, says, stage.began());
    measured("UDP 4500 blocked, UDP start: until ESP is proven", took);
    // Three requests over UDP, the first waited for 300 ms, each further one twice as long; then TCP; then the verification.
    within(took, 2.1 + a.ike_sas[0].esp.budget_seconds);
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    stage.passes();
    let (_, counts) = stage.finish();
    assert!(counts.esp_ip > 0 && counts.esp_tcp == 0, "{counts:?}");
}

/// Row 18: shut, nothing in TCP, and back when the filter is gone.
#[test]
fn both_blocked_is_shut_under_fail_closed_and_returns() {
    let filters = &[(Blocked::Protocol50, Way::Both), (Blocked::Udp4500, Way::Both)];
    let stage = Scene { filters, ..Scene::USUAL }.start();
    let a = stage.wait(Side::A, ("blocked", "esp_unreachable", "none"));
    assert!(a.detail.contains("IKE answered") && a.detail.contains("untouched"), "{}", a.detail);
    let verification = stage.verification(Side::A, "unreachable", None);
    measured("both blocked, TCP start", verification);
    within(verification, BUDGET_SECONDS);
    stage.stays_shut();

    // Either carrier: the filter may go in the middle of a verification.
    stage.pair.lab.unblock().unwrap();
    stage.wait(Side::A, ("direct_*", "*", "echo"));
    stage.wait(Side::B, ("direct_*", "*", "echo"));
    stage.passes();
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0, "fail-closed: ESP is never in TCP");
}

/// Row 10.
#[test]
fn tcp_4500_blocked_is_no_ike_after_a_tcp_start() {
    let filters = &[(Blocked::Tcp4500, Way::Both)];
    let stage = Scene { filters, ..Scene::USUAL }.start();
    let says = ("blocked", "ike_tcp_unreachable", "none");
    stage.wait(Side::A, says);
    let took = stage.came_to(Side::A, says, stage.began());
    measured("TCP 4500 blocked, TCP start", took);
    within(took, TCP_TIMEOUT_SECONDS);
    stage.stays_shut();
    let (_, counts) = stage.finish();
    assert_eq!((counts.esp_direct(), counts.ike_udp_4500.packets), (0, 0), "tcp: no UDP: {counts:?}");
}

/// Row 7: IKE stays on UDP, where the key exchange fits.
#[test]
fn tcp_4500_blocked_leaves_ike_on_udp_after_a_udp_start() {
    let filters = &[(Blocked::Tcp4500, Way::Both)];
    let stage = Scene { transport: "udp-then-tcp", filters, ..Scene::USUAL }.start();
    let says = ("direct_ip", "ike_tcp_unreachable", "echo");
    let a = stage.wait(Side::A, says);
    assert_eq!(a.ike_transport.as_deref(), Some("udp"));
    let took = stage.came_to(Side::A, says, stage.began());
    measured("TCP 4500 blocked, UDP start: until ESP is proven", took);
    within(took, TCP_TIMEOUT_SECONDS + a.ike_sas[0].esp.budget_seconds);
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    stage.passes();
    let (_, counts) = stage.finish();
    assert!(counts.esp_direct() > 0 && counts.esp_tcp == 0, "{counts:?}");
}

/// Rows 9 and 18.
#[test]
fn all_but_tcp_blocked_is_shut_under_fail_closed() {
    let filters = &[(Blocked::AllButTcp, Way::Both)];
    let stage = Scene { transport: "udp-then-tcp", filters, ..Scene::USUAL }.start();
    let says = ("blocked", "esp_unreachable", "none");
    stage.wait(Side::A, says);
    measured("all but TCP blocked, UDP start: until shut", stage.came_to(Side::A, says, stage.began()));
    within(stage.verification(Side::A, "unreachable", None), BUDGET_SECONDS);
    stage.stays_shut();
    let (_, counts) = stage.finish();
    assert_eq!(counts.esp_tcp, 0);
}

/// Requests that pass and replies that do not prove nothing, whichever way it is.
#[test]
fn protocol_50_blocked_one_way_leaves_udp() {
    for (filters, what) in [
        (&[(Blocked::Protocol50, Way::From(Side::A))], "protocol 50 blocked from the initiator"),
        (&[(Blocked::Protocol50, Way::From(Side::B))], "protocol 50 blocked from the responder"),
    ] {
        let stage = Scene { filters, ..Scene::USUAL }.start();
        direct_udp(stage, what, "ip_unanswered");
    }
}

/// The budget as it ships: 3 × 1 s, 250 ms and a round trip.
#[test]
fn default_timers_decide_within_3_25_s() {
    let filters = &[(Blocked::Protocol50, Way::Both), (Blocked::Udp4500, Way::Both)];
    let stage = Scene { filters, default_timers: true, ..Scene::USUAL }.start();
    stage.wait(Side::A, ("blocked", "esp_unreachable", "none"));
    let verification = stage.verification(Side::A, "unreachable", None);
    measured("both blocked, TCP start, timers as they ship", verification);
    assert!(verification >= Duration::from_secs(3), "every attempt was waited for: {verification:?}");
    within(verification, 3.25);
    let (_, counts) = stage.finish();
    assert_eq!(counts.esp_tcp, 0);
}
