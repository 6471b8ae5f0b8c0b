//! Two or more nodes on one network with one clock that jumps to whatever comes next.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::Time;
use portcullis_ike::action::Action;
use portcullis_ike::command::{Command, CommandKind, Fact};
use portcullis_ike::config::{ConnectionConfig, EndpointConfig};
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier, StreamId, UdpPath};
use portcullis_ike::status::{ConnectionStatus, State};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::network::{Arrival, Nat, Queue, Tcp, Weather};
use crate::node::Node;

/// See the module.
pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub weather: Weather,
    pub nat: Option<Nat>,
    /// Each node sends a numbered ESP packet this often, if it can.
    pub traffic: Option<Duration>,
    /// A pair is in use before the peer has its other end: allowed for the first one of a child only.
    pub early_uses: u64,
    /// Octets over UDP and TCP, by node.
    pub udp_datagrams: u64,
    pub largest_datagram: usize,
    /// Percent of IKE messages in which one octet is changed.
    pub mutations: u64,
    queue: Queue,
    next_traffic: Time,
    rng: ChaCha8Rng,
    streams: u64,
}

impl World {
    pub fn new(seed: u64, nodes: Vec<(EndpointConfig, Vec<ConnectionConfig>, IpAddr)>) -> Self {
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(n, (config, connections, address))| {
                Node::new(config, connections, address, seed.wrapping_mul(31).wrapping_add(n as u64 + 1))
            })
            .collect();
        Self {
            now: Time::ZERO,
            nodes,
            weather: Weather::default(),
            nat: None,
            traffic: None,
            early_uses: 0,
            udp_datagrams: 0,
            largest_datagram: 0,
            mutations: 0,
            queue: Queue::default(),
            next_traffic: Time::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            streams: 0,
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
    }

    /// Time passes for a while.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
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

    /// Stops everything and checks that nothing is left behind.
    pub fn shut_down_and_check(&mut self) {
        self.traffic = None;
        let now = self.now;
        for node in &mut self.nodes {
            node.endpoint.shutdown(now);
        }
        self.run_for(Duration::from_secs(400));
        for node in &self.nodes {
            assert!(node.endpoint.is_drained());
            node.assert_empty();
        }
    }

    pub fn command(&mut self, node: usize, kind: CommandKind) {
        let now = self.now;
        self.nodes[node].endpoint.command(now, Command { request: 1, connection: "c".into(), kind });
        self.carry_out();
    }

    pub fn status(&self, node: usize) -> ConnectionStatus {
        self.nodes[node].endpoint.status(self.now).remove(0)
    }

    pub fn state(&self, node: usize) -> State {
        self.status(node).state
    }

    /// Every connection of TCP breaks, for both ends.
    pub fn break_streams(&mut self) {
        let now = self.now;
        for n in 0..self.nodes.len() {
            for stream in core::mem::take(&mut self.nodes[n].streams).into_keys() {
                self.nodes[n].endpoint.handle_stream_down(now, stream, StreamDown::Reset);
            }
        }
        self.carry_out();
    }

    pub fn restart(&mut self, node: usize, seed: u64) {
        let now = self.now;
        let streams = core::mem::take(&mut self.nodes[node].streams);
        self.nodes[node].restart(seed, now);
        for (peer, stream) in streams.into_values() {
            self.nodes[peer].streams.remove(&stream);
            self.queue.push(now + self.weather.latency, peer, Arrival::StreamDown { stream, refused: false });
        }
        self.carry_out();
    }

    /// Both ends have exactly one IKE SA with the named number of children, and every pair is whole: what one sends on, the
    /// other has installed, with the same key and mirrored selectors.
    pub fn assert_settled(&self, children: usize) {
        self.try_settled(children).unwrap_or_else(|why| {
            for (n, node) in self.nodes.iter().enumerate() {
                node.events.iter().for_each(|(at, event)| eprintln!("{n} {at:?} {event:?}"));
            }
            panic!("{why}")
        });
    }

