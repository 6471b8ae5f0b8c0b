//! SAs that move between workers ([`SaTable::move_sa`](crate::sa_table::SaTable::move_sa)): the old owner does what it was sent
//! before it gives one up, the new one keeps packets until it has come.

use std::collections::VecDeque;
use std::time::Duration;

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::command::Command;
use super::sas::Moving;
use super::work::{FromStream, Work};
use crate::sa_table::{Found, Leaving, SaName};

/// Packets that may wait at one worker for SAs on their way to it, as many as may wait between two workers.
const MOST_WAITING: usize = 1024;
/// How long an SA stays for the sake of packets that its old owner's rings still hold: the interface may be down.
const RING_PATIENCE: Duration = Duration::from_millis(100);

/// What one worker knows of moves.
#[derive(Default)]
pub struct Moves {
    departures: Vec<Departure>,
    /// What waits for SAs on their way here, in its order.
    waiting: VecDeque<(SaName, Deferred)>,
    /// Packets that this worker has taken out of its mailbox, from other workers and from streams.
    pub(super) taken: Taken,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Taken {
    pub(super) work: u64,
    pub(super) from_streams: u64,
}

/// An SA that is to go, and what it waits for.
struct Departure {
    leaving: Leaving,
    stage: Stage,
}

enum Stage {
    /// Other workers may still send packets of it here.
    Announced,
    /// All that was sent here is in the mailbox: done once so many were taken out of it.
    Draining { until: Taken },
    /// The last packet of it is in the rings of the ports: it has left once so many descriptors of each have come back.
    Sending { sa: Moving, until: Vec<u64>, since: Duration },
    /// The new owner has it, or it is gone.
    Gone,
}

/// What a worker cannot do before an SA has come.
pub(super) enum Deferred {
    Work(Work),
    FromStream(FromStream),
    Command(Command),
}

/// Where an SA is.
pub(super) enum Place {
    Here,
    At(u8),
    Coming,
    Nowhere,
}

impl Moves {
    /// True while an SA is about to go: its worker does not sleep.
    pub(super) fn are_pending(&self) -> bool {
        !self.departures.is_empty()
    }
}

impl Worker {
    /// To be called at every batch boundary, before any packet: what has waited for an SA that came has its turn, and SAs that
    /// are to go do. Returns how many packets there were.
    pub(super) fn settle_moves(&mut self, batch: &Batch<'_>) -> usize {
        let mut count = 0;
        while let Some(name) = self.sas.next_settled() {
            let waiting = std::mem::take(&mut self.moves.waiting);
            for (awaited, deferred) in waiting {
                if awaited == name {
                    count += 1;
                    self.resume(batch, deferred);
                } else {
                    self.moves.waiting.push_back((awaited, deferred));
                }
            }
        }
        while let Some(leaving) = self.sas.next_leaving() {
            self.moves.departures.push(Departure { leaving, stage: Stage::Announced });
        }
        if self.moves.are_pending() {
            let mut departures = std::mem::take(&mut self.moves.departures);
            departures.retain_mut(|departure| !self.is_gone(batch, departure));
            self.moves.departures = departures;
        }
        count
    }

    /// Brings a departure forward; true once the SA has gone.
    fn is_gone(&mut self, batch: &Batch<'_>, departure: &mut Departure) -> bool {
        let Departure { leaving, stage } = departure;
        if let Stage::Announced = stage {
            if !self.sas.others_know(leaving) {
                return false;
            }
            let Taken { work, from_streams } = self.moves.taken;
            let until = Taken {
                work: work + batch.mailbox.work.len() as u64,
                from_streams: from_streams + batch.mailbox.from_streams.len() as u64,
            };
            *stage = Stage::Draining { until };
        }
        if let Stage::Draining { until } = stage {
            if self.moves.taken.work < until.work || self.moves.taken.from_streams < until.from_streams {
                return false;
            }
            let queued = self.ports.iter().map(|port| port.socket.queued()).collect();
            *stage = match self.sas.give_up(leaving) {
                Some(sa) => Stage::Sending { sa, until: queued, since: batch.now },
                None => Stage::Gone,
            };
        }
        if let Stage::Sending { until, since, .. } = stage {
            // What another ring sends afterwards must not overtake it.
            let mut ports = self.ports.iter().zip(until);
            let has_left = ports.all(|(port, until)| port.socket.completed() >= *until);
            if !has_left && batch.now.saturating_sub(*since) < RING_PATIENCE {
                return false;
            }
        }
        if let Stage::Sending { sa, .. } = std::mem::replace(stage, Stage::Gone) {
            self.sas.send_off(leaving, sa);
            batch.counters().sas_moved.add(1);
            if let Some(mailbox) = batch.shared.workers.get(usize::from(leaving.to)) {
                mailbox.wake.wake();
            }
        }
        true
    }

