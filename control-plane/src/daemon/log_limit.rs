//! The first line, or the first few, at once, then one summary with the number held back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::words::Line;

/// Lines of one kind within this time after the first are held back.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds that are remembered; beyond that lines are written as they come.
const MAX_KINDS: usize = 16_384;

/// What is alike: the connection and what happened to it.
pub type Kind = (String, &'static str);

/// How lines that are alike are limited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// What is alike.
    pub kind: Kind,
    /// Lines written at once, at least one, before others are held back.
    pub burst: u64,
}

impl Limit {
    /// Only the first line of this kind is written at once.
    pub fn one(kind: Kind) -> Self {
        Self { kind, burst: 1 }
    }
}

/// Remembers what was written lately.
#[derive(Debug, Default)]
pub struct LogLimit {
    kinds: HashMap<Kind, Held>,
}

/// What to do with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Write it.
    Write,
    /// A summary will follow.
    HoldBack,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    /// Lines that may still be written at once.
    left: u64,
    /// Boxed: most kinds never have a second line.
    last: Option<Box<Line>>,
    count: u64,
}

impl LogLimit {
    /// Decides about a line.
    pub fn admit(&mut self, limit: Limit, line: &Line, now: Instant) -> Admission {
        let Limit { kind, burst } = limit;
        match self.kinds.get_mut(&kind) {
            Some(held) if held.left > 0 => {
                held.left -= 1;
                Admission::Write
            }
            Some(held) => {
                held.count += 1;
                held.last = Some(Box::new(line.clone()));
                Admission::HoldBack
            }
            None => {
                if self.kinds.len() < MAX_KINDS {
                    let left = burst.saturating_sub(1);
                    self.kinds.insert(kind, Held { since: now, left, last: None, count: 0 });
                }
                Admission::Write
            }
        }
    }

    /// The last line of each kind whose window is over, with the number of lines that it stands for.
    pub fn expire(&mut self, now: Instant) -> Vec<(Line, u64)> {
        let mut summaries = Vec::new();
        self.kinds.retain(|_, held| {
            let is_over = now.duration_since(held.since) >= WINDOW;
            match (is_over, held.last.take()) {
                (true, Some(line)) => {
                    summaries.push((*line, held.count));
                    // The next ones are held back too, so that a storm gives one line a window.
                    *held = Held { since: now, left: 0, last: None, count: 0 };
                    true
                }
                (true, None) => false,
                (false, last) => {
                    held.last = last;
                    true
                }
            }
        });
        // What many connections at once have left behind.
        if self.kinds.len() < self.kinds.capacity() / 4 {
            self.kinds.shrink_to_fit();
        }
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_gives_its_first_line_and_one_summary_a_window() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        let line = Line::for_test("a");
        assert_eq!(limit.admit(kind("x"), &line, start), Admission::Write);
        assert_eq!(limit.admit(kind("x"), &line, start), Admission::HoldBack);
        assert_eq!(limit.admit(kind("y"), &line, start), Admission::Write, "other kinds are not affected");
        assert_eq!(limit.admit(kind("x"), &Line::for_test("b"), start), Admission::HoldBack);
        assert!(limit.expire(start + WINDOW / 2).is_empty());
        let summaries = limit.expire(start + WINDOW);
        assert_eq!(summaries, [(Line::for_test("b"), 2)]);
        assert_eq!(limit.admit(kind("x"), &line, start + WINDOW), Admission::HoldBack);
        assert_eq!(limit.expire(start + 2 * WINDOW).len(), 1);
        assert!(limit.expire(start + 3 * WINDOW).is_empty());
        assert_eq!(limit.admit(kind("x"), &line, start + 3 * WINDOW), Admission::Write);
    }

    #[test]
    fn a_burst_is_written_and_what_follows_is_held_back_until_it_is_quiet() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        let line = Line::for_test("a");
        let mut admit = |at| limit.admit(Limit { burst: 2, ..kind("x") }, &line, at);
        let admissions = [admit(start), admit(start), admit(start)];
        assert_eq!(admissions, [Admission::Write, Admission::Write, Admission::HoldBack]);
        assert_eq!(limit.expire(start + WINDOW).len(), 1);
        let mut admit = |at| limit.admit(Limit { burst: 2, ..kind("x") }, &line, at);
        assert_eq!(admit(start + WINDOW), Admission::HoldBack, "a storm that goes on");
        limit.expire(start + 2 * WINDOW);
        assert!(limit.expire(start + 3 * WINDOW).is_empty());
        let mut admit = |at| limit.admit(Limit { burst: 2, ..kind("x") }, &line, at);
        assert_eq!([admit(start + 3 * WINDOW), admit(start + 3 * WINDOW)], [Admission::Write; 2]);
    }

    fn kind(connection: &str) -> Limit {
        Limit::one((connection.to_owned(), "test"))
    }
}
