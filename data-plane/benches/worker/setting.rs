//! One worker between a LAN and a WAN whose rings are in memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use portcullis_common::Spi;
use portcullis_data_plane::config::{Idle, Role};
use portcullis_data_plane::netlink::Network;
use portcullis_data_plane::packet::TunnelOptions;
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use portcullis_data_plane::sa::{
    Carrier, ChildId, EchoAnswers, InboundSa, Lifetime, OutboundSa, Path, PathId, SaCommon, SaKey,
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
    Algorithm, EchoSubTypes, ExpandedKeymat, HEAD_LEN, KeyMaterial, NextHeader, Outbound, OutboundLive,
    OutboundParameters, sealed_len,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::sync::mpsc;

use crate::gateway::{Namespace, address, wait_until};

/// Packets of a round, as a worker takes them from a ring.
pub const BATCH: usize = 64;
const RING: u32 = 256;
const FRAMES: u32 = 2048;
const FRAME_BYTES: u32 = 4096;
/// Where the kernel puts a packet in its frame.
const START: usize = 256;
const ETHERNET: usize = 14;
const PEER: &str = "198.51.100.2";
const OWN: &str = "198.51.100.1";
const HOST: [u8; 4] = [10, 1, 0, 5];
const FAR_HOST: [u8; 4] = [10, 2, 0, 5];
const PATH: PathId = PathId(1);
const CHILD: ChildId = ChildId(1);
const KEY_OCTET: u8 = 7;
const ALGORITHM: Algorithm = Algorithm::Aes256Gcm16;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Seal,
    Open,
}

impl Way {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
        }
    }
}

pub struct Setting {
    worker: Worker,
    umem: Arc<Umem>,
    lan: FarRings,
    wan: FarRings,
    way: Way,
    /// A frame as it arrives, but for what differs from packet to packet.
    template: Vec<u8>,
    inner_len: usize,
    outbound_sas: u32,
    /// What sends to each inbound SA.
    peers: Vec<Outbound<Arc<OutboundLive>>>,
    random: u64,
    /// Where the last packets were taken from, to be given back.
    addresses: Vec<u64>,
    key: LessSafeKey,
    number: u64,
    texts: Vec<Vec<u8>>,
    _table: SaTable,
    _receivers: (
        mpsc::Receiver<portcullis_data_plane::event::DataPlaneEvent>,
        mpsc::Receiver<portcullis_data_plane::event::IkeDatagram>,
    ),
    _namespaces: [Namespace; 2],
}

