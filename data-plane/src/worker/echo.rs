//! ESP echo (draft-ietf-ipsecme-encrypted-esp-ping, merged text of August 2026, encrypted mode): our requests, the peer's,
//! and the replies to either.
//!
//! A request is answered where its SA is opened, on the outbound SA that it names, by the way it came and to where it came
//! from: the answer changes nothing that the SA uses (transport policy rule 6). Whether a reply answers one of our
//! requests is the control plane's to judge.

use std::sync::Arc;

use portcullis_common::{DropReason, Spi};
use portcullis_esp::{ECHO_HEADER_LEN, Echo, EchoKind, EchoSubTypes, MAX_TAIL_LEN, turn_into_reply};

use super::Worker;
use super::batch::Batch;
use super::facts::{Arrival, InboundFacts};
use super::paths::PathState;
use super::rate::TokenBucket;
use super::seal::{InnerFields, Way};
use super::work::{Packet, Reply, Work};
use crate::echo::{EchoRequest, EchoRoute, EchoSize, Nonce};
use crate::event::DataPlaneEvent;
use crate::packet::{DontFragment, OuterHeader, TunnelOptions};
use crate::sa::{Carrier, EchoAnswers};
use crate::sa_table::{Found, OutboundIndex};
use crate::stream::StreamQueue;
use crate::xsk::HEADROOM;

/// Requests that are answered, and replies that are reported, of one SA: per second and at once. A verification sends
/// a few in a second; a person who measures sends some tens.
const PER_SECOND: u32 = 50;
const BURST: u32 = 50;
/// More than a frame has room for.
const MAX_DATA: usize = 16_384;
/// UDP port of ours that ESP comes to.
const PORT_4500: u16 = 4500;

/// An echo request for the owner of its outbound SA to send.
#[derive(Debug)]
pub struct Order {
    /// The outbound SA's index.
    pub outbound: OutboundIndex,
    /// Our SPI that the reply should use.
    pub reply_spi: Spi,
    /// The request.
    pub request: EchoRequest,
}

/// What is kept of echo messages beside an inbound SA.
#[derive(Default, Debug)]
pub struct EchoState {
    /// What the control plane has heard of them as signs of life.
    pub facts: InboundFacts,
    requests: TokenBucket<PER_SECOND, BURST>,
    replies: TokenBucket<PER_SECOND, BURST>,
}

/// What becomes of an opened AGGFRAG payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Answer on this SA.
    Answer(OutboundIndex),
    /// Tell the control plane of a reply.
    Report { identifier: u16, sequence: u16, nonce: Nonce },
    /// Nothing.
    Drop(DropReason),
}

impl Worker {
    /// Sends an echo request of the control plane's.
    pub(super) fn send_echo(&mut self, batch: &Batch<'_>, order: &Order) {
        let Order { outbound, reply_spi, request } = order;
        let Found::Mine(sa) = self.sas.outbound(*outbound) else { return };
        let path = sa.extra.path.clone();
        batch.counters().originated.add(1);
        // DF whatever is configured: a request that a router cut to pieces would prove nothing about its size.
        let options = TunnelOptions { dont_fragment: DontFragment::Set, ..batch.shared.settings.tunnel };
        let taken = Taken::of(request.route, batch, options);
        let mtu = match &taken {
            Ok(Taken::Direct(header)) => {
                header.inner_mtu(path.known_mtu(header, self.next_hop(batch, header.destination()).mtu()))
            }
            // A stream has no path MTU (section 5.6).
            Ok(Taken::Stream(_)) | Err(_) => 0,
        };
        let len = message_len(request.size, mtu, batch.umem.max_packet() - MAX_TAIL_LEN);
        let frame = self.free.take_for(batch.umem, len);
        let Some(packet) = frame.map(|frame| Packet::new(batch.umem, frame, HEADROOM, 0)) else {
            return batch.counters().count_drop(DropReason::TxFull);
        };
        let mut packet = match packet {
            Ok(packet) => packet,
            Err(frame) => {
                batch.counters().count_drop(DropReason::TooBig);
                return self.free.put(frame);
            }
        };
        let written = packet.edit(batch.umem, |p| {
            let message = p.push_back(len)?;
            write_request(message, request, *reply_spi, batch.shared.settings.echo)
        });
        if written.flatten().is_none() {
            return self.discard(batch, packet, DropReason::TooBig);
        }
        match taken.as_ref().map_err(|reason| *reason).and_then(|taken| taken.way(&path)) {
            Ok(way) => self.seal_and_send(batch, *outbound, packet, way, InnerFields::echo(true)),
            Err(reason) => self.discard(batch, packet, reason),
        }
    }

