//! Streams that break at any moment of a set-up, for both ends at once, for one of them, or without a word (RFC 9329 section 6).

use std::time::Duration;

use portcullis_ike::config::StartTransport;

use crate::configuration::Pair;
use crate::network::Protocol;
use crate::world::World;

const STARTS: [StartTransport; 2] = [StartTransport::UdpThenTcp, StartTransport::Tcp];

#[test]
fn a_stream_may_break_at_any_moment_of_a_set_up() {
    let breaks: [fn(&mut World); 4] = [
        World::break_streams,
        |world| world.break_streams_of(0),
        |world| world.break_streams_of(1),
        World::forget_streams,
    ];
    for transport in STARTS {
        for after_ms in (0..130).step_by(3) {
            for break_streams in breaks {
                let mut world = Pair::new(transport).world(after_ms);
                world.run_for(Duration::from_millis(after_ms));
                break_streams(&mut world);
                // Row 7 or 8, or a new dial: either way within the waits of the configuration.
                assert!(
                    world.run_until_holds(Duration::from_secs(100), |world| world.try_settled(1).is_ok()),
                    "{transport:?} after {after_ms} ms: {:?}",
                    world.try_settled(1)
                );
                world.run_for(Duration::from_secs(200));
                world.assert_settled(1);
                world.shut_down_and_check();
            }
        }
    }
}

/// A filter that lets TCP pass in one direction only stalls the stream; it is dialled again when the filter is gone.
#[test]
fn a_stream_that_stalls_in_one_direction_is_replaced() {
    for transport in STARTS {
        for from in 0..2 {
            let mut world = Pair::new(transport).world(1);
            world.traffic = Some(Duration::from_millis(500));
            world.run_for(Duration::from_secs(5));
            world.weather.one_way = Some((from, Protocol::Tcp));
            world.run_for(Duration::from_secs(300));
            world.assert_settled(1);
            world.weather.one_way = None;
            world.run_for(Duration::from_secs(200));
            world.assert_settled(1);
            assert!(world.nodes[0].endpoint.counters().stream_reconnects >= 1);
            world.shut_down_and_check();
        }
    }
}

/// RFC 9329 section 6.1, section 10: a stream with garbage on it, or with a message of a known SPI that is not authentic, is closed, not
/// resynchronised; its originator dials again, and ESP does not notice.
#[test]
fn a_corrupt_stream_is_closed_and_dialled_again() {
    for forge in [|_: &World, _| vec![0, 1, 2, 3], forged] {
        for node in 0..2 {
            let mut world = Pair::new(StartTransport::Tcp).world(1);
            world.traffic = Some(Duration::from_millis(200));
            world.run_for(Duration::from_secs(5));
            world.assert_settled(1);
            let spis = world.status(0).ike_sas[0].spis;
            let stream = *world.nodes[node].streams.keys().next().unwrap();
            let (now, octets) = (world.now, forge(&world, node));
            world.nodes[node].endpoint.handle_stream_bytes(now, stream, &octets);
            world.run_for(Duration::from_secs(1));
            assert!(!world.nodes[node].streams.contains_key(&stream), "node {node}");
            world.run_for(Duration::from_secs(60));
            world.assert_settled(1);
            assert_eq!(world.status(0).ike_sas[0].spis, spis, "node {node}");
            assert!(world.nodes[0].endpoint.counters().stream_reconnects >= 1);
            world.shut_down_and_check();
        }
    }
}

/// A request in the name of this node's peer, with an Encrypted payload of nothing.
fn forged(world: &World, node: usize) -> Vec<u8> {
    let (spi_i, spi_r) = world.status(0).ike_sas[0].spis;
    let flags = if node == 1 { 0x08 } else { 0 };
    let message = [
        &spi_i.to_be_bytes()[..],
        &spi_r.to_be_bytes(),
        &[46, 0x20, 37, flags],
        &world.tap.next_request(1 - node, (spi_i, spi_r)).to_be_bytes(),
        &[0, 0, 0, 28 + 40],
        &[0, 0, 0, 40],
        &[0; 36],
    ]
    .concat();
    let length = u16::try_from(2 + 4 + message.len()).unwrap();
    [&length.to_be_bytes()[..], &[0; 4], &message].concat()
}
