//! The second half of an outbound packet's way, at its SA's owner: fit, seal, outer header, send.

use std::sync::Arc;

use portcullis_common::DropReason;
use portcullis_esp::{NextHeader, SealError};

use super::Worker;
use super::batch::Batch;
use super::egress::find_next_hop;
use super::load::Direction;
use super::next_hop::NextHop;
use super::paths::{PathSnapshot, PathState};
use super::sas::OutboundExtra;
use super::sending::Departure;
use super::work::{Packet, Seal, Sender};
use crate::event::DataPlaneEvent;
use crate::packet::icmp::IcmpError;
use crate::packet::outer::{OuterFields, OuterHeader};
use crate::packet::{Inner, IpVersion, fragment, mss};
use crate::sa::{Carrier, PathId};
use crate::sa_table::{Found, OutboundIndex, OwnedOutbound};
use crate::stream::StreamQueue;
use crate::tap::{Place, Point};
use crate::xsk::{HEADROOM, Umem};

/// Bytes of IP and TCP headers without options, which the MSS does not count.
const TCP_V4_HEADERS: usize = 20 + 20;
const TCP_V6_HEADERS: usize = 40 + 20;

/// Where a sealed packet goes.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    /// With this outer header.
    Direct {
        /// The header.
        header: &'a OuterHeader,
        /// The path that its departure tells something about: the one whose way it goes.
        path: Option<&'a Arc<PathState>>,
    },
    /// Into a TCP stream.
    Stream(&'a Arc<StreamQueue>),
}

/// What the outer header takes from the packet inside.
pub(super) struct InnerFields {
    next_header: NextHeader,
    traffic_class: u8,
    dont_fragment: bool,
}

impl Worker {
    /// Seals a packet and sends it on its SA's path.
    ///
    /// The usual case in one go: a packet that fits, to a neighbour on a ring of ours. Everything else is
    /// [`Worker::seal_by_parts`]'s.
    pub(super) fn seal(&mut self, batch: &Batch<'_>, seal: Seal) {
        let Seal { packet, inner, outbound, sender } = seal;
        self.seal_here(batch, packet, &inner, outbound, sender);
    }

    /// As [`Worker::seal`], in its parts.
    pub(super) fn seal_here(
        &mut self,
        batch: &Batch<'_>,
        mut packet: Packet,
        inner: &Inner,
        outbound: OutboundIndex,
        sender: Sender,
    ) {
        let Self { sas, hops, ports, load, .. } = self;
        let Found::Mine(sa) = sas.outbound(outbound) else {
            return self.discard(batch, packet, DropReason::StaleSa);
        };
        load.note(batch.mailbox, sa.info.child, Direction::Outbound, packet.len());
        let by_parts = |packet| Seal { packet, inner: *inner, outbound, sender };
        let snapshot = sa.extra.path.current();
        let header = match (&snapshot.header, snapshot.path.carrier) {
            (Some(header), Carrier::Ip | Carrier::Udp) => header,
            _ => return self.seal_by_parts(batch, by_parts(packet)),
        };
        let hop = find_next_hop(hops, ports, batch, header.destination());
        let &NextHop::Port { port, mac, mtu, is_up: true } = hop else {
            return self.seal_by_parts(batch, by_parts(packet));
        };
        let mtu = header.inner_mtu(sa.extra.path.mtu.of(mtu));
        if inner.total_len > mtu {
            return self.seal_by_parts(batch, by_parts(packet));
        }
        clamp_mss(batch.umem, &mut packet, inner, mtu);
        let fields = InnerFields::of(inner);
        let sealed = seal_in_place(batch, sa, &mut packet, Some(header), &fields);
        match sealed {
            Ok(len) => {
                batch.counters().esp_sent[usize::from(header.is_udp())].count(len);
                batch.note_departure(&sa.extra.path, Departure::Left);
                let version = if header.destination().is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
                self.send_on_port(batch, packet, port, mac, version);
            }
            Err(reason) => self.discard(batch, packet, reason),
        }
    }

    /// As [`Worker::seal`], whatever the way and the size.
    fn seal_by_parts(&mut self, batch: &Batch<'_>, mut seal: Seal) {
        let Found::Mine(sa) = self.sas.outbound(seal.outbound) else {
            return self.discard(batch, seal.packet, DropReason::StaleSa);
        };
        let path = sa.extra.path.clone();
        let snapshot = path.current();
        let Some(header) = &snapshot.header else {
            return self.seal_without_carrier(batch, path.id, snapshot.path.carrier, seal);
        };
        let way = match Way::of(&snapshot, header, &path) {
            Ok(way) => way,
            // Before sealing: what cannot be sent uses no sequence number.
            Err(reason) => return self.discard(batch, seal.packet, reason),
        };
        let mtu = header.inner_mtu(path.mtu.of(self.next_hop(batch, header.destination()).mtu()));
        if seal.inner.total_len > mtu {
            return self.seal_too_big(batch, seal, way, mtu);
        }
        clamp_mss(batch.umem, &mut seal.packet, &seal.inner, mtu);
        let fields = InnerFields::of(&seal.inner);
        self.seal_and_send(batch, seal.outbound, seal.packet, way, fields);
    }

