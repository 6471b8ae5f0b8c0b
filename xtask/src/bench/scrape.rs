//! A scrape of `/metrics` as Prometheus sees it: a running gateway with ten thousand connections, over HTTP, from the request to
//! the last octet of the answer.
//!
//! Every connection has all of its own metrics. First none of them is up, then all are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::{Gateway, Lab, Nat, Side, until};
use serde_json::Value;

use super::figure::{Better, Figure, Report};
use super::memory::configuration;
use crate::daemon;

const CONNECTIONS: u32 = 10_000;
const SCRAPES: usize = 11;
const GOAL_MS: f64 = 500.0;
const UP_LIMIT: Duration = Duration::from_secs(400);

/// Runs the suite.
///
/// # Errors
/// If a gateway does not come up as configured. Without root nothing is measured, which is no error.
pub fn run() -> Result<Value> {
    let mut report = Report::begin();
    if fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("scrape: left out: network namespaces and XDP need root");
        return Ok(report.to_json());
    }
    let artefacts = daemon::build()?;
    let lab = Lab::new(Nat::None)?;
    lab.gw_a.ip(&["route", "add", "local", "10.128.0.0/12", "dev", "lo"])?;
    lab.router.add_route("10.128.0.0/12", Side::A.wan().0.into())?;
    let secret = lab.instance.directory().join("psk");
    fs::write(&secret, "the shared key of all sites: 0123456789abcdef")?;
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let gateway = |side: Side, sites: u32| {
        let secret = secret.to_str().context("the directory is UTF-8")?;
        let config = configuration(side, sites, &artefacts, secret)?;
        Gateway::new(&lab.instance, lab.gateway(side), side.gateway_name(), &artefacts.binary, config)
    };
    let (mut a, mut b) = (gateway(Side::A, CONNECTIONS)?, gateway(Side::B, CONNECTIONS)?);
    b.start()?;
    measure(&mut report, &b, "10 000 connections, none up")?;
    a.start()?;
    let up = || b.metrics().ok()?.sum("portcullis_connection_up", &[]);
    until(UP_LIMIT, || up().filter(|up| *up >= f64::from(CONNECTIONS)))
        .with_context(|| format!("{:?} of {CONNECTIONS} connections are up:\n{}", up(), b.log_tail()))?;
    measure(&mut report, &b, "10 000 connections, all up")?;
    Ok(report.to_json())
}

fn measure(report: &mut Report, gateway: &Gateway, case: &str) -> Result<()> {
    let mut runs = Vec::new();
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let page = gateway.http("/metrics")?;
        runs.push(began.elapsed().as_secs_f64() * 1000.0);
        let connections = page.matches("\nportcullis_connection_up{").count();
        anyhow::ensure!(connections == CONNECTIONS as usize, "{connections} connections are on the page");
    }
    report.add(Figure {
        suite: "scrape",
        case: case.to_owned(),
        unit: "ms",
        better: Better::Lower,
        runs,
        against: "limit of 500 ms",
        against_runs: vec![GOAL_MS],
        goal: Some(1.0),
    });
    Ok(())
}
