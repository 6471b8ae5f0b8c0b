//! Handshakes of a running responder, ours by either provider and strongSwan's, with `portcullis bench ike` as all of its peers:
//! what they cost, how long they take, and what many IKE SAs cost that are there and do nothing.
//!
//! Each tunnel has an address and an identity of its own, the same shared key, and one Child SA. The responder's processor time is
//! that of all its threads, from the first request to the last outcome; what the kernel does for it in interrupts is nobody's. Its
//! defence against floods is off, ours as strongSwan's.

mod load;
mod responder;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::Artefacts;
use serde_json::Value;

use self::load::Load;
use self::responder::{Kind, Responder};
use super::figure::{Better, Figure, Report};
use super::memory::settled_bytes;
use crate::daemon;

const RUNS: usize = 5;
const CLASSICAL: (&str, &str) = ("x25519", "aes256gcm16-prfsha384-x25519");
const HYBRID: (&str, &str) = ("x25519 + mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768");
/// Tunnels of a run that is about cost, and most of them at once.
const COST: Load = Load { tunnels: 1000, in_flight: 50 };
/// Those of a run that is about latency.
const LATENCY: Load = Load { tunnels: 10_000, in_flight: 200 };
const LATENCY_RUNS: usize = 3;
/// Those that stay.
const MANY: Load = Load { tunnels: 50_000, in_flight: 200 };
/// strongSwan does not keep up with 10 000: it had 82 a second, and most requests were sent again.
const THEIRS: Load = Load { tunnels: 2000, in_flight: 200 };
/// How many times as many handshakes as strongSwan.
const GOAL_OF_PEER: f64 = 3.0;
/// What of one shard's handshakes in a second of processor time two have to reach.
const GOAL_OF_SHARD: f64 = 0.9;
const GOAL_BYTES: f64 = 5.0 * 1024.0;
/// What timers cost is looked at for this long.
const IDLE: Duration = Duration::from_secs(20);
/// A daemon with so many SAs may take this long to end, or to start with as many connections.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the suite.
///
/// # Errors
/// If a responder does not start or tunnels do not come up. What cannot be measured here is left out, which is no error.
pub fn run() -> Result<Value> {
    with_daemon(|report, artefacts, has_peer| {
        cost(report, artefacts, has_peer)?;
        latency(report, artefacts, has_peer)
    })
}

/// Runs the suite about IKE SAs that do nothing.
///
/// # Errors
/// As [`run`].
pub fn run_standing() -> Result<Value> {
    with_daemon(many)
}

fn with_daemon(measure: impl FnOnce(&mut Report, &Artefacts, bool) -> Result<()>) -> Result<Value> {
    let mut report = Report::begin();
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("left out: network namespaces and XDP need root");
        return Ok(report.to_json());
    }
    let artefacts = daemon::build()?;
    let peer = responder::strongswan(&artefacts);
    let has_peer = peer.is_ok();
    if let Err(error) = peer {
        eprintln!("cases with strongSwan left out: {error:#}");
    }
    measure(&mut report, &artefacts, has_peer)?;
    Ok(report.to_json())
}

/// Handshakes in a second of the responder's processor time.
fn cost(report: &mut Report, artefacts: &Artefacts, has_peer: bool) -> Result<()> {
    for (keys, proposal) in [CLASSICAL, HYBRID] {
        let per_second = |kind| -> Result<Vec<f64>> {
            // Each run has a responder of its own: strongSwan takes policies away some time after it has answered DELETE.
            let run = || {
                let responder = Responder::start(kind, COST.tunnels, artefacts)?;
                Ok(COST.run(&responder, proposal, artefacts)?.per_cpu_second())
            };
            (0..RUNS).map(|_| run()).collect()
        };
        let figure = |by: &str, runs: &[f64], against, against_runs: &[f64], goal| Figure {
            suite: "handshakes",
            case: format!("{keys}, psk, child, {by}"),
            unit: "per CPU-s",
            better: Better::Higher,
            runs: runs.to_vec(),
            against,
            against_runs: against_runs.to_vec(),
            goal: Some(goal),
        };
        let [one, two, ring] = [
            Kind::Ours { shards: 1, crypto: "aws-lc" },
            Kind::Ours { shards: 2, crypto: "aws-lc" },
            Kind::Ours { shards: 2, crypto: "ring" },
        ]
        .map(per_second);
        let (one, two, ring) = (one?, two?, ring?);
        report.add(figure("aws-lc, two shards", &two, "one shard", &one, GOAL_OF_SHARD));
        if has_peer {
            let theirs = per_second(Kind::Strongswan)?;
            for (by, runs) in [("aws-lc, one shard", one), ("aws-lc", two), ("ring", ring)] {
                report.add(figure(by, &runs, "strongSwan", &theirs, GOAL_OF_PEER));
            }
        }
    }
    Ok(())
}

