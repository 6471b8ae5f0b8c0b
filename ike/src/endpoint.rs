//! One shard of IKE SAs: bytes, time, commands and facts in, actions out.
//!
//! Getters ([`Endpoint::status`], [`Endpoint::counters`]), inputs (`handle_*`, [`Endpoint::command`], [`Endpoint::fact`],
//! [`Endpoint::set_connections`]), outputs ([`Endpoint::poll_action`], [`Endpoint::poll_timeout`]). After every input poll
//! actions until there are none, carry them out in order, then wait for the time that `poll_timeout` gives.
//!
//! Shards share nothing. The top octet of our IKE SPIs is the shard, so that [`Endpoint::shard_of`] finds the right one for
//! a message; a first message belongs to any.

use ::core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand_core::SeedableRng as _;

use crate::action::{Action, IkeSaId};
use crate::codec::{ExchangeType, Header, Malformed, Message, NON_ESP_MARKER, Notify, Payload};
use crate::config::{ConnectionConfig, EndpointConfig};
use crate::crypto::Rng;
use crate::event::Counters;
use crate::live::{LiveSa, Source};
use crate::path::{IkeTransport, StreamId, UdpPath};
use crate::sa::init::Ends;
use crate::status::Reason;
use crate::stream::Frame;
use crate::time::Time;

mod address;
mod commands;
mod connection;
mod cookie;
pub(crate) mod core;
mod credentials;
mod demand;
mod esp_in_tcp;
mod esp_policy;
mod establish;
mod facts;
mod fall;
mod half_open;
mod held;
mod initiate;
mod lifecycle;
mod peers;
mod puzzles;
mod quota;
mod race;
mod redirect;
mod respond;
mod setup;
mod status;
mod streams;
mod succession;
mod trial;

use self::connection::Connection;
use self::cookie::CookieJar;
use self::core::{Core, NAT_KEEPALIVE};
use self::demand::Spent;
use self::half_open::HalfOpen;
use self::peers::Peers;
use self::quota::{Quota, Standing};

pub use self::core::SpiSource;
pub use self::held::Held;

/// The shortest time between unprotected errors about messages that cannot be read.
const UNPROTECTED_INTERVAL: Duration = Duration::from_millis(50);

/// One shard of IKE SAs. See the module.
pub struct Endpoint {
    core: Core,
    connections: BTreeMap<Arc<str>, Connection>,
    // IKE SAs are boxed: a node of a tree has room for eleven values, half of it stays empty, and the others are moved about.
    half_open: BTreeMap<IkeSaId, Box<HalfOpen>>,
    by_initiator: BTreeMap<(u64, SocketAddr), IkeSaId>,
    half_open_quota: Quota,
    /// Octets that half-open SAs of strangers make us keep.
    stranger_bytes: usize,
    cookies: CookieJar,
    spent: Spent,
    peers: Peers,
    /// Half-open SAs of the responder that got a message which does not authenticate.
    attacked: usize,
    live: BTreeMap<IkeSaId, Box<LiveSa>>,
    timers: BTreeSet<(Time, Timer)>,
    due: BTreeMap<Timer, Time>,
    is_shutting_down: bool,
    unprotected_at: Option<Time>,
    races: self::race::Races,
    /// Addresses of IKE SAs that this host does not have.
    gone: Arc<[IpAddr]>,
}

/// Whose turn it is at some time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// An IKE SA, half-open or live.
    Sa(IkeSaId),
    /// A connection.
    Connection(Arc<str>),
    /// Streams of strangers.
    Streams,
}

/// Why a TCP connection is gone, or could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamDown {
    /// The peer refused it.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// The peer closed it.
    Closed,
    /// It was reset.
    Reset,
    /// The cause is here, as the operating system puts it.
    Local(String),
}

impl Endpoint {
    /// A shard with these connections. What is configured to start, starts at once.
    pub fn new(
        config: EndpointConfig,
        connections: Vec<ConnectionConfig>,
        spis: Box<dyn SpiSource + Send>,
        seed: [u8; 32],
        now: Time,
    ) -> Self {
        let mut rng = Rng::from_seed(seed);
        let cookies = CookieJar::new(&mut rng, now);
        let mut endpoint = Self {
            half_open_quota: Quota::new(
                config.max_half_open,
                config.max_half_open_per_prefix,
                config.max_half_open_per_peer,
            ),
            stranger_bytes: 0,
            spent: Spent::new(config.max_half_open.saturating_mul(4)),
            peers: Peers::default(),
            attacked: 0,
            core: Core::new(config, rng, spis),
            connections: BTreeMap::new(),
            half_open: BTreeMap::new(),
            by_initiator: BTreeMap::new(),
            cookies,
            live: BTreeMap::new(),
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
            is_shutting_down: false,
            unprotected_at: None,
            races: BTreeMap::new(),
            gone: Arc::default(),
        };
        endpoint.set_connections(now, connections);
        endpoint
    }

