//! One shard: an endpoint on a thread of its own, fed by a queue, its actions carried out at once.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_data_plane::handle::DataPlane;
use portcullis_ike::action::IkeSaId;
use portcullis_ike::command::{Command, CommandKind, Fact};
use portcullis_ike::config::{ConnectionConfig, EndpointConfig, RemoteAddress, StartMode};
use portcullis_ike::endpoint::Endpoint;
use portcullis_ike::event::Event;
use portcullis_ike::time::Time;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::carry_out::{Hands, Outcome};
use super::clock::Clock;
use super::input::{Input, InputSender, NetworkChange};
use super::observer::Observer;
use super::sources::Sources;
use super::spi_source::TableSpis;
use crate::config::Config;
use crate::net::IkeSocket;
use crate::net::route::Shards;
use crate::snapshot::{Handshake, ShardSnapshot};

/// Inputs that may wait; a datagram more is dropped and counted, everything else waits.
const QUEUE: usize = 4096;
/// How long the peers have to answer our DELETEs at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses, links and routes often change many at a time; connections look at them this long after the first.
const NETWORK_PAUSE: Duration = Duration::from_millis(100);

/// What a shard needs.
pub struct ShardParts {
    /// Its number.
    pub shard: u8,
    /// How shards are chosen.
    pub shards: Shards,
    /// The configuration.
    pub config: Arc<Config>,
    /// Keys go to events.
    pub key_log: bool,
    /// The clock.
    pub clock: Clock,
    /// Where SAs go.
    pub data_plane: DataPlane,
    /// UDP 500.
    pub sockets: Arc<[IkeSocket]>,
    /// Who hears of events.
    pub observer: Arc<Observer>,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    /// Its queue.
    pub input: InputSender,
    thread: std::thread::JoinHandle<()>,
}

impl ShardHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread or no randomness left.
    pub fn start(parts: ShardParts) -> io::Result<Self> {
        let (input, queue) = mpsc::channel(QUEUE);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let network = Handle::current();
        let sender = input.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name(format!("ike-{}", parts.shard)).spawn(move || {
            runtime.block_on(Shard::new(parts, seed, sender, network).run(queue));
        })?;
        Ok(Self { input, thread })
    }

    /// Waits until the thread has ended.
    pub fn join(self) {
        drop(self.input);
        if self.thread.join().is_err() {
            tracing::error!("a shard ended with a panic; this is a bug in Portcullis");
        }
    }
}

struct Shard {
    endpoint: Endpoint,
    hands: Hands,
    clock: Clock,
    shards: Shards,
    number: u8,
    observer: Arc<Observer>,
    handshakes: HashMap<IkeSaId, Handshake>,
    pending: HashMap<u64, oneshot::Sender<Result<String, String>>>,
    next_request: u64,
    config: Arc<Config>,
    sources: Sources,
    data_plane: DataPlane,
    /// The network of this host has changed, and is looked at then.
    network_change: Option<(Time, NetworkChange)>,
    /// Addresses that IKE SAs use and this host does not have.
    gone: Arc<[IpAddr]>,
}

