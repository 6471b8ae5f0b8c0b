//! ESP in TCP (RFC 9329): two data planes that a TCP connection joins, with IKE beside.

mod gateway;
mod tunnel;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use portcullis_common::DropReason;
use portcullis_data_plane::counters::{Sink, Source};
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::sa::{Carrier, ChildId, PathId};
use portcullis_data_plane::stream::{Ended, Incoming};

use gateway::{PATIENCE, address, bind, wait_until};
use tunnel::joined::{End, Joined, connect, runtime};
use tunnel::{
    AGAIN_AFTER, CHILD, HOST_A, HOST_A_V6, HOST_B, HOST_B_V6, NO_LIMITS, PATH, Shape, Side, TUN, Tunnel, XDP,
};

/// RFC 9329 sections 3 and 6.8: ESP of all Child SAs and IKE share one stream.
#[test]
fn several_sas_and_ike_share_one_stream() {
    [TUN, XDP].into_iter().for_each(several_sas_and_ike);
}

fn several_sas_and_ike(shape: Shape) {
    let mut tunnel = Tunnel::new(shape);
    let runtime = runtime();
    let mut joined = Joined::new(&tunnel, &runtime);
    let second = ChildId(2);
    tunnel.install(second, NO_LIMITS);
    let before = tunnel.b.plane.usage(CHILD).unwrap().0.packets;
    let ike: Vec<_> = (0..200).map(|i| ike_message(i, [10, 300, 5000, 65_529][i % 4])).collect();
    for message in &ike {
        joined.a.say(message.clone());
        joined.b.say(message.clone());
    }
    echo(&tunnel, HOST_A, HOST_B, 1 << 20);
    echo(&tunnel, HOST_B_V6, HOST_A_V6, 1 << 20);
    let said = ike.concat();
    assert!(joined.a.heard(said.len()) == said && joined.b.heard(said.len()) == said, "IKE arrives whole");
    wait_until("the first SA is used as well", || {
        // More than one: they may be late on a busy machine.
        tunnel.a.plane.send_dummy(CHILD);
        tunnel.b.plane.usage(CHILD).unwrap().0.packets > before
    });
    let packets = tunnel.b.plane.usage(second).unwrap();
    assert!(packets.0.packets > 100 && packets.1.packets > 100, "{packets:?}");
    let (key, remote) = (joined.b.port.key(), joined.b.remote);
    let (carrier, source) = tunnel.b.event(|event| match event {
        DataPlaneEvent::Inbound { child, carrier, source, .. } if *child == second => {
            Some((*carrier, *source))
        }
        _ => None,
    });
    assert_eq!((carrier, source), (Carrier::Stream(key), remote));
    tunnel.assert_balanced();
    for side in [&tunnel.a, &tunnel.b] {
        assert!(side.sent(Sink::Tcp) > 100 && side.received(Source::Tcp) > 100, "{}", side.drops());
        assert_eq!(side.sent(Sink::Udp) + side.sent(Sink::RawIp) + side.sent(Sink::Wan), 0);
    }
}

/// A queue that drops rather than delays, in which IKE goes first.
#[test]
fn a_peer_that_does_not_read_delays_nothing_and_ike_goes_first() {
    let tunnel = Tunnel::new(TUN);
    let runtime = runtime();
    let (near, mut far) = connect(&tunnel);
    let mut end = End::new(&tunnel.a, near, false, &runtime);
    tunnel.a.use_stream(end.port.key());
    let sender = tunnel.a.host.run(|| bind(HOST_A));
    let flood_until = |what, condition: &dyn Fn() -> bool| {
        wait_until(what, || {
            let _ = sender.send_to(&[7; 1000], (address(HOST_B), 9));
            condition()
        });
    };
    flood_until("packets are late", &|| dropped(&tunnel.a, DropReason::StreamLate) > 1000);
    let last = tunnel.a.plane.usage(CHILD).unwrap().1.sequence;
    let message = ike_message(1, 3000);
    end.say(message.clone());
    flood_until("more packets are late", &|| dropped(&tunnel.a, DropReason::StreamLate) > 2000);
    // The peer reads again: what the kernel had, then IKE, then what is fresh.
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut incoming, mut ike, mut before) = (Incoming::dialled(), Vec::new(), Vec::new());
    let mut buffer = vec![0; 1 << 16];
    while ike.len() < message.len() {
        let len = far.read(&mut buffer).unwrap();
        for octet in &buffer[..len] {
            incoming.take(
                std::slice::from_ref(octet),
                true,
                |octets| ike.extend_from_slice(octets),
                |packet| before.push(u32::from_be_bytes(packet[4..8].try_into().unwrap())),
            );
            if ike.len() == message.len() {
                break;
            }
        }
    }
    assert_eq!(ike, message);
    assert!(before.iter().all(|sequence| u64::from(*sequence) <= last), "ESP overtook IKE");
    assert!(before.is_sorted(), "sequence numbers leave in their order");
    drop(far);
    assert!(!matches!(runtime.block_on(&mut end.task).unwrap(), Ended::ByIke));
    tunnel.assert_balanced();
}

