//! Packets a second that one worker seals and opens between two AF_XDP interfaces, beside the same rings forwarding without any
//! work: `cargo xtask bench gateway`.
//!
//! A gateway in copy mode between two veth pairs; whoever sends lives beyond one, and what arrives beyond the other is dropped by
//! XDP. Frames are the kernel's (`BPF_PROG_TEST_RUN` with live frames), faster than the worker: what counts is what leaves.

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "flood/generator.rs"]
mod generator;
#[allow(dead_code, reason = "the suite `xdp` uses the rest")]
#[path = "bpf/program.rs"]
mod program;
#[path = "../tests/tunnel/mod.rs"]
mod tunnel;

#[path = "gateway/bare.rs"]
mod bare;
#[path = "gateway/frames.rs"]
mod frames;

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use figure::{Better, Figure, Report};
use portcullis_data_plane::counters::Sink;
use portcullis_data_plane::sa::{Carrier, ChildId, InboundSa};

use bare::Bare;
use frames::{index, mac};
use gateway::wait_until;
use generator::Flood;
use program::{Attached, DROP, Program};
use tunnel::{HOST_A, HOST_B, NO_LIMITS, Tunnel, XDP};

const RUNS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_secs(1);
/// The pair whose inbound SA opens one packet again and again: without a replay window.
const AGAIN: ChildId = ChildId(2);

/// What passes the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Seal,
    Open,
    Both,
}

fn main() -> ExitCode {
    let mut report = Report::begin();
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("gateway: left out: network namespaces and XDP need root");
        return report.finish();
    }
    let site = Site::new();
    let bare = Bare::new();
    for (direction, len, outer_v6, goal) in [
        (Direction::Seal, 1400, false, Some(0.72)),
        (Direction::Open, 1400, false, Some(0.72)),
        (Direction::Seal, 128, false, Some(0.78)),
        (Direction::Open, 128, false, Some(0.78)),
        (Direction::Both, 1400, false, Some(0.70)),
        (Direction::Seal, 1400, true, None),
        (Direction::Open, 1400, true, None),
    ] {
        site.tunnel.set_path(Carrier::Udp, outer_v6);
        let esp = site.esp(len, outer_v6);
        let (mut runs, mut against_runs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            runs.push(site.measure(direction, len, &esp));
            against_runs.push(bare.measure(direction == Direction::Both, len));
        }
        let family = if outer_v6 { "IPv6" } else { "IPv4" };
        report.add(Figure {
            suite: "gateway",
            case: format!("{} {len} B, ESP in UDP over {family}", direction.label()),
            unit: "packets/s",
            better: Better::Higher,
            runs,
            against: "forwarding on the same rings",
            against_runs,
            goal,
        });
    }
    report.finish()
}

impl Direction {
    fn label(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
            Self::Both => "seal and open at once",
        }
    }
}

/// Gateway A of a tunnel; what gateway B was only drops.
struct Site {
    tunnel: Tunnel,
    spi: portcullis_common::Spi,
    _dropping: Attached,
}

impl Site {
    fn new() -> Self {
        let tunnel = Tunnel::new(XDP);
        tunnel.exchange(HOST_A, HOST_B, 1);
        let (a, b) = (&tunnel.a, &tunnel.b);
        let spi = a.plane.allocate_spi().unwrap();
        let again = InboundSa { replay_window: None, ..a.inbound(AGAIN, spi, NO_LIMITS) };
        a.plane.install_inbound(again).unwrap();
        // Its programs stay and drop what no worker takes.
        b.plane.stop();
        // Nobody answers where everything is dropped.
        for (device, address, other) in [
            ("lan0", HOST_A, mac(&a.host, "eth0")),
            ("wan0", "198.51.100.2", mac(&b.gateway, "wan0")),
            ("wan0", "2001:db8::2", mac(&b.gateway, "wan0")),
        ] {
            let mac = other.map(|octet| format!("{octet:02x}")).join(":");
            a.gateway.ip(&["neigh", "replace", address, "lladdr", &mac, "dev", device, "nud", "permanent"]);
        }
        let dropping = a.host.run(|| Program::load(&DROP).attach(index(&a.host, "eth0")));
        Self { tunnel, spi, _dropping: dropping }
    }

    /// An ESP packet of the pair that opens it again and again, in UDP, as a frame for the WAN.
    fn esp(&self, len: usize, outer_v6: bool) -> Vec<u8> {
        let inner = frames::inner(HOST_B, HOST_A, len);
        let key = tunnel::keymat(2, AGAIN);
        frames::esp(&mac(&self.tunnel.a.gateway, "wan0"), self.spi, &key, &inner, outer_v6)
    }

    /// Packets that leave in a second.
    fn measure(&self, direction: Direction, len: usize, esp: &[u8]) -> f64 {
        let (a, b) = (&self.tunnel.a, &self.tunnel.b);
        let clear = frames::ethernet(&mac(&a.gateway, "lan0"), &frames::inner(HOST_A, HOST_B, len));
        let seal =
            (direction != Direction::Open).then(|| Flood::start(&a.host, index(&a.host, "eth0"), clear));
        let open = (direction != Direction::Seal)
            .then(|| Flood::start(&b.gateway, index(&b.gateway, "wan0"), esp.to_vec()));
        let sent = || {
            let wan = if seal.is_some() { a.sent(Sink::Wan) } else { 0 };
            let lan = if open.is_some() { a.sent(Sink::Lan) } else { 0 };
            (wan + lan) as f64
        };
        let has_begun = || seal.iter().chain(&open).all(|flood| flood.sent() > 0);
        wait_until("frames come", has_begun);
        std::thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), sent());
        std::thread::sleep(MEASURED);
        let rate = (sent() - before) / start.elapsed().as_secs_f64();
        assert!(rate > 1000.0, "hardly a packet leaves: {}", a.drops());
        rate
    }
}
