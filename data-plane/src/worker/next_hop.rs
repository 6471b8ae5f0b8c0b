//! Where a packet leaves: a neighbour on one of our AF_XDP ports, or the kernel.

use std::net::IpAddr;
use std::time::Duration;

use crate::packet::ethernet::MacAddress;

/// The kernel sees none of our packets, and would forget a neighbour that only we talk to.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// How the next hop of a destination is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// By a port of this worker.
    Port {
        /// Its number among the worker's ports.
        port: usize,
        /// The neighbour.
        mac: MacAddress,
        /// MTU of the interface in bytes of IP.
        mtu: usize,
        /// Its link is there.
        is_up: bool,
    },
    /// By the kernel: the neighbour is not resolved, or the interface has no AF_XDP.
    Kernel {
        /// MTU of the way out in bytes of IP.
        mtu: usize,
        /// The way out is an unprotected interface (RFC 4301 section 3.1).
        is_wan: bool,
        /// Its link is there.
        is_up: bool,
        /// The neighbour is known.
        is_resolved: bool,
    },
    /// Nowhere: the address is ours.
    Local,
    /// Nobody knows the way.
    Unreachable,
}

impl NextHop {
    /// Largest IP packet on the way out in bytes.
    pub fn mtu(&self) -> usize {
        match self {
            Self::Port { mtu, .. } | Self::Kernel { mtu, .. } => *mtu,
            Self::Local | Self::Unreachable => usize::from(u16::MAX),
        }
    }
}

/// A neighbour that the kernel should confirm: interface and address.
pub type Confirm = (u32, IpAddr);

/// The next hops of destinations seen lately, of fixed size.
pub struct NextHopCache {
    slots: Vec<Option<Known>>,
    version: u64,
}

#[derive(Clone, Copy)]
struct Known {
    destination: IpAddr,
    hop: NextHop,
    neighbour: Option<Confirm>,
    confirm_at: Duration,
}

impl NextHopCache {
    /// A cache of `slots` destinations, rounded up to a power of two.
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![None; slots.next_power_of_two()], version: 0 }
    }

    /// The next hop of `destination`, and the neighbour to confirm if that is due; `find` is asked if it is not
    /// known or routes and neighbours are another version than at the last call.
    #[inline]
    pub fn get(
        &mut self,
        destination: IpAddr,
        version: u64,
        now: Duration,
        find: impl FnOnce() -> (NextHop, Option<Confirm>),
    ) -> (&NextHop, Option<Confirm>) {
        if self.version != version {
            self.slots.fill(None);
            self.version = version;
        }
        let index = slot(destination) as usize & (self.slots.len() - 1);
        let place = &mut self.slots[index];
        let is_known = place.as_ref().is_some_and(|known| known.destination == destination);
        if !is_known {
            *place = None;
        }
        let known = place.get_or_insert_with(|| {
            let (hop, neighbour) = find();
            Known { destination, hop, neighbour, confirm_at: now }
        });
        if now < known.confirm_at {
            return (&known.hop, None);
        }
        known.confirm_at = now + CONFIRM_INTERVAL;
        (&known.hop, known.neighbour)
    }
}

/// Multiplicative hashing; a sender who makes destinations collide slows down his own look-ups.
#[inline]
fn slot(address: IpAddr) -> u32 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let bits = match address {
        IpAddr::V4(a) => u64::from(a.to_bits()),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            bits as u64 ^ (bits >> 64) as u64
        }
    };
    (bits.wrapping_mul(GOLDEN) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_destination_is_looked_up_once_until_routes_change() {
        let mut cache = NextHopCache::new(16);
        let destination = IpAddr::from([10, 0, 0, 1]);
        let first = kernel(1500);
        assert_eq!(*cache.get(destination, 1, NOW, || (first, None)).0, first);
        assert_eq!(*cache.get(destination, 1, NOW, || panic!("known")).0, first);
        assert_eq!(*cache.get(destination, 2, NOW, || (NextHop::Unreachable, None)).0, NextHop::Unreachable);
    }

    #[test]
    fn a_neighbour_in_use_is_confirmed_once_a_second() {
        let mut cache = NextHopCache::new(16);
        let neighbour = IpAddr::from([10, 0, 0, 1]);
        let found = (NextHop::Port { port: 0, mac: [2; 6], mtu: 1500, is_up: true }, Some((3, neighbour)));
        let mut confirm = |ms| cache.get(neighbour, 1, Duration::from_millis(ms), || found).1;
        assert_eq!(
            [0, 10, 999, 1000, 1001, 2000].map(|ms| confirm(ms).is_some()),
            [true, false, false, true, false, true]
        );
    }

    #[test]
    fn colliding_destinations_replace_each_other() {
        let mut cache = NextHopCache::new(1);
        for i in 0..50u8 {
            let hop = kernel(usize::from(i));
            assert_eq!(*cache.get(IpAddr::from([10, 0, 0, i]), 1, NOW, || (hop, None)).0, hop);
        }
    }

    fn kernel(mtu: usize) -> NextHop {
        NextHop::Kernel { mtu, is_wan: false, is_up: true, is_resolved: true }
    }
}
