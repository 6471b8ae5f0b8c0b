//! Where a packet leaves: a neighbour on one of our AF_XDP ports, or the kernel.

use std::net::IpAddr;

use crate::packet::ethernet::MacAddress;

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
    },
    /// By the kernel: the neighbour is not resolved, or the interface has no AF_XDP.
    Kernel {
        /// MTU of the way out in bytes of IP.
        mtu: usize,
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
            Self::Port { mtu, .. } | Self::Kernel { mtu } => *mtu,
            Self::Local | Self::Unreachable => usize::from(u16::MAX),
        }
    }
}

/// The next hops of destinations seen lately, of fixed size.
pub struct NextHopCache {
    slots: Vec<Option<(IpAddr, NextHop)>>,
    version: u64,
}

impl NextHopCache {
    /// A cache of `slots` destinations, rounded up to a power of two.
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![None; slots.next_power_of_two()], version: 0 }
    }

    /// The next hop of `destination`; `find` is asked if it is not known or routes and neighbours are another
    /// version than at the last call.
    pub fn get(&mut self, destination: IpAddr, version: u64, find: impl FnOnce() -> NextHop) -> NextHop {
        if self.version != version {
            self.slots.fill(None);
            self.version = version;
        }
        let index = slot(destination) as usize & (self.slots.len() - 1);
        match self.slots.get_mut(index) {
            Some(Some((known, hop))) if *known == destination => *hop,
            Some(slot) => slot.insert((destination, find())).1,
            None => find(),
        }
    }
}

/// Multiplicative hashing; a sender who makes destinations collide slows down his own look-ups.
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

    #[test]
    fn a_destination_is_looked_up_once_until_routes_change() {
        let mut cache = NextHopCache::new(16);
        let destination = IpAddr::from([10, 0, 0, 1]);
        let first = NextHop::Kernel { mtu: 1500 };
        assert_eq!(cache.get(destination, 1, || first), first);
        assert_eq!(cache.get(destination, 1, || panic!("known")), first);
        assert_eq!(cache.get(destination, 2, || NextHop::Unreachable), NextHop::Unreachable);
    }

    #[test]
    fn colliding_destinations_replace_each_other() {
        let mut cache = NextHopCache::new(1);
        for i in 0..50u8 {
            let hop = NextHop::Kernel { mtu: usize::from(i) };
            assert_eq!(cache.get(IpAddr::from([10, 0, 0, i]), 1, || hop), hop);
        }
    }
}
