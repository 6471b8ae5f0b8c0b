//! Two gateways with static keys between two hosts, each in its own network namespace:
//! `host-a — gw-a — gw-b — host-b`, IPv4 and IPv6 inside and outside.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod flows;
pub mod joined;

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use portcullis_common::Spi;
use portcullis_data_plane::config::{
    Classification, DataPlaneConfig, Idle, InterfaceConfig, Mode, OpeningLimits, Role,
};
use portcullis_data_plane::counters::{Sink, Source};
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::handle::{DataPlane, DataPlaneSockets, Receivers};
use portcullis_data_plane::packet::TunnelOptions;
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use portcullis_data_plane::sa::{
    Carrier, ChildId, EchoAnswers, InboundSa, Lifetime, OutboundSa, Path, PathId, SaCommon, SaKey,
    SaSelectors,
};
use portcullis_esp::{Algorithm, EchoSubTypes};

use crate::gateway::{Namespace, PATIENCE, address, bind, wait_until};

pub const HOST_A: &str = "10.1.0.5";
pub const HOST_B: &str = "10.2.0.5";
pub const HOST_A_V6: &str = "fd01::5";
pub const HOST_B_V6: &str = "fd02::5";
pub const PATH: PathId = PathId(1);
/// Children above this are for further resources of the policy (RFC 9611).
pub const FURTHER: u64 = 100;
pub const CHILD: ChildId = ChildId(1);

/// A packet that has not arrived by then is sent again.
pub const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The whole of it. Field order is drop order: data planes end before their namespaces.
pub struct Tunnel {
    pub a: Side,
    pub b: Side,
    /// Inbound SPIs of the pair that it was made with.
    pub first_spis: (Spi, Spi),
}

/// One gateway with its host.
pub struct Side {
    pub plane: DataPlane,
    pub receivers: Receivers,
    pub gateway: Namespace,
    pub host: Namespace,
    number: u8,
    instance: Arc<str>,
    _state: tempfile::TempDir,
}

/// How to build a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub mode: Mode,
    pub classification: Classification,
    pub offloads: bool,
    pub workers: u8,
    pub queues: u32,
    pub sa_slots: u32,
    /// SAs move by load; otherwise where a test moves them.
    pub balance: bool,
    /// Of every link in bytes.
    pub mtu: u32,
    pub idle: Idle,
}

pub const NO_LIMITS: Lifetime = Lifetime {
    soft_bytes: u64::MAX,
    hard_bytes: u64::MAX,
    soft_packets: u64::MAX,
    hard_packets: u64::MAX,
    hard_time: std::time::Duration::from_secs(3600),
};

pub const XDP: Shape = Shape {
    mode: Mode::Xdp,
    classification: Classification::On,
    offloads: true,
    workers: 1,
    queues: 1,
    sa_slots: 1024,
    balance: false,
    mtu: 1500,
    idle: Idle::Sleep,
};
pub const TUN: Shape = Shape { mode: Mode::Tun, ..XDP };
/// As it is configured by default.
pub const TUN_ALONE: Shape = Shape { classification: Classification::Auto, ..TUN };

impl Tunnel {
    /// Namespaces, data planes and one pair of SAs over UDP and IPv4.
    pub fn new(shape: Shape) -> Self {
        let mut tunnel = Self::without_sas(shape);
        tunnel.set_path(Carrier::Udp, false);
        tunnel.first_spis = tunnel.install(CHILD, NO_LIMITS);
        tunnel
    }

    /// Namespaces and data planes that have a policy and no SA.
    pub fn without_sas(shape: Shape) -> Self {
        let (gateway_a, gateway_b) = (Namespace::new(), Namespace::new());
        let (host_a, host_b) = (Namespace::new(), Namespace::new());
        veth((&gateway_a, "wan0"), (&gateway_b, "wan0"), shape.queues);
        veth((&gateway_a, "lan0"), (&host_a, "eth0"), shape.queues);
        veth((&gateway_b, "lan0"), (&host_b, "eth0"), shape.queues);
        let ends = [(&gateway_a, "wan0"), (&gateway_a, "lan0"), (&gateway_b, "wan0"), (&gateway_b, "lan0")];
        for (namespace, name) in ends.into_iter().chain([(&host_a, "eth0"), (&host_b, "eth0")]) {
            namespace.ip(&["link", "set", name, "mtu", &shape.mtu.to_string()]);
        }
        let (a, b) = (Side::start(1, gateway_a, host_a, shape), Side::start(2, gateway_b, host_b, shape));
        Self { a, b, first_spis: (Spi(0), Spi(0)) }
    }

