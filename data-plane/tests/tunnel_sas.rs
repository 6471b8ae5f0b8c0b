//! The life of SAs under traffic: rekey, hold, shut, lifetimes, and what the control plane hears of it.

mod gateway;
mod tunnel;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use portcullis_common::DropReason;
use portcullis_data_plane::counters::Sink;
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::handle::{Direction, MoveRefused};
use portcullis_data_plane::packet::inner::Ports;
use portcullis_data_plane::packet::protocol;
use portcullis_data_plane::sa::{Carrier, ChildId, Lifetime, OutboundSa};

use gateway::{PATIENCE, bind, wait_until};
use tunnel::{CHILD, FURTHER, HOST_A, HOST_B, NO_LIMITS, Shape, Side, TUN, Tunnel, XDP};

/// RFC 7296 section 2.8: the new SA takes over while the old one still opens what is under way.
#[test]
fn rekeys_under_load_lose_replay_and_reorder_nothing() {
    let several = |shape: Shape, queues| Shape { workers: 3, queues, ..shape };
    [TUN, XDP, several(TUN, 1), several(XDP, 3)].into_iter().for_each(rekeys_under_load);
}

fn rekeys_under_load(shape: Shape) {
    let tunnel = Tunnel::new(shape);
    let (sender, receiver) = sockets(&tunnel);
    let destination = receiver.local_addr().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0u32;
            while !done.load(Ordering::Relaxed) {
                sender.send_to(&sent.to_be_bytes(), destination).unwrap();
                sent += 1;
                // Paced by what arrives, so that no queue on the way is overrun.
                expect(&receiver, sent - 1);
            }
            sent
        });
        let mut old = (CHILD, tunnel.first_spis);
        for number in 2..12 {
            let child = ChildId(number);
            let spis = tunnel.install(child, NO_LIMITS);
            let before = tunnel.b.plane.usage(child).unwrap().0.packets;
            wait_until("traffic uses the new SA", || tunnel.b.plane.usage(child).unwrap().0.packets > before);
            for (side, spi) in [(&tunnel.a, old.1.0), (&tunnel.b, old.1.1)] {
                side.plane.remove_outbound(old.0);
                side.plane.remove_inbound(old.0, spi);
            }
            old = (child, spis);
        }
        done.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap();
        assert!(sent >= 10, "each of the ten new SAs has carried a packet, {sent} were sent");
    });
    tunnel.assert_balanced();
    for side in [&tunnel.a, &tunnel.b] {
        let books = side.plane.report().accounting();
        let lost = [DropReason::Replay, DropReason::StaleSa, DropReason::UnknownSpi, DropReason::NoSa];
        assert_eq!(lost.map(|reason| books.dropped(reason)), [0; 4], "{}", side.drops());
    }
}

/// Transport policy rule 4: held until the carrier is known, 64 packets, in order.
#[test]
fn packets_wait_for_a_carrier_in_order() {
    let tunnel = Tunnel::new(TUN);
    tunnel.set_path(Carrier::Hold, false);
    let (sender, receiver) = sockets(&tunnel);
    for number in 0..70u32 {
        sender.send_to(&number.to_be_bytes(), receiver.local_addr().unwrap()).unwrap();
    }
    wait_until("all packets are held or dropped", || dropped(&tunnel.a, DropReason::CarrierUnknown) >= 6);
    tunnel.set_path(Carrier::Ip, false);
    (6..70).for_each(|number| expect(&receiver, number));
    tunnel.assert_balanced();
    assert_eq!(dropped(&tunnel.a, DropReason::CarrierUnknown), 6);
}

/// Transport policy rule 4: after a second without carrier they are dropped as `carrier_unknown`.
#[test]
fn packets_do_not_wait_for_a_carrier_longer_than_a_second() {
    let tunnel = Tunnel::new(TUN);
    tunnel.set_path(Carrier::Hold, false);
    let (sender, receiver) = sockets(&tunnel);
    sender.send_to(b"late", receiver.local_addr().unwrap()).unwrap();
    wait_until("it is held", || tunnel.a.plane.report().accounting().held == 1);
    wait_until("it is dropped", || dropped(&tunnel.a, DropReason::CarrierUnknown) == 1);
    tunnel.assert_balanced();
}

#[test]
fn a_shut_path_sends_nothing_until_it_opens() {
    let tunnel = Tunnel::new(TUN);
    tunnel.set_path(Carrier::Shut, false);
    let (sender, receiver) = sockets(&tunnel);
    sender.send_to(b"shut", receiver.local_addr().unwrap()).unwrap();
    wait_until("it is dropped", || dropped(&tunnel.a, DropReason::PathShut) == 1);
    assert_eq!(tunnel.a.sent(Sink::Udp) + tunnel.a.sent(Sink::RawIp), 0);
    tunnel.set_path(Carrier::Udp, false);
    tunnel.exchange(HOST_A, HOST_B, 1);
    tunnel.assert_balanced();
}

