//! ESP echo between two data planes, and between one and a sender of our own (draft-ietf-ipsecme-encrypted-esp-ping,
//! merged text of August 2026).

mod gateway;
mod tunnel;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use portcullis_common::{DropReason, Spi};
use portcullis_data_plane::counters::{Sink, Source};
use portcullis_data_plane::echo::{EchoRequest, EchoRoute, EchoSize};
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::sa::{Carrier, EchoAnswers, Path};
use portcullis_esp::{
    Algorithm, Echo, EchoKind, EchoSubTypes, ExpandedKeymat, HEAD_LEN, Inbound, InboundLive,
    InboundParameters, KeyMaterial, Lifetime, MAX_TAIL_LEN, NextHeader, Outbound, OutboundLive,
    OutboundParameters,
};
use socket2::{Domain, Protocol, Socket, Type};

use gateway::{PATIENCE, address, wait_until};
use tunnel::{CHILD, HOST_A, HOST_B, PATH, Shape, Side, TUN, Tunnel, XDP};

const NONCE: [u8; 16] = *b"sixteen octets!!";
const CARRIERS: [Carrier; 2] = [Carrier::Ip, Carrier::Udp];

/// Transport policy rules 3 and 6: sent whatever the path is, answered by the carrier the request came by, and nothing
/// moves.
#[test]
fn a_reply_takes_the_carrier_of_its_request_and_moves_nothing() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        let mut sequence = 0;
        for outer_v6 in [false, true] {
            for carrier in CARRIERS {
                for path in [other(carrier), Carrier::Hold, Carrier::Shut] {
                    tunnel.set_path(path, outer_v6);
                    sequence += 1;
                    assert!(tunnel.a.plane.send_echo(request(&tunnel, carrier, outer_v6, sequence)));
                    let reply = next_reply(&mut tunnel.a);
                    let port = if carrier == Carrier::Udp { 4500 } else { 0 };
                    let source = SocketAddr::new(tunnel.b.wan_address(outer_v6), port);
                    assert_eq!((reply.sequence, reply.carrier, reply.source), (sequence, carrier, source));
                    assert_eq!((reply.nonce, reply.local), (NONCE, tunnel.a.wan_address(outer_v6)));
                }
            }
        }
        let echoes = u64::from(sequence);
        assert_eq!(dropped(&tunnel.b, DropReason::EchoAnswered), echoes, "{}", tunnel.b.drops());
        assert_eq!(dropped(&tunnel.a, DropReason::EchoReply), echoes, "{}", tunnel.a.drops());
        tunnel.set_path(Carrier::Udp, false);
        let over_ip = tunnel.b.sent(Sink::RawIp);
        tunnel.exchange(HOST_B, HOST_A, 3);
        assert_eq!(tunnel.b.sent(Sink::RawIp), over_ip, "data stays on the path");
        tunnel.assert_balanced();
    }
}

/// Transport policy rule 4: the event says what it is, and does not keep that about data back.
#[test]
fn echo_is_told_apart_from_data() {
    let mut tunnel = Tunnel::new(TUN);
    tunnel.a.plane.send_echo(request(&tunnel, Carrier::Ip, false, 1));
    let inbound = |event: &DataPlaneEvent| match event {
        DataPlaneEvent::Inbound { carrier, is_echo, is_highest, .. } => {
            Some((*carrier, *is_echo, *is_highest))
        }
        _ => None,
    };
    assert_eq!(tunnel.b.event(inbound), (Carrier::Ip, true, true));
    next_reply(&mut tunnel.a);
    tunnel.exchange(HOST_A, HOST_B, 1);
    assert_eq!(tunnel.b.event(inbound), (Carrier::Udp, false, true), "although within the same second");
    let outbound = std::iter::from_fn(|| tunnel.b.receivers.events.try_recv().ok());
    assert_eq!(
        outbound.filter(|e| matches!(e, DataPlaneEvent::Outbound { .. })).count(),
        0,
        "a reply is no data"
    );
}

