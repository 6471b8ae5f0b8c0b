//! Policies: what the guard, the routes, the XDP classes and the workers make of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::routing::tun_routing;
use super::start::{StartError, tun_mtu, wan_indexes};
use super::{DataPlane, lock};
use crate::guard::GuardSpec;
use crate::policy::{Disposition, Policy, PolicyKey, PolicySet};
use crate::spd::{Protect, Spd};
use crate::tun::Tun;

/// What must be known about the policies in force.
#[derive(Default)]
pub(super) struct Policies {
    protects: HashMap<PolicyKey, Arc<Protect>>,
    /// The TUN devices of those that are route-based.
    interfaces: HashMap<PolicyKey, Arc<str>>,
    set: PolicySet,
    version: u32,
}

impl Policies {
    /// The SPD of a new set; SAs of policies that stay are kept.
    pub(super) fn build(&mut self, set: PolicySet) -> Spd {
        self.version += 1;
        let interface = |policy: &Policy| match &policy.disposition {
            Disposition::Protect { key, interface, .. } => Some((key.clone(), interface.clone()?)),
            Disposition::Bypass | Disposition::Discard => None,
        };
        self.interfaces = set.policies.iter().filter_map(interface).collect();
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
        self.interfaces.get(key).cloned()
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
        let routing = tun_routing(&inner.config, &set, &inner.network.snapshot());
        let main_tun = inner.shared.kernel.tuns().first().map(|t| t.tun.ifindex());
        if let Some(ifindex) = main_tun {
            lock(&inner.routes).replace(ifindex, &routing)?;
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
