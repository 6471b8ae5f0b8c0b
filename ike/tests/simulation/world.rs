//! Two or more nodes on one network with one clock that jumps to whatever comes next.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::Time;
use portcullis_ike::action::{Action, PuzzleId};
use portcullis_ike::codec::NON_ESP_MARKER;
use portcullis_ike::command::{Command, CommandKind, Fact};
use portcullis_ike::config::{ConnectionConfig, EndpointConfig, RemoteAddress};
use portcullis_ike::event::Event;
use portcullis_ike::path::UdpPath;
use portcullis_ike::puzzle::{Puzzle, Search, Step};
use portcullis_ike::status::{ConnectionStatus, State};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::created::CreatedSas;
use crate::esp::{EspPacket, Flow, FlowName};
use crate::ledger::Ledger;
use crate::network::{Arrival, Nat, Protocol, Queue, Weather};
use crate::node::Node;
use crate::tap::Tap;
use crate::tcp::Connections;
use crate::trace::Trace;

/// Says something else than a node does in this message, or lets it pass.
pub(crate) type Rewrite = fn(usize, &[u8], &Ledger) -> Option<Vec<u8>>;

/// Inbound SPIs that a node can give out, over all its starts.
const SPIS_PER_NODE: u32 = 0x100_0000;

/// See the module.
pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub weather: Weather,
    pub nat: Option<Nat>,
    /// Each node sends a numbered ESP packet this often, if it can.
    pub traffic: Option<Duration>,
    /// Nodes that have nothing to send, whatever `traffic` says.
    pub silent_nodes: Vec<usize>,
    /// Packets of these SAs vanish, as on one dead path among equal ones.
    pub dead_spis: Vec<u32>,
    /// The data that was sent so far.
    pub flows: BTreeMap<FlowName, Flow>,
    /// A pair is in use before the peer has its other end: allowed for the first one of a child only.
    pub early_uses: u64,
    pub udp_datagrams: u64,
    /// What each node has sent over UDP, kept for those who ask for it.
    pub sent_datagrams: Option<Vec<(usize, UdpPath, Vec<u8>)>>,
    pub largest_datagram: usize,
    /// Percent of IKE messages in which one bit is changed.
    pub mutations: u64,
    /// How long a search for the solution of a puzzle takes; `None` if nobody searches.
    pub thinking: Option<Duration>,
    pub puzzles: u64,
    /// Changes datagrams on their way.
    pub distort: Option<fn(&mut [u8])>,
    /// Sender and content of every datagram, if somebody wants to know.
    pub recorded: Option<Vec<(usize, Vec<u8>)>>,
    pub trace: Trace,
    /// When a policy was set, at either end.
    pub policy_changes: Vec<Time>,
    /// ESP packets that were written to streams, all nodes together.
    pub esp_in_tcp: u64,
    pub(crate) esp_frames: BTreeMap<u64, EspPacket>,
    pub(crate) tap: Tap,
    /// CREATE_CHILD_SA exchanges of two nodes, read if somebody wants to know.
    pub(crate) created: Option<CreatedSas>,
    /// Says something else in the name of a node, where it returns a message.
    pub(crate) rewrite: Option<Rewrite>,
    /// The keys that the nodes say they have.
    pub(crate) ledger: Ledger,
    pub(crate) tcp: Connections,
    pub(crate) queue: Queue,
    next_traffic: Time,
    rng: ChaCha8Rng,
}

