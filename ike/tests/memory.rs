//! Memory returns to where it was: two endpoints that set up, rekey and delete IKE SAs again and again, among strangers who leave
//! things half done, hold as many octets after the hundredth round as after the second, not one more. A program of its own, because the
//! allocator counts for all of it.

use std::alloc::System;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::command::{Command, CommandKind};
use portcullis_ike::config::{
    ChildConfig, ConnectionConfig, EndpointConfig, EspPolicy, Identity, IkePolicy, LocalAuth, RemoteAddress,
    RemoteAuth, Secret, StartMode, StartTransport,
};
use portcullis_ike::endpoint::{Held, SpiSource, StreamDown};
use portcullis_ike::path::{StreamId, UdpPath};
use portcullis_ike::{Endpoint, Time};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))];
const ROUNDS: usize = 100;

#[test]
fn memory_returns_to_where_it_was() {
    for transport in [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp] {
        let mut ends = Ends::new(transport);
        let mut held = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            ends.round(round);
            held.push(octets());
        }
        // Queues and tables have found their sizes in the first round.
        let after_two = held[1];
        assert!(held[1..].iter().all(|held| *held == after_two), "{transport:?}: {held:?}");
    }
}

/// Allocated and not freed, by the whole program.
fn octets() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Two endpoints on a wire without delay.
struct Ends {
    now: Time,
    endpoints: [Endpoint; 2],
    wire: VecDeque<(usize, Arrival)>,
    /// The peer's name of a stream, by end and name.
    streams: Vec<(StreamId, StreamId)>,
    accepted: u64,
}

enum Arrival {
    Datagram(UdpPath, Vec<u8>),
    Stream(StreamId, Vec<u8>),
    StreamUp(StreamId, SocketAddr, SocketAddr),
    StreamDown(StreamId),
}

impl Ends {
    fn new(transport: StartTransport) -> Self {
        let endpoints = [0, 1].map(|end| {
            // There is no ESP here, so nothing is asked of it.
            let esp_echo_notify = 50_000 + end as u16;
            Endpoint::new(
                EndpointConfig { esp_echo_notify, ..EndpointConfig::default() },
                vec![connection(end, transport)],
                Box::new(Spis(0x1000)),
                [end as u8 + 1; 32],
                Time::ZERO,
            )
        });
        Self { now: Time::ZERO, endpoints, wire: VecDeque::new(), streams: Vec::new(), accepted: 0 }
    }

    /// Up, everything rekeyed by both ends at once, down; and strangers.
    fn round(&mut self, round: usize) {
        self.command(0, CommandKind::Up { child: None });
        self.pass(Duration::from_secs(30));
        assert_eq!(self.endpoints[1].held().live, 1, "round {round}");
        for end in 0..2 {
            self.command(end, CommandKind::RekeyChild { child: None });
            self.command(end, CommandKind::RekeyIke);
        }
        self.pass(Duration::from_secs(30));
        self.strangers(round);
        for end in [round % 2, 1 - round % 2] {
            self.command(end, CommandKind::Down { child: None });
        }
        self.pass(Duration::from_secs(600));
        for endpoint in &self.endpoints {
            assert_eq!(endpoint.held(), Held::default(), "round {round}");
        }
        self.streams.clear();
    }

    /// An IKE_SA_INIT that is never followed up, garbage, and a stream without a prefix.
    fn strangers(&mut self, round: usize) {
        let remote = SocketAddr::new(Ipv4Addr::new(203, 0, 113, round as u8).into(), 4500);
        let local = SocketAddr::new(ADDRESSES[1], 4500);
        let mut stranger = connection(0, StartTransport::Udp);
        stranger.local_address = Some(remote.ip());
        stranger.children[0].start = StartMode::Always;
        let config = EndpointConfig::default();
        let mut stranger = Endpoint::new(config, vec![stranger], Box::new(Spis(1)), [9; 32], self.now);
        while let Some(action) = stranger.poll_action() {
            if let Action::SendDatagram { payload, .. } = action {
                let path = UdpPath { local, remote };
                self.endpoints[1].handle_datagram(self.now, path, &payload);
                self.endpoints[1].handle_datagram(self.now, path, &payload[..payload.len() / 2]);
            }
        }
        self.accepted += 1;
        let stream = StreamId::accepted(self.accepted);
        self.endpoints[1].handle_stream_up(self.now, stream, local, remote);
        self.endpoints[1].handle_stream_bytes(self.now, stream, b"IKE");
        self.carry_out();
    }

