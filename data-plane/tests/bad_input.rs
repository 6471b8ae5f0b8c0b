//! Every kind of bad packet, through the real XDP programs and workers on both paths: dropped with the reason that is its own
//! and nothing else counted, forwarded nowhere, and the next good packet passes.

#[path = "bad_input/forge.rs"]
mod forge;
#[path = "xdp_verdicts/frames.rs"]
#[allow(dead_code, reason = "the tests of verdicts use all of it")]
mod frames;
mod gateway;
#[path = "bad_input/inside.rs"]
mod inside;
#[path = "bad_input/outside.rs"]
mod outside;
mod tunnel;
#[path = "bad_input/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Instant;

use portcullis_common::DropReason;

use gateway::PATIENCE;
use tunnel::{HOST_A, HOST_B, Shape, Side, TUN, Tunnel, XDP};

/// Where both hosts have a socket, so that they answer nothing.
const PORT: u16 = 4242;

/// In every bad packet that has room for it.
const BAD: &[u8] = b"bad-input-marker";

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// The XDP program or a worker drops it and says why.
    Dropped(DropReason),
    /// The kernel has it and drops it: no book of ours.
    Kernel,
    /// It passes, and why that is right.
    Passes(&'static str),
}

use Fate::{Dropped, Kernel, Passes};

/// Something that a sender does.
struct Case {
    name: &'static str,
    /// One frame or several, without Ethernet header.
    packets: Vec<Vec<u8>>,
    on_xdp: Fate,
    on_tun: Fate,
}

impl Case {
    fn new(name: &'static str, packet: Vec<u8>, fate: Fate) -> Self {
        Self { name, packets: vec![packet], on_xdp: fate, on_tun: fate }
    }

    /// The kernel's stack, which sees it first on the TUN path, sees to it.
    fn on_tun(self, fate: Fate) -> Self {
        Self { on_tun: fate, ..self }
    }

    fn fate(&self, shape: Shape) -> Fate {
        if shape.mode == XDP.mode { self.on_xdp } else { self.on_tun }
    }
}

/// Drops of a side, those of XDP and of workers together.
fn drops(side: &Side) -> BTreeMap<DropReason, u64> {
    let report = side.plane.report();
    let accounting = report.accounting();
    let mut drops: BTreeMap<_, _> = DropReason::ALL.iter().map(|r| (*r, accounting.dropped(*r))).collect();
    for (verdict, packets, _) in report.interfaces.iter().flat_map(|interface| &interface.xdp) {
        if let Some(reason) = verdict.drop_reason() {
            *drops.entry(reason).or_default() += packets;
        }
    }
    drops
}

/// Sends a case and, when its drop is counted if there is to be one, a good packet. Nothing else may be dropped. `pass` says
/// what has gone wrong.
fn judge(
    side: &Side,
    case: &Case,
    fate: Fate,
    send: impl Fn(&[u8]),
    pass: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let mut expected = drops(side);
    case.packets.iter().for_each(|packet| send(packet));
    if let Dropped(reason) = fate {
        *expected.entry(reason).or_default() += 1;
        let deadline = Instant::now() + PATIENCE;
        while drops(side)[&reason] < expected[&reason] && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
    let passed = pass();
    let now = drops(side);
    let others: Vec<_> = now.iter().filter(|(reason, count)| expected[*reason] != **count).collect();
    match passed {
        Ok(()) if others.is_empty() => Ok(()),
        Ok(()) => Err(format!("{}: {fate:?}, but {others:?}", case.name)),
        Err(error) => Err(format!("{}: {fate:?}, but {error}, {others:?}", case.name)),
    }
}

/// What should pass has passed, what should not has not.
fn judge_marker(seen: &[Vec<u8>], fate: Fate) -> Result<(), String> {
    match (seen.iter().any(|frame| wire::contains(frame, BAD)), fate) {
        (true, Passes(_)) | (false, Dropped(_) | Kernel) => Ok(()),
        (true, _) => Err("it passed".to_owned()),
        (false, _) => Err("it did not pass".to_owned()),
    }
}

fn assert_none(shape: Shape, failures: &[String]) {
    assert!(failures.is_empty(), "{:?}:\n{}", shape.mode, failures.join("\n"));
}

fn listen(tunnel: &Tunnel) -> [UdpSocket; 2] {
    [(&tunnel.a, HOST_A), (&tunnel.b, HOST_B)]
        .map(|(side, host)| side.host.run(|| UdpSocket::bind((host, PORT)).unwrap()))
}

/// The packet with a checksum in its IPv4 header; IPv6 has none.
fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet.len() >= 20 {
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        packet[10..12].fill(0);
        let header = packet.get(..header_len).unwrap_or(&packet);
        let sum: u32 =
            header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// Octets of a packet replaced, before its header has its checksum.
fn patched(mut packet: Vec<u8>, offset: usize, octets: &[u8]) -> Vec<u8> {
    packet[offset..offset + octets.len()].copy_from_slice(octets);
    packet
}

/// A UDP datagram with a marker, from host to host.
fn datagram(source: &str, destination: &str, marker: &[u8]) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap();
    let packet = frames::ipv4(octets(destination).octets(), 17, 0, &frames::udp(PORT, PORT, marker));
    summed(frames::from_ipv4(octets(source).to_bits(), &packet))
}

#[test]
fn bad_packets_from_outside_are_dropped_with_their_reason() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let _listening = listen(&tunnel);
        assert_none(shape, &outside::run(&tunnel, shape));
        tunnel.assert_balanced();
    }
}

#[test]
fn bad_packets_from_inside_are_dropped_with_their_reason() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        let _listening = listen(&tunnel);
        assert_none(shape, &inside::run(&tunnel, shape));
        tunnel.assert_balanced();
    }
}
