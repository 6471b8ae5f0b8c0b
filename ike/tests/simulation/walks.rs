//! Random walks: weather, rekeys, stream breaks, rebindings, restarts, commands from both ends, more than a thousand seeds. In
//! the end the two gateways agree on everything, and nothing is left behind.

use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{OnUnreachable, RemoteAddress, StartMode, StartTransport};

use crate::address::OTHER;
use crate::configuration::{A, B, NAT, Pair};
use crate::echo::falls_are_apart;
use crate::esp::Flow;
use crate::network::{Nat, Protocol, Tcp, Weather};
use crate::seeds::walk_all;
use crate::world::World;

const SEEDS: u64 = 1200;
const STEPS: usize = 12;
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// Until then one end may still find out that the other has given up in the bad weather: liveness, then `dead_after`.
const AFTERMATH: Duration = Duration::from_secs(120);
/// Within this time everything is as it should be: back-offs of `retry_max`, and a set-up.
const BOUND: Duration = Duration::from_secs(300);

#[test]
fn whatever_happens_both_ends_settle_and_nothing_leaks() {
    walk_all(SEEDS, walk);
}

#[test]
fn one_seed_gives_one_run() {
    for seed in [3, 4, 5, 36] {
        let (first, second) = (events(seed), events(seed));
        assert_eq!(first, second);
    }
}

/// RFC 9611: with three Child SAs of the same selectors. How many there are in the end depends on what was refused when both ends
/// were busy; that both have the same ones does not.
#[test]
fn whatever_happens_both_ends_have_the_same_resources() {
    walk_all(SEEDS / 3, |seed| walk_with(seed, 3));
}

fn walk(seed: u64) {
    walk_with(seed, 1);
}

fn walk_with(seed: u64, resources: u8) {
    let mut world = world_with(seed, resources);
    for _ in 0..STEPS {
        step(&mut world);
    }
    world.trace.line(world.now, "fair weather".into());
    world.weather = Weather::default();
    for (node, address) in [A, B].into_iter().enumerate() {
        if world.nodes[node].address != address {
            world.renumber(node, address);
        }
    }
    world.traffic = Some(Duration::from_millis(200));
    for node in 0..2 {
        world.command(node, CommandKind::Up { child: None });
    }
    world.run_for(AFTERMATH);
    world.run_until_holds(BOUND, |world| world.try_settled(usize::from(resources)).is_ok());
    assert_settled(&world, resources);
    // What was lost or repeated before does not matter; from here on nothing is.
    world.run_for(Duration::from_secs(120));
    assert_settled(&world, resources);
    let before = tally(&mut world);
    for side in 0..2 {
        world.command(side, CommandKind::RekeyChild { child: None });
        world.command(side, CommandKind::RekeyIke);
    }
    world.run_for(Duration::from_secs(30));
    assert_settled(&world, resources);
    let after = tally(&mut world);
    for (before, after) in before.iter().zip(&after) {
        assert!(after.sent >= before.sent + 100, "data flows both ways: {before:?} {after:?}");
        assert_eq!(after.lost, before.lost, "seed {seed}: rekeys lost packets");
        assert_eq!(after.reordered, before.reordered, "seed {seed}: rekeys reordered packets");
    }
    if world.nodes.iter().all(|node| node.boot == 0) && world.nat.is_none() {
        // A process that was killed remembers no fall, and peers that share a connection share none.
        falls_are_apart(&world, Duration::from_secs(60));
    }
    world.shut_down_and_check();
}

/// With one Child SA at least, and the same at both ends.
fn assert_settled(world: &World, resources: u8) {
    let is_settled = (1..=usize::from(resources)).any(|children| world.try_settled(children).is_ok());
    if !is_settled {
        world.assert_settled(usize::from(resources));
    }
}

fn world(seed: u64) -> World {
    world_with(seed, 1)
}

