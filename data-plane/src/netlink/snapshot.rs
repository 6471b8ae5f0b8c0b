//! The network as it was at one moment, made for look-ups.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Links, addresses, routes and neighbours, consistent with each other.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    pub(super) version: u64,
    pub(super) interfaces: Arc<BTreeMap<u32, Interface>>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) neighbours: Arc<HashMap<(u32, IpAddr), [u8; 6]>>,
}

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: Arc<str>,
    /// Its MAC address; zero where it has none.
    pub mac: [u8; 6],
    /// Largest IP packet in octets.
    pub mtu: u32,
    /// Switched on, and its link is there.
    pub is_up: bool,
    /// Its addresses, in the kernel's order; those that failed duplicate address detection are left out.
    pub addresses: Vec<IpAddr>,
}

/// Where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Interface it leaves by.
    pub ifindex: u32,
    /// Next hop; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The destination is this host: an address of ours, broadcast or multicast.
    pub local: bool,
    /// Largest packet of this route in octets, where the route says so.
    pub mtu: Option<u32>,
    /// Source address that the route prefers.
    pub source: Option<IpAddr>,
}

impl Snapshot {
    /// A network that is made up: interfaces by index, routes of the main table by prefix and length, neighbours. The
    /// interfaces' addresses are local.
    pub fn fixed(
        interfaces: impl IntoIterator<Item = (u32, Interface)>,
        routes: impl IntoIterator<Item = (IpAddr, u8, Route)>,
        neighbours: impl IntoIterator<Item = ((u32, IpAddr), [u8; 6])>,
    ) -> Self {
        let interfaces: BTreeMap<_, _> = interfaces.into_iter().collect();
        let own = interfaces.iter().flat_map(|(ifindex, interface)| {
            let route = Route { ifindex: *ifindex, gateway: None, local: true, mtu: None, source: None };
            let local = move |address: &IpAddr| {
                let length = if address.is_ipv4() { 32 } else { 128 };
                (Destination { is_main: false, address: *address, length }, Some(route))
            };
            interface.addresses.iter().map(local)
        });
        let others = routes
            .into_iter()
            .map(|(address, length, route)| (Destination { is_main: true, address, length }, Some(route)));
        let routes = Arc::new(RouteTable::new(own.chain(others)));
        let neighbours = Arc::new(neighbours.into_iter().collect());
        Self { version: 1, interfaces: Arc::new(interfaces), routes, neighbours }
    }

    /// Changes with every new content.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The longest prefix that holds `destination`: of the local table, else of the main table. `None` without a
    /// route, or where the route says unreachable.
    pub fn route(&self, destination: IpAddr) -> Option<Route> {
        self.routes.find(destination)
    }

    /// MAC address of a neighbour, if the kernel believes in it.
    pub fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(ifindex, address)).copied()
    }

    /// An interface by its index.
    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.get(&ifindex)
    }

    /// Index of an interface by its name.
    pub fn ifindex(&self, name: &str) -> Option<u32> {
        self.interfaces.iter().find(|(_, i)| &*i.name == name).map(|(&index, _)| index)
    }

    /// All addresses of this host, loopback included.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.interfaces.values().flat_map(|i| i.addresses.iter().copied())
    }

    /// This host takes packets to `address` for its own: it is an address of ours, or a local route covers it.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.route(address).is_some_and(|route| route.local)
    }

    /// The address of ours that a packet to `destination` would have as its source: what the route prefers, else the
    /// first of its family on the interface that leads there, link-local ones last.
    pub fn address_towards(&self, destination: IpAddr) -> Option<IpAddr> {
        let route = self.route(destination)?;
        let candidates = || {
            let addresses = &self.interface(route.ifindex)?.addresses;
            Some(addresses.iter().copied().filter(|a| a.is_ipv4() == destination.is_ipv4()))
        };
        let is_link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        route.source.or_else(|| candidates()?.find(|a| !is_link_local(a))).or_else(|| candidates()?.next())
    }
}

/// Routes of both families, ready for look-ups.
#[derive(Clone, Default, Debug)]
pub(super) struct RouteTable {
    v4: Levels,
    v6: Levels,
}

/// A hash per table and prefix length in use: local before main, long before short.
#[derive(Clone, Default, Debug)]
struct Levels(Vec<(LevelKey, HashMap<u128, Option<Route>>)>);

/// Ordered as levels are searched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct LevelKey {
    is_main: bool,
    /// 128 minus the prefix length within 128 bits.
    host_bits: u8,
}

