//! The XDP programs and their maps: loaded, filled, attached, pinned, counted.
//!
//! ```text
//! /sys/fs/bpf/portcullis/<instance>/STEER, KEYS, LAN_IPV4, ...     shared by the interfaces of an instance
//! /sys/fs/bpf/portcullis/<instance>/<interface>/link               keeps the program attached
//!                                              /SOCKETS, VERDICTS  of this interface
//! ```
//!
//! The order at start: [`XdpInstance::open`], [`XdpInstance::load`] for each interface, fill
//! [`SharedMaps`], [`XdpInterface::attach`], bind sockets and [`XdpInterface::set_socket`]. A program that an
//! earlier process left attached stays until `attach` replaces it in one step, and drops protected traffic
//! meanwhile, for its sockets are gone; nothing here detaches but [`release`].

mod bpffs;
mod class_array;
mod error;
mod hook;
mod instance;
mod interface;
mod lan_policy;
mod limiter;
mod log;
mod object;
mod shared;

pub use bpffs::release;
pub use error::BpfError;
pub use hook::AttachMode;
pub use instance::{InterfacePlan, Steering, XdpInstance};
pub use interface::{VerdictCounters, XdpInterface};
pub use lan_policy::{LanClasses, destinations};
pub use object::find_object;
pub use shared::SharedMaps;
