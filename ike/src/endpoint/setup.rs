//! From keys to authentication: IKE_INTERMEDIATE and IKE_AUTH, both roles.

use super::Endpoint;
use super::connection::Connection;
use super::half_open::{HalfOpen, InitiatorState, Responder, Role};
use super::quota::Standing;
use crate::action::IkeSaId;
use crate::codec::{ExchangeType, Message, NotifyType};
use crate::config::{FirstChild, Ppk};
use crate::live::Source;
use crate::path::{IkeTransport, StreamId};
use crate::sa::channel::{Opened, Opening};
use crate::sa::child_offer::ChildOffer;
use crate::sa::error::ExchangeError;
use crate::sa::intermediate::{IntermediateSent, respond_to_intermediate};
use crate::sa::payloads::{self, Out, Received};
use crate::sa::ppk::PpkStage;
use crate::sa::settled::Settled;
use crate::sa::{auth, auth_methods, window::Incoming};
use crate::status::Reason;
use crate::time::Time;
use crate::transport::link::{Link, TcpLink};

impl Endpoint {
    /// The next request of an initiator: another key exchange, or IKE_AUTH.
    pub(super) fn go_on(&mut self, now: Time, id: IkeSaId, settled: Box<Settled>) {
        if settled.puzzle.is_some() && settled.next_round().is_none() {
            return self.auth_puzzle_taken(now, id, settled);
        }
        self.send_auth(now, id, settled, None);
    }

