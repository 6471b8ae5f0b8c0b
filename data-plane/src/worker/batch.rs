//! What a worker looks at once per batch and not per packet.

use std::time::Duration;

use portcullis_common::DropReason;
use portcullis_esp::LifetimeEvent;

use super::Worker;
use super::paths::PathState;
use super::sending::Departure;
use super::shared::{Mailbox, Shared};
use super::work::Packet;
use crate::counters::{Sink, WorkerCounters};
use crate::event::{DataPlaneEvent, IkeDatagram};
use crate::netlink::Snapshot;
use crate::sa::ChildId;
use crate::spd::Spd;
use crate::tap::Tap;
use crate::xsk::{HEADROOM, Umem};

/// The state of the world for one batch of packets.
pub struct Batch<'a> {
    /// The frames.
    pub umem: &'a Umem,
    /// Policies.
    pub spd: &'a Spd,
    /// Routes, neighbours and interfaces.
    pub network: &'a Snapshot,
    /// Everything shared.
    pub shared: &'a Shared,
    /// This worker's mailbox.
    pub mailbox: &'a Mailbox,
    /// Time since the workers' epoch.
    pub now: Duration,
    /// Who looks at packets, if anybody does.
    pub tap: Option<&'a Tap>,
}

impl Batch<'_> {
    /// This worker's counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.mailbox.counters
    }

    /// Time as the SAs count it.
    pub fn now_ns(&self) -> u64 {
        self.now.as_nanos() as u64
    }

    /// Tells the control plane; false if it had no room.
    pub fn notify(&self, event: DataPlaneEvent) -> bool {
        let sent = self.shared.notifier.events.try_send(event).is_ok();
        if !sent {
            self.counters().events_deferred.add(1);
        }
        sent
    }

    /// Tells the control plane what became of a packet of a path, if that is news.
    pub fn note_departure(&self, path: &PathState, departure: Departure) {
        path.sending.note(departure, self.now, |failure| {
            self.notify(DataPlaneEvent::LocalSend { path: path.id, failure })
        });
    }

    /// Hands an IKE message to the control plane.
    pub fn hand_to_ike(&self, datagram: IkeDatagram) {
        let bytes = datagram.payload.len();
        match self.shared.notifier.ike.try_send(datagram) {
            Ok(()) => self.counters().count_sent(Sink::Ike, bytes),
            Err(_) => self.counters().count_drop(DropReason::IkeQueueFull),
        }
    }

    /// Tells the control plane that an SA reached a lifetime, if it did.
    pub fn notify_lifetime(&self, child: ChildId, event: Option<LifetimeEvent>) {
        match event {
            Some(LifetimeEvent::Soft) => self.notify(DataPlaneEvent::SoftLifetime { child }),
            Some(LifetimeEvent::Hard) => self.notify(DataPlaneEvent::HardLifetime { child }),
            None => return,
        };
    }
}

impl Worker {
    /// Counts a packet as dropped and frees its frame.
    pub(super) fn discard(&mut self, batch: &Batch<'_>, packet: Packet, reason: DropReason) {
        batch.counters().count_drop(reason);
        self.free.put(packet.into_frame());
    }

    /// A copy of `bytes` in a frame of its own, with room before it; `None` if no frame is free.
    pub(super) fn packet_of(&mut self, batch: &Batch<'_>, bytes: &[u8]) -> Option<Packet> {
        let mut frame = self.free.take_for(batch.umem, bytes.len())?;
        let room = batch.umem.bytes_mut(&mut frame).get_mut(HEADROOM..HEADROOM + bytes.len());
        let copied = room.map(|room| room.copy_from_slice(bytes)).is_some();
        match Packet::new(batch.umem, frame, HEADROOM, bytes.len()) {
            Ok(packet) if copied => Some(packet),
            Ok(packet) => {
                self.free.put(packet.into_frame());
                None
            }
            Err(frame) => {
                self.free.put(frame);
                None
            }
        }
    }
}
