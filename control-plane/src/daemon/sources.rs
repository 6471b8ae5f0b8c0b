//! Our address for each connection that does not configure one. NAT detection needs it before the first message
//! leaves (RFC 7296 section 2.23).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_ike::config::RemoteAddress;

use crate::config::Config;
use crate::net::source_towards;

/// Addresses by connection, as the routes were when they were looked up.
#[derive(Debug, Default)]
pub struct Sources(HashMap<Arc<str>, Option<IpAddr>>);

impl Sources {
    /// Looks up what is not known yet, and what `again` says. True if anything has changed.
    pub fn follow(&mut self, config: &Config, again: impl Fn(&str) -> bool) -> bool {
        let connections = config.connections.iter().map(|connection| &connection.ike);
        let names: HashSet<&str> =
            config.connections.iter().map(|connection| &*connection.ike.name).collect();
        self.0.retain(|name, _| names.contains(&**name));
        let mut has_changed = false;
        for connection in connections.filter(|connection| connection.local_address.is_none()) {
            let RemoteAddress::Ip(peer) = connection.remote_address else { continue };
            let known = self.of(&connection.name);
            if known.is_none() || again(&connection.name) {
                let source = source_towards(peer);
                has_changed |= source != known;
                self.0.insert(Arc::clone(&connection.name), source);
            }
        }
        has_changed
    }

    /// The address of a connection, if there was a route.
    pub fn of(&self, name: &str) -> Option<IpAddr> {
        self.0.get(name).copied().flatten()
    }
}
