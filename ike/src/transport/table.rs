//! The decision table of the transport policy, for set-up: what follows an answer, or none, to a first message.
//!
//! Rows keep the numbers they have in the policy. [`carriers`] says what carries ESP at first, [`verdict`] what follows when it
//! does not pass, [`life`] how an IKE SA ends or comes back.

use crate::config::{IkePolicy, OnUnreachable, SeparateTransports, StartTransport};
use crate::path::{DirectCarrier, IkeTransport};
use crate::status::Reason;

mod carriers;
pub(crate) mod life;
pub(crate) mod verdict;

pub(crate) use carriers::first_carrier;

/// What became of a first message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// An IKE_SA_INIT response with SEPARATE_TRANSPORTS, after we offered it.
    Agreed,
    /// An IKE_SA_INIT response without SEPARATE_TRANSPORTS, after we offered it.
    NotAnswered,
    /// An IKE_SA_INIT response, and we had not offered SEPARATE_TRANSPORTS.
    NotOffered,
    /// No response at all over UDP within two retransmissions.
    UdpSilent,
    /// TCP was refused or silent.
    TcpUnreachable,
}

/// What the attempt does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Go on over UDP, ESP by its own rules.
    StayOnUdp,
    /// Go on over TCP: dial if the first message left over UDP.
    UseTcp,
    /// Act as if the response had not come; when the retransmission time is over, block.
    KeepWaiting,
    /// New IKE_SA_INIT over TCP with a new SPI.
    StartOnTcp,
    /// New IKE_SA_INIT over UDP without SEPARATE_TRANSPORTS.
    StartOnUdpWithoutSeparate,
    /// Stop, and wait for the next attempt.
    Block,
}

/// A start and what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Situation {
    /// What carried the first message.
    pub(crate) started_on: IkeTransport,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// The connection's transport.
    pub(crate) transport: StartTransport,
    /// What it makes of SEPARATE_TRANSPORTS.
    pub(crate) separate: SeparateTransports,
    /// The key exchange can be done over UDP.
    pub(crate) fits_udp: bool,
    /// UDP was found silent before, by row 9 of the same attempt.
    pub(crate) udp_was_silent: bool,
    /// What happens when no direct carrier passes ESP.
    pub(crate) policy: OnUnreachable,
    /// Rows 16 and 17: the attempt is to put ESP into TCP, because no direct carrier passed.
    pub(crate) has_fallen: bool,
}

/// One row: the first that matches decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its number in the policy.
    pub(crate) number: u8,
    started_on: IkeTransport,
    outcome: Outcome,
    transport: Option<StartTransport>,
    separate: Option<SeparateTransports>,
    fits_udp: Option<bool>,
    udp_was_silent: Option<bool>,
    policy: Option<OnUnreachable>,
    has_fallen: Option<bool>,
    /// What to do.
    pub(crate) step: Step,
    /// The reason that goes with it.
    pub(crate) reason: Reason,
}

impl Row {
    const fn new(number: u8, started_on: IkeTransport, outcome: Outcome, step: Step, reason: Reason) -> Self {
        Self {
            number,
            started_on,
            outcome,
            transport: None,
            separate: None,
            fits_udp: None,
            udp_was_silent: None,
            policy: None,
            has_fallen: None,
            step,
            reason,
        }
    }

    const fn transport(mut self, transport: StartTransport) -> Self {
        self.transport = Some(transport);
        self
    }

    const fn separate(mut self, separate: SeparateTransports) -> Self {
        self.separate = Some(separate);
        self
    }

    const fn fits_udp(mut self, fits: bool) -> Self {
        self.fits_udp = Some(fits);
        self
    }

    const fn udp_was_silent(mut self, silent: bool) -> Self {
        self.udp_was_silent = Some(silent);
        self
    }

    const fn policy(mut self, policy: OnUnreachable) -> Self {
        self.policy = Some(policy);
        self
    }

    const fn has_fallen(mut self, has_fallen: bool) -> Self {
        self.has_fallen = Some(has_fallen);
        self
    }

