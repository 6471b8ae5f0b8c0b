//! Packets that the kernel brings: from the TUN devices, UDP 4500 and the raw sockets for protocol 50.

use std::io;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_common::DropReason;

use super::Worker;
use super::arrivals::Read;
use super::batch::Batch;
use super::facts::Arrival;
use super::kernel_path::SOCKET_READER;
use super::run::BATCH;
use super::work::{Packet, Sender};
use crate::counters::Source;
use crate::packet::Inner;
use crate::packet::segment::Segments;
use crate::sa::Carrier;
use crate::sockets::{RawReceived, Received};
use crate::tun::{self, TunPacket};
use crate::xsk::{Frame, HEADROOM, Umem};

/// Room for the longest packet or datagram, or what the kernel joined.
pub(super) const READ_BYTES: usize = tun::READ_BYTES;
/// Frames that what is read at once may need, whatever it is cut into.
const FRAMES_PER_READ: usize = 128;

/// What a socket gave beside the bytes.
#[derive(Debug)]
pub(super) enum FromSocket {
    /// UDP 4500.
    Udp(Received),
    /// Protocol 50.
    Raw(RawReceived),
}

impl Worker {
    /// A batch from each TUN device and one from all sockets together, if this worker reads them; returns how many packets there were.
    pub(super) fn take_from_kernel(&mut self, batch: &Batch<'_>) -> usize {
        let kernel = &batch.shared.kernel;
        let mut buffer = std::mem::take(&mut self.from_tun);
        let mut count = 0;
        for tun in 0..kernel.tuns().len() {
            count += self.repeat(|worker| worker.take_from_tun(batch, tun, &mut buffer));
        }
        self.from_tun = buffer;
        if self.id == SOCKET_READER {
            count += self.take_from_sockets(batch);
        }
        count
    }

