//! What a connection remembers about falling back to TCP and coming back, across its IKE SAs: rules 7 to 9.

use super::returning::Returns;
use crate::config::FallbackTimers;
use crate::status::Reason;
use crate::time::Time;

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct Fallback {
    refused_until: Option<Time>,
    had_separate_child: bool,
    next_is_in_tcp: bool,
    /// When direct carriers are tried again.
    pub(crate) returns: Returns,
}

impl Fallback {
    /// The next IKE SA is to carry ESP in TCP, without SEPARATE_TRANSPORTS (rows 16 and 17).
    pub(crate) fn reestablish_in_tcp(&mut self) {
        self.next_is_in_tcp = true;
    }

    /// The next IKE SA starts as configured after all.
    pub(crate) fn start_as_configured(&mut self) {
        self.next_is_in_tcp = false;
    }

    /// Whether the attempt that starts now is to put ESP into TCP. The one after it starts as configured, whatever comes of
    /// this one (rules 7 and 9).
    pub(crate) fn take_next(&mut self) -> bool {
        core::mem::take(&mut self.next_is_in_tcp)
    }

    /// The attempt that is due is to put ESP into TCP.
    pub(crate) fn next_is_in_tcp(&self) -> bool {
        self.next_is_in_tcp
    }

    /// A child was made over an IKE SA with SEPARATE_TRANSPORTS: the proposals of the connection suit the peer.
    pub(crate) fn separate_child_made(&mut self) {
        self.had_separate_child = true;
    }

    /// NO_PROPOSAL_CHOSEN for the child, on TCP without SEPARATE_TRANSPORTS: what it means (rule 9).
    pub(crate) fn refused(&mut self, timers: &FallbackTimers, now: Time) -> Reason {
        if !self.had_separate_child {
            return Reason::NoProposalChosen;
        }
        self.refused_until = Some(now + timers.refused_for);
        Reason::PeerRefusedTcp
    }

    /// The peer has refused ESP in TCP not long ago (rule 9).
    pub(crate) fn peer_refuses_tcp(&self, now: Time) -> bool {
        self.refused_until.is_some_and(|until| now < until)
    }

    /// The policy has changed: what the peer refused before may suit it now (rule 9).
    pub(crate) fn policy_changed(&mut self) {
        self.refused_until = None;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    /// Rule 9.
    #[test]
    fn a_refusal_is_one_of_tcp_only_if_the_proposals_are_known_to_suit() {
        let mut fallback = Fallback::default();
        assert_eq!(fallback.refused(&FallbackTimers::DEFAULT, at(1)), Reason::NoProposalChosen);
        assert!(!fallback.peer_refuses_tcp(at(1)));
        fallback.separate_child_made();
        assert_eq!(fallback.refused(&FallbackTimers::DEFAULT, at(2)), Reason::PeerRefusedTcp);
        assert!(fallback.peer_refuses_tcp(at(2 + 899)) && !fallback.peer_refuses_tcp(at(2 + 900)));
        fallback.policy_changed();
        assert!(!fallback.peer_refuses_tcp(at(3)));
    }

    /// Rule 7: "next try from the configured start".
    #[test]
    fn one_attempt_goes_into_tcp_and_the_next_starts_as_configured() {
        let mut fallback = Fallback::default();
        fallback.reestablish_in_tcp();
        assert!(fallback.next_is_in_tcp() && fallback.take_next());
        assert!(!fallback.take_next());
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }
}
