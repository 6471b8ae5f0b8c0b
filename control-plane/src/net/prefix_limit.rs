//! How many connections without an IKE SA may wait at once: of strangers in all and from one source prefix, of a configured
//! peer by its address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what waits. A permit gives its place back when it is dropped.
#[derive(Clone, Debug)]
pub struct PrefixLimit {
    in_all: usize,
    per_prefix: usize,
    per_connection: usize,
    waiting: Arc<Mutex<Waiting>>,
}

/// One place.
#[derive(Debug)]
pub struct Permit {
    holder: Holder,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    strangers: usize,
    holders: HashMap<Holder, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Holder {
    /// A source prefix.
    Strangers(IpAddr),
    /// An address.
    Peer(IpAddr),
}

impl PrefixLimit {
    /// At most `in_all` strangers, `per_prefix` from one IPv4 /24 or IPv6 /64; and `per_connection` from the
    /// address of a configured peer for each connection with it, which strangers cannot take.
    pub fn new(in_all: usize, per_prefix: usize, per_connection: usize) -> Self {
        Self { in_all, per_prefix, per_connection, waiting: Arc::default() }
    }

    /// A place for a stranger, if there is one.
    pub fn admit(&self, source: IpAddr) -> Option<Permit> {
        let mut waiting = lock(&self.waiting);
        if waiting.strangers >= self.in_all {
            return None;
        }
        let permit =
            self.take(&mut waiting, Holder::Strangers(prefix_of(source.to_canonical())), self.per_prefix)?;
        waiting.strangers += 1;
        Some(permit)
    }

    /// A place for a peer with so many connections, if it has one left.
    pub fn admit_peer(&self, address: IpAddr, connections: usize) -> Option<Permit> {
        let most = self.per_connection.saturating_mul(connections);
        self.take(&mut lock(&self.waiting), Holder::Peer(address.to_canonical()), most)
    }

    fn take(&self, waiting: &mut Waiting, holder: Holder, most: usize) -> Option<Permit> {
        let held = waiting.holders.get(&holder).copied().unwrap_or_default();
        if held >= most {
            return None;
        }
        waiting.holders.insert(holder, held + 1);
        Some(Permit { holder, waiting: Arc::clone(&self.waiting) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        if matches!(self.holder, Holder::Strangers(_)) {
            waiting.strangers -= 1;
        }
        match waiting.holders.get_mut(&self.holder) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                waiting.holders.remove(&self.holder);
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prefix_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & 0xffff_ff00).into()),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_cannot_take_every_place_and_places_come_back() {
        let limit = PrefixLimit::new(3, 2, 1);
        let near = |n: u8| IpAddr::from([192, 0, 2, n]);
        let (one, _two) = (limit.admit(near(1)), limit.admit(near(2)));
        assert!(one.is_some() && limit.admit(near(3)).is_none());
        let far = limit.admit(IpAddr::from([198, 51, 100, 1]));
        assert!(far.is_some() && limit.admit("2001:db8::1".parse().unwrap()).is_none(), "three in all");
        drop(one);
        assert!(limit.admit(near(3)).is_some());
    }

    #[test]
    fn strangers_do_not_take_a_configured_peers_place() {
        let limit = PrefixLimit::new(1, 1, 1);
        let peer = IpAddr::from([192, 0, 2, 9]);
        let _stranger = limit.admit(IpAddr::from([192, 0, 2, 1])).unwrap();
        let permit = limit.admit_peer(peer, 1);
        assert!(permit.is_some() && limit.admit_peer(peer, 1).is_none());
        let more = [limit.admit_peer(peer, 3), limit.admit_peer(peer, 3), limit.admit_peer(peer, 3)];
        assert_eq!(more.iter().flatten().count(), 2, "a place for each of its connections");
        drop((permit, more));
        assert!(limit.admit_peer(peer, 1).is_some());
    }
}
