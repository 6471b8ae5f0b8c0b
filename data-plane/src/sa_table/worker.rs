//! What one worker owns of the SA table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::SegQueue;
use portcullis_common::Spi;
use portcullis_esp::{
    ExpandedKeymat, Inbound, InboundLive, InboundMemory, InboundParameters, Outbound, OutboundLive,
    OutboundMemory, OutboundParameters,
};

use super::OutboundIndex;
use super::arena::WindowBits;
use super::epoch::Epochs;
use super::keys::{Direction, Keys};
use super::memory::SharedArray;
use super::moves::{Leaving, Moving, SaName};
use super::slots::{SteerWords, lookup};
use super::wipe::WipeBox;
use crate::policy::PolicyKey;
use crate::prefetch::prefetch;
use crate::sa::{ChildId, PathId, SaCommon, SaSelectors};

/// Installs and removals taken at one batch boundary at most, so that a storm of them does not hold packets
/// up.
const COMMANDS_PER_BATCH: usize = 256;

/// The SAs of one worker. It stays with the worker's thread; every method is for that thread alone.
pub struct WorkerSas<I, O> {
    pub(super) worker: u8,
    pub(super) shared: Arc<WorkerShared<I, O>>,
    pub(super) inbound: Vec<Option<WipeBox<OwnedInbound<I>>>>,
    pub(super) outbound: Vec<Option<WipeBox<OwnedOutbound<O>>>>,
    /// SAs that other workers have not given up yet, although packets are sent here already.
    pub(super) coming: Vec<SaName>,
    /// SAs that came in the middle of a batch, and are put in place at its end.
    pub(super) arrivals: Vec<Moving<I, O>>,
    /// Those of `coming` that are in place, or gone: packets that waited for them have their turn.
    pub(super) settled: Vec<SaName>,
    /// SAs that are to be given to other workers.
    pub(super) leaving: Vec<Leaving>,
}

/// Where an SA was found.
pub enum Found<'a, T> {
    /// Here.
    Mine(&'a mut T),
    /// With the worker of this number: hand the packet over.
    Other(u8),
    /// On its way here: keep the packet until [`WorkerSas::next_settled`] names the SA.
    Coming,
    /// Nowhere.
    Unknown,
}

/// Who and what an SA is for.
#[derive(Clone, Debug)]
pub struct SaInfo {
    /// The pair.
    pub child: ChildId,
    /// The path of its IKE SA.
    pub path: PathId,
    /// The PROTECT policy that it serves.
    pub policy: PolicyKey,
    /// Negotiated selectors.
    pub selectors: SaSelectors,
}

/// An inbound SA in its owner's hands.
pub struct OwnedInbound<I> {
    /// Opens packets.
    pub esp: Inbound<InboundSlot>,
    /// Who and what it is for.
    pub info: SaInfo,
    /// What the worker keeps beside it.
    pub extra: I,
}

/// An outbound SA in its owner's hands.
pub struct OwnedOutbound<O> {
    /// Seals packets.
    pub esp: Outbound<OutboundSlot>,
    /// Its index, for the owner's own books.
    pub index: OutboundIndex,
    /// Who and what it is for.
    pub info: SaInfo,
    /// What the worker keeps beside it.
    pub extra: O,
}

/// The live state and window bits of an inbound slot.
pub struct InboundSlot {
    pub(super) live: Arc<SharedArray<InboundLive>>,
    pub(super) slot: u32,
    pub(super) window: WindowBits,
}

/// The live state of an outbound slot.
pub struct OutboundSlot {
    pub(super) live: Arc<SharedArray<OutboundLive>>,
    pub(super) slot: u32,
}

/// What workers and the control plane share.
pub(super) struct WorkerShared<I, O> {
    pub(super) inbound: SteerWords,
    pub(super) outbound: SteerWords,
    pub(super) keys: Keys,
    pub(super) epochs: Epochs,
    pub(super) queues: Box<[SegQueue<Command<I, O>>]>,
    /// Moves that are complete.
    pub(super) moved: SegQueue<SaName>,
    /// Installs whose key did not unwrap.
    pub(super) unwrap_failures: AtomicU64,
}

/// What the control plane asks a worker to do.
pub(super) enum Command<I, O> {
    InstallInbound(Box<NewInbound<I>>),
    RemoveInbound(Spi),
    InstallOutbound(Box<NewOutbound<O>>),
    RemoveOutbound(OutboundIndex),
    /// An SA will come from another worker, which has not given it up yet.
    Expect(SaName),
    /// Give an SA to another worker.
    Leave(Leaving),
    /// An SA of another worker's.
    Take(Moving<I, O>),
}

pub(super) struct NewInbound<I> {
    pub(super) parameters: InboundParameters,
    pub(super) memory: InboundSlot,
    pub(super) info: SaInfo,
    pub(super) extra: I,
}

