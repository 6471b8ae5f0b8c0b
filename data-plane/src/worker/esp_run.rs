//! ESP in UDP that leaves by the kernel: packets of one size to one peer go in one call (UDP_SEGMENT).

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::paths::PathState;
use super::sending::Departure;
use super::work::Packet;
use crate::counters::Sink;
use crate::packet::OuterHeader;
use crate::sockets::Segmented;

/// Packets in one call: what every kernel takes (UDP_MAX_SEGMENTS was 64 before Linux 6.9).
const MOST: usize = 64;
/// Octets in one call: a datagram over IPv4 has room for more, and no packet is as long as the rest.
const LONGEST: usize = 65_000;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

/// Packets that wait to leave together, outer headers included.
#[derive(Default)]
pub struct EspRun {
    packets: Vec<Packet>,
    path: Option<Arc<PathState>>,
    departure: Option<Departure>,
    destination: Option<IpAddr>,
    octets: usize,
    /// The last one was shorter: nothing follows it.
    is_closed: bool,
}

impl Worker {
    /// Gives an ESP packet to the kernel: now, or with others at the end of the batch. `departure`: what is known of the
    /// way out already.
    pub(super) fn send_by_kernel(
        &mut self,
        batch: &Batch<'_>,
        packet: Packet,
        header: &OuterHeader,
        path: Option<&Arc<PathState>>,
        departure: Departure,
    ) {
        let local = header.local();
        if !header.is_udp() || batch.shared.kernel.segmenting(local).is_none() {
            // What was sealed before leaves before.
            self.flush_esp_run(batch);
            let sent = self.send_now(batch, packet, header.destination(), header.is_udp());
            if let Some(path) = path {
                batch.note_departure(path, sent.unwrap_or(departure));
            }
            return;
        }
        if !self.esp_run.takes(batch, &packet, path) {
            self.flush_esp_run(batch);
        }
        let run = &mut self.esp_run;
        if let Some(first) = run.packets.first() {
            run.is_closed = packet.len() < first.len();
        } else {
            run.path = path.cloned();
            run.destination = Some(header.destination());
        }
        run.departure = Some(departure);
        run.octets += packet.len();
        run.packets.push(packet);
    }

    /// Sends the packets that wait.
    pub(super) fn flush_esp_run(&mut self, batch: &Batch<'_>) {
        let run = &mut self.esp_run;
        let (path, departure, destination) = (run.path.take(), run.departure.take(), run.destination.take());
        let (Some(departure), Some(destination)) = (departure, destination) else { return };
        let mut packets = std::mem::take(&mut run.packets);
        (run.octets, run.is_closed) = (0, false);
        let sent = if packets.len() > 1 && send_together(batch, &packets) {
            batch.counters().esp_joined.add(packets.len() as u64);
            for packet in packets.drain(..) {
                batch.counters().count_sent(Sink::Udp, packet.len());
                self.free.put(packet.into_frame());
            }
            None
        } else {
            let mut sent = None;
            for packet in packets.drain(..) {
                sent = self.send_now(batch, packet, destination, true);
            }
            sent
        };
        // Its room is used again.
        self.esp_run.packets = packets;
        if let Some(path) = path {
            batch.note_departure(&path, sent.unwrap_or(departure));
        }
    }

    /// Sends one packet with the header that it brings; what the kernel said against it.
    fn send_now(
        &mut self,
        batch: &Batch<'_>,
        packet: Packet,
        destination: IpAddr,
        is_udp: bool,
    ) -> Option<Departure> {
        let bytes = packet.bytes(batch.umem);
        match batch.shared.kernel.send_ip(bytes, destination) {
            Ok(()) => {
                let sink = if is_udp { Sink::Udp } else { Sink::RawIp };
                batch.counters().count_sent(sink, bytes.len());
                self.free.put(packet.into_frame());
                None
            }
            Err(error) => {
                self.discard(batch, packet, DropReason::SendError);
                Some(Departure::of(&error))
            }
        }
    }
}

impl EspRun {
    /// True if the packet can leave with those that wait.
    fn takes(&self, batch: &Batch<'_>, packet: &Packet, path: Option<&Arc<PathState>>) -> bool {
        let Some(first) = self.packets.first() else { return true };
        let is_same_path = match (&self.path, path) {
            (Some(own), Some(path)) => Arc::ptr_eq(own, path),
            (None, None) => true,
            _ => false,
        };
        !self.is_closed
            && is_same_path
            && self.packets.len() < MOST
            && packet.len() <= first.len()
            && self.octets + packet.len() <= LONGEST
            && is_alike(first.bytes(batch.umem), packet.bytes(batch.umem))
    }
}

/// True if outer headers differ in nothing but what the kernel sets itself: lengths, identification, checksums.
fn is_alike(one: &[u8], other: &[u8]) -> bool {
    let ranges: &[std::ops::Range<usize>] = match one.first().map(|first| first >> 4) {
        Some(4) => &[0..2, 6..10, 12..IPV4_LEN + 4],
        _ => &[0..4, 6..IPV6_LEN + 4],
    };
    ranges.iter().all(|range| {
        let (one, other) = (one.get(range.clone()), other.get(range.clone()));
        one.is_some() && one == other
    })
}

/// Sends packets that are alike in one call; false if the kernel took none.
fn send_together(batch: &Batch<'_>, packets: &[Packet]) -> bool {
    let Some(first) = packets.first().map(|packet| packet.bytes(batch.umem)) else { return false };
    let Some(outer) = Outer::parse(first) else { return false };
    let Some(socket) = batch.shared.kernel.segmenting(outer.local) else { return false };
    let mut parts = [IoSlice::new(&[]); MOST];
    for (part, packet) in parts.iter_mut().zip(packets) {
        *part = IoSlice::new(packet.bytes(batch.umem).get(outer.len..).unwrap_or_default());
    }
    let Ok(size) = u16::try_from(first.len() - outer.len) else { return false };
    let Outer { local, remote, traffic_class, dont_fragment, .. } = outer;
    let packets = parts.get(..packets.len()).unwrap_or_default();
    let segmented = Segmented { local, remote, traffic_class, dont_fragment, size, packets };
    socket.send_segmented(&segmented).is_ok()
}

/// What an outer header of ours says.
struct Outer {
    len: usize,
    local: SocketAddr,
    remote: SocketAddr,
    traffic_class: u8,
    dont_fragment: bool,
}

impl Outer {
    fn parse(packet: &[u8]) -> Option<Self> {
        let (ip_len, local, remote, traffic_class, dont_fragment): (_, IpAddr, IpAddr, _, _) =
            if packet.first()? >> 4 == 4 {
                let header = packet.first_chunk::<IPV4_LEN>()?;
                let [.., a, b, c, d, e, f, g, h] = *header;
                let (local, remote) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
                (IPV4_LEN, local.into(), remote.into(), header[1], header[6] & 0x40 != 0)
            } else {
                let header = packet.first_chunk::<IPV6_LEN>()?;
                let address = |at: usize| header.get(at..)?.first_chunk::<16>().map(|a| Ipv6Addr::from(*a));
                let class = header[0] << 4 | header[1] >> 4;
                (IPV6_LEN, address(8)?.into(), address(24)?.into(), class, true)
            };
        let ports = packet.get(ip_len..)?.first_chunk::<4>()?;
        let (local_port, remote_port) =
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
        Some(Self {
            len: ip_len + UDP_LEN,
            local: SocketAddr::new(local, local_port),
            remote: SocketAddr::new(remote, remote_port),
            traffic_class,
            dont_fragment,
        })
    }
}
