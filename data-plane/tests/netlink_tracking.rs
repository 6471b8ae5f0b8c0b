//! The mirror of the kernel's network against the kernel.

mod gateway;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use gateway::{FAR_WAN, Gateway, Namespace, PATIENCE, address, wait_until};
use portcullis_data_plane::netlink::{self, Network, NetworkEvent, TunRoutes, TunRouting};

#[test]
fn what_was_there_before_is_known_at_once() {
    let net = Gateway::new();
    net.gateway.ip(&["route", "add", "10.3.0.0/16", "via", FAR_WAN, "mtu", "1400", "src", "10.1.0.1"]);
    net.gateway.ip(&["route", "add", "unreachable", "10.2.9.0/24"]);
    let multicast =
        || net.gateway.ip(&["-6", "route", "show", "table", "local"]).contains("ff00::/8 dev wan0");
    wait_until("IPv6 has taken the interface up", multicast);
    let (network, _events) = start(&net.gateway);
    let now = network.snapshot();

    let wan = now.ifindex("wan0").unwrap();
    let interface = now.interface(wan).unwrap();
    assert!(interface.is_up && interface.mtu == 1500 && interface.mac != [0; 6], "{interface:?}");
    assert!(interface.addresses.contains(&address("198.51.100.1")));
    assert!(interface.addresses.contains(&address("2001:db8::1")));

    let far = now.route(address("10.2.0.7")).unwrap();
    assert_eq!((far.ifindex, far.gateway, far.local, far.mtu), (wan, Some(address(FAR_WAN)), false, None));
    let far = now.route(address("fd02::7")).unwrap();
    assert_eq!((far.ifindex, far.gateway, far.local), (wan, Some(address("2001:db8::2")), false));
    let special = now.route(address("10.3.0.1")).unwrap();
    assert_eq!((special.mtu, special.source), (Some(1400), Some(address("10.1.0.1"))));
    assert_eq!(now.address_towards(address("10.3.0.1")), Some(address("10.1.0.1")));
    assert_eq!(now.address_towards(address("10.2.0.7")), Some(address("198.51.100.1")));
    assert_eq!(now.address_towards(address("fd02::7")), Some(address("2001:db8::1")));
    assert_eq!(now.route(address("10.2.9.1")), None, "unreachable");
    assert_eq!(now.route(address("192.0.2.1")), None, "no default route");
    for ours in ["10.1.0.1", "127.0.0.1", "10.1.0.255", "fd01::1", "ff02::1"] {
        assert!(now.route(address(ours)).unwrap().local, "{ours}");
    }
    let on_link = now.route(address("10.1.0.77")).unwrap();
    assert_eq!((on_link.gateway, on_link.local), (None, false));
}

#[test]
fn a_neighbour_is_resolved_on_demand_and_kept_while_it_is_wanted() {
    let net = Gateway::new();
    let (network, _events) = start(&net.gateway);
    let wan = network.snapshot().ifindex("wan0").unwrap();
    for (next_hop, family) in [(FAR_WAN, "-4"), ("2001:db8::2", "-6")] {
        let next_hop = address(next_hop);
        let known = || network.snapshot().neighbour(wan, next_hop);
        assert_eq!(known(), None);
        assert!(network.want_neighbour(wan, next_hop));
        wait_until("the neighbour is resolved", || known().is_some());
        let link = net.far.ip(&["link", "show", "eth0"]);
        let mac = known().unwrap().map(|b| format!("{b:02x}")).join(":");
        assert!(link.contains(&mac), "{mac} in {link}");

        // Stale is good enough for sending, and asking again confirms it.
        net.gateway.ip(&[family, "neigh", "change", &next_hop.to_string(), "dev", "wan0", "nud", "stale"]);
        assert!(known().is_some());
        net.gateway.ip(&[family, "neigh", "del", &next_hop.to_string(), "dev", "wan0"]);
        wait_until("its removal is seen", || known().is_none());
        assert!(network.want_neighbour(wan, next_hop));
        wait_until("the neighbour is resolved again", || known().is_some());
    }
}

