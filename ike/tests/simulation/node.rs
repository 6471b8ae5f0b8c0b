//! One gateway: an endpoint, and a model of the data plane that checks what it is told.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_ike::action::{ChildId, ChildSaCommon, EchoRequest, IkeSaId, InboundChildSa, OutboundChildSa};
use portcullis_ike::config::{ConnectionConfig, EndpointConfig, OnUnreachable};
use portcullis_ike::endpoint::SpiSource;
use portcullis_ike::event::Event;
use portcullis_ike::path::{EspPath, EspTransport, StreamId};
use portcullis_ike::{Endpoint, Time};

/// Wall time at the start of the simulation, since 1970.
pub const WALL: Duration = Duration::from_secs(21_000 * 86_400);

/// A gateway of the simulation.
pub struct Node {
    pub endpoint: Endpoint,
    pub address: IpAddr,
    /// Other addresses that it has.
    pub also: Vec<IpAddr>,
    pub spis: Arc<Mutex<SpiTable>>,
    pub inbound: BTreeMap<u32, Inbound>,
    pub outbound: BTreeMap<ChildId, Outbound>,
    /// The pair that each configured child uses now.
    pub in_use: BTreeMap<(Arc<str>, Arc<str>, u8), ChildId>,
    pub paths: BTreeMap<IkeSaId, EspPath>,
    pub events: Vec<(Time, Event)>,
    /// The connection of each stream, and which end of it is ours.
    pub streams: BTreeMap<StreamId, (u64, usize)>,
    pub accepted: u64,
    /// Inbound packets whose SPI was not installed.
    pub unknown_spi: u64,
    pub dummies_sent: u64,
    /// Every echo request that the endpoint asked for.
    pub echoes: Vec<(Time, EchoRequest)>,
    /// What the data plane takes for the path MTU.
    pub path_mtus: BTreeMap<IkeSaId, usize>,
    /// Streams in which ESP of this IKE SA is opened.
    pub accepting: BTreeMap<StreamId, IkeSaId>,
    /// ESP cannot leave here at all.
    pub cannot_send: bool,
    /// How often it was started before.
    pub boot: u32,
    pub config: (EndpointConfig, Vec<ConnectionConfig>),
    /// What its policy is now.
    pub on_unreachable: OnUnreachable,
    /// Its inbound SPIs are above this: none is another node's.
    first_spi: u32,
}

/// An inbound SA as the data plane holds it.
pub struct Inbound {
    pub sa: InboundChildSa,
    pub highest: u64,
    pub seen: HashSet<u64>,
    pub last_fact: Option<(Time, SocketAddr, EspTransport)>,
    pub last_echo_fact: Option<(Time, SocketAddr, EspTransport)>,
}

/// An outbound SA as the data plane holds it.
pub struct Outbound {
    pub sa: OutboundChildSa,
    pub sequence: u64,
    pub last_fact: Option<Time>,
}

/// Inbound SPIs: which are out, so that a leak shows.
#[derive(Default)]
pub struct SpiTable {
    next: u32,
    pub out: BTreeSet<u32>,
    /// How many there can be, if there is an end to it.
    pub slots: Option<usize>,
}

pub struct SharedSpis(pub Arc<Mutex<SpiTable>>);

impl SpiSource for SharedSpis {
    fn allocate(&mut self) -> Option<u32> {
        let mut table = self.0.lock().unwrap();
        if table.slots.is_some_and(|slots| table.out.len() >= slots) {
            return None;
        }
        table.next += 1;
        let spi = 0x1000 + table.next;
        table.out.insert(spi);
        Some(spi)
    }

    fn release(&mut self, spi: u32) {
        assert!(self.0.lock().unwrap().out.remove(&spi), "SPI {spi:x} was not allocated");
    }
}

impl Node {
    pub fn new(
        config: EndpointConfig,
        connections: Vec<ConnectionConfig>,
        address: IpAddr,
        seed: u64,
        first_spi: u32,
    ) -> Self {
        let spis = Arc::new(Mutex::new(SpiTable { next: first_spi, ..SpiTable::default() }));
        let endpoint = endpoint(&config, &connections, &spis, seed, Time::ZERO);
        Self {
            on_unreachable: connections[0].esp.on_unreachable,
            endpoint,
            address,
            also: Vec::new(),
            spis,
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            in_use: BTreeMap::new(),
            paths: BTreeMap::new(),
            events: Vec::new(),
            streams: BTreeMap::new(),
            accepted: 0,
            unknown_spi: 0,
            dummies_sent: 0,
            echoes: Vec::new(),
            path_mtus: BTreeMap::new(),
            accepting: BTreeMap::new(),
            cannot_send: false,
            boot: 0,
            config: (config, connections),
            first_spi,
        }
    }

