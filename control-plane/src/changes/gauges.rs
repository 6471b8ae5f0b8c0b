//! What the metrics show of the store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Seen;

/// The store as the metrics see it.
#[derive(Debug)]
pub struct Gauges {
    is_ok: AtomicBool,
    overrides: AtomicU64,
    is_pending: AtomicBool,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            is_ok: AtomicBool::new(true),
            overrides: AtomicU64::new(0),
            is_pending: AtomicBool::new(false),
        }
    }
}

impl Gauges {
    pub(super) fn follow(&self, seen: &Seen) {
        let overrides = seen.overrides + usize::from(seen.default_policy.is_some());
        self.is_ok.store(seen.unreadable.is_none(), Ordering::Relaxed);
        self.overrides.store(overrides as u64, Ordering::Relaxed);
        self.is_pending.store(seen.pending.is_some(), Ordering::Relaxed);
    }

    /// The store could be read.
    pub fn is_ok(&self) -> bool {
        self.is_ok.load(Ordering::Relaxed)
    }

    /// Policies that the API has changed.
    pub fn overrides(&self) -> u64 {
        self.overrides.load(Ordering::Relaxed)
    }

    /// A change waits for its confirmation.
    pub fn is_pending(&self) -> bool {
        self.is_pending.load(Ordering::Relaxed)
    }
}
