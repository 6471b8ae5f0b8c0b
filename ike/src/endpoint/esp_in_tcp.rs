//! ESP that arrives in TCP: whose it is, and whether the policy takes it (rule 7).

use super::Endpoint;
use crate::action::{Action, IkeSaId};
use crate::config::OnUnreachable;
use crate::path::StreamId;
use crate::time::Time;

impl Endpoint {
    /// One ESP packet came on a stream where the data plane does not take them yet, or may not.
    pub(super) fn esp_in_tcp(&mut self, now: Time, stream: StreamId, packet: Vec<u8>) {
        let owner = self.core.streams.get(stream).and_then(|stream| stream.owner);
        let Some(live) = owner.and_then(|owner| self.live.get_mut(&owner)) else {
            return self.core.counters.drop_esp_in_tcp("unknown_ike_sa");
        };
        let spi = packet.first_chunk().map(|spi| u32::from_be_bytes(*spi));
        // RFC 9329 section 5: a stream carries ESP of its own IKE SA.
        if !live.children.iter().any(|child| Some(child.spi_in) == spi) {
            return self.core.counters.drop_esp_in_tcp("unknown_spi");
        }
        match live.config.esp.on_unreachable {
            OnUnreachable::TcpFallback => {
                self.core.counters.esp_in_tcp_delivered += 1;
                self.core.accept_esp(stream, Some(live.id));
                self.core.actions.push_back(Action::DeliverEsp { stream, packet });
            }
            OnUnreachable::FailClosed => {
                self.core.counters.drop_esp_in_tcp("carrier_refused");
                let id = live.id;
                self.refused_esp_in_tcp(now, id);
            }
        }
    }

    /// A peer may move its ESP into TCP; this end may not follow. It verifies, and when no direct packet has come by the end of
    /// that, row 18 follows (rule 7).
    fn refused_esp_in_tcp(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get_mut(&id).filter(|live| live.is_open()) else { return };
        live.carrier.refused(now, &mut self.core.rng);
        live.carry_out(&mut self.core, now);
        self.touch(now, id);
    }
}
