//! One responder with many peers, each an endpoint of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::config::{
    ChildConfig, ConnectionConfig, EndpointConfig, EspPolicy, Identity, IkePolicy, LocalAuth, RemoteAddress,
    RemoteAuth, Secret, StartMode, StartTransport,
};
use portcullis_ike::endpoint::SpiSource;
use portcullis_ike::path::{StreamId, UdpPath};
use portcullis_ike::{Endpoint, Time};

use crate::prescribed::Lengths;
use crate::thread_time_ns;

/// Peers that the responder knows, and ends up with.
const PEERS: u16 = 1000;
/// Peers that set up their IKE SA at the same time; below the number from which a responder asks for cookies.
const AT_ONCE: u16 = 40;
const RESPONDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Handshakes that a responder completes in a second of its thread's processor time, and how long their messages are.
pub fn handshakes_per_second(proposal: &str, transport: StartTransport) -> (f64, Lengths) {
    let connections = (0..PEERS).map(|peer| connection(peer, false, proposal, transport)).collect();
    let mut responder = Responder {
        endpoint: endpoint(connections, u64::MAX),
        time_ns: 0,
        in_use: 0,
        lengths: Lengths::default(),
    };
    let peers: Vec<u16> = (0..PEERS).collect();
    for peers in peers.chunks(AT_ONCE.into()) {
        responder.set_up(peers, proposal, transport);
    }
    assert_eq!(responder.in_use, u32::from(PEERS), "every peer has its Child SA");
    (f64::from(responder.in_use) * 1e9 / responder.time_ns as f64, responder.lengths)
}

struct Responder {
    endpoint: Endpoint,
    /// Processor time it has used.
    time_ns: i64,
    /// Child SAs in use.
    in_use: u32,
    /// Of the last handshake.
    lengths: Lengths,
}

/// A message on its way, with the peer that sends or gets it.
enum Message {
    StreamUp(u16),
    Stream(u16, Vec<u8>),
    Datagram(u16, Vec<u8>),
}

impl Responder {
    fn set_up(&mut self, peers: &[u16], proposal: &str, transport: StartTransport) {
        let mut initiators: Vec<_> =
            peers.iter().map(|peer| Initiator::new(*peer, proposal, transport)).collect();
        loop {
            let requests: Vec<_> = initiators.iter_mut().flat_map(Initiator::messages).collect();
            if requests.is_empty() {
                break;
            }
            requests.iter().for_each(|message| self.measure(message));
            let start = thread_time_ns();
            let responses = self.answer(requests);
            self.time_ns += thread_time_ns() - start;
            responses.iter().for_each(|message| self.measure(message));
            for response in responses {
                let peer = response.peer();
                if let Some(initiator) = initiators.iter_mut().find(|initiator| initiator.peer == peer) {
                    initiator.take(response);
                }
            }
        }
    }

    /// Notes the length of an IKE message: the exchange and the flags are at octets 18 and 19 of its header.
    fn measure(&mut self, message: &Message) {
        let (Message::Stream(_, octets) | Message::Datagram(_, octets)) = message else { return };
        // In a stream the originator's prefix and a length may be before it, and the marker in either.
        let Some(at) = octets.windows(4).position(|window| window == [0; 4]) else { return };
        let Some(message) = octets.get(at + 4..).filter(|message| message.len() > 20) else { return };
        let of_exchange = match message[18] {
            34 => &mut self.lengths.init,
            43 => &mut self.lengths.intermediate,
            35 => &mut self.lengths.auth,
            _ => return,
        };
        of_exchange[usize::from(message[19] & 0x20 != 0)] = message.len();
    }

    fn answer(&mut self, requests: Vec<Message>) -> Vec<Message> {
        let mut responses = Vec::with_capacity(requests.len());
        for request in requests {
            let peer = request.peer();
            match request {
                Message::StreamUp(_) => {
                    let remote = SocketAddr::new(address(peer), 40_000);
                    self.endpoint.handle_stream_up(
                        NOW,
                        accepted(peer),
                        SocketAddr::new(RESPONDER, 4500),
                        remote,
                    );
                }
                Message::Stream(_, bytes) => self.endpoint.handle_stream_bytes(NOW, accepted(peer), &bytes),
                Message::Datagram(_, payload) => {
                    let path = UdpPath {
                        local: SocketAddr::new(RESPONDER, 4500),
                        remote: SocketAddr::new(address(peer), 4500),
                    };
                    self.endpoint.handle_datagram(NOW, path, &payload);
                }
            }
            while let Some(action) = self.endpoint.poll_action() {
                match action {
                    Action::SendStream { bytes, .. } => responses.push(Message::Stream(peer, bytes)),
                    Action::SendDatagram { payload, .. } => responses.push(Message::Datagram(peer, payload)),
                    Action::UseOutbound { .. } => self.in_use += 1,
                    _ => {}
                }
            }
        }
        responses
    }
}

