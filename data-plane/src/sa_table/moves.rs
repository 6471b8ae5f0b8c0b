//! An SA goes from one worker to another, whole and between two packets.
//!
//! ```text
//! control plane   Expect ─► new owner     steer word: new owner     Leave ─► old owner
//! other workers   to the old owner .......│ to the new owner
//! old owner       seals, opens ..................... until what was sent to it is done; sent off ─► Take
//! new owner                               │ keeps packets ........................................ │ in their order
//! ```
//!
//! The old owner gives an SA up when every worker has passed a batch boundary since the steer word changed, so that nobody
//! sends it more, and when it has done what it was sent before; the new one gets it when all that has left the rings. The caller says
//! when both is so. Nobody ever seals or opens beside
//! another: there is one value, and whoever has it is alone with it. That keeps nonces apart (RFC 4106 section 3.1), and the packets of
//! a flow in their order.

use portcullis_common::Spi;
use portcullis_common::steer::SlotState;

use super::keys::Direction;
use super::slots::lookup;
use super::table::State;
use super::wipe::WipeBox;
use super::worker::{Command, OwnedInbound, OwnedOutbound, WorkerSas, is_at, put};
use super::{OutboundIndex, SaTable};

/// Names an SA of either direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SaName {
    /// By its SPI.
    Inbound(Spi),
    /// By its index.
    Outbound(OutboundIndex),
}

/// Why an SA stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MoveRefused {
    /// It is not installed.
    #[error("there is no such SA")]
    Unknown,
    /// There is no worker with this number.
    #[error("there is no worker {0}")]
    NoSuchWorker(u8),
    /// It is there already.
    #[error("worker {0} owns it already")]
    There(u8),
    /// It has not arrived where it was sent before.
    #[error("it is on its way already")]
    OnItsWay,
    /// It replaces another SA, or is being replaced: both stay together, so that packets of a flow stay in order while SAs
    /// change.
    #[error("it is being rekeyed")]
    Rekeyed,
    /// Packets of two queues of this device overtake each other: on a veth the queue that one sends by is the one that the
    /// other end receives by, whatever flow it is.
    #[error("packets of a flow would overtake each other between two queues of a veth")]
    Veth,
}

/// An SA that is to be given to another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaving {
    /// Which.
    pub name: SaName,
    /// To whom.
    pub to: u8,
    /// Nobody sends packets of it to its old owner after this.
    epoch: u64,
}

/// An SA between two workers.
pub struct Moving<I, O>(Boxed<I, O>);

enum Boxed<I, O> {
    Inbound(WipeBox<OwnedInbound<I>>),
    Outbound(WipeBox<OwnedOutbound<O>>),
}

impl SaName {
    fn parts(self) -> (Direction, Spi) {
        match self {
            Self::Inbound(spi) => (Direction::Inbound, spi),
            Self::Outbound(index) => (Direction::Outbound, Spi(index.0)),
        }
    }
}

impl<I, O> Moving<I, O> {
    fn name(&self) -> SaName {
        match &self.0 {
            Boxed::Inbound(sa) => SaName::Inbound(sa.esp.spi()),
            Boxed::Outbound(sa) => SaName::Outbound(sa.index),
        }
    }
}

impl<I, O> SaTable<I, O> {
    /// Moves a live SA to worker `to` and returns the worker that has it now. From then on packets go to `to`, which keeps them until
    /// the SA has come. Wake both.
    ///
    /// # Errors
    /// See [`MoveRefused`]; nothing has changed then.
    pub fn move_sa(&self, name: SaName, to: u8) -> Result<u8, MoveRefused> {
        let mut guard = self.state_after_reclaim();
        let State { inbound, outbound, moving, .. } = &mut *guard;
        let (direction, spi) = name.parts();
        let (slots, words) = match direction {
            Direction::Inbound => (inbound, &self.shared.inbound),
            Direction::Outbound => (outbound, &self.shared.outbound),
        };
        if usize::from(to) >= self.shared.queues.len() {
            return Err(MoveRefused::NoSuchWorker(to));
        }
        if slots.state(spi) != Some(SlotState::Live) {
            return Err(MoveRefused::Unknown);
        }
        let from = lookup(words, spi).map(|word| word.worker()).ok_or(MoveRefused::Unknown)?;
        if moving.contains_key(&name) {
            return Err(MoveRefused::OnItsWay);
        }
        if from == to {
            return Err(MoveRefused::There(to));
        }
        moving.insert(name, from);
        // Queued before the word changes: who is sent a packet of it finds that it is coming.
        self.push(to, Command::Expect(name));
        {
            let _nobody_between = self.steering.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            slots.steer(spi, to);
        }
        let epoch = self.shared.epochs.advance();
        self.push(from, Command::Leave(Leaving { name, to, epoch }));
        Ok(from)
    }

