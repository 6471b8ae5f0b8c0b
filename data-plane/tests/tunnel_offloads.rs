//! Packets that the kernel and the data plane cut and join for each other: what arrives is what was sent.

mod gateway;
mod tunnel;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use portcullis_common::DropReason;
use portcullis_data_plane::counters::{Sink, Source, WorkerSnapshot};
use portcullis_data_plane::handle::{Direction, MoveRefused};
use portcullis_data_plane::sa::{Carrier, ChildId};

use gateway::{PATIENCE, address, bind, wait_until};
use tunnel::{
    CHILD, FURTHER, HOST_A, HOST_A_V6, HOST_B, HOST_B_V6, NO_LIMITS, Shape, Side, TUN, TUN_ALONE, Tunnel, XDP,
};

const CARRIERS: [(Carrier, bool); 4] =
    [(Carrier::Udp, false), (Carrier::Ip, false), (Carrier::Udp, true), (Carrier::Ip, true)];
/// Octets of each flow.
const LEN: usize = 2 << 20;

#[test]
fn tcp_arrives_as_it_was_sent_by_every_carrier_and_mostly_joined() {
    let tunnel = Tunnel::new(TUN_ALONE);
    for (carrier, outer_v6) in CARRIERS {
        tunnel.set_path(carrier, outer_v6);
        let before = [joined(&tunnel.a), joined(&tunnel.b)];
        for (from, to) in [(HOST_A, HOST_B), (HOST_B_V6, HOST_A_V6)] {
            transfer(&tunnel, from, to, &[1]);
        }
        for (side, (tun_before, esp_before)) in [&tunnel.a, &tunnel.b].into_iter().zip(before) {
            let (tun, esp) = joined(side);
            // One direction each; segments of 1 300 octets and more.
            let expected = (LEN / 1500 / 2) as u64;
            assert!(tun - tun_before > expected, "{carrier:?}: {}", side.drops());
            assert_eq!(carrier == Carrier::Udp, esp - esp_before > expected, "{carrier:?}: {}", side.drops());
        }
    }
    tunnel.assert_balanced();
}

/// Where XDP sees every packet for itself, and where nothing is left to anybody.
#[test]
fn tcp_arrives_as_it_was_sent_with_xdp_and_without_offloads() {
    for shape in [TUN, Shape { offloads: false, ..TUN_ALONE }] {
        let tunnel = Tunnel::new(shape);
        transfer(&tunnel, HOST_A, HOST_B, &[1]);
        transfer(&tunnel, HOST_B_V6, HOST_A_V6, &[1]);
        for side in [&tunnel.a, &tunnel.b] {
            assert_eq!(joined(side) == (0, 0), !shape.offloads, "{shape:?}: {:?}", joined(side));
        }
        tunnel.assert_balanced();
    }
}

#[test]
fn octets_of_one_flow_never_get_into_another() {
    let tunnel = Tunnel::new(TUN_ALONE);
    transfer(&tunnel, HOST_A, HOST_B, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    tunnel.assert_balanced();
}

/// Flows are spread over the queues of the TUN device; whoever reads a packet hands it to the owner of its SA, and what the
/// owner opens it gives to the kernel itself. Nothing is lost, mixed up or reordered on the way, while SAs change.
#[test]
fn workers_share_the_tun_device_and_keep_each_flow_in_order() {
    const DATAGRAMS: u32 = 3000;
    let tunnel = Tunnel::new(Shape { workers: 3, ..TUN_ALONE });
    // Neighbours are known by then: while they are not, the kernel keeps few packets.
    tunnel.exchange_all(1);
    std::thread::scope(|scope| {
        for (from, to) in [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6), (HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6)]
        {
            let sender = tunnel.a.host.run(|| bind(from));
            let receiver = tunnel.b.host.run(|| bind(to));
            scope.spawn(move || in_order(&sender, &receiver, DATAGRAMS));
        }
        let mut old = (CHILD, tunnel.first_spis);
        for number in 2..8 {
            let child = ChildId(number);
            let spis = tunnel.install(child, NO_LIMITS);
            wait_until("traffic uses the new SA", || tunnel.b.plane.usage(child).unwrap().0.packets > 100);
            for (side, spi) in [(&tunnel.a, old.1.0), (&tunnel.b, old.1.1)] {
                side.plane.remove_outbound(old.0);
                side.plane.remove_inbound(old.0, spi);
            }
            old = (child, spis);
        }
    });
    // Apart, because flows that take all they can get fill queues, and what does not fit is dropped.
    transfer(&tunnel, HOST_A, HOST_B, &[1, 2, 3, 4, 5, 6, 7, 8]);
    tunnel.assert_balanced();
    let workers = tunnel.a.plane.report().workers;
    let readers = workers.iter().filter(|worker| worker.received[Source::Tun as usize] > 0).count();
    assert!(readers > 1, "{workers:?}");
    assert!(workers.iter().any(|worker| worker.handed_over > 0), "{workers:?}");
}

