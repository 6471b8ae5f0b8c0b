//! How ESP of one IKE SA travels: rules 1 to 4 and 10 of the transport policy, without ESP echo.
//!
//! ```text
//!                       ┌──────────── nothing learned in 1 s, no NAT ───────────┐
//! responder, TCP start: Hold ── authenticated inbound ESP ──> Direct(its carrier) <┘
//! everybody else:       Direct(first allowed carrier) ── NAT seen on IP ──> Direct(udp)
//! ```
//!
//! The initiator chooses the carrier, the responder follows; both follow address and port within it.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use crate::config::EspPolicy;
use crate::path::{DirectCarrier, EchoAnswers, EspCarrier, EspPath, IkeTransport};
use crate::status::{Evidence, Reason, State};
use crate::time::Time;

/// How long a responder holds packets until it has learned the carrier (rule 4).
const HOLD: Duration = Duration::from_secs(1);
/// Address and port follow the peer at most this often (rule 4).
const MOVE_INTERVAL: Duration = Duration::from_secs(1);
/// When dummies leave after the carrier was chosen, counted from the one before (rule 4: at once, after 1, 2 and 4 s).
const DUMMY_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2)];

/// What is known when the IKE SA is established.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Basis {
    /// We are the original initiator.
    pub(crate) is_initiator: bool,
    /// What carried the first message.
    pub(crate) started_on: IkeTransport,
    /// SEPARATE_TRANSPORTS is agreed.
    pub(crate) separate: bool,
    /// A NAT is in front of us, in front of the peer.
    pub(crate) nat: (bool, bool),
    /// The carrier to start with.
    pub(crate) first: DirectCarrier,
    /// Our address and port for ESP in UDP.
    pub(crate) local: SocketAddr,
    /// The peer's address, and its port for ESP in UDP.
    pub(crate) remote: SocketAddr,
    /// Why the attempt took this start, if it was not the first choice.
    pub(crate) reason: Reason,
}

/// What the endpoint has to carry out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Tell the data plane.
    Path(EspPath),
    /// A dummy packet on the current path.
    Dummy,
    /// A NAT keepalive on the UDP path (RFC 3948 section 2.3).
    Keepalive,
}

/// Authenticated ESP that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// How it came.
    pub(crate) carrier: DirectCarrier,
    /// From where.
    pub(crate) source: SocketAddr,
    /// To which of our addresses.
    pub(crate) local: IpAddr,
    /// Numbered above everything seen on its SA.
    pub(crate) is_highest: bool,
    /// An echo, which moves nothing.
    pub(crate) is_echo: bool,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Carrier {
    basis: Basis,
    policy: EspPolicy,
    path: EspPath,
    evidence: Evidence,
    nat_on_ip: bool,
    unverified_timed_out: bool,
    moved_at: Option<Time>,
    hold_until: Option<Time>,
    dummies: Option<(usize, Time)>,
    keepalive_at: Option<Time>,
    outbound_since_keepalive: bool,
    unanswered_since: Option<Time>,
}

impl Carrier {
    /// The state right after authentication; tell the data plane about [`Carrier::path`].
    pub(crate) fn new(basis: Basis, policy: EspPolicy, now: Time) -> Self {
        let holds = !basis.is_initiator && basis.started_on == IkeTransport::Tcp;
        let nat = basis.nat.0 || basis.nat.1;
        let path = EspPath {
            carrier: if holds { EspCarrier::Hold } else { EspCarrier::Direct(basis.first) },
            local: basis.local.ip(),
            local_port: basis.local.port(),
            remote: basis.remote.ip(),
            remote_port: basis.remote.port(),
            echo: EchoAnswers::default(),
        };
        let ike_proves_it =
            basis.separate && basis.started_on == IkeTransport::Udp && basis.first == DirectCarrier::Udp;
        Self {
            evidence: if ike_proves_it { Evidence::Ike } else { Evidence::None },
            nat_on_ip: false,
            unverified_timed_out: false,
            moved_at: None,
            hold_until: (holds && !nat).then(|| now + HOLD),
            dummies: None,
            keepalive_at: basis.nat.0.then(|| now + policy.keepalive),
            outbound_since_keepalive: false,
            unanswered_since: None,
            basis,
            policy,
            path,
        }
    }

    /// The path as the data plane has to use it now.
    pub(crate) fn path(&self) -> EspPath {
        self.path
    }

    /// NATs in front of us and of the peer, those seen on ESP included.
    pub(crate) fn nat(&self) -> (bool, bool) {
        (self.basis.nat.0, self.basis.nat.1 || self.nat_on_ip)
    }

