//! Routes that lead protected traffic into our TUN device, in two routing tables of their own.
//!
//! ```text
//! 1870: from all iif <tun> lookup main       what we inject must never be routed back into the TUN
//! 1871: from all iif <lan> lookup <closed>   a protected interface: everything into the TUN, or nowhere
//! 1872: from all lookup <table>              protected prefixes: into the TUN; bypassed ones in them: throw
//! ```
//!
//! So the final DISCARD (RFC 4301 section 4.4.1) of a protected interface is a worker's, and with the TUN device gone
//! what was meant for it is dropped: the closed table has a last route to nowhere.
//!
//! Tables and rules carry the instance's tags and our protocol number, so that they are recognised after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};

use super::owner;
use super::raw::{NetlinkSocket, Request};

/// Preference of the rule for what comes out of the TUN; the next number is the rule for what goes into it.
const PREFERENCE: u32 = 1870;
/// Our number among routing protocols (`rt_protos`), unassigned there: routing daemons remove what they find under
/// theirs.
pub(super) const PROTOCOL: u8 = 80;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const FLAGS_CREATE_OR_REPLACE: u16 = 0x500;
const FLAGS_CREATE_EXCLUSIVE: u16 = 0x600;

/// Metric of the route that is left when the TUN device is gone.
const LAST_METRIC: u32 = u32::MAX;

/// The routes of one instance.
#[derive(Debug)]
pub struct TunRoutes {
    socket: NetlinkSocket,
    table: u32,
    closed_table: u32,
    tun: Option<String>,
}

/// A route or rule could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("routes into the TUN device: {0}")]
pub struct RouteError(#[from] io::Error);

/// A prefix that leads into the TUN device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TunRoute {
    /// Address and length in bits.
    pub prefix: (IpAddr, u8),
    /// The address that this host's own packets to it come from, so that they are inside the SA's selectors;
    /// `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
}

impl From<(IpAddr, u8)> for TunRoute {
    fn from(prefix: (IpAddr, u8)) -> Self {
        Self { prefix, source: None }
    }
}

/// Everything that the kernel is to know of ways into the TUN device. Prefixes with host bits count as if those were
/// zero.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TunRouting {
    /// What leads into the device, whatever interface it came from.
    pub protect: Vec<TunRoute>,
    /// What does not, although inside the others.
    pub throw: Vec<(IpAddr, u8)>,
    /// The interfaces from which nothing is routed but what `closed` says.
    pub protected_interfaces: BTreeSet<Arc<str>>,
    /// What is different from the rest there: true may pass as the other routes say, false is inside of such.
    pub closed: Vec<((IpAddr, u8), bool)>,
}

/// A route of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct OwnRoute {
    table: u32,
    prefix: (IpAddr, u8),
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    /// Through the interface of this index, from this address.
    Device(u32, Option<IpAddr>),
    /// On with the next rule.
    Throw,
    /// Nowhere, if no other of the same prefix is left.
    Nowhere,
}

impl OwnRoute {
    /// What the kernel, told to replace, has only one of.
    fn place(&self) -> (u32, (IpAddr, u8), bool) {
        (self.table, self.prefix, self.way == Way::Nowhere)
    }
}

/// A rule of ours.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct OwnRule {
    is_v4: bool,
    preference: u32,
    incoming: Option<String>,
    table: u32,
}

/// Addresses of no host, of both families.
const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