    fn command(&mut self, end: usize, kind: CommandKind) {
        let command = Command { request: 0, connection: "c".into(), kind };
        self.endpoints[end].command(self.now, command);
        self.carry_out();
    }

    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(next) = self.endpoints.iter().filter_map(Endpoint::poll_timeout).min()
            && next <= until
        {
            self.now = self.now.max(next);
            for endpoint in &mut self.endpoints {
                endpoint.handle_timeout(self.now);
            }
            self.carry_out();
        }
        self.now = until;
    }

    fn carry_out(&mut self) {
        loop {
            for end in 0..2 {
                while let Some(action) = self.endpoints[end].poll_action() {
                    self.act(end, action);
                }
            }
            let Some((end, arrival)) = self.wire.pop_front() else { return };
            let (now, endpoint) = (self.now, &mut self.endpoints[end]);
            match arrival {
                Arrival::Datagram(path, payload) => endpoint.handle_datagram(now, path, &payload),
                Arrival::Stream(stream, bytes) => endpoint.handle_stream_bytes(now, stream, &bytes),
                Arrival::StreamUp(stream, local, remote) => {
                    endpoint.handle_stream_up(now, stream, local, remote);
                }
                Arrival::StreamDown(stream) => endpoint.handle_stream_down(now, stream, StreamDown::Closed),
            }
        }
    }

    fn act(&mut self, end: usize, action: Action) {
        let other = |stream: StreamId| {
            let pair = self.streams.iter().find(|pair| pair.0 == stream || pair.1 == stream);
            pair.map(|pair| if pair.0 == stream { pair.1 } else { pair.0 })
        };
        match action {
            Action::SendDatagram { path, payload } if path.remote.ip() == ADDRESSES[1 - end] => {
                let path = UdpPath { local: path.remote, remote: path.local };
                self.wire.push_back((1 - end, Arrival::Datagram(path, payload)));
            }
            Action::Dial { stream, remote, .. } => {
                self.accepted += 1;
                let accepted = StreamId::accepted(self.accepted);
                self.streams.push((stream, accepted));
                let local = SocketAddr::new(ADDRESSES[end], 40_000);
                self.wire.push_back((1 - end, Arrival::StreamUp(accepted, remote, local)));
                self.wire.push_back((end, Arrival::StreamUp(stream, local, remote)));
            }
            Action::SendStream { stream, bytes } => {
                let to = other(stream).map(|theirs| (1 - end, Arrival::Stream(theirs, bytes)));
                self.wire.extend(to);
            }
            Action::CloseStream { stream } => {
                let to = other(stream).map(|theirs| (1 - end, Arrival::StreamDown(theirs)));
                self.wire.extend(to);
            }
            _ => {}
        }
    }
}

/// SPIs without an end; the installed ones need not come back here.
struct Spis(u32);

impl SpiSource for Spis {
    fn allocate(&mut self) -> Option<u32> {
        self.0 += 1;
        Some(self.0)
    }

    fn release(&mut self, _: u32) {}
}

fn connection(end: usize, transport: StartTransport) -> ConnectionConfig {
    let name = |end: usize| Identity::Fqdn(format!("gateway-{end}"));
    let selector = |end: usize| format!("10.{end}.0.0/16").parse().unwrap();
    let secret = || Secret::new(b"a secret of both".to_vec());
    ConnectionConfig {
        name: Arc::from("c"),
        local_address: Some(ADDRESSES[end]),
        local_id: name(end),
        local_auth: LocalAuth::Psk(secret()),
        remote_address: RemoteAddress::Ip(ADDRESSES[1 - end]),
        remote_id: name(1 - end),
        remote_auth: RemoteAuth::Psk(secret()),
        ppk: None,
        redirect: Default::default(),
        ike: IkePolicy {
            transport,
            proposals: vec!["aes256gcm16-prfsha384-x25519-ke1_mlkem768".parse().unwrap()],
            ..IkePolicy::default()
        }
        .into(),
        esp: EspPolicy::default().into(),
        children: vec![ChildConfig {
            name: Arc::from("net"),
            local_ts: vec![selector(end)],
            remote_ts: vec![selector(1 - end)],
            start: StartMode::None,
            proposals: vec!["aes256gcm16-x25519-ke1_mlkem512".parse().unwrap()],
            rekey_after: Duration::from_secs(3600),
            lifetime: Duration::from_secs(4500),
            linger: Duration::from_secs(5),
            per_resource: 1,
            resource: 0,
        }],
    }
}
