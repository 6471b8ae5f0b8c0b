//! The guard beside the TUN device: protected traffic passes there and nowhere else.

mod gateway;

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use gateway::{
    FAR_INNER, FAR_INNER_V6, FAR_WAN, FAR_WAN_V6, GATEWAY_LAN, GATEWAY_LAN_V6, Gateway, HOST, HOST_V6, Leaks,
    PATIENCE, address, bind, leaks, leaks_v6, wait_until,
};
use portcullis_data_plane::guard::{
    AddressRange, BackendKind, Guard, GuardConfig, GuardSpec, Pair, Rule, RuleAction,
};
use portcullis_data_plane::netlink::{Network, TunRoutes, TunRouting};
use portcullis_data_plane::sockets::allow_in_clear;
use portcullis_data_plane::tun::Tun;
use portcullis_data_plane::xsk::{BindMode, FrameCache, FramePool, Socket, SocketConfig, Umem};

#[test]
fn protected_traffic_passes_through_the_tun_both_ways_but_for_the_gateways_own_ipv6() {
    let setting = Setting::new();
    for (host, own, far) in [(HOST, GATEWAY_LAN, FAR_INNER), (HOST_V6, GATEWAY_LAN_V6, FAR_INNER_V6)] {
        for (namespace, source) in [(&setting.net.host, host), (&setting.net.gateway, own)] {
            let socket = namespace.run(|| bind(source));
            if source == GATEWAY_LAN_V6 {
                // Linux has no way to exempt one interface from `out` policies here: shut, not open.
                let refused = socket.send_to(b"to the tunnel", (address(far), 4242)).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
                continue;
            }
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"to the tunnel", (address(far), 4242)).unwrap();
            let packet = setting.read_from_tun(|p| p.ends_with(b"to the tunnel"));
            setting.tun.write(0, &answer(&packet)).unwrap();
            let mut buffer = [0; 64];
            let (len, from) = socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{source}: {e}"));
            assert_eq!((&buffer[..len], from.ip()), (&b"to the tunnel"[..], address(far)));
        }
    }
    let drops = setting.net.gateway.run(|| setting.guard.state()).drops;
    assert_eq!((drops.outbound, drops.inbound), (1, 0), "the refused datagram and nothing else");
}

#[test]
fn clear_text_from_outside_is_dropped_while_the_tun_is_up() {
    let setting = Setting::new();
    for leaks in [leaks(&setting.net), leaks_v6(&setting.net)] {
        assert!(!leaks.forwarded_in && !leaks.own_in, "{leaks:?}");
    }
}

/// RFC 4301 section 5.1: what was opened crosses the boundary again by policy alone, also while a route that workers do
/// not know yet leads it out.
#[test]
fn an_opened_packet_that_the_kernel_routes_out_of_the_wan_stops_there() {
    for backend in [BackendKind::Xfrm, BackendKind::Nftables] {
        let setting = Setting::on(Some(backend));
        let gateway = &setting.net.gateway;
        gateway.ip(&["link", "set", "lan0", "down"]);
        gateway.ip(&["route", "add", "default", "via", FAR_WAN]);
        gateway.ip(&["-6", "route", "add", "default", "via", FAR_WAN_V6]);
        setting.net.far.ip(&["addr", "add", "10.1.0.5/32", "dev", "lo"]);
        setting.net.far.ip(&["addr", "add", "fd01::5/128", "dev", "lo", "nodad"]);
        // The kernel makes the route to an IPv6 address of its own a moment after the address.
        wait_until("the address is local", || {
            setting.net.far.ip(&["-6", "route", "show", "table", "local"]).contains("local fd01::5 ")
        });
        let wan = gateway.run(|| Network::start(|_| {}).unwrap().snapshot().ifindex("wan0").unwrap());
        for is_guarded in [false, true] {
            let interfaces = is_guarded.then_some(wan).into_iter();
            gateway.run(|| setting.guard.update(|s| s.wan_interfaces = interfaces.collect())).unwrap();
            for (inner, outside) in [(("10.2.0.9", HOST), FAR_WAN), (("fd02::9", HOST_V6), FAR_WAN_V6)] {
                let arrived = setting.opened_arrives_outside(inner, outside);
                assert_eq!(arrived, !is_guarded, "{backend}, {inner:?}");
            }
        }
    }
}