    /// Keeps something until the SA has come.
    pub(super) fn defer(&mut self, batch: &Batch<'_>, name: SaName, deferred: Deferred) {
        if self.moves.waiting.len() < MOST_WAITING {
            return self.moves.waiting.push_back((name, deferred));
        }
        match deferred {
            Deferred::Work(work) => self.discard(batch, work.into_packet(), DropReason::HandOverFull),
            Deferred::FromStream(FromStream { open, .. }) => {
                self.discard(batch, open.packet, DropReason::HandOverFull);
            }
            // A probe that is not sent is one that was lost: it is sent again.
            Deferred::Command(_) => {}
        }
    }

    fn resume(&mut self, batch: &Batch<'_>, deferred: Deferred) {
        match deferred {
            Deferred::Work(work) => self.serve(batch, work),
            Deferred::FromStream(from_stream) => self.serve_stream(batch, from_stream),
            Deferred::Command(command) => self.carry_out(batch, command),
        }
    }

    /// Does the second half of a packet's way, or takes it to who can.
    pub(super) fn serve(&mut self, batch: &Batch<'_>, work: Work) {
        let name = work.sa();
        match (self.place(name), work) {
            (Place::Here, Work::Seal(seal)) => self.seal(batch, seal),
            (Place::Here, Work::Open(open)) => self.open(batch, open),
            (Place::Here, Work::Reply(reply)) => self.send_reply(batch, reply),
            (Place::At(owner), work) => self.hand_over(batch, owner, work),
            (Place::Coming, work) => self.defer(batch, name, Deferred::Work(work)),
            (Place::Nowhere, Work::Seal(seal)) => self.choose_again(batch, seal),
            (Place::Nowhere, work) => self.discard(batch, work.into_packet(), DropReason::StaleSa),
        }
    }

    /// Opens a packet that came in a stream, or takes it to who can.
    pub(super) fn serve_stream(&mut self, batch: &Batch<'_>, from_stream: FromStream) {
        let spi = from_stream.open.spi;
        let path = match self.sas.inbound(spi) {
            Found::Mine(sa) => sa.info.path,
            Found::Coming => {
                return self.defer(batch, SaName::Inbound(spi), Deferred::FromStream(from_stream));
            }
            Found::Other(owner) => {
                let Some(mailbox) = batch.shared.workers.get(usize::from(owner)) else {
                    return self.discard(batch, from_stream.open.packet, DropReason::StaleSa);
                };
                match mailbox.from_streams.push(from_stream) {
                    Ok(()) => mailbox.wake.wake(),
                    Err(refused) => self.discard(batch, refused.open.packet, DropReason::HandOverFull),
                }
                return;
            }
            Found::Unknown => return self.discard(batch, from_stream.open.packet, DropReason::StaleSa),
        };
        let FromStream { open, path: own } = from_stream;
        if path == own {
            self.open(batch, open);
        } else {
            self.discard(batch, open.packet, DropReason::CarrierRefused);
        }
    }

    /// Carries out an order, or gives it to the worker that can.
    pub(super) fn carry_out(&mut self, batch: &Batch<'_>, command: Command) {
        let outbound = match &command {
            Command::PathChanged(path) => return self.release_held(batch, *path),
            Command::LowerPathMtu(path) => return self.lower_path_mtu(batch, *path),
            Command::SendDummy(outbound) => *outbound,
            Command::SendEcho(order) => order.outbound,
        };
        match (self.place(SaName::Outbound(outbound)), command) {
            (Place::Here, Command::SendEcho(order)) => self.send_echo(batch, &order),
            (Place::Here, _) => self.send_dummy(batch, outbound),
            (Place::At(owner), command) => batch.shared.command(owner, command),
            (Place::Coming, command) => {
                self.defer(batch, SaName::Outbound(outbound), Deferred::Command(command));
            }
            (Place::Nowhere, _) => {}
        }
    }

    pub(super) fn place(&mut self, name: SaName) -> Place {
        match name {
            SaName::Inbound(spi) => Place::of(&self.sas.inbound(spi)),
            SaName::Outbound(index) => Place::of(&self.sas.outbound(index)),
        }
    }
}

impl Place {
    fn of<T>(found: &Found<'_, T>) -> Self {
        match found {
            Found::Mine(_) => Self::Here,
            Found::Other(owner) => Self::At(*owner),
            Found::Coming => Self::Coming,
            Found::Unknown => Self::Nowhere,
        }
    }
}