    pub fn try_settled(&self, children: usize) -> Result<(), String> {
        for (n, node) in self.nodes.iter().enumerate() {
            let status = self.status(n);
            if status.ike_sas.len() != 1 {
                return Err(format!("node {n} has {} IKE SAs: {:?}", status.ike_sas.len(), status));
            }
            let sa = &status.ike_sas[0];
            if sa.children.len() != children || node.in_use.len() != children {
                return Err(format!("node {n}: {} in use, {:?}", node.in_use.len(), sa.children));
            }
            let peer = &self.nodes[1 - n];
            for child in node.in_use.values() {
                let ours = &node.outbound[child].sa;
                let Some(theirs) = peer.inbound.get(&ours.spi) else {
                    return Err(format!("node {n} sends on {:x}, which the peer does not have", ours.spi));
                };
                let theirs = &theirs.sa.common;
                if theirs.key != ours.common.key
                    || theirs.cipher != ours.common.cipher
                    || theirs.esn != ours.common.esn
                    || theirs.local_ts != ours.common.remote_ts
                    || theirs.remote_ts != ours.common.local_ts
                {
                    return Err(format!("node {n}: the two ends of {:x} differ", ours.spi));
                }
            }
        }
        if self.status(0).ike_sas[0].spis != self.status(1).ike_sas[0].spis {
            return Err("the two ends name different IKE SAs".into());
        }
        Ok(())
    }

    fn step(&mut self) {
        let now = self.now;
        while self.queue.next_time().is_some_and(|at| at <= now) {
            let Some((_, node, arrival)) = self.queue.pop() else { break };
            self.arrive(node, arrival);
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
            for n in 0..self.nodes.len() {
                let in_use: Vec<_> = self.nodes[n].in_use.values().copied().collect();
                for child in in_use {
                    self.send_esp(n, child, false);
                }
            }
        }
    }

    fn arrive(&mut self, n: usize, arrival: Arrival) {
        let now = self.now;
        let node = &mut self.nodes[n];
        match arrival {
            Arrival::Datagram { from, to, payload } => {
                node.endpoint.handle_datagram(now, UdpPath { local: to, remote: from }, &payload);
            }
            Arrival::StreamUp { stream, local, remote } => {
                if node.streams.contains_key(&stream) {
                    node.endpoint.handle_stream_up(now, stream, local, remote);
                }
            }
            Arrival::StreamBytes { stream, bytes } => {
                if node.streams.contains_key(&stream) {
                    node.endpoint.handle_stream_bytes(now, stream, &bytes);
                }
            }
            Arrival::StreamDown { stream, refused } => {
                let cause = if refused { StreamDown::Refused } else { StreamDown::Closed };
                node.streams.remove(&stream);
                node.endpoint.handle_stream_down(now, stream, cause);
            }
            Arrival::Esp { spi, sequence, from, to, in_udp, is_dummy } => {
                let Some(inbound) = node.inbound.get_mut(&spi) else {
                    node.unknown_spi += 1;
                    return;
                };
                let is_highest = sequence > inbound.highest;
                inbound.highest = inbound.highest.max(sequence);
                node.received += u64::from(!is_dummy);
                let is_new = inbound.last_fact.is_none_or(|(at, source, udp)| {
                    now >= at + Duration::from_secs(1) || source != from || udp != in_udp
                });
                if is_new {
                    inbound.last_fact = Some((now, from, in_udp));
                    let carrier = if in_udp { DirectCarrier::Udp } else { DirectCarrier::Ip };
                    let child = inbound.sa.common.child;
                    let local = to.ip();
                    let fact =
                        Fact::Inbound { child, carrier, source: from, local, is_highest, is_echo: false };
                    node.endpoint.fact(now, fact);
                }
            }
        }
    }

    fn carry_out(&mut self) {
        for n in 0..self.nodes.len() {
            while let Some(action) = self.nodes[n].endpoint.poll_action() {
                self.act(n, action);
            }
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        let now = self.now;
        match action {
            Action::SendDatagram { path, payload } => {
                let payload = self.mutated(payload);
                self.send_datagram(n, path, payload);
            }
            Action::Dial { stream, local, remote } => self.dial(n, stream, local, remote),
            Action::SendStream { stream, bytes } => {
                let bytes = self.mutated(bytes);
                if let Some((peer, other)) = self.nodes[n].streams.get(&stream).copied() {
                    let at = now + self.weather.latency;
                    self.queue.push(at, peer, Arrival::StreamBytes { stream: other, bytes });
                }
            }
            Action::CloseStream { stream } => {
                if let Some((peer, other)) = self.nodes[n].streams.remove(&stream) {
                    let down = Arrival::StreamDown { stream: other, refused: false };
                    self.queue.push(now + self.weather.latency, peer, down);
                }
            }
            Action::InstallInbound(sa) => self.nodes[n].install_inbound(*sa),
            Action::InstallOutbound(sa) => self.nodes[n].install_outbound(*sa),
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
            }
            Action::RemovePath { ike_sa } => {
                assert!(self.nodes[n].paths.remove(&ike_sa).is_some(), "a path that is removed is known");
            }
            Action::SendDummy { child } => {
                self.nodes[n].dummies_sent += 1;
                self.send_esp(n, child, true);
            }
            Action::Event(event) => self.nodes[n].events.push((now, event)),
        }
    }

