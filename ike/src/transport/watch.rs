//! The silence of each child: when an echo has to ask whether it means anything (transport policy rule 5).
//!
//! ```text
//! heard ── idle_interval without a word ─────────────────> echo ── timeout ──> silent
//! heard ── outbound traffic for 3 s less timeout ────────> echo ── 3 s of traffic ──> silent
//!   ^────────── data, a dummy, or the reply ───────────────┘
//! ```
//!
//! Traffic in one direction is no suspicion: the echo is asked so early that its reply comes before the 3 s are over.
//! Requests of the peer are no word of it here: they show that it reaches us, and not that we reach it.

use core::time::Duration;
use std::sync::Arc;

use super::probe::{Answer, Plan, Reply, Run};
use crate::action::{ChildId, EchoRequest, EchoRoute};
use crate::config::ProbePolicy;
use crate::crypto::Rng;
use crate::time::Time;

/// Outbound traffic without a word from the peer for this long starts `suspect` (rule 5).
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(3);

/// Traffic with gaps below this is one flow: facts about it come once a second.
const STEADY: Duration = Duration::from_millis(1500);

/// One configured child, over all its rekeys: verdicts survive them (rule 6).
#[derive(Debug)]
pub(crate) struct Watch {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// The pair in use.
    pub(crate) id: ChildId,
    /// It was found dead while others lived, and was rekeyed for it.
    pub(crate) was_rekeyed: bool,
    heard: Time,
    unanswered_since: Option<Time>,
    last_outbound: Option<Time>,
    asked: Option<Asked>,
    ask_at: Option<Time>,
    /// Somebody doubts that we reach the peer: what the peer sends is no answer to that.
    is_doubted: bool,
}

#[derive(Debug)]
struct Asked {
    run: Run,
    deadline: Time,
}

impl Watch {
    /// A child that is new: its carrier is asked for at `ask_at`, if at all.
    pub(crate) fn new(now: Time, name: Arc<str>, id: ChildId, ask_at: Option<Time>) -> Self {
        Self {
            name,
            id,
            was_rekeyed: false,
            heard: now,
            unanswered_since: None,
            last_outbound: None,
            asked: None,
            ask_at,
            is_doubted: false,
        }
    }

    /// Another pair is in use. What was asked on the old one may still be answered, unless that was dead.
    pub(crate) fn replaced(&mut self, now: Time, id: ChildId) {
        if let Some(asked) = &mut self.asked {
            asked.run.replace(self.id, id);
        }
        self.id = id;
        if self.was_rekeyed {
            self.asked = None;
            self.ask_at = Some(now);
        }
    }

    /// A word from the peer: data, a dummy, or the reply to our echo.
    pub(crate) fn heard(&mut self, now: Time) {
        self.heard = now;
        self.unanswered_since = None;
        if !self.is_doubted {
            self.asked = None;
            self.ask_at = None;
        }
    }

    /// Data has left.
    pub(crate) fn outbound(&mut self, now: Time) {
        // Facts about traffic come once a second: a steady flow is unanswered from the last word on, not from the next fact.
        let is_steady = self.last_outbound.is_some_and(|at| at + STEADY > now);
        let since = if is_steady { self.last_outbound.map_or(now, |at| at.max(self.heard)) } else { now };
        self.last_outbound = Some(now);
        self.unanswered_since.get_or_insert(since);
    }

    /// A doubt that proves nothing: ask now.
    pub(crate) fn doubt(&mut self, now: Time) {
        if self.asked.is_none() {
            self.ask_at = Some(now);
        }
        self.is_doubted = true;
    }

    /// When [`Watch::timeout`] has something to say.
    pub(crate) fn next_timeout(&self, policy: &ProbePolicy) -> Time {
        match &self.asked {
            Some(asked) => asked.deadline,
            None => self.asks_at(policy),
        }
    }

    /// Time has passed: the echo that is due, on this route. `None` for the echo and true if an earlier one has gone
    /// unanswered for too long.
    pub(crate) fn timeout(
        &mut self,
        now: Time,
        policy: &ProbePolicy,
        route: EchoRoute,
        rng: &mut Rng,
    ) -> (Vec<EchoRequest>, bool) {
        if let Some(asked) = &self.asked {
            let is_silent = asked.deadline <= now;
            if is_silent {
                self.asked = None;
                self.ask_at = None;
                self.is_doubted = false;
                self.heard = now;
                self.unanswered_since = None;
            }
            return (Vec::new(), is_silent);
        }
        if self.asks_at(policy) > now {
            return (Vec::new(), false);
        }
        let by_traffic = self.unanswered_since.map(|since| since + SUSPECT_AFTER).filter(|at| *at > now);
        let by_timeout = now + policy.timeout;
        let deadline = by_traffic.map_or(by_timeout, |at| at.min(by_timeout));
        let mut run = Run::new(now, Plan::single(deadline.since(now)), &[self.id], &[route], rng);
        let echoes = run.due(now, rng);
        self.asked = Some(Asked { run, deadline });
        self.ask_at = None;
        (echoes, false)
    }

    /// A reply came: the answer, if it is one to this child's echo.
    pub(crate) fn answered(&mut self, now: Time, reply: &Reply) -> Option<Answer> {
        let answer = self.asked.as_mut()?.run.answered(now, reply)?;
        self.is_doubted = false;
        self.heard(now);
        Some(answer)
    }

