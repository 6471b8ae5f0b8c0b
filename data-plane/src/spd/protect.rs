//! A PROTECT policy and the outbound SAs that serve it.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;

use super::selector::{Flow, SelectorMatch, matches_any};
use crate::policy::PolicyKey;
use crate::sa::{ChildId, SaSelectors};
use crate::sa_table::OutboundIndex;

/// An outbound SA that a policy may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbound {
    /// The pair.
    pub child: ChildId,
    /// Index in the outbound SA table.
    pub index: OutboundIndex,
    /// What was negotiated: with `remote: any` every peer has its own.
    pub selectors: SaSelectors,
    /// Which of several with these selectors it is (RFC 9611).
    pub resource: u8,
}

/// A PROTECT policy's name and its outbound SAs, the one to use first.
///
/// The rekey switch is [`Protect::use_outbound`]: one atomic store that workers see with their next batch.
pub struct Protect {
    key: PolicyKey,
    outbound: ArcSwap<Vec<Outbound>>,
    /// Changes with `outbound`, so that a worker's cached choice is checked with one load.
    version: AtomicU32,
    /// When an SA was last asked for, in nanoseconds of the workers' clock; 0: never.
    last_acquire_ns: AtomicU64,
    /// Spreads flows over resources; the same for every worker, so that a flow stays on one SA.
    hasher: RandomState,
}

impl Protect {
    /// A policy without SAs.
    pub fn new(key: PolicyKey) -> Self {
        Self {
            key,
            outbound: ArcSwap::from_pointee(Vec::new()),
            version: AtomicU32::new(0),
            last_acquire_ns: AtomicU64::new(0),
            hasher: RandomState::default(),
        }
    }

    /// Connection and child.
    pub fn key(&self) -> &PolicyKey {
        &self.key
    }

    /// Changes whenever the choice of SAs does.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// From now on packets inside this SA's selectors use it, also where an older one fits.
    pub fn use_outbound(&self, outbound: Outbound) {
        self.change(|list| {
            list.retain(|o| o.child != outbound.child);
            list.reserve_exact(1);
            list.insert(0, outbound.clone());
        });
    }

    /// Forgets an SA.
    pub fn remove_outbound(&self, child: ChildId) {
        self.change(|list| list.retain(|o| o.child != child));
    }

