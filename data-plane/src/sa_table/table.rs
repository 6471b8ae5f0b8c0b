//! The control plane's side of the SA table.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crossbeam_queue::SegQueue;
use portcullis_common::Spi;
use portcullis_common::spi::MAX_SLOTS;
use portcullis_common::steer::SlotState;
use portcullis_esp::{
    InboundLive, InboundParameters, InvalidWindow, Lifetime, Limits, OutboundLive, OutboundParameters, Usage,
    WindowSize,
};

use super::OutboundIndex;
use super::arena::{Arena, WindowBits};
use super::epoch::Epochs;
use super::key_wrap::KeyWrap;
use super::keys::{Direction, Keys, WORDS};
use super::memory::{Backing, SharedArray};
use super::moves::SaName;
use super::slots::{Slots, TableFull, lookup};
use super::worker::{
    Command, InboundSlot, NewInbound, NewOutbound, OutboundSlot, SaInfo, WorkerSas, WorkerShared,
};
use crate::sa::{self, InboundSa, OutboundSa};

/// Size of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableConfig {
    /// Slots of each direction, 1 to 2^20. An unused slot costs nothing but its 8 and 128 bytes in BPF maps.
    pub slots: u32,
    /// Workers, at least 1.
    pub workers: u8,
}

/// Why an SA was not installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InstallError {
    /// The SPI is not one that [`SaTable::reserve_spi`] gave and nobody used since.
    #[error("SPI {0} is not reserved")]
    NotReserved(Spi),
    /// There is no worker with this number.
    #[error("there is no worker {0}")]
    NoSuchWorker(u8),
    /// The key material does not have the length of its algorithm.
    #[error("the key material does not have the length of its algorithm")]
    KeyLength,
    /// A replay window outside 64 to 65536.
    #[error(transparent)]
    Window(#[from] InvalidWindowSize),
    /// No slot is left.
    #[error(transparent)]
    Full(#[from] TableFull),
    /// Freed windows of other sizes have used up the arena.
    #[error("no memory is left for a replay window of this size")]
    NoWindowMemory,
}

/// A replay window outside 64 to 65536.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a replay window has 64 to 65536 packets, not {0}")]
pub struct InvalidWindowSize(pub u32);

/// How full the table is, and what went wrong since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TableCounters {
    /// Slots of each direction.
    pub slots: u32,
    /// Inbound slots reserved, live or dead.
    pub inbound_used: u32,
    /// Outbound slots live or dead.
    pub outbound_used: u32,
    /// Dead slots of both directions that wait for their workers.
    pub waiting: u32,
    /// Reservations and installs refused because the table was full.
    pub full: u64,
    /// Installs whose wrapped key had been changed.
    pub unwrap_failures: u64,
}

/// The SA table as the control plane uses it; clones are the same table. `I` and `O` are what a worker keeps
/// beside each SA.
pub struct SaTable<I, O> {
    pub(super) shared: Arc<WorkerShared<I, O>>,
    state: Arc<Mutex<State>>,
    /// Held for reading by who finds an owner and then gives it a packet, and is no worker: see [`SaTable::at_owner`].
    pub(super) steering: Arc<RwLock<()>>,
}

pub(super) struct State {
    pub(super) inbound: Slots,
    pub(super) outbound: Slots,
    /// SAs on their way from a worker, which is named here, to their owner.
    pub(super) moving: HashMap<SaName, u8>,
    inbound_live: Arc<SharedArray<InboundLive>>,
    outbound_live: Arc<SharedArray<OutboundLive>>,
    arena: Arena,
    windows: HashMap<u32, WindowBits>,
    full: u64,
}

/// Makes an empty table and what each worker owns of it. Steer words and keys that `backing` still holds from
/// an earlier process are wiped before anything else.
///
/// # Errors
/// Those of the system calls that map the arrays; `InvalidInput` if `config` is out of range.
#[allow(clippy::type_complexity)]
pub fn create<I, O>(
    config: TableConfig,
    backing: Backing,
) -> io::Result<(SaTable<I, O>, Vec<WorkerSas<I, O>>)> {
    let TableConfig { slots, workers } = config;
    if !(1..=MAX_SLOTS).contains(&slots) || workers == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "SA table: 1 to 2^20 slots, 1 to 255 workers",
        ));
    }
    let len = slots as usize;
    let key_words = 2 * len * WORDS;
    let (steer, keys) = match backing {
        Backing::Maps { steer, keys } => {
            (SharedArray::map(&steer, len)?, SharedArray::map(&keys, key_words)?)
        }
        Backing::Memory => (
            SharedArray::anonymous(c"portcullis-steer", len)?,
            SharedArray::anonymous(c"portcullis-keys", key_words)?,
        ),
    };
    let keys = Keys::new(keys, KeyWrap::generate()?);
    let inbound: Arc<SharedArray<AtomicU64>> = Arc::new(steer);
    let outbound = Arc::new(SharedArray::anonymous(c"portcullis-outbound", len)?);
    let state = State {
        inbound: Slots::new(Arc::clone(&inbound)),
        outbound: Slots::new(Arc::clone(&outbound)),
        moving: HashMap::new(),
        inbound_live: Arc::new(SharedArray::anonymous(c"portcullis-live-in", len)?),
        outbound_live: Arc::new(SharedArray::anonymous(c"portcullis-live-out", len)?),
        arena: Arena::new(slots)?,
        windows: HashMap::new(),
        full: 0,
    };
    let shared = Arc::new(WorkerShared {
        inbound,
        outbound,
        keys,
        epochs: Epochs::new(workers),
        queues: (0..workers).map(|_| SegQueue::new()).collect(),
        moved: SegQueue::new(),
        unwrap_failures: AtomicU64::new(0),
    });
    let sas = (0..workers).map(|worker| WorkerSas::new(worker, Arc::clone(&shared))).collect();
    let (state, steering) = (Arc::new(Mutex::new(state)), Arc::default());
    Ok((SaTable { shared, state, steering }, sas))
}

