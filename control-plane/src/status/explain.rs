//! What becomes of a packet, in the words of the API.

use portcullis_data_plane::handle::{self, Explanation};
use portcullis_data_plane::sa::Carrier;
use portcullis_data_plane::spd::Decision;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What becomes of a packet from the protected side.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// What the policies say: `protect`, `bypass`, `discard`, `none` or, where ports decide that were not given,
    /// `ports`.
    pub decision: String,
    /// The connection that protects it.
    pub connection: Option<String>,
    /// The child of the connection.
    pub child: Option<String>,
    /// The SAs that it would use.
    pub tunnel: Option<ExplainedTunnel>,
    /// Why it would be dropped, in the words of the metrics; absent if it passes.
    pub dropped: Option<String>,
    /// How this host reaches the peer, or the destination if nothing protects it.
    pub way: Option<ExplainedWay>,
}

/// The SAs of a protected packet.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainedTunnel {
    /// SPI of the outbound SA.
    pub spi_out: String,
    /// The worker that seals.
    pub worker_out: Option<u8>,
    /// SPI of the inbound SA: answers come on it.
    pub spi_in: Option<String>,
    /// The worker that opens.
    pub worker_in: Option<u8>,
    /// What carries ESP now: `ip`, `udp`, `tcp`, `hold` or `shut`.
    pub carrier: String,
    /// Our outer address and port.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Largest inner packet, in octets.
    pub inner_mtu: Option<usize>,
}

/// How this host reaches an address.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainedWay {
    /// Where.
    pub destination: String,
    /// By this interface.
    pub interface: Option<String>,
    /// By this neighbour.
    pub next_hop: String,
    /// The neighbour is known.
    pub is_resolved: bool,
    /// By a ring of a worker (`ring`), or by the kernel (`kernel`).
    pub by: String,
}

impl From<Explanation> for Explained {
    fn from(explanation: Explanation) -> Self {
        let Explanation { decision, policy, tunnel, dropped, way } = explanation;
        let decision = match decision {
            Decision::Protect(_) => "protect",
            Decision::Bypass => "bypass",
            Decision::Discard => "discard",
            Decision::NoPolicy => "none",
            Decision::FragmentPorts => "ports",
        };
        Self {
            decision: decision.to_owned(),
            connection: policy.as_ref().map(|policy| policy.connection.to_string()),
            child: policy.as_ref().map(|policy| policy.child.to_string()),
            tunnel: tunnel.map(ExplainedTunnel::from),
            dropped: dropped.map(|reason| reason.label().to_owned()),
            way: way.map(ExplainedWay::from),
        }
    }
}

impl From<handle::Tunnel> for ExplainedTunnel {
    fn from(tunnel: handle::Tunnel) -> Self {
        let carrier = match tunnel.carrier {
            Carrier::Ip => "ip",
            Carrier::Udp => "udp",
            Carrier::Stream(_) => "tcp",
            Carrier::Hold => "hold",
            Carrier::Shut => "shut",
        };
        // IP protocol 50 has no ports.
        let end = |address: std::net::SocketAddr| match tunnel.carrier {
            Carrier::Ip => address.ip().to_string(),
            _ => address.to_string(),
        };
        Self {
            spi_out: format!("{:08x}", tunnel.spi_out.0),
            worker_out: tunnel.worker_out,
            spi_in: tunnel.spi_in.map(|spi| format!("{:08x}", spi.0)),
            worker_in: tunnel.worker_in,
            carrier: carrier.to_owned(),
            local: end(tunnel.local),
            remote: end(tunnel.remote),
            inner_mtu: tunnel.inner_mtu,
        }
    }
}

impl From<handle::Way> for ExplainedWay {
    fn from(way: handle::Way) -> Self {
        Self {
            destination: way.destination.to_string(),
            interface: way.interface.map(|name| name.to_string()),
            next_hop: way.next_hop.to_string(),
            is_resolved: way.is_resolved,
            by: if way.by_ring { "ring" } else { "kernel" }.to_owned(),
        }
    }
}
