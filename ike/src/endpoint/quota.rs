//! How much strangers may hold: in all, and per source prefix.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Counts holders in all and per source prefix: IPv4 by /24, IPv6 by /64 and by /48. Its own memory is bounded by the
/// limit on all.
#[derive(Debug)]
pub(crate) struct Quota {
    most: usize,
    most_per_prefix: usize,
    all: usize,
    prefixes: BTreeMap<Prefix, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Prefix {
    V4([u8; 3]),
    V6Slash64(u64),
    V6Slash48(u64),
}

impl Quota {
    /// No holder yet.
    pub(crate) fn new(most: usize, most_per_prefix: usize) -> Self {
        Self { most, most_per_prefix, all: 0, prefixes: BTreeMap::new() }
    }

    /// Counts one more holder at `address`, or refuses it.
    pub(crate) fn admit(&mut self, address: IpAddr) -> bool {
        let prefixes = prefixes(address);
        let is_full = |prefix| self.prefixes.get(prefix).is_some_and(|n| *n >= self.most_per_prefix);
        if self.all >= self.most || prefixes.iter().flatten().any(is_full) {
            return false;
        }
        self.all += 1;
        for prefix in prefixes.into_iter().flatten() {
            *self.prefixes.entry(prefix).or_default() += 1;
        }
        true
    }

    /// A holder that was admitted is gone.
    pub(crate) fn leave(&mut self, address: IpAddr) {
        self.all = self.all.saturating_sub(1);
        for prefix in prefixes(address).into_iter().flatten() {
            if let Some(n) = self.prefixes.get_mut(&prefix) {
                *n = n.saturating_sub(1);
                if *n == 0 {
                    self.prefixes.remove(&prefix);
                }
            }
        }
    }

    /// Holders now.
    pub(crate) fn held(&self) -> usize {
        self.all
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
    use super::*;

    #[test]
    fn a_prefix_that_is_full_does_not_lock_out_others() {
        let mut quota = Quota::new(100, 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(quota.admit(ip("192.0.2.1")) && quota.admit(ip("192.0.2.2")));
        assert!(!quota.admit(ip("192.0.2.3")));
        assert!(quota.admit(ip("192.0.3.3")));
        quota.leave(ip("192.0.2.1"));
        assert!(quota.admit(ip("192.0.2.3")));
    }

    #[test]
    fn ipv6_is_counted_by_64_and_by_48() {
        let mut quota = Quota::new(100, 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(quota.admit(ip("2001:db8:1:1::1")) && quota.admit(ip("2001:db8:1:2::1")));
        assert!(!quota.admit(ip("2001:db8:1:3::1")), "the /48 is full");
        assert!(quota.admit(ip("2001:db8:2:1::1")));
    }

    #[test]
    fn the_limit_on_all_holds_and_nothing_is_left_behind() {
        let mut quota = Quota::new(3, 10);
        let addresses: Vec<IpAddr> = (0..5).map(|n| IpAddr::from([192, 0, n, 1])).collect();
        assert_eq!(addresses.iter().filter(|a| quota.admit(**a)).count(), 3);
        for address in &addresses[..3] {
            quota.leave(*address);
        }
        assert_eq!(quota.held(), 0);
        assert!(quota.prefixes.is_empty());
    }
}