#[test]
fn a_reply_reaches_the_owner_of_its_sa_on_another_worker() {
    let mut tunnel = Tunnel::new(Shape { workers: 2, queues: 2, ..XDP });
    for (sequence, carrier) in (1..9).zip(CARRIERS.into_iter().cycle()) {
        tunnel.a.plane.send_echo(request(&tunnel, carrier, false, sequence));
        assert_eq!(next_reply(&mut tunnel.a).sequence, sequence);
    }
    let handed_over: u64 = tunnel.b.plane.report().workers.iter().map(|w| w.handed_over).sum();
    assert!(handed_over >= 8, "inbound and outbound SA have different owners: {}", tunnel.b.drops());
    tunnel.assert_balanced();
}

/// Section 5.4: without the R flag no reply; transport policy rule 10 uses it to keep a NAT mapping.
#[test]
fn a_one_way_request_is_not_answered() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        for sequence in [1, 2] {
            let one_way = request(&tunnel, Carrier::Udp, false, sequence);
            tunnel.a.plane.send_echo(EchoRequest { wants_reply: false, ..one_way });
        }
        tunnel.a.plane.send_echo(request(&tunnel, Carrier::Udp, false, 3));
        assert_eq!(next_reply(&mut tunnel.a).sequence, 3);
        assert_eq!(dropped(&tunnel.b, DropReason::EchoOneWay), 2);
        tunnel.assert_balanced();
    }
}

/// Transport policy rule 6: nobody who has not announced echo answers, and over IP only requests from where IKE is.
#[test]
fn what_is_not_announced_or_comes_from_elsewhere_over_ip_is_not_answered() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        let (a, b) = (tunnel.a.wan_address(false), tunnel.b.wan_address(false));
        set_answers(&tunnel.b, a, EchoAnswers::default());
        tunnel.a.plane.send_echo(request(&tunnel, Carrier::Udp, false, 1));
        wait_until("it is refused", || dropped(&tunnel.b, DropReason::EchoRefused) == 1);

        let ip_only_from = Some(a);
        set_answers(&tunnel.b, a, EchoAnswers { direct: true, stream: false, ip_only_from });
        let elsewhere = address("198.51.100.77");
        tunnel.a.gateway.ip(&["addr", "add", "198.51.100.77/24", "dev", "wan0"]);
        let from_elsewhere = EchoRoute::Ip { local: elsewhere, remote: b };
        let echo = request(&tunnel, Carrier::Ip, false, 2);
        tunnel.a.plane.send_echo(EchoRequest { route: from_elsewhere, ..echo });
        tunnel.a.plane.send_echo(EchoRequest { sequence: 3, ..echo });
        let reply = next_reply(&mut tunnel.a);
        assert_eq!((reply.sequence, reply.local), (3, a));
        assert_eq!(dropped(&tunnel.b, DropReason::EchoRefused), 2, "{}", tunnel.b.drops());

        let from_elsewhere = EchoRoute::Udp { local: (elsewhere, 4500).into(), remote: (b, 4500).into() };
        tunnel.a.plane.send_echo(EchoRequest { route: from_elsewhere, sequence: 4, ..echo });
        let reply = next_reply(&mut tunnel.a);
        assert_eq!((reply.sequence, reply.local), (4, elsewhere), "to where the request came from");
        tunnel.assert_balanced();
    }
}

/// Section 5.4: the return SPI belongs to the peer, here to the same IKE SA.
#[test]
fn a_request_with_a_foreign_return_spi_is_not_answered() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let mut peer = Peer::new(&tunnel);
        let foreign = Spi(peer.return_spi.0 ^ 1);
        peer.send(&peer.request(1, foreign, b"to somebody else"));
        peer.send(&peer.request(2, peer.return_spi, b"to us"));
        let (sequence, data) = peer.receive(&tunnel);
        assert_eq!((sequence, &data[..]), (2, &b"to us"[..]));
        assert_eq!(dropped(&tunnel.b, DropReason::EchoReturnSpi), 1, "{}", tunnel.b.drops());
        tunnel.assert_balanced();
    }
}

