//! A whole endpoint against a peer that holds the keys. Also compiled into `tests/replay.rs` of `portcullis-ike`.
//!
//! Two endpoints talk to each other over a wire that the input rules. One is the target; the other only serves to get the keys,
//! which endpoints report, so that the input can speak in its name: change what it says under the Encrypted payload, at any octet,
//! or say something else altogether, in IKE_INTERMEDIATE, IKE_AUTH, CREATE_CHILD_SA, IKE_FOLLOWUP_KE and INFORMATIONAL, as request
//! or response. It loses, repeats and adds datagrams and octets of streams, lets time pass, and gives commands.
//!
//! Whatever is said, the target does not panic, asks its caller for nothing that makes no sense (an SA is removed once, and was
//! installed before), and after it was shut down nothing is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_ike::action::{Action, ChildId};
use portcullis_ike::codec::{
    CipherLayout, Encrypted, ExchangeType, Flags, Header, Message, NON_ESP_MARKER, PayloadType, Protected,
};
use portcullis_ike::command::{Command, CommandKind, Fact};
use portcullis_ike::config::{
    ChildConfig, ConnectionConfig, EndpointConfig, EspPolicy, FirstChild, Identity, IkePolicy, LocalAuth,
    RemoteAddress, RemoteAuth, Secret, StartMode, StartTransport,
};
use portcullis_ike::endpoint::{Held, SpiSource, StreamDown};
use portcullis_ike::event::{Event, KeyEvent};
use portcullis_ike::path::{StreamId, UdpPath};
use portcullis_ike::stream::{PREFIX, push_ike};
use portcullis_ike::{Endpoint, Time};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))];
const LAYOUT: CipherLayout = CipherLayout { iv_len: 8, icv_len: 16 };
/// Steps of one input; more add nothing but time.
const MOST_STEPS: usize = 64;
/// Deliveries of one step.
const MOST_DELIVERIES: usize = 64;
const EXCHANGES: [ExchangeType; 6] = [
    ExchangeType::CREATE_CHILD_SA,
    ExchangeType::INFORMATIONAL,
    ExchangeType::IKE_AUTH,
    ExchangeType::IKE_INTERMEDIATE,
    ExchangeType::IKE_FOLLOWUP_KE,
    ExchangeType::IKE_SA_INIT,
];

/// The first octet says who the target is and how the two are configured; then steps, an octet and its arguments each.
pub fn endpoint(bytes: &[u8]) {
    let mut input = Input(bytes);
    let Some(setup) = input.octet() else { return };
    let mut world = World::new(setup);
    for _ in 0..MOST_STEPS {
        let Some(step) = input.octet() else { break };
        world.step(step, &mut input);
    }
    world.end();
}

/// What is left of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.octet()?) << 8 | usize::from(self.octet()?))
    }

    /// As many octets as the number before them says, or all that there are.
    fn octets(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        let (octets, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Some(octets)
    }
}

struct World {
    now: Time,
    target: usize,
    endpoints: [Endpoint; 2],
    /// What the target's caller knows, and what the target has been given.
    installed: Installed,
    spis: Arc<Mutex<BTreeSet<u32>>>,
    /// Keys of the target's IKE SAs, as initiator and responder of each protect with them.
    keys: BTreeMap<(u64, u64), (Vec<u8>, Vec<u8>)>,
    /// The newest IKE SA of the target, whether the peer is the initiator of it, and the peer's next Message IDs: of its
    /// requests, and of the responses to what the target has asked.
    newest: Option<((u64, u64), bool)>,
    next_request: u32,
    next_response: u32,
    wire: VecDeque<(usize, Arrival)>,
    streams: Vec<(StreamId, StreamId)>,
    accepted: u64,
    forged: u64,
}

/// The pairs that the target has had installed.
#[derive(Default)]
struct Installed {
    inbound: BTreeSet<(ChildId, u32)>,
    outbound: BTreeSet<ChildId>,
}

enum Arrival {
    Datagram(UdpPath, Vec<u8>),
    Stream(StreamId, Vec<u8>),
    StreamUp(StreamId, SocketAddr, SocketAddr),
    StreamDown(StreamId),
}

