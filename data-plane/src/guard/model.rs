//! From what is asked for to the kernel policies that hold it: pure, and the same for every back end.
//!
//! An `allow` exists only where it cuts into a `block`. That keeps the guard small, keeps it out of the way of
//! other people's policies, and above all keeps each allow as narrow as possible: the kernel looks `out`
//! policies up for forwarded packets too, so an allow for "UDP 4500 to anybody" would pass inner traffic that
//! happens to use this port. Allows for IKE and ESP therefore start or end at an address of this host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::range::{AddressRange, Family, PortMask, PortRange, Prefix};
use super::spec::{GuardSpec, Pair, RuleAction};

/// What a policy does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is dropped.
    Block,
}

/// Where a policy is looked up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// For packets to this host.
    In,
    /// For packets that leave, this host's own and forwarded ones.
    Out,
    /// For packets that this host forwards.
    Forward,
}

/// Which packets a policy covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicySelector {
    /// Where it is looked up.
    pub direction: Direction,
    /// Source addresses.
    pub source: Prefix,
    /// Destination addresses, of the same family.
    pub destination: Prefix,
    /// IP protocol, or any.
    pub protocol: Option<u8>,
    /// Source ports; the type for ICMPv6.
    pub source_ports: PortMask,
    /// Destination ports.
    pub destination_ports: PortMask,
    /// Outgoing interface by index, or any.
    pub interface: Option<u32>,
}

/// Action and rank of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PolicyValue {
    /// The lowest number decides.
    pub priority: u32,
    /// What it does.
    pub action: Action,
}

/// The kernel policies that a guard consists of.
pub type DesiredPolicies = BTreeMap<PolicySelector, PolicyValue>;

/// Priority of what our own machinery needs: IKE, ESP, neighbour discovery, our TUN devices. Lower numbers than
/// any IKE daemon picks for its own kernel policies.
pub const ALLOW_PRIORITY: u32 = 1000;
/// Priority of the first rule; the following ones count up from here.
pub const RULE_PRIORITY: u32 = 2000;
/// Priority of what stops opened packets at an unprotected interface: behind every rule, as the SPD's final DISCARD is.
pub const EGRESS_PRIORITY: u32 = 1_000_000;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const MOBILITY_HEADER: u8 = 135;
/// Router solicitation to redirect (RFC 4861 section 4).
const NEIGHBOUR_DISCOVERY: PortRange = PortRange { first: 133, last: 137 };

const UNSPECIFIED: AddressRange = AddressRange::single(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
const LINK_LOCAL: AddressRange =
    AddressRange::prefix(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);
const LINK_MULTICAST: AddressRange =
    AddressRange::prefix(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), 16);

/// The policies that hold `spec`.
pub fn desired(spec: &GuardSpec) -> DesiredPolicies {
    let mut policies = Policies::default();
    for (rule, priority) in spec.rules.iter().zip(RULE_PRIORITY..) {
        for pair in &rule.pairs {
            match rule.action {
                RuleAction::Protect => policies.block(pair, priority),
                RuleAction::Bypass => {
                    later_protected(spec, priority, pair).for_each(|p| policies.bypass(&p, priority))
                }
                RuleAction::Discard => {
                    later_protected(spec, priority, pair).for_each(|p| policies.block(&p, priority))
                }
            }
        }
    }
    for pair in protected(spec) {
        policies.own_machinery(spec, pair);
    }
    for &wan in &spec.wan_interfaces {
        policies.egress(spec, wan);
    }
    policies.0
}

#[derive(Default)]
struct Policies(DesiredPolicies);

impl Policies {
    /// Clear text that matches is stopped in every direction, on arrival too (RFC 4301 section 5.2).
    fn block(&mut self, pair: &Pair, priority: u32) {
        for pair in covering(pair) {
            self.every_direction(&pair, PolicyValue { priority, action: Action::Block });
        }
    }

