//! ESP in TCP (RFC 9329 section 3): what lies between the workers and the tasks that read and write the streams.
//!
//! ```text
//! worker: seal ─► StreamQueue ─► carry: whole frames, IKE before ESP ─► TCP
//! worker: open ◄─ its inbox   ◄─ carry: ESP is taken out, the rest is IKE's ◄─ TCP
//! ```
//!
//! TCP delivers everything at some time; inner traffic wants it now or not at all. So a packet waits at most
//! [`PATIENCE`] for its stream, the kernel is given no more than it can send soon, and what arrives goes to a bounded
//! inbox. Whether a stream may carry ESP is the control plane's to say; what IKE messages mean is not known here.

mod carry;
mod incoming;
mod inject;
mod outgoing;
mod port;
mod queue;
mod reader;

use std::time::Duration;

pub use carry::{Ended, Ike, carry};
pub use incoming::Incoming;
pub use port::{StreamEnd, StreamPort};
pub use queue::{StreamQueue, Streams};

/// A stream in this process, whichever shard it belongs to; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKey(pub u64);

impl StreamKey {
    /// No stream.
    pub const NONE: Self = Self(0);
}

/// How long a packet may wait for its stream.
pub const PATIENCE: Duration = Duration::from_millis(18);
/// Octets of ESP frames that wait for the kernel beside what waits in the queue: filled up to here, and one more frame.
const CHUNK_BYTES: usize = 6 * 1024;
/// Octets that the kernel has not sent yet, from which on it takes no more (TCP_NOTSENT_LOWAT); below half of it, it asks
/// for more.
const NOT_SENT_BYTES: u32 = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest wait behind a stream of 20 Mbit/s: in the queue; in the chunk while the kernel sends what it has; in
    /// the kernel behind the rest of that.
    #[test]
    fn nothing_waits_longer_than_30_ms_behind_20_mbit_per_second() {
        let frame = 4096;
        let (chunk, limit) = (CHUNK_BYTES + frame, NOT_SENT_BYTES as usize);
        let takes_more_at = limit / 2;
        let ahead_of_the_chunk = limit + chunk - takes_more_at;
        let in_the_kernel = takes_more_at + chunk;
        let bytes_per_second = 20_000_000.0 / 8.0;
        let sent_in = Duration::from_secs_f64((ahead_of_the_chunk + in_the_kernel) as f64 / bytes_per_second);
        assert!(PATIENCE + sent_in <= Duration::from_millis(30), "{:?}", PATIENCE + sent_in);
    }
}