struct Initiator {
    endpoint: Endpoint,
    peer: u16,
    stream: Option<StreamId>,
}

impl Initiator {
    fn new(peer: u16, proposal: &str, transport: StartTransport) -> Self {
        let mut endpoint = endpoint(vec![connection(peer, true, proposal, transport)], peer.into());
        endpoint.handle_timeout(NOW);
        Self { endpoint, peer, stream: None }
    }

    fn messages(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(action) = self.endpoint.poll_action() {
            match action {
                Action::Dial { stream, remote, .. } => {
                    self.stream = Some(stream);
                    messages.push(Message::StreamUp(self.peer));
                    let local = SocketAddr::new(address(self.peer), 40_000);
                    self.endpoint.handle_stream_up(NOW, stream, local, remote);
                }
                Action::SendStream { bytes, .. } => messages.push(Message::Stream(self.peer, bytes)),
                Action::SendDatagram { payload, .. } => messages.push(Message::Datagram(self.peer, payload)),
                _ => {}
            }
        }
        messages
    }

    fn take(&mut self, response: Message) {
        match (response, self.stream) {
            (Message::Stream(_, bytes), Some(stream)) => {
                self.endpoint.handle_stream_bytes(NOW, stream, &bytes);
            }
            (Message::Datagram(_, payload), _) => {
                let local = SocketAddr::new(address(self.peer), 4500);
                let path = UdpPath { local, remote: SocketAddr::new(RESPONDER, 4500) };
                self.endpoint.handle_datagram(NOW, path, &payload);
            }
            _ => {}
        }
    }
}

impl Message {
    fn peer(&self) -> u16 {
        match self {
            Self::StreamUp(peer) | Self::Stream(peer, _) | Self::Datagram(peer, _) => *peer,
        }
    }
}

const NOW: Time = Time::from_nanos(1_000_000_000);

struct CountingSpis(u32);

impl SpiSource for CountingSpis {
    fn allocate(&mut self) -> Option<u32> {
        self.0 += 1;
        Some(self.0)
    }

    fn release(&mut self, _: u32) {}
}

fn endpoint(connections: Vec<ConnectionConfig>, seed: u64) -> Endpoint {
    let mut octets = [7; 32];
    octets[..8].copy_from_slice(&seed.to_be_bytes());
    Endpoint::new(EndpointConfig::default(), connections, Box::new(CountingSpis(0x1000)), octets, NOW)
}

fn connection(peer: u16, is_initiator: bool, proposal: &str, transport: StartTransport) -> ConnectionConfig {
    let [high, low] = peer.to_be_bytes();
    let gateway = (Identity::Fqdn("gateway".into()), RESPONDER, "10.0.0.0/8".to_owned());
    let site = (Identity::Fqdn(format!("site-{peer}")), address(peer), format!("172.16.{high}.{low}/32"));
    let (local, remote) = if is_initiator { (site, gateway) } else { (gateway, site) };
    let secret = || Secret::new(vec![9; 32]);
    ConnectionConfig {
        name: Arc::from(format!("site-{peer}")),
        local_address: Some(local.1),
        local_id: local.0,
        local_auth: LocalAuth::Psk(secret()),
        remote_address: RemoteAddress::Ip(remote.1),
        remote_id: remote.0,
        remote_auth: RemoteAuth::Psk(secret()),
        ppk: None,
        redirect: Default::default(),
        ike: IkePolicy {
            transport,
            proposals: vec![proposal.parse().expect("a proposal")],
            ..IkePolicy::default()
        }
        .into(),
        esp: EspPolicy::default().into(),
        children: vec![ChildConfig {
            name: Arc::from("net"),
            local_ts: vec![local.2.parse().expect("a selector")],
            remote_ts: vec![remote.2.parse().expect("a selector")],
            start: if is_initiator { StartMode::Always } else { StartMode::None },
            proposals: vec!["aes256gcm16-esn".parse().expect("a proposal")],
            rekey_after: Duration::from_secs(3600),
            lifetime: Duration::from_secs(4500),
            linger: Duration::from_secs(5),
            per_resource: 1,
            resource: 0,
        }],
    }
}

fn accepted(peer: u16) -> StreamId {
    StreamId::accepted(peer.into())
}

/// Each peer in a network of its own.
fn address(peer: u16) -> IpAddr {
    let [high, low] = peer.to_be_bytes();
    Ipv4Addr::new(100, 64 + high, low, 1).into()
}
