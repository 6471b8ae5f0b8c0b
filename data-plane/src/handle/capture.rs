//! A reader of what the workers see.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::DataPlane;
use crate::tap::{Seen, Tap, TapOptions};
use crate::worker::shared::Shared;

/// Packets as they come, until it is dropped.
pub struct Capture {
    tap: Arc<Tap>,
    seen: mpsc::Receiver<Seen>,
    shared: Arc<Shared>,
}

impl DataPlane {
    /// Starts a capture; `None` if there is one already.
    pub fn capture(&self, options: TapOptions) -> Option<Capture> {
        let shared = self.inner.shared.clone();
        let (tap, seen) = Tap::new(options);
        let tap = Arc::new(tap);
        let before = shared.tap.compare_and_swap(&None::<Arc<Tap>>, Some(tap.clone()));
        // Not made at all if there is one: its end would be the end of the other.
        before.is_none().then(|| Capture { tap, seen, shared })
    }
}

impl Capture {
    /// The next packet; never `None` while the capture lives.
    pub async fn next(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }

    /// The next packet, if it is there.
    pub fn try_next(&mut self) -> Option<Seen> {
        self.seen.try_recv().ok()
    }

    /// Packets that came faster than they were read.
    pub fn missed(&self) -> u64 {
        self.tap.missed()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.tap.store(None);
    }
}
