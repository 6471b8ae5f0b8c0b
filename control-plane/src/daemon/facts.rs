//! What the data plane saw, in the words of the endpoint, and which shard has to know.

use std::sync::Arc;

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::packet::inner::Ports;
use portcullis_data_plane::sa::{Carrier, ChildId as DataChildId, PathId};
use portcullis_data_plane::spd::Flow;
use portcullis_ike::action::{ChildId, IkeSaId};
use portcullis_ike::codec::{PortRange, TrafficSelector};
use portcullis_ike::command::{Fact, PacketSelectors};
use portcullis_ike::path::EspTransport;

use super::shard::home_of;
use crate::config::Config;
use crate::net::route::Shards;

/// The fact in an event and the shard that it concerns, if an endpoint has to know.
pub fn fact(event: DataPlaneEvent, config: &Arc<Config>, shards: Shards) -> Option<(usize, Fact)> {
    let of = |child: DataChildId| shard_of(child.0, shards);
    let of_path = |path: PathId| (shard_of(path.0, shards), IkeSaId(path.0));
    Some(match event {
        DataPlaneEvent::Inbound { child, carrier, source, local, is_highest, is_echo, spi: _ } => {
            let carrier = transport(carrier)?;
            (of(child), Fact::Inbound { child: id(child), carrier, source, local, is_highest, is_echo })
        }
        DataPlaneEvent::EchoReply { child, identifier, sequence, nonce, carrier, source, local } => {
            let (carrier, to) = (transport(carrier)?, of(child));
            let child = id(child);
            (to, Fact::EchoReply { child, identifier, sequence, nonce, carrier, source, local })
        }
        DataPlaneEvent::LocalSend { path, failure } => {
            let (to, ike_sa) = of_path(path);
            (to, Fact::LocalSend { ike_sa, failure: failure.map(|failure| failure.to_string()) })
        }
        DataPlaneEvent::PathDoubt { path } => {
            let (to, ike_sa) = of_path(path);
            (to, Fact::PathDoubt { ike_sa })
        }
        DataPlaneEvent::Outbound { child } => (of(child), Fact::Outbound { child: id(child) }),
        DataPlaneEvent::SoftLifetime { child } => (of(child), Fact::SoftLifetime { child: id(child) }),
        DataPlaneEvent::HardLifetime { child } => (of(child), Fact::HardLifetime { child: id(child) }),
        DataPlaneEvent::Acquire { policy, flow } => {
            let connection = config.connection(&policy.connection)?;
            let fact = Fact::Acquire {
                connection: policy.connection.to_string(),
                child: policy.child.to_string(),
                packet: packet_selectors(flow),
            };
            (home_of(&connection.ike, shards), fact)
        }
        // What has changed, each shard finds out for its own connections.
        DataPlaneEvent::LocalChange
        | DataPlaneEvent::RoutesChanged
        | DataPlaneEvent::GuardRestored { .. }
        | DataPlaneEvent::TunRestored { .. }
        | DataPlaneEvent::RoutingRestored { .. }
        | DataPlaneEvent::InterfaceLost { .. }
        | DataPlaneEvent::InterfaceReturned { .. } => return None,
    })
}

/// A port that cannot be seen, or that the protocol does not have, is any.
fn packet_selectors(flow: Flow) -> PacketSelectors {
    let (local_ports, remote_ports) = match flow.ports {
        Ports::Known(local, remote) => (PortRange::single(local), PortRange::single(remote)),
        Ports::Absent | Ports::Unknown => (PortRange::ANY, PortRange::ANY),
    };
    let of =
        |address, ports| TrafficSelector { protocol: flow.protocol, ports, ..TrafficSelector::host(address) };
    PacketSelectors { local: of(flow.local, local_ports), remote: of(flow.remote, remote_ports) }
}

/// Endpoints put their shard above 48 bits of their own into every number that they give out.
fn shard_of(number: u64, shards: Shards) -> usize {
    ((number >> 48) as usize).min(shards.count() - 1)
}

/// `None` for what carries nothing.
fn transport(carrier: Carrier) -> Option<EspTransport> {
    match carrier {
        Carrier::Ip => Some(EspTransport::Ip),
        Carrier::Udp => Some(EspTransport::Udp),
        Carrier::Stream(_) => Some(EspTransport::Tcp),
        Carrier::Hold | Carrier::Shut => None,
    }
}

fn id(child: DataChildId) -> ChildId {
    ChildId(child.0)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use portcullis_data_plane::event::LocalFailure;

    use super::*;
    use crate::config::{self, Secrets};

    const NUMBER: u64 = 2 << 48 | 9;

    #[test]
    fn echo_and_what_is_known_of_a_path_reach_the_shard_that_asked() {
        let (source, local) = (SocketAddr::from(([192, 0, 2, 2], 4500)), IpAddr::from([192, 0, 2, 1]));
        let (child, carrier, nonce) = (DataChildId(NUMBER), Carrier::Udp, [7; 16]);
        let (identifier, sequence, path) = (1, 2, PathId(NUMBER));
        let event = DataPlaneEvent::EchoReply { child, identifier, sequence, nonce, carrier, source, local };
        let (child, ike_sa, carrier) = (ChildId(NUMBER), IkeSaId(NUMBER), EspTransport::Udp);
        let expected = Fact::EchoReply { child, identifier, sequence, nonce, carrier, source, local };
        assert_eq!(of(event), Some((2, expected)));

        let failed = DataPlaneEvent::LocalSend { path, failure: Some(LocalFailure::LinkDown) };
        let expected = Fact::LocalSend { ike_sa, failure: Some("the link is down".to_owned()) };
        assert_eq!(of(failed), Some((2, expected)));
        let works = DataPlaneEvent::LocalSend { path, failure: None };
        assert_eq!(of(works), Some((2, Fact::LocalSend { ike_sa, failure: None })));
        let doubt = DataPlaneEvent::PathDoubt { path };
        assert_eq!(of(doubt), Some((2, Fact::PathDoubt { ike_sa })));
    }

    #[test]
    fn an_echo_is_told_from_data() {
        for is_echo in [true, false] {
            let (child, spi, carrier) = (DataChildId(NUMBER), portcullis_common::Spi(256), Carrier::Ip);
            let (source, local) = (SocketAddr::from(([192, 0, 2, 2], 0)), IpAddr::from([192, 0, 2, 1]));
            let is_highest = true;
            let event = DataPlaneEvent::Inbound { child, spi, carrier, source, local, is_highest, is_echo };
            let (child, carrier) = (ChildId(NUMBER), EspTransport::Ip);
            let expected = Fact::Inbound { child, carrier, source, local, is_highest, is_echo };
            assert_eq!(of(event), Some((2, expected)));
        }
    }

    fn of(event: DataPlaneEvent) -> Option<(usize, Fact)> {
        let text = "data_plane: { interfaces: { wan0: { role: wan } } }\n";
        let config =
            config::parse(text, None, &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}"));
        fact(event, &Arc::new(config.config), Shards::new(4))
    }
}
