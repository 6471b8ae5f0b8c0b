//! The TCP connections of an endpoint: who owns them, what strangers may hold, how long they may take.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::quota::{Quota, Standing};
use crate::action::IkeSaId;
use crate::config::EndpointConfig;
use crate::path::StreamId;
use crate::stream::Deframer;
use crate::time::Time;

/// A stranger's prefix has to be there by then.
const PREFIX_WITHIN: Duration = Duration::from_secs(5);
/// A stranger's IKE_SA_INIT, or an authenticated message of an IKE SA that exists, has to be there by then.
const FIRST_MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// After a puzzle the stream is kept this long for the repeated request (transport policy: 5 to 10 s).
const REPEATED_WITHIN: Duration = Duration::from_secs(10);
/// Messages with unknown SPIs that a stream survives (transport policy, "IKE over TCP").
const UNKNOWN_SPIS: u8 = 8;

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Our end.
    pub(crate) local: SocketAddr,
    /// The peer's end.
    pub(crate) remote: SocketAddr,
    /// Cuts what comes into frames.
    pub(crate) deframer: Deframer,
    /// The IKE SA, or attempt, that uses it.
    pub(crate) owner: Option<IkeSaId>,
    /// It is open.
    pub(crate) is_up: bool,
    /// From where it comes, as long as nobody is authenticated on it.
    stranger: Option<Standing>,
    /// Whose ESP packets in it are opened.
    pub(crate) accepts_esp: Option<IkeSaId>,
    prefix_sent: bool,
    opened: Time,
    unknown_spis: u8,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: BTreeMap<StreamId, Box<Stream>>,
    deadlines: std::collections::BTreeSet<(Time, StreamId)>,
    strangers: Quota,
    stranger_limit_bytes: usize,
}

impl Streams {
    /// None yet.
    pub(crate) fn new(config: &EndpointConfig) -> Self {
        Self {
            streams: BTreeMap::new(),
            deadlines: std::collections::BTreeSet::new(),
            strangers: Quota::new(
                config.max_stranger_streams,
                config.max_stranger_streams_per_prefix,
                config.max_streams_per_peer,
            ),
            stranger_limit_bytes: config.max_half_open_bytes,
        }
    }

    /// A connection that we asked for, for `owner`.
    pub(crate) fn dialling(&mut self, now: Time, id: StreamId, owner: IkeSaId, remote: SocketAddr) {
        let local = SocketAddr::new(remote.ip(), 0);
        let stream = Stream {
            local,
            remote,
            deframer: Deframer::dialled(),
            owner: Some(owner),
            is_up: false,
            stranger: None,
            accepts_esp: None,
            prefix_sent: false,
            opened: now,
            unknown_spis: 0,
        };
        self.streams.insert(id, Box::new(stream));
    }

