//! The usual case: the topology with a gateway at either end, configured from the files that ship.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artefacts::Artefacts;
use crate::daemon_config::{DaemonConfig, DataPlaneMode};
use crate::gateway::Gateway;
use crate::status::{ConnectionStatus, Status};
use crate::topology::{Lab, Nat, Side};

/// Name of the only child in the files that ship.
pub const CHILD: &str = "net";

/// What differs between cases.
#[derive(Clone, Copy, Debug)]
pub struct PairOptions {
    /// Address translation on the router. Behind it gw-a is `address: any` to gw-b, and gw-b is the router to gw-a.
    pub nat: Nat,
    /// `ike.transport` of both.
    pub transport: &'static str,
    /// `data_plane.mode` of both.
    pub mode: DataPlaneMode,
    /// gw-b starts by itself too.
    pub b_starts: bool,
}

/// The topology with two gateways; their daemons are not started yet. Fields drop in order.
#[derive(Debug)]
pub struct Pair {
    /// The gateway that initiates.
    pub a: Gateway,
    /// The other.
    pub b: Gateway,
    /// Everything around them.
    pub lab: Lab,
}

impl PairOptions {
    /// A start on TCP without NAT on AF_XDP; gw-a initiates.
    pub const USUAL: Self =
        Self { nat: Nat::None, transport: "tcp", mode: DataPlaneMode::Xdp, b_starts: false };
}

impl Pair {
    /// Builds the topology and both configurations.
    ///
    /// # Errors
    /// Those of [`Lab::new`] and [`Gateway::new`].
    pub fn new(options: PairOptions, artefacts: &Artefacts) -> Result<Self> {
        Self::in_lab(Lab::new(options.nat)?, options, artefacts)
    }

    /// Builds both configurations in a topology that is there; `options.nat` says what it has.
    ///
    /// # Errors
    /// Those of [`Gateway::new`].
    pub fn in_lab(lab: Lab, options: PairOptions, artefacts: &Artefacts) -> Result<Self> {
        let secret = lab.instance.directory().join("psk");
        write_secret(&secret)?;
        let gateway = |side: Side| {
            let config = config_of(side, options, artefacts, &secret)?;
            Gateway::new(&lab.instance, lab.gateway(side), side.gateway_name(), &artefacts.binary, config)
        };
        Ok(Self { a: gateway(Side::A)?, b: gateway(Side::B)?, lab })
    }

    /// Builds, starts both daemons and waits until gw-a's connection is up at both ends.
    ///
    /// # Errors
    /// If it is not within 30 s.
    pub fn up(options: PairOptions, artefacts: &Artefacts) -> Result<Self> {
        let mut pair = Self::new(options, artefacts)?;
        pair.b.start()?;
        pair.a.start()?;
        pair.wait_up(Duration::from_secs(30))?;
        Ok(pair)
    }

    /// Waits until the connection is up at both ends and returns how gw-a and gw-b see it.
    ///
    /// # Errors
    /// If it is not within `limit`.
    pub fn wait_up(&self, limit: Duration) -> Result<(ConnectionStatus, ConnectionStatus)> {
        let a = self.a.wait_connection(Side::A.connection(), limit, ConnectionStatus::is_up)?;
        let b = self.b.wait_connection(Side::B.connection(), limit, ConnectionStatus::is_up)?;
        Ok((a, b))
    }

    /// The gateway of a side.
    pub fn gateway(&self, side: Side) -> &Gateway {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// The gateway of a side, to start or stop it.
    pub fn gateway_mut(&mut self, side: Side) -> &mut Gateway {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// Waits until every packet that came into a gateway went out or has a drop reason, and returns its status
    /// then.
    ///
    /// # Errors
    /// If the sums do not agree 10 s after traffic has ended.
    pub fn drained(&self, side: Side) -> Result<Status> {
        self.gateway(side).drained()
    }

    /// As [`Gateway::leave_books`], for both.
    #[must_use]
    pub fn leave_books(mut self) -> Self {
        self.a.leave_books();
        self.b.leave_books();
        self
    }

    /// Leaves everything running, and returns the name that [`crate::Instance::remove`] takes.
    ///
    /// # Errors
    /// Those of [`Lab::keep`].
    pub fn keep(self) -> Result<String> {
        self.a.keep();
        self.b.keep();
        self.lab.keep()
    }
}

impl Side {
    /// The name of its connection in the files that ship.
    pub fn connection(self) -> &'static str {
        match self {
            Self::A => "site-b",
            Self::B => "site-a",
        }
    }
}

/// The file that ships for a side, as `options` say.
pub(crate) fn config_of(
    side: Side,
    options: PairOptions,
    artefacts: &Artefacts,
    secret: &Path,
) -> Result<DaemonConfig> {
    let file = artefacts.config.join(side.gateway_name()).with_extension("yaml");
    let mut config = DaemonConfig::read(&file)?;
    let connection = format!("connections/{}", side.connection());
    let secret = secret.to_str().context("the directory is UTF-8")?;
    config.set("data_plane/mode", options.mode.label());
    config.set("data_plane/xdp_object", artefacts.xdp_object.to_str().context("the object's path is UTF-8")?);
    // Small enough for a dump of every map.
    config.set("data_plane/sa_slots", 1024);
    config.set(&format!("{connection}/local/secret_file"), secret);
    config.set(&format!("{connection}/remote/secret_file"), secret);
    config.set(&format!("{connection}/ike/transport"), options.transport);
    if (side, options.nat) == (Side::A, Nat::BeforeB) {
        config.set(&format!("{connection}/remote/address"), Side::A.router().0.to_string());
    }
    if side == Side::B {
        if options.nat == Nat::BeforeA {
            config.set(&format!("{connection}/remote/address"), "any");
        }
        if !options.b_starts {
            config.set(&format!("{connection}/children/{CHILD}/start"), "none");
        }
    }
    Ok(config)
}

/// Writes a secret of 32 random octets, hexadecimal, that only root can read.
///
/// # Errors
/// If the file is there already, or cannot be written.
pub fn write_secret(path: &Path) -> Result<()> {
    let mut random = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    let text: String = random.iter().map(|octet| format!("{octet:02x}")).collect();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
