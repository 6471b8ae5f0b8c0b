//! A mirror of the kernel's tables that follows its messages.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, route::RouteHeader};

use super::snapshot::{Destination, Interface, Route, RouteTable, Snapshot};

const TABLE_LOCAL: u32 = 255;
/// The message replaces a route whose own removal is not told.
const FLAG_REPLACE: u16 = 0x100;

/// What the kernel's tables hold, as far as its messages have told.
#[derive(Default, Debug)]
pub struct Tables {
    interfaces: BTreeMap<u32, Interface>,
    routes: BTreeMap<RouteKey, Option<Route>>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    published: Snapshot,
    changed: Changed,
}

/// A neighbour as the kernel sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its MAC address, in states that have a usable one.
    pub mac: Option<[u8; 6]>,
    /// Confirmed lately, or by configuration: no need to ask.
    pub is_fresh: bool,
}

/// What a message means beyond the tables.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Effect {
    /// Routes have gone without a message of their own: they must be read anew.
    pub reread_routes: bool,
}

#[derive(Clone, Copy, Default, Debug)]
struct Changed {
    interfaces: bool,
    routes: bool,
    neighbours: bool,
}

/// In the order in which routes of one prefix are preferred.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct RouteKey {
    destination: Destination,
    metric: u32,
    ifindex: u32,
    gateway: Option<IpAddr>,
}

impl Tables {
    /// Follows one message; `flags` are those of its header.
    pub fn apply(&mut self, message: &Message, flags: u16) -> Effect {
        match message {
            Message::NewLink(link) => return self.link(link),
            Message::DelLink(link) => {
                self.interfaces.remove(&link.header.index);
                self.changed.interfaces = true;
                return Effect { reread_routes: true };
            }
            Message::NewAddress(address) => self.address(address, true),
            Message::DelAddress(address) => {
                self.address(address, false);
                return Effect { reread_routes: true };
            }
            Message::NewRoute(route) => {
                if let Some((key, route)) = decode_route(route) {
                    self.changed.routes |= self.routes.insert(key, route) != Some(route);
                    return Effect { reread_routes: flags & FLAG_REPLACE != 0 };
                }
            }
            Message::DelRoute(route) => {
                if let Some((key, _)) = decode_route(route) {
                    self.changed.routes |= self.routes.remove(&key).is_some();
                }
            }
            Message::NewNeighbour(neighbour) => self.neighbour(neighbour),
            Message::DelNeighbour(neighbour) => {
                if let Some(key) = neighbour_key(neighbour) {
                    self.changed.neighbours |= self.neighbours.remove(&key).is_some_and(|n| n.mac.is_some());
                }
            }
            _ => {}
        }
        Effect::default()
    }

    /// Forgets routes, to read them anew.
    pub fn clear_routes(&mut self) {
        self.routes.clear();
        self.changed.routes = true;
    }

    /// Forgets everything, to read it anew.
    pub fn clear(&mut self) {
        let published = std::mem::take(&mut self.published);
        *self = Self {
            published,
            changed: Changed { interfaces: true, routes: true, neighbours: true },
            ..Self::default()
        };
    }

    /// What is known of a neighbour.
    pub fn neighbour_of(&self, ifindex: u32, address: IpAddr) -> Option<Neighbour> {
        self.neighbours.get(&(ifindex, address)).copied()
    }

    /// A new snapshot, if anything has changed since the last one.
    pub fn publish(&mut self) -> Option<Snapshot> {
        let changed = std::mem::take(&mut self.changed);
        if !(changed.interfaces || changed.routes || changed.neighbours) {
            return None;
        }
        let next = &mut self.published;
        next.version += 1;
        if changed.interfaces {
            next.interfaces = Arc::new(self.interfaces.clone());
        }
        if changed.routes {
            let routes = self.routes.iter().map(|(key, route)| (key.destination, *route));
            next.routes = Arc::new(RouteTable::new(routes));
        }
        if changed.neighbours {
            let usable = self.neighbours.iter().filter_map(|(&key, n)| Some((key, n.mac?)));
            next.neighbours = Arc::new(usable.collect());
        }
        Some(next.clone())
    }

