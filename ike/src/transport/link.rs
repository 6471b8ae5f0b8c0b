//! What carries IKE of one IKE SA: a UDP path, or one TCP stream after another (RFC 9329).
//!
//! ```text
//! Udp ──SEPARATE_TRANSPORTS agreed──> Tcp { no stream } ──stream up──> Tcp { stream }
//!                                        ^   originator: dials, 0 then 1 to 60 s    │
//!                                        └───────────── stream down ────────────────┘
//! ```

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use super::backoff::Backoff;
use crate::path::{IkeTransport, StreamId, UdpPath};
use crate::time::Time;

/// Waits between dials of a live IKE SA: at once, then these (transport policy, "IKE over TCP").
const REDIAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Where messages of an IKE SA go.
#[derive(Debug)]
pub(crate) enum Link {
    /// UDP; the path follows fresh authenticated requests when the peer is behind a NAT.
    Udp(UdpPath),
    /// TCP.
    Tcp(TcpLink),
}

/// IKE over TCP.
#[derive(Debug)]
pub(crate) struct TcpLink {
    /// We dial; the peer waits (RFC 9329 section 1.2: TCP Originator).
    pub(crate) is_originator: bool,
    /// Our address, for ESP and for dialling again from the same one.
    pub(crate) local: SocketAddr,
    /// The peer's address and port as first seen.
    pub(crate) remote: SocketAddr,
    /// The stream that is sent on.
    pub(crate) current: Option<StreamId>,
    /// A dial under way, and when it is given up.
    pub(crate) dialling: Option<(StreamId, Time)>,
    /// When to dial next.
    pub(crate) redial_at: Option<Time>,
    /// Since when there has been no stream.
    pub(crate) down_since: Option<Time>,
    /// Something authenticated came on the current stream.
    is_proven: bool,
    backoff: Backoff,
}

impl Link {
    /// The kind of transport.
    pub(crate) fn transport(&self) -> IkeTransport {
        match self {
            Self::Udp(_) => IkeTransport::Udp,
            Self::Tcp(_) => IkeTransport::Tcp,
        }
    }

    /// The peer's address.
    pub(crate) fn remote(&self) -> SocketAddr {
        match self {
            Self::Udp(path) => path.remote,
            Self::Tcp(link) => link.remote,
        }
    }

    /// Our address.
    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(path) => path.local,
            Self::Tcp(link) => link.local,
        }
    }

    /// The address to bind a dial to, unless it is unspecified.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        Some(self.local().ip()).filter(|ip| !ip.is_unspecified())
    }

    /// The TCP half, if it is one.
    pub(crate) fn tcp_mut(&mut self) -> Option<&mut TcpLink> {
        match self {
            Self::Udp(_) => None,
            Self::Tcp(link) => Some(link),
        }
    }

    /// The TCP half, if it is one.
    pub(crate) fn tcp(&self) -> Option<&TcpLink> {
        match self {
            Self::Udp(_) => None,
            Self::Tcp(link) => Some(link),
        }
    }
}

impl TcpLink {
    /// A link on a stream that is up.
    pub(crate) fn on_stream(
        is_originator: bool,
        local: SocketAddr,
        remote: SocketAddr,
        stream: StreamId,
    ) -> Self {
        Self {
            is_originator,
            local,
            remote,
            current: Some(stream),
            dialling: None,
            redial_at: None,
            down_since: None,
            is_proven: true,
            backoff: REDIAL,
        }
    }

    /// A link without a stream yet: the originator dials at `now`, the other end waits.
    pub(crate) fn waiting(is_originator: bool, local: SocketAddr, remote: SocketAddr, now: Time) -> Self {
        Self {
            is_originator,
            local,
            remote,
            current: None,
            dialling: None,
            redial_at: is_originator.then_some(now),
            down_since: Some(now),
            is_proven: false,
            backoff: REDIAL,
        }
    }

    /// This stream is the one to send on from now on.
    pub(crate) fn up(&mut self, stream: StreamId) {
        self.is_proven &= self.current == Some(stream);
        self.current = Some(stream);
        self.down_since = None;
        self.redial_at = None;
        if self.dialling.is_some_and(|(dialled, _)| dialled == stream) {
            self.dialling = None;
        }
    }

    /// Something authenticated came: the stream is worth its name, so the next loss is answered at once.
    pub(crate) fn proven(&mut self) {
        self.is_proven = true;
        self.backoff.reset();
    }