/// ESP on a stream that is not up is dropped, whether it broke or never came; the next stream carries on.
#[test]
fn esp_for_a_broken_stream_is_dropped_and_a_new_one_carries_on() {
    let tunnel = Tunnel::new(TUN);
    let runtime = runtime();
    let (port, _never_connected) = tunnel.a.plane.open_stream();
    tunnel.a.use_stream(port.key());
    send_one(&tunnel);
    wait_until("it is dropped", || dropped(&tunnel.a, DropReason::StreamDown) == 1);
    assert_eq!(tunnel.a.plane.usage(CHILD).unwrap().1.packets, 0, "nothing is sealed for no stream");

    let joined = Joined::new(&tunnel, &runtime);
    echo(&tunnel, HOST_A, HOST_B, 1 << 16);
    joined.a.task.abort();
    wait_until("the other end notices", || joined.b.task.is_finished());
    let down = dropped(&tunnel.a, DropReason::StreamDown);
    send_one(&tunnel);
    wait_until("it is dropped", || dropped(&tunnel.a, DropReason::StreamDown) > down);
    tunnel.assert_balanced();

    let joined = Joined::new(&tunnel, &runtime);
    echo(&tunnel, HOST_A, HOST_B, 1 << 16);
    // IKE ends a stream after what it said has left.
    let End { port: _, say, heard, mut task, .. } = joined.a;
    say.send(ike_message(7, 60_000)).unwrap();
    drop((say, heard));
    assert!(matches!(runtime.block_on(&mut task).unwrap(), Ended::ByIke));
    let mut b = joined.b;
    assert_eq!(b.heard(60_006), ike_message(7, 60_000));
    assert!(matches!(runtime.block_on(&mut b.task).unwrap(), Ended::ByPeer));
    tunnel.assert_balanced();
}

/// RFC 9293 section 3.6.1: a socket that is closed with octets unread resets the connection, which loses what was said last.
#[test]
fn what_ike_says_last_arrives_although_the_peer_still_sends() {
    let tunnel = Tunnel::new(TUN);
    let runtime = runtime();
    let (near, mut far) = connect(&tunnel);
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let End { port: _, say, heard: _heard, mut task, .. } = End::new(&tunnel.a, near, false, &runtime);
    let last = ike_message(7, 60_000);
    say.send(last.clone()).unwrap();
    drop(say);
    let mut received = vec![0; last.len()];
    let (first, rest) = received.split_at_mut(10);
    far.read_exact(first).unwrap();
    for number in 0..100 {
        far.write_all(&ike_message(number, 1000)).unwrap();
    }
    far.read_exact(rest).unwrap();
    assert_eq!(received, last);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "it ends in order");
    drop(far);
    assert!(matches!(runtime.block_on(&mut task).unwrap(), Ended::ByIke));
}

/// Transport policy rule 7: ESP in a stream is opened only where the control plane has said so.
#[test]
fn esp_that_is_not_accepted_stays_with_the_control_plane() {
    let tunnel = Tunnel::new(TUN);
    let runtime = runtime();
    let mut joined = Joined::new(&tunnel, &runtime);
    joined.b.port.accept(None);
    let mut frame = Vec::new();
    send_until(&tunnel, "it is heard", || {
        frame.extend(joined.b.heard_so_far());
        frame.len() >= 100
    });
    frame.truncate(usize::from(u16::from_be_bytes([frame[0], frame[1]])));
    assert_eq!(frame[2..6], tunnel.first_spis.1.0.to_be_bytes());
    assert_eq!(tunnel.b.received(Source::Tcp), 0);
    // A stream carries ESP of its own IKE SA (RFC 9329 section 5).
    joined.b.port.accept(Some(PathId(77)));
    send_until(&tunnel, "it is refused", || dropped(&tunnel.b, DropReason::CarrierRefused) > 0);
    joined.b.port.accept(Some(PATH));
    // The first was read before it was known that it is accepted.
    joined.b.port.deliver(joined.b.local, joined.b.remote, &frame[2..]);
    wait_until("it is opened", || tunnel.b.plane.usage(CHILD).unwrap().0.packets > 0);
    echo(&tunnel, HOST_A, HOST_B, 1 << 16);
    tunnel.assert_balanced();
}