impl World {
    fn new(setup: u8) -> Self {
        let spis = Arc::new(Mutex::new(BTreeSet::new()));
        let endpoints = [0, 1].map(|end| {
            let config = EndpointConfig { key_log: true, ..EndpointConfig::default() };
            let spis: Box<dyn SpiSource + Send> = match end == usize::from(setup & 1) {
                true => Box::new(TargetSpis { out: Arc::clone(&spis), next: 0x1000 }),
                false => Box::new(TargetSpis { out: Arc::default(), next: 0x1000 }),
            };
            Endpoint::new(config, vec![connection(end, setup)], spis, [end as u8 + 1; 32], Time::ZERO)
        });
        let mut world = Self {
            now: Time::ZERO,
            target: usize::from(setup & 1),
            endpoints,
            installed: Installed::default(),
            spis,
            keys: BTreeMap::new(),
            newest: None,
            next_request: 0,
            next_response: 0,
            wire: VecDeque::new(),
            streams: Vec::new(),
            accepted: 0,
            forged: 0,
        };
        world.carry_out();
        world
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        match step % 12 {
            0 => self.deliver(1),
            1 => self.deliver(MOST_DELIVERIES),
            2 => self.change_next(input).unwrap_or_default(),
            3 => self.forge(input).unwrap_or_default(),
            4 => self.unprotected(input).unwrap_or_default(),
            5 => {
                let wait = input.octet().unwrap_or_default();
                self.pass(Duration::from_millis(50 << (wait % 14)));
            }
            6 => self.command(input.octet().unwrap_or_default()),
            7 => {
                self.wire.pop_front();
            }
            8 => {
                if let Some((to, Arrival::Datagram(path, payload))) = self.wire.front() {
                    let again = (*to, Arrival::Datagram(*path, payload.clone()));
                    self.wire.push_back(again);
                }
            }
            9 => self.wire.rotate_left(1.min(self.wire.len())),
            10 => self.fact(input.octet().unwrap_or_default()),
            _ => self.break_streams(),
        }
    }

    /// Everything is shut down, and nothing is left.
    fn end(mut self) {
        self.endpoints[self.target].shutdown(self.now);
        self.carry_out();
        self.pass(Duration::from_secs(900));
        let held = self.endpoints[self.target].held();
        // What a peer that has not closed its stream holds is the peer's to close; it is counted and bounded.
        assert_eq!(held, Held { streams: held.streams, ..Held::default() }, "state is left");
        assert!(self.installed.inbound.is_empty() && self.installed.outbound.is_empty(), "SAs are left");
        assert!(self.spis.lock().unwrap().is_empty(), "SPIs are left");
    }

    fn deliver(&mut self, most: usize) {
        for _ in 0..most {
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
            self.carry_out();
        }
    }

    /// The next message to the target is another one under its protection.
    fn change_next(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (kind, at, value) = (input.octet()?, input.number()?, input.octet()?);
        let target = self.target;
        let index = self.wire.iter().position(|(to, _)| *to == target)?;
        let (overhead, message) = match &self.wire[index].1 {
            Arrival::Datagram(_, payload) => (4, payload.strip_prefix(&NON_ESP_MARKER)?.to_vec()),
            Arrival::Stream(_, bytes) => {
                let overhead = 6 + if bytes.starts_with(&PREFIX) { PREFIX.len() } else { 0 };
                (overhead, bytes.get(overhead..)?.to_vec())
            }
            Arrival::StreamUp(..) | Arrival::StreamDown(_) => return None,
        };
        let changed = match self.open(&message) {
            Some((header, first, mut content)) => {
                let first = change(&mut content, first, kind, at, value);
                self.seal(&header, first, &content)?
            }
            None => {
                let mut message = message;
                change(&mut message, PayloadType::NONE, kind, at, value);
                message
            }
        };
        match &mut self.wire[index].1 {
            Arrival::Datagram(_, payload) => {
                *payload = [&NON_ESP_MARKER, changed.as_slice()].concat();
            }
            Arrival::Stream(_, bytes) => {
                let mut framed = bytes[..overhead - 6].to_vec();
                if push_ike(&mut framed, &changed) {
                    *bytes = framed;
                }
            }
            Arrival::StreamUp(..) | Arrival::StreamDown(_) => {}
        }
        Some(())
    }

