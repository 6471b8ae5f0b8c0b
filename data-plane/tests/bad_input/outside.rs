//! What arrives at the WAN interface of gateway B: whole tables of outer headers, ESP and what is in it.

use std::net::Ipv4Addr;

use portcullis_common::DropReason::{
    Aggfrag, BadPadding, Dummy, EcnMarked, EspTooShort, IcvFailure, InnerMalformed, InnerProtocol, Malformed,
    NatKeepalive, OuterChecksum, OutsideSelectors, Replay, SocketRxDropped, TtlExceeded, UnknownSpi,
};

use crate::forge::{Forge, IPV4, IPV6};
use crate::frames::{esp, from_ipv4, ipv4, ipv6, udp};
use crate::tunnel::{HOST_A, HOST_B, Shape, Tunnel};
use crate::wire::{Wire, mac};
use crate::{BAD, Case, Dropped, Kernel, PORT, Passes, datagram, judge, judge_marker, patched, summed};

const ESP: u8 = 50;
const UDP: u8 = 17;
const GATEWAY: [u8; 4] = [198, 51, 100, 2];
const GATEWAY_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const PEER: [u8; 4] = [198, 51, 100, 1];
const HOST: [u8; 4] = [10, 2, 0, 5];

pub fn run(tunnel: &Tunnel, shape: Shape) -> Vec<String> {
    let spi = tunnel.first_spis.1;
    let mut keymat = vec![1; 36];
    keymat[0] = crate::tunnel::CHILD.0 as u8;
    let mut forge = Forge::new(&keymat, spi);
    let wan = Wire::new(&tunnel.a.gateway, "wan0");
    let host = Wire::new(&tunnel.b.host, "eth0");
    let ethernet = [&mac(&tunnel.b.gateway, "wan0")[..], &mac(&tunnel.a.gateway, "wan0")].concat();
    let send = |packet: &[u8]| {
        let version: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        wan.send(&[&ethernet[..], &version, packet].concat());
    };
    let (mut number, mut failures) = (0u32, Vec::new());
    for cases in [headers, lengths, numbers, jumps, trailers, inner_headers, inner_places] {
        for case in cases(&mut forge, BAD) {
            number += 1;
            let fate = case.fate(shape);
            let good = [&b"good"[..], &number.to_be_bytes()].concat();
            let sound = in_udp(&forge.packet(&datagram(HOST_A, HOST_B, &good), IPV4));
            let outcome = judge(&tunnel.b, &case, fate, send, || {
                // The kernel takes datagrams and raw packets on two ways: what passes has to have arrived.
                let mut seen = if let Passes(_) = fate { host.until(BAD)? } else { Vec::new() };
                send(&sound);
                seen.extend(host.until(&good)?);
                judge_marker(&seen, fate)
            });
            failures.extend(outcome.err());
        }
    }
    failures
}

/// Outer headers that contradict themselves, or are not what they seem.
fn headers(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let mut sound = || in_ip(&forge.packet(&datagram(HOST_A, HOST_B, marker), IPV4));
    let malformed = |name, packet| Case::new(name, packet, Dropped(Malformed));
    let long_header: (u8, &[u8]) = (60, &[200, 1, 4, 0, 0, 0, 0]);
    let mut cases = vec![
        malformed("IPv4 cut short", vec![0x45; 12]),
        malformed("IPv4 of version 5", summed(patched(sound(), 0, &[0x55]))),
        malformed("IPv4 header of 16 octets", summed(patched(sound(), 0, &[0x44]))),
        malformed("IPv4 longer than its frame", summed(patched(sound(), 2, &[0x05, 0xa0]))),
        malformed("IPv4 shorter than its header", summed(patched(sound(), 2, &[0, 19]))),
        malformed("IPv6 cut short", vec![0x60; 39]),
        malformed("IPv6 longer than its frame", patched(ipv6(GATEWAY_V6, ESP, &[], &esp(7)), 4, &[4, 0])),
        malformed("IPv6 header beyond the packet", ipv6(GATEWAY_V6, ESP, &[long_header], &esp(7))),
        malformed("IPv6 header cut short", ipv6(GATEWAY_V6, 0, &[], &[])),
    ];
    // RFC 1122 section 3.2.1.2.
    let wrong_sum =
        Case::new("IPv4 header checksum", patched(sound(), 10, &[0xde, 0xad]), Dropped(OuterChecksum));
    cases.push(wrong_sum.on_tun(Kernel));
    cases.push(Case::new("IPv4 with options", with_options(sound()), Passes("options of the outer header")));
    cases.push(Case::new(
        "an address that is not the peer's",
        summed(from_ipv4(u32::from(Ipv4Addr::new(198, 51, 100, 77)), &sound())),
        Passes("an SA is found by its SPI, and its packets by their ICV (RFC 4301 section 4.1)"),
    ));
    cases.push(Case::new("half of a packet", fragments(sound(), 1).swap_remove(0), Kernel));
    cases.push(Case {
        packets: fragments(sound(), 2),
        ..Case::new("both halves", vec![], Passes("the kernel joins them"))
    });
    cases.push(Case::new("clear text", datagram(HOST_A, HOST_B, marker), Kernel));
    cases
}

