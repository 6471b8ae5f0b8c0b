//! A worker between two rings in memory, and whatever arrives on them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use portcullis_common::Spi;
use portcullis_data_plane::config::Role;
use portcullis_data_plane::counters::Accounting;
use portcullis_data_plane::event::{DataPlaneEvent, IkeDatagram};
use portcullis_data_plane::netlink::{Interface, Network, Route, Snapshot};
use portcullis_data_plane::packet::{Inner, TunnelOptions};
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use portcullis_data_plane::sa::{
    Carrier, ChildId, EchoAnswers, InboundSa, Lifetime, OutboundSa, Path, PathId, SaCommon, SaKey,
    SaSelectors,
};
use portcullis_data_plane::sa_table::{self, Backing, TableConfig};
use portcullis_data_plane::spd::{self, Spd};
use portcullis_data_plane::stream::Streams;
use portcullis_data_plane::worker::facts::{InboundFacts, OncePerSecond};
use portcullis_data_plane::worker::kernel_path::KernelPath;
use portcullis_data_plane::worker::sas::{InboundExtra, OutboundExtra, SaTable};
use portcullis_data_plane::worker::shared::{Mailbox, Notifier, Settings, Shared};
use portcullis_data_plane::worker::{Port, Worker};
use portcullis_data_plane::xsk::{Descriptor, FarRings, FrameCache, FramePool, Socket, Umem};
use portcullis_esp::{
    Algorithm, EchoSubTypes, ExpandedKeymat, Inbound, InboundLive, InboundParameters, KeyMaterial,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::sync::mpsc;

const LAN: u32 = 2;
const WAN: u32 = 3;
const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const FAR_HOST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 5);
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 5];
const PEER_SPI: Spi = Spi(0x1234_5678);
const KEY_OCTET: u8 = 7;
const ALGORITHM: Algorithm = Algorithm::Aes256Gcm16;
const PATH: PathId = PathId(1);
const RING: u32 = 32;
const FRAMES: u32 = 192;
const FRAME_BYTES: u32 = 4096;
/// Where the kernel puts a packet in its frame.
const START: usize = 256;
const LONGEST: usize = 2048;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const IPV4: u8 = 4;

/// Each step is an operation, a length of two octets, and so many octets of a packet.
///
/// Whatever arrives: nothing panics, the books balance, what leaves on the WAN side is ESP of our SA with an inner packet that its
/// selectors cover, what leaves on the LAN side was inside an authentic packet or is an ICMP error, and a good packet passes afterwards.
pub fn worker(data: &[u8]) {
    let mut gateway = Gateway::new();
    let mut rest = data;
    while let [operation, high, low, tail @ ..] = rest {
        let wanted = usize::from(u16::from_be_bytes([*high, *low])) % LONGEST;
        let octets;
        (octets, rest) = tail.split_at(wanted.min(tail.len()));
        match operation % 6 {
            0 => gateway.take_lan(octets.to_vec()),
            1 => gateway.take_lan(ethernet(octets)),
            2 if operation & 0x40 != 0 => gateway.take_wan(octets.to_vec(), false),
            2 => gateway.take_wan(summed(octets), false),
            3 => gateway.take_wan(ethernet(&udp(PEER, OWN, 4500, 4500, octets)), false),
            // An authentic packet with whatever is in it: with a sound trailer, and with none that is promised.
            4 => {
                let next_header =
                    if operation & 0x40 != 0 { operation >> 1 } else { octets.first().map_or(IPV4, version) };
                let esp = gateway.sealed(&[octets, &[0, next_header]].concat());
                gateway.take_wan(ethernet(&udp(PEER, OWN, 4500, 4500, &esp)), true);
            }
            _ => {
                let mut esp = gateway.sealed(octets);
                let is_changed = operation & 0x40 != 0;
                if is_changed {
                    let place = usize::from(*low) % esp.len();
                    esp[place] ^= operation | 1;
                }
                gateway.take_wan(ethernet(&udp(PEER, OWN, 4500, 4500, &esp)), !is_changed);
            }
        }
    }
    gateway.assert_alive();
}

fn version(first: &u8) -> u8 {
    if first >> 4 == 6 { 41 } else { IPV4 }
}

