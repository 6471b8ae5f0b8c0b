//! Portcullis at both ends, with the configuration that ships but for the data plane's mode and ESP's carrier.

use anyhow::Result;
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{Artefacts, CHILD, DataPlaneMode, Lab, Nat, Pair, PairOptions, Side};
use std::time::Duration;

use super::Contender;

pub const TUN: &str = "Portcullis, TUN, ESP in UDP";
pub const TUN_TWO: &str = "Portcullis, TUN, two SAs and workers";
pub const TUN_IP: &str = "Portcullis, TUN, ESP over IP";
pub const XDP: &str = "Portcullis, AF_XDP copy";
const LIMIT: Duration = Duration::from_secs(30);

/// On the TUN path.
///
/// # Errors
/// If they do not come up.
pub fn tun(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, TUN, DataPlaneMode::Tun, "[udp]", 1)
}

/// On the TUN path, with two Child SAs that have the same selectors, each on a worker of its own (RFC 9611).
///
/// # Errors
/// If they do not come up.
pub fn tun_two(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, TUN_TWO, DataPlaneMode::Tun, "[udp]", 2)
}

/// On the TUN path, by the carrier that the kernel neither cuts nor joins.
///
/// # Errors
/// If they do not come up.
pub fn tun_ip(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, TUN_IP, DataPlaneMode::Tun, "[ip]", 1)
}

/// On AF_XDP, which copies on these links.
///
/// # Errors
/// If they do not come up.
pub fn xdp(artefacts: &Artefacts) -> Result<Contender> {
    start(artefacts, XDP, DataPlaneMode::Xdp, "[udp]", 1)
}

fn start(
    artefacts: &Artefacts,
    name: &'static str,
    mode: DataPlaneMode,
    transports: &str,
    resources: u32,
) -> Result<Contender> {
    let lab = Lab::with_queues(Nat::None, resources)?;
    let mut pair = Pair::in_lab(lab, PairOptions { mode, ..PairOptions::USUAL }, artefacts)?;
    for side in [Side::B, Side::A] {
        let gateway = pair.gateway_mut(side);
        let mut config = gateway.configuration()?;
        let connection = format!("connections/{}", side.connection());
        config.set_yaml(&format!("{connection}/esp/transports"), transports)?;
        if resources > 1 {
            config.set("data_plane/workers", resources);
            config.set(&format!("{connection}/children/{CHILD}/per_resource"), resources);
        }
        gateway.configure(config)?;
        gateway.start()?;
    }
    pair.wait_up(LIMIT)?;
    for side in [Side::A, Side::B] {
        let has_all = |connection: &ConnectionStatus| {
            connection.ike_sas.iter().all(|sa| sa.children.len() == resources as usize)
        };
        pair.gateway(side).wait_connection(side.connection(), LIMIT, has_all)?;
    }
    let processes =
        [&pair.a, &pair.b].into_iter().filter_map(|gateway| Some(gateway.process()?.id())).collect();
    let Pair { a, b, lab } = pair;
    Ok(Contender::new(name, lab, processes, (a, b)))
}