    /// Echoes as long as the path's largest packet were not answered, small ones were (transport policy rule 3).
    pub(super) fn lower_path_mtu(&mut self, batch: &Batch<'_>, id: PathId) {
        let Some(path) = batch.shared.paths.get(id) else { return };
        let snapshot = path.current();
        let Some(header) = &snapshot.header else { return };
        let version = if header.destination().is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
        let current = path.mtu.of(self.next_hop(batch, header.destination()).mtu());
        match path.mtu.lower(current, version) {
            Some(mtu) => tracing::info!(
                path = id.0,
                current,
                mtu,
                "the path takes no ESP packets of its first hop's size: trying less"
            ),
            None => tracing::warn!(path = id.0, current, "the path takes less than IP promises"),
        }
    }

    /// A dummy packet (RFC 4303 section 2.6): the smallest that shows the peer a fresh sequence number.
    pub(super) fn send_dummy(&mut self, batch: &Batch<'_>, outbound: OutboundIndex) {
        let Found::Mine(sa) = self.sas.outbound(outbound) else { return };
        let path = sa.extra.path.clone();
        let snapshot = path.current();
        let Some(header) = &snapshot.header else { return };
        let Ok(way) = Way::of(&snapshot, header, &path) else { return };
        let Some(frame) = self.free.take() else { return };
        match Packet::new(batch.umem, frame, HEADROOM, 0) {
            Ok(packet) => {
                batch.counters().originated.add(1);
                let fields =
                    InnerFields { next_header: NextHeader::DUMMY, traffic_class: 0, dont_fragment: true };
                self.seal_and_send(batch, outbound, packet, way, fields);
            }
            Err(frame) => self.free.put(frame),
        }
    }

    pub(super) fn seal_and_send(
        &mut self,
        batch: &Batch<'_>,
        outbound: OutboundIndex,
        mut packet: Packet,
        way: Way<'_>,
        inner: InnerFields,
    ) {
        let Found::Mine(sa) = self.sas.outbound(outbound) else {
            return self.discard(batch, packet, DropReason::StaleSa);
        };
        let header = match way {
            Way::Direct { header, .. } => Some(header),
            Way::Stream(_) => None,
        };
        match (seal_in_place(batch, sa, &mut packet, header, &inner), way) {
            (Ok(_), Way::Direct { header, path }) => self.send_esp(batch, packet, header, path),
            (Ok(_), Way::Stream(stream)) => self.send_on_stream(batch, packet, stream),
            (Err(reason), _) => self.discard(batch, packet, reason),
        }
    }

    /// RFC 4301 section 8.2.1: the sender learns what fits; an IPv4 sender that allows it is helped instead.
    fn seal_too_big(&mut self, batch: &Batch<'_>, seal: Seal, way: Way<'_>, mtu: usize) {
        let Seal { packet, inner, outbound, sender } = seal;
        if inner.dont_fragment {
            let error = IcmpError::TooBig { mtu: mtu.try_into().unwrap_or(u16::MAX) };
            self.answer_sender(batch, &packet, &inner, sender, error);
            return self.discard(batch, packet, DropReason::TooBig);
        }
        let mut pieces = Vec::new();
        if !fragment::split(packet.bytes(batch.umem), &inner, mtu, |piece| pieces.push(piece.to_vec())) {
            return self.discard(batch, packet, DropReason::TooBig);
        }
        self.free.put(packet.into_frame());
        batch.counters().originated.add(pieces.len() as u64 - 1);
        for piece in pieces {
            match self.packet_of(batch, &piece) {
                Some(packet) => self.seal_and_send(batch, outbound, packet, way, InnerFields::of(&inner)),
                None => batch.counters().count_drop(DropReason::TxFull),
            }
        }
    }
}