impl RouteTable {
    /// From prefixes with their routes; `None` is "unreachable". Of equal prefixes the first one counts.
    pub fn new(routes: impl Iterator<Item = (Destination, Option<Route>)>) -> Self {
        let mut levels: [BTreeMap<LevelKey, HashMap<u128, Option<Route>>>; 2] = Default::default();
        for (destination, route) in routes {
            let (family, key, prefix) = destination.level();
            levels[family].entry(key).or_default().entry(prefix).or_insert(route);
        }
        let [v4, v6] = levels.map(|l| Levels(l.into_iter().collect()));
        Self { v4, v6 }
    }

    fn find(&self, address: IpAddr) -> Option<Route> {
        let (levels, number) = match address {
            IpAddr::V4(a) => (&self.v4, aligned(a.to_bits())),
            IpAddr::V6(a) => (&self.v6, a.to_bits()),
        };
        let found = levels.0.iter().find_map(|(key, level)| level.get(&masked(number, key.host_bits)));
        found.copied().flatten()
    }
}

/// A prefix in one of the two tables that are looked up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Destination {
    pub is_main: bool,
    pub address: IpAddr,
    pub length: u8,
}

impl Destination {
    fn level(&self) -> (usize, LevelKey, u128) {
        let (family, number) = match self.address {
            IpAddr::V4(a) => (0, aligned(a.to_bits())),
            IpAddr::V6(a) => (1, a.to_bits()),
        };
        let host_bits = 128_u8.saturating_sub(self.length);
        (family, LevelKey { is_main: self.is_main, host_bits }, masked(number, host_bits))
    }
}

/// IPv4 in the upper bits, so that prefix lengths mean the same in both families.
fn aligned(address: u32) -> u128 {
    u128::from(address) << 96
}

fn masked(number: u128, host_bits: u8) -> u128 {
    u128::MAX.checked_shl(host_bits.into()).map_or(0, |mask| number & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_the_local_table_comes_first() {
        let table = RouteTable::new(
            [
                entry(true, "0.0.0.0", 0, Some(1)),
                entry(true, "10.0.0.0", 8, Some(2)),
                entry(true, "10.1.0.0", 16, Some(3)),
                entry(true, "10.1.2.3", 32, Some(4)),
                entry(false, "10.1.2.0", 24, Some(5)),
                entry(true, "::", 0, Some(6)),
                entry(true, "2001:db8::", 32, Some(7)),
            ]
            .into_iter(),
        );
        for (destination, expected) in [
            ("192.0.2.1", 1),
            ("10.9.9.9", 2),
            ("10.1.9.9", 3),
            ("10.1.2.3", 5),
            ("2001:db8::1", 7),
            ("2001:db9::1", 6),
        ] {
            assert_eq!(table.find(address(destination)).map(|r| r.ifindex), Some(expected), "{destination}");
        }
    }

    #[test]
    fn an_unreachable_route_hides_shorter_ones() {
        let routes = [entry(true, "0.0.0.0", 0, Some(1)), entry(true, "10.0.0.0", 8, None)];
        let table = RouteTable::new(routes.into_iter());
        assert_eq!(table.find(address("10.1.1.1")), None);
        assert_eq!(table.find(address("2001:db8::1")), None);
        assert!(table.find(address("11.1.1.1")).is_some());
    }

    #[test]
    fn a_packet_leaves_from_the_preferred_address_else_from_a_global_one_of_the_interface() {
        let interface = Interface {
            name: "wan0".into(),
            mac: [2; 6],
            mtu: 1500,
            is_up: true,
            addresses: vec![address("fe80::1"), address("192.0.2.1"), address("2001:db8::1")],
        };
        let preferred = Some(address("10.1.0.1"));
        let routes = [entry(true, "0.0.0.0", 0, Some(1)), entry(true, "::", 0, Some(1)), {
            let (destination, route) = entry(true, "10.2.0.0", 16, Some(1));
            (destination, route.map(|r| Route { source: preferred, ..r }))
        }];
        let snapshot = Snapshot {
            interfaces: Arc::new([(1, interface)].into()),
            routes: Arc::new(RouteTable::new(routes.into_iter())),
            ..Snapshot::default()
        };
        assert_eq!(snapshot.address_towards(address("198.51.100.1")), Some(address("192.0.2.1")));
        assert_eq!(snapshot.address_towards(address("2001:db8:9::1")), Some(address("2001:db8::1")));
        assert_eq!(snapshot.address_towards(address("10.2.0.9")), preferred);
    }

    fn entry(is_main: bool, prefix: &str, length: u8, ifindex: Option<u32>) -> (Destination, Option<Route>) {
        let route = |ifindex| Route { ifindex, gateway: None, local: !is_main, mtu: None, source: None };
        (Destination { is_main, address: address(prefix), length }, ifindex.map(route))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
