//! A laboratory for gateways: two hosts, two gateways and a router in network namespaces, real processes,
//! exact traffic and an exact capture.
//!
//! ```text
//! host-a ── lan0 gw-a wan0 ── wan-a router wan-b ── wan0 gw-b lan0 ── host-b
//! ```
//!
//! The router has plain routes to both inner networks, so that a packet which leaves a gateway in clear
//! arrives and is seen. Everything a [`Lab`] makes carries the name of its [`Instance`], so that several run
//! at once, and is removed when the value is dropped, on SIGINT and SIGTERM, and, should the process be
//! killed, by the next laboratory ([`Instance::sweep`]).
//!
//! This library starts the built daemon and looks at it from outside: command line, `/metrics`, packets.
//! It links none of the daemon's code.

#![forbid(unsafe_code)]

pub mod api;
mod artefacts;
mod bpf_maps;
pub mod capture;
pub mod cleanup;
mod daemon_config;
pub mod dashboards;
mod events;
mod filter;
mod foreground;
mod gateway;
mod instance;
mod kernel;
mod metrics;
mod netns;
mod notify;
mod pair;
mod ping;
mod pki;
mod process;
pub mod prometheus;
mod relay;
mod soak;
pub mod status;
pub mod strongswan;
mod tcp_flow;
mod topology;
mod udp_flow;
mod views;
mod wait;

pub use artefacts::Artefacts;
pub use bpf_maps::BpfMap;
pub use daemon_config::{DaemonConfig, DataPlaneMode};
pub use events::{DaemonEvent, EventReader};
pub use filter::{Blocked, Breakage, Way};
pub use foreground::run_in_foreground;
pub use gateway::Gateway;
pub use instance::Instance;
pub use kernel::Kernel;
pub use metrics::Metrics;
pub use netns::Namespace;
pub use notify::NotifySocket;
pub use pair::{CHILD, Pair, PairOptions, write_secret};
pub use ping::{Ping, PingReport};
pub use pki::Authority;
pub use process::{Exit, Process};
pub use relay::{Relay, Relayed};
pub use soak::{Soak, SoakEnd, SoakReport};
pub use tcp_flow::{TcpReport, tcp_throughput, tcp_transfer};
pub use topology::{Lab, Nat, Side, ThirdSite, inner_prefixes};
pub use udp_flow::{FlowReport, Rate, UdpFlow};
pub use wait::{Event, is_busy, until};