    /// `kill -9` and a new start: nothing is left but the configuration.
    pub fn restart(&mut self, seed: u64, now: Time) {
        self.boot += 1;
        let next = self.first_spi + self.boot * 0x10_000;
        self.spis = Arc::new(Mutex::new(SpiTable { next, ..SpiTable::default() }));
        self.on_unreachable = self.config.1[0].esp.on_unreachable;
        self.endpoint = endpoint(&self.config.0, &self.config.1, &self.spis, seed, now);
        self.inbound.clear();
        self.outbound.clear();
        self.in_use.clear();
        self.paths.clear();
        self.path_mtus.clear();
        self.accepting.clear();
        self.streams.clear();
    }

    pub fn has_address(&self, address: IpAddr) -> bool {
        self.address == address || self.also.contains(&address)
    }

    pub fn install_inbound(&mut self, sa: InboundChildSa) {
        assert!(self.paths.contains_key(&sa.common.ike_sa), "UpdatePath precedes the first SA");
        assert!(self.spis.lock().unwrap().out.contains(&sa.spi), "an SPI that was allocated");
        let inbound = Inbound { sa, highest: 0, seen: HashSet::new(), last_fact: None, last_echo_fact: None };
        let old = self.inbound.insert(inbound.sa.spi, inbound);
        assert!(old.is_none(), "an SPI is installed once");
    }

    pub fn install_outbound(&mut self, sa: OutboundChildSa) {
        assert!(self.paths.contains_key(&sa.common.ike_sa), "UpdatePath precedes the first SA");
        let old = self.outbound.insert(sa.common.child, Outbound { sa, sequence: 0, last_fact: None });
        assert!(old.is_none(), "an outbound SA is installed once");
    }

    pub fn use_outbound(&mut self, child: ChildId) {
        let sa = &self.outbound.get(&child).expect("an SA that is used is installed").sa;
        self.in_use.insert(policy(&sa.common), child);
    }

    pub fn remove_outbound(&mut self, child: ChildId) {
        let sa = self.outbound.remove(&child).expect("an SA that is removed is installed").sa;
        let policy = policy(&sa.common);
        if self.in_use.get(&policy) == Some(&child) {
            self.in_use.remove(&policy);
        }
    }

    pub fn remove_inbound(&mut self, child: ChildId, spi: u32) {
        let inbound = self.inbound.remove(&spi).expect("an SA that is removed is installed");
        assert_eq!(inbound.sa.common.child, child);
        assert!(self.spis.lock().unwrap().out.remove(&spi));
    }

    /// Nothing is installed, allocated or known any more.
    pub fn assert_empty(&self) {
        assert!(self.inbound.is_empty(), "inbound SAs leak: {:x?}", self.inbound.keys());
        assert!(self.outbound.is_empty(), "outbound SAs leak: {:?}", self.outbound.keys());
        assert!(self.paths.is_empty(), "paths leak: {:?}", self.paths);
        assert!(self.spis.lock().unwrap().out.is_empty(), "SPIs leak: {:x?}", self.spis.lock().unwrap().out);
    }

    pub fn saw(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| is_it(event)).count()
    }
}

/// Connection, child and resource.
fn policy(sa: &ChildSaCommon) -> (Arc<str>, Arc<str>, u8) {
    (sa.connection.clone(), sa.child_name.clone(), sa.resource)
}

fn endpoint(
    config: &EndpointConfig,
    connections: &[ConnectionConfig],
    spis: &Arc<Mutex<SpiTable>>,
    seed: u64,
    now: Time,
) -> Endpoint {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_le_bytes());
    let spis = Box::new(SharedSpis(spis.clone()));
    let mut endpoint = Endpoint::new(config.clone(), connections.to_vec(), spis, octets, now);
    endpoint.set_wall_time(now, WALL + now.since(Time::ZERO));
    endpoint
}