#[test]
fn a_stale_neighbour_that_moved_is_found_again_when_it_is_wanted() {
    let net = Gateway::new();
    let (network, _events) = start(&net.gateway);
    let wan = network.snapshot().ifindex("wan0").unwrap();
    let known = || network.snapshot().neighbour(wan, address(FAR_WAN));
    for (name, value) in [("delay_first_probe_time", "0"), ("retrans_time_ms", "20")] {
        net.gateway.sysctl(&format!("net.ipv4.neigh.wan0.{name}"), value);
    }
    net.gateway.ip(&[
        "neigh",
        "replace",
        FAR_WAN,
        "dev",
        "wan0",
        "lladdr",
        "02:00:00:00:00:09",
        "nud",
        "stale",
    ]);
    wait_until("the wrong address is there", || known() == Some([2, 0, 0, 0, 0, 9]));
    wait_until("the kernel asked", || {
        // As often as a worker does, and more: the kernel gives the old address up before it asks everybody.
        network.want_neighbour(wan, address(FAR_WAN));
        known().is_some_and(|mac| mac != [2, 0, 0, 0, 0, 9])
    });
}

#[test]
fn changes_of_addresses_and_links_are_told_and_seen() {
    let net = Gateway::new();
    let (network, events) = start(&net.gateway);
    net.gateway.ip(&["addr", "add", "203.0.113.9/24", "dev", "wan0"]);
    expect(&events, &NetworkEvent::AddressAdded(address("203.0.113.9")));
    assert!(network.snapshot().local_addresses().any(|a| a == address("203.0.113.9")));
    assert!(network.snapshot().is_local(address("203.0.113.9")));
    assert!(!network.snapshot().is_local(address("203.0.113.8")), "it is on the link");
    net.gateway.ip(&["addr", "del", "203.0.113.9/24", "dev", "wan0"]);
    expect(&events, &NetworkEvent::AddressRemoved(address("203.0.113.9")));

    net.gateway.ip(&["link", "set", "wan0", "down"]);
    expect(&events, &NetworkEvent::LinkDown("wan0".into()));
    assert_eq!(network.snapshot().route(address("10.2.0.7")), None, "its routes are gone with the link");
    net.gateway.ip(&["link", "set", "wan0", "up"]);
    expect(&events, &NetworkEvent::LinkUp("wan0".into()));
    net.gateway.ip(&["link", "set", "wan0", "mtu", "1300"]);
    let mtu =
        || network.snapshot().ifindex("wan0").and_then(|i| network.snapshot().interface(i).map(|i| i.mtu));
    wait_until("the MTU is seen", || mtu() == Some(1300));
    net.gateway.ip(&["link", "del", "wan0"]);
    expect(&events, &NetworkEvent::LinkDown("wan0".into()));
    assert_eq!(network.snapshot().ifindex("wan0"), None);
}

#[test]
fn routes_that_come_change_and_go_are_followed() {
    let net = Gateway::new();
    net.gateway.ip(&["addr", "add", "198.51.100.9/24", "dev", "wan0"]);
    let (network, events) = start(&net.gateway);
    let gateway = |to: &str| network.snapshot().route(address(to)).and_then(|r| r.gateway);
    net.gateway.ip(&["route", "add", "10.5.0.0/16", "via", FAR_WAN, "metric", "20"]);
    expect(&events, &NetworkEvent::RoutesChanged);
    wait_until("it is there", || gateway("10.5.0.1") == Some(address(FAR_WAN)));
    net.gateway.ip(&["route", "add", "10.5.0.0/16", "via", "198.51.100.3", "metric", "10"]);
    wait_until("the lower metric decides", || gateway("10.5.0.1") == Some(address("198.51.100.3")));
    net.gateway.ip(&["route", "replace", "10.5.0.0/16", "via", "198.51.100.4", "metric", "10"]);
    wait_until("it is replaced", || gateway("10.5.0.1") == Some(address("198.51.100.4")));
    net.gateway.ip(&["route", "del", "10.5.0.0/16", "metric", "10"]);
    wait_until("the other one decides", || gateway("10.5.0.1") == Some(address(FAR_WAN)));
    net.gateway.ip(&["route", "flush", "10.5.0.0/16"]);
    wait_until("none is left", || gateway("10.5.0.1").is_none());
    let multipath = ["nexthop", "via", "198.51.100.3", "nexthop", "via", "198.51.100.4"];
    net.gateway.ip(&[&["route", "add", "10.6.0.0/16"], &multipath[..]].concat());
    wait_until("the first of several next hops is taken", || {
        gateway("10.6.0.1") == Some(address("198.51.100.3"))
    });
}