    /// An authenticated payload with next header 144. No selectors apply: there is no inner packet (section 5.1).
    pub(super) fn take_aggfrag(&mut self, batch: &Batch<'_>, packet: Packet, spi: Spi, arrival: Arrival) {
        let Found::Mine(sa) = self.sas.inbound(spi) else {
            return self.discard(batch, packet, DropReason::StaleSa);
        };
        let (child, extra) = (sa.info.child, &mut sa.extra);
        let sub_types = batch.shared.settings.echo;
        let verdict = match Echo::parse(packet.bytes(batch.umem), sub_types) {
            Ok(echo) => extra.echo.judge(&echo, &arrival, &extra.path, batch.now),
            Err(error) => Verdict::Drop(error.into()),
        };
        match verdict {
            Verdict::Answer(outbound) => {
                batch.counters().count_drop(DropReason::EchoAnswered);
                batch.counters().originated.add(1);
                self.serve(batch, Work::Reply(Reply { packet, outbound, arrival }));
            }
            Verdict::Report { identifier, sequence, nonce } => {
                let Arrival { carrier, source, local, .. } = arrival;
                let event =
                    DataPlaneEvent::EchoReply { child, identifier, sequence, nonce, carrier, source, local };
                let is_told = batch.notify(event);
                let reason = if is_told { DropReason::EchoReply } else { DropReason::EchoLimited };
                self.discard(batch, packet, reason);
            }
            Verdict::Drop(reason) => self.discard(batch, packet, reason),
        }
    }

    /// Makes a request its reply and sends it on an outbound SA of ours, back where it came from.
    pub(super) fn send_reply(&mut self, batch: &Batch<'_>, reply: Reply) {
        let Reply { mut packet, outbound, arrival } = reply;
        let Found::Mine(sa) = self.sas.outbound(outbound) else {
            return self.discard(batch, packet, DropReason::StaleSa);
        };
        let path = sa.extra.path.clone();
        let taken = way_back(&arrival)
            .ok_or(DropReason::NoRoute)
            .and_then(|route| Taken::of(route, batch, batch.shared.settings.tunnel));
        let taken = match taken {
            Ok(taken) => taken,
            Err(reason) => return self.discard(batch, packet, reason),
        };
        let mtu = match &taken {
            Taken::Direct(header) => {
                header.echo_mtu(path.known_mtu(header, self.next_hop(batch, header.destination()).mtu()))
            }
            Taken::Stream(_) => usize::MAX,
        };
        let turned = packet.edit(batch.umem, |p| {
            let len = turn_into_reply(p.bytes_mut(), batch.shared.settings.echo, mtu).ok()?;
            p.truncate(len);
            Some(())
        });
        if turned.flatten().is_none() {
            return self.discard(batch, packet, DropReason::TooBig);
        }
        // Without DF: it is the way of the request that is measured.
        match taken.way(&path) {
            Ok(way) => self.seal_and_send(batch, outbound, packet, way, InnerFields::echo(false)),
            Err(reason) => self.discard(batch, packet, reason),
        }
    }
}

/// What an echo message takes on its route: its own outer header, or a stream.
enum Taken {
    Direct(OuterHeader),
    Stream(Arc<StreamQueue>),
}

impl Taken {
    fn of(route: EchoRoute, batch: &Batch<'_>, options: TunnelOptions) -> Result<Self, DropReason> {
        match (route, route.path()) {
            (EchoRoute::Stream(key), _) => {
                batch.shared.streams.get(key).map(Self::Stream).ok_or(DropReason::StreamDown)
            }
            (_, path) => path
                .and_then(|path| OuterHeader::new(&path, options))
                .map(Self::Direct)
                .ok_or(DropReason::NoRoute),
        }
    }

    fn way<'a>(&'a self, path: &'a Arc<PathState>) -> Result<Way<'a>, DropReason> {
        match self {
            Self::Direct(header) => Ok(Way::probe(header, path)),
            Self::Stream(stream) => Way::stream(stream),
        }
    }
}

impl EchoState {
    /// Decides what becomes of an authenticated message.
    fn judge(
        &mut self,
        echo: &Echo<'_>,
        arrival: &Arrival,
        path: &PathState,
        now: std::time::Duration,
    ) -> Verdict {
        let Echo { identifier, sequence, .. } = *echo;
        if echo.kind == EchoKind::Reply {
            return match echo.data.first_chunk() {
                None => Verdict::Drop(DropReason::EchoMalformed),
                Some(_) if !self.replies.take(now) => Verdict::Drop(DropReason::EchoLimited),
                Some(nonce) => Verdict::Report { identifier, sequence, nonce: *nonce },
            };
        }
        if !echo.wants_reply {
            return Verdict::Drop(DropReason::EchoOneWay);
        }
        if !is_answered(&path.current().path.echo, arrival) {
            return Verdict::Drop(DropReason::EchoRefused);
        }
        match path.outbound(echo.reply_spi) {
            None => Verdict::Drop(DropReason::EchoReturnSpi),
            Some(_) if !self.requests.take(now) => Verdict::Drop(DropReason::EchoLimited),
            Some(outbound) => Verdict::Answer(outbound),
        }
    }
}