    /// A connection that we asked for is there. False if nobody waits for it any more.
    pub(crate) fn dialled(&mut self, id: StreamId, local: SocketAddr) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) => {
                stream.is_up = true;
                stream.local = local;
                true
            }
            None => false,
        }
    }

    /// A connection that the caller accepted. False if strangers hold too many.
    pub(crate) fn accepted(
        &mut self,
        now: Time,
        id: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
        standing: Standing,
    ) -> bool {
        if self.streams.contains_key(&id) || !self.strangers.admit(remote.ip(), standing) {
            return false;
        }
        let stream = Stream {
            local,
            remote,
            deframer: Deframer::accepted(self.stranger_limit_bytes),
            owner: None,
            is_up: true,
            stranger: Some(standing),
            accepts_esp: None,
            prefix_sent: true,
            opened: now,
            unknown_spis: 0,
        };
        self.streams.insert(id, Box::new(stream));
        self.deadlines.insert((now + PREFIX_WITHIN, id));
        true
    }

    /// The connection with this name.
    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id).map(|stream| &**stream)
    }

    /// The connection with this name.
    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id).map(|stream| &mut **stream)
    }

    /// Connections that belong to `owner`.
    pub(crate) fn of(&self, owner: IkeSaId) -> Vec<StreamId> {
        self.streams.iter().filter(|(_, stream)| stream.owner == Some(owner)).map(|(id, _)| *id).collect()
    }

    /// The prefix is due before the next message; it is taken as sent.
    pub(crate) fn needs_prefix(&mut self, id: StreamId) -> bool {
        self.streams.get_mut(&id).is_some_and(|stream| !core::mem::replace(&mut stream.prefix_sent, true))
    }

    /// An authenticated message of `owner` came on it: it is no stranger any more.
    pub(crate) fn authenticated(&mut self, id: StreamId, owner: IkeSaId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.owner = Some(owner);
        stream.unknown_spis = 0;
        if let Some(standing) = stream.stranger.take() {
            stream.deframer.set_limit(u16::MAX.into());
            self.strangers.leave(stream.remote.ip(), standing);
            self.forget_deadlines(id);
        }
    }

    /// A message with an SPI that is not ours came on it. True if it was one too many.
    pub(crate) fn unknown_spi(&mut self, id: StreamId) -> bool {
        self.streams.get_mut(&id).is_some_and(|stream| {
            stream.unknown_spis = stream.unknown_spis.saturating_add(1);
            stream.unknown_spis > UNKNOWN_SPIS
        })
    }

    /// Its request was answered with a puzzle: the repeated one has to come soon (RFC 9329 section 6.3).
    pub(crate) fn expect_repeated(&mut self, now: Time, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.stranger.is_some()) {
            self.forget_deadlines(id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.opened = now;
            }
            self.deadlines.insert((now + REPEATED_WITHIN, id));
        }
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        if let Some(standing) = stream.stranger {
            self.strangers.leave(stream.remote.ip(), standing);
            self.forget_deadlines(id);
        }
        Some(*stream)
    }

    /// Connections now.
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Streams of strangers now.
    pub(crate) fn strangers(&self) -> usize {
        self.strangers.held()
    }

    /// The next time at which a stranger has taken too long.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Strangers that have taken too long.
    pub(crate) fn overdue(&mut self, now: Time) -> Vec<StreamId> {
        let mut overdue = Vec::new();
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(stream) = self.streams.get(&id) else { continue };
            let first_message = stream.opened + FIRST_MESSAGE_WITHIN;
            if stream.deframer.has_prefix() && now < first_message {
                self.deadlines.insert((first_message, id));
            } else if stream.owner.is_none() {
                overdue.push(id);
            } else {
                // Its half-open SA has a deadline of its own; look again should that one leave the stream behind.
                self.deadlines.insert((now + FIRST_MESSAGE_WITHIN, id));
            }
        }
        overdue
    }

    fn forget_deadlines(&mut self, id: StreamId) {
        self.deadlines.retain(|(_, other)| *other != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_has_5_s_for_the_prefix_and_10_s_for_its_first_message() {
        let mut streams = Streams::new(&EndpointConfig::default());
        let (silent, slow) = (StreamId::accepted(1), StreamId::accepted(2));
        for id in [silent, slow] {
            assert!(streams.accepted(Time::ZERO, id, ADDRESS, ADDRESS, Standing::Stranger));
        }
        let deframer = &mut streams.get_mut(slow).unwrap().deframer;
        deframer.push(b"IKETCP");
        assert_eq!(deframer.next_frame(), Ok(None));
        assert_eq!(streams.next_timeout(), Some(at(5)));
        assert_eq!(streams.overdue(at(5)), [silent]);
        streams.remove(silent);
        assert_eq!(streams.next_timeout(), Some(at(10)));
        assert_eq!(streams.overdue(at(10)), [slow]);
    }

    #[test]
    fn strangers_are_limited_and_owners_are_not_counted() {
        let config = EndpointConfig { max_stranger_streams: 2, ..EndpointConfig::default() };
        let mut streams = Streams::new(&config);
        assert!(streams.accepted(Time::ZERO, StreamId::accepted(1), ADDRESS, ADDRESS, Standing::Stranger));
        assert!(streams.accepted(Time::ZERO, StreamId::accepted(2), ADDRESS, ADDRESS, Standing::Stranger));
        assert!(!streams.accepted(Time::ZERO, StreamId::accepted(3), ADDRESS, ADDRESS, Standing::Stranger));
        streams.authenticated(StreamId::accepted(1), IkeSaId(1));
        assert!(streams.accepted(Time::ZERO, StreamId::accepted(3), ADDRESS, ADDRESS, Standing::Stranger));
        assert_eq!(streams.strangers(), 2);
        assert_eq!(streams.of(IkeSaId(1)), [StreamId::accepted(1)]);
    }

    #[test]
    fn a_few_unknown_spis_are_survived() {
        let mut streams = Streams::new(&EndpointConfig::default());
        let id = StreamId::accepted(1);
        streams.accepted(Time::ZERO, id, ADDRESS, ADDRESS, Standing::Stranger);
        assert!((0..UNKNOWN_SPIS).all(|_| !streams.unknown_spi(id)));
        assert!(streams.unknown_spi(id));
    }

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4500);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }
}
