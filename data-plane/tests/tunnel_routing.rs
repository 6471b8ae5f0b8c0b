//! What a gateway does as a router and as a policy enforcement point, seen from the hosts.

mod gateway;
mod tunnel;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use portcullis_common::DropReason;
use portcullis_common::verdict::Verdict;
use portcullis_data_plane::counters::{Sink, Source};
use portcullis_data_plane::netlink;
use portcullis_data_plane::packet::inner::Ports;
use portcullis_data_plane::policy::{Disposition, Policy, Selector};
use portcullis_data_plane::sa::{Carrier, ChildId, SaSelectors};
use portcullis_data_plane::spd::{Decision, Flow};
use portcullis_data_plane::tap::{Point, TapOptions};

use gateway::{PATIENCE, address, bind, wait_until};
use tunnel::{
    CHILD, HOST_A, HOST_A_V6, HOST_B, HOST_B_V6, NO_LIMITS, Shape, Side, TUN, TUN_ALONE, Tunnel, XDP, nets,
};

/// RFC 1812 section 5.3.1, RFC 8200 section 3: a router answers when the TTL runs out.
#[test]
fn the_sender_hears_when_the_ttl_runs_out() {
    let tunnel = Tunnel::new(XDP);
    for (host, answer) in [(HOST_B, "Time to live exceeded"), (HOST_B_V6, "Time exceeded: Hop limit")] {
        let said = ping(&tunnel.a, &["-t", "1", host]);
        assert!(said.contains(answer), "{said}");
    }
    assert_eq!(dropped(&tunnel.a, DropReason::TtlExceeded), 2, "{}", tunnel.a.drops());
    tunnel.assert_balanced();
}

/// The same at the far end of the tunnel: the answer comes from an address that the policy covers, or it would not come. On the
/// TUN path the kernel answers, over IPv6 from an address of its own choice.
#[test]
fn the_sender_at_the_other_end_hears_when_the_ttl_runs_out() {
    let v4 = (HOST_B, "10.2.0.1", "Time to live exceeded");
    let v6 = (HOST_B_V6, "fd02::1", "Time exceeded: Hop limit");
    for (shape, hosts) in [(XDP, &[v4, v6][..]), (TUN, &[v4])] {
        let tunnel = Tunnel::new(shape);
        // Neighbours are known, so that the workers forward.
        tunnel.exchange_all(1);
        for (host, from, answer) in hosts {
            let said = ping(&tunnel.a, &["-t", "2", host]);
            assert!(said.contains(answer) && said.contains(from), "{:?}: {said}", shape.mode);
        }
        tunnel.assert_balanced();
    }
}

/// RFC 4301 section 8.2.1: the sender learns what fits, and that fits.
#[test]
fn the_sender_hears_what_fits_the_tunnel() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        for (host, headers, answer) in [(HOST_B, 28, "mtu = "), (HOST_B_V6, 48, "mtu=")] {
            let size = |mtu: usize| (mtu - headers).to_string();
            let said = ping(&tunnel.a, &["-M", "do", "-s", &size(1500), host]);
            let mtu = said.split(answer).nth(1).unwrap_or_else(|| panic!("{said}"));
            let mtu =
                mtu.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap();
            assert!((1380..1460).contains(&mtu), "{said}");
            let said = ping(&tunnel.a, &["-M", "do", "-s", &size(mtu), host]);
            assert!(said.contains("1 received"), "{said}");
        }
        tunnel.assert_balanced();
    }
}

/// RFC 791: who allows fragments gets them.
#[test]
fn a_packet_that_may_be_fragmented_arrives_in_full() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let said = ping(&tunnel.a, &["-M", "dont", "-s", "1472", HOST_B]);
        assert!(said.contains("1 received"), "{said}\n{}\n{}", tunnel.a.drops(), tunnel.b.drops());
        tunnel.assert_balanced();
    }
}

#[test]
fn tcp_passes_in_full_size_segments() {
    for (shape, carrier) in [(XDP, Carrier::Ip), (TUN, Carrier::Udp)] {
        let tunnel = Tunnel::new(shape);
        tunnel.set_path(carrier, false);
        for (from, to) in [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6)] {
            let listener = tunnel.b.host.run(|| TcpListener::bind((address(to), 0)).unwrap());
            let destination = listener.local_addr().unwrap();
            let data: Arc<[u8]> = (0..300_000u32).map(|i| i as u8).collect();
            let sent = data.clone();
            let mut stream = tunnel.a.host.run(|| TcpStream::connect(destination).unwrap());
            assert_eq!(stream.local_addr().unwrap().ip(), address(from));
            let writer = thread::spawn(move || stream.write_all(&sent));
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).unwrap_or_else(|e| panic!("{e}\n{}", tunnel.a.drops()));
            writer.join().unwrap().unwrap();
            assert_eq!(received[..], data[..]);
        }
        assert_eq!(dropped(&tunnel.a, DropReason::TooBig), 0, "the MSS was clamped\n{}", tunnel.a.drops());
    }
}

