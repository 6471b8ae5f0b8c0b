//! The workers: one thread per queue that moves packets between rings, sockets and the TUN device.
//!
//! ```text
//! LAN ring ─┐                                            ┌─► WAN ring, or socket
//! TUN ──────┴─► clear ─► (owner of the SA) seal ─────────┘
//! WAN ring ─┐                                            ┌─► LAN ring, or TUN
//! sockets ──┴─► receive ─► (owner of the SA) open ─► forward
//! ```
//!
//! TCP streams are read and written by tasks of their own ([`crate::stream`]); workers meet them at queues.
//!
//! A packet is in one frame from end to end. Where its SA belongs to another worker it goes there between the
//! two halves of its way. Nothing on the way allocates, locks or waits; what a packet cannot have now
//! (a carrier, a neighbour) is the slow path's: held as a copy, or given to the kernel.

mod arrivals;
mod batch;
mod clear;
pub mod command;
pub mod echo;
mod egress;
mod esp_run;
pub mod facts;
mod fetch;
mod forward;
mod held;
pub mod hold;
mod kernel_drops;
pub mod kernel_path;
pub mod load;
mod moving;
mod next_hop;
mod open;
mod path_errors;
pub mod path_mtu;
pub mod paths;
mod pin;
mod port;
mod rate;
mod receive;
pub(crate) mod run;
pub mod sas;
mod seal;
pub mod sending;
pub mod shared;
mod sleep;
mod slow_path;
mod tun_runs;
pub mod wake;
pub mod work;

use std::sync::Arc;
use std::time::Duration;

use crate::spd::FlowCache;
use crate::stream::StreamQueue;
use crate::xsk::{FrameCache, Received, Umem};
use arrivals::Arrivals;
use esp_run::EspRun;
use held::Held;
use hold::HoldQueues;
use kernel_drops::KernelDrops;
use load::LoadSampler;
use moving::Moves;
use next_hop::NextHopCache;
use path_errors::PathErrors;
pub use pin::pin;
pub use port::Port;
use rate::TokenBucket;
use sas::WorkerSas;
use shared::Shared;
use tun_runs::TunRuns;

/// Flows and destinations that a worker remembers.
const FLOWS: usize = 8192;
const DESTINATIONS: usize = 1024;
/// Packets that may wait for a carrier at one worker, over all paths.
const HELD: usize = 4096;
/// ICMP errors per second and at once (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
const ICMP_PER_SECOND: u32 = 1000;
const ICMP_BURST: u32 = 100;

/// One worker: everything here is its own, used by its thread alone.
pub struct Worker {
    id: u8,
    shared: Arc<Shared>,
    umem: Arc<Umem>,
    free: FrameCache,
    ports: Vec<Port>,
    sas: WorkerSas,
    flows: FlowCache,
    hops: NextHopCache,
    held: HoldQueues<Held>,
    icmp_rate: TokenBucket<ICMP_PER_SECOND, ICMP_BURST>,
    kernel_drops: KernelDrops,
    kernel_drops_due: Duration,
    rounds: u32,
    path_errors: PathErrors,
    moves: Moves,
    load: LoadSampler,
    /// Streams that got packets in this batch.
    streams: Vec<Arc<StreamQueue>>,
    received: Vec<Received>,
    esp_run: EspRun,
    tun_runs: TunRuns,
    /// Takes what comes from TUN devices.
    from_tun: Box<[u8]>,
    /// What came to sockets, if it is this worker that reads them.
    from_sockets: Arrivals<slow_path::FromSocket>,
}

impl Worker {
    /// A worker with its frames, its sockets and its share of the SA table. It works once [`Worker::run`] is
    /// called, on the thread that calls.
    pub fn new(
        id: u8,
        shared: Arc<Shared>,
        umem: Arc<Umem>,
        mut free: FrameCache,
        mut ports: Vec<Port>,
        sas: WorkerSas,
    ) -> Self {
        // Before any SA is live: what comes until the thread runs waits for it.
        for port in &mut ports {
            port.socket.refill(&mut free);
        }
        let from_tun = vec![0; slow_path::READ_BYTES].into();
        let from_sockets = Arrivals::new(shared.kernel.sockets(id), slow_path::READ_BYTES);
        Self {
            id,
            shared,
            umem,
            free,
            ports,
            sas,
            flows: FlowCache::new(FLOWS),
            hops: NextHopCache::new(DESTINATIONS),
            held: HoldQueues::new(HELD),
            icmp_rate: TokenBucket::default(),
            kernel_drops: KernelDrops::default(),
            kernel_drops_due: Duration::ZERO,
            rounds: 0,
            path_errors: PathErrors::default(),
            moves: Moves::default(),
            load: LoadSampler::default(),
            streams: Vec::new(),
            received: Vec::with_capacity(run::BATCH),
            esp_run: EspRun::default(),
            tun_runs: TunRuns::default(),
            from_tun,
            from_sockets,
        }
    }
}
