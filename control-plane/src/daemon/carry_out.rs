//! The seam between IKE and everything else: one match that carries out what an endpoint asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_common::Spi;
use portcullis_data_plane::echo::{
    EchoRequest as DataEchoRequest, EchoRoute as DataEchoRoute, EchoSize as DataEchoSize,
};
use portcullis_data_plane::handle::DataPlane;
use portcullis_data_plane::policy::PolicyKey;
use portcullis_data_plane::sa::{
    Carrier, ChildId as DataChildId, EchoAnswers as DataEchoAnswers, InboundSa, Lifetime, OutboundSa, Path,
    PathId, SaCommon, SaKey, SaSelectors, SaUsage,
};
use portcullis_data_plane::stream::StreamKey;
use portcullis_esp::Algorithm;
use portcullis_ike::action::{
    Action, ChildId, ChildSaCommon, EchoRequest, EchoRoute, EchoSize, EspCipher, IkeSaId,
};
use portcullis_ike::command::Fact;
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier, EspPath, StreamId, UdpPath};
use tokio::runtime::Handle;

use super::input::InputSender;
use super::puzzles::Puzzles;
use crate::config::{Child, Config, Limits, for_data_plane};
use crate::net::IkeSocket;
use crate::net::stream::{self, StreamHandle};

/// After this much of its lifetime the data plane stops an SA even if nobody tells it to: a margin for the
/// exchange that ends it in the usual way.
const HARD_TIME_MARGIN: Duration = Duration::from_secs(60);

/// What a shard acts with.
pub struct Hands {
    config: Arc<Config>,
    data_plane: DataPlane,
    sockets: Arc<[IkeSocket]>,
    input: InputSender,
    network: Handle,
    streams: HashMap<StreamId, Stream>,
    puzzles: Puzzles,
}

struct Stream {
    handle: StreamHandle,
    /// Our end and the peer's, once it is up.
    ends: Option<(SocketAddr, SocketAddr)>,
}

/// What came of an action.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// It was something to hear.
    Event(Event),
    /// The stream that it was for is gone.
    StreamDown {
        /// The stream.
        stream: StreamId,
        /// Why.
        cause: StreamDown,
    },
    /// It failed, and the endpoint has to know.
    Fact(Fact),
}

impl Hands {
    /// Acts on these.
    pub fn new(
        config: Arc<Config>,
        data_plane: DataPlane,
        sockets: Arc<[IkeSocket]>,
        input: InputSender,
        network: Handle,
    ) -> Self {
        Self {
            config,
            data_plane,
            sockets,
            input,
            network,
            streams: HashMap::new(),
            puzzles: Puzzles::default(),
        }
    }