#[test]
fn lifetimes_are_reported_once_and_the_hard_one_stops_the_sa() {
    let lifetime = Lifetime { soft_packets: 3, hard_packets: 5, ..NO_LIMITS };
    let mut tunnel = Tunnel::without_sas(TUN);
    tunnel.set_path(Carrier::Udp, false);
    tunnel.install(CHILD, lifetime);
    tunnel.exchange(HOST_A, HOST_B, 3);
    tunnel.a.event(|e| (*e == DataPlaneEvent::SoftLifetime { child: CHILD }).then_some(()));
    tunnel.exchange(HOST_A, HOST_B, 2);
    tunnel.a.event(|e| (*e == DataPlaneEvent::HardLifetime { child: CHILD }).then_some(()));
    let (sender, receiver) = sockets(&tunnel);
    sender.send_to(b"no more", receiver.local_addr().unwrap()).unwrap();
    wait_until("it is dropped", || dropped(&tunnel.a, DropReason::LifetimeExpired) == 1);
    assert_eq!(tunnel.a.plane.usage(CHILD).unwrap().1.packets, 5);
    tunnel.assert_balanced();
}

/// RFC 9611: flows are spread over the SAs of a policy, which have different workers, and each flow stays in order on one.
#[test]
fn flows_are_spread_over_the_sas_of_several_resources() {
    for shape in [TUN, XDP] {
        let tunnel = Tunnel::new(Shape { workers: 3, ..shape });
        let children = [CHILD, ChildId(FURTHER + 1), ChildId(FURTHER + 2)];
        for child in &children[1..] {
            tunnel.install(*child, NO_LIMITS);
        }
        let (_, receiver) = sockets(&tunnel);
        let flows: Vec<_> = (0..48).map(|_| tunnel.a.host.run(|| bind(HOST_A))).collect();
        for round in 0..4_u32 {
            for flow in &flows {
                flow.send_to(&round.to_be_bytes(), receiver.local_addr().unwrap()).unwrap();
            }
        }
        let mut next = std::collections::BTreeMap::new();
        for _ in 0..4 * flows.len() {
            let mut received = [0; 4];
            let (_, from) = receiver.recv_from(&mut received).unwrap();
            let expected: &mut u32 = next.entry(from).or_default();
            assert_eq!(u32::from_be_bytes(received), *expected, "in order within {from}");
            *expected += 1;
        }
        for child in children {
            let sent = tunnel.a.plane.usage(child).unwrap().1.packets;
            let opened = tunnel.b.plane.usage(child).unwrap().0.packets;
            assert!(sent > 0 && sent < 4 * 48 && sent.is_multiple_of(4), "{sent} packets on {child:?}");
            assert_eq!(opened, sent);
        }
        tunnel.assert_balanced();
    }
}

/// Every worker seals what comes to it with one SA: no number is used twice, which the peer would drop as a replay, and each
/// flow stays in order.
#[test]
fn all_workers_seal_with_one_sa_where_the_peers_window_allows() {
    for shape in [Shape { workers: 3, ..TUN }, Shape { workers: 3, queues: 3, ..XDP }] {
        let tunnel = Tunnel::without_sas(shape);
        tunnel.set_path(Carrier::Udp, false);
        let spis = [&tunnel.a, &tunnel.b].map(|side| side.plane.allocate_spi().unwrap());
        for (side, [own, other]) in [(&tunnel.a, spis), (&tunnel.b, [spis[1], spis[0]])] {
            side.plane.install_inbound(side.inbound(CHILD, own, NO_LIMITS)).unwrap();
            let outbound = OutboundSa { by_all_workers: true, ..side.outbound(CHILD, other, NO_LIMITS) };
            side.plane.install_outbound(outbound).unwrap();
        }
        assert!(tunnel.a.plane.use_outbound(CHILD) && tunnel.b.plane.use_outbound(CHILD));
        tunnel.exchange_all(1);
        let (_, receiver) = sockets(&tunnel);
        let flows: Vec<_> = (0..48).map(|_| tunnel.a.host.run(|| bind(HOST_A))).collect();
        for round in 0..40_u32 {
            for flow in &flows {
                flow.send_to(&round.to_be_bytes(), receiver.local_addr().unwrap()).unwrap();
            }
            // A window at a time, so that no queue is overrun.
            for _ in &flows {
                let mut received = [0; 4];
                let (_, from) = receiver.recv_from(&mut received).unwrap();
                assert_eq!(u32::from_be_bytes(received), round, "in order within {from}");
            }
        }
        let refused = tunnel.a.plane.move_sa(CHILD, Direction::Outbound, 1);
        assert!(matches!(refused, Err(MoveRefused::Shared | MoveRefused::Veth)), "{refused:?}");
        let workers = tunnel.a.plane.report().workers;
        let sealed: Vec<_> =
            workers.iter().map(|w| w.esp_sent.iter().map(|count| count.0).sum::<u64>()).collect();
        assert!(sealed.iter().filter(|count| **count > 100).count() > 1, "{sealed:?}");
        let usage = tunnel.a.plane.usage(CHILD).unwrap().1;
        assert_eq!((usage.packets, usage.sequence), (sealed.iter().sum(), usage.packets));
        assert_eq!(dropped(&tunnel.b, DropReason::Replay), 0);
        tunnel.assert_balanced();
        tunnel.a.plane.remove_outbound(CHILD);
        wait_until("no worker has it", || {
            // Whoever asks for a slot frees those that can be.
            tunnel.a.plane.release_spi(tunnel.a.plane.allocate_spi().unwrap());
            tunnel.a.plane.report().sas.outbound == 0
        });
    }
}

