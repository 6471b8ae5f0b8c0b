//! From authentication to a live IKE SA, both roles.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Endpoint;
use super::connection::Connection;
use super::half_open::{HalfOpen, Purpose, Role};
use super::succession::LEAVE_AFTER;
use crate::action::IkeSaId;
use crate::codec::{ExchangeType, NotifyType, decode_redirect};
use crate::config::{
    ConnectionConfig, FirstChild, FullTranscriptAuth, OnUnreachable, RemoteAddress, SeparateTransports,
};
use crate::event::Event;
use crate::live::{Generation, LiveSa, Outcome, Task, TrialSa, auth_lifetime, leaves_by_policy};
use crate::path::{DirectCarrier, IkeTransport};
use crate::sa::child_offer::{ChildAnswer, ChildOffer, ChildTerms};
use crate::sa::children::Children;
use crate::sa::error::ExchangeError;
use crate::sa::negotiate::allows;
use crate::sa::payloads::{self, Out, Received};
use crate::sa::ppk::{self, PpkStage};
use crate::sa::settled::Settled;
use crate::sa::{auth, auth_methods};
use crate::status::Reason;
use crate::time::Time;
use crate::transport::backoff::earlier;
use crate::transport::carrier::{Basis, Carrier};
use crate::transport::link::Link;
use crate::transport::returning::Returns;
use crate::transport::table;

