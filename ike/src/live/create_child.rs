//! CREATE_CHILD_SA for a new pair, or one that replaces another (RFC 7296 sections 1.3.1, 1.3.3, 2.8), both halves.

use std::sync::Arc;

use super::dispatch::{After, Which};
use super::followup::{Agreed, SeriesStart};
use super::{Active, LiveSa, Outcome, Task};
use crate::action::ChildId;
use crate::codec::{NotifyType, covers};
use crate::config::ChildConfig;
use crate::crypto::ke::respond;
use crate::crypto::{KeInitiator, KeMethod};
use crate::endpoint::core::Core;
use crate::event::Event;
use crate::sa::child_offer::{ChildAnswer, ChildOffer, ChildTerms, NewChild, rekeyed_spi};
use crate::sa::children::{Child, Outbound, Stage};
use crate::sa::error::ExchangeError;
use crate::sa::payloads::{self, Out, Received};
use crate::status::Reason;
use crate::time::Time;

/// A CREATE_CHILD_SA of ours that waits for its response.
pub(crate) struct CreateChild {
    offer: ChildOffer,
    nonce: Vec<u8>,
    ke: Option<KeInitiator>,
    method_changes: u8,
}

impl CreateChild {
    /// The configured child.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.offer.config.name
    }

    /// The pair that it is to replace.
    pub(crate) fn replaces(&self) -> Option<ChildId> {
        self.offer.replaces
    }

    /// What it is for.
    pub(super) fn task(&self) -> Task {
        self.replaces().map_or_else(|| Task::CreateChild(self.name().clone()), Task::RekeyChild)
    }

    /// Our SPI.
    pub(crate) fn spi_in(&self) -> u32 {
        self.offer.spi_in
    }

    fn payloads(&self, ke_data: Option<Vec<u8>>, peer_knows_as: Option<u32>) -> Out {
        let mut out = Out::new();
        out.extend(peer_knows_as.map(|spi| payloads::notify_child(NotifyType::REKEY_SA, spi)));
        out.push(self.offer.sa());
        out.push(payloads::nonce(self.nonce.clone()));
        if let (Some(ke), Some(data)) = (&self.ke, ke_data) {
            out.push(payloads::ke(ke.method(), data));
        }
        out.extend(self.offer.selectors());
        out.extend(self.offer.resource());
        out
    }
}

impl LiveSa {
    /// Starts the exchange; `method` is what the peer asked for in INVALID_KE_PAYLOAD.
    pub(super) fn request_child(
        &mut self,
        core: &mut Core,
        config: Arc<ChildConfig>,
        replaces: Option<ChildId>,
        method: Option<(KeMethod, u8)>,
    ) -> Option<(Out, Active)> {
        let name = config.name.clone();
        let Some(spi_in) = core.spi_source.allocate() else {
            if !self.does_without_resource(core, &name, replaces) {
                self.child_failed(core, name, ExchangeError::Full);
            }
            return None;
        };
        let peer_knows_as = replaces.and_then(|id| self.children.get(id)).map(|child| child.spi_in);
        // A rekey is not for a packet, but for all that the pair carries.
        let packet = core.packet_for(&self.config.name, &config.name).filter(|_| replaces.is_none());
        let offer = ChildOffer { config, spi_in, replaces, packet, with_ke: true };
        let wanted = method.map(|(method, _)| method).or(offer.first_ke_method());
        let (ke, ke_data) = match wanted.map(|method| KeInitiator::generate(method, &mut core.rng)) {
            None => (None, None),
            Some(Ok((ke, data))) => (Some(ke), Some(data)),
            Some(Err(error)) => {
                core.spi_source.release(spi_in);
                self.child_failed(core, name, error.into());
                return None;
            }
        };
        let method_changes = method.map_or(0, |(_, changes)| changes);
        let exchange = CreateChild { offer, nonce: core.nonce(), ke, method_changes };
        let out = exchange.payloads(ke_data, peer_knows_as);
        Some((out, Active::CreateChild(Box::new(exchange))))
    }

