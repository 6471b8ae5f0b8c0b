//! Two workers on rings in memory, whose far ends this test plays: what a card would see while SAs move between them.

mod gateway;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_common::{DropReason, Spi};
use portcullis_data_plane::config::Role;
use portcullis_data_plane::netlink::Network;
use portcullis_data_plane::packet::{TunnelOptions, checksum};
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use portcullis_data_plane::sa::{
    Carrier, ChildId, EchoAnswers, Lifetime, OutboundSa, Path, PathId, SaCommon, SaKey, SaSelectors,
};
use portcullis_data_plane::sa_table::{self, Backing, SaName, TableConfig};
use portcullis_data_plane::spd::{self, Spd};
use portcullis_data_plane::stream::Streams;
use portcullis_data_plane::worker::facts::OncePerSecond;
use portcullis_data_plane::worker::kernel_path::KernelPath;
use portcullis_data_plane::worker::sas::{OutboundExtra, SaTable};
use portcullis_data_plane::worker::shared::{Mailbox, Notifier, Settings, Shared};
use portcullis_data_plane::worker::{Port, Worker};
use portcullis_data_plane::xsk::{Descriptor, FarRings, FrameCache, FramePool, Socket, Umem};
use portcullis_esp::{Algorithm, EchoSubTypes};
use tokio::sync::mpsc;

use gateway::{Namespace, address, wait_until};

const RING: u32 = 1024;
/// Where the kernel puts a packet in its frame.
const START: u64 = 256;
const OWN: &str = "198.51.100.1";
const PEER: &str = "198.51.100.2";
const PATH: PathId = PathId(1);
const CHILD: ChildId = ChildId(1);
/// Where the sequence number lies in a sent frame: behind Ethernet, IPv4, UDP and the SPI.
const SEQUENCE: usize = 14 + 20 + 8 + 4;

/// What is sealed by the new owner leaves only after all that the old one sealed has, and meanwhile packets wait for it,
/// wherever they came.
#[test]
fn what_a_new_owner_sends_does_not_overtake_what_the_old_one_sent() {
    let mut setting = Setting::new();
    // Worker 1 is awake: it may have a packet for worker 0 in hand.
    setting.offer(0, 20);
    setting.round(&[1, 0], 0);
    assert_eq!(setting.table.move_sa(SaName::Outbound(setting.index), 1), Ok(0));
    setting.offer(0, 20);
    setting.round(&[0], 1);
    assert_eq!(setting.sealed(), 40, "the old owner goes on");
    setting.offer(0, 20);
    setting.offer(1, 5);
    for ms in 2..90 {
        setting.round(&[1, 0], ms);
    }
    assert_eq!(setting.sealed(), 40, "what comes now waits");
    assert_eq!(setting.sent(0), (1..=40).collect::<Vec<_>>());
    assert!(setting.sent(1).is_empty());
    // The frames come back: the card has sent them.
    setting.complete(0);
    setting.offer(0, 3);
    for ms in 90..93 {
        setting.round(&[0, 1], ms);
    }
    assert_eq!(setting.sent(1), (41..=68).collect::<Vec<_>>());
    assert!(setting.sent(0).is_empty());
    let counters: Vec<_> = setting.shared.workers.iter().map(|worker| worker.counters.snapshot()).collect();
    assert_eq!((counters[0].sas_moved, counters[0].handed_over, counters[1].handed_over), (1, 23, 0));
}

/// The interface may be down: an SA does not wait for ever.
#[test]
fn an_sa_goes_after_a_while_although_nothing_leaves() {
    let mut setting = Setting::new();
    setting.offer(0, 5);
    setting.round(&[0], 0);
    assert_eq!(setting.table.move_sa(SaName::Outbound(setting.index), 1), Ok(0));
    setting.offer(1, 5);
    for ms in 1..100 {
        setting.round(&[0, 1], ms);
    }
    assert_eq!(setting.sealed(), 5);
    for ms in 100..103 {
        setting.round(&[0, 1], ms);
    }
    assert_eq!((setting.sent(0).len(), setting.sent(1).len()), (5, 5));
}

