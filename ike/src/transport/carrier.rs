//! How ESP of one IKE SA travels: rules 1 to 8 and 10 of the transport policy.
//!
//! ```text
//!                                 echo on a carrier
//!   Probing ──────────────────────────────────────────────────────> Steady (direct_ip, direct_udp, unverified)
//!      │ none in the budget, IKE answers                              │ silent: 3 s of traffic, or an idle echo
//!      │                          echo                                v
//!      │            Steady <───────────────────────────────────── Suspect <──┐ IKE silent too, or within hold_time:
//!      v                                                              │ none │ once more
//!   Unreachable <── none, or not allowed ── AskingStream <────────────┴──────┘
//!   (Shut)                                      │ echo on the stream
//!                                               v
//!                  Steady <── 5 echoes ────── InTcp
//!
//!   LocalDown: from Steady, Probing and Suspect while nothing can be sent here; then Suspect.
//! ```
//!
//! The initiator chooses the direct carrier, the responder follows; both follow address and port within it. `follow` moves
//! the path, `address` knows where an end has moved, `verify` asks and decides, `fall` is ESP in TCP and the way back,
//! `unverified` is what there is without ESP echo, `report` says how it stands. Decisions come out as [`Effect`]s, which the
//! caller takes after every input.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::fall::Unreachable;
use self::follow::Confirm;
use self::verify::{PathMtu, Suspect};
use super::probe::{Reply, Run};
use super::returning::Returns;
use super::rtt::RoundTrips;
use super::watch::Watch;
use crate::action::{ChildId, EchoRequest, EchoRoute};
use crate::config::{EspPolicy, OnUnreachable};
use crate::crypto::Rng;
use crate::path::{DirectCarrier, EchoAnswers, EspCarrier, EspPath, EspTransport, IkeTransport, StreamId};
use crate::shared::Shared;
use crate::status::{Evidence, Reason, Verification};
use crate::time::Time;

mod address;
mod fall;
mod follow;
mod in_tcp;
mod report;
mod unverified;
mod verify;

#[cfg(test)]
mod tests;

/// How long a responder holds packets until it has learned the carrier, and waits before it probes (rule 4).
const HOLD: Duration = Duration::from_secs(1);
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
    /// Both ends have announced ESP echo, and are believed (rule 6).
    pub(crate) echo: bool,
    /// ESP belongs in TCP (RFC 9329 section 5): IKE over TCP without SEPARATE_TRANSPORTS.
    pub(crate) in_tcp: bool,
    /// A NAT is in front of us, in front of the peer.
    pub(crate) nat: (bool, bool),
    /// The carrier to start with.
    pub(crate) first: DirectCarrier,
    /// Our address and port for ESP in UDP.
    pub(crate) local: SocketAddr,
    /// The peer's address, and its port for ESP in UDP.
    pub(crate) remote: SocketAddr,
    /// The peer's address for IKE.
    pub(crate) ike_remote: IpAddr,
    /// The stream of IKE, if it is on one.
    pub(crate) stream: Option<StreamId>,
    /// When ESP of this connection last fell (rule 5: at most once per hold time).
    pub(crate) last_fall: Option<Time>,
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
    /// An echo.
    Echo(EchoRequest),
    /// The largest packet went unanswered: the path takes less (rule 3).
    LowerPathMtu,
    /// Ask the peer over IKE whether it lives.
    Liveness,
    /// ESP answers and IKE does not: dial the stream again (rule 5).
    Redial,
    /// This child is dead while others live: rekey it (rule 6).
    RekeyChild(ChildId),
    /// A verification is over.
    Verified(Verification),
    /// What a verification measured on one carrier.
    Probed {
        /// The carrier.
        carrier: EspTransport,
        /// An echo came back on it.
        answered: bool,
    },
    /// ESP has fallen into TCP, in place, or was stopped.
    Fell,
    /// No carrier that the policy allows passes ESP, and ESP has stopped: the IKE SA has to go. Once in its life.
    Unreachable {
        /// It is the first verification after a start on TCP (row 16); else mid-life or a start on UDP (row 17).
        first_verification: bool,
    },
}

