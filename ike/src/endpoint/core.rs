//! What every SA of an endpoint shares: the action queue, generator, counters, SPIs and streams.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_pki::WallTime;
use rand_core::Rng as _;

use super::streams::Streams;
use crate::action::{Action, ChildId, IkeSaId};
use crate::command::PacketSelectors;
use crate::config::EndpointConfig;
use crate::crypto::Rng;
use crate::event::{Counters, Event};
use crate::live::Source;
use crate::path::{IkeTransport, StreamId, UdpPath};
use crate::sa::window::Messages;
use crate::stream;
use crate::time::Time;
use crate::transport::link::Link;
use crate::transport::pace::Pace;

/// Gives out SPIs for inbound Child SAs; implemented over the data plane's SA table.
pub trait SpiSource {
    /// A fresh SPI, never below 256, or `None` when the table is full.
    fn allocate(&mut self) -> Option<u32>;

    /// Takes back an SPI that no inbound SA was installed for. Those that were installed are given back by
    /// [`Action::RemoveInbound`].
    fn release(&mut self, spi: u32);
}

/// Octets of the handshake, sent and received, by transport.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    /// Over UDP.
    pub(crate) udp: (u64, u64),
    /// Over TCP, framing included.
    pub(crate) tcp: (u64, u64),
}

impl Traffic {
    /// Counts octets sent.
    pub(crate) fn sent(&mut self, transport: IkeTransport, bytes: u64) {
        match transport {
            IkeTransport::Udp => self.udp.0 += bytes,
            IkeTransport::Tcp => self.tcp.0 += bytes,
        }
    }

    /// Counts a message received, and what its transport puts before it.
    pub(crate) fn received(&mut self, transport: IkeTransport, message_len: usize) {
        match transport {
            IkeTransport::Udp => self.udp.1 += (message_len + NON_ESP_MARKER.len()) as u64,
            IkeTransport::Tcp => self.tcp.1 += (message_len + stream::IKE_OVERHEAD) as u64,
        }
    }
}

/// See the module.
pub(crate) struct Core {
    /// Limits and code points.
    pub(crate) config: EndpointConfig,
    /// The seeded generator.
    pub(crate) rng: Rng,
    /// What the caller has to do.
    pub(crate) actions: VecDeque<Action>,
    /// For the metrics.
    pub(crate) counters: Counters,
    /// Inbound SPIs.
    pub(crate) spi_source: Box<dyn SpiSource + Send>,
    /// TCP connections.
    pub(crate) streams: Streams,
    /// Turns of re-establishments.
    pub(crate) pace: Pace,
    /// Our IKE SPIs and the IKE SAs that they belong to.
    pub(crate) spis: BTreeMap<u64, IkeSaId>,
    /// Wall time at a time of ours; certificates alone ask for it.
    wall: (Time, WallTime),
    /// Pairs of Child SAs, lingering ones included, and the IKE SAs that they belong to.
    pub(crate) children: BTreeMap<ChildId, IkeSaId>,
    /// The packets that have asked for children which are not up yet, by connection and child.
    pub(crate) packets: BTreeMap<(Arc<str>, Arc<str>), PacketSelectors>,
    next_id: u64,
}

/// The non-ESP marker (RFC 3948 section 2.2).
pub(crate) const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// A NAT keepalive (RFC 3948 section 2.3).
pub(crate) const NAT_KEEPALIVE: u8 = 0xff;

