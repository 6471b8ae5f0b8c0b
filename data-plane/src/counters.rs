//! Counters of the workers: each worker writes its own, readers add them up.

mod accounting;
mod stream_counters;
mod worker_counters;

pub use accounting::Accounting;
pub use stream_counters::StreamCounters;
pub use worker_counters::{Counter, Sink, Source, WorkerCounters, WorkerSnapshot};