/// Authenticated ESP that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// On which child.
    pub(crate) child: ChildId,
    /// How it came.
    pub(crate) carrier: EspTransport,
    /// From where.
    pub(crate) source: SocketAddr,
    /// To which of our addresses.
    pub(crate) local: IpAddr,
    /// Numbered above everything seen on its SA.
    pub(crate) is_highest: bool,
    /// An echo, which moves nothing.
    pub(crate) is_echo: bool,
}

/// Where the machine stands; see the module.
#[derive(Debug)]
enum Phase {
    /// Nothing is being found out.
    Steady,
    /// The first verification.
    Probing(Run),
    /// Silence: is it blockage?
    Suspect(Suspect),
    /// Does the stream carry ESP?
    AskingStream(Run),
    /// ESP is in TCP, in place; the echoes of a return.
    InTcp(Option<Run>),
    /// ESP has stopped.
    Unreachable(Unreachable),
    /// Nothing can be sent here.
    LocalDown,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Carrier {
    basis: Basis,
    policy: Shared<EspPolicy>,
    path: EspPath,
    told: EspPath,
    effects: Vec<Effect>,
    phase: Phase,
    evidence: Evidence,
    /// Where ESP in UDP goes to, whatever the carrier is.
    udp_remote: SocketAddr,
    /// Our address: ESP comes to it, or is being verified from it.
    local: IpAddr,
    /// It is none of this host's, or leads nowhere.
    is_address_gone: bool,
    moved: address::Moved,
    nat_on_ip: bool,
    /// What verifications and returns have measured.
    measured: Reason,
    /// An echo, or without echo inbound ESP, has proven something before.
    is_verified: bool,
    watches: Vec<Watch>,
    confirm: Option<Box<Confirm>>,
    path_mtu: Option<Box<PathMtu>>,
    path_mtu_at: Option<Time>,
    moved_at: Option<Time>,
    hold_until: Option<Time>,
    probe_at: Option<Time>,
    dummies: Option<(usize, Time)>,
    keepalive_at: Option<Time>,
    outbound_since_keepalive: bool,
    doubted_at: Option<Time>,
    has_local_failure: bool,
    rtt: RoundTrips,
    ike_seen: Time,
    /// When IKE was asked whether the peer lives, in the verification under way, and when it first answered.
    ike_asked: Option<(Time, Option<Time>)>,
    redial_at: Option<(Time, Time)>,
    stream: Option<StreamId>,
    last_fall: Option<Time>,
    returns: Returns,
    verification: Option<Verification>,
    unverified: unverified::Unverified,
}

impl Carrier {
    /// The state right after authentication, with the falls and returns of the connection before; tell the data plane about
    /// [`Carrier::path`].
    pub(crate) fn new(basis: Basis, returns: Returns, policy: Shared<EspPolicy>, now: Time) -> Self {
        let in_tcp = basis.in_tcp;
        let holds = !basis.is_initiator && basis.started_on == IkeTransport::Tcp && !in_tcp;
        let nat = basis.nat.0 || basis.nat.1;
        let waits = holds && nat;
        let allows_tcp = policy.on_unreachable == OnUnreachable::TcpFallback;
        let path = EspPath {
            carrier: match (in_tcp, basis.stream) {
                (true, Some(stream)) => EspCarrier::Stream(stream),
                (true, None) => EspCarrier::Shut,
                (false, _) if holds => EspCarrier::Hold,
                (false, _) => EspCarrier::Direct(basis.first),
            },
            local: basis.local.ip(),
            local_port: basis.local.port(),
            remote: basis.remote.ip(),
            remote_port: basis.remote.port(),
            echo: EchoAnswers {
                direct: basis.echo && !in_tcp,
                stream: basis.echo && allows_tcp,
                ip_only_from: basis.echo.then_some(basis.ike_remote),
            },
            takes_tcp: allows_tcp && (basis.separate || basis.in_tcp),
        };
        let ike_proves_it =
            basis.separate && basis.started_on == IkeTransport::Udp && basis.first == DirectCarrier::Udp;
        Self {
            evidence: if ike_proves_it || in_tcp { Evidence::Ike } else { Evidence::None },
            phase: Phase::Steady,
            effects: Vec::new(),
            udp_remote: basis.remote,
            local: path.local,
            is_address_gone: false,
            moved: address::Moved::default(),
            nat_on_ip: false,
            measured: Reason::None,
            is_verified: false,
            watches: Vec::new(),
            confirm: None,
            path_mtu: None,
            path_mtu_at: None,
            moved_at: None,
            hold_until: (holds && !nat).then(|| now + HOLD),
            // A responder that holds behind a NAT waits (rule 4); every other one probes when its initiator had the time to.
            probe_at: (basis.echo && !basis.is_initiator && !in_tcp && !waits).then(|| now + HOLD),
            dummies: None,
            // RFC 9329 section 6.6: a NAT needs no keepalives for what is in TCP.
            keepalive_at: (basis.nat.0 && !in_tcp).then(|| now + policy.keepalive),
            outbound_since_keepalive: false,
            doubted_at: None,
            has_local_failure: false,
            rtt: RoundTrips::default(),
            ike_seen: now,
            ike_asked: None,
            redial_at: None,
            stream: basis.stream,
            last_fall: basis.last_fall,
            returns,
            verification: None,
            unverified: unverified::Unverified::default(),
            told: path,
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

    /// What has to be carried out, in order. The path comes first: everything else is about it.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.told != self.path {
            self.told = self.path;
            effects.push(Effect::Path(self.path));
        }
        // Not `append`, which would keep the room for ever.
        effects.extend(core::mem::take(&mut self.effects));
        effects
    }

