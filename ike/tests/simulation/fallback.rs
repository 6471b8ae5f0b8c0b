//! ESP in TCP: rows 14 to 18 as far as they need no echo, two ends with two policies, and policies that change.

use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{OnUnreachable, RemoteAddress, SeparateTransports, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier, IkeTransport};
use portcullis_ike::status::{Evidence, Reason, State};

use crate::configuration::{A, NAT, Pair};
use crate::network::{Nat, Tcp};
use crate::world::World;
use OnUnreachable::{FailClosed, TcpFallback};

/// Row 14, with a peer that knows no SEPARATE_TRANSPORTS, and with `off` here.
#[test]
fn without_separate_transports_esp_goes_into_tcp_under_fallback() {
    for (off, reasons) in [
        (1, [Reason::PeerNoSeparate, Reason::SeparateOff]),
        (0, [Reason::SeparateOff, Reason::PeerNoSeparate]),
    ] {
        let mut pair = fallback(StartTransport::Tcp);
        let end = if off == 0 { &mut pair.a } else { &mut pair.b };
        end.ike.separate_transports = SeparateTransports::Off;
        let mut world = pair.world(1);
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(Duration::from_secs(10));
        assert_in_tcp(&world, reasons);
        assert_data_flows(&mut world);
        world.shut_down_and_check();
    }
}

/// Row 14 behind a NAT: nothing of it matters in TCP.
#[test]
fn esp_in_tcp_does_not_mind_a_nat() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    pair.b.remote_address = RemoteAddress::Any;
    let mut world = pair.both(|connection| connection.esp.transports = vec![DirectCarrier::Ip]).world(1);
    world.nat = Some(Nat::new(A, NAT));
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(100));
    assert_in_tcp(&world, [Reason::PeerNoSeparate, Reason::SeparateOff]);
    assert_eq!(world.udp_datagrams, 0, "RFC 9329 section 6.6: no keepalives");
    world.shut_down_and_check();
}

/// RFC 9329 section 6.1: ESP follows the stream, in both roles; while there is none it is dropped.
#[test]
fn esp_follows_the_stream_across_reconnections() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(50));
    world.run_for(Duration::from_secs(5));
    for n in 0..5 {
        let before: Vec<_> = (0..2).map(|node| carrier(&world, node)).collect();
        match n % 2 {
            0 => world.break_streams(),
            _ => world.break_streams_of(1),
        }
        world.run_for(Duration::from_secs(3));
        for (node, before) in before.into_iter().enumerate() {
            assert_ne!(carrier(&world, node), before, "node {node} has moved to the new stream");
        }
        assert_in_tcp(&world, [Reason::PeerNoSeparate, Reason::SeparateOff]);
        assert_data_flows(&mut world);
    }
    assert_eq!(world.saw(0, |event| matches!(event, Event::IkeRemoved { .. })), 0);
    world.shut_down_and_check();
}

/// Rekeys of child and IKE SA stay in the stream and lose nothing.
#[test]
fn rekeys_in_tcp_lose_nothing() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(20));
    world.run_for(Duration::from_secs(5));
    for side in [0, 1, 0, 1] {
        world.command(side, CommandKind::RekeyChild { child: None });
        world.command(side, CommandKind::RekeyIke);
        world.run_for(Duration::from_secs(10));
    }
    assert_in_tcp(&world, [Reason::PeerNoSeparate, Reason::SeparateOff]);
    world.traffic = None;
    world.run_for(Duration::from_secs(1));
    for (name, flow) in &world.flows {
        assert_eq!((flow.received, flow.reordered), (flow.sent, 0), "{name:?}");
    }
    world.shut_down_and_check();
}

/// Rows 14 and 15: `require` forbids it, whatever the policy is.
#[test]
fn require_abandons_a_tcp_start_without_separate_transports() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.a.ike.separate_transports = SeparateTransports::Require;
    pair.b.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(4));
    assert_eq!((world.state(0), world.status(0).reason), (State::Blocked, Reason::PeerNoSeparate));
    assert_eq!(world.saw(1, |event| matches!(event, Event::IkeEstablished { .. })), 0);
    world.shut_down_and_check();
}

/// Rule 9: a responder under fail-closed authenticates, then refuses the child and deletes.
#[test]
fn a_responder_under_fail_closed_refuses_esp_in_tcp() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.a.ike.separate_transports = SeparateTransports::Off;
    pair.b.esp.on_unreachable = FailClosed;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(4));
    assert!(world.saw(1, |event| matches!(event, Event::IkeEstablished { .. })) >= 1);
    // No child was ever made with separate transports, so it may be the proposals.
    assert_eq!((world.state(0), world.status(0).reason), (State::Blocked, Reason::NoProposalChosen));
    assert_eq!((world.state(1), world.status(1).reason), (State::Blocked, Reason::PeerNoSeparate));
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty() && node.inbound.is_empty()));
    assert_eq!(world.esp_in_tcp, 0);
    world.shut_down_and_check();
}

