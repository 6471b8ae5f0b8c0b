//! CREATE_CHILD_SA for the IKE SA itself (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2), both halves.

use core::time::Duration;

use super::dispatch::{After, Which};
use super::followup::{Agreed, SeriesStart};
use super::{Active, Generation, LiveSa, Outcome, Task};
use crate::codec::NotifyType;
use crate::crypto::ke::respond;
use crate::crypto::schedule::Context;
use crate::crypto::{KeInitiator, KeMethod, SharedSecret};
use crate::endpoint::core::Core;
use crate::event::{Event, KeyEvent};
use crate::sa::channel::Channel;
use crate::sa::children::Stage;
use crate::sa::error::ExchangeError;
use crate::sa::negotiate::{self, IkeChoice};
use crate::sa::payloads::{self, Out, Received};
use crate::time::Time;
use crate::transport::backoff::earlier;

/// The one that has rekeyed deletes the old SA; if it does not within this time, the other does.
const OLD_WAITS: Duration = Duration::from_secs(10);
/// After the peer has rekeyed, we send nothing on the new SA before it has shown that it has the keys, or this has passed.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// A CREATE_CHILD_SA of ours for the IKE SA that waits for its response.
pub(crate) struct RekeyIke {
    ke: KeInitiator,
    nonce: Vec<u8>,
    our_spi: u64,
    method_changes: u8,
}

impl RekeyIke {
    /// Our SPI for the new IKE SA.
    pub(super) fn our_spi(&self) -> u64 {
        self.our_spi
    }
}

/// What both sides have agreed on for the new IKE SA.
pub(super) struct IkeTerms {
    choice: IkeChoice,
    spi_i: u64,
    spi_r: u64,
    by_us: bool,
}

impl IkeTerms {
    /// Our SPI.
    pub(super) fn our_spi(&self) -> u64 {
        if self.by_us { self.spi_i } else { self.spi_r }
    }
}

/// The peer's rekey of the IKE SA, complete while ours is still under way.
pub(crate) struct ReplacedByPeer {
    generation: Box<Generation>,
    lowest_nonce: Vec<u8>,
}

impl ReplacedByPeer {
    /// The new keys.
    pub(super) fn generation(&self) -> Option<&Generation> {
        Some(&self.generation)
    }

    /// The new keys.
    pub(super) fn generation_mut(&mut self) -> Option<&mut Generation> {
        Some(&mut self.generation)
    }
}

impl LiveSa {
    /// Starts the exchange; `method` is what the peer asked for in INVALID_KE_PAYLOAD.
    pub(super) fn request_ike_rekey(
        &mut self,
        core: &mut Core,
        now: Time,
        method: Option<KeMethod>,
    ) -> Option<(Out, Active)> {
        let wanted = method.or(negotiate::first_ke_method(self.proposals()));
        let generated = wanted.map(|method| KeInitiator::generate(method, &mut core.rng));
        let Some(Ok((ke, data))) = generated else {
            self.ike_rekey_failed(now, ExchangeError::NoProposal);
            return None;
        };
        let our_spi = core.new_ike_spi(self.id);
        let nonce = core.nonce();
        let out = vec![
            payloads::sa(negotiate::offer_ike(self.proposals(), Some(our_spi))),
            payloads::nonce(nonce.clone()),
            payloads::ke(ke.method(), data),
        ];
        let method_changes = u8::from(method.is_some());
        Some((out, Active::RekeyIke(Box::new(RekeyIke { ke, nonce, our_spi, method_changes }))))
    }