impl Setting {
    /// `sas` SAs of the direction that is measured, between which packets choose at random.
    pub fn new(way: Way, inner_len: usize, sas: u32) -> Self {
        let (namespace, far) = (Namespace::new(), Namespace::new());
        for (name, own, other, prefix) in [("wan0", OWN, PEER, "24"), ("lan0", "10.1.0.1", "10.1.0.5", "24")]
        {
            namespace.veth(name, &far, name);
            namespace.ip(&["addr", "add", &format!("{own}/{prefix}"), "dev", name]);
            namespace.ip(&[
                "neigh",
                "add",
                other,
                "lladdr",
                "02:00:00:00:00:05",
                "dev",
                name,
                "nud",
                "permanent",
            ]);
        }
        let network = namespace.run(|| Network::start(|_| {}).unwrap());
        let index = |name| network.snapshot().ifindex(name).unwrap();
        let (lan_index, wan_index) = (index("lan0"), index("wan0"));
        wait_until("neighbours are known", || {
            network.snapshot().neighbour(wan_index, address(PEER)).is_some()
                && network.snapshot().neighbour(lan_index, HOST.into()).is_some()
        });
        let (umem, frames) = Umem::new(FRAMES, FRAME_BYTES).unwrap();
        let (umem, pool) = (Arc::new(umem), FramePool::new(frames));
        let (lan_socket, lan) = Socket::in_memory(umem.clone(), RING).unwrap();
        let (wan_socket, wan) = Socket::in_memory(umem.clone(), RING).unwrap();
        let ports = vec![
            Port::new(lan_index, Role::Lan, true, [2, 0, 0, 0, 0, 1], lan_socket),
            Port::new(wan_index, Role::Wan, false, [2, 0, 0, 0, 0, 2], wan_socket),
        ];
        let (table, mut owned) = sa_table::create(
            TableConfig { slots: sas.max(256).next_power_of_two(), workers: 1 },
            Backing::Memory,
        )
        .unwrap();
        let (inbound_sas, outbound_sas) = match way {
            Way::Open => (sas, 1),
            Way::Seal => (1, sas),
        };
        let mut protects = HashMap::new();
        let spd = Spd::build(&policies(outbound_sas), &mut protects, 1);
        let (events, event_receiver) = mpsc::channel(1 << 16);
        let (ike, ike_receiver) = mpsc::channel(16);
        let kernel = KernelPath::new(Vec::new(), Vec::new(), Vec::new(), None, None);
        let streams = Streams::new(umem.clone(), pool.clone(), 64);
        let settings = Settings {
            tunnel: TunnelOptions::default(),
            echo: EchoSubTypes::DEFAULT,
            idle: Idle::Sleep,
            wan: vec!["wan0".into()],
        };
        let mailboxes = vec![Mailbox::new().unwrap()];
        let notifier = Notifier { events, ike };
        let shared = Arc::new(Shared::new(spd, network, kernel, mailboxes, streams, notifier, settings));
        let path = Path {
            carrier: Carrier::Udp,
            local: address(OWN),
            local_port: 4500,
            remote: address(PEER),
            remote_port: 4500,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        };
        shared.paths.update(PATH, path, TunnelOptions::default(), &shared.streams);
        let path = shared.paths.get(PATH).unwrap();
        let keymat = KeyMaterial::from_keymat(ALGORITHM, &keymat()).unwrap();
        let inbound = |_| {
            let spi = table.reserve_spi().unwrap();
            let (facts, echo) = (InboundFacts::default(), Default::default());
            let extra = InboundExtra { path: path.clone(), tun: None, facts, echo };
            let sa = InboundSa { common: common(0), spi, replay_window: Some(4096) };
            table.install_inbound(&sa, 0, extra, 0).unwrap();
            let parameters = OutboundParameters { spi, esn: true, lifetime: Default::default() };
            Outbound::new(parameters, ExpandedKeymat::new(&keymat).unwrap(), Arc::default())
        };
        let peers: Vec<_> = (0..inbound_sas).map(inbound).collect();
        for site in 0..outbound_sas {
            let extra = OutboundExtra { path: path.clone(), reported: OncePerSecond::default() };
            let spi = Spi(0x1234_5678 + site);
            let sa = OutboundSa { common: common(site), spi, by_all_workers: false };
            let index = table.install_outbound(&sa, 0, extra, 0).unwrap();
            let (child, selectors) = (sa.common.child, sa.common.selectors);
            protects[&key(site)].use_outbound(spd::Outbound { child, index, selectors, resource: 0 });
        }
        let worker = Worker::new(0, shared, umem.clone(), FrameCache::new(pool, 512), ports, owned.remove(0));
        let template = match way {
            Way::Seal => frame(&packet(HOST, FAR_HOST, inner_len)),
            Way::Open => packet(FAR_HOST, HOST, inner_len),
        };
        let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[KEY_OCTET; 32]).unwrap());
        Self {
            worker,
            umem,
            lan,
            wan,
            way,
            template,
            inner_len,
            outbound_sas,
            peers,
            random: 1,
            addresses: Vec::new(),
            key: bare,
            number: 0,
            texts: vec![vec![0; inner_len.next_multiple_of(16) + 16]; BATCH],
            _table: table,
            _receivers: (event_receiver, ike_receiver),
            _namespaces: [namespace, far],
        }
    }

    /// Puts a batch into the receive ring.
    pub fn offer(&mut self) {
        let rings = match self.way {
            Way::Seal => &mut self.lan,
            Way::Open => &mut self.wan,
        };
        for _ in 0..BATCH {
            let address = rings.fill.pop().expect("the worker offers frames");
            let bytes = match self.way {
                Way::Seal if self.outbound_sas == 1 => self.template.clone(),
                Way::Seal => {
                    let site = random(&mut self.random) % self.outbound_sas as usize;
                    frame(&packet(HOST, far_host(site as u32), self.inner_len))
                }
                Way::Open => {
                    let mut buffer = vec![0; HEAD_LEN + self.inner_len + portcullis_esp::MAX_TAIL_LEN];
                    let range = HEAD_LEN..HEAD_LEN + self.inner_len;
                    buffer[range.clone()].copy_from_slice(&self.template);
                    let chosen = random(&mut self.random) % self.peers.len();
                    self.peers[chosen].seal(&mut buffer, range, NextHeader::IPV4, 1).unwrap();
                    frame(&esp_in_udp(&buffer[..sealed_len(self.inner_len)]))
                }
            };
            self.umem.write(address, START, &bytes);
            rings.rx.push(Descriptor { addr: address + START as u64, len: bytes.len() as u32, options: 0 });
        }
        rings.fill.release();
        rings.rx.submit();
    }

    pub fn round(&mut self) -> usize {
        self.worker.round()
    }

    /// Takes what was sent, and says that it left.
    pub fn take_back(&mut self) {
        let rings = match self.way {
            Way::Seal => &mut self.wan,
            Way::Open => &mut self.lan,
        };
        self.addresses.clear();
        while let Some(descriptor) = rings.tx.pop() {
            self.addresses.push(descriptor.addr);
        }
        assert_eq!(self.addresses.len(), BATCH, "all were sent");
        rings.tx.release();
        for address in &self.addresses {
            rings.completion.push(*address);
        }
        rings.completion.submit();
    }

    pub fn prepare_bare(&mut self) {
        if self.way == Way::Open {
            for (number, text) in (0..).zip(&mut self.texts) {
                let len = text.len() - 16;
                let (text, icv) = text.split_at_mut(len);
                let tag = self.key.seal_in_place_separate_tag(nonce(number), aad(number), text).unwrap();
                icv.copy_from_slice(tag.as_ref());
            }
        }
    }

    /// The AEAD calls of a batch and nothing else, on texts of the same length.
    pub fn bare(&mut self) {
        match self.way {
            Way::Seal => {
                for text in &mut self.texts {
                    self.number += 1;
                    let len = text.len() - 16;
                    let text = &mut text[..len];
                    let tag = self.key.seal_in_place_separate_tag(nonce(self.number), aad(self.number), text);
                    let _ = black_box(tag);
                }
            }
            Way::Open => {
                for (number, text) in (0..).zip(&mut self.texts) {
                    let opened = self.key.open_in_place(nonce(number), aad(number), text);
                    assert!(black_box(opened).is_ok());
                }
            }
        }
    }
}

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*state >> 33) as usize
}

