//! Packets that are longer than a frame of AF_XDP, on links with jumbo frames.

mod gateway;
mod tunnel;

use std::net::UdpSocket;

use portcullis_common::DropReason;
use portcullis_data_plane::counters::Source;
use portcullis_data_plane::sa::Carrier;

use gateway::{PATIENCE, bind, wait_until};
use tunnel::{HOST_A, HOST_A_V6, HOST_B, HOST_B_V6, Shape, TUN_ALONE, Tunnel, XDP};

const JUMBO: Shape = Shape { mtu: 9000, ..XDP };
/// What fits these links inside IPv4 and UDP.
const TUN_MTU: usize = portcullis_esp::max_payload_len(9000 - 28);
const IPV4_AND_UDP: usize = 20 + 8;
const IPV6_AND_UDP: usize = 40 + 8;

/// Every size around where one more descriptor is needed: on the LAN and on the WAN, when received and when sent.
#[test]
fn packets_of_every_size_pass_in_either_direction_by_every_carrier() {
    let tunnel = Tunnel::new(JUMBO);
    for (carrier, outer_v6, outer) in [
        (Carrier::Udp, false, IPV4_AND_UDP),
        (Carrier::Udp, true, IPV6_AND_UDP),
        (Carrier::Ip, false, 20),
        (Carrier::Ip, true, 40),
    ] {
        tunnel.set_path(carrier, outer_v6);
        let longest = portcullis_esp::max_payload_len(9000 - outer);
        let sizes = || (3690..3900).chain(7540..8000).chain(8850..=longest);
        exchange(&tunnel, (HOST_A, HOST_B), IPV4_AND_UDP, sizes());
        exchange(&tunnel, (HOST_B, HOST_A), IPV4_AND_UDP, sizes());
        exchange(&tunnel, (HOST_A_V6, HOST_B_V6), IPV6_AND_UDP, sizes().step_by(7));
        exchange(&tunnel, (HOST_B_V6, HOST_A_V6), IPV6_AND_UDP, sizes().step_by(7));
    }
    tunnel.assert_balanced();
    for side in [&tunnel.a, &tunnel.b] {
        assert!(side.received(Source::Lan) > 3000 && side.received(Source::Wan) > 3000, "{}", side.drops());
        assert_eq!(side.received(Source::Udp) + side.received(Source::RawIp), 0, "by AF_XDP alone");
    }
}

/// More at once than a worker takes in one turn, by several workers.
#[test]
fn many_long_packets_at_once_stay_in_order() {
    for shape in [JUMBO, Shape { workers: 2, queues: 2, ..JUMBO }] {
        let tunnel = Tunnel::new(shape);
        let (sender, receiver) = sockets(&tunnel, HOST_A, HOST_B);
        let destination = receiver.local_addr().unwrap();
        // Neighbours are known from here on.
        exchange(&tunnel, (HOST_A, HOST_B), IPV4_AND_UDP, [8900]);
        for burst in 0..10u32 {
            for number in 0..100 {
                sender.send_to(&payload(8872, burst * 100 + number), destination).unwrap();
            }
            (0..100).for_each(|number| expect(&receiver, 8872, burst * 100 + number));
        }
        tunnel.assert_balanced();
    }
}

/// TUN and sockets have the same frames.
#[test]
fn tun_and_sockets_carry_long_packets_too() {
    let tunnel = Tunnel::new(Shape { mtu: 9000, ..TUN_ALONE });
    for (carrier, outer_v6, outer) in [(Carrier::Udp, false, IPV4_AND_UDP), (Carrier::Ip, true, 40)] {
        tunnel.set_path(carrier, outer_v6);
        let longest = portcullis_esp::max_payload_len(9000 - outer).min(TUN_MTU);
        let sizes = || (3690..3900).chain(longest - 100..=longest).step_by(3).chain([longest]);
        exchange(&tunnel, (HOST_A, HOST_B), IPV4_AND_UDP, sizes());
        exchange(&tunnel, (HOST_B_V6, HOST_A_V6), IPV6_AND_UDP, sizes());
    }
    tunnel.assert_balanced();
    for side in [&tunnel.a, &tunnel.b] {
        assert!(side.received(Source::Tun) > 200 && side.received(Source::RawIp) > 50, "{}", side.drops());
    }
}