/// RFC 4303 section 3.4.3: a replay is dropped before anybody looks into it.
#[test]
fn a_replayed_request_is_not_answered_twice() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let mut peer = Peer::new(&tunnel);
        let sealed = peer.seal(&peer.request(1, peer.return_spi, b"once"));
        peer.socket.send_to(&sealed, peer.gateway).unwrap();
        peer.socket.send_to(&sealed, peer.gateway).unwrap();
        peer.send(&peer.request(2, peer.return_spi, b"again"));
        assert_eq!([peer.receive(&tunnel).0, peer.receive(&tunnel).0], [1, 2]);
        assert_eq!(dropped(&tunnel.b, DropReason::Replay), 1);
        tunnel.assert_balanced();
    }
}

/// Section 10: one reply for each request, never the longer packet, and not more than the rate allows.
#[test]
fn a_flood_of_requests_is_answered_up_to_the_rate() {
    const COUNT: u64 = 2000;
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let mut peer = Peer::new(&tunnel);
        (0..COUNT).for_each(|n| peer.send(&peer.request(n as u16, peer.return_spi, &[7; 101])));
        let counts = || [DropReason::EchoAnswered, DropReason::EchoLimited].map(|r| dropped(&tunnel.b, r));
        wait_until("all are judged", || counts().iter().sum::<u64>() == COUNT);
        let [answered, limited] = counts();
        assert!(answered >= 50 && limited > 0, "{answered} answered, {limited} not");
        let first = peer.receive_packet(&tunnel);
        assert_eq!(first.len(), peer.seal(&peer.request(0, peer.return_spi, &[7; 101])).len());
        tunnel.assert_balanced();
    }
}

/// Malformed messages and other AGGFRAG payloads have reasons of their own, and break nothing.
#[test]
fn what_is_no_echo_is_dropped_by_its_own_reason() {
    let tunnel = Tunnel::new(TUN);
    let mut peer = Peer::new(&tunnel);
    let whole = peer.request(1, peer.return_spi, b"data");
    for payload in [&[0; 40][..], &[1; 40], &[200; 40], &[]] {
        peer.send(payload);
    }
    peer.send(&whole[..11]);
    peer.send(&whole[..15]);
    peer.send(&whole);
    assert_eq!(peer.receive(&tunnel).0, 1);
    let reasons = [DropReason::Aggfrag, DropReason::EchoMalformed, DropReason::OutsideSelectors];
    assert_eq!(reasons.map(|reason| dropped(&tunnel.b, reason)), [4, 2, 0], "{}", tunnel.b.drops());
    tunnel.assert_balanced();
}

/// Transport policy rule 3: an echo as long as the longest data, with DF, finds out that the path takes less.
#[test]
fn a_large_request_is_lost_where_the_path_is_narrower_and_the_small_one_is_not() {
    for (shape, carrier) in [(XDP, Carrier::Ip), (XDP, Carrier::Udp), (TUN, Carrier::Udp), (TUN, Carrier::Ip)]
    {
        let mut tunnel = Tunnel::new(shape);
        let large = EchoRequest { size: EchoSize::PathMtu, ..request(&tunnel, carrier, false, 1) };
        tunnel.a.plane.send_echo(large);
        assert_eq!(next_reply(&mut tunnel.a).sequence, 1);
        let from_outside = [Source::Wan, Source::Udp, Source::RawIp].map(|source| source as usize);
        let bytes: Vec<_> = tunnel
            .b
            .plane
            .report()
            .workers
            .iter()
            .flat_map(|w| from_outside.map(|s| w.received_bytes[s]))
            .collect();
        // Without outer headers, with those of IP, or as a frame; data has no larger packets.
        assert!((1440..=1514).contains(&bytes.iter().sum::<u64>()), "{bytes:?}");

        tunnel.b.gateway.ip(&["link", "set", "wan0", "mtu", "1400"]);
        tunnel.a.plane.send_echo(EchoRequest { sequence: 2, ..large });
        tunnel.a.plane.send_echo(EchoRequest { sequence: 3, size: EchoSize::Small, ..large });
        assert_eq!(next_reply(&mut tunnel.a).sequence, 3, "in order, so that the large one is lost");
        tunnel.assert_balanced();
    }
}

