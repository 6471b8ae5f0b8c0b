//! Our address for each connection that does not configure one. NAT detection needs it before the first message
//! leaves (RFC 7296 section 2.23).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_ike::config::RemoteAddress;

use crate::config::Config;
use crate::net::source_towards;

/// Addresses by connection, as the routes to its peer were when they were looked up.
#[derive(Debug, Default)]
pub struct Sources(HashMap<Arc<str>, Source>);

#[derive(Debug)]
struct Source {
    peer: IpAddr,
    address: Option<IpAddr>,
}

impl Sources {
    /// Looks up what is not known yet, towards peers that have moved, and what `again` says. True if anything has changed.
    pub fn follow(&mut self, config: &Config, again: impl Fn(&str) -> bool) -> bool {
        let connections = config.connections.iter().map(|connection| &connection.ike);
        let names: HashSet<&str> =
            config.connections.iter().map(|connection| &*connection.ike.name).collect();
        self.0.retain(|name, _| names.contains(&**name));
        let mut has_changed = false;
        for connection in connections.filter(|connection| connection.local_address.is_none()) {
            let RemoteAddress::Ip(peer) = connection.remote_address else { continue };
            let known = self.0.get(&connection.name).filter(|known| known.peer == peer);
            let known = known.and_then(|known| known.address);
            if known.is_none() || again(&connection.name) {
                let address = source_towards(peer);
                has_changed |= address != known;
                self.0.insert(Arc::clone(&connection.name), Source { peer, address });
            }
        }
        has_changed
    }

    /// The address of a connection, if there was a route.
    pub fn of(&self, name: &str) -> Option<IpAddr> {
        self.0.get(name)?.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Secrets};

    #[test]
    fn a_peer_that_moved_is_looked_up_again() {
        let mut sources = Sources::default();
        for (peer, ours) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let text = format!(
                "data_plane: {{ interfaces: {{ wan0: {{ role: wan }} }} }}\n\
                 connections:\n  c:\n    local: {{ id: a, auth: psk, secret_file: /s }}\n    \
                 remote: {{ address: \"{peer}\", id: b, auth: psk, secret_file: /s }}\n    \
                 children: {{ net: {{ local_ts: [10.1.0.0/16], remote_ts: [10.2.0.0/16] }} }}\n"
            );
            let config =
                config::parse(&text, None, &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}"));
            assert!(sources.follow(&config.config, |_| false));
            assert_eq!(sources.of("c"), Some(ours.parse().unwrap()));
            assert!(!sources.follow(&config.config, |_| false), "nothing is new");
        }
    }
}
