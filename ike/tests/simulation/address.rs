//! An end has another address: rule 11 of the transport policy, RFC 9329 section 6.1, section 4.1 of the transport draft.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_ike::action::{ChildId, EchoRoute};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{
    ConnectionConfig, OnUnreachable, RemoteAddress, SeparateTransports, StartMode, StartTransport,
};
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier, IkeTransport};
use portcullis_ike::status::{Evidence, Reason, State};

use crate::configuration::{A, NAT, Pair};
use crate::network::{Nat, Protocol};
use crate::world::World;

pub const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77));
const STARTS: [StartTransport; 2] = [StartTransport::UdpThenTcp, StartTransport::Tcp];

/// With S the IKE SA follows: another stream, no echo over IP, and ESP moves to UDP when it has answered from there.
#[test]
fn with_separate_transports_the_ike_sa_follows() {
    for start in STARTS {
        for only_a_sends in [false, true] {
            let mut world = flowing(Pair::new(start));
            if only_a_sends {
                world.silent_nodes = vec![1];
            }
            let (children, streams) = (children(&world), world.nodes[1].accepted);
            let moved = world.now;
            world.renumber(0, OTHER);
            assert!(world.run_until_holds(Duration::from_secs(1), is_moved), "{:?}", world.status(0));
            world.run_for(Duration::from_secs(10));
            for node in 0..2 {
                let status = world.status(node);
                let found = (status.state, status.reason, status.evidence);
                assert_eq!(found, (State::DirectUdp, Reason::AddressChanged, Evidence::Echo), "{start:?}");
                assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
            }
            let echoes = world.nodes[0].echoes.iter().filter(|(at, _)| *at >= moved);
            let routes: Vec<_> = echoes.map(|(_, echo)| echo.route).collect();
            let over_udp = |route: &EchoRoute| matches!(route, EchoRoute::Direct { carrier: DirectCarrier::Udp, local, .. } if local.ip() == OTHER);
            assert!(!routes.is_empty() && routes.iter().all(over_udp), "{routes:?}");
            assert_eq!(world.status(1).ike_sas[0].remote.ip(), OTHER);
            assert_eq!(self::children(&world), children, "no child is rekeyed");
            assert_eq!(world.nodes[1].accepted, streams + 1, "one more stream");
            assert_eq!(established(&world), 1);
            world.silent_nodes.clear();
            flows_both_ways(&mut world);
            inherits(&mut world);
            world.shut_down_and_check();
        }
    }
}

/// An address that this host keeps loses nothing: ESP leaves it when it was answered on the other one.
#[test]
fn an_address_that_is_kept_until_esp_has_moved_loses_nothing() {
    for start in STARTS {
        let mut world = flowing(Pair::new(start));
        let before = lost(&mut world);
        world.prefer(0, OTHER);
        world.run_for(Duration::from_secs(10));
        assert!(is_moved(&world), "{:?}", world.status(0));
        assert_eq!(lost(&mut world), before, "{start:?}");
        world.nodes[0].also.clear();
        flows_both_ways(&mut world);
        world.shut_down_and_check();
    }
}

/// The same behind a NAT that the new address may have, or not.
#[test]
fn a_nat_in_front_of_either_address_does_not_matter() {
    for (before, after) in [(true, true), (true, false), (false, true)] {
        let mut pair = Pair::new(StartTransport::Tcp);
        pair.b.remote_address = RemoteAddress::Any;
        let mut world = pair.world(1);
        let inside = |is_inside, address| if is_inside { address } else { IpAddr::from([192, 0, 2, 250]) };
        world.nat = (before || after).then(|| Nat::new(inside(before, A), NAT));
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(Duration::from_secs(10));
        if before != after {
            world.nat = Some(Nat::new(inside(after, OTHER), NAT));
        }
        world.renumber(0, OTHER);
        world.run_for(Duration::from_secs(5));
        assert!(is_moved(&world), "{before} {after}: {:?}", world.status(0));
        flows_both_ways(&mut world);
        // The mapping, should there be one, is kept while idle.
        world.traffic = None;
        let keepalives = world.udp_datagrams;
        world.run_for(Duration::from_secs(100));
        assert!(world.udp_datagrams >= keepalives + 4);
        world.rebind_nat();
        world.run_for(Duration::from_secs(25));
        world.traffic = Some(Duration::from_millis(100));
        world.run_for(Duration::from_secs(5));
        flows_both_ways(&mut world);
        world.shut_down_and_check();
    }
}

