//! ESP that arrives in TCP where the data plane does not open it yet: whose it is.

use super::Endpoint;
use crate::action::Action;
use crate::path::StreamId;

impl Endpoint {
    /// One ESP packet came on a stream. The data plane opens it, and those after it, whatever the policy: only what is
    /// authentic is the peer's word, and may be followed or start a verification (transport policy rules 5 and 7).
    pub(super) fn esp_in_tcp(&mut self, stream: StreamId, packet: Vec<u8>) {
        let owner = self.core.streams.get(stream).and_then(|stream| stream.owner);
        let Some(live) = owner.and_then(|owner| self.live.get_mut(&owner)) else {
            return self.core.counters.drop_esp_in_tcp("unknown_ike_sa");
        };
        let spi = packet.first_chunk().map(|spi| u32::from_be_bytes(*spi));
        // RFC 9329 section 5: a stream carries ESP of its own IKE SA.
        if !live.children.iter().any(|child| Some(child.spi_in) == spi) {
            return self.core.counters.drop_esp_in_tcp("unknown_spi");
        }
        self.core.counters.esp_in_tcp_delivered += 1;
        self.core.accept_esp(stream, Some(live.id));
        self.core.actions.push_back(Action::DeliverEsp { stream, packet });
    }
}
