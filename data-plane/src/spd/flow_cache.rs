//! What a worker remembers about flows, so that the ordered search runs once per flow and not per packet.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use foldhash::quality::RandomState;

use super::index::bits;
use super::lookup::Decision;
use crate::packet::Inner;
use crate::packet::inner::Ports;
use crate::sa_table::OutboundIndex;

/// What tells flows of one direction apart, as numbers: it is hashed and compared for every packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    /// Addresses; those of IPv4 in the first word.
    addresses: [u64; 4],
    /// Ports, protocol, family.
    rest: u64,
}

/// A cached decision and SA of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedFlow {
    /// The SPD's decision.
    pub decision: Decision,
    /// For PROTECT: the outbound SA and the version of the policy's list it was chosen from.
    pub outbound: Option<(OutboundIndex, u32)>,
}

/// A direct-mapped table of fixed size: a flow that hits another's place takes it, so that no traffic makes it grow.
pub struct FlowCache {
    slots: Vec<Option<(FlowKey, CachedFlow)>>,
    spd_version: u32,
    /// Seeded per process, so that nobody outside can aim at one slot.
    hasher: RandomState,
}

const IS_V6: u64 = 1 << 63;

impl FlowKey {
    /// Of a packet that leaves the protected side, or comes out of a tunnel on its way there.
    #[inline]
    pub fn of(inner: &Inner) -> Self {
        let rest = upper_layer(inner.protocol, inner.ports);
        match (inner.source, inner.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let both = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
                Self { addresses: [both, 0, 0, 0], rest }
            }
            (source, destination) => {
                let (source, destination) = (bits(source), bits(destination));
                let halves = |bits: u128| ((bits >> 64) as u64, bits as u64);
                let ((a, b), (c, d)) = (halves(source), halves(destination));
                Self { addresses: [a, b, c, d], rest: rest | IS_V6 }
            }
        }
    }

    #[inline]
    fn is_v6(&self) -> bool {
        self.rest & IS_V6 != 0
    }
}

/// Protocol and ports in one number, of which the highest bit is free.
#[inline(always)]
pub(super) fn upper_layer(protocol: u8, ports: Ports) -> u64 {
    let ports = match ports {
        Ports::Known(first, second) => u64::from(first) << 16 | u64::from(second),
        Ports::Absent => 1 << 32,
        Ports::Unknown => 2 << 32,
    };
    ports << 8 | u64::from(protocol)
}

impl FlowCache {
    /// A cache of `slots` flows, rounded up to a power of two.
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![None; slots.next_power_of_two()], spd_version: 0, hasher: RandomState::default() }
    }

    /// What is known about a flow under the SPD of this version; forgets everything from another version.
    #[inline]
    pub fn get(&mut self, flow: &FlowKey, spd_version: u32) -> Option<CachedFlow> {
        if self.spd_version != spd_version {
            self.slots.fill(None);
            self.spd_version = spd_version;
        }
        let slot = self.slot(flow);
        self.slots.get(slot)?.as_ref().filter(|(known, _)| known == flow).map(|(_, cached)| *cached)
    }

    /// Remembers a decision of the SPD that [`FlowCache::get`] was last asked about.
    pub fn put(&mut self, flow: &FlowKey, cached: CachedFlow) {
        let slot = self.slot(flow);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some((*flow, cached));
        }
    }

    #[inline]
    fn slot(&self, flow: &FlowKey) -> usize {
        let mut hasher = self.hasher.build_hasher();
        let [first, further @ ..] = flow.addresses;
        hasher.write_u64(first);
        if flow.is_v6() {
            further.into_iter().for_each(|word| hasher.write_u64(word));
        }
        hasher.write_u64(flow.rest);
        hasher.finish() as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::IpVersion;
    use crate::packet::inner::{Fragment, Ports};

    const BYPASS: CachedFlow = CachedFlow { decision: Decision::Bypass, outbound: None };

    #[test]
    fn a_flow_is_found_until_the_spd_changes() {
        let mut cache = FlowCache::new(64);
        assert_eq!(cache.get(&flow(1), 1), None);
        cache.put(&flow(1), BYPASS);
        assert_eq!(cache.get(&flow(1), 1), Some(BYPASS));
        assert_eq!(cache.get(&flow(2), 1), None);
        assert_eq!(cache.get(&flow(1), 2), None);
        assert_eq!(cache.get(&flow(1), 1), None);
    }

    #[test]
    fn more_flows_than_slots_never_mix_up() {
        let mut cache = FlowCache::new(4);
        for port in 0..100 {
            cache.get(&flow(port), 1);
            cache.put(
                &flow(port),
                CachedFlow { decision: Decision::Protect(u32::from(port)), outbound: None },
            );
            for other in 0..=port {
                if let Some(cached) = cache.get(&flow(other), 1) {
                    assert_eq!(cached.decision, Decision::Protect(u32::from(other)));
                }
            }
        }
    }

    proptest! {
        /// Two packets have the same key if, and only if, selectors cannot tell them apart.
        #[test]
        fn keys_are_equal_where_flows_are(a in any_inner(), b in any_inner()) {
            let told_apart = |inner: &Inner| (inner.source, inner.destination, inner.protocol, inner.ports);
            prop_assert_eq!(FlowKey::of(&a) == FlowKey::of(&b), told_apart(&a) == told_apart(&b));
        }
    }

    /// Few values, so that many are equal; addresses of IPv6 that are those of IPv4 in numbers among them.
    fn any_inner() -> impl Strategy<Value = Inner> {
        let ports = prop_oneof![
            (0u16..2, 0u16..2).prop_map(|(a, b)| Ports::Known(a, b)),
            Just(Ports::Absent),
            Just(Ports::Unknown)
        ];
        (0u32..3, 0u32..3, any::<bool>(), 0u8..2, ports).prop_map(
            |(source, destination, is_v6, protocol, ports)| {
                let address = |number: u32| match is_v6 {
                    true => IpAddr::from(u128::from(number).to_be_bytes()),
                    false => IpAddr::from(number.to_be_bytes()),
                };
                Inner { protocol, ports, ..inner(address(source), address(destination)) }
            },
        )
    }

    fn flow(port: u16) -> FlowKey {
        let address = IpAddr::from([10, 0, 0, 1]);
        FlowKey::of(&Inner { ports: Ports::Known(port, port), ..inner(address, address) })
    }

    fn inner(source: IpAddr, destination: IpAddr) -> Inner {
        Inner {
            version: if source.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 },
            source,
            destination,
            protocol: 17,
            ports: Ports::Absent,
            payload_offset: 20,
            total_len: 28,
            traffic_class: 0,
            ttl: 64,
            dont_fragment: false,
            fragment: Fragment::Whole,
        }
    }
}
