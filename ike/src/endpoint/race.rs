//! Several responses to one IKE_SA_INIT over UDP (RFC 7296 section 2.4). None of them is authenticated, so each that would do
//! is followed, four at most, until AUTH shows which one is the peer's. A protected message would not: who forged a response
//! has its keys.
//!
//! ```text
//! IKE_SA_INIT ──> response ──> branch 1 ──┐
//!                 response ──> branch 2 ──┼── AUTH verified on one: that branch goes on, the others are dropped
//!                 response ──> branch 3 ──┘
//! ```
//!
//! A branch is a half-open IKE SA of its own, with the SPI of the request and the keys of its response.

use std::collections::BTreeMap;

use super::Endpoint;
use super::half_open::{HalfOpen, Initiator, InitiatorState, Role};
use super::initiate::whole_retransmission_time;
use crate::action::IkeSaId;
use crate::codec::Message;
use crate::live::Source;
use crate::path::{IkeTransport, UdpPath};
use crate::sa::channel::Channel;
use crate::sa::init::{Ends, InitAnswer, InitSent};
use crate::sa::payloads::Received;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::link::Link;
use crate::transport::table::Step;

/// Responses that are followed at the same time.
const MOST_BRANCHES: usize = 4;

/// The races under way, by our SPI.
pub(super) type Races = BTreeMap<u64, Race>;

/// One request and the responses that are followed.
#[derive(Default)]
pub(super) struct Race {
    /// The request and its private values; while nothing is followed they wait with the half-open IKE SA.
    sent: Option<Box<InitSent>>,
    responses: Vec<Vec<u8>>,
    branches: Vec<IkeSaId>,
}

impl Endpoint {
    /// The first response has been taken: others may follow until AUTH decides. Over TCP there is one stream
    /// and one answer on it.
    pub(super) fn open_race(&mut self, id: IkeSaId, sent: Box<InitSent>, response: &[u8]) {
        let Some(half_open) = self.half_open.get(&id) else { return };
        if half_open.started_on == IkeTransport::Udp {
            let race = self.races.entry(half_open.channel.spi_i).or_default();
            race.sent = Some(sent);
            race.responses.push(response.to_vec());
            race.branches = vec![id];
        }
    }

    /// This response has been followed already, and led nowhere.
    pub(super) fn has_been_followed(&self, spi_i: u64, response: &[u8]) -> bool {
        self.races.get(&spi_i).is_some_and(|race| race.responses.iter().any(|known| known == response))
    }

    /// Whose message it is: the branch of a race with this SPI of the responder.
    pub(super) fn branch_of(&self, id: IkeSaId, our_spi: u64, spi_r: u64) -> IkeSaId {
        let Some(race) = self.races.get(&our_spi) else { return id };
        let is_it = |branch: &&IkeSaId| self.half_open.get(branch).is_some_and(|b| b.channel.spi_r == spi_r);
        race.branches.iter().find(is_it).copied().unwrap_or(id)
    }

    /// Another response to an IKE_SA_INIT whose first response is being followed.
    pub(super) fn another_response(
        &mut self,
        now: Time,
        id: IkeSaId,
        path: UdpPath,
        raw: &[u8],
        message: Message<'_>,
    ) {
        let Some(spi_i) = self.half_open.get(&id).map(|half_open| half_open.channel.spi_i) else { return };
        let header = message.header;
        let received = Received::new(message.payloads);
        let Some(race) = self.races.get_mut(&spi_i) else {
            return self.core.reject("repeated_init_response");
        };
        let Some(sent) = &race.sent else { return self.core.reject("repeated_init_response") };
        let is_known = race.responses.iter().any(|response| response == raw);
        if is_known || InitSent::asks_to_repeat(&received) || received.error().is_some() {
            return self.core.reject("repeated_init_response");
        }
        if race.branches.len() >= MOST_BRANCHES {
            return self.core.reject("too_many_init_responses");
        }
        let outcome = sent.outcome(&received);
        let Some(half_open) = self.half_open.get(&id) else { return };
        let Some(attempt) = half_open.attempt().cloned() else { return };
        let (ends, began, deadline) =
            (Ends { local: path.local, remote: path.remote }, half_open.began, half_open.deadline);
        let row = self.row_for(id, outcome, true);
        if !row.is_some_and(|row| matches!(row.step, Step::StayOnUdp | Step::UseTcp)) {
            return self.core.reject("init_response_passed_over");
        }
        let Some(race) = self.races.get_mut(&spi_i) else { return };
        let Some(sent) = &mut race.sent else { return };
        let settled = match sent.answered(&received, raw, (spi_i, header.spi_r), ends, &mut self.core.rng) {
            Ok(InitAnswer::Settled(settled)) => settled,
            Ok(InitAnswer::Repeat | InitAnswer::Puzzle(_)) => return,
            Err(error) => return self.core.reject(error.label()),
        };
        let branch = self.core.new_ike_sa_id();
        race.responses.push(raw.to_vec());
        race.branches.push(branch);
        let mut channel = Channel::new(spi_i, header.spi_r, true);
        channel.window.sent(now, Vec::new(), IkeTransport::Udp, attempt.config.ike.retransmit_after);
        channel.window.answered(0);
        let mut half_open = Box::new(HalfOpen {
            id: branch,
            channel,
            link: Link::Udp(path),
            started_on: IkeTransport::Udp,
            began,
            deadline,
            traffic: attempt.traffic,
            init_path: Some(path),
            keepalive: None,
            generations: 0,
            role: Role::Initiator(Initiator { attempt, state: InitiatorState::Taken, puzzles: 0 }),
        });
        half_open.traffic.received(IkeTransport::Udp, raw.len());
        self.half_open.insert(branch, half_open);
        self.init_settled(now, branch, settled);
        self.reschedule(branch);
    }

