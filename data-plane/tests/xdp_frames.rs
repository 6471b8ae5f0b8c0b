//! Frames that no IP stack would send, and numbers that no test could wait for, through AF_XDP: VLAN tags, unfinished checksums, ESN
//! at its boundary.

#[path = "bad_input/forge.rs"]
mod forge;
#[path = "xdp_verdicts/frames.rs"]
#[allow(dead_code, reason = "the tests of verdicts use all of it")]
mod frames;
mod gateway;
mod tunnel;
#[path = "bad_input/wire.rs"]
#[allow(dead_code, reason = "the tests of bad input use all of it")]
mod wire;

use std::net::{IpAddr, UdpSocket};

use portcullis_common::DropReason;
use portcullis_data_plane::counters::Source;
use portcullis_data_plane::packet::checksum;
use portcullis_data_plane::sa::Carrier;

use forge::{Forge, IPV4, IPV6};
use gateway::{Namespace, PATIENCE, address, wait_until};
use tunnel::{CHILD, HOST_A, HOST_A_V6, HOST_B, HOST_B_V6, Shape, Tunnel, XDP, keymat};
use wire::{Wire, mac};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const PORT: u16 = 4242;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;
const TAGS: [&[u16]; 4] = [&[], &[VLAN], &[PROVIDER_VLAN], &[PROVIDER_VLAN, VLAN]];
const WAN: [(&str, &str); 2] = [("198.51.100.1", "198.51.100.2"), ("2001:db8::1", "2001:db8::2")];
const HOSTS: [(&str, &str); 2] = [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6)];

/// IEEE 802.1Q: with every tag, either family outside and inside, over IP and in UDP.
#[test]
fn esp_behind_vlan_tags_is_opened() {
    let tunnel = Tunnel::new(XDP);
    let listening = listen(&tunnel);
    let mut forge = forge_for(&tunnel);
    let wire = Wire::new(&tunnel.a.gateway, "wan0");
    let ends = Ends::new(&tunnel.b.gateway, &tunnel.a.gateway, "wan0", "wan0");
    let mut number = 0u32;
    for tags in TAGS {
        for (outer, (from, to)) in WAN.into_iter().enumerate() {
            for carrier in [ESP, UDP] {
                for (inner, (source, destination)) in HOSTS.into_iter().enumerate() {
                    number += 1;
                    let datagram = udp(source, destination, (PORT, PORT), &number.to_be_bytes());
                    let sealed = forge.packet(&datagram, [IPV4, IPV6][inner]);
                    let packet = match carrier {
                        ESP => ip(from, to, ESP, &sealed),
                        _ => udp(from, to, (4500, 4500), &sealed),
                    };
                    wire.send(&ends.frame(tags, &packet));
                    expect(&listening[inner], number, &format!("tags {tags:x?}, {carrier} over {outer}"));
                }
            }
        }
    }
    tunnel.assert_balanced();
    assert_eq!(tunnel.b.received(Source::Wan), u64::from(number), "{}", tunnel.b.drops());
}

#[test]
fn clear_text_behind_vlan_tags_is_sealed() {
    let tunnel = Tunnel::new(XDP);
    let listening = listen(&tunnel);
    let wire = Wire::new(&tunnel.a.host, "eth0");
    let ends = Ends::new(&tunnel.a.gateway, &tunnel.a.host, "lan0", "eth0");
    let mut number = 0u32;
    for tags in TAGS {
        for (carrier, outer_v6) in
            [(Carrier::Udp, false), (Carrier::Ip, false), (Carrier::Udp, true), (Carrier::Ip, true)]
        {
            tunnel.set_path(carrier, outer_v6);
            for (inner, (source, destination)) in HOSTS.into_iter().enumerate() {
                number += 1;
                let datagram = udp(source, destination, (PORT, PORT), &number.to_be_bytes());
                wire.send(&ends.frame(tags, &datagram));
                expect(&listening[inner], number, &format!("tags {tags:x?}, {carrier:?}, IPv6 {outer_v6}"));
            }
        }
    }
    tunnel.assert_balanced();
}

/// A sender on a virtual link leaves the checksum to a card that there is none of: inside, where it is completed before it is sealed, and
/// outside, where it is no reason to drop.
#[test]
fn unfinished_checksums_are_completed() {
    let tunnel = Tunnel::new(XDP);
    let listening = listen(&tunnel);
    let host = Wire::new(&tunnel.b.host, "eth0");
    let wire = Wire::new(&tunnel.a.host, "eth0");
    let ends = Ends::new(&tunnel.a.gateway, &tunnel.a.host, "lan0", "eth0");
    for (inner, (source, destination)) in HOSTS.into_iter().enumerate() {
        let number = 7 + inner as u32;
        let header_len = [20, 40][inner];
        let mut datagram = udp(source, destination, (PORT, PORT), &number.to_be_bytes());
        unfinish(&mut datagram[header_len..], source, destination, UDP, 6);
        wire.send(&ends.frame(&[], &datagram));
        // The host's stack looks at it.
        expect(&listening[inner], number, "UDP");

        let marker = [b"unfinished", &source.as_bytes()[..2]].concat();
        let mut segment = frames::tcp(PORT, 0x10);
        segment.extend(&marker);
        let mut packet = ip(source, destination, TCP, &segment);
        unfinish(&mut packet[header_len..], source, destination, TCP, 16);
        wire.send(&ends.frame(&[], &packet));
        let arrived = host.until(&marker).unwrap().pop().unwrap();
        let segment = &arrived[14 + header_len..];
        assert!(checksum::is_valid(segment, address(source), address(destination), TCP), "{segment:x?}");
    }

    let mut forge = forge_for(&tunnel);
    let wire = Wire::new(&tunnel.a.gateway, "wan0");
    let ends = Ends::new(&tunnel.b.gateway, &tunnel.a.gateway, "wan0", "wan0");
    for (outer, (from, to)) in WAN.into_iter().enumerate() {
        let number = 70 + outer as u32;
        let sealed = forge.packet(&udp(HOST_A, HOST_B, (PORT, PORT), &number.to_be_bytes()), IPV4);
        let mut packet = udp(from, to, (4500, 4500), &sealed);
        unfinish(&mut packet[[20, 40][outer]..], from, to, UDP, 6);
        wire.send(&ends.frame(&[], &packet));
        expect(&listening[0], number, "outside");
    }
    tunnel.assert_balanced();
}

