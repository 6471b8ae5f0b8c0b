//! Packets for the kernel: those of one TCP flow that follow one another go through the TUN device as one.

use std::io::IoSlice;

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::work::Packet;
use crate::counters::Sink;
use crate::packet::coalesce::{Joinable, Run};
use crate::packet::{Inner, protocol};

/// Flows whose packets wait at once.
const FLOWS: usize = 8;
/// Packets of one flow.
const MOST: usize = 64;

/// Packets that wait for others of their flow, until the end of the batch.
#[derive(Default)]
pub struct TunRuns {
    runs: Vec<TunRun>,
    /// Room that was used before.
    spare: Vec<Vec<Packet>>,
}

/// A queue of a TUN device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TunPlace {
    /// The number of the device.
    pub(super) tun: usize,
    /// The number of the queue.
    pub(super) queue: usize,
}

struct TunRun {
    place: TunPlace,
    run: Run,
    packets: Vec<Packet>,
}

impl Worker {
    /// Gives an IP packet, whose headers are `inner`, to the kernel, as if it had come from this TUN device: now, or with
    /// others of its flow at the end of the batch.
    pub(super) fn send_to_tun(&mut self, batch: &Batch<'_>, packet: Packet, inner: &Inner, tun: usize) {
        let place = TunPlace { tun, queue: batch.shared.queue_of(inner) };
        if inner.protocol != protocol::TCP || !batch.shared.kernel.takes_joined(tun) {
            return self.write_to_tun(batch, packet, place);
        }
        let bytes = packet.bytes(batch.umem);
        let joinable = Joinable::of(bytes, inner);
        if let Some(at) = self.tun_runs.find(place, bytes, inner) {
            let Some(waiting) = self.tun_runs.runs.get_mut(at) else { return };
            if let Some(next) = joinable
                && waiting.packets.len() < MOST
                && waiting.run.join(bytes, next)
            {
                let is_closed = waiting.run.is_closed();
                waiting.packets.push(packet);
                if is_closed {
                    self.flush_tun_run(batch, at);
                }
                return;
            }
            // Order within a flow is kept.
            self.flush_tun_run(batch, at);
        }
        let first = joinable.and_then(|first| Run::new(packet.bytes(batch.umem), first));
        match first.filter(|run| !run.is_closed()) {
            Some(run) => {
                if self.tun_runs.runs.len() >= FLOWS {
                    self.flush_tun_run(batch, 0);
                }
                let mut packets = self.tun_runs.spare.pop().unwrap_or_default();
                packets.push(packet);
                self.tun_runs.runs.push(TunRun { place, run, packets });
            }
            None => self.write_to_tun(batch, packet, place),
        }
    }

    /// Gives the kernel all that waits.
    pub(super) fn flush_tun_runs(&mut self, batch: &Batch<'_>) {
        while !self.tun_runs.runs.is_empty() {
            self.flush_tun_run(batch, 0);
        }
    }

    /// Gives an IP packet to the kernel, as if it had come from this TUN device.
    pub(super) fn write_to_tun(&mut self, batch: &Batch<'_>, packet: Packet, place: TunPlace) {
        let bytes = packet.bytes(batch.umem);
        match batch.shared.kernel.write_tun(place.tun, place.queue, bytes) {
            Ok(()) => {
                batch.counters().count_sent(Sink::Tun, bytes.len());
                self.free.put(packet.into_frame());
            }
            Err(_) => self.discard(batch, packet, DropReason::SendError),
        }
    }

    fn flush_tun_run(&mut self, batch: &Batch<'_>, at: usize) {
        let TunRun { place, run, mut packets } = self.tun_runs.runs.remove(at);
        if packets.len() > 1 && write_together(batch, place, run, &packets) {
            batch.counters().tun_joined.add(packets.len() as u64);
            for packet in packets.drain(..) {
                batch.counters().count_sent(Sink::Tun, packet.len());
                self.free.put(packet.into_frame());
            }
        }
        for packet in packets.drain(..) {
            self.write_to_tun(batch, packet, place);
        }
        self.tun_runs.spare.push(packets);
    }
}

impl TunRuns {
    fn find(&self, place: TunPlace, packet: &[u8], inner: &Inner) -> Option<usize> {
        self.runs
            .iter()
            .position(|waiting| waiting.place.tun == place.tun && waiting.run.is_flow_of(packet, inner))
    }
}

/// Writes packets of a flow as one, by a queue of a device; false if the kernel did not take it.
fn write_together(batch: &Batch<'_>, place: TunPlace, mut run: Run, packets: &[Packet]) -> bool {
    let (headers, offload) = run.finish();
    let offload = offload.to_bytes();
    let mut parts = [IoSlice::new(&[]); MOST + 2];
    let data = packets.iter().map(|packet| packet.bytes(batch.umem).get(headers.len()..).unwrap_or_default());
    let all = [&offload[..], headers].into_iter().chain(data);
    parts.iter_mut().zip(all).for_each(|(part, bytes)| *part = IoSlice::new(bytes));
    let parts = parts.get(..packets.len() + 2).unwrap_or_default();
    batch.shared.kernel.write_tun_parts(place.tun, place.queue, parts).is_ok()
}