    /// The SA for a flow; `Err` if there are SAs but none that takes it: `PortsUnknown` where only the ports
    /// of a fragment are in doubt, `No` where it lies outside what the peers agreed to. Of several SAs with the same selectors, one for
    /// each resource, each has its share of the flows (RFC 9611).
    pub fn choose(&self, flow: &Flow) -> Result<Option<OutboundIndex>, SelectorMatch> {
        let list = self.outbound.load();
        let mut refused = None;
        for outbound in list.iter() {
            match matches_any(&outbound.selectors.local, &outbound.selectors.remote, flow) {
                SelectorMatch::Yes => return Ok(Some(self.spread(&list, outbound, flow))),
                SelectorMatch::No => refused = refused.or(Some(SelectorMatch::No)),
                SelectorMatch::PortsUnknown => refused = Some(SelectorMatch::PortsUnknown),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The SA of this flow among those with the selectors of `first`: by a hash, and by the number of the resource, so that a rekey moves
    /// no flow to another resource.
    fn spread(&self, list: &[Outbound], first: &Outbound, flow: &Flow) -> OutboundIndex {
        let alike = || list.iter().filter(|outbound| outbound.selectors == first.selectors);
        let mut resources = [0_u64; 4];
        for outbound in alike() {
            let (word, bit) = (usize::from(outbound.resource / 64), outbound.resource % 64);
            resources[word] |= 1 << bit;
        }
        let count = resources.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        if count < 2 {
            return first.index;
        }
        let nth = (self.hasher.hash_one(flow) % count) as usize;
        let is_there = |resource: &u8| resources[usize::from(*resource / 64)] >> (*resource % 64) & 1 == 1;
        let resource = (0..=u8::MAX).filter(is_there).nth(nth);
        alike().find(|outbound| Some(outbound.resource) == resource).map_or(first.index, |found| found.index)
    }

    /// The SAs in use, the preferred first.
    pub fn outbound(&self) -> Arc<Vec<Outbound>> {
        self.outbound.load_full()
    }

    /// True if an SA should be asked for now: at most once per `interval`, over all workers.
    pub fn may_acquire(&self, now: Duration, interval: Duration) -> bool {
        let now_ns = (now.as_nanos() as u64).max(1);
        let last = self.last_acquire_ns.load(Ordering::Relaxed);
        let due = last == 0 || now_ns.saturating_sub(last) >= interval.as_nanos() as u64;
        due && self
            .last_acquire_ns
            .compare_exchange(last, now_ns, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn change(&self, change: impl Fn(&mut Vec<Outbound>)) {
        self.outbound.rcu(|list| {
            let mut list = Vec::clone(list);
            change(&mut list);
            list
        });
        self.version.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::inner::Ports;
    use crate::policy::Selector;

    /// RFC 7296 section 2.8: after the switch new packets use the new SA while the old one still exists.
    #[test]
    fn the_sa_used_last_wins_and_the_older_returns_if_it_goes() {
        let protect = policy();
        assert_eq!(protect.choose(&flow("10.2.0.1")), Ok(None));
        protect.use_outbound(outbound(1, 10, "10.2.0.0", "10.2.0.255"));
        let version = protect.version();
        protect.use_outbound(outbound(2, 20, "10.2.0.0", "10.2.0.255"));
        assert_eq!(protect.choose(&flow("10.2.0.1")), Ok(Some(OutboundIndex(20))));
        assert_ne!(protect.version(), version);
        protect.remove_outbound(ChildId(1));
        assert_eq!(protect.choose(&flow("10.2.0.1")), Ok(Some(OutboundIndex(20))));
        protect.remove_outbound(ChildId(2));
        assert_eq!(protect.choose(&flow("10.2.0.1")), Ok(None));
    }

    /// RFC 4301 section 4.4.1: one policy, several peers, each with the selectors it negotiated.
    #[test]
    fn several_peers_of_one_policy_are_told_apart_by_their_selectors() {
        let protect = policy();
        protect.use_outbound(outbound(1, 10, "10.2.0.0", "10.2.0.255"));
        protect.use_outbound(outbound(2, 20, "10.2.1.0", "10.2.1.255"));
        assert_eq!(protect.choose(&flow("10.2.0.1")), Ok(Some(OutboundIndex(10))));
        assert_eq!(protect.choose(&flow("10.2.1.1")), Ok(Some(OutboundIndex(20))));
        assert_eq!(protect.choose(&flow("10.2.2.1")), Err(SelectorMatch::No));
    }

    /// RFC 9611: every resource gets flows, each flow one resource, through rekeys; another peer's SAs are not among them.
    #[test]
    fn flows_are_spread_over_resources_and_stay_there() {
        let protect = policy();
        let of = |child, resource| Outbound {
            resource,
            ..outbound(child, child as u32, "10.2.0.0", "10.2.0.255")
        };
        protect.use_outbound(outbound(99, 99, "10.3.0.0", "10.3.0.255"));
        for resource in [0, 1, 2, 200] {
            protect.use_outbound(of(u64::from(resource), resource));
        }
        let flows: Vec<_> = (0..=255).map(|last| flow(&format!("10.2.0.{last}"))).collect();
        let choose = |protect: &Protect| {
            flows.iter().map(|flow| protect.choose(flow).unwrap().unwrap().0).collect::<Vec<_>>()
        };
        let before = choose(&protect);
        for resource in [0, 1, 2, 200] {
            let share = before.iter().filter(|index| **index == resource).count();
            assert!((32..128).contains(&share), "{share} of 256 flows on {resource}");
        }
        // A rekey of one, and the end of its predecessor.
        protect.use_outbound(of(300, 1));
        let after = choose(&protect);
        protect.remove_outbound(ChildId(1));
        assert_eq!(choose(&protect), after);
        for (before, after) in before.iter().zip(after) {
            assert_eq!(if *before == 1 { 300 } else { *before }, after);
        }
        // One is gone: its flows go to the others.
        protect.remove_outbound(ChildId(200));
        assert!(choose(&protect).iter().all(|index| [0, 300, 2].contains(index)));
        assert_eq!(protect.choose(&flow("10.3.0.1")), Ok(Some(OutboundIndex(99))));
    }

    #[test]
    fn an_sa_is_asked_for_at_most_once_per_interval() {
        let protect = policy();
        let (second, at) = (Duration::from_secs(1), Duration::from_millis);
        assert!(protect.may_acquire(at(0), second));
        assert!(!protect.may_acquire(at(999), second));
        assert!(protect.may_acquire(at(1001), second));
    }

    fn policy() -> Protect {
        Protect::new(PolicyKey { connection: "c".into(), child: "n".into() })
    }

    fn outbound(child: u64, index: u32, first: &str, last: &str) -> Outbound {
        let selector = |first: &str, last: &str| Selector {
            addresses: first.parse().unwrap()..=last.parse().unwrap(),
            protocol: None,
            ports: 0..=u16::MAX,
        };
        let selectors = SaSelectors {
            local: [selector("10.1.0.0", "10.1.255.255")].into(),
            remote: [selector(first, last)].into(),
        };
        Outbound { child: ChildId(child), index: OutboundIndex(index), selectors, resource: 0 }
    }

    fn flow(remote: &str) -> Flow {
        Flow {
            local: "10.1.0.1".parse().unwrap(),
            remote: remote.parse().unwrap(),
            protocol: 17,
            ports: Ports::Known(1, 2),
        }
    }
}