impl Core {
    /// An empty one.
    pub(crate) fn new(config: EndpointConfig, rng: Rng, spi_source: Box<dyn SpiSource + Send>) -> Self {
        let streams = Streams::new(&config);
        let pace = Pace::new(config.reestablish_per_second);
        Self {
            config,
            rng,
            actions: VecDeque::new(),
            counters: Counters::default(),
            spi_source,
            streams,
            pace,
            spis: BTreeMap::new(),
            wall: (Time::ZERO, WallTime::ZERO),
            children: BTreeMap::new(),
            packets: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// It is `wall` on the wall.
    pub(crate) fn set_wall_time(&mut self, now: Time, wall: WallTime) {
        self.wall = (now, wall);
    }

    /// Wall time now. Before it was ever set it is 1970, when no certificate is valid.
    pub(crate) fn wall_time(&self, now: Time) -> WallTime {
        let (then, wall) = self.wall;
        wall.saturating_add(now.since(then))
    }

    /// Queues an event.
    pub(crate) fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }

    /// Counts a message that was dropped or answered with an error.
    pub(crate) fn reject(&mut self, reason: &'static str) {
        *self.counters.rejected.entry(reason).or_default() += 1;
    }

    /// The packet that has asked for a child.
    pub(crate) fn packet_for(&self, connection: &Arc<str>, child: &Arc<str>) -> Option<PacketSelectors> {
        self.packets.get(&(connection.clone(), child.clone())).copied()
    }

    /// A number that no other endpoint of the process gives out: shards differ in the top octet.
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        u64::from(self.config.shard) << 48 | self.next_id
    }

    /// A name for an IKE SA.
    pub(crate) fn new_ike_sa_id(&mut self) -> IkeSaId {
        IkeSaId(self.next_id())
    }

    /// A name for a pair of Child SAs.
    pub(crate) fn new_child_id(&mut self) -> ChildId {
        ChildId(self.next_id())
    }

    /// An IKE SPI that is not in use, with the shard in its top octet and never zero, for `owner`.
    pub(crate) fn new_ike_spi(&mut self, owner: IkeSaId) -> u64 {
        loop {
            let spi = u64::from(self.config.shard) << 56 | self.rng.next_u64() >> 8;
            if spi != 0 && !self.spis.contains_key(&spi) {
                self.spis.insert(spi, owner);
                return spi;
            }
        }
    }

    /// A fresh nonce of 32 octets: at least half the output of every pseudorandom function (RFC 7296 section 2.10).
    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// Asks for a TCP connection to the peer.
    pub(crate) fn dial(
        &mut self,
        now: Time,
        owner: IkeSaId,
        local: Option<IpAddr>,
        remote: SocketAddr,
    ) -> StreamId {
        let stream = StreamId::dialled(self.next_id());
        self.streams.dialling(now, stream, owner, remote);
        self.actions.push_back(Action::Dial { stream, local, remote });
        stream
    }

    /// Closes a connection and forgets it.
    pub(crate) fn close_stream(&mut self, stream: StreamId) {
        if self.streams.remove(stream).is_some() {
            self.actions.push_back(Action::CloseStream { stream });
        }
    }

    /// Opens the ESP packets of an IKE SA in a stream from now on, or of none.
    pub(crate) fn accept_esp(&mut self, stream: StreamId, ike_sa: Option<IkeSaId>) {
        let Some(known) = self.streams.get_mut(stream) else { return };
        if core::mem::replace(&mut known.accepts_esp, ike_sa) != ike_sa {
            self.actions.push_back(Action::AcceptEsp { stream, ike_sa });
        }
    }

    /// Opens no ESP packet of an IKE SA any more, in any of its streams.
    pub(crate) fn refuse_esp(&mut self, ike_sa: IkeSaId) {
        for stream in self.streams.of(ike_sa) {
            self.accept_esp(stream, None);
        }
    }

    /// Sends the messages where the link leads. On a TCP link without a stream they wait: the request stays outstanding
    /// and leaves when a stream is up; a response is asked for again by the peer's repeated request.
    pub(crate) fn transmit(&mut self, link: &Link, messages: &Messages, traffic: Option<&mut Traffic>) {
        let transport = link.transport();
        let mut bytes = 0;
        match link {
            Link::Udp(path) => {
                for message in messages {
                    bytes += self.send_datagram(*path, message);
                }
            }
            Link::Tcp(tcp) => {
                let Some(stream) = tcp.current else { return };
                bytes += self.send_on_stream(stream, messages);
            }
        }
        if let Some(traffic) = traffic {
            traffic.sent(transport, bytes);
        }
    }