impl Endpoint {
    /// The IKE_AUTH response.
    pub(super) fn establish_initiator(
        &mut self,
        now: Time,
        id: IkeSaId,
        mut settled: Box<Settled>,
        offer: Option<Box<ChildOffer>>,
        auth_id: u32,
        received: &Received,
    ) {
        let Some(half_open) = self.half_open.get(&id) else { return };
        let Some(attempt) = half_open.attempt().cloned() else { return };
        let config = attempt.config.clone();
        let spi_in = offer.as_ref().map(|offer| offer.spi_in);
        let wall = self.core.wall_time(now);
        let verified = ppk::answered_in_auth(&mut settled, &config, received)
            .and_then(|()| auth::verify_responder(&settled, &config, received, auth_id, wall));
        if let Err(error) = verified {
            if let Some(spi) = spi_in {
                self.core.spi_source.release(spi);
            }
            self.say_goodbye(id, &settled, error);
            return self.fail(now, id, error.reason(), error.to_string());
        }
        let nat = settled.nat.0 || settled.nat.1;
        self.win_race(id);
        let Some(half_open) = self.half_open.get(&id) else { return };
        let in_tcp = table::esp_belongs_in_tcp(half_open.link.transport(), settled.separate);
        // The policy may have changed since the table let it pass; the peer holds an IKE SA by now, so it gets a DELETE.
        let is_forbidden = in_tcp && config.esp.on_unreachable == OnUnreachable::FailClosed;
        let carrier = match table::first_carrier(&config.esp, half_open.started_on, settled.separate, nat) {
            _ if is_forbidden => Err(Reason::EspUnreachable),
            Err(_) if in_tcp => Ok(DirectCarrier::Udp),
            carrier => carrier,
        };
        let carrier = carrier.map(|first| self.proven_carrier(&config).unwrap_or(first));
        let falls_at_once = carrier.is_err()
            && config.esp.on_unreachable == OnUnreachable::TcpFallback
            && attempt.purpose != Purpose::Trial;
        let child = match offer {
            Some(offer) => {
                let name = offer.config.name.clone();
                let terms = carrier.map_err(ExchangeError::Policy).and_then(|_| offer.answered(received));
                Some((name, terms))
            }
            // The first child comes later, unless this end or the other says already that none will.
            None => {
                let refusal = carrier.err().map(ExchangeError::Policy);
                let refusal = refusal.or(received.error().map(ExchangeError::Peer));
                let wanted = self.connections.get(&*config.name).and_then(Connection::first_wanted);
                wanted.zip(refusal).map(|(child, error)| (child.name.clone(), Err(error)))
            }
        };
        let child = match child {
            Some((name, Err(ExchangeError::Peer(NotifyType::NO_PROPOSAL_CHOSEN)))) if in_tcp => {
                let error = self.refused_in_tcp(now, &config.name);
                Some((name, Err(error)))
            }
            child => child,
        };
        let Some(half_open) = self.take_half_open(id) else { return };
        let nonces = (settled.nonce_i.clone(), settled.nonce_r.clone());
        let first = carrier.unwrap_or(DirectCarrier::Udp);
        let echo = self.is_echo_agreed(&settled, &config, received);
        let mut live = self.go_live(now, half_open, settled, config.clone(), first, attempt.reason, echo);
        live.note_auth_lifetime(now, received, &mut self.core.rng);
        let gateway = received.first(NotifyType::REDIRECT).filter(|_| live.redirect);
        if let Some((gateway, [])) = gateway.and_then(|notify| decode_redirect(&notify.data)) {
            // RFC 5685 section 6: the IKE SA is valid, and goes.
            if let Some(spi) = spi_in {
                self.core.spi_source.release(spi);
            }
            let reason = self.redirected_in_auth(now, &config, &gateway);
            live.close(now, reason);
            live.start_next(&mut self.core, now);
            self.live.insert(id, live);
            return self.enlist(now, id, true);
        }
        let new = match child {
            None => None,
            Some((_, Err(_))) if falls_at_once => {
                // Row 16, for want of a carrier that may be used and could work.
                if let Some(spi) = spi_in {
                    self.core.spi_source.release(spi);
                }
                live.outcomes.push(Outcome::EspUnreachable {
                    first_verification: live.carrier.started_on() == IkeTransport::Tcp,
                });
                None
            }
            Some((_, Ok(terms))) => Some(terms.keyed(&live.current.keys, &nonces.0, &nonces.1, &[])),
            Some((name, Err(error))) => {
                if let Some(spi) = spi_in {
                    self.core.spi_source.release(spi);
                }
                let (reason, detail) = (error.reason(), error.to_string());
                live.outcomes.push(Outcome::ChildFailed {
                    name: name.clone(),
                    reason,
                    detail: detail.clone(),
                });
                self.core.event(Event::ChildFailed {
                    connection: config.name.clone(),
                    child_name: name,
                    reason,
                    detail,
                });
                None
            }
        };
        if let Some(new) = new {
            let child = live.install(&mut self.core, now, new);
            if attempt.purpose != Purpose::Trial {
                live.use_outbound(&mut self.core, now, child);
            }
        }
        if attempt.purpose == Purpose::Trial {
            return self.trial_established(now, live);
        }
        if is_forbidden {
            live.close(now, Reason::EspUnreachable);
        } else if !falls_at_once {
            self.want_missing(&mut live);
        }
        live.start_next(&mut self.core, now);
        self.live.insert(id, live);
        self.enlist(now, id, is_forbidden);
    }

