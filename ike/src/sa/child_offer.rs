//! What a Child SA is asked for and answered with (RFC 7296 sections 1.2, 1.3.1, 1.3.3 and 2.9): SA, TSi and TSr, the
//! same in IKE_AUTH and CREATE_CHILD_SA.

use std::sync::Arc;

use super::error::ExchangeError;
use super::negotiate::{self, EspChoice};
use super::payloads::{self, Out, Received};
use crate::action::ChildId;
use crate::codec::{MAX_TRAFFIC_SELECTORS, NotifyType, TrafficSelector, covers, narrow};
use crate::command::PacketSelectors;
use crate::config::ChildConfig;
use crate::crypto::schedule::{ChildKeys, IkeKeys};
use crate::crypto::{KeMethod, SharedSecret};

/// A Child SA that we ask for.
pub(crate) struct ChildOffer {
    /// The configured child.
    pub(crate) config: Arc<ChildConfig>,
    /// Our SPI.
    pub(crate) spi_in: u32,
    /// The pair that it is to replace.
    pub(crate) replaces: Option<ChildId>,
    /// The packet that it is for.
    pub(crate) packet: Option<PacketSelectors>,
    /// The exchange can carry a KE payload: any but IKE_AUTH (RFC 7296 section 1.2).
    pub(crate) with_ke: bool,
}

/// What both sides have agreed on, before its keys exist.
pub(crate) struct ChildTerms {
    /// The configured child.
    pub(crate) config: Arc<ChildConfig>,
    /// Our SPI.
    pub(crate) spi_in: u32,
    /// The peer's SPI.
    pub(crate) spi_out: u32,
    /// Algorithms.
    pub(crate) choice: EspChoice,
    /// Selectors of our side.
    pub(crate) local_ts: Arc<[TrafficSelector]>,
    /// Selectors of the peer's side.
    pub(crate) remote_ts: Arc<[TrafficSelector]>,
    /// The pair that it replaces.
    pub(crate) replaces: Option<ChildId>,
    /// The exchange that makes it is ours.
    pub(crate) by_us: bool,
}

/// A Child SA pair that is ready to install.
pub(crate) struct NewChild {
    /// All but the keys.
    pub(crate) terms: ChildTerms,
    /// Keys of both directions.
    pub(crate) keys: ChildKeys,
    /// The lower nonce of its exchange (RFC 7296 section 2.8.1).
    pub(crate) lowest_nonce: Arc<[u8]>,
}

impl ChildOffer {
    /// SA, TSi and TSr. In CREATE_CHILD_SA, Ni and KEi stand between them; they are the caller's.
    pub(crate) fn sa(&self) -> payloads::Payload {
        payloads::sa(negotiate::offer_esp(&self.config.proposals, self.spi_in, self.with_ke))
    }

    /// TSi and TSr: the packet's own selectors come first in both (RFC 7296 section 2.9).
    pub(crate) fn selectors(&self) -> Out {
        let (local, remote) = (&self.config.local_ts, &self.config.remote_ts);
        match &self.packet {
            Some(packet) => {
                vec![
                    payloads::ts_i(&preceded(packet.local, local)),
                    payloads::ts_r(&preceded(packet.remote, remote)),
                ]
            }
            None => vec![payloads::ts_i(local), payloads::ts_r(remote)],
        }
    }

    /// SA_RESOURCE_INFO of a further Child SA with the same selectors, not of its rekeys (RFC 9611): the number of the resource,
    /// which means something to its sender only.
    pub(crate) fn resource(&self) -> Option<payloads::Payload> {
        resource_info(&self.config).filter(|_| self.replaces.is_none())
    }

    /// The key exchange method of our first KE payload, if the proposals ask for one.
    pub(crate) fn first_ke_method(&self) -> Option<KeMethod> {
        self.with_ke.then(|| negotiate::first_esp_ke_method(&self.config.proposals)).flatten()
    }

    /// Checks the responder's choice.
    pub(crate) fn answered(self, received: &Received) -> Result<ChildTerms, ExchangeError> {
        if let Some(error) = received.error() {
            return Err(ExchangeError::Peer(error));
        }
        let sa = received.sa.as_ref().ok_or(ExchangeError::Payloads("no SA for the Child SA"))?;
        let (choice, spi_out) = negotiate::accept_esp(sa, &self.config.proposals, self.with_ke)?;
        let (ts_i, ts_r) = received.selectors()?;
        if ts_i.is_empty() || ts_r.is_empty() {
            return Err(ExchangeError::Selectors);
        }
        if !covers(&self.config.local_ts, ts_i) || !covers(&self.config.remote_ts, ts_r) {
            return Err(ExchangeError::NotOffered);
        }
        Ok(ChildTerms {
            config: self.config,
            spi_in: self.spi_in,
            spi_out,
            choice,
            // A peer may return the packet's selectors beside others that contain them.
            local_ts: narrow(ts_i, ts_i).into(),
            remote_ts: narrow(ts_r, ts_r).into(),
            replaces: self.replaces,
            by_us: true,
        })
    }
}

fn resource_info(config: &ChildConfig) -> Option<payloads::Payload> {
    let number = u32::from(config.resource).to_be_bytes().to_vec();
    (config.resource > 0).then(|| payloads::notify_with(NotifyType::SA_RESOURCE_INFO, number))
}

