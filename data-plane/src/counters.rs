//! Counters of the workers: each worker writes its own, readers add them up.

mod accounting;
mod worker_counters;

pub use accounting::Accounting;
pub use worker_counters::{Counter, Sink, Source, WorkerCounters, WorkerSnapshot};
