//! Verification by ESP echo, walked from both ends: rows 1, 2, 3, 11, 12, 17 to 21 of the transport policy, and how long
//! decisions take.

use std::time::Duration;

use portcullis_ike::Time;
use portcullis_ike::command::{CommandKind, Fact};
use portcullis_ike::config::{OnUnreachable, RemoteAddress, StartMode, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier};
use portcullis_ike::status::{Evidence, Reason, State, Verdict};

use crate::configuration::{A, NAT, Pair, child};
use crate::network::{Nat, Protocol, Tcp};
use crate::world::World;

const RTT: Duration = Duration::from_millis(20);
const BUDGET: Duration = Duration::from_millis(3250);

/// Rows 1, 2, 11 and 12: what both ends settle on, by start, NAT and what passes.
#[test]
fn both_ends_settle_on_the_carrier_that_answers() {
    use State::{DirectIp, DirectUdp};
    let cases = [
        (1, StartTransport::UdpThenTcp, None, DirectIp, Reason::None),
        (2, StartTransport::UdpThenTcp, Some(Protocol::Ip), DirectUdp, Reason::IpUnanswered),
        (11, StartTransport::Tcp, None, DirectIp, Reason::None),
        (11, StartTransport::Tcp, Some(Protocol::Ip), DirectUdp, Reason::IpUnanswered),
        (11, StartTransport::Tcp, Some(Protocol::Udp), DirectIp, Reason::None),
    ];
    for (row, start, blocked, state, reason) in cases {
        // One direction is enough to keep an echo from coming back.
        for directions in [vec![0], vec![1], vec![0, 1]] {
            let mut world = Pair::new(start).world(1);
            let blocked: Vec<_> = blocked.iter().flat_map(|p| directions.iter().map(|n| (*n, *p))).collect();
            world.weather.blocked = blocked;
            world.run_for(Duration::from_secs(8));
            world.assert_settled(1);
            let status = world.status(0);
            assert_eq!(
                (status.state, status.reason, status.evidence),
                (state, reason, Evidence::Echo),
                "row {row}"
            );
            world.traffic = Some(Duration::from_millis(100));
            world.run_for(Duration::from_secs(30));
            assert_eq!(world.state(1), state, "row {row}, {directions:?}: the responder follows");
            assert_eq!(world.status(1).evidence, Evidence::Echo);
            flows_both_ways(&mut world);
            world.weather.blocked.clear();
            world.shut_down_and_check();
        }
    }
}

/// Rows 3 and 12: NAT, from both starts. UDP only, however well IP passes.
#[test]
fn behind_a_nat_both_ends_use_udp() {
    for start in [StartTransport::UdpThenTcp, StartTransport::Tcp] {
        let mut pair = Pair::new(start);
        pair.b.remote_address = RemoteAddress::Any;
        let mut world = pair.world(1);
        world.nat = Some(Nat::new(A, NAT));
        world.run_for(Duration::from_secs(8));
        world.assert_settled(1);
        for node in 0..2 {
            let status = world.status(node);
            let found = (status.state, status.reason, status.evidence);
            assert_eq!(found, (State::DirectUdp, Reason::Nat, Evidence::Echo));
        }
        world.rebind_nat();
        world.run_for(Duration::from_secs(25));
        for node in 0..2 {
            assert_eq!(world.state(node), State::DirectUdp, "a new mapping is learned while idle");
        }
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(Duration::from_secs(5));
        flows_both_ways(&mut world);
        world.shut_down_and_check();
    }
}