    fn mutated(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.chance(self.mutations) {
            let at = usize::try_from(self.random(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << self.random(8);
        }
        bytes
    }

    fn send_datagram(&mut self, n: usize, path: UdpPath, payload: Vec<u8>) {
        self.udp_datagrams += 1;
        let mut from = path.local;
        if from.ip().is_unspecified() {
            from.set_ip(self.nodes[n].address);
        }
        let size = payload.len() + 28;
        self.largest_datagram = self.largest_datagram.max(size);
        if size > self.weather.mtu || self.weather.udp_blocked {
            return;
        }
        let Some((peer, from, to)) = self.route(from, path.remote) else { return };
        let copies = if self.chance(self.weather.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.chance(self.weather.loss) {
                let at = self.arrival_time();
                self.queue.push(at, peer, Arrival::Datagram { from, to, payload: payload.clone() });
            }
        }
    }

    fn dial(&mut self, n: usize, stream: StreamId, local: Option<IpAddr>, remote: SocketAddr) {
        self.streams += 1;
        let port = 30_000 + u16::try_from(self.streams % 30_000).unwrap();
        let local = SocketAddr::new(local.unwrap_or(self.nodes[n].address), port);
        let round_trip = self.now + self.weather.latency * 2;
        match self.weather.tcp {
            Tcp::Silent => {}
            Tcp::Refused => self.queue.push(round_trip, n, Arrival::StreamDown { stream, refused: true }),
            Tcp::Works => {
                let Some((peer, from, to)) = self.route(local, remote) else { return };
                self.nodes[peer].accepted += 1;
                let other = StreamId::accepted(self.nodes[peer].accepted);
                self.nodes[n].streams.insert(stream, (peer, other));
                self.nodes[peer].streams.insert(other, (n, stream));
                let half = self.now + self.weather.latency;
                self.queue.push(half, peer, Arrival::StreamUp { stream: other, local: to, remote: from });
                self.queue.push(round_trip, n, Arrival::StreamUp { stream, local, remote });
            }
        }
    }

    fn send_esp(&mut self, n: usize, child: portcullis_ike::action::ChildId, is_dummy: bool) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(outbound) = node.outbound.get_mut(&child) else { return };
        let path = node.paths[&outbound.sa.common.ike_sa];
        let spi = outbound.sa.spi;
        if outbound.last_fact.is_none_or(|at| now >= at + Duration::from_secs(1)) && !is_dummy {
            outbound.last_fact = Some(now);
            node.endpoint.fact(now, Fact::Outbound { child });
        }
        node.sent_sequence += 1;
        let sequence = node.sent_sequence;
        let EspCarrier::Direct(carrier) = path.carrier else { return };
        let in_udp = carrier == DirectCarrier::Udp;
        let (local_port, remote_port) = if in_udp { (path.local_port, path.remote_port) } else { (0, 0) };
        let local = if path.local.is_unspecified() { self.nodes[n].address } else { path.local };
        let is_blocked =
            if in_udp { self.weather.udp_blocked } else { self.weather.ip_blocked || self.nat.is_some() };
        let ends = (SocketAddr::new(local, local_port), SocketAddr::new(path.remote, remote_port));
        if is_blocked {
            return;
        }
        let Some((peer, from, to)) = self.route(ends.0, ends.1) else { return };
        let at = self.now + self.weather.latency;
        self.queue.push(at, peer, Arrival::Esp { spi, sequence, from, to, in_udp, is_dummy });
    }

    /// The node that a packet reaches, and its addresses there.
    fn route(&mut self, from: SocketAddr, to: SocketAddr) -> Option<(usize, SocketAddr, SocketAddr)> {
        let (from, to) = match &mut self.nat {
            Some(nat) => (nat.outbound(from), nat.inbound(to)?),
            None => (from, to),
        };
        let peer = self.nodes.iter().position(|node| node.address == to.ip())?;
        Some((peer, from, to))
    }

    fn arrival_time(&mut self) -> Time {
        let jitter = u64::try_from(self.weather.jitter.as_micros()).unwrap();
        let extra = if jitter == 0 { 0 } else { self.rng.next_u64() % jitter };
        self.now + self.weather.latency + Duration::from_micros(extra)
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.rng.next_u64() % 100 < percent
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    pub fn saw(&self, node: usize, is_it: impl Fn(&Event) -> bool) -> usize {
        self.nodes[node].saw(is_it)
    }
}