/// The worker with everything around it.
struct Gateway {
    worker: Worker,
    shared: Arc<Shared>,
    umem: Arc<Umem>,
    lan: FarRings,
    wan: FarRings,
    spi: Spi,
    key: LessSafeKey,
    sequence: u64,
    /// What the peer has of our outbound SA.
    peer: Inbound<Arc<(InboundLive, Vec<AtomicU64>)>>,
    _table: SaTable,
    _events: mpsc::Receiver<DataPlaneEvent>,
    _ike: mpsc::Receiver<IkeDatagram>,
}

impl Gateway {
    fn new() -> Self {
        let (umem, frames) = Umem::new(FRAMES, FRAME_BYTES).expect("memory");
        let (umem, pool) = (Arc::new(umem), FramePool::new(frames));
        let (lan_socket, lan) = Socket::in_memory(umem.clone(), RING).expect("rings");
        let (wan_socket, wan) = Socket::in_memory(umem.clone(), RING).expect("rings");
        let ports = vec![
            Port::new(LAN, Role::Lan, true, [2, 0, 0, 0, 0, 1], lan_socket),
            Port::new(WAN, Role::Wan, false, [2, 0, 0, 0, 0, 2], wan_socket),
        ];
        let (table, mut owned) =
            sa_table::create(TableConfig { slots: 256, workers: 1 }, Backing::Memory).expect("an SA table");
        let mut protects = HashMap::new();
        let spd = Spd::build(&policies(), &mut protects, 1);
        let (events, event_receiver) = mpsc::channel(1 << 12);
        let (ike, ike_receiver) = mpsc::channel(16);
        let kernel = KernelPath::new(Vec::new(), Vec::new(), Vec::new(), None, None);
        let streams = Streams::new(umem.clone(), pool.clone(), 16);
        let settings = Settings {
            idle: Default::default(),
            tunnel: TunnelOptions::default(),
            echo: EchoSubTypes::DEFAULT,
            wan: vec!["wan0".into()],
        };
        let network = Network::fixed(network()).expect("a descriptor");
        let mailboxes = vec![Mailbox::new().expect("a descriptor")];
        let notifier = Notifier { events, ike };
        let shared = Arc::new(Shared::new(spd, network, kernel, mailboxes, streams, notifier, settings));
        let (local, remote) = (OWN.into(), PEER.into());
        let echo = EchoAnswers { direct: true, ..EchoAnswers::default() };
        let path = Path {
            carrier: Carrier::Udp,
            local,
            local_port: 4500,
            remote,
            remote_port: 4500,
            echo,
            takes_tcp: false,
        };
        shared.paths.update(PATH, path, TunnelOptions::default(), &shared.streams);
        let path = shared.paths.get(PATH).expect("the path");
        let spi = table.reserve_spi().expect("room");
        let (facts, echo) = (InboundFacts::default(), Default::default());
        let extra = InboundExtra { path: path.clone(), tun: None, facts, echo };
        let sa = InboundSa { common: common(), spi, replay_window: Some(64) };
        table.install_inbound(&sa, 0, extra, 0).expect("room");
        let extra = OutboundExtra { path: path.clone(), reported: OncePerSecond::default() };
        let index = table
            .install_outbound(
                &OutboundSa { common: common(), spi: PEER_SPI, by_all_workers: false },
                0,
                extra,
                0,
            )
            .expect("room");
        path.add_outbound(PEER_SPI, index);
        let child = common().child;
        protects[&key()].use_outbound(spd::Outbound {
            child,
            index,
            selectors: common().selectors,
            resource: 0,
        });
        let free = FrameCache::new(pool, 32);
        let worker = Worker::new(0, shared.clone(), umem.clone(), free, ports, owned.remove(0));
        let material = KeyMaterial::from_keymat(ALGORITHM, &keymat()).expect("key material");
        let parameters = InboundParameters { spi: PEER_SPI, esn: true, lifetime: Default::default() };
        let memory = Arc::new((InboundLive::default(), (0..64).map(|_| AtomicU64::new(0)).collect()));
        let expanded = ExpandedKeymat::new(&material).expect("keys");
        Self {
            worker,
            shared,
            umem,
            lan,
            wan,
            spi,
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[KEY_OCTET; 32]).expect("a key")),
            sequence: 0,
            peer: Inbound::new(parameters, expanded, memory).expect("a window"),
            _table: table,
            _events: event_receiver,
            _ike: ike_receiver,
        }
    }

    fn take_lan(&mut self, frame: Vec<u8>) {
        offer(&mut self.lan, &self.umem, &frame);
        self.work(false);
    }

    fn take_wan(&mut self, frame: Vec<u8>, is_authentic: bool) {
        offer(&mut self.wan, &self.umem, &frame);
        self.work(is_authentic);
    }

    /// Lets the worker work, and judges what it sends.
    fn work(&mut self, is_authentic: bool) -> Vec<Vec<u8>> {
        while self.worker.round() > 0 {}
        let (to_lan, to_wan) = (sent(&mut self.lan, &self.umem), sent(&mut self.wan, &self.umem));
        for frame in &to_wan {
            self.judge_outer(frame);
        }
        for frame in &to_lan {
            let inner = Inner::parse(&frame[14..]).expect("an IP packet");
            let is_error = matches!(inner.protocol, ICMP | ICMPV6);
            let is_covered = is_of(inner.source, 2) && is_of(inner.destination, 1);
            assert!(is_error || is_authentic && is_covered, "{inner:?} came from nowhere");
        }
        // What was sent is free again.
        while self.worker.round() > 0 {}
        let books = Accounting::total(&[self.shared.workers[0].counters.snapshot()]);
        assert_eq!(books.unaccounted(), 0, "{books:?}");
        to_lan
    }

    /// Nothing leaves but ESP, with what is covered inside.
    fn judge_outer(&mut self, frame: &[u8]) {
        let outer = Inner::parse(&frame[14..]).expect("an IP packet");
        assert_eq!(
            (outer.source, outer.destination, outer.protocol),
            (OWN.into(), PEER.into(), 17),
            "{outer:?}"
        );
        let mut packet = frame[14 + outer.payload_offset + 8..14 + outer.total_len].to_vec();
        let len = packet.len();
        let opened = self.peer.open(&mut packet, 0..len, 0).expect("ESP that the peer opens");
        if matches!(opened.next_header.0, 4 | 41) {
            let inner = Inner::parse(&packet[opened.inner]).expect("an inner packet");
            assert!(is_of(inner.source, 1) && is_of(inner.destination, 2), "{inner:?} is not covered");
        }
    }

    fn sealed(&mut self, text: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let (spi, number) = (self.spi.to_be_bytes(), self.sequence.to_be_bytes());
        let nonce = Nonce::try_assume_unique_for_key(&[&[KEY_OCTET; 4][..], &number].concat())
            .expect("twelve octets");
        let mut text = text.to_vec();
        let aad = Aad::from([&spi[..], &number].concat());
        self.key.seal_in_place_append_tag(nonce, aad, &mut text).expect("a sealed packet");
        [&spi[..], &number[4..], &number, &text].concat()
    }

    fn assert_alive(&mut self) {
        let inner = udp(FAR_HOST, HOST, 9, 9, b"alive");
        let esp = self.sealed(&[&inner[..], &[0, IPV4]].concat());
        offer(&mut self.wan, &self.umem, &ethernet(&udp(PEER, OWN, 4500, 4500, &esp)));
        let out = self.work(true);
        assert!(out.iter().any(|frame| frame.ends_with(b"alive")), "a good packet passes");
        offer(&mut self.lan, &self.umem, &ethernet(&udp(HOST, FAR_HOST, 9, 9, b"alive")));
        let before = self.peer_packets();
        self.work(false);
        assert_eq!(self.peer_packets(), before + 1, "a good packet passes");
    }

    /// Packets that the worker has sent on the WAN side.
    fn peer_packets(&self) -> u64 {
        self.shared.workers[0].counters.snapshot().sent[portcullis_data_plane::counters::Sink::Wan as usize]
    }
}

