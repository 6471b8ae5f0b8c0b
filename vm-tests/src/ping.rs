//! ICMP echo (RFC 792, RFC 4443), one request at a time, the next as soon as the answer is there.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;

/// What to send.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Where to.
    pub destination: IpAddr,
    /// How many requests.
    pub count: u16,
    /// Octets after the ICMP header.
    pub payload_bytes: usize,
    /// How long to wait for one answer.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Requests answered in time.
    pub answered: u32,
    /// Round trip of every answer.
    pub round_trips: Vec<Duration>,
}

impl Ping {
    /// Ten small requests, a second's patience with each.
    pub fn to(destination: impl Into<IpAddr>) -> Self {
        Self {
            destination: destination.into(),
            count: 10,
            payload_bytes: 56,
            timeout: Duration::from_secs(1),
        }
    }

    /// Sends from inside `namespace`.
    ///
    /// # Errors
    /// Without the right to open a raw socket. A request that cannot be sent counts as unanswered: that is
    /// what a guard in the kernel looks like from inside.
    pub fn run(&self, namespace: &Namespace) -> Result<PingReport> {
        namespace.enter(|| self.run_here())
    }

    fn run_here(&self) -> Result<PingReport> {
        let (domain, protocol) = match self.destination {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).context("opening a raw ICMP socket")?;
        // The type only says which calls the standard library offers; the kernel goes by the descriptor.
        let socket = UdpSocket::from(socket);
        let identifier = std::process::id() as u16;
        let mut report = PingReport::default();
        for sequence in 0..self.count {
            report.sent += 1;
            let sent_at = Instant::now();
            let request = self.request(identifier, sequence);
            if socket.send_to(&request, (self.destination, 0)).is_err() {
                continue;
            }
            if self.wait_reply(&socket, identifier, sequence, sent_at)? {
                report.answered += 1;
                report.round_trips.push(sent_at.elapsed());
            }
        }
        Ok(report)
    }

    fn wait_reply(
        &self,
        socket: &UdpSocket,
        identifier: u16,
        sequence: u16,
        sent_at: Instant,
    ) -> Result<bool> {
        let reply_type = if self.destination.is_ipv4() { 0 } else { 129 };
        let wanted = [&[reply_type, 0][..], &identifier.to_be_bytes(), &sequence.to_be_bytes()].concat();
        let mut buffer = vec![0; 65_536];
        while let Some(left) = self.timeout.checked_sub(sent_at.elapsed()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let length = match socket.recv_from(&mut buffer) {
                Ok((length, from)) if from.ip() == self.destination => length,
                Ok(_) => continue,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            // An IPv4 raw socket delivers the IP header as well, an IPv6 one does not.
            let header = if self.destination.is_ipv4() { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
            let icmp = buffer.get(header..length).unwrap_or_default();
            if icmp.len() >= 8 && [&icmp[..2], &icmp[4..8]].concat() == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn request(&self, identifier: u16, sequence: u16) -> Vec<u8> {
        let request_type = if self.destination.is_ipv4() { 8 } else { 128 };
        let mut message = vec![request_type, 0, 0, 0];
        message.extend(identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend((0..self.payload_bytes).map(|i| i as u8));
        if self.destination.is_ipv4() {
            // For ICMPv6 the kernel fills it in, since it covers a pseudo-header.
            let sum = internet_checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }
}

/// The checksum of RFC 1071.
fn internet_checksum(data: &[u8]) -> u16 {
    let mut sum: u32 = data
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
