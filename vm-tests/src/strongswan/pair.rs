//! The topology with Portcullis as gw-a and strongSwan as gw-b.

use anyhow::{Context, Result};

use super::{Settings, Strongswan};
use crate::artefacts::Artefacts;
use crate::gateway::Gateway;
use crate::pair::{CHILD, PairOptions, config_of, write_secret};
use crate::topology::{Lab, Nat, Side};

/// One gateway of ours, one of theirs. gw-a's daemon is not started yet; charon runs, and knows gw-a as [`Side::connection`]
/// says. Fields drop in order.
#[derive(Debug)]
pub struct StrongswanPair {
    /// Portcullis.
    pub a: Gateway,
    /// strongSwan.
    pub b: Strongswan,
    /// What strongSwan has loaded, for a scenario to change and load.
    pub settings: Settings,
    /// Everything around them.
    pub lab: Lab,
}

impl StrongswanPair {
    /// Builds the topology, configures gw-a and starts charon.
    ///
    /// # Errors
    /// Those of [`Lab::new`], [`Gateway::new`] and [`Strongswan::start`].
    pub fn new(options: PairOptions, artefacts: &Artefacts) -> Result<Self> {
        let lab = Lab::new(options.nat)?;
        let secret = lab.instance.directory().join("psk");
        write_secret(&secret)?;
        let side = Side::A;
        let config = config_of(side, options, artefacts, &secret)?;
        let a =
            Gateway::new(&lab.instance, lab.gateway(side), side.gateway_name(), &artefacts.binary, config)?;
        let root = artefacts.strongswan()?;
        let name = side.other().gateway_name();
        let b = Strongswan::start(&lab.instance, &lab.gw_b, name, &root, &Strongswan::charon())?;
        let secret = std::fs::read_to_string(&secret).context("reading the secret")?;
        let settings = site_a(&secret, options.nat);
        b.load(&settings)?;
        Ok(Self { a, b, settings, lab })
    }
}

/// gw-a as strongSwan sees it: the mirror image of `config/gw-b.yaml`, but for what `kernel-libipsec` has not.
fn site_a(secret: &str, nat: Nat) -> Settings {
    let mut settings = Settings::default();
    let connection = format!("connections/{}", Side::B.connection());
    let id = |side: Side| format!("{}.example.net", side.gateway_name());
    for (end, side) in [("local", Side::B), ("remote", Side::A)] {
        settings.set(&format!("{connection}/{end}_addrs"), side.wan().0.to_string());
        settings.set(&format!("{connection}/{end}/auth"), "psk");
        settings.set(&format!("{connection}/{end}/id"), id(side));
        settings.set(&format!("{connection}/children/{CHILD}/{end}_ts"), side.inner().join(","));
    }
    if nat == Nat::BeforeA {
        settings.set(&format!("{connection}/remote_addrs"), "%any");
    }
    for (key, value) in [
        ("version", "2"),
        ("mobike", "no"),
        ("proposals", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"),
        (&format!("children/{CHILD}/esp_proposals"), "aes256gcm16"),
    ] {
        settings.set(&format!("{connection}/{key}"), value);
    }
    for (key, value) in [("id-a", id(Side::A)), ("id-b", id(Side::B)), ("secret", secret.to_owned())] {
        settings.set(&format!("secrets/ike-{}/{key}", Side::B.connection()), value);
    }
    settings
}
