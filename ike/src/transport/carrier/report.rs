//! How ESP of an IKE SA stands, for the operator.

use super::{Carrier, Phase};
use crate::path::{DirectCarrier, EspCarrier, EspTransport};
use crate::status::{EspStatus, Evidence, Reason, State, Verdict};
use crate::transport::watch::SUSPECT_AFTER;

impl Carrier {
    /// State, reason and evidence as the policy's last paragraphs define them.
    pub(crate) fn state(&self) -> (State, Reason, Evidence) {
        match &self.phase {
            Phase::Unreachable(_) => {}
            _ if self.is_address_gone => return (State::LocalDown, Reason::NoRoute, self.evidence),
            _ => {}
        }
        match &self.phase {
            Phase::LocalDown => return (State::LocalDown, Reason::NoRoute, self.evidence),
            Phase::Unreachable(_) => return (State::Blocked, Reason::EspUnreachable, Evidence::None),
            Phase::InTcp(trial) => {
                let state = if trial.is_some() { State::Trial } else { State::Tcp };
                return (state, self.measured, self.evidence);
            }
            Phase::Suspect(_) | Phase::AskingStream(_) => {
                return (State::Suspect, self.reason(), self.evidence);
            }
            Phase::Probing(_) if self.evidence < Evidence::Echo => {
                return (State::Probing, self.reason(), self.evidence);
            }
            Phase::Probing(_) | Phase::Steady => {}
        }
        let carrier = match self.path.carrier {
            EspCarrier::Hold if self.basis.echo => return (State::Probing, Reason::None, Evidence::None),
            EspCarrier::Hold => return (State::Unverified, Reason::None, Evidence::None),
            EspCarrier::Shut if self.measured == Reason::EspUnreachable => {
                return (State::Blocked, Reason::EspUnreachable, Evidence::None);
            }
            EspCarrier::Shut => return (State::Blocked, Reason::CarrierNotAllowed, Evidence::None),
            EspCarrier::Stream(_) => return (State::Tcp, self.basis.reason, self.evidence),
            EspCarrier::Direct(carrier) => carrier,
        };
        let reason = self.reason();
        match (self.evidence, carrier) {
            _ if self.unverified.has_timed_out() => {
                (State::Unverified, Reason::UnverifiedTimeout, self.evidence)
            }
            (Evidence::None, _) => (State::Unverified, reason, Evidence::None),
            (evidence, DirectCarrier::Ip) => (State::DirectIp, reason, evidence),
            (evidence, DirectCarrier::Udp) => (State::DirectUdp, reason, evidence),
        }
    }

    /// One sentence with what was measured, or empty.
    pub(crate) fn detail(&self) -> String {
        match (&self.phase, self.verification) {
            (Phase::Unreachable(_), _) if !self.basis.echo => format!(
                "no ESP came back on {} for {} s of traffic while IKE answered, and the peer has no ESP echo: a filter or a \
                 route stops ESP; ESP is shut, and encryption and authentication are untouched",
                self.asked(),
                self.unverified_timeout().unwrap_or_default().as_secs()
            ),
            (Phase::Unreachable(_), verification) => {
                let took = verification.map_or(self.budget(), |v| v.took);
                format!(
                    "no ESP echo came back on {} within {:.2} s while IKE answered: a filter or a route stops ESP; ESP is \
                     shut, and encryption and authentication are untouched",
                    self.asked(),
                    took.as_secs_f64()
                )
            }
            _ if self.is_address_gone => self.lacks_address_detail(),
            (Phase::Suspect(_), Some(verification)) if verification.verdict == Verdict::Undecided => {
                format!(
                    "no ESP echo came back on {}, which is not decided yet: IKE is silent too, or ESP has fallen within \
                     hold_time",
                    self.asked()
                )
            }
            _ => String::new(),
        }
    }

    /// Round trips, the last verification, and how long a decision may take.
    pub(crate) fn esp_status(&self) -> EspStatus {
        EspStatus {
            echo: self.basis.echo,
            budget: self.budget(),
            decision_within: SUSPECT_AFTER + self.budget(),
            verification: self.verification,
            rtt: [EspTransport::Ip, EspTransport::Udp, EspTransport::Tcp]
                .map(|carrier| (carrier, self.rtt.of(carrier))),
            next_return: self.returns.next_try(),
        }
    }

    fn reason(&self) -> Reason {
        let nat = self.nat();
        let on_udp = self.path.carrier == EspCarrier::Direct(DirectCarrier::Udp);
        match (self.measured, self.basis.reason) {
            _ if self.moved.leaves_nat_unknown() => Reason::AddressChanged,
            (Reason::Returned, _) => Reason::Returned,
            (_, reason) if reason != Reason::None => reason,
            _ if on_udp && (nat.0 || nat.1) => Reason::Nat,
            (measured, _) => measured,
        }
    }

    fn asked(&self) -> String {
        let names: Vec<_> = self.allowed().iter().map(|carrier| carrier.label()).collect();
        names.join(" and ")
    }
}
