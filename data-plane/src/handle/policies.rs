//! Policies: what the guard, the routes, the XDP classes and the workers make of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::start::{StartError, tun_mtu, wan_indexes};
use super::{DataPlane, lock};
use crate::guard::{AddressRange, GuardSpec, Prefix};
use crate::netlink::TunRoute;
use crate::policy::{Disposition, Policy, PolicyKey, PolicySet};
use crate::spd::{Protect, Spd};
use crate::tun::Tun;

/// What must be known about the policies in force.
#[derive(Default)]
pub(super) struct Policies {
    protects: HashMap<PolicyKey, Arc<Protect>>,
    set: PolicySet,
    version: u32,
}

impl Policies {
    /// The SPD of a new set; SAs of policies that stay are kept.
    pub(super) fn build(&mut self, set: PolicySet) -> Spd {
        self.version += 1;
        self.set = set;
        Spd::build(&self.set, &mut self.protects, self.version)
    }

    /// The policies themselves.
    pub(super) fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The PROTECT policy of this name.
    pub(super) fn protect(&self, key: &PolicyKey) -> Option<Arc<Protect>> {
        self.protects.get(key).cloned()
    }

    /// The TUN device of a route-based policy.
    pub(super) fn interface(&self, key: &PolicyKey) -> Option<Arc<str>> {
        self.set.policies.iter().find_map(|policy| match &policy.disposition {
            Disposition::Protect { key: own, interface, .. } if own == key => interface.clone(),
            _ => None,
        })
    }
}

impl DataPlane {
    /// Replaces all policies: the guard covers new ones before anything else knows them, and uncovers old ones when
    /// nothing knows them any more.
    ///
    /// # Errors
    /// When guard, device or routes refuse; the guard then still covers old and new.
    pub fn set_policies(&self, set: PolicySet) -> Result<(), StartError> {
        let inner = &*self.inner;
        let mut policies = lock(&inner.policies);
        let both = PolicySet {
            policies: set.policies.iter().chain(&policies.set.policies).cloned().collect(),
            peers: set.peers.iter().chain(&policies.set.peers).copied().collect(),
            guard_prefixes: set.guard_prefixes.iter().chain(&policies.set.guard_prefixes).copied().collect(),
            guard_rules: set.guard_rules.iter().chain(&policies.set.guard_rules).cloned().collect(),
        };
        self.guard(&both)?;
        for name in interfaces(&set) {
            if inner.shared.kernel.tun_named(&name).is_none() {
                let mtu = tun_mtu(&inner.network.snapshot(), &inner.config);
                let tun = Tun::create(&name, mtu, true, inner.config.offloads, inner.shared.workers.len())?;
                let ifindex = tun.ifindex();
                inner.guard.update(|spec| {
                    spec.tun_interfaces.insert(ifindex);
                })?;
                inner.shared.kernel.add_tun(tun, name);
            }
        }
        let own: Vec<_> = inner.network.snapshot().local_addresses().collect();
        let prefixes = tun_prefixes(&set, &own);
        let main_tun = inner.shared.kernel.tuns().first().map(|t| t.tun.ifindex());
        if let Some(ifindex) = main_tun {
            lock(&inner.routes).replace(ifindex, &prefixes.protect, &prefixes.throw)?;
        }
        if let Some(xdp) = &inner.xdp {
            xdp.set_policies(&set)?;
        }
        let spd = policies.build(set);
        inner.shared.spd.store(Arc::new(spd));
        self.guard(&policies.set)
    }

    fn guard(&self, set: &PolicySet) -> Result<(), StartError> {
        let snapshot = self.inner.network.snapshot();
        let tuns: Vec<_> = self.inner.shared.kernel.tuns().iter().map(|t| t.tun.ifindex()).collect();
        let wan = wan_indexes(&self.inner.config, &snapshot);
        Ok(self.inner.guard.set(GuardSpec::new(set, snapshot.local_addresses(), tuns, wan))?)
    }
}

/// TUN devices of the route-based policies.
pub(super) fn interfaces(set: &PolicySet) -> BTreeSet<Arc<str>> {
    let interface = |policy: &Policy| match &policy.disposition {
        Disposition::Protect { interface, .. } => interface.clone(),
        Disposition::Bypass | Disposition::Discard => None,
    };
    set.policies.iter().filter_map(interface).collect()
}

/// Which way the kernel is to send packets, by destination prefix.
pub(super) struct TunPrefixes {
    /// Into the TUN device of the policy-based connections.
    pub protect: Vec<TunRoute>,
    /// Not, although inside the others: bypassed prefixes, and the peers themselves.
    pub throw: Vec<(IpAddr, u8)>,
}

/// The prefixes of a policy set. `own` are this host's addresses: its packets to a protected prefix come from the one
/// that the policy covers.
pub(super) fn tun_prefixes(set: &PolicySet, own: &[IpAddr]) -> TunPrefixes {
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
    TunPrefixes { protect: protect.collect(), throw: throw.into_iter().collect() }
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
    use crate::policy::Selector;

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
        let TunPrefixes { protect, throw } =
            tun_prefixes(&set, &["192.0.2.1", "10.1.0.1"].map(|a| a.parse().unwrap()));
        assert!(protect.iter().all(|route| route.source == Some([10, 1, 0, 1].into())));
        let protect: Vec<_> = protect.iter().map(|route| route.prefix).collect();
        let text = |prefixes: &[(IpAddr, u8)]| -> Vec<String> {
            prefixes.iter().map(|(address, length)| format!("{address}/{length}")).collect()
        };
        assert_eq!(text(&protect), ["10.2.0.0/16", "10.4.0.0/31", "10.4.0.2/32"]);
        assert_eq!(text(&throw), ["10.2.7.0/24", "192.0.2.2/32"]);
        assert_eq!(interfaces(&set).into_iter().collect::<Vec<_>>(), ["vti0".into()]);
    }

    #[test]
    fn a_bypass_of_one_port_leaves_the_route_alone() {
        let mut bypass = policy("10.2.7.0", "10.2.7.255", Disposition::Bypass);
        bypass.remote[0].ports = 80..=80;
        let set = PolicySet { policies: vec![bypass], ..PolicySet::default() };
        assert!(tun_prefixes(&set, &[]).throw.is_empty());
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