    /// The response to ours.
    pub(super) fn child_created(
        &mut self,
        core: &mut Core,
        now: Time,
        exchange: CreateChild,
        received: &Received,
    ) {
        let CreateChild { offer, nonce, ke, method_changes } = exchange;
        let (name, replaces, spi_in) = (offer.config.name.clone(), offer.replaces, offer.spi_in);
        if let Some(wanted) = received.first(NotifyType::INVALID_KE_PAYLOAD) {
            core.spi_source.release(spi_in);
            let method = <[u8; 2]>::try_from(wanted.data.as_slice()).ok().map(u16::from_be_bytes);
            let method = method.and_then(KeMethod::from_id).filter(|_| method_changes == 0);
            match method
                .and_then(|method| self.request_child(core, offer.config, replaces, Some((method, 1))))
            {
                Some((out, active)) => self.send_request(core, now, out, active),
                None => self.child_failed(core, name, ExchangeError::Peer(NotifyType::INVALID_KE_PAYLOAD)),
            }
            return;
        }
        if offer.resource().is_some()
            && received.error().is_none()
            && !received.has(NotifyType::SA_RESOURCE_INFO)
        {
            // The peer knows nothing of resources: what it has made is deleted when it is there.
            self.no_more_resources = true;
        }
        let agreed = received.nonce.clone().ok_or(ExchangeError::Payloads("Nonce is missing"));
        let agreed = offer.answered(received).and_then(|terms| Ok((terms, agreed?)));
        let finished = agreed.and_then(|(terms, nonce_r)| {
            let shared = match (&terms.choice.ke, ke) {
                (None, _) => Vec::new(),
                (Some(method), Some(ke)) if ke.method() == *method => {
                    let answer = received.ke.as_ref().filter(|answer| answer.method == method.id());
                    let answer = answer.ok_or(ExchangeError::Payloads("KE is missing"))?;
                    vec![ke.finish(&answer.data)?]
                }
                _ => return Err(ExchangeError::NotOffered),
            };
            Ok((terms, nonce_r, shared))
        });
        match finished {
            Ok((terms, nonce_r, shared)) => {
                let additional = terms.choice.additional.clone();
                let agreed = Agreed::Child(Box::new(terms));
                let start = SeriesStart { agreed, nonce_i: nonce, nonce_r, shared, additional };
                self.continue_series(core, now, start, received);
            }
            Err(error) => {
                core.spi_source.release(spi_in);
                self.child_refused(core, now, name, replaces, error);
                if error == ExchangeError::KeyExchange {
                    // draft-ietf-ipsecme-ikev2-mlkem: a ciphertext that fails its check ends the IKE SA.
                    self.close(now, error.reason());
                    self.start_next(core, now);
                }
            }
        }
    }

    /// A pair of our own exchange is ready: of two that replace the same one, the one with the lowest nonce goes, and its
    /// initiator deletes it (RFC 7296 section 2.8.1).
    pub(super) fn child_ready(&mut self, core: &mut Core, now: Time, new: NewChild) {
        let (by_us, spi_out) = (new.terms.by_us, new.terms.spi_out);
        let id = self.child_installed(core, now, new);
        if by_us && core::mem::take(&mut self.deleted_early).contains(&spi_out) {
            self.retire(core, now, id);
        }
    }

    fn child_installed(&mut self, core: &mut Core, now: Time, new: NewChild) -> ChildId {
        let replaces = new.terms.replaces;
        let by_us = new.terms.by_us;
        let old_is_there = replaces.and_then(|old| self.children.get(old)).is_some_and(|old| old.exists());
        let is_unwanted = by_us && new.terms.config.resource > 0 && self.no_more_resources;
        let id = self.install(core, now, new);
        let Some(old) = replaces else {
            if is_unwanted {
                self.want(Task::DeleteChild(id));
            } else {
                self.use_outbound(core, now, id);
                self.settle_twins(id);
            }
            return id;
        };
        let ours = self.children.get(id).map(|child| child.lowest_nonce.clone()).unwrap_or_default();
        if !by_us {
            if self.is_under_way(&Task::RekeyChild(old)) {
                self.rival = Some((old, ours));
            }
            // Traffic follows when the peer uses it, or deletes the old one.
            if !old_is_there {
                self.use_outbound(core, now, id);
            }
            self.settle_twins(id);
            return id;
        }
        let rival = self.rival.take().filter(|(same, _)| *same == old);
        if self.is_narrower(id, old) {
            self.keep_old(core, now, old, id);
            return id;
        }
        let wins = rival.is_none_or(|(_, theirs)| ours > theirs);
        // The pair that is redundant waits for the DELETE of its initiator; nothing else is done with it.
        for child in self.children.iter_mut() {
            let is_of_both = child.replaces == Some(old) && child.stage == Stage::Live;
            if is_of_both && child.made_by_us != wins {
                child.stage = Stage::Replaced;
            }
        }
        if wins {
            self.use_outbound(core, now, id);
            if old_is_there {
                self.want(Task::DeleteChild(old));
            }
        } else {
            self.want(Task::DeleteChild(id));
        }
        id
    }

    /// RFC 7296 section 2.9.2: "the new SA MUST NOT have narrower selectors than the original".
    fn is_narrower(&self, new: ChildId, old: ChildId) -> bool {
        let pair = self.children.get(new).zip(self.children.get(old));
        pair.is_some_and(|(new, old)| {
            !covers(&new.local_ts, &old.local_ts) || !covers(&new.remote_ts, &old.remote_ts)
        })
    }

