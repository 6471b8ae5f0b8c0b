//! Sans-IO IKEv2 (RFC 7296): bytes, time and commands in, actions out. No socket, no clock, no thread.
//!
//! From the bottom up: [`codec`] is the wire format, `crypto` the algorithms and the key schedule,
//! [`proposal`] what two sides agree on, [`stream`] the framing on TCP.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod codec;
mod crypto;
pub mod proposal;
pub mod stream;
