//! The loop.

use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::batch::Batch;
use super::fetch;
use super::shared::Shared;
use crate::config::{Idle, Role};
use crate::xsk::Umem;

/// Packets taken from one source before the next gets its turn.
pub(crate) const BATCH: usize = 64;
/// While rings are busy, and where a worker never sleeps, the kernel's sources get their turn once in so many rounds: asking them costs system
/// calls, and what they bring is the exception there.
const ROUNDS_PER_KERNEL_TURN: u32 = 8;
/// Between two looks at what the kernel dropped.
const KERNEL_DROPS_INTERVAL: Duration = Duration::from_millis(100);

impl Worker {
    /// Moves packets until the data plane stops, then drains what its rings still hold.
    pub fn run(mut self) {
        let (shared, umem) = (self.shared.clone(), self.umem.clone());
        let mut now = shared.now();
        while !shared.is_stopping() {
            let worked = self.turn(&shared, &umem, now);
            let began = now;
            if worked == 0 {
                self.wait(&shared);
                now = shared.now();
            } else {
                now = shared.now();
                self.count_busy(&shared, now.saturating_sub(began));
            }
        }
        self.collect_kernel_drops(&shared);
    }

    /// One round of [`Worker::run`] on the caller's thread: for benchmarks of what is done for a packet. Returns how many
    /// packets there were.
    pub fn round(&mut self) -> usize {
        self.round_at(self.shared.now())
    }

    /// As [`Worker::round`], at this time since the workers' epoch.
    pub fn round_at(&mut self, now: Duration) -> usize {
        let (shared, umem) = (self.shared.clone(), self.umem.clone());
        self.turn(&shared, &umem, now)
    }

    /// One round over every source of packets; returns how many there were.
    fn turn(&mut self, shared: &Arc<Shared>, umem: &Umem, now: Duration) -> usize {
        self.rounds = self.rounds.wrapping_add(1);
        let Some(mailbox) = shared.workers.get(usize::from(self.id)) else { return 0 };
        let (spd, network, tap) = (shared.spd.load(), shared.network.load(), shared.tap.load());
        let batch = Batch { umem, spd: &spd, network: &network, shared, mailbox, now, tap: tap.as_deref() };
        self.sas.begin_batch();
        let mut worked = self.settle_moves(&batch);
        worked += self.obey(&batch);
        for port in 0..self.ports.len() {
            worked += self.take_batch(&batch, port);
        }
        worked += self.take_handed_over(&batch);
        worked += self.take_from_streams(&batch);
        let has_time = worked == 0 && shared.settings.idle == Idle::Sleep;
        if has_time || self.rounds.is_multiple_of(ROUNDS_PER_KERNEL_TURN) {
            worked += self.take_from_kernel(&batch);
        }
        self.flush(&batch);
        self.expire_held(&batch);
        if worked > 0 {
            batch.counters().batches.add(1);
        }
        if now >= self.kernel_drops_due {
            self.kernel_drops_due = now + KERNEL_DROPS_INTERVAL;
            self.collect_kernel_drops(shared);
        }
        worked
    }

    fn count_busy(&self, shared: &Shared, time: Duration) {
        if let Some(mailbox) = shared.workers.get(usize::from(self.id)) {
            mailbox.counters.busy_ns.add(time.as_nanos() as u64);
        }
    }

    fn take_batch(&mut self, batch: &Batch<'_>, port: usize) -> usize {
        let mut received = std::mem::take(&mut self.received);
        let Some(from) = self.ports.get_mut(port) else { return 0 };
        from.socket.poll_queue();
        let count = from.socket.receive(&mut self.free, &mut received, BATCH);
        if from.role == Role::Wan {
            fetch::inbound(&self.sas, batch.umem, &received);
        }
        for packet in received.drain(..) {
            self.take_frame(batch, port, packet);
        }
        self.received = received;
        if let Some(from) = self.ports.get_mut(port) {
            from.socket.refill(&mut self.free);
        }
        count
    }

    fn take_handed_over(&mut self, batch: &Batch<'_>) -> usize {
        let mut count = 0;
        while count < BATCH
            && let Some(work) = batch.mailbox.work.pop()
        {
            count += 1;
            self.serve(batch, work);
        }
        self.moves.taken.work += count as u64;
        count
    }

    fn take_from_streams(&mut self, batch: &Batch<'_>) -> usize {
        let mut count = 0;
        while count < BATCH
            && let Some(from_stream) = batch.mailbox.from_streams.pop()
        {
            count += 1;
            self.serve_stream(batch, from_stream);
        }
        self.moves.taken.from_streams += count as u64;
        count
    }

    fn obey(&mut self, batch: &Batch<'_>) -> usize {
        let mut count = 0;
        while let Some(command) = batch.mailbox.commands.pop() {
            count += 1;
            self.carry_out(batch, command);
        }
        count
    }
}
