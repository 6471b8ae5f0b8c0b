//! gw-b as the responder of many sites: Portcullis, or strongSwan.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portcullis_vm_tests::strongswan::{Settings, Strongswan};
use portcullis_vm_tests::{
    Artefacts, BpfMap, DaemonConfig, Exit, Gateway, Lab, Namespace, Nat, Process, Side,
};

use crate::setup;

/// Sites have addresses in this network from its first on; it is local to gw-a as a whole.
pub const SITES: &str = "10.128.0.0/12";
const FIRST_SITE: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// The first of the addresses that they protect.
const FIRST_INNER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
const SECRET: &str = "the shared key of all sites: 0123456789abcdef";
/// More than there are at once, so that no limit and no cookie is part of the figures.
const NO_LIMIT: u32 = 100_000;
/// BPF maps with entries for an SA, and how many: an inbound slot is steered by, both directions have keys.
const ENTRIES: [(&str, u64); 2] = [("STEER", 1), ("KEYS", 2)];

/// The root file system with strongSwan: the one that the environment names, or that of the set-up, which is made if need be.
///
/// # Errors
/// If it is neither there nor could be made.
pub fn strongswan(artefacts: &Artefacts) -> Result<PathBuf> {
    if let Ok(named) = artefacts.strongswan() {
        return Ok(named);
    }
    setup::strongswan::install()?;
    let root = setup::strongswan::root();
    ensure!(root.is_dir(), "there is none in {}", root.display());
    Ok(root)
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Portcullis, by this value of `ike.crypto`.
    Ours { shards: u8, crypto: &'static str },
    /// charon.
    Strongswan,
}

impl Kind {
    /// Portcullis as it is on a machine with two cores.
    pub const USUAL: Self = Self::Ours { shards: 2, crypto: "aws-lc" };
}

/// A running one. Fields drop in order.
#[derive(Debug)]
pub struct Responder {
    daemon: Daemon,
    secret: PathBuf,
    lab: Lab,
}

#[derive(Debug)]
enum Daemon {
    Ours(Gateway),
    Strongswan(Strongswan),
}

impl Responder {
    /// Starts it, with so many sites to answer.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(kind: Kind, sites: u32, artefacts: &Artefacts) -> Result<Self> {
        let lab = Lab::new(Nat::None)?;
        lab.gw_a.ip(&["route", "add", "local", SITES, "dev", "lo"])?;
        lab.router.add_route(SITES, Side::A.wan().0.into())?;
        let secret = lab.instance.directory().join("psk");
        fs::write(&secret, SECRET)?;
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let name = Side::B.gateway_name();
        let daemon = match kind {
            Kind::Ours { shards, crypto } => {
                let config = ours(sites, shards, crypto, &secret, artefacts)?;
                let mut gateway = Gateway::new(&lab.instance, &lab.gw_b, name, &artefacts.binary, config)?;
                gateway.leave_books();
                gateway.start()?;
                Daemon::Ours(gateway)
            }
            Kind::Strongswan => {
                let root = strongswan(artefacts)?;
                let charon = Strongswan::start(&lab.instance, &lab.gw_b, name, &root, &charon())?;
                charon.load(&theirs())?;
                eprintln!("strongSwan {}", charon.version()?);
                Daemon::Strongswan(charon)
            }
        };
        Ok(Self { daemon, secret, lab })
    }

    /// Where its peers are.
    pub fn sites(&self) -> &Namespace {
        &self.lab.gw_a
    }

    /// The file with the shared key.
    pub fn secret(&self) -> &Path {
        &self.secret
    }

    pub fn pid(&self) -> i32 {
        self.process().map_or(0, Process::id)
    }

    /// Processor time of all its threads so far.
    ///
    /// # Errors
    /// If it does not run.
    pub fn cpu(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.pid());
        let mut nanos = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
            // A thread that has just ended takes its time with it.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let on_cpu = text.split_whitespace().next().context("schedstat is empty")?;
            nanos += on_cpu.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// What the kernel keeps in BPF maps for an IKE SA with its Child SA. They are whole in memory from the start, so that no
    /// growth has a part of them.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn map_bytes(&self) -> Result<f64> {
        let Daemon::Ours(_) = &self.daemon else { return Ok(0.0) };
        let maps = BpfMap::of_process(self.pid())?;
        let of = |map: &BpfMap| ENTRIES.iter().find(|(name, _)| map.name == *name).map_or(0, |(_, n)| *n);
        Ok(maps.iter().map(|map| of(map) * u64::from(map.value_bytes)).sum::<u64>() as f64)
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it ends with an error, or not within `limit`.
    pub fn stop(&self, limit: Duration) -> Result<()> {
        let process = self.process().context("it runs")?;
        process.terminate()?;
        let exit = process.wait(limit);
        ensure!(exit == Some(Exit::Status(0)), "it ended with {exit:?}:\n{}", self.log_tail());
        Ok(())
    }

    pub fn log_tail(&self) -> String {
        match &self.daemon {
            Daemon::Ours(gateway) => gateway.log_tail(),
            Daemon::Strongswan(charon) => charon.log_tail(),
        }
    }

    fn process(&self) -> Option<&Process> {
        match &self.daemon {
            Daemon::Ours(gateway) => gateway.process(),
            Daemon::Strongswan(charon) => Some(charon.process()),
        }
    }
}

