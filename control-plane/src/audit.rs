//! Who changed what, from where, and what came of it: lines of JSON in `audit.log` of the state directory.
//!
//! The file is only appended to, and opened for each line, so that it may be moved away at any time. A change is written
//! down before it acts; where that fails it is refused. Secrets never come here: tokens have names, documents are not
//! copied.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

/// Refusals of callers that nobody knows: so many at once, then one for each interval. They must not fill the disk.
const DENIED_BURST: u32 = 32;
const DENIED_INTERVAL: Duration = Duration::from_secs(10);

/// One line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry<'a> {
    /// `token:NAME`, `certificate:SUBJECT`, `uid:NUMBER`, or `nobody`.
    pub who: &'a str,
    /// An address with port, or `unix`.
    pub from: &'a str,
    /// The request: method and path.
    pub action: &'a str,
    /// What it asked for, in a few words.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'a str,
    /// `accepted` before it acts, `done`, or why not.
    pub result: &'a str,
    /// Refusals of strangers that were not written since the last one that was.
    #[serde(skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

/// The file.
#[derive(Debug)]
pub struct AuditLog {
    state_dir: PathBuf,
    denied: Mutex<Denied>,
}

#[derive(Debug)]
struct Denied {
    tokens: u32,
    refilled: Instant,
    suppressed: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

impl AuditLog {
    /// The log of a state directory.
    pub fn new(state_dir: &Path) -> Self {
        let denied = Denied { tokens: DENIED_BURST, refilled: Instant::now(), suppressed: 0 };
        Self { state_dir: state_dir.to_owned(), denied: Mutex::new(denied) }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.state_dir.join("audit.log")
    }

    /// Adds a line; it is on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&self, entry: &Entry<'_>) -> io::Result<()> {
        let Entry { who, from, action, detail, result, .. } = entry;
        tracing::info!(target: "audit", who, from, action, detail, result, "audit");
        fs::create_dir_all(&self.state_dir)?;
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut line = serde_json::to_vec(&Line { time, entry })?;
        line.push(b'\n');
        let mut file = File::options().append(true).create(true).mode(0o600).open(self.path())?;
        let before = file.metadata()?.len();
        match file.write_all(&line).and_then(|()| file.sync_data()) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Half a line would spoil the next one. Where this fails too, a reader finds one line that is no JSON.
                let _ = file.set_len(before);
                Err(error)
            }
        }
    }

    /// Adds a line about a caller that was turned away, unless there have been too many of them.
    pub fn record_denied(&self, entry: &Entry<'_>) {
        let Some(suppressed) = self.admit(Instant::now()) else { return };
        if let Err(error) = self.record(&Entry { suppressed, ..*entry }) {
            tracing::error!(%error, "{} cannot be written", self.path().display());
        }
    }

    /// How many were left out before this one; `None` if this one is left out too.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let intervals = now.duration_since(denied.refilled).as_secs() / DENIED_INTERVAL.as_secs();
        if intervals > 0 {
            let earned = u32::try_from(intervals).unwrap_or(u32::MAX);
            denied.tokens = denied.tokens.saturating_add(earned).min(DENIED_BURST);
            denied.refilled = now;
        }
        match denied.tokens.checked_sub(1) {
            Some(left) => {
                denied.tokens = left;
                Some(std::mem::take(&mut denied.suppressed))
            }
            None => {
                denied.suppressed += 1;
                None
            }
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_hold_who_what_from_where_and_result() {
        let directory = tempfile::tempdir().unwrap();
        let log = AuditLog::new(&directory.path().join("state"));
        log.record(&ENTRY).unwrap();
        log.record(&Entry { result: "done", ..ENTRY }).unwrap();
        let text = fs::read_to_string(log.path()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["who"], "token:ci");
        assert_eq!(lines[0]["from"], "192.0.2.7:5000");
        assert_eq!(lines[0]["action"], "PUT /v1/x");
        assert_eq!((&lines[0]["result"], &lines[1]["result"]), (&"accepted".into(), &"done".into()));
        assert!(lines[0].get("suppressed").is_none());
    }

    #[test]
    fn strangers_cannot_fill_the_disk() {
        let log = AuditLog::new(Path::new("/nonexistent"));
        let start = Instant::now();
        let written = (0..1000).filter(|_| log.admit(start).is_some()).count();
        assert_eq!(written, DENIED_BURST as usize);
        assert_eq!(log.admit(start + DENIED_INTERVAL), Some(1000 - u64::from(DENIED_BURST)));
        assert_eq!(log.admit(start + DENIED_INTERVAL), None);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        assert!(AuditLog::new(Path::new("/proc/nowhere")).record(&ENTRY).is_err());
    }

    const ENTRY: Entry<'_> = Entry {
        who: "token:ci",
        from: "192.0.2.7:5000",
        action: "PUT /v1/x",
        detail: "",
        result: "accepted",
        suppressed: 0,
    };
}
