//! What the guard is asked to hold: the SPD as plain data that survives a reboot in a file.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::range::{AddressRange, Family, PortRange};
use crate::policy::{Disposition, Policy, PolicySet, Selector};

/// Everything that decides the guard's kernel policies.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// Ordered like the SPD; the first match decides.
    pub rules: Vec<Rule>,
    /// Addresses of peers that IKE and ESP may reach although a rule covers them; `None` is any.
    pub peers: BTreeSet<Option<IpAddr>>,
    /// This host's own addresses.
    pub local_addresses: BTreeSet<IpAddr>,
    /// Interface indexes of our TUN devices. They mean nothing after a reboot and are not kept in the file.
    #[serde(skip)]
    pub tun_interfaces: BTreeSet<u32>,
    /// Interface indexes of the unprotected side; not kept either: without a daemon nothing is opened.
    #[serde(skip)]
    pub wan_interfaces: BTreeSet<u32>,
}

/// One entry of the SPD, as far as the guard cares.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens to clear text that matches.
    pub action: RuleAction,
    /// What it covers: one pair is enough to match.
    pub pairs: Vec<Pair>,
}

/// What happens to clear text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// It is stopped: the traffic belongs in ESP.
    Protect,
    /// It passes.
    Bypass,
    /// It is stopped where a later rule protects.
    Discard,
}

/// Local with remote addresses, protocol and ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Our side.
    pub local: AddressRange,
    /// The other side, of the same family.
    pub remote: AddressRange,
    /// IP protocol, or any.
    pub protocol: Option<u8>,
    /// Ports of our side.
    pub local_ports: PortRange,
    /// Ports of the other side.
    pub remote_ports: PortRange,
}

impl GuardSpec {
    /// What `policies` ask for on a host with these addresses, TUN devices and interfaces of the unprotected side.
    pub fn new(
        policies: &PolicySet,
        local_addresses: impl IntoIterator<Item = IpAddr>,
        tun_interfaces: impl IntoIterator<Item = u32>,
        wan_interfaces: impl IntoIterator<Item = u32>,
    ) -> Self {
        let prefixes = policies.guard_prefixes.iter().map(|&(address, length)| {
            let remote = AddressRange::prefix(address, length);
            Rule {
                action: RuleAction::Protect,
                pairs: vec![Pair::addresses(AddressRange::all(remote.family()), remote)],
            }
        });
        Self {
            rules: policies
                .policies
                .iter()
                .filter_map(rule)
                .chain(prefixes)
                .chain(policies.guard_rules.iter().cloned())
                .collect(),
            peers: policies.peers.iter().copied().collect(),
            local_addresses: local_addresses.into_iter().collect(),
            tun_interfaces: tun_interfaces.into_iter().collect(),
            wan_interfaces: wan_interfaces.into_iter().collect(),
        }
    }

    /// Peers whose address is in `range` or not configured. Ordered access: there are as many peers as rules.
    pub(super) fn peers_in(&self, range: AddressRange) -> impl Iterator<Item = Option<IpAddr>> {
        let named = self.peers.range(Some(range.first())..=Some(range.last()));
        self.peers.get(&None).into_iter().chain(named).copied()
    }
}

/// Route-based children have no rule: their selectors are 0/0, and `guard_prefixes` says what to cover.
fn rule(policy: &Policy) -> Option<Rule> {
    let action = match &policy.disposition {
        Disposition::Protect { interface: Some(_), .. } => return None,
        Disposition::Protect { .. } => RuleAction::Protect,
        Disposition::Bypass => RuleAction::Bypass,
        Disposition::Discard => RuleAction::Discard,
    };
    let pairs =
        policy.local.iter().flat_map(|l| policy.remote.iter().filter_map(|r| Pair::of(l, r))).collect();
    Some(Rule { action, pairs })
}

impl Pair {
    /// All traffic between two ranges of one family.
    pub const fn addresses(local: AddressRange, remote: AddressRange) -> Self {
        Self { local, remote, protocol: None, local_ports: PortRange::ANY, remote_ports: PortRange::ANY }
    }

    /// What both hold.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => a.or(b),
        };
        Some(Self {
            local: self.local.intersect(other.local)?,
            remote: self.remote.intersect(other.remote)?,
            protocol,
            local_ports: self.local_ports.intersect(other.local_ports)?,
            remote_ports: self.remote_ports.intersect(other.remote_ports)?,
        })
    }

    /// Whether it names ports, which fragments do not carry.
    pub fn has_ports(&self) -> bool {
        !self.local_ports.is_any() || !self.remote_ports.is_any()
    }

    /// The family of its addresses.
    pub const fn family(&self) -> Family {
        self.local.family()
    }

    /// `None` when no packet can match both: other families, other protocols, a range backwards.
    fn of(local: &Selector, remote: &Selector) -> Option<Self> {
        let range = |s: &Selector| AddressRange::new(*s.addresses.start(), *s.addresses.end()).ok();
        let side =
            |s: &Selector| Some(Self { protocol: s.protocol, ..Self::addresses(range(s)?, range(s)?) });
        let (l, r) = (side(local)?, side(remote)?);
        if l.family() != r.family() || matches!((l.protocol, r.protocol), (Some(a), Some(b)) if a != b) {
            return None;
        }
        Some(Self {
            local: l.local,
            remote: r.remote,
            protocol: l.protocol.or(r.protocol),
            local_ports: (&local.ports).into(),
            remote_ports: (&remote.ports).into(),
        })
    }
}
