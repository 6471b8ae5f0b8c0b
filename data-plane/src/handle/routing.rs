//! Routing: what of the policies the kernel has to know to bring packets to the workers, or not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_common::prefix_class::PrefixClass;

use crate::bpf::destinations;
use crate::config::DataPlaneConfig;
use crate::guard::{AddressRange, Prefix};
use crate::netlink::{Snapshot, TunRoute, TunRouting, network_of};
use crate::policy::{Disposition, Policy, PolicySet};

/// The ways into the TUN device for a set of policies. This host's own packets to a protected prefix come from an address
/// that the policy covers.
pub(super) fn tun_routing(config: &DataPlaneConfig, set: &PolicySet, network: &Snapshot) -> TunRouting {
    let own: Vec<_> = network.local_addresses().collect();
    let protected = config.interfaces.iter().filter(|i| i.protected);
    routing(set, &own, protected.map(|i| i.name.clone()).collect())
}

fn routing(set: &PolicySet, own: &[IpAddr], protected_interfaces: BTreeSet<Arc<str>>) -> TunRouting {
    let (mut protect, mut throw) = (BTreeMap::new(), BTreeSet::new());
    for policy in &set.policies {
        let prefixes =
            || policy.remote.iter().flat_map(|s| prefixes(*s.addresses.start(), *s.addresses.end()));
        let every_port = policy
            .remote
            .iter()
            .chain(&policy.local)
            .all(|s| s.protocol.is_none() && *s.ports.start() == 0 && *s.ports.end() == u16::MAX);
        match &policy.disposition {
            Disposition::Protect { interface: None, .. } => {
                for prefix in prefixes() {
                    protect.entry(prefix).or_insert_with(|| source(policy, own, prefix.0));
                }
            }
            // A bypass by protocol or port is the SPD's to find out.
            Disposition::Bypass if every_port => throw.extend(prefixes()),
            Disposition::Protect { .. } | Disposition::Bypass | Disposition::Discard => {}
        }
    }
    throw.extend(set.peers.iter().flatten().map(|peer| (*peer, if peer.is_ipv4() { 32 } else { 128 })));
    protect.retain(|prefix, _| !throw.contains(prefix));
    let protect = protect.into_iter().map(|(prefix, source)| TunRoute { prefix, source });
    let closed = if protected_interfaces.is_empty() { Vec::new() } else { closed(set) };
    let (protect, throw) = (protect.collect(), throw.into_iter().collect());
    TunRouting { protect, throw, protected_interfaces, closed }
}

/// Where the longest prefix of a destination says the same as the first policy that covers it: what passes in clear from a
/// protected interface without a worker, and what in it does not.
fn closed(set: &PolicySet) -> Vec<((IpAddr, u8), bool)> {
    let mut may_pass = HashMap::new();
    let shorter = |(address, length): (IpAddr, u8)| (0..length).map(move |l| network_of((address, l)));
    for (address, length, class) in destinations(set) {
        let prefix = network_of((address, length));
        let is_decided = |p| may_pass.contains_key(&p);
        if !is_decided(prefix) && !shorter(prefix).any(is_decided) {
            may_pass.insert(prefix, class == PrefixClass::Pass);
        }
    }
    let is_inside = |p| shorter(p).any(|p| may_pass.get(&p) == Some(&true));
    may_pass.iter().map(|(p, may)| (*p, *may)).filter(|&(p, may)| may || is_inside(p)).collect()
}

/// An address of this host that a policy covers, of the family of the destination.
fn source(policy: &Policy, own: &[IpAddr], destination: IpAddr) -> Option<IpAddr> {
    let covered = |a: &&IpAddr| policy.local.iter().any(|s| s.addresses.contains(*a));
    own.iter().filter(|a| a.is_ipv4() == destination.is_ipv4()).find(covered).copied()
}