    /// The next request, with the solution of the puzzle that IKE_AUTH had to wait for: outside the Encrypted payload (RFC
    /// 8019 section 7.2.2).
    pub(super) fn send_auth(
        &mut self,
        now: Time,
        id: IkeSaId,
        settled: Box<Settled>,
        solution: Option<Vec<u8>>,
    ) {
        let prepared = match settled.next_round() {
            Some(round) => {
                let attempt = self.half_open.get(&id).and_then(|half_open| half_open.attempt());
                let ppk = attempt.and_then(|attempt| attempt.config.ppk.as_ref());
                IntermediateSent::new(&settled, round, ppk, &mut self.core.rng)
                    .map(|(out, sent)| (ExchangeType::IKE_INTERMEDIATE, out, Some(Box::new(sent)), None))
            }
            None => self.auth_request(id, &settled),
        };
        let (exchange, out, sent, offer) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.fail(now, id, error.reason(), error.to_string()),
        };
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Some(message_id) = half_open.channel.window.next_request_id() else { return };
        let Some(attempt) = half_open.attempt() else { return };
        let (first_wait, timeout) = (attempt.config.ike.retransmit_after, attempt.config.ike.tcp_timeout);
        let clear: Vec<_> = solution.map(payloads::puzzle_solution).into_iter().collect();
        let sealed = half_open.seal_behind(&clear, &settled, exchange, false, message_id, &out);
        let Some((sealed, content)) = sealed else {
            return self.fail(now, id, Reason::ProtocolError, "a request does not fit a message".into());
        };
        let mut settled = settled;
        if half_open.link.transport() == IkeTransport::Tcp {
            half_open.deadline = now + timeout;
        }
        let state = match sent {
            Some(sent) => {
                settled.cover(true, &sealed.int_auth_a, &content.bytes);
                InitiatorState::Intermediate(settled, sent)
            }
            None => InitiatorState::Auth(settled, offer, message_id),
        };
        half_open.put_state(state);
        half_open.send_request(&mut self.core, now, sealed, first_wait);
    }

    /// IKE_AUTH with the first child that is wanted.
    #[allow(clippy::type_complexity, reason = "four parts of one request, taken apart by its only caller")]
    fn auth_request(
        &mut self,
        id: IkeSaId,
        settled: &Settled,
    ) -> Result<(ExchangeType, Out, Option<Box<IntermediateSent>>, Option<Box<ChildOffer>>), ExchangeError>
    {
        let exchange = ExchangeType::IKE_AUTH;
        let Some(half_open) = self.half_open.get(&id) else { return Ok((exchange, Out::new(), None, None)) };
        let Some(attempt) = half_open.attempt() else { return Ok((exchange, Out::new(), None, None)) };
        let config = attempt.config.clone();
        let message_id = half_open.channel.window.next_request_id().unwrap_or_default();
        let connection = self.connections.get(&*config.name);
        let has_other = connection.is_some_and(|connection| !connection.live.is_empty());
        let mut out = auth::request(settled, &config, message_id, !has_other)?;
        let wanted = connection
            .filter(|_| config.ike.first_child == FirstChild::InAuth)
            .and_then(Connection::first_wanted);
        let offer = wanted.and_then(|child| {
            let spi_in = self.core.spi_source.allocate()?;
            let packet = self.core.packet_for(&config.name, &child.name);
            Some(Box::new(ChildOffer { config: child, spi_in, replaces: None, packet, with_ke: false }))
        });
        if auth::may_echo(settled, &config) {
            out.push(payloads::notify(NotifyType(self.core.config.esp_echo_notify)));
        }
        if let Some(offer) = &offer {
            out.push(offer.sa());
            out.extend(offer.selectors());
        }
        Ok((exchange, out, None, offer))
    }

    /// A message of an IKE SA that is not established yet. Returns false if it is forged.
    pub(super) fn half_open_message(
        &mut self,
        now: Time,
        id: IkeSaId,
        source: Source,
        raw: &[u8],
        message: &Message<'_>,
    ) -> bool {
        let Some(half_open) = self.half_open.get_mut(&id) else { return true };
        let header = message.header;
        let Some(settled) = half_open.settled() else {
            self.core.reject("too_early");
            return true;
        };
        let is_for_us = header.flags.initiator != half_open.channel.is_initiator
            && (header.spi_i, header.spi_r) == (half_open.channel.spi_i, half_open.channel.spi_r)
            && header.flags.response == half_open.channel.is_initiator;
        let on_wrong_transport = match (source, &half_open.link) {
            // Transport policy rule 10: after SEPARATE_TRANSPORTS nothing but IKE_SA_INIT counts over UDP.
            (Source::Udp(_), _) => settled.separate || half_open.link.transport() == IkeTransport::Tcp,
            (Source::Tcp(_), Link::Udp(_)) => half_open.channel.is_initiator,
            (Source::Tcp(_), Link::Tcp(_)) => false,
        };
        if !is_for_us || on_wrong_transport {
            self.core.reject(if is_for_us { "wrong_transport" } else { "wrong_spi" });
            return true;
        }
        let window = &half_open.channel.window;
        let is_repeated = !header.flags.response && window.classify(header.message_id) == Incoming::Repeated;
        let is_wanted = match header.flags.response {
            true => window.outstanding().is_some_and(|o| o.message_id == header.message_id),
            false => window.classify(header.message_id) != Incoming::Outside,
        };
        if !is_wanted {
            self.core.reject("outside_window");
            return true;
        }
        if is_repeated {
            // RFC 7383 section 2.6.1: of a repeated request in fragments, the first one alone is answered.
            let fragment = message.encrypted.as_ref().and_then(|encrypted| encrypted.fragment);
            if fragment.is_none_or(|fragment| fragment.number == 1) {
                self.repeat_half_open_response(id, source);
            }
            return true;
        }
        if !self.auth_puzzle_is_solved(id, message) {
            return true;
        }
        let budget = self.stranger_budget();
        let Some(half_open) = self.half_open.get_mut(&id) else { return true };
        let most = match half_open.expects_certificates() {
            true => self.core.config.max_certificate_bytes,
            false => self.core.config.max_half_open_bytes,
        };
        let most = match &half_open.role {
            Role::Responder(Responder { standing: Standing::Stranger, .. }) => most.min(budget),
            _ => most,
        };
        let HalfOpen { channel, role, .. } = &mut **half_open;
        let Some(settled) = role.settled() else { return true };
        let key = settled.keys.keys().sk_e(!channel.is_initiator);
        let opened = match channel.open(now, key, raw, message, most) {
            Opening::Whole(opened) => opened,
            Opening::Part => {
                self.count_bytes(id);
                return true;
            }
            Opening::Forged => {
                self.core.reject("not_authentic");
                self.note_attack(id);
                return false;
            }
        };
        half_open.traffic.received(source.transport(), raw.len());
        follow(half_open, source, &mut self.core);
        match header.flags.response {
            true => self.setup_response(now, id, header.message_id, opened),
            false => self.setup_request(now, id, header.exchange, header.message_id, opened),
        }
        self.count_bytes(id);
        true
    }

    fn repeat_half_open_response(&mut self, id: IkeSaId, source: Source) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Some(messages) = half_open.channel.window.stored_response() else { return };
        self.core.counters.responses_repeated += 1;
        self.core.answer(source, messages);
    }

    fn setup_response(&mut self, now: Time, id: IkeSaId, message_id: u32, opened: Opened) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        half_open.channel.window.answered(message_id);
        let received = match Received::decode(&opened.content) {
            Ok(received) => received,
            Err(error) => return self.fail(now, id, error.reason(), error.to_string()),
        };
        match half_open.take_state() {
            InitiatorState::Intermediate(mut settled, sent) => {
                settled.cover(false, &opened.int_auth_a, &opened.content.bytes);
                settled.announced = auth_methods::of_peer(&received).or(settled.announced);
                match sent.answered(&received) {
                    Ok(yielded) => {
                        let settled = Box::new(yielded.advance(*settled));
                        half_open.log_keys(&mut self.core, &settled);
                        self.go_on(now, id, settled);
                    }
                    Err(error) => self.fail(now, id, error.reason(), error.to_string()),
                }
            }
            InitiatorState::Auth(settled, offer, auth_id) => {
                self.establish_initiator(now, id, settled, offer, auth_id, &received);
            }
            state => half_open.put_state(state),
        }
    }

    fn setup_request(
        &mut self,
        now: Time,
        id: IkeSaId,
        exchange: ExchangeType,
        message_id: u32,
        opened: Opened,
    ) {
        let (ppks, ppk_is_required) = self.ppks_that_may_be_meant(id);
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Role::Responder(responder) = &mut half_open.role else { return };
        let Some(mut settled) = responder.settled.take() else { return };
        let received = match Received::decode(&opened.content) {
            Ok(received) => received,
            Err(error) => return self.refuse_setup(now, id, &settled, exchange, message_id, error, None),
        };
        match (exchange, settled.next_round()) {
            (ExchangeType::IKE_INTERMEDIATE, Some(round)) => {
                let rng = &mut self.core.rng;
                let answer = respond_to_intermediate(&settled, round, &received, &ppks, ppk_is_required, rng);
                let (mut out, yielded) = match answer {
                    Ok(answer) => answer,
                    Err(error) => {
                        let meant = responder.only_candidate();
                        return self.refuse_setup(now, id, &settled, exchange, message_id, error, meant);
                    }
                };
                settled.announced = auth_methods::of_peer(&received).or(settled.announced);
                out.extend(settled.owed_auth_methods.take().map(|owed| *owed));
                let sealed = half_open.seal(&settled, exchange, true, message_id, &out);
                let Some((sealed, content)) = sealed else { return self.drop_half_open(id) };
                settled.cover(true, &opened.int_auth_a, &opened.content.bytes);
                settled.cover(false, &sealed.int_auth_a, &content.bytes);
                half_open.send_response(&mut self.core, message_id, sealed);
                let settled = Box::new(yielded.advance(*settled));
                half_open.log_keys(&mut self.core, &settled);
                if let Role::Responder(responder) = &mut half_open.role {
                    responder.settled = Some(settled);
                }
            }
            (ExchangeType::IKE_AUTH, None) => {
                self.establish_responder(now, id, settled, message_id, &received)
            }
            _ => {
                let error = ExchangeError::Payloads("an exchange that is not due");
                self.refuse_setup(now, id, &settled, exchange, message_id, error, None);
            }
        }
    }

    /// The PPKs of the connections that a half-open IKE SA may mean, and whether all of these insist on one.
    fn ppks_that_may_be_meant(&self, id: IkeSaId) -> (Vec<Ppk>, bool) {
        let responder = self.half_open.get(&id).and_then(|half_open| half_open.responder());
        let Some(responder) = responder else { return (Vec::new(), false) };
        if !responder.settled.as_ref().is_some_and(|settled| settled.ppk == PpkStage::InIntermediate) {
            return (Vec::new(), false);
        }
        let configs = responder.candidates.iter().filter_map(|name| self.connections.get(name));
        let ppks: Vec<_> = configs.map(|connection| connection.config.ppk.clone()).collect();
        let is_required = ppks.iter().all(|ppk| ppk.as_ref().is_some_and(|ppk| ppk.required));
        (ppks.into_iter().flatten().collect(), is_required)
    }

    /// An error for the initiator, and the end of the half-open IKE SA (RFC 7296 section 2.21.2).
    #[allow(clippy::too_many_arguments, reason = "all parts of one message")]
    pub(super) fn refuse_setup(
        &mut self,
        now: Time,
        id: IkeSaId,
        settled: &Settled,
        exchange: ExchangeType,
        message_id: u32,
        error: ExchangeError,
        connection: Option<std::sync::Arc<str>>,
    ) {
        self.core.reject(error.label());
        let out = payloads::error(error, None);
        if let Some(half_open) = self.half_open.get_mut(&id)
            && let Some((sealed, _)) = half_open.seal(settled, exchange, true, message_id, &out)
        {
            let remote = half_open.link.remote();
            half_open.send_response(&mut self.core, message_id, sealed);
            self.responder_failed(now, connection, remote, error);
        }
        self.drop_half_open(id);
    }
}

/// An authentic message: this is where the peer is (RFC 7296 section 2.23, RFC 9329 section 6.1).
fn follow(half_open: &mut HalfOpen, source: Source, core: &mut super::core::Core) {
    match source {
        Source::Udp(path) => {
            if let Link::Udp(ours) = &mut half_open.link {
                *ours = path;
            }
        }
        Source::Tcp(stream) => {
            core.streams.authenticated(stream, half_open.id);
            follow_stream(half_open, stream, core);
        }
    }
}

fn follow_stream(half_open: &mut HalfOpen, stream: StreamId, core: &super::core::Core) {
    match &mut half_open.link {
        Link::Tcp(link) => link.up(stream),
        Link::Udp(_) => {
            if let Some(known) = core.streams.get(stream) {
                half_open.link = Link::Tcp(TcpLink::on_stream(false, known.local, known.remote, stream));
            }
        }
    }
}