/// Row 18 after a start on TCP, rule 5: the decision comes after the budget and one RTT, from either direction of a block.
#[test]
fn a_tcp_start_without_a_direct_carrier_is_decided_within_the_budget() {
    for directions in [vec![0], vec![1], vec![0, 1]] {
        let mut world = Pair::new(StartTransport::Tcp).world(1);
        world.weather.blocked = blocked(&directions, &[Protocol::Ip, Protocol::Udp]);
        assert!(world.run_until_holds(Duration::from_secs(20), |world| world.state(0) == State::Blocked));
        let status = world.status(0);
        assert_eq!(status.reason, Reason::EspUnreachable);
        assert!(status.detail.contains("untouched"), "{}", status.detail);
        let (at, took) = verdict(&world, 0, Verdict::Unreachable).unwrap();
        assert_eq!(took, BUDGET + RTT, "attempts × timeout + stagger + 1 RTT");
        assert_eq!(at.since(established(&world, 0)), BUDGET + RTT);
        world.run_for(Duration::from_secs(2));
        assert!(world.nodes.iter().all(|node| node.outbound.is_empty()), "the DELETE was answered");
        assert!(world.status(0).next_attempt.is_some());
        world.weather.blocked.clear();
        assert!(world.run_until_holds(Duration::from_secs(70), |world| world.state(0) == State::DirectIp));
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// Row 18 in mid-life, rule 5: 3 s and the budget.
#[test]
fn in_mid_life_a_block_is_decided_three_seconds_and_the_budget_later() {
    for start in [StartTransport::UdpThenTcp, StartTransport::Tcp] {
        for directions in [vec![0], vec![1], vec![0, 1]] {
            let mut world = flowing(Pair::new(start));
            world.weather.blocked = blocked(&directions, &[Protocol::Ip, Protocol::Udp]);
            let cut = world.now;
            assert!(world.run_until_holds(Duration::from_secs(20), |world| world.state(0) == State::Blocked));
            let decided = world.now.since(cut);
            // The last packets that arrived were 100 ms and a latency old, facts about them a second at most.
            let most = Duration::from_secs(3) + BUDGET + RTT + Duration::from_millis(250);
            // With replies alone blocked the initiator hears the peer's data until that end has stopped.
            let most = if directions == [0] { most + Duration::from_secs(7) } else { most };
            assert!(decided <= most, "{start:?} {directions:?}: {decided:?}");
            assert_eq!(world.status(0).reason, Reason::EspUnreachable);
            let within =
                world.nodes[0].events.iter().filter(|(_, e)| matches!(e, Event::IkeRemoved { .. })).count();
            assert!(within <= 1);
            world.weather.blocked.clear();
            assert!(world.run_until_holds(Duration::from_secs(200), |world| world.try_settled(1).is_ok()));
            world.shut_down_and_check();
        }
    }
}

/// Rule 5: IP falls silent and UDP does not. That is no fall, and both ends move.
#[test]
fn a_block_of_ip_moves_both_ends_to_udp() {
    for direction in 0..2 {
        for senders in [vec![], vec![0], vec![1]] {
            let mut world = flowing(Pair::new(StartTransport::Tcp));
            world.silent_nodes = senders.clone();
            world.run_for(Duration::from_secs(5));
            world.weather.blocked = vec![(direction, Protocol::Ip)];
            world.run_for(Duration::from_secs(30));
            for node in 0..2 {
                assert_eq!(world.state(node), State::DirectUdp, "from {direction}, silent {senders:?}");
                assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
            }
            world.shut_down_and_check();
        }
    }
}

/// Rule 5: nothing at all passes any more. That is silence, not blockage, and ends as row 19.
#[test]
fn a_dead_network_is_suspect_and_then_peer_dead_without_a_fall() {
    for start in [StartTransport::UdpThenTcp, StartTransport::Tcp] {
        let mut world = flowing(Pair::new(start));
        world.weather.blocked = blocked(&[0, 1], &[Protocol::Ip, Protocol::Udp, Protocol::Tcp]);
        world.weather.tcp = Tcp::Silent;
        world.run_for(Duration::from_secs(20));
        for node in 0..2 {
            assert_eq!(world.state(node), State::Suspect);
        }
        world.run_for(Duration::from_secs(250));
        for node in 0..2 {
            assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
            assert!(world.nodes[node].outbound.is_empty());
        }
        assert!(world.saw(0, |e| matches!(e, Event::StateChanged { to: State::PeerDead, .. })) >= 1);
        world.weather = Default::default();
        assert!(world.run_until_holds(Duration::from_secs(200), |world| world.try_settled(1).is_ok()));
        world.shut_down_and_check();
    }
}

/// Rows 19 and 20, rule 5: only IKE is silent. ESP stays for hours, on every start.
#[test]
fn esp_stays_where_it_is_when_only_ike_is_silent() {
    let mut world = flowing(Pair::new(StartTransport::Tcp));
    let paths = world.nodes[0].paths.clone();
    world.weather.tcp = Tcp::Silent;
    world.break_streams();
    world.run_for(Duration::from_secs(3600));
    assert_eq!(world.nodes[0].paths, paths);
    for node in 0..2 {
        assert_eq!(world.state(node), State::DirectIp);
        assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
    }
    world.weather.tcp = Tcp::Works;
    world.run_for(Duration::from_secs(120));
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Rule 5: forged ICMP, however much of it, asks a few echoes and decides nothing.
#[test]
fn forged_doubts_decide_nothing() {
    let mut world = flowing(Pair::new(StartTransport::Tcp));
    let before = world.nodes[0].echoes.len();
    for _ in 0..3000 {
        let now = world.now;
        for node in 0..2 {
            let ike_sa = world.status(node).ike_sas[0].id;
            world.nodes[node].endpoint.fact(now, Fact::PathDoubt { ike_sa });
        }
        world.run_for(Duration::from_millis(10));
        assert_eq!((world.state(0), world.state(1)), (State::DirectIp, State::DirectIp));
    }
    let asked = world.nodes[0].echoes.len() - before;
    assert!(asked <= 4, "{asked} echoes in 30 s");
    world.shut_down_and_check();
}

/// Rule 5: local errors are `local_down`, and count for nothing.
#[test]
fn a_local_failure_is_local_down_until_it_is_over() {
    for node in 0..2 {
        let mut world = flowing(Pair::new(StartTransport::Tcp));
        let ike_sa = world.status(node).ike_sas[0].id;
        world.nodes[node].cannot_send = true;
        let now = world.now;
        let failure = Some("network is unreachable".to_owned());
        world.nodes[node].endpoint.fact(now, Fact::LocalSend { ike_sa, failure });
        world.run_for(Duration::from_secs(3));
        assert_eq!(world.state(node), State::LocalDown);
        world.nodes[node].cannot_send = false;
        let now = world.now;
        world.nodes[node].endpoint.fact(now, Fact::LocalSend { ike_sa, failure: None });
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.state(node), State::DirectIp);
        assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
        world.shut_down_and_check();
    }
}

/// Row 17 and row 21 in place: mid-life, both ends allow TCP. ESP moves into the stream at both ends and comes back.
#[test]
fn with_fallback_esp_moves_into_the_stream_and_comes_back() {
    for start in [StartTransport::UdpThenTcp, StartTransport::Tcp] {
        for directions in [vec![0], vec![1], vec![0, 1]] {
            let mut world = flowing(fallback(start));
            world.weather.blocked = blocked(&directions, &[Protocol::Ip, Protocol::Udp]);
            world.run_for(Duration::from_secs(25));
            for node in 0..2 {
                let status = world.status(node);
                assert_eq!(
                    (status.state, status.reason),
                    (State::Tcp, Reason::EspUnreachable),
                    "{directions:?}"
                );
                let path = status.ike_sas[0].esp_path.unwrap();
                assert!(matches!(path.carrier, EspCarrier::Stream(_)));
                assert!(status.ike_sas[0].separate_transports, "S still holds");
            }
            world.assert_settled(1);
            flows_both_ways(&mut world);
            // A new stream carries it on.
            world.break_streams();
            world.run_for(Duration::from_secs(5));
            flows_both_ways(&mut world);
            world.run_for(Duration::from_secs(60));
            assert_eq!(world.status(0).reason, Reason::TrialFailed);
            world.weather.blocked.clear();
            world.run_until_holds(Duration::from_secs(600), |world| world.state(0) == State::DirectIp);
            assert_eq!(world.status(0).reason, Reason::Returned);
            world.run_for(Duration::from_secs(5));
            assert_eq!(world.state(1), State::DirectIp);
            flows_both_ways(&mut world);
            for node in 0..2 {
                assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 1);
            }
            world.shut_down_and_check();
        }
    }
}

/// Rule 9: two ends, two policies; the stricter wins, at whichever end it is.
#[test]
fn one_end_that_forbids_tcp_keeps_esp_out_of_it() {
    for strict in 0..2 {
        let mut pair = fallback(StartTransport::Tcp);
        let connection = if strict == 0 { &mut pair.a } else { &mut pair.b };
        connection.esp.on_unreachable = OnUnreachable::FailClosed;
        let mut world = flowing(pair);
        world.weather.blocked = blocked(&[0, 1], &[Protocol::Ip, Protocol::Udp]);
        for _ in 0..100 {
            world.run_for(Duration::from_secs(1));
            for node in &world.nodes {
                assert!(node.paths.values().all(|path| !matches!(path.carrier, EspCarrier::Stream(_))));
            }
        }
        world.weather.blocked.clear();
        assert!(world.run_until_holds(Duration::from_secs(200), |world| world.try_settled(1).is_ok()));
        world.shut_down_and_check();
    }
}

/// Rule 5: at most one fall per hold time, however long the block lasts.
#[test]
fn falls_are_a_hold_time_apart() {
    for start in [StartTransport::UdpThenTcp, StartTransport::Tcp] {
        let mut world = flowing(Pair::new(start));
        world.weather.blocked = blocked(&[0, 1], &[Protocol::Ip]);
        world.run_for(Duration::from_secs(15));
        world.weather.blocked = blocked(&[0, 1], &[Protocol::Ip, Protocol::Udp]);
        if start == StartTransport::UdpThenTcp {
            // Only TCP is left to start on, but for the first message.
            world.weather.blocked = blocked(&[0, 1], &[Protocol::Ip, Protocol::Udp]);
        }
        world.run_for(Duration::from_secs(900));
        falls_are_apart(&world, Duration::from_secs(60));
        assert!(world.nodes[0].endpoint.counters().esp_falls >= 3);
        world.weather.blocked.clear();
        assert!(world.run_until_holds(Duration::from_secs(200), |world| world.try_settled(1).is_ok()));
        world.shut_down_and_check();
    }
}

/// Rule 6: one child dead while others live is rekeyed once, to a new SPI.
#[test]
fn a_dead_child_is_rekeyed_onto_another_path() {
    let pair = Pair::new(StartTransport::Tcp).both(|connection| {
        let (ours, theirs) = match connection.local_address == Some(A) {
            true => ("10.11.0.0/24", "10.12.0.0/24"),
            false => ("10.12.0.0/24", "10.11.0.0/24"),
        };
        connection.children.push(child("more", ours, theirs));
    });
    let mut pair = pair;
    pair.a.children[1].start = StartMode::Always;
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(10));
    world.assert_settled(2);
    let spi = |world: &World| {
        let child = world.nodes[0].in_use.iter().find(|((_, name, _), _)| **name == *"more").unwrap().1;
        world.nodes[0].outbound[child].sa.spi
    };
    let dead = spi(&world);
    world.dead_spis = vec![dead];
    world.run_for(Duration::from_secs(15));
    assert_ne!(spi(&world), dead);
    world.assert_settled(2);
    assert_eq!((world.state(0), world.state(1)), (State::DirectIp, State::DirectIp));
    assert_eq!(world.nodes[0].endpoint.counters().esp_falls, 0);
    world.shut_down_and_check();
}

