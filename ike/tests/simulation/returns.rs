//! Falling back and coming back with ESP echo: rows 16 to 18 and 21, rules 7 to 9, from both ends.

use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{OnUnreachable, StartMode, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier};
use portcullis_ike::status::{Evidence, Reason, State};

use crate::configuration::{Pair, child};
use crate::network::{Protocol, Weather};
use crate::world::World;
use OnUnreachable::{FailClosed, TcpFallback};

const SECOND: Duration = Duration::from_secs(1);

/// Row 16, then row 21 by a trial, with one child and with two.
#[test]
fn a_tcp_start_without_a_direct_carrier_falls_into_tcp_and_comes_back_by_a_trial() {
    for children in [1, 2] {
        let mut pair = fallback(StartTransport::Tcp);
        if children == 2 {
            for (end, local, remote) in
                [(&mut pair.a, "10.11.0.0/16", "10.12.0.0/16"), (&mut pair.b, "10.12.0.0/16", "10.11.0.0/16")]
            {
                end.children.push(child("more", local, remote));
            }
            pair.a.children[1].start = StartMode::Always;
        }
        let mut world = pair.world(3);
        block(&mut world);
        world.traffic = Some(Duration::from_millis(100));
        assert!(world.run_until_holds(SECOND * 6, |world| is_in_tcp(world, 0)), "{:?}", world.status(0));
        world.run_for(SECOND * 2);
        world.assert_settled(children);
        assert_eq!(world.status(0).reason, Reason::EspUnreachable);
        assert_eq!(world.saw(0, is_established), 2);
        world.weather = Weather::default();
        let before = world.esp_in_tcp;
        assert!(world.run_until_holds(SECOND * 60, |world| world.state(0) == State::Trial));
        assert!(world.now.since(portcullis_ike::Time::ZERO) >= SECOND * 24);
        assert!(world.run_until_holds(SECOND * 15, |world| is_direct(world, 0) && is_direct(world, 1)));
        assert!(world.esp_in_tcp > before);
        world.run_for(SECOND * 10);
        world.assert_settled(children);
        let status = world.status(0);
        assert_eq!(
            (status.state, status.reason, status.evidence),
            (State::DirectIp, Reason::Returned, Evidence::Echo)
        );
        assert!(status.ike_sas[0].separate_transports);
        let (in_tcp, lost) = (world.esp_in_tcp, lost(&mut world));
        world.run_for(SECOND * 60);
        assert_eq!(world.esp_in_tcp, in_tcp, "nothing goes into TCP any more");
        assert_eq!(self::lost(&mut world), lost, "and nothing is lost");
        assert_eq!(world.nodes[0].endpoint.counters().returns, 1);
        world.shut_down_and_check();
    }
}

/// Rule 8: "no traffic until echo has answered 5 times"; unverified, the trial is deleted, and the next comes later.
#[test]
fn a_trial_without_an_answer_is_deleted_and_carries_nothing() {
    let mut world = fallback(StartTransport::Tcp).world(4);
    block(&mut world);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(SECOND * 8);
    let (lost_before, established) = (lost(&mut world), world.saw(0, is_established));
    world.run_for(SECOND * 600);
    world.assert_settled(1);
    assert_eq!((world.state(0), world.status(0).reason), (State::Tcp, Reason::TrialFailed));
    let trials = world.saw(0, is_established) - established;
    // After 30, 60, 120 and 240 s, a fifth more or less.
    assert!((3..=5).contains(&trials), "{trials}");
    assert_eq!(world.nodes[0].endpoint.counters().trials_failed, trials as u64);
    assert_eq!(lost(&mut world), lost_before, "traffic did not notice");
    // Nothing but echoes went out on a direct carrier.
    assert!(world.nodes[0].echoes.len() >= 20 * trials);
    world.shut_down_and_check();
}

