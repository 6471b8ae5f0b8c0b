//! tcp-fallback: ESP goes into the stream when nothing else passes, and comes back (rows 16, 17 and 21); two ends that differ
//! (rule 9).

use std::time::SystemTime;

use portcullis_vm_tests::{Blocked, Breakage, DataPlaneMode, Side, Way};

use super::{BOTH, FALLBACK, FALLEN, Says, Scene, Stage, end, flows, measured, within};
use crate::{SOON, wait_more};

const RETURNED: Says = ("direct_ip", "returned", "echo");
const SHUT: Says = ("blocked", "*", "none");

/// Row 16: a new IKE SA without S, and a trial with S that leads back.
#[test]
fn both_blocked_after_a_tcp_start_is_esp_in_tcp_and_returns_by_trial() {
    falls_at_start(DataPlaneMode::Xdp, "both blocked, TCP start, tcp-fallback");
}

#[test]
fn both_blocked_after_a_tcp_start_is_esp_in_tcp_and_returns_by_trial_on_tun() {
    falls_at_start(DataPlaneMode::Tun, "both blocked, TCP start, tcp-fallback, TUN");
}

fn falls_at_start(mode: DataPlaneMode, what: &str) {
    let stage = Scene { mode, policies: FALLBACK, filters: BOTH, ..Scene::USUAL }.start();
    let a = stage.wait(Side::A, FALLEN);
    let verification = stage.verification(Side::A, "unreachable", None);
    measured(what, verification);
    within(verification, 1.0);
    assert!(!a.ike_sas[0].separate_transports, "row 16: without S");
    let b = stage.wait(Side::B, ("tcp", "*", "*"));
    assert_eq!((a.esp_transport.as_deref(), b.esp_transport.as_deref()), (Some("tcp"), Some("tcp")));
    stage.passes();
    let in_tcp = stage.router.counts().esp_tcp;
    assert!(in_tcp > 0);

    let unblocked = SystemTime::now();
    stage.pair.lab.unblock().unwrap();
    stage.wait(Side::A, RETURNED);
    measured(&format!("{what}: back by trial"), stage.came_to(Side::A, RETURNED, unblocked));
    stage.wait(Side::B, ("direct_ip", "*", "*"));
    returned(stage);
}

/// Row 17: in place, on the stream of the IKE SA with S.
#[test]
fn both_blocked_in_mid_life_moves_into_tcp_in_place_and_back() {
    falls_in_place("tcp", "both blocked in mid-life, tcp-fallback");
}

#[test]
fn all_but_tcp_blocked_in_mid_life_moves_into_tcp_after_a_udp_start() {
    falls_in_place("udp-then-tcp", "all but TCP blocked in mid-life, UDP start, tcp-fallback");
}