pub(super) struct NewOutbound<O> {
    pub(super) parameters: OutboundParameters,
    pub(super) index: OutboundIndex,
    pub(super) memory: OutboundSlot,
    pub(super) info: SaInfo,
    pub(super) extra: O,
}

impl<I, O> WorkerSas<I, O> {
    pub(super) fn new(worker: u8, shared: Arc<WorkerShared<I, O>>) -> Self {
        let (inbound, outbound, coming) = (Vec::new(), Vec::new(), Vec::new());
        let (arrivals, settled, leaving) = (Vec::new(), Vec::new(), Vec::new());
        Self { worker, shared, inbound, outbound, coming, arrivals, settled, leaving }
    }

    /// This worker's number.
    pub fn worker(&self) -> u8 {
        self.worker
    }

    /// A batch boundary: no packet of the last batch is in hand. Takes installs and removals and lets the
    /// slots of removed SAs be freed.
    pub fn begin_batch(&mut self) {
        let epoch = self.shared.epochs.current();
        let mut is_done = false;
        for _ in 0..COMMANDS_PER_BATCH {
            let Some(command) = self.next_command() else {
                is_done = true;
                break;
            };
            self.carry_out(command);
        }
        self.settle();
        if is_done {
            self.shared.epochs.announce(self.worker, epoch);
        }
    }

    /// Call before sleeping, with no packet in hand; [`Self::begin_batch`] ends it. True if there is nothing
    /// left to take: otherwise do not sleep, or the slots of removed SAs wait for the next packet.
    #[must_use]
    pub fn park(&mut self) -> bool {
        self.begin_batch();
        self.shared.epochs.park(self.worker);
        self.queue_is_empty() && self.settled.is_empty() && self.leaving.is_empty()
    }

