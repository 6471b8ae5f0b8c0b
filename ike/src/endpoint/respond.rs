//! A responder's answer to IKE_SA_INIT: which connections may be meant, and the state that is kept.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Endpoint;
use super::core::Traffic;
use super::half_open::{HalfOpen, Responder, Role};
use super::puzzles::Admission;
use super::quota::Standing;
use crate::action::IkeSaId;
use crate::codec::{ExchangeType, Flags, Header, Message, NotifyType, encode_message};
use crate::config::{ConnectionConfig, FullTranscriptAuth};
use crate::event::Event;
use crate::live::Source;
use crate::path::{StreamId, UdpPath};
use crate::proposal::IkeProposal;
use crate::sa::channel::Channel;
use crate::sa::error::ExchangeError;
use crate::sa::init::{Ends, Terms, respond_to_init};
use crate::sa::payloads::{self, Out, Received};
use crate::sa::ppk::PpkOffer;
use crate::sa::{auth, auth_methods};
use crate::status::Reason;
use crate::time::Time;
use crate::transport::link::{Link, TcpLink};
use crate::transport::table;

impl Endpoint {
    /// An IKE_SA_INIT request. Nothing is kept before it is worth an answer.
    pub(super) fn init_request(&mut self, now: Time, source: Source, raw: &[u8], message: Message<'_>) {
        let header = message.header;
        let Some(ends) = self.ends_of(source) else { return };
        if header.message_id != 0 {
            return self.core.reject("init_with_message_id");
        }
        if self.repeat_init_response(source, &header, raw) {
            return;
        }
        if let Source::Tcp(stream) = source
            && self.core.streams.get(stream).is_some_and(|stream| stream.owner.is_some())
        {
            // One IKE SA per stream (transport policy, "IKE over TCP").
            return self.core.reject("second_ike_sa_on_stream");
        }
        let received = Received::new(message.payloads);
        let candidates = self.candidates(ends);
        if candidates.is_empty() {
            self.init_error(source, &header, ExchangeError::NoProposal);
            return self.responder_failed(
                now,
                None,
                ends.remote,
                ExchangeError::Policy(Reason::NoProposalChosen),
            );
        }
        if self.core.config.guard_missing.is_some() {
            self.init_error(source, &header, ExchangeError::NoProposal);
            let error = ExchangeError::Policy(Reason::GuardMissing);
            return self.responder_failed(now, only(&candidates), ends.remote, error);
        }
        if raw.len() > self.core.config.max_half_open_bytes {
            return self.core.reject("init_too_long");
        }
        if self.redirects_in_init(source, &header, &received, &candidates) {
            return;
        }
        let Some(admission) = self.admission(now, source, &header, &received, ends.remote.ip()) else {
            return;
        };
        if admission.standing == Standing::Stranger && self.stranger_budget() < 2 * raw.len() {
            return self.core.reject("stranger_memory");
        }
        if !self.half_open_quota.admit(ends.remote.ip(), admission.standing) {
            return self.core.reject("too_many_half_open");
        }
        let answered = self.answer_init(now, source, raw, &header, &received, ends, &candidates, &admission);
        if let Err(error) = answered {
            self.half_open_quota.leave(ends.remote.ip(), admission.standing);
            self.init_error(source, &header, error);
            let wants_another = matches!(error, ExchangeError::WrongKeMethod(_));
            if !wants_another {
                self.responder_failed(now, only(&candidates), ends.remote, error);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all parts of one message")]
    fn answer_init(
        &mut self,
        now: Time,
        source: Source,
        raw: &[u8],
        header: &Header,
        received: &Received,
        ends: Ends,
        candidates: &[Arc<ConnectionConfig>],
        admission: &Admission,
    ) -> Result<(), ExchangeError> {
        let allows = |config: &&Arc<ConnectionConfig>| table::allows_separate(&config.ike);
        let separate = (self.core.config.tcp_listens && candidates.iter().any(|config| allows(&config)))
            .then_some(NotifyType(self.core.config.separate_transports_notify));
        let proposals: Vec<_> = candidates.iter().map(|config| config.ike.proposals_of_set_up()).collect();
        let proposals: Vec<&[IkeProposal]> = proposals.iter().map(|proposals| &**proposals).collect();
        let authorities = auth::authorities(candidates.iter().map(|config| &**config));
        let terms = Terms {
            proposals: &proposals,
            signs: candidates.iter().any(|config| config.has_signatures()),
            authorities: &authorities,
            auth_methods: auth_methods::of_ours(candidates.iter().map(|config| &**config)),
            separate,
            assume_code_points: candidates.iter().any(|config| config.ike.assume_code_points),
            full_transcript: candidates
                .iter()
                .any(|config| config.ike.full_transcript_auth != FullTranscriptAuth::Off),
            ppk: PpkOffer::of_all(candidates.iter().map(|config| config.ppk.as_ref())),
            puzzle: self.auth_puzzle(admission),
        };
        let id = self.core.new_ike_sa_id();
        let spi_r = self.core.new_ike_spi(id);
        let nonce_r = self.core.nonce();
        let spis = (header.spi_i, spi_r);
        let answered = respond_to_init(received, raw, spis, ends, &terms, nonce_r, &mut self.core.rng);
        let encoded = answered.and_then(|(out, settled)| {
            let flags = Flags { initiator: false, response: true };
            let header = Header {
                spi_i: header.spi_i,
                spi_r,
                exchange: ExchangeType::IKE_SA_INIT,
                flags,
                message_id: 0,
            };
            Ok((encode_message(&header, &out).map_err(|_| ExchangeError::Malformed)?, settled))
        });
        let (response, mut settled) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                self.core.spis.remove(&spi_r);
                return Err(error);
            }
        };
        settled.messages.1 = response.clone();
        let link = match source {
            Source::Udp(path) => Link::Udp(path),
            Source::Tcp(stream) => {
                if let Some(stream) = self.core.streams.get_mut(stream) {
                    stream.owner = Some(id);
                }
                Link::Tcp(TcpLink::on_stream(false, ends.local, ends.remote, stream))
            }
        };
        let mut half_open = Box::new(HalfOpen {
            id,
            channel: Channel::new(header.spi_i, spi_r, false),
            link,
            started_on: source.transport(),
            began: now,
            deadline: now + self.core.config.half_open_timeout,
            traffic: Traffic::default(),
            init_path: match source {
                Source::Udp(path) => Some(path),
                Source::Tcp(_) => None,
            },
            keepalive: None,
            generations: 0,
            role: Role::Responder(Responder {
                settled: None,
                candidates: candidates.iter().map(|config| config.name.clone()).collect(),
                expects_certificates: candidates.iter().any(|config| config.expects_certificates()),
                fragment_size: candidates.iter().map(|config| config.ike.fragment_size).min().unwrap_or(1280),
                standing: admission.standing,
                is_attacked: false,
                counted_bytes: 0,
            }),
        });
        half_open.traffic.received(source.transport(), raw.len());
        if settled.nat.0
            && let (Source::Udp(path), Some(first)) = (source, candidates.first())
        {
            half_open.keepalive = Some((path, now + first.esp.keepalive));
        }
        half_open.log_keys(&mut self.core, &settled);
        self.core.transmit(&half_open.link, &vec![response.clone()], Some(&mut half_open.traffic));
        half_open.channel.window.responded(0, vec![response]);
        if let Some(responder) = half_open.responder_mut() {
            responder.settled = Some(Box::new(settled));
        }
        if let Some(ticket) = &admission.ticket {
            self.spent.spend(ticket);
        }
        self.by_initiator.insert((header.spi_i, ends.remote), id);
        self.half_open.insert(id, half_open);
        self.count_bytes(id);
        self.reschedule(id);
        Ok(())
    }

    /// Octets that strangers may make us keep beside what they do.
    pub(super) fn stranger_budget(&self) -> usize {
        self.core.config.max_stranger_bytes.saturating_sub(self.stranger_bytes)
    }

    /// What a half-open SA makes us keep is counted anew.
    pub(super) fn count_bytes(&mut self, id: IkeSaId) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let kept = half_open.kept_bytes();
        if let Role::Responder(responder) = &mut half_open.role
            && responder.standing == Standing::Stranger
        {
            self.stranger_bytes = self.stranger_bytes - responder.counted_bytes + kept;
            responder.counted_bytes = kept;
        }
    }

