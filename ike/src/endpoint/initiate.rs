//! An initiator's way to keys: starts on UDP or TCP, IKE_SA_INIT, and the rows of the table in between.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Endpoint;
use super::core::Traffic;
use super::half_open::{Attempt, HalfOpen, Initiator, InitiatorState, Purpose, Role};
use super::race::may_be_one_of_several;
use crate::action::IkeSaId;
use crate::codec::{ExchangeType, Message, NotifyType, encode_message};
use crate::config::{ConnectionConfig, FirstChild, SeparateTransports, StartTransport};
use crate::live::Source;
use crate::path::{IkeTransport, StreamId, UdpPath};
use crate::sa::channel::Channel;
use crate::sa::error::ExchangeError;
use crate::sa::init::{Ends, InitAnswer, InitSent, Wishes};
use crate::sa::payloads::Received;
use crate::sa::ppk::PpkOffer;
use crate::sa::settled::Settled;
use crate::sa::window::Due;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::link::{Link, TcpLink};
use crate::transport::table::{self, Outcome, Situation, Step};

/// IKE_SA_INIT cannot be fragmented, so it has to fit the smallest IPv6 MTU (configuration part of the policy).
const LARGEST_INIT_PACKET: usize = 1280;
/// UDP is taken as silent after this many retransmissions (row 9).
const SILENT_AFTER: u8 = 2;

impl Endpoint {
    /// Starts an attempt, unless one is under way.
    pub(super) fn start_attempt(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.attempt.is_some() || !connection.can_initiate() {
            return;
        }
        let config = connection.config.clone();
        let falls_back = connection.fallback.take_next();
        let purpose =
            if falls_back || self.succeeds_in_tcp(name) { Purpose::Fallback } else { Purpose::Start };
        self.attempt(now, config, purpose);
    }

    /// An attempt of a connection, for whatever it is.
    pub(super) fn attempt(&mut self, now: Time, config: Arc<ConnectionConfig>, purpose: Purpose) {
        let attempt = Attempt {
            purpose,
            offers_separate: purpose != Purpose::Fallback && table::offers_separate(&config.ike),
            config,
            first_began: now,
            udp_was_silent: false,
            reason: match purpose {
                Purpose::Start => Reason::None,
                Purpose::Fallback => Reason::EspUnreachable,
                Purpose::Trial => table::life::RETURNED.reason,
            },
            passed_over: false,
            error: None,
            hard_puzzle: None,
            verdict: None,
            traffic: Traffic::default(),
        };
        let on = match attempt.config.ike.transport {
            // A new stream (rule 7), or its own one (rule 8).
            _ if purpose != Purpose::Start => IkeTransport::Tcp,
            StartTransport::Tcp => IkeTransport::Tcp,
            StartTransport::Udp => IkeTransport::Udp,
            StartTransport::UdpThenTcp if !init_fits_udp(&attempt.config) => IkeTransport::Tcp,
            StartTransport::UdpThenTcp => IkeTransport::Udp,
        };
        self.start_on(now, attempt, on);
    }

    /// One IKE_SA_INIT of an attempt, with a new SPI.
    fn start_on(&mut self, now: Time, attempt: Attempt, on: IkeTransport) {
        let config = attempt.config.clone();
        let Some(remote) = self.gateway_of(&config) else { return };
        let port = self.core.config.nat_port;
        let remote = SocketAddr::new(remote, port);
        let unspecified = match remote {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = SocketAddr::new(config.local_address.unwrap_or(unspecified), port);
        let id = self.core.new_ike_sa_id();
        let separate = NotifyType(self.core.config.separate_transports_notify);
        let nonce = self.core.nonce();
        let sent = InitSent::new(
            &config.ike.proposals_of_set_up(),
            Wishes {
                separate: attempt.offers_separate.then_some(separate),
                assume_code_points: config.ike.assume_code_points,
                full_transcript: config.ike.full_transcript_auth,
                redirect: self.redirect_wish(&config),
                childless: config.ike.first_child != FirstChild::InAuth,
                ppk: config.ppk.as_ref().map(PpkOffer::of),
                signatures: config.has_signatures(),
            },
            nonce,
            &mut self.core.rng,
        );
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => return self.attempt_failed(now, &attempt, error.reason(), error.to_string()),
        };
        let spi_i = self.core.new_ike_spi(id);
        let link = match on {
            IkeTransport::Udp => Link::Udp(UdpPath { local, remote }),
            IkeTransport::Tcp => Link::Tcp(TcpLink::waiting(true, local, remote, now)),
        };
        let deadline = match on {
            IkeTransport::Udp => now + whole_retransmission_time(&config),
            IkeTransport::Tcp => now + config.ike.tcp_timeout,
        };
        let half_open = Box::new(HalfOpen {
            id,
            channel: Channel::new(spi_i, 0, true),
            link,
            started_on: on,
            began: now,
            deadline,
            traffic: attempt.traffic,
            init_path: (on == IkeTransport::Udp).then_some(UdpPath { local, remote }),
            keepalive: None,
            generations: 0,
            role: Role::Initiator(Initiator {
                attempt,
                state: InitiatorState::Init(Box::new(sent)),
                puzzles: 0,
            }),
        });
        let purpose = half_open.attempt().map(|attempt| attempt.purpose);
        if let Some(connection) = self.connections.get_mut(&*config.name) {
            if purpose == Some(Purpose::Trial) {
                connection.trial = Some(id);
            } else {
                connection.attempt = Some(id);
                connection.next_attempt = None;
            }
        }
        self.half_open.insert(id, half_open);
        match on {
            IkeTransport::Udp => self.send_init(now, id),
            IkeTransport::Tcp => self.dial_half_open(now, id),
        }
        self.reschedule(id);
        self.refresh(now, &config.name);
    }