/// Rule 3: the path takes less than was thought.
#[test]
fn the_path_mtu_comes_down_to_what_passes() {
    let mut world = Pair::new(StartTransport::Tcp).world(1);
    world.weather.mtu = 1300;
    world.run_for(Duration::from_secs(20));
    let lowered = world.nodes[0].path_mtus.values().copied().collect::<Vec<_>>();
    assert_eq!(lowered, [1280]);
    assert_eq!(world.state(0), State::DirectIp);
    world.shut_down_and_check();
}

/// Rule 6: verdicts survive rekeys of both kinds, from both ends; and a number that differs is no announcement.
#[test]
fn rekeys_ask_nothing_anew() {
    let mut world = flowing(Pair::new(StartTransport::Tcp));
    let verifications = |world: &World| {
        (0..2).map(|n| world.saw(n, |e| matches!(e, Event::EspVerified { .. }))).sum::<usize>()
    };
    let before = verifications(&world);
    for node in 0..2 {
        world.command(node, CommandKind::RekeyChild { child: None });
        world.run_for(Duration::from_secs(3));
        world.command(node, CommandKind::RekeyIke);
        world.run_for(Duration::from_secs(3));
    }
    assert_eq!(verifications(&world), before);
    for node in 0..2 {
        assert_eq!((world.state(node), world.status(node).evidence), (State::DirectIp, Evidence::Echo));
    }
    world.shut_down_and_check();
    let mut pair = Pair::new(StartTransport::Tcp);
    pair.config_a.esp_echo_notify = 50_001;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(20));
    assert!(world.nodes.iter().all(|node| node.echoes.is_empty()));
    assert!(!world.status(0).ike_sas[0].esp.echo && !world.status(1).ike_sas[0].esp.echo);
    world.shut_down_and_check();
}