    /// The response to ours.
    pub(super) fn ike_rekeyed(
        &mut self,
        core: &mut Core,
        now: Time,
        exchange: RekeyIke,
        received: &Received,
    ) {
        let RekeyIke { ke, nonce, our_spi, method_changes } = exchange;
        if let Some(error) = received.error() {
            core.spis.remove(&our_spi);
            return self.ike_rekey_refused(core, now, received, error, method_changes);
        }
        let agreed = received.init_parts().and_then(|(sa, answer, nonce_r)| {
            let (choice, peer_spi) = negotiate::accept_ike_rekey(sa, self.proposals())?;
            if choice.ke != ke.method() || answer.method != choice.ke.id() {
                return Err(ExchangeError::NotOffered);
            }
            let shared = ke.finish(&answer.data)?;
            Ok((IkeTerms { choice, spi_i: our_spi, spi_r: peer_spi, by_us: true }, nonce_r.clone(), shared))
        });
        match agreed {
            Ok((terms, nonce_r, shared)) => {
                let additional = terms.choice.additional.clone();
                let agreed = Agreed::Ike(Box::new(terms));
                let start = SeriesStart { agreed, nonce_i: nonce, nonce_r, shared: vec![shared], additional };
                self.continue_series(core, now, start, received);
            }
            Err(error) => {
                core.spis.remove(&our_spi);
                self.ike_rekey_failed(now, error);
                self.close(now, error.reason());
            }
        }
    }

    /// The peer's request.
    pub(super) fn answer_ike_rekey(
        &mut self,
        core: &mut Core,
        now: Time,
        which: Which,
        received: &Received,
    ) -> Result<(Out, After), (ExchangeError, Option<u32>)> {
        let plain = |error| (error, None);
        let is_busy = match &self.current.active {
            // RFC 7296 section 2.25.2, and RFC 9370 section 2.2.4 for a series of ours that is past its first exchange.
            Some(
                Active::CreateChild(_) | Active::DeleteChild(_) | Active::FollowUp(_) | Active::DeleteIke,
            ) => true,
            Some(Active::RekeyIke(_) | Active::Redirect(_) | Active::Liveness) | None => false,
        };
        if which != Which::Current || is_busy || self.closing.is_some() || self.replaced_by_peer.is_some() {
            return Err(plain(ExchangeError::Collision));
        }
        let (sa, ke, nonce_i) = received.init_parts().map_err(plain)?;
        let chosen = negotiate::choose_ike_rekey(sa, self.proposals());
        let (mut answer, choice, peer_spi) = chosen.ok_or(plain(ExchangeError::NoProposal))?;
        if ke.method != choice.ke.id() {
            return Err(plain(ExchangeError::WrongKeMethod(choice.ke)));
        }
        let (data, shared) =
            respond(choice.ke, &ke.data, &mut core.rng).map_err(|error| plain(error.into()))?;
        let our_spi = core.new_ike_spi(self.id);
        answer.spi = crate::codec::Spi::Ike(our_spi);
        let nonce_r = core.nonce();
        let mut out =
            vec![payloads::sa(vec![answer]), payloads::nonce(nonce_r.clone()), payloads::ke(choice.ke, data)];
        let additional = choice.additional.clone();
        let terms = IkeTerms { choice, spi_i: peer_spi, spi_r: our_spi, by_us: false };
        let agreed = Agreed::Ike(Box::new(terms));
        let start =
            SeriesStart { agreed, nonce_i: nonce_i.clone(), nonce_r, shared: vec![shared], additional };
        let (more, after) = self.answer_series(core, now, start);
        out.extend(more);
        Ok((out, after))
    }

    /// Our new keys are ready. If the peer has made some too, the SA with the lowest nonce is redundant, its creator
    /// deletes it, and the creator of the other deletes the old one (RFC 7296 section 2.8.2).
    pub(super) fn ike_ready(
        &mut self,
        core: &mut Core,
        now: Time,
        terms: IkeTerms,
        nonces: (&[u8], &[u8]),
        shared: &[SharedSecret],
    ) {
        let ours = self.new_generation(core, now, terms, nonces, shared);
        let lowest = nonces.0.min(nonces.1);
        match self.replaced_by_peer.take() {
            Some(theirs) if lowest < theirs.lowest_nonce.as_slice() => {
                self.adopt(core, now, *theirs.generation);
                self.previous.push(ours);
                let redundant = Which::Previous(self.previous.len() - 1);
                self.delete_generation(core, now, redundant);
            }
            theirs => {
                self.replace_current(core, now, ours, true);
                let old = Which::Previous(self.previous.len() - 1);
                self.delete_generation(core, now, old);
                if let Some(theirs) = theirs {
                    self.previous.push(Generation { renew_at: now + OLD_WAITS, ..*theirs.generation });
                }
            }
        }
    }