    /// What was opened may leave by an unprotected interface only if a rule says so, in this direction (RFC 4301
    /// section 5.1). Workers see to that by the routes that they know; this holds while the kernel knows newer ones.
    fn egress(&mut self, spec: &GuardSpec, wan: u32) {
        // What is protected is blocked on every interface. There are as many such rules as children, and few others.
        let ranked = spec.rules.iter().zip(RULE_PRIORITY..);
        let others: Vec<_> = ranked.filter(|(rule, _)| rule.action != RuleAction::Protect).collect();
        for opened in protected(spec).map(Pair::reversed) {
            for &(rule, priority) in &others {
                for pair in rule.pairs.iter().filter_map(|pair| pair.intersect(&opened)) {
                    match rule.action {
                        RuleAction::Protect => {}
                        RuleAction::Bypass if pair.protocol.is_some_and(has_types) && pair.has_ports() => {}
                        RuleAction::Bypass => {
                            let value = PolicyValue { priority, action: Action::Allow };
                            self.insert(Direction::Out, &pair, Some(wan), value);
                        }
                        RuleAction::Discard => self.block_at(wan, &pair, priority),
                    }
                }
            }
            self.block_at(wan, &opened, EGRESS_PRIORITY);
        }
    }

    fn block_at(&mut self, interface: u32, pair: &Pair, priority: u32) {
        for pair in covering(pair) {
            let value = PolicyValue { priority, action: Action::Block };
            self.insert(Direction::Out, &pair, Some(interface), value);
        }
    }

    fn bypass(&mut self, pair: &Pair, priority: u32) {
        if pair.protocol.is_some_and(has_types) && pair.has_ports() {
            return;
        }
        self.every_direction(pair, PolicyValue { priority, action: Action::Allow });
    }

    fn own_machinery(&mut self, spec: &GuardSpec, protected: &Pair) {
        let Pair { local, remote, .. } = protected;
        for &local in spec.local_addresses.range(local.first()..=local.last()) {
            for peer in spec.peers_in(*remote) {
                let remote = peer.map_or(AddressRange::all(Family::of(local)), AddressRange::single);
                let outer = Pair::addresses(AddressRange::single(local), remote);
                for carrier in ike_and_esp(&outer, peer.is_some()) {
                    if let Some(pair) = carrier.intersect(protected) {
                        self.allow(Direction::Out, &pair, None);
                        self.allow(Direction::In, &pair, None);
                    }
                }
            }
        }
        if protected.family() == Family::V6 {
            self.neighbour_discovery(spec, protected);
        }
        for &tun in &spec.tun_interfaces {
            self.allow(Direction::Out, protected, Some(tun));
        }
    }

    /// From and to addresses that are ours, or that nobody forwards.
    fn neighbour_discovery(&mut self, spec: &GuardSpec, protected: &Pair) {
        let own = || spec.local_addresses.iter().map(|&a| AddressRange::single(a));
        let protected = protected.without_ports();
        let messages =
            |local| Pair { protocol: Some(ICMPV6), ..Pair::addresses(local, AddressRange::all(Family::V6)) };
        for local in own().chain([UNSPECIFIED, LINK_LOCAL]) {
            let pair = Pair { local_ports: NEIGHBOUR_DISCOVERY, ..messages(local) };
            if let Some(pair) = pair.intersect(&protected) {
                self.allow(Direction::Out, &pair, None);
            }
        }
        for local in own().chain([LINK_LOCAL, LINK_MULTICAST]) {
            // The type is in the place of the source port: arriving, the remote side's.
            let pair = Pair { remote_ports: NEIGHBOUR_DISCOVERY, ..messages(local) };
            if let Some(pair) = pair.intersect(&protected) {
                self.allow(Direction::In, &pair, None);
            }
        }
    }