/// Transport policy rule 3: the path MTU is lowered until the largest packets pass again, and only on the way that it was
/// lowered for.
#[test]
fn a_lowered_path_mtu_lets_large_requests_pass_again() {
    for (shape, carrier) in [(XDP, Carrier::Ip), (XDP, Carrier::Udp), (TUN, Carrier::Udp), (TUN, Carrier::Ip)]
    {
        let mut tunnel = Tunnel::new(shape);
        tunnel.set_path(carrier, false);
        tunnel.b.gateway.ip(&["link", "set", "wan0", "mtu", "1400"]);
        let large = EchoRequest { size: EchoSize::PathMtu, ..request(&tunnel, carrier, false, 0) };
        let mut sequence = 0;
        let mut lowered = 0;
        let answered = loop {
            sequence += 2;
            tunnel.a.plane.send_echo(EchoRequest { sequence, ..large });
            tunnel.a.plane.send_echo(EchoRequest { size: EchoSize::Small, sequence: sequence + 1, ..large });
            let reply = next_reply(&mut tunnel.a).sequence;
            if reply == sequence {
                break lowered;
            }
            assert_eq!(reply, sequence + 1, "the small one passes");
            tunnel.a.plane.lower_path_mtu(PATH);
            lowered += 1;
            assert!(lowered < 10, "{shape:?} {carrier:?}");
        };
        // 1492, 1472, 1450, 1420 and 1400.
        assert_eq!(answered, 5);
        tunnel.assert_balanced();
    }
}

/// RFC 4303 section 3.3.4 and transport policy rule 3: no router may cut a request that measures.
#[test]
fn requests_forbid_fragmentation_and_replies_do_not() {
    let mut tunnel = Tunnel::new(TUN);
    let sniff = |side: &Side| {
        side.gateway.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    };
    let (at_a, at_b) = (sniff(&tunnel.a), sniff(&tunnel.b));
    let large = EchoRequest { size: EchoSize::PathMtu, ..request(&tunnel, Carrier::Ip, false, 1) };
    tunnel.a.plane.send_echo(large);
    next_reply(&mut tunnel.a);
    let df = |mut socket: &Socket| {
        let mut packet = [0; 2000];
        let len = std::io::Read::read(&mut socket, &mut packet).unwrap();
        (len, packet[6] & 0x40 != 0)
    };
    let (request, reply) = (df(&at_b), df(&at_a));
    assert_eq!((request.1, reply.1), (true, false));
    assert!(request.0 <= 1500 && reply.0 <= request.0, "{request:?} {reply:?}");
}

/// Transport policy rule 5: what fails on this host is told, once, and so is that it works again.
#[test]
fn local_failures_are_told_and_so_is_their_end() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        tunnel.exchange(HOST_A, HOST_B, 1);
        tunnel.b.gateway.ip(&["link", "set", "wan0", "down"]);
        assert_eq!(failure_under_traffic(&mut tunnel).unwrap(), "the link is down");
        tunnel.b.gateway.ip(&["link", "set", "wan0", "up"]);
        assert_eq!(failure_under_traffic(&mut tunnel), None);
        tunnel.a.gateway.ip(&["link", "set", "wan0", "down"]);
        assert_eq!(failure_under_traffic(&mut tunnel).unwrap(), "no route to the peer");
        tunnel.a.gateway.ip(&["link", "set", "wan0", "up"]);
        assert_eq!(failure_under_traffic(&mut tunnel), None);
        tunnel.assert_balanced();
    }
}

#[test]
fn a_filter_on_this_host_is_told() {
    let mut tunnel = Tunnel::new(TUN);
    tunnel.set_path(Carrier::Ip, false);
    for command in [
        "add table ip t",
        "add chain ip t out { type filter hook output priority 0 ; }",
        "add rule ip t out ip protocol esp drop",
    ] {
        tunnel.a.gateway.command("nft", &[command]);
    }
    assert_eq!(failure_under_traffic(&mut tunnel).unwrap(), "a filter on this host refuses it");
    tunnel.a.gateway.command("nft", &["delete table ip t"]);
    assert_eq!(failure_under_traffic(&mut tunnel), None);
    tunnel.assert_balanced();
}