impl Shard {
    /// `network` is the runtime that carries streams.
    fn new(parts: ShardParts, seed: [u8; 32], input: InputSender, network: Handle) -> Self {
        let ShardParts { shard, shards, config, key_log, clock, data_plane, sockets, observer } = parts;
        let guard_missing = data_plane.guard_missing();
        let endpoint_config = EndpointConfig { shard, key_log, guard_missing, ..config.ike.endpoint.clone() };
        let mut sources = Sources::default();
        let found = sources.follow(&config, &data_plane.network(), None);
        let connections = connections_of(shard, shards, &config, &sources);
        let spis = Box::new(TableSpis::new(data_plane.clone()));
        let mut endpoint = Endpoint::new(endpoint_config, connections, spis, seed, clock.now());
        for (connection, address) in found.into_iter().filter(|(_, address)| address.is_none()) {
            endpoint.fact(clock.now(), Fact::LocalAddress { connection, address });
        }
        Self {
            data_plane: data_plane.clone(),
            network_change: None,
            gone: Arc::default(),
            endpoint,
            hands: Hands::new(Arc::clone(&config), data_plane, sockets, input, network),
            clock,
            shards,
            number: shard,
            observer,
            handshakes: HashMap::new(),
            pending: HashMap::new(),
            next_request: 0,
            config,
            sources,
        }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        let mut end: Option<Time> = None;
        self.settle();
        loop {
            if end.is_some_and(|end| self.endpoint.is_drained() || self.clock.now() >= end) {
                return;
            }
            let network = self.network_change.map(|(at, _)| at);
            let deadline = [self.endpoint.poll_timeout(), end, network].into_iter().flatten().min();
            tokio::select! {
                () = sleep_until(deadline.map(|time| self.clock.instant(time))) => {
                    let now = self.clock.now();
                    self.endpoint.handle_timeout(now);
                    if let Some((_, change)) = self.network_change.take_if(|(at, _)| *at <= now) {
                        self.follow_network(now, change);
                    }
                }
                input = queue.recv() => match input {
                    Some(Input::Shutdown) => {
                        let now = self.clock.now();
                        self.endpoint.shutdown(now);
                        end = Some(now + DRAIN_TIMEOUT);
                    }
                    Some(input) => self.take(input),
                    None => return,
                },
            }
            self.settle();
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        self.endpoint.set_wall_time(now, self.clock.wall());
        match input {
            Input::Datagram { path, payload } => self.endpoint.handle_datagram(now, path, &payload),
            Input::Accepted { stream, handle } => self.hands.add_stream(stream, handle),
            Input::StreamUp { stream, local, remote } if self.hands.stream_up(stream, local, remote) => {
                self.endpoint.handle_stream_up(now, stream, local, remote);
            }
            Input::StreamBytes { stream, bytes } if self.hands.has_stream(stream) => {
                self.endpoint.handle_stream_bytes(now, stream, &bytes);
            }
            Input::StreamDown { stream, cause } if self.hands.remove_stream(stream) => {
                self.endpoint.handle_stream_down(now, stream, cause);
            }
            // The endpoint has closed this stream already.
            Input::StreamUp { .. } | Input::StreamBytes { .. } | Input::StreamDown { .. } => {}
            Input::Fact(fact) => self.endpoint.fact(now, fact),
            Input::NetworkChanged(change) => {
                let (_, due) = self.network_change.get_or_insert((now + NETWORK_PAUSE, change));
                *due = change.max(*due);
            }
            Input::Puzzle { search, solution } => self.endpoint.handle_puzzle(now, search, solution),
            Input::Command { connection, kind, reply } => self.command(now, connection, kind, reply),
            Input::Configure(config) => {
                self.hands.configure(Arc::clone(&config));
                self.config = config;
                let found = self.sources.follow(&self.config, &self.data_plane.network(), None);
                self.set_connections(now);
                for (connection, address) in found {
                    self.endpoint.fact(now, Fact::LocalAddress { connection, address });
                }
            }
            Input::Inspect(reply) => {
                let _ = reply.send(self.inspect(now));
            }
            Input::Holds { connection, reply } => {
                let _ = reply.send(self.endpoint.is_up(&connection));
            }
            Input::Pulse(reply) => {
                let _ = reply.send(self.endpoint.connections_up());
            }
            Input::Shutdown => {}
        }
    }

    /// Connections follow the address that leads to their peer; IKE SAs hear when theirs is gone (transport policy rules 5
    /// and 11).
    fn follow_network(&mut self, now: Time, change: NetworkChange) {
        let network = self.data_plane.network();
        let changes = self.sources.follow(&self.config, &network, Some(change));
        let has_changed = change == NetworkChange::Addresses || !changes.is_empty();
        for (connection, address) in changes {
            self.endpoint.fact(now, Fact::LocalAddress { connection, address });
        }
        let used = self.endpoint.local_addresses().into_iter();
        let gone: Arc<[IpAddr]> = used.filter(|address| !network.is_local(*address)).collect();
        // Routes that concern no connection are none of its business: attempts keep their waits.
        if has_changed || gone != self.gone {
            self.gone = Arc::clone(&gone);
            self.endpoint.fact(now, Fact::LocalChange { gone });
        }
    }

    fn set_connections(&mut self, now: Time) {
        let connections = connections_of(self.number, self.shards, &self.config, &self.sources);
        self.endpoint.set_connections(now, connections);
    }

    fn command(
        &mut self,
        now: Time,
        connection: String,
        kind: CommandKind,
        reply: oneshot::Sender<Result<String, String>>,
    ) {
        self.next_request += 1;
        self.pending.retain(|_, reply| !reply.is_closed());
        self.pending.insert(self.next_request, reply);
        self.endpoint.command(now, Command { request: self.next_request, connection, kind });
    }

    /// Carries out what the endpoint asks for until it asks for nothing more.
    fn settle(&mut self) {
        while let Some(action) = self.endpoint.poll_action() {
            match self.hands.carry_out(action) {
                Outcome::Done => {}
                Outcome::Event(event) => self.hear(event),
                Outcome::StreamDown { stream, cause } => {
                    self.endpoint.handle_stream_down(self.clock.now(), stream, cause);
                }
                Outcome::Fact(fact) => self.endpoint.fact(self.clock.now(), fact),
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match &event {
            Event::CommandDone { request, result } => {
                if let Some(reply) = self.pending.remove(request) {
                    let _ = reply.send(result.clone());
                }
            }
            Event::IkeEstablished { ike_sa, handshake, udp_bytes, tcp_bytes, .. } => {
                let handshake = Handshake {
                    duration: *handshake,
                    udp_bytes: *udp_bytes,
                    tcp_bytes: *tcp_bytes,
                    rekeys: 0,
                };
                self.handshakes.insert(*ike_sa, handshake);
            }
            Event::IkeRekeyed { ike_sa, .. } => {
                if let Some(handshake) = self.handshakes.get_mut(ike_sa) {
                    handshake.rekeys += 1;
                }
            }
            Event::IkeRemoved { ike_sa, .. } => {
                self.handshakes.remove(ike_sa);
            }
            _ => {}
        }
        self.observer.hear(event);
    }

    fn inspect(&self, now: Time) -> ShardSnapshot {
        let connections = self.endpoint.status(now);
        let children = connections.iter().flat_map(|c| &c.ike_sas).flat_map(|sa| &sa.children);
        let usage = children.filter_map(|child| Some((child.id, self.hands.usage(child.id)?))).collect();
        ShardSnapshot {
            usage,
            connections,
            counters: self.endpoint.counters(),
            handshakes: self.handshakes.clone(),
        }
    }
}

/// The shard that initiates a connection: where its peer's IKE_SA_INIT would arrive.
pub fn home_of(connection: &ConnectionConfig, shards: Shards) -> usize {
    match connection.remote_address {
        RemoteAddress::Ip(address) => shards.of_peer(address),
        RemoteAddress::Any => shards.of_name(&connection.name),
    }
}

/// Every shard answers for every connection, one of them initiates it.
fn connections_of(shard: u8, shards: Shards, config: &Config, sources: &Sources) -> Vec<ConnectionConfig> {
    let mut connections = config.ike_connections();
    for connection in &mut connections {
        connection.local_address = connection.local_address.or_else(|| sources.of(&connection.name));
        if home_of(connection, shards) != usize::from(shard) {
            connection.children.iter_mut().for_each(|child| child.start = StartMode::None);
        }
    }
    connections
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
