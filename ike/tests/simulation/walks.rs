//! Random walks: weather, rekeys, stream breaks, restarts, commands from both ends, thousands of seeds. In the end the two
//! gateways agree on everything, and nothing is left behind.

use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{StartMode, StartTransport};

use crate::configuration::Pair;
use crate::network::{Tcp, Weather};
use crate::world::World;

const SEEDS: u64 = 1200;

#[test]
fn whatever_happens_both_ends_settle_and_nothing_leaks() {
    let threads = 2;
    let walkers: Vec<_> = (0..threads)
        .map(|thread| {
            std::thread::spawn(move || {
                for seed in (thread..SEEDS).step_by(threads as usize) {
                    let walk = std::panic::catch_unwind(|| walk(seed));
                    assert!(walk.is_ok(), "seed {seed}");
                }
            })
        })
        .collect();
    for walker in walkers {
        walker.join().unwrap();
    }
}

#[test]
fn one_seed_gives_one_run() {
    for seed in [3, 4, 5] {
        let (first, second) = (trace(seed), trace(seed));
        assert_eq!(first, second);
    }
}

fn walk(seed: u64) {
    let mut world = world(seed);
    for _ in 0..12 {
        step(&mut world);
    }
    world.weather = Weather::default();
    world.traffic = Some(Duration::from_millis(200));
    for node in 0..2 {
        world.command(node, CommandKind::Up { child: None });
    }
    world.run_until_holds(Duration::from_secs(700), |world| world.try_settled(1).is_ok());
    world.assert_settled(1);
    // What was lost or repeated before does not matter; from here on nothing is.
    world.run_for(Duration::from_secs(20));
    world.assert_settled(1);
    let lost: Vec<_> = world.nodes.iter().map(|node| node.unknown_spi).collect();
    for side in 0..2 {
        world.command(side, CommandKind::RekeyChild { child: None });
        world.command(side, CommandKind::RekeyIke);
    }
    world.run_for(Duration::from_secs(30));
    world.assert_settled(1);
    let now_lost: Vec<_> = world.nodes.iter().map(|node| node.unknown_spi).collect();
    assert_eq!(lost, now_lost, "seed {seed}: rekeys lost packets");
    world.shut_down_and_check();
}

fn world(seed: u64) -> World {
    let transports = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
    let transport = transports[(seed % 3) as usize];
    let esp = ["aes256gcm16-esn", "aes128gcm16-x25519", "chacha20poly1305-x25519-ke1_mlkem768"];
    let mut pair = Pair::new(transport).both(|connection| {
        connection.children[0].proposals = vec![esp[(seed / 3 % 3) as usize].parse().unwrap()];
        connection.ike.dead_after = Duration::from_secs(60);
        // Both ends know the transport that the other starts on.
        connection.ike.transport = transport;
    });
    if seed / 9 % 2 == 0 {
        pair.b.children[0].start = StartMode::Always;
    }
    let mut world = pair.world(seed);
    world.traffic = Some(Duration::from_millis(200));
    if seed / 18 % 2 == 0 {
        world.weather.loss = 10;
        world.weather.duplicates = 10;
        world.weather.jitter = Duration::from_millis(60);
    }
    world
}

fn step(world: &mut World) {
    let node = usize::try_from(world.random(2)).unwrap();
    match world.random(11) {
        0 | 1 => world.command(node, CommandKind::RekeyChild { child: None }),
        2 | 3 => world.command(node, CommandKind::RekeyIke),
        4 => {
            world.command(0, CommandKind::RekeyChild { child: None });
            world.command(1, CommandKind::RekeyChild { child: None });
        }
        5 => world.break_streams(),
        6 => world.command(node, CommandKind::Down { child: Some("net".into()) }),
        7 => {
            let seed = world.random(u64::MAX);
            world.restart(node, seed);
        }
        8 => {
            let tcp = [Tcp::Works, Tcp::Refused, Tcp::Silent];
            world.weather.tcp = tcp[usize::try_from(world.random(3)).unwrap()];
        }
        9 => {
            world.weather.loss = world.random(30);
            world.weather.udp_blocked = world.random(4) == 0;
        }
        _ => world.command(node, CommandKind::Up { child: None }),
    }
    let pause = [5, 30, 300, 3000, 20_000][usize::try_from(world.random(5)).unwrap()];
    world.run_for(Duration::from_millis(pause));
}

/// Everything but key bits: `ring` draws those by itself.
fn trace(seed: u64) -> Vec<String> {
    let mut world = world(seed);
    for _ in 0..12 {
        step(&mut world);
    }
    let events = world.nodes.iter().flat_map(|node| &node.events);
    events.map(|(at, event)| format!("{at:?} {event:?}")).collect()
}
