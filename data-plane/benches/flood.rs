//! A TCP flow through two gateways while one of them is flooded from outside, beside the same flood at a program that
//! only drops: `cargo xtask bench flood`.
//!
//! Two data planes with static keys and AF_XDP in copy mode, in network namespaces; hosts, gateways and the flood share the cores of
//! this machine, so that what the flood costs is what it takes from the flow. The floods take turns.

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[allow(dead_code, reason = "for the suite `gateway`")]
#[path = "gateway/frames.rs"]
mod frames;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "flood/generator.rs"]
mod generator;
#[allow(dead_code, reason = "the suite `xdp` uses the rest")]
#[path = "bpf/program.rs"]
mod program;
#[path = "../tests/tunnel/mod.rs"]
mod tunnel;

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Instant;

use figure::{Better, Figure, Report, median};
use portcullis_data_plane::packet::checksum;

use frames::{index, mac};
use gateway::wait_until;
use generator::Flood;
use program::{DROP, Program};
use tunnel::flows::tcp;
use tunnel::{Tunnel, XDP};

const RUNS: usize = 5;
const GOAL: f64 = 0.9;
const ETHERNET: usize = 14;
const IPV4: usize = 20;

fn main() -> ExitCode {
    let mut report = Report::begin();
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("flood: left out: network namespaces and XDP need root");
        return report.finish();
    }
    let tunnel = Tunnel::new(XDP);
    // A way of its own from one gateway to the other, for the flood that meets a program that only drops.
    tunnel::veth((&tunnel.a.gateway, "drop0"), (&tunnel.b.gateway, "flood0"), 1);
    let _dropping = tunnel.a.gateway.run(|| Program::load(&DROP).attach(index(&tunnel.a.gateway, "drop0")));
    let calm: Vec<_> = (0..RUNS).map(|_| speed(&tunnel)).collect();
    for (case, payload) in [("unknown SPI", unknown_spi()), ("IKE_SA_INIT", ike_sa_init())] {
        measure(&mut report, &tunnel, case, &payload, &calm);
    }
    report.finish()
}

/// IP protocol and what follows the header.
type Payload = (u8, Vec<u8>);

fn measure(report: &mut Report, tunnel: &Tunnel, case: &str, payload: &Payload, calm: &[f64]) {
    let (mut flooded, mut dropped) = (Vec::new(), Vec::new());
    let (mut rate, mut rate_dropped) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        for (from, to, speeds, rates) in
            [("wan0", "wan0", &mut flooded, &mut rate), ("flood0", "drop0", &mut dropped, &mut rate_dropped)]
        {
            let frame = frame(&mac(&tunnel.a.gateway, to), payload);
            let flood = Flood::start(&tunnel.b.gateway, index(&tunnel.b.gateway, from), frame);
            wait_until("the flood has begun", || flood.sent() > 0);
            let (start, before) = (Instant::now(), flood.sent());
            speeds.push(speed(tunnel));
            rates.push((flood.sent() - before) as f64 / start.elapsed().as_secs_f64());
        }
    }
    println!("{case}: without any flood the flow has {:.0} Mbit/s", median(calm));
    report.add(Figure {
        suite: "flood",
        case: format!("{case}, one TCP flow beside it"),
        unit: "Mbit/s",
        better: Better::Higher,
        runs: flooded,
        against: "the same flood at a program that only drops",
        against_runs: dropped,
        goal: Some(GOAL),
    });
    report.add(Figure {
        suite: "flood",
        case: format!("{case}, frames of the flood"),
        unit: "packets/s",
        better: Better::Higher,
        runs: rate,
        against: "the same flood at a program that only drops",
        against_runs: rate_dropped,
        goal: None,
    });
}

/// Mbit/s of one flow from host to host.
fn speed(tunnel: &Tunnel) -> f64 {
    tcp(&tunnel.a.host, &tunnel.b.host, 1)
}

/// ESP with an SPI that nobody has.
fn unknown_spi() -> Payload {
    (50, [&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1][..], &[0x5a; 64]].concat())
}

/// The first message of a stranger, behind the non-ESP marker on UDP 4500.
fn ike_sa_init() -> Payload {
    let header = [&[0x11; 8][..], &[0; 8], &[33, 0x20, 34, 0x08], &[0; 4], &284u32.to_be_bytes()].concat();
    let ike = [&[0; 4][..], &header, &[0; 256]].concat();
    let udp = [40_000u16.to_be_bytes(), 4500u16.to_be_bytes(), (ike.len() as u16 + 8).to_be_bytes(), [0; 2]];
    (17, [&udp.concat()[..], &ike].concat())
}

/// From a stranger to gateway A.
fn frame(to: &[u8; 6], (protocol, payload): &Payload) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + IPV4];
    frame[..6].copy_from_slice(to);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut frame[ETHERNET..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((IPV4 + payload.len()) as u16).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, *protocol]);
    ip[12..16].copy_from_slice(&[203, 0, 113, 9]);
    ip[16..20].copy_from_slice(&[198, 51, 100, 1]);
    checksum::set_ipv4_header(ip);
    frame.extend(payload);
    frame
}