    /// AUTH has shown that this branch is the peer's: the others are dropped.
    pub(super) fn win_race(&mut self, id: IkeSaId) {
        let Some(half_open) = self.half_open.get(&id) else { return };
        let spi_i = half_open.channel.spi_i;
        let Some(race) = self.races.remove(&spi_i) else { return };
        self.lead(id, spi_i);
        for loser in race.branches.into_iter().filter(|branch| *branch != id) {
            self.core.reject("init_response_lost");
            self.drop_half_open(loser);
        }
    }

    /// A branch has failed. True if the attempt goes on all the same: on another branch, or, as long as the peer's response may
    /// still be under way, with waiting for it (RFC 7296 section 2.21.1).
    pub(super) fn survives(&mut self, id: IkeSaId, now: Time, reason: Reason, detail: &str) -> bool {
        let Some(spi_i) = self.half_open.get(&id).map(|half_open| half_open.channel.spi_i) else {
            return false;
        };
        if let Some(race) = self.races.get_mut(&spi_i)
            && race.branches == [id]
            && let Some(request) = race.sent.take()
            && self.waits_again(id, now, reason, detail, request)
        {
            return true;
        }
        self.leave_race(id)
    }

    fn waits_again(
        &mut self,
        id: IkeSaId,
        now: Time,
        reason: Reason,
        detail: &str,
        request: Box<InitSent>,
    ) -> bool {
        let Some(half_open) = self.half_open.get_mut(&id) else { return false };
        let (began, path) = (half_open.began, half_open.init_path);
        let Some(config) = half_open.attempt().map(|attempt| attempt.config.clone()) else { return false };
        let (wait, whole) = (config.ike.retransmit_after, whole_retransmission_time(&config));
        let says_forger =
            matches!(reason, Reason::ProtocolError | Reason::NoProposalChosen) || reason.is_about_identity();
        let (true, true, Some(path)) = (says_forger, now < began + wait, path) else { return false };
        if let InitiatorState::Auth(_, Some(offer), _) = half_open.take_state() {
            self.core.spi_source.release(offer.spi_in);
        }
        let spi_i = half_open.channel.spi_i;
        half_open.channel = Channel::new(spi_i, 0, true);
        half_open.channel.window.sent(began, vec![request.request.clone()], IkeTransport::Udp, wait);
        half_open.link = Link::Udp(path);
        half_open.deadline = began + whole;
        half_open.keepalive = None;
        if let Some(attempt) = half_open.attempt_mut() {
            attempt.verdict = Some((reason, detail.to_owned()));
        }
        half_open.put_state(InitiatorState::Init(request));
        if let Some(race) = self.races.get_mut(&spi_i) {
            race.branches.clear();
        }
        self.close_streams_of(id);
        true
    }

    /// A branch has failed. True if others are still followed: then nothing else has.
    pub(super) fn leave_race(&mut self, id: IkeSaId) -> bool {
        let Some(half_open) = self.half_open.get(&id) else { return false };
        let spi_i = half_open.channel.spi_i;
        let Some(race) = self.races.get_mut(&spi_i) else { return false };
        race.branches.retain(|branch| *branch != id);
        match race.branches.first().copied() {
            Some(other) => {
                self.lead(other, spi_i);
                self.drop_half_open(id);
                true
            }
            None => {
                self.races.remove(&spi_i);
                false
            }
        }
    }

    /// An attempt is dropped, with every branch of it.
    pub(super) fn drop_attempt(&mut self, id: IkeSaId) {
        let spi_i = self.half_open.get(&id).map(|half_open| half_open.channel.spi_i);
        let race = spi_i.and_then(|spi_i| self.races.remove(&spi_i));
        for branch in race.into_iter().flat_map(|race| race.branches).filter(|branch| *branch != id) {
            self.drop_half_open(branch);
        }
        self.drop_half_open(id);
    }

    /// This branch stands for the attempt from now on.
    fn lead(&mut self, id: IkeSaId, spi_i: u64) {
        self.core.spis.insert(spi_i, id);
        let name =
            self.half_open.get(&id).and_then(|half_open| half_open.attempt()).map(|a| a.config.name.clone());
        if let Some(connection) = name.and_then(|name| self.connections.get_mut(&name))
            && connection.attempt.is_some()
        {
            connection.attempt = Some(id);
        }
    }
}

/// How a response came, if it may be one of several.
pub(super) fn may_be_one_of_several(source: Source) -> Option<UdpPath> {
    match source {
        Source::Udp(path) => Some(path),
        Source::Tcp(_) => None,
    }
}