/// SAs of both directions go round among the workers while numbered packets flow both ways: none is lost, none overtakes another,
/// and no number is used twice, which would be a replay at the other end.
#[test]
fn sas_move_between_workers_and_each_flow_stays_in_order() {
    for shape in [Shape { workers: 3, ..TUN_ALONE }, Shape { workers: 3, ..TUN }] {
        let tunnel = Tunnel::new(shape);
        tunnel.exchange_all(1);
        let (done, moves) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let flows = [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6), (HOST_B, HOST_A), (HOST_B_V6, HOST_A_V6)];
            let flows: Vec<_> = flows
                .into_iter()
                .map(|(from, to)| {
                    let (source, sink) = if from == HOST_A || from == HOST_A_V6 {
                        (&tunnel.a, &tunnel.b)
                    } else {
                        (&tunnel.b, &tunnel.a)
                    };
                    let sender = source.host.run(|| bind(from));
                    let receiver = sink.host.run(|| bind(to));
                    scope.spawn(move || in_order(&sender, &receiver, 4000))
                })
                .collect();
            scope.spawn(|| {
                for (number, side) in (0..).zip([&tunnel.a, &tunnel.b].into_iter().cycle()) {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let direction =
                        if number / 2 % 2 == 0 { Direction::Inbound } else { Direction::Outbound };
                    if side.plane.move_sa(CHILD, direction, (number / 4 % 3) as u8).is_ok() {
                        moves.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                }
            });
            let results: Vec<_> = flows.into_iter().map(|flow| flow.join()).collect();
            done.store(true, Ordering::Relaxed);
            results.into_iter().for_each(|result| {
                result.unwrap_or_else(|_| panic!("{shape:?}\n{}\n{}", tunnel.a.drops(), tunnel.b.drops()));
            });
        });
        assert!(moves.load(Ordering::Relaxed) > 20, "{moves:?}");
        tunnel.assert_balanced();
        for side in [&tunnel.a, &tunnel.b] {
            let moved: u64 = side.plane.report().workers.iter().map(|worker| worker.sas_moved).sum();
            assert!(moved > 10, "{moved}");
            for reason in
                [DropReason::Replay, DropReason::StaleSa, DropReason::HandOverFull, DropReason::IcvFailure]
            {
                assert_eq!(side.plane.report().accounting().dropped(reason), 0, "{}", side.drops());
            }
        }
        // What an SA does is still all done where it is: lifetimes, echo, removal.
        transfer(&tunnel, HOST_A, HOST_B, &[1, 2, 3, 4]);
        for (side, spi) in [(&tunnel.a, tunnel.first_spis.0), (&tunnel.b, tunnel.first_spis.1)] {
            side.plane.remove_outbound(CHILD);
            side.plane.remove_inbound(CHILD, spi);
            wait_until("the slots are free", || {
                // Whoever asks for a slot frees those that can be.
                side.plane.release_spi(side.plane.allocate_spi().unwrap());
                side.plane.report().sas.inbound + side.plane.report().sas.outbound == 0
            });
        }
    }
}