    /// A message in the peer's name, on the newest IKE SA.
    fn forge(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (exchange, options, first) = (input.octet()?, input.octet()?, input.octet()?);
        let content = input.octets()?;
        let ((spi_i, spi_r), peer_is_initiator) = self.newest?;
        let response = options & 1 != 0;
        let expected = if response { self.next_response } else { self.next_request };
        let header = Header {
            spi_i,
            spi_r,
            exchange: EXCHANGES[usize::from(exchange) % EXCHANGES.len()],
            flags: Flags { initiator: peer_is_initiator, response },
            message_id: expected.wrapping_add(u32::from(options >> 1 & 3)),
        };
        if !response {
            self.next_request = self.next_request.max(header.message_id.wrapping_add(1));
        }
        let message = self.seal(&header, PayloadType(first), content)?;
        self.send_to_target(message);
        Some(())
    }

    /// Octets of anybody.
    fn unprotected(&mut self, input: &mut Input<'_>) -> Option<()> {
        let octets = input.octets()?.to_vec();
        self.send_to_target(octets);
        Some(())
    }

    fn send_to_target(&mut self, message: Vec<u8>) {
        let (target, peer) = (self.target, 1 - self.target);
        let newest = self.streams.last().copied();
        match newest {
            Some(stream) => {
                let mut framed = Vec::new();
                if !push_ike(&mut framed, &message) {
                    return;
                }
                let stream = if target == 0 { stream.0 } else { stream.1 };
                self.endpoints[target].handle_stream_bytes(self.now, stream, &framed);
            }
            None => {
                let path = UdpPath {
                    local: SocketAddr::new(ADDRESSES[target], 4500),
                    remote: SocketAddr::new(ADDRESSES[peer], 4500),
                };
                let payload = [&NON_ESP_MARKER, message.as_slice()].concat();
                self.endpoints[target].handle_datagram(self.now, path, &payload);
            }
        }
        self.carry_out();
    }

    fn command(&mut self, octet: u8) {
        let net = Some("net".into());
        let kind = match octet & 7 {
            0 => CommandKind::RekeyIke,
            1 => CommandKind::RekeyChild { child: None },
            2 => CommandKind::Down { child: net },
            3 => CommandKind::Up { child: net },
            4 => CommandKind::Up { child: None },
            5 => CommandKind::Down { child: None },
            6 => CommandKind::Redirect { to: ADDRESSES[0] },
            _ => CommandKind::Probe,
        };
        let end = if octet & 8 == 0 { self.target } else { 1 - self.target };
        let command = Command { request: 1, connection: "c".into(), kind };
        self.endpoints[end].command(self.now, command);
        self.carry_out();
    }

    fn fact(&mut self, octet: u8) {
        let index = usize::from(octet >> 2);
        let Some((child, _)) = self.installed.inbound.iter().nth(index).copied() else { return };
        let fact = match octet & 3 {
            0 => Fact::SoftLifetime { child },
            1 => Fact::HardLifetime { child },
            2 => Fact::InstallFailed { child, cause: "no room".into() },
            _ => Fact::Outbound { child },
        };
        self.endpoints[self.target].fact(self.now, fact);
        self.carry_out();
    }

    fn break_streams(&mut self) {
        for (dialled, accepted) in core::mem::take(&mut self.streams) {
            self.endpoints[0].handle_stream_down(self.now, dialled, StreamDown::Reset);
            self.endpoints[1].handle_stream_down(self.now, accepted, StreamDown::Reset);
        }
        self.carry_out();
    }

    /// Time passes, and the two ends talk.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        // Every step of time is a timer of one of them; a bound, should one of them not move on.
        for _ in 0..100_000 {
            self.deliver(MOST_DELIVERIES);
            let next = self.endpoints.iter().filter_map(Endpoint::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            for endpoint in &mut self.endpoints {
                endpoint.handle_timeout(self.now);
            }
            self.carry_out();
        }
        panic!("a timer that stays due");
    }

