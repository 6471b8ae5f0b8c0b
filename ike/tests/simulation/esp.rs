//! ESP between the nodes: numbered packets that say which key they were protected with, and what a data plane makes of them:
//! data, dummies, echo requests and the replies that `EspPath::echo` allows, on direct carriers and on streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::action::{ChildId, EchoRequest, EchoRoute, EchoSize, EspCipher};
use portcullis_ike::command::Fact;
use portcullis_ike::config::OnUnreachable;
use portcullis_ike::path::{DirectCarrier, EspCarrier, EspTransport, IkeTransport, StreamId};

use crate::network::{Arrival, Protocol};
use crate::world::World;

/// A protected packet under way.
#[derive(Clone, Debug)]
pub struct EspPacket {
    spi: u32,
    /// Sequence number of the SA.
    sequence: u64,
    key: Vec<u8>,
    cipher: EspCipher,
    route: Route,
    content: Content,
    flow: FlowName,
}

/// How a packet travels.
#[derive(Clone, Copy, Debug)]
struct Route {
    carrier: EspTransport,
    from: SocketAddr,
    to: SocketAddr,
    /// The stream, as the node names it that has the packet.
    stream: Option<StreamId>,
}

/// What is in a packet.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Data, by its number within the flow of its child.
    Data(u64),
    Dummy,
    /// A request, with the SPI that the reply is wanted on.
    Request(Echo, u32),
    Reply(Echo),
}

#[derive(Clone, Copy, Debug)]
struct Echo {
    identifier: u16,
    sequence: u16,
    nonce: [u8; 16],
    wants_reply: bool,
    size: usize,
}

/// Sending node and child.
pub type FlowName = (usize, Arc<str>);

/// The data of one child in one direction.
#[derive(Default, Debug)]
pub struct Flow {
    pub sent: u64,
    pub received: u64,
    /// Arrived after one with a higher number.
    pub reordered: u64,
    highest: u64,
}

/// Facts about one SA are at most this frequent.
const FACTS: Duration = Duration::from_secs(1);
/// An echo with a header and a nonce, in its packet.
const SMALL: usize = 100;

impl World {
    /// One packet on every pair in use.
    pub fn send_data(&mut self) {
        for n in 0..self.nodes.len() {
            if self.silent_nodes.contains(&n) {
                continue;
            }
            for child in self.nodes[n].in_use.values().copied().collect::<Vec<_>>() {
                self.send_esp(n, child, false);
            }
        }
    }

    /// One packet on this pair, if its path lets it out.
    pub fn send_esp(&mut self, n: usize, child: ChildId, is_dummy: bool) {
        let now = self.now;
        let Some(outbound) = self.nodes[n].outbound.get(&child) else { return };
        let (ike_sa, name) = (outbound.sa.common.ike_sa, outbound.sa.common.child_name.clone());
        let Some(route) = self.route_of(n, self.nodes[n].paths[&ike_sa].carrier, ike_sa) else { return };
        let content = match is_dummy {
            true => Content::Dummy,
            false => {
                let flow = self.flows.entry((n, name.clone())).or_default();
                flow.sent += 1;
                Content::Data(flow.sent)
            }
        };
        let node = &mut self.nodes[n];
        let Some(outbound) = node.outbound.get_mut(&child) else { return };
        if !is_dummy && outbound.last_fact.is_none_or(|at| now >= at + FACTS) {
            outbound.last_fact = Some(now);
            node.endpoint.fact(now, Fact::Outbound { child });
        }
        self.protect_and_send(n, child, route, content);
    }

    /// An echo request on this pair, whatever its path is.
    pub fn send_echo(&mut self, n: usize, echo: EchoRequest) {
        let node = &mut self.nodes[n];
        node.echoes.push((self.now, echo));
        let Some(outbound) = node.outbound.get(&echo.child) else { return };
        let ike_sa = outbound.sa.common.ike_sa;
        let reply_spi = node.inbound.values().find(|inbound| inbound.sa.common.child == echo.child);
        let reply_spi = reply_spi.map_or(0, |inbound| inbound.sa.spi);
        let route = match echo.route {
            EchoRoute::Direct { carrier, local, remote } => {
                let allowed = &node.config.1[0].esp.transports;
                assert!(allowed.contains(&carrier), "{carrier:?} is not allowed");
                let in_udp = carrier == DirectCarrier::Udp;
                let port = |address: SocketAddr| if in_udp { address.port() } else { 0 };
                let local_ip = if local.ip().is_unspecified() { node.address } else { local.ip() };
                Route {
                    carrier: carrier.into(),
                    from: SocketAddr::new(local_ip, port(local)),
                    to: SocketAddr::new(remote.ip(), port(remote)),
                    stream: None,
                }
            }
            EchoRoute::Stream(stream) => {
                self.assert_tcp_is_allowed(n);
                Route {
                    stream: Some(stream),
                    ..self.route_of(n, EspCarrier::Stream(stream), ike_sa).unwrap()
                }
            }
        };
        let size = match echo.size {
            EchoSize::Small => SMALL,
            EchoSize::PathMtu => *self.nodes[n].path_mtus.entry(ike_sa).or_insert(1500),
        };
        let EchoRequest { identifier, sequence, nonce, wants_reply, .. } = echo;
        let content = Content::Request(Echo { identifier, sequence, nonce, wants_reply, size }, reply_spi);
        self.protect_and_send(n, echo.child, route, content);
    }

