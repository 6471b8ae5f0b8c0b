//! Client puzzles (RFC 8019): what an initiator under suspicion has to compute before it is served.
//!
//! A puzzle asks for four different keys of one size for which prf(key, string) ends in a number of zero bits. The string
//! is the cookie in IKE_SA_INIT (section 7.1.3), and Nr | SPIr in IKE_AUTH (section 7.2.3). The endpoint makes and checks
//! puzzles itself; the search goes to its caller, who has a thread for it: [`Search::run`] is a pure step of it.

use core::fmt;

use crate::codec::{PrfId, PuzzleDemand};
use crate::crypto::Prf;

/// Keys in a solution (RFC 8019 section 7.1.3).
const KEYS: usize = 4;
/// Octets of each key that a search tries.
const KEY_LEN: usize = 4;
/// Zero bits that are found where the responder leaves the difficulty to us (difficulty 0, RFC 8019 section 7.1.1.1).
const FREE_DIFFICULTY: u8 = 16;

/// A puzzle to be solved or checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Puzzle {
    prf: Prf,
    string: Vec<u8>,
    difficulty: u8,
}

impl Puzzle {
    /// A puzzle over this string.
    pub(crate) fn new(prf: Prf, string: Vec<u8>, difficulty: u8) -> Self {
        Self { prf, string, difficulty }
    }

    /// What a peer asks for; `None` if it is with a function that we do not have.
    pub(crate) fn demanded(demand: PuzzleDemand, string: Vec<u8>) -> Option<Self> {
        Some(Self::new(Prf::from_id(demand.prf.0)?, string, demand.difficulty))
    }

    /// The demand for a PUZZLE notification.
    pub(crate) fn demand(&self) -> PuzzleDemand {
        PuzzleDemand { prf: PrfId(self.prf.id()), difficulty: self.difficulty }
    }

    /// Zero bits that each result has to end in; what we choose where the responder leaves it to us.
    pub fn difficulty(&self) -> u8 {
        if self.difficulty == 0 { FREE_DIFFICULTY } else { self.difficulty }
    }

    /// Solved by this Puzzle Solution Data: four different keys of one size, none longer than the function prefers, all of
    /// which are checked (RFC 8019 sections 7.1.4 and 8.2).
    pub(crate) fn is_solved_by(&self, solution: &[u8]) -> bool {
        let len = solution.len() / KEYS;
        if len == 0 || len > self.prf.output_len() || !solution.len().is_multiple_of(KEYS) {
            return false;
        }
        let keys: Vec<&[u8]> = solution.chunks_exact(len).collect();
        let differ =
            keys.iter().enumerate().all(|(n, key)| keys.iter().skip(n + 1).all(|other| other != key));
        // No short cut: the time tells nothing about which key is wrong.
        keys.into_iter().filter(|key| self.is_hit(key, self.difficulty)).count() == KEYS && differ
    }

    fn is_hit(&self, key: &[u8], zero_bits: u8) -> bool {
        trailing_zero_bits(&self.prf.compute(key, &[&self.string])) >= u32::from(zero_bits)
    }
}

impl fmt::Debug for Puzzle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Puzzle({:?}, {} bits)", self.prf, self.difficulty)
    }
}

/// The search for a solution, as far as it has come.
#[derive(Clone, Debug)]
pub struct Search {
    puzzle: Puzzle,
    next: u32,
    found: Vec<u8>,
    exhausted: bool,
}

/// What a step of a search has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Here is the Puzzle Solution Data.
    Solved(Vec<u8>),
    /// Go on.
    More,
    /// No key is left to try.
    Exhausted,
}

impl Search {
    /// A search that has tried nothing. The string of a puzzle is never the same twice, so every search starts at the same
    /// key.
    pub fn new(puzzle: Puzzle) -> Self {
        Self { puzzle, next: 0, found: Vec::with_capacity(KEYS * KEY_LEN), exhausted: false }
    }

    /// Tries up to `tries` more keys; one takes about a microsecond, and a solution 4 × 2^difficulty of them on average.
    pub fn run(&mut self, tries: u32) -> Step {
        for _ in 0..tries {
            if self.exhausted {
                return Step::Exhausted;
            }
            let key = self.next.to_be_bytes();
            match self.next.checked_add(1) {
                Some(next) => self.next = next,
                None => self.exhausted = true,
            }
            if self.puzzle.is_hit(&key, self.puzzle.difficulty()) {
                self.found.extend_from_slice(&key);
                if self.found.len() == KEYS * KEY_LEN {
                    return Step::Solved(core::mem::take(&mut self.found));
                }
            }
        }
        Step::More
    }
}

