//! One run of ESP echoes: what is sent when, on which carriers of which children, and which reply is a proof.
//!
//! ```text
//! lane (child, carrier):  echo ── interval ── echo ── interval ── echo ── interval + RTT ── unanswered
//!                           └─────────── the reply: same lane, identifier, sequence, nonce ──> answered
//! ```
//!
//! A run keeps one entry for each request it has sent, so at most lanes × attempts; it never repeats a nonce.

use core::time::Duration;

use rand_core::Rng as _;

use crate::action::{ChildId, EchoRequest, EchoRoute, EchoSize};
use crate::config::ProbePolicy;
use crate::crypto::Rng;
use crate::path::{DirectCarrier, EspTransport};
use crate::time::Time;

/// Echoes of a return have to be answered this often within this time (transport policy rule 8).
const RETURN_ANSWERS: u8 = 5;
const RETURN_WITHIN: Duration = Duration::from_secs(10);

/// What a run sends on each of its lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests, unless enough of them are answered before.
    attempts: u8,
    /// Replies that make a lane answered.
    wanted: u8,
    /// Time between requests.
    interval: Duration,
    /// Each further carrier starts this much later.
    stagger: Duration,
    size: EchoSize,
}

impl Plan {
    /// A verification (rules 3 and 5): the first reply proves the carrier.
    pub(crate) fn verification(policy: &ProbePolicy) -> Self {
        Self {
            attempts: policy.attempts,
            wanted: 1,
            interval: policy.timeout,
            stagger: policy.stagger,
            size: EchoSize::Small,
        }
    }

    /// The same with the largest packet of the path (rule 3).
    pub(crate) fn path_mtu(policy: &ProbePolicy) -> Self {
        Self { size: EchoSize::PathMtu, ..Self::verification(policy) }
    }

    /// One request, which is waited for that long.
    pub(crate) fn single(wait: Duration) -> Self {
        Self { attempts: 1, wanted: 1, interval: wait, stagger: Duration::ZERO, size: EchoSize::Small }
    }

    /// A return from TCP (rule 8): 5 answers in 10 s.
    pub(crate) fn of_return(policy: &ProbePolicy) -> Self {
        let interval = policy.timeout.min(RETURN_WITHIN / u32::from(RETURN_ANSWERS));
        let attempts = RETURN_WITHIN.as_nanos() / interval.as_nanos().max(1);
        Self {
            attempts: u8::try_from(attempts).unwrap_or(u8::MAX),
            wanted: RETURN_ANSWERS,
            interval,
            stagger: Duration::ZERO,
            size: EchoSize::Small,
        }
    }
}

/// A reply, as the data plane reports it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    /// The pair that it came on.
    pub(crate) child: ChildId,
    /// Identifier field.
    pub(crate) identifier: u16,
    /// Sequence Number field.
    pub(crate) sequence: u16,
    /// The first octets of the Data field.
    pub(crate) nonce: [u8; 16],
    /// How it came.
    pub(crate) carrier: EspTransport,
}

/// A reply that proves something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// The child that was asked.
    pub(crate) child: ChildId,
    /// The carrier that is proven.
    pub(crate) carrier: EspTransport,
    /// From request to reply.
    pub(crate) rtt: Duration,
    /// The lane has all the answers it wants.
    pub(crate) is_enough: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Run {
    plan: Plan,
    began: Time,
    identifier: u16,
    next_sequence: u16,
    lanes: Vec<Lane>,
}

/// One child on one carrier.
#[derive(Debug)]
struct Lane {
    child: ChildId,
    route: EchoRoute,
    next_at: Option<Time>,
    last_sent: Option<Time>,
    sent: Vec<Sent>,
    answers: u8,
    answered_at: Option<Time>,
}

#[derive(Debug)]
struct Sent {
    /// The pair that it was sent on, and that its reply comes on.
    child: ChildId,
    sequence: u16,
    nonce: [u8; 16],
    at: Time,
    is_answered: bool,
}