    fn carry_out(&mut self) {
        for end in 0..2 {
            while let Some(action) = self.endpoints[end].poll_action() {
                self.act(end, action);
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
                if let Some(message) = payload.strip_prefix(&NON_ESP_MARKER) {
                    self.note_ids(end, message);
                }
                let path = UdpPath { local: path.remote, remote: SocketAddr::new(ADDRESSES[end], 4500) };
                self.wire.push_back((1 - end, Arrival::Datagram(path, payload)));
            }
            Action::Dial { stream, remote, .. } if end == 0 => {
                self.accepted += 1;
                let accepted = StreamId::accepted(self.accepted);
                self.streams.push((stream, accepted));
                let local = SocketAddr::new(ADDRESSES[end], 40_000);
                self.wire.push_back((1, Arrival::StreamUp(accepted, remote, local)));
                self.wire.push_back((0, Arrival::StreamUp(stream, local, remote)));
            }
            Action::Dial { stream, .. } => {
                self.endpoints[end].handle_stream_down(self.now, stream, StreamDown::Refused);
            }
            Action::SendStream { stream, bytes } => {
                let to = other(stream);
                let overhead = 6 + if bytes.starts_with(&PREFIX) { PREFIX.len() } else { 0 };
                if let Some(message) = bytes.get(overhead..) {
                    self.note_ids(end, message);
                }
                self.wire.extend(to.map(|theirs| (1 - end, Arrival::Stream(theirs, bytes))));
            }
            Action::CloseStream { stream } => {
                let to = other(stream).map(|theirs| (1 - end, Arrival::StreamDown(theirs)));
                self.wire.extend(to);
                self.streams.retain(|pair| pair.0 != stream && pair.1 != stream);
            }
            Action::Event(Event::Keys(KeyEvent::Ike { spis, sk_ei, sk_er, .. })) if end == self.target => {
                let is_new = self.keys.insert(spis, (sk_ei.to_vec(), sk_er.to_vec())).is_none();
                if is_new {
                    // End 0 initiates; who has rekeyed shows in the first message.
                    self.newest = Some((spis, self.target == 1));
                    (self.next_request, self.next_response) = (0, 0);
                }
            }
            action if end == self.target => self.installed.take(action, &self.spis),
            _ => {}
        }
    }

    /// Which Message IDs come next, by what the two have said.
    fn note_ids(&mut self, end: usize, message: &[u8]) {
        let Ok((header, _)) = Header::decode(message) else { return };
        let spis = (header.spi_i, header.spi_r);
        if header.spi_r == 0 || self.newest.is_some_and(|(newest, _)| newest != spis) {
            return;
        }
        let by_target = end == self.target;
        if let Some((_, peer_is_initiator)) = &mut self.newest {
            *peer_is_initiator = header.flags.initiator != by_target;
        }
        match (by_target, header.flags.response) {
            (true, false) => self.next_response = header.message_id,
            (false, false) => self.next_request = header.message_id.wrapping_add(1),
            _ => {}
        }
    }

    fn open(&self, message: &[u8]) -> Option<(Header, PayloadType, Vec<u8>)> {
        let message = Message::decode(message).ok()?;
        let encrypted = message.encrypted.as_ref().filter(|encrypted| encrypted.fragment.is_none())?;
        let (key, salt) = self.key(&message.header)?;
        let (iv, sealed) = encrypted.split(LAYOUT).ok()?;
        let nonce: [u8; 12] = [salt.as_slice(), iv].concat().try_into().ok()?;
        let mut text = sealed.to_vec();
        let aad = Aad::from(encrypted.associated_data);
        let text = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut text).ok()?;
        let content = Encrypted::content(text).ok()?.to_vec();
        Some((message.header, encrypted.first_inner, content))
    }

    fn seal(&mut self, header: &Header, first: PayloadType, content: &[u8]) -> Option<Vec<u8>> {
        let (key, salt) = self.key(header)?;
        self.forged += 1;
        let iv = (u64::MAX - self.forged).to_be_bytes();
        let nonce: [u8; 12] = [salt.as_slice(), &iv].concat().try_into().ok()?;
        let seal = |parts: portcullis_ike::codec::SealParts<'_>| {
            let aad = Aad::from(parts.associated_data);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, aad, parts.text).ok()?;
            parts.iv.copy_from_slice(&iv);
            parts.icv.copy_from_slice(tag.as_ref());
            Some(())
        };
        Protected::whole(header, first).seal(content, LAYOUT, seal).ok()
    }

    /// The key that the sender of this message protects with, and its salt.
    fn key(&self, header: &Header) -> Option<(LessSafeKey, Vec<u8>)> {
        let (sk_ei, sk_er) = self.keys.get(&(header.spi_i, header.spi_r))?;
        let (key, salt) = if header.flags.initiator { sk_ei } else { sk_er }.split_at_checked(32)?;
        Some((LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?), salt.to_vec()))
    }
}