    /// A packet reaches a node.
    pub fn esp_arrives(&mut self, n: usize, packet: EspPacket) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(inbound) = node.inbound.get_mut(&packet.spi) else {
            node.unknown_spi += 1;
            let line = format!("node {n} does not know SPI {:x} ({:?})", packet.spi, packet.content);
            return self.trace.line(now, line);
        };
        let common = &inbound.sa.common;
        if let Some(stream) = packet.route.stream
            && node.accepting.get(&stream) != Some(&common.ike_sa)
        {
            return;
        }
        assert_eq!(*common.key, packet.key, "SPI {:x}: keys differ", packet.spi);
        assert_eq!(common.cipher, packet.cipher, "SPI {:x}: ciphers differ", packet.spi);
        if !inbound.seen.insert(packet.sequence) {
            return;
        }
        let is_highest = packet.sequence > inbound.highest;
        inbound.highest = inbound.highest.max(packet.sequence);
        let Route { carrier, from, to, .. } = packet.route;
        let child = common.child;
        let is_refused = carrier == EspTransport::Tcp && !node.paths[&common.ike_sa].takes_tcp;
        if carrier == EspTransport::Tcp && !is_refused {
            let policy = node.on_unreachable;
            assert_eq!(policy, OnUnreachable::TcpFallback, "node {n} takes ESP in TCP under fail-closed");
        }
        let is_echo = matches!(packet.content, Content::Request(..) | Content::Reply(_));
        if let (Content::Data(number), false) = (packet.content, is_refused) {
            let flow = self.flows.entry(packet.flow.clone()).or_default();
            flow.received += 1;
            flow.reordered += u64::from(number < flow.highest);
            flow.highest = flow.highest.max(number);
        }
        let last = if is_echo { &mut inbound.last_echo_fact } else { &mut inbound.last_fact };
        let is_due = last.is_none_or(|(at, source, by)| now >= at + FACTS || source != from || by != carrier);
        if is_due {
            *last = Some((now, from, carrier));
            let fact = Fact::Inbound { child, carrier, source: from, local: to.ip(), is_highest, is_echo };
            node.endpoint.fact(now, fact);
        }
        match packet.content {
            _ if is_refused => {}
            Content::Request(echo, reply_spi) => self.answer_echo(n, child, &packet.route, echo, reply_spi),
            Content::Reply(Echo { identifier, sequence, nonce, .. }) => {
                let (source, local) = (from, to.ip());
                let fact = Fact::EchoReply { child, identifier, sequence, nonce, carrier, source, local };
                self.nodes[n].endpoint.fact(now, fact);
            }
            Content::Data(_) | Content::Dummy => {}
        }
    }

    /// What no row of the transport policy allows: ESP beside an IKE SA on TCP without SEPARATE_TRANSPORTS, and ESP in TCP under
    /// fail-closed.
    pub fn check_carriers(&self) {
        for n in 0..self.nodes.len() {
            self.check_carriers_of(n);
            let node = &self.nodes[n];
            for sa in node.endpoint.status(self.now).iter().flat_map(|connection| &connection.ike_sas) {
                let told = node.paths.get(&sa.id).copied();
                assert!(sa.children.is_empty() || sa.esp_path == told, "node {n}: {sa:?} but {told:?}");
                if sa.esp_path.is_some_and(|path| matches!(path.carrier, EspCarrier::Stream(_))) {
                    self.assert_tcp_is_allowed(n);
                }
            }
        }
    }

    fn assert_tcp_is_allowed(&self, n: usize) {
        let policy = self.nodes[n].on_unreachable;
        assert_eq!(policy, OnUnreachable::TcpFallback, "node {n} puts ESP into TCP under fail-closed");
    }

    /// How outbound packets of an IKE SA travel on a carrier.
    fn route_of(
        &self,
        n: usize,
        carrier: EspCarrier,
        ike_sa: portcullis_ike::action::IkeSaId,
    ) -> Option<Route> {
        let node = &self.nodes[n];
        let path = node.paths[&ike_sa];
        let local = if path.local.is_unspecified() { node.address } else { path.local };
        let transport = carrier.transport()?;
        let in_udp = transport == EspTransport::Udp;
        let (local_port, remote_port) = if in_udp { (path.local_port, path.remote_port) } else { (0, 0) };
        if let EspCarrier::Direct(carrier) = carrier {
            let allowed = &node.config.1[0].esp.transports;
            assert!(allowed.contains(&carrier), "{carrier:?} is not allowed");
        }
        let stream = match carrier {
            EspCarrier::Stream(stream) => {
                self.assert_tcp_is_allowed(n);
                Some(stream)
            }
            _ => None,
        };
        Some(Route {
            carrier: transport,
            from: SocketAddr::new(local, local_port),
            to: SocketAddr::new(path.remote, remote_port),
            stream,
        })
    }

    /// The reply to a request, as the peer's data plane gives it (transport policy rules 3 and 6): on the SA that was asked for,
    /// by the carrier and to the source of the request.
    fn answer_echo(&mut self, n: usize, child: ChildId, asked: &Route, echo: Echo, reply_spi: u32) {
        let node = &self.nodes[n];
        let Some(ike_sa) = node.outbound.get(&child).map(|outbound| outbound.sa.common.ike_sa) else {
            return;
        };
        let answers = node.paths[&ike_sa].echo;
        let is_answered = match asked.carrier {
            EspTransport::Ip => answers.direct && answers.ip_only_from.is_none_or(|ip| ip == asked.from.ip()),
            EspTransport::Udp => answers.direct,
            EspTransport::Tcp => answers.stream,
        };
        let reply_on = node
            .outbound
            .iter()
            .find(|(_, outbound)| outbound.sa.spi == reply_spi && outbound.sa.common.ike_sa == ike_sa);
        let Some((reply_on, _)) = reply_on.filter(|_| is_answered && echo.wants_reply) else { return };
        let route = Route { carrier: asked.carrier, from: asked.to, to: asked.from, stream: asked.stream };
        self.protect_and_send(n, *reply_on, route, Content::Reply(echo));
    }

    fn protect_and_send(&mut self, n: usize, child: ChildId, route: Route, content: Content) {
        let Some(outbound) = self.nodes[n].outbound.get_mut(&child) else { return };
        outbound.sequence += 1;
        let common = &outbound.sa.common;
        let packet = EspPacket {
            spi: outbound.sa.spi,
            sequence: outbound.sequence,
            key: common.key.to_vec(),
            cipher: common.cipher,
            route,
            content,
            flow: (n, common.child_name.clone()),
        };
        let size = match content {
            Content::Request(echo, _) | Content::Reply(echo) => echo.size,
            Content::Data(_) | Content::Dummy => SMALL,
        };
        let protocol = match route.carrier {
            EspTransport::Ip => Protocol::Ip,
            EspTransport::Udp => Protocol::Udp,
            EspTransport::Tcp => return self.carry_on_stream(n, packet),
        };
        let is_dead = self.dead_spis.contains(&packet.spi);
        let crosses_nat = self.nat.is_some() && protocol == Protocol::Ip;
        let is_local = self.nodes[n].cannot_send;
        if !crosses_nat
            && !is_dead
            && !is_local
            && size <= self.weather.mtu
            && !self.weather.blocks(n, protocol)
        {
            self.carry(packet);
        }
    }

    /// RFC 9329 section 5, and T section 3.2.
    pub fn check_carriers_of(&self, n: usize) {
        for sa in self.nodes[n].endpoint.status(self.now).iter().flat_map(|connection| &connection.ike_sas) {
            let told = self.nodes[n].paths.get(&sa.id);
            let is_direct = told.is_some_and(|path| matches!(path.carrier, EspCarrier::Direct(_)));
            let belongs_in_tcp = sa.transport == IkeTransport::Tcp && !sa.separate_transports;
            assert!(!(is_direct && belongs_in_tcp), "node {n}: {sa:?}");
        }
    }

    fn carry(&mut self, packet: EspPacket) {
        let Some((node, from, to)) = self.route(packet.route.from, packet.route.to) else { return };
        for _ in 0..self.copies() {
            let at = self.arrival_time() + self.weather.esp_waits;
            let route = Route { from, to, ..packet.route };
            let packet = EspPacket { route, ..packet.clone() };
            self.queue.push(at, Arrival::Esp { node, packet });
        }
    }

    /// In TCP nothing is lost while the stream lives; on one that has stalled or is gone the packet is.
    fn carry_on_stream(&mut self, n: usize, packet: EspPacket) {
        let Some(stream) = packet.route.stream else { return };
        let Some((_, theirs, _)) = self.across(n, stream) else { return };
        self.esp_in_tcp += u64::from(matches!(packet.content, Content::Data(_) | Content::Dummy));
        let number = self.esp_frames.len() as u64;
        // A frame names its packet by number.
        let frame = [&[0, 14][..], &packet.spi.to_be_bytes(), &number.to_be_bytes()].concat();
        let route = Route { stream: Some(theirs), ..packet.route };
        self.esp_frames.insert(number, EspPacket { route, ..packet });
        self.send_stream(n, stream, frame);
    }

    /// `Action::DeliverEsp`.
    pub fn deliver_esp(&mut self, n: usize, stream: StreamId, packet: &[u8]) {
        let Some((spi, number)) = packet.split_first_chunk::<4>() else { return };
        let number = number.try_into().map(u64::from_be_bytes);
        // A bit that was changed on the way: it does not decrypt.
        let Some(packet) = number.ok().and_then(|number| self.esp_frames.get(&number)) else { return };
        if packet.spi == u32::from_be_bytes(*spi) && packet.route.stream == Some(stream) {
            self.esp_arrives(n, packet.clone());
        }
    }
}
