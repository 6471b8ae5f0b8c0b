//! Random walks over falling back and coming back: carriers blocked in both directions and in one, streams that break,
//! rekeys, and policies that change at any moment, at either end. The simulated data plane holds the invariants: no
//! ESP in TCP under fail-closed, none outside of it where it belongs there. In the end both ends settle on one IKE SA and a
//! direct carrier, and nothing is left behind.

use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{FirstChild, OnUnreachable, SeparateTransports, StartMode, StartTransport};
use portcullis_ike::status::State;

use crate::configuration::Pair;
use crate::network::{Protocol, Weather};
use crate::returns::assert_one_fall_per_hold_time;
use crate::seeds::walk_all;
use crate::world::World;
use OnUnreachable::{FailClosed, TcpFallback};

const SEEDS: u64 = 1000;
const STEPS: usize = 25;

#[test]
fn whatever_the_policies_do_both_ends_settle() {
    walk_all(SEEDS, walk);
}

fn walk(seed: u64) {
    let mut world = world(seed);
    for _ in 0..STEPS {
        step(&mut world);
    }
    world.trace.line(world.now, "fair weather".into());
    world.weather = Weather::default();
    for node in 0..2 {
        assert_one_fall_per_hold_time(&world, node);
        world.command(node, CommandKind::Up { child: None });
    }
    // A hold-down after many relapses takes up to an hour, and the peer's DELETE may come in between.
    let is_settled =
        |world: &World| world.try_settled(1).is_ok() && (0..2).all(|node| is_direct(world, node));
    let settles = world.run_until_holds(Duration::from_secs(3 * 3600), is_settled);
    assert!(settles, "{:?}\n{:?}", world.status(0), world.status(1));
    world.run_for(Duration::from_secs(120));
    world.assert_settled(1);
    world.shut_down_and_check();
}

fn world(seed: u64) -> World {
    let transport = [StartTransport::Tcp, StartTransport::UdpThenTcp][(seed % 2) as usize];
    let policy = |bit: u64| if seed >> bit & 1 == 0 { FailClosed } else { TcpFallback };
    let mut pair = Pair::new(transport).both(|connection| {
        connection.ike.transport = transport;
        connection.ike.dead_after = Duration::from_secs(60);
        if seed.is_multiple_of(5) {
            connection.ike.separate_transports = SeparateTransports::Require;
        }
    });
    match seed % 7 {
        3 => pair.a.ike.first_child = FirstChild::Childless,
        4 => {
            pair.a.ike.first_child = FirstChild::AfterRekey;
            pair.b.ike.first_child = FirstChild::AfterRekey;
        }
        _ => {}
    }
    pair.a.esp.on_unreachable = policy(1);
    pair.b.esp.on_unreachable = policy(2);
    if (seed / 8).is_multiple_of(3) {
        pair.b.children[0].start = StartMode::Always;
    }
    let mut world = pair.world(seed);
    world.traffic = Some(Duration::from_millis(200));
    world
}

fn step(world: &mut World) {
    let node = usize::try_from(world.random(2)).unwrap();
    match world.random(16) {
        0..=2 => (world.weather.ip_blocked, world.weather.udp_blocked) = (true, true),
        3 => world.weather.ip_blocked = true,
        4 => world.weather.one_way = Some((node, [Protocol::Ip, Protocol::Udp][world.random(2) as usize])),
        5..=7 => world.weather = Weather { loss: world.random(5), ..Weather::default() },
        8 => world.break_streams(),
        9 => world.command(node, CommandKind::RekeyIke),
        10 => world.command(node, CommandKind::RekeyChild { child: None }),
        11 => world.command(node, CommandKind::Probe),
        _ => {
            let on_unreachable = [FailClosed, TcpFallback][world.random(2) as usize];
            world.command(node, CommandKind::SetEspPolicy { on_unreachable });
        }
    }
    let pause = [20, 500, 4000, 20_000, 60_000][usize::try_from(world.random(5)).unwrap()];
    world.run_for(Duration::from_millis(pause));
}

fn is_direct(world: &World, node: usize) -> bool {
    matches!(world.state(node), State::DirectIp | State::DirectUdp)
}
