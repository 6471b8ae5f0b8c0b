//! Following the peer: carrier, address and port from what it sends (transport policy rules 3, 4 and 6).

use std::net::{IpAddr, SocketAddr};

use core::time::Duration;

use super::{Arrival, Carrier, Effect, Phase};
use crate::crypto::Rng;
use crate::path::{DirectCarrier, EspCarrier};
use crate::status::{Evidence, Reason};
use crate::time::Time;
use crate::transport::probe::{Plan, Run};

/// Address and port follow the peer at most this often (rule 4).
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// A carrier or address that the peer was seen on, and that an echo is to confirm.
#[derive(Debug)]
pub(super) struct Confirm {
    /// The echoes.
    pub(super) run: Run,
    carrier: DirectCarrier,
    remote: SocketAddr,
    local: IpAddr,
    then: Then,
}

/// What the answer, or none, means.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The path is there already: no answer means back to the old address, if there is one.
    Stay { back: Option<(SocketAddr, IpAddr)> },
    /// The path goes there on the answer.
    Move,
}

impl Carrier {
    /// Authenticated ESP on a direct carrier.
    pub(super) fn direct_inbound(
        &mut self,
        now: Time,
        carrier: DirectCarrier,
        arrival: Arrival,
        rng: &mut Rng,
    ) {
        if self.basis.in_tcp || self.has_left(arrival.local) {
            return;
        }
        if arrival.is_echo {
            return self.echo_inbound(now, carrier, arrival, rng);
        }
        self.note_direct_data(now);
        if !arrival.is_highest {
            return;
        }
        if carrier == DirectCarrier::Ip && arrival.source.ip() != self.basis.ike_remote {
            return self.nat_found_on_ip(now);
        }
        // Ends may differ about a NAT: what arrives from IKE's own address is followed, and confirmed by echo.
        if !self.policy.transports.contains(&carrier) {
            return;
        }
        match self.path.carrier {
            EspCarrier::Direct(ours) if ours == carrier => self.follow_address(now, carrier, arrival, rng),
            EspCarrier::Direct(_) | EspCarrier::Hold if !self.basis.is_initiator => {
                self.follow_carrier(now, carrier, arrival, rng);
            }
            EspCarrier::Stream(_) | EspCarrier::Shut
                if !self.basis.is_initiator && self.basis.echo && self.confirm.is_none() =>
            {
                self.confirm(now, carrier, arrival, Then::Move, rng);
            }
            // Without echo inbound ESP is all there is: the initiator has found a way while ESP was stopped here (rule 1).
            EspCarrier::Shut
                if !self.basis.is_initiator
                    && !self.basis.echo
                    && matches!(self.phase, Phase::Unreachable(_)) =>
            {
                self.follow_carrier(now, carrier, arrival, rng);
            }
            EspCarrier::Direct(_) => self.take_doubt(now),
            EspCarrier::Hold | EspCarrier::Stream(_) | EspCarrier::Shut => {}
        }
        if self.path.carrier == EspCarrier::Direct(carrier) {
            self.evidence = self.evidence.max(Evidence::Inbound);
            self.is_verified |= !self.basis.echo;
            self.dummies = None;
        }
    }

    /// An echo request of the peer moves nothing (rule 6). From a new address it is asked back, and only the answer moves the
    /// path: so an idle end behind a NAT is found again (rule 10). On another carrier than ours it shows a doubt of the peer's.
    fn echo_inbound(&mut self, now: Time, carrier: DirectCarrier, arrival: Arrival, rng: &mut Rng) {
        if !self.basis.echo || self.direct().is_none() {
            return;
        }
        if self.direct() != Some(carrier) {
            if self.basis.is_initiator {
                self.take_doubt(now);
            }
        } else if carrier == DirectCarrier::Udp
            && arrival.source != self.udp_remote
            && self.confirm.is_none()
            && self.may_move(now)
        {
            self.moved_at = Some(now);
            self.confirm(now, carrier, arrival, Then::Move, rng);
        }
    }

    /// Rule 3: ESP over IP from another address than IKE's passed a NAT, so only UDP will do.
    pub(super) fn nat_found_on_ip(&mut self, now: Time) {
        if self.nat_on_ip {
            return;
        }
        self.nat_on_ip = true;
        self.leave_ip(now);
    }

    /// Only UDP will do. Where the carrier is not ours to choose, ESP waits for what arrives on it.
    pub(super) fn leave_ip(&mut self, now: Time) {
        self.hold_until = None;
        self.confirm = None;
        if self.direct() == Some(DirectCarrier::Udp) {
            return;
        }
        self.evidence = Evidence::None;
        if !self.allows_udp() {
            self.phase = Phase::Steady;
            self.probe_at = None;
            if self.allows_tcp() {
                self.unreachable(now, !self.is_verified);
            } else {
                self.path.carrier = EspCarrier::Shut;
            }
        } else if self.basis.is_initiator {
            self.choose(now, DirectCarrier::Udp);
            if matches!(self.phase, Phase::Steady) && self.basis.echo {
                self.is_verified = false;
                self.probe_at = Some(now);
            }
        } else {
            self.phase = Phase::Steady;
            self.probe_at = None;
            self.path.carrier = EspCarrier::Hold;
        }
    }

    /// The side that chooses takes another carrier, and shows it to the peer.
    pub(super) fn choose(&mut self, now: Time, carrier: DirectCarrier) {
        if self.direct() == Some(carrier) && self.path.local == self.local {
            return;
        }
        self.hold_until = None;
        self.set_carrier(carrier);
        self.evidence = Evidence::None;
        self.dummies = Some((0, now));
    }

