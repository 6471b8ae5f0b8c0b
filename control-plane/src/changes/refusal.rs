//! Why a change was not made.

use std::fmt;

use super::Waiting;
use crate::config::{Problem, Refused};

/// Why a change was not made. Nothing was changed then.
#[derive(Debug)]
pub enum Refusal {
    /// What it would lead to is not valid.
    Invalid(Vec<Problem>),
    /// The file cannot be taken.
    File(Refused),
    /// Another change waits for its confirmation.
    Pending(Waiting),
    /// The store cannot be read, so it is not written either.
    StoreUnreadable(String),
    /// The store or the audit log cannot be written.
    Storage(String),
    /// What runs does not take it.
    Failed(String),
    /// The caller's own condition does not hold.
    Precondition(Precondition),
}

/// A condition of the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Precondition {
    /// It is not there.
    NotFound(String),
    /// It is another version by now.
    Stale,
    /// It is there already.
    Exists,
    /// The caller has to say which version it means.
    Missing,
    /// Only the configuration file can do it.
    InFile(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
            Self::File(refused) => refused.fmt(f),
            Self::Pending(waiting) => write!(
                f,
                "change {} of {} by {} waits for its confirmation: confirm it, or wait until it is undone",
                waiting.id, waiting.resource, waiting.who
            ),
            Self::StoreUnreadable(cause) => write!(
                f,
                "the policy store cannot be read, every connection is fail-closed: {cause}. Put back the file or move it away, then reload"
            ),
            Self::Storage(cause) | Self::Failed(cause) => f.write_str(cause),
            Self::Precondition(precondition) => precondition.fmt(f),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) | Self::InFile(what) => f.write_str(what),
            Self::Stale => f.write_str("it has changed since: read it again, then decide"),
            Self::Exists => f.write_str("it is there already"),
            Self::Missing => f.write_str(
                "If-Match is needed to replace or remove it: send the ETag of what you have read, or *",
            ),
        }
    }
}