/// Seals a packet in its frame, puts the outer header before it if there is one, and tells the control plane what is news.
/// Returns the length of the ESP packet in bytes, without that header.
fn seal_in_place(
    batch: &Batch<'_>,
    sa: &mut OwnedOutbound<OutboundExtra>,
    packet: &mut Packet,
    header: Option<&OuterHeader>,
    inner: &InnerFields,
) -> Result<usize, DropReason> {
    if let (Some(tap), NextHeader::IPV4 | NextHeader::IPV6) = (batch.tap, inner.next_header) {
        tap.see(&place(Point::ClearOut, sa, header), packet.bytes(batch.umem));
    }
    let sealed = packet.edit(batch.umem, |p| {
        let (buffer, range) = p.parts_mut();
        let (next_header, now_ns) = (inner.next_header, batch.now_ns());
        let sealed = match next_header {
            NextHeader::AGGFRAG => sa.esp.seal_least_padded(buffer, range, next_header, now_ns)?,
            _ => sa.esp.seal(buffer, range, next_header, now_ns)?,
        };
        let fields = OuterFields {
            inner_traffic_class: inner.traffic_class,
            inner_dont_fragment: inner.dont_fragment,
            identification: sealed.sequence as u16,
        };
        let len = sealed.packet.len();
        let fits =
            p.set_range(sealed.packet) && header.is_none_or(|header| header.push(p, &fields).is_some());
        if fits { Ok((len, sealed.event)) } else { Err(SealError::NoRoom) }
    });
    let child = sa.info.child;
    match sealed.unwrap_or(Err(SealError::NoRoom)) {
        Ok((len, event)) => {
            let is_data = !matches!(inner.next_header, NextHeader::DUMMY | NextHeader::AGGFRAG);
            let reported = &mut sa.extra.reported;
            if is_data && reported.is_due(batch.now) && batch.notify(DataPlaneEvent::Outbound { child }) {
                reported.reported(batch.now);
            }
            batch.notify_lifetime(child, event);
            if let Some(tap) = batch.tap {
                let (place, bytes) = (place(Point::EspOut, sa, header), packet.bytes(batch.umem));
                match header {
                    Some(_) => tap.see(&place, bytes),
                    None => tap.see_with_header(&place, bytes, &sa.extra.path.current().path, 0),
                }
            }
            Ok(len)
        }
        Err(error) => {
            if let SealError::SequenceExhausted { first: true } | SealError::LifetimeExpired { first: true } =
                error
            {
                batch.notify(DataPlaneEvent::HardLifetime { child });
            }
            Err(error.into())
        }
    }
}

/// Without an outer header it goes into a TCP stream.
fn place<'a>(point: Point, sa: &'a OwnedOutbound<OutboundExtra>, header: Option<&OuterHeader>) -> Place<'a> {
    Place { point, policy: &sa.info.policy, spi: sa.esp.spi(), in_tcp: header.is_none() }
}

impl<'a> Way<'a> {
    /// The way of a path, or why it takes no packet now.
    fn of(
        snapshot: &'a PathSnapshot,
        header: &'a OuterHeader,
        path: &'a Arc<PathState>,
    ) -> Result<Self, DropReason> {
        match (snapshot.path.carrier, &snapshot.stream) {
            (Carrier::Stream(_), Some(stream)) => Self::stream(stream),
            (Carrier::Stream(_), None) => Err(DropReason::StreamDown),
            (Carrier::Ip | Carrier::Udp | Carrier::Hold | Carrier::Shut, _) => {
                Ok(Self::Direct { header, path: Some(path) })
            }
        }
    }

    /// The way into a stream, or why it takes no packet now.
    pub(super) fn stream(stream: &'a Arc<StreamQueue>) -> Result<Self, DropReason> {
        stream.refuses().map_or(Ok(Self::Stream(stream)), Err)
    }

    /// A way of its own, which may be that of the path.
    pub(super) fn probe(header: &'a OuterHeader, path: &'a Arc<PathState>) -> Self {
        let is_path = path.current().header.as_ref().is_some_and(|own| own.is_same_way(header));
        Self::Direct { header, path: is_path.then_some(path) }
    }
}

impl InnerFields {
    /// Those of an ESP echo message.
    pub(super) fn echo(dont_fragment: bool) -> Self {
        Self { next_header: NextHeader::AGGFRAG, traffic_class: 0, dont_fragment }
    }

    fn of(inner: &Inner) -> Self {
        let (traffic_class, dont_fragment) = (inner.traffic_class, inner.dont_fragment);
        Self { next_header: NextHeader(inner.next_header()), traffic_class, dont_fragment }
    }
}

/// Lowers the MSS that a SYN announces to what fits a tunnel of this inner MTU.
pub(super) fn clamp_mss(umem: &Umem, packet: &mut Packet, inner: &Inner, mtu: usize) {
    if !mss::is_syn(packet.bytes(umem), inner) {
        return;
    }
    let headers = match inner.version {
        IpVersion::V4 => TCP_V4_HEADERS,
        IpVersion::V6 => TCP_V6_HEADERS,
    };
    let limit = mtu.saturating_sub(headers).try_into().unwrap_or(u16::MAX);
    packet.edit(umem, |p| {
        p.bytes_mut().get_mut(inner.payload_offset..).map(|segment| mss::clamp(segment, limit))
    });
}