/// Rules 5 and 6: rekeys follow each other faster than ESP comes through. What arrives on a pair that was replaced meanwhile is a word of
/// the peer, and a reply on it a reply.
#[test]
fn what_arrives_on_a_replaced_pair_counts() {
    let mut world = flowing(Pair::new(StartTransport::Tcp));
    world.weather.esp_waits = Duration::from_millis(400);
    for round in 0..40 {
        world.command(round % 2, CommandKind::RekeyChild { child: None });
        world.run_for(Duration::from_millis(250));
        for node in 0..2 {
            assert_eq!(world.state(node), State::DirectIp, "node {node}, round {round}");
        }
    }
    // A verification asks once a second; each time the pair is replaced between the moment when the reply leaves and when it arrives.
    world.weather.esp_waits = Duration::from_millis(100);
    for node in 0..2 {
        let ike_sa = world.status(node).ike_sas[0].id;
        for failure in [Some("no buffer".to_owned()), None] {
            let now = world.now;
            world.nodes[node].endpoint.fact(now, Fact::LocalSend { ike_sa, failure });
        }
        assert_eq!(world.state(node), State::Suspect);
        for _ in 0..4 {
            world.run_for(Duration::from_millis(150));
            world.command(node, CommandKind::RekeyChild { child: None });
            world.run_for(Duration::from_millis(850));
        }
        assert_eq!(world.state(node), State::DirectIp);
        assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
    }
    world.weather.esp_waits = Duration::ZERO;
    world.run_for(Duration::from_secs(2));
    world.shut_down_and_check();
}