    /// The peer's answer is no replacement: it is deleted, and the pair that it was to replace serves on, until it can be
    /// rekeyed or its lifetime ends.
    fn keep_old(&mut self, core: &mut Core, now: Time, old: ChildId, new: ChildId) {
        let retry = self.config.ike.retry_max;
        if let Some(old) = self.children.get_mut(old).filter(|old| old.stage == Stage::Replaced) {
            old.stage = Stage::Live;
            old.rekey_at = now + retry;
        }
        if let Some(new) = self.children.get_mut(new) {
            new.stage = Stage::Replaced;
            let name = new.name.clone();
            self.child_failed(core, name, ExchangeError::Selectors);
        }
        self.want(Task::DeleteChild(new));
    }

    /// Both ends asked for the same child at once: of the two pairs the one with the lowest nonce goes, as for rekeys, and
    /// its initiator deletes it. If one of them has been rekeyed meanwhile, or its end is about to, the other goes: the two ends
    /// may not have seen the same nonces. How long ago the other one was made does not matter: a request may have been under way
    /// for as long as there was no stream.
    fn settle_twins(&mut self, id: ChildId) {
        let Some(new) = self.children.get(id) else { return };
        let is_rival =
            |other: &&Child| other.is_live() && other.name == new.name && other.made_by_us != new.made_by_us;
        let Some(other) = self.children.iter().find(is_rival) else { return };
        let is_rekeyed = |child: &Child| {
            child.replaces.is_some() || child.made_by_us && self.is_under_way(&Task::RekeyChild(child.id))
        };
        let loser = match (is_rekeyed(new), is_rekeyed(other)) {
            (true, true) => return,
            (true, false) => other,
            (false, true) => new,
            (false, false) if new.lowest_nonce < other.lowest_nonce => new,
            (false, false) => other,
        };
        if loser.made_by_us {
            self.want(Task::DeleteChild(loser.id));
        }
    }

    fn child_refused(
        &mut self,
        core: &mut Core,
        now: Time,
        name: Arc<str>,
        replaces: Option<ChildId>,
        error: ExchangeError,
    ) {
        self.deleted_early.clear();
        self.rival = None;
        match (error, replaces) {
            (ExchangeError::Peer(NotifyType::TEMPORARY_FAILURE), _) => {
                let task = replaces.map_or(Task::CreateChild(name), Task::RekeyChild);
                self.try_again_later(core, now, task);
            }
            (ExchangeError::Peer(NotifyType::CHILD_SA_NOT_FOUND), Some(old)) => {
                // RFC 7296 section 2.25: the peer has no such pair. Unless it has replaced or deleted it itself, it is gone.
                if self.children.get(old).is_some_and(|child| child.stage == Stage::Live) {
                    self.retire(core, now, old);
                    self.want(Task::CreateChild(name));
                }
            }
            _ if self.does_without_resource(core, &name, replaces) => {}
            _ => {
                if let Some(old) = replaces.and_then(|old| self.children.get_mut(old)) {
                    // It keeps working until its hard lifetime; try again before.
                    old.rekey_at = now + self.config.ike.retry_max;
                }
                self.child_failed(core, name, error);
            }
        }
    }

    /// A Child SA for a further resource could not be made, because of TS_MAX_QUEUE, NO_ADDITIONAL_SAS or anything else (RFC 9611):
    /// what there is serves, and no more are asked for on this IKE SA.
    pub(super) fn does_without_resource(
        &mut self,
        core: &mut Core,
        name: &str,
        replaces: Option<ChildId>,
    ) -> bool {
        let is_further = self.child_config(name).is_some_and(|config| config.resource > 0);
        if is_further && replaces.is_none() {
            core.reject("resource_refused");
            self.no_more_resources = true;
        }
        is_further && replaces.is_none()
    }

    pub(super) fn child_failed(&mut self, core: &mut Core, name: Arc<str>, error: ExchangeError) {
        let (reason, detail) = (error.reason(), error.to_string());
        core.event(Event::ChildFailed {
            connection: self.config.name.clone(),
            child_name: name.clone(),
            reason,
            detail: detail.clone(),
        });
        self.outcomes.push(Outcome::ChildFailed { name, reason, detail });
    }

    /// The peer's request. A proposal for IKE rekeys the IKE SA itself (RFC 7296 section 1.3.2).
    pub(super) fn respond_to_create(
        &mut self,
        core: &mut Core,
        now: Time,
        which: Which,
        received: &Received,
    ) -> (Out, After) {
        let is_for_ike = received
            .sa
            .as_ref()
            .and_then(|sa| sa.first())
            .is_some_and(|proposal| proposal.protocol == crate::codec::ProtocolId::IKE);
        let answered = match is_for_ike {
            true => self.answer_ike_rekey(core, now, which, received),
            false => self.answer_child(core, now, which, received),
        };
        answered.unwrap_or_else(|(error, spi)| self.refuse(core, error, spi))
    }

