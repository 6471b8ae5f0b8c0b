//! One TCP flow through two data planes, whose ESP goes through a TCP connection or over UDP: `cargo xtask bench esp-in-tcp`.
//!
//! Two gateways with static keys between two hosts, in network namespaces; everything runs on this machine and shares
//! its cores. The carriers take turns over the same SAs, so that neither neighbours nor time of day favour one.

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "../tests/tunnel/mod.rs"]
mod tunnel;

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use figure::{Better, Figure, Report};
use portcullis_data_plane::sa::Carrier;

use tunnel::flows::tcp;
use tunnel::joined::{Joined, runtime};
use tunnel::{Shape, TUN, Tunnel, XDP};

const RUNS: usize = 5;
/// Of the speed over UDP.
const GOAL: f64 = 0.4;

fn main() -> ExitCode {
    let mut report = Report::begin();
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("esp-in-tcp: left out: network namespaces and TUN devices need root");
        return report.finish();
    }
    for (case, shape) in
        [("one TCP flow, ESP in TCP, TUN", TUN), ("one TCP flow, ESP in TCP, AF_XDP copy", XDP)]
    {
        report.add(measure(case, shape));
    }
    report.finish()
}

fn measure(case: &str, shape: Shape) -> Figure {
    let tunnel = Tunnel::new(shape);
    let runtime = runtime();
    let joined = Joined::new(&tunnel, &runtime);
    let (mut streams, mut udp) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        tunnel.set_path(Carrier::Udp, false);
        udp.push(tcp(&tunnel.a.host, &tunnel.b.host, 1));
        joined.use_it(&tunnel);
        streams.push(tcp(&tunnel.a.host, &tunnel.b.host, 1));
    }
    Figure {
        suite: "esp-in-tcp",
        case: case.to_owned(),
        unit: "Mbit/s",
        better: Better::Higher,
        runs: streams,
        against: "ESP in UDP",
        against_runs: udp,
        goal: Some(GOAL),
    }
}
