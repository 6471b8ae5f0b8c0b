//! Rules, one by one. What two ends make of each other is walked in the simulation.

use super::*;
use crate::config::UnverifiedTimeout;
use crate::status::{State, Verdict};
use DirectCarrier::{Ip, Udp};
use rand_core::SeedableRng as _;

mod echo;
mod plain;

const BASE: Basis = Basis {
    in_tcp: false,
    is_initiator: true,
    started_on: IkeTransport::Tcp,
    separate: true,
    echo: false,
    nat: (false, false),
    first: Ip,
    local: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4500),
    remote: SocketAddr::new(PEER, 4500),
    ike_remote: PEER,
    stream: Some(StreamId::dialled(1)),
    last_fall: None,
    reason: Reason::None,
};
const RESPONDER: Basis = Basis { is_initiator: false, ..BASE };
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const CHILD: ChildId = ChildId(1);
/// One round trip of the fixtures, in seconds.
const RTT: f64 = 0.02;

/// A machine with a clock, and a peer that answers echoes on some carriers.
struct Machine {
    carrier: Carrier,
    rng: Rng,
    now: Time,
    /// Carriers on which echoes come back, after [`RTT`].
    answers: Vec<EspTransport>,
    /// Children whose echoes come back.
    alive: Vec<ChildId>,
    /// IKE answers what it is asked.
    ike: bool,
    /// Everything that was asked for, with its time in milliseconds.
    log: Vec<(u64, Effect)>,
    pending: Vec<(Time, Pending)>,
}

#[derive(Clone, Copy)]
enum Pending {
    Reply(Reply),
    Ike,
}

impl Machine {
    fn new(basis: Basis) -> Self {
        Self::with(basis, EspPolicy::default())
    }

    fn with(basis: Basis, policy: EspPolicy) -> Self {
        Self {
            carrier: Carrier::new(basis, Returns::default(), policy.into(), Time::ZERO),
            rng: Rng::from_seed([3; 32]),
            now: Time::ZERO,
            answers: Vec::new(),
            alive: vec![CHILD],
            ike: true,
            log: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// With its first child in use.
    fn up(mut self) -> Self {
        self.carrier.child_in_use(self.now, &"net".into(), CHILD, &mut self.rng);
        self.take();
        self
    }

    fn answering(mut self, carriers: &[EspTransport]) -> Self {
        self.answers = carriers.to_vec();
        self
    }

    fn until(&mut self, seconds: f64) {
        let end = at(seconds);
        loop {
            let pending = self.pending.iter().map(|(at, _)| *at).min();
            let next = [self.carrier.next_timeout(), pending].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            for (_, what) in self.pending.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
                match what {
                    Pending::Reply(reply) => {
                        let source = SocketAddr::new(PEER, 4500);
                        self.carrier.echo_reply(now, &reply, source, &mut self.rng);
                    }
                    Pending::Ike => {
                        self.carrier.ike_round_trip(Duration::from_secs_f64(RTT));
                        self.carrier.ike_heard(now, &mut self.rng);
                    }
                }
                self.take();
            }
            self.carrier.timeout(now, &mut self.rng);
            self.take();
        }
        self.now = end;
    }

    fn inbound(&mut self, seconds: f64, arrival: Arrival) {
        self.until(seconds);
        self.carrier.inbound(self.now, arrival, &mut self.rng);
        self.take();
    }

    fn outbound(&mut self, seconds: f64) {
        self.until(seconds);
        self.carrier.outbound(self.now, CHILD, &mut self.rng);
        self.take();
    }

    /// Traffic out, and none in, every half second.
    fn outbound_until(&mut self, seconds: f64) {
        while self.now < at(seconds) {
            let next = self.now.as_nanos() as f64 / 1e9 + 0.5;
            self.outbound(next.min(seconds));
        }
    }

    fn take(&mut self) {
        let back = self.now + Duration::from_secs_f64(RTT);
        for effect in self.carrier.take_effects() {
            match effect {
                Effect::Echo(echo) if echo.wants_reply => {
                    let carrier = crate::transport::probe::transport_of(&echo.route);
                    if self.answers.contains(&carrier) && self.alive.contains(&echo.child) {
                        let EchoRequest { child, identifier, sequence, nonce, .. } = echo;
                        let reply = Reply { child, identifier, sequence, nonce, carrier };
                        self.pending.push((back, Pending::Reply(reply)));
                    }
                }
                Effect::Liveness if self.ike => self.pending.push((back, Pending::Ike)),
                _ => {}
            }
            self.log.push((self.now.as_nanos() / 1_000_000, effect));
        }
    }

    fn state(&self) -> (State, Reason, Evidence) {
        self.carrier.state()
    }

    fn sent_on(&self) -> EspCarrier {
        self.carrier.path().carrier
    }

    /// When these effects came, milliseconds.
    fn times(&self, is_it: impl Fn(&Effect) -> bool) -> Vec<u64> {
        self.log.iter().filter(|(_, effect)| is_it(effect)).map(|(at, _)| *at).collect()
    }

    fn dummies(&self) -> Vec<u64> {
        self.times(|effect| *effect == Effect::Dummy)
    }

    fn unreachable(&self) -> Vec<u64> {
        self.times(|effect| matches!(effect, Effect::Unreachable { .. }))
    }
}

fn arrival(carrier: DirectCarrier, source: &str) -> Arrival {
    Arrival {
        child: CHILD,
        carrier: carrier.into(),
        source: source.parse().unwrap(),
        local: BASE.local.ip(),
        is_highest: true,
        is_echo: false,
    }
}

fn at(seconds: f64) -> Time {
    Time::ZERO + Duration::from_secs_f64(seconds)
}

/// Row 14 and RFC 9329 section 5.
#[test]
fn esp_that_belongs_in_tcp_follows_the_stream_and_nothing_else() {
    let (first, second) = (StreamId::dialled(1), StreamId::dialled(2));
    for is_initiator in [true, false] {
        let basis = Basis {
            is_initiator,
            separate: false,
            in_tcp: true,
            stream: Some(first),
            nat: (true, false),
            reason: Reason::PeerNoSeparate,
            ..BASE
        };
        let policy = EspPolicy { on_unreachable: OnUnreachable::TcpFallback, ..EspPolicy::default() };
        let mut carrier = Carrier::new(basis, Returns::default(), policy.into(), Time::ZERO);
        let mut rng = Rng::from_seed([1; 32]);
        assert_eq!(carrier.path().carrier, EspCarrier::Stream(first));
        assert!(!carrier.path().echo.direct, "an echo over a direct carrier is ESP outside of TCP");
        assert_eq!(carrier.state(), (State::Tcp, Reason::PeerNoSeparate, Evidence::Ike));
        carrier.child_in_use(Time::ZERO, &"net".into(), ChildId(1), &mut rng);
        assert_eq!(carrier.next_timeout(), None, "no dummies, no keepalives, no probes");
        carrier.stream_is(None);
        assert_eq!(
            carrier.path().carrier,
            EspCarrier::Stream(first),
            "dropped there until another one is up"
        );
        carrier.stream_is(Some(second));
        assert_eq!(carrier.path().carrier, EspCarrier::Stream(second));
        carrier.shut();
        carrier.stream_is(Some(first));
        assert_eq!(carrier.path().carrier, EspCarrier::Shut, "shut means shut");
        assert_eq!(carrier.state(), (State::Blocked, Reason::EspUnreachable, Evidence::None));
    }
}
