//! Cookies and puzzles (RFC 7296 section 2.6, RFC 8019 section 7), both roles: a responder that asks for them before it
//! keeps anything, and an initiator whose caller searches for solutions.

use std::net::IpAddr;

use rand_core::Rng as _;

use super::Endpoint;
use super::cookie::{Bearer, Ticket};
use super::demand::{self, Demand, Solution, Verdict};
use super::half_open::{InitiatorState, Role};
use super::quota::Standing;
use crate::action::{Action, IkeSaId, PuzzleId};
use crate::codec::{ExchangeType, Header, Message, NotifyType, Payload, PrfId, PuzzleDemand, TransformType};
use crate::crypto::Prf;
use crate::live::Source;
use crate::puzzle::Puzzle;
use crate::sa::error::ExchangeError;
use crate::sa::init::InitSent;
use crate::sa::payloads::{self, Received};
use crate::sa::settled::Settled;
use crate::status::Reason;
use crate::time::Time;

/// With fewer half-open SAs than this, messages that do not authenticate are no attack worth a puzzle in IKE_AUTH.
const AUTH_PUZZLE_FROM: usize = 16;
/// One in so many half-open SAs with a message that does not authenticate is one (RFC 8019 section 7.2).
const ATTACKED_ONE_IN: usize = 4;

/// A request that is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// From where it comes.
    pub(crate) standing: Standing,
    /// What its cookie remembers, if one was asked for.
    pub(crate) ticket: Option<Ticket>,
    /// It has solved a puzzle.
    pub(crate) has_solved: bool,
}

impl Endpoint {
    /// What a request has to show before anything is kept for it; `None` if it has been answered with what is asked for, or
    /// dropped.
    pub(super) fn admission(
        &mut self,
        now: Time,
        source: Source,
        header: &Header,
        received: &Received,
        address: IpAddr,
    ) -> Option<Admission> {
        let standing = self.standing(address);
        let of_peer = self.half_open_quota.of_peer(address);
        let demand =
            Demand::of(&self.core.config, &self.half_open_quota, standing, of_peer, source.transport());
        if demand == Demand::Nothing {
            return Some(Admission { standing, ticket: None, has_solved: false });
        }
        let Some(nonce) = &received.nonce else {
            self.core.reject("missing_or_repeated_payload");
            return None;
        };
        let bearer = Bearer { nonce, address, spi: header.spi_i };
        let cookie = received.first(NotifyType::COOKIE);
        let (jar, rng) = (&mut self.cookies, &mut self.core.rng);
        let ticket =
            cookie.and_then(|cookie| jar.verify(now, rng, &cookie.data, bearer).map(|t| (t, cookie)));
        match (demand, ticket) {
            (Demand::Nothing, _) => None,
            (Demand::Cookie, Some((ticket, _))) => {
                Some(Admission { standing, ticket: Some(ticket), has_solved: false })
            }
            (Demand::Cookie, None) => {
                self.demand_more(now, source, header, bearer, None, 0);
                None
            }
            (Demand::Puzzle(bits), ticket) => {
                let verdict = match ticket {
                    None => Verdict::Puzzle(1),
                    Some((ticket, cookie)) => {
                        let solution = self.solution(now, &ticket, &cookie.data, received);
                        let has_room = self.has_room_for_legacy();
                        let lottery = self.core.rng.next_u32();
                        let verdict = demand::judge(now, &ticket, solution, bits, has_room, lottery);
                        if verdict == Verdict::Serve {
                            let has_solved = solution == Solution::Right;
                            self.core.counters.puzzles_waived += u64::from(!has_solved);
                            return Some(Admission { standing, ticket: Some(ticket), has_solved });
                        }
                        verdict
                    }
                };
                let Verdict::Puzzle(round) = verdict else { return None };
                match puzzle_prf(received) {
                    Some(prf) => {
                        let puzzle = PuzzleDemand { prf: PrfId(prf.id()), difficulty: bits };
                        self.demand_more(now, source, header, bearer, Some(puzzle), round);
                    }
                    None => self.init_error(source, header, ExchangeError::NoProposal),
                }
                None
            }
        }
    }