/// What waits is bounded, and what is beyond is dropped with its reason.
#[test]
fn packets_that_wait_for_an_sa_are_limited() {
    let mut setting = Setting::new();
    setting.offer(0, 1);
    setting.round(&[0], 0);
    assert_eq!(setting.table.move_sa(SaName::Outbound(setting.index), 1), Ok(0));
    for _ in 0..20 {
        setting.offer(1, 64);
        setting.round(&[0, 1], 1);
    }
    let dropped = setting.shared.workers[1].counters.snapshot().drops[DropReason::HandOverFull as usize];
    assert_eq!(dropped, 20 * 64 - 1024);
    setting.complete(0);
    assert_eq!(setting.sent(0), [1]);
    setting.complete(0);
    for _ in 0..3 {
        setting.round(&[0, 1], 2);
    }
    assert_eq!(setting.sent(1).len() as u32, RING);
}

struct Setting {
    workers: Vec<Worker>,
    lan: Vec<FarRings>,
    wan: Vec<FarRings>,
    /// Sent, and not come back.
    addresses: [Vec<u64>; 2],
    table: SaTable,
    index: sa_table::OutboundIndex,
    shared: Arc<Shared>,
    umem: Arc<Umem>,
    _receivers: Box<dyn std::any::Any>,
    _namespaces: [Namespace; 2],
}

impl Setting {
    fn new() -> Self {
        let (namespace, far) = (Namespace::new(), Namespace::new());
        for (name, own) in [("wan0", OWN), ("lan0", "10.1.0.1")] {
            namespace.veth(name, &far, name);
            namespace.ip(&["addr", "add", &format!("{own}/24"), "dev", name]);
        }
        let neighbour =
            ["neigh", "add", PEER, "lladdr", "02:00:00:00:00:05", "dev", "wan0", "nud", "permanent"];
        namespace.ip(&neighbour);
        let network = namespace.run(|| Network::start(|_| {}).unwrap());
        let [lan_index, wan_index] = ["lan0", "wan0"].map(|name| network.snapshot().ifindex(name).unwrap());
        wait_until("the neighbour is known", || {
            network.snapshot().neighbour(wan_index, address(PEER)).is_some()
        });
        let (umem, frames) = Umem::new(8 * RING, 2048).unwrap();
        let (umem, pool) = (Arc::new(umem), FramePool::new(frames));
        let (table, owned) =
            sa_table::create(TableConfig { slots: 256, workers: 2 }, Backing::Memory).unwrap();
        let mut protects = HashMap::new();
        let spd = Spd::build(&policies(), &mut protects, 1);
        let (events, event_receiver) = mpsc::channel(1 << 10);
        let (ike, ike_receiver) = mpsc::channel(16);
        let settings = Settings {
            tunnel: TunnelOptions::default(),
            echo: EchoSubTypes::DEFAULT,
            idle: Default::default(),
            wan: vec!["wan0".into()],
        };
        let shared = Arc::new(Shared::new(
            spd,
            network,
            KernelPath::new(Vec::new(), Vec::new(), Vec::new(), None, None),
            vec![Mailbox::new().unwrap(), Mailbox::new().unwrap()],
            Streams::new(umem.clone(), pool.clone(), 64),
            Notifier { events, ike },
            settings,
        ));
        shared.paths.update(PATH, path(), TunnelOptions::default(), &shared.streams);
        let path = shared.paths.get(PATH).unwrap();
        let extra = OutboundExtra { path, reported: OncePerSecond::default() };
        let index = table
            .install_outbound(
                &OutboundSa { common: common(), spi: Spi(0x1234_5678), by_all_workers: false },
                0,
                extra,
                0,
            )
            .unwrap();
        let selectors = common().selectors;
        protects[&key()].use_outbound(spd::Outbound { child: CHILD, index, selectors, resource: 0 });
        let (mut workers, mut lan, mut wan) = (Vec::new(), Vec::new(), Vec::new());
        for (id, sas) in (0..).zip(owned) {
            let (lan_socket, lan_far) = Socket::in_memory(umem.clone(), RING).unwrap();
            let (wan_socket, wan_far) = Socket::in_memory(umem.clone(), RING).unwrap();
            let ports = vec![
                Port::new(lan_index, Role::Lan, true, [2, 0, 0, 0, 0, 1], lan_socket),
                Port::new(wan_index, Role::Wan, false, [2, 0, 0, 0, 0, 2], wan_socket),
            ];
            let free = FrameCache::new(pool.clone(), 512);
            workers.push(Worker::new(id, shared.clone(), umem.clone(), free, ports, sas));
            lan.push(lan_far);
            wan.push(wan_far);
        }
        let receivers = Box::new((event_receiver, ike_receiver));
        let (addresses, namespaces) = (Default::default(), [namespace, far]);
        Self {
            workers,
            lan,
            wan,
            addresses,
            table,
            index,
            shared,
            umem,
            _receivers: receivers,
            _namespaces: namespaces,
        }
    }

