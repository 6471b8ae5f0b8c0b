//! strongSwan at both ends, with its ESP in user space (`kernel-libipsec`).

use std::path::Path;

use anyhow::{Context, Result};
use portcullis_vm_tests::strongswan::{Settings, Strongswan};
use portcullis_vm_tests::{CHILD, Lab, Nat, Side};

use super::Contender;

pub const NAME: &str = "strongSwan, kernel-libipsec";
const CONNECTION: &str = "bench";
const SECRET: &str = "the shared key of the benchmark: 0123456789abcdef";

/// Starts both and the tunnel.
///
/// # Errors
/// If they do not come up.
pub fn start(root: &Path) -> Result<Contender> {
    let lab = Lab::new(Nat::None)?;
    let mut daemons = Vec::new();
    for side in [Side::B, Side::A] {
        let charon = Strongswan::start(
            &lab.instance,
            lab.gateway(side),
            side.gateway_name(),
            root,
            &Strongswan::charon(),
        )?;
        charon.load(&settings(side))?;
        daemons.push(charon);
    }
    daemons.last().context("two daemons")?.initiate(CHILD)?;
    let processes = daemons.iter().map(Strongswan::id).collect();
    Ok(Contender::new(NAME, lab, processes, daemons))
}

fn settings(side: Side) -> Settings {
    let id = |side: Side| format!("{}.example.net", side.gateway_name());
    let at = |key: &str| format!("connections/{CONNECTION}/{key}");
    let mut settings = Settings::default()
        .with(&at("version"), "2")
        .with(&at("mobike"), "no")
        .with(&at("proposals"), "aes256gcm16-prfsha384-x25519")
        .with(&at(&format!("children/{CHILD}/esp_proposals")), "aes256gcm16")
        .with(&format!("secrets/ike-{CONNECTION}/secret"), SECRET);
    for (end, side) in [("local", side), ("remote", side.other())] {
        settings.set(&at(&format!("{end}_addrs")), side.wan().0.to_string());
        settings.set(&at(&format!("{end}/auth")), "psk");
        settings.set(&at(&format!("{end}/id")), id(side));
        settings.set(&at(&format!("children/{CHILD}/{end}_ts")), side.inner().join(","));
        settings.set(&format!("secrets/ike-{CONNECTION}/id-{end}"), id(side));
    }
    settings
}