#[test]
fn thousands_of_changes_at_once_end_in_the_right_state() {
    let net = Gateway::new();
    let (network, _events) = start(&net.gateway);
    let directory = tempfile::tempdir().unwrap();
    let batch = |name: &str, verb: &str, range: std::ops::Range<u32>| {
        let lines =
            range.map(|i| format!("route {verb} 10.{}.{}.0/24 via {FAR_WAN}\n", 50 + i / 256, i % 256));
        let file = directory.path().join(name);
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        net.gateway.ip(&["-batch", file.to_str().unwrap()]);
    };
    batch("add", "add", 0..10_000);
    batch("del", "del", 0..5_000);
    net.gateway.ip(&["route", "add", "10.49.0.0/24", "via", FAR_WAN]);
    wait_until("the last change is seen", || network.snapshot().route(address("10.49.0.1")).is_some());
    let now = network.snapshot();
    let is_there = |i: u32| now.route(IpAddr::from([10, (50 + i / 256) as u8, (i % 256) as u8, 7])).is_some();
    assert_eq!((0..10_000).filter(|&i| is_there(i)).count(), 5_000);
    assert!((5_000..10_000).all(is_there));
}

#[test]
fn protected_prefixes_lead_into_the_tun_and_nothing_that_comes_out_of_it_does() {
    let net = Gateway::new();
    net.gateway.ip(&["tuntap", "add", "tun0", "mode", "tun"]);
    net.gateway.ip(&["link", "set", "tun0", "up"]);
    let (network, _events) = start(&net.gateway);
    let ifindex = network.snapshot().ifindex("tun0").unwrap();
    let mut routes = net.gateway.run(|| TunRoutes::open("gw", "tun0")).unwrap();
    let protect = [(address("10.2.3.4"), 16), (address("fd02::"), 16), (address("0.0.0.0"), 0)];
    let throw = [(address("10.2.9.0"), 24), (address("fd02:9::"), 32)].into();
    let routing = TunRouting { protect: protect.map(Into::into).into(), throw, ..TunRouting::default() };
    let first_alone = TunRouting { protect: vec![protect[0].into()], ..TunRouting::default() };
    let kernel = |arguments: &[&str]| net.gateway.ip(&[&["route", "get"], arguments].concat());
    for _ in 0..2 {
        routes.replace(ifindex, &routing).unwrap();
        for to in ["10.2.0.7", "fd02::7", "192.0.2.1"] {
            assert!(kernel(&[to]).contains("dev tun0"), "{to}");
        }
        for to in ["10.2.9.7", "fd02:9::7"] {
            assert!(kernel(&[to]).contains("dev wan0"), "{to}");
        }
        let injected = kernel(&["10.1.0.5", "from", "192.0.2.9", "iif", "tun0"]);
        assert!(injected.contains("dev lan0"), "{injected}");
        let injected = kernel(&["10.2.0.7", "from", "192.0.2.9", "iif", "tun0"]);
        assert!(injected.contains("dev wan0"), "{injected}");
        let outer = network.snapshot().route(address("10.2.0.7")).unwrap();
        assert_eq!(outer.gateway, Some(address(FAR_WAN)), "outer packets do not follow our own routes");
    }
    let rules = |net: &Gateway| net.gateway.ip(&["rule"]) + &net.gateway.ip(&["-6", "rule"]);
    let with_one = rules(&net);
    let mut other = net.gateway.run(|| TunRoutes::open("other", "tun1")).unwrap();
    other.replace(ifindex, &first_alone).unwrap();
    other.close(&first_alone).unwrap();
    assert_eq!(rules(&net), with_one, "other instances are left alone");

    routes.replace(ifindex, &first_alone).unwrap();
    assert!(kernel(&["10.2.9.7"]).contains("dev tun0"));
    assert!(kernel(&["fd02::7"]).contains("dev wan0"));
    routes.close(&first_alone).unwrap();
    assert!(kernel(&["10.2.0.7"]).contains("dev wan0"));
    assert!(!rules(&net).contains("187"), "{}", rules(&net));
}

