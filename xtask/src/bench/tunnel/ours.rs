//! Portcullis at both ends, with the configuration that ships but for the data plane's mode and ESP's carrier.

use anyhow::Result;
use portcullis_vm_tests::{Artefacts, DataPlaneMode, Pair, PairOptions, Side};
use std::time::Duration;

use super::Contender;

pub const TUN: &str = "Portcullis, TUN, ESP in UDP";
pub const TUN_IP: &str = "Portcullis, TUN, ESP over IP";
pub const XDP: &str = "Portcullis, AF_XDP copy";
const LIMIT: Duration = Duration::from_secs(30);

/// On the TUN path.
///
/// # Errors
/// If they do not come up.
pub fn tun(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, TUN, DataPlaneMode::Tun, "[udp]")
}

/// On the TUN path, by the carrier that the kernel neither cuts nor joins.
///
/// # Errors
/// If they do not come up.
pub fn tun_ip(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, TUN_IP, DataPlaneMode::Tun, "[ip]")
}

/// On AF_XDP, which copies on these links.
///
/// # Errors
/// If they do not come up.
pub fn xdp(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, XDP, DataPlaneMode::Xdp, "[udp]")
}

fn start(
    artefacts: &Artefacts,
    name: &'static str,
    mode: DataPlaneMode,
    transports: &str,
) -> Result<Contender> {
    let mut pair = Pair::new(PairOptions { mode, ..PairOptions::USUAL }, artefacts)?;
    for side in [Side::B, Side::A] {
        let gateway = pair.gateway_mut(side);
        let mut config = gateway.configuration()?;
        config.set_yaml(&format!("connections/{}/esp/transports", side.connection()), transports)?;
        gateway.configure(config)?;
        gateway.start()?;
    }
    pair.wait_up(LIMIT)?;
    let processes =
        [&pair.a, &pair.b].into_iter().filter_map(|gateway| Some(gateway.process()?.id())).collect();
    let Pair { a, b, lab } = pair;
    Ok(Contender::new(name, lab, processes, (a, b)))
}