    /// State, reason and evidence as the policy's last paragraphs define them.
    pub(crate) fn state(&self) -> (State, Reason, Evidence) {
        let carrier = match self.path.carrier {
            EspCarrier::Hold => return (State::Unverified, Reason::None, Evidence::None),
            EspCarrier::Shut => return (State::Blocked, Reason::CarrierNotAllowed, Evidence::None),
            EspCarrier::Stream(_) => return (State::Tcp, self.basis.reason, Evidence::Ike),
            EspCarrier::Direct(carrier) => carrier,
        };
        let nat = self.nat();
        let reason = match self.basis.reason {
            Reason::None if carrier == DirectCarrier::Udp && (nat.0 || nat.1) => Reason::Nat,
            reason => reason,
        };
        match (self.evidence, carrier) {
            _ if self.unverified_timed_out => (State::Unverified, Reason::UnverifiedTimeout, self.evidence),
            (Evidence::None, _) => (State::Unverified, reason, Evidence::None),
            (evidence, DirectCarrier::Ip) => (State::DirectIp, reason, evidence),
            (evidence, DirectCarrier::Udp) => (State::DirectUdp, reason, evidence),
        }
    }

    /// The first child is in place: the side that chose the carrier shows it to the peer.
    pub(crate) fn child_installed(&mut self, now: Time) {
        if self.basis.is_initiator && self.evidence != Evidence::Inbound {
            self.dummies = Some((0, now));
        }
    }

    /// Authenticated ESP arrived on any child.
    pub(crate) fn inbound(&mut self, now: Time, arrival: Arrival) -> Vec<Effect> {
        self.unanswered_since = None;
        self.unverified_timed_out = false;
        if arrival.is_echo || !arrival.is_highest {
            return Vec::new();
        }
        let before = self.path;
        if arrival.carrier == DirectCarrier::Ip && arrival.source.ip() != self.basis.remote.ip() {
            self.nat_found_on_ip();
        } else {
            self.follow(now, arrival);
        }
        if self.path.carrier == EspCarrier::Direct(arrival.carrier) {
            self.evidence = Evidence::Inbound;
            self.dummies = None;
        }
        self.path_effect(before)
    }

    /// Data left on a child.
    pub(crate) fn outbound(&mut self, now: Time) {
        self.outbound_since_keepalive = true;
        self.unanswered_since.get_or_insert(now);
    }

    /// Authenticated IKE over UDP came from a new address or port (RFC 7296 section 2.23); ESP in UDP takes it too.
    pub(crate) fn ike_moved(&mut self, remote: SocketAddr) -> Vec<Effect> {
        let before = self.path;
        self.basis.remote = remote;
        self.path.remote = remote.ip();
        self.path.remote_port = remote.port();
        self.path_effect(before)
    }

