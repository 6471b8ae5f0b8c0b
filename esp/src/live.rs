//! The mutable state of an SA: one cache line with one writer, its counters readable by anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::LifetimeEvent;

/// Mutable state of an outbound SA. All zeros is an SA that has sent nothing.
///
/// Only the [`crate::Outbound`] made over it writes; a second one over the same memory would use nonces
/// twice, unless both are made by [`crate::Outbound::shared`].
#[derive(Default, Debug)]
#[repr(C, align(64))]
pub struct OutboundLive {
    pub(crate) sequence: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) last_ns: AtomicU64,
    /// Which lifetimes were reported by one of several owners.
    reported: AtomicU64,
}

/// Mutable state of an inbound SA. All zeros is an SA that has received nothing.
///
/// Only the [`crate::Inbound`] made over it writes.
#[derive(Default, Debug)]
#[repr(C, align(64))]
pub struct InboundLive {
    pub(crate) highest: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) last_ns: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) icv_failures: AtomicU64,
    pub(crate) malformed: AtomicU64,
}

/// Memory of an outbound SA.
pub trait OutboundMemory {
    /// Sequence number and counters.
    fn live(&self) -> &OutboundLive;
}

/// Memory of an inbound SA.
pub trait InboundMemory {
    /// Sequence number and counters.
    fn live(&self) -> &InboundLive;
    /// Bits of the replay window: [`crate::WindowSize::words`] words, or none where replay protection is off.
    fn window(&self) -> &[AtomicU64];
}

/// What an SA has done so far; each field is exact, together they are from about the same moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Packets sealed, or opened and passed.
    pub packets: u64,
    /// Octets of payload data in them, without TFC padding that was sent.
    pub bytes: u64,
    /// Highest sequence number used, or seen in an authenticated packet.
    pub sequence: u64,
    /// When the last packet was sealed or opened, on the caller's clock; 0 is never.
    pub last_ns: u64,
    /// Inbound: packets below the window or seen already.
    pub replays: u64,
    /// Inbound: packets whose ICV was wrong.
    pub icv_failures: u64,
    /// Inbound: packets cut short or with bad padding.
    pub malformed: u64,
}

impl OutboundLive {
    /// Reads the counters.
    pub fn usage(&self) -> Usage {
        Usage {
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            sequence: read(&self.sequence),
            last_ns: read(&self.last_ns),
            ..Usage::default()
        }
    }

    /// Makes the memory ready for another SA. The caller answers for it that the last one is gone.
    pub fn reset(&self) {
        let Self { sequence, packets, bytes, last_ns, reported } = self;
        for field in [sequence, packets, bytes, last_ns, reported] {
            write(field, 0);
        }
    }

    /// True for the first of several owners that asks about this event.
    #[cold]
    pub(crate) fn is_first(&self, event: LifetimeEvent) -> bool {
        let bit = match event {
            LifetimeEvent::Soft => 1,
            LifetimeEvent::Hard => 2,
        };
        self.reported.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

impl InboundLive {
    /// Reads the counters.
    pub fn usage(&self) -> Usage {
        Usage {
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            sequence: read(&self.highest),
            last_ns: read(&self.last_ns),
            replays: read(&self.replays),
            icv_failures: read(&self.icv_failures),
            malformed: read(&self.malformed),
        }
    }

    /// Makes the memory ready for another SA. The caller answers for it that the last one is gone.
    pub fn reset(&self) {
        let Self { highest, packets, bytes, last_ns, replays, icv_failures, malformed } = self;
        for field in [highest, packets, bytes, last_ns, replays, icv_failures, malformed] {
            write(field, 0);
        }
    }
}

impl OutboundMemory for Arc<OutboundLive> {
    fn live(&self) -> &OutboundLive {
        self
    }
}

impl InboundMemory for Arc<(InboundLive, Vec<AtomicU64>)> {
    fn live(&self) -> &InboundLive {
        &self.0
    }

    fn window(&self) -> &[AtomicU64] {
        &self.1
    }
}

#[inline]
pub(crate) fn read(field: &AtomicU64) -> u64 {
    field.load(Ordering::Relaxed)
}

#[inline]
pub(crate) fn write(field: &AtomicU64, value: u64) {
    field.store(value, Ordering::Relaxed);
}

/// Adds without a locked instruction: there is one writer.
#[inline]
pub(crate) fn add(field: &AtomicU64, n: u64) -> u64 {
    let sum = read(field).wrapping_add(n);
    write(field, sum);
    sum
}

/// Adds for one of several writers, unless the sum would pass `limit`; returns the sum.
#[inline]
pub(crate) fn claim(field: &AtomicU64, n: u64, limit: u64) -> Option<u64> {
    let sum = |value: u64| value.checked_add(n).filter(|sum| *sum <= limit);
    field.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).ok().map(|before| before.wrapping_add(n))
}

/// Takes back what was claimed.
#[cold]
pub(crate) fn give_back(field: &AtomicU64, n: u64) {
    field.fetch_sub(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_sa_is_one_cache_line() {
        assert_eq!((size_of::<OutboundLive>(), align_of::<OutboundLive>()), (64, 64));
        assert_eq!((size_of::<InboundLive>(), align_of::<InboundLive>()), (64, 64));
    }

    #[test]
    fn reset_leaves_nothing_behind() {
        let live = InboundLive::default();
        for (n, field) in [&live.highest, &live.packets, &live.bytes, &live.last_ns].into_iter().enumerate() {
            add(field, n as u64 + 1);
        }
        for field in [&live.replays, &live.icv_failures, &live.malformed] {
            add(field, 9);
        }
        assert_eq!(live.usage().sequence, 1);
        live.reset();
        assert_eq!(live.usage(), Usage::default());
    }
}