/// Configuration part: NAT and no `udp` among the carriers, under fallback: row 16 on a TCP start, 17 on a UDP start.
#[test]
fn a_nat_without_udp_among_the_carriers_leads_into_tcp_under_fallback() {
    for transport in [StartTransport::Tcp, StartTransport::UdpThenTcp] {
        let mut pair = fallback(transport);
        pair.b.remote_address = RemoteAddress::Any;
        pair.a.esp.transports = vec![DirectCarrier::Ip];
        let mut world = pair.world(1);
        world.nat = Some(Nat::new(A, NAT));
        world.traffic = Some(Duration::from_millis(100));
        assert!(world.run_until_holds(Duration::from_secs(5), |world| world.state(0) == State::Tcp));
        world.run_for(Duration::from_secs(2));
        assert_in_tcp(&world, [Reason::EspUnreachable, Reason::PeerNoSeparate]);
        assert_data_flows(&mut world);
        assert_eq!(world.saw(0, |event| matches!(event, Event::IkeEstablished { .. })), 2);
        world.shut_down_and_check();
    }
}

/// Rule 7: "TCP refused or silent for 10 s: blocked `ike_tcp_unreachable`, next try from the configured start."
#[test]
fn a_fall_whose_new_stream_is_refused_blocks_and_starts_over() {
    let mut pair = fallback(StartTransport::UdpThenTcp);
    pair.b.remote_address = RemoteAddress::Any;
    pair.a.esp.transports = vec![DirectCarrier::Ip];
    let mut world = pair.world(1);
    world.nat = Some(Nat::new(A, NAT));
    let closing = |world: &World| world.saw(0, |event| matches!(event, Event::IkeRemoved { .. })) == 1;
    assert!(world.run_until_holds(Duration::from_secs(5), closing));
    world.weather.tcp = Tcp::Refused;
    assert!(world.run_until_holds(Duration::from_secs(5), |world| world.state(0) == State::Blocked));
    assert_eq!(world.status(0).reason, Reason::IkeTcpUnreachable);
    let datagrams = world.udp_datagrams;
    world.weather.tcp = Tcp::Works;
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(70));
    assert!(world.udp_datagrams > datagrams, "UDP, as configured");
    assert_in_tcp(&world, [Reason::EspUnreachable, Reason::PeerNoSeparate]);
    world.shut_down_and_check();
}

/// "A stricter policy stops ESP in TCP in the data plane first; without S the initiator goes to row 18."
#[test]
fn a_stricter_policy_at_the_initiator_takes_esp_out_of_tcp_at_once() {
    let mut world = fallen_world();
    set(&mut world, 0, FailClosed);
    let status = world.status(0);
    assert!(status.ike_sas.iter().all(|sa| sa.esp_path.is_none_or(|path| path.carrier == EspCarrier::Shut)));
    assert!(
        world.nodes[0].paths.values().all(|path| path.carrier == EspCarrier::Shut),
        "within the same call"
    );
    world.run_for(Duration::from_secs(2));
    assert_eq!((world.state(0), world.status(0).reason), (State::Blocked, Reason::EspUnreachable));
    let next = world.status(0).next_attempt.unwrap();
    assert!(next.since(world.now) < Duration::from_secs(60));
    assert!(world.status(1).ike_sas.is_empty());
    // The peer has no SEPARATE_TRANSPORTS, so nothing better comes.
    world.run_for(Duration::from_secs(60));
    assert_eq!((world.state(0), world.status(0).reason), (State::Blocked, Reason::PeerNoSeparate));
    // A looser policy takes effect at the next decision.
    set(&mut world, 0, TcpFallback);
    world.run_for(Duration::from_secs(90));
    assert_in_tcp(&world, [Reason::PeerNoSeparate, Reason::SeparateOff]);
    world.shut_down_and_check();
}

/// "A responder DELETEs at once."
#[test]
fn a_stricter_policy_at_the_responder_deletes_at_once() {
    let mut world = fallen_world();
    set(&mut world, 1, FailClosed);
    assert!(world.nodes[1].paths.values().all(|path| path.carrier == EspCarrier::Shut));
    world.run_for(Duration::from_millis(500));
    assert!((0..2).all(|node| world.status(node).ike_sas.is_empty()));
    assert_eq!((world.state(1), world.status(1).reason), (State::Blocked, Reason::EspUnreachable));
    assert_eq!(world.status(0).reason, Reason::PeerDeleted);
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.status(0).ike_sas.len() + world.status(1).ike_sas.len(), 0, "refused from now on");
    world.shut_down_and_check();
}