    /// Packets of one flow at a queue of the LAN.
    fn offer(&mut self, queue: usize, count: usize) {
        let rings = &mut self.lan[queue];
        for _ in 0..count {
            let address = rings.fill.pop().expect("the worker offers frames");
            let bytes = frame();
            self.umem.write(address, START as usize, &bytes);
            rings.rx.push(Descriptor { addr: address + START, len: bytes.len() as u32, options: 0 });
        }
        rings.fill.release();
        rings.rx.submit();
    }

    /// A round of each of these workers, so many milliseconds after the start.
    fn round(&mut self, workers: &[usize], ms: u64) {
        for worker in workers {
            self.workers[*worker].round_at(Duration::from_millis(ms));
        }
    }

    fn sealed(&self) -> u64 {
        self.table.outbound_usage(self.index).unwrap().sequence
    }

    /// The sequence numbers of what a worker has sent since the last look. Its frames do not come back by that.
    fn sent(&mut self, worker: usize) -> Vec<u32> {
        let rings = &mut self.wan[worker];
        let mut numbers = Vec::new();
        while let Some(descriptor) = rings.tx.pop() {
            self.addresses[worker].push(descriptor.addr);
            let bytes = self.umem.read(descriptor.addr, descriptor.len as usize);
            let number = bytes.get(SEQUENCE..).and_then(|rest| rest.first_chunk()).unwrap();
            numbers.push(u32::from_be_bytes(*number));
        }
        rings.tx.release();
        numbers
    }

    fn complete(&mut self, worker: usize) {
        for address in self.addresses[worker].drain(..) {
            self.wan[worker].completion.push(address);
        }
        self.wan[worker].completion.submit();
    }
}

/// A UDP datagram from one protected host to another.
fn frame() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 5, 10, 2, 0, 5];
    checksum::set_ipv4_header(&mut packet);
    packet.extend([0x30, 0x39, 0, 53, 0, 80, 0, 0]);
    packet.resize(100, 0x5a);
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0][..], &packet].concat()
}

fn path() -> Path {
    Path {
        carrier: Carrier::Udp,
        local: address(OWN),
        local_port: 4500,
        remote: address(PEER),
        remote_port: 4500,
        echo: EchoAnswers::default(),
        takes_tcp: false,
    }
}

fn key() -> PolicyKey {
    PolicyKey { connection: "west".into(), child: "net".into() }
}

fn nets(second: u8) -> Vec<Selector> {
    let address = |last| std::net::IpAddr::from([10, second, last, last]);
    vec![Selector { addresses: address(0)..=address(255), protocol: None, ports: 0..=u16::MAX }]
}

fn policies() -> PolicySet {
    let disposition = Disposition::Protect { key: key(), acquire: true, interface: None };
    let policy = Policy { local: nets(1), remote: nets(2), disposition };
    PolicySet { policies: vec![policy], peers: vec![Some(address(PEER))], ..PolicySet::default() }
}

fn common() -> SaCommon {
    SaCommon {
        child: CHILD,
        path: PATH,
        policy: key(),
        algorithm: Algorithm::Aes256Gcm16,
        key: SaKey(vec![7; Algorithm::Aes256Gcm16.keymat_len()].into()),
        resource: 0,
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