    /// The responder takes the carrier that the peer uses, and echoes once on it.
    fn follow_carrier(&mut self, now: Time, carrier: DirectCarrier, arrival: Arrival, rng: &mut Rng) {
        self.hold_until = None;
        self.probe_at = None;
        self.phase = Phase::Steady;
        self.measured = Reason::None;
        self.evidence = Evidence::Inbound;
        self.take_address(now, carrier, arrival.source, arrival.local);
        self.set_carrier(carrier);
        if self.basis.echo {
            self.confirm(now, carrier, arrival, Then::Stay { back: None }, rng);
        }
    }

    /// Both ends take address and port within the carrier.
    fn follow_address(&mut self, now: Time, carrier: DirectCarrier, arrival: Arrival, rng: &mut Rng) {
        let is_same = (arrival.source, arrival.local) == (self.udp_remote, self.path.local);
        if carrier != DirectCarrier::Udp || is_same || !self.may_move(now) {
            return;
        }
        if self.basis.nat.0 || self.moved.we {
            // RFC 7296 section 2.23: an end behind a NAT, as we may be, follows nobody, unless an echo says that the peer is there.
            if self.basis.echo {
                self.moved_at = Some(now);
                self.confirm(now, carrier, arrival, Then::Move, rng);
            }
            return;
        }
        let back = match self.confirm.as_deref() {
            Some(Confirm { then: Then::Stay { back: Some(proven) }, .. }) => *proven,
            _ => (self.udp_remote, self.path.local),
        };
        self.take_address(now, carrier, arrival.source, arrival.local);
        if self.basis.echo {
            self.confirm(now, carrier, arrival, Then::Stay { back: Some(back) }, rng);
        }
    }

    fn may_move(&self, now: Time) -> bool {
        self.moved_at.is_none_or(|at| now >= at + MOVE_INTERVAL)
    }

    fn take_address(&mut self, now: Time, carrier: DirectCarrier, remote: SocketAddr, local: IpAddr) {
        let before = (self.udp_remote, self.path.local);
        if carrier == DirectCarrier::Udp {
            self.udp_remote = remote;
            self.path.remote = remote.ip();
            self.path.remote_port = remote.port();
        }
        (self.path.local, self.local) = (local, local);
        if before != (self.udp_remote, self.path.local) {
            self.moved_at = Some(now);
        }
    }

    fn confirm(&mut self, now: Time, carrier: DirectCarrier, arrival: Arrival, then: Then, rng: &mut Rng) {
        let child = self.watches.iter().map(|watch| watch.id).find(|id| *id == arrival.child);
        let Some(child) = child.or(self.watches.first().map(|watch| watch.id)) else { return };
        let local = SocketAddr::new(arrival.local, self.path.local_port);
        let route = crate::action::EchoRoute::Direct { carrier, local, remote: arrival.source };
        let run = Run::new(now, Plan::verification(&self.policy.probe), &[child], &[route], rng);
        let (remote, local) = (arrival.source, arrival.local);
        self.confirm = Some(Box::new(Confirm { run, carrier, remote, local, then }));
    }

    /// One echo on the path in use, which the peer was followed to.
    pub(super) fn confirm_path(&mut self, now: Time, rng: &mut Rng) {
        let (Some(carrier), Some(watch)) = (self.direct(), self.watches.first()) else { return };
        if !self.basis.echo || self.evidence == Evidence::Echo || self.confirm.is_some() {
            return;
        }
        let (child, route) = (watch.id, self.route(carrier));
        let run = Run::new(now, Plan::verification(&self.policy.probe), &[child], &[route], rng);
        let (remote, local, then) = (self.udp_remote, self.path.local, Then::Stay { back: None });
        self.confirm = Some(Box::new(Confirm { run, carrier, remote, local, then }));
    }

    pub(super) fn drive_confirm(&mut self, now: Time, rng: &mut Rng) {
        let Some(mut confirm) = self.confirm.take() else { return };
        self.effects.extend(confirm.run.due(now, rng).into_iter().map(Effect::Echo));
        let is_answered = confirm.run.is_complete(confirm.carrier.into());
        if is_answered {
            self.confirmed(now, &confirm);
        } else if confirm.run.is_over(now, self.rtt.budget()) {
            self.not_confirmed(now, &confirm);
        } else {
            self.confirm = Some(confirm);
        }
    }

    fn confirmed(&mut self, now: Time, confirm: &Confirm) {
        if let Then::Move = confirm.then {
            let was_in_tcp = matches!(self.phase, Phase::InTcp(_));
            if was_in_tcp {
                self.returns.returned(now);
                self.measured = Reason::Returned;
            }
            if was_in_tcp || matches!(self.phase, Phase::Suspect(_) | Phase::Unreachable(_)) {
                self.phase = Phase::Steady;
            }
            self.take_address(now, confirm.carrier, confirm.remote, confirm.local);
            self.set_carrier(confirm.carrier);
        }
        if self.direct() == Some(confirm.carrier) {
            self.evidence = Evidence::Echo;
            self.is_verified = true;
            for watch in &mut self.watches {
                if confirm.run.is_answered(watch.id, confirm.carrier.into()) {
                    watch.heard(now);
                }
            }
            self.ask_path_mtu(now);
        }
    }

    fn not_confirmed(&mut self, now: Time, confirm: &Confirm) {
        if let Then::Stay { back: Some((remote, local)) } = confirm.then
            && self.direct() == Some(confirm.carrier)
            && self.udp_remote == confirm.remote
        {
            self.take_address(now, confirm.carrier, remote, local);
        }
    }
}