    fn answer_child(
        &mut self,
        core: &mut Core,
        now: Time,
        which: Which,
        received: &Received,
    ) -> Result<(Out, After), (ExchangeError, Option<u32>)> {
        let plain = |error| (error, None);
        if which != Which::Current || self.closing.is_some() || self.is_rekeying_ike() {
            return Err(plain(ExchangeError::Collision));
        }
        if self.children.iter().filter(|child| child.exists()).count() >= core.config.max_children {
            return Err(plain(ExchangeError::Full));
        }
        if self.lacks_key_exchanges() {
            return Err(plain(ExchangeError::Policy(Reason::NoProposalChosen)));
        }
        let nonce_i = received.nonce().map_err(plain)?.clone();
        let replaces = match rekeyed_spi(received).map_err(plain)? {
            None => None,
            Some(spi) => {
                let old =
                    self.children.by_peer_spi(spi).map(|child| (child.id, child.name.clone(), child.stage));
                let unknown = match self.awaits_child() {
                    // Over UDP the request can overtake the response that made the pair.
                    true => plain(ExchangeError::Collision),
                    false => (ExchangeError::NoSuchChild, Some(spi)),
                };
                let (id, name, stage) = old.ok_or(unknown)?;
                let is_leaving = stage != Stage::Live || self.queue.contains(&Task::DeleteChild(id));
                if is_leaving || self.is_following_up(id) {
                    return Err(plain(ExchangeError::Collision));
                }
                Some((id, name))
            }
        };
        let replaced = replaces.as_ref().map(|(id, name)| (*id, &**name));
        let number = received.first(NotifyType::SA_RESOURCE_INFO);
        let number =
            number.and_then(|notify| <[u8; 4]>::try_from(&*notify.data).ok()).map(u32::from_be_bytes);
        let answer = ChildAnswer::choose(received, &self.child_configs, replaced, true, |config| {
            self.rank_of_resource(config, number)
        });
        let answer = answer.map_err(plain)?;
        let mut ke_payload = None;
        let mut shared = Vec::new();
        if let Some(method) = answer.choice().ke {
            let ke = received.ke.as_ref().filter(|ke| ke.method == method.id());
            let ke = ke.ok_or(plain(ExchangeError::WrongKeMethod(method)))?;
            let (data, secret) =
                respond(method, &ke.data, &mut core.rng).map_err(|error| plain(error.into()))?;
            ke_payload = Some(payloads::ke(method, data));
            shared.push(secret);
        }
        let spi_in = core.spi_source.allocate().ok_or(plain(ExchangeError::Full))?;
        let (sa, selectors, terms) = answer.accept(spi_in);
        let nonce_r = core.nonce();
        let mut out = vec![sa, payloads::nonce(nonce_r.clone())];
        out.extend(ke_payload);
        out.extend(selectors);
        let additional = terms.choice.additional.clone();
        let agreed = Agreed::Child(Box::new(terms));
        let start = SeriesStart { agreed, nonce_i, nonce_r, shared, additional };
        let (more, after) = self.answer_series(core, now, start);
        out.extend(more);
        Ok((out, after))
    }

    /// Whether the peer, which asks for a further Child SA with this number in it, can have that of this resource (RFC 9611). The
    /// number means something to its sender only, but if it is one of these children, both ends of them should: of two that cross,
    /// each end then finds the other to be the same child's.
    fn rank_of_resource(&self, config: &ChildConfig, number: Option<u32>) -> Option<u8> {
        let is_named = number == Some(config.resource.into());
        let crosses = |child: &Child| is_named && child.made_by_us && child.replaces.is_none();
        let is_free = self.children.live(&config.name).is_none_or(crosses) && !self.makes_child(&config.name);
        is_free.then_some(u8::from(!is_named))
    }

    /// A response is due that may make a pair.
    pub(super) fn awaits_child(&self) -> bool {
        matches!(self.current.active, Some(Active::CreateChild(_) | Active::FollowUp(_)))
    }

    /// The keys of a pair, from the generation that its exchange ran on.
    pub(super) fn key_child(
        &self,
        terms: ChildTerms,
        nonces: (&[u8], &[u8]),
        shared: &[crate::crypto::SharedSecret],
    ) -> NewChild {
        terms.keyed(&self.current.keys, nonces.0, nonces.1, shared)
    }

    /// The peer's packets arrive on a pair that replaced another: it uses it, so we do.
    pub(crate) fn peer_uses(&mut self, core: &mut Core, now: Time, id: ChildId) {
        let Some(child) = self.children.get(id) else { return };
        let follows = child.is_live() && child.outbound == Outbound::Standby && !child.made_by_us;
        if let (true, Some(old)) = (follows, child.replaces)
            && self.successor(old) == Some(id)
        {
            self.use_outbound(core, now, id);
        }
    }
}