/// A next hop that does not answer is this side's trouble: the kernel says so, about its own packets.
#[test]
fn a_dead_neighbour_is_told_until_it_lives() {
    for carrier in CARRIERS {
        let mut tunnel = Tunnel::new(TUN);
        tunnel.a.gateway.sysctl("net.ipv4.neigh.wan0.retrans_time_ms", "20");
        let nobody = address("198.51.100.9");
        let (local, echo) = (tunnel.a.wan_address(false), EchoAnswers::default());
        let path = Path {
            carrier,
            local,
            local_port: 4500,
            remote: nobody,
            remote_port: 4500,
            echo,
            takes_tcp: true,
        };
        tunnel.a.plane.update_path(PATH, path);
        assert_eq!(failure_under_traffic(&mut tunnel).unwrap(), "the next hop does not answer");
        tunnel.b.gateway.ip(&["addr", "add", "198.51.100.9/24", "dev", "wan0"]);
        assert_eq!(failure_under_traffic(&mut tunnel), None);
    }
}

/// Transport policy rule 5: an ICMP error is a reason to probe.
#[test]
fn an_icmp_error_is_a_doubt_about_its_path() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        let (local, remote) = (tunnel.a.wan_address(false), tunnel.b.wan_address(false));
        let echo = EchoAnswers::default();
        // Nobody listens there: the kernel answers "port unreachable".
        let path = Path {
            carrier: Carrier::Udp,
            local,
            local_port: 4500,
            remote,
            remote_port: 4501,
            echo,
            takes_tcp: true,
        };
        tunnel.a.plane.update_path(PATH, path);
        under_traffic(&mut tunnel, |event| {
            (*event == DataPlaneEvent::PathDoubt { path: PATH }).then_some(())
        });
        // The error of the socket's last datagram takes no other with it.
        tunnel.a.plane.send_ike((local, 4500).into(), (remote, 4500).into(), &[0; 40]).unwrap();
        wait_until("IKE arrives", || tunnel.b.receivers.ike.try_recv().is_ok());
    }
}

/// One side of a tunnel without its data plane: it has the keys of gateway A.
struct Peer {
    outbound: Outbound<Arc<OutboundLive>>,
    inbound: Inbound<Arc<(InboundLive, Vec<AtomicU64>)>>,
    /// Inbound SPI of A.
    return_spi: Spi,
    socket: UdpSocket,
    gateway: SocketAddr,
}

impl Peer {
    fn new(tunnel: &Tunnel) -> Self {
        let (spi_a, spi_b) = tunnel.first_spis;
        let keymat = |sender: u8| {
            let mut key = vec![sender; Algorithm::Aes256Gcm16.keymat_len()];
            key[0] = CHILD.0 as u8;
            ExpandedKeymat::new(&KeyMaterial::from_keymat(Algorithm::Aes256Gcm16, &key).unwrap()).unwrap()
        };
        let (esn, lifetime) = (true, Lifetime::default());
        let parameters = OutboundParameters { spi: spi_b, esn, lifetime };
        let outbound = Outbound::new(parameters, keymat(1), Arc::default());
        let window = (0..16).map(|_| AtomicU64::new(0)).collect();
        let parameters = InboundParameters { spi: spi_a, esn, lifetime };
        let inbound =
            Inbound::new(parameters, keymat(2), Arc::new((InboundLive::default(), window))).unwrap();
        // Any port but 4500, which A's data plane has.
        let local = SocketAddr::new(tunnel.a.wan_address(false), 0);
        let socket = tunnel.a.gateway.run(|| UdpSocket::bind(local).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let gateway = (tunnel.b.wan_address(false), 4500).into();
        Self { outbound, inbound, return_spi: spi_a, socket, gateway }
    }

    fn request(&self, sequence: u16, reply_spi: Spi, data: &[u8]) -> Vec<u8> {
        let (kind, wants_reply) = (EchoKind::Request, true);
        let echo = Echo { kind, wants_reply, identifier: 1, sequence, reply_spi, data };
        let mut message = vec![0; echo.len()];
        echo.write(EchoSubTypes::DEFAULT, &mut message).unwrap();
        message
    }

    fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; HEAD_LEN + payload.len() + MAX_TAIL_LEN];
        let place = HEAD_LEN..HEAD_LEN + payload.len();
        buffer[place.clone()].copy_from_slice(payload);
        let sealed = self.outbound.seal_least_padded(&mut buffer, place, NextHeader::AGGFRAG, 0).unwrap();
        buffer[sealed.packet].to_vec()
    }

    fn send(&mut self, payload: &[u8]) {
        let sealed = self.seal(payload);
        self.socket.send_to(&sealed, self.gateway).unwrap();
    }

    fn receive_packet(&self, tunnel: &Tunnel) -> Vec<u8> {
        let mut packet = [0; 2000];
        let received = self.socket.recv_from(&mut packet);
        let (len, source) =
            received.unwrap_or_else(|error| panic!("{error}\n{}\n{}", tunnel.a.drops(), tunnel.b.drops()));
        assert_eq!(source, self.gateway);
        packet[..len].to_vec()
    }

    /// Sequence Number field and data of the next reply.
    fn receive(&mut self, tunnel: &Tunnel) -> (u16, Vec<u8>) {
        let mut packet = self.receive_packet(tunnel);
        let len = packet.len();
        let opened = self.inbound.open(&mut packet, 0..len, 0).unwrap();
        assert_eq!(opened.next_header, NextHeader::AGGFRAG);
        let echo = Echo::parse(&packet[opened.inner], EchoSubTypes::DEFAULT).unwrap();
        assert_eq!((echo.kind, echo.identifier, echo.reply_spi), (EchoKind::Reply, 1, self.return_spi));
        (echo.sequence, echo.data.to_vec())
    }
}

