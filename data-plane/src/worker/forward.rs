//! Where opened packets go: a neighbour on the protected side, the kernel, or another tunnel.

use std::net::IpAddr;

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::next_hop::NextHop;
use super::tun_runs::TunPlace;
use super::work::{Packet, Sender};
use crate::config::Role;
use crate::packet::icmp::{self, IcmpError};
use crate::packet::inner::{Ports, decrement_ttl};
use crate::packet::{Inner, protocol};
use crate::spd::{Decision, Flow};

impl Worker {
    /// Sends an opened packet on. `tun`: its connection is route-based and everything goes into that device.
    pub(super) fn forward(&mut self, batch: &Batch<'_>, packet: Packet, inner: &Inner, tun: Option<usize>) {
        if let Some(tun) = tun {
            return self.send_to_tun(batch, packet, inner, tun);
        }
        match self.next_hop(batch, inner.destination) {
            NextHop::Port { port, mac, mtu, .. } if self.is_lan(port) && inner.total_len <= mtu => {
                self.forward_to_neighbour(batch, packet, inner, port, mac);
            }
            NextHop::Unreachable => self.discard(batch, packet, DropReason::NoRoute),
            NextHop::Local => self.send_to_tun(batch, packet, inner, 0),
            NextHop::Port { port, .. } => {
                let is_wan = !self.is_lan(port);
                self.forward_by_policy(batch, packet, inner, is_wan);
            }
            NextHop::Kernel { is_wan, .. } => self.forward_by_policy(batch, packet, inner, is_wan),
        }
    }

    /// Not for a neighbour we reach ourselves: perhaps for another tunnel (a hub between spokes), else the
    /// kernel's to route. It decrements the TTL itself. Towards an unprotected interface the SPD applies with its
    /// final DISCARD, as to anything that crosses the boundary (RFC 4301 section 5.1): were the protected
    /// interface down, the default route would otherwise carry what was just opened out again in clear.
    fn forward_by_policy(&mut self, batch: &Batch<'_>, packet: Packet, inner: &Inner, is_wan: bool) {
        if is_wan || self.enters_a_tunnel(batch, inner) {
            self.take_clear(batch, packet, Sender::Tunnel, is_wan);
        } else {
            self.send_to_tun(batch, packet, inner, 0);
        }
    }

    fn forward_to_neighbour(
        &mut self,
        batch: &Batch<'_>,
        mut packet: Packet,
        inner: &Inner,
        port: usize,
        mac: [u8; 6],
    ) {
        if inner.ttl <= 1 {
            self.answer_sender(batch, &packet, inner, Sender::Tunnel, IcmpError::TimeExceeded);
            return self.discard(batch, packet, DropReason::TtlExceeded);
        }
        packet.edit(batch.umem, |p| decrement_ttl(p.bytes_mut(), inner.version));
        self.send_on_port(batch, packet, port, mac, inner.version);
    }

    /// Tells the sender of a packet why it goes no further, if the rules and the rate allow it.
    pub(super) fn answer_sender(
        &mut self,
        batch: &Batch<'_>,
        packet: &Packet,
        inner: &Inner,
        sender: Sender,
        error: IcmpError,
    ) {
        if sender == Sender::Own || !self.icmp_rate.take(batch.now) {
            return;
        }
        let mut message = [0; icmp::MAX_LEN];
        let own = if sender == Sender::Tunnel { covered_address(batch, inner) } else { None };
        let built = own
            .or_else(|| batch.network.address_towards(inner.source))
            .and_then(|own| icmp::build(error, packet.bytes(batch.umem), inner, own, &mut message));
        let Some(answer) = built.and_then(|len| message.get(..len)).and_then(|m| self.packet_of(batch, m))
        else {
            return;
        };
        batch.counters().originated.add(1);
        match sender {
            Sender::Neighbour { ifindex, mac } => match self.port_of(ifindex) {
                Some(port) => self.send_on_port(batch, answer, port, mac, inner.version),
                None => self.write_to_tun(batch, answer, TunPlace { tun: 0, queue: 0 }),
            },
            Sender::Kernel { tun } => self.write_to_tun(batch, answer, TunPlace { tun, queue: 0 }),
            Sender::Tunnel | Sender::Own => self.take_clear(batch, answer, Sender::Own, true),
        }
    }

    fn is_lan(&self, port: usize) -> bool {
        self.ports.get(port).is_some_and(|p| p.role == Role::Lan)
    }
}

/// An address of this host from which the SPD takes an ICMP error into a tunnel to the sender of `inner`. The one that routes to
/// it is as a rule that of the interface where ESP leaves, which no policy covers.
fn covered_address(batch: &Batch<'_>, inner: &Inner) -> Option<IpAddr> {
    let remote = inner.source;
    let protocol = if remote.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let is_covered = |local: &IpAddr| {
        let flow = Flow { local: *local, remote, protocol, ports: Ports::Absent };
        local.is_ipv4() == remote.is_ipv4() && matches!(batch.spd.decide(&flow, None), Decision::Protect(_))
    };
    batch.network.local_addresses().find(is_covered)
}
