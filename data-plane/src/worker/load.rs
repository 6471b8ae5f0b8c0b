//! Which SAs keep a worker busy: a sample of its packets, read by who spreads SAs over workers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::Mailbox;
use crate::sa::ChildId;

/// One packet in so many is looked at; a prime, so that no pattern of traffic hides from it.
const EVERY: u32 = 61;
/// Samples that are kept.
const KEPT: usize = 1024;
/// What a packet costs beside what its octets do, as octets: about 180 ns beside 0.085 ns for each (docs/performance.md).
const PER_PACKET: u64 = 2048;
const OUTBOUND: u64 = 1 << 63;
const LEN_SHIFT: u32 = 47;
const CHILD_MASK: u64 = (1 << LEN_SHIFT) - 1;

/// A direction of a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// What the peer sends.
    Inbound,
    /// What we send.
    Outbound,
}

/// The worker's side.
#[derive(Default)]
pub struct LoadSampler {
    until_next: u32,
}

/// The samples, oldest overwritten.
pub struct LoadSamples {
    ring: Box<[AtomicU64]>,
    taken: AtomicU64,
}

/// One SA among the samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The pair.
    pub child: ChildId,
    /// Which of it.
    pub direction: Direction,
    /// What the packet costs, in units of an octet.
    pub cost: u64,
}

impl LoadSampler {
    /// Notes a packet of `len` octets.
    #[inline]
    pub fn note(&mut self, mailbox: &Mailbox, child: ChildId, direction: Direction, len: usize) {
        match self.until_next.checked_sub(1) {
            Some(left) => self.until_next = left,
            None => {
                self.until_next = EVERY - 1;
                mailbox.load.put(child, direction, len);
            }
        }
    }
}

impl Default for LoadSamples {
    /// None yet.
    fn default() -> Self {
        Self { ring: (0..KEPT).map(|_| AtomicU64::new(0)).collect(), taken: AtomicU64::new(0) }
    }
}

impl LoadSamples {
    fn put(&self, child: ChildId, direction: Direction, len: usize) {
        let len = (len as u64).min(u64::from(u16::MAX)) << LEN_SHIFT;
        let direction = if direction == Direction::Outbound { OUTBOUND } else { 0 };
        // One writer: the worker.
        let taken = self.taken.load(Ordering::Relaxed);
        if let Some(place) = self.ring.get(taken as usize % KEPT) {
            place.store(direction | len | child.0 & CHILD_MASK, Ordering::Relaxed);
        }
        self.taken.store(taken + 1, Ordering::Release);
    }

    /// The samples since `seen`, which is brought up to now; the last of them if there were too many.
    pub fn since(&self, seen: &mut u64) -> impl Iterator<Item = Sample> {
        let taken = self.taken.load(Ordering::Acquire);
        let first = (*seen).max(taken.saturating_sub(KEPT as u64));
        *seen = taken;
        (first..taken).filter_map(|number| self.ring.get(number as usize % KEPT)).map(|place| {
            let sample = place.load(Ordering::Relaxed);
            let direction = if sample & OUTBOUND != 0 { Direction::Outbound } else { Direction::Inbound };
            let len = (sample & !OUTBOUND) >> LEN_SHIFT;
            Sample { child: ChildId(sample & CHILD_MASK), direction, cost: PER_PACKET + len }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_61st_packet_is_noted_and_the_last_1024_are_kept() {
        let mailbox = Mailbox::new().unwrap();
        let mut sampler = LoadSampler::default();
        let mut seen = 0;
        for number in 0..61 * 3 {
            sampler.note(&mailbox, ChildId(number), Direction::Outbound, 1000);
        }
        let children: Vec<_> = mailbox.load.since(&mut seen).map(|sample| sample.child.0).collect();
        assert_eq!((children, seen), (vec![0, 61, 122], 3));
        assert_eq!(mailbox.load.since(&mut seen).count(), 0);
        for _ in 0..61 * 2000 {
            sampler.note(&mailbox, ChildId(7), Direction::Inbound, 64);
        }
        let samples: Vec<_> = mailbox.load.since(&mut seen).collect();
        assert_eq!((samples.len(), seen), (1024, 2003));
        let expected = Sample { child: ChildId(7), direction: Direction::Inbound, cost: PER_PACKET + 64 };
        assert!(samples.iter().all(|sample| *sample == expected));
    }
}