    /// The IKE_AUTH request.
    pub(super) fn establish_responder(
        &mut self,
        now: Time,
        id: IkeSaId,
        mut settled: Box<Settled>,
        message_id: u32,
        received: &Received,
    ) {
        let exchange = ExchangeType::IKE_AUTH;
        let config = match self.connection_for(id, received) {
            Ok(config) => config,
            Err(error) => return self.refuse_setup(now, id, &settled, exchange, message_id, error, None),
        };
        let name = config.name.clone();
        let wall = self.core.wall_time(now);
        settled.announced = auth_methods::of_peer(received).or(settled.announced);
        let answer = ppk::asked_in_auth(&mut settled, &config, received).and_then(|ppk_answer| {
            let verified = auth::verify_initiator(&settled, &config, received, message_id, wall)?;
            Ok((ppk_answer, auth::response(&settled, &config, message_id, &verified)?))
        });
        let (ppk_answer, mut out) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return self.refuse_setup(now, id, &settled, exchange, message_id, error, Some(name));
            }
        };
        if !settled.full_transcript && config.ike.full_transcript_auth == FullTranscriptAuth::Require {
            let error = ExchangeError::Policy(Reason::PeerNoTranscriptAuth);
            return self.refuse_setup(now, id, &settled, exchange, message_id, error, Some(name));
        }
        out.extend(auth_lifetime(&config.ike));
        let redirect = self.redirects_in_auth(&settled, &config);
        let is_redirected = redirect.is_some();
        out.extend(redirect);
        out.extend(ppk_answer);
        if auth::may_echo(&settled, &config) {
            out.push(payloads::notify(NotifyType(self.core.config.esp_echo_notify)));
        }
        let Some(mut half_open) = self.take_half_open(id) else { return };
        let nat = settled.nat.0 || settled.nat.1;
        let carrier = table::first_carrier(&config.esp, half_open.started_on, settled.separate, nat);
        let is_ours = config.ike.proposals_of_set_up().iter().any(|ours| allows(ours, &settled.choice));
        let refusal = match is_ours {
            false => Some(Reason::NoProposalChosen),
            true => table::refusal(
                &config.ike,
                config.esp.on_unreachable,
                half_open.link.transport(),
                settled.separate,
                carrier,
            ),
        };
        let child = match refusal {
            Some(reason) => Err(ExchangeError::Policy(reason)),
            None if is_redirected => Ok(None),
            None if received.asks_for_child() && config.ike.first_child == FirstChild::AfterRekey => {
                Err(ExchangeError::Policy(Reason::NoProposalChosen))
            }
            None if received.asks_for_child() => self.choose_child(&name, received, &mut out).map(Some),
            // RFC 6023 section 3.
            None => Ok(None),
        };
        if let Err(error) = child {
            self.core.reject(error.label());
            out.extend(payloads::error(error, None));
        }
        let sealed = half_open.seal(&settled, exchange, true, message_id, &out);
        let nonces = (settled.nonce_i.clone(), settled.nonce_r.clone());
        let first = carrier.unwrap_or(DirectCarrier::Udp);
        let began = half_open.began;
        let Some((sealed, _)) = sealed else {
            self.core.reject("response_too_long");
            if let Ok(Some(terms)) = child {
                self.core.spi_source.release(terms.spi_in);
            }
            return self.close_streams_of(id);
        };
        let echo = self.is_echo_agreed(&settled, &config, received);
        let mut live = self.go_live(now, half_open, settled, config.clone(), first, Reason::None, echo);
        let has_initial_contact = received.has(NotifyType::INITIAL_CONTACT);
        if is_redirected {
            live.leaves = Some((now + config.redirect.grace, Reason::Redirected));
        }
        live.trial = if self.is_peers_trial(&live, has_initial_contact) {
            Some(TrialSa::Peers)
        } else {
            self.is_peers_successor(&live, has_initial_contact).then(|| TrialSa::Successor(now + LEAVE_AFTER))
        };
        match child {
            Ok(None) => self.core.transmit(&live.link, &sealed.messages, None),
            Ok(Some(terms)) => {
                let new = terms.keyed(&live.current.keys, &nonces.0, &nonces.1, &[]);
                let child = live.install(&mut self.core, now, new);
                self.core.transmit(&live.link, &sealed.messages, None);
                if live.trial.is_none() {
                    live.use_outbound(&mut self.core, now, child);
                }
            }
            Err(error) => {
                self.core.transmit(&live.link, &sealed.messages, None);
                let remote = live.link.remote();
                self.responder_failed(now, Some(name.clone()), remote, error);
            }
        }
        live.current.channel.window.responded(message_id, sealed.messages);
        if let Some(reason) = refusal {
            live.close(now, reason);
            live.start_next(&mut self.core, now);
        }
        self.live.insert(id, live);
        self.enlist(now, id, refusal.is_some());
        if received.has(NotifyType::INITIAL_CONTACT) {
            self.initial_contact(now, id, began);
        }
    }

    /// The child of a request in IKE_AUTH, with its payloads added to the response.
    fn choose_child(
        &mut self,
        name: &str,
        received: &Received,
        out: &mut Out,
    ) -> Result<ChildTerms, ExchangeError> {
        let children =
            self.connections.get(name).map(|connection| connection.child_configs.clone()).unwrap_or_default();
        let answer = ChildAnswer::choose(received, &children, None, false, |_| None)?;
        let spi_in = self.core.spi_source.allocate().ok_or(ExchangeError::Full)?;
        let (sa, selectors, terms) = answer.accept(spi_in);
        out.push(sa);
        out.extend(selectors);
        Ok(terms)
    }

    /// The connection that an initiator means: by the identities it claims, among those its address may mean.
    fn connection_for(
        &self,
        id: IkeSaId,
        received: &Received,
    ) -> Result<Arc<ConnectionConfig>, ExchangeError> {
        let (id_i, id_r) = auth::claimed(received)?;
        let responder = self.half_open.get(&id).and_then(|half_open| half_open.responder());
        let responder = responder.ok_or(ExchangeError::Authentication)?;
        let configs = responder.candidates.iter().filter_map(|name| self.connections.get(name));
        let is_meant = |config: &&Arc<ConnectionConfig>| {
            config.remote_id == *id_i && id_r.is_none_or(|wanted| *wanted == config.local_id)
        };
        configs
            .map(|connection| &connection.config)
            .find(is_meant)
            .cloned()
            .ok_or(ExchangeError::Authentication)
    }

    /// INITIAL_CONTACT: the peer has no other IKE SA, so those that were there before this one began are left-overs (RFC 7296
    /// section 2.4). One that was set up at the same time from the other end is not: `settle_duplicates` decides.
    fn initial_contact(&mut self, now: Time, new: IkeSaId, began: Time) {
        let Some(new) = self.live.get(&new) else { return };
        let is_left_over = |other: &&LiveSa| is_same_peer(other, new) && other.established <= began;
        let old: Vec<_> = self.beside(new).filter(is_left_over).map(|other| other.id).collect();
        for id in old {
            if let Some(live) = self.live.get_mut(&id) {
                live.end(Reason::PeerDeleted);
            }
            self.touch(now, id);
        }
    }

    /// Children that are wanted and not there are asked for.
    pub(super) fn want_missing(&mut self, live: &mut LiveSa) {
        let Some(connection) = self.connections.get(&*live.config.name) else { return };
        let failed = live.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::ChildFailed { name, .. } => Some(name.clone()),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        let wanted: BTreeSet<_> =
            connection.wanted.iter().filter(|name| !failed.contains(name)).cloned().collect();
        for name in live.with_resources(&wanted) {
            live.keep(&name);
            if live.children.live(&name).is_none() {
                live.want(Task::CreateChild(name));
            }
        }
    }

    /// ESP echo: announced by both ends in IKE_AUTH, and believed (transport policy rule 6).
    fn is_echo_agreed(&self, settled: &Settled, config: &ConnectionConfig, received: &Received) -> bool {
        auth::may_echo(settled, config) && received.has(NotifyType(self.core.config.esp_echo_notify))
    }

    /// An IKE SA from what set-up has left.
    #[allow(clippy::too_many_arguments, reason = "all parts of one IKE SA")]
    fn go_live(
        &mut self,
        now: Time,
        half_open: Box<HalfOpen>,
        settled: Box<Settled>,
        config: Arc<ConnectionConfig>,
        first: DirectCarrier,
        reason: Reason,
        echo: bool,
    ) -> Box<LiveSa> {
        let HalfOpen { id, channel, mut link, started_on, began, traffic, role, init_path, .. } = *half_open;
        if let Some(link) = link.tcp_mut() {
            link.proven();
        }
        let is_initiator = matches!(role, Role::Initiator(_));
        let first_began = match &role {
            Role::Initiator(initiator) => initiator.attempt.first_began,
            Role::Responder(_) => began,
        };
        let port = self.core.config.nat_port;
        let esp_port = |address: SocketAddr| match &link {
            Link::Udp(path) if path.local.port() == port => address,
            _ => SocketAddr::new(address.ip(), port),
        };
        // On a UDP start the responder sends to where IKE_SA_INIT came from (rule 4), which TCP has hidden by now.
        let remote = match init_path {
            Some(path) if !is_initiator && path.local.port() == port => path.remote,
            _ => esp_port(link.remote()),
        };
        let local = SocketAddr::new(link.local().ip(), port);
        // Peers that share a connection do not share their falls.
        let remembered = match config.remote_address {
            RemoteAddress::Ip(_) => self.connections.get(&*config.name),
            RemoteAddress::Any => None,
        };
        let last_fall = remembered.and_then(|connection| connection.last_fall);
        let returns = remembered.map_or(Returns::default(), |c| c.fallback.returns);
        let in_tcp = table::esp_belongs_in_tcp(link.transport(), settled.separate);
        // Why ESP is in TCP, where the initiator has not said so already.
        let reason = match reason {
            Reason::None if in_tcp && config.ike.separate_transports == SeparateTransports::Off => {
                Reason::SeparateOff
            }
            Reason::None if in_tcp => Reason::PeerNoSeparate,
            reason => reason,
        };
        let basis = Basis {
            is_initiator,
            started_on,
            separate: settled.separate,
            echo,
            ike_remote: link.remote().ip(),
            in_tcp,
            stream: link.tcp().and_then(|link| link.current),
            last_fall,
            nat: settled.nat,
            first,
            local,
            remote,
            reason,
        };
        let carrier = Box::new(Carrier::new(basis, returns, config.esp.clone(), now));
        let ike = &config.ike;
        let leaves = leaves_by_policy(ike, is_initiator, now, &mut self.core.rng);
        let renew_at = now + earlier(ike.rekey_after, ike.rekey_jitter_percent, &mut self.core.rng);
        let algorithms = settled.choice.notation.to_string();
        let has_ppk = matches!(settled.ppk, PpkStage::Mixed(_));
        self.core.event(Event::IkeEstablished {
            connection: config.name.clone(),
            ike_sa: id,
            is_initiator,
            remote: link.remote(),
            transport: link.transport(),
            started_on,
            separate_transports: settled.separate,
            handshake: now.since(first_began),
            udp_bytes: traffic.udp,
            tcp_bytes: traffic.tcp,
            algorithms,
            ppk: config.ppk.is_some().then_some(has_ppk),
        });
        let child_configs =
            self.connections.get(&*config.name).map(|c| c.child_configs.clone()).unwrap_or_default();
        let lowest_nonce = (&settled.nonce_i).min(&settled.nonce_r).as_slice().into();
        let Settled { choice, keys, separate, full_transcript, redirect, fragments, .. } = *settled;
        Box::new(LiveSa {
            id,
            child_configs,
            is_initiator,
            separate,
            full_transcript,
            has_ppk,
            redirect,
            fragments,
            link,
            carrier,
            current: Generation {
                channel,
                keys: keys.establish(),
                choice,
                active: None,
                made: now,
                renew_at,
                is_deleted: false,
                is_confirmed: true,
            },
            previous: Vec::new(),
            replaced_by_peer: None,
            series: Vec::new(),
            no_more_resources: false,
            children: Children::default(),
            put_off: 0,
            rival: None,
            deleted_early: Vec::new(),
            queue: Default::default(),
            pause_until: None,
            began,
            established: now,
            expires_at: now + config.ike.lifetime,
            leaves,
            config,
            ike_seen: now,
            esp_seen: None,
            lowest_nonce,
            closing: None,
            trial: None,
            ended: None,
            outcomes: Vec::new(),
        })
    }

    /// A live IKE SA joins its connection.
    fn enlist(&mut self, now: Time, id: IkeSaId, refused: bool) {
        let Some(live) = self.live.get(&id) else { return };
        let name = live.config.name.clone();
        for spi in live.our_spis() {
            self.core.spis.insert(spi, id);
        }
        let is_initiator = live.is_initiator;
        // Where an echo can tell, only its answer shows that the attempt has led to anything.
        let verifies = live.carrier.esp_status().echo;
        if let Some(connection) = self.connections.get_mut(&name) {
            connection.live.insert(id);
            if connection.attempt == Some(id) {
                connection.attempt = None;
            }
            if !refused {
                connection.trouble = None;
                connection.next_attempt = None;
                if !verifies {
                    connection.backoff.reset();
                }
                if !is_initiator {
                    // The initiator brings its own children up first; what is missing then is ours to ask for.
                    connection.children_at = Some(now + connection.config.ike.retry_min);
                }
            }
        }
        if !refused {
            self.cancel_attempt_beside(&name, id);
            self.note_successor(now, id);
            self.settle_duplicates(now, id);
            self.plan_trial(now, &name);
        }
        self.touch(now, id);
    }

    /// Both ends initiated at once, and the peer was faster: an attempt of ours that has not come to IKE_AUTH is dropped.
    fn cancel_attempt_beside(&mut self, name: &str, established: IkeSaId) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let Some(attempt) = connection.attempt.filter(|attempt| *attempt != established) else { return };
        let is_past_auth = self.half_open.get(&attempt).is_some_and(|half_open| half_open.has_sent_auth());
        if !is_past_auth && connection.config.remote_address != RemoteAddress::Any {
            connection.attempt = None;
            self.drop_attempt(attempt);
        }
    }

    /// Two IKE SAs between the same identities that both ends set up at once: the one with the lowest of the four nonces is
    /// closed by its initiator, as for rekeys (RFC 7296 section 2.8.2). Both ends see the same nonces, so they agree.
    fn settle_duplicates(&mut self, now: Time, id: IkeSaId) {
        let Some(new) = self.live.get(&id).filter(|new| new.trial.is_none()) else { return };
        let at_once = |other: &&LiveSa| {
            other.is_open()
                && other.trial.is_none()
                && is_same_peer(other, new)
                && other.is_initiator != new.is_initiator
                && new.began < other.established
                && other.began < new.established
        };
        let Some(other) = self.beside(new).find(at_once) else { return };
        let loser = if new.lowest_nonce < other.lowest_nonce { new.id } else { other.id };
        if let Some(live) = self.live.get_mut(&loser)
            && live.is_initiator
        {
            live.close(now, Reason::None);
            live.start_next(&mut self.core, now);
        }
        self.touch(now, loser);
    }

    /// The other IKE SAs of the same connection, its trial among them.
    fn beside<'a>(&'a self, live: &'a LiveSa) -> impl Iterator<Item = &'a LiveSa> {
        let connection = self.connections.get(&live.config.name);
        let ids =
            connection.into_iter().flat_map(|connection| connection.live.iter().chain(&connection.trial));
        ids.filter(|id| **id != live.id).filter_map(|id| self.live.get(id)).map(|live| &**live)
    }

    /// The initiator tells the responder that it could not verify it (RFC 7296 section 2.21.2), once and without waiting.
    fn say_goodbye(&mut self, id: IkeSaId, settled: &Settled, error: ExchangeError) {
        let out = payloads::error(error, None);
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Some(message_id) = half_open.channel.window.next_request_id() else { return };
        if out.is_empty() {
            return;
        }
        let exchange = ExchangeType::INFORMATIONAL;
        if let Some((sealed, _)) = half_open.seal(settled, exchange, false, message_id, &out) {
            self.core.transmit(&half_open.link, &sealed.messages, None);
        }
    }
}

/// The same two identities; with `address: any` the peer's address as well, because many peers share one connection.
pub(super) fn is_same_peer(a: &LiveSa, b: &LiveSa) -> bool {
    let same_connection = a.config.name == b.config.name;
    let is_any = a.config.remote_address == RemoteAddress::Any;
    same_connection && (!is_any || a.link.remote().ip() == b.link.remote().ip())
}
