//! Messages in: which generation they belong to, whether they are authentic and fresh, and who handles them.

use super::{Active, Generation, LiveSa, Task};
use crate::codec::{ExchangeType, Header, Message, NotifyType};
use crate::endpoint::core::Core;
use crate::path::{IkeTransport, StreamId, UdpPath};
use crate::sa::channel::{Opened, Opening, is_authentic};
use crate::sa::error::ExchangeError;
use crate::sa::payloads::{self, Out, Received};
use crate::sa::window::Incoming;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::link::{Link, TcpLink};

/// Most octets of fragments that an authenticated peer may make us keep.
const MOST_FRAGMENT_BYTES: usize = 65_535;

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// Over UDP.
    Udp(UdpPath),
    /// On a stream.
    Tcp(StreamId),
}

impl Source {
    /// The kind of transport.
    pub(crate) fn transport(self) -> IkeTransport {
        match self {
            Self::Udp(_) => IkeTransport::Udp,
            Self::Tcp(_) => IkeTransport::Tcp,
        }
    }
}

/// Which generation of keys a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// The one that new exchanges use.
    Current,
    /// One that is on its way out.
    Previous(usize),
    /// The one that the peer has made while our own rekey is under way.
    Replacing,
}

impl LiveSa {
    /// A message with one of our SPIs. Returns false if it is forged: over TCP the stream then has to be closed.
    pub(crate) fn handle(
        &mut self,
        core: &mut Core,
        now: Time,
        source: Source,
        raw: &[u8],
        message: &Message<'_>,
    ) -> bool {
        let header = message.header;
        if source.transport() != self.link.transport() {
            // Transport policy rule 10; and without SEPARATE_TRANSPORTS this IKE SA does not move to TCP.
            core.reject("wrong_transport");
            return true;
        }
        let our_spi = if header.flags.initiator { header.spi_r } else { header.spi_i };
        let Some(which) = self.generation_of(our_spi) else { return true };
        let Some(generation) = self.generation_mut(which) else { return true };
        let channel = &mut generation.channel;
        if header.flags.initiator == channel.is_initiator
            || (header.spi_i, header.spi_r) != (channel.spi_i, channel.spi_r)
        {
            core.reject("wrong_spi");
            return true;
        }
        let is_wanted = match header.flags.response {
            true => channel.window.outstanding().is_some_and(|o| o.message_id == header.message_id),
            false => channel.window.classify(header.message_id) != Incoming::Outside,
        };
        if !is_wanted {
            core.reject("outside_window");
            return true;
        }
        let key = generation.keys.sk_e(!channel.is_initiator);
        let is_repeated =
            !header.flags.response && channel.window.classify(header.message_id) == Incoming::Repeated;
        let fragment = message.encrypted.as_ref().and_then(|encrypted| encrypted.fragment);
        if let (true, Some(fragment)) = (is_repeated, fragment) {
            // RFC 7383 section 2.6.1: the first fragment asks for the response again, the others for nothing.
            if fragment.number != 1 {
                return true;
            }
            let is_authentic = is_authentic(key, message);
            if is_authentic {
                self.repeat_response(core, which, source);
            } else {
                core.reject("not_authentic");
            }
            return is_authentic;
        }
        let opened = match channel.open(now, key, raw, message, MOST_FRAGMENT_BYTES) {
            Opening::Whole(opened) => opened,
            Opening::Part => return true,
            Opening::Forged => {
                core.reject("not_authentic");
                return false;
            }
        };
        if let Source::Tcp(stream) = source {
            core.streams.authenticated(stream, self.id);
        }
        if which == Which::Current {
            self.confirm();
        }
        if header.flags.response {
            self.note_round_trip(now, which);
            self.fresh(core, now, source);
            self.response(core, now, which, header.message_id, &opened);
        } else if is_repeated {
            self.repeat_response(core, which, source);
        } else {
            self.fresh(core, now, source);
            self.request(core, now, which, source, &header, &opened);
        }
        true
    }

    /// The generation with this SPI of ours.
    fn generation_of(&self, our_spi: u64) -> Option<Which> {
        let is_it = |generation: &Generation| generation.channel.our_spi() == our_spi;
        if is_it(&self.current) {
            return Some(Which::Current);
        }
        if self.replaced_by_peer.as_ref().and_then(|r| r.generation()).is_some_and(is_it) {
            return Some(Which::Replacing);
        }
        self.previous.iter().position(is_it).map(Which::Previous)
    }

    pub(super) fn generation_mut(&mut self, which: Which) -> Option<&mut Generation> {
        match which {
            Which::Current => Some(&mut self.current),
            Which::Previous(index) => self.previous.get_mut(index),
            Which::Replacing => self.replaced_by_peer.as_mut().and_then(|r| r.generation_mut()),
        }
    }

