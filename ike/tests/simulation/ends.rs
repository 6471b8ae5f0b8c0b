//! Two ends that start, restart and go down: INITIAL_CONTACT, simultaneous initiation, commands, reloads.

use std::time::Duration;

use portcullis_ike::command::{CommandKind, Fact, PacketSelectors};
use portcullis_ike::config::{StartMode, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::{Pair, child};
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];

/// RFC 7296 section 2.4: the restarted end initiates at once, and INITIAL_CONTACT clears what the other still has.
#[test]
fn a_restarted_end_is_back_at_once() {
    for transport in STARTS {
        for side in 0..2 {
            let mut world = both_always(transport, 5);
            world.run_for(Duration::from_secs(10));
            world.assert_settled(1);
            world.restart(side, 99);
            world.run_for(Duration::from_secs(3));
            world.assert_settled(1);
            world.run_for(Duration::from_secs(600));
            world.assert_settled(1);
            let established = world.saw(1 - side, |event| matches!(event, Event::IkeEstablished { .. }));
            assert!(established <= 4, "it does not flap: {established}");
            world.shut_down_and_check();
        }
    }
}

#[test]
fn simultaneous_starts_settle_to_one_ike_sa_on_both_ends() {
    for transport in STARTS {
        for seed in 0..100 {
            let mut world = both_always(transport, seed);
            world.run_for(Duration::from_secs(20));
            world.assert_settled(1);
            let established = world.saw(0, |event| matches!(event, Event::IkeEstablished { .. }));
            world.run_for(Duration::from_secs(300));
            assert_eq!(
                world.saw(0, |event| matches!(event, Event::IkeEstablished { .. })),
                established,
                "nothing is set up again"
            );
            assert!(established <= 2, "{established}");
            world.shut_down_and_check();
        }
    }
}

#[test]
fn down_stays_down_until_up() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(5));
    world.command(0, CommandKind::Down { child: None });
    world.run_for(Duration::from_secs(200));
    assert_eq!((world.state(0), world.status(0).reason), (State::Idle, Reason::None));
    assert!(world.status(0).ike_sas.is_empty() && world.status(1).ike_sas.is_empty());
    world.command(0, CommandKind::Up { child: None });
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    assert_eq!(outcomes(&world, 0), [true, true]);
    world.shut_down_and_check();
}

/// `start: on-traffic`.
#[test]
fn traffic_brings_a_child_up() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.a.children[0].start = StartMode::OnTraffic;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.state(0), State::Idle);
    let now = world.now;
    let packet = PacketSelectors {
        local: "10.1.0.7[tcp/1025]".parse().unwrap(),
        remote: "10.2.0.9[tcp/80]".parse().unwrap(),
    };
    let acquire = Fact::Acquire { connection: "c".into(), child: "net".into(), packet };
    world.nodes[0].endpoint.fact(now, acquire);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    world.shut_down_and_check();
}

#[test]
fn a_reload_leaves_untouched_connections_alone() {
    let pair = Pair::new(StartTransport::UdpThenTcp);
    let (same, mut changed) = (pair.a.clone(), pair.a.clone());
    changed.children.push(child("more", "10.11.0.0/24", "10.12.0.0/24"));
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    let before = world.status(0).ike_sas[0].id;
    let now = world.now;
    world.nodes[0].endpoint.set_connections(now, vec![same]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.status(0).ike_sas[0].id, before);
    let now = world.now;
    world.nodes[0].endpoint.set_connections(now, vec![changed]);
    world.run_for(Duration::from_secs(60));
    world.assert_settled(1);
    assert_ne!(world.status(0).ike_sas[0].id, before);
    world.shut_down_and_check();
}

#[test]
fn commands_say_what_is_wrong() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(5));
    world.command(0, CommandKind::RekeyChild { child: Some("nonesuch".into()) });
    world.command(0, CommandKind::RekeyIke);
    world.command(1, CommandKind::Up { child: Some("net".into()) });
    world.run_for(Duration::from_secs(5));
    assert_eq!(outcomes(&world, 0), [false, true]);
    assert_eq!(outcomes(&world, 1), [true]);
    world.shut_down_and_check();
}

fn outcomes(world: &World, node: usize) -> Vec<bool> {
    let done = |event: &Event| match event {
        Event::CommandDone { result, .. } => Some(result.is_ok()),
        _ => None,
    };
    world.nodes[node].events.iter().filter_map(|(_, event)| done(event)).collect()
}

fn both_always(transport: StartTransport, seed: u64) -> World {
    Pair::new(transport)
        .both(|connection| {
            connection.children[0].start = StartMode::Always;
            connection.ike.transport = transport;
        })
        .world(seed)
}
