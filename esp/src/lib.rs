//! Pure ESP (RFC 4303): seal and open in place, anti-replay, ESN, lifetimes; the messages of ESP echo.
//!
//! An SA is an [`Outbound`] or an [`Inbound`]. Each holds what never changes (SPI, expanded key, limits) and
//! works on *memory* that its creator provides: counters and sequence numbers ([`OutboundLive`],
//! [`InboundLive`]) and the bits of the replay window. The memory has one writer, the SA's owner, who alone
//! can call `seal` or `open` because both take `&mut self`; anybody may read the counters at the same time.
//!
//! ```text
//!        | head room 16  | payload data  | TFC | pad | pad length, next header | ICV 16 |
//!        | SPI, Seq | IV |<------------------- encrypted ------------------->|
//! buffer ^start          ^inner.start    ^inner.end                                    ^end
//! ```
//!
//! The crate does no I/O, reads no clock (time is an argument, in nanoseconds of any monotonic clock) and
//! allocates nothing per packet. It knows nothing of UDP, TCP or IP: carriers and inner packets are the data
//! plane's. The AEAD provider is behind [`aead`]; nothing else names it.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod aead;
mod algorithm;
mod echo;
mod error;
mod header;
mod inbound;
mod key;
mod lifetime;
mod live;
mod outbound;
mod replay;
mod sequence;
mod trailer;

pub use algorithm::Algorithm;
pub use echo::{
    ECHO_HEADER_LEN, Echo, EchoError, EchoKind, EchoSubTypes, EchoTooLong, InvalidSubTypes, turn_into_reply,
};
pub use error::{OpenError, SealError};
pub use header::{
    HEAD_LEN, MAX_TAIL_LEN, MIN_PACKET_LEN, NextHeader, least_padded_len, least_padded_max_payload_len,
    max_payload_len, packet_sequence_low, packet_spi, sealed_len,
};
pub use inbound::{Inbound, InboundParameters, Opened};
pub use key::{ExpandedKeymat, InvalidKeyLength, KeyMaterial};
pub use lifetime::{Lifetime, LifetimeEvent, Limits};
pub use live::{InboundLive, InboundMemory, OutboundLive, OutboundMemory, Usage};
pub use outbound::{Outbound, OutboundParameters, Sealed};
pub use replay::{InvalidWindow, WindowSize};

#[cfg(test)]
mod tests;