/// Lengths of UDP and ESP.
fn lengths(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let sound = forge.packet(&datagram(HOST_A, HOST_B, marker), IPV4);
    let spi = sound[..4].to_vec();
    let mut cases = vec![
        Case::new(
            "UDP longer than its packet",
            summed(patched(in_udp(&sound), 24, &[9, 9])),
            Dropped(Malformed),
        ),
        Case::new(
            "UDP shorter than its header",
            summed(patched(in_udp(&sound), 24, &[0, 7])),
            Dropped(Malformed),
        ),
        Case::new("UDP without payload", in_udp(&[]), Dropped(Malformed)),
        Case::new("one octet that is no keepalive", in_udp(&[1]), Dropped(Malformed)),
        Case::new("a NAT keepalive", in_udp(&[0xff]), Dropped(NatKeepalive)),
        Case::new("half an SPI", in_ip(&spi[..2]), Dropped(Malformed)),
        Case::new("an SPI alone", in_udp(&spi), Dropped(Malformed)),
        Case::new("an unknown SPI", in_udp(&esp(0x0123_4567)), Dropped(UnknownSpi)),
        Case::new("a reserved SPI", in_ip(&esp(255)), Dropped(UnknownSpi)),
    ];
    // RFC 1122 section 4.1.3.4, RFC 8200 section 8.1.
    let wrong_sum =
        |name, packet| Case::new(name, packet, Dropped(OuterChecksum)).on_tun(Dropped(SocketRxDropped));
    cases.push(wrong_sum("UDP checksum", patched(in_udp(&sound), 26, &[0xde, 0xad])));
    cases.push(wrong_sum("UDP checksum over IPv6", patched(in_udp_v6(&sound), 46, &[0xde, 0xad])));
    let none = Case::new("no UDP checksum over IPv6", in_udp_v6(&sound), Dropped(OuterChecksum));
    cases.push(none.on_tun(Kernel));
    for len in [8, 15, 16, 31, 33] {
        let short = &forge.packet(&datagram(HOST_A, HOST_B, marker), IPV4)[..len];
        cases.push(Case::new("ESP cut short, in UDP", in_udp(short), Dropped(EspTooShort)));
        cases.push(Case::new("ESP cut short", in_ip(short), Dropped(EspTooShort)));
    }
    let almost = forge.packet(&datagram(HOST_A, HOST_B, marker), IPV4);
    cases.push(Case::new(
        "ESP without its last octet",
        in_udp(&almost[..almost.len() - 1]),
        Dropped(IcvFailure),
    ));
    cases
}

/// Integrity and order (RFC 4303 sections 3.4.3 and 3.4.4.2).
fn numbers(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let inner = datagram(HOST_A, HOST_B, marker);
    let mut cases = Vec::new();
    for (name, place) in [("a sequence number", 5), ("an IV", 12), ("a text", 30), ("an ICV", usize::MAX)] {
        let mut packet = forge.packet(&inner, IPV4);
        let last = packet.len() - 1;
        packet[place.min(last)] ^= 0x10;
        cases.push(Case::new(name, in_ip(&packet), Dropped(IcvFailure)));
    }
    let trailer = [&inner[..], &[1, 2, 2, IPV4]].concat();
    let first = forge.text(&trailer);
    let again = in_udp(&first);
    cases.push(Case::new("a new number", again.clone(), Passes("it is sound")));
    cases.push(Case::new("a number twice", again.clone(), Dropped(Replay)));
    cases.push(Case::new("a number twice, by another carrier", in_ip(&first), Dropped(Replay)));
    cases
}

