//! What a worker remembers about flows, so that the ordered search runs once per flow and not per packet.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use super::lookup::Decision;
use super::selector::Flow;
use crate::sa_table::OutboundIndex;

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
    slots: Vec<Option<(Flow, CachedFlow)>>,
    spd_version: u32,
    /// Seeded per process, so that nobody outside can aim at one slot.
    hasher: RandomState,
}

impl FlowCache {
    /// A cache of `slots` flows, rounded up to a power of two.
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![None; slots.next_power_of_two()], spd_version: 0, hasher: RandomState::default() }
    }

    /// What is known about `flow` under the SPD of this version; forgets everything from another version.
    pub fn get(&mut self, flow: &Flow, spd_version: u32) -> Option<CachedFlow> {
        if self.spd_version != spd_version {
            self.slots.fill(None);
            self.spd_version = spd_version;
        }
        let slot = self.slot(flow);
        self.slots.get(slot)?.as_ref().filter(|(known, _)| known == flow).map(|(_, cached)| *cached)
    }

    /// Remembers a decision of the SPD that [`FlowCache::get`] was last asked about.
    pub fn put(&mut self, flow: &Flow, cached: CachedFlow) {
        let slot = self.slot(flow);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some((*flow, cached));
        }
    }

    fn slot(&self, flow: &Flow) -> usize {
        self.hasher.hash_one(flow) as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::inner::Ports;

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

    fn flow(port: u16) -> Flow {
        let address = std::net::IpAddr::from([10, 0, 0, 1]);
        Flow { local: address, remote: address, protocol: 17, ports: Ports::Known(port, port) }
    }
}
