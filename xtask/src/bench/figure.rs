//! One figure of a benchmark: how it is computed from its runs, printed, and written as JSON.
//!
//! `esp/benches` and `ike/benches` take this file in by its path, so that every suite reports alike.

use serde_json::{Value, json};

/// Which way is good.
#[allow(dead_code, reason = "no suite measures both kinds")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// The figures of a suite, printed as they come.
#[derive(Debug)]
pub struct Report(Vec<Figure>);

impl Report {
    /// Prints the head of the table.
    pub fn begin() -> Self {
        println!(
            "{:<44} {:>11} {:>11} {:>11}  {:<13} {:>9} {:>5}  {:<7} against",
            "case", "min", "median", "max", "unit", "ratio", "goal", ""
        );
        Self(Vec::new())
    }

    /// Prints a figure and keeps it.
    pub fn add(&mut self, figure: Figure) {
        figure.print();
        self.0.push(figure);
    }

    /// The figures as an array of objects.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Figure::to_json).collect()
    }

    /// Writes them where the program's arguments say, `--json FILE`; what else cargo passes is ignored.
    #[allow(dead_code, reason = "for the suites that are programs of their own")]
    pub fn finish(self) -> std::process::ExitCode {
        let mut arguments = std::env::args().skip_while(|argument| argument != "--json");
        if let Some(file) = arguments.next().and_then(|_| arguments.next())
            && let Err(error) = std::fs::write(&file, self.to_json().to_string())
        {
            eprintln!("{file}: {error}");
            return std::process::ExitCode::FAILURE;
        }
        std::process::ExitCode::SUCCESS
    }
}

/// What was measured, against what.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// The suite.
    pub suite: &'static str,
    /// What exactly.
    pub case: String,
    /// The unit of `runs` and `against_runs`.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// One value for each run, at least one.
    pub runs: Vec<f64>,
    /// The limit, or the peer that was measured in the same run.
    pub against: &'static str,
    /// Its value, one for a limit and one for each run for a peer.
    pub against_runs: Vec<f64>,
    /// What the ratio of the medians has to reach, if anything.
    pub goal: Option<f64>,
}

impl Figure {
    fn print(&self) {
        let (min, max) = self.range();
        let (goal, verdict) = match self.goal {
            None => ("-".to_owned(), ""),
            Some(goal) if self.reaches(goal) => (format!("{goal:.2}"), "met"),
            Some(goal) => (format!("{goal:.2}"), "MISSED"),
        };
        println!(
            "{:<44} {min:>11.0} {:>11.0} {max:>11.0}  {:<13} {:>9.3} {goal:>5}  {verdict:<7} {}: {:.0}",
            self.case,
            self.value(),
            self.unit,
            self.ratio(),
            self.against,
            self.against_value()
        );
    }

    /// The object for `--json`. `goal` is what `ratio` has to reach, at least if `better` is `higher`, at most if it is
    /// `lower`; null if there is none.
    pub fn to_json(&self) -> Value {
        let (min, max) = self.range();
        json!({
            "suite": self.suite,
            "case": self.case,
            "value": rounded(self.value()),
            "unit": self.unit,
            "min": rounded(min),
            "max": rounded(max),
            "runs": self.runs.len(),
            "against": self.against,
            "against_value": rounded(self.against_value()),
            "ratio": (self.ratio() * 1000.0).round() / 1000.0,
            "goal": self.goal,
            "better": match self.better {
                Better::Higher => "higher",
                Better::Lower => "lower",
            },
        })
    }

    fn value(&self) -> f64 {
        median(&self.runs)
    }

    fn against_value(&self) -> f64 {
        median(&self.against_runs)
    }

    fn ratio(&self) -> f64 {
        self.value() / self.against_value()
    }

    fn reaches(&self, goal: f64) -> bool {
        match self.better {
            Better::Higher => self.ratio() >= goal,
            Better::Lower => self.ratio() <= goal,
        }
    }

    fn range(&self) -> (f64, f64) {
        let min = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        (min, self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// The middle value; of an even number the upper one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
