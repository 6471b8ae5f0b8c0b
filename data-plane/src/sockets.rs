//! The kernel's sockets for what XDP does not see: fragments, other interfaces, hosts without XDP.
//!
//! All of them carry a per-socket policy that lets them past the guard.

mod allow;
mod flow_label;
mod icmp_errors;
mod ip_sender;
mod kernel_drops;
mod message;
mod outgoing;
mod raw_esp;
mod udp_4500;

pub use allow::allow_in_clear;
pub use flow_label::constant_flow_label;
pub use icmp_errors::IcmpError;
pub use ip_sender::IpSender;
pub use message::Received;
pub use raw_esp::{RawEsp, RawReceived};
pub use udp_4500::{Segmented, Udp4500, UdpOffloads};

/// Room for ESP that arrives while the worker has no core. The kernel doubles it and charges about 2300 octets for a
/// packet of 1400: 14 000 of these, or 0.7 s at 20 000 packets a second.
const RECEIVE_BUFFER_BYTES: libc::c_int = 16 << 20;
/// Room for ESP whose way out is busy: some sixty times what one call may send.
const SEND_BUFFER_BYTES: libc::c_int = 4 << 20;
