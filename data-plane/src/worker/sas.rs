//! What a worker keeps beside each SA that it owns.

use std::sync::Arc;

use super::echo::EchoState;
use super::facts::{InboundFacts, OncePerSecond};
use super::paths::PathState;

/// The SAs of one worker.
pub type WorkerSas = crate::sa_table::WorkerSas<InboundExtra, OutboundExtra>;
/// An SA between two workers.
pub type Moving = crate::sa_table::Moving<InboundExtra, OutboundExtra>;
/// The SAs of all workers.
pub type SaTable = crate::sa_table::SaTable<InboundExtra, OutboundExtra>;

/// Beside an inbound SA.
pub struct InboundExtra {
    /// The path of its IKE SA.
    pub path: Arc<PathState>,
    /// Route-based: everything that comes out of it goes into this TUN device.
    pub tun: Option<usize>,
    /// What the control plane has heard of data and dummies.
    pub facts: InboundFacts,
    /// ESP echo.
    pub echo: EchoState,
}

/// Beside an outbound SA.
pub struct OutboundExtra {
    /// The path of its IKE SA.
    pub path: Arc<PathState>,
    /// When the control plane last heard that data leaves on it.
    pub reported: OncePerSecond,
}
