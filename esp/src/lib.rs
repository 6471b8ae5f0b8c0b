//! Pure ESP (RFC 4303).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod algorithm;

pub use algorithm::Algorithm;