    /// The same request again gets the same response (RFC 7296 section 2.1).
    fn repeat_init_response(&mut self, source: Source, header: &Header, raw: &[u8]) -> bool {
        let Some(remote) = self.ends_of(source).map(|ends| ends.remote) else { return false };
        let Some(id) = self.by_initiator.get(&(header.spi_i, remote)) else { return false };
        let Some(settled) = self.half_open.get(id).and_then(|half_open| half_open.settled()) else {
            return false;
        };
        if settled.messages.0 != raw {
            return false;
        }
        let response = settled.messages.1.clone();
        self.core.counters.responses_repeated += 1;
        self.core.answer(source, &vec![response]);
        true
    }

    /// IKE_AUTH may be the first message on a stream, and long if it has certificates in it.
    pub(super) fn expect_certificates(&mut self, stream: StreamId, ends: Ends) {
        if self.candidates(ends).iter().any(|config| config.expects_certificates())
            && let Some(stream) = self.core.streams.get_mut(stream)
        {
            stream.deframer.set_limit(self.core.config.max_certificate_bytes);
        }
    }

    /// Connections that these addresses may mean: named peers before `any`.
    fn candidates(&self, ends: Ends) -> Vec<Arc<ConnectionConfig>> {
        let fits_local =
            |config: &&Arc<ConnectionConfig>| config.local_address.is_none_or(|ip| ip == ends.local.ip());
        let names = self.peers.candidates(ends.remote.ip());
        names
            .filter_map(|name| self.connections.get(name))
            .map(|connection| &connection.config)
            .filter(fits_local)
            .cloned()
            .collect()
    }

