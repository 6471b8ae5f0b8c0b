//! What an endpoint says about its connections.

use super::Endpoint;
use crate::live::LiveSa;
use crate::sa::children::Outbound;
use crate::status::{ChildStatus, ConnectionStatus, IkeSaStatus};
use crate::time::Time;

impl Endpoint {
    /// Every configured connection, up or not, by name.
    pub fn status(&self, _now: Time) -> Vec<ConnectionStatus> {
        let describe = |(name, connection): (&std::sync::Arc<str>, &super::Connection)| {
            let (standing, detail) = self.describe(name)?;
            let live = connection.live.iter().chain(&connection.trial).filter_map(|id| self.live.get(id));
            Some(ConnectionStatus {
                name: name.clone(),
                state: standing.state,
                reason: standing.reason,
                evidence: standing.evidence,
                esp_transport: standing.esp_transport,
                detail,
                next_attempt: connection.next_attempt,
                ike_sas: live.map(|live| ike_sa(live)).collect(),
            })
        };
        self.connections.iter().filter_map(describe).collect()
    }

    /// A connection has an IKE SA.
    pub fn is_up(&self, connection: &str) -> bool {
        self.connections.get(connection).is_some_and(|connection| !connection.live.is_empty())
    }

    /// How many connections have an IKE SA.
    pub fn connections_up(&self) -> usize {
        self.connections.iter().filter(|(_, connection)| !connection.live.is_empty()).count()
    }
}

fn ike_sa(live: &LiveSa) -> IkeSaStatus {
    let has_path = live.children.iter().next().is_some();
    IkeSaStatus {
        id: live.id,
        is_initiator: live.is_initiator,
        spis: (live.current.channel.spi_i, live.current.channel.spi_r),
        transport: live.link.transport(),
        separate_transports: live.separate,
        full_transcript_auth: live.full_transcript,
        ppk: live.has_ppk,
        remote: live.link.remote(),
        remote_id: live.config.remote_id.to_string(),
        nat: live.carrier.nat(),
        esp_path: has_path.then(|| live.carrier.path()),
        esp: live.carrier.esp_status(),
        algorithms: live.current.choice.notation.to_string(),
        established: live.established,
        rekeyed: live.current.made,
        next_rekey: live.current.renew_at,
        leaves: live.leaves.map(|(at, _)| at),
        children: live
            .children
            .iter()
            .filter(|child| child.exists())
            .map(|child| ChildStatus {
                id: child.id,
                name: child.name.clone(),
                spis: (child.spi_in, child.spi_out),
                cipher: child.cipher,
                esn: child.esn,
                algorithms: child.algorithms.to_string(),
                selectors: (child.local_ts.clone(), child.remote_ts.clone()),
                in_use: child.outbound == Outbound::InUse,
                established: child.established,
                next_rekey: child.rekey_at,
            })
            .collect(),
    }
}
