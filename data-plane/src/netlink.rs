//! Routes, neighbours, addresses and links of this host, from the kernel's notifications.
//!
//! [`Network`] mirrors the kernel's tables on a thread of its own and publishes them as a [`Snapshot`], which
//! workers read without a lock. What is looked up is the `local` and the `main` routing table; other tables and
//! rules are not consulted, so that the routes into our own TUN devices ([`TunRoutes`]) do not lead the outer
//! packets back into them.

mod link_drops;
pub(crate) mod owner;
pub mod raw;
mod snapshot;
mod tables;
mod tracker;
mod tun_routes;

pub use self::link_drops::LinkDrops;
pub use self::snapshot::{Interface, Route, Snapshot};
pub use self::tracker::{Network, NetworkEvent};
pub use self::tun_routes::{RouteError, TunRoute, TunRoutes, TunRouting, network_of, release};
