//! The ordered policies and the search through them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::index::AddressIndex;
use super::protect::Protect;
use super::selector::{Flow, SelectorMatch, matches_any};
use crate::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};

/// What the SPD says about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Protect it; the number of the policy.
    Protect(u32),
    /// Let it pass in clear.
    Bypass,
    /// Drop it: a DISCARD policy.
    Discard,
    /// Drop it or leave it to the kernel: no policy covers it.
    NoPolicy,
    /// Drop it: a fragment whose unknown ports decide between policies.
    FragmentPorts,
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the protected side.
    Outbound,
    /// From outside, in clear.
    Inbound,
}

/// One policy, ready for the search.
pub struct SpdEntry {
    local: Vec<Selector>,
    remote: Vec<Selector>,
    action: Action,
}

enum Action {
    Protect { protect: Arc<Protect>, acquire: bool, interface: Option<Arc<str>> },
    Bypass,
    Discard,
}

/// The ordered policies of this gateway.
pub struct Spd {
    entries: Vec<SpdEntry>,
    /// Those that are not route-based, by the addresses of the other side; `None` if all have to be searched.
    by_remote: Option<AddressIndex>,
    /// Those of each route-based connection, by its TUN.
    by_interface: HashMap<Arc<str>, Vec<u32>>,
    version: u32,
}

impl Spd {
    /// Builds the SPD of `set`. PROTECT policies whose key is in `known` keep their SAs; new ones are added to
    /// it and those that `set` no longer has are taken out. `version` must differ from that of every SPD that
    /// workers have seen.
    pub fn build(set: &PolicySet, known: &mut HashMap<PolicyKey, Arc<Protect>>, version: u32) -> Self {
        let entries: Vec<_> = set.policies.iter().map(|policy| SpdEntry::new(policy, known)).collect();
        let named: HashSet<&PolicyKey> = entries.iter().filter_map(SpdEntry::key).collect();
        known.retain(|key, _| named.contains(key));
        let numbered = || (0u32..).zip(&entries);
        let others = numbered().filter(|(_, entry)| entry.interface().is_none());
        let by_remote = AddressIndex::build(others.map(|(number, entry)| (number, entry.remote.as_slice())));
        let mut by_interface: HashMap<_, Vec<_>> = HashMap::new();
        for (number, entry) in numbered() {
            if let Some(interface) = entry.interface() {
                by_interface.entry(interface.clone()).or_default().push(number);
            }
        }
        Self { entries, by_remote, by_interface, version }
    }

    /// Tells this SPD from those before it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The first policy that covers a flow. `interface` is the TUN of a route-based connection that the packet
    /// came from, if it did.
    pub fn decide(&self, flow: &Flow, interface: Option<&str>) -> Decision {
        match (interface, &self.by_remote) {
            (None, Some(index)) => self.first_of(index.candidates(flow.remote).iter().copied(), flow),
            (Some(interface), _) => {
                self.first_of(self.by_interface.get(interface).into_iter().flatten().copied(), flow)
            }
            (None, None) => {
                let others = (0u32..).zip(&self.entries).filter(|(_, entry)| entry.interface().is_none());
                self.first_of(others.map(|(number, _)| number), flow)
            }
        }
    }

    /// The first of these policies that covers a flow.
    fn first_of(&self, numbers: impl Iterator<Item = u32>, flow: &Flow) -> Decision {
        for number in numbers {
            let Some(entry) = self.entries.get(number as usize) else { continue };
            match matches_any(&entry.local, &entry.remote, flow) {
                SelectorMatch::No => {}
                SelectorMatch::PortsUnknown => return Decision::FragmentPorts,
                SelectorMatch::Yes => {
                    return match &entry.action {
                        Action::Protect { .. } => Decision::Protect(number),
                        Action::Bypass => Decision::Bypass,
                        Action::Discard => Decision::Discard,
                    };
                }
            }
        }
        Decision::NoPolicy
    }

    /// The PROTECT policy with this number, and whether it asks for an SA when it has none.
    pub fn protect(&self, number: u32) -> Option<(&Arc<Protect>, bool)> {
        match &self.entries.get(number as usize)?.action {
            Action::Protect { protect, acquire, .. } => Some((protect, *acquire)),
            Action::Bypass | Action::Discard => None,
        }
    }
}

impl SpdEntry {
    fn new(policy: &Policy, known: &mut HashMap<PolicyKey, Arc<Protect>>) -> Self {
        let action = match &policy.disposition {
            Disposition::Protect { key, acquire, interface } => {
                let protect = known.entry(key.clone()).or_insert_with(|| Arc::new(Protect::new(key.clone())));
                Action::Protect { protect: protect.clone(), acquire: *acquire, interface: interface.clone() }
            }
            Disposition::Bypass => Action::Bypass,
            Disposition::Discard => Action::Discard,
        };
        Self { local: policy.local.clone(), remote: policy.remote.clone(), action }
    }

    /// The child that it protects for.
    fn key(&self) -> Option<&PolicyKey> {
        match &self.action {
            Action::Protect { protect, .. } => Some(protect.key()),
            Action::Bypass | Action::Discard => None,
        }
    }