fn ours(sites: u32, shards: u8, crypto: &str, secret: &Path, artefacts: &Artefacts) -> Result<DaemonConfig> {
    let file = artefacts.config.join(Side::B.gateway_name()).with_extension("yaml");
    let mut config = DaemonConfig::read(&file)?;
    config.set("data_plane/mode", "xdp");
    config.set("data_plane/xdp_object", artefacts.xdp_object.to_str().context("the object's path is UTF-8")?);
    config.set("data_plane/replay_window", 4096);
    config.set("data_plane/sa_slots", (2 * sites).max(1024));
    config.set("ike/shards", u32::from(shards));
    config.set("ike/crypto", crypto);
    for limit in ["cookie_threshold", "max_half_open", "max_half_open_per_prefix"] {
        config.set(&format!("ike/{limit}"), NO_LIMIT);
    }
    let [behind_gateway, _] = Side::B.inner();
    let (gateway, secret) = (Side::B.wan().0, secret.display());
    let mut connections = String::new();
    for site in 0..sites {
        let address = Ipv4Addr::from_bits(FIRST_SITE.to_bits() + site);
        let inner = Ipv4Addr::from_bits(FIRST_INNER.to_bits() + site);
        writeln!(
            connections,
            "site-{site}:
  local: {{ address: {gateway}, id: gateway, auth: psk, secret_file: {secret} }}
  remote: {{ address: {address}, id: site-{site}, auth: psk }}
  ike: {{ proposals: [aes256gcm16-prfsha384-x25519-ke1_mlkem768, aes256gcm16-prfsha384-x25519] }}
  children: {{ net: {{ local_ts: [{behind_gateway}], remote_ts: [{inner}/32], start: none }} }}"
        )?;
    }
    config.set_yaml("connections", &connections)?;
    Ok(config)
}

/// Without what limits floods, and as quiet as can be.
fn charon() -> Settings {
    let mut settings = Strongswan::charon();
    for (key, value) in [
        ("threads", "16"),
        ("cookie_threshold", "0"),
        ("cookie_threshold_ip", "0"),
        ("block_threshold", "0"),
        ("init_limit_half_open", "0"),
        ("ikesa_table_size", "16384"),
        ("ikesa_table_segments", "16"),
        ("install_routes", "no"),
        ("filelog/output/default", "-1"),
        ("filelog/output/ike", "-1"),
        ("filelog/output/cfg", "-1"),
        // Its version, and that it has started.
        ("filelog/output/dmn", "1"),
        ("filelog/output/job", "1"),
    ] {
        settings.set(&format!("charon/{key}"), value);
    }
    settings
}

/// One connection for all sites.
fn theirs() -> Settings {
    let [behind_gateway, _] = Side::B.inner();
    let mut settings = Settings::default();
    for (key, value) in [
        ("version", "2"),
        ("mobike", "no"),
        ("unique", "never"),
        ("proposals", "aes256gcm16-prfsha384-x25519-ke1_mlkem768,aes256gcm16-prfsha384-x25519"),
        ("local/auth", "psk"),
        ("local/id", "gateway"),
        ("remote/auth", "psk"),
        ("children/net/local_ts", behind_gateway),
        ("children/net/remote_ts", "172.16.0.0/12"),
        ("children/net/esp_proposals", "aes256gcm16"),
    ] {
        settings.set(&format!("connections/sites/{key}"), value);
    }
    settings.set("secrets/ike-sites/secret", SECRET);
    settings
}