/// How long a handshake takes that is one of 200 at once, its initiator on the same two cores.
fn latency(report: &mut Report, artefacts: &Artefacts, has_peer: bool) -> Result<()> {
    let measure = |kind, load: Load| -> Result<[Vec<f64>; 2]> {
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..LATENCY_RUNS {
            let responder = Responder::start(kind, load.tunnels, artefacts)?;
            let outcome = load.run(&responder, HYBRID.1, artefacts)?;
            p50.push(outcome.p50_ms);
            p99.push(outcome.p99_ms);
        }
        Ok([p50, p99])
    };
    let ours = measure(Kind::USUAL, LATENCY)?;
    if !has_peer {
        return Ok(());
    }
    let theirs = measure(Kind::Strongswan, THEIRS)?;
    for ((quantile, ours), theirs) in ["p50", "p99"].into_iter().zip(ours).zip(theirs) {
        report.add(Figure {
            suite: "handshakes",
            case: format!("latency {quantile} of 10 000, 200 at once, {}", HYBRID.0),
            unit: "ms",
            better: Better::Lower,
            runs: ours,
            against: "strongSwan with 2 000",
            against_runs: theirs,
            goal: None,
        });
    }
    Ok(())
}

/// What IKE SAs with one Child SA each cost that are there and do nothing.
fn many(report: &mut Report, artefacts: &Artefacts, has_peer: bool) -> Result<()> {
    let (ours, none_up_ms) = Standing::measure_with_none_up(Kind::USUAL, MANY, artefacts)?;
    let mut figure = |case: &str, unit, value, against, against_value, goal| {
        report.add(Figure {
            suite: "standing",
            case: format!("{case}, 50 000 IKE SAs"),
            unit,
            better: Better::Lower,
            runs: vec![value],
            against,
            against_runs: vec![against_value],
            goal,
        });
    };
    figure("resident for each", "bytes", ours.bytes, "aim of 5 KiB", GOAL_BYTES, Some(1.0));
    if has_peer {
        let theirs = Standing::measure(Kind::Strongswan, THEIRS, artefacts)?;
        figure("resident for each", "bytes", ours.bytes, "strongSwan with 2 000", theirs.bytes, None);
        figure(
            "processor time while idle",
            "ms/s",
            ours.idle_ms,
            "strongSwan with 2 000",
            theirs.idle_ms,
            None,
        );
    }
    figure("processor time while idle", "ms/s", ours.idle_ms, "none up", none_up_ms, None);
    figure("time to stop", "s", ours.stop_seconds, "limit of 30 s", 30.0, Some(1.0));
    Ok(())
}

/// A responder with SAs that do nothing.
struct Standing {
    /// Resident, for each.
    bytes: f64,
    /// The same with all of them.
    idle_ms: f64,
    /// From SIGTERM to the end, while the peers answer.
    stop_seconds: f64,
}

impl Standing {
    fn measure(kind: Kind, load: Load, artefacts: &Artefacts) -> Result<Self> {
        let responder = Responder::start(kind, load.tunnels, artefacts)?;
        let before = settled_bytes(responder.pid())?;
        Self::of(responder, before, load, artefacts)
    }

    /// And milliseconds of processor time in a second, before any was up.
    fn measure_with_none_up(kind: Kind, load: Load, artefacts: &Artefacts) -> Result<(Self, f64)> {
        let responder = Responder::start(kind, load.tunnels, artefacts)?;
        let before = settled_bytes(responder.pid())?;
        let none_up_ms = idle_ms(&responder)?;
        Ok((Self::of(responder, before, load, artefacts)?, none_up_ms))
    }

    fn of(responder: Responder, before: f64, load: Load, artefacts: &Artefacts) -> Result<Self> {
        let held = load.hold(&responder, HYBRID.1, artefacts)?;
        let bytes =
            (settled_bytes(responder.pid())? - before) / load.tunnels as f64 + responder.map_bytes()?;
        let idle_ms = idle_ms(&responder)?;
        let began = Instant::now();
        responder.stop(LIMIT)?;
        let stop_seconds = began.elapsed().as_secs_f64();
        drop(held);
        Ok(Self { bytes, idle_ms, stop_seconds })
    }
}

fn idle_ms(responder: &Responder) -> Result<f64> {
    let (began, before) = (Instant::now(), responder.cpu()?);
    std::thread::sleep(IDLE);
    let used = responder.cpu()?.checked_sub(before).context("processor time goes on")?;
    Ok(used.as_secs_f64() * 1000.0 / began.elapsed().as_secs_f64())
}