    /// The peer's new keys are ready, and the response is about to leave.
    pub(super) fn ike_answered(
        &mut self,
        core: &mut Core,
        now: Time,
        terms: IkeTerms,
        nonces: (&[u8], &[u8]),
        shared: &[SharedSecret],
    ) -> After {
        let generation = Box::new(self.new_generation(core, now, terms, nonces, shared));
        if matches!(self.current.active, Some(Active::RekeyIke(_))) {
            let lowest_nonce = nonces.0.min(nonces.1).to_vec();
            self.replaced_by_peer = Some(ReplacedByPeer { generation, lowest_nonce });
            return After::Nothing;
        }
        After::Adopt(generation)
    }

    /// The peer's keys take over; it deletes the old ones.
    pub(super) fn adopt(&mut self, core: &mut Core, now: Time, generation: Generation) {
        self.replace_current(core, now, generation, false);
        self.pause_until = Some(now + CONFIRMED_WITHIN);
    }

    /// The peer has deleted a generation.
    pub(super) fn generation_deleted_by_peer(&mut self, core: &mut Core, now: Time, which: Which) {
        if which == Which::Current
            && let Some(theirs) = self.replaced_by_peer.take()
        {
            // RFC 7296 section 2.25.2: our own rekeying request is forgotten.
            self.adopt(core, now, *theirs.generation);
        }
        self.confirm();
        let index = match which {
            Which::Previous(index) => index,
            _ => self.previous.len().saturating_sub(1),
        };
        if let Some(generation) = self.previous.get_mut(index) {
            // Kept a while, to answer a repeated DELETE.
            generation.renew_at = now + OLD_WAITS;
            let active = generation.active.take();
            generation.is_deleted = true;
            if let Some(active) = active {
                self.ask_again(core, active);
            }
        }
    }

    /// An exchange of ours was not answered on keys that are deleted: whether the peer has carried it out is not known, so it
    /// is asked for again on the new ones. A DELETE of what the peer has deleted is answered without it (RFC 7296 section
    /// 2.25.1).
    pub(super) fn ask_again(&mut self, core: &mut Core, active: Active) {
        let task = match &active {
            Active::CreateChild(exchange) => Some(exchange.task()),
            Active::FollowUp(exchange) => Some(exchange.task()),
            Active::DeleteChild(id) => {
                if let Some(child) = self.children.get_mut(*id).filter(|child| child.stage == Stage::Deleting)
                {
                    child.stage = Stage::Replaced;
                }
                Some(Task::DeleteChild(*id))
            }
            Active::Redirect(to) => Some(Task::Redirect(*to)),
            Active::RekeyIke(_) | Active::DeleteIke | Active::Liveness => None,
        };
        self.abandon(core, active);
        if let Some(task) = task {
            self.want(task);
        }
    }

    /// The peer has the current keys.
    pub(super) fn confirm(&mut self) {
        if !core::mem::replace(&mut self.current.is_confirmed, true) {
            self.pause_until = None;
        }
    }

    /// Our DELETE of a generation was answered.
    pub(super) fn generation_deleted(&mut self, core: &mut Core, which: Which) {
        match which {
            Which::Previous(index) if index < self.previous.len() => {
                let generation = self.previous.remove(index);
                core.spis.remove(&generation.channel.our_spi());
            }
            _ => {
                let reason = self.closing.map_or(crate::status::Reason::None, |(reason, _)| reason);
                self.end(reason);
            }
        }
    }

