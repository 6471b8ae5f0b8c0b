//! What an established IKE SA with one Child SA keeps: the growth of a running gateway between few and many of them.
//!
//! One daemon sets up an IKE SA over TCP for each site, the other answers, each site from an address and with an identity
//! of its own. What the answering daemon has resident is read before the first and after the last; the difference between
//! a small and a large number of sites leaves out what a gateway needs once. On top comes what the kernel keeps for it in
//! BPF maps. Buffers of the kernel's TCP sockets are not counted.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use portcullis_vm_tests::{Artefacts, BpfMap, DaemonConfig, Gateway, Lab, Nat, Side, until};
use serde_json::Value;

use super::figure::{Better, Figure, Report};
use crate::daemon;

const RUNS: usize = 3;
/// Numbers of sites between which the growth is measured.
const FEW: u32 = 1000;
const MANY: u32 = 3000;
/// What one may cost.
const LIMIT_BYTES: f64 = 10.0 * 1024.0;
/// BPF maps with entries for an SA, and how many: an inbound slot is steered by, both directions have keys.
const ENTRIES: [(&str, u64); 2] = [("STEER", 1), ("KEYS", 2)];
/// Sites have addresses in this network, which is local to gw-a as a whole.
const SITES: &str = "10.128.0.0/12";
/// How long all sites together may take on a busy machine.
const UP_LIMIT: Duration = Duration::from_secs(120);

/// Runs the suite.
///
/// # Errors
/// If a gateway does not come up as configured. Without root nothing is measured, which is no error.
pub fn run() -> Result<Value> {
    let mut report = Report::begin();
    if fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("memory: left out: network namespaces, XDP and BPF maps need root");
        return Ok(report.to_json());
    }
    let artefacts = daemon::build()?;
    let (mut sa, mut with_configuration) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let few = Resident::measure(FEW, &artefacts)?;
        let many = Resident::measure(MANY, &artefacts)?;
        let sites = f64::from(MANY - FEW);
        let maps = many.map_bytes_per_sa as f64;
        sa.push((many.growth() - few.growth()) / sites + maps);
        with_configuration.push((many.established_bytes - few.established_bytes) / sites + maps);
    }
    for (case, runs, goal) in [
        ("established IKE SA with one Child SA", sa, Some(1.0)),
        ("the same with its configured connection", with_configuration, None),
    ] {
        report.add(Figure {
            suite: "memory",
            case: case.to_owned(),
            unit: "bytes",
            better: Better::Lower,
            runs,
            against: "limit of 10 KiB",
            against_runs: vec![LIMIT_BYTES],
            goal,
        });
    }
    Ok(report.to_json())
}

/// What the answering daemon has resident.
struct Resident {
    /// Configured and idle.
    idle_bytes: f64,
    /// With an IKE SA and a Child SA for every site.
    established_bytes: f64,
    /// In BPF maps, for one IKE SA with its Child SA.
    map_bytes_per_sa: u64,
}

impl Resident {
    fn measure(sites: u32, artefacts: &Artefacts) -> Result<Self> {
        let lab = Lab::new(Nat::None)?;
        lab.gw_a.ip(&["route", "add", "local", SITES, "dev", "lo"])?;
        lab.router.add_route(SITES, Side::A.wan().0.into())?;
        let secret = lab.instance.directory().join("psk");
        fs::write(&secret, "the shared key of all sites: 0123456789abcdef")?;
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let gateway = |side: Side| {
            let secret = secret.to_str().context("the directory is UTF-8")?;
            let config = configuration(side, sites, artefacts, secret)?;
            Gateway::new(&lab.instance, lab.gateway(side), side.gateway_name(), &artefacts.binary, config)
        };
        let (mut a, mut b) = (gateway(Side::A)?, gateway(Side::B)?);
        b.start()?;
        let pid = b.process().context("gw-b runs")?.id();
        let idle_bytes = resident_bytes(pid)?;
        a.start()?;
        let mut up = 0;
        until(UP_LIMIT, || {
            up = a.status().map_or(0, |status| status.connections.iter().filter(|c| c.is_up()).count());
            (up == sites as usize).then_some(())
        })
        .with_context(|| format!("{up} of {sites} sites are up:\n{}\n{}", a.log_tail(), b.log_tail()))?;
        let established_bytes = resident_bytes(pid)?;
        let maps = BpfMap::of_process(pid)?;
        let of = |map: &BpfMap| ENTRIES.iter().find(|(name, _)| map.name == *name).map_or(0, |(_, n)| *n);
        let map_bytes_per_sa = maps.iter().map(|map| of(map) * u64::from(map.value_bytes)).sum();
        let answered = b.status()?.connections.iter().filter(|c| c.is_up()).count();
        anyhow::ensure!(answered == sites as usize, "gw-b has {answered} of {sites} sites up");
        Ok(Self { idle_bytes, established_bytes, map_bytes_per_sa })
    }

    fn growth(&self) -> f64 {
        self.established_bytes - self.idle_bytes
    }
}

fn configuration(side: Side, sites: u32, artefacts: &Artefacts, secret: &str) -> Result<DaemonConfig> {
    let file = artefacts.config.join(side.gateway_name()).with_extension("yaml");
    let mut config = DaemonConfig::read(&file)?;
    config.set("data_plane/mode", "xdp");
    config.set("data_plane/xdp_object", artefacts.xdp_object.to_str().context("the object's path is UTF-8")?);
    config.set("data_plane/replay_window", 4096);
    // All sites come at once and from few prefixes, as none but a benchmark does.
    for limit in [
        "max_half_open",
        "max_half_open_per_prefix",
        "max_stranger_streams",
        "max_stranger_streams_per_prefix",
    ] {
        config.set(&format!("ike/{limit}"), sites);
    }
    let mut connections = String::new();
    for site in 0..sites {
        let address = format!("10.128.{}.{}", site / 250, site % 250 + 1);
        let network = format!("172.{}.{}.0/24", 16 + site / 256, site % 256);
        let gateway = Side::B.wan().0;
        let [behind_gateway, _] = Side::B.inner();
        let ((local, local_id, local_ts), (remote, remote_id, remote_ts), start) = match side {
            Side::A => (
                (address, format!("site-{site}"), network.as_str()),
                (gateway.to_string(), "gateway".to_owned(), behind_gateway),
                "always",
            ),
            Side::B => (
                (gateway.to_string(), "gateway".to_owned(), behind_gateway),
                (address, format!("site-{site}"), network.as_str()),
                "none",
            ),
        };
        writeln!(
            connections,
            "site-{site}:
  local: {{ address: {local}, id: {local_id}, auth: psk, secret_file: {secret} }}
  remote: {{ address: {remote}, id: {remote_id}, auth: psk }}
  ike: {{ transport: tcp, proposals: [aes256gcm16-prfsha384-x25519-ke1_mlkem768] }}
  children: {{ net: {{ local_ts: [{local_ts}], remote_ts: [{remote_ts}], start: {start} }} }}"
        )?;
    }
    config.set_yaml("connections", &connections)?;
    Ok(config)
}

/// What a process has resident, shared pages included.
fn resident_bytes(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("{path} has no Rss"))?.trim().parse()?;
    Ok(kib * 1024.0)
}
