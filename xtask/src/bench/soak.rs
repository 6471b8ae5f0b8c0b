//! Ten minutes at full rate, a rekey every five seconds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use portcullis_vm_tests::{DataPlaneMode, Rate, Soak, SoakReport};
use serde_json::Value;

use super::figure::{Better, Figure, Report};
use crate::daemon;

/// For each of the two paths.
const DURATION: Duration = Duration::from_secs(300);
const REKEY_AFTER: Duration = Duration::from_secs(5);
const MIB: f64 = (1 << 20) as f64;

/// Runs the suite.
///
/// # Errors
/// If the gateways do not come up, packets are without a trace, arrive twice or out of order, or are lost where no queue was
/// full. Without root nothing is measured, which is none.
pub fn run() -> Result<Value> {
    let mut report = Report::begin();
    if fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("soak: left out: network namespaces and TUN devices need root");
        return Ok(report.to_json());
    }
    let artefacts = daemon::build()?;
    for (path, mode) in [("TUN", DataPlaneMode::Tun), ("AF_XDP copy", DataPlaneMode::Xdp)] {
        let rate = Rate { packets_per_second: 1000, payload_bytes: 1200 };
        let soak = Soak { mode, duration: DURATION, rekey_after: REKEY_AFTER, rate, tcp: true };
        let of_path = soak.run(&artefacts)?;
        check(&of_path)?;
        add(&mut report, path, &of_path);
    }
    Ok(report.to_json())
}

fn check(report: &SoakReport) -> Result<()> {
    for flow in &report.flows {
        ensure!(flow.duplicated == 0 && flow.reordered == 0 && flow.refused == 0, "{flow}");
    }
    let (lost, overload) = (report.lost(), report.overload());
    ensure!(lost <= overload, "{lost} packets lost, of which {overload} at most for want of room in a queue");
    Ok(())
}

fn add(report: &mut Report, path: &str, soak: &SoakReport) {
    let mut figure = |case: &str, unit, better, value: f64, against, limit: f64, goal| {
        let case = format!("{path}, {case}");
        let (runs, against_runs) = (vec![value], vec![limit]);
        report.add(Figure { suite: "soak", case, unit, better, runs, against, against_runs, goal });
    };
    let sent: u64 = soak.flows.iter().map(|flow| flow.sent).sum();
    let tcp = soak.tcp.map_or(0.0, |tcp| tcp.mbit_per_second());
    figure("TCP beside numbered flows", "Mbit/s", Better::Higher, tcp, "nothing", tcp, None);
    figure(
        "lost, of those numbered",
        "packets",
        Better::Lower,
        soak.lost() as f64,
        "sent",
        sent as f64,
        Some(0.001),
    );
    for (gateway, end) in ["gw-a", "gw-b"].into_iter().zip(&soak.ends) {
        let (early, late) = (end.resident.0 as f64 / MIB, end.resident.1 as f64 / MIB);
        let case = |what: &str| format!("{gateway}, {what}");
        figure(&case("resident at the end"), "MiB", Better::Lower, late, "after a quarter", early, Some(1.1));
        let (early, late) = (end.files.0 as f64, end.files.1 as f64);
        figure(&case("open files at the end"), "files", Better::Lower, late, "after a quarter", early, None);
        let due = DURATION.as_secs_f64() / REKEY_AFTER.as_secs_f64();
        let rekeys = end.child_rekeys as f64;
        figure(&case("rekeys of the child"), "rekeys", Better::Higher, rekeys, "due", due, None);
    }
}
