//! The worker loop on rings in memory, one round after the other on one thread: what it does for a packet beside the AEAD call.
//! `cargo xtask bench worker`.
//!
//! Everything is as it is in a gateway but for the kernel: parse, policy, SA, sequence number or window, AEAD, headers,
//! neighbour, counters, rings. Packets are written, and sealed for the way in, before a round and not in its time; the bare AEAD
//! calls of `ring` take turns with it, batch by batch, on the same frames.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "worker/setting.rs"]
mod setting;

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Instant;

use figure::{Better, Figure, Report, median};
use setting::{BATCH, Setting, Way};

const BATCHES: usize = 2000;
const WARM_UP: usize = 200;
const RUNS: usize = 7;
/// SAs, from as many as caches hold to as many as a table does.
const MANY: [u32; 3] = [1_000, 100_000, 1_000_000];
const GOAL_IS_FOR: u32 = 100_000;
const FLOWS: u32 = 4_000;
/// Octets of the inner packet, and nanoseconds that a packet may cost beside its AEAD call.
const SIZES: [(usize, f64); 2] = [(64, 45.0), (1400, 60.0)];

fn main() -> ExitCode {
    let mut report = Report::begin();
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("worker: left out: network namespaces need root");
        return report.finish();
    }
    for (len, limit) in SIZES {
        for way in [Way::Seal, Way::Open] {
            let (mut runs, mut bare) = (Vec::new(), Vec::new());
            let mut setting = Setting::new(way, len, 1);
            for _ in 0..RUNS {
                let (worker, call) = measure(&mut setting);
                runs.push(worker - call);
                bare.push(call);
            }
            println!("  {way:?} {len} B: the AEAD call alone {:.1} ns", median(&bare));
            report.add(Figure {
                suite: "worker",
                case: format!("{} {len} B, beside the AEAD call", way.label()),
                unit: "ns/packet",
                better: Better::Lower,
                runs,
                against: "limit",
                against_runs: vec![limit],
                goal: Some(1.0),
            });
        }
    }
    for (len, goal) in [(64, 1.6), (1400, 1.25)] {
        let among = |sas| -> Vec<f64> {
            let mut setting = Setting::new(Way::Open, len, sas);
            (0..RUNS).map(|_| measure(&mut setting).0).collect()
        };
        let one = among(1);
        for sas in MANY {
            report.add(Figure {
                suite: "worker",
                case: format!("open {len} B, AEAD call included, {sas} SAs at random"),
                unit: "ns/packet",
                better: Better::Lower,
                runs: among(sas),
                against: "one SA",
                against_runs: one.clone(),
                goal: (sas == GOAL_IS_FOR).then_some(goal),
            });
        }
    }
    // As many flows as a worker remembers, and no more.
    for len in [64, 1400] {
        let among = |sas| -> Vec<f64> {
            let mut setting = Setting::new(Way::Seal, len, sas);
            (0..RUNS).map(|_| measure(&mut setting).0).collect()
        };
        report.add(Figure {
            suite: "worker",
            case: format!("seal {len} B, AEAD call included, {FLOWS} SAs at random"),
            unit: "ns/packet",
            better: Better::Lower,
            runs: among(FLOWS),
            against: "one SA",
            against_runs: among(1),
            goal: None,
        });
    }
    report.finish()
}

/// Nanoseconds for a packet: of the worker, and of the bare AEAD call.
fn measure(setting: &mut Setting) -> (f64, f64) {
    let (mut worker, mut bare) = (Vec::new(), Vec::new());
    for batch in 0..WARM_UP + BATCHES {
        setting.offer();
        let start = Instant::now();
        let count = setting.round();
        let time = start.elapsed().as_nanos() as f64 / BATCH as f64;
        assert_eq!(count, BATCH);
        setting.take_back();
        setting.prepare_bare();
        let start = Instant::now();
        setting.bare();
        let bare_time = start.elapsed().as_nanos() as f64 / BATCH as f64;
        if batch >= WARM_UP {
            worker.push(time);
            bare.push(bare_time);
        }
    }
    (median(&worker), median(&bare))
}
