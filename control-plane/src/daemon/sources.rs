//! Our address for each connection: the configured one while this host has it, else the one that routes to the peer. NAT
//! detection needs it before the first message leaves (RFC 7296 section 2.23), and IKE SAs follow it (transport policy rule 11).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_data_plane::netlink::Snapshot;
use portcullis_ike::config::RemoteAddress;

use super::input::NetworkChange;
use crate::config::Config;
use crate::net::source_towards;

/// Addresses by connection, as the network was when they were looked up.
#[derive(Debug, Default)]
pub struct Sources(HashMap<Arc<str>, Source>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Source {
    /// What it holds for: the peer, and `local.address`.
    of: (IpAddr, Option<IpAddr>),
    address: Option<IpAddr>,
    /// What our own copy of the routes said. It knows two tables and no rules, but when these have changed it knows at once.
    routed: Option<IpAddr>,
}

impl Sources {
    /// Looks up what is not known yet, towards peers that have moved, and all that a change may concern. Returns what is
    /// different now.
    pub fn follow(
        &mut self,
        config: &Config,
        network: &Snapshot,
        change: Option<NetworkChange>,
    ) -> Vec<(Arc<str>, Option<IpAddr>)> {
        let connections = config.connections.iter().map(|connection| &connection.ike);
        let names: HashSet<&str> =
            config.connections.iter().map(|connection| &*connection.ike.name).collect();
        self.0.retain(|name, _| names.contains(&**name));
        let mut changes = Vec::new();
        for connection in connections {
            let RemoteAddress::Ip(peer) = connection.remote_address else { continue };
            let of = (peer, connection.local_address);
            let known = self.0.get(&connection.name).copied().filter(|known| known.of == of);
            let routed = network.address_towards(peer);
            let address = match (connection.local_address, known) {
                (Some(configured), _) => network.is_local(configured).then_some(configured),
                (None, Some(known)) if change.is_none() => known.address,
                (None, Some(known)) if change == Some(NetworkChange::Routes) && known.routed == routed => {
                    known.address
                }
                // What the kernel did not say, for want of a descriptor perhaps, has not changed.
                (None, known) => {
                    source_towards(peer).unwrap_or_else(|_| known.and_then(|known| known.address))
                }
            };
            self.0.insert(Arc::clone(&connection.name), Source { of, address, routed });
            if known.is_none_or(|known| known.address != address) {
                changes.push((Arc::clone(&connection.name), address));
            }
        }
        changes
    }

    /// The address of a connection, if there is one.
    pub fn of(&self, name: &str) -> Option<IpAddr> {
        self.0.get(name).and_then(|source| source.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Secrets};

    /// Transport policy rule 5: `local_down`, once.
    #[test]
    fn a_configured_address_counts_while_this_host_has_it() {
        let text = "data_plane: { mode: tun, interfaces: { lo: { role: wan } } }\n\
            connections:\n  \
              one:\n    \
                local: { id: a.example, auth: psk, secret_file: /x, address: 192.0.2.9 }\n    \
                remote: { address: 192.0.2.1, id: b.example, auth: psk }\n    \
                ike: { proposals: [aes256gcm16-prfsha384-x25519] }\n    \
                children: { net: { local_ts: [10.1.0.0/24], remote_ts: [10.2.0.0/24] } }\n";
        let config = config::parse(text, None, &Secrets::Skip)
            .unwrap_or_else(|(errors, _)| panic!("{errors:?}"))
            .config;
        let (mut sources, network) = (Sources::default(), Snapshot::default());
        assert_eq!(sources.follow(&config, &network, None), [(Arc::from("one"), None)]);
        assert_eq!(sources.follow(&config, &network, Some(NetworkChange::Addresses)), []);
        assert_eq!(sources.of("one"), None);
    }

    #[test]
    fn a_peer_that_moved_is_looked_up_again() {
        let (mut sources, network) = (Sources::default(), Snapshot::default());
        for (peer, ours) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let text = format!(
                "data_plane: {{ interfaces: {{ wan0: {{ role: wan }} }} }}\n\
                 connections:\n  c:\n    local: {{ id: a, auth: psk, secret_file: /s }}\n    \
                 remote: {{ address: \"{peer}\", id: b, auth: psk, secret_file: /s }}\n    \
                 children: {{ net: {{ local_ts: [10.1.0.0/16], remote_ts: [10.2.0.0/16] }} }}\n"
            );
            let config =
                config::parse(&text, None, &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}"));
            let ours: IpAddr = ours.parse().unwrap();
            assert_eq!(sources.follow(&config.config, &network, None), [(Arc::from("c"), Some(ours))]);
            assert_eq!(sources.of("c"), Some(ours));
            assert_eq!(sources.follow(&config.config, &network, None), [], "nothing is new");
        }
    }
}
