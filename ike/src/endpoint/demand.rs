//! What a responder asks of an initiator before it keeps anything for it (RFC 7296 section 2.6, RFC 8019 section 7.1).
//!
//! | half-open SAs of strangers | over UDP | over TCP |
//! | --- | --- | --- |
//! | below `cookie_threshold` | nothing | nothing |
//! | from there on | a cookie | nothing: the address is proven |
//! | from `puzzle_threshold` on | a cookie and a puzzle | a cookie and a puzzle |
//!
//! A configured peer's address is asked for a cookie over UDP once it holds a few places, and never for a puzzle: its places
//! are its own.

use std::collections::BTreeMap;

use core::time::Duration;

use super::cookie::Ticket;
use super::quota::{Quota, Standing};
use crate::config::EndpointConfig;
use crate::path::IkeTransport;
use crate::time::Time;

/// Half-open SAs of one configured peer from which on it has to show that it is there.
const PEER_COOKIE_THRESHOLD: usize = 4;
/// Zero bits that are added as the places of strangers fill up.
const HARDER_UP_TO: usize = 4;
/// A cookie with a puzzle is good for this long.
const PUZZLE_LIFETIME: Duration = Duration::from_secs(60);
/// A solution this much easier than what is asked for by now earns another puzzle (RFC 8019 section 7.1.5).
const TOO_EASY_BY: u8 = 2;
/// Puzzles in a row, at most.
const MOST_ROUNDS: u8 = 3;
/// One in so many requests without a solution is served while there is room (RFC 8019 section 7.1).
const LEGACY_ONE_IN: u32 = 8;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// Nothing.
    Nothing,
    /// A cookie.
    Cookie,
    /// A cookie, and the solution of a puzzle of so many bits.
    Puzzle(u8),
}

impl Demand {
    /// What is asked for now.
    pub(crate) fn of(
        config: &EndpointConfig,
        quota: &Quota,
        standing: Standing,
        of_peer: usize,
        on: IkeTransport,
    ) -> Self {
        let strangers = quota.strangers();
        match (standing, on) {
            (Standing::Peer { .. }, IkeTransport::Udp)
                if of_peer >= PEER_COOKIE_THRESHOLD.min(config.cookie_threshold) =>
            {
                Self::Cookie
            }
            (Standing::Peer { .. }, _) => Self::Nothing,
            (Standing::Stranger, _) if strangers >= config.puzzle_threshold => {
                Self::Puzzle(difficulty(config, strangers))
            }
            (Standing::Stranger, IkeTransport::Udp) if strangers >= config.cookie_threshold => Self::Cookie,
            (Standing::Stranger, _) => Self::Nothing,
        }
    }
}

/// Harder the fewer places are left (RFC 8019 section 10).
fn difficulty(config: &EndpointConfig, strangers: usize) -> u8 {
    let span = config.max_half_open.saturating_sub(config.puzzle_threshold).max(1);
    let above = strangers.saturating_sub(config.puzzle_threshold).min(span);
    let harder = u8::try_from(above * HARDER_UP_TO / span).unwrap_or_default();
    config.puzzle_difficulty.saturating_add(harder)
}

/// What a repeated request with a good cookie has earned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is served.
    Serve,
    /// It gets a puzzle, the so-many-th in a row.
    Puzzle(u8),
}

/// What the puzzle of a returned cookie came back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Solution {
    /// None.
    Missing,
    /// A wrong one.
    Wrong,
    /// A right one.
    Right,
}

/// RFC 8019 sections 7.1.4 and 7.1.5, where a puzzle of `bits` is asked for by now. `lottery` is a random number.
pub(crate) fn judge(
    now: Time,
    ticket: &Ticket,
    solution: Solution,
    bits: u8,
    has_room: bool,
    lottery: u32,
) -> Verdict {
    let Some(given) = ticket.puzzle.filter(|_| now.since(ticket.baked) <= PUZZLE_LIFETIME) else {
        return Verdict::Puzzle(1);
    };
    match solution {
        Solution::Right if given.difficulty + TOO_EASY_BY < bits && ticket.round < MOST_ROUNDS => {
            Verdict::Puzzle(ticket.round + 1)
        }
        Solution::Right => Verdict::Serve,
        Solution::Missing if has_room && lottery.is_multiple_of(LEGACY_ONE_IN) => Verdict::Serve,
        Solution::Missing | Solution::Wrong => Verdict::Puzzle(ticket.round.min(MOST_ROUNDS)),
    }
}

/// Puzzle cookies that have bought an IKE SA: each does so once (RFC 8019 section 10).
#[derive(Debug)]
pub(crate) struct Spent {
    most: usize,
    until: BTreeMap<(Time, (u8, u32)), ()>,
}

