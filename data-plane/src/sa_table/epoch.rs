//! Epochs: when a removed SA can no longer be in anybody's hands.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::EVERYONE;

/// Set in a worker's word while it sleeps and holds no packet.
const PARKED: u64 = 1 << 63;

/// The global epoch and the last one that each worker announced.
pub(super) struct Epochs {
    global: AtomicU64,
    workers: Box<[WorkerEpoch]>,
}

/// Alone in its cache line, because its worker writes it once a batch.
#[repr(align(64))]
struct WorkerEpoch(AtomicU64);

impl Epochs {
    pub(super) fn new(workers: u8) -> Self {
        let parked = |_| WorkerEpoch(AtomicU64::new(PARKED));
        Self { global: AtomicU64::new(0), workers: (0..workers).map(parked).collect() }
    }

    /// Begins a new epoch after something was removed and returns it: the removal is complete when
    /// [`Self::has_passed`] says so for this epoch.
    pub(super) fn advance(&self) -> u64 {
        let epoch = self.global.fetch_add(1, Ordering::SeqCst) + 1;
        // Pairs with the fence in `announce`: a worker that still looks parked sees the removal when it wakes.
        fence(Ordering::SeqCst);
        epoch
    }

    /// Whether `owner` has come to a batch boundary since `epoch` began, and every other worker has too or
    /// sleeps. A sleeping owner does not count as passed: it still has the SA. With [`EVERYONE`] all are owners.
    pub(super) fn has_passed(&self, epoch: u64, owner: u8) -> bool {
        self.workers.iter().enumerate().all(|(worker, word)| {
            let word = word.0.load(Ordering::Acquire);
            let is_idle = word & PARKED != 0 && worker != usize::from(owner) && owner != EVERYONE;
            is_idle || word & !PARKED >= epoch
        })
    }

    /// The epoch to announce at the next batch boundary; read it before taking removals.
    pub(super) fn current(&self) -> u64 {
        self.global.load(Ordering::SeqCst)
    }

    /// `worker` has taken every removal up to `epoch` and goes on with a new batch.
    pub(super) fn announce(&self, worker: u8, epoch: u64) {
        if let Some(word) = self.workers.get(usize::from(worker)) {
            let was_parked = word.0.load(Ordering::Relaxed) & PARKED != 0;
            word.0.store(epoch, Ordering::Release);
            if was_parked {
                fence(Ordering::SeqCst);
            }
        }
    }

    /// `worker` holds no packet and sleeps.
    pub(super) fn park(&self, worker: u8) {
        if let Some(word) = self.workers.get(usize::from(worker)) {
            word.0.fetch_or(PARKED, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_passes_when_every_worker_came_to_a_boundary() {
        let epochs = Epochs::new(2);
        epochs.announce(0, 0);
        epochs.announce(1, 0);
        let epoch = epochs.advance();
        assert!(!epochs.has_passed(epoch, 0));
        epochs.announce(0, epochs.current());
        assert!(!epochs.has_passed(epoch, 0));
        epochs.announce(1, epochs.current());
        assert!(epochs.has_passed(epoch, 0));
    }

    #[test]
    fn a_sleeping_worker_is_waited_for_only_if_it_is_the_owner() {
        let epochs = Epochs::new(2);
        epochs.announce(0, 0);
        let epoch = epochs.advance();
        epochs.announce(0, epochs.current());
        assert!(epochs.has_passed(epoch, 0), "worker 1 has never woken");
        assert!(!epochs.has_passed(epoch, 1));
        epochs.announce(1, epochs.current());
        epochs.park(1);
        assert!(epochs.has_passed(epoch, 1), "it took the removal before it went to sleep");
    }
}
