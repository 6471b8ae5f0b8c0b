//! How much those who are not authenticated may hold: strangers in all and per source prefix, configured peers by address.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// From where a request comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// From anywhere.
    Stranger,
    /// From the address of a configured peer. Nobody has authenticated it, but it is one of few.
    Peer {
        /// Connections that name this address: all of them may come at once, as after an outage.
        connections: usize,
    },
}

/// Counts holders. Strangers share places, in all and per source prefix: IPv4 by /24, IPv6 by /64 and by /48. Every
/// connection with a configured peer has places of its own, so that no flood from elsewhere locks it out. The memory is bounded
/// by the limit on strangers and the number of these connections.
#[derive(Debug)]
pub(crate) struct Quota {
    most: usize,
    most_per_prefix: usize,
    most_per_connection: usize,
    strangers: usize,
    prefixes: BTreeMap<Prefix, usize>,
    peers: BTreeMap<IpAddr, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Prefix {
    V4([u8; 3]),
    V6Slash64(u64),
    V6Slash48(u64),
}

impl Quota {
    /// No holder yet.
    pub(crate) fn new(most: usize, most_per_prefix: usize, most_per_connection: usize) -> Self {
        Self {
            most,
            most_per_prefix,
            most_per_connection,
            strangers: 0,
            prefixes: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }

    /// Counts one more holder at `address`, or refuses it.
    pub(crate) fn admit(&mut self, address: IpAddr, standing: Standing) -> bool {
        match standing {
            Standing::Peer { connections } => self.admit_peer(address.to_canonical(), connections),
            Standing::Stranger => self.admit_stranger(address),
        }
    }

    /// A holder that was admitted with this standing is gone.
    pub(crate) fn leave(&mut self, address: IpAddr, standing: Standing) {
        match standing {
            Standing::Peer { .. } => count_down(&mut self.peers, &address.to_canonical()),
            Standing::Stranger => {
                self.strangers = self.strangers.saturating_sub(1);
                for prefix in prefixes(address).into_iter().flatten() {
                    count_down(&mut self.prefixes, &prefix);
                }
            }
        }
    }

    /// Holders now.
    pub(crate) fn held(&self) -> usize {
        self.strangers + self.peers.values().sum::<usize>()
    }

    /// Strangers among them.
    pub(crate) fn strangers(&self) -> usize {
        self.strangers
    }

    /// Places that this configured peer holds.
    pub(crate) fn of_peer(&self, address: IpAddr) -> usize {
        self.peers.get(&address.to_canonical()).copied().unwrap_or_default()
    }

    fn admit_peer(&mut self, address: IpAddr, connections: usize) -> bool {
        let held = self.of_peer(address);
        if held >= self.most_per_connection.saturating_mul(connections) {
            return false;
        }
        self.peers.insert(address, held + 1);
        true
    }

    fn admit_stranger(&mut self, address: IpAddr) -> bool {
        let prefixes = prefixes(address);
        let is_full = |prefix| self.prefixes.get(prefix).is_some_and(|n| *n >= self.most_per_prefix);
        if self.strangers >= self.most || prefixes.iter().flatten().any(is_full) {
            return false;
        }
        self.strangers += 1;
        for prefix in prefixes.into_iter().flatten() {
            *self.prefixes.entry(prefix).or_default() += 1;
        }
        true
    }
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(key);
        }
    }
}

fn prefixes(address: IpAddr) -> [Option<Prefix>; 2] {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [Some(Prefix::V4([a, b, c])), None]
        }
        IpAddr::V6(ip) => {
            let high = (ip.to_bits() >> 64) as u64;
            [Some(Prefix::V6Slash64(high)), Some(Prefix::V6Slash48(high >> 16))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::Stranger;
    use super::*;

    const PEER: Standing = Standing::Peer { connections: 1 };

    #[test]
    fn a_prefix_that_is_full_does_not_lock_out_others() {
        let mut quota = Quota::new(100, 2, 1);
        assert!(quota.admit(ip("192.0.2.1"), Stranger) && quota.admit(ip("192.0.2.2"), Stranger));
        assert!(!quota.admit(ip("192.0.2.3"), Stranger));
        assert!(quota.admit(ip("192.0.3.3"), Stranger));
        quota.leave(ip("192.0.2.1"), Stranger);
        assert!(quota.admit(ip("192.0.2.3"), Stranger));
    }

    #[test]
    fn ipv6_is_counted_by_64_and_by_48() {
        let mut quota = Quota::new(100, 2, 1);
        assert!(quota.admit(ip("2001:db8:1:1::1"), Stranger) && quota.admit(ip("2001:db8:1:2::1"), Stranger));
        assert!(!quota.admit(ip("2001:db8:1:3::1"), Stranger), "the /48 is full");
        assert!(quota.admit(ip("2001:db8:2:1::1"), Stranger));
    }

    #[test]
    fn the_limit_on_all_holds_and_nothing_is_left_behind() {
        let mut quota = Quota::new(3, 10, 1);
        let addresses: Vec<IpAddr> = (0..5).map(|n| IpAddr::from([192, 0, n, 1])).collect();
        assert_eq!(addresses.iter().filter(|a| quota.admit(**a, Stranger)).count(), 3);
        for address in &addresses[..3] {
            quota.leave(*address, Stranger);
        }
        assert_eq!(quota.held(), 0);
        assert!(quota.prefixes.is_empty());
    }

    #[test]
    fn strangers_do_not_take_a_configured_peers_places() {
        let mut quota = Quota::new(2, 2, 2);
        assert!(quota.admit(ip("192.0.2.7"), Stranger) && quota.admit(ip("192.0.2.8"), Stranger));
        assert!(!quota.admit(ip("192.0.2.9"), Stranger));
        let peer = ip("192.0.2.10");
        assert!(quota.admit(peer, PEER) && quota.admit(peer, PEER) && !quota.admit(peer, PEER));
        assert_eq!((quota.held(), quota.strangers(), quota.of_peer(peer)), (4, 2, 2));
        assert!(quota.admit(ip("::ffff:192.0.2.11"), PEER));
        quota.leave(ip("192.0.2.11"), PEER);
        quota.leave(peer, PEER);
        assert!(quota.admit(peer, PEER));
    }

    #[test]
    fn an_address_has_places_for_each_of_its_connections() {
        let mut quota = Quota::new(0, 0, 2);
        let peer = ip("192.0.2.7");
        let standing = Standing::Peer { connections: 3 };
        assert_eq!((0..10).filter(|_| quota.admit(peer, standing)).count(), 6);
        assert!(!quota.admit(peer, PEER), "fewer are configured now");
        quota.leave(peer, standing);
        assert!(quota.admit(peer, standing));
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
