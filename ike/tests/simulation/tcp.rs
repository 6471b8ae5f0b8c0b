//! TCP connections as their two ends see them: octets in order, cut and joined anywhere, that stall, or that one end loses
//! before the other.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::Time;
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::path::StreamId;

use crate::network::{Arrival, Protocol, Tcp};
use crate::tap::StreamTap;
use crate::world::World;

/// The user timeout (RFC 5482) and the time between keepalives (RFC 9293 section 3.8.4) that the daemon sets.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(30);
const RETRANSMISSION: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(1);

/// The dialling side of a connection; the other one is 1.
const DIALLER: usize = 0;

/// Every connection that was ever dialled.
#[derive(Default)]
pub struct Connections(Vec<Connection>);

struct Connection {
    /// `None` once that end is gone.
    ends: [Option<End>; 2],
    /// Something between the ends has forgotten it: what the dialler sends is answered with a reset, what the other end sends
    /// vanishes.
    is_forgotten: bool,
}

struct End {
    node: usize,
    stream: StreamId,
    /// What this end has sent and the other has not got yet.
    in_flight: VecDeque<Vec<u8>>,
    last_arrival: Time,
    stalled_since: Option<Time>,
    tap: StreamTap,
}

impl World {
    /// A node opens a connection.
    pub fn dial(&mut self, n: usize, stream: StreamId, local: Option<IpAddr>, remote: SocketAddr) {
        let connection = self.tcp.0.len() as u64;
        let local =
            SocketAddr::new(local.unwrap_or(self.nodes[n].address), 30_000 + (connection % 30_000) as u16);
        self.nodes[n].streams.insert(stream, (connection, DIALLER));
        let dialler = Some(End::new(n, stream, StreamTap::dialler()));
        self.tcp.0.push(Connection { ends: [dialler, None], is_forgotten: false });
        let (half, round_trip) = (self.now + self.weather.latency, self.now + self.weather.latency * 2);
        let passes = !(0..self.nodes.len()).any(|node| self.weather.blocks(node, Protocol::Tcp));
        match self.weather.tcp {
            Tcp::Refused => {
                let down = Arrival::StreamDown { connection, side: DIALLER, cause: StreamDown::Refused };
                self.queue.push(round_trip, down);
            }
            Tcp::Works if passes => {
                let Some((peer, from, to)) = self.route(local, remote) else { return };
                self.nodes[peer].accepted += 1;
                let other = StreamId::accepted(self.nodes[peer].accepted);
                self.tcp.0[connection as usize].ends[1] = Some(End::new(peer, other, StreamTap::acceptor()));
                self.nodes[peer].streams.insert(other, (connection, 1));
                self.queue.push(half, Arrival::StreamUp { connection, side: 1, local: to, remote: from });
                self.queue.push(round_trip, Arrival::StreamUp { connection, side: DIALLER, local, remote });
            }
            Tcp::Silent | Tcp::Works => {}
        }
    }

    /// A node writes to a stream.
    pub fn send_stream(&mut self, n: usize, stream: StreamId, bytes: Vec<u8>) {
        let Some((connection, side)) = self.nodes[n].streams.get(&stream).copied() else { return };
        let Some(end) = self.tcp.end(connection, side) else { return };
        for message in end.tap.sent(&bytes) {
            self.message_on_stream(n, &message);
        }
        for part in self.mutated_and_cut(bytes) {
            self.send_segment(connection, side, part);
        }
    }

    /// A node closes a stream; what it sent before still arrives.
    pub fn close_stream(&mut self, n: usize, stream: StreamId) {
        let Some((connection, side)) = self.nodes[n].streams.remove(&stream) else { return };
        let Some(end) = self.tcp.end(connection, side) else { return };
        let last_arrival = end.last_arrival;
        if !self.is_stalled(connection, side) {
            let at = last_arrival.max(self.now + self.weather.latency);
            let down = Arrival::StreamDown { connection, side: 1 - side, cause: StreamDown::Closed };
            self.queue.push(at, down);
        }
    }

