//! What the XDP programs and user space share: header views, map layouts, drop reasons.
//!
//! Everything here builds without `std`, so that `ebpf` and the worker run the same parser and agree on
//! every byte of the maps. The crate owns no state and does no I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(all(feature = "user", not(test)))]
extern crate std;

pub mod bytes;
#[cfg(test)]
mod classify_tests;
pub mod drop_reason;
pub mod ethernet;
pub mod ip;
pub mod lan;
pub mod limit;
pub mod maps;
pub mod near;
pub mod opening;
pub mod prefix_class;
pub mod spi;
pub mod steer;
pub mod verdict;
pub mod wan;

pub use drop_reason::DropReason;
pub use spi::Spi;
pub use steer::SteerWord;
pub use verdict::Verdict;