fn falls_in_place(transport: &'static str, what: &str) {
    let stage = Scene { transport, policies: FALLBACK, ..Scene::USUAL }.start();
    let before = stage.wait(Side::A, ("direct_ip", "none", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    let flows = flows(&stage);
    wait_more(&flows, 50);
    let blocked = SystemTime::now();
    stage.pair.lab.block(Blocked::AllButTcp, Way::Both).unwrap();
    let a = stage.wait(Side::A, FALLEN);
    let took = stage.came_to(Side::A, FALLEN, blocked);
    measured(what, took);
    within(took, before.ike_sas[0].esp.decision_within_seconds);
    stage.wait(Side::B, FALLEN);
    assert!(a.ike_sas[0].separate_transports, "in place");
    assert_eq!(a.ike_sas[0].spi_i, before.ike_sas[0].spi_i, "in place");
    wait_more(&flows, 50);
    assert!(stage.router.counts().esp_tcp > 0);

    let unblocked = SystemTime::now();
    stage.pair.lab.unblock().unwrap();
    stage.wait(Side::A, RETURNED);
    measured(&format!("{what}: back in place"), stage.came_to(Side::A, RETURNED, unblocked));
    stage.wait(Side::B, ("direct_ip", "*", "*"));
    wait_more(&flows, 50);
    end(flows);
    returned(stage);
}

/// Requests pass and replies do not, or the other way round: either end finds out, and both end in TCP.
#[test]
fn both_blocked_one_way_in_mid_life_moves_both_ends_into_tcp() {
    for (from, what) in [
        (Side::A, "both blocked from the initiator in mid-life, tcp-fallback"),
        (Side::B, "both blocked from the responder in mid-life, tcp-fallback"),
    ] {
        let stage = Scene { policies: FALLBACK, ..Scene::USUAL }.start();
        let before = stage.wait(Side::A, ("direct_ip", "none", "echo"));
        stage.wait(Side::B, ("direct_ip", "*", "echo"));
        let flows = flows(&stage);
        wait_more(&flows, 50);
        let blocked = SystemTime::now();
        stage.pair.lab.block(Blocked::AllButTcp, Way::From(from)).unwrap();
        stage.wait(Side::A, FALLEN);
        let took = stage.came_to(Side::A, FALLEN, blocked);
        measured(what, took);
        within(took, before.ike_sas[0].esp.decision_within_seconds);
        stage.wait(Side::B, FALLEN);
        wait_more(&flows, 50);
        end(flows);
        stage.finish();
    }
}

/// A middlebox resets the stream that carries ESP: ESP goes on in the next one.
#[test]
fn esp_in_tcp_outlives_a_reset_of_its_stream() {
    let stage = Scene { policies: FALLBACK, filters: BOTH, ..Scene::USUAL }.start();
    stage.wait(Side::A, FALLEN);
    stage.passes();
    stage.pair.lab.break_streams(Breakage::Reset).unwrap();
    stage.passes();
    stage.wait(Side::A, FALLEN);
    stage.finish();
}

/// Rule 9: the stricter end wins, whichever it is; nothing is in TCP, and it comes back.
#[test]
fn stricter_policy_of_the_responder_wins_at_the_start() {
    stricter_wins(["tcp-fallback", "fail-closed"]);
}

#[test]
fn stricter_policy_of_the_initiator_wins_at_the_start() {
    stricter_wins(["fail-closed", "tcp-fallback"]);
}

fn stricter_wins(policies: [&'static str; 2]) {
    let stage = Scene { policies, filters: BOTH, ..Scene::USUAL }.start();
    let what = format!("both blocked, TCP start, initiator {}, responder {}", policies[0], policies[1]);
    stage.wait(Side::A, SHUT);
    measured(&what, stage.came_to(Side::A, SHUT, stage.began()));
    stage.stays_shut();
    // Either carrier: the filter may go in the middle of a verification.
    stage.pair.lab.unblock().unwrap();
    stage.wait(Side::A, ("direct_*", "*", "echo"));
    stage.wait(Side::B, ("direct_*", "*", "echo"));
    stage.passes();
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0, "one end is fail-closed");
}

#[test]
fn stricter_policy_wins_in_mid_life() {
    for policies in [["tcp-fallback", "fail-closed"], ["fail-closed", "tcp-fallback"]] {
        let stage = Scene { policies, ..Scene::USUAL }.start();
        stage.wait(Side::A, ("direct_ip", "none", "echo"));
        stage.wait(Side::B, ("direct_ip", "*", "echo"));
        let flows = flows(&stage);
        wait_more(&flows, 50);
        let blocked = SystemTime::now();
        stage.pair.lab.block(Blocked::AllButTcp, Way::Both).unwrap();
        stage.wait(Side::A, SHUT);
        let what = format!("both blocked in mid-life, initiator {}, responder {}", policies[0], policies[1]);
        measured(&what, stage.came_to(Side::A, SHUT, blocked));
        stage.pair.lab.unblock().unwrap();
        stage.wait(Side::A, ("direct_*", "*", "echo"));
        wait_more(&flows, 50);
        end(flows);
        let counts = stage.router.finish().unwrap();
        crate::nothing_in_clear(&counts);
        // The end with tcp-fallback asks by echo whether the stream carries ESP; the other one answers none. No data is in it.
        const ECHOES: u64 = 8;
        assert!(counts.esp_tcp <= ECHOES, "{policies:?}: {counts:?}");
    }
}

/// Traffic is on the direct carrier again, and none is in TCP any more.
fn returned(stage: Stage) {
    stage.passes();
    let before = stage.router.counts();
    stage.passes();
    let after = stage.router.wait(SOON, |c| c.esp_ip > before.esp_ip).expect("ESP over IP again");
    assert_eq!(after.esp_tcp, before.esp_tcp, "none in TCP any more");
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!(counts.tcp_unreadable, 0);
}