impl Installed {
    fn take(&mut self, action: Action, spis: &Mutex<BTreeSet<u32>>) {
        match action {
            Action::InstallInbound(sa) => {
                assert!(spis.lock().unwrap().contains(&sa.spi), "an SPI that was given out");
                assert!(self.inbound.insert((sa.common.child, sa.spi)), "installed twice");
            }
            Action::InstallOutbound(sa) => {
                assert!(self.outbound.insert(sa.common.child), "installed twice");
            }
            Action::UseOutbound { child } | Action::SendDummy { child } => {
                assert!(self.outbound.contains(&child), "used without being installed");
            }
            Action::RemoveOutbound { child } => {
                assert!(self.outbound.remove(&child), "removed without being installed");
            }
            Action::RemoveInbound { child, spi } => {
                assert!(self.inbound.remove(&(child, spi)), "removed without being installed");
                assert!(spis.lock().unwrap().remove(&spi), "an SPI that was given out");
            }
            _ => {}
        }
    }
}

/// Changes octets at a place, and returns the type of the first payload.
fn change(content: &mut Vec<u8>, first: PayloadType, kind: u8, at: usize, value: u8) -> PayloadType {
    let at = if content.is_empty() { 0 } else { at % content.len() };
    match kind % 6 {
        0 => content.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= value.max(1)),
        1 => content.iter_mut().skip(at).take(1).for_each(|octet| *octet = value),
        2 => content.truncate(at),
        3 => content.insert(at, value),
        4 => content.extend_from_within(..),
        _ => return PayloadType(value),
    }
    first
}

struct TargetSpis {
    out: Arc<Mutex<BTreeSet<u32>>>,
    next: u32,
}

impl SpiSource for TargetSpis {
    fn allocate(&mut self) -> Option<u32> {
        self.next += 1;
        self.out.lock().unwrap().insert(self.next);
        Some(self.next)
    }

    fn release(&mut self, spi: u32) {
        assert!(self.out.lock().unwrap().remove(&spi), "SPI {spi:x} was not given out");
    }
}

/// Bit 0 of the set-up says who the target is; the others what the two agree on.
fn connection(end: usize, setup: u8) -> ConnectionConfig {
    let transport = match setup >> 1 & 3 {
        0 | 1 => StartTransport::Udp,
        2 => StartTransport::UdpThenTcp,
        _ => StartTransport::Tcp,
    };
    let (ike, esp) = match setup >> 3 & 3 {
        0 => ("aes256gcm16-prfsha384-x25519", "aes256gcm16-esn"),
        1 => ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519"),
        2 => ("aes256gcm16-prfsha384-x25519-ke1_x25519", "aes256gcm16-x25519-ke1_x25519"),
        _ => ("aes256gcm16-prfsha384-x25519-ke1_mlkem512", "aes256gcm16-x25519-ke1_mlkem512-ke2_x25519"),
    };
    let name = |end: usize| Identity::Fqdn(format!("gateway-{end}"));
    let child = |name: &str, net: u8, start| ChildConfig {
        name: Arc::from(name),
        local_ts: vec![format!("10.{net}{end}.0.0/16").parse().unwrap()],
        remote_ts: vec![format!("10.{net}{}.0.0/16", 1 - end).parse().unwrap()],
        start,
        proposals: vec![esp.parse().unwrap()],
        rekey_after: Duration::from_secs(3600),
        lifetime: Duration::from_secs(4500),
        linger: Duration::from_secs(5),
        per_resource: 1,
        resource: 0,
    };
    let start = if end == 0 { StartMode::Always } else { StartMode::None };
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
            proposals: vec![ike.parse().unwrap()],
            // Whole messages can be changed.
            fragment_size: if setup & 0x40 == 0 { 9000 } else { 576 },
            first_child: if setup & 0x20 == 0 { FirstChild::InAuth } else { FirstChild::Childless },
            ..IkePolicy::default()
        }
        .into(),
        esp: EspPolicy::default().into(),
        children: vec![child("net", 1, start), child("more", 2, start)],
    }
}