    /// When [`Carrier::timeout`] has to be called.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let dummy = self.dummies.map(|(_, at)| at);
        [self.hold_until, dummy, self.keepalive_at, self.unverified_at()].into_iter().flatten().min()
    }

    /// Time has passed. `has_child` tells whether there is an SA to send a dummy on.
    pub(crate) fn timeout(&mut self, now: Time, has_child: bool) -> Vec<Effect> {
        let before = self.path;
        let mut effects = Vec::new();
        if self.hold_until.is_some_and(|at| at <= now) {
            self.hold_until = None;
            self.path.carrier = EspCarrier::Direct(self.basis.first);
        }
        effects.extend(self.path_effect(before));
        if let Some((sent, at)) = self.dummies
            && at <= now
        {
            effects.extend(has_child.then_some(Effect::Dummy));
            self.dummies = DUMMY_AFTER.get(sent + 1).map(|wait| (sent + 1, now + *wait));
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keepalive_at = Some(now + self.policy.keepalive);
            let is_idle = !core::mem::take(&mut self.outbound_since_keepalive);
            if is_idle && self.path.carrier == EspCarrier::Direct(DirectCarrier::Udp) {
                effects.push(Effect::Keepalive);
                effects.extend(has_child.then_some(Effect::Dummy));
            }
        }
        if self.unverified_at().is_some_and(|at| at <= now) {
            self.unverified_timed_out = true;
        }
        effects
    }

    /// Rule 1 reports, and does no more, when traffic leaves and none comes. Never on row 5, by default.
    fn unverified_at(&self) -> Option<Time> {
        let is_row_5 = !self.basis.separate;
        if is_row_5 || self.unverified_timed_out {
            return None;
        }
        Some(self.unanswered_since? + self.policy.unverified_timeout?)
    }

    /// Rule 3: ESP over IP from another address than IKE's passed a NAT, so only UDP will do.
    fn nat_found_on_ip(&mut self) {
        self.nat_on_ip = true;
        self.hold_until = None;
        self.path.carrier =
            match (self.policy.transports.contains(&DirectCarrier::Udp), self.basis.is_initiator) {
                (false, _) => EspCarrier::Shut,
                (true, _) if self.path.carrier == EspCarrier::Direct(DirectCarrier::Udp) => return,
                (true, true) => EspCarrier::Direct(DirectCarrier::Udp),
                (true, false) => EspCarrier::Hold,
            };
        self.evidence = Evidence::None;
    }

    fn follow(&mut self, now: Time, arrival: Arrival) {
        if !self.policy.transports.contains(&arrival.carrier) {
            return;
        }
        let is_same = self.path.carrier == EspCarrier::Direct(arrival.carrier);
        if !is_same && !self.basis.is_initiator && self.path.carrier != EspCarrier::Shut {
            self.hold_until = None;
            self.path.carrier = EspCarrier::Direct(arrival.carrier);
            self.take_address(now, arrival);
        } else if is_same
            // RFC 7296 section 2.23: an end behind a NAT follows nobody.
            && !self.basis.nat.0
            && self.moved_at.is_none_or(|at| now >= at + MOVE_INTERVAL)
            && arrival.carrier == DirectCarrier::Udp
        {
            self.take_address(now, arrival);
        }
    }

    fn take_address(&mut self, now: Time, arrival: Arrival) {
        let before = self.path;
        if arrival.carrier == DirectCarrier::Udp {
            self.path.remote = arrival.source.ip();
            self.path.remote_port = arrival.source.port();
        }
        self.path.local = arrival.local;
        if self.path != before {
            self.moved_at = Some(now);
        }
    }

    fn path_effect(&self, before: EspPath) -> Vec<Effect> {
        if self.path == before { Vec::new() } else { vec![Effect::Path(self.path)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DirectCarrier::{Ip, Udp};

    /// Row 4.
    #[test]
    fn a_udp_start_sends_on_udp_at_once_with_ike_as_evidence() {
        let mut carrier = carrier(Basis { started_on: IkeTransport::Udp, first: Udp, ..BASE });
        assert_eq!(carrier.path().carrier, EspCarrier::Direct(Udp));
        assert_eq!(carrier.state(), (State::DirectUdp, Reason::None, Evidence::Ike));
        carrier.inbound(at(1.0), arrival(Udp, "192.0.2.2:4500"));
        assert_eq!(carrier.state(), (State::DirectUdp, Reason::None, Evidence::Inbound));
    }

    /// Row 13 and rule 4.
    #[test]
    fn an_initiator_on_tcp_shows_its_carrier_with_four_dummies() {
        let mut carrier = carrier(BASE);
        assert_eq!(carrier.state().0, State::Unverified);
        carrier.child_installed(at(0.0));
        let mut dummies = Vec::new();
        while let Some(next) = carrier.next_timeout() {
            assert_eq!(carrier.timeout(next, true), [Effect::Dummy]);
            dummies.push(next.as_nanos() / 1_000_000_000);
        }
        assert_eq!(dummies, [0, 1, 2, 4]);
    }

    /// Rule 4: "until something arrives on it".
    #[test]
    fn dummies_stop_when_something_arrives() {
        let mut carrier = carrier(BASE);
        carrier.child_installed(at(0.0));
        carrier.timeout(at(0.0), true);
        carrier.inbound(at(0.5), arrival(Ip, "192.0.2.2:0"));
        assert_eq!(carrier.next_timeout(), None);
        assert_eq!(carrier.state(), (State::DirectIp, Reason::None, Evidence::Inbound));
    }

    /// Rule 4.
    #[test]
    fn a_responder_on_tcp_holds_then_follows_what_arrives() {
        let mut carrier = carrier(RESPONDER);
        assert_eq!(carrier.path().carrier, EspCarrier::Hold);
        let effects = carrier.inbound(at(0.3), arrival(Udp, "192.0.2.2:7777"));
        assert_eq!(effects, [Effect::Path(carrier.path())]);
        assert_eq!((carrier.path().carrier, carrier.path().remote_port), (EspCarrier::Direct(Udp), 7777));
        assert_eq!(carrier.state(), (State::DirectUdp, Reason::None, Evidence::Inbound));
    }

    /// Rule 4.
    #[test]
    fn a_responder_that_learned_nothing_in_a_second_uses_ip_unless_there_is_a_nat() {
        let mut plain = carrier(RESPONDER);
        assert_eq!(plain.next_timeout(), Some(at(1.0)));
        plain.timeout(at(1.0), true);
        assert_eq!(plain.path().carrier, EspCarrier::Direct(Ip));
        let natted = carrier(Basis { nat: (false, true), first: Udp, ..RESPONDER });
        assert_eq!(natted.next_timeout(), None);
        assert_eq!(natted.path().carrier, EspCarrier::Hold);
    }

    /// Rule 4: only the responder follows a carrier, and an echo or an old packet moves nothing.
    #[test]
    fn old_packets_and_echoes_move_nothing() {
        let mut responder = carrier(RESPONDER);
        let packet = arrival(Udp, "192.0.2.2:7777");
        assert!(responder.inbound(at(0.1), Arrival { is_highest: false, ..packet }).is_empty());
        assert!(responder.inbound(at(0.1), Arrival { is_echo: true, ..packet }).is_empty());
        let mut initiator = carrier(BASE);
        assert!(initiator.inbound(at(0.1), packet).is_empty());
    }

    /// Rule 3.
    #[test]
    fn esp_over_ip_from_a_foreign_address_means_a_nat() {
        let foreign = arrival(Ip, "198.51.100.9:0");
        let mut initiator = carrier(BASE);
        initiator.inbound(at(0.1), foreign);
        assert_eq!(initiator.path().carrier, EspCarrier::Direct(Udp));
        let mut responder = carrier(RESPONDER);
        responder.inbound(at(0.1), foreign);
        assert_eq!((responder.path().carrier, responder.next_timeout()), (EspCarrier::Hold, None));
        let mut ip_only =
            Carrier::new(BASE, EspPolicy { transports: vec![Ip], ..EspPolicy::default() }, at(0.0));
        ip_only.inbound(at(0.1), foreign);
        assert_eq!(ip_only.state().0, State::Blocked);
    }

    /// Rule 4 and RFC 7296 section 2.23.
    #[test]
    fn address_and_port_follow_at_most_once_a_second_and_never_behind_a_nat() {
        let udp = Basis { started_on: IkeTransport::Udp, first: Udp, nat: (false, true), ..RESPONDER };
        let mut carrier_ = carrier(udp);
        assert_eq!(carrier_.inbound(at(1.0), arrival(Udp, "192.0.2.2:1111")).len(), 1);
        assert!(carrier_.inbound(at(1.5), arrival(Udp, "192.0.2.2:2222")).is_empty());
        assert_eq!(carrier_.inbound(at(2.0), arrival(Udp, "192.0.2.2:2222")).len(), 1);
        assert_eq!(carrier_.path().remote_port, 2222);
        let mut behind = carrier(Basis { nat: (true, false), ..udp });
        assert!(behind.inbound(at(1.0), arrival(Udp, "192.0.2.2:1111")).is_empty());
    }

    /// Rule 10.
    #[test]
    fn the_end_behind_a_nat_keeps_the_mapping_when_idle() {
        let mut carrier =
            carrier(Basis { started_on: IkeTransport::Udp, first: Udp, nat: (true, false), ..BASE });
        assert_eq!(carrier.state().1, Reason::Nat);
        assert_eq!(carrier.timeout(at(20.0), true), [Effect::Keepalive, Effect::Dummy]);
        carrier.outbound(at(30.0));
        carrier.inbound(at(30.1), arrival(Udp, "192.0.2.2:4500"));
        assert!(carrier.timeout(at(40.0), true).is_empty());
        assert_eq!(carrier.timeout(at(60.0), false), [Effect::Keepalive]);
    }

    /// Rule 1, in the form that only reports.
    #[test]
    fn traffic_without_an_answer_is_reported_after_the_timeout() {
        let mut carrier = carrier(BASE);
        carrier.outbound(at(1.0));
        assert_eq!(carrier.next_timeout(), Some(at(31.0)));
        let path = carrier.path();
        assert!(carrier.timeout(at(31.0), true).is_empty());
        assert_eq!((carrier.state().1, carrier.path()), (Reason::UnverifiedTimeout, path));
        carrier.inbound(at(32.0), arrival(Ip, "192.0.2.2:0"));
        assert_eq!(carrier.state(), (State::DirectIp, Reason::None, Evidence::Inbound));
    }

    const BASE: Basis = Basis {
        is_initiator: true,
        started_on: IkeTransport::Tcp,
        separate: true,
        nat: (false, false),
        first: Ip,
        local: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4500),
        remote: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 4500),
        reason: Reason::None,
    };
    const RESPONDER: Basis = Basis { is_initiator: false, ..BASE };

    fn carrier(basis: Basis) -> Carrier {
        Carrier::new(basis, EspPolicy::default(), at(0.0))
    }

    fn arrival(carrier: DirectCarrier, source: &str) -> Arrival {
        let local = BASE.local.ip();
        Arrival { carrier, source: source.parse().unwrap(), local, is_highest: true, is_echo: false }
    }

    fn at(seconds: f64) -> Time {
        Time::ZERO + Duration::from_secs_f64(seconds)
    }
}