    /// Where an ESP packet on this stream arrives, under which name, and when; `None` if it is lost.
    pub fn across(&mut self, n: usize, stream: StreamId) -> Option<(usize, StreamId, Time)> {
        let (connection, side) = self.nodes[n].streams.get(&stream).copied()?;
        if self.is_stalled(connection, side) {
            return None;
        }
        let at = self.arrival_time();
        let other = self.tcp.end(connection, 1 - side)?;
        let (node, theirs) = (other.node, other.stream);
        let end = self.tcp.end(connection, side)?;
        end.last_arrival = end.last_arrival.max(at);
        Some((node, theirs, end.last_arrival))
    }

    /// Every connection breaks, for both ends at once, in the middle of whatever is on it.
    pub fn break_streams(&mut self) {
        for connection in 0..self.tcp.0.len() as u64 {
            for side in 0..2 {
                self.stream_down(connection, side, StreamDown::Reset);
            }
        }
        self.carry_out();
    }

    /// Every connection breaks for one node; the others notice when they use it.
    pub fn break_streams_of(&mut self, n: usize) {
        for connection in 0..self.tcp.0.len() as u64 {
            for side in 0..2 {
                if self.tcp.end(connection, side).is_some_and(|end| end.node == n) {
                    self.stream_down(connection, side, StreamDown::Reset);
                }
            }
        }
        self.carry_out();
    }

    /// A NAT or firewall forgets every connection, and nobody is told.
    pub fn forget_streams(&mut self) {
        self.tcp.0.iter_mut().for_each(|connection| connection.is_forgotten = true);
    }

    /// One node's connections lead nowhere any more, and nobody is told.
    pub fn forget_streams_of(&mut self, n: usize) {
        for connection in &mut self.tcp.0 {
            connection.is_forgotten |= connection.ends.iter().flatten().any(|end| end.node == n);
        }
    }

    /// A node's process ends: its kernel closes what it had.
    pub fn close_streams_of(&mut self, n: usize) {
        for stream in self.nodes[n].streams.keys().copied().collect::<Vec<_>>() {
            self.close_stream(n, stream);
        }
    }

    pub fn stream_up(&mut self, connection: u64, side: usize, local: SocketAddr, remote: SocketAddr) {
        let now = self.now;
        let Some(end) = self.tcp.end(connection, side) else { return };
        let (node, stream) = (end.node, end.stream);
        if self.nodes[node].streams.contains_key(&stream) {
            self.nodes[node].endpoint.handle_stream_up(now, stream, local, remote);
            self.queue.push(now + KEEPALIVE, Arrival::KeepAlive { connection, side });
        }
    }

    pub fn stream_down(&mut self, connection: u64, side: usize, cause: StreamDown) {
        let Some(end) = self.tcp.0[connection as usize].ends[side].take() else { return };
        if self.nodes[end.node].streams.remove(&end.stream).is_some() {
            self.nodes[end.node].endpoint.handle_stream_down(self.now, end.stream, cause);
        }
    }

    pub fn segment(&mut self, connection: u64, to: usize) {
        let Some(sender) = self.tcp.end(connection, 1 - to) else { return };
        let Some(bytes) = sender.in_flight.pop_front() else { return };
        let messages = sender.tap.arrived(&bytes);
        let Some(end) = self.tcp.end(connection, to) else {
            let at = self.now + self.weather.latency;
            let cause = StreamDown::Reset;
            return self.queue.push(at, Arrival::StreamDown { connection, side: 1 - to, cause });
        };
        let (node, stream) = (end.node, end.stream);
        if self.nodes[node].streams.contains_key(&stream) {
            messages.iter().for_each(|message| self.tap.arrived(node, self.nodes[node].boot, message));
            self.nodes[node].endpoint.handle_stream_bytes(self.now, stream, &bytes);
        }
    }

