//! ESP packets that arrived in a stream, to the workers that own their SAs.

use std::sync::Arc;

use portcullis_common::{DropReason, Spi};
use portcullis_esp::packet_spi;

use super::StreamQueue;
use super::queue::Ends;
use crate::handle::Inner;
use crate::sa::{Carrier, PathId};
use crate::worker::facts::Arrival;
use crate::worker::work::{FromStream, Open, Packet};
use crate::xsk::HEADROOM;

/// Puts packets into the workers' inboxes and wakes each worker once.
pub(super) struct Inject<'a> {
    plane: &'a Arc<Inner>,
    path: Option<PathId>,
    arrival: Arrival,
    /// Workers to wake: bits by number.
    touched: [u64; 4],
    packets: u64,
    bytes: u64,
}

impl<'a> Inject<'a> {
    /// For packets of one stream.
    pub(super) fn new(plane: &'a Arc<Inner>, stream: &StreamQueue, ends: Ends) -> Self {
        let arrival = Arrival {
            carrier: Carrier::Stream(stream.key()),
            source: ends.remote,
            local: ends.local.ip(),
            // RFC 9329 section 9.5: no outer header belongs to an inner packet.
            traffic_class: 0,
        };
        Self { plane, path: stream.accepts(), arrival, touched: [0; 4], packets: 0, bytes: 0 }
    }

    /// Takes a packet, from its SPI on.
    pub(super) fn packet(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
        if let Err(reason) = self.hand_over(packet) {
            self.plane.shared.streams.counters().count_drops(reason, 1);
        }
    }

    fn hand_over(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let path = self.path.ok_or(DropReason::CarrierRefused)?;
        let spi = packet_spi(bytes).ok_or(DropReason::EspTooShort)?;
        let give = |owner| self.give(owner, bytes, spi, path);
        let owner = self.plane.table.at_owner(spi, give).ok_or(DropReason::UnknownSpi)??;
        self.touched[usize::from(owner >> 6)] |= 1 << (owner & 63);
        Ok(())
    }

    /// Puts a packet into the inbox of a worker, and returns the worker.
    fn give(&self, owner: u8, bytes: &[u8], spi: Spi, path: PathId) -> Result<u8, DropReason> {
        let shared = &self.plane.shared;
        let mailbox = shared.workers.get(usize::from(owner)).ok_or(DropReason::UnknownSpi)?;
        let packet = shared.streams.packet_of(bytes)?;
        let from_stream = FromStream { open: Open { packet, spi, arrival: self.arrival }, path };
        mailbox.from_streams.push(from_stream).map_err(|from_stream| {
            shared.streams.free(from_stream.open.packet);
            DropReason::HandOverFull
        })?;
        Ok(owner)
    }
}

impl Drop for Inject<'_> {
    /// The batch is complete.
    fn drop(&mut self) {
        let shared = &self.plane.shared;
        shared.streams.counters().count_received(self.packets, self.bytes);
        for (number, mailbox) in shared.workers.iter().enumerate() {
            if self.touched[(number >> 6) & 3] >> (number & 63) & 1 == 1 {
                mailbox.wake.wake();
            }
        }
    }
}

impl super::Streams {
    /// A copy of the octets in a frame, with room before them.
    fn packet_of(&self, bytes: &[u8]) -> Result<Packet, DropReason> {
        let (umem, pool) = self.frames();
        let mut frame = pool.take_for(umem, bytes.len()).ok_or(DropReason::TxFull)?;
        let copied = umem
            .bytes_mut(&mut frame)
            .get_mut(HEADROOM..HEADROOM + bytes.len())
            .map(|room| room.copy_from_slice(bytes))
            .is_some();
        match Packet::new(umem, frame, HEADROOM, bytes.len()) {
            Ok(packet) if copied => Ok(packet),
            Ok(packet) => {
                pool.put(packet.into_frame());
                Err(DropReason::TooBig)
            }
            Err(frame) => {
                pool.put(frame);
                Err(DropReason::TooBig)
            }
        }
    }

    fn free(&self, packet: Packet) {
        self.frames().1.put(packet.into_frame());
    }
}