/// Rows 4 and 13: without ESP echo the new carrier is taken, and shown by dummies.
#[test]
fn without_echo_esp_moves_to_udp_at_once() {
    let mut pair = Pair::new(StartTransport::Tcp);
    pair.config_b.esp_echo_notify = 50_001;
    let mut world = flowing(pair);
    world.silent_nodes = vec![0, 1];
    world.renumber(0, OTHER);
    world.run_for(Duration::from_secs(1));
    for node in 0..2 {
        let path = world.status(node).ike_sas[0].esp_path.unwrap();
        assert_eq!(path.carrier, EspCarrier::Direct(DirectCarrier::Udp), "{node}");
    }
    world.silent_nodes.clear();
    flows_both_ways(&mut world);
    assert_eq!(world.status(0).evidence, Evidence::Inbound);
    world.shut_down_and_check();
}

/// Rows 17 and 18: what follows when UDP does not answer from the new address is what the policy says.
#[test]
fn without_an_answer_the_policy_decides() {
    for policy in [OnUnreachable::FailClosed, OnUnreachable::TcpFallback] {
        let mut pair = Pair::new(StartTransport::Tcp).both(|c| c.esp.on_unreachable = policy);
        pair.b.remote_address = RemoteAddress::Any;
        let mut world = flowing(pair);
        world.weather.udp_blocked = true;
        world.renumber(0, OTHER);
        world.run_for(Duration::from_millis(3500));
        let status = world.status(0);
        let expected = match policy {
            OnUnreachable::FailClosed => State::Blocked,
            OnUnreachable::TcpFallback => State::Tcp,
        };
        assert_eq!((status.state, status.reason), (expected, Reason::EspUnreachable), "{}", status.detail);
        // A new IKE SA knows about NATs, and IP passes.
        world.run_for(Duration::from_secs(120));
        match policy {
            OnUnreachable::FailClosed => assert_eq!(world.state(0), State::DirectIp),
            OnUnreachable::TcpFallback => assert!(world.esp_in_tcp > 0),
        }
        world.weather.udp_blocked = false;
        world.run_for(Duration::from_secs(400));
        flows_both_ways(&mut world);
        world.shut_down_and_check();
    }
}

/// T section 4.1: ESP in TCP and a new address: UDP is verified there at once, and ESP leaves TCP.
#[test]
fn esp_in_tcp_tries_udp_from_a_new_address() {
    let pair = Pair::new(StartTransport::Tcp).both(|c| c.esp.on_unreachable = OnUnreachable::TcpFallback);
    let mut world = flowing(pair);
    world.weather.blocked = vec![(0, Protocol::Ip), (0, Protocol::Udp)];
    world.run_for(Duration::from_secs(15));
    assert_eq!((world.state(0), world.state(1)), (State::Tcp, State::Tcp));
    world.weather.blocked.clear();
    world.renumber(0, OTHER);
    world.run_for(Duration::from_secs(12));
    let status = world.status(0);
    assert_eq!((status.state, status.evidence), (State::DirectUdp, Evidence::Echo), "{status:?}");
    flows_both_ways(&mut world);
    world.shut_down_and_check();
}

