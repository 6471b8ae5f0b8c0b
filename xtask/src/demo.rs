//! `cargo xtask demo`: two gateways, real packets, every promise checked, one account.

mod account;
mod blocked;
mod carriers;
mod cnsa2;
mod crashes;
mod figures;
mod rekeys;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use portcullis_vm_tests::{Artefacts, DataPlaneMode, Instance, Pair, PairOptions};

use crate::daemon;
use account::Account;

/// Shows the whole chain between two gateways in network namespaces, and checks it.
#[derive(Args, Debug)]
pub struct Demo {
    /// Leave a topology with a running tunnel behind and say how to enter it.
    #[arg(long)]
    keep: bool,
    /// Which path packets take.
    #[arg(long, value_enum, default_value_t = DataPlane::Xdp)]
    data_plane: DataPlane,
    /// Run only this part; may be repeated.
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// Run only what shows this profile.
    #[arg(long, value_enum, conflicts_with = "parts")]
    profile: Option<Profile>,
    /// Remove what an earlier `--keep` left, and do nothing else.
    #[arg(long, value_name = "NAME")]
    remove: Option<String>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum DataPlane {
    Xdp,
    Tun,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Part {
    /// Both starts, without and with NAT: which carrier takes what.
    Carriers,
    /// Rekeys under load from either end and from both at once.
    Rekeys,
    /// `kill -9` of either gateway in the middle of traffic.
    Crashes,
    /// ESP blocked at the router: what each policy does, and the return.
    Blocked,
    /// ML-KEM-1024 alone in IKE_SA_INIT over TCP, and certificates of ML-DSA-87.
    Cnsa2,
}

/// A set of algorithms that somebody asks for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Profile {
    /// CNSA 2.0 of the NSA: ML-KEM-1024, ML-DSA-87, AES-256, SHA-384.
    Cnsa2,
}

impl Demo {
    /// Runs it.
    ///
    /// # Errors
    /// If something could not be set up, or naming the expectations that did not hold.
    pub fn run(self) -> Result<()> {
        if let Some(name) = &self.remove {
            return Instance::remove(name);
        }
        let artefacts = daemon::build()?;
        let mode = match self.data_plane {
            DataPlane::Xdp => DataPlaneMode::Xdp,
            DataPlane::Tun => DataPlaneMode::Tun,
        };
        let mut account = Account::default();
        let parts = match self.profile {
            Some(Profile::Cnsa2) => vec![Part::Cnsa2],
            None => self.parts.clone(),
        };
        for part in Part::value_variants().iter().filter(|p| parts.is_empty() || parts.contains(p)) {
            match part {
                Part::Carriers => carriers::run(mode, &artefacts, &mut account),
                Part::Rekeys => rekeys::run(mode, &artefacts, &mut account),
                Part::Crashes => crashes::run(mode, &artefacts, &mut account),
                Part::Blocked => blocked::run(mode, &artefacts, &mut account),
                Part::Cnsa2 => cnsa2::run(mode, &artefacts, &mut account),
            }
        }
        let remains = Instance::remains_of_this_process();
        let found = if remains.is_empty() { "nothing".to_owned() } else { remains.join(", ") };
        account.part("Afterwards", |account| {
            account.expect("namespaces, processes, pins and files left behind", remains.is_empty(), found);
            Ok(())
        });
        account.close()?;
        if self.keep { keep(mode, &artefacts) } else { Ok(()) }
    }
}

fn keep(mode: DataPlaneMode, artefacts: &Artefacts) -> Result<()> {
    let options = PairOptions { mode, b_starts: true, ..PairOptions::USUAL };
    let mut pair = Pair::new(options, artefacts)?.leave_books();
    pair.b.start_detached()?;
    pair.a.start_detached()?;
    pair.wait_up(std::time::Duration::from_secs(30)).context("the topology that is to be kept")?;
    let socket = pair.a.directory().join("control.sock");
    let log = pair.a.log_file();
    let name = pair.keep()?;
    println!(
        "\nA tunnel is up and stays. Enter a host, watch the router, ask a gateway, read its log, remove it all:"
    );
    println!("  nsenter --net=/run/netns/{name}-host-a ping 10.2.0.2");
    println!("  nsenter --net=/run/netns/{name}-router tcpdump -ni wan-a");
    println!("  {} status --socket {}", artefacts.binary.display(), socket.display());
    println!("  tail -f {}", log.display());
    println!("  cargo xtask demo --remove {name}");
    Ok(())
}
