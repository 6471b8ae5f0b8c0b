//! INFORMATIONAL: DELETE and liveness (RFC 7296 sections 1.4, 2.4 and 2.25), both halves.

use super::dispatch::{After, Which};
use super::{Active, LiveSa};
use crate::action::ChildId;
use crate::codec::{Delete, NotifyType, ProtocolId};
use crate::endpoint::core::Core;
use crate::sa::children::{Outbound, Stage};
use crate::sa::payloads::{self, Out, Received};
use crate::status::Reason;
use crate::time::Time;

/// Most pairs of which a DELETE is remembered that came before they did.
const MOST_EARLY: usize = 8;

impl LiveSa {
    /// DELETE of a pair, if there still is something to delete.
    pub(super) fn request_delete_child(
        &mut self,
        core: &mut Core,
        now: Time,
        id: ChildId,
    ) -> Option<(Out, Active)> {
        let child = self.children.get(id).filter(|child| child.exists() && child.stage != Stage::Deleting)?;
        let spi = child.spi_in;
        if child.outbound == Outbound::InUse
            && let Some(other) = self.successor(id).or_else(|| self.twin(id))
        {
            // What is sent from here on has to reach a pair that stays.
            self.use_outbound(core, now, other);
        }
        self.children.get_mut(id)?.stage = Stage::Deleting;
        Some((vec![payloads::delete_children(vec![spi])], Active::DeleteChild(id)))
    }

    /// The response to our DELETE of a pair.
    pub(super) fn child_deleted(&mut self, core: &mut Core, now: Time, id: ChildId) {
        self.retire(core, now, id);
    }

    /// The peer's request: every DELETE in it, or none at all, which asks whether we live.
    pub(super) fn respond_to_informational(
        &mut self,
        core: &mut Core,
        now: Time,
        which: Which,
        received: &Received,
    ) -> (Out, After) {
        if received.has(NotifyType::AUTHENTICATION_FAILED) {
            // RFC 7296 section 2.21.2: the initiator could not verify our AUTH.
            return (Out::new(), After::End(Reason::AuthenticationFailed));
        }
        self.note_redirect(received);
        self.note_auth_lifetime(now, received, &mut core.rng);
        let mut answered = Vec::new();
        for delete in &received.deletes {
            match delete {
                Delete::Ike => return (Out::new(), self.peer_deletes_ike(which)),
                Delete::Child { protocol: ProtocolId::ESP, spis } => {
                    answered.extend(spis.iter().filter_map(|spi| self.peer_deletes_child(core, now, *spi)));
                }
                Delete::Child { .. } => {}
            }
        }
        let out = if answered.is_empty() { Out::new() } else { vec![payloads::delete_children(answered)] };
        (out, After::Nothing)
    }

    fn peer_deletes_ike(&self, which: Which) -> After {
        match which {
            Which::Current if self.replaced_by_peer.is_none() => After::End(Reason::PeerDeleted),
            _ => After::GenerationDeleted,
        }
    }

    /// The SPI for our half of the answer; none if we are deleting the pair ourselves (RFC 7296 section 1.4.1).
    fn peer_deletes_child(&mut self, core: &mut Core, now: Time, spi: u32) -> Option<u32> {
        let Some(child) = self.children.by_peer_spi(spi) else {
            if self.awaits_child() && self.deleted_early.len() < MOST_EARLY {
                self.deleted_early.push(spi);
            }
            return None;
        };
        let (id, spi_in, stage) = (child.id, child.spi_in, child.stage);
        self.retire(core, now, id);
        (stage != Stage::Deleting).then_some(spi_in)
    }
}
