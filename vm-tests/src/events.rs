//! The events stream of a daemon, followed from the oldest event that it keeps.

use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::api::send;
use crate::wait::Event;

/// One event of a daemon.
#[derive(Clone, PartialEq, Debug)]
pub struct DaemonEvent {
    /// When it happened, by the daemon's clock.
    pub time: SystemTime,
    /// What kind of event.
    pub kind: String,
    /// The connection, or nothing.
    pub connection: String,
    /// All that it says.
    pub body: Value,
}

/// A reader that has every event since it first came; dropping it ends it.
#[derive(Debug)]
pub struct EventReader {
    seen: Arc<Event<Vec<DaemonEvent>>>,
    stream: Arc<Mutex<Current>>,
}

#[derive(Debug, Default)]
struct Current {
    stream: Option<UnixStream>,
    is_closed: bool,
}

impl EventReader {
    /// Reads what the daemon on this control socket keeps, and goes on until it ends.
    pub fn follow(socket: &Path) -> Self {
        let reader = Self { seen: Arc::default(), stream: Arc::default() };
        let (socket, seen, current) = (socket.to_owned(), reader.seen.clone(), reader.stream.clone());
        std::thread::spawn(move || read(&socket, &seen, &current));
        reader
    }

    /// Waits until `found` returns something of the events so far, at most `limit`.
    pub fn wait<T>(&self, limit: Duration, mut found: impl FnMut(&[DaemonEvent]) -> Option<T>) -> Option<T> {
        self.seen.wait(limit, |events| found(events))
    }

    /// Reads the events so far.
    pub fn read<T>(&self, read: impl FnOnce(&[DaemonEvent]) -> T) -> T {
        self.seen.read(|events| read(events))
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        let mut current = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        current.is_closed = true;
        if let Some(stream) = &current.stream {
            // An error means that the daemon has closed it, which is what we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl DaemonEvent {
    fn of(data: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(data).ok()?;
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        Some(Self {
            time: humantime::parse_rfc3339(&text("time")).ok()?,
            kind: text("event"),
            connection: text("connection"),
            body,
        })
    }

    /// The text under a key, or nothing.
    pub fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or_default()
    }
}

/// A reader that is cut off for being slow comes back and gets what it missed.
fn read(socket: &Path, seen: &Event<Vec<DaemonEvent>>, current: &Mutex<Current>) {
    // No event of this daemon, so that it sends all that it keeps.
    let mut last = "0-0".to_owned();
    loop {
        let resume = format!("Last-Event-ID: {last}\r\n");
        let Ok(stream) = send(socket, "GET", "/v1/events", &resume, &Value::Null) else { return };
        {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            current.stream = stream.try_clone().ok();
            if current.is_closed {
                return;
            }
        }
        let before = last.clone();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut last);
            } else if let Some(event) = line.strip_prefix("data: ").and_then(DaemonEvent::of) {
                seen.update(|seen| seen.push(event));
            }
        }
        let is_closed = current.lock().unwrap_or_else(PoisonError::into_inner).is_closed;
        if is_closed || last == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_with_its_time() {
        let data =
            r#"{"time":"2026-01-02T03:04:05.678Z","event":"state_changed","connection":"x","to":"tcp"}"#;
        let event = DaemonEvent::of(data).unwrap();
        let since = event.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_millis() % 60_000, 5678);
        assert_eq!((&*event.kind, &*event.connection, event.text("to")), ("state_changed", "x", "tcp"));
        assert_eq!(DaemonEvent::of("{\"event\":\"gap\"}"), None);
    }
}
