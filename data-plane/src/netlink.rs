//! Routes, neighbours, addresses and links of this host, from the kernel's notifications.

pub mod raw;
mod snapshot;

pub use snapshot::{Interface, Neighbour, Route, RouteEntry, Snapshot};