/// The selectors of a packet, and those configured. They stand alone where they do not contain it, and where there is no room.
fn preceded(packet: TrafficSelector, configured: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let has_place = configured.len() < MAX_TRAFFIC_SELECTORS && covers(configured, &[packet]);
    let first = (has_place && !configured.contains(&packet)).then_some(packet);
    first.into_iter().chain(configured.iter().copied()).collect()
}

/// What a responder agrees to: the configured child, narrowed selectors, and the proposal that answers, without our SPI.
pub(crate) struct ChildAnswer {
    config: Arc<ChildConfig>,
    choice: EspChoice,
    answer: payloads::Proposal,
    spi_out: u32,
    ts_i: Vec<TrafficSelector>,
    ts_r: Vec<TrafficSelector>,
    replaces: Option<ChildId>,
}

impl ChildAnswer {
    /// Chooses among `children` by the selectors offered: one that takes the whole offer before one that narrows it, and of those
    /// one with the first choice of the initiator (RFC 7296 section 2.9). A rekey stays with the configured child that it
    /// replaces. A peer that asks for a further Child SA with the same selectors (RFC 9611) gets the one that
    /// `rank` puts first; it has no rank if it is taken.
    pub(crate) fn choose(
        received: &Received,
        children: &[Arc<ChildConfig>],
        replaces: Option<(ChildId, &str)>,
        with_ke: bool,
        rank: impl Fn(&ChildConfig) -> Option<u8>,
    ) -> Result<Self, ExchangeError> {
        let sa = received.sa.as_ref().ok_or(ExchangeError::Payloads("no SA for the Child SA"))?;
        let (offered_i, offered_r) = received.selectors()?;
        // Not in IKE_AUTH, whose Child SA is the first of its selectors.
        let is_further = with_ke && received.has(NotifyType::SA_RESOURCE_INFO);
        let allowed = children.iter().filter(|child| match replaces {
            Some((_, name)) => *child.name == *name,
            None => (child.resource > 0) == is_further,
        });
        let mut fitting: Vec<_> = allowed
            .map(|child| (child, narrow(offered_i, &child.remote_ts), narrow(offered_r, &child.local_ts)))
            .filter(|(_, ts_i, ts_r)| !ts_i.is_empty() && !ts_r.is_empty())
            .collect();
        if is_further && replaces.is_none() {
            fitting.retain(|(child, ..)| rank(child).is_some());
            fitting.sort_by_key(|(child, ..)| rank(child));
            if fitting.is_empty() {
                return Err(ExchangeError::MaxQueue);
            }
        }
        if fitting.is_empty() {
            return Err(ExchangeError::Selectors);
        }
        let keeps_first = |kept: &[_], offered: &[_]| covers(kept, offered.get(..1).unwrap_or_default());
        fitting.sort_by_key(|(_, ts_i, ts_r)| {
            let takes_all = covers(ts_i, offered_i) && covers(ts_r, offered_r);
            (!takes_all, !(keeps_first(ts_i, offered_i) && keeps_first(ts_r, offered_r)))
        });
        for (child, ts_i, ts_r) in fitting {
            if let Some((answer, choice, spi_out)) = negotiate::choose_esp(sa, &child.proposals, with_ke) {
                return Ok(Self {
                    config: child.clone(),
                    choice,
                    answer,
                    spi_out,
                    ts_i,
                    ts_r,
                    replaces: replaces.map(|(id, _)| id),
                });
            }
        }
        Err(ExchangeError::NoProposal)
    }

    /// The algorithms, for the key exchange that they may ask for.
    pub(crate) fn choice(&self) -> &EspChoice {
        &self.choice
    }

    /// SA with our SPI, TSi and TSr for the response, and the terms.
    pub(crate) fn accept(mut self, spi_in: u32) -> (payloads::Payload, Out, ChildTerms) {
        self.answer.spi = payloads::child_spi(spi_in);
        let mut selectors = vec![payloads::ts_i(&self.ts_i), payloads::ts_r(&self.ts_r)];
        selectors.extend(resource_info(&self.config).filter(|_| self.replaces.is_none()));
        let terms = ChildTerms {
            config: self.config,
            spi_in,
            spi_out: self.spi_out,
            choice: self.choice,
            local_ts: self.ts_r.into(),
            remote_ts: self.ts_i.into(),
            replaces: self.replaces,
            by_us: false,
        };
        (payloads::sa(vec![self.answer]), selectors, terms)
    }
}

impl ChildTerms {
    /// The pair with its keys, from the nonces of its exchange (those of IKE_SA_INIT for the first child) and the shared
    /// secrets of its own key exchanges, if any.
    pub(crate) fn keyed(
        self,
        keys: &IkeKeys,
        nonce_i: &[u8],
        nonce_r: &[u8],
        shared: &[SharedSecret],
    ) -> NewChild {
        let keys = keys.child(self.choice.cipher, nonce_i, nonce_r, shared);
        NewChild { terms: self, keys, lowest_nonce: nonce_i.min(nonce_r).into() }
    }
}

/// The pair that REKEY_SA names: the peer's inbound SPI (RFC 7296 section 1.3.3).
pub(crate) fn rekeyed_spi(received: &Received) -> Result<Option<u32>, ExchangeError> {
    match received.first(NotifyType::REKEY_SA) {
        None => Ok(None),
        Some(notify) => {
            notify.child_spi.map(Some).ok_or(ExchangeError::Payloads("REKEY_SA without an SPI of ESP"))
        }
    }
}