fn world_with(seed: u64, resources: u8) -> World {
    let transports = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
    let transport = transports[(seed % 3) as usize];
    let esp = ["aes256gcm16-esn", "aes128gcm16-x25519", "chacha20poly1305-x25519-ke1_mlkem768"];
    let mut pair = Pair::new(transport).both(|connection| {
        connection.children[0].proposals = vec![esp[(seed / 3 % 3) as usize].parse().unwrap()];
        connection.children[0].per_resource = resources;
        connection.ike.dead_after = DEAD_AFTER;
        // Both ends know the transport that the other starts on.
        connection.ike.transport = transport;
        if (seed / 5).is_multiple_of(3) {
            connection.esp.on_unreachable = OnUnreachable::TcpFallback;
        }
    });
    let behind_nat = (seed / 36).is_multiple_of(4);
    if behind_nat {
        pair.b.remote_address = RemoteAddress::Any;
    } else if (seed / 9).is_multiple_of(2) {
        pair.b.children[0].start = StartMode::Always;
    }
    let mut world = pair.world(seed);
    world.nat = behind_nat.then(|| Nat::new(A, NAT));
    world.traffic = Some(Duration::from_millis(200));
    if (seed / 18).is_multiple_of(2) {
        world.weather.loss = 10;
        world.weather.duplicates = 10;
        world.weather.jitter = Duration::from_millis(60);
    }
    world
}

fn step(world: &mut World) {
    let node = usize::try_from(world.random(2)).unwrap();
    match world.random(17) {
        0 | 1 => world.command(node, CommandKind::RekeyChild { child: None }),
        2 | 3 => world.command(node, CommandKind::RekeyIke),
        4 => {
            world.command(0, CommandKind::RekeyChild { child: None });
            world.command(1, CommandKind::RekeyChild { child: None });
        }
        5 => world.break_streams(),
        6 => world.break_streams_of(node),
        7 => world.forget_streams(),
        8 => world.command(node, CommandKind::Down { child: Some("net".into()) }),
        9 => world.command(node, CommandKind::Down { child: None }),
        10 => {
            let seed = world.random(u64::MAX);
            world.restart(node, seed);
        }
        11 => world.rebind_nat(),
        12 | 13 => change_weather(world),
        14 => change_address(world, node),
        _ => world.command(node, CommandKind::Up { child: None }),
    }
    let pause = [5, 30, 300, 3000, 20_000][usize::try_from(world.random(5)).unwrap()];
    world.run_for(Duration::from_millis(pause));
}

fn change_address(world: &mut World, node: usize) {
    match world.random(4) {
        0 => world.lose_address(node),
        1 => world.renumber(node, [A, B][node]),
        // A peer that names its peer's address lets an IKE SA follow it, and makes none with it.
        _ => world.renumber(0, OTHER),
    }
}

fn change_weather(world: &mut World) {
    let node = usize::try_from(world.random(2)).unwrap();
    match world.random(8) {
        0 => world.weather.tcp = Tcp::Refused,
        1 => world.weather.tcp = Tcp::Silent,
        2 => world.weather.tcp_stalled = true,
        3 => world.weather.one_way = Some((node, Protocol::Udp)),
        4 => world.weather.one_way = Some((node, Protocol::Tcp)),
        5 => world.weather.blocked.push((node, Protocol::Ip)),
        6 => world.weather.blocked.extend([(node, Protocol::Ip), (node, Protocol::Udp)]),
        _ => {
            world.weather = Weather { loss: world.random(30), ..Weather::default() };
            world.weather.udp_blocked = world.random(4) == 0;
        }
    }
    world.trace.line(world.now, format!("{:?}", world.weather));
}

#[derive(Debug)]
struct Tally {
    sent: u64,
    lost: u64,
    reordered: u64,
}

/// What has become of the data, when none is under way.
fn tally(world: &mut World) -> Vec<Tally> {
    let traffic = world.traffic.take();
    world.run_for(Duration::from_secs(1));
    world.traffic = traffic;
    let tally =
        |flow: &Flow| Tally { sent: flow.sent, lost: flow.sent - flow.received, reordered: flow.reordered };
    world.flows.values().map(tally).collect()
}

/// Everything but key bits: `ring` draws those by itself.
fn events(seed: u64) -> Vec<String> {
    let mut world = world(seed);
    for _ in 0..STEPS {
        step(&mut world);
    }
    let events = world.nodes.iter().flat_map(|node| &node.events);
    events.map(|(at, event)| format!("{at:?} {event:?}")).collect()
}