    fn every_direction(&mut self, pair: &Pair, value: PolicyValue) {
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            self.insert(direction, pair, None, value);
        }
    }

    fn allow(&mut self, direction: Direction, pair: &Pair, interface: Option<u32>) {
        self.insert(
            direction,
            pair,
            interface,
            PolicyValue { priority: ALLOW_PRIORITY, action: Action::Allow },
        );
    }

    fn insert(&mut self, direction: Direction, pair: &Pair, interface: Option<u32>, value: PolicyValue) {
        let (from, to, from_ports, to_ports) = match direction {
            Direction::Out => (pair.local, pair.remote, pair.local_ports, pair.remote_ports),
            Direction::In | Direction::Forward => {
                (pair.remote, pair.local, pair.remote_ports, pair.local_ports)
            }
        };
        let destinations = to.prefixes();
        let destination_ports = to_ports.masks();
        for source in from.prefixes() {
            for &destination in &destinations {
                for source_ports in from_ports.masks() {
                    for &destination_ports in &destination_ports {
                        let selector = PolicySelector {
                            direction,
                            source,
                            destination,
                            protocol: pair.protocol,
                            source_ports,
                            destination_ports,
                            interface,
                        };
                        let entry = self.0.entry(selector).or_insert(value);
                        if value.priority < entry.priority {
                            *entry = value;
                        }
                    }
                }
            }
        }
    }
}

/// What a block of `pair` has to cover for the kernel's selectors to miss nothing of it.
fn covering(pair: &Pair) -> impl Iterator<Item = Pair> {
    // ICMP types are no ports to the kernel's selector in the way RFC 4301 section 4.4.1.1 packs them: the whole
    // protocol is covered.
    let pair = if pair.protocol.is_some_and(has_types) { pair.without_ports() } else { *pair };
    // To the kernel's selector a fragment has ports 0 and 0 (RFC 4301 section 7): without this, fragments of protected
    // flows would be forwarded in clear.
    let none = PortRange::single(0);
    let fragments = pair.has_ports().then_some(Pair { local_ports: none, remote_ports: none, ..pair });
    [pair].into_iter().chain(fragments)
}

impl Pair {
    fn without_ports(&self) -> Self {
        Self { local_ports: PortRange::ANY, remote_ports: PortRange::ANY, ..*self }
    }

    /// The same traffic as if the other side were ours.
    fn reversed(&self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
            protocol: self.protocol,
            local_ports: self.remote_ports,
            remote_ports: self.local_ports,
        }
    }
}

fn protected(spec: &GuardSpec) -> impl Iterator<Item = &Pair> {
    spec.rules.iter().filter(|r| r.action == RuleAction::Protect).flat_map(|r| &r.pairs)
}

/// What `pair` cuts out of the PROTECT rules behind the one with this priority.
fn later_protected<'a>(
    spec: &'a GuardSpec,
    priority: u32,
    pair: &'a Pair,
) -> impl Iterator<Item = Pair> + 'a {
    let later = spec.rules.iter().skip((priority - RULE_PRIORITY) as usize + 1);
    later.filter(|r| r.action == RuleAction::Protect).flat_map(|r| &r.pairs).filter_map(|p| pair.intersect(p))
}

/// The carriers of IKE and ESP. To a peer whose address is not configured we never dial: only our own ports.
fn ike_and_esp(outer: &Pair, dials: bool) -> impl Iterator<Item = Pair> {
    let outer = *outer;
    let ports = [(UDP, 500), (UDP, 4500), (TCP, 4500)];
    let listening = ports.map(|(protocol, port)| Pair {
        protocol: Some(protocol),
        local_ports: PortRange::single(port),
        ..outer
    });
    let dialling = ports.map(|(protocol, port)| Pair {
        protocol: Some(protocol),
        remote_ports: PortRange::single(port),
        ..outer
    });
    let esp = Pair { protocol: Some(ESP), ..outer };
    listening.into_iter().chain(dialling.into_iter().filter(move |_| dials)).chain([esp])
}

/// Protocols whose "ports" are types and codes (RFC 4301 section 4.4.1.1).
const fn has_types(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6 | MOBILITY_HEADER)
}

#[cfg(test)]
mod tests;
