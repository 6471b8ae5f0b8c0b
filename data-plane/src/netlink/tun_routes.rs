//! Routes that lead protected traffic into our TUN device, in a routing table of their own.
//!
//! ```text
//! 1870: from all iif <tun> lookup main     what we inject must never be routed back into the TUN
//! 1871: from all lookup <table>            protected prefixes: into the TUN; bypassed ones in them: throw
//! ```
//!
//! Table and rules carry the instance's tag and our protocol number, so that they are recognised after a crash.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

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
/// Our number among routing protocols (`rt_protos`), unassigned there.
const PROTOCOL: u8 = 187;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const FLAGS_CREATE_OR_REPLACE: u16 = 0x500;
const FLAGS_CREATE_EXCLUSIVE: u16 = 0x600;

/// The routes of one instance.
#[derive(Debug)]
pub struct TunRoutes {
    socket: NetlinkSocket,
    table: u32,
    tun: String,
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

/// A route of ours: where to, through which interface (`None` is "throw", on with the next rule), and from which
/// address.
type OwnRoute = (IpAddr, u8, Option<u32>, Option<IpAddr>);
/// A rule of ours: family, preference, incoming interface, table.
type OwnRule = (bool, u32, Option<String>, u32);

impl TunRoutes {
    /// The routes of this instance into the TUN device of this name, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open(instance: &str, tun: &str) -> Result<Self, RouteError> {
        let socket = NetlinkSocket::open(libc::NETLINK_ROUTE)?;
        Ok(Self { socket, table: owner::tag(instance), tun: tun.to_owned() })
    }

    /// Number of the routing table.
    pub const fn table(&self) -> u32 {
        self.table
    }

    /// Makes `protect` lead into the TUN device and `throw` not, and nothing else: adds before it removes. Prefixes with
    /// host bits count as if those were zero.
    ///
    /// # Errors
    /// When the kernel refuses a route or rule.
    pub fn replace(
        &mut self,
        ifindex: u32,
        protect: &[impl Copy + Into<TunRoute>],
        throw: &[(IpAddr, u8)],
    ) -> Result<(), RouteError> {
        let protect = protect.iter().map(|&route| {
            let TunRoute { prefix: (address, length), source } = route.into();
            (masked(address, length), length, Some(ifindex), source)
        });
        let throw = throw.iter().map(|&(address, length)| (masked(address, length), length, None, None));
        let wanted: BTreeSet<OwnRoute> = throw.chain(protect).collect();
        let main = u32::from(RouteHeader::RT_TABLE_MAIN);
        let rules = [true, false].into_iter().flat_map(|v4| {
            [(v4, PREFERENCE, Some(self.tun.clone()), main), (v4, PREFERENCE + 1, None, self.table)]
        });
        self.apply(&wanted, &rules.collect())
    }

