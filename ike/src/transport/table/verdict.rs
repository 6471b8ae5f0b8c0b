//! The rows that follow when no direct carrier passes ESP of an established IKE SA while IKE is alive: 16, 17 and 18.

use crate::config::OnUnreachable;

/// What has been found, and what may be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Situation {
    /// We are the original initiator, also after rekeys of the IKE SA.
    pub(crate) is_initiator: bool,
    /// It is the first verification after a start on TCP that failed (T section 3.7).
    pub(crate) is_first_on_tcp: bool,
    /// What the connection does about it.
    pub(crate) policy: OnUnreachable,
    /// With SEPARATE_TRANSPORTS, and an echo on the stream was answered (T sections 3.2 and 3.5).
    pub(crate) can_move_in_place: bool,
    /// The peer has refused ESP in TCP within the last 15 minutes (rule 9).
    pub(crate) peer_refuses_tcp: bool,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// ESP goes into the stream of this IKE SA; SEPARATE_TRANSPORTS still holds.
    MoveInPlace,
    /// DELETE, a new stream, and a new IKE SA without SEPARATE_TRANSPORTS on it.
    ReestablishInTcp,
    /// DELETE, and a new IKE SA with SEPARATE_TRANSPORTS after 5 to 60 s.
    RetrySeparate,
    /// ESP stops, and DELETE follows after three budgets unless the initiator acts (rule 9).
    Shut,
}

/// One row: the first that matches decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its number in the policy.
    pub(crate) number: u8,
    is_initiator: Option<bool>,
    is_first_on_tcp: Option<bool>,
    policy: Option<OnUnreachable>,
    can_move_in_place: Option<bool>,
    peer_refuses_tcp: Option<bool>,
    /// What to do.
    pub(crate) step: Step,
}

impl Row {
    const fn new(number: u8, step: Step) -> Self {
        Self {
            number,
            is_initiator: None,
            is_first_on_tcp: None,
            policy: None,
            can_move_in_place: None,
            peer_refuses_tcp: None,
            step,
        }
    }

    const fn initiator(mut self, is_initiator: bool) -> Self {
        self.is_initiator = Some(is_initiator);
        self
    }

    const fn first_on_tcp(mut self, is_first: bool) -> Self {
        self.is_first_on_tcp = Some(is_first);
        self
    }

    const fn falls_back(mut self) -> Self {
        self.policy = Some(OnUnreachable::TcpFallback);
        self
    }

    const fn in_place(mut self) -> Self {
        self.can_move_in_place = Some(true);
        self
    }

    const fn peer_takes_tcp(mut self) -> Self {
        self.peer_refuses_tcp = Some(false);
        self
    }

    fn matches(&self, s: Situation) -> bool {
        self.is_initiator.is_none_or(|x| x == s.is_initiator)
            && self.is_first_on_tcp.is_none_or(|x| x == s.is_first_on_tcp)
            && self.policy.is_none_or(|x| x == s.policy)
            && self.can_move_in_place.is_none_or(|x| x == s.can_move_in_place)
            && self.peer_refuses_tcp.is_none_or(|x| x == s.peer_refuses_tcp)
    }
}

/// The rows, in the order in which they are tried; the last two match whatever is left.
pub(crate) const ROWS: &[Row] = &[
    Row::new(16, Step::ReestablishInTcp).initiator(true).first_on_tcp(true).falls_back().peer_takes_tcp(),
    Row::new(17, Step::MoveInPlace).first_on_tcp(false).falls_back().in_place(),
    // Rule 9: a responder may move in place, whatever kind of verification failed.
    Row::new(17, Step::MoveInPlace).initiator(false).falls_back().in_place(),
    Row::new(17, Step::ReestablishInTcp).initiator(true).falls_back().peer_takes_tcp(),
    Row::new(18, Step::RetrySeparate).initiator(true),
    Row::new(18, Step::Shut).initiator(false),
];

/// The row that decides.
pub(crate) fn decide(situation: Situation) -> Row {
    const SHUT: Row = Row::new(18, Step::Shut);
    ROWS.iter().find(|row| row.matches(situation)).copied().unwrap_or(SHUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use OnUnreachable::{FailClosed, TcpFallback};

    const INITIATOR: Situation = Situation {
        is_initiator: true,
        is_first_on_tcp: true,
        policy: TcpFallback,
        can_move_in_place: false,
        peer_refuses_tcp: false,
    };

    #[test]
    fn an_initiator_goes_by_rows_16_to_18() {
        let row = |situation| {
            let row = decide(situation);
            (row.number, row.step)
        };
        assert_eq!(row(INITIATOR), (16, Step::ReestablishInTcp));
        // T section 3.7: after a start on TCP the first failure is answered by a new IKE SA, never in place.
        assert_eq!(row(Situation { can_move_in_place: true, ..INITIATOR }), (16, Step::ReestablishInTcp));
        let later = Situation { is_first_on_tcp: false, ..INITIATOR };
        assert_eq!(row(later), (17, Step::ReestablishInTcp));
        assert_eq!(row(Situation { can_move_in_place: true, ..later }), (17, Step::MoveInPlace));
        for is_first_on_tcp in [true, false] {
            let fails_closed = Situation { is_first_on_tcp, policy: FailClosed, ..INITIATOR };
            assert_eq!(row(fails_closed), (18, Step::RetrySeparate));
            // Rule 9: "if ESP fails again row 18, not 16".
            let refused = Situation { is_first_on_tcp, peer_refuses_tcp: true, ..INITIATOR };
            assert_eq!(row(refused), (18, Step::RetrySeparate));
        }
    }

    /// Rule 9.
    #[test]
    fn a_responder_moves_in_place_or_shuts() {
        for is_first_on_tcp in [true, false] {
            for peer_refuses_tcp in [true, false] {
                let responder =
                    Situation { is_initiator: false, is_first_on_tcp, peer_refuses_tcp, ..INITIATOR };
                assert_eq!(decide(responder).step, Step::Shut);
                let in_place = Situation { can_move_in_place: true, ..responder };
                assert_eq!(decide(in_place).step, Step::MoveInPlace);
                assert_eq!(decide(Situation { policy: FailClosed, ..in_place }).step, Step::Shut);
            }
        }
    }

    #[test]
    fn fail_closed_never_leads_into_tcp() {
        for bits in 0..16_u8 {
            let bit = |n: u8| bits & 1 << n != 0;
            let situation = Situation {
                is_initiator: bit(0),
                is_first_on_tcp: bit(1),
                policy: FailClosed,
                can_move_in_place: bit(2),
                peer_refuses_tcp: bit(3),
            };
            let step = decide(situation).step;
            assert!(matches!(step, Step::RetrySeparate | Step::Shut), "{situation:?}: {step:?}");
        }
    }
}
