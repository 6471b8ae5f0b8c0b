//! The kernel's sockets for what XDP does not see: fragments, other interfaces, hosts without XDP.
//!
//! All of them carry a per-socket policy that lets them past the guard.

mod allow;
mod flow_label;
mod ip_sender;
mod message;
mod raw_esp;
mod udp_4500;

pub use allow::allow_in_clear;
pub use flow_label::constant_flow_label;
pub use ip_sender::IpSender;
pub use message::Received;
pub use raw_esp::{RawEsp, RawReceived};
pub use udp_4500::Udp4500;