    /// A new WAN in the place of one that was removed.
    pub fn connect_wan(&self) {
        veth((&self.a.gateway, "wan0"), (&self.b.gateway, "wan0"), 1);
        for side in [&self.a, &self.b] {
            let number = side.number;
            let v6 = format!("2001:db8::{number}/64");
            side.gateway.ip(&["addr", "add", &format!("198.51.100.{number}/24"), "dev", "wan0"]);
            side.gateway.ip(&["addr", "add", &v6, "dev", "wan0", "nodad"]);
        }
    }

    pub fn set_path(&self, carrier: Carrier, outer_v6: bool) {
        for (side, other) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let (local, remote) = (side.wan_address(outer_v6), other.wan_address(outer_v6));
            let echo = EchoAnswers { direct: true, ..EchoAnswers::default() };
            let path =
                Path { carrier, local, local_port: 4500, remote, remote_port: 4500, echo, takes_tcp: true };
            side.plane.update_path(PATH, path);
        }
    }

    /// A pair of SAs on both sides, in use; returns the inbound SPIs.
    pub fn install(&self, child: ChildId, lifetime: Lifetime) -> (Spi, Spi) {
        let (spi_a, spi_b) = (self.a.plane.allocate_spi().unwrap(), self.b.plane.allocate_spi().unwrap());
        self.a.plane.install_inbound(self.a.inbound(child, spi_a, lifetime)).unwrap();
        self.b.plane.install_inbound(self.b.inbound(child, spi_b, lifetime)).unwrap();
        self.a.plane.install_outbound(self.a.outbound(child, spi_b, lifetime)).unwrap();
        self.b.plane.install_outbound(self.b.outbound(child, spi_a, lifetime)).unwrap();
        assert!(self.a.plane.use_outbound(child) && self.b.plane.use_outbound(child));
        (spi_a, spi_b)
    }

    /// Sends numbered datagrams from host to host, one after the other, and expects each.
    pub fn exchange(&self, from: &str, to: &str, count: u32) {
        let (source, sink) = if is_of_a(from) { (&self.a, &self.b) } else { (&self.b, &self.a) };
        let sender = source.host.run(|| bind(from));
        let receiver = sink.host.run(|| bind(to));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let destination = receiver.local_addr().unwrap();
        for number in 0..count {
            let mut payload = vec![number as u8; 200];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            sender.send_to(&payload, destination).unwrap();
            let mut received = [0; 300];
            let (len, source) = receiver.recv_from(&mut received).unwrap_or_else(|e| {
                panic!("{from} to {to}, number {number}: {e}\n{}\n{}", self.a.drops(), self.b.drops())
            });
            assert_eq!((&received[..len], source.ip()), (&payload[..], address(from)));
        }
    }

    /// Sends from host to host until a datagram arrives: routes, neighbours and the data plane's view of both
    /// come back a moment after the carrier, and what is sent before is dropped and counted.
    pub fn wait_until_passes(&self, from: &str, to: &str) {
        let (source, sink) = if is_of_a(from) { (&self.a, &self.b) } else { (&self.b, &self.a) };
        let sender = source.host.run(|| bind(from));
        let receiver = sink.host.run(|| bind(to));
        receiver.set_read_timeout(Some(AGAIN_AFTER)).unwrap();
        let destination = receiver.local_addr().unwrap();
        wait_until(&format!("{from} reaches {to}"), || {
            // The host's own neighbour may be unreachable as yet.
            let _ = sender.send_to(b"first", destination);
            receiver.recv_from(&mut [0; 8]).is_ok()
        });
    }

    /// Every direction and inner family.
    pub fn exchange_all(&self, count: u32) {
        for (a, b) in [(HOST_A, HOST_B), (HOST_A_V6, HOST_B_V6)] {
            self.exchange(a, b, count);
            self.exchange(b, a, count);
        }
    }

    /// The books of both sides balance once everything has drained.
    pub fn assert_balanced(&self) {
        for side in [&self.a, &self.b] {
            wait_until("the books balance", || side.plane.report().accounting().unaccounted() == 0);
        }
    }
}