    fn take_from_sockets(&mut self, batch: &Batch<'_>) -> usize {
        self.take_path_errors(batch);
        let mut sockets = std::mem::take(&mut self.from_sockets);
        sockets.begin(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let count = self.repeat(|worker| {
            let (message, buffer) = sockets.next(|number, buffer| worker.read(batch, number, buffer))?;
            Some(match message {
                FromSocket::Udp(received) => worker.take_from_udp(batch, &received, buffer),
                FromSocket::Raw(received) => worker.take_from_raw(batch, &received, buffer),
            })
        });
        self.from_sockets = sockets;
        count
    }

    /// Reads one socket of those that [`super::kernel_path::KernelPath::sockets`] counts.
    fn read(&mut self, batch: &Batch<'_>, number: usize, buffer: &mut [u8]) -> Read<FromSocket> {
        let kernel = &batch.shared.kernel;
        let (source, read) = match kernel.udp.get(number) {
            Some(socket) => {
                let read = socket.receive(buffer);
                (Source::Udp, read.map(|received| (received.arrived, FromSocket::Udp(received))))
            }
            None => {
                let Some(socket) = kernel.raw.get(number - kernel.udp.len()) else { return Read::Empty };
                let read = socket.receive(buffer);
                (Source::RawIp, read.map(|received| (received.arrived, FromSocket::Raw(received))))
            }
        };
        match read {
            Ok((arrived, message)) => Read::Message(message, arrived),
            Err(error) if self.not_received(batch, &error, source) => Read::Retry,
            Err(_) => Read::Empty,
        }
    }

    /// Takes from a source until that is a batch, or it has no more; returns how many packets there were.
    fn repeat(&mut self, mut take: impl FnMut(&mut Self) -> Option<usize>) -> usize {
        let mut count = 0;
        while count < BATCH
            && self.free.can_take(FRAMES_PER_READ)
            && let Some(taken) = take(self)
        {
            count += taken;
        }
        count
    }

    /// Takes a packet that the kernel routed into a TUN device, and cuts it if that was left to us; how many there were.
    fn take_from_tun(&mut self, batch: &Batch<'_>, tun: usize, buffer: &mut [u8]) -> Option<usize> {
        let read = batch.shared.kernel.tuns().get(tun)?.tun.read(usize::from(self.id), buffer);
        let TunPacket { offload, range } = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                batch.counters().count_received_unseen(Source::Tun, 1);
                batch.counters().count_drop(DropReason::Malformed);
                return Some(1);
            }
            Err(_) => return None,
        };
        let bytes = buffer.get_mut(range)?;
        let sender = Sender::Kernel { tun };
        if let Some(segmentation) = offload.segmentation
            && let Some(inner) = Inner::parse(bytes)
            && let Some(segments) = Segments::new(bytes, &inner, segmentation)
        {
            for number in 0..segments.count() {
                let len = segments.inner(number).total_len;
                let packet =
                    self.arrived(batch, len, Source::Tun, |room| segments.write(number, room).is_some());
                if let Some(packet) = packet {
                    self.take_parsed(batch, packet, &segments.inner(number), sender, true);
                }
            }
            return Some(segments.count());
        }
        offload.finish_checksum(bytes);
        if let Some(packet) = self.arrived_bytes(batch, bytes, Source::Tun) {
            self.take_clear(batch, packet, sender, true);
        }
        Some(1)
    }

    /// Takes what came to UDP 4500, one datagram or several that the kernel joined; how many there were.
    fn take_from_udp(&mut self, batch: &Batch<'_>, received: &Received, buffer: &[u8]) -> usize {
        let &Received { source, local, traffic_class, .. } = received;
        let mut count = 0;
        for datagram in received.datagrams(buffer) {
            count += 1;
            if datagram.len() > max_datagram(batch.umem) {
                batch.counters().count_received(Source::Udp, datagram.len());
                self.take_large_udp_4500(batch, datagram, source, local);
            } else if let Some(packet) = self.arrived_bytes(batch, datagram, Source::Udp) {
                let arrival = Arrival { carrier: Carrier::Udp, source, local, traffic_class };
                self.take_udp_4500(batch, packet, arrival);
            }
        }
        count
    }

    /// Takes an ESP packet that came to a raw socket.
    fn take_from_raw(&mut self, batch: &Batch<'_>, received: &RawReceived, buffer: &[u8]) -> usize {
        let bytes = buffer.get(..received.esp.end).unwrap_or_default();
        if let Some(mut packet) = self.arrived_bytes(batch, bytes, Source::RawIp) {
            packet.edit(batch.umem, |p| p.pop_front(received.esp.start));
            let arrival = Arrival {
                carrier: Carrier::Ip,
                source: SocketAddr::new(received.source, 0),
                local: received.local,
                traffic_class: received.traffic_class,
            };
            self.take_esp(batch, packet, arrival);
        }
        1
    }

    /// Nothing was received, or something too long for any buffer, or an ICMP error came; true if there may be more.
    fn not_received(&mut self, batch: &Batch<'_>, error: &io::Error, source: Source) -> bool {
        let too_long = error.kind() == io::ErrorKind::InvalidData;
        if too_long {
            batch.counters().count_received_unseen(source, 1);
            batch.counters().count_drop(DropReason::TooBig);
        }
        let is_empty = error.kind() == io::ErrorKind::WouldBlock;
        self.path_errors.pending |= !too_long && !is_empty;
        !is_empty
    }

    fn arrived_bytes(&mut self, batch: &Batch<'_>, bytes: &[u8], source: Source) -> Option<Packet> {
        self.arrived(batch, bytes.len(), source, |room| {
            room.get_mut(..bytes.len()).map(|room| room.copy_from_slice(bytes)).is_some()
        })
    }

    /// Counts a packet of `len` bytes and lets `write` put it into a frame; `None` if there is none, or no room in it.
    fn arrived(
        &mut self,
        batch: &Batch<'_>,
        len: usize,
        source: Source,
        write: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<Packet> {
        let Some(mut frame) = self.free.take_for(batch.umem, len) else {
            batch.counters().count_received(source, len);
            batch.counters().count_drop(DropReason::TxFull);
            return None;
        };
        // What does not fit is counted as longer than any frame.
        let len = if write(room(batch.umem, &mut frame)) { len } else { batch.umem.size_of(&frame) };
        self.arrived_in(batch, frame, len, source)
    }

    /// Counts what was read into a frame; frees the frame if that was nothing.
    fn arrived_in(&mut self, batch: &Batch<'_>, frame: Frame, len: usize, source: Source) -> Option<Packet> {
        if len == 0 {
            self.free.put(frame);
            return None;
        }
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

/// Longest datagram that a frame holds.
fn max_datagram(umem: &Umem) -> usize {
    if umem.has_large() { umem.max_packet() } else { umem.frame_size() - HEADROOM }
}
