//! Many initiators in one process against one responder, ours or another: `portcullis bench ike`.
//!
//! Each tunnel is a connection with an identity of its own, which sets up an IKE SA with one Child SA. Nothing is installed in any
//! kernel and no ESP leaves: what is measured is the responder's IKE.

mod driver;
mod tally;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::codec::TrafficSelector;
use portcullis_ike::config::{
    ChildConfig, ConnectionConfig, EspPolicy, Identity, IkePolicy, LocalAuth, RemoteAddress, RemoteAuth,
    Secret, SeparateTransports, StartMode, StartTransport,
};
use portcullis_ike::proposal::{EspProposal, IkeProposal};
use portcullis_ike::shared::Shared;

pub use driver::run;
pub use tally::Tally;

/// The child of each tunnel.
const CHILD: &str = "net";

/// What is to be set up, and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The responder's address and port.
    pub peer: SocketAddr,
    /// Our address, or the one that leads there.
    pub local: Option<IpAddr>,
    /// How many tunnels.
    pub tunnels: usize,
    /// Tunnels that start in a second; without it as many as `in_flight` lets.
    pub rate: Option<f64>,
    /// Most tunnels that are being set up at the same time.
    pub in_flight: usize,
    /// UDP, or TCP from the first message on.
    pub transport: StartTransport,
    /// IKE proposal.
    pub ike: IkeProposal,
    /// ESP proposal.
    pub esp: EspProposal,
    /// Identity of a tunnel; `{}` in it is its number.
    pub id: String,
    /// Identity of the responder; `{}` in it is the number of the tunnel.
    pub remote_id: String,
    /// The key that both ends share.
    pub secret: Secret,
    /// Selectors that each tunnel asks for; `None` on our side is an address of 172.16.0.0/12 by number.
    pub local_ts: Option<TrafficSelector>,
    /// Selectors of the responder's side.
    pub remote_ts: TrafficSelector,
}

impl Plan {
    /// The tunnels as the endpoint takes them.
    fn connections(&self, local: IpAddr) -> Vec<ConnectionConfig> {
        let ike: Shared<IkePolicy> = IkePolicy {
            transport: self.transport,
            separate_transports: SeparateTransports::Prefer,
            proposals: vec![self.ike.clone()],
            // A load generator gives up rather than hide what is slow.
            retransmit_after: Duration::from_secs(1),
            ..IkePolicy::default()
        }
        .into();
        let esp: Shared<EspPolicy> = EspPolicy::default().into();
        let connection = |number: usize| ConnectionConfig {
            name: Arc::from(number.to_string()),
            local_address: Some(local),
            local_id: numbered(&self.id, number),
            local_auth: LocalAuth::Psk(self.secret.clone()),
            remote_address: RemoteAddress::Ip(self.peer.ip()),
            remote_id: numbered(&self.remote_id, number),
            remote_auth: RemoteAuth::Psk(self.secret.clone()),
            ppk: None,
            redirect: Default::default(),
            ike: ike.clone(),
            esp: esp.clone(),
            children: vec![ChildConfig {
                name: Arc::from(CHILD),
                local_ts: vec![self.local_ts.unwrap_or_else(|| address_of(number))],
                remote_ts: vec![self.remote_ts],
                start: StartMode::None,
                proposals: vec![self.esp.clone()],
                rekey_after: Duration::from_secs(8 * 3600),
                lifetime: Duration::from_secs(9 * 3600),
                linger: Duration::from_secs(5),
            }],
        };
        (0..self.tunnels).map(connection).collect()
    }
}

/// An identity as operators write them, with the number of a tunnel.
fn numbered(pattern: &str, number: usize) -> Identity {
    let text = pattern.replace("{}", &number.to_string());
    crate::config::identity(&text).unwrap_or(Identity::Fqdn(text))
}

/// An address of 172.16.0.0/12 for a tunnel.
fn address_of(number: usize) -> TrafficSelector {
    let address = u32::from_be_bytes([172, 16, 0, 0]) | (number as u32 & 0x000f_ffff);
    TrafficSelector::host(IpAddr::V4(address.into()))
}