/// Rule 8: a connection without any traffic comes back as well; the responder shows by a dummy that it has moved.
#[test]
fn an_idle_connection_comes_back_by_a_trial() {
    let mut world = fallback(StartTransport::Tcp).world(9);
    block(&mut world);
    assert!(world.run_until_holds(SECOND * 6, |world| is_in_tcp(world, 0)), "{:?}", world.status(0));
    world.weather = Weather::default();
    assert!(world.run_until_holds(SECOND * 60, |world| is_direct(world, 0) && is_direct(world, 1)));
    assert_eq!(world.status(0).reason, Reason::Returned);
    let counters = world.nodes[0].endpoint.counters();
    assert_eq!((counters.returns, counters.trials_failed), (1, 0));
    world.run_for(SECOND * 10);
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Rule 8: too few answers. And the operator's wish starts a trial at once.
#[test]
fn an_operator_may_ask_for_a_trial_at_once() {
    let mut world = fallback(StartTransport::Tcp).world(5);
    block(&mut world);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(SECOND * 8);
    world.weather = Weather::default();
    world.command(0, CommandKind::Probe);
    assert!(world.run_until_holds(SECOND * 12, |world| is_direct(world, 0) && is_direct(world, 1)));
    assert!(world.now.since(portcullis_ike::Time::ZERO) < SECOND * 22);
    // A responder cannot.
    world.run_for(SECOND * 10);
    world.assert_settled(1);
    world.command(1, CommandKind::Probe);
    let answered = |event: &Event| matches!(event, Event::CommandDone { result: Ok(_), .. });
    assert_eq!((world.saw(0, answered), world.saw(1, answered)), (1, 1));
    world.shut_down_and_check();
}

/// Rule 8: a relapse within 10 minutes holds the next trial down for a minute.
#[test]
fn a_relapse_is_held_down() {
    let mut world = fallback(StartTransport::Tcp).world(6);
    world.traffic = Some(Duration::from_millis(100));
    block(&mut world);
    world.run_for(SECOND * 8);
    world.weather = Weather::default();
    assert!(world.run_until_holds(SECOND * 60, |world| is_direct(world, 0)));
    world.run_for(SECOND * 70);
    block(&mut world);
    assert!(world.run_until_holds(SECOND * 20, |world| is_in_tcp(world, 0)), "{:?}", world.status(0));
    world.weather = Weather::default();
    world.run_for(SECOND * 45);
    assert!(is_in_tcp(&world, 0), "held down");
    assert!(world.run_until_holds(SECOND * 50, |world| is_direct(world, 0) && is_direct(world, 1)));
    world.run_for(SECOND * 10);
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Row 17: in mid-life and after a UDP start ESP moves in place, and back in place: one IKE SA all the time.
#[test]
fn mid_life_esp_moves_into_tcp_in_place_and_back() {
    for transport in [StartTransport::Tcp, StartTransport::UdpThenTcp] {
        let mut world = fallback(transport).world(7);
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(SECOND * 10);
        block(&mut world);
        assert!(world.run_until_holds(SECOND * 20, |world| is_in_tcp(world, 0) && is_in_tcp(world, 1)));
        assert_eq!(world.status(0).reason, Reason::EspUnreachable);
        assert!(world.status(0).ike_sas[0].separate_transports);
        world.weather = Weather::default();
        assert!(world.run_until_holds(SECOND * 60, |world| is_direct(world, 0) && is_direct(world, 1)));
        assert_eq!(world.status(0).reason, Reason::Returned);
        assert_eq!(world.saw(0, is_established), 1, "{transport:?}");
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// Row 18: under fail-closed ESP stops, the IKE SA goes, and the connection tries again with S; at most one fall a minute.
#[test]
fn fail_closed_blocks_and_tries_again_with_separate_transports() {
    for transport in [StartTransport::Tcp, StartTransport::UdpThenTcp] {
        let mut world = Pair::new(transport).world(8);
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(SECOND * 10);
        block(&mut world);
        assert!(world.run_until_holds(SECOND * 20, |world| world.state(0) == State::Blocked));
        let status = world.status(0);
        assert_eq!(status.reason, Reason::EspUnreachable);
        assert!(
            status.detail.contains("row 18") && status.detail.contains("encryption"),
            "{}",
            status.detail
        );
        world.run_for(SECOND * 600);
        assert_eq!(world.esp_in_tcp, 0);
        for node in 0..2 {
            assert_one_fall_per_hold_time(&world, node);
        }
        world.weather = Weather::default();
        assert!(world.run_until_holds(SECOND * 120, |world| is_direct(world, 0) && is_direct(world, 1)));
        world.run_for(SECOND * 10);
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// Rule 9: the stricter wins. The responder refuses ESP in TCP: `peer_refused_tcp`; then with S again, and row 18 instead of
/// 16, until the policy changes.
#[test]
fn a_peer_that_refuses_tcp_is_not_asked_again() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.b.esp.on_unreachable = FailClosed;
    let mut world = pair.world(9);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(SECOND * 10);
    block(&mut world);
    let refused = |world: &World| world.status(0).reason == Reason::PeerRefusedTcp;
    assert!(world.run_until_holds(SECOND * 60, refused), "{:?}", world.status(0));
    world.run_for(SECOND * 600);
    assert_eq!(world.esp_in_tcp, 0, "never");
    let without = |event: &Event| matches!(event, Event::IkeEstablished { separate_transports: false, .. });
    assert_eq!(world.saw(0, without), 1, "asked once");
    // The policy of this end changes, there and back: the peer is asked again.
    set(&mut world, 1, TcpFallback);
    set(&mut world, 0, FailClosed);
    set(&mut world, 0, TcpFallback);
    assert!(world.run_until_holds(SECOND * 200, |world| is_in_tcp(world, 0)), "{:?}", world.status(0));
    world.run_for(SECOND * 5);
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Rule 9: the initiator is the stricter one; the responder follows it to `blocked`, and never puts ESP into TCP alone.
#[test]
fn a_responder_under_fallback_follows_a_stricter_initiator() {
    let mut pair = fallback(StartTransport::Tcp);
    pair.a.esp.on_unreachable = FailClosed;
    let mut world = pair.world(10);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(SECOND * 10);
    block(&mut world);
    assert!(world.run_until_holds(SECOND * 60, |world| world.state(0) == State::Blocked));
    world.run_for(SECOND * 300);
    world.weather = Weather::default();
    assert!(world.run_until_holds(SECOND * 200, |world| is_direct(world, 0) && is_direct(world, 1)));
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Rule 5: what one end cannot send reaches the same end as what it cannot receive.
#[test]
fn a_one_way_block_is_a_block() {
    for from in 0..2 {
        for policy in [TcpFallback, FailClosed] {
            let pair = Pair::new(StartTransport::Tcp).both(|connection| {
                connection.esp.on_unreachable = policy;
                connection.esp.transports = vec![DirectCarrier::Ip];
            });
            let mut world = pair.world(11);
            world.traffic = Some(Duration::from_millis(100));
            world.run_for(SECOND * 10);
            world.weather.one_way = Some((from, Protocol::Ip));
            let is_there = |world: &World| match policy {
                TcpFallback => is_in_tcp(world, 0) && is_in_tcp(world, 1),
                FailClosed => world.state(0) == State::Blocked,
            };
            assert!(world.run_until_holds(SECOND * 30, is_there), "{from} {policy:?}: {:?}", world.status(0));
            world.run_for(SECOND * 120);
            world.weather = Weather::default();
            assert!(world.run_until_holds(SECOND * 400, |world| is_direct(world, 0) && is_direct(world, 1)));
            world.run_for(SECOND * 10);
            world.assert_settled(1);
            world.shut_down_and_check();
        }
    }
}

/// "A stricter policy stops ESP in TCP first; then, with S and in place, both ends verify direct carriers."
#[test]
fn a_stricter_policy_takes_esp_out_of_tcp_in_place() {
    for node in 0..2 {
        let mut world = fallback(StartTransport::Tcp).world(12);
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(SECOND * 10);
        block(&mut world);
        assert!(world.run_until_holds(SECOND * 20, |world| is_in_tcp(world, 0) && is_in_tcp(world, 1)));
        world.weather = Weather::default();
        set(&mut world, node, FailClosed);
        let path = world.nodes[node].paths.values().next().unwrap();
        assert!(!matches!(path.carrier, EspCarrier::Stream(_)), "within the same call");
        assert!(
            world.run_until_holds(SECOND * 40, |world| is_direct(world, 0) && is_direct(world, 1)),
            "{node}: {:?} {:?}",
            world.status(0),
            world.status(1)
        );
        world.run_for(SECOND * 60);
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

fn fallback(transport: StartTransport) -> Pair {
    Pair::new(transport).both(|connection| connection.esp.on_unreachable = TcpFallback)
}

fn set(world: &mut World, node: usize, on_unreachable: OnUnreachable) {
    world.command(node, CommandKind::SetEspPolicy { on_unreachable });
}

fn block(world: &mut World) {
    (world.weather.ip_blocked, world.weather.udp_blocked) = (true, true);
}

fn is_established(event: &Event) -> bool {
    matches!(event, Event::IkeEstablished { .. })
}

fn is_in_tcp(world: &World, node: usize) -> bool {
    matches!(world.state(node), State::Tcp | State::Trial)
}

fn is_direct(world: &World, node: usize) -> bool {
    matches!(world.state(node), State::DirectIp | State::DirectUdp)
}

fn lost(world: &mut World) -> u64 {
    let traffic = world.traffic.take();
    world.run_for(SECOND);
    world.traffic = traffic;
    world.flows.values().map(|flow| flow.sent - flow.received).sum()
}

/// Rule 5, as the operator sees it: "at most one fall per hold time"; what follows a change of policy is none.
pub fn assert_one_fall_per_hold_time(world: &World, node: usize) {
    let falls: Vec<_> = world.nodes[node]
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::StateChanged {
                to: State::Tcp | State::Blocked,
                reason: Reason::EspUnreachable,
                from,
                ..
            } if !matches!(from, State::Tcp | State::Trial | State::Blocked | State::Connecting) => Some(*at),
            _ => None,
        })
        .collect();
    for pair in falls.windows(2) {
        if world.policy_changes.iter().any(|at| pair[0] <= *at + SECOND && *at <= pair[1]) {
            continue;
        }
        assert!(pair[1].since(pair[0]) >= SECOND * 59, "node {node} fell at {falls:?}");
    }
}