/// RFC 4303 section 2.2.1 and appendix A2: the window follows across 2^32 while packets come in at one worker and are opened by another.
#[test]
fn esn_goes_past_its_boundary_with_packets_handed_over_between_workers() {
    const BOUNDARY: u64 = 1 << 32;
    let tunnel = Tunnel::new(Shape { workers: 3, queues: 3, ..XDP });
    let listening = listen(&tunnel);
    let mut forge = forge_for(&tunnel);
    let wire = Wire::new(&tunnel.a.gateway, "wan0");
    let ends = Ends::new(&tunnel.b.gateway, &tunnel.a.gateway, "wan0", "wan0");
    let mut send = |sequence: u64, port: u16| {
        forge.sequence = sequence;
        let sealed = forge.packet(&udp(HOST_A, HOST_B, (PORT, PORT), &(sequence as u32).to_be_bytes()), IPV4);
        let packet = udp(WAN[0].0, WAN[0].1, (port, 4500), &sealed);
        let frame = ends.frame(&[], &packet);
        wire.send(&frame);
        frame
    };
    // A jump of more than 2^31 would be taken for a number of the past.
    send(BOUNDARY / 2, 4500);
    expect(&listening[0], (BOUNDARY / 2) as u32, "half way");
    let mut frames = Vec::new();
    for sequence in BOUNDARY - 100..BOUNDARY + 100 {
        // Another flow, so perhaps another queue, for each.
        frames.push(send(sequence, 4500 + (sequence % 61) as u16));
        expect(&listening[0], sequence as u32, &format!("{sequence:#x}"));
    }
    let handed_over: u64 = tunnel.b.plane.report().workers.iter().map(|worker| worker.handed_over).sum();
    assert!(handed_over > 0, "every flow came to the owner");
    for frame in &frames {
        wire.send(frame);
    }
    let dropped = |reason| tunnel.b.plane.report().accounting().dropped(reason);
    wait_until("all are known", || dropped(DropReason::Replay) == frames.len() as u64);
    // RFC 4303 appendix A2.2: the lower half of what was in the window before means the next 2^32.
    tunnel.assert_balanced();
    assert_eq!(dropped(DropReason::IcvFailure), 0, "{}", tunnel.b.drops());
}

/// Where frames go, and where they come from.
struct Ends([u8; 12]);

impl Ends {
    fn new(to: &Namespace, from: &Namespace, to_name: &str, from_name: &str) -> Self {
        Self([mac(to, to_name), mac(from, from_name)].concat().try_into().unwrap())
    }

    fn frame(&self, tags: &[u16], packet: &[u8]) -> Vec<u8> {
        let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let mut frame = frames::ethernet(tags, ethertype, packet);
        frame[..12].copy_from_slice(&self.0);
        frame
    }
}

/// What side A would send to side B.
fn forge_for(tunnel: &Tunnel) -> Forge {
    Forge::new(&keymat(1, CHILD), tunnel.first_spis.1)
}

fn listen(tunnel: &Tunnel) -> [UdpSocket; 2] {
    // What the stack of the other host hears of a port that nobody has would be an ICMP error more.
    [HOST_B, HOST_B_V6].map(|host| {
        let socket = tunnel.b.host.run(|| UdpSocket::bind((address(host), PORT)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

fn expect(socket: &UdpSocket, number: u32, what: &str) {
    let mut received = [0; 64];
    let (len, _) =
        socket.recv_from(&mut received).unwrap_or_else(|error| panic!("{what}, {number}: {error}"));
    assert_eq!(received[..len], number.to_be_bytes(), "{what}");
}

/// An IP packet with its header's checksum.
fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (address(source), address(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let packet = frames::ipv4(destination.octets(), protocol, 0, payload);
            let mut packet = frames::from_ipv4(source.to_bits(), &packet);
            checksum::set_ipv4_header(&mut packet[..20]);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = frames::ipv6(destination.octets(), protocol, &[], payload);
            packet[8..24].copy_from_slice(&source.octets());
            packet
        }
        mixed => panic!("{mixed:?}"),
    }
}

/// A datagram in an IP packet, with its checksum.
fn udp(source: &str, destination: &str, (from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = frames::udp(from, to, payload);
    unfinish(&mut datagram, source, destination, UDP, 6);
    checksum::finish(&mut datagram, 6);
    ip(source, destination, UDP, &datagram)
}

/// Leaves the checksum at this place to somebody else: the sum of the pseudo-header alone.
fn unfinish(segment: &mut [u8], source: &str, destination: &str, protocol: u8, at: usize) {
    let pseudo = checksum::pseudo_header(address(source), address(destination), protocol, segment.len());
    segment[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
}