fn trailing_zero_bits(octets: &[u8]) -> u32 {
    let mut bits = 0;
    for octet in octets.iter().rev() {
        bits += octet.trailing_zeros();
        if *octet != 0 {
            break;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::prf::tests::unhex;

    /// Computed with another implementation of HMAC: the first four keys of 12 bits for the cookie of RFC 8019 section 4.4.
    /// The keys that the RFC itself gives for it are not reproducible with PRF_HMAC_SHA2_256.
    #[test]
    fn a_known_solution_is_found_and_accepted() {
        let cookie = unhex("739ae7492d8a810cf5e8dc0f9626c9dda773c5a3");
        let puzzle = |bits| Puzzle::new(Prf::HmacSha256, cookie.clone(), bits);
        let solution = unhex("000000df000028b700002ed10000340a");
        assert_eq!(solve(&puzzle(12)), solution);
        assert!(puzzle(12).is_solved_by(&solution) && !puzzle(20).is_solved_by(&solution));
    }

    #[test]
    fn a_search_finds_what_a_check_accepts() {
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            let puzzle = Puzzle::new(prf, b"a cookie".to_vec(), 8);
            let solution = solve(&puzzle);
            assert_eq!(solution.len(), 16);
            assert!(puzzle.is_solved_by(&solution));
            let other = Puzzle::new(prf, b"another cookie".to_vec(), 8);
            assert!(!other.is_solved_by(&solution), "a solution is good for its string alone");
        }
    }

    /// RFC 8019 section 7.1.4: "The Responder MUST check all of the four returned keys."
    #[test]
    fn one_wrong_key_of_four_is_no_solution() {
        let puzzle = Puzzle::new(Prf::HmacSha256, b"a cookie".to_vec(), 8);
        let solution = solve(&puzzle);
        for wrong in 0..4 {
            let mut changed = solution.clone();
            changed[4 * wrong] ^= 0x80;
            assert!(!puzzle.is_solved_by(&changed), "key {wrong}");
        }
    }

    /// RFC 8019 section 7.1.3: "four different, equal-sized keys"; section 8.2: 1 octet to the preferred key length.
    #[test]
    fn the_same_key_twice_is_no_solution_and_neither_is_a_wrong_size() {
        let puzzle = Puzzle::new(Prf::HmacSha256, b"a cookie".to_vec(), 8);
        let solution = solve(&puzzle);
        let twice = [&solution[..12], &solution[..4]].concat();
        assert!(!puzzle.is_solved_by(&twice));
        assert!(!puzzle.is_solved_by(&[]));
        assert!(!puzzle.is_solved_by(&solution[..15]));
        assert!(!Puzzle::new(Prf::HmacSha256, Vec::new(), 0).is_solved_by(&[0; 4 * 33]));
    }

    /// RFC 8019 section 7.1.1.1: with difficulty 0 the initiator chooses, and the responder takes what it gets.
    #[test]
    fn difficulty_zero_is_solved_with_a_difficulty_of_our_own() {
        let free = Puzzle::new(Prf::HmacSha256, b"cookie".to_vec(), 0);
        assert_eq!(free.difficulty(), FREE_DIFFICULTY);
        assert!(free.is_solved_by(&solve(&Puzzle::new(Prf::HmacSha256, b"cookie".to_vec(), 4))));
    }

    #[test]
    fn zero_bits_are_counted_from_the_end() {
        assert_eq!(trailing_zero_bits(&[0xff, 0b1000]), 3);
        assert_eq!(trailing_zero_bits(&[0x80, 0, 0]), 23);
        assert_eq!(trailing_zero_bits(&[0, 0]), 16);
    }

    #[test]
    fn a_search_goes_on_where_it_stopped() {
        let puzzle = Puzzle::new(Prf::HmacSha256, b"a cookie".to_vec(), 6);
        let mut search = Search::new(puzzle.clone());
        let mut steps = 0;
        let solution = loop {
            steps += 1;
            match search.run(10) {
                Step::Solved(solution) => break solution,
                Step::More => {}
                Step::Exhausted => panic!("six bits are found soon"),
            }
        };
        assert!(steps > 1 && puzzle.is_solved_by(&solution));
        assert_eq!(solution, solve(&puzzle));
    }

    #[test]
    fn the_last_key_ends_a_search() {
        let mut search = Search::new(Puzzle::new(Prf::HmacSha256, b"a cookie".to_vec(), 200));
        search.next = u32::MAX - 1;
        assert_eq!(search.run(2), Step::More);
        assert_eq!(search.run(1), Step::Exhausted);
    }

    fn solve(puzzle: &Puzzle) -> Vec<u8> {
        match Search::new(puzzle.clone()).run(1 << 20) {
            Step::Solved(solution) => solution,
            other => panic!("{other:?}"),
        }
    }
}
