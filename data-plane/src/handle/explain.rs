//! What becomes of a packet, asked and not sent: the decisions of a worker in its words.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_common::{DropReason, Spi};

use super::{DataPlane, InterfacePath};
use crate::policy::PolicyKey;
use crate::sa::{Carrier, ChildId};
use crate::spd::{Decision, Flow, SelectorMatch};
use crate::worker::paths::PathState;

/// What becomes of a packet from the protected side.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the policies say.
    pub decision: Decision,
    /// The PROTECT policy, if it is one.
    pub policy: Option<PolicyKey>,
    /// The SAs that it would use.
    pub tunnel: Option<Tunnel>,
    /// Why it would be dropped; `None` if it passes.
    pub dropped: Option<DropReason>,
    /// The way that this host has to its destination, or to the peer if it is protected.
    pub way: Option<Way>,
}

/// The SAs of a protected packet, and how they travel.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// The pair.
    pub child: ChildId,
    /// The outbound SA's SPI, the peer's.
    pub spi_out: Spi,
    /// The worker that seals; `None` if each does, what comes to it.
    pub worker_out: Option<u8>,
    /// The inbound SA's SPI, ours: answers come on it.
    pub spi_in: Option<Spi>,
    /// The worker that opens.
    pub worker_in: Option<u8>,
    /// What carries ESP now.
    pub carrier: Carrier,
    /// Our outer address and port.
    pub local: SocketAddr,
    /// The peer's outer address and port.
    pub remote: SocketAddr,
    /// Largest inner packet in bytes; longer ones are cut, or their senders told.
    pub inner_mtu: Option<usize>,
}

/// How this host reaches an address.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where.
    pub destination: IpAddr,
    /// By this interface.
    pub interface: Option<Arc<str>>,
    /// By this neighbour, or the destination itself.
    pub next_hop: IpAddr,
    /// The neighbour is known.
    pub is_resolved: bool,
    /// The packet leaves by a ring of a worker; otherwise by the kernel.
    pub by_ring: bool,
}

impl DataPlane {
    /// What would become of a packet from the protected side. `interface`: the TUN of a route-based connection that it
    /// comes from.
    pub fn explain(&self, flow: &Flow, interface: Option<&str>) -> Explanation {
        let spd = self.inner.shared.spd.load();
        let decision = spd.decide(flow, interface);
        let plain = |dropped| Explanation { decision, policy: None, tunnel: None, dropped, way: None };
        let Decision::Protect(number) = decision else {
            return match decision {
                Decision::Discard => plain(Some(DropReason::PolicyDiscard)),
                Decision::FragmentPorts => plain(Some(DropReason::FragmentPorts)),
                // Where no policy says anything a protected interface drops; whether it comes from one is not known here.
                Decision::Bypass | Decision::NoPolicy | Decision::Protect(_) => {
                    Explanation { way: self.way(flow.remote), ..plain(None) }
                }
            };
        };
        let Some((protect, _)) = spd.protect(number) else { return plain(Some(DropReason::NoPolicy)) };
        let policy = Some(protect.key().clone());
        let index = match protect.choose(flow) {
            Ok(Some(index)) => index,
            Ok(None) => return Explanation { policy, ..plain(Some(DropReason::NoSa)) },
            Err(SelectorMatch::PortsUnknown) => {
                return Explanation { policy, ..plain(Some(DropReason::FragmentPorts)) };
            }
            Err(_) => return Explanation { policy, ..plain(Some(DropReason::OutsideSelectors)) },
        };
        let child = protect.outbound().iter().find(|sa| sa.index == index).map(|sa| sa.child);
        let found = child.and_then(|child| self.pair(child).map(|(spi_in, path)| (child, spi_in, path)));
        let Some((child, spi_in, path)) = found else {
            return Explanation { policy, ..plain(Some(DropReason::StaleSa)) };
        };
        let way = self.way(path.current().path.remote);
        let spi_out = path.spi_of(index).unwrap_or(Spi(0));
        let tunnel = Tunnel {
            spi_out,
            worker_out: self.inner.table.outbound_owner(index).filter(|_| !self.inner.table.is_shared(index)),
            worker_in: spi_in.and_then(|spi| self.inner.table.inbound_owner(spi)),
            spi_in,
            ..self.tunnel(child, &path)
        };
        let dropped = match tunnel.carrier {
            Carrier::Shut => Some(DropReason::PathShut),
            Carrier::Hold => Some(DropReason::CarrierUnknown),
            Carrier::Stream(_) if path.current().stream.is_none() => Some(DropReason::StreamDown),
            Carrier::Ip | Carrier::Udp if way.is_none() => Some(DropReason::NoRoute),
            Carrier::Ip | Carrier::Udp | Carrier::Stream(_) => None,
        };
        Explanation { decision, policy, tunnel: Some(tunnel), dropped, way }
    }

    /// What the path says of it; the SAs are the caller's.
    fn tunnel(&self, child: ChildId, path: &PathState) -> Tunnel {
        let snapshot = path.current();
        let way = snapshot.path;
        let hop_mtu = self.hop_mtu(way.remote);
        let inner_mtu = snapshot.header.as_ref().map(|header| header.inner_mtu(path.mtu.of(hop_mtu)));
        Tunnel {
            child,
            spi_out: Spi(0),
            worker_out: None,
            spi_in: None,
            worker_in: None,
            carrier: way.carrier,
            local: SocketAddr::new(way.local, way.local_port),
            remote: SocketAddr::new(way.remote, way.remote_port),
            inner_mtu,
        }
    }

    fn hop_mtu(&self, destination: IpAddr) -> usize {
        let network = self.inner.network.snapshot();
        let route = network.route(destination);
        let of_interface = route.and_then(|route| network.interface(route.ifindex)).map(|i| i.mtu);
        let of_route = route.and_then(|route| route.mtu);
        let mtu = of_interface.into_iter().chain(of_route).min();
        mtu.map_or(usize::from(u16::MAX), |mtu| mtu as usize)
    }

    fn way(&self, destination: IpAddr) -> Option<Way> {
        let network = self.inner.network.snapshot();
        let route = network.route(destination)?;
        let next_hop = route.gateway.unwrap_or(destination);
        let is_resolved = network.neighbour(route.ifindex, next_hop).is_some();
        let interface = network.interface(route.ifindex).map(|interface| interface.name.clone());
        let has_ring = self.inner.interfaces.iter().any(|bound| {
            interface.as_ref() == Some(bound.name()) && matches!(bound.path(), InterfacePath::AfXdp { .. })
        });
        Some(Way { destination, interface, next_hop, is_resolved, by_ring: has_ring && is_resolved })
    }
}
