//! Searches for the solutions of puzzles (RFC 8019), off the shard's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_ike::action::PuzzleId;
use portcullis_ike::puzzle::{Puzzle, Search, Step};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::input::{Input, InputSender};

/// Keys between two looks at the clock: a few milliseconds of work.
const STEP: u32 = 4096;

/// One search at a time for a shard: peers under attack must not take this gateway's processors for themselves. Those that
/// wait have less time.
#[derive(Debug)]
pub struct Puzzles(Arc<Semaphore>);

impl Default for Puzzles {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Puzzles {
    /// Searches for at most `most` and tells the shard.
    pub fn solve(
        &self,
        search: PuzzleId,
        puzzle: Puzzle,
        most: Duration,
        shard: InputSender,
        network: &Handle,
    ) {
        let turn = Arc::clone(&self.0);
        network.spawn(async move {
            let deadline = Instant::now() + most;
            let waited = tokio::time::timeout_at(deadline.into(), turn.acquire()).await;
            let solution = match waited {
                Ok(Ok(_permit)) => {
                    tokio::task::spawn_blocking(move || find(puzzle, deadline)).await.ok().flatten()
                }
                _ => None,
            };
            let _ = shard.send(Input::Puzzle { search, solution }).await;
        });
    }
}

fn find(puzzle: Puzzle, deadline: Instant) -> Option<Vec<u8>> {
    let mut search = Search::new(puzzle);
    while Instant::now() < deadline {
        match search.run(STEP) {
            Step::Solved(solution) => return Some(solution),
            Step::More => {}
            Step::Exhausted => return None,
        }
    }
    None
}
