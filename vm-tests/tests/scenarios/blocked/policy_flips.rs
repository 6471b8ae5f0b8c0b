//! The policy changes over the API while ESP is in TCP and traffic flows (rule 9, and "when the policy changes"): at either end a
//! stricter one takes ESP out of TCP at once, and a looser one lets it fall again.

use std::time::{Duration, SystemTime};

use portcullis_vm_tests::{Blocked, DaemonEvent, Side, UdpFlow, Way};

use super::{BOTH, FALLBACK, FALLEN, PACKETS_PER_SECOND, Scene, Stage, end, flows, is_change, measured};
use crate::{SOON, wait_more};

#[test]
fn initiator_flipped_under_load_acts_at_once() {
    let stage = Scene { policies: FALLBACK, ..Scene::USUAL }.start();
    let flows = fallen_in_place(&stage);
    let flipped = SystemTime::now();
    set(&stage, Side::A, "fail-closed");
    measured("policy set to fail-closed under load: out of TCP", out_of_tcp(&stage, Side::A, flipped));
    stops(&flows[0]);
    stage.wait(Side::A, ("blocked", "esp_unreachable", "none"));

    let flipped = SystemTime::now();
    set(&stage, Side::A, "tcp-fallback");
    stage.wait(Side::A, FALLEN);
    let took = stage.came_to(Side::A, FALLEN, flipped);
    measured("policy set to tcp-fallback under load: in TCP", took);
    wait_more(&flows, 50);
    end(flows);
    stage.finish();
}

/// In place: the responder takes its ESP out, refuses that of its initiator, finds no direct carrier and ends the IKE SA.
#[test]
fn responder_flipped_under_load_acts_at_once_in_place() {
    let stage = Scene { policies: FALLBACK, ..Scene::USUAL }.start();
    let flows = fallen_in_place(&stage);
    flip_responder(stage, flows, "in place");
}

/// Row 16: without SEPARATE_TRANSPORTS there is no other carrier on this IKE SA, and the responder ends it at once.
#[test]
fn responder_flipped_under_load_acts_at_once_after_row_16() {
    let stage = Scene { policies: FALLBACK, filters: BOTH, ..Scene::USUAL }.start();
    stage.wait(Side::A, FALLEN);
    stage.wait(Side::B, ("tcp", "*", "*"));
    let flows = flows(&stage);
    wait_more(&flows, 50);
    flip_responder(stage, flows, "row 16");
}

fn flip_responder(stage: Stage, flows: Vec<UdpFlow>, what: &str) {
    let flipped = SystemTime::now();
    set(&stage, Side::B, "fail-closed");
    let took = out_of_tcp(&stage, Side::B, flipped);
    measured(&format!("policy of the responder set to fail-closed under load, {what}: out of TCP"), took);
    // What the responder sends, and what it takes.
    flows.iter().rev().for_each(stops);
    stage.wait(Side::A, ("blocked", "*", "none"));
    let at_b = stage.pair.b.connection(Side::B.connection()).unwrap();
    assert_ne!(at_b.esp_transport.as_deref(), Some("tcp"));

    set(&stage, Side::B, "tcp-fallback");
    let up = SystemTime::now();
    // After the peer's DELETE an initiator waits half a minute by itself (rule 9).
    stage.pair.a.verb(&["up", Side::A.connection()]).unwrap();
    stage.wait(Side::A, FALLEN);
    stage.wait(Side::B, ("tcp", "*", "*"));
    let took = stage.came_to(Side::A, FALLEN, up);
    measured(&format!("policy of the responder set to tcp-fallback, {what}: in TCP after `up`"), took);
    wait_more(&flows, 50);
    end(flows);
    stage.finish();
}

/// ESP in TCP in place, with traffic.
fn fallen_in_place(stage: &Stage) -> Vec<UdpFlow> {
    stage.wait(Side::A, ("direct_ip", "none", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    let flows = flows(stage);
    stage.pair.lab.block(Blocked::AllButTcp, Way::Both).unwrap();
    stage.wait(Side::A, FALLEN);
    stage.wait(Side::B, FALLEN);
    wait_more(&flows, 50);
    flows
}

fn set(stage: &Stage, side: Side, policy: &str) {
    stage.pair.gateway(side).verb(&["policy", "set", policy, side.connection()]).unwrap();
}

/// How long after `since` ESP of a side was in TCP no more, by its own event.
fn out_of_tcp(stage: &Stage, side: Side, since: SystemTime) -> Duration {
    let is_out = |event: &&DaemonEvent| {
        is_change(side, event) && event.time >= since && event.text("esp_transport") != "tcp"
    };
    let events = stage.pair.gateway(side).events();
    let at = events.wait(SOON, |events| events.iter().find(is_out).map(|event| event.time));
    at.expect("ESP is taken out of TCP").duration_since(since).unwrap_or_default()
}

/// No more of a flow arrives than was on the way.
fn stops(flow: &UdpFlow) {
    let before = flow.progress();
    flow.wait(SOON, |p| p.sent >= before.sent + u64::from(PACKETS_PER_SECOND)).unwrap();
    let arrived = flow.progress().received - before.received;
    assert!(arrived <= 5, "{arrived} packets arrived under fail-closed");
}