/// Numbers far away (RFC 4303 section 3.4.3 and appendix A2).
fn jumps(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let trailer = [&datagram(HOST_A, HOST_B, marker)[..], &[1, 2, 2, IPV4]].concat();
    let late = forge.text(&trailer);
    forge.sequence += 1_000_000;
    let jump = in_udp(&forge.text(&trailer));
    // Its lower half has not been seen, and means the number nearby.
    let far = forge.numbered(forge.sequence + 500 + (1 << 40), &trailer);
    vec![
        Case::new("a jump", jump, Passes("the sender may skip numbers")),
        // With ESN its number is taken for one of the next 2^32.
        Case::new("a number below the window", in_udp(&late), Dropped(IcvFailure)),
        Case::new("a number of another half", in_udp(&far), Dropped(IcvFailure)),
    ]
}

/// Padding and next header (RFC 4303 sections 2.4 and 2.6).
fn trailers(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let inner = datagram(HOST_A, HOST_B, marker);
    let mut with = |trailer: &[u8]| in_udp(&forge.text(&[&inner[..], trailer].concat()));
    vec![
        Case::new("padding of zeros", with(&[0, 0, 2, IPV4]), Dropped(BadPadding)),
        Case::new("padding that counts from 0", with(&[0, 1, 2, IPV4]), Dropped(BadPadding)),
        Case::new("more padding than text", with(&[1, 2, 255, IPV4]), Dropped(BadPadding)),
        Case::new("a dummy packet", with(&[1, 2, 2, 59]), Dropped(Dummy)),
        Case::new("a next header that is no tunnel", with(&[1, 2, 2, UDP]), Dropped(InnerProtocol)),
        Case::new("an AGGFRAG payload", with(&[1, 2, 2, 144]), Dropped(Aggfrag)),
        Case::new("IPv4 that is called IPv6", with(&[1, 2, 2, IPV6]), Dropped(InnerMalformed)),
        Case::new("no packet at all", in_udp(&forge.packet(&[], IPV4)), Dropped(InnerMalformed)),
    ]
}

/// Inner packets that contradict themselves, and odd ones that do not.
fn inner_headers(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let inner = || datagram(HOST_A, HOST_B, marker);
    let mut carry = |packet: Vec<u8>, next| in_udp(&forge.packet(&packet, next));
    let v6 = |extensions: &[(u8, &[u8])], protocol| {
        let host = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        let packet = ipv6(host, protocol, extensions, &udp(PORT, PORT, marker));
        patched(packet, 8, &[0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5])
    };
    let beyond: (u8, &[u8]) = (60, &[200, 1, 4, 0, 0, 0, 0]);
    let options: (u8, &[u8]) = (60, &[0, 1, 4, 0, 0, 0, 0]);
    let esp_in_esp =
        summed(from_ipv4(0x0a01_0005, &ipv4(HOST, ESP, 0, &[&esp(0x0123_4567)[..], marker].concat())));
    let malformed = |name, packet| Case::new(name, packet, Dropped(InnerMalformed));
    vec![
        malformed("inner IPv4 cut short", carry(inner()[..19].to_vec(), IPV4)),
        malformed(
            "inner IPv4 longer than what was opened",
            carry(summed(patched(inner(), 2, &[0, 99])), IPV4),
        ),
        malformed("inner IPv4 shorter than its header", carry(summed(patched(inner(), 2, &[0, 12])), IPV4)),
        malformed("inner IPv4 header of 16 octets", carry(summed(patched(inner(), 0, &[0x44])), IPV4)),
        malformed("inner options beyond the packet", carry(summed(patched(inner(), 0, &[0x4f])), IPV4)),
        malformed("inner packet of version 9", carry(patched(inner(), 0, &[0x95]), IPV4)),
        malformed("inner UDP header cut short", carry(summed(ipv4(HOST, UDP, 0, &[1, 2, 3])), IPV4)),
        malformed("inner IPv6 cut short", carry(v6(&[], UDP)[..39].to_vec(), IPV6)),
        malformed("inner IPv6 longer than what was opened", carry(patched(v6(&[], UDP), 4, &[4, 0]), IPV6)),
        malformed("inner extension header beyond the packet", carry(v6(&[beyond], UDP), IPV6)),
        malformed("inner extension headers that do not end", carry(v6(&[options], 60), IPV6)),
        // RFC 1858: a first fragment that leaves the ports out.
        malformed(
            "inner first fragment without ports",
            carry(summed(patched(ipv4(HOST, UDP, 0, &[0; 3]), 6, &[0x20, 0])), IPV4),
        ),
        Case::new(
            "inner packet with options",
            carry(with_options(inner()), IPV4),
            Passes("a host may use options"),
        ),
        Case::new(
            "many extension headers",
            carry(v6(&[options; 6], UDP), IPV6),
            Passes("the worker follows them all"),
        ),
        Case::new(
            "a later fragment",
            carry(summed(patched(inner(), 6, &[0, 9])), IPV4),
            Passes("the selectors take every port"),
        ),
        Case::new("ESP in ESP", carry(esp_in_esp, IPV4), Passes("the selectors take every protocol")),
    ]
}

