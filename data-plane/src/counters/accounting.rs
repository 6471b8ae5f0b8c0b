//! The books: every packet that came in went out, was dropped with a reason, or is waiting.

use portcullis_common::DropReason;

use super::worker_counters::{Sink, Source, WorkerSnapshot};

/// Totals over all workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accounting {
    /// Packets by source, in the order of [`Source::ALL`].
    pub received: [u64; Source::ALL.len()],
    /// Packets by sink, in the order of [`Sink::ALL`].
    pub sent: [u64; Sink::ALL.len()],
    /// Packets dropped, indexed by the number of the reason; those that the kernel dropped between card and
    /// ring are among them and among the received.
    pub drops: [u64; DropReason::COUNT],
    /// Packets of our own making.
    pub originated: u64,
    /// Packets waiting for a carrier.
    pub held: u64,
}

impl Accounting {
    /// Adds workers up.
    pub fn total<'a>(workers: impl IntoIterator<Item = &'a WorkerSnapshot>) -> Self {
        let mut total = Self {
            received: [0; Source::ALL.len()],
            sent: [0; Sink::ALL.len()],
            drops: [0; DropReason::COUNT],
            originated: 0,
            held: 0,
        };
        for worker in workers {
            add(&mut total.received, &worker.received);
            add(&mut total.sent, &worker.sent);
            add(&mut total.drops, &worker.drops);
            total.originated += worker.originated;
            total.held += worker.held;
        }
        total
    }

    /// Packets dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// What came in or was made here, minus what went out, was dropped or waits: zero once traffic has drained,
    /// while it flows the packets in work.
    pub fn unaccounted(&self) -> i64 {
        let came = self.received.iter().sum::<u64>() + self.originated;
        let went = self.sent.iter().sum::<u64>() + self.drops.iter().sum::<u64>() + self.held;
        came.wrapping_sub(went) as i64
    }
}

fn add(total: &mut [u64], part: &[u64]) {
    total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::WorkerCounters;

    #[test]
    fn the_books_balance_over_workers_and_show_what_is_missing() {
        let (a, b) = (WorkerCounters::default(), WorkerCounters::default());
        (0..5).for_each(|_| a.count_received(Source::Wan, 100));
        a.originated.add(1);
        (0..3).for_each(|_| b.count_sent(Sink::Lan, 60));
        b.count_drops(DropReason::Replay, 2);
        let total = |a: &WorkerCounters, b: &WorkerCounters| Accounting::total(&[a.snapshot(), b.snapshot()]);
        assert_eq!(total(&a, &b).unaccounted(), 1);
        b.held.set(1);
        assert_eq!(total(&a, &b).unaccounted(), 0);
        assert_eq!(total(&a, &b).dropped(DropReason::Replay), 2);
        b.count_sent(Sink::Tun, 60);
        assert_eq!(total(&a, &b).unaccounted(), -1);
    }
}
