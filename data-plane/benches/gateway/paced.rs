//! Frames with pauses between them, and what became of them.

use std::time::{Duration, Instant};

use crate::gateway::Namespace;
use crate::program::Program;
use crate::stamps::{MOST, Stamps};

const DURATION: Duration = Duration::from_millis(500);
/// Frames that the kernel makes in one call, most of which are dropped where they are because none is due: some tenths of a second,
/// since there is a pause of milliseconds between two calls.
const REPEAT: u32 = 1 << 21;
/// What has not arrived for so long after the last is lost.
const DRAINED_AFTER: Duration = Duration::from_millis(200);

/// Frames that passed a gateway, or did not.
pub struct Passage {
    pub sent: u64,
    pub arrived: u64,
    /// As many a second were sent.
    pub packets_per_second: f64,
    /// How long each was under way, in nanoseconds; by order, and so right only if none was lost.
    pub latencies_ns: Vec<u64>,
}

/// Sends copies of a frame out of an interface (its namespace, its index), so many a second.
pub fn pass(
    (namespace, interface): (&Namespace, u32),
    frame: &[u8],
    sender: &Program,
    stamps: &Stamps,
    arriving_len: usize,
    packets_per_second: f64,
) -> Passage {
    let count = MOST.min((packets_per_second * DURATION.as_secs_f64()) as u64);
    stamps.begin(count, packets_per_second, arriving_len);
    namespace.run(|| send(interface, frame, sender, stamps, count));
    drain(stamps);
    let (sent, arrived) = stamps.counts();
    let (first, last) = stamps.period_ns();
    let packets_per_second = (sent - 1) as f64 * 1e9 / (last - first) as f64;
    Passage { sent, arrived, packets_per_second, latencies_ns: stamps.latencies_ns() }
}

impl Passage {
    pub const fn lost(&self) -> u64 {
        self.sent - self.arrived
    }

    /// Microseconds that this share of the packets needed at most.
    pub fn latency_us(&self, share: f64) -> f64 {
        let mut sorted = self.latencies_ns.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted[rank.max(1) - 1] as f64 / 1000.0
    }
}

fn send(interface: u32, frame: &[u8], sender: &Program, stamps: &Stamps, count: u64) {
    while stamps.counts().0 < count {
        match sender.run_live(interface, frame, REPEAT) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => panic!("live frames: {error}"),
            _ => {}
        }
    }
}

fn drain(stamps: &Stamps) {
    let (mut last, mut since) = (stamps.counts(), Instant::now());
    while last.0 != last.1 && since.elapsed() < DRAINED_AFTER {
        std::thread::yield_now();
        let now = stamps.counts();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}