    pub(super) fn ike_rekey_failed(&mut self, now: Time, error: ExchangeError) {
        // The keys that there are serve until their hard lifetime; try again before.
        self.current.renew_at = now + self.config.ike.retry_max;
        self.outcomes.push(Outcome::IkeRekeyFailed { detail: error.to_string() });
    }

    /// Either side is rekeying the IKE SA.
    pub(super) fn is_rekeying_ike(&self) -> bool {
        let ours = match &self.current.active {
            Some(Active::RekeyIke(_)) => true,
            Some(Active::FollowUp(active)) => active.is_for_ike(),
            _ => false,
        };
        ours || self.replaced_by_peer.is_some() || self.peer_rekeys_ike()
    }

    fn ike_rekey_refused(
        &mut self,
        core: &mut Core,
        now: Time,
        received: &Received,
        error: NotifyType,
        method_changes: u8,
    ) {
        if let Some(theirs) = self.replaced_by_peer.take() {
            return self.adopt(core, now, *theirs.generation);
        }
        let wanted = received.first(NotifyType::INVALID_KE_PAYLOAD).filter(|_| method_changes == 0);
        let method = wanted.and_then(|notify| <[u8; 2]>::try_from(notify.data.as_slice()).ok());
        let method = method.and_then(|id| KeMethod::from_id(u16::from_be_bytes(id)));
        if let Some(method) = method
            && negotiate::offers_ke(self.proposals(), method)
        {
            if let Some((out, active)) = self.request_ike_rekey(core, now, Some(method)) {
                self.send_request(core, now, out, active);
            }
        } else if error == NotifyType::TEMPORARY_FAILURE {
            self.try_again_later(core, now, Task::RekeyIke);
        } else {
            self.ike_rekey_failed(now, ExchangeError::Peer(error));
        }
    }

    fn replace_current(&mut self, core: &mut Core, now: Time, generation: Generation, by_us: bool) {
        let algorithms = generation.choice.notation.to_string();
        let mut old = core::mem::replace(&mut self.current, generation);
        old.renew_at = now + OLD_WAITS;
        if matches!(old.active, Some(Active::RekeyIke(_)))
            && let Some(active) = old.active.take()
        {
            self.abandon(core, active);
        }
        self.previous.push(old);
        self.expires_at = now + self.config.ike.lifetime;
        self.queue.retain(|task| *task != Task::RekeyIke);
        core.event(Event::IkeRekeyed {
            connection: self.config.name.clone(),
            ike_sa: self.id,
            by_us,
            algorithms,
        });
        self.outcomes.push(Outcome::IkeRekeyed);
    }

    fn new_generation(
        &mut self,
        core: &mut Core,
        now: Time,
        terms: IkeTerms,
        nonces: (&[u8], &[u8]),
        shared: &[SharedSecret],
    ) -> Generation {
        let IkeTerms { choice, spi_i, spi_r, by_us } = terms;
        let context = Context { nonce_i: nonces.0, nonce_r: nonces.1, spi_i, spi_r };
        let keys = self.current.keys.rekey(choice.suite, context, shared);
        if core.config.key_log {
            core.event(Event::Keys(KeyEvent::Ike {
                spis: (spi_i, spi_r),
                generation: 0,
                encryption: choice.suite.aead.label(),
                sk_ei: keys.sk_e(true).expose().to_vec().into(),
                sk_er: keys.sk_e(false).expose().to_vec().into(),
            }));
        }
        let ike = &self.config.ike;
        Generation {
            channel: Channel::new(spi_i, spi_r, by_us),
            keys,
            choice,
            active: None,
            made: now,
            renew_at: now + earlier(ike.rekey_after, ike.rekey_jitter_percent, &mut core.rng),
            is_deleted: false,
            is_confirmed: by_us,
        }
    }
}