    /// The puzzle of IKE_AUTH: only while many half-open SAs get messages that do not authenticate, and only for an initiator
    /// that has solved one in IKE_SA_INIT (RFC 8019 section 7.2.1).
    pub(super) fn auth_puzzle(&self, admission: &Admission) -> Option<u8> {
        let held = self.half_open_quota.held();
        let is_under_attack = held >= AUTH_PUZZLE_FROM && self.attacked * ATTACKED_ONE_IN >= held;
        (admission.has_solved && is_under_attack).then_some(self.core.config.puzzle_difficulty.max(1))
    }

    /// RFC 8019 section 7.2.4: an IKE_AUTH request without the solution that it needs is silently discarded. Only the first
    /// fragment carries it; others are authentic or not by the keys that exist already.
    pub(super) fn auth_puzzle_is_solved(&mut self, id: IkeSaId, message: &Message<'_>) -> bool {
        let is_auth = message.header.exchange == ExchangeType::IKE_AUTH && !message.header.flags.response;
        let fragment = message.encrypted.as_ref().and_then(|encrypted| encrypted.fragment);
        let responder = self.half_open.get_mut(&id).and_then(|half_open| half_open.responder_mut());
        let Some(responder) = responder else { return true };
        let Some(settled) = &mut responder.settled else { return true };
        let Some(puzzle) = settled.puzzle.as_ref().filter(|_| is_auth) else { return true };
        if fragment.is_some_and(|fragment| fragment.number != 1) {
            return true;
        }
        let solution = message.payloads.iter().find_map(Payload::as_ps);
        let is_right = solution.is_some_and(|solution| puzzle.is_solved_by(&solution.0));
        if is_right {
            settled.puzzle = None;
        }
        self.count_solution(is_right);
        if !is_right {
            self.core.reject("no_puzzle_solution");
        }
        is_right
    }

    /// A message for a half-open SA of the responder did not authenticate.
    pub(super) fn note_attack(&mut self, id: IkeSaId) {
        let responder = self.half_open.get_mut(&id).and_then(|half_open| half_open.responder_mut());
        if let Some(responder) = responder
            && !core::mem::replace(&mut responder.is_attacked, true)
        {
            self.attacked += 1;
        }
    }

    /// A puzzle came with a cookie: its solution goes into the next request (RFC 8019 section 7.1.2).
    pub(super) fn init_puzzle(&mut self, now: Time, id: IkeSaId, sent: Box<InitSent>, puzzle: Puzzle) {
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        half_open.channel.window.withdraw();
        if puzzle.difficulty() > self.core.config.max_puzzle_difficulty {
            half_open.put_state(InitiatorState::Init(sent));
            self.core.counters.puzzles_taken[1] += 1;
            self.note_hard_puzzle(id, &puzzle);
            return self.send_init(now, id);
        }
        half_open.put_state(InitiatorState::InitPuzzle(sent));
        self.search(now, id, puzzle);
    }

    /// A puzzle came with the IKE_SA_INIT response: it has to be solved before IKE_AUTH (RFC 8019 section 7.2.2).
    pub(super) fn auth_puzzle_taken(&mut self, now: Time, id: IkeSaId, mut settled: Box<Settled>) {
        let Some(puzzle) = settled.puzzle.take() else { return self.go_on(now, id, settled) };
        if puzzle.difficulty() > self.core.config.max_puzzle_difficulty {
            self.core.counters.puzzles_taken[1] += 1;
            return self.fail(now, id, Reason::PuzzleTooHard, too_hard(&puzzle));
        }
        if let Some(half_open) = self.half_open.get_mut(&id) {
            half_open.put_state(InitiatorState::AuthPuzzle(settled));
        }
        self.search(now, id, puzzle);
    }

    /// The outcome of [`Action::SolvePuzzle`]: the Puzzle Solution Data, or none in the time given. One for a search that
    /// nobody waits for any more is ignored.
    pub fn handle_puzzle(&mut self, now: Time, search: PuzzleId, solution: Option<Vec<u8>>) {
        let id = search.ike_sa;
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Role::Initiator(initiator) = &half_open.role else { return };
        if initiator.puzzles != search.number {
            return;
        }
        let timeout = initiator.attempt.config.ike.tcp_timeout;
        let was_solved = solution.is_some();
        match half_open.take_state() {
            InitiatorState::InitPuzzle(mut sent) => {
                sent.solve(solution);
                half_open.put_state(InitiatorState::Init(sent));
                half_open.deadline = half_open.deadline.max(now + timeout);
                self.send_init(now, id);
            }
            InitiatorState::AuthPuzzle(settled) => match solution {
                Some(solution) => {
                    half_open.deadline = half_open.deadline.max(now + timeout);
                    self.send_auth(now, id, settled, Some(solution));
                }
                None => {
                    let detail = "no solution of the peer's puzzle was found in ike.puzzle_time";
                    self.fail(now, id, Reason::PuzzleTooHard, detail.into());
                }
            },
            state => {
                half_open.put_state(state);
                return;
            }
        }
        let [solved, given_up] = &mut self.core.counters.puzzles_taken;
        *(if was_solved { solved } else { given_up }) += 1;
        self.touch(now, id);
    }

