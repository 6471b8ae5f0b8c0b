//! What workers do when nothing arrives.

mod gateway;
mod tunnel;

use portcullis_data_plane::config::Idle;
use portcullis_data_plane::counters::Source;

use tunnel::{Shape, Tunnel, XDP};

/// A veth takes the options of busy polling as a card does; what they save shows on a card alone.
#[test]
fn a_worker_carries_packets_however_it_waits_for_them() {
    for (idle, said) in [
        (Idle::Sleep, "workers sleep when idle"),
        (Idle::Spin, "workers spin"),
        (Idle::BusyPoll { budget: 16 }, "workers poll its queues, 16 packets at once"),
    ] {
        let tunnel = Tunnel::new(Shape { idle, ..XDP });
        tunnel.exchange_all(50);
        tunnel.assert_balanced();
        for side in [&tunnel.a, &tunnel.b] {
            assert!(side.received(Source::Lan) >= 100, "{}", side.drops());
            for interface in side.plane.report().interfaces {
                assert!(interface.reason.ends_with(said), "{}", interface.reason);
            }
        }
    }
}

#[test]
fn workers_sleep_unless_they_are_told_otherwise() {
    assert_eq!(Idle::default(), Idle::Sleep);
}