impl TunRoutes {
    /// The routes of this instance into the TUN device of this name, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open(instance: &str, tun: &str) -> Result<Self, RouteError> {
        Self::of(instance, Some(tun.to_owned()))
    }

    fn of(instance: &str, tun: Option<String>) -> Result<Self, RouteError> {
        let socket = NetlinkSocket::open(libc::NETLINK_ROUTE)?;
        let closed_table = owner::tag(&format!("{instance} closed"));
        Ok(Self { socket, table: owner::tag(instance), closed_table, tun })
    }

    /// Number of the routing table for packets from anywhere.
    pub const fn table(&self) -> u32 {
        self.table
    }

    /// Number of the routing table for packets from protected interfaces.
    pub const fn closed_table(&self) -> u32 {
        self.closed_table
    }

    /// Makes the kernel route as said into the TUN device of this index, and no other way: adds before it removes. Returns
    /// how many routes and rules were missing.
    ///
    /// # Errors
    /// When the kernel refuses a route or rule.
    pub fn replace(&mut self, ifindex: u32, routing: &TunRouting) -> Result<usize, RouteError> {
        let table = self.table;
        let route = |prefix, way| OwnRoute { table, prefix: network_of(prefix), way };
        let protect = routing.protect.iter().map(|r| route(r.prefix, Way::Device(ifindex, r.source)));
        let throw = routing.throw.iter().map(|&prefix| route(prefix, Way::Throw));
        let mut wanted = self.closed_routes(routing, Some(ifindex));
        wanted.extend(throw.chain(protect));
        let mut rules = self.closed_rules(routing);
        for is_v4 in [true, false] {
            let main = u32::from(RouteHeader::RT_TABLE_MAIN);
            let incoming = self.tun.clone();
            rules.insert(OwnRule { is_v4, preference: PREFERENCE, incoming, table: main });
            rules.insert(OwnRule { is_v4, preference: PREFERENCE + 2, incoming: None, table });
        }
        self.apply(&wanted, &rules)
    }

    /// Removes what leads into the TUN device. From the protected interfaces nothing passes but what may in clear, until
    /// [`release`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn close(&mut self, routing: &TunRouting) -> Result<(), RouteError> {
        self.apply(&self.closed_routes(routing, None), &self.closed_rules(routing)).map(drop)
    }

    fn closed_routes(&self, routing: &TunRouting, ifindex: Option<u32>) -> BTreeSet<OwnRoute> {
        if routing.protected_interfaces.is_empty() {
            return BTreeSet::new();
        }
        let mut may_pass = BTreeMap::from(ANY.map(|any| ((any, 0), false)));
        may_pass.extend(routing.closed.iter().map(|&(prefix, may_pass)| (network_of(prefix), may_pass)));
        let device = ifindex.map(|index| Way::Device(index, None));
        let ways = |may_pass| if may_pass { [Some(Way::Throw), None] } else { [Some(Way::Nowhere), device] };
        may_pass
            .into_iter()
            .flat_map(|(prefix, may_pass)| ways(may_pass).into_iter().flatten().map(move |way| (prefix, way)))
            .map(|(prefix, way)| OwnRoute { table: self.closed_table, prefix, way })
            .collect()
    }

    fn closed_rules(&self, routing: &TunRouting) -> BTreeSet<OwnRule> {
        let rule = |is_v4, name: &Arc<str>| {
            let incoming = Some(name.to_string());
            OwnRule { is_v4, preference: PREFERENCE + 1, incoming, table: self.closed_table }
        };
        routing.protected_interfaces.iter().flat_map(|name| [rule(true, name), rule(false, name)]).collect()
    }

    fn apply(
        &mut self,
        wanted: &BTreeSet<OwnRoute>,
        wanted_rules: &BTreeSet<OwnRule>,
    ) -> Result<usize, RouteError> {
        let (held, held_rules) = (self.routes()?, self.rules()?);
        let route = |kind, flags, r: &OwnRoute| Request { kind, flags, body: encode_route(r) };
        let rule = |kind, flags, r: &OwnRule| Request { kind, flags, body: encode_rule(r) };
        // The way out of the TUN first: with the routes alone, injected packets would loop. A rule without its routes
        // leaves what it should stop to the next.
        let mut requests = Vec::new();
        let (out, into): (Vec<_>, Vec<_>) =
            wanted_rules.difference(&held_rules).partition(|r| r.preference == PREFERENCE);
        requests.extend(out.into_iter().map(|r| rule(NEW_RULE, FLAGS_CREATE_EXCLUSIVE, r)));
        requests.extend(wanted.difference(&held).map(|r| route(NEW_ROUTE, FLAGS_CREATE_OR_REPLACE, r)));
        requests.extend(into.into_iter().map(|r| rule(NEW_RULE, FLAGS_CREATE_EXCLUSIVE, r)));
        let missing = requests.len();
        // One of the same place has been replaced above.
        let places: BTreeSet<_> = wanted.iter().map(OwnRoute::place).collect();
        let is_left = |r: &&OwnRoute| !places.contains(&r.place());
        requests.extend(held.iter().filter(is_left).map(|r| route(DELETE_ROUTE, 0, r)));
        requests.extend(held_rules.difference(wanted_rules).map(|r| rule(DELETE_RULE, 0, r)));
        let refused = self.socket.send_batch(requests.into_iter())?;
        let is_harmless =
            |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ESRCH | libc::ENOENT));
        match refused.into_iter().find(|r| !is_harmless(&r.error)) {
            Some(refused) => Err(refused.error.into()),
            None => Ok(missing),
        }
    }

    fn routes(&mut self) -> io::Result<BTreeSet<OwnRoute>> {
        let tables = [self.table, self.closed_table];
        self.read(GET_ROUTE, 12, |message| match message {
            Message::NewRoute(route) => decode_route(&route).filter(|r| tables.contains(&r.table)),
            _ => None,
        })
    }

    /// Rules with our protocol number that name one of our tables or our TUN device.
    fn rules(&mut self) -> io::Result<BTreeSet<OwnRule>> {
        let (tables, tun) = ([self.table, self.closed_table], self.tun.clone());
        let is_own = |r: &OwnRule| tables.contains(&r.table) || (tun.is_some() && r.incoming == tun);
        self.read(GET_RULE, 12, |message| match message {
            Message::NewRule(rule) => decode_rule(&rule).filter(is_own),
            _ => None,
        })
    }

    fn read<T: Ord>(
        &mut self,
        kind: u16,
        header_len: usize,
        mut decode: impl FnMut(Message) -> Option<T>,
    ) -> io::Result<BTreeSet<T>> {
        loop {
            let mut found = BTreeSet::new();
            let read = self.socket.dump(kind, &[0; 12][..header_len], |header, body| {
                let mut core_header = NetlinkHeader::default();
                core_header.message_type = header.kind;
                if let Ok(message) = Message::deserialize(&core_header, body) {
                    found.extend(decode(message));
                }
            });
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(|()| found),
            }
        }
    }
}

