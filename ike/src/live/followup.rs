//! IKE_FOLLOWUP_KE: the additional key exchanges of a CREATE_CHILD_SA, one exchange each (RFC 9370 section 2.2.4), both
//! halves. A CREATE_CHILD_SA without any is a series of length zero.

use core::time::Duration;

use rand_core::Rng as _;

use super::dispatch::After;
use super::rekey_ike::IkeTerms;
use super::{Active, LiveSa, Task};
use crate::action::ChildId;
use crate::codec::NotifyType;
use crate::crypto::ke::respond;
use crate::crypto::{KeInitiator, KeMethod, SharedSecret};
use crate::endpoint::core::Core;
use crate::sa::child_offer::ChildTerms;
use crate::sa::error::ExchangeError;
use crate::sa::payloads::{self, Out, Received};
use crate::status::Reason;
use crate::time::Time;

/// A responder waits this long for the next exchange of a series (RFC 9370 section 2.2.4: 5 to 20 s).
const SERIES_WAIT: Duration = Duration::from_secs(20);
/// A series that the peer forgets this often in a row ends the IKE SA (RFC 9370 section 2.2.4: after several retries).
const MOST_RETRIES: u32 = 4;
/// Most series that a peer may have under way.
const MOST_SERIES: usize = 4;

/// What a CREATE_CHILD_SA has agreed on.
pub(super) enum Agreed {
    /// A pair of Child SAs.
    Child(Box<ChildTerms>),
    /// An IKE SA in place of this one.
    Ike(Box<IkeTerms>),
}

/// A CREATE_CHILD_SA with the key exchanges that are still to come.
pub(super) struct SeriesStart {
    pub(super) agreed: Agreed,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: Vec<u8>,
    /// SK(0) and so on, as far as they exist.
    pub(super) shared: Vec<SharedSecret>,
    /// The methods that are left.
    pub(super) additional: Vec<KeMethod>,
}

/// An IKE_FOLLOWUP_KE of ours that waits for its response.
pub(crate) struct FollowUp {
    series: SeriesStart,
    ke: KeInitiator,
}

/// A series of the peer, whose next exchange we wait for.
pub(crate) struct PendingSeries {
    series: SeriesStart,
    link: [u8; 8],
    expires: Time,
}

impl SeriesStart {
    /// The pair that it is to replace.
    fn replaces(&self) -> Option<ChildId> {
        match &self.agreed {
            Agreed::Child(terms) => terms.replaces,
            Agreed::Ike(_) => None,
        }
    }

    fn is_for_ike(&self) -> bool {
        matches!(self.agreed, Agreed::Ike(_))
    }

    /// What it is for.
    fn task(&self) -> Task {
        match &self.agreed {
            Agreed::Ike(_) => Task::RekeyIke,
            Agreed::Child(terms) => match terms.replaces {
                Some(old) => Task::RekeyChild(old),
                None => Task::CreateChild(terms.config.name.clone()),
            },
        }
    }

    fn lowest_nonce(&self) -> &[u8] {
        (&self.nonce_i).min(&self.nonce_r)
    }

    /// It makes what `other` makes.
    fn collides_with(&self, other: &Self) -> bool {
        match (self.is_for_ike(), other.is_for_ike()) {
            (true, true) => true,
            (false, false) => self.replaces().is_some() && self.replaces() == other.replaces(),
            _ => false,
        }
    }

    fn release(self, core: &mut Core) {
        match self.agreed {
            Agreed::Child(terms) => core.spi_source.release(terms.spi_in),
            Agreed::Ike(terms) => {
                core.spis.remove(&terms.our_spi());
            }
        }
    }
}

impl FollowUp {
    /// It rekeys the IKE SA.
    pub(crate) fn is_for_ike(&self) -> bool {
        self.series.is_for_ike()
    }

    /// The pair that it is to replace.
    pub(crate) fn replaces(&self) -> Option<ChildId> {
        self.series.replaces()
    }

    /// What it is for.
    pub(super) fn task(&self) -> Task {
        self.series.task()
    }

    /// Gives back what it holds.
    pub(super) fn release(self, core: &mut Core) {
        self.series.release(core);
    }
}

