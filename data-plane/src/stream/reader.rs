//! The stream's task at the queue: what is late is dropped, what is fresh goes into frames.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_common::DropReason;

use super::StreamQueue;
use super::outgoing::Outgoing;
use super::queue::Waiting;

/// Takes packets out of one queue; there is one for each.
pub(super) struct Reader {
    queue: Arc<StreamQueue>,
    /// Taken from the queue and not sent yet.
    front: Option<Waiting>,
}

impl Reader {
    /// Of this queue.
    pub(super) fn new(queue: Arc<StreamQueue>) -> Self {
        Self { queue, front: None }
    }

    /// The queue.
    pub(super) fn queue(&self) -> &StreamQueue {
        &self.queue
    }

    /// Adds frames as long as they are wanted and wait.
    pub(super) fn fill(&mut self, outgoing: &mut Outgoing, now: Duration) {
        while outgoing.wants_esp()
            && let Some(waiting) = self.next_fresh(now)
        {
            if outgoing.push_esp(self.queue.bytes(&waiting)) {
                self.queue.free(waiting);
            } else {
                self.queue.discard(waiting, DropReason::TooBig);
            }
        }
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self, now: Duration) {
        self.front = self.next_fresh(now);
    }

    /// Completes when a packet waits.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.front {
            Some(_) => Poll::Ready(()),
            None => self.queue.poll_packets(context),
        }
    }

    fn next_fresh(&mut self, now: Duration) -> Option<Waiting> {
        loop {
            let waiting = self.front.take().or_else(|| self.queue.pop())?;
            if waiting.is_fresh(now) {
                return Some(waiting);
            }
            self.queue.discard(waiting, DropReason::StreamLate);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(waiting) = self.front.take() {
            self.queue.discard(waiting, DropReason::StreamDown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CHUNK_BYTES;
    use super::super::queue::tests::Bench;
    use super::*;

    /// A packet waits 18 ms and no longer, whether the stream is written to or blocked.
    #[test]
    fn what_is_late_is_dropped_at_the_head_and_the_rest_keeps_its_order() {
        let bench = Bench::new(10, usize::MAX);
        let queue = bench.streams.open();
        queue.up();
        let mut reader = Reader::new(queue.clone());
        for (number, ms) in [(1, 0), (2, 5), (3, 20), (4, 21)] {
            bench.push_at(&queue, number, ms).unwrap();
        }
        reader.expire(at(18));
        assert_eq!(bench.dropped(DropReason::StreamLate), 0);
        reader.expire(at(19));
        assert_eq!(bench.dropped(DropReason::StreamLate), 1);
        let mut outgoing = Outgoing::default();
        reader.fill(&mut outgoing, at(24));
        assert_eq!(bench.dropped(DropReason::StreamLate), 2);
        let frames = outgoing.next().unwrap();
        assert_eq!((frames.len(), frames[2], frames[102 + 2]), (204, 3, 4));
        assert_eq!(bench.pool.len(), 10);
    }

    /// No more is taken out of the queue than the kernel gets soon: the rest can still be late.
    #[test]
    fn frames_are_made_a_portion_at_a_time() {
        let bench = Bench::new(100, usize::MAX);
        let queue = bench.streams.open();
        queue.up();
        (0..100).for_each(|number| bench.push_at(&queue, number, 0).unwrap());
        let (mut reader, mut outgoing) = (Reader::new(queue.clone()), Outgoing::default());
        reader.fill(&mut outgoing, at(1));
        let (first, portion) = (outgoing.packets(), outgoing.next().unwrap().len());
        assert!((CHUNK_BYTES..CHUNK_BYTES + 102).contains(&portion), "{portion}");
        outgoing.advance(10);
        reader.fill(&mut outgoing, at(1));
        assert_eq!(outgoing.packets(), first, "nothing more before it has left");
        drop(reader);
        bench.streams.close(&queue);
        assert_eq!(bench.dropped(DropReason::StreamDown), 100 - first);
        assert_eq!(bench.pool.len(), 100);
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