impl Spent {
    /// Remembers at most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, until: BTreeMap::new() }
    }

    /// This one has been used, or so many are remembered that nobody could tell.
    pub(crate) fn has(&mut self, now: Time, ticket: &Ticket) -> bool {
        while let Some(oldest) = self.until.first_entry()
            && oldest.key().0 + PUZZLE_LIFETIME < now
        {
            oldest.remove();
        }
        self.until.len() >= self.most || self.until.contains_key(&(ticket.baked, ticket.serial))
    }

    /// It is used now.
    pub(crate) fn spend(&mut self, ticket: &Ticket) {
        if ticket.puzzle.is_some() {
            self.until.insert((ticket.baked, ticket.serial), ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PrfId, PuzzleDemand};
    use std::net::IpAddr;

    #[test]
    fn what_is_asked_for_grows_with_the_strangers() {
        let config = EndpointConfig {
            cookie_threshold: 2,
            puzzle_threshold: 4,
            max_half_open: 8,
            ..EndpointConfig::default()
        };
        let mut quota = Quota::new(8, 8, 8);
        let asked = |quota: &Quota, on| Demand::of(&config, quota, Standing::Stranger, 0, on);
        let mut seen = Vec::new();
        for n in 0..8u8 {
            seen.push((asked(&quota, IkeTransport::Udp), asked(&quota, IkeTransport::Tcp)));
            assert!(quota.admit(IpAddr::from([10, n, 0, 1]), Standing::Stranger));
        }
        use Demand::{Cookie, Nothing, Puzzle};
        let bits = config.puzzle_difficulty;
        let puzzle = |more| (Puzzle(bits + more), Puzzle(bits + more));
        let expected = [(Nothing, Nothing), (Nothing, Nothing), (Cookie, Nothing), (Cookie, Nothing)];
        assert_eq!(seen[..4], expected);
        assert_eq!(seen[4..], [puzzle(0), puzzle(1), puzzle(2), puzzle(3)]);
        assert_eq!(asked(&quota, IkeTransport::Udp), Puzzle(bits + 4));
        let peer = |held, on| Demand::of(&config, &quota, Standing::Peer { connections: 1 }, held, on);
        assert_eq!(
            [peer(0, IkeTransport::Udp), peer(2, IkeTransport::Udp), peer(9, IkeTransport::Tcp)],
            [Nothing, Cookie, Nothing]
        );
    }

    /// RFC 8019 section 7.1.4 and 7.1.5.
    #[test]
    fn who_solved_is_served_and_who_did_not_may_win_the_lottery() {
        let judge =
            |ticket: &Ticket, solution, room, lottery| judge(at(10), ticket, solution, 18, room, lottery);
        let given = ticket(Some(18), 1);
        assert_eq!(judge(&given, Solution::Right, false, 1), Verdict::Serve);
        assert_eq!(judge(&given, Solution::Wrong, true, 0), Verdict::Puzzle(1));
        assert_eq!(judge(&given, Solution::Missing, true, 8), Verdict::Serve);
        assert_eq!(judge(&given, Solution::Missing, true, 9), Verdict::Puzzle(1));
        assert_eq!(judge(&given, Solution::Missing, false, 8), Verdict::Puzzle(1));
        assert_eq!(
            judge(&ticket(None, 0), Solution::Missing, true, 8),
            Verdict::Puzzle(1),
            "no puzzle was given"
        );
        assert_eq!(
            judge(&ticket(Some(15), 1), Solution::Right, true, 1),
            Verdict::Puzzle(2),
            "it was too easy"
        );
        assert_eq!(judge(&ticket(Some(15), 3), Solution::Right, true, 1), Verdict::Serve, "three are enough");
        let stale = super::judge(at(61), &given, Solution::Right, 18, true, 1);
        assert_eq!(stale, Verdict::Puzzle(1));
    }

    /// RFC 8019 section 10: a solution is good once.
    #[test]
    fn a_solution_buys_one_ike_sa_and_memory_is_bounded() {
        let mut spent = Spent::new(2);
        let tickets = [1, 2, 3].map(|serial| Ticket { serial: (0, serial), ..ticket(Some(18), 1) });
        assert!(!spent.has(at(1), &tickets[0]));
        spent.spend(&tickets[0]);
        assert!(spent.has(at(1), &tickets[0]) && !spent.has(at(1), &tickets[1]));
        spent.spend(&tickets[1]);
        assert!(spent.has(at(1), &tickets[2]), "no room to remember it");
        assert!(!spent.has(at(62), &tickets[2]) && spent.until.is_empty());
    }

    fn ticket(bits: Option<u8>, round: u8) -> Ticket {
        let puzzle = bits.map(|difficulty| PuzzleDemand { prf: PrfId::HMAC_SHA2_256, difficulty });
        Ticket { puzzle, round, baked: Time::ZERO, serial: (0, 1) }
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }
}