impl LiveSa {
    /// An exchange of ours has been answered: the next one of its series, or its end.
    pub(super) fn continue_series(
        &mut self,
        core: &mut Core,
        now: Time,
        series: SeriesStart,
        received: &Received,
    ) {
        let Some((method, rest)) =
            series.additional.split_first().map(|(first, rest)| (*first, rest.to_vec()))
        else {
            return self.complete_ours(core, now, series);
        };
        if let Some(index) = self.series.iter().position(|pending| pending.series.collides_with(&series)) {
            // RFC 9370 section 2.2.4: nothing exists yet that could be deleted, so the one with the lowest nonce stops.
            let theirs_is_lower = self
                .series
                .get(index)
                .is_some_and(|pending| pending.series.lowest_nonce() < series.lowest_nonce());
            if !theirs_is_lower {
                return series.release(core);
            }
            self.series.swap_remove(index).series.release(core);
        }
        let link = received.first(NotifyType::ADDITIONAL_KEY_EXCHANGE).map(|notify| notify.data.clone());
        let (Some(link), Ok((ke, data))) = (link, KeInitiator::generate(method, &mut core.rng)) else {
            return self.series_failed(
                core,
                now,
                series,
                ExchangeError::Payloads("ADDITIONAL_KEY_EXCHANGE is missing"),
            );
        };
        let out = vec![
            payloads::ke(method, data),
            payloads::notify_with(NotifyType::ADDITIONAL_KEY_EXCHANGE, link),
        ];
        let series = SeriesStart { additional: rest, ..series };
        self.send_request(core, now, out, Active::FollowUp(Box::new(FollowUp { series, ke })));
    }

    /// The response to an IKE_FOLLOWUP_KE of ours.
    pub(super) fn followed_up(
        &mut self,
        core: &mut Core,
        now: Time,
        exchange: FollowUp,
        received: &Received,
    ) {
        let FollowUp { mut series, ke } = exchange;
        if let Some(error) = received.error() {
            return self.series_failed(core, now, series, ExchangeError::Peer(error));
        }
        let answer = received.ke.as_ref().filter(|answer| answer.method == ke.method().id());
        let shared = match answer {
            Some(answer) => ke.finish(&answer.data).map_err(ExchangeError::from),
            None => Err(ExchangeError::Payloads("KE is missing")),
        };
        match shared {
            Ok(shared) => {
                series.shared.push(shared);
                self.continue_series(core, now, series, received);
            }
            Err(error) => {
                // draft-ietf-ipsecme-ikev2-mlkem: a ciphertext that fails its check ends the IKE SA.
                self.series_failed(core, now, series, error);
                self.close(now, error.reason());
                self.start_next(core, now);
            }
        }
    }

    /// The peer's CREATE_CHILD_SA has been agreed to: its keys now, or a link to its next exchange.
    pub(super) fn answer_series(&mut self, core: &mut Core, now: Time, series: SeriesStart) -> (Out, After) {
        if series.additional.is_empty() {
            return (Out::new(), self.complete_theirs(core, now, series));
        }
        if self.series.len() >= MOST_SERIES {
            self.series.remove(0).series.release(core);
        }
        let mut link = [0; 8];
        core.rng.fill_bytes(&mut link);
        self.series.push(PendingSeries { series, link, expires: now + SERIES_WAIT });
        (vec![payloads::notify_with(NotifyType::ADDITIONAL_KEY_EXCHANGE, link.to_vec())], After::Nothing)
    }

    /// An IKE_FOLLOWUP_KE of the peer.
    pub(super) fn respond_to_followup(
        &mut self,
        core: &mut Core,
        now: Time,
        received: &Received,
    ) -> (Out, After) {
        let link = received.first(NotifyType::ADDITIONAL_KEY_EXCHANGE).map(|notify| notify.data.as_slice());
        let index = self.series.iter().position(|pending| Some(pending.link.as_slice()) == link);
        let Some(index) = index else { return self.refuse(core, ExchangeError::NoSuchKeyExchange, None) };
        let mut series = self.series.swap_remove(index).series;
        let method = series.additional.first().copied();
        let ke = received.ke.as_ref().filter(|ke| method.is_some_and(|method| method.id() == ke.method));
        let answered = match (method, ke) {
            (Some(method), Some(ke)) => respond(method, &ke.data, &mut core.rng)
                .map(|answer| (method, answer))
                .map_err(ExchangeError::from),
            _ => Err(ExchangeError::Payloads("KE of the method that was negotiated is missing")),
        };
        match answered {
            Ok((method, (data, shared))) => {
                series.additional.remove(0);
                series.shared.push(shared);
                let mut out = vec![payloads::ke(method, data)];
                let (more, after) = self.answer_series(core, now, series);
                out.extend(more);
                (out, after)
            }
            Err(error) => {
                series.release(core);
                self.refuse(core, error, None)
            }
        }
    }

