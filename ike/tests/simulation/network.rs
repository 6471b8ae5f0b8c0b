//! A simulated network: datagrams that are lost, doubled, reordered and too long, streams that are refused, silent or break.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::Time;
use portcullis_ike::path::StreamId;

/// What the network does to packets. Chances are in percent.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One-way delay.
    pub latency: Duration,
    /// Added to it, at random: more than the gap between packets reorders them.
    pub jitter: Duration,
    /// Datagrams that vanish.
    pub loss: u64,
    /// Datagrams that arrive twice.
    pub duplicates: u64,
    /// Datagrams with a longer IP packet vanish.
    pub mtu: usize,
    /// UDP does not pass at all.
    pub udp_blocked: bool,
    /// IP protocol 50 does not pass.
    pub ip_blocked: bool,
    /// What becomes of new TCP connections.
    pub tcp: Tcp,
}

/// What becomes of a TCP connection attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tcp {
    /// It works.
    Works,
    /// It is refused.
    Refused,
    /// Nothing comes back.
    Silent,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0,
            duplicates: 0,
            mtu: 1500,
            udp_blocked: false,
            ip_blocked: false,
            tcp: Tcp::Works,
        }
    }
}

/// Something that arrives at a node.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A datagram; `from` and `to` as the receiver sees them.
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    /// A TCP connection is there.
    StreamUp { stream: StreamId, local: SocketAddr, remote: SocketAddr },
    /// Octets on one.
    StreamBytes { stream: StreamId, bytes: Vec<u8> },
    /// One is gone.
    StreamDown { stream: StreamId, refused: bool },
    /// An ESP packet, in UDP if ports are given.
    Esp { spi: u32, sequence: u64, from: SocketAddr, to: SocketAddr, in_udp: bool, is_dummy: bool },
}

/// Arrivals in the order of their times.
#[derive(Default)]
pub struct Queue {
    arrivals: BTreeMap<(Time, u64), (usize, Arrival)>,
    next: u64,
}

impl Queue {
    pub fn push(&mut self, at: Time, node: usize, arrival: Arrival) {
        self.next += 1;
        self.arrivals.insert((at, self.next), (node, arrival));
    }

    pub fn next_time(&self) -> Option<Time> {
        self.arrivals.keys().next().map(|(at, _)| *at)
    }

    pub fn pop(&mut self) -> Option<(Time, usize, Arrival)> {
        self.arrivals.pop_first().map(|((at, _), (node, arrival))| (at, node, arrival))
    }
}

/// A NAT in front of one node: its address is replaced, its ports are mapped one to one from 20 000 up.
#[derive(Clone, Debug)]
pub struct Nat {
    pub inside: IpAddr,
    pub outside: IpAddr,
    pub ports: BTreeMap<u16, u16>,
    pub next: u16,
}

impl Nat {
    pub fn new(inside: IpAddr, outside: IpAddr) -> Self {
        Self { inside, outside, ports: BTreeMap::new(), next: 20_000 }
    }

    /// How a packet from inside looks outside.
    pub fn outbound(&mut self, from: SocketAddr) -> SocketAddr {
        if from.ip() != self.inside {
            return from;
        }
        let next = &mut self.next;
        let port = *self.ports.entry(from.port()).or_insert_with(|| {
            *next += 1;
            *next
        });
        SocketAddr::new(self.outside, port)
    }

    /// Where a packet from outside goes; `None` without a mapping.
    pub fn inbound(&self, to: SocketAddr) -> Option<SocketAddr> {
        if to.ip() != self.outside {
            return Some(to);
        }
        let port =
            self.ports.iter().find(|(_, outside)| **outside == to.port()).map(|(inside, _)| *inside)?;
        Some(SocketAddr::new(self.inside, port))
    }

    /// The mappings are lost: the next packets get new ports.
    pub fn rebind(&mut self) {
        self.ports.clear();
    }
}