/// Removes every route and rule of an instance that is not running: protected interfaces route as others do again.
///
/// # Errors
/// When the kernel refuses.
pub fn release(instance: &str) -> Result<(), RouteError> {
    TunRoutes::of(instance, None)?.apply(&BTreeSet::new(), &BTreeSet::new()).map(drop)
}

fn encode_route(&OwnRoute { table, prefix: (address, length), way }: &OwnRoute) -> Vec<u8> {
    let mut message = RouteMessage::default();
    let (kind, scope) = match way {
        Way::Device(..) if address.is_ipv4() => (RouteType::Unicast, RouteScope::Link),
        Way::Device(..) => (RouteType::Unicast, RouteScope::Universe),
        Way::Throw => (RouteType::Throw, RouteScope::Universe),
        Way::Nowhere => (RouteType::BlackHole, RouteScope::Universe),
    };
    message.header = RouteHeader {
        address_family: family(address.is_ipv4()),
        destination_prefix_length: length,
        protocol: RouteProtocol::from(PROTOCOL),
        scope,
        kind,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Table(table));
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    match way {
        Way::Device(index, source) => {
            message.attributes.push(RouteAttribute::Oif(index));
            message.attributes.extend(source.map(|a| RouteAttribute::PrefSource(RouteAddress::from(a))));
        }
        Way::Throw => {}
        Way::Nowhere => message.attributes.push(RouteAttribute::Priority(LAST_METRIC)),
    }
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}

/// A route with our protocol number.
fn decode_route(message: &RouteMessage) -> Option<OwnRoute> {
    if u8::from(message.header.protocol) != PROTOCOL {
        return None;
    }
    let is_v4 = message.header.address_family == AddressFamily::Inet;
    let (mut table, mut destination) = (u32::from(message.header.table), ANY[usize::from(!is_v4)]);
    let (mut index, mut source) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Destination(d) => destination = ip(d)?,
            RouteAttribute::PrefSource(s) => source = ip(s),
            RouteAttribute::Oif(i) => index = Some(*i),
            _ => {}
        }
    }
    let way = match message.header.kind {
        // Those of IPv6 name the loopback interface.
        RouteType::Throw => Way::Throw,
        RouteType::BlackHole => Way::Nowhere,
        _ => Way::Device(index?, source),
    };
    Some(OwnRoute { table, prefix: (destination, message.header.destination_prefix_length), way })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

fn encode_rule(rule: &OwnRule) -> Vec<u8> {
    let mut message = RuleMessage::default();
    message.header =
        RuleHeader { family: family(rule.is_v4), action: RuleAction::ToTable, ..RuleHeader::default() };
    message.attributes.push(RuleAttribute::Priority(rule.preference));
    message.attributes.push(RuleAttribute::Table(rule.table));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    message.attributes.extend(rule.incoming.clone().map(RuleAttribute::Iifname));
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}

fn decode_rule(message: &RuleMessage) -> Option<OwnRule> {
    let (mut preference, mut table) = (0, u32::from(message.header.table));
    let (mut incoming, mut is_ours) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(p) => preference = *p,
            RuleAttribute::Table(t) => table = *t,
            RuleAttribute::Iifname(name) => incoming = Some(name.clone()),
            RuleAttribute::Protocol(p) => is_ours = u8::from(*p) == PROTOCOL,
            _ => {}
        }
    }
    let is_v4 = message.header.family == AddressFamily::Inet;
    is_ours.then_some(OwnRule { is_v4, preference, incoming, table })
}

const fn family(is_v4: bool) -> AddressFamily {
    if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The prefix without its host bits.
pub fn network_of((address, length): (IpAddr, u8)) -> (IpAddr, u8) {
    let address = match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((a.to_bits() & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((a.to_bits() & mask).into())
        }
    };
    (address, length)
}
