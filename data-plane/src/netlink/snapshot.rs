//! Routes, neighbours and interfaces at one moment, for look-ups without locks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Link-layer address; zeros if it has none.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Up and with a carrier.
    pub is_up: bool,
    /// Addresses of this host on it.
    pub addresses: Vec<IpAddr>,
}

/// Where packets to a destination go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The interface.
    pub ifindex: u32,
    /// The next router; `None` if the destination is a neighbour.
    pub gateway: Option<IpAddr>,
    /// The destination is an address of this host.
    pub local: bool,
    /// MTU in bytes if the route lowers it.
    pub mtu: Option<u32>,
}

/// An entry of the routing table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteEntry {
    /// Destination prefix: address and length in bits.
    pub prefix: (IpAddr, u8),
    /// Of two routes to one prefix the lower metric wins.
    pub metric: u32,
    /// Where to.
    pub route: Route,
}

/// A neighbour whose link-layer address is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its link-layer address.
    pub mac: [u8; 6],
}

/// Everything at one moment.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    version: u64,
    interfaces: HashMap<u32, Interface>,
    v4: RouteTable,
    v6: RouteTable,
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
}

/// Routes by prefix length, the longest first.
#[derive(Clone, Default, Debug)]
struct RouteTable(Vec<(u8, PrefixMap)>);

/// Metric and route by the bits of the prefix.
type PrefixMap = HashMap<u128, (u32, Route)>;

impl Snapshot {
    /// A snapshot; `version` differs from that of every other one that the same reader sees.
    pub fn new(
        version: u64,
        interfaces: impl IntoIterator<Item = Interface>,
        routes: impl IntoIterator<Item = RouteEntry>,
        neighbours: impl IntoIterator<Item = Neighbour>,
    ) -> Self {
        let mut snapshot = Self {
            version,
            interfaces: interfaces.into_iter().map(|i| (i.index, i)).collect(),
            neighbours: neighbours.into_iter().map(|n| ((n.ifindex, n.address), n.mac)).collect(),
            ..Self::default()
        };
        for entry in routes {
            snapshot.table_mut(entry.prefix.0).insert(&entry);
        }
        snapshot
    }

    /// Changes with every snapshot, so that look-ups can be cached.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The route to an address.
    pub fn route(&self, destination: IpAddr) -> Option<Route> {
        let table = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        table.find(destination)
    }

    /// The link-layer address of a neighbour.
    pub fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(ifindex, address)).copied()
    }

    /// An interface.
    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.get(&ifindex)
    }

    /// The interface with this name.
    pub fn interface_named(&self, name: &str) -> Option<&Interface> {
        self.interfaces.values().find(|i| &*i.name == name)
    }

    /// Every interface, in no order.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.values()
    }

    /// An address of this host on the interface that leads to `destination`, of its family.
    pub fn address_towards(&self, destination: IpAddr) -> Option<IpAddr> {
        let interface = self.interface(self.route(destination)?.ifindex)?;
        let mut of_family = interface.addresses.iter().filter(|a| a.is_ipv4() == destination.is_ipv4());
        let is_link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        of_family.clone().find(|a| !is_link_local(a)).or(of_family.next()).copied()
    }

    fn table_mut(&mut self, family: IpAddr) -> &mut RouteTable {
        if family.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

impl RouteTable {
    fn insert(&mut self, entry: &RouteEntry) {
        let (address, len) = entry.prefix;
        let at = self.0.iter().position(|(other, _)| *other <= len).unwrap_or(self.0.len());
        if self.0.get(at).is_none_or(|(other, _)| *other != len) {
            self.0.insert(at, (len, HashMap::new()));
        }
        let Some((_, routes)) = self.0.get_mut(at) else { return };
        let known = routes.entry(masked(address, len)).or_insert((entry.metric, entry.route));
        if entry.metric < known.0 {
            *known = (entry.metric, entry.route);
        }
    }

    fn find(&self, destination: IpAddr) -> Option<Route> {
        let of_length =
            |(len, routes): &(u8, PrefixMap)| routes.get(&masked(destination, *len)).map(|(_, route)| *route);
        self.0.iter().find_map(of_length)
    }
}

/// The first `len` bits of an address.
fn masked(address: IpAddr, len: u8) -> u128 {
    let bits = match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    bits & !u128::MAX.checked_shr(u32::from(len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_then_the_lower_metric() {
        let snapshot = snapshot(&[
            ("0.0.0.0/0", 1, 0),
            ("10.1.0.0/16", 2, 100),
            ("10.1.0.0/16", 3, 50),
            ("10.1.2.0/24", 4, 0),
            ("10.1.2.3/32", 5, 0),
        ]);
        let via = |destination: &str| snapshot.route(destination.parse().unwrap()).map(|r| r.ifindex);
        assert_eq!(via("10.1.2.3"), Some(5));
        assert_eq!(via("10.1.2.4"), Some(4));
        assert_eq!(via("10.1.9.9"), Some(3));
        assert_eq!(via("192.0.2.1"), Some(1));
        assert_eq!(via("2001:db8::1"), None);
    }

    #[test]
    fn families_do_not_share_prefixes() {
        let snapshot = snapshot(&[("::/0", 6, 0), ("2001:db8::/32", 7, 0)]);
        assert_eq!(snapshot.route("10.0.0.1".parse().unwrap()), None);
        assert_eq!(snapshot.route("2001:db8::1".parse().unwrap()).unwrap().ifindex, 7);
        assert_eq!(snapshot.route("2001:db9::1".parse().unwrap()).unwrap().ifindex, 6);
    }

    #[test]
    fn our_address_towards_a_host_is_of_its_family_and_rather_not_link_local() {
        let mut snapshot = snapshot(&[("10.1.0.0/16", 2, 0), ("fd00::/16", 2, 0)]);
        let addresses = ["fe80::1", "10.1.0.254", "fd00::fe"].map(|a| a.parse().unwrap()).to_vec();
        let (index, name) = (2, "lan".into());
        let interface = Interface { index, name, mac: [2; 6], mtu: 1500, is_up: true, addresses };
        snapshot.interfaces.insert(2, interface);
        let towards = |a: &str| snapshot.address_towards(a.parse().unwrap()).map(|a| a.to_string());
        assert_eq!(towards("10.1.0.7"), Some("10.1.0.254".to_owned()));
        assert_eq!(towards("fd00::7"), Some("fd00::fe".to_owned()));
        assert_eq!(towards("192.0.2.1"), None);
    }

    fn snapshot(routes: &[(&str, u32, u32)]) -> Snapshot {
        let entries = routes.iter().map(|(prefix, ifindex, metric)| {
            let (address, len) = prefix.split_once('/').unwrap();
            let route = Route { ifindex: *ifindex, gateway: None, local: false, mtu: None };
            RouteEntry { prefix: (address.parse().unwrap(), len.parse().unwrap()), metric: *metric, route }
        });
        Snapshot::new(1, [], entries, [])
    }
}