impl Run {
    /// Every child on every route, the first route at once, each further one `stagger` later.
    pub(crate) fn new(
        now: Time,
        plan: Plan,
        children: &[ChildId],
        routes: &[EchoRoute],
        rng: &mut Rng,
    ) -> Self {
        let lanes = routes.iter().zip(0_u32..).flat_map(|(route, n)| {
            let first = now + plan.stagger.saturating_mul(n);
            children.iter().map(move |child| Lane::new(*child, *route, first))
        });
        // The low half of a random word.
        let identifier = rng.next_u32() as u16;
        Self { plan, began: now, identifier, next_sequence: 0, lanes: lanes.collect() }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Time {
        self.began
    }

    /// When [`Run::due`] or [`Run::is_over`] has something to say.
    pub(crate) fn next_timeout(&self, rtt: Duration) -> Time {
        let next = self.lanes.iter().filter_map(|lane| lane.next_at).min();
        next.unwrap_or_else(|| self.ends_at(rtt))
    }

    /// Requests that are due.
    pub(crate) fn due(&mut self, now: Time, rng: &mut Rng) -> Vec<EchoRequest> {
        let mut due = Vec::new();
        for lane in &mut self.lanes {
            if lane.next_at.is_none_or(|at| at > now) {
                continue;
            }
            let mut nonce = [0; 16];
            rng.fill_bytes(&mut nonce);
            let sequence = self.next_sequence;
            self.next_sequence = self.next_sequence.wrapping_add(1);
            lane.sent.push(Sent { child: lane.child, sequence, nonce, at: now, is_answered: false });
            lane.last_sent = Some(now);
            let is_last = lane.sent.len() >= usize::from(self.plan.attempts);
            lane.next_at = (!is_last).then(|| now + self.plan.interval);
            due.push(EchoRequest {
                child: lane.child,
                identifier: self.identifier,
                sequence,
                nonce,
                wants_reply: true,
                route: lane.route,
                size: self.plan.size,
            });
        }
        due
    }

    /// A reply came: what it proves, if it answers a request of this run that was not answered before.
    pub(crate) fn answered(&mut self, now: Time, reply: &Reply) -> Option<Answer> {
        if reply.identifier != self.identifier {
            return None;
        }
        let is_meant = |lane: &&mut Lane| lane.transport() == reply.carrier;
        let lane =
            self.lanes.iter_mut().filter(is_meant).find(|lane| lane.sent.iter().any(|s| s.is(reply)))?;
        let sent = lane.sent.iter_mut().find(|sent| sent.is(reply) && !sent.is_answered)?;
        sent.is_answered = true;
        let rtt = now.since(sent.at);
        lane.answers = lane.answers.saturating_add(1);
        let is_enough = lane.answers >= self.plan.wanted;
        if is_enough {
            lane.next_at = None;
            lane.answered_at.get_or_insert(now);
        }
        Some(Answer { child: lane.child, carrier: reply.carrier, rtt, is_enough })
    }

    /// Every lane is answered, or has waited for its last request as long as it has to: `interval`, and one round trip.
    pub(crate) fn is_over(&self, now: Time, rtt: Duration) -> bool {
        self.lanes.iter().all(Lane::is_answered) || self.is_exhausted() && now >= self.ends_at(rtt)
    }

    /// The child is answered on the carrier.
    pub(crate) fn is_answered(&self, child: ChildId, carrier: EspTransport) -> bool {
        self.lanes.iter().any(|lane| lane.child == child && lane.transport() == carrier && lane.is_answered())
    }

    /// How many children are answered on the carrier.
    pub(crate) fn answers(&self, carrier: EspTransport) -> usize {
        self.lanes.iter().filter(|lane| lane.transport() == carrier && lane.is_answered()).count()
    }

    /// Every child is answered on the carrier, and it is one of those that were asked on.
    pub(crate) fn is_complete(&self, carrier: EspTransport) -> bool {
        let mut lanes = self.lanes.iter().filter(|lane| lane.transport() == carrier).peekable();
        lanes.peek().is_some() && lanes.all(Lane::is_answered)
    }

    /// So many requests on the carrier have gone unanswered for `timeout`, or all that there are to be.
    pub(crate) fn is_doubtful(&self, now: Time, carrier: EspTransport, requests: u8) -> bool {
        let nth = usize::from(requests.min(self.plan.attempts).saturating_sub(1));
        let mut lanes = self.lanes.iter().filter(|lane| lane.transport() == carrier);
        lanes.all(|lane| {
            let unanswered_at = lane.sent.get(nth).map(|sent| sent.at + self.plan.interval);
            !lane.is_answered() && unanswered_at.is_some_and(|at| at <= now)
        })
    }

    /// A request has left on the carrier.
    pub(crate) fn has_asked(&self, carrier: EspTransport) -> bool {
        self.lanes.iter().any(|lane| lane.transport() == carrier && !lane.sent.is_empty())
    }

    /// Every lane without an answer has been asked since.
    pub(crate) fn has_asked_since(&self, since: Time) -> bool {
        let mut open = self.lanes.iter().filter(|lane| !lane.is_answered());
        open.all(|lane| lane.last_sent.is_some_and(|at| at >= since))
    }

    /// The carriers that it asks on, each once.
    pub(crate) fn carriers(&self) -> Vec<EspTransport> {
        let mut carriers = Vec::new();
        for lane in &self.lanes {
            if !carriers.contains(&lane.transport()) {
                carriers.push(lane.transport());
            }
        }
        carriers
    }

    /// The children that it asks on, each once.
    pub(crate) fn children(&self) -> Vec<ChildId> {
        let mut children = Vec::new();
        for lane in &self.lanes {
            if !children.contains(&lane.child) {
                children.push(lane.child);
            }
        }
        children
    }

    /// A rekey has put another pair in the place of a child: what is still to be asked is asked on it. Replies to what was asked on
    /// the old pair come on that one, and count: verdicts survive rekeys (rule 6).
    pub(crate) fn replace(&mut self, old: ChildId, new: ChildId) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.child == old) {
            lane.child = new;
        }
    }

    /// A child is gone. True if nothing is left to ask.
    pub(crate) fn forget(&mut self, child: ChildId) -> bool {
        self.lanes.retain(|lane| lane.child != child);
        self.lanes.is_empty()
    }

    fn is_exhausted(&self) -> bool {
        self.lanes.iter().all(|lane| lane.next_at.is_none())
    }

    fn ends_at(&self, rtt: Duration) -> Time {
        let last =
            self.lanes.iter().filter(|lane| !lane.is_answered()).filter_map(|lane| lane.last_sent).max();
        last.map_or(self.began, |last| last + self.plan.interval + rtt)
    }
}

