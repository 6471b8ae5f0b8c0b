//! Packets that wait until the carrier of their path is known (transport policy rule 4).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::sa::PathId;

/// Packets that one path may hold.
const PER_PATH: usize = 64;
/// How long a packet may wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// Held packets of one worker, by path, bounded for each and in all.
pub struct HoldQueues<T> {
    paths: HashMap<PathId, VecDeque<(Duration, T)>>,
    len: usize,
    limit: usize,
}

impl<T> HoldQueues<T> {
    /// Queues that hold at most `limit` packets together.
    pub fn new(limit: usize) -> Self {
        Self { paths: HashMap::new(), len: 0, limit }
    }

    /// Holds an item; gives one back that has to go instead: the oldest of its path, or itself if all is full.
    pub fn hold(&mut self, path: PathId, now: Duration, item: T) -> Option<T> {
        if self.len >= self.limit {
            return Some(item);
        }
        let queue = self.paths.entry(path).or_default();
        queue.push_back((now + PATIENCE, item));
        if queue.len() > PER_PATH {
            return queue.pop_front().map(|(_, oldest)| oldest);
        }
        self.len += 1;
        None
    }

    /// Everything held for a path, oldest first.
    pub fn release(&mut self, path: PathId) -> impl Iterator<Item = T> + use<T> {
        let queue = self.paths.remove(&path).unwrap_or_default();
        self.len -= queue.len();
        queue.into_iter().map(|(_, item)| item)
    }

    /// Takes out what has waited too long.
    pub fn expire(&mut self, now: Duration) -> Vec<T> {
        let mut expired = Vec::new();
        if self.len == 0 {
            return expired;
        }
        self.paths.retain(|_, queue| {
            while queue.front().is_some_and(|(deadline, _)| *deadline <= now) {
                expired.extend(queue.pop_front().map(|(_, item)| item));
            }
            !queue.is_empty()
        });
        self.len -= expired.len();
        expired
    }

    /// Packets held now.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: PathId = PathId(1);

    #[test]
    fn a_path_holds_the_last_64_packets_in_order() {
        let mut held = HoldQueues::new(1000);
        let gone: Vec<_> = (0..70).filter_map(|i| held.hold(PATH, Duration::ZERO, i)).collect();
        assert_eq!(gone, (0..6).collect::<Vec<_>>());
        assert_eq!(held.len(), 64);
        assert_eq!(held.release(PATH).collect::<Vec<_>>(), (6..70).collect::<Vec<_>>());
        assert!(held.is_empty());
    }

    #[test]
    fn a_packet_waits_one_second_and_no_longer() {
        let mut held = HoldQueues::new(1000);
        held.hold(PATH, Duration::from_millis(0), 'a');
        held.hold(PATH, Duration::from_millis(500), 'b');
        assert!(held.expire(Duration::from_millis(999)).is_empty());
        assert_eq!(held.expire(Duration::from_millis(1000)), ['a']);
        assert_eq!(held.expire(Duration::from_millis(1500)), ['b']);
        assert!(held.is_empty());
    }

    #[test]
    fn many_paths_together_stay_below_the_limit() {
        let mut held = HoldQueues::new(100);
        let refused = (0..200).filter_map(|i| held.hold(PathId(i), Duration::ZERO, i)).count();
        assert_eq!((refused, held.len()), (100, 100));
    }
}