/// Transport policy rules 5 and 7: under fail-closed the control plane hears what is the peer's, and it goes no further; what
/// is forged it does not even hear.
#[test]
fn a_path_that_takes_no_tcp_reports_and_drops_what_is_authentic() {
    let mut tunnel = Tunnel::new(TUN);
    let runtime = runtime();
    let joined = Joined::new(&tunnel, &runtime);
    tunnel.b.set_stream_path(Carrier::Udp, false);
    let spi = tunnel.first_spis.1.0.to_be_bytes();
    joined.b.port.deliver(joined.b.local, joined.b.remote, &[&spi[..], &[0, 0, 0, 1], &[0x55; 60]].concat());
    wait_until("the forged one is dropped", || dropped(&tunnel.b, DropReason::IcvFailure) == 1);
    assert_eq!(dropped(&tunnel.b, DropReason::CarrierRefused), 0);
    send_until(&tunnel, "it is refused", || dropped(&tunnel.b, DropReason::CarrierRefused) > 0);
    let first = tunnel.b.event(|event| match event {
        DataPlaneEvent::Inbound { carrier, is_highest, .. } => Some((*carrier, *is_highest)),
        _ => None,
    });
    assert!(matches!(first, (Carrier::Stream(_), true)), "{first:?}");
    assert!(tunnel.b.plane.usage(CHILD).unwrap().0.packets > 0, "it was opened");
    assert_eq!(tunnel.b.sent(Sink::Tun), 0, "and went nowhere");
    tunnel.assert_balanced();
}

#[test]
fn what_is_no_esp_of_ours_is_dropped_and_counted() {
    let tunnel = Tunnel::new(TUN);
    let runtime = runtime();
    let (mut near, far) = connect(&tunnel);
    let _end = End::new(&tunnel.b, far, true, &runtime);
    near.write_all(b"IKETCP").unwrap();
    let spi = tunnel.first_spis.1.0.to_be_bytes();
    for packet in [&spi[..], &[2; 40], &[&spi[..], &[0; 20_000]].concat()] {
        near.write_all(&(packet.len() as u16 + 2).to_be_bytes()).unwrap();
        near.write_all(packet).unwrap();
    }
    wait_until("all are counted", || tunnel.b.received(Source::Tcp) == 3);
    tunnel.assert_balanced();
    let reasons = [DropReason::EspTooShort, DropReason::UnknownSpi, DropReason::TooBig];
    assert_eq!(reasons.map(|reason| dropped(&tunnel.b, reason)), [1; 3], "{}", tunnel.b.drops());
}

/// Sends numbers there and back through an inner TCP connection, which repeats what is dropped on a busy machine.
fn echo(tunnel: &Tunnel, from: &str, to: &str, bytes: usize) {
    let is_from_a = from == HOST_A || from == HOST_A_V6;
    let (near, far) = if is_from_a { (&tunnel.a, &tunnel.b) } else { (&tunnel.b, &tunnel.a) };
    let listener = far.host.run(|| TcpListener::bind((address(to), 0)).unwrap());
    let sent: Vec<u8> = (0..bytes).map(|i| (i / 251 + i) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(PATIENCE * 3)).unwrap();
            let mut octets = vec![0; bytes];
            tcp.read_exact(&mut octets).unwrap();
            tcp.write_all(&octets).unwrap();
        });
        let mut tcp = near.host.run(|| {
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE)
                .unwrap_or_else(|e| panic!("{e}\n{}\n{}", tunnel.a.drops(), tunnel.b.drops()))
        });
        tcp.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        tcp.write_all(&sent).unwrap();
        let mut received = vec![0; bytes];
        tcp.read_exact(&mut received).unwrap();
        assert!(received == sent);
    });
}

fn send_one(tunnel: &Tunnel) {
    let sender = tunnel.a.host.run(|| bind(HOST_A));
    sender.send_to(&[1; 200], (address(HOST_B), 9)).unwrap();
}

/// Sends packets until something holds: one that waits too long for its stream is dropped, by design.
fn send_until(tunnel: &Tunnel, what: &str, mut holds: impl FnMut() -> bool) {
    let mut next = Instant::now();
    wait_until(what, || {
        if Instant::now() >= next {
            send_one(tunnel);
            next = Instant::now() + AGAIN_AFTER;
        }
        holds()
    });
}

/// An IKE message of so many octets in its frame.
fn ike_message(number: usize, len: usize) -> Vec<u8> {
    let mut frame = (len as u16 + 6).to_be_bytes().to_vec();
    frame.extend_from_slice(&[0; 4]);
    frame.extend((0..len).map(|i| (number + i) as u8));
    frame
}

fn dropped(side: &Side, reason: DropReason) -> u64 {
    side.plane.report().accounting().dropped(reason)
}