/// Two SAs of one policy (RFC 9611) begin at one worker, and full load finds them one each.
#[test]
fn a_busy_worker_gives_an_sa_to_an_idle_one() {
    let tunnel = Tunnel::new(Shape { workers: 2, balance: true, ..TUN_ALONE });
    let second = ChildId(FURTHER + 1);
    tunnel.install(second, NO_LIMITS);
    for child in [CHILD, second] {
        // It may be there, or have been moved before.
        let _ = tunnel.a.plane.move_sa(child, Direction::Outbound, 0);
    }
    let moved = |side: &Side| side.plane.report().workers.iter().map(|worker| worker.sas_moved).sum::<u64>();
    wait_until("no SA is on its way", || {
        let before = moved(&tunnel.a);
        tunnel.exchange_all(10);
        moved(&tunnel.a) == before
    });
    let before = moved(&tunnel.a);
    wait_until("an SA has moved", || {
        transfer(&tunnel, HOST_A, HOST_B, &[1, 2, 3, 4, 5, 6, 7, 8]);
        moved(&tunnel.a) > before
    });
    tunnel.exchange_all(10);
    tunnel.assert_balanced();
}

/// Whatever goes by queue 1 of a veth may overtake what went by queue 0: SAs stay.
#[test]
fn on_a_veth_with_several_queues_sas_stay() {
    let tunnel = Tunnel::new(Shape { workers: 2, queues: 2, ..XDP });
    assert_eq!(tunnel.a.plane.move_sa(CHILD, Direction::Outbound, 1), Err(MoveRefused::Veth));
    tunnel.exchange_all(1);
}

/// Sends numbered datagrams, a window at a time so that no queue on the way is overrun, and expects each in its turn.
fn in_order(sender: &UdpSocket, receiver: &UdpSocket, count: u32) {
    const WINDOW: u32 = 20;
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let destination = receiver.local_addr().unwrap();
    let mut buffer = [0; 8];
    for window in (0..count).step_by(WINDOW as usize) {
        for number in window..window + WINDOW {
            sender.send_to(&number.to_be_bytes(), destination).unwrap();
        }
        for number in window..window + WINDOW {
            let len = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("number {number}: {error}"));
            assert_eq!(&buffer[..len], number.to_be_bytes(), "number {number}");
        }
    }
}

/// A path that takes less than the TUN device does: each piece of what came uncut is too long, and its sender hears it
/// (RFC 4301 section 8.2.1).
#[test]
fn a_sender_of_uncut_packets_hears_what_fits_the_tunnel() {
    for (from, to) in [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6)] {
        let tunnel = Tunnel::new(TUN_ALONE);
        let mut flow = Flow::new(&tunnel, from, to);
        flow.pass(1 << 16);
        for side in [&tunnel.a, &tunnel.b] {
            side.gateway.ip(&["link", "set", "wan0", "mtu", "1400"]);
        }
        wait_until("the data plane has seen the MTU", || {
            flow.pass(1 << 16);
            let workers = tunnel.a.plane.report().workers;
            workers.iter().any(|worker| worker.drops[DropReason::TooBig as usize] > 0)
        });
        flow.pass(LEN);
        drop(flow);
        tunnel.assert_balanced();
    }
}