/// Without S on UDP, and where the policy has no UDP: make before break.
#[test]
fn without_separate_transports_a_new_ike_sa_takes_the_place_of_the_old() {
    for with_separate in [false, true] {
        let mut pair = Pair::new(if with_separate { StartTransport::Tcp } else { StartTransport::Udp });
        pair.b.remote_address = RemoteAddress::Any;
        if with_separate {
            pair = pair.both(|connection| connection.esp.transports = vec![DirectCarrier::Ip]);
        } else {
            pair = pair.both(|connection| connection.ike.separate_transports = SeparateTransports::Off);
        }
        let mut world = flowing(pair);
        let (old, before) = (world.status(0).ike_sas[0].id, lost(&mut world));
        world.prefer(0, OTHER);
        let mut most = 0;
        for _ in 0..200 {
            world.run_for(Duration::from_millis(10));
            for node in &world.nodes {
                assert_eq!(node.in_use.len(), 1, "there is an SA at all times");
            }
            most = most.max(world.status(1).ike_sas.len());
        }
        assert_eq!(most, 2, "the old one was there when the new one came: no INITIAL_CONTACT");
        world.assert_settled(1);
        let sa = &world.status(0).ike_sas[0];
        assert_ne!(sa.id, old);
        assert_eq!(sa.esp_path.unwrap().local, OTHER);
        assert_eq!(world.state(0), State::DirectIp, "there is no NAT, as IKE_SA_INIT has shown");
        assert_eq!(lost(&mut world), before, "{with_separate}");
        world.nodes[0].also.clear();
        flows_both_ways(&mut world);
        world.shut_down_and_check();
    }
}

/// The same where the old address is gone before.
#[test]
fn the_old_ike_sa_is_local_down_until_the_new_one_is_there() {
    let mut pair = Pair::new(StartTransport::Udp);
    pair.b.remote_address = RemoteAddress::Any;
    pair = pair.both(|connection| connection.ike.separate_transports = SeparateTransports::Off);
    let mut world = flowing(pair);
    world.lose_address(0);
    world.run_for(Duration::from_secs(5));
    let status = world.status(0);
    assert_eq!((status.state, status.reason), (State::LocalDown, Reason::NoRoute));
    assert!(status.detail.contains("192.0.2.1 is no address of this host"), "{}", status.detail);
    world.renumber(0, OTHER);
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    assert_eq!(world.state(0), State::DirectIp);
    flows_both_ways(&mut world);
    world.shut_down_and_check();
}

/// RFC 9329 section 5: all in TCP. Another stream carries it on. Beside it a trial fails here, for want of S, or without echo
/// another IKE SA takes its place.
#[test]
fn all_in_tcp_follows_at_once() {
    for with_echo in [true, false] {
        let fallback = |connection: &mut ConnectionConfig| {
            connection.esp.on_unreachable = OnUnreachable::TcpFallback;
        };
        let mut pair = Pair::new(StartTransport::Tcp).both(fallback);
        pair.b.ike.separate_transports = SeparateTransports::Off;
        pair.b.remote_address = RemoteAddress::Any;
        if !with_echo {
            pair.config_b.esp_echo_notify = 50_001;
        }
        let mut world = flowing(pair);
        assert_eq!(world.state(0), State::Tcp);
        let old = world.status(0).ike_sas[0].id;
        world.renumber(0, OTHER);
        let old_at_b = world.status(1).ike_sas[0].id;
        let follows = |world: &World| {
            let status = world.status(1);
            status.ike_sas.iter().any(|sa| sa.id == old_at_b && sa.remote.ip() == OTHER)
        };
        assert!(world.run_until_holds(Duration::from_secs(1), follows));
        world.run_for(Duration::from_secs(20));
        world.assert_settled(1);
        assert_eq!(world.status(0).ike_sas[0].id == old, with_echo);
        assert_eq!((world.state(0), world.state(1)), (State::Tcp, State::Tcp));
        flows_both_ways(&mut world);
        world.shut_down_and_check();
    }
}

