//! A larger share of the processor for what this session runs, while something is measured.

use std::fs;

/// Between sessions only the weight of their autogroups counts (sched(7)), whatever the nice values inside.
const AUTOGROUP: &str = "/proc/self/autogroup";
const NICE: &str = "-10";

/// Gives the session its old share back when dropped.
#[derive(Debug)]
pub struct Priority {
    before: Option<String>,
}

/// Puts this session before others. Without the privilege or the scheduler for it the figures are just noisier.
pub fn before_others() -> Priority {
    let before = fs::read_to_string(AUTOGROUP)
        .ok()
        .and_then(|shown| Some(shown.trim_end().rsplit_once("nice ")?.1.to_owned()));
    if let Err(error) = fs::write(AUTOGROUP, NICE) {
        eprintln!("{AUTOGROUP}: {error}; other processes disturb the figures more");
        return Priority { before: None };
    }
    Priority { before }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The value was accepted before; a session that keeps its larger share is a nuisance at most.
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}
