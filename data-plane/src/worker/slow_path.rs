//! Packets that the kernel brings: from the TUN devices, UDP 4500 and the raw sockets for protocol 50.

use std::io;
use std::net::SocketAddr;

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::facts::Arrival;
use super::run::BATCH;
use super::work::{Packet, Sender};
use crate::counters::Source;
use crate::sa::Carrier;
use crate::sockets::Received;
use crate::xsk::{Frame, HEADROOM, Umem};

/// Room for the part of a datagram that no frame holds: IKE messages are up to 64 KiB.
pub(super) const OVERFLOW_BYTES: usize = 64 * 1024;

impl Worker {
    /// One batch from each of the kernel's sources; returns how many packets there were.
    pub(super) fn take_from_kernel(&mut self, batch: &Batch<'_>) -> usize {
        let kernel = &batch.shared.kernel;
        self.take_path_errors(batch);
        let mut count = 0;
        for tun in 0..kernel.tuns().len() {
            count += self.repeat(|worker| worker.take_from_tun(batch, tun));
        }
        for socket in 0..kernel.udp.len() {
            count += self.repeat(|worker| worker.take_from_udp(batch, socket));
        }
        for socket in 0..kernel.raw.len() {
            count += self.repeat(|worker| worker.take_from_raw(batch, socket));
        }
        count
    }

    fn repeat(&mut self, mut take: impl FnMut(&mut Self) -> bool) -> usize {
        (0..BATCH).take_while(|_| take(self)).count()
    }

    fn take_from_tun(&mut self, batch: &Batch<'_>, tun: usize) -> bool {
        let Some(mut frame) = self.free.take() else { return false };
        let len =
            batch.shared.kernel.tuns().get(tun).and_then(|t| t.tun.read(room(batch.umem, &mut frame)).ok());
        let Some(packet) = self.arrived(batch, frame, len, Source::Tun) else { return false };
        self.take_clear(batch, packet, Sender::Kernel { tun }, true);
        true
    }

    fn take_from_udp(&mut self, batch: &Batch<'_>, socket: usize) -> bool {
        let Some(socket) = batch.shared.kernel.udp.get(socket) else { return false };
        let Some(mut frame) = self.free.take() else { return false };
        let received = match socket.receive(room(batch.umem, &mut frame), &mut self.overflow) {
            Ok(received) => received,
            Err(error) => return self.not_received(batch, frame, &error, Source::Udp),
        };
        let Received { len, source, local, traffic_class } = received;
        let room_len = batch.umem.frame_size() - HEADROOM;
        if len > room_len {
            batch.counters().count_received(Source::Udp, len);
            let mut payload = room(batch.umem, &mut frame).to_vec();
            payload.extend_from_slice(self.overflow.get(..len - room_len).unwrap_or_default());
            self.free.put(frame);
            self.take_large_udp_4500(batch, payload, source, local);
        } else if let Some(packet) = self.arrived(batch, frame, Some(len), Source::Udp) {
            self.take_udp_4500(
                batch,
                packet,
                Arrival { carrier: Carrier::Udp, source, local, traffic_class },
            );
        }
        true
    }

    fn take_from_raw(&mut self, batch: &Batch<'_>, socket: usize) -> bool {
        let Some(socket) = batch.shared.kernel.raw.get(socket) else { return false };
        let Some(mut frame) = self.free.take() else { return false };
        let received = match socket.receive(room(batch.umem, &mut frame)) {
            Ok(received) => received,
            Err(error) => return self.not_received(batch, frame, &error, Source::RawIp),
        };
        if let Some(mut packet) = self.arrived(batch, frame, Some(received.esp.end), Source::RawIp) {
            packet.edit(batch.umem, |p| p.pop_front(received.esp.start));
            let arrival = Arrival {
                carrier: Carrier::Ip,
                source: SocketAddr::new(received.source, 0),
                local: received.local,
                traffic_class: received.traffic_class,
            };
            self.take_esp(batch, packet, arrival);
        }
        true
    }

    /// Nothing was received, or something too long for any buffer, or an ICMP error came; true if there may be more.
    fn not_received(&mut self, batch: &Batch<'_>, frame: Frame, error: &io::Error, source: Source) -> bool {
        self.free.put(frame);
        let too_long = error.kind() == io::ErrorKind::InvalidData;
        if too_long {
            batch.counters().count_received_unseen(source, 1);
            batch.counters().count_drop(DropReason::TooBig);
        }
        let is_empty = error.kind() == io::ErrorKind::WouldBlock;
        self.path_errors.pending |= !too_long && !is_empty;
        !is_empty
    }

    /// Counts what was read into a frame; frees the frame if that was nothing.
    fn arrived(
        &mut self,
        batch: &Batch<'_>,
        frame: Frame,
        len: Option<usize>,
        source: Source,
    ) -> Option<Packet> {
        let Some(len) = len.filter(|len| *len > 0) else {
            self.free.put(frame);
            return None;
        };
        batch.counters().count_received(source, len);
        match Packet::new(batch.umem, frame, HEADROOM, len) {
            Ok(packet) => Some(packet),
            Err(frame) => {
                batch.counters().count_drop(DropReason::TooBig);
                self.free.put(frame);
                None
            }
        }
    }
}

/// Where a packet is read to: room for outer headers before it, and for ESP's trailer behind it if it is one that
/// the MTU lets in.
fn room<'a>(umem: &'a Umem, frame: &'a mut Frame) -> &'a mut [u8] {
    umem.bytes_mut(frame).get_mut(HEADROOM..).unwrap_or_default()
}