#[test]
fn without_its_tun_or_past_it_traffic_stops() {
    let setting = Setting::new();
    setting.net.gateway.ip(&["route", "add", "10.2.0.7/32", "via", FAR_WAN]);
    setting.net.gateway.ip(&["rule", "add", "pref", "100", "to", "10.2.0.7", "lookup", "main"]);
    assert_eq!(leaks(&setting.net), Leaks::NONE, "a more specific route and rule");
    setting.net.gateway.ip(&["link", "del", "tun0"]);
    assert_eq!((leaks(&setting.net), leaks_v6(&setting.net)), (Leaks::NONE, Leaks::NONE), "no TUN");
}

#[test]
fn a_socket_with_its_own_allow_passes_where_others_are_stopped() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let rules = vec![protect("0.0.0.0/0", "0.0.0.0/0"), protect("2001:db8::/32", "2001:db8::/32")];
    let spec = GuardSpec { rules, local_addresses: [address("2001:db8::1")].into(), ..GuardSpec::default() };
    let _guard = net.gateway.run(|| Guard::start(GuardConfig::new("gw", dir.path()), spec, |_| {})).unwrap();
    for (local, remote) in [("198.51.100.1", FAR_WAN), ("2001:db8::1", "2001:db8::2")] {
        let far = net.far.run(|| bind(remote));
        let (allowed, other) = net.gateway.run(|| (bind(local), bind(local)));
        allow_in_clear(allowed.as_fd(), address(local).is_ipv6()).unwrap();
        let refused = other.send_to(b"x", far.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        exchange(&allowed, &far);
        exchange(&far, &allowed);
    }
}

/// The fast path forwards decrypted packets between the very addresses that the guard covers.
#[test]
fn what_a_worker_sends_by_af_xdp_is_not_touched() {
    let setting = Setting::new();
    let far = setting.net.far.run(|| bind(FAR_INNER));
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let far_mac = setting.net.far.run(|| mac("eth0"));
    setting.net.gateway.run(|| {
        let network = Network::start(|_| {}).unwrap().snapshot();
        let ifindex = network.ifindex("wan0").unwrap();
        let (umem, frames) = Umem::new(64, 2048).unwrap();
        let umem = Arc::new(umem);
        let (mode, busy_retry) = (BindMode::Copy, PATIENCE);
        let config = SocketConfig { ifindex, queue: 0, ring_size: 64, mode, multi_buffer: false, busy_retry };
        let mut socket = Socket::bind(&config, umem.clone(), None).unwrap();
        let mut free = FrameCache::new(FramePool::new(frames), 16).take().unwrap();
        let own_mac = network.interface(ifindex).unwrap().mac;
        let port = far.local_addr().unwrap().port();
        let packet = frame(own_mac, far_mac, [10, 1, 0, 5], [10, 2, 0, 7], port, b"fast path");
        umem.bytes_mut(&mut free)[..packet.len()].copy_from_slice(&packet);
        socket.transmit(free, 0, packet.len()).unwrap();
        socket.flush().unwrap();
        let mut buffer = [0; 64];
        let (len, from) = far.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&b"fast path"[..], address(HOST)));
    });
}

fn mac(interface: &str) -> [u8; 6] {
    let network = Network::start(|_| {}).unwrap().snapshot();
    network.ifindex(interface).and_then(|i| network.interface(i)).unwrap().mac
}

