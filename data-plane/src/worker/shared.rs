//! What all workers and the handle see of each other.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_queue::{ArrayQueue, SegQueue};
use foldhash::quality::RandomState;
use portcullis_esp::EchoSubTypes;
use tokio::sync::mpsc;

use super::command::Command;
use super::load::LoadSamples;
use super::paths::PathTable;
use super::wake::Wake;
use super::work::{FromStream, Work};
use crate::config::Idle;
use crate::counters::WorkerCounters;
use crate::event::{DataPlaneEvent, IkeDatagram};
use crate::netlink::{Network, Snapshot};
use crate::packet::{Inner, TunnelOptions};
use crate::spd::{Flow, Spd};
use crate::stream::Streams;
use crate::tap::Tap;

/// Packets that may wait between two workers, or for one of them to open them.
const HAND_OVER_LEN: usize = 1024;

/// State that workers share; everything in it is read without locks on the way of a packet.
pub struct Shared {
    /// The policy database.
    pub spd: ArcSwap<Spd>,
    /// Routes, neighbours and interfaces.
    pub network: Arc<ArcSwap<Snapshot>>,
    /// Who finds neighbours.
    pub neighbours: Network,
    /// TUN device and sockets; worker 0 alone reads them.
    pub kernel: super::kernel_path::KernelPath,
    /// One for each worker.
    pub workers: Vec<Mailbox>,
    /// TCP streams that carry ESP.
    pub streams: Streams,
    /// To the control plane.
    pub notifier: Notifier,
    /// The paths of IKE SAs.
    pub paths: PathTable,
    /// What stays as it was at start.
    pub settings: Settings,
    /// Who looks at packets, if anybody does.
    pub tap: ArcSwapOption<Tap>,
    /// What workers count time from.
    pub epoch: Instant,
    stop: AtomicBool,
    queues: RandomState,
}

/// What is decided at start.
pub struct Settings {
    /// How tunnels treat headers.
    pub tunnel: TunnelOptions,
    /// AGGFRAG sub-types of ESP echo.
    pub echo: EchoSubTypes,
    /// What workers do when nothing arrives.
    pub idle: Idle,
    /// Names of the interfaces of the unprotected side: an interface that comes back has another index.
    pub wan: Vec<Arc<str>>,
}

/// Where a worker is reached.
pub struct Mailbox {
    /// Packets of SAs that it owns.
    pub work: ArrayQueue<Work>,
    /// The same, out of TCP streams; apart, so that a flood in one does not crowd out what other workers hand over.
    pub from_streams: ArrayQueue<FromStream>,
    /// Orders of the handle, carried out before the next packet.
    pub commands: SegQueue<Command>,
    /// Wakes it.
    pub wake: Wake,
    /// What it counts.
    pub counters: WorkerCounters,
    /// Which SAs keep it busy.
    pub load: LoadSamples,
}

/// Channels to the control plane; a full one never blocks a worker.
pub struct Notifier {
    /// Facts about SAs and policies.
    pub events: mpsc::Sender<DataPlaneEvent>,
    /// IKE messages.
    pub ike: mpsc::Sender<IkeDatagram>,
}

impl Shared {
    /// Shared state for workers that have not started yet.
    pub fn new(
        spd: Spd,
        neighbours: Network,
        kernel: super::kernel_path::KernelPath,
        workers: Vec<Mailbox>,
        streams: Streams,
        notifier: Notifier,
        settings: Settings,
    ) -> Self {
        let (epoch, stop) = (Instant::now(), AtomicBool::new(false));
        let network = neighbours.shared_snapshot();
        Self {
            spd: ArcSwap::from_pointee(spd),
            network,
            neighbours,
            kernel,
            workers,
            streams,
            notifier,
            paths: PathTable::default(),
            settings,
            tap: ArcSwapOption::empty(),
            epoch,
            stop,
            queues: RandomState::default(),
        }
    }

    /// Time since the workers' epoch.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Gives an order to a worker.
    pub fn command(&self, worker: u8, command: Command) {
        if let Some(mailbox) = self.workers.get(usize::from(worker)) {
            mailbox.commands.push(command);
            mailbox.wake.wake();
        }
    }

    /// The queue of a TUN device by which packets of a flow go to the kernel: one and the same whichever worker writes them.
    /// Packets of its other direction come out of that queue, and would overtake each other if it changed.
    pub fn queue_of(&self, inner: &Inner) -> usize {
        match self.workers.len() {
            0 | 1 => 0,
            queues => self.queues.hash_one(Flow::inbound(inner)) as usize % queues,
        }
    }

    /// Asks all workers to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.workers.iter().for_each(|w| w.wake.wake());
    }

    /// True once workers should end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            work: ArrayQueue::new(HAND_OVER_LEN),
            from_streams: ArrayQueue::new(HAND_OVER_LEN),
            commands: SegQueue::new(),
            wake: Wake::new()?,
            counters: WorkerCounters::default(),
            load: LoadSamples::default(),
        })
    }
}