impl<I, O> SaTable<I, O> {
    /// Promises an inbound SPI to a negotiation. Packets with it are dropped as unknown until its SA is
    /// installed.
    ///
    /// # Errors
    /// [`TableFull`], which is counted.
    pub fn reserve_spi(&self) -> Result<Spi, TableFull> {
        let mut state = self.state_after_reclaim();
        state.inbound.reserve().inspect_err(|_| state.full += 1)
    }

    /// Gives a reserved SPI back whose negotiation failed; false if it is not reserved.
    pub fn release_spi(&self, spi: Spi) -> bool {
        self.state().inbound.release(spi)
    }

    /// Installs an inbound SA on a reserved SPI and hands it to worker `owner`. When this returns, a packet
    /// with the SPI is opened: if its worker sleeps, the packet itself wakes it.
    ///
    /// `now_ns` is the clock that the worker passes to `open`.
    ///
    /// # Errors
    /// See [`InstallError`]; the SPI then stays reserved.
    pub fn install_inbound(
        &self,
        sa: &InboundSa,
        owner: u8,
        extra: I,
        now_ns: u64,
    ) -> Result<(), InstallError> {
        let queue = self.queue(owner)?;
        let window =
            sa.replay_window.map(|n| WindowSize::new(n).map_err(|InvalidWindow| InvalidWindowSize(n)));
        let window = window.transpose()?;
        let mut state = self.state();
        if state.inbound.state(sa.spi) != Some(SlotState::Reserved) {
            return Err(InstallError::NotReserved(sa.spi));
        }
        let slot = sa.spi.index();
        let window = state.arena.allocate(window).ok_or(InstallError::NoWindowMemory)?;
        if !self.shared.keys.write(Direction::Inbound, sa.spi, sa.common.algorithm, &sa.common.key.0) {
            state.arena.release(&window);
            return Err(InstallError::KeyLength);
        }
        state.windows.insert(slot, window.clone());
        let live = Arc::clone(&state.inbound_live);
        live[slot as usize].reset();
        let lifetime = lifetime(&sa.common.lifetime, now_ns);
        // Queued before it is published: who sees the steer word finds the install.
        queue.push(Command::InstallInbound(Box::new(NewInbound {
            parameters: InboundParameters { spi: sa.spi, esn: sa.common.esn, lifetime },
            memory: InboundSlot { live, slot, window },
            info: SaInfo::from(&sa.common),
            extra,
        })));
        state.inbound.publish(sa.spi, owner);
        Ok(())
    }

