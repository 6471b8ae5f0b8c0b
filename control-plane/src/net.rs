//! Sockets: UDP 500, TCP 4500 and the binding of UDP 4500. Nothing here understands IKE but for the few octets
//! that say which shard a message belongs to.

mod accept;
mod bind;
mod counters;
mod esp_stream;
mod holder;
mod outbox;
mod prefix_limit;
pub mod route;
mod source;
pub mod stream;
mod udp;

pub use accept::Acceptor;
pub use bind::{Listeners, bind};
pub use counters::{Counters, TurnedAway};
pub use prefix_limit::PrefixLimit;
pub use source::source_towards;
pub use udp::IkeSocket;
