//! One worker's counters.

use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_common::DropReason;

/// Where a worker gets packets from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Source {
    /// AF_XDP on an interface towards the peers.
    Wan,
    /// AF_XDP on an interface of protected hosts.
    Lan,
    /// The TUN device.
    Tun,
    /// The UDP socket on port 4500.
    Udp,
    /// A raw socket for protocol 50.
    RawIp,
    /// A TCP stream, beside IKE.
    Tcp,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 6] = [Self::Wan, Self::Lan, Self::Tun, Self::Udp, Self::RawIp, Self::Tcp];

    /// The value of the `source` label in metrics and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wan => "af_xdp_wan",
            Self::Lan => "af_xdp_lan",
            Self::Tun => "tun",
            Self::Udp => "udp_socket",
            Self::RawIp => "ip_socket",
            Self::Tcp => "tcp_stream",
        }
    }
}

/// Where a worker sends packets to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Sink {
    /// AF_XDP on an interface towards the peers.
    Wan,
    /// AF_XDP on an interface of protected hosts.
    Lan,
    /// The TUN device.
    Tun,
    /// The UDP socket on port 4500.
    Udp,
    /// A raw socket for protocol 50.
    RawIp,
    /// The control plane: IKE messages.
    Ike,
    /// A TCP stream, beside IKE.
    Tcp,
}

impl Sink {
    /// Every sink.
    pub const ALL: [Self; 7] =
        [Self::Wan, Self::Lan, Self::Tun, Self::Udp, Self::RawIp, Self::Ike, Self::Tcp];

    /// The value of the `sink` label in metrics and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wan => "af_xdp_wan",
            Self::Lan => "af_xdp_lan",
            Self::Tun => "tun",
            Self::Udp => "udp_socket",
            Self::RawIp => "ip_socket",
            Self::Ike => "ike",
            Self::Tcp => "tcp_stream",
        }
    }
}

/// A counter with one writer: adding needs no locked instruction.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the worker that owns the counter calls this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the value, for gauges. Only the worker that owns the counter calls this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, for anybody.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of one worker, in cache lines that no other worker writes.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    received: [Counter; Source::ALL.len()],
    received_bytes: [Counter; Source::ALL.len()],
    sent: [Counter; Sink::ALL.len()],
    sent_bytes: [Counter; Sink::ALL.len()],
    drops: DropCounters,
    /// Packets of our own making: ICMP errors, dummies, ESP echo, fragments beyond the first.
    pub originated: Counter,
    /// Packets waiting for a carrier or an SA now.
    pub held: Counter,
    /// ESP that arrived over IP and in UDP, whatever brought it.
    pub esp_received: [EspCounter; 2],
    /// ESP that was sealed for IP and for UDP.
    pub esp_sent: [EspCounter; 2],
    /// Packets passed to the worker that owns their SA.
    pub handed_over: Counter,
    /// SAs given to another worker.
    pub sas_moved: Counter,
    /// Packets that went through the TUN device together with others of their flow.
    pub tun_joined: Counter,
    /// ESP packets that were given to the kernel together with others of their peer.
    pub esp_joined: Counter,
    /// Batches of received packets.
    pub batches: Counter,
    /// Nanoseconds in rounds that found packets.
    pub busy_ns: Counter,
    /// Events that the control plane had no room for; repeated later where they matter.
    pub events_deferred: Counter,
}

/// ESP packets and their octets, without outer headers.
#[derive(Default, Debug)]
pub struct EspCounter {
    packets: Counter,
    bytes: Counter,
}

impl EspCounter {
    /// Counts a packet.
    pub fn count(&self, bytes: usize) {
        self.packets.add(1);
        self.bytes.add(bytes as u64);
    }

    fn get(&self) -> (u64, u64) {
        (self.packets.get(), self.bytes.get())
    }
}

