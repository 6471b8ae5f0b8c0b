//! Orders from the handle to a worker. SAs come and go by the SA table, not by orders.

use super::echo::Order;
use crate::sa::PathId;
use crate::sa_table::OutboundIndex;

/// One order. A worker carries out all that wait before it looks at the next packet.
#[derive(Debug)]
pub enum Command {
    /// Send what was held for this path: it has a carrier now, or none any more.
    PathChanged(PathId),
    /// Send one dummy packet on the outbound SA at this index (RFC 4303 section 2.6).
    SendDummy(OutboundIndex),
    /// Packets as long as this path's data do not arrive.
    LowerPathMtu(PathId),
    /// Send one ESP echo request.
    SendEcho(Order),
}