/// Inner packets that are sound and not allowed.
fn inner_places(forge: &mut Forge, marker: &[u8]) -> Vec<Case> {
    let mut carry = |packet: Vec<u8>| in_udp(&forge.packet(&packet, IPV4));
    let outside = |name, packet| Case::new(name, packet, Dropped(OutsideSelectors));
    let inner = || datagram(HOST_A, HOST_B, marker);
    let cases = vec![
        outside("a source that was not negotiated", carry(datagram("10.3.0.5", HOST_B, marker))),
        outside("a source of ours", carry(datagram("10.2.0.9", HOST_B, marker))),
        outside("a destination that was not negotiated", carry(datagram(HOST_A, "10.3.0.5", marker))),
        outside("the peer's own network", carry(datagram(HOST_A, "10.1.0.9", marker))),
        outside("the gateway itself", carry(datagram(HOST_A, "198.51.100.2", marker))),
        outside("loopback", carry(datagram(HOST_A, "127.0.0.1", marker))),
        outside("a group", carry(datagram(HOST_A, "224.0.0.5", marker))),
        outside("broadcast", carry(datagram(HOST_A, "255.255.255.255", marker))),
        outside("no address", carry(datagram("0.0.0.0", HOST_B, marker))),
        Case::new("a TTL of 1", carry(summed(patched(inner(), 8, &[1]))), Dropped(TtlExceeded))
            .on_tun(Kernel),
        Case::new("a TTL of 0", carry(summed(patched(inner(), 8, &[0]))), Dropped(TtlExceeded))
            .on_tun(Kernel),
        // RFC 6040 section 4.2: congestion was met, and the inner transport cannot hear of it.
        Case::new(
            "a congestion mark that nobody hears",
            summed(patched(in_udp(&forge.packet(&inner(), IPV4)), 1, &[3])),
            Dropped(EcnMarked),
        ),
    ];
    cases
}

fn in_ip(packet: &[u8]) -> Vec<u8> {
    summed(from_ipv4(u32::from_be_bytes(PEER), &ipv4(GATEWAY, ESP, 0, packet)))
}

fn in_udp(packet: &[u8]) -> Vec<u8> {
    summed(from_ipv4(u32::from_be_bytes(PEER), &ipv4(GATEWAY, UDP, 0, &udp(4500, 4500, packet))))
}

/// Without a checksum.
fn in_udp_v6(packet: &[u8]) -> Vec<u8> {
    let packet = ipv6(GATEWAY_V6, UDP, &[], &udp(4500, 4500, packet));
    patched(packet, 8, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

/// The IPv4 packet with a word of no-operation options.
fn with_options(packet: Vec<u8>) -> Vec<u8> {
    let total_len = (packet.len() as u16 + 4).to_be_bytes();
    let longer = [&packet[..20], &[1; 4], &packet[20..]].concat();
    summed(patched(patched(longer, 0, &[0x46]), 2, &total_len))
}

/// The IPv4 packet in two fragments, with this identification.
fn fragments(packet: Vec<u8>, identification: u16) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let (first, second) = payload.split_at(32);
    let fragment = |part: &[u8], field: u16| {
        let packet = patched([header, part].concat(), 2, &(20 + part.len() as u16).to_be_bytes());
        summed(patched(patched(packet, 4, &identification.to_be_bytes()), 6, &field.to_be_bytes()))
    };
    vec![fragment(first, 0x2000), fragment(second, 4)]
}