/// RFC 4301 section 8.2.1: what does not fit inside is answered with what would.
#[test]
fn the_sender_learns_what_fits_a_link_with_jumbo_frames() {
    let tunnel = Tunnel::new(JUMBO);
    let longest = portcullis_esp::max_payload_len(9000 - IPV4_AND_UDP);
    assert_eq!(learned_mtu(&tunnel, 9000), longest);
    tunnel.assert_balanced();
}

/// AF_XDP takes less than these links do: that is said at start, and to senders.
#[test]
fn an_mtu_beyond_af_xdp_is_reported_and_senders_learn_what_fits() {
    const LIMIT: usize = 16_106;
    let tunnel = Tunnel::new(Shape { mtu: 40_000, ..XDP });
    for interface in tunnel.a.plane.report().interfaces {
        let said = interface.reason.contains("MTU of 40000") && interface.reason.contains("16106 octets");
        assert!(said, "{}", interface.reason);
    }
    let longest = portcullis_esp::max_payload_len(LIMIT - IPV4_AND_UDP);
    assert_eq!(learned_mtu(&tunnel, LIMIT), longest);
    exchange(&tunnel, (HOST_A, HOST_B), IPV4_AND_UDP, [16_000, longest]);
    let (sender, receiver) = sockets(&tunnel, HOST_B, HOST_A);
    sender.send_to(&payload(20_000, 0), receiver.local_addr().unwrap()).unwrap();
    let dropped = || tunnel.b.plane.report().accounting().dropped(DropReason::XskRxDropped);
    wait_until("it is dropped", || dropped() == 1);
    tunnel.assert_balanced();
}

/// Sends one datagram of each IP length after the other, and expects each.
fn exchange(
    tunnel: &Tunnel,
    (from, to): (&str, &str),
    headers: usize,
    sizes: impl IntoIterator<Item = usize>,
) {
    let (sender, receiver) = sockets(tunnel, from, to);
    let destination = receiver.local_addr().unwrap();
    for (number, size) in (0u32..).zip(sizes) {
        let len = size - headers;
        sender.send_to(&payload(len, number), destination).unwrap();
        expect(&receiver, len, number);
    }
}

/// Sends datagrams in IP packets of this length until the sender has learned of a smaller MTU, which it returns.
fn learned_mtu(tunnel: &Tunnel, size: usize) -> usize {
    let (sender, receiver) = sockets(tunnel, HOST_A, HOST_B);
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let socket = socket2::SockRef::from(&sender);
    wait_until("the sender has learned what fits", || {
        sender.send(&payload(size - IPV4_AND_UDP, 0)).is_err_and(|e| e.raw_os_error() == Some(libc::EMSGSIZE))
    });
    option(&socket, libc::IP_MTU)
}

fn sockets(tunnel: &Tunnel, from: &str, to: &str) -> (UdpSocket, UdpSocket) {
    let (source, sink) = match from {
        HOST_A | HOST_A_V6 => (&tunnel.a, &tunnel.b),
        _ => (&tunnel.b, &tunnel.a),
    };
    let (sender, receiver) = (source.host.run(|| bind(from)), sink.host.run(|| bind(to)));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    force_buffer(&receiver, libc::SO_RCVBUFFORCE);
    force_buffer(&sender, libc::SO_SNDBUFFORCE);
    (sender, receiver)
}

fn payload(len: usize, number: u32) -> Vec<u8> {
    let mut payload: Vec<_> = (0..len).map(|at| (at % 251) as u8).collect();
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

fn expect(receiver: &UdpSocket, len: usize, number: u32) {
    let mut received = vec![0; 1 << 16];
    let (got, _) =
        receiver.recv_from(&mut received).unwrap_or_else(|e| panic!("{len} octets, {number}: {e}"));
    assert!(received[..got] == payload(len, number), "number {number}, {len} octets, {got} arrived");
}

/// Beyond what the system allows by default.
fn force_buffer(socket: &UdpSocket, name: libc::c_int) {
    use std::os::fd::AsRawFd;
    let size: libc::c_int = 8 << 20;
    let len = size_of_val(&size) as libc::socklen_t;
    // SAFETY: pointer and length describe one integer.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const size).cast(), len)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn option(socket: &socket2::SockRef<'_>, name: libc::c_int) -> usize {
    use std::os::fd::AsRawFd;
    let (mut value, mut len) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel writes one integer, as the length says.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, name, (&raw mut value).cast(), &mut len)
    };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    value as usize
}
