//! What the API counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Classes of status codes that are counted.
pub const STATUS_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Why a caller was turned away.
pub const DENIALS: [&str; 4] = ["unauthenticated", "role", "busy", "slow"];

/// A caller was turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// No token or certificate, or a wrong one.
    Unauthenticated,
    /// Its role is not enough.
    Role,
    /// There are too many connections, in all or from its source prefix.
    Busy,
    /// It does not finish what it sends, or does not read what it is sent.
    Slow,
}

/// Counts.
#[derive(Debug, Default)]
pub struct ApiCounters {
    requests: [AtomicU64; STATUS_CLASSES.len()],
    denied: [AtomicU64; DENIALS.len()],
}

/// The counts at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ApiCounts {
    /// Answers, in the order of [`STATUS_CLASSES`].
    pub requests: [u64; STATUS_CLASSES.len()],
    /// In the order of [`DENIALS`].
    pub denied: [u64; DENIALS.len()],
}

impl ApiCounters {
    /// An answer with this status was given.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(2);
        if let Some(count) = self.requests.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A caller was turned away.
    pub fn denied(&self, denial: Denial) {
        if let Some(count) = self.denied.get(denial as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts now.
    pub fn read(&self) -> ApiCounts {
        ApiCounts {
            requests: self.requests.each_ref().map(|count| count.load(Ordering::Relaxed)),
            denied: self.denied.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }
}
