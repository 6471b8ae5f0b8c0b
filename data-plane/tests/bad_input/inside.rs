//! What a protected host sends to the LAN interface of gateway B.

use portcullis_common::DropReason::{Malformed, NoPolicy, TooBig, TtlExceeded};

use crate::frames::{from_ipv4, ipv4, ipv6, udp};
use crate::tunnel::{HOST_A, HOST_B, Shape, Tunnel};
use crate::wire::{Wire, contains, mac};
use crate::{BAD, Case, Dropped, Kernel, PORT, Passes, datagram, judge, judge_marker, patched, summed};

const UDP: u8 = 17;
const HOST: [u8; 4] = [10, 1, 0, 5];
const HOST_V6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
const OURS: u32 = 0x0a02_0005;

pub fn run(tunnel: &Tunnel, shape: Shape) -> Vec<String> {
    let mut failures = Vec::new();
    let lan = Wire::new(&tunnel.b.host, "eth0");
    // What leaves B in clear is seen here on either path: A's program passes it on to the kernel.
    let far_wan = Wire::new(&tunnel.a.gateway, "wan0");
    let far_host = Wire::new(&tunnel.a.host, "eth0");
    let ethernet = [&mac(&tunnel.b.gateway, "lan0")[..], &mac(&tunnel.b.host, "eth0")].concat();
    for (number, case) in cases().iter().enumerate() {
        let fate = case.fate(shape);
        let good = [&b"good"[..], &number.to_be_bytes()].concat();
        let send = |packet: &[u8]| {
            let version: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
            lan.send(&[&ethernet[..], &version, packet].concat());
        };
        let outcome = judge(&tunnel.b, case, fate, send, || {
            send(&datagram(HOST_B, HOST_A, &good));
            judge_marker(&far_host.until(&good)?, fate)?;
            let has_leaked = far_wan.waiting().iter().any(|frame| contains(frame, BAD));
            if has_leaked { Err("it left in clear".to_owned()) } else { Ok(()) }
        });
        failures.extend(outcome.err());
    }
    failures
}

fn cases() -> Vec<Case> {
    let inner = || datagram(HOST_B, HOST_A, BAD);
    let v6 = |extensions: &[(u8, &[u8])], protocol| {
        let packet = ipv6(HOST_V6, protocol, extensions, &udp(PORT, PORT, BAD));
        patched(packet, 8, &[0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5])
    };
    let beyond: (u8, &[u8]) = (60, &[200, 1, 4, 0, 0, 0, 0]);
    let malformed = |name, packet| Case::new(name, packet, Dropped(Malformed));
    let without_policy = |name, packet| Case::new(name, packet, Dropped(NoPolicy));
    let cut = |field: u16| {
        let packet = from_ipv4(OURS, &ipv4(HOST, UDP, 0, &BAD[..3]));
        summed(patched(packet, 6, &field.to_be_bytes()))
    };
    let large = [BAD, &[0; 1450]].concat();
    vec![
        malformed("IPv4 cut short", vec![0x45; 12]),
        malformed("IPv4 of version 5", summed(patched(inner(), 0, &[0x55]))),
        malformed("IPv4 longer than its frame", summed(patched(inner(), 2, &[5, 0]))),
        malformed("IPv4 shorter than its header", summed(patched(inner(), 2, &[0, 12]))),
        malformed("IPv6 cut short", v6(&[], UDP)[..39].to_vec()),
        malformed("IPv6 longer than its frame", patched(v6(&[], UDP), 4, &[4, 0])),
        // The program looks at destinations alone, and so does the kernel when it routes.
        malformed("an extension header beyond the packet", v6(&[beyond], UDP)),
        malformed("a UDP header cut short", cut(0)),
        // RFC 1858.
        malformed("a first fragment without ports", cut(0x2000)),
        without_policy("a destination without policy", datagram(HOST_B, "10.9.0.5", BAD)),
        without_policy("the address of another host", datagram("10.7.0.5", HOST_A, BAD)),
        without_policy("the address of a host at the other end", datagram("10.1.0.9", HOST_A, BAD)),
        Case::new("a TTL of 1", summed(patched(inner(), 8, &[1])), Dropped(TtlExceeded)).on_tun(Kernel),
        Case::new(
            "DF and too long",
            summed(patched(datagram(HOST_B, HOST_A, &large), 6, &[0x40, 0])),
            Dropped(TooBig),
        )
        .on_tun(Kernel),
        Case::new(
            "a later fragment",
            summed(patched(inner(), 6, &[0, 9])),
            Passes("the policy takes every port"),
        ),
    ]
}
