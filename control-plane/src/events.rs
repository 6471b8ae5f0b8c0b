//! The events stream: what happened lately, numbered, for readers that come and go.
//!
//! A ring holds the latest events; a reader that comes back says what it saw last and gets what it missed, or is told
//! that something is missing. Each reader has a bounded queue of its own: one that does not keep up is cut off and
//! counted, and never slows what produces events.

mod view;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

pub use view::EventView;

/// Events that are kept for readers that come back.
const RING: usize = 4096;
/// Events that may wait for one reader, on top of those it asked to have again.
const QUEUE: usize = 256;
/// Readers at a time.
pub const MAX_READERS: usize = 64;

/// The latest events and those who read them.
#[derive(Debug)]
pub struct Events {
    /// Tells the numbers of this process from those of others.
    epoch: u64,
    ring: Mutex<Ring>,
    cut_off: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    kept: VecDeque<Numbered>,
    readers: Vec<mpsc::Sender<Numbered>>,
}

/// One event with its number.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// Its number in this process.
    pub number: u64,
    /// Its kind.
    pub kind: &'static str,
    /// JSON.
    pub data: Arc<str>,
}

/// What a new reader gets.
#[derive(Debug)]
pub struct Subscription {
    /// Something between what the reader saw last and `missed` is not kept any more.
    pub has_gap: bool,
    /// What it missed.
    pub missed: Vec<Numbered>,
    /// What comes. It ends when the reader is too slow.
    pub coming: mpsc::Receiver<Numbered>,
}

impl Events {
    /// No event yet.
    pub fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let epoch = u64::try_from(epoch).unwrap_or(u64::MAX);
        Self { epoch, ring: Mutex::default(), cut_off: AtomicU64::new(0) }
    }

    /// Something has happened.
    pub fn publish(&self, event: &EventView) {
        let Ok(data) = serde_json::to_string(event) else { return };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = Numbered { number: ring.next, kind: event.kind, data: data.into() };
        ring.next += 1;
        if ring.kept.len() == RING {
            ring.kept.pop_front();
        }
        ring.kept.push_back(numbered.clone());
        ring.readers.retain(|reader| match reader.try_send(numbered.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
                false
            }
        });
    }

    /// A reader comes, or comes back after the event `last`. `None` if there are too many of them.
    pub fn subscribe(&self, last: Option<&str>) -> Option<Subscription> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.readers.retain(|reader| !reader.is_closed());
        if ring.readers.len() >= MAX_READERS {
            return None;
        }
        let (has_gap, from) = match last.map(|id| self.number_of(id)) {
            None => (false, ring.next),
            // Of another process, or no number of ours: everything that is kept may be news.
            Some(None) => (true, 0),
            Some(Some(number)) => (false, number.saturating_add(1).min(ring.next)),
        };
        let oldest = ring.kept.front().map_or(ring.next, |event| event.number);
        let missed = ring.kept.iter().filter(|event| event.number >= from).cloned().collect();
        let (sender, coming) = mpsc::channel(QUEUE);
        ring.readers.push(sender);
        Some(Subscription { has_gap: has_gap || from < oldest, missed, coming })
    }

    /// The identifier of an event.
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// Readers that were too slow.
    pub fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Readers now.
    pub fn readers(&self) -> usize {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.readers.iter().filter(|reader| !reader.is_closed()).count()
    }

    fn number_of(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        if epoch.parse() == Ok(self.epoch) { number.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_comes_back_gets_what_it_missed() {
        let events = Events::new();
        publish(&events, 3);
        let fresh = events.subscribe(None).unwrap();
        assert!(!fresh.has_gap && fresh.missed.is_empty(), "a new reader starts now");
        let back = events.subscribe(Some(&events.id(0))).unwrap();
        assert_eq!((back.has_gap, numbers(&back)), (false, vec![1, 2]));
        publish(&events, RING);
        let late = events.subscribe(Some(&events.id(0))).unwrap();
        assert!(late.has_gap);
        assert_eq!((late.missed.len(), numbers(&late)[0]), (RING, 3));
    }

    #[test]
    fn a_number_of_another_process_is_a_gap() {
        let events = Events::new();
        publish(&events, 2);
        for id in ["1-5", "nonsense", "", "-"] {
            let subscription = events.subscribe(Some(id)).unwrap();
            assert_eq!((subscription.has_gap, numbers(&subscription)), (true, vec![0, 1]), "{id}");
        }
        let ahead = events.subscribe(Some(&events.id(77))).unwrap();
        assert_eq!((ahead.has_gap, numbers(&ahead)), (false, vec![]));
    }

    #[test]
    fn a_slow_reader_is_cut_off_and_counted_and_others_go_on() {
        let events = Events::new();
        let mut slow = events.subscribe(None).unwrap();
        publish(&events, QUEUE);
        assert_eq!((events.cut_off(), events.readers()), (0, 1));
        let mut other = events.subscribe(None).unwrap();
        publish(&events, 1);
        assert_eq!((events.cut_off(), events.readers()), (1, 1));
        assert_eq!(std::iter::from_fn(|| slow.coming.blocking_recv()).count(), QUEUE);
        assert_eq!(other.coming.blocking_recv().unwrap().number, QUEUE as u64);
    }

    #[test]
    fn readers_are_bounded_and_those_that_left_make_room() {
        let events = Events::new();
        let readers: Vec<_> = (0..MAX_READERS).map(|_| events.subscribe(None).unwrap()).collect();
        assert!(events.subscribe(None).is_none());
        drop(readers);
        assert!(events.subscribe(None).is_some());
    }

    fn publish(events: &Events, count: usize) {
        for _ in 0..count {
            events.publish(&EventView::changed("test", None, "x".to_owned()));
        }
    }

    fn numbers(subscription: &Subscription) -> Vec<u64> {
        subscription.missed.iter().map(|event| event.number).collect()
    }
}
