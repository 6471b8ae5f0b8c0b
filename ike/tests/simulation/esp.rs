//! ESP between the nodes: numbered packets that say which key they were protected with, and what a data plane makes of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::action::{ChildId, EspCipher};
use portcullis_ike::command::Fact;
use portcullis_ike::path::{DirectCarrier, EspCarrier, IkeTransport};

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
    carrier: DirectCarrier,
    from: SocketAddr,
    to: SocketAddr,
    /// Number within the flow of its child, `None` for a dummy.
    data: Option<u64>,
    flow: FlowName,
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

impl World {
    /// One packet on every pair in use.
    pub fn send_data(&mut self) {
        for n in 0..self.nodes.len() {
            for child in self.nodes[n].in_use.values().copied().collect::<Vec<_>>() {
                self.send_esp(n, child, false);
            }
        }
    }

    /// One packet on this pair, if its path lets it out.
    pub fn send_esp(&mut self, n: usize, child: ChildId, is_dummy: bool) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(outbound) = node.outbound.get_mut(&child) else { return };
        let common = &outbound.sa.common;
        let path = node.paths[&common.ike_sa];
        let EspCarrier::Direct(carrier) = path.carrier else { return };
        let allowed = &node.config.1[0].esp.transports;
        assert!(allowed.contains(&carrier), "{carrier:?} is not allowed");
        outbound.sequence += 1;
        let flow = (n, common.child_name.clone());
        let data = (!is_dummy).then(|| {
            let flow = self.flows.entry(flow.clone()).or_default();
            flow.sent += 1;
            flow.sent
        });
        let in_udp = carrier == DirectCarrier::Udp;
        let (local_port, remote_port) = if in_udp { (path.local_port, path.remote_port) } else { (0, 0) };
        let local = if path.local.is_unspecified() { node.address } else { path.local };
        let packet = EspPacket {
            spi: outbound.sa.spi,
            sequence: outbound.sequence,
            key: common.key.to_vec(),
            cipher: common.cipher,
            carrier,
            from: SocketAddr::new(local, local_port),
            to: SocketAddr::new(path.remote, remote_port),
            data,
            flow,
        };
        if !is_dummy && outbound.last_fact.is_none_or(|at| now >= at + FACTS) {
            outbound.last_fact = Some(now);
            node.endpoint.fact(now, Fact::Outbound { child });
        }
        let protocol = if in_udp { Protocol::Udp } else { Protocol::Ip };
        let crosses_nat = self.nat.is_some() && !in_udp;
        if !crosses_nat && !self.weather.blocks(n, protocol) {
            self.carry(packet);
        }
    }

    /// A packet reaches a node.
    pub fn esp_arrives(&mut self, n: usize, packet: EspPacket) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(inbound) = node.inbound.get_mut(&packet.spi) else {
            node.unknown_spi += 1;
            let line = format!("node {n} does not know SPI {:x} (data {:?})", packet.spi, packet.data);
            return self.trace.line(now, line);
        };
        let common = &inbound.sa.common;
        assert_eq!(*common.key, packet.key, "SPI {:x}: keys differ", packet.spi);
        assert_eq!(common.cipher, packet.cipher, "SPI {:x}: ciphers differ", packet.spi);
        if !inbound.seen.insert(packet.sequence) {
            return;
        }
        let is_highest = packet.sequence > inbound.highest;
        inbound.highest = inbound.highest.max(packet.sequence);
        if let Some(number) = packet.data {
            let flow = self.flows.entry(packet.flow).or_default();
            flow.received += 1;
            flow.reordered += u64::from(number < flow.highest);
            flow.highest = flow.highest.max(number);
        }
        let is_due = inbound.last_fact.is_none_or(|(at, source, carrier)| {
            now >= at + FACTS || source != packet.from || carrier != packet.carrier
        });
        if is_due {
            inbound.last_fact = Some((now, packet.from, packet.carrier));
            let fact = Fact::Inbound {
                child: inbound.sa.common.child,
                carrier: packet.carrier.into(),
                source: packet.from,
                local: packet.to.ip(),
                is_highest,
                is_echo: false,
            };
            node.endpoint.fact(now, fact);
        }
    }

    /// What no row of the transport policy allows: ESP beside an IKE SA on TCP without SEPARATE_TRANSPORTS.
    pub fn check_carriers(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            for sa in node.endpoint.status(self.now).iter().flat_map(|connection| &connection.ike_sas) {
                let is_direct = sa.esp_path.is_some_and(|path| matches!(path.carrier, EspCarrier::Direct(_)));
                let belongs_in_tcp = sa.transport == IkeTransport::Tcp && !sa.separate_transports;
                assert!(!(is_direct && belongs_in_tcp), "node {n}: RFC 9329 section 5: {sa:?}");
                let told = node.paths.get(&sa.id).copied();
                assert!(sa.children.is_empty() || sa.esp_path == told, "node {n}: {sa:?} but {told:?}");
            }
        }
    }

    fn carry(&mut self, packet: EspPacket) {
        let Some((node, from, to)) = self.route(packet.from, packet.to) else { return };
        for _ in 0..self.copies() {
            let at = self.arrival_time();
            let packet = EspPacket { from, to, ..packet.clone() };
            self.queue.push(at, Arrival::Esp { node, packet });
        }
    }
}