#[test]
fn a_host_reaches_the_far_gateway_itself() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        for gateway in ["10.2.0.1", "fd02::1"] {
            let said = ping(&tunnel.a, &[gateway]);
            // The kernel has no per-interface way to let IPv6 of its own past the guard: shut, not open.
            assert_eq!(said.contains("1 received"), gateway == "10.2.0.1", "{said}");
        }
    }
}

/// The gateway's own packets take an address that the policy covers.
#[test]
fn a_gateway_reaches_far_hosts_itself() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let said = tunnel.a.gateway.command("ping", &["-n", "-c", "1", "-W", "2", HOST_B]);
        assert!(said.contains("1 received"), "{said}");
        tunnel.assert_balanced();
    }
}

/// RFC 4301 section 5.2 step 4: what comes out of an SA must be inside its selectors.
#[test]
fn an_opened_packet_outside_the_selectors_is_dropped() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::without_sas(shape);
        install_narrowed(&tunnel, &tunnel.b);
        send(&tunnel.a, HOST_A, HOST_B);
        wait_until("it is dropped", || dropped(&tunnel.b, DropReason::OutsideSelectors) == 1);
        tunnel.assert_balanced();
    }
}

/// RFC 4301 section 5.1: and what goes in as well.
#[test]
fn a_packet_outside_the_negotiated_selectors_is_not_sent() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::without_sas(shape);
        install_narrowed(&tunnel, &tunnel.a);
        send(&tunnel.a, HOST_A, HOST_B);
        wait_until("it is dropped", || dropped(&tunnel.a, DropReason::OutsideSelectors) == 1);
        tunnel.assert_balanced();
    }
}

/// What is said of a packet that nobody sends is what becomes of one that is sent.
#[test]
fn an_explanation_says_what_becomes_of_a_packet() {
    let tunnel = Tunnel::without_sas(XDP);
    let explain = |remote: &str| {
        let (local, remote) = (address(HOST_A), address(remote));
        tunnel.a.plane.explain(&Flow { local, remote, protocol: 17, ports: Ports::Known(4000, 4242) }, None)
    };
    let becomes = |reason: DropReason| {
        let before = dropped(&tunnel.a, reason);
        send(&tunnel.a, HOST_A, HOST_B);
        wait_until(reason.label(), || dropped(&tunnel.a, reason) > before);
        assert_eq!(explain(HOST_B).dropped, Some(reason));
    };
    becomes(DropReason::NoSa);
    install_narrowed(&tunnel, &tunnel.a);
    becomes(DropReason::OutsideSelectors);
    tunnel.install(ChildId(2), NO_LIMITS);
    tunnel.set_path(Carrier::Shut, false);
    becomes(DropReason::PathShut);
    tunnel.set_path(Carrier::Udp, false);
    tunnel.wait_until_passes(HOST_A, HOST_B);
    // The kernel sends for us until the neighbour is known.
    wait_until("the neighbour is known", || explain(HOST_B).way.is_some_and(|way| way.by_ring));

    let passes = explain(HOST_B);
    let sas = passes.tunnel.unwrap();
    assert_eq!((passes.dropped, sas.child, sas.carrier), (None, ChildId(2), Carrier::Udp));
    assert_eq!((sas.worker_out, sas.worker_in), (Some(0), Some(0)));
    assert_eq!((sas.local.port(), sas.remote.ip()), (4500, tunnel.a.other_wan_address()));
    let way = passes.way.unwrap();
    assert_eq!((way.interface.as_deref(), way.is_resolved), (Some("wan0"), true));
    // The largest packet that fits passes, one octet more is told to be too long.
    let mtu = sas.inner_mtu.unwrap();
    let answer = |len: usize| ping(&tunnel.a, &["-M", "do", "-s", &(len - 28).to_string(), HOST_B]);
    assert!(answer(mtu).contains("1 received"), "{}", answer(mtu));
    assert!(answer(mtu + 1).contains(&format!("mtu = {mtu}")), "{}", answer(mtu + 1));
    let stranger = explain("203.0.113.9");
    assert!(matches!(stranger.decision, Decision::NoPolicy) && stranger.tunnel.is_none());
}