    /// Traffic of a configured child takes this pair from now on.
    pub(crate) fn child_in_use(&mut self, now: Time, name: &Arc<str>, id: ChildId, rng: &mut Rng) {
        match self.watches.iter_mut().find(|watch| watch.name == *name) {
            Some(watch) => {
                let old = watch.id;
                watch.replaced(now, id);
                self.runs().for_each(|run| run.replace(old, id));
            }
            None => {
                // The first child is asked by the first verification, any other on its own.
                let is_first = self.watches.is_empty();
                // Most IKE SAs have one child; a vector would make room for four.
                self.watches.reserve_exact(1);
                self.watches.push(Watch::new(now, name.clone(), id, (!is_first).then_some(now)));
                if is_first
                    && self.basis.is_initiator
                    && self.basis.echo
                    && !self.is_verified
                    && !self.basis.in_tcp
                {
                    self.probe_at = Some(now);
                }
            }
        }
        if self.basis.is_initiator && self.evidence < Evidence::Inbound && self.is_direct() {
            self.dummies = Some((0, now));
        }
        self.drive(now, rng);
    }

    /// The pair in use of a configured child.
    pub(crate) fn pair_in_use(&self, name: &str) -> Option<ChildId> {
        self.watches.iter().find(|watch| *watch.name == *name).map(|watch| watch.id)
    }

    /// A configured child has no pair any more.
    pub(crate) fn child_lost(&mut self, name: &str) {
        let Some(at) = self.watches.iter().position(|watch| *watch.name == *name) else { return };
        let gone = self.watches.remove(at).id;
        if self.confirm.as_mut().is_some_and(|confirm| confirm.run.forget(gone)) {
            self.confirm = None;
        }
        if self.path_mtu.as_mut().is_some_and(|probe| probe.run.forget(gone)) {
            self.path_mtu = None;
        }
        match &mut self.phase {
            Phase::Probing(run) | Phase::AskingStream(run) => {
                if run.forget(gone) {
                    self.phase = Phase::Steady;
                }
            }
            Phase::Suspect(Suspect { run: Some(run), .. }) => {
                if run.forget(gone) {
                    self.phase = Phase::Steady;
                }
            }
            Phase::InTcp(trial) => {
                if trial.as_mut().is_some_and(|run| run.forget(gone)) {
                    *trial = None;
                }
            }
            Phase::Suspect(_) | Phase::Steady | Phase::Unreachable(_) | Phase::LocalDown => {}
        }
    }

    /// Authenticated ESP arrived on any child.
    pub(crate) fn inbound(&mut self, now: Time, arrival: Arrival, rng: &mut Rng) {
        // What is refused is no sign that anything passes.
        let is_refused = arrival.carrier == EspTransport::Tcp && !self.path.takes_tcp;
        if !arrival.is_echo && !is_refused {
            if let Some(watch) = self.watches.iter_mut().find(|watch| watch.id == arrival.child) {
                watch.heard(now);
            }
            self.unverified.heard();
        }
        match arrival.carrier.direct() {
            Some(carrier) => self.direct_inbound(now, carrier, arrival, rng),
            None => self.tcp_inbound(now, arrival, rng),
        }
        self.drive(now, rng);
    }