/// Transport policy rules 3 and 6: announced, and over IP only from where IKE is.
fn is_answered(answers: &EchoAnswers, arrival: &Arrival) -> bool {
    match arrival.carrier {
        Carrier::Ip => {
            answers.direct && answers.ip_only_from.is_none_or(|address| address == arrival.source.ip())
        }
        Carrier::Udp => answers.direct,
        Carrier::Stream(_) => answers.stream,
        Carrier::Hold | Carrier::Shut => false,
    }
}

/// Back by the carrier that a request came by, from the address that it came to; `None` if nothing arrives that way.
fn way_back(arrival: &Arrival) -> Option<EchoRoute> {
    let Arrival { carrier, source, local, .. } = *arrival;
    match carrier {
        Carrier::Ip => Some(EchoRoute::Ip { local, remote: source.ip() }),
        Carrier::Udp => Some(EchoRoute::Udp { local: (local, PORT_4500).into(), remote: source }),
        Carrier::Stream(key) => Some(EchoRoute::Stream(key)),
        Carrier::Hold | Carrier::Shut => None,
    }
}

/// Octets of a request: never less than what a reply must repeat, never more than a frame holds.
fn message_len(size: EchoSize, mtu: usize, room: usize) -> usize {
    let small = ECHO_HEADER_LEN + size_of::<Nonce>();
    match size {
        EchoSize::Small => small,
        EchoSize::PathMtu => mtu.min(room).max(small),
    }
}