    fn matches(&self, s: Situation) -> bool {
        self.started_on == s.started_on
            && self.outcome == s.outcome
            && self.transport.is_none_or(|t| t == s.transport)
            && self.separate.is_none_or(|x| x == s.separate)
            && self.fits_udp.is_none_or(|f| f == s.fits_udp)
            && self.udp_was_silent.is_none_or(|u| u == s.udp_was_silent)
            && self.policy.is_none_or(|p| p == s.policy)
            && self.has_fallen.is_none_or(|f| f == s.has_fallen)
    }
}

/// The rows, in the order in which they are tried.
pub(crate) const ROWS: &[Row] = {
    use IkeTransport::{Tcp, Udp};
    use OnUnreachable::TcpFallback;
    use Outcome::{Agreed, NotAnswered, NotOffered, TcpUnreachable, UdpSilent};
    use SeparateTransports::{Prefer, Require};
    &[
        Row::new(4, Udp, Agreed, Step::UseTcp, Reason::None),
        Row::new(6, Udp, NotAnswered, Step::KeepWaiting, Reason::PeerNoSeparate).separate(Require),
        Row::new(5, Udp, NotAnswered, Step::StayOnUdp, Reason::None),
        Row::new(5, Udp, NotOffered, Step::StayOnUdp, Reason::None),
        Row::new(7, Udp, TcpUnreachable, Step::StartOnUdpWithoutSeparate, Reason::IkeTcpUnreachable)
            .separate(Prefer)
            .fits_udp(true),
        Row::new(8, Udp, TcpUnreachable, Step::Block, Reason::IkeTcpUnreachable),
        Row::new(9, Udp, UdpSilent, Step::StartOnTcp, Reason::IkeUdpUnreachable)
            .transport(StartTransport::UdpThenTcp),
        Row::new(9, Udp, UdpSilent, Step::KeepWaiting, Reason::IkeUdpUnreachable),
        Row::new(10, Tcp, TcpUnreachable, Step::Block, Reason::IkeUnreachable).udp_was_silent(true),
        Row::new(10, Tcp, TcpUnreachable, Step::Block, Reason::IkeTcpUnreachable),
        Row::new(13, Tcp, Agreed, Step::UseTcp, Reason::None),
        Row::new(15, Tcp, NotAnswered, Step::Block, Reason::PeerNoSeparate).separate(Require),
        Row::new(14, Tcp, NotAnswered, Step::UseTcp, Reason::PeerNoSeparate).policy(TcpFallback),
        Row::new(15, Tcp, NotAnswered, Step::Block, Reason::PeerNoSeparate),
        Row::new(14, Tcp, NotOffered, Step::UseTcp, Reason::EspUnreachable)
            .policy(TcpFallback)
            .has_fallen(true),
        Row::new(14, Tcp, NotOffered, Step::UseTcp, Reason::SeparateOff).policy(TcpFallback),
        Row::new(18, Tcp, NotOffered, Step::Block, Reason::EspUnreachable).has_fallen(true),
        Row::new(15, Tcp, NotOffered, Step::Block, Reason::SeparateOff),
    ]
};

/// The numbers of all rows, in order.
#[cfg(test)]
fn numbers() -> std::collections::BTreeSet<u8> {
    let setup = ROWS.iter().map(|row| row.number);
    let carriers = carriers::ROWS.iter().map(|row| row.number);
    let verdicts = verdict::ROWS.iter().map(|row| row.number);
    setup.chain(carriers).chain(verdicts).chain(life::ROWS.iter().map(|row| row.number)).collect()
}

/// The row that decides. A situation that cannot arise, such as silent UDP on a TCP start, stops the attempt.
pub(crate) fn decide(situation: Situation) -> Row {
    const STOP: Row = Row::new(0, IkeTransport::Udp, Outcome::UdpSilent, Step::Block, Reason::ProtocolError);
    ROWS.iter().find(|row| row.matches(situation)).copied().unwrap_or(STOP)
}

/// A new attempt offers SEPARATE_TRANSPORTS: not over UDP alone, not when it is off.
pub(crate) fn offers_separate(policy: &IkePolicy) -> bool {
    policy.transport != StartTransport::Udp && policy.separate_transports != SeparateTransports::Off
}

/// A responder with this connection echoes SEPARATE_TRANSPORTS (rule 9), as long as TCP is listened on.
pub(crate) fn allows_separate(policy: &IkePolicy) -> bool {
    offers_separate(policy)
}