fn exchange(from: &UdpSocket, to: &UdpSocket) {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.send_to(b"esp", to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(to.recv(&mut buffer).unwrap(), 3);
}

/// A UDP datagram in IPv4 in Ethernet, without a UDP checksum.
fn frame(
    from: [u8; 6],
    to: [u8; 6],
    source: [u8; 4],
    destination: [u8; 4],
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut ip =
        [&[0x45, 0], &(20 + udp_len).to_be_bytes()[..], &[0; 4], &[64, 17, 0, 0], &source, &destination]
            .concat();
    let sum = ip.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum::<u32>();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [4242, port, udp_len, 0].map(u16::to_be_bytes).concat();
    [&to[..], &from, &[8, 0], &ip, &udp, payload].concat()
}

/// A gateway with a guard, and a TUN device that takes the protected prefixes.
struct Setting {
    tun: Tun,
    guard: Guard,
    net: Gateway,
    _dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        Self::on(None)
    }

    fn on(backend: Option<BackendKind>) -> Self {
        let net = Gateway::new();
        assert_eq!((leaks(&net), leaks_v6(&net)), (Leaks::ALL, Leaks::ALL), "control");
        let dir = tempfile::tempdir().unwrap();
        let spec = GuardSpec {
            rules: vec![protect("10.1.0.0/16", "10.2.0.0/16"), protect("fd01::/16", "fd02::/16")],
            ..GuardSpec::default()
        };
        let (guard, tun) = net.gateway.run(|| {
            let config = GuardConfig { backend, ..GuardConfig::new("gw", dir.path()) };
            let guard = Guard::start(config, spec, |_| {}).unwrap();
            let tun = Tun::create("tun0", 1400, false, true, 1).unwrap();
            let learned = |s: &mut GuardSpec| assert!(s.tun_interfaces.insert(tun.ifindex()));
            guard.update(learned).unwrap();
            let protect = [(address("10.2.0.0"), 16), (address("fd02::"), 16)].map(Into::into).into();
            let routing = TunRouting { protect, ..TunRouting::default() };
            TunRoutes::open("gw", "tun0").unwrap().replace(tun.ifindex(), &routing).unwrap();
            (guard, tun)
        });
        Self { tun, guard, net, _dir: dir }
    }

    /// Gives the kernel a packet as a worker does that opened it; whether it comes out of the WAN. A marker from an
    /// address that nothing protects follows it on the same way.
    fn opened_arrives_outside(&self, (from, to): (&str, &str), outside: &str) -> bool {
        let receiver = self.net.far.run(|| UdpSocket::bind("[::]:0").unwrap());
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let marker_from = if from.contains(':') { "fd09::9" } else { "10.9.0.9" };
        self.tun.write(0, &datagram(from, to, port, b"opened")).unwrap();
        self.tun.write(0, &datagram(marker_from, outside, port, b"marker")).unwrap();
        let mut buffer = [0; 16];
        let (len, _) = receiver.recv_from(&mut buffer).expect("the marker arrives");
        if &buffer[..len] == b"marker" {
            return false;
        }
        let (len, _) = receiver.recv_from(&mut buffer).expect("the marker arrives");
        &buffer[..len] == b"marker"
    }

    /// The next packet out of the TUN that is meant; the kernel sends some of its own.
    fn read_from_tun(&self, is_meant: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut found = None;
        wait_until("a packet comes out of the TUN", || {
            let mut buffer = [0; 2048];
            let read = self.tun.read(0, &mut buffer).ok().map(|read| {
                let packet = &mut buffer[read.range];
                read.offload.finish_checksum(packet);
                packet.to_vec()
            });
            found = read.filter(|packet| is_meant(packet));
            found.is_some()
        });
        found.unwrap_or_default()
    }
}

/// A UDP datagram in IP.
fn datagram(from: &str, to: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let mut udp = [4242, port, len, 0].map(u16::to_be_bytes).concat();
    udp.extend_from_slice(payload);
    match (address(from), address(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let frame = frame([0; 6], [0; 6], from.octets(), to.octets(), port, payload);
            frame[14..].to_vec()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let pseudo = [&addresses[..], &u32::from(len).to_be_bytes(), &[0, 0, 0, 17], &udp].concat();
            let sum =
                pseudo.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], *b.get(1).unwrap_or(&0)])));
            let sum = sum.sum::<u32>();
            let folded = (sum & 0xffff) + (sum >> 16);
            let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
            [&[0x60, 0, 0, 0], &len.to_be_bytes()[..], &[17, 64], &addresses, &udp].concat()
        }
        _ => unreachable!("one family"),
    }
}

/// The same datagram back: addresses and ports swapped, which leaves every checksum as it is.
fn answer(packet: &[u8]) -> Vec<u8> {
    let (addresses, ports) = if packet[0] >> 4 == 4 { (12..20, 20..24) } else { (8..40, 40..44) };
    let mut answer = packet.to_vec();
    for field in [addresses, ports] {
        let half = (field.end - field.start) / 2;
        answer[field].rotate_left(half);
    }
    answer
}

fn protect(local: &str, remote: &str) -> Rule {
    let range = |text: &str| {
        let (prefix, length) = text.split_once('/').unwrap();
        AddressRange::prefix(address(prefix), length.parse().unwrap())
    };
    Rule { action: RuleAction::Protect, pairs: vec![Pair::addresses(range(local), range(remote))] }
}