    /// Sends IKE_SA_INIT as it stands.
    pub(super) fn send_init(&mut self, now: Time, id: IkeSaId) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let ends = Ends { local: half_open.link.local(), remote: half_open.link.remote() };
        let header = half_open.channel.header(ExchangeType::IKE_SA_INIT, false, 0);
        let spi_i = half_open.channel.spi_i;
        let Role::Initiator(Initiator { attempt, state: InitiatorState::Init(sent), .. }) =
            &mut half_open.role
        else {
            return;
        };
        let Ok(request) = encode_message(&header, &sent.payloads(spi_i, ends)) else {
            return self.fail(now, id, Reason::ProtocolError, "IKE_SA_INIT does not fit a message".into());
        };
        sent.request = request.clone();
        let first_wait = attempt.config.ike.retransmit_after;
        let transport = half_open.link.transport();
        self.core.transmit(&half_open.link, &vec![request.clone()], Some(&mut half_open.traffic));
        half_open.channel.window.sent(now, vec![request], transport, first_wait);
    }

    /// Asks for a stream.
    pub(super) fn dial_half_open(&mut self, now: Time, id: IkeSaId) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let local = half_open.link.local_ip();
        let Some(timeout) = half_open.attempt().map(|attempt| attempt.config.ike.tcp_timeout) else { return };
        let Some(link) = half_open.link.tcp_mut() else { return };
        let stream = self.core.dial(now, id, local, link.remote);
        link.dialled(stream, now + timeout);
        half_open.deadline = now + timeout;
    }

    /// The stream that a half-open IKE SA asked for is there.
    pub(super) fn half_open_stream_up(
        &mut self,
        now: Time,
        id: IkeSaId,
        stream: StreamId,
        local: SocketAddr,
    ) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Some(link) = half_open.link.tcp_mut() else { return };
        link.up(stream);
        link.local = local;
        match half_open.take_state() {
            InitiatorState::Dialling(settled) => self.go_on(now, id, settled),
            state => {
                let is_init = matches!(state, InitiatorState::Init(_));
                half_open.put_state(state);
                let is_outstanding = half_open.channel.window.outstanding().is_some();
                if is_init && !is_outstanding {
                    self.send_init(now, id);
                } else if let Some(outstanding) = half_open.channel.window.outstanding() {
                    self.core.transmit(&half_open.link, &outstanding.messages, Some(&mut half_open.traffic));
                }
            }
        }
    }

    /// A stream of a half-open IKE SA is gone, or could not be opened.
    pub(super) fn half_open_stream_down(&mut self, now: Time, id: IkeSaId, stream: StreamId, was_up: bool) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let is_initiator = matches!(half_open.role, Role::Initiator(_));
        let is_solving = matches!(
            &half_open.role,
            Role::Initiator(Initiator { state: InitiatorState::InitPuzzle(_), .. })
        );
        let Some(link) = half_open.link.tcp_mut() else { return };
        link.down(stream, now, &mut self.core.rng);
        if is_solving && was_up {
            // The responder keeps no stream for as long as we may think (RFC 9329 section 6.3.1).
            return;
        }
        if is_initiator && !was_up {
            self.tcp_unreachable(now, id);
        } else if is_initiator && half_open.settled().is_none() {
            // Closed before the first response: this is no IKE over TCP.
            self.tcp_unreachable(now, id);
        }
    }

    /// TCP was refused, or silent for `tcp_timeout`: rows 7, 8 and 10.
    pub(super) fn tcp_unreachable(&mut self, now: Time, id: IkeSaId) {
        let Some(half_open) = self.half_open.get(&id) else { return };
        let fits = half_open
            .settled()
            .is_none_or(|settled| settled.fragments || settled.choice.additional.is_empty());
        self.decide(now, id, Outcome::TcpUnreachable, fits);
    }

    /// A row of the table, carried out. The step is returned for what only the caller can do.
    fn decide(&mut self, now: Time, id: IkeSaId, outcome: Outcome, fits_udp: bool) -> Option<Step> {
        let row = self.row_for(id, outcome, fits_udp)?;
        self.carry_out_row(now, id, outcome, row);
        Some(row.step)
    }

    /// The row of the table that decides for this attempt.
    pub(super) fn row_for(&self, id: IkeSaId, outcome: Outcome, fits_udp: bool) -> Option<table::Row> {
        let half_open = self.half_open.get(&id)?;
        let attempt = half_open.attempt()?;
        Some(table::decide(Situation {
            started_on: half_open.started_on,
            outcome,
            transport: attempt.config.ike.transport,
            // A trial without it would be no trial.
            separate: match attempt.purpose {
                Purpose::Trial => SeparateTransports::Require,
                _ => attempt.config.ike.separate_transports,
            },
            fits_udp: fits_udp && init_fits_udp(&attempt.config),
            udp_was_silent: attempt.udp_was_silent,
            policy: attempt.config.esp.on_unreachable,
            has_fallen: attempt.purpose == Purpose::Fallback,
        }))
    }

    fn carry_out_row(&mut self, now: Time, id: IkeSaId, outcome: Outcome, row: table::Row) {
        match row.step {
            Step::StayOnUdp => {}
            Step::UseTcp => {
                if let Some(attempt) =
                    self.half_open.get_mut(&id).and_then(|half_open| half_open.attempt_mut())
                    && row.reason != Reason::None
                {
                    attempt.reason = row.reason;
                }
            }
            Step::KeepWaiting => {
                if let Some(attempt) =
                    self.half_open.get_mut(&id).and_then(|half_open| half_open.attempt_mut())
                {
                    attempt.passed_over |= outcome == Outcome::NotAnswered;
                }
            }
            Step::StartOnTcp => self.restart(now, id, IkeTransport::Tcp, row.reason),
            Step::StartOnUdpWithoutSeparate => self.restart(now, id, IkeTransport::Udp, row.reason),
            Step::Block => {
                let detail = format!("{} (transport policy, row {})", block_detail(row.reason), row.number);
                self.fail(now, id, row.reason, detail);
            }
        }
    }

    /// The same attempt with a new IKE_SA_INIT.
    fn restart(&mut self, now: Time, id: IkeSaId, on: IkeTransport, reason: Reason) {
        if self.leave_race(id) {
            return;
        }
        let Some(half_open) = self.take_half_open(id) else { return };
        // A dial that was given up, or a stream on which nothing came.
        self.close_streams_of(id);
        let traffic = half_open.traffic;
        let Role::Initiator(Initiator { mut attempt, .. }) = half_open.role else { return };
        if let Some(connection) = self.connections.get_mut(&attempt.config.name)
            && !connection.lacks_sa()
        {
            // The peer was faster: its IKE SA is there.
            connection.attempt = None;
            return;
        }
        attempt.traffic = traffic;
        attempt.reason = reason;
        attempt.udp_was_silent |= on == IkeTransport::Tcp;
        attempt.offers_separate &= on == IkeTransport::Tcp;
        self.start_on(now, attempt, on);
    }

    /// A response to IKE_SA_INIT. None of it is authenticated.
    pub(super) fn init_response(
        &mut self,
        now: Time,
        id: IkeSaId,
        source: Source,
        raw: &[u8],
        message: Message<'_>,
    ) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        // A response over UDP may still be one of several when the first of them has led to TCP.
        if source.transport() != half_open.started_on || message.header.message_id != 0 {
            return self.core.reject("unexpected_init_response");
        }
        let (header, spi_i) = (message.header, half_open.channel.spi_i);
        let is_known = self.has_been_followed(spi_i, raw);
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Role::Initiator(Initiator { state: InitiatorState::Init(sent), .. }) = &mut half_open.role else {
            return match may_be_one_of_several(source) {
                Some(path) => self.another_response(now, id, path, raw, message),
                None => self.core.reject("repeated_init_response"),
            };
        };
        if is_known {
            return self.core.reject("repeated_init_response");
        }
        half_open.traffic.received(source.transport(), raw.len());
        let received = Received::new(message.payloads);
        if received.has(NotifyType::PUZZLE) && !received.has(NotifyType::COOKIE) && received.sa.is_none() {
            // RFC 8019 section 7.1.2: "the Initiator MUST ignore the received message".
            return self.core.reject("puzzle_without_cookie");
        }
        match sent.redirected(&received) {
            Some(Ok(gateway)) => return self.redirected_in_init(now, id, &gateway),
            Some(Err(())) => return self.core.reject("redirect_without_our_nonce"),
            None => {}
        }
        let is_final = !InitSent::asks_to_repeat(&received);
        if is_final && let Some(error) = received.error() {
            return self.init_refused(now, id, ExchangeError::Peer(error));
        }
        if is_final {
            let outcome = sent.outcome(&received);
            if !matches!(self.decide(now, id, outcome, true), Some(Step::StayOnUdp | Step::UseTcp)) {
                return;
            }
        }
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        if let (Link::Udp(path), Source::Udp(from)) = (&mut half_open.link, source) {
            // Our address may have been the kernel's choice until now.
            path.local = from.local;
        }
        let ends = Ends { local: half_open.link.local(), remote: half_open.link.remote() };
        let InitiatorState::Init(mut sent) = half_open.take_state() else { return };
        match sent.answered(&received, raw, (spi_i, header.spi_r), ends, &mut self.core.rng) {
            Ok(InitAnswer::Repeat) => {
                half_open.put_state(InitiatorState::Init(sent));
                self.send_init(now, id);
            }
            Ok(InitAnswer::Puzzle(puzzle)) => self.init_puzzle(now, id, sent, puzzle),
            Ok(InitAnswer::Settled(settled)) => {
                half_open.channel.window.answered(0);
                half_open.channel.spi_r = header.spi_r;
                self.open_race(id, sent, raw);
                self.init_settled(now, id, settled);
            }
            Err(error) => {
                half_open.put_state(InitiatorState::Init(sent));
                self.core.reject(error.label());
                self.init_refused(now, id, error);
            }
        }
    }

    /// An error in answer to IKE_SA_INIT: over TCP it counts, over UDP anybody may have sent it, so a better answer is waited
    /// for until the next retransmission (RFC 7296 section 2.21.1).
    pub(super) fn init_refused(&mut self, now: Time, id: IkeSaId, error: ExchangeError) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        if let Some(detail) = half_open.attempt().and_then(|attempt| attempt.hard_puzzle.clone()) {
            return self.fail(now, id, Reason::PuzzleTooHard, detail);
        }
        match half_open.link.transport() {
            IkeTransport::Tcp => self.fail(now, id, error.reason(), error.to_string()),
            IkeTransport::Udp => {
                if let Some(attempt) = half_open.attempt_mut() {
                    attempt.error = Some(error);
                }
            }
        }
    }

    /// Keys exist. Over UDP with SEPARATE_TRANSPORTS everything else goes over TCP (T section 3.1).
    pub(super) fn init_settled(&mut self, now: Time, id: IkeSaId, settled: Box<Settled>) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        half_open.log_keys(&mut self.core, &settled);
        let (local, remote) = (half_open.link.local(), half_open.link.remote());
        if half_open.started_on == IkeTransport::Udp
            && settled.nat.0
            && let Some(attempt) = half_open.attempt()
        {
            let interval = attempt.config.esp.keepalive;
            let path = UdpPath { local, remote };
            half_open.keepalive = Some((path, now + interval));
            self.core.send_keepalive(path);
        }
        if half_open.started_on == IkeTransport::Udp && settled.separate {
            half_open.link = Link::Tcp(TcpLink::waiting(true, local, remote, now));
            half_open.put_state(InitiatorState::Dialling(settled));
            self.dial_half_open(now, id);
        } else {
            self.go_on(now, id, settled);
        }
    }

    /// Something is due on a half-open IKE SA that we initiate.
    pub(super) fn initiator_timeout(&mut self, now: Time, id: IkeSaId) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let on_tcp = half_open.link.transport() == IkeTransport::Tcp;
        if half_open.deadline <= now && on_tcp {
            return self.tcp_unreachable(now, id);
        }
        if half_open.deadline <= now {
            return self.udp_gave_up(now, id);
        }
        if let Some(link) = half_open.link.tcp()
            && link.redial_at.is_some_and(|at| at <= now)
        {
            // The stream broke in the middle of set-up: what waits leaves again on a new one.
            let deadline = half_open.deadline;
            self.dial_half_open(now, id);
            if let Some(half_open) = self.half_open.get_mut(&id) {
                half_open.deadline = deadline;
            }
            return;
        }
        let Due::Retransmit(n) = half_open.channel.window.due(now) else { return };
        let is_init = half_open.settled().is_none();
        let Some(attempt) = half_open.attempt() else { return };
        let has_heard = attempt.passed_over || attempt.error.is_some();
        if is_init && let Some((reason, detail)) = attempt.verdict.clone() {
            return self.fail(now, id, reason, detail);
        }
        if is_init && let Some(error) = attempt.error.filter(|error| !error.is_want_of_something()) {
            return self.fail(now, id, error.reason(), error.to_string());
        }
        let most = attempt.config.ike.retransmissions;
        // Row 7 came here because TCP is out of reach.
        let is_tried_on_tcp = attempt.config.ike.transport == StartTransport::UdpThenTcp
            && attempt.reason != Reason::IkeTcpUnreachable;
        if is_init && n > SILENT_AFTER && !has_heard && is_tried_on_tcp {
            self.decide(now, id, Outcome::UdpSilent, true);
            return;
        }
        if n > most {
            return self.udp_gave_up(now, id);
        }
        self.core.counters.retransmissions += 1;
        if let Some(half_open) = self.half_open.get_mut(&id)
            && let Some(outstanding) = half_open.channel.window.outstanding()
        {
            self.core.transmit(&half_open.link, &outstanding.messages, Some(&mut half_open.traffic));
        }
    }

    fn udp_gave_up(&mut self, now: Time, id: IkeSaId) {
        let Some(attempt) = self.half_open.get(&id).and_then(|half_open| half_open.attempt()) else { return };
        if let Some(detail) = attempt.hard_puzzle.clone() {
            return self.fail(now, id, Reason::PuzzleTooHard, detail);
        }
        let (reason, detail) = match (attempt.passed_over, attempt.error) {
            (true, _) => (Reason::PeerNoSeparate, block_detail(Reason::PeerNoSeparate).to_string()),
            (false, Some(error)) => (error.reason(), error.to_string()),
            (false, None) => (Reason::IkeUdpUnreachable, block_detail(Reason::IkeUdpUnreachable).to_string()),
        };
        self.fail(now, id, reason, detail);
    }
}

