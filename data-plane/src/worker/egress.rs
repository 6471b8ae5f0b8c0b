//! The last step of every packet: a transmit ring, a socket, or the TUN device.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::next_hop::{Confirm, NextHop, NextHopCache};
use super::paths::PathState;
use super::port::Port;
use super::sending::Departure;
use super::work::Packet;
use crate::config::Role;
use crate::counters::Sink;
use crate::event::LocalFailure;
use crate::packet::IpVersion;
use crate::packet::OuterHeader;
use crate::packet::ethernet::{self, MacAddress};
use crate::stream::StreamQueue;

/// MTU of an interface that does not tell.
const DEFAULT_MTU: usize = 1500;

impl Worker {
    /// Sends an ESP packet, outer header included: by our own ring if the next hop is known there, else by the
    /// kernel, which resolves the neighbour meanwhile. What became of it tells something about `path`.
    pub(super) fn send_esp(
        &mut self,
        batch: &Batch<'_>,
        packet: Packet,
        header: &OuterHeader,
        path: Option<&Arc<PathState>>,
    ) {
        batch.counters().esp_sent[usize::from(header.is_udp())].count(packet.len() - header.len());
        let hop = self.next_hop(batch, header.destination());
        let departure = match hop {
            NextHop::Port { is_up: false, .. } | NextHop::Kernel { is_up: false, .. } => {
                Departure::Failed(LocalFailure::LinkDown)
            }
            NextHop::Kernel { is_resolved: false, .. } => Departure::Unresolved,
            NextHop::Unreachable => Departure::Failed(LocalFailure::NoRoute),
            NextHop::Port { .. } | NextHop::Kernel { .. } | NextHop::Local => Departure::Left,
        };
        match hop {
            NextHop::Port { port, mac, .. } => {
                let version = if header.destination().is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
                self.send_on_port(batch, packet, port, mac, version);
            }
            NextHop::Unreachable => self.discard(batch, packet, DropReason::NoRoute),
            NextHop::Kernel { .. } | NextHop::Local => {
                return self.send_by_kernel(batch, packet, header, path, departure);
            }
        }
        if let Some(path) = path {
            batch.note_departure(path, departure);
        }
    }

    /// Gives a sealed packet, from its SPI on, to the task of a TCP stream.
    pub(super) fn send_on_stream(&mut self, batch: &Batch<'_>, packet: Packet, stream: &Arc<StreamQueue>) {
        match stream.push(packet, batch.now) {
            Ok(()) => {
                if !self.streams.iter().any(|known| Arc::ptr_eq(known, stream)) {
                    self.streams.push(Arc::clone(stream));
                }
            }
            Err((packet, reason)) => self.discard(batch, packet, reason),
        }
    }

    /// Sends an IP packet to a neighbour on one of our ports.
    pub(super) fn send_on_port(
        &mut self,
        batch: &Batch<'_>,
        mut packet: Packet,
        port: usize,
        destination: MacAddress,
        version: IpVersion,
    ) {
        let Some(out) = self.ports.get_mut(port) else {
            return self.discard(batch, packet, DropReason::NoRoute);
        };
        let source = out.mac;
        if packet.edit(batch.umem, |p| ethernet::push(p, destination, source, version)).flatten().is_none() {
            return self.discard(batch, packet, DropReason::TooBig);
        }
        let sink = match out.role {
            Role::Wan => Sink::Wan,
            Role::Lan => Sink::Lan,
        };
        let (frame, start, len) = packet.into_parts();
        let refused = match out.socket.transmit(frame, start, len) {
            Ok(()) => None,
            // A full ring may only be waiting for us to wake the kernel and take sent frames back.
            Err(frame) => {
                let _ = out.socket.flush();
                out.socket.reap(&mut self.free);
                out.socket.transmit(frame, start, len).err()
            }
        };
        match refused {
            None => {
                out.dirty = true;
                batch.counters().count_sent(sink, len);
            }
            Some(frame) => {
                batch.counters().count_drop(DropReason::TxFull);
                self.free.put(frame);
            }
        }
    }

    /// Sends what waits for others to be sent with, publishes what was queued on the ports, and takes sent frames back.
    pub(super) fn flush(&mut self, batch: &Batch<'_>) {
        self.flush_esp_run(batch);
        self.flush_tun_runs(batch);
        self.streams.drain(..).for_each(|stream| stream.wake());
        for port in &mut self.ports {
            if port.dirty {
                // The interface may be down: what waits in its ring leaves when it is up again.
                let _ = port.socket.flush();
                port.dirty = port.socket.pending_transmits() > 0;
            }
            port.socket.reap(&mut self.free);
        }
    }

    /// How to reach a destination. Neighbours in use are kept known.
    pub(super) fn next_hop(&mut self, batch: &Batch<'_>, destination: IpAddr) -> NextHop {
        *find_next_hop(&mut self.hops, &self.ports, batch, destination)
    }

    /// The port on an interface.
    pub(super) fn port_of(&self, ifindex: u32) -> Option<usize> {
        self.ports.iter().position(|p| p.ifindex == ifindex)
    }
}

/// As [`Worker::next_hop`], for who has another part of the worker in hand.
#[inline]
pub(super) fn find_next_hop<'a>(
    hops: &'a mut NextHopCache,
    ports: &[Port],
    batch: &Batch<'_>,
    destination: IpAddr,
) -> &'a NextHop {
    let find = || search_next_hop(ports, batch, destination);
    let (hop, confirm) = hops.get(destination, batch.network.version(), batch.now, find);
    if let Some((ifindex, address)) = confirm {
        // Too many at once: this one is asked for again in a second.
        let _ = batch.shared.neighbours.want_neighbour(ifindex, address);
    }
    hop
}

/// What routes and neighbours say, and the neighbour to confirm.
#[cold]
fn search_next_hop(ports: &[Port], batch: &Batch<'_>, destination: IpAddr) -> (NextHop, Option<Confirm>) {
    let network = batch.network;
    let Some(route) = network.route(destination) else { return (NextHop::Unreachable, None) };
    if route.local {
        return (NextHop::Local, None);
    }
    let interface = network.interface(route.ifindex);
    let interface_mtu = interface.map_or(DEFAULT_MTU, |i| i.mtu as usize);
    let is_up = interface.is_none_or(|i| i.is_up);
    let mtu = route.mtu.map_or(interface_mtu, |mtu| interface_mtu.min(mtu as usize));
    let is_wan = interface.is_some_and(|i| batch.shared.settings.wan.contains(&i.name));
    let address = route.gateway.unwrap_or(destination);
    let neighbour = network.neighbour(route.ifindex, address);
    let is_resolved = neighbour.is_some();
    let Some(port) = ports.iter().position(|p| p.ifindex == route.ifindex) else {
        return (NextHop::Kernel { mtu, is_wan, is_up, is_resolved }, None);
    };
    let mtu = mtu.min(ports.get(port).map_or(mtu, |p| p.socket.max_packet()));
    let hop = match neighbour {
        Some(mac) => NextHop::Port { port, mac, mtu, is_up },
        None => NextHop::Kernel { mtu, is_wan, is_up, is_resolved },
    };
    (hop, Some((route.ifindex, address)))
}
