//! Everything at once: four children, both ends rekeying, making and deleting whatever there is at the same moment, in loss,
//! reordering, duplication, behind a NAT that forgets, on streams that break. Then three things have to hold. In fair weather both
//! ends come to one IKE SA with every child, and what the endpoints hold is exactly that. A burst of everything in fair weather
//! loses no SA and no packet. And when the wire is cut and nobody wants anything any more, nothing is left once deadlines have
//! passed.

use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{RemoteAddress, StartMode, StartTransport};
use portcullis_ike::endpoint::Held;
use portcullis_ike::event::Event;

use crate::configuration::{A, NAT, Pair, child};
use crate::network::{Nat, Protocol, Weather};
use crate::seeds::walk_all;
use crate::world::World;

const SEEDS: u64 = 600;
const STEPS: usize = 10;
const CHILDREN: [&str; 4] = ["net", "more0", "more1", "more2"];

#[test]
fn everything_at_once_leaves_what_is_wanted_and_nothing_else() {
    walk_all(SEEDS, walk);
}

fn walk(seed: u64) {
    let mut world = world(seed);
    world.run_for(Duration::from_secs(5));
    for _ in 0..STEPS {
        step(&mut world);
    }
    world.trace.line(world.now, "fair weather".into());
    world.weather = Weather::default();
    for node in 0..2 {
        world.command(node, CommandKind::Up { child: None });
    }
    world.run_for(Duration::from_secs(120));
    world.run_until_holds(Duration::from_secs(300), |world| world.try_settled(CHILDREN.len()).is_ok());
    world.run_for(Duration::from_secs(60));
    world.assert_settled(CHILDREN.len());
    holds_what_is_up(&world, seed);
    a_burst_in_fair_weather_loses_nothing(&mut world, seed);
    nothing_is_left_on_a_cut_wire(&mut world, seed);
}

fn world(seed: u64) -> World {
    let transport =
        [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp][(seed % 3) as usize];
    let esp =
        ["aes256gcm16-esn", "aes128gcm16-x25519", "aes256gcm16-x25519-ke1_mlkem512", "chacha20poly1305"];
    let mut pair = Pair::new(transport).both(|connection| {
        connection.ike.transport = transport;
        connection.ike.dead_after = Duration::from_secs(60);
        if seed % 4 == 1 {
            connection.ike.proposals = vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()];
        }
    });
    for (n, name) in CHILDREN.iter().enumerate().skip(1) {
        let (ours, theirs) = (format!("10.1{n}.0.0/24"), format!("10.2{n}.0.0/24"));
        pair.a.children.push(child(name, &ours, &theirs));
        pair.b.children.push(child(name, &theirs, &ours));
    }
    for connection in [&mut pair.a, &mut pair.b] {
        for (n, child) in connection.children.iter_mut().enumerate() {
            child.proposals = vec![esp[(n + seed as usize) % esp.len()].parse().unwrap()];
        }
    }
    let behind_nat = seed % 5 == 2;
    if behind_nat {
        pair.b.remote_address = RemoteAddress::Any;
    }
    for child in &mut pair.a.children {
        child.start = StartMode::Always;
    }
    let mut world = pair.world(seed);
    world.nat = behind_nat.then(|| Nat::new(A, NAT));
    world.traffic = Some(Duration::from_millis(250));
    world
}

/// Both ends do several things at the same moment, or nearly.
fn step(world: &mut World) {
    match world.random(6) {
        0 => world.weather = Weather::default(),
        1 => {
            world.weather.loss = world.random(25);
            world.weather.duplicates = world.random(30);
            world.weather.jitter = Duration::from_millis(world.random(80));
        }
        2 => world.break_streams(),
        3 => world.rebind_nat(),
        4 => {
            let node = usize::try_from(world.random(2)).unwrap();
            world.weather.one_way = Some((node, [Protocol::Udp, Protocol::Tcp][world.random(2) as usize]));
        }
        _ => {}
    }
    for _ in 0..1 + world.random(3) {
        for node in 0..2 {
            let kind = anything(world, true);
            world.command(node, kind);
        }
        let pause = world.random(40);
        world.run_for(Duration::from_millis(pause));
    }
    let pause = [50, 500, 5000, 30_000][usize::try_from(world.random(4)).unwrap()];
    world.run_for(Duration::from_millis(pause));
}

fn anything(world: &mut World, destroys: bool) -> CommandKind {
    let child = CHILDREN[usize::try_from(world.random(4)).unwrap()];
    match world.random(if destroys { 8 } else { 4 }) {
        0 => CommandKind::RekeyIke,
        1 => CommandKind::RekeyChild { child: None },
        2 | 3 => CommandKind::RekeyChild { child: Some(child.into()) },
        4 | 5 => CommandKind::Down { child: Some(child.into()) },
        6 => CommandKind::Up { child: Some(child.into()) },
        _ => CommandKind::Up { child: None },
    }
}

fn holds_what_is_up(world: &World, seed: u64) {
    for (n, node) in world.nodes.iter().enumerate() {
        let held = node.endpoint.held();
        let is_tcp = usize::from(held.streams == 1);
        let expected = Held {
            live: 1,
            ike_spis: 1,
            children: CHILDREN.len(),
            streams: is_tcp,
            timers: 1,
            ..Held::default()
        };
        assert_eq!(held, expected, "seed {seed}, node {n}");
        assert_eq!(
            (node.inbound.len(), node.outbound.len()),
            (CHILDREN.len(), CHILDREN.len()),
            "seed {seed}"
        );
    }
}

fn a_burst_in_fair_weather_loses_nothing(world: &mut World, seed: u64) {
    world.traffic = Some(Duration::from_millis(50));
    world.run_for(Duration::from_secs(10));
    let before = lost(world);
    let removed = |world: &World| world.saw(0, |event| matches!(event, Event::IkeRemoved { .. }));
    let removed_before = removed(world);
    for _ in 0..3 {
        for node in 0..2 {
            for _ in 0..3 {
                let kind = anything(world, false);
                world.command(node, kind);
            }
        }
        let pause = world.random(50);
        world.run_for(Duration::from_millis(pause));
    }
    world.run_for(Duration::from_secs(60));
    world.assert_settled(CHILDREN.len());
    holds_what_is_up(world, seed);
    assert_eq!(lost(world), before, "seed {seed}: packets were lost");
    assert_eq!(removed(world), removed_before, "seed {seed}: an IKE SA was lost");
}

/// Packets that have not arrived, when none is under way.
fn lost(world: &mut World) -> u64 {
    let traffic = world.traffic.take();
    world.run_for(Duration::from_secs(1));
    world.traffic = traffic;
    world.flows.values().map(|flow| flow.sent - flow.received).sum()
}

fn nothing_is_left_on_a_cut_wire(world: &mut World, seed: u64) {
    for node in 0..2 {
        world.command(node, CommandKind::RekeyIke);
        world.command(node, CommandKind::RekeyChild { child: None });
    }
    let pause = world.random(100);
    world.run_for(Duration::from_millis(pause));
    for node in 0..2 {
        world
            .weather
            .blocked
            .extend([Protocol::Ip, Protocol::Udp, Protocol::Tcp].map(|protocol| (node, protocol)));
    }
    world.traffic = None;
    for node in 0..2 {
        // The other end hears nothing of it, and nobody wants anything any more.
        world.command(node, CommandKind::Down { child: None });
    }
    world.run_for(Duration::from_secs(600));
    for node in &world.nodes {
        assert_eq!(node.endpoint.held(), Held::default(), "seed {seed}");
        node.assert_empty();
    }
}