/// Cause and remedy in one sentence.
fn block_detail(reason: Reason) -> &'static str {
    match reason {
        Reason::PeerNoSeparate => {
            "the peer did not agree to separate transports: enable them there, or set separate_transports: prefer with a UDP start"
        }
        Reason::SeparateOff => {
            "IKE over TCP without separate transports puts ESP into TCP, which this policy forbids: set separate_transports: prefer"
        }
        Reason::IkeTcpUnreachable => {
            "TCP 4500 of the peer was refused or silent: is it listening, and does a filter let TCP 4500 through?"
        }
        Reason::IkeUdpUnreachable => {
            "UDP 4500 of the peer was silent: is it running, and does a filter let UDP 4500 through?"
        }
        Reason::IkeUnreachable => {
            "the peer was silent on UDP 4500 and refused or silent on TCP 4500: is it running and reachable?"
        }
        _ => "the set-up stopped",
    }
}

/// From the first message to giving up: every wait, the last one included.
pub(super) fn whole_retransmission_time(config: &ConnectionConfig) -> Duration {
    let waits = (0..=u32::from(config.ike.retransmissions))
        .map(|n| config.ike.retransmit_after.saturating_mul(1 << n.min(16)).min(Duration::from_secs(32)));
    waits.fold(Duration::ZERO, Duration::saturating_add)
}

/// IKE_SA_INIT fits one small IP packet in both directions.
fn init_fits_udp(config: &ConnectionConfig) -> bool {
    // Header, SA, nonce, notifications and vendor ID of this implementation stay below this, without Key Exchange Data.
    const REST: usize = 420;
    const PER_PROPOSAL: usize = 120;
    let method = crate::sa::negotiate::first_ke_method(&config.ike.proposals);
    let data = method.map_or(0, |method| method.initiator_len().max(method.responder_len()));
    REST + PER_PROPOSAL * config.ike.proposals.len().saturating_sub(1) + data <= LARGEST_INIT_PACKET
}
