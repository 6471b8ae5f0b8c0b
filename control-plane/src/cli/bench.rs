//! `portcullis bench`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use portcullis_ike::codec::{AddressRange, TrafficSelector};
use portcullis_ike::config::StartTransport;
use portcullis_ike::proposal::{EspProposal, IkeProposal};

use crate::config;
use crate::load::{self, Plan, Tally};

/// The slowest rate, tunnels in a second.
const SLOWEST: f64 = 0.01;
/// What may be waited before a request leaves again, seconds.
const SHORTEST_WAIT: f64 = 0.01;
const LONGEST_WAIT: f64 = 60.0;

/// Measure a gateway from outside.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Set up many IKE SAs with any IKEv2 responder, each with a Child SA, and tell how fast it is. No ESP is sent.
    Ike(Box<Ike>),
}

/// What is set up, and how fast.
#[derive(Debug, Args)]
struct Ike {
    /// The responder.
    #[arg(long, value_name = "ADDRESS")]
    peer: IpAddr,
    /// Its port.
    #[arg(long, default_value_t = 4500)]
    port: u16,
    /// Our address, if not the one that leads there.
    #[arg(long, value_name = "ADDRESS")]
    local: Option<IpAddr>,
    /// Network that is local to this host as a whole: each tunnel comes from an address of its own in it, from the first on.
    #[arg(long, value_name = "NETWORK", conflicts_with = "local")]
    from: Option<TrafficSelector>,
    /// How many tunnels.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    tunnels: usize,
    /// Tunnels that start in a second; without it, as many as may be under way.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Most tunnels under way at the same time.
    #[arg(long, value_name = "N", default_value_t = 200)]
    in_flight: usize,
    /// What carries IKE.
    #[arg(long, value_enum, default_value_t = Transport::Udp)]
    transport: Transport,
    /// IKE proposal.
    #[arg(long, default_value = "aes256gcm16-prfsha384-x25519-ke1_mlkem768")]
    proposal: String,
    /// ESP proposal.
    #[arg(long, default_value = "aes256gcm16")]
    esp_proposal: String,
    /// Identity of a tunnel; {} is its number.
    #[arg(long, value_name = "ID", default_value = "site-{}")]
    id: String,
    /// Identity of the responder; {} is the number of the tunnel.
    #[arg(long, value_name = "ID")]
    remote_id: String,
    /// The key that all tunnels share with the responder.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Our side of each tunnel; without it an address of 172.16.0.0/12 by number.
    #[arg(long, value_name = "SELECTOR")]
    local_ts: Option<TrafficSelector>,
    /// The responder's side of each tunnel.
    #[arg(long, value_name = "SELECTOR")]
    remote_ts: TrafficSelector,
    /// Seconds before a request over UDP leaves again, doubled five times before a tunnel is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    retransmit_after: f64,
    /// Seconds that the SAs are kept when each tunnel has an outcome.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    hold: u32,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    Udp,
    Tcp,
}

impl Bench {
    /// Does it.
    ///
    /// # Errors
    /// If something given is wrong, or no socket can be opened. Tunnels that failed make the exit status 1.
    pub fn run(&self) -> Result<ExitCode> {
        let What::Ike(ike) = &self.what;
        let plan = ike.plan()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let progress = |tally: &Tally| eprintln!("{}", tally.progress());
        let outcome = |tally: &Tally| {
            if ike.json {
                println!("{}", tally.to_json());
            } else {
                print!("{tally}");
            }
        };
        let tally = runtime.block_on(load::run(&plan, progress, outcome))?;
        Ok(if tally.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Ike {
    fn plan(&self) -> Result<Plan> {
        ensure!(self.tunnels > 0 && self.in_flight > 0, "--tunnels and --in-flight are at least 1");
        // Below, the time of a start would not fit the clock.
        ensure!(self.rate.is_none_or(|rate| rate >= SLOWEST), "--rate is at least {SLOWEST}");
        ensure!(
            (SHORTEST_WAIT..=LONGEST_WAIT).contains(&self.retransmit_after),
            "--retransmit-after is from {SHORTEST_WAIT} to {LONGEST_WAIT}"
        );
        let from = self.from.map(|network| network.addresses);
        ensure!(from.is_none_or(|from| holds(from, self.tunnels)), "--from has fewer addresses than tunnels");
        ensure!(
            from.is_none_or(|from| from.start().is_ipv4() == self.peer.is_ipv4()),
            "--from and --peer are of one address family"
        );
        let identity = |option: &str, text: &str| {
            config::identity(text).map_err(|cause| anyhow::anyhow!("{option}: {cause}"))
        };
        identity("--id", &self.id.replace("{}", "0"))?;
        identity("--remote-id", &self.remote_id.replace("{}", "0"))?;
        let ike: IkeProposal = self.proposal.parse().context("--proposal")?;
        let esp: EspProposal = self.esp_proposal.parse().context("--esp-proposal")?;
        let path = &self.secret_file;
        let secret = config::secret_in(path).with_context(|| format!("--secret-file: {}", path.display()))?;
        Ok(Plan {
            peer: SocketAddr::new(self.peer, self.port),
            local: self.local,
            from,
            tunnels: self.tunnels,
            rate: self.rate,
            in_flight: self.in_flight,
            transport: match self.transport {
                Transport::Udp => StartTransport::Udp,
                Transport::Tcp => StartTransport::Tcp,
            },
            ike,
            esp,
            id: self.id.clone(),
            remote_id: self.remote_id.clone(),
            secret,
            local_ts: self.local_ts,
            remote_ts: self.remote_ts,
            retransmit_after: Duration::from_secs_f64(self.retransmit_after),
            hold: Duration::from_secs(self.hold.into()),
        })
    }
}

/// A range has at least so many addresses.
fn holds(range: AddressRange, tunnels: usize) -> bool {
    let last = tunnels.saturating_sub(1) as u128;
    match (range.start(), range.end()) {
        (IpAddr::V4(start), IpAddr::V4(end)) => u128::from(end.to_bits() - start.to_bits()) >= last,
        (IpAddr::V6(start), IpAddr::V6(end)) => end.to_bits() - start.to_bits() >= last,
        _ => false,
    }
}