    /// The worker that still has an SA which is on its way to its owner.
    pub fn mover(&self, name: SaName) -> Option<u8> {
        self.state_after_reclaim().moving.get(&name).copied()
    }

    /// Calls `give` with the owner of a live inbound SA, which stays the owner meanwhile. For threads other than workers: for
    /// those, batch boundaries do the same. `give` must be short.
    pub fn at_owner<R>(&self, spi: Spi, give: impl FnOnce(u8) -> R) -> Option<R> {
        let _stays = self.steering.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.inbound_owner(spi).map(give)
    }
}

impl<I, O> WorkerSas<I, O> {
    /// The next SA that is to be given away. The caller keeps it until [`Self::others_know`], then does what it was sent before,
    /// and calls [`Self::give_up`] and [`Self::send_off`].
    pub fn next_leaving(&mut self) -> Option<Leaving> {
        self.leaving.pop()
    }

    /// True once no other worker sends packets of this SA here any more.
    pub fn others_know(&self, leaving: &Leaving) -> bool {
        self.shared.epochs.has_passed(leaving.epoch, self.worker)
    }

    /// Takes an SA out of this worker's hands; `None` if it was removed meanwhile. From now on packets of it are the new owner's,
    /// who keeps them until [`Self::send_off`]. Only at a batch boundary.
    pub fn give_up(&mut self, leaving: &Leaving) -> Option<Moving<I, O>> {
        let (_, spi) = leaving.name.parts();
        let place = spi.index() as usize;
        let boxed = match leaving.name {
            SaName::Inbound(spi) => {
                let is_here = is_at(&self.inbound, place, |sa| sa.esp.spi() == spi);
                Boxed::Inbound(self.inbound.get_mut(place).filter(|_| is_here)?.take()?)
            }
            SaName::Outbound(index) => {
                let is_here = is_at(&self.outbound, place, |sa| sa.index == index);
                Boxed::Outbound(self.outbound.get_mut(place).filter(|_| is_here)?.take()?)
            }
        };
        Some(Moving(boxed))
    }

    /// Gives an SA to its new owner. Wake that one.
    pub fn send_off(&self, leaving: &Leaving, sa: Moving<I, O>) {
        if let Some(queue) = self.shared.queues.get(usize::from(leaving.to)) {
            queue.push(Command::Take(sa));
        }
    }

    /// The next SA that packets have waited for and that is in place, or gone. Ask after every [`Self::begin_batch`], and
    /// serve what has waited before anything else.
    pub fn next_settled(&mut self) -> Option<SaName> {
        self.settled.pop()
    }

    /// True if an SA will come, or has come in the middle of this batch.
    pub(super) fn is_coming(&self, name: SaName) -> bool {
        self.coming.contains(&name)
    }

    /// The SA was removed.
    pub(super) fn come_no_more(&mut self, name: SaName) {
        if let Some(at) = self.coming.iter().position(|coming| *coming == name) {
            self.coming.swap_remove(at);
            self.settled.push(name);
        }
    }

    /// Puts SAs that have come in their places.
    pub(super) fn settle(&mut self) {
        for arrival in std::mem::take(&mut self.arrivals) {
            let name = arrival.name();
            let (direction, spi) = name.parts();
            let words = match direction {
                Direction::Inbound => &self.shared.inbound,
                Direction::Outbound => &self.shared.outbound,
            };
            // It may have been removed on its way.
            let is_ours =
                lookup(words, spi).is_some_and(|word| word.is_live(spi) && word.worker() == self.worker);
            self.come_no_more(name);
            if !is_ours {
                continue;
            }
            let place = spi.index() as usize;
            match arrival.0 {
                Boxed::Inbound(sa) => put(&mut self.inbound, place, sa),
                Boxed::Outbound(sa) => put(&mut self.outbound, place, sa),
            }
            self.shared.moved.push(name);
        }
    }
}