/// "Re-decides if blocked `esp_unreachable`."
#[test]
fn a_looser_policy_turns_row_18_into_row_16() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    pair.a.ike.retry_min = Duration::from_secs(50);
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(5));
    set(&mut world, 0, FailClosed);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.state(0), State::Blocked);
    set(&mut world, 0, TcpFallback);
    world.run_for(Duration::from_secs(2));
    assert_in_tcp(&world, [Reason::EspUnreachable, Reason::SeparateOff]);
    world.shut_down_and_check();
}

/// A fall under way when the policy becomes stricter: no IKE SA without S comes of it.
#[test]
fn a_stricter_policy_stops_a_fall_at_any_moment() {
    for after_ms in (0..200).step_by(5) {
        let mut pair = fallback(StartTransport::Tcp);
        pair.b.ike.separate_transports = SeparateTransports::Off;
        let mut world = pair.world(after_ms);
        world.traffic = Some(Duration::from_millis(10));
        world.run_for(Duration::from_millis(after_ms));
        set(&mut world, 0, FailClosed);
        let sent = world.esp_in_tcp;
        world.run_for(Duration::from_secs(100));
        assert_eq!(world.state(0), State::Blocked, "after {after_ms} ms");
        assert!(world.nodes[0].outbound.is_empty());
        assert!(world.esp_in_tcp <= sent + 10, "the responder stops when the DELETE arrives");
        world.shut_down_and_check();
    }
}

/// The ESP policy alone has changed in the configuration: SAs stay, and act on it.
#[test]
fn a_reload_that_changes_the_policy_alone_keeps_the_sas() {
    let mut world = fallback(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(5));
    let before = world.status(0).ike_sas[0].id;
    let mut changed = world.nodes[0].config.1[0].clone();
    changed.esp.on_unreachable = FailClosed;
    let now = world.now;
    world.nodes[0].endpoint.set_connections(now, vec![changed]);
    world.nodes[0].on_unreachable = FailClosed;
    world.run_for(Duration::from_secs(60));
    world.assert_settled(1);
    assert_eq!(world.status(0).ike_sas[0].id, before);
    world.shut_down_and_check();
}

#[test]
fn a_policy_that_cannot_work_is_refused_and_changes_nothing() {
    let mut pair = Pair::new(StartTransport::Udp);
    pair.b.ike.transport = StartTransport::Udp;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    let now = world.now;
    let refused = world.nodes[0].endpoint.set_esp_policy(now, "c", TcpFallback);
    assert!(refused.unwrap_err().contains("no TCP stream"));
    assert!(world.nodes[0].endpoint.set_esp_policy(now, "other", FailClosed).is_err());
    assert!(world.nodes[0].endpoint.set_esp_policy(now, "c", FailClosed).is_ok());
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// The ESP in TCP of `off`.
fn fallen_world() -> World {
    let mut pair = fallback(StartTransport::Tcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(5));
    assert_in_tcp(&world, [Reason::PeerNoSeparate, Reason::SeparateOff]);
    world
}

fn fallback(transport: StartTransport) -> Pair {
    Pair::new(transport).both(|connection| connection.esp.on_unreachable = TcpFallback)
}

fn set(world: &mut World, node: usize, on_unreachable: OnUnreachable) {
    world.command(node, CommandKind::SetEspPolicy { on_unreachable });
}

fn carrier(world: &World, node: usize) -> EspCarrier {
    world.status(node).ike_sas[0].esp_path.unwrap().carrier
}

fn assert_in_tcp(world: &World, reasons: [Reason; 2]) {
    world.assert_settled(1);
    for (node, reason) in reasons.into_iter().enumerate() {
        let status = world.status(node);
        // A peer that announced ESP echo is worth a trial from time to time, whatever it says to SEPARATE_TRANSPORTS.
        let has_reason = [reason, Reason::TrialFailed].contains(&status.reason);
        assert!(has_reason, "node {node}: {:?}", status.reason);
        assert_eq!((status.state, status.evidence), (State::Tcp, Evidence::Inbound), "node {node}");
        let sa = &status.ike_sas[0];
        assert_eq!((sa.transport, sa.separate_transports), (IkeTransport::Tcp, false));
        assert!(matches!(carrier(world, node), EspCarrier::Stream(_)));
    }
}

fn assert_data_flows(world: &mut World) {
    let before: Vec<_> = world.flows.values().map(|flow| flow.received).collect();
    world.run_for(Duration::from_secs(2));
    for ((name, flow), before) in world.flows.iter().zip(before) {
        assert!(flow.received >= before + 10, "{name:?}: {} after {before}", flow.received);
    }
}