/// `start: on-traffic`: one request, however many packets.
#[test]
fn a_packet_without_an_sa_asks_for_one() {
    let mut tunnel = Tunnel::without_sas(TUN);
    let (sender, receiver) = sockets(&tunnel);
    for _ in 0..5 {
        sender.send_to(b"who protects me", receiver.local_addr().unwrap()).unwrap();
    }
    wait_until("all are dropped", || dropped(&tunnel.a, DropReason::NoSa) == 5);
    let key = tunnel.a.policy();
    let flow = tunnel.a.event(|event| match event {
        DataPlaneEvent::Acquire { policy, flow } if *policy == key => Some(*flow),
        _ => None,
    });
    let (local, remote) = (sender.local_addr().unwrap(), receiver.local_addr().unwrap());
    assert_eq!((flow.local, flow.remote, flow.protocol), (local.ip(), remote.ip(), protocol::UDP));
    assert_eq!(flow.ports, Ports::Known(local.port(), remote.port()));
    let acquires = std::iter::from_fn(|| tunnel.a.receivers.events.try_recv().ok());
    assert_eq!(acquires.filter(|e| matches!(e, DataPlaneEvent::Acquire { .. })).count(), 0);
}

/// Transport policy rule 4: a dummy tells the peer carrier and address, and is then dropped (RFC 4303 section 2.6).
#[test]
fn a_dummy_shows_the_peer_where_we_are() {
    let mut tunnel = Tunnel::without_sas(TUN);
    tunnel.set_path(Carrier::Ip, false);
    let (_, spi_b) = tunnel.install(CHILD, NO_LIMITS);
    tunnel.a.plane.send_dummy(CHILD);
    let (carrier, source, is_highest) = tunnel.b.event(|event| match event {
        DataPlaneEvent::Inbound { child: CHILD, spi, carrier, source, is_highest, .. } if *spi == spi_b => {
            Some((*carrier, *source, *is_highest))
        }
        _ => None,
    });
    assert_eq!((carrier, source.ip(), source.port()), (Carrier::Ip, tunnel.a.wan_address(false), 0));
    assert!(is_highest);
    wait_until("it is dropped", || dropped(&tunnel.b, DropReason::Dummy) == 1);
    tunnel.assert_balanced();
}

#[test]
fn ike_on_udp_4500_goes_up_and_down() {
    let mut tunnel = Tunnel::new(TUN);
    let (a, b) = (tunnel.a.wan_address(false), tunnel.b.wan_address(false));
    let mut message = vec![0; 20_000];
    message[4..].fill(7);
    tunnel.a.plane.send_ike((a, 4500).into(), (b, 4500).into(), &message).unwrap();
    let mut received = None;
    let ike = &mut tunnel.b.receivers.ike;
    wait_until("the message arrives", || {
        received = received.take().or_else(|| ike.try_recv().ok());
        received.is_some()
    });
    let received = received.unwrap();
    assert_eq!((received.remote, received.local), ((a, 4500).into(), (b, 4500).into()));
    assert_eq!(received.payload, message);
    tunnel.assert_balanced();
    assert_eq!(tunnel.b.sent(Sink::Ike), 1);
}

fn sockets(tunnel: &Tunnel) -> (UdpSocket, UdpSocket) {
    let receiver = tunnel.b.host.run(|| bind(HOST_B));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    (tunnel.a.host.run(|| bind(HOST_A)), receiver)
}

fn expect(receiver: &UdpSocket, number: u32) {
    let mut received = [0; 16];
    let (len, _) = receiver.recv_from(&mut received).unwrap();
    assert_eq!(received[..len], number.to_be_bytes());
}

fn dropped(side: &Side, reason: DropReason) -> u64 {
    side.plane.report().accounting().dropped(reason)
}