    /// Something fresh, authentic and in the window: the peer lives, and messages go where this one came from (RFC 9329
    /// section 6.1, RFC 7296 section 2.23).
    fn fresh(&mut self, core: &mut Core, now: Time, source: Source) {
        self.ike_seen = now;
        self.carrier.ike_heard(now, &mut core.rng);
        let first_wait = self.config.ike.retransmit_after;
        for generation in self.previous.iter_mut().chain([&mut self.current]) {
            generation.channel.window.hasten(now, first_wait);
        }
        match (&mut self.link, source) {
            (Link::Udp(path), Source::Udp(from)) => {
                let we_are_behind_nat = self.carrier.nat().0;
                if !we_are_behind_nat && *path != from {
                    let moved = path.remote != from.remote;
                    *path = from;
                    if moved && from.local.port() == core.config.nat_port {
                        self.carrier.ike_moved(from.remote);
                    }
                }
            }
            (Link::Tcp(link), Source::Tcp(stream)) => {
                link.proven();
                if link.current != Some(stream) {
                    self.take_stream(core, now, stream);
                    self.resend_outstanding(core);
                }
            }
            _ => {}
        }
        self.carry_out(core, now);
    }

    /// The stored response again, to where the request came from.
    fn repeat_response(&mut self, core: &mut Core, which: Which, source: Source) {
        core.counters.responses_repeated += 1;
        let Some(generation) = self.generation_mut(which) else { return };
        if let Some(messages) = generation.channel.window.stored_response() {
            core.answer(source, messages);
        }
    }

    /// Requests that wait leave again, on a new stream.
    pub(super) fn resend_outstanding(&mut self, core: &mut Core) {
        for generation in self.previous.iter_mut().chain([&mut self.current]) {
            generation.channel.window.repeated();
            if let Some(outstanding) = generation.channel.window.outstanding() {
                core.transmit(&self.link, &outstanding.messages, None);
            }
        }
    }

    fn note_round_trip(&mut self, now: Time, which: Which) {
        let sample =
            self.generation_mut(which).and_then(|generation| generation.channel.window.round_trip(now));
        if let Some(sample) = sample {
            self.carrier.ike_round_trip(sample);
        }
    }

    fn response(&mut self, core: &mut Core, now: Time, which: Which, message_id: u32, opened: &Opened) {
        let Some(generation) = self.generation_mut(which) else { return };
        if !generation.channel.window.answered(message_id) {
            return;
        }
        let Some(active) = generation.active.take() else { return };
        let received = match Received::decode(&opened.content) {
            Ok(received) => received,
            Err(error) => {
                // RFC 7296 section 2.21.3: nothing is sent about a response, and the two ends no longer agree.
                core.reject(error.label());
                self.abandon(core, active);
                return self.end(Reason::ProtocolError);
            }
        };
        if received.has(NotifyType::INVALID_SYNTAX) {
            // RFC 7296 section 2.21.3: fatal on both sides; the peer has no IKE SA any more.
            self.abandon(core, active);
            return self.end(Reason::ProtocolError);
        }
        match active {
            Active::CreateChild(exchange) => self.child_created(core, now, *exchange, &received),
            Active::RekeyIke(exchange) => self.ike_rekeyed(core, now, *exchange, &received),
            Active::FollowUp(exchange) => self.followed_up(core, now, *exchange, &received),
            Active::DeleteChild(child) => self.child_deleted(core, now, child),
            Active::DeleteIke => self.generation_deleted(core, which),
            // It goes, or is closed (RFC 5685 section 5).
            Active::Redirect(_) => self.leaves = Some((now + self.config.redirect.grace, Reason::Redirected)),
            Active::Liveness => {}
        }
    }

    fn request(
        &mut self,
        core: &mut Core,
        now: Time,
        which: Which,
        source: Source,
        header: &Header,
        opened: &Opened,
    ) {
        let (out, after) = match Received::decode(&opened.content) {
            Ok(received) => match header.exchange {
                ExchangeType::CREATE_CHILD_SA => self.respond_to_create(core, now, which, &received),
                ExchangeType::IKE_FOLLOWUP_KE => self.respond_to_followup(core, now, &received),
                ExchangeType::INFORMATIONAL => self.respond_to_informational(core, now, which, &received),
                _ => self.refuse(
                    core,
                    ExchangeError::Payloads("an exchange that a live IKE SA does not have"),
                    None,
                ),
            },
            Err(error) => self.refuse(core, error, None),
        };
        self.send_response(core, which, source, header, &out);
        self.after(core, now, which, after);
    }

    /// An error for the peer, and what it means for the IKE SA.
    pub(super) fn refuse(
        &mut self,
        core: &mut Core,
        error: ExchangeError,
        child_spi: Option<u32>,
    ) -> (Out, After) {
        core.reject(error.label());
        let after = if error.is_fatal() { After::End(Reason::ProtocolError) } else { After::Nothing };
        (payloads::error(error, child_spi), after)
    }