fn prefixes(first: IpAddr, last: IpAddr) -> Vec<(IpAddr, u8)> {
    let range = AddressRange::new(first, last);
    range.map_or_else(
        |_| Vec::new(),
        |r| r.prefixes().into_iter().map(|Prefix { address, length }| (address, length)).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyKey, Selector};

    #[test]
    fn protected_prefixes_lead_into_the_tun_and_bypasses_and_peers_do_not() {
        let set = PolicySet {
            policies: vec![
                policy("10.2.7.0", "10.2.7.255", Disposition::Bypass),
                policy("10.2.0.0", "10.2.255.255", protect(None)),
                policy("10.3.0.0", "10.3.255.255", protect(Some("vti0".into()))),
                policy("10.4.0.0", "10.4.0.2", protect(None)),
            ],
            peers: vec![Some([192, 0, 2, 2].into()), None],
            ..PolicySet::default()
        };
        let own = ["192.0.2.1", "10.1.0.1"].map(|a| a.parse().unwrap());
        let TunRouting { protect, throw, .. } = routing(&set, &own, BTreeSet::new());
        assert!(protect.iter().all(|route| route.source == Some([10, 1, 0, 1].into())));
        let protect: Vec<_> = protect.iter().map(|route| route.prefix).collect();
        let text = |prefixes: &[(IpAddr, u8)]| -> Vec<String> {
            prefixes.iter().map(|(address, length)| format!("{address}/{length}")).collect()
        };
        assert_eq!(text(&protect), ["10.2.0.0/16", "10.4.0.0/31", "10.4.0.2/32"]);
        assert_eq!(text(&throw), ["10.2.7.0/24", "192.0.2.2/32"]);
    }

    #[test]
    fn a_bypass_of_one_port_leaves_the_route_alone() {
        let mut bypass = policy("10.2.7.0", "10.2.7.255", Disposition::Bypass);
        bypass.remote[0].ports = 80..=80;
        let set = PolicySet { policies: vec![bypass], ..PolicySet::default() };
        assert!(routing(&set, &[], BTreeSet::new()).throw.is_empty());
    }

    /// RFC 4301 section 4.4.1: the first policy that matches decides, and what none matches is discarded.
    #[test]
    fn from_a_protected_interface_only_a_bypass_of_everything_passes_by_routing() {
        let every_source = |last: &str, disposition| {
            let mut policy = policy("10.2.0.0", last, disposition);
            policy.local[0].addresses = "0.0.0.0".parse().unwrap()..="255.255.255.255".parse().unwrap();
            policy
        };
        let set = PolicySet {
            policies: vec![
                policy("10.2.0.128", "10.2.0.255", Disposition::Discard),
                every_source("10.2.0.255", Disposition::Bypass),
                // The one before decides on all of it.
                policy("10.2.0.0", "10.2.0.15", protect(None)),
                policy("10.2.0.0", "10.2.255.255", protect(None)),
                // Not for every source: a worker's to find out.
                policy("10.3.0.0", "10.3.0.255", Disposition::Bypass),
            ],
            guard_prefixes: vec![([10, 9, 1, 1].into(), 16)],
            ..PolicySet::default()
        };
        let lan = BTreeSet::from([Arc::from("lan0")]);
        let routing = routing(&set, &[], lan.clone());
        let closed: BTreeMap<_, _> =
            routing.closed.iter().map(|((a, l), may_pass)| (format!("{a}/{l}"), *may_pass)).collect();
        let expected = [("10.2.0.0/24", true), ("10.2.0.128/25", false), ("10.9.0.0/16", true)];
        assert_eq!(closed, expected.map(|(p, may_pass)| (p.to_owned(), may_pass)).into());
        assert_eq!(routing.protected_interfaces, lan);
    }

    fn protect(interface: Option<Arc<str>>) -> Disposition {
        let key = PolicyKey { connection: "c".into(), child: "n".into() };
        Disposition::Protect { key, acquire: false, interface }
    }

    fn policy(first: &str, last: &str, disposition: Disposition) -> Policy {
        let selector = |first: &str, last: &str| Selector {
            addresses: first.parse().unwrap()..=last.parse().unwrap(),
            protocol: None,
            ports: 0..=u16::MAX,
        };
        Policy {
            local: vec![selector("10.1.0.0", "10.1.255.255")],
            remote: vec![selector(first, last)],
            disposition,
        }
    }
}