/// ESP of an IKE SA belongs in its TCP stream: IKE over TCP without SEPARATE_TRANSPORTS (RFC 9329 section 5, T section 3.2).
pub(crate) fn esp_belongs_in_tcp(ike: IkeTransport, separate: bool) -> bool {
    ike == IkeTransport::Tcp && !separate
}

/// Why a responder refuses an IKE_AUTH of this connection, if it does (rule 9, and the configuration part of the policy).
pub(crate) fn refusal(
    policy: &IkePolicy,
    on_unreachable: OnUnreachable,
    auth_on: IkeTransport,
    separate: bool,
    choice: Result<DirectCarrier, Reason>,
) -> Option<Reason> {
    match (policy.transport, auth_on) {
        (StartTransport::Udp, IkeTransport::Tcp) | (StartTransport::Tcp, IkeTransport::Udp) => {
            return Some(Reason::TransportNotAllowed);
        }
        _ => {}
    }
    if !separate && policy.separate_transports == SeparateTransports::Require {
        return Some(Reason::PeerNoSeparate);
    }
    match (esp_belongs_in_tcp(auth_on, separate), on_unreachable) {
        (true, OnUnreachable::FailClosed) => Some(Reason::PeerNoSeparate),
        (true, OnUnreachable::TcpFallback) => None,
        (false, _) => choice.err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Situation = Situation {
        started_on: IkeTransport::Udp,
        outcome: Outcome::Agreed,
        transport: StartTransport::UdpThenTcp,
        separate: SeparateTransports::Prefer,
        fits_udp: true,
        udp_was_silent: false,
        policy: OnUnreachable::FailClosed,
        has_fallen: false,
    };

    /// The policy has 21 rows, and each of them decides something here.
    #[test]
    fn every_row_of_the_policy_is_here() {
        assert_eq!(numbers(), (1..=21).collect());
    }

    #[test]
    fn a_udp_start_goes_by_rows_4_to_9() {
        let row = |outcome, separate, fits_udp| {
            let row = decide(Situation { outcome, separate, fits_udp, ..BASE });
            (row.number, row.step, row.reason)
        };
        use SeparateTransports::{Prefer, Require};
        assert_eq!(row(Outcome::Agreed, Prefer, true), (4, Step::UseTcp, Reason::None));
        assert_eq!(row(Outcome::NotAnswered, Prefer, true), (5, Step::StayOnUdp, Reason::None));
        assert_eq!(
            row(Outcome::NotOffered, SeparateTransports::Off, true),
            (5, Step::StayOnUdp, Reason::None)
        );
        assert_eq!(row(Outcome::NotAnswered, Require, true), (6, Step::KeepWaiting, Reason::PeerNoSeparate));
        let without = (7, Step::StartOnUdpWithoutSeparate, Reason::IkeTcpUnreachable);
        assert_eq!(row(Outcome::TcpUnreachable, Prefer, true), without);
        assert_eq!(row(Outcome::TcpUnreachable, Prefer, false), (8, Step::Block, Reason::IkeTcpUnreachable));
        assert_eq!(row(Outcome::TcpUnreachable, Require, true), (8, Step::Block, Reason::IkeTcpUnreachable));
        assert_eq!(row(Outcome::UdpSilent, Require, true), (9, Step::StartOnTcp, Reason::IkeUdpUnreachable));
        let udp_only = Situation { outcome: Outcome::UdpSilent, transport: StartTransport::Udp, ..BASE };
        assert_eq!(decide(udp_only).step, Step::KeepWaiting);
    }

    #[test]
    fn a_tcp_start_goes_by_rows_10_to_15() {
        let tcp = Situation { started_on: IkeTransport::Tcp, transport: StartTransport::Tcp, ..BASE };
        let unreachable = Situation { outcome: Outcome::TcpUnreachable, ..tcp };
        assert_eq!(decide(unreachable).reason, Reason::IkeTcpUnreachable);
        let after_row_9 =
            Situation { udp_was_silent: true, transport: StartTransport::UdpThenTcp, ..unreachable };
        assert_eq!((decide(after_row_9).number, decide(after_row_9).reason), (10, Reason::IkeUnreachable));
        assert_eq!(decide(tcp).number, 13);
        let none = decide(Situation { outcome: Outcome::NotAnswered, ..tcp });
        assert_eq!((none.number, none.step, none.reason), (15, Step::Block, Reason::PeerNoSeparate));
        let off = decide(Situation { outcome: Outcome::NotOffered, ..tcp });
        assert_eq!((off.number, off.step, off.reason), (15, Step::Block, Reason::SeparateOff));
        let fallen = decide(Situation { outcome: Outcome::NotOffered, has_fallen: true, ..tcp });
        assert_eq!((fallen.number, fallen.step, fallen.reason), (18, Step::Block, Reason::EspUnreachable));
    }

    #[test]
    fn tcp_fallback_puts_esp_into_tcp_by_row_14_unless_separate_transports_are_required() {
        let tcp = Situation {
            started_on: IkeTransport::Tcp,
            transport: StartTransport::Tcp,
            policy: OnUnreachable::TcpFallback,
            ..BASE
        };
        let row = |outcome, separate, has_fallen| {
            let row = decide(Situation { outcome, separate, has_fallen, ..tcp });
            (row.number, row.step, row.reason)
        };
        use SeparateTransports::{Off, Prefer, Require};
        let in_tcp = |reason| (14, Step::UseTcp, reason);
        assert_eq!(row(Outcome::NotAnswered, Prefer, false), in_tcp(Reason::PeerNoSeparate));
        let required = (15, Step::Block, Reason::PeerNoSeparate);
        assert_eq!(row(Outcome::NotAnswered, Require, false), required);
        assert_eq!(row(Outcome::NotOffered, Off, false), in_tcp(Reason::SeparateOff));
        // "It does not forbid row 16."
        for separate in [Off, Prefer, Require] {
            assert_eq!(row(Outcome::NotOffered, separate, true), in_tcp(Reason::EspUnreachable));
        }
        let unreachable = decide(Situation { outcome: Outcome::TcpUnreachable, has_fallen: true, ..tcp });
        assert_eq!((unreachable.number, unreachable.reason), (10, Reason::IkeTcpUnreachable));
    }

    /// Configuration part of the policy: `udp` refuses IKE_AUTH on TCP, `tcp` refuses it on UDP; `require` binds
    /// requests that we receive.
    #[test]
    fn a_responder_refuses_what_its_policy_forbids() {
        let refused = |transport, separate_transports, on_unreachable, auth_on, separate| {
            let policy = IkePolicy { transport, separate_transports, ..IkePolicy::default() };
            refusal(&policy, on_unreachable, auth_on, separate, Ok(DirectCarrier::Udp))
        };
        let refusal = |transport, separate_transports, auth_on, separate| {
            refused(transport, separate_transports, OnUnreachable::FailClosed, auth_on, separate)
        };
        use SeparateTransports::{Prefer, Require};
        use StartTransport::{Tcp, Udp, UdpThenTcp};
        assert_eq!(refusal(UdpThenTcp, Prefer, IkeTransport::Tcp, true), None);
        assert_eq!(refusal(UdpThenTcp, Prefer, IkeTransport::Udp, false), None);
        assert!(refusal(UdpThenTcp, Prefer, IkeTransport::Tcp, false).is_some());
        assert!(refusal(UdpThenTcp, Require, IkeTransport::Udp, false).is_some());
        assert!(refusal(Udp, Prefer, IkeTransport::Tcp, true).is_some());
        assert!(refusal(Tcp, Prefer, IkeTransport::Udp, false).is_some());
        let falls_back = |separate_transports, separate| {
            refused(UdpThenTcp, separate_transports, OnUnreachable::TcpFallback, IkeTransport::Tcp, separate)
        };
        assert_eq!(falls_back(Prefer, false), None);
        assert_eq!(falls_back(Require, false), Some(Reason::PeerNoSeparate));
        // ESP in TCP needs no direct carrier, ESP beside it does.
        let none = Err(Reason::CarrierNotAllowed);
        let policy = IkePolicy::default();
        let choose =
            |separate| super::refusal(&policy, OnUnreachable::TcpFallback, IkeTransport::Tcp, separate, none);
        assert_eq!((choose(false), choose(true)), (None, Some(Reason::CarrierNotAllowed)));
    }
}