    pub fn retry_segments(&mut self, connection: u64, side: usize) {
        let (now, latency) = (self.now, self.weather.latency);
        let Some(end) = self.tcp.end(connection, side) else { return };
        let Some(since) = end.stalled_since else { return };
        if now >= since + USER_TIMEOUT {
            return self.stream_down(connection, side, StreamDown::TimedOut);
        }
        if self.is_stalled(connection, side) {
            return self.queue.push(now + RETRY, Arrival::Retry { connection, side });
        }
        let Some(end) = self.tcp.end(connection, side) else { return };
        end.stalled_since = None;
        end.last_arrival = now + latency;
        for _ in 0..end.in_flight.len() {
            self.queue.push(now + latency, Arrival::Segment { connection, side: 1 - side });
        }
    }

    /// TCP asks from time to time whether the other end is still there.
    pub fn keep_alive(&mut self, connection: u64, side: usize) {
        let is_silent = (0..2).any(|side| self.is_stalled(connection, side));
        let Connection { ends, is_forgotten } = &self.tcp.0[connection as usize];
        if ends[side].is_none() {
            return;
        }
        // An end that was closed while nothing passed knows nothing of it any more.
        let is_there = |end: &End| self.nodes[end.node].streams.contains_key(&end.stream);
        let is_gone = !is_silent && !ends[1 - side].as_ref().is_some_and(is_there);
        if ends[1 - side].is_none() || is_gone || *is_forgotten && side == DIALLER {
            self.stream_down(connection, side, StreamDown::Reset);
        } else if is_silent {
            self.stream_down(connection, side, StreamDown::TimedOut);
        } else {
            self.queue.push(self.now + KEEPALIVE, Arrival::KeepAlive { connection, side });
        }
    }

    fn send_segment(&mut self, connection: u64, side: usize, bytes: Vec<u8>) {
        let now = self.now;
        if self.tcp.0[connection as usize].ends[1 - side].is_none()
            || self.tcp.0[connection as usize].is_forgotten && side == DIALLER
        {
            let at = now + self.weather.latency * 2;
            return self.queue.push(at, Arrival::StreamDown { connection, side, cause: StreamDown::Reset });
        }
        let is_stalled = self.is_stalled(connection, side);
        let retransmission = if self.chance(self.weather.loss) { RETRANSMISSION } else { Duration::ZERO };
        let arrival = self.arrival_time() + retransmission;
        let is_joined = self.random(3) == 0;
        let Some(end) = self.tcp.end(connection, side) else { return };
        match end.in_flight.back_mut().filter(|_| is_joined) {
            Some(last) => return last.extend(bytes),
            None => end.in_flight.push_back(bytes),
        }
        if end.stalled_since.is_some() {
            return;
        }
        if is_stalled {
            end.stalled_since = Some(now);
            // What is under way is lost with the rest and will be sent again with it.
            return self.queue.push(now + RETRY, Arrival::Retry { connection, side });
        }
        end.last_arrival = end.last_arrival.max(arrival);
        let at = end.last_arrival;
        self.queue.push(at, Arrival::Segment { connection, side: 1 - side });
    }

    fn is_stalled(&self, connection: u64, side: usize) -> bool {
        let connection = &self.tcp.0[connection as usize];
        connection.is_forgotten
            || connection.ends[side].as_ref().is_some_and(|end| self.weather.blocks(end.node, Protocol::Tcp))
    }

    /// Octets in up to three parts.
    fn mutated_and_cut(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut bytes = self.mutated(bytes);
        let mut parts = Vec::new();
        for _ in 0..self.random(3) {
            let at = self.random(bytes.len() as u64 + 1) as usize;
            let rest = bytes.split_off(at);
            parts.push(core::mem::replace(&mut bytes, rest));
        }
        parts.push(bytes);
        parts.retain(|part| !part.is_empty());
        parts
    }
}

impl Connections {
    fn end(&mut self, connection: u64, side: usize) -> Option<&mut End> {
        self.0.get_mut(connection as usize)?.ends[side].as_mut()
    }
}

impl End {
    fn new(node: usize, stream: StreamId, tap: StreamTap) -> Self {
        let in_flight = VecDeque::new();
        Self { node, stream, in_flight, last_arrival: Time::ZERO, stalled_since: None, tap }
    }
}