/// Puts a frame into a receive ring.
fn offer(rings: &mut FarRings, umem: &Umem, frame: &[u8]) {
    let address = rings.fill.pop().expect("the worker offers frames");
    umem.write(address, START, frame);
    rings.rx.push(Descriptor { addr: address + START as u64, len: frame.len() as u32, options: 0 });
    rings.fill.release();
    rings.rx.submit();
}

/// Takes what was sent, and says that it left.
fn sent(rings: &mut FarRings, umem: &Umem) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut addresses = Vec::new();
    while let Some(Descriptor { addr, len, .. }) = rings.tx.pop() {
        frames.push(umem.read(addr, len as usize));
        addresses.push(addr);
    }
    rings.tx.release();
    for address in addresses {
        rings.completion.push(address);
    }
    rings.completion.submit();
    frames
}

/// The frame, and if it is one of IPv4 with a sound checksum in its header.
fn summed(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let header_len = frame.get(14).map_or(0, |first| usize::from(first & 0x0f) * 4);
    if let Some(header) = frame.get_mut(14..14 + header_len.max(20)) {
        portcullis_data_plane::packet::checksum::set_ipv4_header(header);
    }
    frame
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 1][..], &NEIGHBOUR, &kind, packet].concat()
}

fn udp(from: Ipv4Addr, to: Ipv4Addr, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet.extend(from.octets());
    packet.extend(to.octets());
    portcullis_data_plane::packet::checksum::set_ipv4_header(&mut packet);
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend(((len - 20) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// Whether an address is of the network of this side: 10.N.0.0/16 or fdNN::/16.
fn is_of(address: IpAddr, side: u8) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[..2] == [10, side],
        IpAddr::V6(a) => a.octets()[..2] == [0xfd, side],
    }
}

fn network() -> Snapshot {
    let v6 = |side: u8, last: u8| Ipv6Addr::from([0xfd, side, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let interface =
        |name: &str, mac, addresses| Interface { name: name.into(), mac, mtu: 1500, is_up: true, addresses };
    let lan_addresses = vec![Ipv4Addr::new(10, 1, 0, 1).into(), v6(1, 1).into()];
    let interfaces = [
        (LAN, interface("lan0", [2, 0, 0, 0, 0, 1], lan_addresses)),
        (WAN, interface("wan0", [2, 0, 0, 0, 0, 2], vec![OWN.into()])),
    ];
    let on = |ifindex, gateway| Route { ifindex, gateway, local: false, mtu: None, source: None };
    let routes = [
        (Ipv4Addr::new(10, 1, 0, 0).into(), 24, on(LAN, None)),
        (v6(1, 0).into(), 64, on(LAN, None)),
        (Ipv4Addr::new(198, 51, 100, 0).into(), 24, on(WAN, None)),
        (Ipv4Addr::UNSPECIFIED.into(), 0, on(WAN, Some(PEER.into()))),
    ];
    let neighbours = [
        ((LAN, HOST.into()), NEIGHBOUR),
        ((LAN, v6(1, 5).into()), NEIGHBOUR),
        ((WAN, PEER.into()), NEIGHBOUR),
    ];
    Snapshot::fixed(interfaces, routes, neighbours)
}

fn keymat() -> Vec<u8> {
    vec![KEY_OCTET; ALGORITHM.keymat_len()]
}

fn key() -> PolicyKey {
    PolicyKey { connection: "fuzz".into(), child: "net".into() }
}

fn nets(side: u8) -> Vec<Selector> {
    let whole = |first: IpAddr, last: IpAddr| Selector {
        addresses: first..=last,
        protocol: None,
        ports: 0..=u16::MAX,
    };
    let mut last = [0xff; 16];
    last[..2].copy_from_slice(&[0xfd, side]);
    let mut first = [0; 16];
    first[..2].copy_from_slice(&[0xfd, side]);
    vec![whole([10, side, 0, 0].into(), [10, side, 255, 255].into()), whole(first.into(), last.into())]
}

fn policies() -> PolicySet {
    let disposition = Disposition::Protect { key: key(), acquire: true, interface: None };
    let policy = Policy { local: nets(1), remote: nets(2), disposition };
    PolicySet { policies: vec![policy], peers: vec![Some(PEER.into())], ..PolicySet::default() }
}

fn common() -> SaCommon {
    SaCommon {
        child: ChildId(1),
        resource: 0,
        path: PATH,
        policy: key(),
        algorithm: ALGORITHM,
        key: SaKey(keymat().into()),
        esn: true,
        selectors: SaSelectors { local: nets(1).into(), remote: nets(2).into() },
        lifetime: Lifetime {
            soft_bytes: u64::MAX,
            hard_bytes: u64::MAX,
            soft_packets: u64::MAX,
            hard_packets: u64::MAX,
            hard_time: Duration::from_secs(3600),
        },
    }
}
