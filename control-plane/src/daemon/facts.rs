//! What the data plane saw, in the words of the endpoint, and which shard has to know.

use std::sync::Arc;

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::sa::{Carrier, ChildId as DataChildId};
use portcullis_ike::action::ChildId;
use portcullis_ike::command::Fact;
use portcullis_ike::path::EspTransport;

use super::shard::home_of;
use crate::config::Config;
use crate::net::route::Shards;

/// Whom a fact concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concerns {
    /// One shard.
    Shard(usize),
    /// All of them.
    Every,
}

/// The fact in an event, if the endpoints have to know.
pub fn fact(event: DataPlaneEvent, config: &Arc<Config>, shards: Shards) -> Option<(Concerns, Fact)> {
    let of = |child: DataChildId| Concerns::Shard(shard_of(child, shards));
    Some(match event {
        DataPlaneEvent::Inbound { child, carrier, source, local, is_highest, spi: _ } => {
            let carrier = match carrier {
                Carrier::Ip => EspTransport::Ip,
                Carrier::Udp => EspTransport::Udp,
                Carrier::Hold | Carrier::Shut => return None,
            };
            let fact = Fact::Inbound { child: id(child), carrier, source, local, is_highest, is_echo: false };
            (of(child), fact)
        }
        DataPlaneEvent::Outbound { child } => (of(child), Fact::Outbound { child: id(child) }),
        DataPlaneEvent::SoftLifetime { child } => (of(child), Fact::SoftLifetime { child: id(child) }),
        DataPlaneEvent::HardLifetime { child } => (of(child), Fact::HardLifetime { child: id(child) }),
        DataPlaneEvent::Acquire { policy } => {
            let connection = config.connection(&policy.connection)?;
            let fact =
                Fact::Acquire { connection: policy.connection.to_string(), child: policy.child.to_string() };
            (Concerns::Shard(home_of(&connection.ike, shards)), fact)
        }
        DataPlaneEvent::LocalChange => (Concerns::Every, Fact::LocalChange),
        DataPlaneEvent::GuardRestored { .. }
        | DataPlaneEvent::TunRestored { .. }
        | DataPlaneEvent::InterfaceLost { .. }
        | DataPlaneEvent::InterfaceReturned { .. } => return None,
    })
}

/// Endpoints put their shard above 48 bits of their own into every number that they give out.
fn shard_of(child: DataChildId, shards: Shards) -> usize {
    ((child.0 >> 48) as usize).min(shards.count() - 1)
}

fn id(child: DataChildId) -> ChildId {
    ChildId(child.0)
}
