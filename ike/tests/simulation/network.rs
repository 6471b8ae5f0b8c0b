//! A simulated network: datagrams that are lost, doubled, reordered and too long, TCP that is refused, silent or stalls, a NAT.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::Time;
use portcullis_ike::action::PuzzleId;
use portcullis_ike::endpoint::StreamDown;

use crate::esp::EspPacket;

/// What the network does to packets. Chances are in percent.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One-way delay.
    pub latency: Duration,
    /// Added to it for ESP outside of TCP: it waits at a receiver that has no time.
    pub esp_waits: Duration,
    /// Added to it, at random: more than the gap between packets reorders them.
    pub jitter: Duration,
    /// Packets that vanish; TCP sends its segments again.
    pub loss: u64,
    /// Datagrams that arrive twice.
    pub duplicates: u64,
    /// Datagrams with a longer IP packet vanish.
    pub mtu: usize,
    /// UDP does not pass at all.
    pub udp_blocked: bool,
    /// IP protocol 50 does not pass.
    pub ip_blocked: bool,
    /// Segments of open TCP connections do not pass.
    pub tcp_stalled: bool,
    /// Packets of this kind from this node do not pass.
    pub one_way: Option<(usize, Protocol)>,
    /// The same, any number of them.
    pub blocked: Vec<(usize, Protocol)>,
    /// What becomes of new TCP connections.
    pub tcp: Tcp,
}

/// What a filter tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// UDP 4500.
    Udp,
    /// IP protocol 50.
    Ip,
    /// TCP 4500.
    Tcp,
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
            esp_waits: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0,
            duplicates: 0,
            mtu: 1500,
            udp_blocked: false,
            ip_blocked: false,
            tcp_stalled: false,
            one_way: None,
            blocked: Vec::new(),
            tcp: Tcp::Works,
        }
    }
}

impl Weather {
    /// Packets of this kind from this node do not pass.
    pub fn blocks(&self, from: usize, protocol: Protocol) -> bool {
        let both_ways = match protocol {
            Protocol::Udp => self.udp_blocked,
            Protocol::Ip => self.ip_blocked,
            Protocol::Tcp => self.tcp_stalled,
        };
        both_ways || self.one_way == Some((from, protocol)) || self.blocked.contains(&(from, protocol))
    }
}

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A datagram; `from` and `to` as the receiver sees them.
    Datagram { node: usize, from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    /// An ESP packet.
    Esp { node: usize, packet: EspPacket },
    /// An end of a TCP connection is there.
    StreamUp { connection: u64, side: usize, local: SocketAddr, remote: SocketAddr },
    /// Octets for an end of one.
    Segment { connection: u64, side: usize },
    /// TCP looks again whether what an end sent can pass.
    Retry { connection: u64, side: usize },
    /// TCP asks for an end whether the other is there.
    KeepAlive { connection: u64, side: usize },
    /// A search for the solution of a puzzle has ended.
    Puzzle { node: usize, boot: u32, search: PuzzleId, solution: Option<Vec<u8>> },
    /// An end of one is gone.
    StreamDown { connection: u64, side: usize, cause: StreamDown },
}

/// Arrivals in the order of their times.
#[derive(Default)]
pub struct Queue {
    arrivals: BTreeMap<(Time, u64), Arrival>,
    next: u64,
}

impl Queue {
    pub fn push(&mut self, at: Time, arrival: Arrival) {
        self.next += 1;
        self.arrivals.insert((at, self.next), arrival);
    }

    pub fn next_time(&self) -> Option<Time> {
        self.arrivals.keys().next().map(|(at, _)| *at)
    }

    pub fn pop(&mut self) -> Option<Arrival> {
        self.arrivals.pop_first().map(|(_, arrival)| arrival)
    }
}

/// A NAT in front of one node: its address is replaced, its ports are mapped one to one from 20 000 up.
#[derive(Clone, Debug)]
pub struct Nat {
    inside: IpAddr,
    outside: IpAddr,
    ports: BTreeMap<u16, u16>,
    last: u16,
}

impl Nat {
    pub fn new(inside: IpAddr, outside: IpAddr) -> Self {
        Self { inside, outside, ports: BTreeMap::new(), last: 20_000 }
    }

    /// How a packet from inside looks outside.
    pub fn outbound(&mut self, from: SocketAddr) -> SocketAddr {
        if from.ip() != self.inside {
            return from;
        }
        let last = &mut self.last;
        let port = *self.ports.entry(from.port()).or_insert_with(|| {
            *last += 1;
            *last
        });
        SocketAddr::new(self.outside, port)
    }

    /// Where a packet from outside goes; `None` without a mapping.
    pub fn inbound(&self, to: SocketAddr) -> Option<SocketAddr> {
        if to.ip() == self.inside {
            return None;
        }
        if to.ip() != self.outside {
            return Some(to);
        }
        let port =
            self.ports.iter().find(|(_, outside)| **outside == to.port()).map(|(inside, _)| *inside)?;
        Some(SocketAddr::new(self.inside, port))
    }

    /// The node inside has another address, if it was this one's.
    pub fn move_inside(&mut self, from: IpAddr, to: IpAddr) {
        if self.inside == from {
            self.inside = to;
            self.ports.clear();
        }
    }

    /// The mappings are lost: the next packets get new ports.
    pub fn rebind(&mut self) {
        self.ports.clear();
    }
}