/// RFC 4301 section 4.4.1: the final DISCARD of a protected interface is a worker's; with its TUN device gone, the kernel's.
#[test]
fn from_a_protected_interface_all_but_the_bypassed_leads_into_the_tun_or_nowhere() {
    let net = Gateway::new();
    net.gateway.ip(&["route", "add", "default", "via", FAR_WAN]);
    net.gateway.ip(&["route", "add", "fd0a::/16", "dev", "wan0"]);
    net.gateway.ip(&["tuntap", "add", "tun0", "mode", "tun"]);
    net.gateway.ip(&["link", "set", "tun0", "up"]);
    let (network, _events) = start(&net.gateway);
    let ifindex = network.snapshot().ifindex("tun0").unwrap();
    let mut routes = net.gateway.run(|| TunRoutes::open("gw", "tun0")).unwrap();
    let routing = TunRouting {
        protect: vec![(address("10.2.0.0"), 16).into()],
        throw: vec![(address("10.2.9.0"), 24)],
        protected_interfaces: [Arc::from("lan0")].into(),
        closed: vec![
            ((address("10.2.9.1"), 24), true),
            ((address("10.2.9.128"), 25), false),
            ((address("fd0a:9::"), 32), true),
        ],
    };
    let way = |from: &str, to: &str, iif: &str| {
        let arguments = ["route", "get", to, "from", from, "iif", iif];
        let said = net.gateway.run(|| std::process::Command::new("ip").args(arguments).output()).unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        said.split_whitespace().skip_while(|word| *word != "dev").nth(1).map(str::to_owned)
    };
    let from_lan = |to: &str| way(if to.contains(':') { "fd01::5" } else { "10.1.0.5" }, to, "lan0");
    let wan = Some("wan0".to_owned());
    for _ in 0..2 {
        routes.replace(ifindex, &routing).unwrap();
        for to in ["10.2.0.7", "10.2.9.200", "203.0.113.9", "fd02::7", "fd0a::7"] {
            assert_eq!(from_lan(to).as_deref(), Some("tun0"), "{to}");
        }
        for to in ["10.2.9.7", "fd0a:9::7"] {
            assert_eq!(from_lan(to), wan, "{to}");
        }
        assert_eq!(way("192.0.2.9", "203.0.113.9", "tun0"), wan, "what a worker lets pass");
        assert_eq!(from_lan("10.1.0.1").as_deref(), Some("lo"), "this host itself");
    }
    let is_shut = || {
        for to in ["10.2.0.7", "10.2.9.200", "203.0.113.9", "fd02::7", "fd0a::7"] {
            assert_eq!(from_lan(to), None, "{to}");
        }
        for to in ["10.2.9.7", "fd0a:9::7"] {
            assert_eq!(from_lan(to), wan, "{to}");
        }
    };
    net.gateway.ip(&["link", "del", "tun0"]);
    is_shut();
    routes.close(&routing).unwrap();
    is_shut();
    net.gateway.run(|| netlink::release("gw")).unwrap();
    assert_eq!(from_lan("203.0.113.9"), wan, "released");
    let rules = net.gateway.ip(&["rule"]) + &net.gateway.ip(&["-6", "rule"]);
    assert!(!rules.contains("187"), "{rules}");
}

fn start(namespace: &Namespace) -> (Network, Receiver<NetworkEvent>) {
    let (sender, events) = mpsc::channel();
    // A test that has seen enough has dropped its end.
    let network = namespace.run(|| Network::start(move |e| drop(sender.send(e)))).unwrap();
    (network, events)
}

/// Waits for one event among others, such as those of link-local addresses.
fn expect(events: &Receiver<NetworkEvent>, expected: &NetworkEvent) {
    while events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{expected:?} never came")) != *expected {}
}
