//! Sans-IO IKEv2 (RFC 7296): bytes, time and commands in, actions out. No socket, no clock, no thread.
//!
//! From the bottom up: [`codec`] is the wire format, `crypto` the algorithms and the key schedule,
//! [`proposal`] what two sides agree on, [`stream`] the framing on TCP. `sa` knows what the payloads of each exchange mean,
//! `transport` what carries IKE and ESP, `live` runs an established IKE SA, and [`endpoint`] a shard of them.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod action;
pub mod codec;
pub mod command;
pub mod config;
mod crypto;
pub mod endpoint;
pub mod event;
mod live;
pub mod path;
pub mod proposal;
pub mod puzzle;
mod sa;
pub mod shared;
pub mod status;
pub mod stream;
pub mod time;
mod transport;

pub use crypto::Provider;
pub use endpoint::Endpoint;
pub use time::Time;