    /// The TUN of a route-based policy: it takes what the kernel routed into that and nothing else; every other policy takes
    /// the rest.
    fn interface(&self) -> Option<&Arc<str>> {
        match &self.action {
            Action::Protect { interface, .. } => interface.as_ref(),
            Action::Bypass | Action::Discard => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::inner::Ports;

    /// RFC 4301 section 4.4.1: the SPD is ordered, the first match decides.
    #[test]
    fn the_first_match_decides() {
        let (spd, _) = build(vec![
            policy("10.2.0.7", "10.2.0.7", Disposition::Bypass),
            policy("10.2.0.8", "10.2.0.8", Disposition::Discard),
            policy("10.2.0.0", "10.2.255.255", protect("net")),
        ]);
        assert_eq!(spd.decide(&flow("10.2.0.7"), None), Decision::Bypass);
        assert_eq!(spd.decide(&flow("10.2.0.8"), None), Decision::Discard);
        assert_eq!(spd.decide(&flow("10.2.0.9"), None), Decision::Protect(2));
        assert_eq!(spd.decide(&flow("10.3.0.1"), None), Decision::NoPolicy);
    }

    #[test]
    fn a_fragment_stops_at_the_first_policy_whose_ports_it_might_match() {
        let mut web = policy("10.2.0.0", "10.2.255.255", Disposition::Bypass);
        web.remote[0].ports = 80..=80;
        let (spd, _) = build(vec![web, policy("10.2.0.0", "10.2.255.255", protect("net"))]);
        let fragment = Flow { ports: Ports::Unknown, ..flow("10.2.0.1") };
        assert_eq!(spd.decide(&fragment, None), Decision::FragmentPorts);
        assert_eq!(spd.decide(&flow("10.2.0.1"), None), Decision::Protect(1));
    }

    #[test]
    fn a_new_policy_set_keeps_the_sas_of_policies_that_stay() {
        let (_, mut known) = build(vec![policy("10.2.0.0", "10.2.0.255", protect("a"))]);
        let kept = known.values().next().unwrap().clone();
        let set = PolicySet {
            policies: vec![
                policy("10.3.0.0", "10.3.0.255", protect("b")),
                policy("10.2.0.0", "10.2.0.255", protect("a")),
            ],
            ..PolicySet::default()
        };
        let spd = Spd::build(&set, &mut known, 2);
        assert!(Arc::ptr_eq(spd.protect(1).unwrap().0, &kept));
        Spd::build(&PolicySet::default(), &mut known, 3);
        assert!(known.is_empty());
    }

    #[test]
    fn a_route_based_policy_takes_only_what_comes_from_its_interface() {
        let Disposition::Protect { key, .. } = protect("vti") else { unreachable!() };
        let routed = Disposition::Protect { key, acquire: false, interface: Some("tun-dc".into()) };
        let (spd, _) = build(vec![policy("0.0.0.0", "255.255.255.255", routed)]);
        assert_eq!(spd.decide(&flow("10.2.0.1"), None), Decision::NoPolicy);
        assert_eq!(spd.decide(&flow("10.2.0.1"), Some("tun-dc")), Decision::Protect(0));
        assert_eq!(spd.decide(&flow("10.2.0.1"), Some("other")), Decision::NoPolicy);
    }

    /// However the policies are found, the first that matches decides.
    #[test]
    fn a_set_too_intricate_for_an_index_is_searched_as_a_whole() {
        let nested = (0..2000u32).map(|n| {
            let bound = |bits: u32| std::net::Ipv4Addr::from_bits(bits).to_string();
            let disposition = if n % 2 == 0 { Disposition::Bypass } else { Disposition::Discard };
            policy(&bound(1_000_000 - n), &bound(1_000_000 + n), disposition)
        });
        let (spd, _) = build(nested.collect());
        assert!(spd.by_remote.is_none());
        let at = |offset: u32| flow(&std::net::Ipv4Addr::from_bits(1_000_000 + offset).to_string());
        assert_eq!(spd.decide(&at(0), None), Decision::Bypass);
        assert_eq!(spd.decide(&at(1999), None), Decision::Discard);
        assert_eq!(spd.decide(&at(2000), None), Decision::NoPolicy);
    }

    fn build(policies: Vec<Policy>) -> (Spd, HashMap<PolicyKey, Arc<Protect>>) {
        let mut known = HashMap::new();
        let spd = Spd::build(&PolicySet { policies, ..PolicySet::default() }, &mut known, 1);
        (spd, known)
    }

    fn protect(child: &str) -> Disposition {
        let key = PolicyKey { connection: "c".into(), child: child.into() };
        Disposition::Protect { key, acquire: false, interface: None }
    }

    fn policy(first: &str, last: &str, disposition: Disposition) -> Policy {
        let selector = |first: &str, last: &str| Selector {
            addresses: first.parse().unwrap()..=last.parse().unwrap(),
            protocol: None,
            ports: 0..=u16::MAX,
        };
        Policy {
            local: vec![selector("0.0.0.0", "255.255.255.255")],
            remote: vec![selector(first, last)],
            disposition,
        }
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
