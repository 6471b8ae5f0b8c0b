//! Packets from the receive rings.

use std::net::{IpAddr, SocketAddr};

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::facts::Arrival;
use super::work::{Packet, Sender};
use crate::config::Role;
use crate::counters::Source;
use crate::event::IkeDatagram;
use crate::packet::inner::{Fragment, Ports};
use crate::packet::{Inner, IpVersion, checksum, ethernet, protocol};
use crate::sa::Carrier;
use crate::xsk::Received;

/// UDP port of ESP and IKE behind NAT (RFC 3948).
const PORT_4500: u16 = 4500;
const UDP_HEADER_LEN: usize = 8;
/// What IKE has on UDP 4500 where ESP has its SPI (RFC 3948 section 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The only octet of a NAT keepalive (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];

impl Worker {
    /// Takes a packet from the receive ring of a port.
    pub(super) fn take_frame(&mut self, batch: &Batch<'_>, port: usize, received: Received) {
        let Some(role) = self.ports.get(port).map(|p| p.role) else { return self.free.put(received.frame) };
        let source = match role {
            Role::Wan => Source::Wan,
            Role::Lan => Source::Lan,
        };
        batch.counters().count_received(source, received.len);
        let mut packet = match Packet::new(batch.umem, received.frame, received.start, received.len) {
            Ok(packet) => packet,
            Err(frame) => {
                batch.counters().count_drop(DropReason::Malformed);
                return self.free.put(frame);
            }
        };
        let Some(header) = ethernet::parse(packet.bytes(batch.umem)) else {
            return self.discard(batch, packet, DropReason::Malformed);
        };
        packet.edit(batch.umem, |p| p.pop_front(header.len));
        match role {
            Role::Wan => self.take_outer(batch, packet),
            Role::Lan => {
                let (ifindex, protected) =
                    self.ports.get(port).map_or((0, true), |p| (p.ifindex, p.protected));
                let sender = Sender::Neighbour { ifindex, mac: header.source };
                self.take_clear(batch, packet, sender, protected);
            }
        }
    }

    /// An IP packet from the WAN, which XDP took for ESP.
    fn take_outer(&mut self, batch: &Batch<'_>, mut packet: Packet) {
        let parsed = Inner::parse(packet.bytes(batch.umem));
        let Some(outer) = parsed.as_ref().filter(|outer| outer.fragment == Fragment::Whole) else {
            return self.discard(batch, packet, DropReason::Malformed);
        };
        // Whether the card has looked at checksums, AF_XDP does not tell.
        let header = packet.bytes(batch.umem).get(..outer.payload_offset).unwrap_or_default();
        if outer.version == IpVersion::V4 && !checksum::is_valid_ipv4_header(header) {
            return self.discard(batch, packet, DropReason::OuterChecksum);
        }
        packet.edit(batch.umem, |p| {
            p.truncate(outer.total_len);
            p.pop_front(outer.payload_offset)
        });
        let arrival = |carrier, port| Arrival {
            carrier,
            source: SocketAddr::new(outer.source, port),
            local: outer.destination,
            traffic_class: outer.traffic_class,
        };
        match (outer.protocol, outer.ports) {
            (protocol::ESP, _) => self.take_esp(batch, packet, arrival(Carrier::Ip, 0)),
            (protocol::UDP, Ports::Known(source, PORT_4500)) => {
                let bytes = packet.bytes(batch.umem);
                let len = bytes.get(4..6).map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
                if len < UDP_HEADER_LEN || len > bytes.len() {
                    return self.discard(batch, packet, DropReason::Malformed);
                }
                let datagram = bytes.get(..len).unwrap_or_default();
                if !checksum::is_acceptable_udp(datagram, outer.source, outer.destination) {
                    return self.discard(batch, packet, DropReason::OuterChecksum);
                }
                packet.edit(batch.umem, |p| {
                    p.truncate(len);
                    p.pop_front(UDP_HEADER_LEN)
                });
                self.take_udp_4500(batch, packet, arrival(Carrier::Udp, source));
            }
            _ => self.discard(batch, packet, DropReason::Malformed),
        }
    }

    /// The payload of a datagram on UDP 4500: ESP, IKE or a keepalive.
    pub(super) fn take_udp_4500(&mut self, batch: &Batch<'_>, packet: Packet, arrival: Arrival) {
        let bytes = packet.bytes(batch.umem);
        if bytes == KEEPALIVE {
            return self.discard(batch, packet, DropReason::NatKeepalive);
        }
        if !bytes.starts_with(&NON_ESP_MARKER) {
            return self.take_esp(batch, packet, arrival);
        }
        let local = SocketAddr::new(arrival.local, PORT_4500);
        batch.hand_to_ike(IkeDatagram { local, remote: arrival.source, payload: bytes.to_vec() });
        self.free.put(packet.into_frame());
    }

    /// A datagram on UDP 4500 that no frame holds.
    pub(super) fn take_large_udp_4500(
        &mut self,
        batch: &Batch<'_>,
        payload: &[u8],
        remote: SocketAddr,
        local: IpAddr,
    ) {
        if !payload.starts_with(&NON_ESP_MARKER) {
            return batch.counters().count_drop(DropReason::TooBig);
        }
        batch.hand_to_ike(IkeDatagram {
            local: SocketAddr::new(local, PORT_4500),
            remote,
            payload: payload.to_vec(),
        });
    }
}