/// A host at the other end of each outbound SA.
fn far_host(site: u32) -> [u8; 4] {
    (u32::from_be_bytes(FAR_HOST) + site).to_be_bytes()
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn aad(number: u64) -> Aad<[u8; 12]> {
    let mut aad = [1; 12];
    aad[4..].copy_from_slice(&number.to_be_bytes());
    Aad::from(aad)
}

fn keymat() -> Vec<u8> {
    vec![KEY_OCTET; ALGORITHM.keymat_len()]
}

fn key(site: u32) -> PolicyKey {
    PolicyKey { connection: "bench".into(), child: format!("net-{site}").into() }
}

fn range(first: [u8; 4], last: [u8; 4]) -> Vec<Selector> {
    vec![Selector { addresses: first.into()..=last.into(), protocol: None, ports: 0..=u16::MAX }]
}

/// The hosts of this side.
fn near() -> Vec<Selector> {
    range([10, 1, 0, 0], [10, 1, 255, 255])
}

/// The host of a site at the other side.
fn far(site: u32) -> Vec<Selector> {
    range(far_host(site), far_host(site))
}

fn policies(sites: u32) -> PolicySet {
    let policy = |site| {
        let disposition = Disposition::Protect { key: key(site), acquire: true, interface: None };
        Policy { local: near(), remote: far(site), disposition }
    };
    let policies = (0..sites).map(policy).collect();
    PolicySet { policies, peers: vec![Some(address(PEER))], ..PolicySet::default() }
}

fn common(site: u32) -> SaCommon {
    SaCommon {
        child: ChildId(CHILD.0 + u64::from(site)),
        path: PATH,
        policy: key(site),
        algorithm: ALGORITHM,
        key: SaKey(keymat().into()),
        resource: 0,
        esn: true,
        selectors: portcullis_data_plane::sa::SaSelectors { local: near().into(), remote: far(site).into() },
        lifetime: Lifetime {
            soft_bytes: u64::MAX,
            hard_bytes: u64::MAX,
            soft_packets: u64::MAX,
            hard_packets: u64::MAX,
            hard_time: std::time::Duration::from_secs(3600),
        },
    }
}

/// A UDP datagram in IPv4, `len` octets of both.
fn packet(from: [u8; 4], to: [u8; 4], len: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet.extend(from);
    packet.extend(to);
    portcullis_data_plane::packet::checksum::set_ipv4_header(&mut packet);
    packet.extend([0x30, 0x39, 0, 53]);
    packet.extend(((len - 20) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.resize(len, 0x5a);
    packet
}

fn esp_in_udp(esp: &[u8]) -> Vec<u8> {
    let octets = |text: &str| match address(text) {
        std::net::IpAddr::V4(address) => address.octets(),
        std::net::IpAddr::V6(_) => panic!("{text}"),
    };
    let mut packet = packet(octets(PEER), octets(OWN), 28 + esp.len());
    packet[20..24].copy_from_slice(&[0x11, 0x94, 0x11, 0x94]);
    packet[28..].copy_from_slice(esp);
    packet
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 8, 0];
    debug_assert_eq!(frame.len(), ETHERNET);
    frame.extend(packet);
    frame
}
