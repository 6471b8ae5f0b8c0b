//! Authentication anew, made before the old IKE SA is broken (RFC 4478, RFC 7296 section 2.8.3).

use std::time::Duration;

use portcullis_ike::config::{
    ChildConfig, FirstChild, OnUnreachable, RemoteAddress, SeparateTransports, StartMode, StartTransport,
};
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::{Pair, child};
use crate::network::Nat;
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
const MINUTE: Duration = Duration::from_secs(60);

/// By either end's policy, again and again, under traffic in both directions: nothing is lost, and one IKE SA is left.
#[test]
fn authentication_is_repeated_without_loss() {
    for transport in STARTS {
        for (a, b) in
            [(Some(10 * MINUTE), None), (None, Some(10 * MINUTE)), (Some(7 * MINUTE), Some(10 * MINUTE))]
        {
            for echo in [true, false] {
                let mut pair = Pair::new(transport);
                (pair.a.ike.reauth_after, pair.b.ike.reauth_after) = (a, b);
                if !echo {
                    pair.config_b.esp_echo_notify = 50_001;
                }
                let world = pair.world(1);
                repeats_without_loss(world, 1);
            }
        }
    }
}

/// What is on its way on the old one when traffic moves has a second to arrive: a DELETE that overtakes it would end the SA that
/// opens it.
#[test]
fn the_old_ike_sa_is_left_alone_until_it_has_drained() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.a.ike.reauth_after = Some(10 * MINUTE);
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(20));
    world.run_for(MINUTE);
    world.assert_settled(1);
    let has = |count: usize| move |world: &World| world.status(1).ike_sas.len() == count;
    assert!(world.run_until_holds(10 * MINUTE, has(2)), "another one beside the old one");
    let both = world.now;
    assert!(world.run_until_holds(MINUTE, has(1)), "the old one goes");
    let time = world.now.since(both);
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&time), "after {time:?}");
    world.shut_down_and_check();
}

/// Whatever the old IKE SA has found out about carriers holds for the new one.
#[test]
fn what_carries_esp_is_kept() {
    type Bend = fn(&mut World);
    let cases: [(Bend, State); 3] = [
        (|world| world.weather.ip_blocked = true, State::DirectUdp),
        (|world| (world.weather.ip_blocked, world.weather.udp_blocked) = (true, true), State::Tcp),
        (
            |world| world.nat = Some(Nat::new(crate::configuration::A, crate::configuration::NAT)),
            State::DirectUdp,
        ),
    ];
    for (bend, state) in cases {
        let mut pair = Pair::new(StartTransport::Tcp).both(|connection| {
            connection.esp.on_unreachable = OnUnreachable::TcpFallback;
        });
        pair.b.remote_address = RemoteAddress::Any;
        pair.a.ike.reauth_after = Some(10 * MINUTE);
        let mut world = pair.world(1);
        bend(&mut world);
        world.run_for(MINUTE);
        assert_eq!(world.state(0), state);
        let stops = |event: &Event| {
            matches!(event, Event::StateChanged { to: State::Blocked | State::Connecting | State::Tcp, .. })
        };
        let before = world.saw(0, stops);
        let world = repeats_without_loss(world, 1);
        if state != State::Tcp {
            // The last one is that of the end.
            assert!(world.saw(0, stops) <= before + 1, "{state:?}: {:#?}", world.nodes[0].events);
        }
    }
}

/// Every child comes along before the old IKE SA goes, also where they wait for a rekey.
#[test]
fn every_child_comes_along() {
    for first_child in [FirstChild::InAuth, FirstChild::Childless, FirstChild::AfterRekey] {
        let mut pair = Pair::new(StartTransport::UdpThenTcp);
        for (name, a, b) in [("more", "10.3.0.0/16", "10.4.0.0/16"), ("most", "10.5.0.0/16", "10.6.0.0/16")] {
            pair.a.children.push(ChildConfig { start: StartMode::Always, ..child(name, a, b) });
            pair.b.children.push(child(name, b, a));
        }
        (pair.a.ike.first_child, pair.b.ike.first_child) = (first_child, first_child);
        pair.a.ike.reauth_after = Some(10 * MINUTE);
        let mut world = pair.world(1);
        // Children take more time than an old IKE SA on a lost address would be given.
        world.weather.latency = Duration::from_millis(700);
        repeats_without_loss(world, 3);
    }
}

/// Without SEPARATE_TRANSPORTS (row 5).
#[test]
fn peers_without_separate_transports_do_it_too() {
    for transport in [StartTransport::Udp, StartTransport::UdpThenTcp] {
        let mut pair = Pair::new(transport).both(|connection| {
            connection.ike.separate_transports = SeparateTransports::Off;
        });
        pair.a.ike.reauth_after = Some(10 * MINUTE);
        repeats_without_loss(pair.world(1), 1);
    }
}

/// RFC 4478 section 2: the responder ends what is not authenticated anew. The initiator cannot, because nothing of it
/// arrives.
#[test]
fn a_responder_does_not_wait_for_ever() {
    let mut pair = Pair::new(StartTransport::Udp);
    pair.b.ike.reauth_after = Some(2 * MINUTE);
    let mut world = pair.world(1);
    world.run_for(MINUTE / 2);
    world.assert_settled(1);
    world.distort = Some(spoil_init);
    world.run_for(MINUTE * 5 / 2);
    let ended = |event: &Event| matches!(event, Event::IkeRemoved { reason: Reason::Reauthentication, .. });
    assert_eq!(world.saw(1, ended), 1);
    let told = |event: &Event| matches!(event, Event::IkeRemoved { reason: Reason::PeerDeleted, .. });
    assert_eq!(world.saw(0, told), 1);
    world.distort = None;
    world.run_for(3 * MINUTE);
    world.assert_settled(1);
    world.shut_down_and_check();
}

fn repeats_without_loss(mut world: World, children: usize) -> World {
    world.traffic = Some(Duration::from_millis(50));
    world.run_for(MINUTE);
    world.assert_settled(children);
    let (before, old) = (lost(&mut world), world.status(0).ike_sas[0].spis);
    world.run_for(30 * MINUTE);
    assert_eq!(lost(&mut world), before, "{:?}", world.flows);
    world.assert_settled(children);
    assert_ne!(world.status(0).ike_sas[0].spis, old);
    for node in 0..2 {
        // Trials of direct carriers are among them.
        let established = world.saw(node, |event| matches!(event, Event::IkeEstablished { .. }));
        assert!((3..=12).contains(&established), "node {node}: {established}");
        let failed = |event: &Event| matches!(event, Event::IkeFailed { .. } | Event::ChildFailed { .. });
        assert_eq!(world.saw(node, failed), 0);
    }
    world.shut_down_and_check();
    world
}

/// What was sent and has not arrived, when none is under way.
fn lost(world: &mut World) -> u64 {
    let traffic = world.traffic.take();
    world.run_for(Duration::from_secs(2));
    world.traffic = traffic;
    world.flows.values().map(|flow| flow.sent - flow.received).sum()
}

fn spoil_init(datagram: &mut [u8]) {
    if datagram.get(22..24) == Some(&[34, 0x08]) {
        datagram[22] = 0xff;
    }
}
