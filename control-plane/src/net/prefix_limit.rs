//! How many connections of strangers may wait at once, in all and from one source prefix.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what waits. A permit gives its place back when it is dropped.
#[derive(Clone, Debug)]
pub struct PrefixLimit {
    in_all: usize,
    per_prefix: usize,
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One place.
#[derive(Debug)]
pub struct Permit {
    prefix: IpAddr,
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl PrefixLimit {
    /// At most `in_all`, and `per_prefix` from one IPv4 /24 or IPv6 /64.
    pub fn new(in_all: usize, per_prefix: usize) -> Self {
        Self { in_all, per_prefix, waiting: Arc::default() }
    }

    /// A place for `source`, if there is one.
    pub fn admit(&self, source: IpAddr) -> Option<Permit> {
        let prefix = prefix_of(source);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let in_all: usize = waiting.values().sum();
        let of_prefix = waiting.get(&prefix).copied().unwrap_or(0);
        if in_all >= self.in_all || of_prefix >= self.per_prefix {
            return None;
        }
        waiting.insert(prefix, of_prefix + 1);
        Some(Permit { prefix, waiting: Arc::clone(&self.waiting) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(&self.prefix) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                waiting.remove(&self.prefix);
            }
        }
    }
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
        let limit = PrefixLimit::new(3, 2);
        let near = |n: u8| IpAddr::from([192, 0, 2, n]);
        let (one, _two) = (limit.admit(near(1)), limit.admit(near(2)));
        assert!(one.is_some() && limit.admit(near(3)).is_none());
        let far = limit.admit(IpAddr::from([198, 51, 100, 1]));
        assert!(far.is_some() && limit.admit("2001:db8::1".parse().unwrap()).is_none(), "three in all");
        drop(one);
        assert!(limit.admit(near(3)).is_some());
    }
}