    /// An unprotected error (RFC 7296 section 2.21.1).
    pub(super) fn init_error(&mut self, source: Source, header: &Header, error: ExchangeError) {
        self.core.reject(error.label());
        let out = payloads::error(error, None);
        if !out.is_empty() {
            self.plain_response(source, header, &out);
        }
    }

    /// An IKE_SA_INIT response that makes no state: our SPI is zero.
    pub(super) fn plain_response(&mut self, source: Source, request: &Header, out: &Out) {
        let flags = Flags { initiator: false, response: true };
        let header = Header { spi_r: 0, flags, ..*request };
        let Ok(response) = encode_message(&header, out) else { return };
        self.core.answer(source, &vec![response]);
    }

    /// The two ends of where a message came from.
    pub(super) fn ends_of(&self, source: Source) -> Option<Ends> {
        match source {
            Source::Udp(UdpPath { local, remote }) => Some(Ends { local, remote }),
            Source::Tcp(stream) => self
                .core
                .streams
                .get(stream)
                .map(|stream| Ends { local: stream.local, remote: stream.remote }),
        }
    }

    /// A set-up that the peer began has failed. What it says about a connection that is up stays as it is.
    pub(super) fn responder_failed(
        &mut self,
        now: Time,
        connection: Option<Arc<str>>,
        remote: SocketAddr,
        error: ExchangeError,
    ) {
        let detail = error.to_string();
        if let Some(name) = &connection {
            self.note_trouble(name, error.reason(), &detail);
            self.refresh(now, name);
        }
        let reason = error.reason();
        self.core.event(Event::IkeFailed { connection, is_initiator: false, remote, reason, detail });
    }
}

/// The connection that is meant, if it can only be one.
fn only(candidates: &[Arc<ConnectionConfig>]) -> Option<Arc<str>> {
    match candidates {
        [only] => Some(only.name.clone()),
        _ => None,
    }
}