/// Rule 8: ESP that has fallen into TCP with a new IKE SA gets a trial from the new address, at once.
#[test]
fn a_fallen_connection_tries_direct_carriers_from_a_new_address() {
    let mut pair = Pair::new(StartTransport::Tcp).both(|c| c.esp.on_unreachable = OnUnreachable::TcpFallback);
    pair.b.remote_address = RemoteAddress::Any;
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.weather.blocked = vec![(0, Protocol::Ip), (0, Protocol::Udp)];
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.state(0), State::Tcp);
    assert!(!world.status(0).ike_sas[0].separate_transports);
    world.weather.blocked.clear();
    world.renumber(0, OTHER);
    world.run_for(Duration::from_secs(14));
    world.assert_settled(1);
    let status = world.status(0);
    assert_eq!((status.state, status.reason), (State::DirectIp, Reason::Returned), "{status:?}");
    flows_both_ways(&mut world);
    world.shut_down_and_check();
}

/// Rule 5: an address that goes and comes back: `local_down` meanwhile, and the same SAs.
#[test]
fn an_address_that_comes_back_finds_its_sas() {
    for start in [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp] {
        for node in 0..2 {
            let mut world = flowing(Pair::new(start));
            let address = world.nodes[node].address;
            let children = children(&world);
            world.lose_address(node);
            world.run_for(Duration::from_secs(8));
            let status = world.status(node);
            assert_eq!(
                (status.state, status.reason),
                (State::LocalDown, Reason::NoRoute),
                "{start:?} {node}"
            );
            assert_eq!(world.nodes[node].endpoint.counters().esp_falls, 0);
            world.renumber(node, address);
            world.run_for(Duration::from_secs(10));
            world.assert_settled(1);
            assert_ne!(world.state(node), State::LocalDown, "{start:?} {node}");
            assert_eq!(self::children(&world), children);
            flows_both_ways(&mut world);
            world.shut_down_and_check();
        }
    }
}

/// A responder can only wait for its initiator to find out; it says what is wrong.
#[test]
fn a_responder_without_its_address_waits() {
    let mut world = flowing(Pair::new(StartTransport::Tcp));
    world.renumber(1, OTHER);
    world.run_for(Duration::from_secs(20));
    assert_eq!((world.state(0), world.state(1)), (State::Suspect, State::LocalDown));
    world.run_for(Duration::from_secs(250));
    assert!(world.saw(0, |e| matches!(e, Event::StateChanged { to: State::PeerDead, .. })) >= 1);
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty()));
    assert_eq!(world.state(1), State::LocalDown, "nothing is wrong with the peer");
    world.shut_down_and_check();
}