    /// Data left on a child.
    pub(crate) fn outbound(&mut self, now: Time, child: ChildId, rng: &mut Rng) {
        self.outbound_since_keepalive = true;
        self.unverified.outbound(now);
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.id == child) {
            watch.outbound(now);
        }
        self.drive(now, rng);
    }

    /// A reply to an echo of ours.
    pub(crate) fn echo_reply(&mut self, now: Time, reply: &Reply, source: SocketAddr, rng: &mut Rng) {
        self.take_reply(now, reply, source);
        self.drive(now, rng);
    }

    /// The peer sent something fresh and authentic over IKE.
    pub(crate) fn ike_heard(&mut self, now: Time, rng: &mut Rng) {
        self.ike_seen = now;
        if let Some((_, answered)) = &mut self.ike_asked {
            answered.get_or_insert(now);
        }
        if let Phase::Suspect(suspect) = &mut self.phase
            && suspect.run.is_none()
        {
            suspect.again_at = now;
        }
        self.drive(now, rng);
    }

    /// A request of ours over IKE that was sent once was answered after this time.
    pub(crate) fn ike_round_trip(&mut self, sample: Duration) {
        self.rtt.ike(sample);
    }

    /// IKE is on another stream, or on none.
    pub(crate) fn stream_is(&mut self, stream: Option<StreamId>) {
        self.stream = stream;
        let went_without = self.basis.in_tcp && self.path.carrier == EspCarrier::Shut;
        if went_without
            && self.measured == Reason::None
            && let Some(stream) = stream
        {
            self.path.carrier = EspCarrier::Stream(stream);
        }
        if let (EspCarrier::Stream(_), Some(stream)) = (self.path.carrier, stream) {
            self.path.carrier = EspCarrier::Stream(stream);
        }
    }

    /// Sending ESP fails here, or works again (rule 5: it counts for nothing).
    pub(crate) fn local_send(&mut self, now: Time, fails: bool, rng: &mut Rng) {
        self.has_local_failure = fails;
        match &self.phase {
            Phase::Steady | Phase::Probing(_) | Phase::Suspect(_) if fails && self.is_direct() => {
                self.phase = Phase::LocalDown;
            }
            Phase::LocalDown if !fails && !self.is_address_gone => self.after_local_down(now, rng),
            _ => {}
        }
        self.drive(now, rng);
    }

    /// Something that nobody has authenticated says that ESP does not arrive: worth one probe per `idle_interval`, and never a
    /// decision (rule 5).
    pub(crate) fn doubt(&mut self, now: Time, rng: &mut Rng) {
        self.take_doubt(now);
        self.drive(now, rng);
    }

    /// Authenticated IKE over UDP came from a new address or port (RFC 7296 section 2.23); ESP in UDP takes it too.
    pub(crate) fn ike_moved(&mut self, remote: SocketAddr) {
        self.basis.ike_remote = remote.ip();
        self.udp_remote = remote;
        self.path.remote = remote.ip();
        self.path.remote_port = remote.port();
        self.path.echo.ip_only_from = self.basis.echo.then_some(remote.ip());
    }

    /// When [`Carrier::timeout`] has to be called.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let dummy = self.dummies.map(|(_, at)| at);
        let confirm = self.confirm.as_ref().map(|confirm| confirm.run.next_timeout(self.rtt.budget()));
        let path_mtu = self.path_mtu.as_ref().map(|probe| probe.run.next_timeout(self.rtt.budget()));
        [
            self.hold_until,
            self.probe_at.filter(|_| !self.watches.is_empty()),
            dummy,
            self.keepalive_at,
            confirm,
            path_mtu,
            self.path_mtu_at,
            self.phase_timeout(),
            self.watch_timeout(),
            self.redial_at.map(|(_, at)| at),
            self.unverified_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, now: Time, rng: &mut Rng) {
        self.drive(now, rng);
    }