#[derive(Debug)]
struct DropCounters([Counter; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// The values of a [`WorkerCounters`] at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerSnapshot {
    /// Packets by source, in the order of [`Source::ALL`].
    pub received: [u64; Source::ALL.len()],
    /// Bytes by source.
    pub received_bytes: [u64; Source::ALL.len()],
    /// Packets by sink, in the order of [`Sink::ALL`].
    pub sent: [u64; Sink::ALL.len()],
    /// Bytes by sink.
    pub sent_bytes: [u64; Sink::ALL.len()],
    /// Packets dropped, indexed by the number of the reason.
    pub drops: [u64; DropReason::COUNT],
    /// Packets of our own making.
    pub originated: u64,
    /// Packets waiting now.
    pub held: u64,
    /// ESP packets that arrived and their octets, over IP and in UDP.
    pub esp_received: [(u64, u64); 2],
    /// ESP packets that were sealed and their octets, for IP and for UDP.
    pub esp_sent: [(u64, u64); 2],
    /// Packets passed to another worker.
    pub handed_over: u64,
    /// SAs given to another worker.
    pub sas_moved: u64,
    /// Packets that went through the TUN device together with others of their flow.
    pub tun_joined: u64,
    /// ESP packets that were given to the kernel together with others of their peer.
    pub esp_joined: u64,
    /// Batches of received packets.
    pub batches: u64,
    /// Nanoseconds in rounds that found packets.
    pub busy_ns: u64,
    /// Events put off.
    pub events_deferred: u64,
}

impl WorkerCounters {
    /// A packet arrived.
    pub fn count_received(&self, source: Source, bytes: usize) {
        self.received[source as usize].add(1);
        self.received_bytes[source as usize].add(bytes as u64);
    }

    /// Packets arrived that nobody has seen the bytes of.
    pub fn count_received_unseen(&self, source: Source, packets: u64) {
        self.received[source as usize].add(packets);
    }

    /// A packet left.
    pub fn count_sent(&self, sink: Sink, bytes: usize) {
        self.sent[sink as usize].add(1);
        self.sent_bytes[sink as usize].add(bytes as u64);
    }

    /// A packet was dropped.
    pub fn count_drop(&self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    /// Packets were dropped.
    pub fn count_drops(&self, reason: DropReason, packets: u64) {
        self.drops.0[reason as usize].add(packets);
    }

    /// All values now. A packet in work may be in some and not yet in others.
    pub fn snapshot(&self) -> WorkerSnapshot {
        fn values<const N: usize>(counters: &[Counter; N]) -> [u64; N] {
            std::array::from_fn(|i| counters[i].get())
        }
        WorkerSnapshot {
            received: values(&self.received),
            received_bytes: values(&self.received_bytes),
            sent: values(&self.sent),
            sent_bytes: values(&self.sent_bytes),
            drops: values(&self.drops.0),
            originated: self.originated.get(),
            held: self.held.get(),
            esp_received: [0, 1].map(|carrier| self.esp_received[carrier].get()),
            esp_sent: [0, 1].map(|carrier| self.esp_sent[carrier].get()),
            handed_over: self.handed_over.get(),
            sas_moved: self.sas_moved.get(),
            tun_joined: self.tun_joined.get(),
            esp_joined: self.esp_joined.get(),
            batches: self.batches.get(),
            busy_ns: self.busy_ns.get(),
            events_deferred: self.events_deferred.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique() {
        let labels: std::collections::HashSet<_> = Source::ALL.iter().map(|s| s.label()).collect();
        assert_eq!(labels.len(), Source::ALL.len());
        let labels: std::collections::HashSet<_> = Sink::ALL.iter().map(|s| s.label()).collect();
        assert_eq!(labels.len(), Sink::ALL.len());
    }

    #[test]
    fn a_snapshot_shows_what_was_counted() {
        let counters = WorkerCounters::default();
        counters.count_received(Source::Lan, 100);
        counters.count_sent(Sink::Wan, 150);
        counters.count_drops(DropReason::Replay, 3);
        let snapshot = counters.snapshot();
        assert_eq!(
            (snapshot.received[Source::Lan as usize], snapshot.received_bytes[Source::Lan as usize]),
            (1, 100)
        );
        assert_eq!((snapshot.sent[Sink::Wan as usize], snapshot.sent_bytes[Sink::Wan as usize]), (1, 150));
        assert_eq!(snapshot.drops[DropReason::Replay as usize], 3);
    }
}
