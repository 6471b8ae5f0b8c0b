//! Packets whose path has no carrier now: held, or dropped because the policy shut it.

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::work::{Seal, Sender, Work};
use crate::packet::Inner;
use crate::sa::{Carrier, PathId};
use crate::sa_table::OutboundIndex;

/// A held packet: a copy outside the frames, so that what waits cannot starve what flows.
pub(super) struct Held {
    bytes: Box<[u8]>,
    inner: Inner,
    outbound: OutboundIndex,
    sender: Sender,
}

impl Worker {
    /// A packet for a path that sends nothing now.
    pub(super) fn seal_without_carrier(
        &mut self,
        batch: &Batch<'_>,
        path: PathId,
        carrier: Carrier,
        seal: Seal,
    ) {
        let Seal { packet, inner, outbound, sender } = seal;
        let reason = match carrier {
            Carrier::Hold => {
                let bytes = packet.bytes(batch.umem).into();
                let refused = self.held.hold(path, batch.now, Held { bytes, inner, outbound, sender });
                batch.counters().held.set(self.held.len() as u64);
                if refused.is_some() {
                    batch.counters().count_drop(DropReason::CarrierUnknown);
                }
                return self.free.put(packet.into_frame());
            }
            Carrier::Shut => DropReason::PathShut,
            // A carrier without a header: its addresses are of different families.
            Carrier::Ip | Carrier::Udp | Carrier::Stream(_) => DropReason::NoRoute,
        };
        self.discard(batch, packet, reason);
    }

    /// The path changed: what was held for it gets another try.
    pub(super) fn release_held(&mut self, batch: &Batch<'_>, path: PathId) {
        for held in self.held.release(path) {
            let Held { bytes, inner, outbound, sender } = held;
            let Some(packet) = self.packet_of(batch, &bytes) else {
                batch.counters().count_drop(DropReason::TxFull);
                continue;
            };
            self.serve(batch, Work::Seal(Seal { packet, inner, outbound, sender }));
        }
        batch.counters().held.set(self.held.len() as u64);
    }

    /// Drops what has waited too long.
    pub(super) fn expire_held(&mut self, batch: &Batch<'_>) {
        if self.held.is_empty() {
            return;
        }
        let expired = self.held.expire(batch.now).len() as u64;
        batch.counters().count_drops(DropReason::CarrierUnknown, expired);
        batch.counters().held.set(self.held.len() as u64);
    }
}