/// What is told of a reply.
struct Reply {
    sequence: u16,
    nonce: [u8; 16],
    carrier: Carrier,
    source: SocketAddr,
    local: IpAddr,
}

fn next_reply(side: &mut Side) -> Reply {
    side.event(|event| match event {
        DataPlaneEvent::EchoReply {
            child: CHILD,
            identifier: 7,
            sequence,
            nonce,
            carrier,
            source,
            local,
        } => {
            let (sequence, nonce, carrier) = (*sequence, *nonce, *carrier);
            Some(Reply { sequence, nonce, carrier, source: *source, local: *local })
        }
        _ => None,
    })
}

fn request(tunnel: &Tunnel, carrier: Carrier, outer_v6: bool, sequence: u16) -> EchoRequest {
    let (local, remote) = (tunnel.a.wan_address(outer_v6), tunnel.b.wan_address(outer_v6));
    let route = match carrier {
        Carrier::Udp => EchoRoute::Udp { local: (local, 4500).into(), remote: (remote, 4500).into() },
        _ => EchoRoute::Ip { local, remote },
    };
    let (child, size) = (CHILD, EchoSize::Small);
    EchoRequest { child, identifier: 7, sequence, nonce: NONCE, wants_reply: true, route, size }
}

fn other(carrier: Carrier) -> Carrier {
    if carrier == Carrier::Ip { Carrier::Udp } else { Carrier::Ip }
}

fn set_answers(side: &Side, remote: IpAddr, echo: EchoAnswers) {
    let (carrier, local) = (Carrier::Udp, side.wan_address(false));
    let path = Path { carrier, local, local_port: 4500, remote, remote_port: 4500, echo, takes_tcp: true };
    side.plane.update_path(PATH, path);
}

/// The next change of A's local failure while host A sends.
fn failure_under_traffic(tunnel: &mut Tunnel) -> Option<String> {
    under_traffic(tunnel, |event| match event {
        DataPlaneEvent::LocalSend { path: PATH, failure } => Some(failure.map(|f| f.to_string())),
        _ => None,
    })
}

/// The next event of A that `wanted` picks while host A sends.
fn under_traffic<T>(tunnel: &mut Tunnel, mut wanted: impl FnMut(&DataPlaneEvent) -> Option<T>) -> T {
    let sender = tunnel.a.host.run(|| gateway::bind(HOST_A));
    let mut found = None;
    wait_until("the event arrives under traffic", || {
        sender.send_to(b"traffic", (address(HOST_B), 4242)).unwrap();
        while found.is_none()
            && let Ok(event) = tunnel.a.receivers.events.try_recv()
        {
            found = wanted(&event);
        }
        found.is_some()
    });
    found.unwrap()
}

fn dropped(side: &Side, reason: DropReason) -> u64 {
    side.plane.report().accounting().dropped(reason)
}