impl World {
    pub fn new(seed: u64, nodes: Vec<(EndpointConfig, Vec<ConnectionConfig>, IpAddr)>) -> Self {
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(n, (config, connections, address))| {
                let config = EndpointConfig { key_log: true, ..config };
                let seed = seed.wrapping_mul(31).wrapping_add(n as u64 + 1);
                Node::new(config, connections, address, seed, SPIS_PER_NODE * n as u32)
            })
            .collect();
        Self {
            now: Time::ZERO,
            nodes,
            weather: Weather::default(),
            nat: None,
            traffic: None,
            silent_nodes: Vec::new(),
            dead_spis: Vec::new(),
            flows: BTreeMap::new(),
            early_uses: 0,
            udp_datagrams: 0,
            sent_datagrams: None,
            largest_datagram: 0,
            mutations: 0,
            thinking: Some(Duration::from_millis(300)),
            puzzles: 0,
            distort: None,
            recorded: None,
            trace: Trace::default(),
            policy_changes: Vec::new(),
            esp_in_tcp: 0,
            esp_frames: BTreeMap::new(),
            tap: Tap::default(),
            created: None,
            rewrite: None,
            ledger: Ledger::default(),
            tcp: Connections::default(),
            queue: Queue::default(),
            next_traffic: Time::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Time passes until `until`; everything that is due before happens.
    pub fn run_until(&mut self, until: Time) {
        self.carry_out();
        loop {
            let timeouts = self.nodes.iter().filter_map(|node| node.endpoint.poll_timeout());
            let traffic = self.traffic.map(|_| self.next_traffic);
            let next = timeouts.chain(self.queue.next_time()).chain(traffic).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = self.now.max(until);
        self.check_carriers();
    }

    /// Time passes for a while.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// The first seconds of a world in which a node says something else, and what was sent is kept.
    pub fn begin_saying(&mut self, rewrite: Rewrite) {
        self.ledger.is_disturbed = true;
        self.sent_datagrams = Some(Vec::new());
        self.rewrite = Some(rewrite);
        self.run_for(Duration::from_secs(3));
    }

    /// Time passes until something holds; false if it does not within `most`.
    pub fn run_until_holds(&mut self, most: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + most;
        while !holds(self) {
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(50));
        }
        true
    }

    pub fn command(&mut self, node: usize, kind: CommandKind) {
        let now = self.now;
        if let CommandKind::SetEspPolicy { on_unreachable } = kind {
            self.nodes[node].on_unreachable = on_unreachable;
            self.policy_changes.push(now);
        }
        self.trace.line(now, format!("node {node}: {kind:?}"));
        self.nodes[node].endpoint.command(now, Command { request: 1, connection: "c".into(), kind });
        self.carry_out();
    }

    pub fn status(&self, node: usize) -> ConnectionStatus {
        self.nodes[node].endpoint.status(self.now).remove(0)
    }

    pub fn state(&self, node: usize) -> State {
        self.status(node).state
    }

    /// `kill -9` of one node, and a new start.
    pub fn restart(&mut self, node: usize, seed: u64) {
        let now = self.now;
        self.trace.line(now, format!("node {node} is restarted"));
        self.close_streams_of(node);
        self.nodes[node].restart(seed, now);
        self.carry_out();
    }

    /// The NAT loses its mappings: packets from inside get new ports, connections are gone without a word.
    pub fn rebind_nat(&mut self) {
        self.trace.line(self.now, "the NAT is rebound".into());
        if let Some(nat) = &mut self.nat {
            nat.rebind();
            self.forget_streams();
        }
    }

    /// A node's address is replaced by another one: packets from and to the old one vanish, and so do its connections.
    pub fn renumber(&mut self, node: usize, address: IpAddr) {
        self.trace.line(self.now, format!("node {node} has {address}"));
        let old = core::mem::replace(&mut self.nodes[node].address, address);
        self.forget_streams_of(node);
        if let Some(nat) = &mut self.nat {
            nat.move_inside(old, address);
        }
        self.tell_address(node, Some(address));
    }

    /// Packets of a node leave from another address, and it keeps the one that it had.
    pub fn prefer(&mut self, node: usize, address: IpAddr) {
        self.trace.line(self.now, format!("node {node} prefers {address}"));
        let old = core::mem::replace(&mut self.nodes[node].address, address);
        self.nodes[node].also.push(old);
        self.tell_address(node, Some(address));
    }

    /// A node has no address any more.
    pub fn lose_address(&mut self, node: usize) {
        self.trace.line(self.now, format!("node {node} has no address"));
        self.nodes[node].address = IpAddr::from([0, 0, 0, 0]);
        self.forget_streams_of(node);
        self.tell_address(node, None);
    }

    fn tell_address(&mut self, n: usize, address: Option<IpAddr>) {
        let (now, node) = (self.now, &mut self.nodes[n]);
        if node.config.1[0].remote_address != RemoteAddress::Any {
            node.config.1[0].local_address = address.or(node.config.1[0].local_address);
            node.endpoint.fact(now, Fact::LocalAddress { connection: "c".into(), address });
        }
        let used = node.endpoint.local_addresses().into_iter();
        let gone = used.filter(|address| !node.has_address(*address)).collect();
        self.nodes[n].endpoint.fact(now, Fact::LocalChange { gone });
        self.carry_out();
    }

    pub fn saw(&self, node: usize, is_it: impl Fn(&Event) -> bool) -> usize {
        self.nodes[node].saw(is_it)
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.rng.next_u64() % 100 < percent
    }

    pub(crate) fn carry_out(&mut self) {
        for n in 0..self.nodes.len() {
            while let Some(action) = self.nodes[n].endpoint.poll_action() {
                self.act(n, action);
            }
        }
    }

    /// The node that a packet reaches, and its addresses there.
    pub(crate) fn route(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<(usize, SocketAddr, SocketAddr)> {
        if !self.nodes.iter().any(|node| node.has_address(from.ip())) {
            return None;
        }
        let (from, to) = match &mut self.nat {
            Some(nat) => (nat.outbound(from), nat.inbound(to)?),
            None => (from, to),
        };
        let peer = self.nodes.iter().position(|node| node.has_address(to.ip()))?;
        Some((peer, from, to))
    }

    pub(crate) fn arrival_time(&mut self) -> Time {
        let jitter = u64::try_from(self.weather.jitter.as_micros()).unwrap();
        let extra = if jitter == 0 { 0 } else { self.random(jitter) };
        self.now + self.weather.latency + Duration::from_micros(extra)
    }

    /// How often a datagram arrives.
    pub(crate) fn copies(&mut self) -> u32 {
        let copies = if self.chance(self.weather.duplicates) { 2 } else { 1 };
        (0..copies).map(|_| u32::from(!self.chance(self.weather.loss))).sum()
    }

    pub(crate) fn mutated(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.chance(self.mutations) {
            let at = usize::try_from(self.random(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << self.random(8);
        }
        bytes
    }

    /// An IKE message leaves on a stream.
    pub(crate) fn message_on_stream(&mut self, n: usize, message: &[u8]) {
        self.trace.message(self.now, n, "TCP", message);
        self.tap.stream_sent((n, self.nodes[n].boot), message);
        self.read_created(n, message);
    }

    fn read_created(&mut self, n: usize, message: &[u8]) {
        if let Some(created) = &mut self.created {
            created.sent(n, message, &self.ledger);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while self.queue.next_time().is_some_and(|at| at <= now) {
            let Some(arrival) = self.queue.pop() else { break };
            self.arrive(arrival);
            self.carry_out();
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].endpoint.poll_timeout().is_some_and(|at| at <= now) {
                self.nodes[n].endpoint.handle_timeout(now);
                self.carry_out();
            }
        }
        if let Some(interval) = self.traffic
            && self.next_traffic <= now
        {
            self.next_traffic = now + interval;
            self.send_data();
            self.carry_out();
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Datagram { node, from, to, payload } => {
                if let Some(message) = payload.strip_prefix(&[0; 4]) {
                    self.tap.arrived(node, self.nodes[node].boot, message);
                }
                let path = UdpPath { local: to, remote: from };
                self.nodes[node].endpoint.handle_datagram(self.now, path, &payload);
            }
            Arrival::Esp { node, packet } => self.esp_arrives(node, packet),
            Arrival::StreamUp { connection, side, local, remote } => {
                self.stream_up(connection, side, local, remote);
            }
            Arrival::Segment { connection, side } => self.segment(connection, side),
            Arrival::Retry { connection, side } => self.retry_segments(connection, side),
            Arrival::KeepAlive { connection, side } => self.keep_alive(connection, side),
            Arrival::Puzzle { node, boot, search, solution } if boot == self.nodes[node].boot => {
                self.nodes[node].endpoint.handle_puzzle(self.now, search, solution);
            }
            Arrival::Puzzle { .. } => {}
            Arrival::StreamDown { connection, side, cause } => self.stream_down(connection, side, cause),
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        match action {
            Action::SendDatagram { path, payload } => self.send_datagram(n, path, payload),
            Action::Dial { stream, local, remote } => self.dial(n, stream, local, remote),
            Action::SendStream { stream, bytes } => self.send_stream(n, stream, bytes),
            Action::DeliverEsp { stream, packet } => self.deliver_esp(n, stream, &packet),
            Action::CloseStream { stream } => self.close_stream(n, stream),
            Action::InstallInbound(sa) => {
                self.ledger.inbound(&sa);
                self.nodes[n].install_inbound(*sa);
            }
            Action::InstallOutbound(sa) => {
                self.ledger.outbound(&sa);
                self.nodes[n].install_outbound(*sa);
            }
            Action::UseOutbound { child } => {
                self.nodes[n].use_outbound(child);
                let spi = self.nodes[n].outbound[&child].sa.spi;
                let is_there =
                    self.nodes.iter().enumerate().any(|(m, peer)| m != n && peer.inbound.contains_key(&spi));
                self.early_uses += u64::from(!is_there);
            }
            Action::RemoveOutbound { child } => self.nodes[n].remove_outbound(child),
            Action::RemoveInbound { child, spi } => self.nodes[n].remove_inbound(child, spi),
            Action::UpdatePath { ike_sa, path } => {
                self.nodes[n].paths.insert(ike_sa, path);
                self.check_carriers_of(n);
            }
            Action::RemovePath { ike_sa } => {
                assert!(self.nodes[n].paths.remove(&ike_sa).is_some(), "a path that is removed is known");
            }
            Action::SendDummy { child } => {
                self.nodes[n].dummies_sent += 1;
                self.send_esp(n, child, true);
            }
            Action::AcceptEsp { stream, ike_sa } => {
                self.nodes[n].accepting.retain(|known, _| *known != stream);
                self.nodes[n].accepting.extend(ike_sa.map(|ike_sa| (stream, ike_sa)));
            }
            Action::SolvePuzzle { search, puzzle, most } => self.think(n, search, puzzle, most),
            Action::SendEcho(echo) => self.send_echo(n, echo),
            Action::LowerPathMtu { ike_sa } => {
                let mtu = self.nodes[n].path_mtus.entry(ike_sa).or_insert(1500);
                *mtu = [1400, 1280, 576].into_iter().find(|smaller| smaller < mtu).unwrap_or(576);
            }
            Action::Event(Event::Keys(keys)) => {
                self.ledger.is_disturbed |= self.mutations > 0 || self.distort.is_some();
                self.ledger.ike(n, keys);
            }
            Action::Event(event) => {
                self.trace.line(self.now, format!("node {n}: {event:?}"));
                self.nodes[n].events.push((self.now, event));
            }
        }
    }

    /// A search takes as long as the world says, and finds nothing if that is too long.
    fn think(&mut self, node: usize, search: PuzzleId, puzzle: Puzzle, most: Duration) {
        self.puzzles += 1;
        let boot = self.nodes[node].boot;
        let thinking = self.thinking.filter(|thinking| *thinking <= most);
        let solution = thinking.and_then(|_| match Search::new(puzzle).run(u32::MAX) {
            Step::Solved(solution) => Some(solution),
            Step::More | Step::Exhausted => None,
        });
        let at = self.now + thinking.unwrap_or(most);
        self.queue.push(at, Arrival::Puzzle { node, boot, search, solution });
    }

    fn send_datagram(&mut self, n: usize, path: UdpPath, payload: Vec<u8>) {
        self.udp_datagrams += 1;
        if let Some(recorded) = &mut self.recorded {
            recorded.push((n, payload.clone()));
        }
        if let Some(message) = self.tap.datagram_sent((n, self.nodes[n].boot), &payload) {
            self.trace.message(self.now, n, "UDP", message);
            let message = message.to_vec();
            self.read_created(n, &message);
        }
        let said = self.rewrite.zip(payload.strip_prefix(&NON_ESP_MARKER));
        let said = said.and_then(|(rewrite, message)| rewrite(n, message, &self.ledger));
        let payload = said.map_or(payload, |message| [&NON_ESP_MARKER, message.as_slice()].concat());
        if let Some(sent) = &mut self.sent_datagrams {
            sent.push((n, path, payload.clone()));
        }
        let mut from = path.local;
        if from.ip().is_unspecified() {
            from.set_ip(self.nodes[n].address);
        }
        let size = payload.len() + 28;
        self.largest_datagram = self.largest_datagram.max(size);
        let Some((node, from, to)) = self.route(from, path.remote) else { return };
        if size > self.weather.mtu || self.weather.blocks(n, Protocol::Udp) {
            return;
        }
        let mut payload = self.mutated(payload);
        if let Some(distort) = self.distort {
            distort(&mut payload);
        }
        for _ in 0..self.copies() {
            let at = self.arrival_time();
            self.queue.push(at, Arrival::Datagram { node, from, to, payload: payload.clone() });
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.print();
        }
    }
}