    /// The answer goes to where the request came from (RFC 7296 section 2.11), whatever the link is.
    fn send_response(&mut self, core: &mut Core, which: Which, source: Source, header: &Header, out: &Out) {
        let most = self.fragment_bytes();
        let Some(generation) = self.generation_mut(which) else { return };
        let message_id = header.message_id;
        let header = generation.channel.header(header.exchange, true, message_id);
        let key = generation.keys.sk_e(generation.channel.is_initiator).clone();
        let sealed =
            payloads::encode(out).and_then(|content| generation.channel.seal(&key, &header, &content, most));
        let messages = sealed.map(|sealed| sealed.messages).unwrap_or_else(|| {
            // The request has been carried out, so it must not be taken for a fresh one again.
            core.reject("response_too_long");
            Vec::new()
        });
        core.answer(source, &messages);
        generation.channel.window.responded(message_id, messages);
    }

    /// The size from which messages leave in fragments: over UDP only, never over TCP (RFC 9329 section 6.1).
    pub(super) fn fragment_bytes(&self) -> Option<usize> {
        match &self.link {
            Link::Udp(path) if self.fragments => Some(fragment_bytes(self.config.ike.fragment_size, path)),
            _ => None,
        }
    }

    fn after(&mut self, core: &mut Core, now: Time, which: Which, after: After) {
        match after {
            After::Nothing => {}
            After::End(reason) => self.end(reason),
            After::Adopt(generation) => self.adopt(core, now, *generation),
            After::GenerationDeleted => self.generation_deleted_by_peer(core, now, which),
        }
    }

    /// An exchange of ours will not be answered: what it holds is given back.
    pub(super) fn abandon(&mut self, core: &mut Core, active: Active) {
        let spi = match active {
            Active::CreateChild(exchange) => exchange.spi_in(),
            Active::FollowUp(exchange) => return exchange.release(core),
            Active::RekeyIke(exchange) => {
                core.spis.remove(&exchange.our_spi());
                return;
            }
            Active::DeleteChild(_) | Active::DeleteIke | Active::Redirect(_) | Active::Liveness => return,
        };
        core.spi_source.release(spi);
    }

    /// The IKE SA is over.
    pub(crate) fn end(&mut self, reason: Reason) {
        self.ended.get_or_insert(reason);
    }

    /// Our stream is there, or gone.
    pub(super) fn stream_event(&mut self, core: &mut Core, up: bool) {
        core.event(crate::event::Event::Stream { connection: self.config.name.clone(), up });
    }

    /// A stream of ours is up.
    pub(crate) fn stream_up(&mut self, core: &mut Core, now: Time, stream: StreamId) {
        if self.link.tcp().is_none() {
            return core.close_stream(stream);
        }
        core.counters.stream_reconnects += 1;
        self.take_stream(core, now, stream);
        let is_waiting = |generation: &Generation| generation.channel.window.outstanding().is_some();
        if self.previous.iter().chain([&self.current]).any(is_waiting) {
            return self.resend_outstanding(core);
        }
        // The first message on a new stream is a request (RFC 9329 section 6.1), under keys that the peer has.
        let known = self.previous.iter().rposition(|generation| !generation.is_deleted);
        match known.filter(|_| !self.current.is_confirmed) {
            Some(index) => {
                self.send_request_on(core, now, Which::Previous(index), Out::new(), Active::Liveness);
            }
            None => {
                self.queue.push_front(Task::Liveness);
                self.pause_until = None;
                self.start_next(core, now);
            }
        }
    }

    /// Messages go to this stream from now on. The time without one does not count against the peer if ESP came in
    /// meanwhile.
    fn take_stream(&mut self, core: &mut Core, now: Time, stream: StreamId) {
        let Some(link) = self.link.tcp_mut() else { return };
        let down_since = link.down_since;
        link.up(stream);
        if let Some(remote) = core.streams.get(stream).map(|s| s.remote).filter(|_| stream.is_accepted()) {
            link.remote = remote;
            self.carrier.peer_has_address(now, remote.ip());
        }
        self.carrier.stream_is(Some(stream));
        if let Some(down_since) = down_since
            && self.esp_seen.is_some_and(|seen| seen >= down_since)
        {
            for generation in self.previous.iter_mut().chain([&mut self.current]) {
                generation.channel.window.excuse(down_since, now);
            }
        }
        self.accept_esp(core);
        self.stream_event(core, true);
        self.carry_out(core, now);
    }

    /// A stream is gone, or a dial failed.
    pub(crate) fn stream_down(&mut self, core: &mut Core, now: Time, stream: StreamId) {
        let was_current =
            self.link.tcp_mut().is_some_and(|link: &mut TcpLink| link.down(stream, now, &mut core.rng));
        if was_current {
            self.carrier.stream_is(None);
            self.stream_event(core, false);
        }
    }
}

/// What has to happen once the response has left.
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The IKE SA is over.
    End(Reason),
    /// The peer has rekeyed the IKE SA: these keys take over.
    Adopt(Box<Generation>),
    /// The peer has deleted the generation that the request came on.
    GenerationDeleted,
}

/// Octets of an IKE message in a packet of `packet_size`: without IP, UDP and the non-ESP marker.
pub(crate) fn fragment_bytes(packet_size: u16, path: &UdpPath) -> usize {
    let ip = if path.remote.is_ipv4() { 20 } else { 40 };
    usize::from(packet_size).saturating_sub(ip + 8 + 4)
}