    /// Takes another configuration.
    pub fn configure(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Carries out one action.
    pub fn carry_out(&mut self, action: Action) -> Outcome {
        match action {
            Action::SendDatagram { path, payload } => self.send_datagram(path, &payload),
            Action::Dial { stream, local, remote } => {
                let handle = stream::dial(stream, local, remote, self.input.clone(), &self.network);
                self.add_stream(stream, handle);
            }
            Action::SendStream { stream, bytes } => {
                if self.streams.get(&stream).is_some_and(|known| !known.handle.send(bytes)) {
                    self.streams.remove(&stream);
                    let cause = StreamDown::Local("the peer does not read what is sent".to_owned());
                    return Outcome::StreamDown { stream, cause };
                }
            }
            Action::CloseStream { stream } => {
                self.streams.remove(&stream);
            }
            Action::InstallInbound(sa) => {
                let child = sa.common.child;
                let sa = InboundSa {
                    common: self.common(&sa.common),
                    spi: Spi(sa.spi),
                    replay_window: Some(self.config.data_plane.replay_window),
                };
                return installed(child, self.data_plane.install_inbound(sa));
            }
            Action::InstallOutbound(sa) => {
                let child = sa.common.child;
                let configured = self.config.connection(&sa.common.connection);
                let configured = configured.and_then(|connection| connection.child(&sa.common.child_name));
                let by_all_workers = configured.is_some_and(|child| child.parallel_seal.is_some());
                let sa = OutboundSa { common: self.common(&sa.common), spi: Spi(sa.spi), by_all_workers };
                return installed(child, self.data_plane.install_outbound(sa));
            }
            Action::UseOutbound { child } => {
                if !self.data_plane.use_outbound(DataChildId(child.0)) {
                    let cause = "its policy is not configured any more".to_owned();
                    return Outcome::Fact(Fact::InstallFailed { child, cause });
                }
            }
            Action::RemoveOutbound { child } => self.data_plane.remove_outbound(DataChildId(child.0)),
            Action::RemoveInbound { child, spi } => {
                self.data_plane.remove_inbound(DataChildId(child.0), Spi(spi));
            }
            Action::UpdatePath { ike_sa, path } => {
                let path = self.data_path(path);
                self.data_plane.update_path(path_id(ike_sa), path);
            }
            Action::RemovePath { ike_sa } => self.data_plane.remove_path(path_id(ike_sa)),
            Action::SendDummy { child } => self.data_plane.send_dummy(DataChildId(child.0)),
            Action::SendEcho(echo) => self.send_echo(echo),
            Action::AcceptEsp { stream, ike_sa } => {
                if let Some(known) = self.streams.get_mut(&stream) {
                    known.handle.accept_esp(&self.data_plane, ike_sa.map(path_id));
                }
            }
            Action::DeliverEsp { stream, packet } => {
                if let Some(Stream { handle, ends: Some(ends) }) = self.streams.get_mut(&stream) {
                    handle.deliver_esp(&self.data_plane, *ends, &packet);
                }
            }
            Action::SolvePuzzle { search, puzzle, most } => {
                self.puzzles.solve(search, puzzle, most, self.input.clone(), &self.network);
            }
            // The data plane sends such echoes as long as the route takes, and keeps no smaller size of its own yet.
            Action::LowerPathMtu { ike_sa } => self.data_plane.lower_path_mtu(path_id(ike_sa)),
            Action::Event(event) => return Outcome::Event(event),
        }
        Outcome::Done
    }

    /// Takes over a stream.
    pub fn add_stream(&mut self, stream: StreamId, handle: StreamHandle) {
        self.streams.insert(stream, Stream { handle, ends: None });
    }

    /// A stream is up; false if it was closed before.
    pub fn stream_up(&mut self, stream: StreamId, local: SocketAddr, remote: SocketAddr) -> bool {
        let known = self.streams.get_mut(&stream);
        known.map(|known| known.ends = Some((local, remote))).is_some()
    }

    /// True until the stream is closed, by either side.
    pub fn has_stream(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Forgets a stream; false if it was closed before.
    pub fn remove_stream(&mut self, stream: StreamId) -> bool {
        self.streams.remove(&stream).is_some()
    }

    /// Inbound and outbound use of a child.
    pub fn usage(&self, child: ChildId) -> Option<(SaUsage, SaUsage)> {
        self.data_plane.usage(DataChildId(child.0))
    }

    /// IKE repeats what is lost, so a datagram that the kernel refuses is a lost one.
    fn send_datagram(&self, path: UdpPath, payload: &[u8]) {
        let sent = if path.local.port() == self.config.ike.endpoint.nat_port {
            self.data_plane.send_ike(path.local, path.remote, payload)
        } else {
            let fits = |socket: &&IkeSocket| {
                socket.port() == path.local.port() && socket.is_ipv4() == path.remote.is_ipv4()
            };
            match self.sockets.iter().find(fits) {
                Some(socket) => socket.send(path, payload),
                None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
            }
        };
        if let Err(error) = sent {
            tracing::debug!(remote = %path.remote, %error, "sending an IKE datagram failed");
        }
    }

    /// A request that cannot leave is as good as one that nobody answers.
    fn send_echo(&mut self, echo: EchoRequest) {
        let sent = self.data_echo(echo).is_some_and(|request| self.data_plane.send_echo(request));
        if !sent {
            tracing::debug!(child = echo.child.0, "an ESP echo request has no SA or no way to leave");
        }
    }

    /// A stream that is gone has no key: what would go into it is dropped as `stream_down`.
    fn data_path(&mut self, path: EspPath) -> Path {
        Path {
            carrier: match path.carrier {
                EspCarrier::Direct(DirectCarrier::Ip) => Carrier::Ip,
                EspCarrier::Direct(DirectCarrier::Udp) => Carrier::Udp,
                EspCarrier::Stream(stream) => {
                    let known = self.streams.get_mut(&stream);
                    let key = known.map(|known| known.handle.esp_key(&self.data_plane));
                    Carrier::Stream(key.unwrap_or(StreamKey::NONE))
                }
                EspCarrier::Hold => Carrier::Hold,
                EspCarrier::Shut => Carrier::Shut,
            },
            local: path.local,
            local_port: path.local_port,
            remote: path.remote,
            remote_port: path.remote_port,
            echo: DataEchoAnswers {
                direct: path.echo.direct,
                stream: path.echo.stream,
                ip_only_from: path.echo.ip_only_from,
            },
            takes_tcp: path.takes_tcp,
        }
    }

    /// An echo request in the words of the data plane; `None` if its stream is gone.
    fn data_echo(&mut self, echo: EchoRequest) -> Option<DataEchoRequest> {
        let EchoRequest { child, identifier, sequence, nonce, wants_reply, route, size } = echo;
        let route = match route {
            EchoRoute::Direct { carrier: DirectCarrier::Ip, local, remote } => {
                DataEchoRoute::Ip { local: local.ip(), remote: remote.ip() }
            }
            EchoRoute::Direct { carrier: DirectCarrier::Udp, local, remote } => {
                DataEchoRoute::Udp { local, remote }
            }
            EchoRoute::Stream(stream) => {
                let known = self.streams.get_mut(&stream)?;
                DataEchoRoute::Stream(known.handle.esp_key(&self.data_plane))
            }
        };
        let size = match size {
            EchoSize::Small => DataEchoSize::Small,
            EchoSize::PathMtu => DataEchoSize::PathMtu,
        };
        let child = DataChildId(child.0);
        Some(DataEchoRequest { child, identifier, sequence, nonce, wants_reply, route, size })
    }

    fn common(&self, sa: &ChildSaCommon) -> SaCommon {
        let connection = self.config.connection(&sa.connection);
        let child = connection.and_then(|connection| connection.child(&sa.child_name));
        SaCommon {
            child: DataChildId(sa.child.0),
            path: path_id(sa.ike_sa),
            policy: PolicyKey { connection: Arc::clone(&sa.connection), child: Arc::clone(&sa.child_name) },
            resource: sa.resource,
            algorithm: match sa.cipher {
                EspCipher::Aes128Gcm16 => Algorithm::Aes128Gcm16,
                EspCipher::Aes256Gcm16 => Algorithm::Aes256Gcm16,
                EspCipher::ChaCha20Poly1305 => Algorithm::ChaCha20Poly1305,
            },
            key: SaKey(sa.key.clone()),
            esn: sa.esn,
            selectors: SaSelectors {
                local: sa.local_ts.iter().map(for_data_plane).collect(),
                remote: sa.remote_ts.iter().map(for_data_plane).collect(),
            },
            lifetime: lifetime(child, sa.esn, sa.early),
        }
    }
}

fn installed<E: std::fmt::Display>(child: ChildId, result: Result<(), E>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Fact(Fact::InstallFailed { child, cause: error.to_string() }),
    }
}

/// Lifetimes that the data plane counts, the soft ones `early` parts of 65536 before their time. Without extended sequence numbers
/// a rekey is due well before they run out.
fn lifetime(child: Option<&Child>, esn: bool, early: u16) -> Lifetime {
    const UNLIMITED: (u64, u64) = (u64::MAX, u64::MAX);
    const WITHOUT_ESN: (u64, u64) = (3 << 30, u32::MAX as u64);
    let Limits { bytes, packets } = child.map(|child| child.limits).unwrap_or_default();
    let (soft_bytes, hard_bytes) = bytes.unwrap_or(UNLIMITED);
    let (soft_packets, hard_packets) = match (packets, esn) {
        (Some((soft, hard)), false) => (soft.min(WITHOUT_ESN.0), hard.min(WITHOUT_ESN.1)),
        (Some(limits), true) => limits,
        (None, true) => UNLIMITED,
        (None, false) => WITHOUT_ESN,
    };
    let hard_time = child.map_or(Duration::MAX, |child| child.ike.lifetime.saturating_add(HARD_TIME_MARGIN));
    let [soft_bytes, soft_packets] = [soft_bytes, soft_packets].map(|soft| earlier(soft, early));
    Lifetime { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time }
}

/// A soft limit, `early` parts of 65536 less; none stays none.
fn earlier(soft: u64, early: u16) -> u64 {
    let part = (u128::from(soft) * u128::from(early)) >> 16;
    match soft {
        u64::MAX => u64::MAX,
        soft => soft.saturating_sub(u64::try_from(part).unwrap_or(u64::MAX)).max(1),
    }
}

fn path_id(ike_sa: IkeSaId) -> PathId {
    PathId(ike_sa.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7296 section 2.8.
    #[test]
    fn soft_limits_come_earlier_and_never_later() {
        assert_eq!(earlier(u64::MAX, u16::MAX), u64::MAX, "no limit");
        assert_eq!(earlier(1 << 40, 0), 1 << 40);
        assert_eq!(earlier(1 << 40, 0x8000), 1 << 39);
        assert_eq!(earlier(1000, 6554), 900);
        assert_eq!(earlier(u64::MAX - 1, u16::MAX), 1 << 48);
        assert_eq!(earlier(1, u16::MAX), 1, "never nothing");
        let Lifetime { soft_packets, hard_packets, .. } = lifetime(None, false, 6553);
        assert!(soft_packets < 3 << 30 && soft_packets > (3 << 30) / 10 * 9 - 2);
        assert_eq!(hard_packets, u64::from(u32::MAX), "hard limits stay");
    }
}