    /// Everything that is due.
    fn drive(&mut self, now: Time, rng: &mut Rng) {
        if self.hold_until.is_some_and(|at| at <= now) {
            self.hold_until = None;
            if !self.basis.echo {
                self.set_carrier(self.basis.first);
            }
        }
        if self.probe_at.is_some_and(|at| at <= now) && !self.watches.is_empty() {
            self.probe_at = None;
            self.start_probing(now, rng);
        }
        self.drive_phase(now, rng);
        self.drive_confirm(now, rng);
        self.drive_path_mtu(now, rng);
        self.drive_watches(now, rng);
        self.drive_unverified(now);
        if let Some((since, at)) = self.redial_at
            && at <= now
        {
            self.redial_at = None;
            if self.ike_seen <= since {
                self.effects.push(Effect::Redial);
            }
        }
        self.drive_dummies(now, rng);
    }

    fn drive_dummies(&mut self, now: Time, rng: &mut Rng) {
        let has_child = !self.watches.is_empty();
        if let Some((sent, at)) = self.dummies
            && at <= now
        {
            self.effects.extend(has_child.then_some(Effect::Dummy));
            self.dummies = DUMMY_AFTER.get(sent + 1).map(|wait| (sent + 1, now + *wait));
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keepalive_at = Some(now + self.policy.keepalive);
            let is_idle = !core::mem::take(&mut self.outbound_since_keepalive);
            if is_idle && self.path.carrier == EspCarrier::Direct(DirectCarrier::Udp) {
                self.effects.push(Effect::Keepalive);
                match self.watches.first().map(|watch| watch.id) {
                    Some(child) if self.basis.echo => self.refresh_mapping(child, rng),
                    Some(_) => self.effects.push(Effect::Dummy),
                    None => {}
                }
            }
        }
    }

    /// Rule 10: an echo without reply, so that a new mapping shows in an authenticated packet.
    fn refresh_mapping(&mut self, child: ChildId, rng: &mut Rng) {
        let route = self.route(DirectCarrier::Udp);
        self.effects.push(Effect::Echo(super::probe::one_way(child, route, rng)));
    }

    fn is_direct(&self) -> bool {
        matches!(self.path.carrier, EspCarrier::Direct(_))
    }

    fn direct(&self) -> Option<DirectCarrier> {
        match self.path.carrier {
            EspCarrier::Direct(carrier) => Some(carrier),
            EspCarrier::Hold | EspCarrier::Shut | EspCarrier::Stream(_) => None,
        }
    }

    /// Direct carriers that may be sent on, best first: with a NAT UDP, and the one that the peer was followed to.
    fn allowed(&self) -> Vec<DirectCarrier> {
        let nat = self.nat();
        let needs_udp = nat.0 || nat.1;
        let is_known = !self.moved.leaves_nat_unknown();
        let may_be_ip = |ip| is_known && (!needs_udp || Some(ip) == self.direct());
        let allowed = self.policy.transports.iter().copied();
        allowed.filter(|carrier| *carrier == DirectCarrier::Udp || may_be_ip(*carrier)).collect()
    }

    /// How an echo takes a direct carrier.
    fn route(&self, carrier: DirectCarrier) -> EchoRoute {
        let local = SocketAddr::new(self.local, self.path.local_port);
        let remote = match carrier {
            DirectCarrier::Ip => SocketAddr::new(self.basis.ike_remote, self.udp_remote.port()),
            DirectCarrier::Udp => self.udp_remote,
        };
        EchoRoute::Direct { carrier, local, remote }
    }

    /// Outbound ESP takes this carrier.
    fn set_carrier(&mut self, carrier: DirectCarrier) {
        self.path.carrier = EspCarrier::Direct(carrier);
        self.path.local = self.local;
        self.path.remote_port = self.udp_remote.port();
        self.path.remote = match carrier {
            DirectCarrier::Ip => self.basis.ike_remote,
            DirectCarrier::Udp => self.udp_remote.ip(),
        };
    }

    /// Every run that a rekey concerns.
    fn runs(&mut self) -> impl Iterator<Item = &mut Run> {
        let phase = match &mut self.phase {
            Phase::Probing(run) | Phase::AskingStream(run) => Some(run),
            Phase::Suspect(suspect) => suspect.run.as_mut(),
            Phase::InTcp(trial) => trial.as_mut(),
            Phase::Unreachable(unreachable) => unreachable.run.as_mut(),
            Phase::Steady | Phase::LocalDown => None,
        };
        let confirm = self.confirm.as_mut().map(|confirm| &mut confirm.run);
        let path_mtu = self.path_mtu.as_mut().map(|probe| &mut probe.run);
        [phase, confirm, path_mtu].into_iter().flatten()
    }
}