    fn asks_at(&self, policy: &ProbePolicy) -> Time {
        let idle = self.heard + policy.idle_interval;
        let traffic = self.unanswered_since.map(|since| since + SUSPECT_AFTER.saturating_sub(policy.timeout));
        [self.ask_at, traffic].into_iter().flatten().fold(idle, Time::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{DirectCarrier, EspTransport};
    use rand_core::SeedableRng as _;

    /// Rule 5: an idle echo every `idle_interval`, and `suspect` when it is unanswered for `timeout`.
    #[test]
    fn an_idle_child_is_asked_and_silent_after_the_timeout() {
        let mut rng = rng();
        let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
        assert_eq!(watch.next_timeout(&POLICY), at(10_000));
        let (echoes, is_silent) = watch.timeout(at(10_000), &POLICY, route(), &mut rng);
        assert_eq!((echoes.len(), is_silent), (1, false));
        assert_eq!(watch.next_timeout(&POLICY), at(11_000));
        assert!(watch.timeout(at(11_000), &POLICY, route(), &mut rng).1);
    }

    #[test]
    fn an_answer_puts_the_next_question_off() {
        let mut rng = rng();
        let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
        let (echoes, _) = watch.timeout(at(10_000), &POLICY, route(), &mut rng);
        let reply = Reply {
            child: ChildId(1),
            identifier: echoes[0].identifier,
            sequence: echoes[0].sequence,
            nonce: echoes[0].nonce,
            carrier: EspTransport::Udp,
        };
        assert_eq!(watch.answered(at(10_020), &reply).unwrap().rtt, Duration::from_millis(20));
        assert_eq!(watch.next_timeout(&POLICY), at(20_020));
    }

    /// Rule 5: 3 s of outbound traffic with no authenticated inbound.
    #[test]
    fn outbound_traffic_without_a_word_is_silence_after_3_s() {
        let mut rng = rng();
        let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
        watch.outbound(at(500));
        watch.heard(at(600));
        watch.outbound(at(1500));
        watch.outbound(at(2500));
        assert_eq!(watch.next_timeout(&POLICY), at(2600));
        assert_eq!(watch.timeout(at(2600), &POLICY, route(), &mut rng).0.len(), 1);
        assert_eq!(watch.next_timeout(&POLICY), at(3600));
        assert!(watch.timeout(at(3600), &POLICY, route(), &mut rng).1);
    }

    #[test]
    fn traffic_in_both_directions_asks_nothing() {
        let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
        for second in 1..100 {
            watch.outbound(at(second * 1000));
            watch.heard(at(second * 1000 + 500));
            assert!(watch.next_timeout(&POLICY) > at(second * 1000 + 1000));
        }
    }

    /// What the peer sends does not show that we reach it.
    #[test]
    fn a_doubt_is_answered_by_a_reply_alone() {
        let mut rng = rng();
        let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
        watch.doubt(at(1000));
        assert_eq!(watch.timeout(at(1000), &POLICY, route(), &mut rng).0.len(), 1);
        watch.heard(at(1500));
        assert!(watch.timeout(at(2000), &POLICY, route(), &mut rng).1);
    }

    /// Rule 6: verdicts survive rekeys. The reply to what was asked before comes on the pair that was asked.
    #[test]
    fn a_rekey_does_not_lose_the_answer_nor_the_question() {
        let mut rng = rng();
        for is_answered in [true, false] {
            let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
            let echo = watch.timeout(at(10_000), &POLICY, route(), &mut rng).0[0];
            watch.replaced(at(10_100), ChildId(2));
            let reply = Reply {
                child: ChildId(1),
                identifier: echo.identifier,
                sequence: echo.sequence,
                nonce: echo.nonce,
                carrier: EspTransport::Udp,
            };
            if is_answered {
                assert_eq!(watch.answered(at(10_500), &reply).unwrap().child, ChildId(2));
            }
            assert_eq!(watch.timeout(at(11_000), &POLICY, route(), &mut rng).1, !is_answered);
        }
    }

    /// Rule 6: a child that was rekeyed because it was dead is asked at once.
    #[test]
    fn a_new_pair_is_asked_only_if_the_old_one_was_dead() {
        let mut watch = Watch::new(at(0), "net".into(), ChildId(1), None);
        watch.replaced(at(1000), ChildId(2));
        assert_eq!(watch.next_timeout(&POLICY), at(10_000));
        watch.was_rekeyed = true;
        watch.replaced(at(2000), ChildId(3));
        assert_eq!(watch.next_timeout(&POLICY), at(2000));
    }

    const POLICY: ProbePolicy = ProbePolicy {
        timeout: Duration::from_secs(1),
        attempts: 3,
        stagger: Duration::from_millis(250),
        idle_interval: Duration::from_secs(10),
    };

    fn route() -> EchoRoute {
        let end = |last| std::net::SocketAddr::from(([192, 0, 2, last], 4500));
        EchoRoute::Direct { carrier: DirectCarrier::Udp, local: end(1), remote: end(2) }
    }

    fn rng() -> Rng {
        Rng::from_seed([7; 32])
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }
}