/// Every packet is seen in clear and as ESP on either end, and a second reader is refused without an end for the first.
#[test]
fn one_reader_at_a_time_sees_every_packet_on_both_sides_of_esp() {
    let tunnel = Tunnel::new(XDP);
    tunnel.exchange(HOST_A, HOST_B, 1);
    let all = || TapOptions { connection: None, snaplen: 9000 };
    let mut first = tunnel.a.plane.capture(all()).unwrap();
    assert!(tunnel.a.plane.capture(all()).is_none());
    tunnel.exchange(HOST_A, HOST_B, 5);
    tunnel.exchange(HOST_B, HOST_A, 5);
    let mut seen = |count: usize| {
        let mut points = Vec::new();
        wait_until("the packets are seen", || {
            while let Some(packet) = first.try_next() {
                assert_eq!(packet.len, packet.packet.len());
                points.push(packet.point);
            }
            points.len() >= count
        });
        points
    };
    let points = seen(20);
    for point in [Point::ClearOut, Point::EspOut, Point::EspIn, Point::ClearIn] {
        assert_eq!(points.iter().filter(|seen| **seen == point).count(), 5, "{point:?}");
    }
    drop(first);
    let other = TapOptions { connection: Some("other".into()), ..all() };
    let mut second = tunnel.a.plane.capture(other).unwrap();
    tunnel.exchange(HOST_A, HOST_B, 5);
    assert!(second.try_next().is_none() && second.missed() == 0);
}

/// RFC 4301 section 4.4.1: the final policy of a protected interface is DISCARD.
#[test]
fn xdp_drops_what_no_policy_covers_on_a_protected_interface() {
    let tunnel = Tunnel::new(XDP);
    tunnel.a.gateway.ip(&["route", "add", "10.9.0.0/16", "via", "198.51.100.2"]);
    send(&tunnel.a, HOST_A, "10.9.0.9");
    let no_policy = |side: &Side| {
        let report = side.plane.report();
        let verdicts = report.interfaces.iter().flat_map(|i| i.xdp.clone());
        let of_reason = verdicts.filter(|(v, _, _)| Verdict::drop_reason(*v) == Some(DropReason::NoPolicy));
        of_reason.map(|(_, packets, _)| packets).sum::<u64>()
    };
    wait_until("it is dropped", || no_policy(&tunnel.a) == 1);
}

/// The same where no XDP program runs, and nothing passes when the data plane has stopped either, until it is released.
#[test]
fn a_worker_drops_what_no_policy_covers_on_a_protected_interface_without_xdp() {
    let Tunnel { a, b, .. } = Tunnel::new(TUN_ALONE);
    let outside = "203.0.113.9";
    a.gateway.ip(&["route", "add", "default", "via", "198.51.100.2"]);
    b.gateway.ip(&["addr", "add", outside, "dev", "lo"]);
    let receiver = b.gateway.run(|| bind(outside));
    receiver.set_nonblocking(true).unwrap();
    let sender = a.host.run(|| bind(HOST_A));
    let send = |what: &[u8]| sender.send_to(what, receiver.local_addr().unwrap()).unwrap();
    let before = dropped(&a, DropReason::NoPolicy);
    for _ in 0..100 {
        send(b"running");
    }
    // The kernel's own multicast may be among them.
    wait_until("they are dropped", || dropped(&a, DropReason::NoPolicy) >= before + 100);
    assert!(a.plane.report().interfaces.iter().all(|i| i.xdp.is_empty()));

    a.plane.stop();
    send(b"stopped");
    a.gateway.run(|| netlink::release(a.instance())).unwrap();
    // What went before it on the same way would be here before it.
    let mut first = [0; 8];
    wait_until("it arrives", || {
        send(b"released");
        receiver.recv_from(&mut first).is_ok()
    });
    assert_eq!(&first, b"released");
}

/// RFC 4301 section 4.4.1: a BYPASS of one port before the PROTECT of everything. The packet arrives whole: a neighbour on
/// a virtual link leaves its checksum to us.
#[test]
fn a_bypass_of_one_port_passes_in_clear_and_the_rest_is_protected() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let receiver = tunnel.b.host.run(|| bind(HOST_B));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let destination = receiver.local_addr().unwrap();
        for (side, number) in [(&tunnel.a, 1), (&tunnel.b, 2)] {
            let mut set = tunnel::policies(number);
            let port = |s: &Selector, side: u8| Selector {
                protocol: Some(17),
                ports: if side == 2 { destination.port()..=destination.port() } else { 0..=u16::MAX },
                ..s.clone()
            };
            let bypass = Policy {
                local: nets(number).iter().map(|s| port(s, number)).collect(),
                remote: nets(3 - number).iter().map(|s| port(s, 3 - number)).collect(),
                disposition: Disposition::Bypass,
            };
            set.policies.insert(0, bypass);
            side.plane.set_policies(set).unwrap();
        }
        let sender = tunnel.a.host.run(|| bind(HOST_A));
        let sealed = || tunnel.a.plane.usage(CHILD).unwrap().1.packets;
        let before = sealed();
        for number in 0..10u8 {
            sender.send_to(&[number; 100], destination).unwrap();
            let mut received = [0; 200];
            let len = receiver.recv(&mut received).unwrap_or_else(|e| {
                panic!("number {number}: {e}\n{}\n{}", tunnel.a.drops(), tunnel.b.drops())
            });
            assert_eq!(received[..len], [number; 100]);
        }
        assert_eq!(sealed(), before, "nothing of it was sealed");
        tunnel.exchange(HOST_A, HOST_B, 10);
        assert_eq!(sealed(), before + 10);
        tunnel.assert_balanced();
    }
}