    /// Removes routes and rules of this instance.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self) -> Result<(), RouteError> {
        self.apply(&BTreeSet::new(), &BTreeSet::new())
    }

    fn apply(
        &mut self,
        wanted: &BTreeSet<OwnRoute>,
        wanted_rules: &BTreeSet<OwnRule>,
    ) -> Result<(), RouteError> {
        let (held, held_rules) = (self.routes()?, self.rules()?);
        let table = self.table;
        let route = |kind, flags, r: &OwnRoute| Request { kind, flags, body: encode_route(table, r) };
        let rule = |kind, flags, r: &OwnRule| Request { kind, flags, body: encode_rule(r) };
        // The way out of the TUN first: with the routes alone, injected packets would loop.
        let mut requests = Vec::new();
        requests
            .extend(wanted_rules.difference(&held_rules).map(|r| rule(NEW_RULE, FLAGS_CREATE_EXCLUSIVE, r)));
        requests.extend(wanted.difference(&held).map(|r| route(NEW_ROUTE, FLAGS_CREATE_OR_REPLACE, r)));
        // One of the same prefix has been replaced above.
        let is_left = |r: &&OwnRoute| !wanted.iter().any(|w| (w.0, w.1) == (r.0, r.1));
        requests.extend(held.iter().filter(is_left).map(|r| route(DELETE_ROUTE, 0, r)));
        requests.extend(held_rules.difference(wanted_rules).map(|r| rule(DELETE_RULE, 0, r)));
        let refused = self.socket.send_batch(requests.into_iter())?;
        let is_harmless =
            |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ESRCH | libc::ENOENT));
        match refused.into_iter().find(|r| !is_harmless(&r.error)) {
            Some(refused) => Err(refused.error.into()),
            None => Ok(()),
        }
    }

    fn routes(&mut self) -> io::Result<BTreeSet<OwnRoute>> {
        let table = self.table;
        self.read(GET_ROUTE, 12, |message| match message {
            Message::NewRoute(route) => decode_route(&route, table),
            _ => None,
        })
    }

    /// Rules with our protocol number that name our table or our TUN device.
    fn rules(&mut self) -> io::Result<BTreeSet<OwnRule>> {
        let (table, tun) = (self.table, self.tun.clone());
        let is_own = |r: &OwnRule| r.3 == table || r.2.as_deref() == Some(&tun);
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

fn encode_route(table: u32, &(address, length, ifindex, source): &OwnRoute) -> Vec<u8> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(address.is_ipv4()),
        destination_prefix_length: length,
        protocol: RouteProtocol::from(PROTOCOL),
        scope: if ifindex.is_some() && address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
        kind: if ifindex.is_some() { RouteType::Unicast } else { RouteType::Throw },
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Table(table));
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    message.attributes.extend(ifindex.map(RouteAttribute::Oif));
    message.attributes.extend(source.map(|a| RouteAttribute::PrefSource(RouteAddress::from(a))));
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}

fn decode_route(message: &RouteMessage, table: u32) -> Option<OwnRoute> {
    let has_table = message.attributes.contains(&RouteAttribute::Table(table));
    if !has_table || u8::from(message.header.protocol) != PROTOCOL {
        return None;
    }
    let find = |pick: fn(&RouteAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let destination = find(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(a)) => Some((*a).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(a)) => Some((*a).into()),
        _ => None,
    });
    let zero = if message.header.address_family == AddressFamily::Inet {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    let ifindex = message.attributes.iter().find_map(|a| match a {
        // A throw route of IPv6 names the loopback interface.
        RouteAttribute::Oif(index) if message.header.kind != RouteType::Throw => Some(*index),
        _ => None,
    });
    let source = find(|a| match a {
        RouteAttribute::PrefSource(RouteAddress::Inet(a)) => Some((*a).into()),
        RouteAttribute::PrefSource(RouteAddress::Inet6(a)) => Some((*a).into()),
        _ => None,
    });
    Some((destination.unwrap_or(zero), message.header.destination_prefix_length, ifindex, source))
}

fn encode_rule((is_v4, preference, tun, table): &OwnRule) -> Vec<u8> {
    let mut message = RuleMessage::default();
    message.header =
        RuleHeader { family: family(*is_v4), action: RuleAction::ToTable, ..RuleHeader::default() };
    message.attributes.push(RuleAttribute::Priority(*preference));
    message.attributes.push(RuleAttribute::Table(*table));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    message.attributes.extend(tun.clone().map(RuleAttribute::Iifname));
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}

fn decode_rule(message: &RuleMessage) -> Option<OwnRule> {
    let (mut preference, mut table, mut tun, mut is_ours) = (0, u32::from(message.header.table), None, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(p) => preference = *p,
            RuleAttribute::Table(t) => table = *t,
            RuleAttribute::Iifname(name) => tun = Some(name.clone()),
            RuleAttribute::Protocol(p) => is_ours = u8::from(*p) == PROTOCOL,
            _ => {}
        }
    }
    is_ours.then(|| (message.header.family == AddressFamily::Inet, preference, tun, table))
}

const fn family(is_v4: bool) -> AddressFamily {
    if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((a.to_bits() & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((a.to_bits() & mask).into())
        }
    }
}