    /// It is `wall`, since 1970 and UTC. Certificates are judged by it, timers are not; say it before inputs, as often as clocks
    /// are set.
    pub fn set_wall_time(&mut self, now: Time, wall: Duration) {
        self.core.set_wall_time(now, wall);
    }

    /// The shard of an IKE message, without non-ESP marker; `None` if it is a first message, which any shard may take, or no
    /// IKE message at all.
    pub fn shard_of(message: &[u8]) -> Option<u8> {
        let (header, _) = Header::decode(message).ok()?;
        let our_spi = if header.flags.initiator { header.spi_r } else { header.spi_i };
        (our_spi != 0).then(|| our_spi.to_be_bytes()[0])
    }

    /// A UDP datagram, whole. One that came to port 500 has no non-ESP marker; one on the port of ESP without it is not IKE.
    pub fn handle_datagram(&mut self, now: Time, path: UdpPath, payload: &[u8]) {
        if payload == [NAT_KEEPALIVE] {
            return;
        }
        let message = if path.local.port() == self.core.config.nat_port {
            match payload.strip_prefix(&NON_ESP_MARKER) {
                Some(message) => message,
                None => return self.core.reject("esp_as_ike"),
            }
        } else {
            payload
        };
        self.core.count_in(IkeTransport::Udp, payload.len() as u64);
        self.handle_message(now, Source::Udp(path), message);
    }

    /// A TCP connection is there: one that [`Action::Dial`] asked for, or one that the caller accepted.
    pub fn handle_stream_up(&mut self, now: Time, stream: StreamId, local: SocketAddr, remote: SocketAddr) {
        if stream.is_accepted() {
            let standing = self.standing(remote.ip());
            if self.is_shutting_down || !self.core.streams.accepted(now, stream, local, remote, standing) {
                self.core.reject("too_many_streams");
                self.core.actions.push_back(Action::CloseStream { stream });
            }
            self.expect_certificates(stream, Ends { local, remote });
            return self.reschedule_streams();
        }
        if !self.core.streams.dialled(stream, local) {
            self.core.actions.push_back(Action::CloseStream { stream });
            return;
        }
        let Some(owner) = self.core.streams.get(stream).and_then(|stream| stream.owner) else { return };
        if self.half_open.contains_key(&owner) {
            self.half_open_stream_up(now, owner, stream, local);
        } else if let Some(live) = self.live.get_mut(&owner) {
            live.stream_up(&mut self.core, now, stream);
        } else {
            self.core.close_stream(stream);
        }
        self.touch(now, owner);
    }

