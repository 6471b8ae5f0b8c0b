//! Traffic at full rate under rekeys for a time: what was lost and why, and what is left when it is over.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::artefacts::Artefacts;
use crate::daemon_config::DataPlaneMode;
use crate::gateway::Gateway;
use crate::pair::{CHILD, Pair, PairOptions};
use crate::status::Status;
use crate::tcp_flow::{TcpReport, tcp_throughput};
use crate::topology::Side;
use crate::udp_flow::{FlowReport, Rate, UdpFlow};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// `data_plane.mode` of both gateways.
    pub mode: DataPlaneMode,
    /// How long traffic runs.
    pub duration: Duration,
    /// Child SAs are rekeyed after this, IKE SAs after three times as long.
    pub rekey_after: Duration,
    /// Of each of the four numbered flows: both directions, IPv4 and IPv6.
    pub rate: Rate,
    /// A TCP flow beside them, which takes what is left.
    pub tcp: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct SoakReport {
    /// The numbered flows.
    pub flows: Vec<FlowReport>,
    /// The TCP flow.
    pub tcp: Option<TcpReport>,
    /// Either gateway.
    pub ends: [SoakEnd; 2],
}

/// One gateway afterwards.
#[derive(Debug)]
pub struct SoakEnd {
    /// Its status when everything that came in had gone out or had a reason.
    pub status: Status,
    /// Child SAs that took another's place.
    pub child_rekeys: u64,
    /// IKE SAs that got new keys.
    pub ike_rekeys: u64,
    /// Octets resident a quarter of the time in, and at the end.
    pub resident: (u64, u64),
    /// Open files at the same times.
    pub files: (usize, usize),
}

/// Somebody got too little of a core: the drops of a machine that is asked for more than it can.
const OVERLOAD: [&str; 6] =
    ["tun_queue_full", "socket_rx_dropped", "xsk_rx_full", "xsk_rx_dropped", "tx_full", "hand_over_full"];

impl Soak {
    /// Runs it.
    ///
    /// # Errors
    /// If the gateways do not come up, a flow breaks, or packets are without a trace afterwards.
    pub fn run(&self, artefacts: &Artefacts) -> Result<SoakReport> {
        let mut pair = Pair::new(PairOptions { mode: self.mode, ..PairOptions::USUAL }, artefacts)?;
        for side in [Side::A, Side::B] {
            let gateway = pair.gateway(side);
            let mut config = gateway.configuration()?;
            let connection = format!("connections/{}", side.connection());
            let seconds = |time: Duration| format!("{}s", time.as_secs());
            config.set(&format!("{connection}/children/{CHILD}/rekey_after"), seconds(self.rekey_after));
            config.set(&format!("{connection}/ike/rekey_after"), seconds(self.rekey_after * 3));
            gateway.configure(config)?;
        }
        pair.b.start()?;
        pair.a.start()?;
        pair.wait_up(Duration::from_secs(30))?;
        let flows = [(Side::A, false), (Side::A, true), (Side::B, false), (Side::B, true)];
        let flows = flows.map(|(from, is_v6)| self.flow(&pair, from, is_v6)).into_iter();
        let flows = flows.collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        self.carry(&pair, self.duration / 4, &flows)?;
        let early = [measure(&pair.a)?, measure(&pair.b)?];
        let tcp = self.carry(&pair, self.duration.saturating_sub(started.elapsed()), &flows)?;
        let flows = flows.into_iter().map(UdpFlow::finish).collect::<Result<Vec<_>>>()?;
        let [early_a, early_b] = early;
        let ends = [end(&pair, Side::A, early_a)?, end(&pair, Side::B, early_b)?];
        pair.a.stop()?;
        pair.b.stop()?;
        Ok(SoakReport { flows, tcp, ends })
    }

    fn flow(&self, pair: &Pair, from: Side, is_v6: bool) -> Result<UdpFlow> {
        let end = |side: Side| (pair.lab.host(side), host(side, is_v6));
        UdpFlow::start(end(from), end(from.other()), self.rate)
    }

    /// Lets traffic run for so long.
    fn carry(&self, pair: &Pair, time: Duration, flows: &[UdpFlow]) -> Result<Option<TcpReport>> {
        if self.tcp {
            let end = |side: Side| (pair.lab.host(side), host(side, false));
            return tcp_throughput(end(Side::A), end(Side::B), time).map(Some);
        }
        // By packets: a machine that is busy sends them later, and no fewer.
        let packets = time.as_secs_f64() * f64::from(self.rate.packets_per_second);
        for flow in flows {
            let wanted = flow.progress().sent + packets as u64;
            flow.wait(time * 10, |p| p.sent >= wanted).context("a flow hardly sends")?;
        }
        Ok(None)
    }
}

impl SoakReport {
    /// Packets of the numbered flows that did not arrive.
    pub fn lost(&self) -> u64 {
        self.flows.iter().map(|flow| flow.lost).sum()
    }

    /// Packets of any kind that a queue had no room for, at either gateway.
    pub fn overload(&self) -> u64 {
        let drops = self.ends.iter().flat_map(|end| &end.status.data_plane.drops);
        drops.filter(|(reason, _)| OVERLOAD.contains(&reason.as_str())).map(|(_, packets)| packets).sum()
    }
}

fn host(side: Side, is_v6: bool) -> IpAddr {
    let (v4, v6) = side.host();
    if is_v6 { v6.into() } else { v4.into() }
}

fn end(pair: &Pair, side: Side, early: (u64, usize)) -> Result<SoakEnd> {
    let gateway = pair.gateway(side);
    let status = gateway.drained()?;
    let metrics = gateway.metrics()?;
    let count = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap_or(0.0) as u64;
    let late = measure(gateway)?;
    Ok(SoakEnd {
        status,
        child_rekeys: count("portcullis_child_established_total", &[("kind", "rekey")]),
        ike_rekeys: count("portcullis_ike_rekeys_total", &[]),
        resident: (early.0, late.0),
        files: (early.1, late.1),
    })
}

/// Octets resident and open files.
fn measure(gateway: &Gateway) -> Result<(u64, usize)> {
    let process = format!("/proc/{}", gateway.process().context("the daemon runs")?.id());
    let status = std::fs::read_to_string(format!("{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = resident.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok((kib * 1024, std::fs::read_dir(format!("{process}/fd"))?.count()))
}
