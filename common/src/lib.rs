//! What the XDP programs and user space share: header views, map layouts, drop reasons.
//!
//! Everything here builds without `std`, so that `ebpf` and the worker run the same parser and agree on
//! every byte of the maps. The crate owns no state and does no I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod drop_reason;
pub mod spi;
pub mod steer;

pub use drop_reason::DropReason;
pub use spi::Spi;
pub use steer::SteerWord;