    /// Finds the inbound SA with exactly this SPI.
    #[inline]
    pub fn inbound(&mut self, spi: Spi) -> Found<'_, OwnedInbound<I>> {
        let slot = spi.index() as usize;
        if !is_at(&self.inbound, slot, |sa| sa.esp.spi() == spi) {
            match self.elsewhere(Direction::Inbound, spi) {
                Some(owner) => return Found::Other(owner),
                None if self.is_coming(SaName::Inbound(spi)) => return Found::Coming,
                None if !is_at(&self.inbound, slot, |sa| sa.esp.spi() == spi) => return Found::Unknown,
                None => {}
            }
        }
        found(&mut self.inbound, slot)
    }

    /// Places for inbound SAs, as many as there ever were at once.
    #[inline]
    pub fn inbound_places(&self) -> usize {
        self.inbound.len()
    }

    /// Asks the cache for the place that leads to an inbound SA.
    #[inline]
    pub fn prefetch_inbound_place(&self, spi: Spi) {
        if let Some(place) = self.inbound.get(spi.index() as usize) {
            prefetch(place);
        }
    }

    /// Asks the cache for an inbound SA: its expanded key and its books. Its place should be there by now.
    #[inline]
    pub fn prefetch_inbound(&self, spi: Spi) {
        if let Some(Some(sa)) = self.inbound.get(spi.index() as usize) {
            prefetch(&**sa);
        }
    }

    /// Asks the cache for what an inbound SA leads to, which should be there itself by now: its live state, the bits of its
    /// window for a packet with this number, its selectors.
    #[inline]
    pub fn prefetch_inbound_rest(&self, spi: Spi, sequence: u32) {
        if let Some(Some(sa)) = self.inbound.get(spi.index() as usize) {
            prefetch(sa.esp.live());
            sa.esp.window_word(sequence).into_iter().for_each(prefetch);
            for side in [&sa.info.selectors.local, &sa.info.selectors.remote] {
                side.first().into_iter().for_each(prefetch);
            }
        }
    }

    /// Finds the outbound SA with exactly this index and tag.
    #[inline]
    pub fn outbound(&mut self, index: OutboundIndex) -> Found<'_, OwnedOutbound<O>> {
        let spi = Spi(index.0);
        let slot = spi.index() as usize;
        if !is_at(&self.outbound, slot, |sa| sa.index == index) {
            match self.elsewhere(Direction::Outbound, spi) {
                Some(owner) => return Found::Other(owner),
                None if self.is_coming(SaName::Outbound(index)) => return Found::Coming,
                None if !is_at(&self.outbound, slot, |sa| sa.index == index) => return Found::Unknown,
                None => {}
            }
        }
        found(&mut self.outbound, slot)
    }

    /// Every inbound SA of this worker.
    pub fn each_inbound(&mut self) -> impl Iterator<Item = &mut OwnedInbound<I>> {
        self.inbound.iter_mut().flatten().map(|sa| &mut **sa)
    }

    /// Every outbound SA of this worker.
    pub fn each_outbound(&mut self) -> impl Iterator<Item = &mut OwnedOutbound<O>> {
        self.outbound.iter_mut().flatten().map(|sa| &mut **sa)
    }

    /// The other worker that owns a live SA. If it is ours or unknown, takes what the control plane has
    /// queued: the install may have come after the batch began.
    fn elsewhere(&mut self, direction: Direction, spi: Spi) -> Option<u8> {
        let words = match direction {
            Direction::Inbound => &self.shared.inbound,
            Direction::Outbound => &self.shared.outbound,
        };
        let owner = lookup(words, spi).filter(|word| word.is_live(spi)).map(|word| word.worker());
        let other = owner.filter(|owner| *owner != self.worker);
        if owner == Some(self.worker) {
            while let Some(command) = self.next_command() {
                self.carry_out(command);
            }
        }
        other
    }

    fn next_command(&self) -> Option<Command<I, O>> {
        self.shared.queues.get(usize::from(self.worker))?.pop()
    }

    fn queue_is_empty(&self) -> bool {
        self.shared.queues.get(usize::from(self.worker)).is_none_or(SegQueue::is_empty)
    }

    fn carry_out(&mut self, command: Command<I, O>) {
        match command {
            Command::InstallInbound(new) => self.install_inbound(*new),
            Command::InstallOutbound(new) => self.install_outbound(*new),
            Command::RemoveInbound(spi) => {
                let slot = spi.index() as usize;
                if is_at(&self.inbound, slot, |sa| sa.esp.spi() == spi) {
                    self.inbound[slot] = None;
                }
                self.come_no_more(SaName::Inbound(spi));
            }
            Command::RemoveOutbound(index) => {
                let slot = Spi(index.0).index() as usize;
                if is_at(&self.outbound, slot, |sa| sa.index == index) {
                    self.outbound[slot] = None;
                }
                self.come_no_more(SaName::Outbound(index));
            }
            Command::Expect(name) => self.coming.push(name),
            Command::Leave(leaving) => self.leaving.push(leaving),
            Command::Take(sa) => self.arrivals.push(sa),
        }
    }

    fn install_inbound(&mut self, new: NewInbound<I>) {
        let NewInbound { parameters, memory, info, extra } = new;
        let slot = memory.slot as usize;
        let esp = self
            .expanded(Direction::Inbound, parameters.spi)
            .and_then(|key| Inbound::new(parameters, key, memory).ok());
        let Some(esp) = esp else { return self.count_failure(&info) };
        put(&mut self.inbound, slot, WipeBox::new(OwnedInbound { esp, info, extra }));
    }

    fn install_outbound(&mut self, new: NewOutbound<O>) {
        let NewOutbound { parameters, index, memory, info, extra } = new;
        let slot = memory.slot as usize;
        let Some(key) = self.expanded(Direction::Outbound, Spi(index.0)) else {
            return self.count_failure(&info);
        };
        let esp = Outbound::new(parameters, key, memory);
        put(&mut self.outbound, slot, WipeBox::new(OwnedOutbound { esp, index, info, extra }));
    }

    fn expanded(&self, direction: Direction, spi: Spi) -> Option<ExpandedKeymat> {
        ExpandedKeymat::new(&self.shared.keys.read(direction, spi)?).ok()
    }

    fn count_failure(&self, info: &SaInfo) {
        self.shared.unwrap_failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            child = info.child.0,
            worker = self.worker,
            "key material in the SA table was changed"
        );
    }
}

impl From<&SaCommon> for SaInfo {
    fn from(common: &SaCommon) -> Self {
        let SaCommon { child, path, policy, selectors, .. } = common;
        Self { child: *child, path: *path, policy: policy.clone(), selectors: selectors.clone() }
    }
}

impl InboundMemory for InboundSlot {
    #[inline]
    fn live(&self) -> &InboundLive {
        &self.live[self.slot as usize]
    }

    #[inline]
    fn window(&self) -> &[AtomicU64] {
        self.window.words()
    }
}

impl OutboundMemory for OutboundSlot {
    #[inline]
    fn live(&self) -> &OutboundLive {
        &self.live[self.slot as usize]
    }
}

#[inline]
pub(super) fn is_at<T>(table: &[Option<WipeBox<T>>], slot: usize, matches: impl Fn(&T) -> bool) -> bool {
    matches!(table.get(slot), Some(Some(sa)) if matches(sa))
}

#[inline]
fn found<T>(table: &mut [Option<WipeBox<T>>], slot: usize) -> Found<'_, T> {
    match table.get_mut(slot) {
        Some(Some(sa)) => Found::Mine(sa),
        _ => Found::Unknown,
    }
}

pub(super) fn put<T>(table: &mut Vec<Option<WipeBox<T>>>, slot: usize, sa: WipeBox<T>) {
    if table.len() <= slot {
        table.resize_with(slot + 1, || None);
    }
    table[slot] = Some(sa);
}