/// Falls of one end are at least this far apart.
pub fn falls_are_apart(world: &World, hold: Duration) {
    for node in &world.nodes {
        // Each is followed by a stop, or by TCP.
        let is_fall = |event: &Event| matches!(event, Event::EspVerified { verification, .. } if verification.verdict == Verdict::Unreachable);
        let falls: Vec<Time> =
            node.events.iter().filter(|(_, event)| is_fall(event)).map(|(at, _)| *at).collect();
        for pair in falls.windows(2) {
            assert!(pair[1].since(pair[0]) >= hold, "falls at {falls:?}");
        }
    }
}

fn fallback(start: StartTransport) -> Pair {
    Pair::new(start).both(|connection| connection.esp.on_unreachable = OnUnreachable::TcpFallback)
}

/// Ten seconds later, with traffic and a proven carrier at both ends.
fn flowing(pair: Pair) -> World {
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    for node in 0..2 {
        assert_eq!(world.status(node).evidence, Evidence::Echo);
        let path = world.status(node).ike_sas[0].esp_path.unwrap();
        assert_eq!(path.carrier, EspCarrier::Direct(DirectCarrier::Ip));
    }
    world
}

fn flows_both_ways(world: &mut World) {
    let received = |world: &World| world.flows.values().map(|flow| flow.received).collect::<Vec<_>>();
    let before = received(world);
    world.run_for(Duration::from_secs(2));
    for (before, after) in before.iter().zip(received(world)) {
        assert!(after >= before + 15, "{before} then {after}");
    }
}

fn blocked(nodes: &[usize], protocols: &[Protocol]) -> Vec<(usize, Protocol)> {
    nodes.iter().flat_map(|node| protocols.iter().map(|protocol| (*node, *protocol))).collect()
}

fn verdict(world: &World, node: usize, wanted: Verdict) -> Option<(Time, Duration)> {
    world.nodes[node].events.iter().find_map(|(at, event)| match event {
        Event::EspVerified { verification, .. } if verification.verdict == wanted => {
            Some((*at, verification.took))
        }
        _ => None,
    })
}

fn established(world: &World, node: usize) -> Time {
    let is_it = |event: &Event| matches!(event, Event::IkeEstablished { .. });
    world.nodes[node].events.iter().find(|(_, event)| is_it(event)).map(|(at, _)| *at).unwrap()
}
