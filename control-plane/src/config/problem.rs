//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// A position in the text; both count from 1, columns in characters. Zero where there is no text: in a document of the API.
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
    /// The words that would be right, where they are few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
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

impl Problem {
    /// A document that is none.
    pub fn of_document(error: &serde_json::Error) -> Self {
        Self {
            severity: Severity::Error,
            mark: Mark { line: error.line(), column: error.column() },
            key: String::new(),
            message: error.to_string(),
            allowed: Vec::new(),
        }
    }

    /// The same problem in a document that is part of another.
    pub fn below(self, prefix: &str) -> Self {
        let key = match self.key.as_str() {
            "" => prefix.to_owned(),
            key if key.starts_with(prefix) => key.to_owned(),
            key => format!("{prefix}.{key}"),
        };
        Self { key, ..self }
    }
}

impl fmt::Display for Mark {
    /// `line 7`, or `a document of the API`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str("a document of the API") } else { write!(f, "line {}", self.line) }
    }
}

impl fmt::Display for Problem {
    /// `line:column: key: message`, for the file's name in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mark != Mark::default() {
            write!(f, "{}:{}: ", self.mark.line, self.mark.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