/// RFC 4301 section 5.1: what was opened crosses the boundary again only if the SPD says so. With the protected
/// interface down, the default route leads out.
#[test]
fn an_opened_packet_does_not_leave_by_the_unprotected_interface() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        tunnel.exchange(HOST_A, HOST_B, 1);
        tunnel.a.gateway.ip(&["route", "add", "default", "via", "198.51.100.2"]);
        tunnel.a.gateway.ip(&["link", "set", "lan0", "down"]);
        wait_until("an opened packet is dropped", || {
            send(&tunnel.b, HOST_B, HOST_A);
            dropped(&tunnel.a, DropReason::NoPolicy) > 0
        });
        tunnel.assert_balanced();
    }
}

/// The owner of an SA alone seals and opens; packets that arrive elsewhere go to it.
#[test]
fn packets_on_other_queues_reach_the_owner_of_their_sa() {
    let tunnel = Tunnel::new(Shape { workers: 2, queues: 2, ..XDP });
    for _ in 0..16 {
        tunnel.exchange_all(10);
    }
    tunnel.assert_balanced();
    let handed_over = |side: &Side| side.plane.report().workers.iter().map(|w| w.handed_over).sum::<u64>();
    assert!(
        handed_over(&tunnel.a) + handed_over(&tunnel.b) > 0,
        "{}\n{}",
        tunnel.a.drops(),
        tunnel.b.drops()
    );
}

#[test]
fn the_fast_path_carries_everything_once_neighbours_are_known() {
    let tunnel = Tunnel::new(XDP);
    let slow = || {
        let sinks = [Sink::Tun, Sink::Udp, Sink::RawIp];
        [&tunnel.a, &tunnel.b].map(|side| sinks.map(|sink| side.sent(sink)))
    };
    wait_until("neighbours are known", || {
        let before = slow();
        tunnel.exchange_all(1);
        slow() == before
    });
    let before = slow();
    tunnel.exchange_all(100);
    assert_eq!(slow(), before, "{}\n{}", tunnel.a.drops(), tunnel.b.drops());
    assert_eq!(tunnel.a.received(Source::Udp) + tunnel.b.received(Source::Udp), 0);
}

/// SAs in both directions whose selectors are wide at one side and one address narrow at the other.
fn install_narrowed(tunnel: &Tunnel, narrow: &Side) {
    tunnel.set_path(Carrier::Udp, false);
    let (a, b) = (&tunnel.a, &tunnel.b);
    let (spi_a, spi_b) = (a.plane.allocate_spi().unwrap(), b.plane.allocate_spi().unwrap());
    for (side, inbound, outbound) in [(a, spi_a, spi_b), (b, spi_b, spi_a)] {
        let mut inbound = side.inbound(CHILD, inbound, NO_LIMITS);
        let mut outbound = side.outbound(CHILD, outbound, NO_LIMITS);
        if std::ptr::eq(side, narrow) {
            let (local, remote) =
                (&inbound.common.selectors.local, nets_of_nobody(&inbound.common.selectors.remote));
            let selectors = SaSelectors { local: local.clone(), remote: remote.into() };
            (inbound.common.selectors, outbound.common.selectors) = (selectors.clone(), selectors);
        }
        side.plane.install_inbound(inbound).unwrap();
        side.plane.install_outbound(outbound).unwrap();
        assert!(side.plane.use_outbound(CHILD));
    }
}

/// The last addresses of the networks, which no host has.
fn nets_of_nobody(nets: &[Selector]) -> Vec<Selector> {
    let last = |s: &Selector| Selector { addresses: *s.addresses.end()..=*s.addresses.end(), ..s.clone() };
    assert_eq!(nets.len(), self::nets(1).len());
    nets.iter().map(last).collect()
}

fn send(side: &Side, from: &str, to: &str) {
    let socket = side.host.run(|| bind(from));
    socket.send_to(b"outside", (address(to), 4242)).unwrap();
}

fn ping(side: &Side, arguments: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", side.host.name(), "ping", "-n", "-c", "1", "-W", "2"]);
    let output = command.args(arguments).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn dropped(side: &Side, reason: DropReason) -> u64 {
    side.plane.report().accounting().dropped(reason)
}
