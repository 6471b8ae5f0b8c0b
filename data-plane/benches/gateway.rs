//! Packets a second that one worker seals and opens between two AF_XDP interfaces, beside the same rings forwarding without any
//! work: `cargo xtask bench gateway`.
//!
//! A gateway in copy mode between two veth pairs; whoever sends lives beyond one, and what arrives beyond the other is dropped by
//! XDP. Frames are the kernel's (`BPF_PROG_TEST_RUN` with live frames): first faster than the worker, where what counts is what
//! leaves, then at a share of what left, where every frame has to, and in time.

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
#[path = "gateway/paced.rs"]
mod paced;
#[path = "gateway/site.rs"]
mod site;
#[path = "bpf/stamps.rs"]
mod stamps;

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

use figure::{Better, Figure, Report, median};

use bare::Bare;
use paced::Passage;
use site::{Frames, Site};

const RUNS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(700);
const LIMIT: &str = "forwarding on the same rings";
/// Of the packets that leave when more come than can.
const HALF: f64 = 0.5;
const BELOW_SATURATION: f64 = 0.9;
/// A machine that does other things makes the generator late or loses a packet now and then, of either: such a run says nothing of
/// latencies.
const ATTEMPTS: usize = 2 * RUNS;
/// Of the rate that was wanted, at least: the generator is held up now and then, and between that it is as wanted.
const ON_TIME: f64 = 0.7;

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
        let frames = site.frames(len, outer_v6);
        let (mut runs, mut against_runs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            runs.push(site.measure(direction, &frames));
            against_runs.push(bare.measure(direction == Direction::Both, len));
        }
        let family = if outer_v6 { "IPv6" } else { "IPv4" };
        let saturated = median(&runs);
        report.add(Figure {
            suite: "gateway",
            case: format!("{} {len} B, ESP in UDP over {family}", direction.label()),
            unit: "packets/s",
            better: Better::Higher,
            runs,
            against: LIMIT,
            against_runs,
            goal,
        });
        if direction != Direction::Both && !outer_v6 {
            let case = Case { direction, len, frames, saturated };
            case.latency(&mut report, &site, &bare);
            case.loss(&mut report, &site);
        }
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

/// What comes more slowly than the gateway could take it.
struct Case {
    direction: Direction,
    len: usize,
    frames: Frames,
    /// Packets that leave in a second when more come than can.
    saturated: f64,
}

impl Case {
    /// How long packets are under way at half load, beside as many a second that are only forwarded.
    fn latency(&self, report: &mut Report, site: &Site, bare: &Bare) {
        let rate = HALF * self.saturated;
        let without_loss = |run: &Passage| run.lost() == 0;
        let (ours, theirs) = (format!("{}, latency", self.label()), format!("{LIMIT}, latency"));
        let pass = || site.pass(self.direction, &self.frames, rate);
        let Some(ours) = undisturbed(&ours, rate, without_loss, pass) else { return };
        let Some(theirs) = undisturbed(&theirs, rate, without_loss, || bare.pass(self.len, rate)) else {
            return;
        };
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let of = |runs: &[Passage]| runs.iter().map(|run| run.latency_us(share)).collect();
            report.add(Figure {
                suite: "gateway",
                case: format!("{}, {name} of latency at half load", self.label()),
                unit: "us",
                better: Better::Lower,
                runs: of(&ours),
                against: LIMIT,
                against_runs: of(&theirs),
                goal: None,
            });
        }
    }

    /// Packets that do not arrive a little below saturation.
    fn loss(&self, report: &mut Report, site: &Site) {
        let rate = BELOW_SATURATION * self.saturated;
        let run = || site.pass(self.direction, &self.frames, rate);
        let label = format!("{}, loss", self.label());
        let Some(runs) = undisturbed(&label, rate, |_| true, run) else { return };
        // One packet that is lost in one run is too many.
        let (lost, sent) = runs.iter().fold((0, 0), |(lost, sent), run| (lost + run.lost(), sent + run.sent));
        report.add(Figure {
            suite: "gateway",
            case: format!("{}, lost at 90 % of that rate, {RUNS} runs", self.label()),
            unit: "packets",
            better: Better::Lower,
            runs: vec![lost as f64],
            against: "sent",
            against_runs: vec![sent as f64],
            goal: Some(0.0),
        });
    }

    fn label(&self) -> String {
        format!("{} {} B", self.direction.label(), self.len)
    }
}

/// Runs whose packets came at the rate that was wanted, and that are usable otherwise; a line on what is in the way if there are
/// too few.
fn undisturbed(
    label: &str,
    rate: f64,
    is_usable: impl Fn(&Passage) -> bool,
    run: impl Fn() -> Passage,
) -> Option<Vec<Passage>> {
    let mut runs = Vec::new();
    let mut refused = Vec::new();
    while runs.len() < RUNS && refused.len() < ATTEMPTS {
        let run = run();
        let is_undisturbed = run.packets_per_second >= ON_TIME * rate && is_usable(&run);
        if is_undisturbed { &mut runs } else { &mut refused }.push(run);
    }
    if runs.len() == RUNS {
        return Some(runs);
    }
    let sent: Vec<_> = refused.iter().map(|run| run.packets_per_second).collect();
    let lost: Vec<_> = refused.iter().map(|run| run.lost() as f64).collect();
    let (sent, lost) = (median(&sent), median(&lost));
    eprintln!(
        "gateway: {label} left out: of {rate:.0} packets/s {sent:.0} were sent, {lost:.0} of a run lost"
    );
    None
}