    /// Installs an outbound SA and hands it to worker `owner`. Nothing uses it until its index is somewhere
    /// "current".
    ///
    /// `now_ns` is the clock that the worker passes to `seal`.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn install_outbound(
        &self,
        sa: &OutboundSa,
        owner: u8,
        extra: O,
        now_ns: u64,
    ) -> Result<OutboundIndex, InstallError> {
        let queue = self.queue(owner)?;
        let mut state = self.state_after_reclaim();
        let named = state.outbound.reserve().inspect_err(|_| state.full += 1)?;
        if !self.shared.keys.write(Direction::Outbound, named, sa.common.algorithm, &sa.common.key.0) {
            state.outbound.release(named);
            return Err(InstallError::KeyLength);
        }
        let (slot, index) = (named.index(), OutboundIndex(named.0));
        let live = Arc::clone(&state.outbound_live);
        live[slot as usize].reset();
        let lifetime = lifetime(&sa.common.lifetime, now_ns);
        queue.push(Command::InstallOutbound(Box::new(NewOutbound {
            parameters: OutboundParameters { spi: sa.spi, esn: sa.common.esn, lifetime },
            index,
            memory: OutboundSlot { live, slot },
            info: SaInfo::from(&sa.common),
            extra,
        })));
        state.outbound.publish(named, owner);
        Ok(index)
    }

    /// Removes an inbound SA: packets with its SPI are unknown from now on. Its slot is freed when its owner
    /// has passed a batch boundary. False if it is not installed.
    pub fn remove_inbound(&self, spi: Spi) -> bool {
        let mut state = self.state_after_reclaim();
        let Some(owner) = state.inbound.kill(spi) else { return false };
        let other = state.moving.remove(&SaName::Inbound(spi));
        for worker in [Some(owner), other].into_iter().flatten() {
            self.push(worker, Command::RemoveInbound(spi));
        }
        let epoch = self.shared.epochs.advance();
        state.inbound.retire(spi, owner, other, epoch);
        true
    }

    /// Removes an outbound SA; false if it is not installed. Take it out of "current" before.
    pub fn remove_outbound(&self, index: OutboundIndex) -> bool {
        let mut state = self.state_after_reclaim();
        let named = Spi(index.0);
        let Some(owner) = state.outbound.kill(named) else { return false };
        let other = state.moving.remove(&SaName::Outbound(index));
        for worker in [Some(owner), other].into_iter().flatten() {
            self.push(worker, Command::RemoveOutbound(index));
        }
        let epoch = self.shared.epochs.advance();
        state.outbound.retire(named, owner, other, epoch);
        true
    }

    /// Frees the slots of removed SAs that no worker can have in hand any more, and wipes their keys. Every
    /// reservation, install of an outbound SA and removal does it too.
    pub fn reclaim(&self) {
        drop(self.state_after_reclaim());
    }

    /// What a live inbound SA has done so far.
    pub fn inbound_usage(&self, spi: Spi) -> Option<Usage> {
        let state = self.state();
        let is_live = state.inbound.state(spi) == Some(SlotState::Live);
        is_live.then(|| state.inbound_live[spi.index() as usize].usage())
    }

    /// What a live outbound SA has done so far.
    pub fn outbound_usage(&self, index: OutboundIndex) -> Option<Usage> {
        let (state, named) = (self.state(), Spi(index.0));
        let is_live = state.outbound.state(named) == Some(SlotState::Live);
        is_live.then(|| state.outbound_live[named.index() as usize].usage())
    }

    /// The worker that owns a live inbound SA.
    pub fn inbound_owner(&self, spi: Spi) -> Option<u8> {
        lookup(&self.shared.inbound, spi).filter(|word| word.is_live(spi)).map(|word| word.worker())
    }

    /// The worker that owns a live outbound SA.
    pub fn outbound_owner(&self, index: OutboundIndex) -> Option<u8> {
        let named = Spi(index.0);
        lookup(&self.shared.outbound, named).filter(|word| word.is_live(named)).map(|word| word.worker())
    }

    /// How full the table is.
    pub fn counters(&self) -> TableCounters {
        let state = self.state();
        TableCounters {
            slots: self.shared.inbound.len() as u32,
            inbound_used: state.inbound.used(),
            outbound_used: state.outbound.used(),
            waiting: state.inbound.waiting() + state.outbound.waiting(),
            full: state.full,
            unwrap_failures: self.shared.unwrap_failures.load(Ordering::Relaxed),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No operation on the state panics half way; if one did, later ones still see whole slots.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_after_reclaim(&self) -> MutexGuard<'_, State> {
        let mut guard = self.state();
        while let Some(name) = self.shared.moved.pop() {
            guard.moving.remove(&name);
        }
        let State { inbound, outbound, arena, windows, inbound_live, outbound_live, .. } = &mut *guard;
        let WorkerShared { keys, epochs, .. } = &*self.shared;
        inbound.reclaim(epochs, |slot| {
            keys.wipe(Direction::Inbound, slot);
            inbound_live[slot as usize].reset();
            if let Some(bits) = windows.remove(&slot) {
                arena.release(&bits);
            }
        });
        outbound.reclaim(epochs, |slot| {
            keys.wipe(Direction::Outbound, slot);
            outbound_live[slot as usize].reset();
        });
        guard
    }

    fn queue(&self, owner: u8) -> Result<&SegQueue<Command<I, O>>, InstallError> {
        self.shared.queues.get(usize::from(owner)).ok_or(InstallError::NoSuchWorker(owner))
    }

    pub(super) fn push(&self, owner: u8, command: Command<I, O>) {
        if let Ok(queue) = self.queue(owner) {
            queue.push(command);
        }
    }
}

impl<I, O> Clone for SaTable<I, O> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            state: Arc::clone(&self.state),
            steering: Arc::clone(&self.steering),
        }
    }
}

/// Time is the IKE endpoint's, except for the hard end that must hold without it.
fn lifetime(lifetime: &sa::Lifetime, now_ns: u64) -> Lifetime {
    let hard_time_ns = u64::try_from(lifetime.hard_time.as_nanos()).unwrap_or(u64::MAX);
    Lifetime {
        soft: Limits { bytes: lifetime.soft_bytes, packets: lifetime.soft_packets, until_ns: u64::MAX },
        hard: Limits {
            bytes: lifetime.hard_bytes,
            packets: lifetime.hard_packets,
            until_ns: now_ns.saturating_add(hard_time_ns),
        },
    }
}
