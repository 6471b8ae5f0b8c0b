//! Which connections the addresses of a first message may mean: named peers before `any`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{ConnectionConfig, RemoteAddress};

/// Names of connections by the peer's configured address, so that a flood costs a look-up and not a walk.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    named: BTreeMap<IpAddr, Vec<Arc<str>>>,
    any: Vec<Arc<str>>,
}

impl Peers {
    /// The peers of these connections.
    pub(crate) fn of<'a>(configs: impl Iterator<Item = &'a ConnectionConfig>) -> Self {
        let mut peers = Self::default();
        for config in configs {
            match config.remote_address {
                RemoteAddress::Any => peers.any.push(config.name.clone()),
                RemoteAddress::Ip(ip) => {
                    peers.named.entry(ip.to_canonical()).or_default().push(config.name.clone());
                }
            }
        }
        peers
    }

    /// How many connections name this address.
    pub(crate) fn connections(&self, remote: IpAddr) -> usize {
        self.named.get(&remote.to_canonical()).map_or(0, Vec::len)
    }

    /// Connections that may be meant by a message from there.
    pub(crate) fn candidates(&self, remote: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.named.get(&remote.to_canonical()).into_iter().flatten().chain(&self.any)
    }
}