fn is_of_a(host: &str) -> bool {
    host == HOST_A || host == HOST_A_V6
}

impl Side {
    fn start(number: u8, gateway: Namespace, host: Namespace, shape: Shape) -> Self {
        let state = tempfile::tempdir().unwrap();
        configure(number, &gateway, &host);
        let config = config(number, shape, state.path());
        let instance = config.instance.clone();
        let (plane, receivers) = gateway.run(|| {
            let sockets = ["0.0.0.0:4500", "[::]:4500"].map(udp_4500).into();
            DataPlane::start(config, policies(number), DataPlaneSockets { udp_4500: sockets }).unwrap()
        });
        Self { plane, receivers, gateway, host, number, instance, _state: state }
    }

    pub fn wan_address(&self, v6: bool) -> IpAddr {
        match v6 {
            false => address(&format!("198.51.100.{}", self.number)),
            true => address(&format!("2001:db8::{}", self.number)),
        }
    }

    pub fn other_wan_address(&self) -> IpAddr {
        address(&format!("198.51.100.{}", 3 - self.number))
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn policy(&self) -> PolicyKey {
        key()
    }

    pub fn received(&self, source: Source) -> u64 {
        self.plane.report().accounting().received[source as usize]
    }

    pub fn sent(&self, sink: Sink) -> u64 {
        self.plane.report().accounting().sent[sink as usize]
    }

    /// Drops by reason and interface verdicts, for the message of a failing test.
    pub fn drops(&self) -> String {
        let report = self.plane.report();
        let accounting = report.accounting();
        let drops = portcullis_common::DropReason::ALL.iter().filter(|r| accounting.dropped(**r) > 0);
        let drops: Vec<_> = drops.map(|r| format!("{r} {}", accounting.dropped(*r))).collect();
        let verdicts: Vec<_> = report.interfaces.iter().map(|i| format!("{} {:?}", i.name, i.xdp)).collect();
        format!(
            "received {:?} sent {:?} drops {drops:?} xdp {verdicts:?}",
            accounting.received, accounting.sent
        )
    }

    /// The next event that `wanted` picks, skipping others.
    pub fn event<T>(&mut self, mut wanted: impl FnMut(&DataPlaneEvent) -> Option<T>) -> T {
        let mut found = None;
        let events = &mut self.receivers.events;
        wait_until("the event arrives", || {
            while found.is_none()
                && let Ok(event) = events.try_recv()
            {
                found = wanted(&event);
            }
            found.is_some()
        });
        found.unwrap()
    }

    pub fn inbound(&self, child: ChildId, spi: Spi, lifetime: Lifetime) -> InboundSa {
        let common = self.common(child, 3 - self.number, lifetime);
        InboundSa { common, spi, replay_window: Some(1024) }
    }

    pub fn outbound(&self, child: ChildId, spi: Spi, lifetime: Lifetime) -> OutboundSa {
        OutboundSa { common: self.common(child, self.number, lifetime), spi, by_all_workers: false }
    }

    fn common(&self, child: ChildId, sender: u8, lifetime: Lifetime) -> SaCommon {
        SaCommon {
            child,
            path: PATH,
            policy: key_of_policy(),
            algorithm: Algorithm::Aes256Gcm16,
            key: SaKey(keymat(sender, child).into()),
            resource: u8::try_from(child.0.saturating_sub(FURTHER)).unwrap(),
            esn: true,
            selectors: SaSelectors { local: nets(self.number).into(), remote: nets(3 - self.number).into() },
            lifetime,
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.plane.stop();
        // Pins outlive processes and namespaces.
        let _ = portcullis_data_plane::bpf::release(&self.instance);
    }
}

/// Key and salt of what this side sends.
pub fn keymat(sender: u8, child: ChildId) -> Vec<u8> {
    let mut key = vec![sender; Algorithm::Aes256Gcm16.keymat_len()];
    key[0] = child.0 as u8;
    key
}

pub fn key() -> PolicyKey {
    key_of_policy()
}

fn key_of_policy() -> PolicyKey {
    PolicyKey { connection: "test".into(), child: "net".into() }
}

pub fn policies(number: u8) -> PolicySet {
    let disposition = Disposition::Protect { key: key(), acquire: true, interface: None };
    let policy = Policy { local: nets(number), remote: nets(3 - number), disposition };
    let peer = address(&format!("198.51.100.{}", 3 - number));
    let peer_v6 = address(&format!("2001:db8::{}", 3 - number));
    PolicySet { policies: vec![policy], peers: vec![Some(peer), Some(peer_v6)], ..PolicySet::default() }
}

/// The hosts' networks of one side. Addresses above .199 are outside of what the SAs take.
pub fn nets(number: u8) -> Vec<Selector> {
    let selector = |first: String, last: String| Selector {
        addresses: address(&first)..=address(&last),
        protocol: None,
        ports: 0..=u16::MAX,
    };
    vec![
        selector(format!("10.{number}.0.0"), format!("10.{number}.255.255")),
        selector(format!("fd0{number}::"), format!("fd0{number}:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
    ]
}

fn config(number: u8, shape: Shape, state: &std::path::Path) -> DataPlaneConfig {
    let interface = |name: &str, role, protected| InterfaceConfig { name: name.into(), role, protected };
    DataPlaneConfig {
        instance: Arc::from(format!("test-{}-{number}-{}", std::process::id(), unique())),
        state_dir: state.to_owned(),
        mode: shape.mode,
        classification: shape.classification,
        offloads: shape.offloads,
        idle: shape.idle,
        workers: shape.workers,
        balance: shape.balance,
        interfaces: vec![interface("wan0", Role::Wan, false), interface("lan0", Role::Lan, true)],
        xdp_object: None,
        sa_slots: shape.sa_slots,
        tun: "pc0".into(),
        tunnel: TunnelOptions::default(),
        replay_window: 4096,
        echo: EchoSubTypes::DEFAULT,
        limits: OpeningLimits::default(),
    }
}

fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn configure(number: u8, gateway: &Namespace, host: &Namespace) {
    for (name, value) in [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")] {
        gateway.sysctl(name, value);
    }
    let other = 3 - number;
    for (namespace, interface, v4, v6) in [
        (gateway, "wan0", format!("198.51.100.{number}/24"), format!("2001:db8::{number}/64")),
        (gateway, "lan0", format!("10.{number}.0.1/24"), format!("fd0{number}::1/64")),
        (host, "eth0", format!("10.{number}.0.5/24"), format!("fd0{number}::5/64")),
    ] {
        namespace.ip(&["addr", "add", &v4, "dev", interface]);
        namespace.ip(&["addr", "add", &v6, "dev", interface, "nodad"]);
    }
    host.ip(&["route", "add", "default", "via", &format!("10.{number}.0.1")]);
    host.ip(&["route", "add", "default", "via", &format!("fd0{number}::1")]);
    // Plain routes to the other side, so that a leak would arrive.
    gateway.ip(&["route", "add", &format!("10.{other}.0.0/16"), "via", &format!("198.51.100.{other}")]);
    gateway.ip(&["route", "add", &format!("fd0{other}::/16"), "via", &format!("2001:db8::{other}")]);
}

pub fn veth(left: (&Namespace, &str), right: (&Namespace, &str), queues: u32) {
    let queues = queues.to_string();
    let shape = ["numrxqueues", &queues, "numtxqueues", &queues];
    let end = ["type", "veth", "peer", "name", right.1, "netns", right.0.name()];
    left.0.ip(&[&["link", "add", left.1], &shape[..], &end, &shape].concat());
    for (namespace, name) in [left, right] {
        // Network cards have it on.
        namespace.command("ethtool", &["-K", name, "gro", "on"]);
        namespace.ip(&["link", "set", name, "up"]);
    }
    for (namespace, name) in [left, right] {
        wait_until("the carrier is seen", || {
            namespace.ip(&["-o", "link", "show", "dev", name]).contains("state UP")
        });
    }
}

fn udp_4500(address: &str) -> UdpSocket {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.into()
}
