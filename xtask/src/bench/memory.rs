//! What an established IKE SA with one Child SA keeps, and what an open IKE stream does: the growth of a running gateway
//! between few and many of them.
//!
//! One daemon sets up an IKE SA over TCP for each site, the other answers, each site from an address and with an identity
//! of its own. What the answering daemon has resident is read before the first and after the last; the difference between
//! a small and a large number of sites leaves out what a gateway needs once. On top comes what the kernel keeps for it in
//! BPF maps: they are whole in memory from the start, so that the growth has no part of them. Buffers of the kernel's TCP
//! sockets are not counted. Streams are those of strangers that have sent the beginning of a first message.
//!
//! Memory is read when it has stopped shrinking: what a handshake or the reading of the configuration needed for a moment
//! is given back within seconds.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

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
/// Numbers of open streams between which the growth is measured.
const FEW_STREAMS: usize = 1000;
const MANY_STREAMS: usize = 10_000;
/// What one may cost.
const STREAM_LIMIT_BYTES: f64 = 4.0 * 1024.0;
/// The prefix, and of an IKE_SA_INIT request as much as says where it belongs (RFC 9329 section 4, RFC 7296 section 3.1).
const FIRST_OCTETS: [u8; 32] =
    *b"IKETCP\x01\x00\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\0\x21\x20\x22\x08";
/// A stranger has this long before its stream is closed.
const STRANGER_LIMIT: Duration = Duration::from_secs(10);
/// Memory that has not shrunk for this long is what is kept: longer than the window in which log lines that are alike are
/// remembered.
const SETTLED_AFTER: Duration = Duration::from_secs(12);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
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
    for (few, many) in residents(&artefacts)? {
        let sites = f64::from(MANY - FEW);
        let maps = many.map_bytes_per_sa as f64;
        sa.push((many.growth() - few.growth()) / sites + maps);
        with_configuration.push((many.established_bytes - few.established_bytes) / sites + maps);
    }
    let streams = (0..RUNS).map(|_| stream_bytes(&artefacts)).collect::<Result<_>>()?;
    const OF_SA: (&str, f64) = ("limit of 10 KiB", LIMIT_BYTES);
    for (case, runs, (against, limit), goal) in [
        ("established IKE SA with one Child SA", sa, OF_SA, Some(1.0)),
        ("the same with its configured connection", with_configuration, OF_SA, None),
        ("open IKE stream of 10 000", streams, ("limit of 4 KiB", STREAM_LIMIT_BYTES), Some(1.0)),
    ] {
        report.add(Figure {
            suite: "memory",
            case: case.to_owned(),
            unit: "bytes",
            better: Better::Lower,
            runs,
            against,
            against_runs: vec![limit],
            goal,
        });
    }
    Ok(report.to_json())
}

/// All runs at once, each with daemons and namespaces of its own: most of the time they wait.
fn residents(artefacts: &Artefacts) -> Result<Vec<(Resident, Resident)>> {
    thread::scope(|scope| {
        let measure = |sites| scope.spawn(move || Resident::measure(sites, artefacts));
        let runs: Vec<_> = (0..RUNS).map(|_| (measure(FEW), measure(MANY))).collect();
        let result = |run: ScopedJoinHandle<'_, Result<Resident>>| {
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        runs.into_iter().map(|(few, many)| Ok((result(few)?, result(many)?))).collect()
    })
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
        let idle_bytes = settled_bytes(pid)?;
        a.start()?;
        let mut up = 0;
        until(UP_LIMIT, || {
            up = a.status().map_or(0, |status| status.connections.iter().filter(|c| c.is_up()).count());
            (up == sites as usize).then_some(())
        })
        .with_context(|| format!("{up} of {sites} sites are up:\n{}\n{}", a.log_tail(), b.log_tail()))?;
        let established_bytes = settled_bytes(pid)?;
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

/// The growth of a gateway for each stream more, once it has accepted all of them.
fn stream_bytes(artefacts: &Artefacts) -> Result<f64> {
    let lab = Lab::new(Nat::None)?;
    let secret = lab.instance.directory().join("psk");
    fs::write(&secret, "a shared key that nobody uses here: 0123456789")?;
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut config =
        configuration(Side::B, 1, artefacts, secret.to_str().context("the directory is UTF-8")?)?;
    for limit in ["max_stranger_streams", "max_stranger_streams_per_prefix"] {
        config.set(&format!("ike/{limit}"), MANY_STREAMS);
    }
    // XDP lets so many in from one prefix that no peer is known at.
    config.set_yaml("data_plane/xdp_limits", "{ tcp_syn: { per_second: 20000, burst: 20000 } }")?;
    let mut gateway =
        Gateway::new(&lab.instance, lab.gateway(Side::B), Side::B.gateway_name(), &artefacts.binary, config)?;
    gateway.start()?;
    let pid = gateway.process().context("gw-b runs")?.id();
    // Before the clock of strangers runs: what starting took for a moment is given back.
    settled_bytes(pid)?;
    let address = SocketAddr::new(IpAddr::from(Side::B.wan().0), 4500);
    let began = Instant::now();
    let mut open = Vec::new();
    let mut resident_with = |count: usize| -> Result<f64> {
        lab.gw_a.enter(|| -> Result<()> {
            while open.len() < count {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(&FIRST_OCTETS)?;
                open.push(stream);
            }
            Ok(())
        })?;
        let accepted = || gateway.metrics().ok()?.sum("portcullis_ike_stranger_streams", &[]);
        until(STRANGER_LIMIT, || accepted().filter(|accepted| *accepted == count as f64))
            .with_context(|| format!("{:?} of {count} streams are open", accepted()))?;
        resident_bytes(pid)
    };
    let (few, many) = (resident_with(FEW_STREAMS)?, resident_with(MANY_STREAMS)?);
    anyhow::ensure!(
        began.elapsed() < STRANGER_LIMIT,
        "the machine is too busy: streams of strangers were closed"
    );
    Ok((many - few) / (MANY_STREAMS - FEW_STREAMS) as f64)
}

/// Gateways of so many sites: gw-a is all of them, each with an address of its own, gw-b answers.
pub(super) fn configuration(
    side: Side,
    sites: u32,
    artefacts: &Artefacts,
    secret: &str,
) -> Result<DaemonConfig> {
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

/// What a process keeps resident.
pub(super) fn settled_bytes(pid: i32) -> Result<f64> {
    let began = Instant::now();
    let (mut least, mut since) = (resident_bytes(pid)?, began);
    while since.elapsed() < SETTLED_AFTER && began.elapsed() < SETTLE_LIMIT {
        std::thread::sleep(Duration::from_millis(200));
        let now = resident_bytes(pid)?;
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    resident_bytes(pid)
}

/// What a process has resident, shared pages included.
fn resident_bytes(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("{path} has no Rss"))?.trim().parse()?;
    Ok(kib * 1024.0)
}