/// Fills `message` with the request; behind the nonce there are zeros.
fn write_request(
    message: &mut [u8],
    request: &EchoRequest,
    reply_spi: Spi,
    sub_types: EchoSubTypes,
) -> Option<()> {
    let mut data = [0; MAX_DATA];
    data.first_chunk_mut().map(|nonce: &mut Nonce| *nonce = request.nonce)?;
    let data = data.get(..message.len().checked_sub(ECHO_HEADER_LEN)?)?;
    let echo = Echo {
        kind: EchoKind::Request,
        wants_reply: request.wants_reply,
        identifier: request.identifier,
        sequence: request.sequence,
        reply_spi,
        data,
    };
    echo.write(sub_types, message).ok().map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::sa::{Path, PathId};
    use crate::stream::{StreamKey, Streams};
    use crate::worker::paths::PathTable;

    const OURS: Spi = Spi(0x1000);
    const INDEX: OutboundIndex = OutboundIndex(7);
    const ANNOUNCED: EchoAnswers = EchoAnswers { direct: true, stream: false, ip_only_from: None };
    const NOW: Duration = Duration::ZERO;

    #[test]
    fn an_announced_request_is_answered_on_the_sa_that_it_names() {
        let path = path(ANNOUNCED);
        for carrier in [Carrier::Ip, Carrier::Udp] {
            let judged = EchoState::default().judge(&request(OURS), &arrival(carrier, 2), &path, NOW);
            assert_eq!(judged, Verdict::Answer(INDEX));
        }
    }

    /// Transport policy rules 3 and 6.
    #[test]
    fn a_request_that_the_policy_does_not_answer_is_refused() {
        let judge =
            |answers, arrival| EchoState::default().judge(&request(OURS), &arrival, &path(answers), NOW);
        let refused = Verdict::Drop(DropReason::EchoRefused);
        assert_eq!(judge(EchoAnswers::default(), arrival(Carrier::Udp, 2)), refused, "not announced");
        let answers = EchoAnswers { ip_only_from: Some([192, 0, 2, 2].into()), ..ANNOUNCED };
        assert_eq!(judge(answers, arrival(Carrier::Ip, 3)), refused, "from elsewhere over IP");
        assert_eq!(judge(answers, arrival(Carrier::Ip, 2)), Verdict::Answer(INDEX));
        assert_eq!(judge(answers, arrival(Carrier::Udp, 3)), Verdict::Answer(INDEX), "NAT moves UDP");
    }

    /// Transport policy rule 6: "FC neither sends nor answers echo on a stream".
    #[test]
    fn a_request_on_a_stream_is_answered_where_streams_may_carry_esp_and_nowhere_else() {
        let judge = |answers| {
            let arrival = arrival(Carrier::Stream(StreamKey(1)), 2);
            EchoState::default().judge(&request(OURS), &arrival, &path(answers), NOW)
        };
        assert_eq!(judge(ANNOUNCED), Verdict::Drop(DropReason::EchoRefused));
        assert_eq!(judge(EchoAnswers { stream: true, ..ANNOUNCED }), Verdict::Answer(INDEX));
        assert_eq!(
            way_back(&arrival(Carrier::Stream(StreamKey(1)), 2)),
            Some(EchoRoute::Stream(StreamKey(1)))
        );
    }

    /// Section 5.4: R=0 is never answered, whatever the SPI field holds.
    #[test]
    fn a_one_way_request_and_one_with_a_foreign_return_spi_are_not_answered() {
        let judge =
            |echo| EchoState::default().judge(&echo, &arrival(Carrier::Udp, 2), &path(ANNOUNCED), NOW);
        let one_way = Echo { wants_reply: false, ..request(OURS) };
        assert_eq!(judge(one_way), Verdict::Drop(DropReason::EchoOneWay));
        assert_eq!(judge(request(Spi(0x2000))), Verdict::Drop(DropReason::EchoReturnSpi));
    }

    #[test]
    fn requests_and_replies_are_limited_apart() {
        let (mut state, path) = (EchoState::default(), path(ANNOUNCED));
        let mut count = |echo: &Echo<'_>, now| {
            let judged = (0..2 * BURST).map(|_| state.judge(echo, &arrival(Carrier::Udp, 2), &path, now));
            judged.filter(|verdict| *verdict != Verdict::Drop(DropReason::EchoLimited)).count() as u32
        };
        let reply = Echo { kind: EchoKind::Reply, data: &[5; 16], ..request(OURS) };
        assert_eq!((count(&request(OURS), NOW), count(&reply, NOW)), (BURST, BURST));
        assert_eq!(count(&request(OURS), Duration::from_millis(100)), PER_SECOND / 10);
    }

    #[test]
    fn a_reply_is_reported_with_what_it_repeats() {
        let judge =
            |echo| EchoState::default().judge(&echo, &arrival(Carrier::Udp, 2), &path(ANNOUNCED), NOW);
        let data: Vec<u8> = (0..20).collect();
        let reply = Echo { kind: EchoKind::Reply, data: &data, ..request(OURS) };
        let nonce = std::array::from_fn(|i| i as u8);
        assert_eq!(judge(reply), Verdict::Report { identifier: 1, sequence: 2, nonce });
        let short = Echo { data: &data[..15], ..reply };
        assert_eq!(judge(short), Verdict::Drop(DropReason::EchoMalformed));
    }

    #[test]
    fn a_request_has_its_nonce_first_and_zeros_behind_it() {
        let address = SocketAddr::from(([192, 0, 2, 1], 4500));
        let order = EchoRequest {
            child: crate::sa::ChildId(1),
            identifier: 1,
            sequence: 2,
            nonce: [9; 16],
            wants_reply: true,
            route: EchoRoute::Udp { local: address, remote: address },
            size: EchoSize::PathMtu,
        };
        let mut message = [0xee; 100];
        write_request(&mut message, &order, OURS, EchoSubTypes::DEFAULT).unwrap();
        let echo = Echo::parse(&message, EchoSubTypes::DEFAULT).unwrap();
        let data = [&[9; 16][..], &[0; 72]].concat();
        assert_eq!(echo, Echo { data: &data, ..request(OURS) });
        assert_eq!(write_request(&mut [0; MAX_DATA + 100], &order, OURS, EchoSubTypes::DEFAULT), None);
    }

    #[test]
    fn a_request_is_as_long_as_path_and_frame_take_and_never_too_short_to_prove_anything() {
        assert_eq!(message_len(EchoSize::Small, 1400, 3000), 28);
        assert_eq!(message_len(EchoSize::PathMtu, 1400, 3000), 1400);
        assert_eq!(message_len(EchoSize::PathMtu, 9000, 3000), 3000);
        assert_eq!(message_len(EchoSize::PathMtu, 0, 3000), 28);
    }

    fn request(reply_spi: Spi) -> Echo<'static> {
        let (kind, wants_reply) = (EchoKind::Request, true);
        Echo { kind, wants_reply, identifier: 1, sequence: 2, reply_spi, data: &[] }
    }

    fn arrival(carrier: Carrier, host: u8) -> Arrival {
        let source = SocketAddr::from(([192, 0, 2, host], 4500));
        Arrival { carrier, source, local: [192, 0, 2, 1].into(), traffic_class: 0 }
    }

    fn path(echo: EchoAnswers) -> Arc<PathState> {
        let table = PathTable::default();
        let [local, remote] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        let path = Path {
            carrier: Carrier::Shut,
            local,
            local_port: 4500,
            remote,
            remote_port: 4500,
            echo,
            takes_tcp: true,
        };
        table.update(PathId(1), path, TunnelOptions::default(), &Streams::none());
        let state = table.get(PathId(1)).unwrap();
        state.add_outbound(OURS, INDEX);
        state
    }
}