    /// Octets came on a TCP connection, in any portions.
    pub fn handle_stream_bytes(&mut self, now: Time, stream: StreamId, bytes: &[u8]) {
        let Some(known) = self.core.streams.get_mut(stream) else { return };
        known.deframer.push(bytes);
        while let Some(known) = self.core.streams.get_mut(stream) {
            match known.deframer.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Ike(message))) => {
                    self.core
                        .count_in(IkeTransport::Tcp, (message.len() + crate::stream::IKE_OVERHEAD) as u64);
                    self.handle_message(now, Source::Tcp(stream), &message);
                }
                Ok(Some(Frame::Esp(packet))) => self.esp_in_tcp(stream, packet),
                Err(_) => {
                    self.core.reject("broken_framing");
                    self.lose_stream(now, stream);
                }
            }
        }
        self.reschedule_streams();
    }

    /// A TCP connection is gone, or could not be opened.
    pub fn handle_stream_down(&mut self, now: Time, stream: StreamId, cause: StreamDown) {
        let Some(known) = self.core.streams.remove(stream) else { return };
        match (known.owner, cause) {
            (Some(owner), StreamDown::Local(cause))
                if !known.is_up && self.half_open.contains_key(&owner) =>
            {
                // The cause is here and says nothing about the peer (transport policy rule 5).
                self.fail(
                    now,
                    owner,
                    Reason::NoRoute,
                    format!("no TCP connection can be opened here: {cause}"),
                );
            }
            (Some(owner), _) => self.stream_lost(now, owner, stream, known.is_up),
            (None, _) => {}
        }
        self.reschedule_streams();
    }

    /// The time that [`Endpoint::poll_timeout`] gave has come.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.first().cloned()
            && at <= now
        {
            self.timers.pop_first();
            self.due.remove(&timer);
            match timer {
                Timer::Sa(id) => self.sa_timeout(now, id),
                Timer::Connection(name) => self.connection_timeout(now, &name),
                Timer::Streams => {
                    for stream in self.core.streams.overdue(now) {
                        self.core.reject("stranger_too_slow");
                        self.core.close_stream(stream);
                    }
                    self.reschedule_streams();
                }
            }
        }
    }

    /// When [`Endpoint::handle_timeout`] has to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next thing to carry out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.core.actions.pop_front()
    }

    /// Plain counters since the start.
    pub fn counters(&self) -> Counters {
        Counters {
            half_open: self.half_open_quota.held() as u64,
            stranger_bytes: self.stranger_bytes as u64,
            stranger_streams: self.core.streams.strangers() as u64,
            ..self.core.counters.clone()
        }
    }

    /// Whether an address is that of a configured peer.
    fn standing(&self, remote: IpAddr) -> Standing {
        match self.peers.connections(remote) {
            0 => Standing::Stranger,
            connections => Standing::Peer { connections },
        }
    }

    fn handle_message(&mut self, now: Time, source: Source, raw: &[u8]) {
        let message = match Message::decode(raw) {
            Ok(message) => message,
            Err(error) => return self.unreadable(now, source, raw, error.cause),
        };
        let header = message.header;
        let is_init = header.exchange == ExchangeType::IKE_SA_INIT;
        if is_init && !header.flags.response {
            if header.flags.initiator && header.spi_r == 0 && !self.is_shutting_down {
                self.init_request(now, source, raw, message);
            } else {
                self.core.reject("wrong_spi");
            }
            return;
        }
        let our_spi = if header.flags.initiator { header.spi_r } else { header.spi_i };
        let Some(id) = self.core.spis.get(&our_spi).copied() else {
            self.core.reject("unknown_spi");
            if let Source::Tcp(stream) = source
                && self.core.streams.unknown_spi(stream)
            {
                self.lose_stream(now, stream);
            }
            return;
        };
        let id = if is_init { id } else { self.branch_of(id, our_spi, header.spi_r) };
        if is_init {
            self.init_response(now, id, source, raw, message);
        } else if message.encrypted.is_none() {
            self.core.reject("not_encrypted");
        } else {
            let is_authentic = match self.live.get_mut(&id) {
                Some(live) => live.handle(&mut self.core, now, source, raw, &message),
                None => self.half_open_message(now, id, source, raw, &message),
            };
            if let (false, Source::Tcp(stream)) = (is_authentic, source) {
                self.lose_stream(now, stream);
            }
        }
        self.touch(now, id);
    }

    /// Octets that are no IKE message: silence, but for a version that we do not speak and for an IKE_SA_INIT that needs a
    /// payload that we do not know (RFC 7296 section 2.5). A stream with garbage on it is closed.
    fn unreadable(&mut self, now: Time, source: Source, raw: &[u8], cause: Malformed) {
        self.core.reject(match cause {
            Malformed::MajorVersion(_) => "major_version",
            Malformed::UnsupportedCritical(_) => "unsupported_critical_payload",
            _ => "malformed",
        });
        let answer = match cause {
            Malformed::MajorVersion(version) if version > 2 => Some(Notify::invalid_major_version()),
            Malformed::UnsupportedCritical(payload) => Some(Notify::unsupported_critical_payload(payload)),
            _ => None,
        };
        match (answer, request_header(raw), source) {
            (Some(answer), Some(header), _) => {
                if self.may_answer_unprotected(now) {
                    self.plain_response(source, &header, &vec![Payload::Notify(answer)]);
                }
            }
            (_, _, Source::Tcp(stream)) => self.lose_stream(now, stream),
            (_, _, Source::Udp(_)) => {}
        }
    }

    /// Unprotected errors are limited (RFC 7296 section 2.21.4).
    fn may_answer_unprotected(&mut self, now: Time) -> bool {
        let is_due = self.unprotected_at.is_none_or(|at| now >= at + UNPROTECTED_INTERVAL);
        if is_due {
            self.unprotected_at = Some(now);
        }
        is_due
    }

    /// A stream that has to go: closed here, and lost to the IKE SA that used it.
    fn lose_stream(&mut self, now: Time, stream: StreamId) {
        let owner = self.core.streams.get(stream).and_then(|stream| stream.owner);
        self.core.close_stream(stream);
        if let Some(owner) = owner {
            self.stream_lost(now, owner, stream, true);
        }
    }

    fn stream_lost(&mut self, now: Time, owner: IkeSaId, stream: StreamId, was_up: bool) {
        if self.half_open.contains_key(&owner) {
            self.half_open_stream_down(now, owner, stream, was_up);
        } else if let Some(live) = self.live.get_mut(&owner) {
            live.stream_down(&mut self.core, now, stream);
        }
        self.touch(now, owner);
    }
}

/// The header of a request whose version or payloads we do not understand, for an answer to it.
fn request_header(raw: &[u8]) -> Option<Header> {
    const VERSION_AT: usize = 17;
    let mut raw = raw.to_vec();
    *raw.get_mut(VERSION_AT)? = 0x20;
    let (header, _) = Header::decode(&raw).ok()?;
    let is_first = header.exchange == ExchangeType::IKE_SA_INIT && header.flags.initiator;
    (is_first && !header.flags.response).then_some(header)
}
