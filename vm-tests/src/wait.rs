//! Waiting on events, each with a limit.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A value that threads change and others wait on.
#[derive(Debug, Default)]
pub struct Event<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Event<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// Changes the value and wakes whoever waits.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    /// Reads the value.
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until `found` returns something, at most `limit`; `None` when the limit passed.
    pub fn wait<R>(&self, limit: Duration, mut found: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + limit;
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = found(&mut value) {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            value = self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How long the views of one thing may differ: a second, and three where more runs than there are cores for, because each view
/// takes a turn of the processor to be read.
pub(crate) fn agreement_limit() -> Duration {
    Duration::from_secs(if is_busy() { 3 } else { 1 })
}

/// More runs here than there are cores for: times say little.
pub fn is_busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    load.is_none_or(|load| load > cores as f64)
}

/// Asks `question` until it answers, at most `limit`; for things outside the process that send no event, such
/// as the status of a daemon. `None` when the limit passed.
pub fn until<T>(limit: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