/// Rule 5: `local_down` without an SA leads to `connecting` when there is an address, and to nothing before.
#[test]
fn without_an_address_nothing_is_tried() {
    for start in [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp] {
        let mut pair = Pair::new(start);
        pair.a.children[0].start = StartMode::None;
        let mut world = pair.world(1);
        world.lose_address(0);
        world.command(0, CommandKind::Up { child: None });
        world.run_for(Duration::from_secs(100));
        assert_eq!((world.udp_datagrams, world.nodes[1].accepted), (0, 0));
        assert_eq!((world.state(0), world.status(0).reason), (State::LocalDown, Reason::NoRoute));
        world.renumber(0, A);
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// A set-up under way starts again from the new address, at whatever moment it changes.
#[test]
fn the_address_may_change_in_the_middle_of_a_set_up() {
    for start in [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp] {
        for after_ms in (0..140).step_by(4) {
            let mut pair = Pair::new(start);
            pair.b.remote_address = RemoteAddress::Any;
            let mut world = pair.world(after_ms);
            world.run_for(Duration::from_millis(after_ms));
            world.renumber(0, OTHER);
            let settles = |world: &World| {
                world.try_settled(1).is_ok() && world.status(1).ike_sas[0].remote.ip() == OTHER
            };
            assert!(
                world.run_until_holds(Duration::from_secs(250), settles),
                "{start:?} after {after_ms} ms"
            );
            world.traffic = Some(Duration::from_millis(100));
            world.run_for(Duration::from_secs(200));
            flows_both_ways(&mut world);
            world.shut_down_and_check();
        }
    }
}

/// Back and forth, faster than anything can follow.
#[test]
fn an_address_that_flaps_ends_where_it_ends() {
    for start in [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp] {
        for pause_ms in [3, 17, 45, 300] {
            let mut pair = Pair::new(start);
            pair.b.remote_address = RemoteAddress::Any;
            let mut world = flowing(pair);
            for n in 0..7 {
                world.renumber(0, if n % 2 == 0 { OTHER } else { A });
                world.run_for(Duration::from_millis(pause_ms));
            }
            assert!(world.run_until_holds(Duration::from_secs(250), |world| world.try_settled(1).is_ok()));
            world.run_for(Duration::from_secs(30));
            world.assert_settled(1);
            flows_both_ways(&mut world);
            assert_eq!(world.status(0).ike_sas[0].esp_path.unwrap().local, OTHER, "{start:?} {pause_ms}");
            world.shut_down_and_check();
        }
    }
}

/// Rule 11: an IKE rekey inherits S, E, stream and carrier.
fn inherits(world: &mut World) {
    let before = world.status(0).ike_sas.remove(0);
    let (streams, echo) = (world.nodes[1].accepted, before.esp.echo);
    world.command(0, CommandKind::RekeyIke);
    world.run_for(Duration::from_secs(2));
    world.command(1, CommandKind::RekeyIke);
    world.run_for(Duration::from_secs(2));
    let after = world.status(0).ike_sas.remove(0);
    assert_ne!(after.spis, before.spis);
    assert_eq!((after.separate_transports, after.transport), (true, IkeTransport::Tcp));
    assert_eq!((after.esp.echo, after.esp_path), (echo, before.esp_path));
    assert_eq!(world.nodes[1].accepted, streams);
    assert_eq!(world.status(0).reason, Reason::AddressChanged, "nor does it know of NATs");
}

fn is_moved(world: &World) -> bool {
    world.nodes.iter().enumerate().all(|(n, _)| {
        let path = world.status(n).ike_sas.first().and_then(|sa| sa.esp_path);
        let here = path.map(|path| if n == 0 { path.local } else { path.remote });
        let is_udp = path.is_some_and(|path| path.carrier == EspCarrier::Direct(DirectCarrier::Udp));
        let is_there = here == Some(OTHER) || n == 1 && here == Some(NAT);
        is_udp && is_there && world.status(n).evidence == Evidence::Echo
    })
}

fn flowing(pair: Pair) -> World {
    let mut world = pair.world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    world
}

fn children(world: &World) -> Vec<ChildId> {
    world.status(0).ike_sas[0].children.iter().map(|child| child.id).collect()
}

fn established(world: &World) -> usize {
    world.saw(0, |event| matches!(event, Event::IkeEstablished { .. }))
}

/// What was sent and has not arrived, when none is under way.
fn lost(world: &mut World) -> u64 {
    let traffic = world.traffic.take();
    world.run_for(Duration::from_millis(200));
    world.traffic = traffic;
    world.flows.values().map(|flow| flow.sent - flow.received).sum()
}

fn flows_both_ways(world: &mut World) {
    world.run_for(Duration::from_secs(2));
    let before = lost(world);
    let sent: Vec<_> = world.flows.values().map(|flow| flow.sent).collect();
    world.run_for(Duration::from_secs(5));
    assert_eq!(lost(world), before, "{:?}", world.flows);
    assert_eq!(sent.len(), 2);
    assert!(world.flows.values().zip(sent).all(|(flow, sent)| flow.sent >= sent + 40), "{:?}", world.flows);
}
