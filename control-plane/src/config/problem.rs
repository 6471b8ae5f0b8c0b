//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// A position in the text; both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but not as its author may think.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Where in the text.
    #[serde(flatten)]
    pub mark: Mark,
    /// The key it is about, from the root: `connections.dc-west.ike.transport`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Collects problems, so that one run shows them all.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Adds one.
    pub fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// All of them, in the order of the text, errors and warnings apart.
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut all = self.0.into_inner();
        all.sort_by_key(|problem| problem.mark);
        all.into_iter().partition(|problem| problem.severity == Severity::Error)
    }
}

impl fmt::Display for Problem {
    /// `line:column: key: message`, for the file's name in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.mark.line, self.mark.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