/// USO (Linux 6.2): datagrams that a host leaves to be cut arrive one by one and in order.
#[test]
fn datagrams_that_were_left_uncut_arrive_one_by_one() {
    const SIZE: usize = 1000;
    const COUNT: u32 = 40;
    let tunnel = Tunnel::new(TUN_ALONE);
    for (from, to) in [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6)] {
        let sender = tunnel.a.host.run(|| bind(from));
        let receiver = tunnel.b.host.run(|| bind(to));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        set_segment_size(&sender, SIZE as libc::c_int);
        let before = tunnel.a.sent(Sink::Udp);
        let uncut: Vec<u8> = (0..COUNT).flat_map(|number| datagram(number, SIZE)).collect();
        let shorter = &uncut[..uncut.len() - SIZE / 2];
        sender.send_to(shorter, receiver.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 2 * SIZE];
        for number in 0..COUNT {
            let len =
                receiver.recv(&mut buffer).unwrap_or_else(|e| panic!("{number}: {e}\n{}", tunnel.a.drops()));
            let expected = datagram(number, SIZE);
            let expected = if number + 1 == COUNT { &expected[..SIZE / 2] } else { &expected[..] };
            assert_eq!(&buffer[..len], expected, "{number}");
        }
        // A packet is counted when the kernel has taken it, which may be after it has arrived.
        wait_until("all are counted", || tunnel.a.sent(Sink::Udp) - before == u64::from(COUNT));
    }
    tunnel.assert_balanced();
}

/// A TCP connection from host to host.
struct Flow {
    sender: TcpStream,
    receiver: TcpStream,
    /// What is sent next and what is expected next.
    at: [u32; 2],
    seed: u32,
}

impl Flow {
    fn new(tunnel: &Tunnel, from: &str, to: &str) -> Self {
        let is_from_a = from == HOST_A || from == HOST_A_V6;
        let (near, far) = if is_from_a { (&tunnel.a, &tunnel.b) } else { (&tunnel.b, &tunnel.a) };
        let listener = far.host.run(|| TcpListener::bind((address(to), 0)).unwrap());
        let sender = near.host.run(|| {
            let domain = socket2::Domain::for_address(listener.local_addr().unwrap());
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(address(from), 0).into()).unwrap();
            socket.connect(&listener.local_addr().unwrap().into()).unwrap();
            TcpStream::from(socket)
        });
        let (receiver, _) = listener.accept().unwrap();
        for end in [&sender, &receiver] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            end.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        Self { sender, receiver, at: [0; 2], seed: 1 }
    }

    /// Sends octets that say where in the flow they are, and expects each.
    fn pass(&mut self, len: usize) {
        let Self { sender, receiver, at: [next, expected], seed } = self;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let octets: Vec<u8> = (*next..*next + len as u32).map(|at| octet(*seed, at)).collect();
                *next += len as u32;
                sender.write_all(&octets).unwrap();
            });
            let mut octets = vec![0; len];
            receiver.read_exact(&mut octets).unwrap();
            for received in octets {
                assert_eq!(received, octet(*seed, *expected), "flow {seed}, octet {expected}");
                *expected += 1;
            }
        });
    }
}

/// One flow for each seed, at the same time.
fn transfer(tunnel: &Tunnel, from: &str, to: &str, seeds: &[u32]) {
    std::thread::scope(|scope| {
        for seed in seeds {
            let mut flow = Flow { seed: *seed, ..Flow::new(tunnel, from, to) };
            scope.spawn(move || flow.pass(LEN));
        }
    });
}

/// Unlike that of its neighbours, of other flows, and of the same place in other segments.
fn octet(seed: u32, at: u32) -> u8 {
    ((seed << 24 ^ at).wrapping_mul(0x9e37_79b1) >> 24) as u8
}

fn datagram(number: u32, size: usize) -> Vec<u8> {
    (0..size as u32).map(|at| octet(number, at)).collect()
}

fn joined(side: &Side) -> (u64, u64) {
    let workers = side.plane.report().workers;
    let sum = |of: fn(&WorkerSnapshot) -> u64| workers.iter().map(of).sum();
    (sum(|worker| worker.tun_joined), sum(|worker| worker.esp_joined))
}

fn set_segment_size(socket: &UdpSocket, size: libc::c_int) {
    let len = size_of_val(&size) as libc::socklen_t;
    // SAFETY: pointer and length describe one integer.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), len)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