    /// A stream is gone, or a dial failed. Returns true if it was the one that was sent on.
    pub(crate) fn down(&mut self, stream: StreamId, now: Time, rng: &mut impl rand_core::Rng) -> bool {
        let was_current = self.current == Some(stream);
        let was_dial = self.dialling.is_some_and(|(dialled, _)| dialled == stream);
        if was_current {
            self.current = None;
            self.down_since = Some(now);
        }
        if was_dial {
            self.dialling = None;
        }
        if (was_current || was_dial)
            && self.is_originator
            && self.dialling.is_none()
            && self.current.is_none()
        {
            // At once after a loss, later after a failed dial or a stream on which nothing came: something that takes
            // connections and closes them again would be dialled as fast as it does.
            let is_loss = was_current && self.is_proven;
            self.redial_at = Some(if is_loss { now } else { now + self.backoff.next(rng) });
        }
        was_current
    }

    /// Our address is this one from now on: streams from another one are given up and returned, and the next dial is due.
    pub(crate) fn change_address(
        &mut self,
        address: IpAddr,
        now: Time,
    ) -> (Option<StreamId>, Option<StreamId>) {
        self.local.set_ip(address);
        let given_up = (self.current.take(), self.dialling.take().map(|(stream, _)| stream));
        if given_up.0.is_some() {
            self.down_since = Some(now);
        }
        self.backoff.reset();
        self.redial_at = Some(now);
        given_up
    }

    /// A dial has been started.
    pub(crate) fn dialled(&mut self, stream: StreamId, give_up: Time) {
        self.dialling = Some((stream, give_up));
        self.redial_at = None;
    }

    /// The next thing to do about a missing stream.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.redial_at.into_iter().chain(self.dialling.map(|(_, at)| at)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn the_originator_dials_at_once_after_a_loss_and_backs_off_after_failures() {
        let mut rng = crate::crypto::Rng::from_seed([0; 32]);
        let (first, second) = (StreamId::dialled(1), StreamId::dialled(2));
        let mut link = TcpLink::on_stream(true, ADDRESS, ADDRESS, first);
        let now = Time::ZERO + Duration::from_secs(10);
        assert!(link.down(first, now, &mut rng));
        assert_eq!(link.next_timeout(), Some(now));
        link.dialled(second, now + Duration::from_secs(10));
        assert!(!link.down(second, now, &mut rng));
        let wait = link.next_timeout().unwrap().since(now);
        assert!(wait >= Duration::from_secs(1) && wait < Duration::from_secs(2), "{wait:?}");
        assert_eq!(link.down_since, Some(now));
    }

    /// A middlebox may take a connection and close it again.
    #[test]
    fn a_stream_on_which_nothing_came_is_not_redialled_at_once() {
        let mut rng = crate::crypto::Rng::from_seed([0; 32]);
        let mut link = TcpLink::waiting(true, ADDRESS, ADDRESS, Time::ZERO);
        let mut now = Time::ZERO;
        let mut waits = Vec::new();
        for n in 1..=4 {
            let stream = StreamId::dialled(n);
            link.dialled(stream, now + Duration::from_secs(10));
            link.up(stream);
            assert!(link.down(stream, now, &mut rng));
            let next = link.next_timeout().unwrap();
            waits.push(next.since(now));
            now = next;
        }
        assert!(waits.is_sorted() && waits[0] >= Duration::from_secs(1), "{waits:?}");
        link.up(StreamId::dialled(5));
        link.proven();
        assert!(link.down(StreamId::dialled(5), now, &mut rng));
        assert_eq!(link.next_timeout(), Some(now), "this one was worth its name");
    }

    #[test]
    fn from_another_address_the_originator_dials_at_once_whatever_the_back_off() {
        let mut rng = crate::crypto::Rng::from_seed([0; 32]);
        let [current, failed, under_way] = [1, 2, 3].map(StreamId::dialled);
        let mut link = TcpLink::on_stream(true, ADDRESS, ADDRESS, current);
        let (lost, now) = (Time::ZERO + Duration::from_secs(10), Time::ZERO + Duration::from_secs(12));
        let other = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(link.change_address(other, lost), (Some(current), None));
        link.dialled(failed, lost);
        link.down(failed, lost, &mut rng);
        assert!(link.next_timeout() > Some(lost));
        link.dialled(under_way, now + Duration::from_secs(10));
        assert_eq!(link.change_address(other, now), (None, Some(under_way)));
        assert_eq!((link.next_timeout(), link.local.ip()), (Some(now), other));
        assert_eq!(link.down_since, Some(lost), "there has been none since");
    }

    #[test]
    fn the_other_end_waits() {
        let mut rng = crate::crypto::Rng::from_seed([0; 32]);
        let stream = StreamId::accepted(1);
        let mut link = TcpLink::on_stream(false, ADDRESS, ADDRESS, stream);
        assert!(link.down(stream, Time::ZERO, &mut rng));
        assert_eq!(link.next_timeout(), None);
    }

    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4500);
}