    /// A series of the peer's is about to make a pair of this child.
    pub(super) fn makes_child(&self, name: &str) -> bool {
        self.series.iter().any(
            |pending| matches!(&pending.series.agreed, Agreed::Child(terms) if *terms.config.name == *name),
        )
    }

    /// Our exchange for this pair is past its CREATE_CHILD_SA (RFC 9370 section 2.2.4: TEMPORARY_FAILURE).
    pub(super) fn is_following_up(&self, child: ChildId) -> bool {
        matches!(&self.current.active, Some(Active::FollowUp(active)) if active.replaces() == Some(child))
    }

    /// The peer is in the middle of rekeying the IKE SA.
    pub(super) fn peer_rekeys_ike(&self) -> bool {
        self.series.iter().any(|pending| pending.series.is_for_ike())
    }

    /// Series that the peer did not continue are dropped.
    pub(super) fn expire_series(&mut self, core: &mut Core, now: Time) {
        let expired: Vec<_> = self.series.extract_if(.., |pending| pending.expires <= now).collect();
        for pending in expired {
            pending.series.release(core);
        }
    }

    /// Those that make pairs of this child are dropped: the peer is told STATE_NOT_FOUND, and that the pair which it rekeys is
    /// closed.
    pub(super) fn drop_series_of(&mut self, core: &mut Core, name: &str) {
        let makes_one =
            |agreed: &Agreed| matches!(agreed, Agreed::Child(terms) if *terms.config.name == *name);
        let dropped: Vec<_> =
            self.series.extract_if(.., |pending| makes_one(&pending.series.agreed)).collect();
        for pending in dropped {
            pending.series.release(core);
        }
    }

    /// When the next of them is dropped.
    pub(super) fn next_series_timeout(&self) -> Option<Time> {
        self.series.iter().map(|pending| pending.expires).min()
    }

    /// Everything of them is given back.
    pub(super) fn release_series(&mut self, core: &mut Core) {
        for pending in self.series.drain(..) {
            pending.series.release(core);
        }
    }

    fn complete_ours(&mut self, core: &mut Core, now: Time, series: SeriesStart) {
        self.put_off = 0;
        let SeriesStart { agreed, nonce_i, nonce_r, shared, .. } = series;
        match agreed {
            Agreed::Child(terms) => {
                let new = self.key_child(*terms, (&nonce_i, &nonce_r), &shared);
                self.child_ready(core, now, new);
            }
            Agreed::Ike(terms) => self.ike_ready(core, now, *terms, (&nonce_i, &nonce_r), &shared),
        }
    }

    fn complete_theirs(&mut self, core: &mut Core, now: Time, series: SeriesStart) -> After {
        let SeriesStart { agreed, nonce_i, nonce_r, shared, .. } = series;
        match agreed {
            Agreed::Child(terms) => {
                let new = self.key_child(*terms, (&nonce_i, &nonce_r), &shared);
                self.child_ready(core, now, new);
                After::Nothing
            }
            Agreed::Ike(terms) => self.ike_answered(core, now, *terms, (&nonce_i, &nonce_r), &shared),
        }
    }

    fn series_failed(&mut self, core: &mut Core, now: Time, series: SeriesStart, error: ExchangeError) {
        // STATE_NOT_FOUND: the peer has forgotten the series; start over (RFC 9370 section 2.2.4).
        let is_temporary =
            matches!(error, ExchangeError::Peer(NotifyType::STATE_NOT_FOUND | NotifyType::TEMPORARY_FAILURE));
        let task = series.task();
        if self.put_off >= MOST_RETRIES && error == ExchangeError::Peer(NotifyType::STATE_NOT_FOUND) {
            self.close(now, Reason::ProtocolError);
        }
        match (&series.agreed, is_temporary) {
            (_, true) => self.try_again_later(core, now, task),
            (Agreed::Child(terms), false) => {
                let (name, replaces) = (terms.config.name.clone(), terms.replaces);
                if !self.does_without_resource(core, &name, replaces) {
                    self.child_failed(core, name, error);
                }
            }
            (Agreed::Ike(_), false) => self.ike_rekey_failed(now, error),
        }
        series.release(core);
    }
}