    fn link(&mut self, link: &LinkMessage) -> Effect {
        // Bridges tell of their ports in messages that do not describe the interface itself.
        if link.header.interface_family != AddressFamily::Unspec {
            return Effect::default();
        }
        let old = self.interfaces.get(&link.header.index);
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        let mut interface = Interface {
            name: old.map_or_else(|| "".into(), |o| o.name.clone()),
            mac: [0; 6],
            mtu: 0,
            is_up: link.header.flags.contains(up),
            addresses: old.map_or_else(Vec::new, |o| o.addresses.clone()),
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name.as_str().into(),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Address(mac) => interface.mac = mac.as_slice().try_into().unwrap_or_default(),
                _ => {}
            }
        }
        let was_up = old.is_some_and(|o| o.is_up);
        let reread_routes = was_up && !interface.is_up;
        self.changed.interfaces |= old != Some(&interface);
        self.interfaces.insert(link.header.index, interface);
        Effect { reread_routes }
    }

    fn address(&mut self, message: &AddressMessage, is_there: bool) {
        // On point-to-point links `Address` is the peer's and `Local` ours; elsewhere both are ours.
        let find = |local: bool| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
        };
        let Some(address) = find(true).or_else(|| find(false)) else { return };
        let Some(interface) = self.interfaces.get_mut(&message.header.index) else { return };
        let is_usable = is_there && !message.header.flags.contains(AddressHeaderFlags::Dadfailed);
        match interface.addresses.iter().position(|&a| a == address) {
            None if is_usable => interface.addresses.push(address),
            Some(at) if !is_usable => {
                interface.addresses.remove(at);
            }
            _ => return,
        }
        self.changed.interfaces = true;
    }

    fn neighbour(&mut self, message: &NeighbourMessage) {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
        let Some(key) = neighbour_key(message) else { return };
        let state = message.header.state;
        let mac = message.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
            _ => None,
        });
        let is_usable = matches!(state, Reachable | Stale | Delay | Probe | Permanent | Noarp);
        let neighbour = Neighbour {
            mac: mac.filter(|_| is_usable),
            is_fresh: matches!(state, Reachable | Permanent | Noarp),
        };
        let old = self.neighbours.insert(key, neighbour);
        self.changed.neighbours |= old.and_then(|o| o.mac) != neighbour.mac;
    }
}

fn neighbour_key(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let address = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    Some((message.header.ifindex, address))
}

/// `None` for routes of other tables, cached clones, and families that are not IP.
fn decode_route(message: &RouteMessage) -> Option<(RouteKey, Option<Route>)> {
    let header = &message.header;
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let mut address = unspecified;
    let mut metric = 0;
    let mut hop = Hop::default();
    let mut multipath: &[RouteNextHop] = &[];
    let (mut mtu, mut source) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(a) => address = ip(a)?,
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::PrefSource(a) => source = ip(a),
            RouteAttribute::MultiPath(hops) => multipath = hops,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            other => hop.read(other),
        }
    }
    let is_main = match table {
        TABLE_LOCAL => false,
        t if t == u32::from(RouteHeader::RT_TABLE_MAIN) => true,
        _ => return None,
    };
    if let Some(first) =
        multipath.iter().find(|h| !h.flags.contains(RouteNextHopFlags::Dead)).or(multipath.first())
    {
        hop.ifindex = first.interface_index;
        first.attributes.iter().for_each(|a| hop.read(a));
    }
    let route = Route { ifindex: hop.ifindex, gateway: hop.gateway, local: false, mtu, source };
    let route = match header.kind {
        RouteType::Unicast => Some(route),
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
            Some(Route { local: true, ..route })
        }
        // Blackhole, unreachable, prohibit, throw: nothing that a packet could leave by.
        _ => None,
    };
    let destination = Destination { is_main, address, length: header.destination_prefix_length };
    Some((RouteKey { destination, metric, ifindex: hop.ifindex, gateway: hop.gateway }, route))
}

#[derive(Clone, Copy, Default)]
struct Hop {
    ifindex: u32,
    gateway: Option<IpAddr>,
}

impl Hop {
    fn read(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(index) => self.ifindex = *index,
            RouteAttribute::Gateway(address) => self.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => self.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => self.gateway = Some((*address).into()),
            _ => {}
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
