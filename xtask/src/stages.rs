//! Stages that run one after the other, each timed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Runs stages and remembers how each ended and how long it took.
#[derive(Default)]
pub struct Stages {
    done: Vec<(&'static str, Duration, Option<String>)>,
}

impl Stages {
    /// Runs a stage. One that fails does not keep the next from running: one call shows all there is to mend.
    pub fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<T>) -> Option<T> {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = stage();
        let error = outcome.as_ref().err().map(|e| format!("{e:#}"));
        if let Some(error) = &error {
            println!("=== {name} failed: {error}");
        }
        self.done.push((name, start.elapsed(), error));
        outcome.ok()
    }

    /// Prints the time of every stage.
    ///
    /// # Errors
    /// If any stage failed; the error names each.
    pub fn close(self) -> Result<()> {
        println!("\nstage              seconds");
        for (name, time, error) in &self.done {
            let verdict = if error.is_some() { "failed" } else { "ok" };
            println!("{name:<18} {:>7.1}  {verdict}", time.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, time, _)| *time).sum();
        println!("{:<18} {:>7.1}", "all", total.as_secs_f64());
        let failed: Vec<_> =
            self.done.iter().filter_map(|(n, _, e)| e.as_ref().map(|e| format!("{n}: {e}"))).collect();
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
    }
}