    fn search(&mut self, now: Time, id: IkeSaId, puzzle: Puzzle) {
        let most = self.core.config.puzzle_time;
        let Some(half_open) = self.half_open.get_mut(&id) else { return };
        let Role::Initiator(initiator) = &mut half_open.role else { return };
        initiator.puzzles = initiator.puzzles.wrapping_add(1);
        let search = PuzzleId { ike_sa: id, number: initiator.puzzles };
        // The peer is not silent while we think.
        half_open.deadline = half_open.deadline.max(now + most + initiator.attempt.config.ike.tcp_timeout);
        self.core.actions.push_back(Action::SolvePuzzle { search, puzzle, most });
    }

    fn note_hard_puzzle(&mut self, id: IkeSaId, puzzle: &Puzzle) {
        let detail = too_hard(puzzle);
        if let Some(attempt) = self.half_open.get_mut(&id).and_then(|half_open| half_open.attempt_mut()) {
            attempt.hard_puzzle = Some(detail);
        }
    }

    /// A cookie, and a puzzle if it has to be; over TCP only both together (RFC 9329 section 6.3).
    fn demand_more(
        &mut self,
        now: Time,
        source: Source,
        header: &Header,
        bearer: Bearer<'_>,
        puzzle: Option<PuzzleDemand>,
        round: u8,
    ) {
        let cookie = self.cookies.bake(now, &mut self.core.rng, bearer, puzzle, round);
        self.core.counters.cookies_sent += 1;
        self.core.counters.puzzles_given += u64::from(puzzle.is_some());
        let mut out = vec![payloads::notify_with(NotifyType::COOKIE, cookie)];
        out.extend(puzzle.map(payloads::puzzle));
        self.plain_response(source, header, &out);
        if let Source::Tcp(stream) = source {
            self.core.streams.expect_repeated(now, stream);
            self.reschedule_streams();
        }
    }

    /// RFC 8019 section 7.1.4: PS counts only where a puzzle was given, and all of it is checked.
    fn solution(&mut self, now: Time, ticket: &Ticket, cookie: &[u8], received: &Received) -> Solution {
        let Some(demand) = ticket.puzzle else { return Solution::Missing };
        let Some(solution) = &received.puzzle_solution else { return Solution::Missing };
        let is_right = !self.spent.has(now, ticket)
            && Puzzle::demanded(demand, cookie.to_vec()).is_some_and(|puzzle| puzzle.is_solved_by(solution));
        self.count_solution(is_right);
        if is_right { Solution::Right } else { Solution::Wrong }
    }

    fn count_solution(&mut self, is_right: bool) {
        let [right, wrong] = &mut self.core.counters.puzzle_solutions;
        *(if is_right { right } else { wrong }) += 1;
    }

    /// The last quarter of the places is for those who solve puzzles.
    fn has_room_for_legacy(&self) -> bool {
        self.half_open_quota.strangers() < self.core.config.max_half_open / 4 * 3
    }
}

/// The first pseudorandom function of the initiator's offer that we have too (RFC 8019 section 7.1.1.2).
fn puzzle_prf(received: &Received) -> Option<Prf> {
    let transforms = received.sa.iter().flatten().flat_map(|proposal| &proposal.transforms);
    transforms
        .filter(|transform| transform.transform_type == TransformType::PRF)
        .find_map(|transform| Prf::from_id(transform.id))
}

fn too_hard(puzzle: &Puzzle) -> String {
    format!(
        "the peer is under load and asks for a puzzle of {} bits: raise ike.max_puzzle_difficulty here, or wait",
        puzzle.difficulty()
    )
}