impl Lane {
    fn new(child: ChildId, route: EchoRoute, first: Time) -> Self {
        Self {
            child,
            route,
            next_at: Some(first),
            last_sent: None,
            sent: Vec::new(),
            answers: 0,
            answered_at: None,
        }
    }

    fn transport(&self) -> EspTransport {
        transport_of(&self.route)
    }

    fn is_answered(&self) -> bool {
        self.answered_at.is_some()
    }
}

impl Sent {
    fn is(&self, reply: &Reply) -> bool {
        self.child == reply.child && self.sequence == reply.sequence && self.nonce == reply.nonce
    }
}

/// An echo that asks for no reply.
pub(crate) fn one_way(child: ChildId, route: EchoRoute, rng: &mut Rng) -> EchoRequest {
    let mut nonce = [0; 16];
    rng.fill_bytes(&mut nonce);
    let identifier = rng.next_u32() as u16;
    EchoRequest { child, identifier, sequence: 0, nonce, wants_reply: false, route, size: EchoSize::Small }
}

/// What a route is.
pub(crate) fn transport_of(route: &EchoRoute) -> EspTransport {
    match route {
        EchoRoute::Direct { carrier: DirectCarrier::Ip, .. } => EspTransport::Ip,
        EchoRoute::Direct { carrier: DirectCarrier::Udp, .. } => EspTransport::Udp,
        EchoRoute::Stream(_) => EspTransport::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::StreamId;
    use rand_core::SeedableRng as _;

    /// Rule 5: budget = attempts × timeout + stagger + 1 RTT.
    #[test]
    fn a_verification_takes_its_budget() {
        let mut rng = rng();
        let mut run = Run::new(at(0), verification(), &[A], &[route(Ip), route(Udp)], &mut rng);
        let rtt = Duration::from_millis(20);
        let mut sent = Vec::new();
        let mut now = at(0);
        while !run.is_over(now, rtt) {
            now = run.next_timeout(rtt);
            sent.extend(run.due(now, &mut rng).iter().map(|echo| (millis(now), transport_of(&echo.route))));
        }
        use EspTransport as T;
        let ip = [0, 1000, 2000].map(|at| (at, T::Ip));
        let udp = [250, 1250, 2250].map(|at| (at, T::Udp));
        let mut expected = [ip, udp].concat();
        expected.sort_by_key(|(at, _)| *at);
        assert_eq!(sent, expected);
        assert_eq!(millis(now), 3270);
        assert_eq!(run.answers(T::Ip) + run.answers(T::Udp), 0);
    }

    /// Rule 1: identifier, sequence, random octets, over that same carrier.
    #[test]
    fn only_a_reply_to_our_own_request_on_its_carrier_and_child_is_a_proof() {
        let mut rng = rng();
        let mut run = Run::new(at(0), verification(), &[A], &[route(Ip)], &mut rng);
        let echo = run.due(at(0), &mut rng)[0];
        let good = reply(&echo);
        let mut wrong_nonce = good;
        wrong_nonce.nonce[15] ^= 1;
        let wrong = [
            wrong_nonce,
            Reply { identifier: good.identifier ^ 1, ..good },
            Reply { sequence: good.sequence ^ 1, ..good },
            Reply { carrier: EspTransport::Udp, ..good },
            Reply { child: B, ..good },
        ];
        assert!(wrong.iter().all(|reply| run.answered(at(10), reply).is_none()));
        let answer = run.answered(at(20), &good).unwrap();
        assert_eq!((answer.rtt, answer.is_enough), (Duration::from_millis(20), true));
        assert!(run.is_complete(EspTransport::Ip) && run.is_over(at(20), Duration::ZERO));
        assert_eq!(run.answered(at(30), &good), None, "a proof counts once");
    }

    #[test]
    fn requests_differ_in_sequence_and_nonce() {
        let mut rng = rng();
        let mut run = Run::new(at(0), verification(), &[A, B], &[route(Ip), route(Udp)], &mut rng);
        let mut echoes = run.due(at(0), &mut rng);
        echoes.extend(run.due(at(250), &mut rng));
        echoes.extend(run.due(at(1000), &mut rng));
        let mut sequences: Vec<_> = echoes.iter().map(|echo| echo.sequence).collect();
        let mut nonces: Vec<_> = echoes.iter().map(|echo| echo.nonce).collect();
        sequences.dedup();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!((sequences.len(), nonces.len()), (6, 6));
        assert!(echoes.iter().all(|echo| echo.identifier == echoes[0].identifier && echo.wants_reply));
    }

    /// Rule 8.
    #[test]
    fn a_return_wants_five_answers_within_ten_seconds() {
        let mut rng = rng();
        let plan = Plan::of_return(&ProbePolicy::default());
        let mut run = Run::new(at(0), plan, &[A], &[route(Udp)], &mut rng);
        let mut answered = 0;
        for second in 0..10 {
            for echo in run.due(at(second * 1000), &mut rng) {
                // Every other one is lost.
                if second % 2 == 0 {
                    answered += 1;
                    let answer = run.answered(at(second * 1000 + 20), &reply(&echo)).unwrap();
                    assert_eq!(answer.is_enough, answered == 5);
                }
            }
        }
        assert!(run.is_complete(EspTransport::Udp));
        let mut run = Run::new(at(0), plan, &[A], &[route(Udp)], &mut rng);
        (0..10).for_each(|second| drop(run.due(at(second * 1000), &mut rng)));
        assert!(run.is_over(at(10_000), Duration::ZERO) && !run.is_complete(EspTransport::Udp));
    }

    /// Rule 6: verdicts survive rekeys, and so does a run.
    #[test]
    fn a_run_goes_on_over_a_rekey_and_ends_with_its_last_child() {
        let mut rng = rng();
        let mut run = Run::new(at(0), verification(), &[A], &[route(Udp)], &mut rng);
        let early = run.due(at(0), &mut rng)[0];
        run.replace(A, B);
        let echo = run.due(at(1000), &mut rng)[0];
        assert_eq!(echo.child, B);
        assert!(run.answered(at(1005), &Reply { child: B, ..reply(&early) }).is_none(), "not on that pair");
        let answer = run.answered(at(1010), &reply(&early)).expect("a reply on the pair that was asked");
        assert_eq!((answer.child, answer.rtt), (B, Duration::from_millis(1010)));
        assert!(run.is_answered(B, EspTransport::Udp));
        assert!(run.answered(at(1020), &reply(&echo)).is_some());
        assert!(run.forget(B));
    }

    #[test]
    fn a_stream_is_a_carrier_as_well() {
        let mut rng = rng();
        let stream = EchoRoute::Stream(StreamId::dialled(1));
        let mut run = Run::new(at(0), verification(), &[A], &[stream], &mut rng);
        let echo = run.due(at(0), &mut rng)[0];
        assert_eq!(run.answered(at(5), &reply(&echo)).unwrap().carrier, EspTransport::Tcp);
    }

    use DirectCarrier::{Ip, Udp};
    const A: ChildId = ChildId(1);
    const B: ChildId = ChildId(2);

    fn verification() -> Plan {
        Plan::verification(&ProbePolicy::default())
    }

    fn route(carrier: DirectCarrier) -> EchoRoute {
        let end = |last| std::net::SocketAddr::from(([192, 0, 2, last], 4500));
        EchoRoute::Direct { carrier, local: end(1), remote: end(2) }
    }

    fn reply(echo: &EchoRequest) -> Reply {
        Reply {
            child: echo.child,
            identifier: echo.identifier,
            sequence: echo.sequence,
            nonce: echo.nonce,
            carrier: transport_of(&echo.route),
        }
    }

    fn rng() -> Rng {
        Rng::from_seed([7; 32])
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn millis(time: Time) -> u64 {
        time.as_nanos() / 1_000_000
    }
}
