//! What was expected, what was found, and the verdict.

use std::fmt::Display;
use std::time::Instant;

use anyhow::{Result, bail};

/// Prints expectations as they are checked and remembers those that did not hold.
#[derive(Default)]
pub(super) struct Account {
    part: String,
    held: usize,
    failed: Vec<String>,
}

impl Account {
    /// Runs one part under a heading; an error ends the part and counts as an expectation that did not hold.
    pub(super) fn part(&mut self, title: &str, run: impl FnOnce(&mut Self) -> Result<()>) {
        println!("\n{title}");
        self.part = title.to_owned();
        let start = Instant::now();
        if let Err(error) = run(self) {
            self.expect("the part runs to its end", false, format!("{error:#}"));
        }
        println!("  ({:.1} s)", start.elapsed().as_secs_f64());
    }

    /// A figure that nothing depends on.
    pub(super) fn note(&self, what: &str, found: impl Display) {
        println!("         {what}: {found}");
    }

    /// An expectation, whether it held, and what was found.
    pub(super) fn expect(&mut self, what: &str, held: bool, found: impl Display) {
        println!("  {} {what}: {found}", if held { "ok    " } else { "FAILED" });
        if held {
            self.held += 1;
        } else {
            // What follows the first line, a log as a rule, has just been printed.
            let found = found.to_string();
            self.failed.push(format!("{}: {what}: {}", self.part, found.lines().next().unwrap_or_default()));
        }
    }

    /// An expectation that a figure is exactly `wanted`.
    pub(super) fn expect_equal<T: PartialEq + Display>(&mut self, what: &str, found: T, wanted: T) {
        let text = if found == wanted { found.to_string() } else { format!("{found}, expected {wanted}") };
        self.expect(what, found == wanted, text);
    }

    /// The verdict.
    ///
    /// # Errors
    /// If an expectation did not hold; the error names each.
    pub(super) fn close(self) -> Result<()> {
        if self.failed.is_empty() {
            println!("\nEvery expectation held: {}.", self.held);
            return Ok(());
        }
        bail!(
            "{} of {} expectations did not hold:\n  {}",
            self.failed.len(),
            self.held + self.failed.len(),
            self.failed.join("\n  ")
        )
    }
}