    /// Sends one IKE message over UDP, with the non-ESP marker unless it leaves from port 500.
    pub(crate) fn send_datagram(&mut self, path: UdpPath, message: &[u8]) -> u64 {
        let mut payload = Vec::with_capacity(NON_ESP_MARKER.len() + message.len());
        if path.local.port() == self.config.nat_port {
            payload.extend_from_slice(&NON_ESP_MARKER);
        }
        payload.extend_from_slice(message);
        let bytes = payload.len() as u64;
        self.count_out(IkeTransport::Udp, bytes);
        self.actions.push_back(Action::SendDatagram { path, payload });
        bytes
    }

    /// Sends IKE messages on a stream, after the prefix if they are the first on one that we opened.
    pub(crate) fn send_on_stream(&mut self, stream: StreamId, messages: &Messages) -> u64 {
        let mut bytes = Vec::new();
        if self.streams.needs_prefix(stream) {
            bytes.extend_from_slice(&stream::PREFIX);
        }
        for message in messages {
            if !stream::push_ike(&mut bytes, message) {
                self.reject("message_too_long");
                return 0;
            }
        }
        let length = bytes.len() as u64;
        self.count_out(IkeTransport::Tcp, length);
        self.actions.push_back(Action::SendStream { stream, bytes });
        length
    }

    /// Sends a response to where its request came from.
    pub(crate) fn answer(&mut self, source: Source, messages: &Messages) -> u64 {
        match source {
            Source::Udp(path) => messages.iter().map(|message| self.send_datagram(path, message)).sum(),
            Source::Tcp(stream) => self.send_on_stream(stream, messages),
        }
    }

    /// Sends a NAT keepalive (RFC 3948 section 2.3).
    pub(crate) fn send_keepalive(&mut self, path: UdpPath) {
        self.actions.push_back(Action::SendDatagram { path, payload: vec![NAT_KEEPALIVE] });
    }

    /// Counts a message received.
    pub(crate) fn count_in(&mut self, transport: IkeTransport, bytes: u64) {
        let [udp, tcp] = &mut self.counters.messages_in;
        let [udp_bytes, tcp_bytes] = &mut self.counters.bytes_in;
        match transport {
            IkeTransport::Udp => (*udp, *udp_bytes) = (*udp + 1, *udp_bytes + bytes),
            IkeTransport::Tcp => (*tcp, *tcp_bytes) = (*tcp + 1, *tcp_bytes + bytes),
        }
    }

    fn count_out(&mut self, transport: IkeTransport, bytes: u64) {
        let [udp, tcp] = &mut self.counters.messages_out;
        let [udp_bytes, tcp_bytes] = &mut self.counters.bytes_out;
        match transport {
            IkeTransport::Udp => (*udp, *udp_bytes) = (*udp + 1, *udp_bytes + bytes),
            IkeTransport::Tcp => (*tcp, *tcp_bytes) = (*tcp + 1, *tcp_bytes + bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng as _;

    /// The data plane hears of a change, and of nothing else.
    #[test]
    fn accepting_esp_in_a_stream_is_said_once() {
        let mut core = Core::new(EndpointConfig::default(), Rng::from_seed([1; 32]), Box::new(NoSpis));
        let stream = core.dial(Time::ZERO, IkeSaId(1), None, SocketAddr::from(([192, 0, 2, 1], 4500)));
        core.actions.clear();
        core.accept_esp(stream, None);
        core.accept_esp(stream, Some(IkeSaId(1)));
        core.accept_esp(stream, Some(IkeSaId(1)));
        core.refuse_esp(IkeSaId(2));
        core.refuse_esp(IkeSaId(1));
        core.refuse_esp(IkeSaId(1));
        let actions: Vec<_> = core.actions.iter().collect();
        assert!(
            matches!(
                actions[..],
                [Action::AcceptEsp { ike_sa: Some(IkeSaId(1)), .. }, Action::AcceptEsp { ike_sa: None, .. },]
            ),
            "{actions:?}"
        );
    }

    struct NoSpis;

    impl SpiSource for NoSpis {
        fn allocate(&mut self) -> Option<u32> {
            None
        }

        fn release(&mut self, _: u32) {}
    }
}
